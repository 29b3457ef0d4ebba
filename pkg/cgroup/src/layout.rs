//! Where the control group hierarchies are, and where in them the caller is.
//!
//! A [`Layout`] is a plain value: [`probe`](crate::probe()) reads it from the machine, a test writes it down. Nothing in
//! this module does I/O.

use serde::{Deserialize, Serialize};

/// One mounted cgroup v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// The controllers bound to it, as the kernel lists them in `/proc/self/cgroup`: `["cpu", "cpuacct"]`, or
    /// `["name=systemd"]` for the one without controllers that systemd keeps.
    pub controllers: Vec<String>,
    /// Absolute path of the mount point.
    pub mount_point: String,
    /// The caller's own cgroup, as a path below the mount point that begins with `/`.
    pub own_path: String,
}

/// The cgroup v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unified {
    /// Absolute path of the mount point.
    pub mount_point: String,
    /// The caller's own cgroup, as a path below the mount point that begins with `/`.
    pub own_path: String,
}

impl Hierarchy {
    /// The caller's own cgroup, as an absolute path.
    pub fn own_dir(&self) -> String {
        dir(&self.mount_point, &self.own_path)
    }
}

impl Unified {
    /// The caller's own cgroup, as an absolute path.
    pub fn own_dir(&self) -> String {
        dir(&self.mount_point, &self.own_path)
    }
}

fn dir(mount_point: &str, path: &str) -> String {
    format!("{mount_point}{}", path.trim_end_matches('/'))
}

/// Which cgroup versions are mounted, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Layout {
    /// Only v1 hierarchies.
    V1 {
        /// In the order of `/proc/self/cgroup`.
        hierarchies: Vec<Hierarchy>,
    },
    /// v1 hierarchies hold the controllers, and a v2 hierarchy is mounted beside them (systemd's "hybrid").
    Hybrid {
        /// In the order of `/proc/self/cgroup`.
        hierarchies: Vec<Hierarchy>,
        /// The v2 hierarchy, which as a rule holds no controller.
        unified: Unified,
    },
    /// Only the v2 hierarchy.
    V2(Unified),
}

/// Which of the three [`Layout`]s a container was placed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// Only v1 hierarchies.
    #[serde(rename = "v1")]
    V1,
    /// v1 hierarchies with a v2 one beside them.
    #[serde(rename = "hybrid")]
    Hybrid,
    /// Only the v2 hierarchy.
    #[serde(rename = "v2")]
    V2,
}

impl Layout {
    /// Which kind this is.
    pub fn version(&self) -> Version {
        match self {
            Layout::V1 { .. } => Version::V1,
            Layout::Hybrid { .. } => Version::Hybrid,
            Layout::V2(_) => Version::V2,
        }
    }

    /// The v1 hierarchies; empty on v2.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        match self {
            Layout::V1 { hierarchies } | Layout::Hybrid { hierarchies, .. } => hierarchies,
            Layout::V2(_) => &[],
        }
    }

    /// The v2 hierarchy; `None` on pure v1.
    pub fn unified(&self) -> Option<&Unified> {
        match self {
            Layout::V1 { .. } => None,
            Layout::Hybrid { unified, .. } | Layout::V2(unified) => Some(unified),
        }
    }

    /// The v1 hierarchy that `controller` is bound to.
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies().iter().find(|h| h.controllers.iter().any(|c| c == controller))
    }
}
