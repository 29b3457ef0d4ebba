//! v1's cpuset: a new directory has no CPUs and no memory nodes, and takes no process (ENOSPC) until it has.
//!
//! `cgroup.clone_children` would fill it in, but is a setting of the parent, which is not ours. So the values are
//! copied, as every runtime does: config.json's where it has some, the parent's else.

use crate::error::CgroupError;
use crate::file;
use crate::place::Dir;
use crate::translate::Settings;

const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Makes the directory fit to take processes. `fresh`: it has just been made and is empty.
pub(crate) fn inherit(dir: &Dir, settings: &Settings, fresh: bool) -> Result<(), CgroupError> {
    let configured = |file| settings.writes.iter().any(|write| write.file == file);
    let parent = parent(&dir.path);
    for name in FILES {
        let value = match file::read(parent, name) {
            // Only Android mounts cpuset without the prefix ("noprefix"), and there is no container runtime there.
            Err(error) => return Err(error),
            Ok(value) if value.trim().is_empty() => {
                fill_ancestors(dir, name)?;
                file::read(parent, name)?
            }
            Ok(value) => value,
        };
        if !configured(name) && (fresh || file_is_empty(&dir.path, name)?) {
            file::write(&dir.path, name, value.trim())?;
        }
    }
    Ok(())
}

fn file_is_empty(path: &str, name: &str) -> Result<bool, CgroupError> {
    Ok(file::read(path, name)?.trim().is_empty())
}

/// Copies the value down from the mount point to the parent, wherever it is missing.
fn fill_ancestors(dir: &Dir, name: &str) -> Result<(), CgroupError> {
    let start = dir.mount_point.trim_end_matches('/').len();
    let mut above = file::read(&dir.path[..start], name)?;
    for (end, _) in dir.path[start + 1..].match_indices('/') {
        let path = &dir.path[..start + 1 + end];
        let value = file::read(path, name)?;
        if value.trim().is_empty() {
            file::write(path, name, above.trim())?;
        } else {
            above = value;
        }
    }
    Ok(())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
