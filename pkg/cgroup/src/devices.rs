//! Device rules: from config.json's list to what the kernel is given, without I/O.
//!
//! `linux.resources.devices` is an ordered list in the terms of cgroup v1's `devices.allow` and `devices.deny`. It
//! is run through a model of that controller ([`DevicePolicy::compile`]), which starts from deny-all and ends in a
//! default and a set of exceptions. The same exceptions are then written to v1's files, compiled to a BPF program
//! for v2 ([`device_program`](crate::device_program())), or translated for systemd.
//!
//! libcgroups is not used for this: on v1 it puts its own defaults after the user's rules, so that a denied device
//! comes back, and on v2 it needs libbpf.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};
use serde::{Deserialize, Serialize};

use crate::refused::Refused;

/// What may be done with a device: any of `r`, `w` and `m` (mknod).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Access(u8);

impl Access {
    /// mknod(2). The bits are those of BPF's `BPF_DEVCG_ACC_*`.
    pub const MKNOD: Access = Access(1);
    /// Opening for reading.
    pub const READ: Access = Access(2);
    /// Opening for writing.
    pub const WRITE: Access = Access(4);
    /// All three.
    pub const ALL: Access = Access(7);

    /// `BPF_DEVCG_ACC_*` flags.
    pub fn bits(self) -> u8 {
        self.0
    }

    fn union(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    fn without(self, other: Access) -> Access {
        Access(self.0 & !other.0)
    }

    fn overlaps(self, other: Access) -> bool {
        self.0 & other.0 != 0
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut access = Access::default();
        for c in text.chars() {
            access = access.union(match c {
                'r' => Access::READ,
                'w' => Access::WRITE,
                'm' => Access::MKNOD,
                // Nothing that the runtime-spec knows, but engines have written it, and runc passes over it.
                'a' => Access::default(),
                _ => return Err(format!("access {text:?} has {c:?}, which is none of r, w and m")),
            });
        }
        if access.is_empty() { Err("device access cannot be empty".to_owned()) } else { Ok(access) }
    }
}

impl TryFrom<String> for Access {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Access> for String {
    fn from(access: Access) -> String {
        access.to_string()
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Access::READ, "r"), (Access::WRITE, "w"), (Access::MKNOD, "m")] {
            if self.overlaps(bit) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// Block or character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeviceType {
    /// `b`
    #[serde(rename = "b")]
    Block,
    /// `c`
    #[serde(rename = "c")]
    Char,
}

/// The devices that an exception of a [`DevicePolicy`] is about. `None` stands for every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Block or character.
    #[serde(rename = "type")]
    pub typ: DeviceType,
    /// Major number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
    /// Minor number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
}

impl Devices {
    // runc's order: by major, minor, then type, wildcards first.
    fn key(self) -> (Option<u32>, Option<u32>, DeviceType) {
        (self.major, self.minor, self.typ)
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.typ == DeviceType::Block { "b " } else { "c " })?;
        match self.major {
            Some(major) => write!(f, "{major}:")?,
            None => f.write_str("*:")?,
        }
        match self.minor {
            Some(minor) => write!(f, "{minor}"),
            None => f.write_str("*"),
        }
    }
}

/// One exception from the default of a [`DevicePolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Which devices.
    #[serde(flatten)]
    pub devices: Devices,
    /// Which access is granted (where the default is deny) or withheld (where it is allow).
    pub access: Access,
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.devices, self.access)
    }
}

/// What a list of device rules comes down to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DevicePolicy {
    /// Whether a device that no exception names may be used.
    pub allow_by_default: bool,
    /// Sorted by major, minor and type, without duplicates.
    pub exceptions: Vec<Exception>,
    /// The devices in the order in which the rules name them: v1's list then shows them so.
    #[serde(skip)]
    order: Vec<Devices>,
}

/// Two policies are one when they allow the same.
impl PartialEq for DevicePolicy {
    fn eq(&self, other: &DevicePolicy) -> bool {
        self.allow_by_default == other.allow_by_default && self.exceptions == other.exceptions
    }
}

impl Eq for DevicePolicy {}

type Exceptions = BTreeMap<(Option<u32>, Option<u32>, DeviceType), Access>;

/// `allow` (true) or `deny` a device, in the text form of v1's files.
pub(crate) type Rule = (bool, String);

