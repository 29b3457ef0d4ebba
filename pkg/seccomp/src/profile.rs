//! A profile, checked: every refusal is made here, before any code is written.

use std::ops::Range;

use oci_spec::runtime::{
    Arch, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Op,
};

use crate::action::{self, BadErrno};
use crate::arch::{self, ArchInfo};
use crate::conditions::Condition;
use crate::document::{Arg, Name, Seccomp, Syscall};
use crate::syscalls::Row;
use crate::{Error, Target, flag};

/// One of `/linux/seccomp/syscalls`.
pub(crate) struct Entry {
    pub action: u32,
    /// Of [`Profile::conditions`]; none for "always".
    conditions: Range<u32>,
    /// Any one of them is enough; else all must hold.
    any: bool,
}

impl Entry {
    /// Whether it has no conditions.
    pub fn always(&self) -> bool {
        self.conditions.is_empty()
    }
}

/// A profile after all checks.
pub(crate) struct Profile {
    pub default: u32,
    /// The native architecture first, then the others in the profile's order.
    pub arches: Vec<&'static ArchInfo>,
    pub flags: u32,
    pub uses_notify: bool,
    pub entries: Vec<Entry>,
    /// Those of all entries in one list: an entry of a long profile then costs no allocation.
    conditions: Vec<Condition>,
    /// Every known name of every entry, in order, with the entry's index.
    pub calls: Vec<(Row, u32)>,
    pub warnings: Vec<String>,
}

impl Profile {
    /// What makes an entry's rules: any of these must hold, each of which is a list of which all must hold. One empty list for
    /// "always".
    pub fn alternatives(&self, entry: &Entry) -> impl Iterator<Item = &[Condition]> + Clone {
        let conditions = &self.conditions[entry.conditions.start as usize..entry.conditions.end as usize];
        let size = if entry.any { 1 } else { conditions.len().max(1) };
        let always: &[&[Condition]] = if conditions.is_empty() { &[&[]] } else { &[] };
        always.iter().copied().chain(conditions.chunks(size))
    }
}

/// Reads `profile` for a kernel that is `target`.
pub(crate) fn read(profile: &Seccomp, target: &Target) -> Result<Profile, Error> {
    let default = default_action(profile, target)?;
    let mut read = Profile {
        default,
        arches: architectures(profile.architectures.as_deref().unwrap_or_default(), target)?,
        flags: 0,
        uses_notify: false,
        entries: Vec::new(),
        conditions: Vec::new(),
        calls: Vec::new(),
        warnings: Vec::new(),
    };
    let entries = profile.syscalls.as_deref().unwrap_or_default();
    read.entries.reserve_exact(entries.len());
    read.calls.reserve_exact(entries.iter().map(|entry| entry.names.len()).sum());
    for (index, entry) in entries.iter().enumerate() {
        let at = format_args!("syscalls/{index}");
        let action = action_of(entry.action, entry.errno_ret, &at, "errnoRet", target)?;
        read.uses_notify |= entry.action == Action::ScmpActNotify;
        let begin = read.conditions.len() as u32;
        let any = conditions(entry.args.as_deref().unwrap_or_default(), &at, &mut read.conditions)?;
        names(entry, index, &mut read)?;
        let conditions = begin..read.conditions.len() as u32;
        read.entries.push(Entry { action, conditions, any });
    }
    listener(profile, read.uses_notify)?;
    read.flags = flags(profile.flags.as_deref(), read.uses_notify, target)?;
    Ok(read)
}

fn default_action(profile: &Seccomp, target: &Target) -> Result<u32, Error> {
    let action = profile.default_action;
    if action == Action::ScmpActNotify {
        // The process that loads the filter would have to ask an agent that has not got the filter's fd yet.
        return Err(Error::new("defaultAction", "SCMP_ACT_NOTIFY cannot be the default action"));
    }
    let at = format_args!("");
    action_of(action, profile.default_errno_ret, &at, "defaultErrnoRet", target).map_err(|mut error| {
        if error.pointer.ends_with("/action") {
            error.pointer = "/linux/seccomp/defaultAction".into();
        }
        error
    })
}

/// The value of an action, if the kernel knows it and `errno_ret` suits it.
fn action_of(
    action: Action,
    errno_ret: Option<u32>,
    at: &dyn std::fmt::Display,
    errno_field: &str,
    target: &Target,
) -> Result<u32, Error> {
    let field = |name: &str| format!("{at}/{name}").trim_start_matches('/').to_string();
    if !target.actions.contains(action) {
        let sentence = format!("this kernel does not know {action} (kernel.seccomp.actions_avail)");
        return Err(Error::new(field("action"), sentence));
    }
    action::value(action, errno_ret).map_err(|bad| {
        let sentence = match bad {
            BadErrno::NotTaken => format!("{action} returns no error number"),
            BadErrno::Above(limit) => {
                format!(
                    "{} is more than {limit}, the largest that {action} takes",
                    errno_ret.unwrap_or_default()
                )
            }
        };
        Error::new(field(errno_field), sentence)
    })
}

/// The native architecture is always filtered, as libseccomp does: a profile written for other machines must not
/// leave this one's calls to the "wrong architecture" answer.
fn architectures(listed: &[Arch], target: &Target) -> Result<Vec<&'static ArchInfo>, Error> {
    let Some(native) = arch::info(target.arch) else {
        return Err(Error::new("architectures", "the machine's own architecture is not known"));
    };
    let mut arches = vec![native];
    for (index, &arch) in listed.iter().enumerate() {
        let info = arch::info(arch).unwrap_or(native);
        if info.big_endian() != native.big_endian() {
            // libseccomp's EDOM, which runc reports as "error adding architecture to seccomp filter".
            let sentence = format!("{arch} has another byte order than this machine's {}", native.arch);
            return Err(Error::new(format!("architectures/{index}"), sentence));
        }
        if !arches.iter().any(|known| known.arch == info.arch) {
            arches.push(info);
        }
    }
    Ok(arches)
}

