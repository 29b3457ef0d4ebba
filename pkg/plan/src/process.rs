//! `/process`: user, rights, environment, and the order in which they are given up.

use crate::draft::Draft;
use crate::idmap::Ids;
use crate::{Host, Refused};
use cofferdam_spec::{Process, capability_bit};
use cofferdam_step::{Capabilities, Step};

/// What the shell finds when config.json names no umask: runc's default for a new container.
const UMASK: u32 = 0o022;

/// The bits of one set. Unknown names are a warning (config.md: "runtime SHOULD ... ignore"), told by the spec's check.
fn bits(names: &[String]) -> u64 {
    names.iter().filter_map(|name| capability_bit(name)).fold(0, |bits, bit| bits | 1 << bit)
}

/// The step that drops all capabilities but the config's; none when config.json is silent.
pub(crate) fn set_capabilities(process: &Process) -> Option<Step> {
    process.capabilities.as_ref().map(|sets| {
        let (permitted, inheritable) = (bits(&sets.permitted), bits(&sets.inheritable));
        Step::SetCapabilities(Capabilities {
            effective: bits(&sets.effective),
            permitted,
            inheritable,
            // The kernel raises no other; the spec's check has warned of them.
            ambient: bits(&sets.ambient) & permitted & inheritable,
        })
    })
}

/// The same, but for what loading a filter without no_new_privs takes (seccomp(2)): the program's capabilities and CAP_SYS_ADMIN.
pub(crate) fn set_capabilities_but_for_the_filter(process: &Process) -> Option<Step> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    process.capabilities.as_ref().map(|sets| {
        let all = bits(&sets.permitted) | bits(&sets.inheritable) | CAP_SYS_ADMIN;
        Step::SetCapabilities(Capabilities {
            effective: all,
            permitted: all,
            inheritable: bits(&sets.inheritable),
            ambient: 0,
        })
    })
}

/// LSM labels for the next execve.
pub(crate) fn labels(draft: &mut Draft, process: &Process, host: &Host) -> Result<(), Refused> {
    const SECTION: &str = "config.md#linux-process";
    if !process.apparmor_profile.is_empty() {
        if host.apparmor {
            draft.step(Step::SetAppArmor { profile: process.apparmor_profile.clone() });
        } else {
            // As with crun: engines ask for a profile where they have found AppArmor, and a config that is carried to another
            // machine runs there as everything else does.
            let profile = &process.apparmor_profile;
            draft.warnings.push(format!(
                "config.json /process/apparmorProfile: {profile:?} is ignored, as AppArmor is not enabled on this machine"
            ));
        }
    }
    if !process.selinux_label.is_empty() {
        if !host.selinux {
            let message =
                format!("label {:?}: SELinux is not enabled on this machine", process.selinux_label);
            return Err(Refused::new("/process/selinuxLabel", SECTION, message));
        }
        draft.step(Step::SetSelinux { label: process.selinux_label.clone() });
    }
    Ok(())
}

/// From the runtime's credentials to the container's user, with all permitted capabilities kept: groups, ids, home, cwd.
///
/// The working directory is entered as the user, but with the runtime's capabilities: so that neither a directory that only
/// root may search nor one on a filesystem that squashes root keeps the process out (runc tries both, one after the other).
pub(crate) fn become_user(draft: &mut Draft, process: &Process, ids: &Ids, umask: Option<u32>) {
    let user = &process.user;
    draft.step(Step::OwnStdio { uid: user.uid });
    // The last one counts.
    let home = process.env.iter().rev().find_map(|entry| entry.strip_prefix("HOME="));
    if home.is_none_or(str::is_empty) {
        draft.step(Step::SetHome { uid: user.uid });
    }
    if let Some(sets) = &process.capabilities {
        draft.step(Step::DropBounding { keep: bits(&sets.bounding) });
    }
    draft.step(Step::SetUser {
        uid: user.uid,
        gid: user.gid,
        additional_gids: ids.sets_groups().then(|| user.additional_gids.clone()),
        umask,
    });
    draft.step(Step::ChangeDirectory { path: process.cwd.clone(), create: false });
}

/// The umask of a new container.
pub(crate) fn umask(process: &Process) -> Option<u32> {
    Some(process.user.umask.unwrap_or(UMASK))
}

/// The environment without repetitions: the last value of a name counts, and stands where it stood (as Go's os/exec has it,
/// and so runc).
pub(crate) fn environment(process: &Process) -> Vec<String> {
    let name = |entry: &'_ str| entry.split_once('=').map_or(entry.len(), |(name, _)| name.len());
    let mut seen = std::collections::BTreeSet::new();
    let mut kept: Vec<&String> =
        process.env.iter().rev().filter(|entry| seen.insert(&entry.as_bytes()[..name(entry)])).collect();
    kept.reverse();
    kept.into_iter().cloned().collect()
}
