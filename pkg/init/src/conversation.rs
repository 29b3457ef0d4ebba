//! The socket between init and whoever launched it.

use crate::parents::Parents;
use crate::{At, Failure, Init, Outcome, give_up};
use alloc::{vec, vec::Vec};
use cofferdam_step::{Attempt, Barrier, FilterHead, Program, Report, ReportKind, Slot, Step, start};
use cofferdam_sys::{Borrowed, Errno, Fd, Result, fs, net, process};

/// A program's largest size: the kernel takes no larger argv and environment either (a quarter of the stack, 6 MiB at most).
const MOST: usize = 16 << 20;

/// The socket; absent while a created container waits for its start.
pub(crate) struct Conversation(Option<Fd>);

impl Conversation {
    pub(crate) fn new(socket: Fd) -> Conversation {
        Conversation(Some(socket))
    }

    /// Reads length and body of the program.
    pub(crate) fn read_program(&self) -> Result<Program<'static>> {
        let socket = self.0.as_ref().ok_or(Errno::EBADF)?;
        let mut length = [0u8; 4];
        if fs::read_full(socket, &mut length)? < length.len() {
            give_up(None);
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > MOST {
            return Err(Errno::E2BIG);
        }
        let mut body: Vec<u8> = vec![0; length];
        if fs::read_full(socket, &mut body)? < length {
            give_up(None);
        }
        postcard::from_bytes(&body).map_err(|_| Errno::EPROTO)
    }

    /// Whoever listened may be gone: that is no SIGPIPE, which would wait behind the mask for the execve, and end the program.
    fn write(&self, bytes: &[u8]) -> Outcome {
        self.0.as_ref().map_or(Ok(()), |socket| net::send(socket, bytes)).at(Attempt::Write)
    }

    fn report(&self, report: Report) -> Outcome {
        self.write(&report.to_bytes())
    }

    /// Says that a step failed; nobody may be there any more.
    pub(crate) fn fail(&self, step: usize, failure: Failure) {
        let Failure { attempt, errno, detail } = failure;
        let _ = self.report(Report {
            kind: ReportKind::Failed,
            attempt,
            step: step as u16,
            errno: errno.0,
            detail,
        });
    }

    /// What a hook wrote, behind the report of its failure: the other side reads it up to the end.
    pub(crate) fn append(&self, text: &[u8]) {
        let _ = self.write(text);
    }

    /// Says something that carries one number.
    pub(crate) fn say(&self, kind: ReportKind, detail: i64) -> Outcome {
        self.report(Report { kind, attempt: Attempt::None, step: 0, errno: 0, detail })
    }

    /// Says that a step begins.
    pub(crate) fn time(&self, step: usize) {
        let (kind, detail) = (ReportKind::Timed, process::realtime() as i64);
        let _ = self.report(Report { kind, attempt: Attempt::None, step: step as u16, errno: 0, detail });
    }

    pub(crate) fn tell(&self, barrier: Barrier) -> Outcome {
        self.say(ReportKind::AtBarrier, barrier as i64)
    }

    /// Waits for the other side's byte; ends the process when there is no other side any more.
    pub(crate) fn wait_for(&self, barrier: Barrier) -> Outcome {
        expected(barrier, self.read_byte()?)
    }

    /// Waits for the cgroup, and puts this thread into the v1 hierarchies whose files come along (cgroup-v1/cgroups.rst,
    /// "tasks": 0 is the writer).
    pub(crate) fn wait_for_cgroup(&self) -> Outcome {
        let mut entered = Ok(());
        let enter = |tasks| entered = entered.and(fs::write_all(&tasks, b"0"));
        self.wait_for_descriptors(Barrier::CgroupJoined, enter)?;
        entered.at(Attempt::EnterCgroup)
    }

    /// Waits for a barrier's byte and the descriptors that come along.
    fn wait_for_descriptors(&self, barrier: Barrier, mut take: impl FnMut(Fd)) -> Outcome {
        loop {
            let byte = self.receive(&mut take)?;
            if byte != Some(Barrier::MORE) {
                return expected(barrier, byte);
            }
        }
    }

    /// A filter that the host side sends behind its last word, and its flags.
    fn read_filter(&self) -> Outcome<(Vec<u8>, u32)> {
        let socket = self.0.as_ref().ok_or(Errno::EBADF).at(Attempt::Read)?;
        let mut head = [0; FilterHead::SIZE];
        if fs::read_full(socket, &mut head).at(Attempt::Read)? < head.len() {
            give_up(None);
        }
        let FilterHead { flags, length } = FilterHead::from_bytes(head);
        let mut filter = vec![0; length as usize];
        if fs::read_full(socket, &mut filter).at(Attempt::Read)? < filter.len() {
            give_up(None);
        }
        Ok((filter, flags))
    }

    /// One byte, or none when the other side is gone.
    pub(crate) fn read_byte(&self) -> Outcome<Option<u8>> {
        self.receive(drop)
    }

