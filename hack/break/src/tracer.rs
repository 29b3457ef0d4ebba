//! A tracer that follows a runtime and its init call by call, makes one call fail or be the last, and tells what happened.
//!
//! Whatever the commands leave behind becomes this process's child (it is a subreaper), so that nothing escapes unseen.

use crate::options::STOP;
use crate::{Result, errno, own_path};
use cofferdam_seccomp::{native_arch, syscalls};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The command itself.
    Host,
    /// The nth process that was made below it, from 0, until it becomes a program that is not ours.
    Init(usize),
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Host => f.write_str("host"),
            Role::Init(0) => f.write_str("init"),
            Role::Init(number) => write!(f, "init{}", number + 1),
        }
    }
}

/// One call that was made.
#[derive(Clone, Debug)]
pub struct Call {
    pub role: Role,
    /// Which call of this process it is, from 0.
    pub index: usize,
    pub name: &'static str,
}

impl Call {
    /// The error that it gets.
    pub fn errno(&self, act: Act) -> Option<i32> {
        match act {
            Act::Fail(errno) => Some(errno),
            Act::FailLikely => Some(errno::likely(self.name)),
            Act::Kill => None,
        }
    }
}

/// Which call is meant.
#[derive(Clone, Debug)]
pub enum When {
    /// A process's call by its place.
    At { role: Role, index: usize },
    /// The nth call of this name, from 1, of all processes together.
    Named { call: String, nth: usize },
}

/// What happens at the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It is not made, and fails.
    Fail(i32),
    /// It is not made, and fails as it most likely would on a machine that is short of something.
    FailLikely,
    /// The process dies instead of making it.
    Kill,
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Act::Fail(number) => write!(f, "fails with {}", errno::name(*number)),
            Act::FailLikely => f.write_str("fails"),
            Act::Kill => f.write_str("is the last"),
        }
    }
}

/// A fault.
#[derive(Clone, Debug)]
pub struct Aim {
    pub when: When,
    pub act: Act,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    Killed(i32),
}

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    pub ending: Ending,
    /// It had to be killed.
    pub timed_out: bool,
    /// Every call in its order.
    pub calls: Vec<Call>,
    /// The call that the fault met.
    pub hit: Option<Call>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Whether it exited with status 0.
    pub fn succeeded(&self) -> bool {
        self.ending == Ending::Exited(0)
    }
}

#[derive(Debug)]
struct Tracee {
    role: Role,
    /// Between entry and exit of a call.
    inside: bool,
    /// How many calls it has begun.
    begun: usize,
    /// The result that its present call gets.
    result: Option<i32>,
    /// The stop that every new tracee begins with is over.
    greeted: bool,
    /// Before the first execve the process is a part of this program.
    counts: bool,
}

/// Follows commands, one at a time.
pub struct Tracer {
    tracees: BTreeMap<i32, Tracee>,
    /// Who the watchdog kills.
    alive: Arc<Mutex<BTreeSet<i32>>>,
    inits: usize,
    threads: usize,
    host: i32,
    stdio_inherited: bool,
}

/// A command in its course.
struct Course<'a> {
    aim: Option<&'a Aim>,
    calls: Vec<Call>,
    hit: Option<Call>,
    named: usize,
}

/// The body of the hidden `--stop`: stops until the tracer goes on, then becomes the command.
///
/// # Errors
/// When there is no tracer, or the command cannot be executed.
pub fn stop_and_become(command: &[OsString]) -> Result<()> {
    let (program, args) = command.split_first().ok_or("there is no command")?;
    ptrace::traceme()?;
    raise(Signal::SIGSTOP)?;
    Err(Command::new(program).args(args).exec().into())
}

impl Tracer {
    /// Makes this process the parent of whatever commands leave behind.
    ///
    /// # Errors
    /// When the kernel refuses, or the tracer does not know this architecture.
    pub fn new() -> Result<Tracer> {
        if !cfg!(target_arch = "x86_64") {
            return Err("the tracer knows the registers of x86_64 only".into());
        }
        nix::sys::prctl::set_child_subreaper(true)?;
        Ok(Tracer {
            tracees: BTreeMap::new(),
            alive: Arc::default(),
            inits: 0,
            threads: 0,
            host: 0,
            stdio_inherited: false,
        })
    }

