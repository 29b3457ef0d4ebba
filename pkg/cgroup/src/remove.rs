//! Removing a container's cgroup.

use std::time::Duration;

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::file;

/// Pauses between attempts while the last processes are on their way out: doubled each time from 0.1 ms on, about
/// 1.6 s together. runc waits ten times, 1 ms and doubling.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const PAUSES: u32 = 14;

impl Cgroup {
    /// Removes the cgroup with all sub-cgroups that the container made. What was there before the container stays
    /// (runtime-spec: what the runtime did not create, it must not delete). Parents stay in any case.
    ///
    /// The processes in it must have been killed; those that are still dying are waited for, up to about 1.6 s.
    /// A frozen cgroup is thawed, for frozen processes cannot die (v1).
    ///
    /// # Errors
    ///
    /// When a directory remains. The others are removed all the same, and calling again is possible.
    pub fn remove(&self) -> Result<(), CgroupError> {
        if self.unit.is_some() {
            crate::systemd::stop(self)?;
        }
        let mut failed = None;
        let mut thawed = false;
        for dir in self.dirs.iter().filter(|dir| !dir.existed) {
            if let Err(error) = self.remove_dir(&dir.path, &mut thawed) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn remove_dir(&self, path: &str, thawed: &mut bool) -> Result<(), CgroupError> {
        match file::rmdir(path) {
            // A read-only mount gives EROFS for what does not exist, too.
            Err(error) if error.is(Errno::EBUSY) || error.is(Errno::EROFS) || error.is(Errno::ENOTEMPTY) => {}
            result => return result,
        }
        if !std::mem::replace(thawed, true) {
            let _ = self.thaw();
        }
        remove_tree(path)
    }
}

/// Removes the sub-cgroups, then the cgroup itself.
fn remove_tree(path: &str) -> Result<(), CgroupError> {
    let children = match file::children(path) {
        Err(error) if error.is_gone() => return Ok(()),
        children => children?,
    };
    for child in children {
        remove_tree(&child)?;
    }
    let mut pause = FIRST_PAUSE;
    for _ in 0..PAUSES {
        match file::rmdir(path) {
            Err(error) if error.is(Errno::EBUSY) => {}
            result => return result,
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    file::rmdir(path)
}
