//! Carries the host's half of a plan out: opens what init inherits, places it in its cgroup, meets it at the barriers.
//!
//! [`road`] is how init gets there, `slots` what it takes along, `sources` what follows it, `launch` below the host steps in their order.
//! Whatever fails, nothing is left: init is killed and waited for, the cgroup is removed.

mod aside;
mod conditions;
mod conversation;
mod ids;
mod image;
mod netdevices;
pub mod road;
mod slots;
mod sources;

use crate::error::{Ending, Error};
use crate::report::StepFailed;
use crate::timeline;
use cofferdam_cgroup::{Cgroup, Options as CgroupOptions, Prepared, Settings};
use cofferdam_plan::{Filter, HostStep, Plan};
use cofferdam_spec::Hook;
use cofferdam_step::{Barrier, FilterHead, Namespace, Program, Report, ReportKind, Step};
use cofferdam_sys::{AsFd as _, Errno, Fd, Raw, children, process};
use nix::libc;
use road::{Arrival, Departure, Traveller};
use std::os::fd::OwnedFd;

pub(crate) use conversation::{rest, unless_gone};
pub use slots::{Given, check_preserved};

/// What the caller does between two steps of the plan.
pub trait Companion {
    /// Runs hooks in the runtime's namespaces.
    fn run_hooks(&mut self, kind: &str, hooks: &[Hook], pid: i32) -> Result<(), Error>;
    /// Writes the first state: what is going to be made.
    fn record_plan(&mut self) -> Result<(), Error>;
    /// Writes the state that [`Companion::commit`] is going to show; init is alive.
    fn draft_state(&mut self, pid: i32, pidfd: &Fd, cgroup: Option<&Cgroup>) -> Result<(), Error>;
    /// Shows the state and writes the pid file; init is alive and cannot run the container's program before this returns.
    fn commit(&mut self, pid: i32, pidfd: &Fd) -> Result<(), Error>;
    /// Compiles the seccomp filter of a plan with [`HostStep::CompileFilter`].
    fn compile_filter(&mut self) -> Result<&Filter, Error>;
    /// Gets the listener of a seccomp filter with NOTIFY, before the program makes its first call.
    fn seccomp_listener(&mut self, pid: i32, listener: Fd) -> Result<(), Error>;
}

/// What is launched, and for whom.
pub struct Launch<'a> {
    /// `create`, `run` or `exec`: for messages.
    pub verb: &'static str,
    /// The container's id: for messages.
    pub id: &'a str,
    /// The plan.
    pub plan: &'a Plan,
    /// What fills the slots that only the caller can fill.
    pub given: Given<'a>,
    /// What becomes stdin, stdout and stderr; none keeps this process's.
    pub stdio: Option<[Raw; 3]>,
    /// Forgives cgroup errors.
    pub rootless: bool,
    /// A cgroup that is there already (exec).
    pub join: Option<JoinCgroup<'a>>,
    /// Descriptors from 3 on that the container's program inherits.
    pub preserve_fds: u32,
}

/// How an exec gets into the container's cgroup.
pub struct JoinCgroup<'a> {
    /// The container's.
    pub cgroup: &'a Cgroup,
    /// The container's first process, which knows where a v2 container has gone.
    pub init: i32,
    /// `--cgroup [controllers:]path`
    pub subs: &'a [(Option<&'a str>, &'a str)],
}

/// A process that was launched; it is this process's child.
#[derive(Debug)]
pub struct Launched {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The cgroup that was made for it.
    pub cgroup: Option<Cgroup>,
}

/// Carries the plan out. On return the container waits for its start (create), or its program runs (run, exec).
///
/// # Errors
/// The first failure, as a sentence; nothing is left of the container.
pub fn launch(launch: &Launch, companion: &mut dyn Companion) -> Result<Launched, Error> {
    let mut journey = Journey::new(launch);
    match journey.travel(companion) {
        Ok(()) => journey.launched(),
        Err(error) => {
            let error = journey.explain(error);
            journey.turn_back();
            Err(error)
        }
    }
}

