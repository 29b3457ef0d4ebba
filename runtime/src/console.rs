//! The foreground: `run` and `exec` without `--detach` stay with their process, pass signals on, and end with its status.
//!
//! One loop over descriptors does it all: the pidfd says that the process has ended, a signalfd what was sent to us, and with
//! a terminal of its own, or pipes in place of ours, the bytes go both ways. Nothing is lost between the launch and the loop, because
//! the signals are blocked before the launch.
//!
//! The loop waits for nothing but its poll: a program that reads none of its input, a pager that takes no more output, and a program
//! that waits for its output to be taken before it reads on, must hold up neither signals nor the other direction.

use crate::container::Process;
use crate::error::Error;
use crate::pipes::{self, Pipes};
use cofferdam_spec::ConsoleSize;
use cofferdam_sys::{Errno, Fd, children, fs, net, process};
use nix::errno::Errno as NixErrno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Signals that are for this process and not for the container's.
const OURS: [Signal; 3] = [Signal::SIGCHLD, Signal::SIGWINCH, Signal::SIGURG];

/// A verb that will stay with its process.
pub struct Foreground {
    signals: SignalFd,
    /// Where init's message with the terminal's master arrives.
    console: Option<Fd>,
    /// In place of this process's terminal.
    pipes: Option<Pipes>,
}

impl Foreground {
    /// Begins to collect signals; before the launch, so that none is lost.
    ///
    /// With `subreaper` the container's orphans come to this process, which waits for them.
    ///
    /// # Errors
    /// When the kernel refuses a signalfd or the subreaper's role.
    pub fn begin(subreaper: bool) -> Result<Foreground, Error> {
        let all = SigSet::all();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None)
            .map_err(|errno| Error::call("block signals", errno))?;
        let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|errno| Error::call("make a signalfd", errno))?;
        if subreaper {
            prctl::set_child_subreaper(true).map_err(|errno| {
                Error::call("become a subreaper", std::io::Error::from_raw_os_error(errno))
            })?;
        }
        Ok(Foreground { signals, console: None, pipes: None })
    }

    /// The end of a socket that takes the terminal's master; the other end stays here.
    ///
    /// # Errors
    /// When there are no sockets left.
    pub fn console(&mut self) -> Result<OwnedFd, Error> {
        let (ours, theirs) = net::socketpair().map_err(|errno| Error::call("make a socket pair", errno))?;
        self.console = Some(ours);
        Ok(theirs.into())
    }

    /// The standard streams of a process without a terminal, where one of ours is a terminal; else it has ours.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn streams(&mut self) -> Result<Option<[OwnedFd; 3]>, Error> {
        let made = Pipes::for_terminals()?;
        Ok(made.map(|(pipes, theirs)| {
            self.pipes = Some(pipes);
            theirs
        }))
    }

    /// Stays with the process until it ends: its exit status, or 128 and the signal that killed it.
    ///
    /// # Errors
    /// When the terminal cannot be had, or waiting fails.
    pub fn attend(self, child: &Process) -> Result<i32, Error> {
        let terminal = match &self.console {
            Some(socket) => Some(Terminal::receive(socket)?),
            None => None,
        };
        let Foreground { signals, pipes, .. } = self;
        let mut attendance = Attendance {
            signals,
            child,
            terminal,
            pipes,
            stdin_open: true,
            typed: Vec::new(),
            output: Vec::new(),
            hung_up: false,
        };
        attendance.until_end()
    }
}

/// The master of the container's terminal, and this process's own.
struct Terminal {
    master: Fd,
    own: Option<Own>,
    /// stdout, where its output goes; non-blocking for us alone if it is a terminal, which says that it is ready with room for one byte.
    out: OwnedFd,
}

/// This process's own terminal, and what it was like before.
struct Own {
    fd: OwnedFd,
    before: Termios,
}

impl Own {
    /// The first of stderr, stdout and stdin that is a terminal, else the controlling one, else none.
    fn find() -> Option<Own> {
        let standard = [std::io::stderr().as_fd(), std::io::stdout().as_fd(), std::io::stdin().as_fd()]
            .map(|fd| fd.try_clone_to_owned().ok());
        let controlling = || std::fs::File::open("/dev/tty").ok().map(OwnedFd::from);
        let mut found = standard.into_iter().flatten().chain(std::iter::once_with(controlling).flatten());
        found.find_map(|fd| tcgetattr(&fd).ok().map(|before| Own { fd, before }))
    }

    /// Leaves everything to the container's terminal but the ends of lines: that one writes mere line feeds, for stdout may be
    /// a file or a pipe, and this one adds the carriage returns.
    fn make_raw(&self) -> Result<(), Error> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        raw.output_flags |= OutputFlags::OPOST;
        tcsetattr(&self.fd, SetArg::TCSANOW, &raw)
            .map_err(|errno| Error::call("make the terminal raw", errno))
    }
}

