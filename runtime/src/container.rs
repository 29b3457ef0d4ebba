//! The face that the command line and the shim share: a [`Store`] of containers, and what can be done to a [`Container`].
//!
//! Everything here works from any thread of any process and changes nothing of the caller's own: no working directory, no signal
//! disposition, no descriptor 0 to 2. Whoever calls [`Store::create`] or [`Container::exec`] is the parent of the process
//! that comes back, and waits for it.

use crate::criu::{self, CheckpointOptions, Outside, RestoreOptions};
use crate::error::{Error, Verb};
use crate::launch::{self, Given, Launch, Launched};
use crate::state::{self, Home, Liveness, Root, State, Status, Summary};
use crate::{create, exec, hooks, start};
use cofferdam_cgroup::Cgroup;
pub use cofferdam_cgroup::Driver;
use cofferdam_cgroup::resctrl::ClassOfService;
use cofferdam_plan::{ExecTarget, Host, Needs, Plan};
use cofferdam_spec::{Mount, Process as ProcessSpec, Spec};
use cofferdam_step::{Namespace, Step};
use cofferdam_sys::{Errno, Fd, process};
use nix::libc;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The socket in the container's directory on which init waits for its start.
pub(crate) const START: &str = "start";
/// How long a killed process may take to go, in milliseconds; runc's bound.
pub(crate) const GONE_WITHIN: i64 = 10_000;

/// The kept part of a container that only this library reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kept {
    /// What an exec must know.
    pub target: ExecTarget,
    /// config.json's process, for an exec that names only its arguments; without its arguments.
    pub process: ProcessSpec,
    /// The steps behind the start barrier, in short, for a failing start's sentence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<Step>,
    /// How many steps the plan has.
    #[serde(skip_serializing_if = "is_zero")]
    pub steps: usize,
    /// Forgives cgroup errors.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rootless: bool,
    /// With systemd's driver.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub systemd: bool,
    /// What a checkpoint must know.
    #[serde(skip_serializing_if = "Outside::is_empty")]
    pub outside: Outside,
    /// In the host's mount namespace: how many mounts lay on the rootfs before, so that ours can be told from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts_before: Option<usize>,
}

/// How many mounts lie on `path` itself.
pub(crate) fn mounts_on(path: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path =
        std::fs::canonicalize(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string());
    let path =
        path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012");
    text.lines().filter(|line| line.split(' ').nth(4) == Some(&path)).count()
}

/// Takes away what a container in the host's mount namespace has left there: all of it lies on our bind mount of the rootfs.
pub(crate) fn unmount_rootfs(saved: &Saved) -> Result<(), Error> {
    const MNT_DETACH: i32 = 2;
    let Some(before) = saved.exec.mounts_before else { return Ok(()) };
    if mounts_on(&saved.rootfs) <= before {
        return Ok(());
    }
    cofferdam_sys::mount::umount(saved.rootfs.as_bytes(), MNT_DETACH)
        .map_err(|errno| Error::io("unmount", &saved.rootfs, errno))
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A container's state file.
pub type Saved = State<Cgroup, Kept>;

/// `--rootless`: whether a container can do without a cgroup that may not be made, and asks systemd for the user's manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rootless {
    /// For whoever is not root of the machine.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

impl Rootless {
    /// What it means on this machine, by runc's rules (`shouldUseRootlessCgroupManager`).
    pub fn on(self, host: &Host, driver: Driver) -> bool {
        match self {
            Rootless::Yes => true,
            Rootless::No => false,
            Rootless::Auto if host.euid != 0 => true,
            Rootless::Auto if !host.user_namespace => false,
            // Root of a user namespace: systemd can be the namespace's own, or that of the user who made it.
            Rootless::Auto if driver == Driver::Systemd => owner_of_session(host) != 0,
            Rootless::Auto => true,
        }
    }
}

/// Whose session this is, as the host numbers users: by the cgroup, which systemd names after the user, or in a cgroup namespace by
/// the place of the user's sockets. 0 where nothing tells.
fn owner_of_session(host: &Host) -> u32 {
    let by_cgroup = host.cgroup.unified().and_then(|unified| {
        unified.own_path.split('/').find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice"))
    });
    let variable = |name| std::env::var(name).ok();
    let by_socket = || {
        let places = [variable("DBUS_SESSION_BUS_ADDRESS"), variable("XDG_RUNTIME_DIR")];
        places.into_iter().flatten().find_map(|place| {
            let (_, rest) = place.split_once("/run/user/")?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        })
    };
    by_cgroup.and_then(|uid| uid.parse().ok()).or_else(by_socket).unwrap_or(0)
}

/// What [`Store::create`] is told besides config.json.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// The container's id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// config.json, where the caller has read it already.
    pub spec: Option<Spec>,
    /// `run`: the program runs when this returns.
    pub run: bool,
    /// `--console-socket`
    pub console_socket: Option<PathBuf>,
    /// A connected socket that takes the terminal's master, in place of a path.
    pub console: Option<OwnedFd>,
    /// The caller keeps the master and copies what comes out of it to its own stdout, which may be a file.
    pub foreground: bool,
    /// `--pid-file`
    pub pid_file: Option<PathBuf>,
    /// `--pidfd-socket`
    pub pidfd_socket: Option<PathBuf>,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
    /// `--preserve-fds` and LISTEN_FDS together.
    pub preserve_fds: u32,
    /// `--systemd-cgroup` and `--cgroup-manager`
    pub driver: Driver,
    /// `--rootless`
    pub rootless: Rootless,
    /// What becomes stdin, stdout and stderr; none keeps the caller's.
    pub stdio: Option<[OwnedFd; 3]>,
}