    /// Commands keep this process's stdin, stdout and stderr.
    pub fn inherit_stdio(&mut self) {
        self.stdio_inherited = true;
    }

    /// Counts inits from 0 again.
    pub fn begin(&mut self) {
        self.inits = 0;
        self.threads = 0;
    }

    /// Runs a command under the tracer; what it leaves running stays traced.
    ///
    /// # Errors
    /// When the command cannot be started or traced.
    pub fn run(&mut self, command: &[OsString], aim: Option<&Aim>, limit: Duration) -> Result<Outcome> {
        let mut traced = vec![own_path()?.into(), STOP.into()];
        traced.extend(command.iter().cloned());
        self.follow(&traced, true, aim, limit)
    }

    /// Runs a command that is not traced, while what is traced goes on.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn plain(&mut self, command: &[OsString], limit: Duration) -> Result<Outcome> {
        self.follow(command, false, None, limit)
    }

    fn follow(
        &mut self,
        command: &[OsString],
        traced: bool,
        aim: Option<&Aim>,
        limit: Duration,
    ) -> Result<Outcome> {
        let (program, args) = command.split_first().ok_or("there is no command")?;
        let (out, err) = (memory_file("stdout")?, memory_file("stderr")?);
        let mut child = Command::new(program);
        child.args(args);
        if !self.stdio_inherited {
            child.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
        }
        let child = child.spawn().map_err(|error| format!("run {}: {error}", program.display()))?;
        self.host = child.id().cast_signed();
        self.set_alive(self.host, true);
        if traced {
            self.take_over()?;
        }
        let watchdog = Watchdog::set(limit, Arc::clone(&self.alive));
        let mut course = Course { aim, calls: Vec::new(), hit: None, named: 0 };
        let ending = loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => continue,
                status => status?,
            };
            if let Some(ending) = self.attend(status, &mut course)? {
                break ending;
            }
        };
        Ok(Outcome {
            ending,
            timed_out: watchdog.fired(),
            calls: course.calls,
            hit: course.hit,
            stdout: content(&out),
            stderr: content(&err),
        })
    }

    /// The child has stopped itself: from here on every call of it and its children shows.
    fn take_over(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.host);
        match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            other => return Err(format!("the command did not stop: {other:?}").into()),
        }
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(pid, options)?;
        let host =
            Tracee { role: Role::Host, inside: false, begun: 0, result: None, greeted: true, counts: false };
        self.tracees.insert(self.host, host);
        gone_is_good(ptrace::syscall(pid, None))
    }

    /// Deals with one change of one process; the command's ending when it was that.
    fn attend(&mut self, status: WaitStatus, course: &mut Course) -> Result<Option<Ending>> {
        match status {
            WaitStatus::Exited(pid, status) => Ok(self.ended(pid, Ending::Exited(status))),
            WaitStatus::Signaled(pid, signal, _) => Ok(self.ended(pid, Ending::Killed(signal as i32))),
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid, course).map(|()| None),
            WaitStatus::PtraceEvent(pid, _, event) => self.at_event(pid, event, course).map(|()| None),
            WaitStatus::Stopped(pid, signal) => self.stopped(pid, signal, course).map(|()| None),
            _ => Ok(None),
        }
    }

    fn ended(&mut self, pid: Pid, ending: Ending) -> Option<Ending> {
        self.tracees.remove(&pid.as_raw());
        self.set_alive(pid.as_raw(), false);
        (pid.as_raw() == self.host).then_some(ending)
    }

    fn set_alive(&self, pid: i32, alive: bool) {
        let mut all = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if alive {
            all.insert(pid)
        } else {
            all.remove(&pid)
        };
    }

    /// A signal, or the first stop of a new process.
    fn stopped(&mut self, pid: Pid, signal: Signal, course: &Course) -> Result<()> {
        let Some(tracee) = self.tracees.get_mut(&pid.as_raw()) else {
            // A thread of the host is the host: its calls are counted from a number on that the host does not reach.
            let (role, begun) = if is_thread_of(pid, self.host) {
                self.threads += 1;
                (Role::Host, self.threads * 10_000)
            } else {
                self.inits += 1;
                (Role::Init(self.inits - 1), 0)
            };
            self.set_alive(pid.as_raw(), true);
            let new = Tracee { role, inside: false, begun, result: None, greeted: true, counts: true };
            self.tracees.insert(pid.as_raw(), new);
            return go_on(pid, course, None);
        };
        let greeting = signal == Signal::SIGSTOP && !tracee.greeted;
        tracee.greeted = true;
        go_on(pid, course, (!greeting).then_some(signal))
    }

    /// An execve, or a child; the child's own first stop makes it known.
    fn at_event(&mut self, pid: Pid, event: i32, course: &Course) -> Result<()> {
        const EXEC: i32 = nix::libc::PTRACE_EVENT_EXEC;
        if event == EXEC && pid.as_raw() == self.host {
            if let Some(host) = self.tracees.get_mut(&pid.as_raw()) {
                host.counts = true;
            }
        } else if event == EXEC && !is_init(pid) {
            // The container's program, or a hook.
            self.tracees.remove(&pid.as_raw());
            self.set_alive(pid.as_raw(), false);
            return gone_is_good(ptrace::detach(pid, None));
        }
        go_on(pid, course, None)
    }

    fn at_call(&mut self, pid: Pid, course: &mut Course) -> Result<()> {
        let Some(tracee) = self.tracees.get_mut(&pid.as_raw()) else { return go_on(pid, course, None) };
        tracee.inside = !tracee.inside;
        if !tracee.inside {
            if let Some(result) = tracee.result.take() {
                registers::set_result(pid, -i64::from(result))?;
            }
            return go_on(pid, course, None);
        }
        let Some(name) = registers::call(pid)? else { return go_on(pid, course, None) };
        if !tracee.counts {
            return go_on(pid, course, None);
        }
        let call = Call { role: tracee.role, index: tracee.begun, name };
        tracee.begun += 1;
        if course.hit.is_none()
            && let Some(aim) = course.aim
            && course.is_met(aim, &call)
        {
            let errno = call.errno(aim.act);
            course.hit = Some(call);
            match errno {
                None => gone_is_good(kill(pid, Signal::SIGKILL))?,
                Some(_) => {
                    tracee.result = errno;
                    // A close that fails has closed all the same.
                    if name != "close" {
                        registers::cancel(pid)?;
                    }
                    // The exit of this one call is still of interest.
                    return gone_is_good(ptrace::syscall(pid, None));
                }
            }
        } else {
            course.calls.push(call);
        }
        go_on(pid, course, None)
    }

    /// Lets what was left behind end, until no more than `most` processes are there; says who is when the time is over.
    ///
    /// # Errors
    /// When a traced process cannot be dealt with.
    pub fn settle_to(&mut self, most: usize, limit: Duration) -> Result<Vec<i32>> {
        let until = Instant::now() + limit;
        let mut course = Course { aim: None, calls: Vec::new(), hit: None, named: 0 };
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return Ok(Vec::new()),
                Err(Errno::EINTR) => {}
                Ok(WaitStatus::StillAlive) if most > 0 && children().len() <= most => return Ok(Vec::new()),
                Ok(WaitStatus::StillAlive) if Instant::now() >= until => return Ok(children()),
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(200)),
                status => drop(self.attend(status?, &mut course)?),
            }
        }
    }

    /// Lets all that was left behind end.
    ///
    /// # Errors
    /// As [`Tracer::settle_to`].
    pub fn settle(&mut self, limit: Duration) -> Result<Vec<i32>> {
        self.settle_to(0, limit)
    }

    /// Kills and reaps whatever is left, of this process's own children only.
    ///
    /// # Errors
    /// When something survives.
    pub fn clear(&mut self) -> Result<()> {
        for _ in 0..50 {
            for pid in children() {
                gone_is_good(kill(Pid::from_raw(pid), Signal::SIGKILL))?;
            }
            if self.settle(Duration::from_millis(200))?.is_empty() {
                return Ok(());
            }
        }
        Err(format!("these processes do not die: {:?}", children()).into())
    }
}

