//! The MUSTs of the runtime-spec that the config alone can break.

use crate::{Refused, Spec};

impl Spec {
    /// Holds the config against the spec; what comes back is odd, but no error.
    pub fn check(&self) -> Result<Vec<String>, Refused> {
        version(&self.oci_version)?;
        Ok(Vec::new())
    }
}

/// Versions 1.0.0 to 1.3.x, with or without `-rc1` or `-dev` (config.md, "Specification version").
pub(crate) fn version(version: &str) -> Result<(), Refused> {
    const SECTION: &str = "config.md#specification-version";
    let refuse = |message: String| Err(Refused::new("/ociVersion", SECTION, message));
    if version.is_empty() {
        return refuse("is missing".to_owned());
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u32>> = core
        .split('.')
        .map(|number| number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit())))
        .collect();
    match numbers[..] {
        [Some(1), Some(0..=3), Some(_)] => Ok(()),
        [Some(_), Some(_), Some(_)] => {
            refuse(format!("version {version} is not supported: 1.0.0 to {} are", crate::OCI_VERSION))
        }
        _ => refuse(format!("{version:?} is no semantic version")),
    }
}
