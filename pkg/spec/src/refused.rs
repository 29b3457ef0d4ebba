//! The one error of a config that cannot be carried out.

use std::fmt::{Display, Formatter, Result};

/// A property that is refused: where it stands, why, and which section of the runtime-spec says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `config.json`, `process.json` for an exec, `resources` for an update, `mounts` for more of them.
    pub file: &'static str,
    /// JSON pointer (RFC 6901) of the property, `/linux/namespaces/4`; empty for the whole document.
    pub pointer: String,
    /// What is wrong with it, one line.
    pub message: String,
    /// File and anchor in the runtime-spec, `config-linux.md#namespaces`.
    pub section: &'static str,
}

impl Refused {
    /// A refused property of config.json.
    pub fn new(pointer: impl Into<String>, section: &'static str, message: impl Into<String>) -> Refused {
        Refused { file: "config.json", pointer: pointer.into(), message: message.into(), section }
    }

    /// The same for the process document of an exec, whose pointers begin at the process.
    pub fn in_process_json(mut self) -> Refused {
        self.file = "process.json";
        if let Some(rest) = self.pointer.strip_prefix("/process") {
            self.pointer = rest.to_owned();
        }
        self
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.file)?;
        if !self.pointer.is_empty() {
            write!(f, " {}", self.pointer)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Refused {}
