//! Stopping and resuming all processes of a container.

use std::fs::File;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::file;
use crate::layout::Version;

const V1: &str = "freezer.state";
const V2: &str = "cgroup.freeze";

impl Cgroup {
    pub(crate) fn freezer_path(&self) -> Option<&str> {
        self.path("freezer")
    }

    /// Stops all processes of the container; returns when all of them stand still.
    ///
    /// # Errors
    ///
    /// When there is no freezer, or the processes do not stop within some seconds. The cgroup is then thawed again,
    /// so that it is not left half frozen.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let path = self.path("freezer").ok_or(CgroupError::NotConfigured { what: "toggle freezer" })?;
        let result = if self.version == Version::V2 { freeze_v2(path) } else { freeze_v1(path) };
        if result.is_err() {
            let _ = self.thaw();
        }
        result
    }

    /// Lets the processes go on. A container without a freezer is never frozen, so that is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        let Some(path) = self.freezer_path() else { return Ok(()) };
        let (name, value) = if self.version == Version::V2 { (V2, "0") } else { (V1, "THAWED") };
        match file::write(path, name, value) {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }

    /// Whether the container itself is frozen (a frozen parent does not count, which thawing could not change). A
    /// cgroup that is gone, or without a freezer, is not.
    ///
    /// # Errors
    ///
    /// When the state cannot be read, or stays between the two for some seconds.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let Some(path) = self.freezer_path() else { return Ok(false) };
        let result = if self.version == Version::V2 {
            file::read(path, V2).map(|text| text.trim() == "1")
        } else {
            is_frozen_v1(path)
        };
        match result {
            Err(error) if error.is_gone() => Ok(false),
            result => result,
        }
    }
}

// Linux, cgroup v1: freezing is not atomic. While processes come in (fork, exec into the container) the state stays
// FREEZING, and writing FROZEN again is what catches the new ones; up to 6.x even that can fail for long, and a short
// thaw helps. Tries and pauses are of runc's making (its fs/freezer.go, found by experiment on RHEL 7 and Ubuntu 20.04),
// without its pauses of whole seconds.
// Test: tests/v1.rs, freezing_stops_and_thawing_resumes
fn freeze_v1(path: &str) -> Result<(), CgroupError> {
    const TRIES: u32 = 1000;
    let mut target = file::Target::open(path, V1)?;
    let mut state = file::open(path, V1)?;
    let mut text = String::new();
    for tried in 1..=TRIES {
        if tried % 50 == 0 {
            target.write("THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        target.write("FROZEN")?;
        if tried % 25 == 0 {
            std::thread::sleep(Duration::from_micros(10));
        }
        reread(&mut state, &mut text, path, V1)?;
        match text.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            other => {
                let reason = format!("unexpected state {other:?} while freezing");
                return Err(CgroupError::Malformed { path: file::join(path, V1), reason });
            }
        }
    }
    let state = text.trim().to_owned();
    Err(CgroupError::CannotFreeze { path: path.to_owned(), state, tries: TRIES })
}

fn is_frozen_v1(path: &str) -> Result<bool, CgroupError> {
    const TRIES: u32 = 1000;
    let mut state = file::open(path, V1)?;
    let mut text = String::new();
    for _ in 0..TRIES {
        reread(&mut state, &mut text, path, V1)?;
        match text.trim() {
            "THAWED" => return Ok(false),
            "FROZEN" => {
                // Frozen by its own state, or by that of a cgroup above?
                return file::read(path, "freezer.self_freezing").map(|text| text.trim() == "1");
            }
            // On its way; the kernel decides upon reading.
            "FREEZING" => std::thread::sleep(Duration::from_millis(1)),
            other => {
                let reason = format!("unknown state {other:?}");
                return Err(CgroupError::Malformed { path: file::join(path, V1), reason });
            }
        }
    }
    let state = text.trim().to_owned();
    Err(CgroupError::CannotFreeze { path: path.to_owned(), state, tries: TRIES })
}

// cgroup v2 (cgroup.freeze since Linux 5.2): the write returns at once, and `frozen 1` in cgroup.events says when
// all stand still. The file can be polled for changes, so there is no pause to guess.
fn freeze_v2(path: &str) -> Result<(), CgroupError> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    const EVENTS: &str = "cgroup.events";
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut events = file::open(path, EVENTS)?;
    file::write(path, V2, "1")?;
    let start = Instant::now();
    let mut text = String::new();
    let mut tries = 0;
    loop {
        tries += 1;
        reread(&mut events, &mut text, path, EVENTS)?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        let left = PATIENCE.saturating_sub(start.elapsed());
        if left.is_zero() {
            let state = text.lines().find(|line| line.starts_with("frozen")).unwrap_or("unknown").to_owned();
            return Err(CgroupError::CannotFreeze { path: path.to_owned(), state, tries });
        }
        let timeout =
            PollTimeout::try_from(left.min(Duration::from_millis(100))).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(CgroupError::io("poll", file::join(path, EVENTS), errno.into())),
        }
    }
}

fn reread(file: &mut File, text: &mut String, path: &str, name: &str) -> Result<(), CgroupError> {
    file::reread(file, text).map_err(|source| CgroupError::io("read", file::join(path, name), source))
}
