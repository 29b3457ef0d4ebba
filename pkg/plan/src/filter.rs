//! A container's compiled seccomp filter, as its state keeps it for later execs: Docker's profile is 12 kB of JSON, its filter
//! 2.6 kB, and an exec has nothing to compile.

use crate::Plan;
use cofferdam_spec::Spec;
use cofferdam_step::Step;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

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
    /// The filter that a container's plan loads; none without seccomp.
    pub fn of(spec: &Spec, plan: &Plan) -> Option<Filter> {
        let profile = spec.linux.seccomp.as_ref()?;
        let (program, flags) = plan.init.iter().find_map(|step| match step {
            Step::LoadSeccomp { filter, flags } => Some((filter.clone(), *flags)),
            _ => None,
        })?;
        Some(Filter {
            program,
            flags,
            listener_path: profile.listener_path.clone().unwrap_or_default(),
            listener_metadata: profile.listener_metadata.clone().unwrap_or_default(),
        })
    }

    /// The step that loads it.
    pub(crate) fn load(&self) -> Step {
        Step::LoadSeccomp { filter: self.program.clone(), flags: self.flags }
    }
}

/// RFC 4648, section 4.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What each letter means; padding is zero, and what is no letter more than 63.
const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values[b'=' as usize] = 0;
    values
};

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let letters = |[a, b, c]: [u8; 3]| {
        let word = u32::from_be_bytes([0, a, b, c]);
        [18, 12, 6, 0].map(|place| ALPHABET[(word >> place) as usize & 63])
    };
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    let (chunks, rest) = bytes.as_chunks();
    chunks.iter().for_each(|chunk| text.extend_from_slice(&letters(*chunk)));
    if let Some((first, second)) = rest.split_first() {
        let last = letters([*first, second.first().copied().unwrap_or(0), 0]);
        text.extend_from_slice(&last[..=rest.len()]);
        text.resize(text.len().next_multiple_of(4), b'=');
    }
    serializer.serialize_str(str::from_utf8(&text).map_err(ser::Error::custom)?)
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    decode(text.as_bytes()).ok_or_else(|| de::Error::custom("is no base64"))
}

/// All of it or nothing.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let padding = text.iter().rev().take_while(|letter| **letter == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    for chunk in text.as_chunks::<4>().0 {
        let mut word = 0u32;
        for letter in chunk {
            let value = VALUES[usize::from(*letter)];
            if value > 63 {
                return None;
            }
            word = word << 6 | u32::from(value);
        }
        bytes.extend_from_slice(&word.to_be_bytes()[1..]);
    }
    bytes.truncate(bytes.len() - padding);
    // Padding in the middle would have read as zeroes.
    (!text[..text.len() - padding].contains(&b'=')).then_some(bytes)
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
        for text in ["A", "AA=A", "A===", "A-AA", "=AAA"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }
}