/// What [`Container::exec`] is told.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// The process document.
    pub process: ProcessSpec,
    /// `--console-socket`
    pub console_socket: Option<PathBuf>,
    /// A connected socket that takes the terminal's master, in place of a path.
    pub console: Option<OwnedFd>,
    /// The caller keeps the master and copies what comes out of it to its own stdout, which may be a file.
    pub foreground: bool,
    /// `--pid-file`
    pub pid_file: Option<PathBuf>,
    /// `--pidfd-socket`
    pub pidfd_socket: Option<PathBuf>,
    /// `--preserve-fds` and LISTEN_FDS together.
    pub preserve_fds: u32,
    /// `--cgroup [controllers:]path`
    pub cgroups: Vec<(Option<String>, String)>,
    /// `--ignore-paused`
    pub ignore_paused: bool,
    /// What becomes stdin, stdout and stderr; none keeps the caller's.
    pub stdio: Option<[OwnedFd; 3]>,
}

/// A process of a container; the caller's child.
#[derive(Debug)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

impl From<Launched> for Process {
    fn from(launched: Launched) -> Process {
        Process { pid: launched.pid, pidfd: launched.pidfd }
    }
}

/// All containers below one root.
#[derive(Clone, Debug)]
pub struct Store {
    root: Root,
}

impl Store {
    /// The store whose containers' directories lie below `root`.
    pub fn new(root: Root) -> Store {
        Store { root }
    }

    /// Where it is.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Creates a container (and, with [`CreateOptions::run`], runs its program).
    ///
    /// # Errors
    /// When config.json is refused or a step fails. Nothing is left then: no process, cgroup, mount or state directory.
    pub fn create(&self, options: CreateOptions) -> Result<(Container, Process), Error> {
        state::check_id(&options.id)?;
        let spec = match &options.spec {
            Some(_) => None,
            None => Some(Spec::load(&options.bundle.join("config.json"))?),
        };
        let Some(spec) = spec.as_ref().or(options.spec.as_ref()) else {
            return Err(Error::usage("there is no config.json"));
        };
        let (home, saved, process) = create::create(&self.root, spec, &options)?;
        Ok((Container { home, saved }, process))
    }

    /// Makes a container of a checkpoint; its processes run when this returns.
    ///
    /// # Errors
    /// When config.json is refused, CRIU is not there or fails ([`Error::Criu`]), or a hook fails. Nothing is left then.
    pub fn restore(&self, mut options: RestoreOptions) -> Result<(Container, Process), Error> {
        options.container.run = true;
        let mut spec = match options.container.spec.take() {
            Some(spec) => spec,
            None => Spec::load(&options.container.bundle.join("config.json"))?,
        };
        spec.read_all()?;
        let (home, saved, process) = criu::restore(&self.root, &spec, &options)?;
        Ok((Container { home, saved }, process))
    }

    /// The container with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; when its state cannot be read.
    pub fn load(&self, id: &str) -> Result<Container, Error> {
        let home = self.root.find(id)?;
        let saved = home.read()?;
        Ok(Container { home, saved })
    }

