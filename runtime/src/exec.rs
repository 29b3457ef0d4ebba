//! `exec`: another process in a container that runs.

use crate::container::{Container, ExecOptions, Process, Saved};
use crate::error::{Error, Verb};
use crate::launch::{self, Companion, Given, JoinCgroup, Launch};
use crate::state::Status;
use crate::{files, sockets, timeline};
use cofferdam_cgroup::Cgroup;
use cofferdam_plan::{ExecOptions as PlanOptions, Filter, Host, Needs};
use cofferdam_spec::Hook;
use cofferdam_sys::Fd;
use std::os::fd::AsRawFd;

/// Runs a process in `container`.
pub(crate) fn exec(container: &Container, options: &ExecOptions) -> Result<Process, Error> {
    let saved = container.saved();
    launch::check_preserved(options.preserve_fds)?;
    let status = container.status()?;
    let process = match (status, container.pidfd()?) {
        (Status::Paused, _) if !options.ignore_paused => {
            return Err(container.wrong_state(Verb::Exec, status));
        }
        (Status::Created | Status::Running | Status::Paused, Some(pidfd)) => Fd::from(pidfd),
        (Status::Creating, _) => return Err(container.wrong_state(Verb::Exec, status)),
        _ => return Err(container.wrong_state(Verb::Exec, Status::Stopped)),
    };
    let target = &saved.kept().target;
    let needs = Needs {
        apparmor: !options.process.apparmor_profile.is_empty(),
        selinux: !options.process.selinux_label.is_empty(),
        process_alone: true,
        ..Needs::default()
    };
    let probe = timeline::timed("look at this machine", || Host::probe(&needs));
    let host = probe.map_err(|error| Error::call("look at this machine", error))?;
    let console = match (&options.console, &options.console_socket) {
        (Some(socket), _) => Some(Fd::from(sockets::duplicate(socket)?)),
        (None, Some(path)) => Some(Fd::from(sockets::connect(path)?)),
        (None, None) => None,
    };
    let plan_options = PlanOptions {
        preserve_fds: options.preserve_fds,
        console: console.is_some(),
        foreground: options.foreground,
    };
    let plan = timeline::timed("compile the plan", || {
        cofferdam_plan::compile_exec(&options.process, target, &host, &plan_options)
    })?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let subs: Vec<(Option<&str>, &str)> =
        options.cgroups.iter().map(|(controllers, path)| (controllers.as_deref(), path.as_str())).collect();
    let launch = Launch {
        verb: "exec",
        id: container.id(),
        plan: &plan,
        given: Given { console: console.as_ref(), listener: None, process: Some(&process) },
        stdio: options.stdio.as_ref().map(|fds| fds.each_ref().map(|fd| fd.as_raw_fd())),
        rootless: saved.kept().rootless,
        join: Some(JoinCgroup {
            cgroup: container.cgroup(),
            init: container.pid().unwrap_or_default(),
            subs: &subs,
        }),
        preserve_fds: options.preserve_fds,
    };
    let mut tenancy = Tenancy { saved, options };
    launch::launch(&launch, &mut tenancy).map(Process::from)
}

/// A process that is moving in.
struct Tenancy<'a> {
    saved: &'a Saved,
    options: &'a ExecOptions,
}

impl Companion for Tenancy<'_> {
    fn run_hooks(&mut self, kind: &str, _: &[Hook], _: i32) -> Result<(), Error> {
        Err(Error::Unsupported(format!("exec runs no {kind} hooks")))
    }

    fn record_plan(&mut self) -> Result<(), Error> {
        Err(Error::Unsupported("exec makes no cgroup".into()))
    }

    fn draft_state(&mut self, _: i32, _: &Fd, _: Option<&Cgroup>) -> Result<(), Error> {
        Err(Error::Unsupported("exec writes no state".into()))
    }

    fn commit(&mut self, pid: i32, pidfd: &Fd) -> Result<(), Error> {
        if let Some(path) = &self.options.pidfd_socket {
            sockets::send_pidfd(path, pidfd)?;
        }
        match &self.options.pid_file {
            Some(path) => files::write_pid(path, pid),
            None => Ok(()),
        }
    }

    fn compile_filter(&mut self) -> Result<&Filter, Error> {
        Err(Error::Unsupported("an exec has its container's filter, and none to compile".into()))
    }

    fn seccomp_listener(&mut self, pid: i32, listener: Fd) -> Result<(), Error> {
        let Some(filter) = &self.saved.kept().target.seccomp else {
            return Err(Error::Unsupported("a filter without a profile has a listener".into()));
        };
        sockets::send_seccomp_listener(filter, self.saved, Status::Running, pid, &listener)
    }
}