impl Terminal {
    fn receive(socket: &Fd) -> Result<Terminal, Error> {
        let mut name = [0; 64];
        let master = match net::receive_fd(socket, &mut name) {
            Ok((_, Some(master))) => master,
            Ok(_) => return Err(Error::Unsupported("init sent no terminal".into())),
            Err(errno) => return Err(Error::call("receive the terminal", errno)),
        };
        let nonblocking = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&master, nonblocking)
            .map_err(|errno| Error::call("make the terminal nonblocking", errno))?;
        let out = pipes::again(std::io::stdout().as_fd())?;
        let terminal = Terminal { master, own: Own::find(), out };
        if let Some(own) = &terminal.own {
            own.make_raw()?;
            terminal.resize();
        }
        Ok(terminal)
    }

    /// Takes over the size of this process's terminal, if it has one.
    fn resize(&self) {
        let Some(own) = &self.own else { return };
        if let Ok((rows, columns)) = net::window_size(&cofferdam_sys::Borrowed(own.fd.as_raw_fd())) {
            let _ = net::set_window_size(&self.master, rows, columns);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            let _ = tcsetattr(&own.fd, SetArg::TCSADRAIN, &own.before);
        }
    }
}

/// The size of this process's own terminal, which a foreground process's terminal has from its first moment on.
pub fn own_size() -> Option<ConsoleSize> {
    let (rows, columns) = net::window_size(&cofferdam_sys::Borrowed(Own::find()?.fd.as_raw_fd())).ok()?;
    Some(ConsoleSize { height: rows.into(), width: columns.into() })
}

struct Attendance<'a> {
    signals: SignalFd,
    child: &'a Process,
    terminal: Option<Terminal>,
    /// Where there is no terminal.
    pipes: Option<Pipes>,
    stdin_open: bool,
    /// Read from stdin, and not taken by the terminal yet.
    typed: Vec<u8>,
    /// Read from the terminal, and not taken by stdout yet.
    output: Vec<u8>,
    /// Nobody in the container holds the terminal: asked again every now and then, for somebody may open it again.
    hung_up: bool,
}

/// How often a terminal that nobody holds is asked, in milliseconds.
const ASK_AGAIN: u16 = 50;
/// How much is read at once: as much as a pipe that is ready takes without waiting (`PIPE_BUF`), for stdout is also others' and stays
/// as it is.
const CHUNK: usize = 4096;

