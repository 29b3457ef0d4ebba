//! Annotations that engines set for crun, under its names: podman's `--group-add keep-groups` and `--security-opt label=nested` are
//! nothing else, and files for hooks' output are what its users debug hooks with.
//!
//! Who writes annotations need not be who runs this machine: so `features` lists them as unsafe, and what they can reach is bounded where
//! it is used. Names of crun's that are not here mean nothing to us.

use crate::Refused;
use cofferdam_spec::Spec;
use std::ops::Bound;

/// Names a file of the host for what all hooks write to stdout.
pub const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
/// The same for stderr.
pub const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
/// Names a unix socket of the host that gets a pidfd of the container's process.
pub const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
/// Anything but "0": the container's processes keep the supplementary groups of whoever called the runtime.
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// Which option hands `mountLabel` to a new filesystem.
const CONTEXT_TYPE: &str = "run.oci.mount_context_type";
/// mount(8)'s options for SELinux.
const CONTEXT_TYPES: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// Whether there is any for us to look at.
fn any(spec: &Spec) -> bool {
    const PREFIX: &str = "run.oci.";
    let mut behind = spec.annotations.range::<str, _>((Bound::Included(PREFIX), Bound::Unbounded));
    behind.next().is_some_and(|(key, _)| key.starts_with(PREFIX))
}

/// Refuses what could not be carried out. Paths must be found from anywhere: some hooks run when this process has long ended.
pub(crate) fn check(spec: &Spec) -> Result<(), Refused> {
    const SECTION: &str = "config.md#annotations";
    if !any(spec) {
        return Ok(());
    }
    let refuse =
        |key: &str, message: String| Err(Refused::new(format!("/annotations/{key}"), SECTION, message));
    for key in [HOOKS_STDOUT, HOOKS_STDERR, PIDFD_RECEIVER] {
        match spec.annotations.get(key) {
            Some(path) if !path.starts_with('/') || path.contains('\0') => {
                return refuse(key, format!("{path:?} is no absolute path"));
            }
            _ => {}
        }
    }
    match spec.annotations.get(CONTEXT_TYPE) {
        Some(word) if !CONTEXT_TYPES.contains(&word.as_str()) => {
            refuse(CONTEXT_TYPE, format!("{word:?} is none of {}", CONTEXT_TYPES.join(", ")))
        }
        _ => Ok(()),
    }
}

/// Whether supplementary groups stay as they are.
pub(crate) fn keeps_groups(spec: &Spec) -> bool {
    spec.annotations.get(KEEP_GROUPS).is_some_and(|value| value != "0")
}

/// The option that hands `mountLabel` to a filesystem.
pub(crate) fn context_type(spec: &Spec) -> &str {
    spec.annotations.get(CONTEXT_TYPE).map_or(CONTEXT_TYPES[0], String::as_str)
}