impl DevicePolicy {
    /// Runs `rules` in their order through the model of cgroup v1's devices controller, from deny-all.
    ///
    /// # Errors
    ///
    /// Refuses a rule the controller cannot express. Above all that is a deny which would punch a hole into a
    /// wildcard allow (or the reverse): the kernel takes such a write and ignores it silently.
    pub fn compile(rules: &[LinuxDeviceCgroup]) -> Result<DevicePolicy, Refused> {
        let mut allow_by_default = false;
        let mut exceptions = Exceptions::new();
        let mut order = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let refuse = |what: &str, why: String| {
                Refused::new(format!("/linux/resources/devices/{index}{what}"), why)
            };
            let access: Access =
                rule.access().as_deref().unwrap_or("").parse().map_err(|why| refuse("/access", why))?;
            let typ = match rule.typ().unwrap_or(LinuxDeviceType::A) {
                LinuxDeviceType::A => {
                    // The kernel looks at nothing but the `a`: every device, every access, all exceptions gone.
                    allow_by_default = rule.allow();
                    exceptions.clear();
                    continue;
                }
                LinuxDeviceType::B => DeviceType::Block,
                LinuxDeviceType::C => DeviceType::Char,
                other => {
                    return Err(refuse("/type", format!("invalid cgroup device type {:?}", other.as_str())));
                }
            };
            let devices = Devices {
                typ,
                major: number(rule.major()).map_err(|why| refuse("/major", why))?,
                minor: number(rule.minor()).map_err(|why| refuse("/minor", why))?,
            };
            if rule.allow() == allow_by_default {
                remove(&mut exceptions, Exception { devices, access }).map_err(|why| refuse("", why))?;
            } else {
                let entry = exceptions.entry(devices.key()).or_default();
                *entry = entry.union(access);
                order.push(devices);
            }
        }
        Ok(DevicePolicy { allow_by_default, exceptions: list(exceptions), order })
    }

    /// Everything is allowed, as in a privileged container.
    pub fn allows_everything(&self) -> bool {
        self.allow_by_default && self.exceptions.is_empty()
    }

    /// The writes that bring a v1 cgroup in any state to this policy: first the default, which clears all
    /// exceptions, then each exception, in the order of the rules.
    pub(crate) fn whole(&self) -> Vec<Rule> {
        let default = (self.allow_by_default, "a".to_owned());
        let mut exceptions: Vec<&Exception> = self.exceptions.iter().collect();
        exceptions.sort_by_key(|exception| self.order.iter().position(|named| *named == exception.devices));
        std::iter::once(default)
            .chain(exceptions.into_iter().map(|e| (!self.allow_by_default, e.to_string())))
            .collect()
    }

    /// The least disturbing writes from `current` to this policy, so that a running container that holds on to an
    /// allowed device is not refused it in between.
    pub(crate) fn transition_from(&self, current: &DevicePolicy) -> Vec<Rule> {
        // `devices.list` of a default-allow cgroup shows no exceptions: what is denied there is unknown.
        if current.allow_by_default || self.allow_by_default {
            return self.whole();
        }
        let (old, new) = (map(&current.exceptions), map(&self.exceptions));
        let lost = difference(&old, &new).into_iter().map(|e| (false, e.to_string()));
        let gained = difference(&new, &old).into_iter().map(|e| (true, e.to_string()));
        lost.chain(gained).collect()
    }

    /// Parses v1's `devices.list`.
    pub(crate) fn parse_list(text: &str) -> Result<DevicePolicy, String> {
        let mut policy = DevicePolicy::default();
        let mut exceptions = Exceptions::new();
        for line in text.lines() {
            let malformed = || format!("malformed line {line:?} in devices.list");
            let mut fields = line.split([' ', ':']);
            let (Some(typ), Some(major), Some(minor), Some(access), None) =
                (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(malformed());
            };
            let number = |text: &str| match text {
                "*" => Ok(None),
                text => text.parse().map(Some).map_err(|_| malformed()),
            };
            let typ = match typ {
                "a" => {
                    policy.allow_by_default = true;
                    continue;
                }
                "b" => DeviceType::Block,
                "c" => DeviceType::Char,
                _ => return Err(malformed()),
            };
            let devices = Devices { typ, major: number(major)?, minor: number(minor)? };
            exceptions.insert(devices.key(), access.parse()?);
        }
        policy.exceptions = list(exceptions);
        Ok(policy)
    }
}