impl Attendance<'_> {
    fn until_end(&mut self) -> Result<i32, Error> {
        loop {
            let ready = self.poll()?;
            if let Some(pipes) = &mut self.pipes {
                pipes.copy(&ready.pipes);
            }
            if ready.stdout {
                self.write_out();
            }
            if ready.output {
                self.read_output();
            }
            if ready.signals {
                self.pass_signals()?;
            }
            if ready.child {
                self.drain();
                return self.reap();
            }
            if ready.input {
                self.read_input();
            }
            if ready.terminal {
                self.type_in();
            }
        }
    }

    fn poll(&self) -> Result<Ready, Error> {
        const IN: PollFlags = PollFlags::POLLIN;
        const OUT: PollFlags = PollFlags::POLLOUT;
        let stdin = std::io::stdin();
        let mut fds = vec![PollFd::new(self.child.pidfd.as_fd(), IN), PollFd::new(self.signals.as_fd(), IN)];
        let (mut master_at, mut stdin_at, mut stdout_at) = (None, None, None);
        if let Some(terminal) = &self.terminal {
            let mut ask = |fd, flags| {
                fds.push(PollFd::new(fd, flags));
                Some(fds.len() - 1)
            };
            // What is not asked for anything is left out: a hang-up is reported whether it is asked for or not.
            let mut wanted = PollFlags::empty();
            wanted.set(IN, self.output.is_empty() && !self.hung_up);
            wanted.set(OUT, !self.typed.is_empty());
            if !wanted.is_empty() {
                master_at = ask(AsFd::as_fd(&terminal.master), wanted);
            }
            if self.stdin_open && self.typed.is_empty() {
                stdin_at = ask(stdin.as_fd(), IN);
            }
            if !self.output.is_empty() {
                stdout_at = ask(terminal.out.as_fd(), OUT);
            }
        }
        let first = fds.len();
        fds.extend(self.pipes.iter().flat_map(|pipes| pipes.wanted(stdin.as_fd())));
        let limit = if self.hung_up { PollTimeout::from(ASK_AGAIN) } else { PollTimeout::NONE };
        match poll(&mut fds, limit) {
            Ok(_) | Err(NixErrno::EINTR) => {}
            Err(errno) => return Err(Error::call("poll", errno)),
        }
        let said = |at: Option<usize>| {
            at.and_then(|at| fds.get(at)).and_then(PollFd::revents).unwrap_or(PollFlags::empty())
        };
        let any = |at| !said(at).is_empty();
        let master = said(master_at);
        Ok(Ready {
            child: any(Some(0)),
            signals: any(Some(1)),
            output: self.output.is_empty() && (self.hung_up || master.intersects(!OUT)),
            terminal: !self.typed.is_empty() && master.intersects(!IN),
            input: any(stdin_at),
            stdout: any(stdout_at),
            pipes: (first..fds.len()).map(|at| said(Some(at))).collect(),
        })
    }

    /// Passes on what was sent to this process, and takes over a new size of its terminal.
    fn pass_signals(&mut self) -> Result<(), Error> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = info.ssi_signo as i32;
            match Signal::try_from(number) {
                Ok(Signal::SIGWINCH) => {
                    if let Some(terminal) = &self.terminal {
                        terminal.resize();
                    }
                }
                // Orphans that came to the subreaper; the child itself is the pidfd's.
                Ok(Signal::SIGCHLD) => self.reap_orphans(),
                Ok(signal) if OURS.contains(&signal) => {}
                // Of our own write to a stream that the process has closed.
                Ok(Signal::SIGPIPE) if self.pipes.is_some() && info.ssi_pid == std::process::id() => {}
                _ => match process::pidfd_send_signal(&self.child.pidfd, number) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(Error::call(format!("pass signal {number} on"), errno)),
                },
            }
        }
        Ok(())
    }

    fn reap_orphans(&self) {
        // Nothing is spawned meanwhile, so what is left for later is left by want of descriptors: the next end brings us here again.
        let _ = children::reap_strangers(|_| ());
    }

    /// Takes what the terminal has; whether there was something.
    fn read_output(&mut self) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        let mut chunk = [0; CHUNK];
        match fs::read(&terminal.master, &mut chunk) {
            Ok(length) if length > 0 => {
                self.output.extend_from_slice(&chunk[..length]);
                self.hung_up = false;
                true
            }
            Err(Errno::EAGAIN) => {
                self.hung_up = false;
                false
            }
            // EIO: nobody holds the other end any more.
            _ => {
                self.hung_up = true;
                false
            }
        }
    }

    /// Passes some of the output on.
    fn write_out(&mut self) {
        let Some(terminal) = &self.terminal else { return };
        match fs::write(&cofferdam_sys::Borrowed(terminal.out.as_raw_fd()), &self.output) {
            Ok(written) => drop(self.output.drain(..written)),
            Err(Errno::EAGAIN) => {}
            // Nobody takes it any more; the container need not know.
            Err(_) => self.output.clear(),
        }
    }

    fn read_input(&mut self) {
        let mut chunk = [0; CHUNK];
        match fs::read(&cofferdam_sys::Borrowed(0), &mut chunk) {
            Ok(length) if length > 0 => self.typed.extend_from_slice(&chunk[..length]),
            Err(Errno::EAGAIN) => {}
            // ^D is what a terminal's end of input is; the master itself must stay open for the output.
            _ => {
                self.typed.push(4);
                self.stdin_open = false;
            }
        }
    }

    /// Passes some of the input on.
    fn type_in(&mut self) {
        let Some(terminal) = &self.terminal else { return };
        match fs::write(&terminal.master, &self.typed) {
            Ok(written) => drop(self.typed.drain(..written)),
            Err(Errno::EAGAIN) => {}
            // EIO: nobody holds the other end.
            Err(_) => self.typed.clear(),
        }
    }

    /// What the process wrote before it ended.
    fn drain(&mut self) {
        if let Some(pipes) = &mut self.pipes {
            pipes.drain();
        }
        loop {
            self.write_all_out();
            let Some(terminal) = &self.terminal else { return };
            let mut fds = [PollFd::new(AsFd::as_fd(&terminal.master), PollFlags::POLLIN)];
            let waiting = poll(&mut fds, PollTimeout::ZERO).unwrap_or(0) > 0
                && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
            if !waiting || !self.read_output() {
                return;
            }
        }
    }

    fn write_all_out(&mut self) {
        while let (Some(terminal), false) = (&self.terminal, self.output.is_empty()) {
            let _ = poll(&mut [PollFd::new(terminal.out.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            self.write_out();
        }
    }

    fn reap(&self) -> Result<i32, Error> {
        let status = children::wait(self.child.pid)
            .map_err(|errno| Error::call("wait for the container's process", errno))?;
        self.reap_orphans();
        Ok(if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) })
    }
}

/// Who can go on.
struct Ready {
    child: bool,
    signals: bool,
    /// The terminal has output.
    output: bool,
    /// The terminal takes input.
    terminal: bool,
    /// stdin has input.
    input: bool,
    /// stdout takes output.
    stdout: bool,
    /// What there is of each of [`Pipes::wanted`].
    pipes: Vec<PollFlags>,
}
