//! A container's cgroup, found through its init process, which is how it is found whoever made it.

use std::{
    fs,
    path::{Path, PathBuf},
};

const MOUNT: &str = "/sys/fs/cgroup";

/// Where a container's cgroup lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// The unified hierarchy.
    V2(PathBuf),
    /// Folders by controller (`memory`, `cpuacct`, ...).
    V1(Vec<(String, PathBuf)>),
}

impl Cgroup {
    /// The cgroup of a process; none if it cannot be told.
    pub fn of(pid: i32) -> Option<Cgroup> {
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Cgroup::parse(&table, Path::new(MOUNT))
    }

    fn parse(table: &str, mount: &Path) -> Option<Cgroup> {
        let below = |path: &str| path.trim_start_matches('/').to_string();
        if mount.join("cgroup.controllers").exists() {
            let path = table.lines().find_map(|line| line.strip_prefix("0::"))?;
            return Some(Cgroup::V2(mount.join(below(path))));
        }
        let mut dirs = Vec::new();
        for line in table.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (parts.next(), parts.next()) else { continue };
            for name in names.split(',').filter(|name| !name.is_empty()) {
                let name = name.trim_start_matches("name=");
                // Controllers that are mounted together have links by their single names beside.
                let dir = mount.join(name).join(below(path));
                if dir.is_dir() {
                    dirs.push((name.to_string(), dir));
                }
            }
        }
        (!dirs.is_empty()).then_some(Cgroup::V1(dirs))
    }

    /// The folder of a v1 controller.
    pub fn v1_dir(&self, controller: &str) -> Option<&Path> {
        match self {
            Cgroup::V2(_) => None,
            Cgroup::V1(dirs) => {
                dirs.iter().find(|(name, _)| name == controller).map(|(_, dir)| dir.as_path())
            }
        }
    }

    /// On cgroup v2, makes every controller of the root available down to this cgroup, as containerd's shim does: its clients
    /// read statistics of all of them.
    pub fn enable_controllers(&self) {
        let Cgroup::V2(dir) = self else { return };
        let Ok(controllers) = fs::read_to_string(Path::new(MOUNT).join("cgroup.controllers")) else { return };
        let enable: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
        let mut parents: Vec<&Path> =
            dir.ancestors().skip(1).take_while(|parent| parent.starts_with(MOUNT)).collect();
        parents.reverse();
        for parent in parents {
            if let Err(error) = fs::write(parent.join("cgroup.subtree_control"), enable.join(" ")) {
                crate::debug!("enabling controllers in {}: {error}", parent.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_by_name() {
        let mount = std::env::temp_dir().join(format!("shim-cgroup-{}", std::process::id()));
        for dir in ["memory/docker/a", "cpu,cpuacct/docker/a", "systemd/x"] {
            fs::create_dir_all(mount.join(dir)).unwrap();
        }
        std::os::unix::fs::symlink("cpu,cpuacct", mount.join("cpuacct")).unwrap();
        let table =
            "9:name=systemd:/x\n4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n2:pids:/docker/a\n0::/\n";
        let cgroup = Cgroup::parse(table, &mount).unwrap();
        assert_eq!(cgroup.v1_dir("memory"), Some(mount.join("memory/docker/a").as_path()));
        assert_eq!(cgroup.v1_dir("cpuacct"), Some(mount.join("cpuacct/docker/a").as_path()));
        assert_eq!(cgroup.v1_dir("pids"), None, "not mounted");
        fs::write(mount.join("cgroup.controllers"), "memory\n").unwrap();
        assert_eq!(Cgroup::parse("0::/docker/a\n", &mount), Some(Cgroup::V2(mount.join("docker/a"))));
        fs::remove_dir_all(mount).unwrap();
    }
}
