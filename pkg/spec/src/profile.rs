//! `/linux/seccomp`, which need not be read with the rest.
//!
//! Docker's profile is two thirds of its config.json, and reading and compiling it takes as long as all that a container's start waits for
//! besides. Nothing in it decides what else is done, but whether it has a listener: [`Spec::load`](crate::Spec::load) goes past it, and
//! whoever needs the filter reads it, at a time when there is nothing else to do.

use crate::Refused;
use cofferdam_seccomp::Seccomp;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use std::borrow::Cow;
use std::fmt;

/// `/linux/seccomp`, read or still to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// It is read.
    Read(Seccomp),
    /// It is a part of a text, without `SCMP_ACT_NOTIFY`.
    Unread {
        /// All of config.json.
        text: String,
        /// Where the profile begins in it.
        from: usize,
        /// Where it ends.
        to: usize,
    },
}

/// What must be known at once: it makes the filter have a listener.
pub(crate) const WANTED: &str = "SCMP_ACT_NOTIFY";

impl Profile {
    /// The profile.
    ///
    /// # Errors
    /// When it is not JSON or has a value of the wrong type, as [`Spec::parse`](crate::Spec::parse) says it.
    pub fn read(&self) -> Result<Cow<'_, Seccomp>, Refused> {
        match self {
            Profile::Read(profile) => Ok(Cow::Borrowed(profile)),
            Profile::Unread { text, from, to } => match text.get(*from..*to).map(cofferdam_json::from_str) {
                Some(Ok(profile)) => Ok(Cow::Owned(profile)),
                // What is wrong, and where, shows in the whole text.
                _ => Err(crate::Spec::parse(text.as_bytes()).err().unwrap_or_else(|| {
                    Refused::new("/linux/seccomp", "config-linux.md#seccomp", "cannot be read by itself")
                })),
            },
        }
    }

    /// Gives one that is not read the text that it is a part of.
    pub(crate) fn keep(&mut self, document: String) {
        if let Profile::Unread { text, .. } = self {
            *text = document;
        }
    }
}

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        self.read().map_err(ser::Error::custom)?.serialize(output)
    }
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Profile, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Profile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a seccomp profile")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<Profile, D::Error> {
                Seccomp::deserialize(input).map(Profile::Read)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut places: A) -> Result<Profile, A::Error> {
                let mut place = || {
                    places.next_element()?.ok_or_else(|| de::Error::custom("a place in the text is missing"))
                };
                Ok(Profile::Unread { text: String::new(), from: place()?, to: place()? })
            }
        }
        input.deserialize_newtype_struct(cofferdam_json::LEFT, Either)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Profile, Spec};
    use serde_json::{Value, json};

    /// A config around a profile, with something behind it.
    fn config(profile: &str) -> String {
        format!(
            "{{\n \"ociVersion\": \"1.0.2\",\n \"linux\": {{\"seccomp\": {profile}, \"mountLabel\": \"x\"}},\n \"hostname\": \"h\"}}"
        )
    }

    fn loaded(text: &str) -> Result<Spec, String> {
        Spec::parse_most(text.to_owned()).map_err(|refused| refused.to_string())
    }

    #[test]
    fn a_profile_is_left_unread_and_is_the_same_when_it_is_read() {
        for profile in [
            json!({"defaultAction": "SCMP_ACT_ALLOW"}),
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["read", "nonesuch"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 1, "value": 7, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}], "other": [{}]}),
            json!({"DefaultAction": "SCMP_ACT_ALLOW", "LISTENERPATH": "/run/agent"}),
        ] {
            let text = config(&format!("{profile:#}"));
            let mut spec = loaded(&text).unwrap();
            assert!(matches!(spec.linux.seccomp, Some(Profile::Unread { .. })), "{text}");
            let whole = Spec::parse(text.as_bytes()).unwrap();
            assert_eq!(serde_json::to_value(&spec).unwrap(), serde_json::to_value(&whole).unwrap());
            spec.read_all().unwrap();
            assert_eq!(spec, whole);
        }
        let twice = config(r#"{"defaultAction": "SCMP_ACT_ALLOW", "DEFAULTACTION": "SCMP_ACT_LOG"}"#);
        let mut spec = loaded(&twice).unwrap();
        spec.read_all().unwrap();
        assert_eq!(spec, Spec::parse(twice.as_bytes()).unwrap());
    }

    #[test]
    fn what_could_have_a_listener_is_read_at_once() {
        let notify = |action: &str| {
            format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l", "syscalls": [{{"names": ["mkdir"], "action": "{action}"}}]}}"#
            )
        };
        for text in [
            config(&notify("SCMP_ACT_NOTIFY")),
            config(&notify("SCMP_ACT_NOTIF\\u0059")),
            config(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).replace("seccomp", "Seccomp"),
        ] {
            let spec = loaded(&text).unwrap();
            assert!(matches!(spec.linux.seccomp, Some(Profile::Read(_))), "{text}");
            assert_eq!(spec, Spec::parse(text.as_bytes()).unwrap());
        }
        assert_eq!(loaded(&config("null")).unwrap().linux.seccomp, None);
    }

    #[test]
    fn what_is_wrong_in_a_profile_is_said_when_it_is_read_as_of_the_whole_text() {
        for (profile, later) in [
            ("{\n\"defaultAction\": \"SCMP_ACT_NONE\"}", true),
            ("{}", true),
            ("{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"syscalls\": [{\"names\": [7]}]}", true),
            ("{\"defaultAction\": \"SCMP_ACT_ALLOW\",}", true),
            ("{\"defaultAction\": [}]", true),
            ("7", false),
            ("[]", false),
            ("{\"a\": \"\\x\"}", false),
        ] {
            let text = config(profile);
            let whole = Spec::parse(text.as_bytes()).unwrap_err().to_string();
            let said = match loaded(&text) {
                Ok(mut spec) if later => spec.read_all().unwrap_err().to_string(),
                Ok(_) => panic!("{text}"),
                Err(said) if !later => said,
                Err(said) => panic!("at once: {said}"),
            };
            assert_eq!(said, whole, "{text}");
        }
        let text = config("{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"syscalls\": [{\"names\": [7]}]}");
        assert_eq!(
            loaded(&text).unwrap().read_all().unwrap_err().to_string(),
            "config.json /linux/seccomp/syscalls/0/names/0: invalid type: integer `7`, expected a string (line 4)"
        );
    }

    /// A profile with each of its bytes gone, or another in its place, is the same value in the end, or refused in the same words.
    #[test]
    fn a_damaged_profile_is_never_taken_for_another() {
        let profile: Value = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]});
        let text = config(&profile.to_string());
        for at in 0..text.len() {
            for other in ["", "\"", "\\", "0", ",", "}", "{", "]", " "] {
                let damaged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                let whole = Spec::parse(damaged.as_bytes()).map_err(|refused| refused.to_string());
                let parts = loaded(&damaged).and_then(|mut spec| {
                    spec.read_all().map_err(|refused| refused.to_string())?;
                    Ok(spec)
                });
                assert_eq!(parts, whole, "{damaged}");
            }
        }
    }
}
