//! Handing a v2 cgroup over to a user, so that the container's root can make sub-cgroups in it.

use std::io::ErrorKind;
use std::os::unix::fs::chown as chown_path;

use crate::error::CgroupError;
use crate::file;

/// Gives the directory and those of its files that the kernel names for the purpose to `uid`.
pub(crate) fn chown(path: &str, uid: u32) -> Result<(), CgroupError> {
    // Linux >= 4.15 lists the files; cgroups(7) has the list of before.
    let names = file::read("/sys/kernel/cgroup", "delegate")
        .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
    chown_path(path, Some(uid), None).map_err(|source| CgroupError::io("chown", path, source))?;
    for name in names.lines() {
        let path = file::join(path, name);
        match chown_path(&path, Some(uid), None) {
            // The list names files of controllers that may not be enabled here.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(CgroupError::io("chown", path, source)),
            Ok(()) => {}
        }
    }
    Ok(())
}

impl crate::Cgroup {
    /// Makes `uid` the owner of the container's v2 cgroup. Does nothing on v1, which cannot be delegated safely.
    ///
    /// # Errors
    ///
    /// When the owner cannot be changed.
    pub fn delegate(&self, uid: u32) -> Result<(), CgroupError> {
        if self.version == crate::Version::V2 { chown(self.main_path(), uid) } else { Ok(()) }
    }
}