fn number(number: Option<i64>) -> Result<Option<u32>, String> {
    match number {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| format!("{n} is no device number")),
    }
}

// Linux, cgroup v1: taking back a part of a wildcard exception is accepted and has no effect (up to 7.x). To
// enumerate what remains instead would take up to 2^32 exceptions. So: an error, as in runc.
// Test: devices::tests::a_hole_in_a_wildcard_is_refused
fn remove(exceptions: &mut Exceptions, rule: Exception) -> Result<(), String> {
    let Devices { typ, major, minor } = rule.devices;
    for (major, minor) in [(None, minor), (major, None), (None, None)] {
        let wider = Devices { typ, major, minor };
        let granted = exceptions.get(&wider.key()).copied().unwrap_or_default();
        if wider != rule.devices && granted.overlaps(rule.access) {
            return Err(format!(
                "{rule} cannot punch a hole into the earlier wildcard rule {wider} {granted}: the devices controller \
                 would ignore it"
            ));
        }
    }
    if let Some(access) = exceptions.get_mut(&rule.devices.key()) {
        *access = access.without(rule.access);
        if access.is_empty() {
            exceptions.remove(&rule.devices.key());
        }
    }
    Ok(())
}

fn list(exceptions: Exceptions) -> Vec<Exception> {
    exceptions
        .into_iter()
        .map(|((major, minor, typ), access)| Exception { devices: Devices { typ, major, minor }, access })
        .collect()
}

fn map(exceptions: &[Exception]) -> Exceptions {
    exceptions.iter().map(|e| (e.devices.key(), e.access)).collect()
}

fn difference(left: &Exceptions, right: &Exceptions) -> Vec<Exception> {
    let mut rest = left.clone();
    for (key, access) in &mut rest {
        *access = access.without(right.get(key).copied().unwrap_or_default());
    }
    rest.retain(|_, access| !access.is_empty());
    list(rest)
}

