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
        if let Some(group) = &self.resctrl {
            group.remove()?;
        }
        if let Some(unit) = &self.unit {
            crate::systemd::stop(unit)?;
        }
        let mut left: Vec<&str> =
            self.dirs.iter().filter(|dir| !dir.existed).map(|dir| dir.path.as_str()).collect();
        // The fast road: a container without sub-cgroups whose processes are gone.
        left.retain(|path| file::rmdir(path).is_err());
        if left.is_empty() {
            return Ok(());
        }
        let _ = self.thaw();
        let mut pause = FIRST_PAUSE;
        for _ in 0..PAUSES {
            left.retain(|path| match remove_tree(path) {
                Ok(()) => false,
                // Anything but a process that is still there will not get better.
                Err(error) => error.is(Errno::EBUSY) || error.is(Errno::ENOTEMPTY),
            });
            if left.is_empty() {
                break;
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.dirs.iter().filter(|dir| !dir.existed).try_for_each(|dir| remove_tree(&dir.path))
    }
}

/// Removes the sub-cgroups, then the cgroup itself.
fn remove_tree(path: &str) -> Result<(), CgroupError> {
    // Looked at before it is removed, for a read-only mount answers rmdir(2) with EROFS also for what does not exist.
    match file::children(path) {
        Err(error) if error.is_gone() => return Ok(()),
        children => children?.iter().try_for_each(|child| remove_tree(child))?,
    }
    file::rmdir(path)
}
