//! `create` and `run`: from config.json to a process that waits, or runs.

use crate::container::{CreateOptions, Kept, Process, START, Saved, hook_state};
use crate::criu::{self, Outside};
use crate::error::Error;
use crate::launch::{self, Companion, Given, Launch};
use crate::sockets;
use crate::state::{
    FORMAT, Home, Init, LateHooks, LockedHome, Root, Status, boot_id, check_id, rfc3339_nanos,
};
use crate::{files, hooks, timeline};
use cofferdam_cgroup::Cgroup;
use cofferdam_plan::{Driver, ExecTarget, Filter, Host, HostStep, Options, PIDFD_RECEIVER, Plan};
use cofferdam_spec::{Hook, Process as ProcessSpec, Spec};
use cofferdam_step::Step;
use cofferdam_sys::Fd;
use nix::libc::SIGKILL;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::SystemTime;

/// Creates a container below `root`.
pub(crate) fn create(
    root: &Root,
    spec: &Spec,
    options: &CreateOptions,
) -> Result<(Home, Saved, Process), Error> {
    check_id(&options.id)?;
    launch::check_preserved(options.preserve_fds)?;
    let probe = timeline::timed("look at this machine", || Host::probe(&cofferdam_plan::needs(spec)));
    let host = probe.map_err(|error| Error::call("look at this machine", error))?;
    let plan_options = plan_options(options, &host);
    let plan = timeline::timed("compile the plan", || cofferdam_plan::compile(spec, &host, &plan_options))?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let target = ExecTarget::of(spec, &host, &plan_options, &plan)?;
    let mut saved = first_state(spec, options, &plan, target)?;
    saved.exec.rootless = plan_options.rootless;
    // Behind this nothing may fail without giving the id back.
    let home = timeline::timed("reserve the id", || root.reserve(&options.id))?;
    let mut creation = Creation { options, spec, host: &host, plan: &plan, home: &home, saved };
    match creation.carry_out() {
        Ok(process) => {
            let saved = creation.saved;
            Ok((home.unlock()?, saved, process))
        }
        Err(error) => {
            let state = hook_state(&creation.saved, Status::Stopped, 0);
            hooks::run_all("poststop", &spec.hooks.poststop, &state, &spec.annotations);
            if let Err(left) = home.remove() {
                tracing::warn!("{left}");
            }
            Err(error)
        }
    }
}

/// The command line's part of a plan.
pub fn plan_options(options: &CreateOptions, host: &Host) -> Options {
    Options {
        id: options.id.clone(),
        bundle: options.bundle.to_string_lossy().into_owned(),
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
        preserve_fds: options.preserve_fds,
        driver: options.driver,
        rootless: options.rootless.on(host, options.driver),
        run: options.run,
        console: options.console.is_some() || options.console_socket.is_some(),
        foreground: options.foreground,
    }
}

/// The state before anything is made: whoever finds it after a crash can remove what this creation may have left.
pub(crate) fn first_state(
    spec: &Spec,
    options: &CreateOptions,
    plan: &Plan,
    target: ExecTarget,
) -> Result<Saved, Error> {
    let cgroup = plan.host.iter().find_map(|step| match step {
        HostStep::PrepareCgroup { placement, .. } => Some(Cgroup::from_placement(placement)),
        _ => None,
    });
    let cgroup = cgroup.ok_or_else(|| Error::Unsupported("the plan has no cgroup".into()))?;
    let rootfs = spec.root.as_ref().map_or("", |root| root.path.as_str());
    let rootfs = options.bundle.join(rootfs).to_string_lossy().into_owned();
    let shares_mounts = target.host_root.is_some();
    let mounts_before = shares_mounts.then(|| crate::container::mounts_on(&rootfs));
    Ok(Saved {
        format: FORMAT,
        boot_id: boot_id()?.into(),
        oci_version: spec.oci_version.clone(),
        id: options.id.clone(),
        bundle: options.bundle.to_string_lossy().into_owned(),
        rootfs,
        created: rfc3339_nanos(SystemTime::now()),
        init: None,
        annotations: spec.annotations.clone(),
        cgroup,
        exec: Kept {
            target,
            process: exec_defaults(spec),
            late: if options.run { Vec::new() } else { late_steps(plan) },
            steps: plan.init.len(),
            rootless: false,
            systemd: options.driver == Driver::Systemd,
            outside: Outside { stdio: stdio_names(spec, options), ..Outside::of(spec, plan) },
            mounts_before,
        },
        hooks: LateHooks { poststart: spec.hooks.poststart.clone(), poststop: spec.hooks.poststop.clone() },
    })
}

/// What the process gets as stdin, stdout and stderr, unless it is a terminal of its own.
fn stdio_names(spec: &Spec, options: &CreateOptions) -> Vec<String> {
    match &options.stdio {
        _ if spec.process.as_ref().is_some_and(|process| process.terminal) => Vec::new(),
        Some(files) => criu::stdio_names(files.each_ref().map(AsRawFd::as_raw_fd)),
        None => criu::stdio_names([0, 1, 2]),
    }
}

/// What an exec takes from the container's own process.
fn exec_defaults(spec: &Spec) -> ProcessSpec {
    let mut process = spec.process.clone().unwrap_or_default();
    process.args.clear();
    process
}

