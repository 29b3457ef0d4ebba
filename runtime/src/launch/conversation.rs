//! The host's end of the socket to init.

use crate::timeline;
use cofferdam_step::{Barrier, Program, Report, ReportKind};
use cofferdam_sys::process::{self, Ready};
use cofferdam_sys::{Errno, Fd, Raw, Result, fs, net};
use std::os::fd::{AsRawFd, OwnedFd};

/// The socket; what init says comes out in records, what the host says goes in as bytes.
pub(super) struct Conversation(pub(super) Fd);

impl Conversation {
    /// Sends the steps. A init that has died meanwhile shows at the next read.
    pub(super) fn send(&self, program: &Program) -> Result<()> {
        let mut message = vec![0; 4];
        message = postcard::to_extend(program, message).map_err(|_| Errno::EINVAL)?;
        let length = u32::try_from(message.len() - 4).map_err(|_| Errno::E2BIG)?;
        message[..4].copy_from_slice(&length.to_le_bytes());
        unless_gone(net::send(&self.0, &message))
    }

    /// Lets init pass a barrier, and gives it descriptors with that, or bytes behind it.
    pub(super) fn release(&self, barrier: Barrier, fds: &[OwnedFd], behind: &[u8]) -> Result<()> {
        let mut left = fds.chunks(net::MOST_FDS).peekable();
        while let Some(some) = left.next() {
            let byte = if left.peek().is_some() { Barrier::MORE } else { barrier as u8 };
            let numbers: Vec<Raw> = some.iter().map(AsRawFd::as_raw_fd).collect();
            unless_gone(net::send_fds(&self.0, &[byte], &numbers))?;
        }
        match fds {
            [] => unless_gone(net::send(&self.0, &[&[barrier as u8], behind].concat())),
            _ => Ok(()),
        }
    }

    /// Sends one byte.
    pub(super) fn answer(&self, byte: u8) -> Result<()> {
        unless_gone(net::send(&self.0, &[byte]))
    }

    /// Init's next record; none when it has ended or become the container's program. EPROTO for what is no record.
    pub(super) fn read(&self) -> Result<Option<Report>> {
        self.read_after(|| Ok(true))
    }

    /// The same of one process among those that have the other end: none when this one has ended without a word.
    pub(super) fn read_from(&self, process: &Fd) -> Result<Option<Report>> {
        self.read_after(|| Ok(process::poll_two(&self.0, process, -1)? != Some(Ready::Second)))
    }

    /// Init's next record, before each of which `is_there` says whether there is one to wait for. What tells of times alone goes to the
    /// timeline.
    fn read_after(&self, is_there: impl Fn() -> Result<bool>) -> Result<Option<Report>> {
        while is_there()? {
            match self.record() {
                Ok(Some(timed)) if timed.kind == ReportKind::Timed => timeline::step(&timed),
                other => return other,
            }
        }
        Ok(None)
    }

    fn record(&self) -> Result<Option<Report>> {
        let mut bytes = [0; Report::SIZE];
        match fs::read_full(&self.0, &mut bytes) {
            Ok(Report::SIZE) => Report::from_bytes(&bytes).map(Some).ok_or(Errno::EPROTO),
            // Init died with something of ours unread.
            Ok(0) | Err(Errno::ECONNRESET) => Ok(None),
            Ok(_) => Err(Errno::EPROTO),
            Err(errno) => Err(errno),
        }
    }

    /// What init wrote behind its last record.
    pub(super) fn rest(&self) -> String {
        rest(&self.0)
    }
}

/// What comes from init up to the end of the stream: of a hook that failed, the last few kilobytes that it wrote.
pub(crate) fn rest(socket: &Fd) -> String {
    let mut text = vec![0; Report::MOST_APPENDED];
    let length = fs::read_full(socket, &mut text).unwrap_or(0);
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// A peer that is gone is no error here: why it is gone stands in its last record.
pub(crate) fn unless_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        other => other,
    }
}
