//! `/linux/seccomp` as config.json has it.
//!
//! Not oci-spec's type, for it keeps each name as a string and each list as a vector: Docker's profile was 500 allocations, and looked
//! up after that. A name that the table has is its row from the start; a list of one needs no memory of its own.

use std::fmt;
use std::marker::PhantomData;

use oci_spec::runtime::{
    Arch, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Op,
};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::syscalls::{self, Row};

/// A profile. What its values may be is looked at by [`compile`](crate::compile).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    pub(crate) default_action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) architectures: Option<Vec<Arch>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flags: Option<Vec<Flag>>,
    /// `listenerPath`: the socket of the agent that hears of `SCMP_ACT_NOTIFY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// `listenerMetadata`: what that agent is told besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) syscalls: Option<Vec<Syscall>>,
}

/// One of `syscalls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Syscall {
    pub names: List<Name>,
    pub action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<List<Arg>>,
}

/// One of `args`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Arg {
    pub index: u32,
    pub value: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_two: Option<u64>,
    pub op: Op,
}

/// One of `names`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Known(Row),
    /// One that the table has not.
    Unknown(Box<str>),
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Name::Known(row) => row.name(),
            Name::Unknown(name) => name,
        }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Name, D::Error> {
        struct Known;

        impl Visitor<'_> for Known {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(syscalls::row(name).map_or_else(|| Name::Unknown(name.into()), Name::Known))
            }
        }
        input.deserialize_str(Known)
    }
}

/// A list, mostly of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum List<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            List::One(one) => std::slice::from_ref(one),
            List::Many(many) => many,
        }
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_seq(&**self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<List<T>, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
                let Some(first) = items.next_element()? else { return Ok(List::Many(Vec::new())) };
                let Some(second) = items.next_element()? else { return Ok(List::One(first)) };
                let mut many = Vec::with_capacity(8);
                many.extend([first, second]);
                while let Some(next) = items.next_element()? {
                    many.push(next);
                }
                Ok(List::Many(many))
            }
        }
        input.deserialize_seq(Items(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_profile_is_written_as_it_was_read() {
        let json = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/run/agent", "listenerMetadata": "x",
            "syscalls": [
                {"names": ["read", "nonesuch", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["ioctl"], "action": "SCMP_ACT_TRACE", "errnoRet": 7, "args": [
                    {"index": 1, "value": 18446744073709551615_u64, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": [], "action": "SCMP_ACT_LOG", "args": []},
            ],
        });
        let read: Seccomp = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), json);
    }

    #[test]
    fn other_values_are_refused_as_serde_says_it() {
        let error = |entry: Value| {
            let json = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]});
            serde_json::from_value::<Seccomp>(json).unwrap_err().to_string()
        };
        let string = error(json!({"names": [7], "action": "SCMP_ACT_LOG"}));
        assert_eq!(string, "invalid type: integer `7`, expected a string");
        let list = error(json!({"names": "read", "action": "SCMP_ACT_LOG"}));
        assert_eq!(list, "invalid type: string \"read\", expected a sequence");
        assert_eq!(error(json!({"names": ["read"]})), "missing field `action`");
        let action = error(json!({"names": ["read"], "action": "SCMP_ACT_NONE"}));
        assert!(
            action.starts_with("unknown variant `SCMP_ACT_NONE`, expected one of `SCMP_ACT_KILL`"),
            "{action}"
        );
    }
}
