//! The document itself: root, mounts, hooks and what holds them together.

use crate::Refused;
use crate::json::nullable;
use crate::linux::{IdMapping, Linux};
use crate::process::Process;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// config.json. Fields stand in the order in which Go writes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// `ociVersion`
    #[serde(deserialize_with = "nullable")]
    pub oci_version: String,
    /// `process`; needed by `start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// `root`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// `hostname`; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// `domainname`; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// `mounts`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// `hooks`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// `annotations`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `linux`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Linux::is_empty")]
    pub linux: Linux,
}

/// `/root`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// `path`, absolute or relative to the bundle.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// `readonly`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub readonly: bool,
}

/// `/mounts/N`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// `destination`, in the container.
    #[serde(deserialize_with = "nullable")]
    pub destination: String,
    /// `type`; empty for none.
    #[serde(rename = "type", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub fstype: String,
    /// `source`; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// `options`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// `uidMappings`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// `gidMappings`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// `/hooks`: six lists, each in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// `prestart`, deprecated: runtime namespaces, before the pivot.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// `createRuntime`: runtime namespaces, before the pivot.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// `createContainer`: container namespaces, before the pivot.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// `startContainer`: in the container, before the process.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// `poststart`: runtime namespaces, once the process runs.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// `poststop`: runtime namespaces, once the container is deleted.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// The annotation that bounds hooks without a `timeout` of their own: seconds. A hook that hangs keeps its container in between for
/// good, and whoever runs a container need not be who writes its hooks.
const HOOKS_TIMEOUT: &str = "cofferdam.hooks.timeout";

impl Spec {
    /// Gives hooks without a timeout the annotation's.
    pub(crate) fn bound_hooks(&mut self) -> Result<(), Refused> {
        let Some(text) = self.annotations.get(HOOKS_TIMEOUT) else { return Ok(()) };
        let Some(seconds) = text.parse::<u32>().ok().filter(|seconds| *seconds > 0) else {
            let message = format!("{text:?} is no number of seconds greater than zero that fits 32 bits");
            return Err(Refused::new(
                format!("/annotations/{HOOKS_TIMEOUT}"),
                "config.md#annotations",
                message,
            ));
        };
        for hooks in self.hooks.lists() {
            hooks.iter_mut().for_each(|hook| hook.timeout = hook.timeout.or(Some(i64::from(seconds))));
        }
        Ok(())
    }
}

impl Hooks {
    fn lists(&mut self) -> [&mut Vec<Hook>; 6] {
        [
            &mut self.prestart,
            &mut self.create_runtime,
            &mut self.create_container,
            &mut self.start_container,
            &mut self.poststart,
            &mut self.poststop,
        ]
    }

    /// The lists with their names, in the order of the lifecycle.
    pub fn kinds(&self) -> [(&'static str, &[Hook]); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }

    /// Whether there is no hook at all.
    pub fn is_empty(&self) -> bool {
        self.kinds().iter().all(|(_, hooks)| hooks.is_empty())
    }
}

/// `/hooks/KIND/N`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// `path`, absolute.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// `args`, `argv[0]` included; empty for the path alone.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `env`: the hook's whole environment.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `timeout` in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// For `skip_serializing_if`: Go's `omitempty` leaves out a false boolean.
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}
