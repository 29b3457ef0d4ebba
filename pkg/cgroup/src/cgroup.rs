//! The cgroup of a container that exists: what the state file keeps, and what the other modules work on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::CgroupError;
use crate::file;
use crate::layout::Version;
use crate::place::{Placement, Unit};
use crate::resctrl::{self, ClassOfService, Group};

/// One directory of a container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnDir {
    /// Its v1 controllers, separated by commas as in `/proc/self/cgroup`; empty for the v2 hierarchy.
    pub controllers: String,
    /// Absolute path.
    pub path: String,
    /// It was there before the container; then it outlives it.
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
#[serde(from = "Saved", into = "Saved")]
pub struct Cgroup {
    pub(crate) version: Version,
    pub(crate) dirs: Vec<OwnDir>,
    pub(crate) unit: Option<Unit>,
    pub(crate) resctrl: Option<Group>,
}

/// How a [`Cgroup`] is written down: the part that the paths have in common, which holds the long id, only once.
#[derive(Serialize, Deserialize)]
struct Saved {
    version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    /// The end of every path.
    below: String,
    /// Controllers and beginning of the path of each directory.
    dirs: Vec<(String, String)>,
    /// Positions in `dirs` of those that existed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    existed: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resctrl: Option<Group>,
}

impl From<Cgroup> for Saved {
    fn from(cgroup: Cgroup) -> Saved {
        let mut below = cgroup.dirs.first().map_or("", |dir| &dir.path);
        while !cgroup.dirs.iter().all(|dir| dir.path.ends_with(below)) {
            // The next shorter end that begins with a slash.
            below = below.get(1..).and_then(|rest| Some(&rest[rest.find('/')?..])).unwrap_or("");
        }
        let begin = |dir: &OwnDir| dir.path[..dir.path.len() - below.len()].to_owned();
        let dirs = cgroup.dirs.iter().map(|dir| (dir.controllers.clone(), begin(dir))).collect();
        let existed = (0..cgroup.dirs.len()).filter(|&index| cgroup.dirs[index].existed).collect();
        Saved {
            version: cgroup.version,
            below: below.to_owned(),
            dirs,
            existed,
            unit: cgroup.unit,
            resctrl: cgroup.resctrl,
        }
    }
}

impl From<Saved> for Cgroup {
    fn from(saved: Saved) -> Cgroup {
        let dir = |(index, (controllers, begin)): (usize, (String, String))| OwnDir {
            controllers,
            path: begin + &saved.below,
            existed: saved.existed.contains(&index),
        };
        let dirs = saved.dirs.into_iter().enumerate().map(dir).collect();
        Cgroup { version: saved.version, dirs, unit: saved.unit, resctrl: saved.resctrl }
    }
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
        Cgroup { version: placement.version, dirs, unit: placement.unit.clone(), resctrl: None }
    }

    /// What it has in resctrl, if anything.
    pub fn resctrl(&self) -> Option<&Group> {
        self.resctrl.as_ref()
    }

    /// New limits in resctrl for a container that exists (`update`). One that has no class of service gets one of its own, with
    /// all its processes: then the value has changed, and is to be saved.
    ///
    /// # Errors
    ///
    /// When resctrl is not mounted, and those of the kernel.
    pub fn limit_resctrl(&mut self, wanted: &ClassOfService) -> Result<(), CgroupError> {
        if let Some(group) = &self.resctrl {
            return group.limit(&wanted.schemata);
        }
        let group = Group::make(wanted, &resctrl::root()?)?;
        for pid in self.pids(true)? {
            group.enter(pid)?;
        }
        self.resctrl = Some(group);
        Ok(())
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
        if self.dirs.is_empty() {
            return Err(CgroupError::NotConfigured { what: "list processes" });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(dirs: &[(&str, &str, bool)]) -> Cgroup {
        let dir = |&(controllers, path, existed): &(&str, &str, bool)| OwnDir {
            controllers: controllers.into(),
            path: path.into(),
            existed,
        };
        Cgroup { version: Version::Hybrid, dirs: dirs.iter().map(dir).collect(), unit: None, resctrl: None }
    }

    #[track_caller]
    fn saved(cgroup: &Cgroup) -> String {
        let json = serde_json::to_string(cgroup).unwrap();
        assert_eq!(serde_json::from_str::<Cgroup>(&json).unwrap(), *cgroup);
        json
    }

    #[test]
    fn what_paths_have_in_common_is_saved_once() {
        let same = [("cpu,cpuacct", "/cg/cpu/docker/0123", false), ("", "/cg/unified/docker/0123", true)];
        assert_eq!(
            saved(&cgroup(&same)),
            r#"{"version":"hybrid","below":"/docker/0123","dirs":[["cpu,cpuacct","/cg/cpu"],["","/cg/unified"]],"existed":[1]}"#
        );
        let deeper = [("cpu", "/cg/cpu/x", false), ("memory", "/cg/memory/own/x", false)];
        assert_eq!(
            saved(&cgroup(&deeper)),
            r#"{"version":"hybrid","below":"/x","dirs":[["cpu","/cg/cpu"],["memory","/cg/memory/own"]]}"#
        );
        saved(&cgroup(&[("cpu", "/cg/cpu/x", false)]));
        saved(&cgroup(&[("cpu", "/cg/cpu/x", false), ("memory", "/cg/memory/y", false)]));
        saved(&cgroup(&[]));
    }

    #[test]
    fn controllers_lead_to_their_directory() {
        let cgroup = cgroup(&[("cpu,cpuacct", "/cg/cpu/x", false), ("", "/cg/unified/x", false)]);
        assert_eq!(cgroup.path("cpuacct"), Some("/cg/cpu/x"));
        assert_eq!(cgroup.path("memory"), None);
        assert_eq!(cgroup.unified_path(), Some("/cg/unified/x"));
        let paths = cgroup.paths();
        assert_eq!(paths.keys().collect::<Vec<_>>(), ["", "cpu", "cpuacct"]);
        assert_eq!(cgroup.main_path(), "/cg/cpu/x");
        assert!(!cgroup.exists());
    }
}