    /// The same, with the descriptors that come along.
    fn receive(&self, take: impl FnMut(Fd)) -> Outcome<Option<u8>> {
        let Some(socket) = &self.0 else { return Ok(None) };
        let mut byte = [0u8];
        match net::receive_fds(socket, &mut byte, take) {
            Ok(0) | Err(Errno::ECONNRESET) => Ok(None),
            other => other.at(Attempt::Read).map(|_| Some(byte[0])),
        }
    }
}

fn expected(barrier: Barrier, byte: Option<u8>) -> Outcome {
    match byte {
        Some(byte) if byte == barrier as u8 => Ok(()),
        None => give_up(Some(barrier)),
        Some(other) => {
            Err(Failure { attempt: Attempt::Read, errno: Errno::EPROTO, detail: i64::from(other) })
        }
    }
}

/// Signals that end a process by default and that somebody may well send to a container that was never started.
const ENDING: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGABRT,
];

impl Init {
    /// Waits for the trees that the host side opens: they take the slots that are still empty, but for those that are wanted later.
    pub(crate) fn wait_for_trees(&mut self, program: &Program) -> Outcome {
        let awaited = |step: &Step| match step {
            Step::AwaitTree { slot } => Some(usize::from(slot.0)),
            _ => None,
        };
        let later: Vec<usize> = program.steps.iter().filter_map(awaited).collect();
        let slots = self.fds.iter_mut().enumerate();
        let mut empty = slots.filter(|(index, fd)| **fd < 0 && !later.contains(index)).map(|(_, fd)| fd);
        self.conversation.wait_for_descriptors(Barrier::TreesOpened, |tree| {
            if let Some(slot) = empty.next() {
                *slot = tree.into_raw();
            }
        })
    }

    /// Waits for the sources that the host side has opened.
    pub(crate) fn wait_for_sources(&mut self) -> Outcome {
        let mut sources = Vec::new();
        self.conversation.wait_for_descriptors(Barrier::SourcesOpened, |tree| sources.push(Ok(tree)))?;
        self.sources = sources.into_iter();
        Ok(())
    }

    /// Waits until the host side has written down what there is, and for the filter that it has compiled meanwhile.
    pub(crate) fn wait_for_commit(&mut self, program: &Program) -> Outcome {
        self.conversation.wait_for(Barrier::Committed)?;
        if program.steps.iter().any(|step| matches!(step, Step::LoadSeccomp { filter: None, .. })) {
            self.filter = Some(self.conversation.read_filter()?);
        }
        Ok(())
    }

    /// Waits for one more, which is taken from what has been mounted meanwhile.
    pub(crate) fn wait_for_tree(&mut self, slot: Slot) -> Outcome {
        let missing = Failure { attempt: Attempt::Decode, errno: Errno::EBADF, detail: i64::from(slot.0) };
        let place = self.fds.get_mut(usize::from(slot.0)).ok_or(missing)?;
        self.conversation.wait_for_descriptors(Barrier::TreeWanted, |tree| *place = tree.into_raw())
    }

    /// Closes what only the steps behind it needed: until its start, the container's process holds nothing of the host's but files that
    /// are named for its hooks' output.
    fn let_go(&mut self, listener: &Borrowed, program: &Program) {
        self.mask = None;
        self.null = None;
        self.parents = Parents::default();
        let outputs = program.steps.iter().flat_map(|step| match step {
            Step::RunHooks(hooks) => [hooks.stdout, hooks.stderr],
            _ => [None, None],
        });
        let late: Vec<usize> = outputs.flatten().map(|slot| usize::from(slot.0)).collect();
        for (slot, fd) in self.fds.iter_mut().enumerate() {
            if *fd != listener.0 && !late.contains(&slot) {
                drop(Fd::from_raw(core::mem::replace(fd, -1)));
            }
        }
    }

    /// Closes the creator's socket and takes the connection of the first starter that says so. A connection without a word
    /// was no start; a starter that dies between its two words has made this container one that nobody can start.
    pub(crate) fn await_start(&mut self, listener: Slot, program: &Program) -> Outcome {
        let listener = self.slot(listener)?;
        self.conversation = Conversation(None);
        self.waits = false;
        self.let_go(&listener, program);
        let mask = ENDING.iter().fold(0u64, |mask, signal| mask | 1 << (signal - 1));
        // Its creator has gone, and nobody would hear why: where it cannot wait for both, it waits for its start alone.
        let signals = process::signalfd(mask).ok();
        loop {
            // Signals are blocked until the execve, and pid 1 would not die of them anyhow: a created container that
            // is told to end does so here.
            if let Some(signals) = &signals
                && process::poll_two(&listener, signals, -1) == Ok(Some(process::Ready::Second))
            {
                process::exit(128 + libc::SIGTERM);
            }
            self.conversation = Conversation(Some(net::accept(&listener).at(Attempt::Accept)?));
            match self.conversation.read_byte()? {
                Some(start::READY) => break,
                _ => self.conversation = Conversation(None),
            }
        }
        let word = self.conversation.read_byte()?;
        self.timed = word == Some(start::GO_TIMED);
        match word {
            Some(start::GO | start::GO_TIMED) => Ok(()),
            _ => give_up(None),
        }
    }
}
