//! Which calls start processes.

use super::running;
use crate::{RUNTIME, support::*};
use cofferdam_proto::{Any, Empty, task};
use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Event},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

/// Follows all threads of a process by ptrace: none gets past a fork, vfork or clone without being counted. The only thread that may
/// speak to what it traces is the one that has begun it, so this is one.
struct Tracer {
    /// How many processes it has started since.
    started: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tracer {
    /// Follows a process that has one thread.
    fn of(pid: u32) -> Tracer {
        let (started, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (tell, told) = mpsc::channel();
        let (count, end, pid) = (started.clone(), enough.clone(), Pid::from_raw(pid as i32));
        let thread = std::thread::spawn(move || {
            let options = ptrace::Options::PTRACE_O_TRACECLONE
                | ptrace::Options::PTRACE_O_TRACEFORK
                | ptrace::Options::PTRACE_O_TRACEVFORK;
            let seized = ptrace::seize(pid, options);
            tell.send(seized).unwrap();
            if seized.is_ok() {
                follow(pid, &count, &end);
            }
        });
        told.recv().unwrap().unwrap();
        assert_eq!(threads(pid.as_raw() as u32), 1, "a thread that is not followed");
        Tracer { started, enough, thread: Some(thread) }
    }

    fn processes(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    /// Looks away; everything that was started before has been counted.
    fn end(mut self) -> usize {
        self.enough.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.processes()
    }
}

/// What is traced goes on by itself when this thread ends.
fn follow(of: Pid, started: &AtomicUsize, enough: &AtomicBool) {
    const STOP: i32 = Event::PTRACE_EVENT_STOP as i32;
    let is_thread = |pid: Pid| process_of(pid) == Some(of.as_raw());
    // The first stop of what is new can come in front of its parent's word of it, by which time it may be gone.
    let mut stopped: HashMap<Pid, bool> = HashMap::new();
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        let went_on = match waitpid(None, Some(flags)) {
            Ok(WaitStatus::StillAlive) if enough.load(Ordering::SeqCst) => return,
            Ok(WaitStatus::StillAlive) => {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            Ok(WaitStatus::PtraceEvent(pid, _, STOP)) => {
                match *stopped.entry(pid).or_insert_with(|| is_thread(pid)) {
                    true => ptrace::cont(pid, None),
                    false => ptrace::detach(pid, None),
                }
            }
            Ok(WaitStatus::PtraceEvent(pid, _, _)) => {
                let new = Pid::from_raw(ptrace::getevent(pid).unwrap_or(0) as i32);
                let thread = stopped.get(&new).copied().unwrap_or_else(|| is_thread(new));
                started.fetch_add(usize::from(!thread), Ordering::SeqCst);
                ptrace::cont(pid, None)
            }
            Ok(WaitStatus::Stopped(pid, signal)) => ptrace::cont(pid, signal),
            Ok(_) => Ok(()),
            Err(Errno::ECHILD) => return,
            Err(errno) => panic!("wait for what is traced: {errno}"),
        };
        // One that was killed meanwhile does not go on.
        assert!(matches!(went_on, Ok(()) | Err(Errno::ESRCH)), "{went_on:?}");
    }
}

/// The process that a thread belongs to.
fn process_of(thread: Pid) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The calls that need nothing but the state and the cgroup, while it runs.
fn calls_on_what_runs(client: &mut Client, tracer: &Tracer) {
    let id = || "web".to_string();
    let none = |tracer: &Tracer, call: &str, before: usize| {
        assert_eq!(tracer.processes() - before, 0, "{call} has started a process");
    };
    let before = tracer.processes();
    client.state("web", "").unwrap();
    client.state("web", "e").unwrap();
    none(tracer, "State", before);
    let pids: task::PidsResponse =
        client.call("Pids", &task::PidsRequest { id: id(), ..Default::default() }).unwrap();
    assert_eq!(pids.processes.len(), 2);
    none(tracer, "Pids", before);
    let stats: task::StatsResponse =
        client.call("Stats", &task::StatsRequest { id: id(), ..Default::default() }).unwrap();
    assert!(!stats.stats.value.is_empty());
    none(tracer, "Stats", before);
    let _: Empty = client.call("Pause", &task::PauseRequest { id: id(), ..Default::default() }).unwrap();
    assert_eq!(client.state("web", "").unwrap().status.enum_value(), Ok(task::Status::PAUSED));
    none(tracer, "Pause", before);
    let _: Empty = client.call("Resume", &task::ResumeRequest { id: id(), ..Default::default() }).unwrap();
    none(tracer, "Resume", before);
    let resources = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value: br#"{"memory":{"limit":67108864},"pids":{"limit":100}}"#.to_vec(),
        ..Default::default()
    };
    let update =
        task::UpdateTaskRequest { id: id(), resources: Some(resources).into(), ..Default::default() };
    let _: Empty = client.call("Update", &update).unwrap();
    none(tracer, "Update", before);
}

#[test]
fn only_what_needs_a_process_starts_one() {
    if !RUNTIME.is_empty() {
        return skip("another runtime is a process a call");
    }
    let Some((lab, mut client)) = running("inprocess", "exec sleep 1000") else { return };
    let shim = client.shim_pid();
    until("workers are gone", || threads(shim) == 1);
    let tracer = Tracer::of(shim);
    // An exec is a process, and is seen: what follows would be, too.
    client.exec(&lab, "web", "e", &["sleep", "1000"]).unwrap();
    assert_eq!(tracer.processes(), 0, "Exec alone starts nothing");
    client.start("web", "e").unwrap();
    let with_exec = tracer.processes();
    assert!(with_exec > 0, "the exec was not seen");
    calls_on_what_runs(&mut client, &tracer);
    client.kill("web", "e", 9).unwrap();
    assert_eq!(client.wait("web", "e"), Ok(137));
    client.delete("web", "e").unwrap();
    let all = task::KillRequest { id: "web".into(), signal: 9, all: true, ..Default::default() };
    let _: Empty = client.call("Kill", &all).unwrap();
    assert_eq!(client.wait("web", ""), Ok(137));
    client.delete("web", "").unwrap();
    assert_eq!(tracer.processes(), with_exec, "Kill or Delete have started a process");
    client.shutdown("web");
    lab.assert_nothing_left();
    assert_eq!(tracer.end(), with_exec);
}
