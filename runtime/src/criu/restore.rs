//! `restore`: a container comes out of images, with its processes where they were.

use super::session::{self, Failure, Notice, Session};
use super::{DESCRIPTORS, Folders, RestoreOptions, external, log, options, rpc};
use crate::container::{Process, Saved, hook_state};
use crate::create::{first_state, plan_options};
use crate::error::Error;
use crate::state::{Home, Init, LockedHome, Root as Store, Status, check_id};
use crate::{criu, files, hooks, sockets};
use cofferdam_cgroup::{Cgroup, Options as CgroupOptions, Settings};
use cofferdam_plan::{ExecTarget, Host, HostStep, Plan};
use cofferdam_spec::Spec;
use cofferdam_step::Namespace;
use cofferdam_sys::{Fd, children, net, process};
use nix::libc;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const LOG: &str = "restore.log";
/// descriptors.json is three short names.
const LONGEST_DESCRIPTORS: u64 = 64 * 1024;

/// Restores a container below `store`.
pub(crate) fn restore(
    store: &Store,
    spec: &Spec,
    said: &RestoreOptions,
) -> Result<(Home, Saved, Process), Error> {
    let options = &said.container;
    check_id(&options.id)?;
    let probe = Host::probe(&cofferdam_plan::needs(spec));
    let host = probe.map_err(|error| Error::call("look at this machine", error))?;
    let plan_options = plan_options(options, &host);
    let plan = cofferdam_plan::compile(spec, &host, &plan_options)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let target = ExecTarget::of(spec, &host, &plan_options, &plan)?;
    let mut saved = first_state(spec, options, &plan, target)?;
    saved.exec.rootless = plan_options.rootless;
    let folders = Folders::open(&said.images, false, LOG)?;
    // Behind this nothing may fail without giving the id back.
    let home = store.reserve(&options.id)?;
    let mut restoration = Restoration {
        said,
        spec,
        plan: &plan,
        home: &home,
        folders,
        saved,
        console: None,
        cgroup: None,
        pidfd: None,
    };
    match restoration.carry_out() {
        Ok(process) => {
            let saved = restoration.saved;
            Ok((home.unlock()?, saved, process))
        }
        Err(error) => {
            restoration.turn_back();
            let state = hook_state(&restoration.saved, Status::Stopped, 0);
            hooks::run_all("poststop", &spec.hooks.poststop, &state, &spec.annotations);
            drop(restoration);
            if let Err(left) = home.remove() {
                tracing::warn!("{left}");
            }
            Err(error)
        }
    }
}

/// A container that is being restored.
struct Restoration<'a> {
    said: &'a RestoreOptions,
    spec: &'a Spec,
    plan: &'a Plan,
    home: &'a LockedHome,
    folders: Folders,
    saved: Saved,
    /// Where the terminal's master goes.
    console: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    /// The first process, once it is there.
    pidfd: Option<Fd>,
}

