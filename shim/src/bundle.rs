//! What the shim itself wants to know of a bundle's config.json. The rest of it is the runtime's.

use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// A shallow view of config.json.
#[derive(Debug, Default, Deserialize)]
pub struct Config {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
    #[serde(default)]
    cgroups_path: Option<String>,
    #[serde(default)]
    uid_mappings: Option<Vec<Mapping>>,
    #[serde(default)]
    gid_mappings: Option<Vec<Mapping>>,
}

#[derive(Debug, Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: Option<String>,
}

/// Annotations that put containers into one shim, the first that is there.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

impl Config {
    /// Reads the bundle's config.json.
    pub fn read(bundle: &Path) -> std::io::Result<Config> {
        let file = std::fs::File::open(bundle.join("config.json"))?;
        Ok(serde_json::from_reader(std::io::BufReader::new(file))?)
    }

    /// The group that the container `id` belongs to.
    pub fn group<'a>(&'a self, id: &'a str) -> &'a str {
        let annotations = self.annotations.as_ref();
        GROUPS.iter().find_map(|name| annotations?.get(*name)).map_or(id, String::as_str)
    }

    /// Whether the container has a pid namespace of its own, so that its other processes end with its init.
    pub fn has_own_pid_namespace(&self) -> bool {
        let namespaces =
            self.linux.as_ref().and_then(|linux| linux.namespaces.as_deref()).unwrap_or_default();
        namespaces.iter().any(|namespace| {
            namespace.kind == "pid" && namespace.path.as_deref().unwrap_or_default().is_empty()
        })
    }

    /// Who the container's root is on the host, user and group: 0 and 0 without a user namespace.
    pub fn root_owner(&self) -> (u32, u32) {
        let root_of = |mappings: Option<&Vec<Mapping>>| {
            let root = mappings.and_then(|mappings| mappings.iter().find(|mapping| mapping.container == 0));
            root.map_or(0, |mapping| mapping.host)
        };
        let linux = self.linux.as_ref();
        (
            root_of(linux.and_then(|linux| linux.uid_mappings.as_ref())),
            root_of(linux.and_then(|linux| linux.gid_mappings.as_ref())),
        )
    }

    /// Whether the cgroup is named as systemd's driver wants it: `slice:prefix:name`.
    pub fn names_a_systemd_cgroup(&self) -> bool {
        let path = self.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref()).unwrap_or_default();
        !path.starts_with('/') && path.split(':').count() == 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn root_is_who_the_mappings_say() {
        assert_eq!(config("{}").root_owner(), (0, 0));
        let mapped = r#"{"linux":{"uidMappings":[{"containerID":1,"hostID":5,"size":9},{"containerID":0,"hostID":7,"size":1}],
            "gidMappings":[{"containerID":0,"hostID":8,"size":65536}]}}"#;
        assert_eq!(config(mapped).root_owner(), (7, 8));
    }

    #[test]
    fn a_pod_s_containers_share_a_group() {
        assert_eq!(config("{}").group("web"), "web");
        let pod = config(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#);
        assert_eq!(pod.group("web"), "pod");
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"mine"}}"#;
        assert_eq!(config(both).group("web"), "mine");
    }

    #[test]
    fn a_joined_pid_namespace_is_not_the_container_s_own() {
        let own = |namespaces: &str| {
            config(&format!(r#"{{"linux":{{"namespaces":{namespaces}}}}}"#)).has_own_pid_namespace()
        };
        assert!(own(r#"[{"type":"mount"},{"type":"pid"}]"#));
        assert!(!own(r#"[{"type":"pid","path":"/proc/1/ns/pid"}]"#));
        assert!(!own("[]"));
        assert!(!config("{}").has_own_pid_namespace());
    }

    #[test]
    fn a_path_of_three_parts_is_systemd_s() {
        let names = |path: &str| {
            config(&format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#)).names_a_systemd_cgroup()
        };
        assert!(names("system.slice:docker:abc"));
        assert!(names(":cri:abc"));
        assert!(!names("/docker/abc"));
        assert!(!names("/a:b:c"));
    }
}