    /// Every container, in the order of their ids. One that vanishes meanwhile is left out; one whose state cannot be read is
    /// logged. Each holds a descriptor: they come one by one, for there may be more containers than a process may open files.
    pub fn list(&self) -> Result<impl Iterator<Item = Container>, Error> {
        let ids = self.root.ids()?.into_iter();
        Ok(ids.filter_map(|id| match self.load(&id) {
            Ok(container) => Some(container),
            Err(Error::NotFound { .. }) => None,
            Err(error) => {
                tracing::warn!("container {id}: {}", crate::error::message(&error));
                None
            }
        }))
    }
}

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    home: Home,
    saved: Saved,
}

impl Container {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.saved.id
    }

    /// What its state file says.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Its directory.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.saved.cgroup
    }

    /// Its first process's pid; none while it is being created. The process may have ended.
    pub fn pid(&self) -> Option<i32> {
        self.saved.init.map(|init| init.pid)
    }

    /// A pidfd of its first process, proved to be that process; none when it has ended.
    pub fn pidfd(&self) -> Result<Option<OwnedFd>, Error> {
        match self.saved.liveness()? {
            Liveness::Alive(pidfd) => Ok(Some(pidfd)),
            Liveness::Zombie | Liveness::Dead => Ok(None),
        }
    }

    /// Where it stands.
    pub fn status(&self) -> Result<Status, Error> {
        if self.saved.init.is_none() {
            // Being created, or its creator died: then nobody holds the lock.
            return Ok(Status::Creating);
        }
        if self.pidfd()?.is_none() {
            return Ok(Status::Stopped);
        }
        if self.cgroup().is_frozen().map_err(|error| Error::below("see whether it is paused", error))? {
            return Ok(Status::Paused);
        }
        // The socket goes with the start: while it is there, nobody has started the container.
        Ok(if self.home.has(START)? { Status::Created } else { Status::Running })
    }

    /// What `state` prints; the owner's name is left to `list`, as in runc.
    pub fn summary(&self) -> Result<Summary, Error> {
        Ok(Summary::of(&self.saved, self.status()?))
    }

    /// Runs the program of a created container. Returns when it runs.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it is created; the step that failed; a poststart hook's failure, after which the container is
    /// ended.
    pub fn start(&self) -> Result<(), Error> {
        start::start(self)
    }

    /// Sends a signal to its first process; with SIGKILL and a pid namespace that is not its own, to all of its processes.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it has ended (not with `all`).
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        let shares_pids = !self.saved.kept().target.namespaces.contains(Namespace::Pid);
        // Asked first: what is killed below may be gone before it is asked again.
        let pidfd = self.pidfd()?;
        let killed = signal == libc::SIGKILL && (all || shares_pids) && self.cgroup().exists();
        if killed {
            self.cgroup().kill_all(signal).map_err(|error| Error::below("kill all processes", error))?;
            if all {
                return Ok(());
            }
        }
        let Some(pidfd) = pidfd else {
            return if all || killed { Ok(()) } else { Err(self.wrong_state(Verb::Kill, Status::Stopped)) };
        };
        match process::pidfd_send_signal(&pidfd, signal) {
            Ok(()) => {}
            Err(Errno::ESRCH) if all || killed => return Ok(()),
            Err(Errno::ESRCH) => return Err(self.wrong_state(Verb::Kill, Status::Stopped)),
            Err(errno) => return Err(Error::call(format!("send signal {signal} to the container"), errno)),
        }
        // A frozen v1 cgroup holds even a killed process.
        if signal == libc::SIGKILL && self.cgroup().is_frozen().unwrap_or(false) {
            let _ = self.cgroup().thaw();
        }
        Ok(())
    }

    /// All of its processes.
    ///
    /// # Errors
    /// When its cgroup cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        match self.cgroup().pids(true) {
            // systemd removes the cgroup of a scope with the last process.
            Err(error) if error.is_gone() && self.status()? == Status::Stopped => Ok(Vec::new()),
            pids => pids.map_err(|error| Error::below("list the container's processes", error)),
        }
    }

    /// Freezes all of its processes.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it is created or running.
    pub fn pause(&self) -> Result<(), Error> {
        match self.status()? {
            Status::Created | Status::Running => {
                self.cgroup().freeze().map_err(|error| Error::below("pause the container", error))
            }
            status => Err(self.wrong_state(Verb::Pause, status)),
        }
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it is paused.
    pub fn resume(&self) -> Result<(), Error> {
        match self.status()? {
            Status::Paused => {
                self.cgroup().thaw().map_err(|error| Error::below("resume the container", error))
            }
            status => Err(self.wrong_state(Verb::Resume, status)),
        }
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it has ended; when a value is refused or the kernel does not take it.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        let status = self.status()?;
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(self.wrong_state(Verb::Update, status));
        }
        let layout = cofferdam_cgroup::probe().map_err(|error| Error::below("find the cgroups", error))?;
        let driver = if self.saved.kept().systemd { Driver::Systemd } else { Driver::Fs };
        let settings = cofferdam_cgroup::translate(resources, &layout, driver, false)
            .map_err(|error| Error::below("update the container", error))?;
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        self.cgroup().apply(&settings).map_err(|error| Error::below("update the container", error))
    }

    /// Adds mounts while it runs: all, or none. Sources are paths of the host, destinations the container's.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it has ended; a mount that is refused or fails.
    pub fn add_mounts(&self, mounts: &[Mount]) -> Result<(), Error> {
        let process = self.process_to_visit()?;
        let target = &self.saved.kept().target;
        let host =
            Host::probe(&Needs::default()).map_err(|error| Error::call("look at this machine", error))?;
        // Together they are prepared and looked at; one at a time, so that it is known which of them are there.
        cofferdam_plan::compile_mounts(mounts, target, &host)?;
        for (at, mount) in mounts.iter().enumerate() {
            let plan = cofferdam_plan::compile_mounts(std::slice::from_ref(mount), target, &host)?;
            if let Err(error) = self.visit("mounts add", &plan, &process) {
                let undo = cofferdam_plan::compile_unmounts(&mounts[..at], target, &host)?;
                if let Err(left) = self.visit("mounts add", &undo, &process) {
                    tracing::warn!("{}", crate::error::message(&left));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes mounts away while it runs, the last one first.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it has ended; a destination that is no mount.
    pub fn remove_mounts(&self, mounts: &[Mount]) -> Result<(), Error> {
        let process = self.process_to_visit()?;
        let host =
            Host::probe(&Needs::default()).map_err(|error| Error::call("look at this machine", error))?;
        let plan = cofferdam_plan::compile_unmounts(mounts, &self.saved.kept().target, &host)?;
        self.visit("mounts remove", &plan, &process)
    }

    fn process_to_visit(&self) -> Result<Fd, Error> {
        match self.pidfd()? {
            Some(pidfd) => Ok(Fd::from(pidfd)),
            None => Err(self.wrong_state(Verb::Update, Status::Stopped)),
        }
    }

    fn visit(&self, verb: &'static str, plan: &Plan, process: &Fd) -> Result<(), Error> {
        launch::visit(&Launch {
            verb,
            id: self.id(),
            plan,
            given: Given { console: None, listener: None, process: Some(process) },
            stdio: None,
            rootless: false,
            join: None,
            preserve_fds: 0,
        })
    }

    /// Changes its share of caches and memory bandwidth; empty leaves one as it is.
    ///
    /// # Errors
    /// When a line is none, resctrl is not mounted, or the kernel refuses.
    pub fn update_intel_rdt(&mut self, l3_cache_schema: &str, mem_bw_schema: &str) -> Result<(), Error> {
        let failed = "update the container's share of caches and memory bandwidth";
        let class = ClassOfService::new(self.id(), "", l3_cache_schema, mem_bw_schema, &[], false)
            .map_err(|error| Error::below(failed, error))?;
        let home = self.home.reopen()?.lock()?;
        let mut saved: Saved = home.read()?;
        let had = saved.cgroup.resctrl().is_some();
        saved.cgroup.limit_resctrl(&class).map_err(|error| Error::below(failed, error))?;
        if !had {
            home.write(&saved)?;
        }
        self.saved = saved;
        Ok(())
    }

    /// Runs another process in it. Returns when its program runs.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it has ended or is paused; when the process document is refused or a step fails.
    pub fn exec(&self, options: &ExecOptions) -> Result<Process, Error> {
        exec::exec(self, options)
    }

    /// Saves it, memory and all, into a folder, by CRIU; then its processes are ended, unless they are to go on.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it is running or paused; when CRIU is not there or fails ([`Error::Criu`]): it goes on then.
    pub fn checkpoint(&self, options: CheckpointOptions) -> Result<(), Error> {
        criu::checkpoint(self, options)
    }

    /// Forgets a container that has ended, with its cgroup; with `force` ends it first. poststop hooks run; their failures are
    /// logged.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it runs; when its cgroup or directory cannot be removed.
    pub fn delete(self, force: bool) -> Result<(), Error> {
        let container = if force { self.take_over()? } else { self.when_free()? };
        let status = match container.status() {
            // Whatever it is, it shall not be there.
            Err(error) if force => {
                tracing::warn!("{}", crate::error::message(&error));
                Status::Running
            }
            status => status?,
        };
        match status {
            Status::Stopped => {}
            // Its creator is gone, or it would hold the lock that we had.
            Status::Creating | Status::Created => container.end()?,
            _ if force => container.end()?,
            status => return Err(container.wrong_state(Verb::Delete, status)),
        }
        container.forget()
    }

    /// The container as it is when no other verb works on it.
    fn when_free(self) -> Result<Container, Error> {
        let home = self.home.lock()?;
        let saved: Saved = home.read()?;
        Ok(Container { home: home.unlock()?, saved })
    }

    /// The same, but a verb that hangs (a start whose hook does not end) is not waited for: it notices that its init is killed.
    fn take_over(self) -> Result<Container, Error> {
        match self.home.reopen()?.try_lock() {
            Ok(home) => {
                let saved: Saved = home.read()?;
                Ok(Container { home: home.unlock()?, saved })
            }
            Err(Error::Busy { .. }) => {
                self.end()?;
                self.when_free()
            }
            Err(error) => Err(error),
        }
    }

    /// Kills everything in it and waits for the first process to go.
    fn end(&self) -> Result<(), Error> {
        let pidfd = self.pidfd()?;
        if let Some(pidfd) = &pidfd {
            let _ = process::pidfd_send_signal(pidfd, libc::SIGKILL);
        }
        if self.cgroup().exists() {
            if self.cgroup().is_frozen().unwrap_or(false) {
                let _ = self.cgroup().thaw();
            }
            self.kill_rest()?;
        }
        if let Some(pidfd) = &pidfd
            && !process::poll_readable(pidfd, GONE_WITHIN).unwrap_or(true)
        {
            return Err(Error::call(format!("kill container {}", self.id()), Errno::ETIMEDOUT));
        }
        Ok(())
    }

    /// Kills what is left in the cgroup: all, or, where the pid namespace is its own, what the kernel is about to kill anyway.
    fn kill_rest(&self) -> Result<(), Error> {
        self.cgroup().kill_all(libc::SIGKILL).map_err(|error| Error::below("kill all processes", error))
    }

    fn forget(self) -> Result<(), Error> {
        let home = self.home.lock()?;
        if !self.saved.kept().target.namespaces.contains(Namespace::Pid) && self.saved.cgroup.exists() {
            let killed = self.saved.cgroup.kill_all(libc::SIGKILL);
            killed.map_err(|error| Error::below("kill all processes", error))?;
        }
        self.saved.cgroup.remove().map_err(|error| Error::below("remove the container's cgroup", error))?;
        unmount_rootfs(&self.saved)?;
        let poststop = &self.saved.hooks.poststop;
        if !poststop.is_empty() {
            let state = hook_state(&self.saved, Status::Stopped, 0);
            hooks::run_all("poststop", poststop, &state, &self.saved.annotations);
        }
        home.remove()
    }

    pub(crate) fn wrong_state(&self, verb: Verb, status: Status) -> Error {
        Error::WrongState { verb, id: self.id().into(), status }
    }
}

impl Saved {
    /// What only this library reads.
    pub fn kept(&self) -> &Kept {
        &self.exec
    }
}

/// The state that a hook of the runtime's namespaces reads (runtime.md, "State").
pub(crate) fn hook_state(saved: &Saved, status: Status, pid: i32) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct HookState<'a> {
        oci_version: &'a str,
        id: &'a str,
        status: Status,
        #[serde(skip_serializing_if = "is_no_pid")]
        pid: i32,
        bundle: &'a str,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    fn is_no_pid(pid: &i32) -> bool {
        *pid == 0
    }
    let state = HookState {
        oci_version: cofferdam_spec::OCI_VERSION,
        id: &saved.id,
        status,
        pid,
        bundle: &saved.bundle,
        annotations: &saved.annotations,
    };
    serde_json::to_string(&state).unwrap_or_default()
}