/// runc's reading of `args`: all must hold, but if one argument occurs twice, any one of them is enough, which is what comes back.
/// Where all must hold they are sorted by argument.
fn conditions(
    args: &[Arg],
    at: &dyn std::fmt::Display,
    conditions: &mut Vec<Condition>,
) -> Result<bool, Error> {
    let begin = conditions.len();
    let (mut seen, mut repeated) = (0_u8, false);
    for (index, arg) in args.iter().enumerate() {
        if arg.index > 5 {
            let sentence = format!("a system call has the arguments 0 to 5, not {}", arg.index);
            return Err(Error::new(format!("{at}/args/{index}/index"), sentence));
        }
        let bit = 1 << arg.index;
        repeated |= seen & bit != 0;
        seen |= bit;
        conditions.push(condition(arg));
    }
    if !repeated {
        conditions[begin..].sort_unstable_by_key(|condition| condition.arg);
    }
    Ok(repeated)
}

/// `SCMP_CMP_MASKED_EQ` compares the bits of `value` with `valueTwo`; no other operator looks at `valueTwo`.
fn condition(arg: &Arg) -> Condition {
    let (value, mask) = match arg.op {
        Op::ScmpCmpMaskedEq => (arg.value_two.unwrap_or(0), arg.value),
        _ => (arg.value, u64::MAX),
    };
    Condition { arg: arg.index as u8, op: arg.op, value, mask }
}

/// Names the table does not have are passed over, as runc does: profiles are written for kernels to come.
fn names(entry: &Syscall, index: usize, read: &mut Profile) -> Result<(), Error> {
    if entry.names.is_empty() {
        return Err(Error::new(format!("syscalls/{index}/names"), "there must be at least one name"));
    }
    for (at, name) in entry.names.iter().enumerate() {
        let refuse = |sentence| Err(Error::new(format!("syscalls/{index}/names/{at}"), sentence));
        match name {
            // What loads the filter must still be able to report, before any agent can answer (runc's rule).
            Name::Known(row) if entry.action == Action::ScmpActNotify && row.name() == "write" => {
                return refuse("SCMP_ACT_NOTIFY cannot be used for the write syscall");
            }
            Name::Known(row) => read.calls.push((*row, index as u32)),
            Name::Unknown(name) if name.is_empty() => return refuse("an empty string names no system call"),
            Name::Unknown(name) => read.warnings.push(format!(
                "/linux/seccomp/syscalls/{index}/names/{at}: the system call {name:?} is not known and has no effect"
            )),
        }
    }
    Ok(())
}

/// Empty strings are what engines written in Go send for "not set".
fn listener(profile: &Seccomp, uses_notify: bool) -> Result<(), Error> {
    if profile.listener_path.as_ref().is_some_and(|path| !path.is_empty()) {
        return Ok(());
    }
    if uses_notify {
        return Err(Error::new(
            "listenerPath",
            "SCMP_ACT_NOTIFY needs the socket of an agent, and none is set",
        ));
    }
    if profile.listener_metadata.as_ref().is_some_and(|metadata| !metadata.is_empty()) {
        return Err(Error::new("listenerMetadata", "it must not be set while listenerPath is not"));
    }
    Ok(())
}

/// Flags for seccomp(2). Where the profile does not say, `SECCOMP_FILTER_FLAG_SPEC_ALLOW` (if known), as runc: without
/// it, older kernels switch a mitigation on that slows the whole process down (runc#2430).
fn flags(listed: Option<&[Flag]>, uses_notify: bool, target: &Target) -> Result<u32, Error> {
    let mut flags = if uses_notify { flag::NEW_LISTENER } else { 0 };
    let Some(listed) = listed else {
        return Ok(flags | flag::SPEC_ALLOW & target.flags);
    };
    for (index, &name) in listed.iter().enumerate() {
        let refuse = |sentence| Err(Error::new(format!("flags/{index}"), sentence));
        let bit = match name {
            Flag::SeccompFilterFlagLog => flag::LOG,
            Flag::SeccompFilterFlagSpecAllow => flag::SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv => flag::WAIT_KILLABLE_RECV,
            // With TSYNC_ESRCH a thread that cannot follow is an error like any other, instead of a positive
            // result; and without it the kernel refuses TSYNC beside NEW_LISTENER.
            Flag::SeccompFilterFlagTsync if target.flags & flag::TSYNC_ESRCH != 0 => {
                flag::TSYNC | flag::TSYNC_ESRCH
            }
            Flag::SeccompFilterFlagTsync if uses_notify => {
                return refuse(format!("before Linux 5.7, {name} does not go with SCMP_ACT_NOTIFY"));
            }
            Flag::SeccompFilterFlagTsync => flag::TSYNC,
        };
        if bit & !target.flags != 0 {
            return refuse(format!("this kernel does not know {name}"));
        }
        if bit == flag::WAIT_KILLABLE_RECV && !uses_notify {
            return refuse(format!(
                "{name} is only for filters with SCMP_ACT_NOTIFY (EINVAL from the kernel)"
            ));
        }
        flags |= bit;
    }
    Ok(flags)
}