/// The steps behind the start barrier without their bulk.
fn late_steps(plan: &Plan) -> Vec<Step> {
    let late = plan.init.iter().skip_while(|step| !matches!(step, Step::AwaitStart { .. }));
    late.map(|step| match step {
        Step::LoadSeccomp { flags, .. } => Step::LoadSeccomp { filter: Some(Vec::new()), flags: *flags },
        Step::Exec { args, .. } => {
            Step::Exec { args: args.iter().take(1).cloned().collect(), env: Vec::new() }
        }
        other => other.clone(),
    })
    .collect()
}

/// A container that is being created.
struct Creation<'a> {
    options: &'a CreateOptions,
    spec: &'a Spec,
    host: &'a Host,
    plan: &'a Plan,
    home: &'a LockedHome,
    saved: Saved,
}

impl Creation<'_> {
    fn carry_out(&mut self) -> Result<Process, Error> {
        let console = match (&self.options.console, &self.options.console_socket) {
            (Some(socket), _) => Some(Fd::from(sockets::duplicate(socket)?)),
            (None, Some(path)) => Some(Fd::from(sockets::connect(path)?)),
            (None, None) => None,
        };
        let listener = match self.options.run {
            true => None,
            false => Some(Fd::from(sockets::listen(self.home, START)?)),
        };
        let given = Given { console: console.as_ref(), listener: listener.as_ref(), process: None };
        let launch = Launch {
            verb: if self.options.run { "run" } else { "create" },
            id: &self.options.id,
            plan: self.plan,
            given,
            stdio: self.options.stdio.as_ref().map(|fds| fds.each_ref().map(|fd| fd.as_raw_fd())),
            rootless: self.saved.exec.rootless,
            join: None,
            preserve_fds: self.options.preserve_fds,
        };
        let launched = launch::launch(&launch, self);
        let attended = launched.map(Process::from).and_then(|process| self.poststart(process));
        attended.inspect_err(|_| {
            if let Err(error) = crate::container::unmount_rootfs(&self.saved) {
                tracing::warn!(%error, "the rootfs of a failed container stays mounted");
            }
        })
    }

    /// Of a `run`: the program runs. One whose hooks fail is ended, with what it may have started meanwhile: the kernel does that only where
    /// the pid namespace is the container's own.
    fn poststart(&self, process: Process) -> Result<Process, Error> {
        if !self.options.run || self.spec.hooks.poststart.is_empty() {
            return Ok(process);
        }
        let state = hook_state(&self.saved, Status::Running, process.pid);
        let done = hooks::run("poststart", &self.spec.hooks.poststart, &state, &self.spec.annotations);
        if let Err(error) = done {
            launch::end(&process);
            let cgroup = &self.saved.cgroup;
            if let Err(error) = cgroup.kill_all(SIGKILL).and_then(|()| cgroup.remove()) {
                tracing::warn!(%error, "cannot remove the cgroup of a failed container");
            }
            return Err(error);
        }
        Ok(process)
    }
}

impl Companion for Creation<'_> {
    fn run_hooks(&mut self, kind: &str, hooks: &[Hook], pid: i32) -> Result<(), Error> {
        // Where prestart hooks came from, create had ended: what reads them (crun's and OCI's tests among it) looks for that.
        let status = if kind == "prestart" { Status::Created } else { Status::Creating };
        let state = hook_state(&self.saved, status, pid);
        hooks::run(hooks::kind(kind), hooks, &state, &self.spec.annotations)
    }

    fn record_plan(&mut self) -> Result<(), Error> {
        // The filter is for execs, which there are none of before the second state.
        let filter = self.saved.exec.target.seccomp.take();
        let written = self.home.write(&self.saved);
        self.saved.exec.target.seccomp = filter;
        written
    }

    fn draft_state(&mut self, pid: i32, pidfd: &Fd, cgroup: Option<&Cgroup>) -> Result<(), Error> {
        use std::os::fd::AsFd;
        self.saved.init = Some(Init::of(pid, pidfd.as_fd())?);
        if let Some(cgroup) = cgroup {
            self.saved.cgroup = cgroup.clone();
        }
        self.home.draft(&self.saved)
    }

    fn commit(&mut self, pid: i32, pidfd: &Fd) -> Result<(), Error> {
        self.home.publish()?;
        let receiver = || self.spec.annotations.get(PIDFD_RECEIVER).map(PathBuf::from);
        if let Some(path) = self.options.pidfd_socket.clone().or_else(receiver) {
            sockets::send_pidfd(&path, pidfd)?;
        }
        match &self.options.pid_file {
            Some(path) => files::write_pid(path, pid),
            None => Ok(()),
        }
    }

    fn compile_filter(&mut self) -> Result<&Filter, Error> {
        let (filter, warnings) = Filter::compile(self.spec, self.host)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(self.saved.exec.target.seccomp.insert(filter))
    }

    fn seccomp_listener(&mut self, pid: i32, listener: Fd) -> Result<(), Error> {
        let Some(filter) = &self.saved.exec.target.seccomp else {
            return Err(Error::Unsupported("a filter without a profile has a listener".into()));
        };
        sockets::send_seccomp_listener(filter, &self.saved, Status::Creating, pid, &listener)
    }
}
