//! What is remembered of a container: `<root>/<id>/state.json`. `home` is the folder around it, `identity` its first process.
//!
//! The format number changes when an older program would misread the file. Fields that it may ignore do not change it.

mod home;
mod identity;

pub use home::{Home, LockedHome, Root, check_id};
pub use identity::{Init, Liveness, boot_id, has_ended};

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The format number of the state files that this version writes and reads.
pub const FORMAT: u64 = 1;

/// Where a container stands, in the runtime-spec's words (`paused` is runc's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The content of state.json. `C` is what finds the container's cgroup again, `T` what `exec` needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State<C, T> {
    /// [`FORMAT`]
    pub format: u64,
    /// `/proc/sys/kernel/random/boot_id` when the container was made.
    pub boot_id: String,
    /// config.json's `ociVersion`.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// Absolute path of the rootfs.
    pub rootfs: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The container's first process; none while it is being created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// config.json's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The container's cgroup.
    pub cgroup: C,
    /// What `exec` needs.
    pub exec: T,
    /// Hooks that run after the container has begun or ended.
    #[serde(default, skip_serializing_if = "LateHooks::is_empty")]
    pub hooks: LateHooks,
}

/// The hooks that outlive `create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LateHooks {
    /// Run by `start`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<cofferdam_spec::Hook>,
    /// Run by `delete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<cofferdam_spec::Hook>,
}

impl LateHooks {
    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.poststart.is_empty() && self.poststop.is_empty()
    }
}

impl<C, T> State<C, T> {
    /// What became of init. [`Liveness::Dead`] also when there is none, or when it was one of an earlier boot.
    pub fn liveness(&self) -> Result<Liveness, Error> {
        match &self.init {
            Some(init) if self.boot_id == boot_id()? => init.liveness(),
            _ => Ok(Liveness::Dead),
        }
    }
}

/// What `state` and `list` print of a container, in runc's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// config.json's `ociVersion`.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Init's pid; 0 when it has ended.
    pub pid: i32,
    /// Where it stands.
    pub status: Status,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// Absolute path of the rootfs.
    pub rootfs: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// config.json's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user that owns the container; `list` fills it in.
    pub owner: String,
}

impl Summary {
    /// The summary of a container that stands at `status`.
    pub fn of<C, T>(state: &State<C, T>, status: Status) -> Summary {
        Summary {
            oci_version: state.oci_version.clone(),
            id: state.id.clone(),
            pid: match (&state.init, status) {
                (_, Status::Stopped) | (None, _) => 0,
                (Some(init), _) => init.pid,
            },
            status,
            bundle: state.bundle.clone(),
            rootfs: state.rootfs.clone(),
            created: state.created.clone(),
            annotations: state.annotations.clone(),
            owner: String::new(),
        }
    }
}

/// The name of a user from /etc/passwd, `#uid` for one that has none there.
///
/// Not by `getpwuid`, which in a static binary loads the machine's NSS modules and with them another libc.
pub fn user_name(uid: u32) -> String {
    name_in(&fs::read_to_string("/etc/passwd").unwrap_or_default(), uid)
}

fn name_in(passwd: &str, uid: u32) -> String {
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    entry.map_or_else(|| format!("#{uid}"), str::to_owned)
}

/// RFC 3339 in UTC with nanoseconds, as in `state`'s `created`.
pub fn rfc3339_nanos(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut text = rfc3339(since.as_secs());
    text.pop();
    text + &format!(".{:09}Z", since.subsec_nanos())
}

/// RFC 3339 in UTC of seconds since 1970, as in logs: `2026-08-19T10:00:00Z`.
///
/// Days become a date by the civil calendar's 400-year cycle with years beginning in March (H. Hinnant, chrono-compatible
/// low-level date algorithms).
pub fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::identity::tests::{identity_of, sleeper};
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::{AsFd, OwnedFd};

    pub(in crate::state) type Plain = State<String, ()>;

    /// A state with nothing in it.
    pub(in crate::state) fn sample(id: &str) -> Plain {
        State {
            format: FORMAT,
            boot_id: boot_id().unwrap().into(),
            oci_version: "1.3.0".into(),
            id: id.into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: rfc3339_nanos(SystemTime::now()),
            init: None,
            annotations: BTreeMap::new(),
            cgroup: "/c".into(),
            exec: (),
            hooks: LateHooks::default(),
        }
    }

    #[test]
    fn a_newer_writers_extra_fields_are_ignored() {
        let mut value = serde_json::to_value(sample("web")).unwrap();
        value["later"] = serde_json::json!({"x": 1});
        assert_eq!(serde_json::from_value::<Plain>(value).unwrap().id, "web");
    }

    #[test]
    fn init_is_alive_then_a_zombie_then_dead() {
        let mut child = sleeper();
        let mut state = sample("web");
        state.init = Some(identity_of(&child));
        assert!(matches!(state.liveness().unwrap(), Liveness::Alive(_)));
        child.kill().unwrap();
        let pidfd: OwnedFd = cofferdam_sys::process::pidfd_open(child.id() as i32).unwrap().into();
        poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        assert!(matches!(state.liveness().unwrap(), Liveness::Zombie));
        child.wait().unwrap();
        assert!(matches!(state.liveness().unwrap(), Liveness::Dead));
    }

    #[test]
    fn after_a_reboot_nothing_lives() {
        let mut child = sleeper();
        let mut state = sample("web");
        state.init = Some(identity_of(&child));
        state.boot_id = "00000000-0000-0000-0000-000000000000".into();
        assert!(matches!(state.liveness().unwrap(), Liveness::Dead));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_owner_has_a_name_or_a_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nweb:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_in(passwd, 0), "root");
        assert_eq!(name_in(passwd, 1000), "web");
        assert_eq!(name_in(passwd, 1), "#1");
    }

    #[test]
    fn dates_are_right_across_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
        let time = UNIX_EPOCH + Duration::new(1_709_251_200, 5_000_000);
        assert_eq!(rfc3339_nanos(time), "2024-03-01T00:00:00.005000000Z");
    }

    #[test]
    fn a_summary_has_runcs_fields_in_runcs_order() {
        let mut state = sample("web");
        state.created = "2024-03-01T00:00:00.005000000Z".into();
        state.init = Some(Init { pid: 12, inode: None, start: Some(1) });
        let text = serde_json::to_string(&Summary::of(&state, Status::Running)).unwrap();
        assert_eq!(
            text,
            r#"{"ociVersion":"1.3.0","id":"web","pid":12,"status":"running","bundle":"/b","rootfs":"/b/rootfs","created":"2024-03-01T00:00:00.005000000Z","owner":""}"#
        );
        assert_eq!(Summary::of(&state, Status::Stopped).pid, 0);
    }
}