/// Carries out a plan whose init does its steps in the container and ends: no program, no cgroup.
///
/// # Errors
/// The first failure, as a sentence.
pub fn visit(launch: &Launch) -> Result<(), Error> {
    let mut journey = Journey::new(launch);
    journey.spawn()?;
    let report = journey.next();
    match (report, journey.traveller.as_ref().map(|traveller| children::wait(traveller.pid))) {
        (Ok(None), Some(Ok(0))) => Ok(()),
        (Ok(report @ Some(_)), _) => Err(journey.failure(report)),
        (Err(error), _) => Err(error),
        (Ok(None), _) => {
            Err(Error::InitDied { verb: launch.verb, id: launch.id.into(), end: Ending::Unknown, hint: None })
        }
    }
}

/// Whether what joins a cgroup needs nobody else for it: there are only v1's hierarchies, or it was born in v2's.
fn enters_by_itself(join: &JoinCgroup, born_in: bool) -> bool {
    join.subs.is_empty() && (born_in || join.cgroup.unified_path().is_none())
}

/// A launch that is under way.
struct Journey<'a> {
    launch: &'a Launch<'a>,
    prepared: Option<Prepared<'a>>,
    settings: Option<&'a Settings>,
    cgroup: Option<Cgroup>,
    traveller: Option<Traveller>,
    /// `tasks` of the v1 hierarchies that init enters by itself.
    tasks: Vec<OwnedFd>,
    /// What init mounts, opened in its mount namespace.
    trees: Vec<OwnedFd>,
    /// The seccomp filter that is sent at the end, behind its head.
    filter: Vec<u8>,
    /// Init has said that only the execve is left.
    executing: bool,
}

