//! The other end of the sockets that a runtime hands descriptors to: consoles, pidfds, seccomp listeners.

use crate::harness::T;
use cofferdam_sys::{Fd, fs, net, process};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A listening socket.
pub struct Receiver {
    /// Where it is.
    pub path: PathBuf,
    listener: UnixListener,
    limit: Duration,
}

impl Receiver {
    /// Makes one in the test's directory.
    pub fn new(t: &T, name: &str) -> Receiver {
        let path = t.path(name);
        let listener = UnixListener::bind(&path).expect("bind");
        Receiver { path, listener, limit: t.seconds(20) }
    }

    /// Its path as a word.
    pub fn word(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// The first message of the next caller, and the descriptor that comes with it.
    #[track_caller]
    pub fn receive(&self) -> (Vec<u8>, Fd) {
        assert!(wait(&self.listener.as_fd(), self.limit), "nobody called {}", self.path.display());
        let (stream, _) = self.listener.accept().expect("accept");
        assert!(wait(&stream.as_fd(), self.limit), "the caller says nothing");
        let mut bytes = vec![0; 1 << 16];
        let (length, fd) = net::receive_fd(&stream.as_fd(), &mut bytes).expect("recvmsg");
        bytes.truncate(length);
        (bytes, fd.expect("a descriptor"))
    }
}

fn wait(file: &impl cofferdam_sys::AsFd, limit: Duration) -> bool {
    process::poll_readable(file, i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)).expect("poll")
}

/// A terminal seen from its master.
pub struct Terminal {
    /// The master.
    pub master: Fd,
    seen: Vec<u8>,
    limit: Duration,
}

impl Terminal {
    /// A terminal whose master has been handed over.
    pub fn new(t: &T, master: Fd) -> Terminal {
        Terminal { master, seen: Vec::new(), limit: t.seconds(10) }
    }

    /// Types something.
    pub fn type_in(&self, text: &str) {
        fs::write_all(&self.master, text.as_bytes()).expect("write to the terminal");
    }

    /// Waits until the words have appeared; everything seen so far.
    #[track_caller]
    pub fn await_output(&mut self, words: &str) -> String {
        let end = Instant::now() + self.limit;
        while !self.text().contains(words) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && self.read(left), "{words:?} does not appear in {:?}", self.text());
        }
        self.text()
    }

    /// Everything until the last of the other side has closed it.
    pub fn until_end(&mut self) -> String {
        let end = Instant::now() + self.limit;
        while self.read(end.saturating_duration_since(Instant::now())) {}
        self.text()
    }

    /// What has been seen.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Reads once; false at the end or when the time is over.
    fn read(&mut self, limit: Duration) -> bool {
        let mut bytes = [0; 4096];
        if !wait(&self.master, limit) {
            return false;
        }
        match fs::read(&self.master, &mut bytes) {
            Ok(length) if length > 0 => {
                self.seen.extend_from_slice(&bytes[..length]);
                true
            }
            // EIO: nobody has the other side open any more.
            _ => false,
        }
    }
}
