//! The cgroup of a container that exists: what the state file keeps, and what the other modules work on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::CgroupError;
use crate::file;
use crate::layout::Version;
use crate::place::{Placement, Unit};

/// One directory of a container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnDir {
    /// Its v1 controllers, separated by commas as in `/proc/self/cgroup`; empty for the v2 hierarchy.
    #[serde(rename = "c", default, skip_serializing_if = "String::is_empty")]
    pub controllers: String,
    /// Absolute path.
    #[serde(rename = "p")]
    pub path: String,
    /// It was there before the container; then it outlives it.
    #[serde(rename = "kept", default, skip_serializing_if = "std::ops::Not::not")]
    pub existed: bool,
}

impl OwnDir {
    /// Whether `controller` is bound to this hierarchy.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|c| c == controller)
    }

    /// Whether this is the directory in the v2 hierarchy.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// The cgroup of a container: one directory in each hierarchy, and the systemd unit where there is one.
///
/// It is a value without open files, made to be kept in the container's state file and to be used from any thread of
/// any process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    pub(crate) version: Version,
    pub(crate) dirs: Vec<OwnDir>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
}

impl Cgroup {
    /// The cgroup that a placement stands for, taken to be the container's own in all hierarchies.
    ///
    /// For cleaning up after a creation of which only the placement was recorded: nothing is looked at or made.
    pub fn from_placement(placement: &Placement) -> Cgroup {
        let dirs = placement
            .dirs
            .iter()
            .map(|dir| OwnDir {
                controllers: dir.controllers.join(","),
                path: dir.path.clone(),
                existed: false,
            })
            .collect();
        Cgroup { version: placement.version, dirs, unit: placement.unit.clone() }
    }

    /// Which kind of layout it is in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its directories: one for each v1 hierarchy, then the v2 one.
    pub fn dirs(&self) -> &[OwnDir] {
        &self.dirs
    }

    /// The systemd unit, with that driver.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// The directory that holds the files of `controller`.
    pub fn path(&self, controller: &str) -> Option<&str> {
        let dir = match self.version {
            Version::V2 => self.dirs.first(),
            _ => self.dirs.iter().find(|dir| dir.has(controller)),
        };
        dir.map(|dir| dir.path.as_str())
    }

    /// The directory in the v2 hierarchy, where there is one.
    pub fn unified_path(&self) -> Option<&str> {
        self.dirs.iter().find(|dir| dir.is_unified()).map(|dir| dir.path.as_str())
    }

    /// Controller to directory, as in `cgroup_paths` of runc's state.json; the v2 hierarchy's key is empty.
    pub fn paths(&self) -> BTreeMap<String, String> {
        let mut paths = BTreeMap::new();
        for dir in &self.dirs {
            for controller in dir.controllers.split(',') {
                paths.insert(controller.to_owned(), dir.path.clone());
            }
        }
        paths
    }

    /// Whether it (still) exists: in the hierarchy that stands for all of them.
    pub fn exists(&self) -> bool {
        std::path::Path::new(self.main_path()).is_dir()
    }

    /// The directory to ask where one hierarchy stands for all: processes and existence. As in runc that is v1's
    /// devices, since no container goes without it.
    pub(crate) fn main_path(&self) -> &str {
        self.path("devices").or_else(|| self.dirs.first().map(|dir| dir.path.as_str())).unwrap_or("")
    }

    pub(crate) fn need(&self, controller: &str) -> Result<&str, CgroupError> {
        self.path(controller).ok_or_else(|| CgroupError::NoController { controller: controller.to_owned() })
    }

    /// The processes in it, in the order of the kernel; with `recursive` also those in its sub-cgroups.
    ///
    /// # Errors
    ///
    /// When `cgroup.procs` cannot be read, above all because the cgroup is gone.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        collect(self.main_path(), recursive, &mut pids)?;
        Ok(pids)
    }
}

/// Adds the processes of the cgroup at `path` to `pids`.
pub(crate) fn collect(path: &str, recursive: bool, pids: &mut Vec<i32>) -> Result<(), CgroupError> {
    let text = match file::read(path, "cgroup.procs") {
        // cgroup v2: in a threaded cgroup only threads can be listed.
        Err(error) if error.is(nix::errno::Errno::EOPNOTSUPP) => file::read(path, "cgroup.threads")?,
        text => text?,
    };
    for line in text.lines() {
        match line.parse() {
            // 0 stands for a process of a pid namespace that we cannot see.
            Ok(pid) => pids.push(pid),
            Err(_) => {
                let reason = format!("{line:?} is no process id");
                return Err(CgroupError::Malformed { path: file::join(path, "cgroup.procs"), reason });
            }
        }
    }
    if recursive {
        for child in file::children(path)? {
            match collect(&child, true, pids) {
                // The container may remove its sub-cgroups while we look.
                Err(error) if error.is_gone() => {}
                result => result?,
            }
        }
    }
    Ok(())
}
