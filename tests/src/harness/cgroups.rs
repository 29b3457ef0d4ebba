//! Control groups from the outside: where a process is, what is below the tests' own, and removing it.

use super::host::Host;
use super::procs;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The directory of the process in a controller's hierarchy (with v2 the one there is).
pub fn dir_of(host: &Host, pid: i32, controller: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if host.cgroup_v2 && controllers.is_empty() {
            return Some(below(Path::new(Host::UNIFIED), path));
        }
        if !host.cgroup_v2 && controllers.split(',').any(|name| name == controller) {
            return Some(below(host.hierarchies.get(controller)?, path));
        }
    }
    None
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// Every place where the absolute cgroup path may have a directory.
pub fn places(host: &Host, path: &str) -> Vec<PathBuf> {
    let mut mounts: Vec<&Path> = host.hierarchies.values().map(PathBuf::as_path).collect();
    let unified = [Path::new(Host::UNIFIED), Path::new("/sys/fs/cgroup/unified")];
    mounts.extend(unified.iter().filter(|mount| mount.join("cgroup.procs").exists()));
    mounts.sort_unstable();
    mounts.dedup();
    mounts.into_iter().map(|mount| below(mount, path)).filter(|dir| dir.is_dir()).collect()
}

/// The directories below one, deepest first, itself last.
pub fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.extend(tree(&entry.path()));
        }
    }
    found.push(dir.to_owned());
    found
}

/// Lets everything below go on: what is frozen cannot be killed on v1.
pub fn thaw(dir: &Path) {
    for dir in tree(dir) {
        for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            if dir.join(file).exists() {
                let _ = fs::write(dir.join(file), value);
            }
        }
    }
}

/// The processes in the directories.
pub fn members(dir: &Path) -> Vec<i32> {
    let read = |dir: PathBuf| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default() + "\n";
    let text: String = tree(dir).into_iter().map(read).collect();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Ends what is below and removes the directories.
pub fn remove(dir: &Path) {
    thaw(dir);
    for pid in members(dir) {
        procs::end(pid);
    }
    procs::wait_until(Duration::from_secs(5), || {
        for dir in tree(dir) {
            let _ = fs::remove_dir(dir);
        }
        !dir.exists()
    });
}
