//! `SCMP_ACT_*` and the values a filter returns for them.

use oci_spec::runtime::LinuxSeccompAction as Action;
use serde::{Deserialize, Serialize};

/// `SECCOMP_RET_KILL_THREAD`; also what libseccomp answers calls of architectures that are not in the profile.
pub(crate) const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
pub(crate) const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
/// `ERRNO` with ENOSYS.
pub(crate) const ENOSYS: u32 = ERRNO | 38;

/// The kernel's `MAX_ERRNO`: it lowers what is above to this.
const MAX_ERRNO: u32 = 4095;
/// `SECCOMP_RET_DATA`: what a tracer is told has 16 bits.
const MAX_DATA: u32 = 0xffff;

/// The actions a kernel knows, as `kernel.seccomp.actions_avail` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionSet(u16);

/// The kernel's word for each action, and ours for its bit.
const WORDS: [(&str, Action); 8] = [
    ("kill_thread", Action::ScmpActKillThread),
    ("kill_process", Action::ScmpActKillProcess),
    ("trap", Action::ScmpActTrap),
    ("errno", Action::ScmpActErrno),
    ("user_notif", Action::ScmpActNotify),
    ("trace", Action::ScmpActTrace),
    ("log", Action::ScmpActLog),
    ("allow", Action::ScmpActAllow),
];

impl ActionSet {
    /// What every kernel since Linux 5.0 with seccomp knows.
    pub const ALL: ActionSet = ActionSet(0xff);
    /// No action: a kernel without seccomp.
    pub const NONE: ActionSet = ActionSet(0);

    /// Reads the contents of /proc/sys/kernel/seccomp/actions_avail. Words that no profile can use are passed over.
    pub fn from_actions_avail(words: &str) -> ActionSet {
        let bit = |word: &str| WORDS.iter().position(|(known, _)| *known == word).map_or(0, |at| 1 << at);
        ActionSet(words.split_ascii_whitespace().map(bit).fold(0, |set, bit| set | bit))
    }

    /// Whether the kernel knows `action`.
    pub fn contains(self, action: Action) -> bool {
        let action = if action == Action::ScmpActKill { Action::ScmpActKillThread } else { action };
        WORDS.iter().position(|(_, known)| *known == action).is_some_and(|at| self.0 & 1 << at != 0)
    }
}

/// What is wrong with an `errnoRet`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadErrno {
    /// The action returns no number.
    NotTaken,
    /// More than this.
    Above(u32),
}

/// The value a filter returns for `action`. EPERM stands in for an absent `errno_ret` (runtime-spec), also as what a
/// tracer is told (runc).
pub(crate) fn value(action: Action, errno_ret: Option<u32>) -> Result<u32, BadErrno> {
    let with_data = |action, limit| match errno_ret.unwrap_or(EPERM) {
        data if data > limit => Err(BadErrno::Above(limit)),
        data => Ok(action | data),
    };
    let value = match action {
        Action::ScmpActErrno => return with_data(ERRNO, MAX_ERRNO),
        Action::ScmpActTrace => return with_data(TRACE, MAX_DATA),
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => KILL_PROCESS,
        Action::ScmpActTrap => TRAP,
        Action::ScmpActNotify => USER_NOTIF,
        Action::ScmpActLog => LOG,
        Action::ScmpActAllow => ALLOW,
    };
    if errno_ret.is_some() { Err(BadErrno::NotTaken) } else { Ok(value) }
}

/// Whether calls that the profile does not mention get by: then calls newer than the profile are left alone too. A
/// tracer decides for itself.
pub(crate) fn lets_by(value: u32) -> bool {
    matches!(value & !MAX_DATA, ALLOW | LOG | TRACE)
}

/// An action as `plan` prints it: `errno 38`, `allow`.
pub fn describe(value: u32) -> String {
    let data = value & MAX_DATA;
    match value & !MAX_DATA {
        KILL_THREAD => "kill the thread".into(),
        KILL_PROCESS => "kill the process".into(),
        TRAP => "trap".into(),
        ERRNO => format!("errno {data}"),
        USER_NOTIF => "notify".into(),
        TRACE => format!("trace {data}"),
        LOG => "log".into(),
        ALLOW => "allow".into(),
        _ => format!("{value:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errno_and_trace_take_a_number() {
        assert_eq!(value(Action::ScmpActErrno, None), Ok(0x0005_0001));
        assert_eq!(value(Action::ScmpActErrno, Some(0)), Ok(0x0005_0000));
        assert_eq!(value(Action::ScmpActErrno, Some(4095)), Ok(0x0005_0fff));
        assert_eq!(value(Action::ScmpActErrno, Some(4096)), Err(BadErrno::Above(4095)));
        assert_eq!(value(Action::ScmpActTrace, None), Ok(0x7ff0_0001));
        assert_eq!(value(Action::ScmpActTrace, Some(0xffff)), Ok(0x7ff0_ffff));
        assert_eq!(value(Action::ScmpActTrace, Some(0x1_0000)), Err(BadErrno::Above(0xffff)));
        assert_eq!(value(Action::ScmpActAllow, Some(1)), Err(BadErrno::NotTaken));
        assert_eq!(value(Action::ScmpActKill, None), value(Action::ScmpActKillThread, None));
    }

    #[test]
    fn kernels_list_their_actions() {
        let all = "kill_process kill_thread trap errno user_notif trace log allow\n";
        assert_eq!(ActionSet::from_actions_avail(all), ActionSet::ALL);
        let old = ActionSet::from_actions_avail("kill_thread trap errno trace allow surprise");
        assert!(old.contains(Action::ScmpActKill));
        assert!(!old.contains(Action::ScmpActKillProcess));
        assert!(!old.contains(Action::ScmpActNotify));
        assert!(!ActionSet::NONE.contains(Action::ScmpActAllow));
    }
}