impl Restoration<'_> {
    fn carry_out(&mut self) -> Result<Process, Error> {
        self.home.write(&self.saved)?;
        let options = &self.said.container;
        self.console = match (&options.console, &options.console_socket) {
            (Some(socket), _) => Some(sockets::duplicate(socket)?),
            (None, Some(path)) => Some(sockets::connect(path)?),
            (None, None) => None,
        };
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| Error::io("open", "/dev/null", error))?;
        let stdio = self.stdio(&null);
        let names = criu::stdio_names(stdio);
        let (namespaces, inherited) = self.inherited()?;
        let more: Vec<i32> = namespaces.iter().map(AsRawFd::as_raw_fd).collect();
        let (plan, settings) = (self.plan, settings_of(self.plan)?);
        let prepared = self.prepare_cgroup(plan)?;
        // The container's init becomes our child long before we hear of it.
        let _expecting = children::expect();
        let scaffold = super::scaffold::Scaffold::new(self.home.path())?;
        let root_path = scaffold.path().to_string_lossy().into_owned();
        let (mounts, folders, session) = scaffold.raise(Path::new(&self.saved.rootfs), plan, |root| {
            let mounts = external::mounts_for(self.spec, plan, root, &root_path)?;
            // CRIU mounts below its working folder, which must be in its own mount namespace for that.
            let folders = Folders::open(&self.said.images, false, LOG)?;
            Ok((mounts, folders, Session::start(stdio, &more)?))
        })?;
        self.folders = folders;
        // Whatever CRIU makes is born where CRIU is.
        let cgroup = prepared.enter(session.pid, false);
        self.cgroup = Some(cgroup.map_err(|error| Error::below("enter the cgroup", error))?);
        let request = rpc::Request {
            type_: Some(rpc::Kind::RESTORE.into()),
            opts: Some(rpc::Options {
                root: Some(root_path),
                ext_mnt: mounts,
                inherit_fd: inherited,
                join_ns: joined(self.spec)?,
                cg_root: cgroup_roots(session.pid)?,
                ..self.options()
            })
            .into(),
            ..rpc::Request::default()
        };
        let answer = session.ask(&request, &mut |notice| self.heard(notice, &names, settings));
        answer.and_then(|_| session.end()).map_err(|failure| self.explain(failure))?;
        self.restored()
    }

    /// What CRIU has as its own first descriptors, which it gives to those who had the caller's.
    fn stdio(&self, null: &File) -> [i32; 3] {
        let terminal = self.spec.process.as_ref().is_some_and(|process| process.terminal);
        match &self.said.container.stdio {
            _ if terminal => [null.as_raw_fd(); 3],
            Some(files) => files.each_ref().map(AsRawFd::as_raw_fd),
            None => [0, 1, 2],
        }
    }

    /// Descriptors that CRIU puts in the place of others: of the namespaces that are not the container's own, and pipes.
    fn inherited(&self) -> Result<(Vec<File>, Vec<rpc::InheritFd>), Error> {
        let mut files = Vec::new();
        let mut inherited = Vec::new();
        let mut inherit = |key: String, fd: i32| {
            inherited.push(rpc::InheritFd { key: Some(key), fd: Some(fd), ..rpc::InheritFd::default() });
        };
        for ((name, path), number) in external::foreign(self.spec).zip(session::FIRST..) {
            let file = File::open(path).map_err(|error| {
                Error::io(format!("config.json /linux/namespaces: open the {name} namespace"), path, error)
            })?;
            files.push(file);
            inherit(external::namespace_key(name), number);
        }
        for (name, number) in self.descriptors()?.into_iter().zip(0..3) {
            if external::is_pipe(&name) {
                inherit(name, number);
            }
        }
        Ok((files, inherited))
    }

    /// The names of the descriptors that the container had, by the file that its checkpoint left.
    fn descriptors(&self) -> Result<Vec<String>, Error> {
        let path = self.said.images.image_path.join(DESCRIPTORS);
        let failed = |error: std::io::Error| Error::io("read", &path, error);
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
        let mut text = Vec::new();
        file.take(LONGEST_DESCRIPTORS).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }

    fn prepare_cgroup<'p>(&self, plan: &'p Plan) -> Result<cofferdam_cgroup::Prepared<'p>, Error> {
        let prepared = plan.host.iter().find_map(|step| match step {
            HostStep::PrepareCgroup { placement, settings, owner } => {
                let options = CgroupOptions { rootless: self.saved.exec.rootless, owner: *owner };
                Some(Cgroup::prepare(placement, settings, &options))
            }
            _ => None,
        });
        prepared
            .ok_or_else(no_cgroup)?
            .map_err(|error| Error::below("unable to apply cgroup configuration", error))
    }

    fn options(&self) -> rpc::Options {
        rpc::Options {
            // The first process is born as CRIU's sibling: our child, as one that we had made.
            rst_sibling: Some(true),
            evasive_devices: Some(true),
            tcp_close: self.said.tcp_close.then_some(true),
            lsm_profile: self.said.lsm_profile.clone(),
            lsm_mount_context: self.said.lsm_mount_context.clone(),
            ..options(&self.said.images, &self.folders, &self.saved.annotations)
        }
    }

    fn heard(&mut self, notice: Notice, stdio: &[String], settings: &Settings) -> Result<(), Error> {
        match notice.script.as_str() {
            "setup-namespaces" => {
                let state = hook_state(&self.saved, Status::Creating, notice.pid);
                hooks::run("prestart", &self.spec.hooks.prestart, &state, &self.spec.annotations)?;
                hooks::run("createRuntime", &self.spec.hooks.create_runtime, &state, &self.spec.annotations)
            }
            "post-restore" => self.commit(notice.pid, stdio, settings),
            "orphan-pts-master" => self.pass_terminal(notice.fd),
            _ => Ok(()),
        }
    }

    /// All processes are there and none runs yet.
    fn commit(&mut self, pid: i32, stdio: &[String], settings: &Settings) -> Result<(), Error> {
        let pidfd = children::adopt(pid)
            .map_err(|errno| Error::call(format!("open process {pid} that criu has restored"), errno))?;
        self.saved.init = Some(Init::of(pid, pidfd.as_fd())?);
        self.pidfd = Some(pidfd);
        if let Some(cgroup) = &self.cgroup {
            let settled = cgroup.settle(settings);
            settled.map_err(|error| Error::below("set the cgroup's limits", error))?;
            self.saved.cgroup = cgroup.clone();
        }
        // So that monotonic time goes on where it stood, CRIU makes a time namespace, which execs must join.
        if has_own_time(pid)? {
            let namespaces = &mut self.saved.exec.target.namespaces;
            *namespaces = Namespace::ALL
                .into_iter()
                .filter(|kind| *kind == Namespace::Time || namespaces.contains(*kind))
                .collect();
        }
        self.saved.exec.outside.stdio = stdio.to_vec();
        self.home.write(&self.saved)
    }

    fn pass_terminal(&self, master: Option<Fd>) -> Result<(), Error> {
        let Some(master) = master else {
            return Err(Error::Unsupported("criu sent no terminal".into()));
        };
        let Some(console) = &self.console else {
            let text = "the checkpoint has a terminal, and there is nobody to take it: config.json /process/terminal is false";
            return Err(Error::usage(text));
        };
        net::send_fd(console, b"orphan-pts-master", &master)
            .map_err(|errno| Error::call("send the terminal", errno))
    }

    fn restored(&mut self) -> Result<Process, Error> {
        let (Some(init), Some(pidfd)) = (self.saved.init, &self.pidfd) else {
            return Err(Error::Unsupported("criu has restored nothing".into()));
        };
        let options = &self.said.container;
        if let Some(path) = &options.pidfd_socket {
            sockets::send_pidfd(path, pidfd)?;
        }
        if let Some(path) = &options.pid_file {
            files::write_pid(path, init.pid)?;
        }
        let pidfd = pidfd.duplicate().map_err(|errno| Error::call("duplicate a pidfd", errno))?;
        Ok(Process { pid: init.pid, pidfd: pidfd.into() })
    }

    fn explain(&self, failure: Failure) -> Error {
        match failure {
            Failure::Ours(error) => error,
            Failure::Criu(what, message) => {
                log::failed("restore", &self.saved.id, what, &message, &self.folders.log)
            }
        }
    }

    /// Nothing is left: no process, no cgroup.
    fn turn_back(&mut self) {
        if let (Some(pidfd), Some(init)) = (&self.pidfd, self.saved.init) {
            let _ = process::pidfd_send_signal(pidfd, libc::SIGKILL);
            let _ = children::wait(init.pid);
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill_all(libc::SIGKILL);
            if let Err(error) = cgroup.remove() {
                tracing::warn!(%error, "cannot remove the cgroup of a failed container");
            }
        }
    }
}