impl Course<'_> {
    fn is_met(&mut self, aim: &Aim, call: &Call) -> bool {
        match &aim.when {
            When::At { role, index } => call.role == *role && call.index == *index,
            When::Named { call: name, nth } => {
                self.named += usize::from(call.name == name);
                call.name == name && self.named == *nth
            }
        }
    }
}

/// Lets a stopped process go on: to its next call, or, when the fault has been, to its end.
fn go_on(pid: Pid, course: &Course, signal: Option<Signal>) -> Result<()> {
    match course.hit {
        Some(_) => gone_is_good(ptrace::cont(pid, signal)),
        None => gone_is_good(ptrace::syscall(pid, signal)),
    }
}

/// A process that was killed meanwhile is not there any more for any request.
fn gone_is_good(done: nix::Result<()>) -> Result<()> {
    match done {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a new tracee is a thread of the process `leader`.
fn is_thread_of(pid: Pid, leader: i32) -> bool {
    std::path::Path::new(&format!("/proc/{leader}/task/{pid}")).exists()
}

/// Whether a process executes the runtime's sealed image.
fn is_init(pid: Pid) -> bool {
    let link = std::fs::read_link(format!("/proc/{pid}/exe"));
    link.is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:cofferdam-init"))
}

/// The children of this process.
fn children() -> Vec<i32> {
    let own = std::process::id();
    let text = std::fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A file in memory, for what a command prints.
///
/// # Errors
/// When there is no memory or descriptor for it.
pub fn memory_file(name: &str) -> Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into())
}

/// What was written, at most the first 64 KiB.
pub fn content(file: &File) -> String {
    let mut bytes = vec![0; 64 << 10];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Kills all tracees when the time is over.
struct Watchdog {
    called_off: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<bool>>,
}

impl Watchdog {
    fn set(limit: Duration, alive: Arc<Mutex<BTreeSet<i32>>>) -> Watchdog {
        if limit == Duration::MAX {
            return Watchdog { called_off: None, thread: None };
        }
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            if receiver.recv_timeout(limit) != Err(mpsc::RecvTimeoutError::Timeout) {
                return false;
            }
            // The lock keeps the pids from being reaped, and so from being somebody else's.
            let all = alive.lock().unwrap_or_else(PoisonError::into_inner);
            for pid in all.iter() {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            true
        });
        Watchdog { called_off: Some(sender), thread: Some(thread) }
    }

    fn fired(mut self) -> bool {
        drop(self.called_off.take());
        self.thread.take().is_some_and(|thread| thread.join().unwrap_or(true))
    }
}

/// A stopped process's call and its result.
#[cfg(target_arch = "x86_64")]
mod registers {
    use super::*;

    /// The name of the call that is about to be made; none for one without a name or of a process that is gone.
    pub fn call(pid: Pid) -> Result<Option<&'static str>> {
        let number = match ptrace::getregs(pid) {
            Ok(registers) => registers.orig_rax,
            Err(Errno::ESRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let arch = native_arch().ok_or("there is no table of this machine's system calls")?;
        Ok(u32::try_from(number).ok().and_then(|number| syscalls::name(number, arch)))
    }

    /// Makes the call none: the kernel then answers ENOSYS.
    pub fn cancel(pid: Pid) -> Result<()> {
        change(pid, |registers| registers.orig_rax = u64::MAX)
    }

    /// Sets the result of a call that is over.
    pub fn set_result(pid: Pid, result: i64) -> Result<()> {
        change(pid, |registers| registers.rax = result.cast_unsigned())
    }

    fn change(pid: Pid, how: impl FnOnce(&mut nix::libc::user_regs_struct)) -> Result<()> {
        let mut registers = match ptrace::getregs(pid) {
            Err(Errno::ESRCH) => return Ok(()),
            registers => registers?,
        };
        how(&mut registers);
        gone_is_good(ptrace::setregs(pid, registers))
    }
}

/// Nothing of this is reached: [`Tracer::new`] refuses.
#[cfg(not(target_arch = "x86_64"))]
mod registers {
    use super::*;

    pub fn call(_: Pid) -> Result<Option<&'static str>> {
        Ok(None)
    }

    pub fn cancel(_: Pid) -> Result<()> {
        Ok(())
    }

    pub fn set_result(_: Pid, _: i64) -> Result<()> {
        Ok(())
    }
}
