//! Everything that Cofferdam decides about control groups, and everything it does with them.

mod apply;
mod cgroup;
mod cpuset;
mod delegate;
mod device_filter;
mod device_program;
mod devices;
mod enable;
mod error;
mod file;
mod freeze;
mod kill;
mod layout;
mod oom;
mod place;
mod prepare;
mod probe;
mod refused;
mod remove;
pub mod stats;
pub mod systemd;
mod translate;
mod write;

pub use cgroup::{Cgroup, OwnDir};
pub use device_program::device_program;
pub use devices::{Access, DevicePolicy, DeviceType, Devices, Exception, default_device_rules};
pub use error::CgroupError;
pub use layout::{Hierarchy, Layout, Unified, Version};
pub use oom::OomWatch;
pub use place::{Dir, Driver, Placement, Unit, expand_slice, place};
pub use prepare::{Options, Prepared};
pub use probe::probe;
pub use refused::Refused;
pub use stats::Stats;
pub use translate::{AboveUsage, Settings, cpu_weight, io_weight, translate};
pub use write::{How, Write};
