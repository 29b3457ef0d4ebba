use std::fmt;

use serde::{Deserialize, Serialize};

/// A value of config.json that this crate will not turn into a control group setting.
///
/// `pointer` is the JSON pointer (RFC 6901) of the offending value, so that a reader can go straight to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// JSON pointer from the root of config.json, e.g. `/linux/resources/memory/limit`.
    pub pointer: String,
    /// What is wrong with the value, and what would be right.
    pub reason: String,
}

impl Refused {
    pub(crate) fn new(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Refused { pointer: pointer.into(), reason: reason.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config.json {}: {}", self.pointer, self.reason)
    }
}

impl std::error::Error for Refused {}
