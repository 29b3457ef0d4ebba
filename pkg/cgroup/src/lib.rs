//! Everything that Cofferdam decides about control groups, and everything it does with them.
//!
//! **Deciding** is pure: no I/O, the same result wherever it runs, and part of the printed plan.
//!
//! ```text
//! place(layout, id, cgroups_path, driver)          -> Placement   which directories, which systemd unit
//! translate(resources, layout, driver, devices)    -> Settings    which writes, device policy, unit properties
//! ```
//!
//! **Doing** is a [`Cgroup`], a plain value for the state file. It holds no descriptor and changes nothing of the process
//! it is used in, so the shim's threads may use it side by side. A container's life:
//!
//! ```text
//! probe()                                       -> Layout         once; see there for its cost
//! Cgroup::begin(placement, settings, options)   -> Prepared       before its first process; removed again when dropped
//! Prepared::complete                                              while the process has something else to do
//! Prepared::{clone_dir, self_entry}                               how the first process gets in most cheaply
//! Prepared::{enter, entered}                    -> Cgroup         once it is in (systemd: only now there is a unit)
//! Cgroup::{apply, settle, join, freeze, thaw, kill_all, pids, stats, watch_oom}
//! Cgroup::remove
//! ```
//!
//! libcgroups is used for the sizes of huge pages ([`stats`]). The modules that could have used more of it say why they do
//! not; in short: its D-Bus client and its conversions are private, its v1 manager reads mountinfo once for every
//! controller and leaves `name=systemd` out, its statistics fail where a file is missing, its device rules put their
//! defaults after the user's, and its `apply` writes what nobody asked for.

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
pub mod resctrl;
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
pub use prepare::{Options, Prepared, ROOM};
pub use probe::probe;
pub use refused::Refused;
pub use stats::Stats;
pub use translate::{AboveUsage, Settings, cpu_weight, io_weight, translate};
pub use write::{How, Write};
