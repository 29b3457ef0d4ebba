//! The MUSTs of the runtime-spec that the config alone can break, and a few that the kernel would report without a place.
//!
//! What depends on the machine (AppArmor, cgroup versions, seccomp) is looked at by the compiler, `pkg/plan`.

mod linux;
mod mounts;
mod process;
mod sysctl;

pub use mounts::mappings as check_mappings;

use crate::{Hook, Process, Refused, Spec};

/// What a check ends with, and where it writes what is odd but no error.
type Checked = Result<(), Refused>;
type Warnings = Vec<String>;

impl Spec {
    /// Holds the config against the runtime-spec. What comes back is odd, but no error: lines for the log.
    ///
    /// # Errors
    /// The first property that breaks a MUST, or that is not implemented yet.
    pub fn check(&self) -> Result<Vec<String>, Refused> {
        let mut warnings = Vec::new();
        version(&self.oci_version)?;
        root(self)?;
        // It is required when start is called, which is when a container without one fails.
        if let Some(process) = &self.process {
            process::check(process, &mut warnings)?;
        }
        mounts::check(self, &mut warnings)?;
        hooks(self)?;
        if self.annotations.contains_key("") {
            return refuse("/annotations", "config.md#annotations", "a key is empty");
        }
        linux::check(self, &mut warnings)?;
        names(self)?;
        sysctl::check(self)?;
        Ok(warnings)
    }

    /// The part of [`Spec::check`] that is about `/mounts`.
    ///
    /// # Errors
    /// The first entry that breaks a MUST.
    pub fn check_mounts(&self) -> Result<Vec<String>, Refused> {
        let mut warnings = Vec::new();
        mounts::check(self, &mut warnings)?;
        Ok(warnings)
    }
}

impl Process {
    /// Holds the process of an exec against the runtime-spec, as [`Spec::check`] does. Pointers begin with `/process`.
    ///
    /// # Errors
    /// The first property that breaks a MUST.
    pub fn check(&self) -> Result<Vec<String>, Refused> {
        let mut warnings = Vec::new();
        process::check(self, &mut warnings)?;
        Ok(warnings)
    }
}

fn refuse<T>(
    pointer: impl Into<String>,
    section: &'static str,
    message: impl Into<String>,
) -> Result<T, Refused> {
    Err(Refused::new(pointer, section, message))
}

/// The kernel reads C strings: what stands behind a NUL would be lost.
fn no_nul(pointer: impl FnOnce() -> String, section: &'static str, text: &str) -> Checked {
    if text.as_bytes().contains(&0) {
        return refuse(pointer(), section, "contains a NUL character");
    }
    Ok(())
}