fn no_cgroup() -> Error {
    Error::Unsupported("the plan has no cgroup".into())
}

fn settings_of(plan: &Plan) -> Result<&Settings, Error> {
    let settings = plan.host.iter().find_map(|step| match step {
        HostStep::PrepareCgroup { settings, .. } => Some(&**settings),
        _ => None,
    });
    settings.ok_or_else(no_cgroup)
}

/// Namespaces that are joined by their files, but for those that CRIU takes as given.
fn joined(spec: &Spec) -> Result<Vec<rpc::JoinNamespace>, Error> {
    let mut joined = Vec::new();
    for (at, namespace) in spec.linux.namespaces.iter().enumerate() {
        let kind = Namespace::ALL.into_iter().find(|kind| kind.spec_name() == namespace.kind);
        match kind {
            _ if namespace.path.is_empty() => {}
            None | Some(Namespace::Network | Namespace::Pid) => {}
            Some(Namespace::Cgroup) => {
                let message = "restore cannot join a cgroup namespace: criu has no means";
                let pointer = format!("/linux/namespaces/{at}/path");
                return Err(
                    cofferdam_spec::Refused::new(pointer, "config-linux.md#namespaces", message).into()
                );
            }
            Some(kind) => joined.push(rpc::JoinNamespace {
                ns: Some(kind.proc_name().into()),
                ns_file: Some(namespace.path.clone()),
                ..rpc::JoinNamespace::default()
            }),
        }
    }
    Ok(joined)
}

/// The cgroups of a process, one for each controller: what the checkpoint had as its root becomes these.
fn cgroup_roots(pid: i32) -> Result<Vec<rpc::CgroupRoot>, Error> {
    let path = format!("/proc/{pid}/cgroup");
    let table = std::fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
    Ok(parse_cgroups(&table)
        .map(|(controller, path)| rpc::CgroupRoot {
            ctrl: Some(controller.into()),
            path: Some(path.into()),
            ..rpc::CgroupRoot::default()
        })
        .collect())
}

fn parse_cgroups(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        controllers.split(',').map(move |controller| (controller, path))
    })
}

/// Whether a process has another time namespace than we have.
fn has_own_time(pid: i32) -> Result<bool, Error> {
    let read = |path: String| match std::fs::read_link(&path) {
        Ok(name) => Ok(Some(name)),
        // Linux < 5.6
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    };
    Ok(read(format!("/proc/{pid}/ns/time"))? != read("/proc/self/ns/time".into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_has_its_root() {
        let table = "5:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n";
        let roots: Vec<_> = parse_cgroups(table).collect();
        assert_eq!(roots, [("cpu", "/a"), ("cpuacct", "/a"), ("name=systemd", "/b:c"), ("", "/d")]);
    }
}
