//! The CPU quota that a cgroup has, where systemd is about to write its own.

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::file;
use crate::layout::Version;
use crate::systemd::property::{self, Property};

/// The quota of a cgroup as its file has it. `update` may name the quota or the period alone, and what it does not name stays as it is;
/// but systemd's word is made of both, in whole percents, and systemd writes it.
pub(crate) struct PresentQuota<'a> {
    cgroup: &'a Cgroup,
    dir: &'a str,
    file: &'static str,
    text: String,
}

impl<'a> PresentQuota<'a> {
    /// None without a `cpu` controller, or where systemd has not enabled it.
    pub fn of(cgroup: &'a Cgroup) -> Option<PresentQuota<'a>> {
        let dir = cgroup.path("cpu")?;
        let file = if cgroup.version() == Version::V2 { "cpu.max" } else { "cpu.cfs_quota_us" };
        Some(PresentQuota { cgroup, dir, file, text: file::read(dir, file).ok()? })
    }

    /// The properties with this quota in place of theirs; those that say nothing of a quota stay as they are.
    pub fn within(&self, properties: &[Property]) -> Vec<Property> {
        let (quotas, mut out): (Vec<_>, Vec<_>) =
            properties.iter().cloned().partition(|property| property.name.starts_with("CPUQuota"));
        match self.parse().filter(|_| !quotas.is_empty()) {
            Some((quota, period)) => property::quota(quota, period, &mut out),
            None => out.extend(quotas),
        }
        out
    }

    /// The quota and the period.
    fn parse(&self) -> Option<(i64, u64)> {
        if self.cgroup.version() == Version::V2 {
            return property::cpu_max(&self.text);
        }
        let period = file::read(self.dir, "cpu.cfs_period_us").ok()?;
        Some((self.text.trim().parse().ok()?, period.trim().parse().ok()?))
    }

    /// Rounds it up to whole percents of a CPU, as runc does: that is what systemd keeps, and writes again at its next reload.
    pub fn round(&self) -> Result<(), CgroupError> {
        let Some((quota @ 1.., period)) = self.parse() else { return Ok(()) };
        let whole = property::whole_percents(quota.unsigned_abs(), period);
        let rounded = u128::from(whole) * u128::from(period) / 1_000_000;
        if rounded == u128::from(quota.unsigned_abs()) {
            return Ok(());
        }
        // A single number leaves v2's period as it is.
        file::write(self.dir, self.file, &rounded.to_string())
    }

    /// Writes it again, as it was.
    pub fn restore(&self) -> Result<(), CgroupError> {
        file::write(self.dir, self.file, self.text.trim())
    }
}
