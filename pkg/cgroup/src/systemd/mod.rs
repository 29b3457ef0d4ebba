//! The systemd driver.

pub mod property;
pub mod value;

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::place::Placement;
use crate::translate::Settings;

fn unavailable<T>(unit: Option<&crate::Unit>) -> Result<T, CgroupError> {
    let action = format!("unit {}", unit.map_or("", |unit| &unit.name));
    Err(CgroupError::Systemd { action, reason: "the systemd driver is not in this build".to_owned() })
}

pub(crate) fn prepare(placement: &Placement) -> Result<(), CgroupError> {
    unavailable(placement.unit.as_ref())
}

pub(crate) fn set_properties(cgroup: &Cgroup, _settings: &Settings) -> Result<(), CgroupError> {
    unavailable(cgroup.unit.as_ref())
}

pub(crate) fn stop(cgroup: &Cgroup) -> Result<(), CgroupError> {
    unavailable(cgroup.unit.as_ref())
}