/// What every container may use besides its own rules, as runc has it: making any device node (which is of no use
/// without the right to open it), the devices that the spec puts into /dev, terminals, and /dev/net/tun.
///
/// The plan compiler appends them to the container's rules.
pub fn default_device_rules() -> Vec<LinuxDeviceCgroup> {
    const RULES: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
        (LinuxDeviceType::C, None, None, "m"),
        (LinuxDeviceType::B, None, None, "m"),
        (LinuxDeviceType::C, Some(1), Some(3), "rwm"),    // null
        (LinuxDeviceType::C, Some(1), Some(8), "rwm"),    // random
        (LinuxDeviceType::C, Some(1), Some(7), "rwm"),    // full
        (LinuxDeviceType::C, Some(5), Some(0), "rwm"),    // tty
        (LinuxDeviceType::C, Some(1), Some(5), "rwm"),    // zero
        (LinuxDeviceType::C, Some(1), Some(9), "rwm"),    // urandom
        (LinuxDeviceType::C, Some(136), None, "rwm"),     // pts/*
        (LinuxDeviceType::C, Some(5), Some(2), "rwm"),    // ptmx
        (LinuxDeviceType::C, Some(10), Some(200), "rwm"), // net/tun
    ];
    RULES
        .into_iter()
        .map(|(typ, major, minor, access)| {
            let mut rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(typ).access(access);
            if let Some(major) = major {
                rule = rule.major(major);
            }
            if let Some(minor) = minor {
                rule = rule.minor(minor);
            }
            rule.build().expect("every field has a default")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_str(json).unwrap()
    }

    fn lines(rules: Vec<Rule>) -> Vec<String> {
        rules
            .into_iter()
            .map(|(allow, text)| format!("{} {text}", if allow { "allow" } else { "deny" }))
            .collect()
    }

    fn docker() -> Vec<LinuxDeviceCgroup> {
        let mut rules = rules(
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},
                {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
                {"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}]"#,
        );
        rules.extend(default_device_rules());
        rules
    }

    #[test]
    fn dockers_rules_end_in_a_short_allow_list() {
        let policy = DevicePolicy::compile(&docker()).unwrap();
        assert_eq!(
            lines(policy.whole()),
            [
                "deny a",
                "allow c 1:5 rwm",
                "allow c 1:3 rwm",
                "allow c *:* m",
                "allow b *:* m",
                "allow c 1:8 rwm",
                "allow c 1:7 rwm",
                "allow c 5:0 rwm",
                "allow c 1:9 rwm",
                "allow c 136:* rwm",
                "allow c 5:2 rwm",
                "allow c 10:200 rwm",
            ]
        );
    }

    #[test]
    fn without_rules_everything_is_denied() {
        assert_eq!(lines(DevicePolicy::compile(&[]).unwrap().whole()), ["deny a"]);
    }

    #[test]
    fn an_allow_all_rule_clears_what_was_before() {
        let policy = DevicePolicy::compile(&rules(
            r#"[{"allow":true,"type":"c","major":1,"minor":5,"access":"r"},{"allow":true,"access":"rwm"}]"#,
        ))
        .unwrap();
        assert!(policy.allows_everything());
        assert_eq!(lines(policy.whole()), ["allow a"]);
    }

    #[test]
    fn denied_access_is_taken_from_what_was_allowed() {
        let policy = DevicePolicy::compile(&rules(
            r#"[{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},
                {"allow":false,"type":"c","major":1,"minor":5,"access":"w"}]"#,
        ))
        .unwrap();
        assert_eq!(lines(policy.whole()), ["deny a", "allow c 1:5 rm"]);
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        let error = DevicePolicy::compile(&rules(
            r#"[{"allow":true,"type":"c","major":1,"access":"rw"},
                {"allow":false,"type":"c","major":1,"minor":5,"access":"r"}]"#,
        ))
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.json /linux/resources/devices/1: c 1:5 r cannot punch a hole into the earlier wildcard rule c 1:* rw: \
             the devices controller would ignore it"
        );
    }

    #[test]
    fn malformed_rules_are_refused_where_they_stand() {
        for (json, message) in [
            (r#"[{"allow":true}]"#, "/linux/resources/devices/0/access: device access cannot be empty"),
            (
                r#"[{"allow":true,"access":"a"}]"#,
                "/linux/resources/devices/0/access: device access cannot be empty",
            ),
            (
                r#"[{"allow":true,"type":"c","access":"rx"}]"#,
                "/linux/resources/devices/0/access: access \"rx\" has 'x', which is none of r, w and m",
            ),
            (
                r#"[{"allow":true,"type":"p","access":"r"}]"#,
                "/linux/resources/devices/0/type: invalid cgroup device type \"p\"",
            ),
            (
                r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
                "/linux/resources/devices/0/major: -2 is no device number",
            ),
            (
                r#"[{"allow":true,"type":"c","minor":4294967296,"access":"r"}]"#,
                "/linux/resources/devices/0/minor: 4294967296 is no device number",
            ),
        ] {
            let error = DevicePolicy::compile(&rules(json)).unwrap_err();
            assert_eq!(error.to_string(), format!("config.json {message}"));
        }
    }

    #[test]
    fn transition_writes_only_what_differs() {
        let current = DevicePolicy::parse_list("c 1:3 rwm\nc 1:5 rwm\nb *:* m\n").unwrap();
        let target = DevicePolicy::parse_list("c 1:3 rwm\nc 1:5 r\nc 1:7 rw\nb *:* m\n").unwrap();
        assert_eq!(lines(target.transition_from(&current)), ["deny c 1:5 wm", "allow c 1:7 rw"]);
        assert_eq!(lines(target.transition_from(&target)), [""; 0]);
    }

    #[test]
    fn transition_from_allow_all_starts_over() {
        let current = DevicePolicy::parse_list("a *:* rwm\n").unwrap();
        assert!(current.allows_everything());
        let target = DevicePolicy::parse_list("c 1:3 rwm\n").unwrap();
        assert_eq!(lines(target.transition_from(&current)), ["deny a", "allow c 1:3 rwm"]);
    }

    #[test]
    fn policy_survives_json() {
        let policy = DevicePolicy::compile(&docker()).unwrap();
        let json = serde_json::to_string(&policy).unwrap();
        assert!(json.contains(r#"{"type":"c","major":136,"access":"rwm"}"#), "{json}");
        assert_eq!(serde_json::from_str::<DevicePolicy>(&json).unwrap(), policy);
    }
}
