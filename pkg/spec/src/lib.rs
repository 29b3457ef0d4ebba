//! config.json: its types, its defaults, and what it may not say.
//!
//! Three doors. [`Spec::load`] reads the file: what is absent or `null` has its default from there on (an absent boolean is
//! `false`, an absent list is empty), and what is not JSON of the right shape is refused with a pointer and a line (in a seccomp
//! profile, when that is read: [`Profile`]).
//! [`Spec::check`] holds the parsed value against every MUST of runtime-spec 1.3 that can be decided without a look at the
//! machine. [`default_spec`] is what `cofferdam spec` writes.
//!
//! Names of properties are taken in any case, as Go takes them: `"CPU"` is the spec's `cpu` to runc and to every engine.
//! Properties that the runtime-spec does not know are passed over, as it demands (config.md, "Extensibility"); so are the
//! sections of other platforms (`vm`, `windows`, `solaris`, `zos`, `freebsd`), which runc passes over as well.
//!
//! # Why these are not all `oci-spec`'s types
//!
//! `resources` is (after a repair, see [`linux`]), and `seccomp` is pkg/seccomp's, which wants no strings. The others lose what a runtime must know, as seen in
//! oci-spec 0.10:
//!
//! - an unknown capability is an error (the spec wants a warning), and the sets are hash sets, so that neither the order nor
//!   the place of a name is left for a message;
//! - `SCHED_FLAG_DL_OVERRUN` is spelt `SCHED_FLAG_D_L_OVERRUN`, and an unknown rlimit or policy is refused without its path;
//! - `execCPUAffinity` is checked by a regular expression compiled at run time, and refuses what the spec's grammar allows;
//! - `mounts` with `null` where a list is allowed, as Go writes it, are refused;
//! - `pids: {}` becomes a limit of zero (a container that cannot fork) instead of no limit;
//! - `sysctl`, `timeOffsets` and `annotations` are hash maps: the same config would make a different plan each time.
mod affinity;
mod capability;
mod check;
mod example;
mod json;
pub mod linux;
mod path;
mod process;
mod profile;
mod refused;
mod spec;

pub use affinity::parse_cpu_list;
pub use capability::{CAPABILITIES, capability_bit};
pub use check::check_mappings;
pub use example::{default_spec, default_spec_json, to_rootless};
pub use json::{FILE_LIMIT, LoadError, parse_mounts, parse_resources};
pub use linux::{
    Device, DeviceType, IdMapping, IntelRdt, Linux, MemoryPolicy, Namespace, NetDevice, Personality,
    TimeOffset,
};
pub use path::{clean, lies_in};
pub use process::{Capabilities, ConsoleSize, ExecCpuAffinity, IoPriority, Process, Rlimit, Scheduler, User};
pub use profile::Profile;
pub use refused::Refused;
pub use spec::{Hook, Hooks, Mount, Root, Spec};

/// The version of the runtime-spec that this crate knows, as hooks and `state` report it.
pub const OCI_VERSION: &str = "1.3.0";
