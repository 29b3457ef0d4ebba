//! A container's compiled seccomp filter, as its state keeps it for later execs: Docker's profile is 12 kB of JSON, its filter
//! 2.6 kB, and an exec has nothing to compile.

use crate::{Host, Plan, seccomp};
use cofferdam_json::base64;
use cofferdam_seccomp::Seccomp;
use cofferdam_spec::{Profile, Refused, Spec};
use cofferdam_step::Step;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The filter, and where its listener goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// `struct sock_filter` array of this machine; base64 in JSON.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`
    pub flags: u32,
    /// `listenerPath` of a profile with NOTIFY; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    /// `listenerMetadata`
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
}

impl Filter {
    /// The filter that a container's plan loads; none without seccomp. In place of one that is to be made by
    /// [`HostStep::CompileFilter`](crate::HostStep) stands an empty one, which no kernel takes.
    pub fn of(spec: &Spec, plan: &Plan) -> Option<Filter> {
        let profile = match spec.linux.seccomp.as_ref()? {
            Profile::Read(profile) => profile,
            Profile::Unread { .. } => return Some(Filter::default()),
        };
        let (program, flags) = plan.init.iter().find_map(|step| match step {
            Step::LoadSeccomp { filter, flags } => Some((filter.clone()?, *flags)),
            _ => None,
        })?;
        Some(Filter::new(profile, program, flags))
    }

    /// The filter of the profile in a config, and the compiler's warnings.
    ///
    /// # Errors
    /// When the profile is refused, or there is none.
    pub fn compile(spec: &Spec, host: &Host) -> Result<(Filter, Vec<String>), Refused> {
        let profile = match &spec.linux.seccomp {
            Some(profile) => profile.read()?,
            None => return Err(Refused::new("/linux/seccomp", seccomp::SECTION, "is missing")),
        };
        let program = seccomp::compile(&profile, host)?;
        let filter = Filter::new(&profile, program.to_bytes(), program.flags);
        Ok((filter, program.warnings))
    }

    fn new(profile: &Seccomp, program: Vec<u8>, flags: u32) -> Filter {
        Filter {
            program,
            flags,
            listener_path: profile.listener_path.clone().unwrap_or_default(),
            listener_metadata: profile.listener_metadata.clone().unwrap_or_default(),
        }
    }

    /// The step that loads it.
    pub(crate) fn load(&self) -> Step {
        Step::LoadSeccomp { filter: Some(self.program.clone()), flags: self.flags }
    }
}

impl Plan {
    /// Puts a filter into the plan that otherwise comes with [`Barrier::Committed`](cofferdam_step::Barrier): for printing.
    pub fn show_filter(&mut self, filter: Filter) {
        for step in &mut self.init {
            if let Step::LoadSeccomp { filter: place @ None, flags } = step {
                *flags = filter.flags;
                *place = Some(filter.program);
                return;
            }
        }
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&base64::encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    base64::decode(&text).ok_or_else(|| de::Error::custom("is no base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_the_state_file() {
        for length in 0..40u8 {
            let program = (0..length).map(|i| i.wrapping_mul(151)).collect();
            let filter =
                Filter { program, flags: 5, listener_path: "/a".into(), listener_metadata: String::new() };
            let text = serde_json::to_string(&filter).unwrap();
            assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter, "{text}");
        }
        let text = serde_json::to_string(&Filter { program: b"foob".to_vec(), ..Filter::default() }).unwrap();
        assert_eq!(text, r#"{"program":"Zm9vYg==","flags":0}"#);
    }

    #[test]
    fn what_is_no_base64_is_no_filter() {
        let error = serde_json::from_str::<Filter>(r#"{"program":"A-AA","flags":0}"#).unwrap_err();
        assert_eq!(error.to_string(), "is no base64 at line 1 column 17");
    }
}
