//! Signalling all processes of a container.

use cofferdam_sys::{Errno, Fd, process};

use crate::cgroup::{Cgroup, collect};
use crate::error::CgroupError;
use crate::file;
use crate::layout::Version;

const SIGKILL: i32 = 9;
/// How many processes are held by a descriptor each at a time: a container may have more of them than we may open files.
const AT_ONCE: usize = 128;

impl Cgroup {
    /// Sends `signal` to every process of the container and of its sub-cgroups. SIGKILL on Linux 5.14 and later with
    /// v2 is one write, which no fork can escape; else the cgroup is frozen while its processes are listed, and each
    /// is signalled by a pidfd that was checked to be of this cgroup, so that a recycled pid is never hit.
    ///
    /// After SIGKILL the cgroup is thawed, since a process frozen by v1 does not die. After another signal it is as it
    /// was before.
    ///
    /// # Errors
    ///
    /// When processes cannot be listed or signalled. A cgroup that is gone has no processes.
    pub fn kill_all(&self, signal: i32) -> Result<(), CgroupError> {
        if signal == SIGKILL && self.version == Version::V2 {
            match file::write(self.main_path(), "cgroup.kill", "1") {
                Ok(()) => return self.thaw(),
                // Linux < 5.14 has no such file; a threaded cgroup cannot be killed that way (EOPNOTSUPP).
                Err(error) if error.is_gone() || error.is(nix::errno::Errno::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        let was_frozen = self.is_frozen()?;
        // What cannot be frozen is signalled nevertheless, and listed again for those that forked in between.
        let frozen = was_frozen || self.freeze().is_ok();
        let result = self.signal_all(signal, frozen);
        if frozen && (!was_frozen || signal == SIGKILL) {
            self.thaw()?;
        }
        result
    }

    fn signal_all(&self, signal: i32, frozen: bool) -> Result<(), CgroupError> {
        const ROUNDS: u32 = 100;
        // Only for SIGKILL is a second signal to the same process without effect.
        let rounds = if frozen || signal != SIGKILL { 1 } else { ROUNDS };
        for _ in 0..rounds {
            if self.signal_once(signal)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn signal_once(&self, signal: i32) -> Result<usize, CgroupError> {
        let mut signalled = 0;
        for pids in self.list()?.chunks(AT_ONCE) {
            signalled += self.signal_some(pids, signal)?;
        }
        Ok(signalled)
    }

    fn signal_some(&self, pids: &[i32], signal: i32) -> Result<usize, CgroupError> {
        let mut handles: Vec<(i32, Fd)> = Vec::with_capacity(pids.len());
        for &pid in pids {
            match process::pidfd_open(pid) {
                Ok(handle) => handles.push((pid, handle)),
                // Gone (and perhaps a thread by now: EINVAL, ENOENT), or in a pid namespace that we do not see (pid 0).
                Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => return Err(failed("pidfd_open", pid, errno)),
            }
        }
        // A pid that is listed again while we hold its handle belongs to the process of the handle.
        let mut still = self.list()?;
        still.sort_unstable();
        handles.retain(|(pid, _)| still.binary_search(pid).is_ok());
        for (pid, handle) in &handles {
            match process::pidfd_send_signal(handle, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(failed("pidfd_send_signal", *pid, errno)),
            }
        }
        Ok(handles.len())
    }

    fn list(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        match collect(self.main_path(), true, &mut pids) {
            Err(error) if error.is_gone() => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(()) => Ok(pids),
        }
    }
}

fn failed(call: &str, pid: i32, errno: Errno) -> CgroupError {
    CgroupError::io(call, format!("process {pid}"), std::io::Error::from_raw_os_error(errno.0))
}