impl<'a> Journey<'a> {
    fn new(launch: &'a Launch<'a>) -> Journey<'a> {
        Journey {
            launch,
            prepared: None,
            settings: None,
            cgroup: None,
            traveller: None,
            tasks: Vec::new(),
            trees: Vec::new(),
            filter: Vec::new(),
            executing: false,
        }
    }

    fn travel(&mut self, companion: &mut dyn Companion) -> Result<(), Error> {
        for step in &self.launch.plan.host {
            timeline::timed(step, || self.step(step, companion))?;
        }
        // A created container waits behind its last barrier; everything else runs its program now.
        let waits = self.launch.plan.init.iter().any(|step| matches!(step, Step::AwaitStart { .. }));
        if waits {
            return Ok(());
        }
        timeline::timed("await the program", || self.see_off(companion))
    }

    fn step(&mut self, step: &'a HostStep, companion: &mut dyn Companion) -> Result<(), Error> {
        match step {
            HostStep::PrepareCgroup { placement, settings, owner } => {
                let options = CgroupOptions { rootless: self.launch.rootless, owner: *owner };
                let prepared = Cgroup::begin(placement, settings, &options)
                    .map_err(|error| Error::below("unable to apply cgroup configuration", error))?;
                self.prepared = Some(prepared);
                self.settings = Some(settings);
                Ok(())
            }
            HostStep::Spawn => self.spawn(),
            HostStep::FollowClone => self.follow_clone(),
            HostStep::OpenTrees => {
                let plan = self.launch.plan;
                let later = |index: usize| {
                    plan.host.iter().any(
                        |step| matches!(step, HostStep::OpenTree { slot } if usize::from(slot.0) == index),
                    )
                };
                let now = plan.slots.iter().enumerate().filter(|(index, _)| !later(*index));
                self.trees = slots::open_trees(now.map(|(_, source)| source), self.traveller()?.pid)?;
                Ok(())
            }
            HostStep::OpenSources => {
                self.trees = sources::open(&self.launch.plan.init);
                Ok(())
            }
            HostStep::OpenTree { slot } => {
                let source = self.launch.plan.slots.get(usize::from(slot.0));
                self.trees = slots::open_trees(source, self.traveller()?.pid)?;
                Ok(())
            }
            HostStep::CompleteCgroup => {
                let completed = self.prepared.as_mut().map_or(Ok(()), Prepared::complete);
                completed.map_err(|error| Error::below("unable to apply cgroup configuration", error))
            }
            HostStep::EnterCgroup => self.enter_cgroup(),
            HostStep::CompileFilter => {
                let filter = companion.compile_filter()?;
                let length = u32::try_from(filter.program.len())
                    .map_err(|_| Error::call("send the seccomp filter", Errno::E2BIG))?;
                self.filter.extend_from_slice(&FilterHead { flags: filter.flags, length }.to_bytes());
                self.filter.extend_from_slice(&filter.program);
                Ok(())
            }
            HostStep::MapIds { uid, gid, deny_setgroups } => {
                ids::map(self.traveller()?.pid, uid, gid, *deny_setgroups)
            }
            HostStep::MoveNetworkDevices { devices, namespace } => {
                let own = format!("/proc/{}/ns/net", self.traveller()?.pid);
                netdevices::move_all(devices, namespace.as_deref().unwrap_or(&own))
            }
            HostStep::SetOomScoreAdj { value } => {
                let path = format!("/proc/{}/oom_score_adj", self.traveller()?.pid);
                std::fs::write(&path, value.to_string()).map_err(|error| Error::io("write", path, error))
            }
            HostStep::SetRlimits { limits } => {
                let pid = self.traveller()?.pid;
                limits.iter().try_for_each(|limit| {
                    process::prlimit(pid, limit.resource, limit.soft, limit.hard)
                        .map_err(|errno| Error::call(format!("set rlimit {}", limit.resource), errno))
                })
            }
            HostStep::Release(barrier) => {
                let fds = match barrier {
                    Barrier::CgroupJoined => std::mem::take(&mut self.tasks),
                    Barrier::TreesOpened | Barrier::TreeWanted | Barrier::SourcesOpened => {
                        std::mem::take(&mut self.trees)
                    }
                    _ => Vec::new(),
                };
                let filter = match barrier {
                    Barrier::Committed => std::mem::take(&mut self.filter),
                    _ => Vec::new(),
                };
                let sent = self.traveller()?.conversation.release(*barrier, &fds, &filter);
                sent.map_err(|errno| Error::call("speak to init", errno))
            }
            HostStep::Await(barrier) => self.await_barrier(*barrier, companion),
            HostStep::RunHooks { kind, hooks } => companion.run_hooks(kind, hooks, self.traveller()?.pid),
            HostStep::RecordPlan => companion.record_plan(),
            HostStep::DraftState => {
                let traveller = self.traveller.as_ref().ok_or_else(no_init)?;
                companion.draft_state(traveller.pid, &traveller.pidfd, self.cgroup.as_ref())
            }
            HostStep::Commit => {
                let traveller = self.traveller()?;
                companion.commit(traveller.pid, &traveller.pidfd)
            }
        }
    }

    fn spawn(&mut self) -> Result<(), Error> {
        let Launch { plan, given, stdio, preserve_fds, .. } = self.launch;
        let slots = slots::open(&plan.slots, given, plan.host.contains(&HostStep::OpenTrees))?;
        conditions::check_files(&plan.conditions, &slots)?;
        let (born_in, _held) = self.birth_cgroup()?;
        let mut inherit: Vec<Raw> = slots.iter().flatten().map(Fd::raw).collect();
        // What the caller wants to pass on need not be close-on-exec: callers differ.
        inherit.extend((3..3 + *preserve_fds).map(|fd| fd as Raw));
        let steps = plan.init.as_slice().into();
        let program = Program { fds: road::numbers(&slots), timed: timeline::recording(), steps };
        let departure = Departure {
            staged: plan.road.staged,
            namespaces: plan.road.clone,
            cgroup: born_in,
            inherit: &inherit,
            stdio: *stdio,
        };
        let traveller =
            road::depart(&departure, &program).map_err(|errno| Error::call("spawn init", errno))?;
        self.tell_of_spawn(&traveller);
        timeline::init(traveller.pid, &plan.init);
        if !plan.road.staged {
            tracing::debug!("child process in init(): {} has its steps", traveller.pid);
        }
        self.traveller = Some(traveller);
        Ok(())
    }

    fn follow_clone(&mut self) -> Result<(), Error> {
        // While init is on its way.
        self.open_joined_tasks()?;
        let traveller = self.traveller.as_mut().ok_or_else(no_init)?;
        let arrived = traveller.arrive().map_err(|errno| Error::call("listen to init", errno))?;
        if let Arrival::Failed(report) = arrived {
            return Err(self.failure(report));
        }
        let pid = traveller.pid;
        timeline::init(pid, &self.launch.plan.init);
        tracing::debug!("child process in init(): {pid} has its steps");
        conditions::check_maps(&self.launch.plan.conditions, pid)?;
        self.settle()
    }

    /// The milestones of a start have runc's words in the debug log (here, and where init says that only the execve is left): whoever
    /// looks for them in runc's finds them in ours.
    fn tell_of_spawn(&self, init: &Traveller) {
        let pid = init.pid;
        let staged = self.launch.plan.road.staged;
        tracing::debug!(
            staged,
            "nsexec container setup: init is {pid}, {} steps",
            self.launch.plan.init.len()
        );
        for step in &self.launch.plan.init {
            if let Step::SetAffinity { mask } = step
                && !mask.is_empty()
            {
                let digits: String = mask.iter().rev().map(|byte| format!("{byte:02x}")).collect();
                let digits = digits.trim_start_matches('0');
                tracing::debug!("nsexec-{pid}: affinity: 0x{digits}");
                break;
            }
        }
    }

    /// The v2 directory that init is born in, and what keeps it open: of the new cgroup, or of the one that an exec joins.
    fn birth_cgroup(&self) -> Result<(Option<Raw>, Option<OwnedFd>), Error> {
        if let Some(prepared) = &self.prepared {
            return Ok((prepared.clone_dir().map(|dir| dir.number()), None));
        }
        let Some(join) = self.launch.join.as_ref().filter(|join| join.cgroup.unified_path().is_some()) else {
            return Ok((None, None));
        };
        let sub = match join.subs {
            [] => None,
            [(None, path)] => Some(*path),
            _ => return Ok((None, None)),
        };
        let dir =
            join.cgroup.v2_dir_fd(sub).map_err(|error| Error::below("error adding pid to cgroups", error))?;
        Ok((Some(dir.number()), Some(dir)))
    }

    fn enter_cgroup(&mut self) -> Result<(), Error> {
        let &Traveller { pid, in_cgroup: born_in, .. } = self.traveller()?;
        // Without clone3 nobody is born in a cgroup.
        let by_itself = |prepared: &Prepared| {
            prepared.can_enter_by_itself() && (born_in || prepared.clone_dir().is_none())
        };
        if let Some(prepared) = self.prepared.as_ref().filter(|prepared| by_itself(prepared)) {
            // What fails here is removed behind the end of init, who may be in it.
            let tasks = prepared.self_entry().map_err(|error| Error::below("open the cgroup", error))?;
            self.tasks = tasks;
        }
        let entered = match self.prepared.take() {
            None => return self.join_cgroup(pid, born_in),
            Some(prepared) if by_itself(&prepared) => Ok(prepared.entered()),
            Some(prepared) => prepared.enter(pid, born_in),
        };
        let cgroup = entered.map_err(|error| Error::below("enter the cgroup", error))?;
        if cgroup.dirs().is_empty() && !self.makes_a_pid_namespace() {
            // runc's last words here are what its callers and its own tests look for.
            tracing::warn!(
                "a container without a cgroup and without a pid namespace of its own: what it starts cannot all be killed. \
                 Such configuration is strongly discouraged"
            );
        }
        self.cgroup = Some(cgroup);
        self.settle()
    }

    /// Once whatever clones on the way has cloned, and is in its cgroup: a limit of one process can hold then.
    fn settle(&self) -> Result<(), Error> {
        let (Some(cgroup), Some(settings)) = (&self.cgroup, self.settings) else { return Ok(()) };
        if self.traveller()?.will_clone() {
            return Ok(());
        }
        cgroup.settle(settings).map_err(|error| Error::below("set the cgroup's limits", error))
    }

    fn makes_a_pid_namespace(&self) -> bool {
        let plan = self.launch.plan;
        let clones =
            |step: &Step| matches!(step, Step::Clone { namespaces } if namespaces.contains(Namespace::Pid));
        plan.road.clone.contains(Namespace::Pid) || plan.init.iter().any(clones)
    }

    /// `tasks` of the cgroup that an exec joins by itself, once.
    fn open_joined_tasks(&mut self) -> Result<(), Error> {
        let born_in = self.traveller()?.in_cgroup;
        let Some(join) = &self.launch.join else { return Ok(()) };
        if self.tasks.is_empty() && enters_by_itself(join, born_in) {
            self.tasks = join.cgroup.self_entry().map_err(|error| Error::below("open the cgroup", error))?;
        }
        Ok(())
    }

    /// The cgroup of a container that is there. Of what goes wrong runc's words tell, which its own tests look for.
    fn join_cgroup(&mut self, pid: i32, born_in: bool) -> Result<(), Error> {
        let Some(join) = &self.launch.join else { return Ok(()) };
        if enters_by_itself(join, born_in) {
            return self.open_joined_tasks();
        }
        match join.subs {
            _ if born_in && join.cgroup.version() == cofferdam_cgroup::Version::V2 => {
                join.cgroup.resctrl().map_or(Ok(()), |group| group.enter(pid))
            }
            [] => join.cgroup.join(pid, Some(join.init)),
            subs => join.cgroup.join_sub(pid, subs),
        }
        .map_err(|error| Error::below(format!("error adding pid {pid} to cgroups"), error))
    }

    fn await_barrier(&mut self, barrier: Barrier, companion: &mut dyn Companion) -> Result<(), Error> {
        loop {
            match self.next()? {
                Some(Report { kind: ReportKind::AtBarrier, detail, .. }) if detail == barrier as i64 => {
                    return Ok(());
                }
                Some(Report { kind: ReportKind::SeccompListener, detail, .. }) => {
                    self.hand_over(detail as Raw, companion)?;
                }
                other => return Err(self.failure(other)),
            }
        }
    }

    /// Gives the listener of init's filter to whoever is to answer its calls, and lets init go on.
    fn hand_over(&self, number: Raw, companion: &mut dyn Companion) -> Result<(), Error> {
        let traveller = self.traveller()?;
        let taken = traveller.take_fd(number);
        let listener = taken.map_err(|errno| Error::call("take the seccomp listener", errno))?;
        companion.seccomp_listener(traveller.pid, listener)?;
        let answered = traveller.conversation.answer(0);
        answered.map_err(|errno| Error::call("speak to init", errno))
    }

    /// Waits until the program runs.
    fn see_off(&mut self, companion: &mut dyn Companion) -> Result<(), Error> {
        loop {
            match self.next()? {
                Some(Report { kind: ReportKind::Executing, .. }) => {
                    let what = if self.launch.verb == "exec" { "setns_init" } else { "init" };
                    tracing::debug!("{what}: about to exec; init: closing the pipe to signal completion");
                    self.executing = true;
                }
                Some(Report { kind: ReportKind::SeccompListener, detail, .. }) => {
                    self.hand_over(detail as Raw, companion)?;
                }
                None if self.executing => {
                    timeline::gone();
                    return Ok(());
                }
                other => return Err(self.failure(other)),
            }
        }
    }

    fn next(&self) -> Result<Option<Report>, Error> {
        self.traveller()?.conversation.read().map_err(|errno| Error::call("listen to init", errno))
    }

    fn traveller(&self) -> Result<&Traveller, Error> {
        self.traveller.as_ref().ok_or_else(no_init)
    }

    /// What a report that was not hoped for means.
    fn failure(&self, report: Option<Report>) -> Error {
        let Launch { verb, id, plan, .. } = *self.launch;
        match report {
            Some(report) if report.kind == ReportKind::Failed => {
                let failed = StepFailed::new(verb, id, &plan.init, report);
                let traveller = self.traveller.as_ref().filter(|_| failed.is_a_hook);
                match traveller.map(|traveller| traveller.conversation.rest()) {
                    Some(output) => failed.with_output(&output).into(),
                    None => failed.into(),
                }
            }
            Some(report) => {
                Error::Unsupported(format!("{verb} {id}: init said {:?} out of turn", report.kind))
            }
            None => {
                let end = self.traveller.as_ref().map_or(Ending::Unknown, |traveller| ending(traveller.pid));
                let hint =
                    "a process that dies without a word was mostly killed for memory: see memory.limit";
                let hint = (!matches!(end, Ending::Exited(_))).then_some(hint);
                Error::InitDied { verb, id: id.into(), end, hint }
            }
        }
    }

    /// A failure on the host's side may be the consequence of one in init, which says more.
    fn explain(&self, error: Error) -> Error {
        let Some(traveller) = &self.traveller else { return error };
        if matches!(error, Error::StepFailed(_) | Error::InitDied { .. } | Error::HookFailed { .. }) {
            return error;
        }
        match process::poll_readable(&traveller.conversation.0, 0) {
            Ok(true) => match traveller.conversation.read() {
                Ok(Some(report)) if report.kind == ReportKind::Failed => self.failure(Some(report)),
                _ => error,
            },
            _ => error,
        }
    }

    fn turn_back(&mut self) {
        // With it goes the conversation: a clone that nobody has heard of ends by that.
        if let Some(traveller) = self.traveller.take() {
            traveller.end();
        }
        // What is only prepared removes itself; members first, for a cgroup with processes stays.
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill_all(libc::SIGKILL);
            if let Err(error) = cgroup.remove() {
                tracing::warn!(%error, "cannot remove the cgroup of a failed container");
            }
        }
        self.prepared = None;
    }

    fn launched(self) -> Result<Launched, Error> {
        let traveller = self.traveller.ok_or_else(no_init)?;
        Ok(Launched { pid: traveller.pid, pidfd: traveller.pidfd.into(), cgroup: self.cgroup })
    }
}

fn no_init() -> Error {
    Error::Unsupported("the plan speaks to init before it spawns it".into())
}

/// How a child ended; it is waited for.
fn ending(pid: i32) -> Ending {
    match children::wait(pid) {
        Ok(status) if libc::WIFSIGNALED(status) => Ending::Killed(libc::WTERMSIG(status)),
        Ok(status) => Ending::Exited(libc::WEXITSTATUS(status)),
        Err(Errno::ECHILD) => Ending::Unknown,
        Err(errno) => Ending::Unheard(errno.0),
    }
}

/// Kills a process of ours and waits for it.
pub fn end(child: &crate::container::Process) {
    let _ = process::pidfd_send_signal(&child.pidfd, libc::SIGKILL);
    let _ = children::wait(child.pid);
}

/// Kills a process that need not be ours.
pub fn end_process(pidfd: &OwnedFd) {
    let _ = process::pidfd_send_signal(pidfd, libc::SIGKILL);
}
