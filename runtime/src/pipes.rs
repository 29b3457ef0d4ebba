//! Pipes between a terminal of ours and a process without one.
//!
//! Who holds a terminal reads what is typed, and on Linux before 6.2 (later with `dev.tty.legacy_tiocsti`) types as well (TIOCSTI): a
//! container that has no terminal by its config.json is not to have its caller's, so in the foreground it gets pipes, as with runc.
//! What is no terminal is handed on as it is: nothing stands between a container and its caller's pipes and files.

use crate::error::Error;
use cofferdam_sys::{Borrowed, Errno, Fd, fs};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::tcgetattr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// What is taken at most of what the process wrote before it ended: others may go on writing. No pipe holds more, as it is made.
const REST: usize = 1 << 20;

/// The ends that stay here.
#[derive(Default)]
pub(crate) struct Pipes {
    input: Option<Input>,
    outputs: Vec<Output>,
}

/// From our stdin to the process's.
struct Input {
    pipe: Fd,
    /// Typed, and not taken yet. Nothing more is read until it is: nobody may be there who takes it.
    waiting: Vec<u8>,
}

/// From the process to our stdout or stderr.
struct Output {
    pipe: Fd,
    /// Opened once more, so that it can be non-blocking for us alone: a terminal that has room for one byte says that it is ready.
    to: OwnedFd,
    /// Read, and not taken by the terminal yet, which can be stopped (^S).
    waiting: Vec<u8>,
}

impl Pipes {
    /// Pipes for what is a terminal of our stdin, stdout and stderr, and the process's side of all three. None if none of them is one.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn for_terminals() -> Result<Option<(Pipes, [OwnedFd; 3])>, Error> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let own = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let terminals = own.map(|fd| tcgetattr(fd).is_ok());
        if !terminals.contains(&true) {
            return Ok(None);
        }
        let mut pipes = Pipes::default();
        let mut theirs = |number: usize| match terminals[number] {
            true => pipes.add(own[number]),
            false => duplicate(own[number]),
        };
        let theirs = [theirs(0)?, theirs(1)?, theirs(2)?];
        Ok(Some((pipes, theirs)))
    }

    fn add(&mut self, stream: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
        let (from, to) = fs::pipe().map_err(|errno| Error::call("make a pipe", errno))?;
        let (ours, theirs) = if stream.as_raw_fd() == 0 { (to, from) } else { (from, to) };
        fcntl(AsFd::as_fd(&ours), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|errno| Error::call("make a pipe non-blocking", errno))?;
        match stream.as_raw_fd() {
            0 => self.input = Some(Input { pipe: ours, waiting: Vec::new() }),
            _ => self.outputs.push(Output { pipe: ours, to: again(stream)?, waiting: Vec::new() }),
        }
        Ok(theirs.into())
    }

    /// What [`Pipes::copy`] is to be told of, with our stdin: outputs, then the input's pipe and its source.
    pub(crate) fn wanted<'a>(&'a self, stdin: BorrowedFd<'a>) -> impl Iterator<Item = PollFd<'a>> {
        let outputs = self.outputs.iter().map(|output| match output.waiting.is_empty() {
            true => PollFd::new(AsFd::as_fd(&output.pipe), PollFlags::POLLIN),
            false => PollFd::new(output.to.as_fd(), PollFlags::POLLOUT),
        });
        let input = self.input.iter().flat_map(move |input| {
            let pipe = AsFd::as_fd(&input.pipe);
            // That nobody reads the pipe any more is answered whether it is asked for or not; so it would be of a source that is gone.
            match input.waiting.is_empty() {
                true => [PollFd::new(pipe, PollFlags::empty()), PollFd::new(stdin, PollFlags::POLLIN)],
                false => [PollFd::new(pipe, PollFlags::POLLOUT), PollFd::new(pipe, PollFlags::empty())],
            }
        });
        outputs.chain(input)
    }

    /// Copies what there is, by poll's answers to [`Pipes::wanted`].
    pub(crate) fn copy(&mut self, answers: &[PollFlags]) {
        let (outputs, input) = answers.split_at(self.outputs.len().min(answers.len()));
        let mut ready = outputs.iter().map(|answer| !answer.is_empty());
        self.outputs.retain_mut(|output| !ready.next().unwrap_or(false) || output.copy());
        if let (Some(end), [pipe, source]) = (&mut self.input, input)
            && !end.copy(*pipe, !source.is_empty())
        {
            self.input = None;
        }
    }

    /// What the process wrote before it ended.
    pub(crate) fn drain(&mut self) {
        for output in &mut self.outputs {
            let mut taken = 0;
            loop {
                taken += output.waiting.len();
                while !output.waiting.is_empty() {
                    let _ =
                        poll(&mut [PollFd::new(output.to.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
                    output.write();
                }
                if taken >= REST || !output.read() || output.waiting.is_empty() {
                    break;
                }
            }
        }
    }
}

/// One of our streams. A terminal is opened once more, non-blocking, where we may: who has changed the user may not, and waits for it.
pub(crate) fn again(stream: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    if tcgetattr(stream).is_ok() {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
        if let Ok(file) = options.open(format!("/proc/self/fd/{}", stream.as_raw_fd())) {
            return Ok(file.into());
        }
    }
    duplicate(stream)
}

fn duplicate(stream: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    stream.try_clone_to_owned().map_err(|error| Error::below("duplicate stdio", error))
}

impl Output {
    /// False when nobody is left who could write.
    fn copy(&mut self) -> bool {
        if self.waiting.is_empty() {
            return self.read();
        }
        self.write();
        true
    }

    fn write(&mut self) {
        match fs::write(&Borrowed(self.to.as_raw_fd()), &self.waiting) {
            Ok(written) => drop(self.waiting.drain(..written)),
            Err(Errno::EAGAIN) => {}
            // The terminal is gone; the container need not know.
            Err(_) => self.waiting.clear(),
        }
    }

    fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        match fs::read(&self.pipe, &mut chunk) {
            Ok(length) if length > 0 => {
                self.waiting.extend(&chunk[..length]);
                true
            }
            Err(Errno::EAGAIN) => true,
            _ => false,
        }
    }
}

impl Input {
    /// False when there is nothing more to read, or nobody who would take it.
    fn copy(&mut self, pipe: PollFlags, readable: bool) -> bool {
        if pipe.contains(PollFlags::POLLERR) {
            return false;
        }
        if self.waiting.is_empty() && readable {
            let mut chunk = [0; 4096];
            match fs::read(&Borrowed(0), &mut chunk) {
                Ok(length) if length > 0 => self.waiting.extend(&chunk[..length]),
                _ => return false,
            }
        }
        // As much as fits, and no more: a pipe takes pieces up to its PIPE_BUF whole or not at all.
        match fs::write_all(&self.pipe, &self.waiting) {
            Ok(()) => self.waiting.clear(),
            Err(Errno::EAGAIN) => {}
            Err(_) => return false,
        }
        true
    }
}