/// Versions 1.0.0 to 1.3.x, with or without `-rc1` or `-dev` (config.md, "Specification version").
pub(crate) fn version(version: &str) -> Checked {
    const SECTION: &str = "config.md#specification-version";
    let refuse = |message: String| refuse("/ociVersion", SECTION, message);
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

fn root(spec: &Spec) -> Checked {
    const SECTION: &str = "config.md#root";
    let Some(root) = &spec.root else {
        return refuse("/root", SECTION, "root must be specified");
    };
    if root.path.is_empty() {
        return refuse("/root/path", SECTION, "must not be empty");
    }
    no_nul(|| "/root/path".to_owned(), SECTION, &root.path)
}

fn hooks(spec: &Spec) -> Checked {
    for (kind, hooks) in spec.hooks.kinds() {
        for (i, entry) in hooks.iter().enumerate() {
            hook(entry, || format!("/hooks/{kind}/{i}"))?;
        }
    }
    Ok(())
}

fn hook(hook: &Hook, pointer: impl Fn() -> String) -> Checked {
    const SECTION: &str = "config.md#posix-platform-hooks";
    if !hook.path.starts_with('/') {
        let message = format!("{:?} is no absolute path", hook.path);
        return refuse(format!("{}/path", pointer()), SECTION, message);
    }
    for text in std::iter::once(&hook.path).chain(&hook.args).chain(&hook.env) {
        no_nul(&pointer, SECTION, text)?;
    }
    match hook.timeout {
        Some(seconds) if seconds <= 0 || seconds > i64::from(u32::MAX) => {
            let message = format!("{seconds} seconds: must be greater than zero, and fit 32 bits");
            refuse(format!("{}/timeout", pointer()), SECTION, message)
        }
        _ => Ok(()),
    }
}

/// The kernel's `__NEW_UTS_LEN`.
const NAME_LIMIT: usize = 64;

fn names(spec: &Spec) -> Checked {
    for (name, value, section) in [
        ("hostname", &spec.hostname, "config.md#hostname"),
        ("domainname", &spec.domainname, "config.md#domainname"),
    ] {
        if value.is_empty() {
            continue;
        }
        if spec.linux.namespace("uts").is_none() {
            let message = format!("unable to set {name} without a private UTS namespace");
            return refuse(format!("/{name}"), section, message);
        }
        if value.len() > NAME_LIMIT {
            let message = format!("has {} bytes, and the kernel takes {NAME_LIMIT}", value.len());
            return refuse(format!("/{name}"), section, message);
        }
        no_nul(|| format!("/{name}"), section, value)?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::{Spec, default_spec};
    use serde_json::{Value, json};

    /// The default config with `change` merged into it, objects key by key; a list replaces a list.
    pub fn changed(change: Value) -> Spec {
        fn merge(base: &mut Value, change: Value) {
            match (base, change) {
                (Value::Object(base), Value::Object(change)) => {
                    for (key, value) in change {
                        merge(base.entry(key).or_insert(Value::Null), value);
                    }
                }
                (base, change) => *base = change,
            }
        }
        let mut base = serde_json::to_value(default_spec(false)).unwrap();
        merge(&mut base, change);
        Spec::parse(base.to_string().as_bytes()).unwrap()
    }

    /// The message with which the changed default config is refused.
    pub fn refusal(change: Value) -> String {
        let refused = changed(change).check().unwrap_err();
        assert!(refused.section.starts_with("config"), "{:?} is no section", refused.section);
        refused.to_string()
    }

    /// The warnings about the changed default config.
    pub fn warnings(change: Value) -> Vec<String> {
        changed(change).check().unwrap()
    }

    #[test]
    fn the_default_config_is_fine() {
        assert_eq!(warnings(json!({})), Vec::<String>::new());
    }

    #[test]
    fn versions_from_1_0_to_1_3_are_taken() {
        for good in ["1.0.0", "1.0.2-dev", "1.1.0-rc.1", "1.2.1", "1.3.0", "1.3.7+build"] {
            assert!(super::version(good).is_ok(), "{good}");
        }
        let message = |version| super::version(version).unwrap_err().to_string();
        assert_eq!(message(""), "config.json /ociVersion: is missing");
        assert_eq!(message("1"), "config.json /ociVersion: \"1\" is no semantic version");
        assert_eq!(message("1.0.x"), "config.json /ociVersion: \"1.0.x\" is no semantic version");
        assert_eq!(message("1.+0.0"), "config.json /ociVersion: \"1.+0.0\" is no semantic version");
        assert_eq!(
            message("1.4.0"),
            "config.json /ociVersion: version 1.4.0 is not supported: 1.0.0 to 1.3.0 are"
        );
        assert_eq!(
            message("0.9.0"),
            "config.json /ociVersion: version 0.9.0 is not supported: 1.0.0 to 1.3.0 are"
        );
    }

    #[test]
    fn a_root_is_needed() {
        assert_eq!(refusal(json!({"root": null})), "config.json /root: root must be specified");
        assert_eq!(refusal(json!({"root": {"path": ""}})), "config.json /root/path: must not be empty");
        assert_eq!(
            refusal(json!({"root": {"path": "a\0b"}})),
            "config.json /root/path: contains a NUL character"
        );
    }

    #[test]
    fn a_hook_has_an_absolute_path_and_a_positive_timeout() {
        assert_eq!(
            refusal(json!({"hooks": {"prestart": [{"path": "/bin/true"}, {"path": "bin/true"}]}})),
            "config.json /hooks/prestart/1/path: \"bin/true\" is no absolute path"
        );
        assert_eq!(
            refusal(json!({"hooks": {"poststop": [{"path": "/bin/true", "timeout": 0}]}})),
            "config.json /hooks/poststop/0/timeout: 0 seconds: must be greater than zero, and fit 32 bits"
        );
        assert_eq!(
            refusal(json!({"hooks": {"startContainer": [{"path": "/bin/true", "args": ["a\0"]}]}})),
            "config.json /hooks/startContainer/0: contains a NUL character"
        );
    }

    #[test]
    fn an_annotation_has_a_key() {
        assert_eq!(refusal(json!({"annotations": {"": "x"}})), "config.json /annotations: a key is empty");
    }

    #[test]
    fn names_need_a_uts_namespace() {
        let namespaces = json!([{"type": "pid"}, {"type": "mount"}]);
        assert_eq!(
            refusal(json!({"linux": {"namespaces": namespaces}})),
            "config.json /hostname: unable to set hostname without a private UTS namespace"
        );
        assert_eq!(
            refusal(json!({"hostname": "", "domainname": "x", "linux": {"namespaces": namespaces}})),
            "config.json /domainname: unable to set domainname without a private UTS namespace"
        );
        assert_eq!(
            refusal(json!({"hostname": "x".repeat(65)})),
            "config.json /hostname: has 65 bytes, and the kernel takes 64"
        );
    }
}
