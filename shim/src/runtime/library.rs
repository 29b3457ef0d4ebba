//! The runtime that is linked in: no verb but create and exec starts a process.

use super::{Engine, Failure, Restore, Started, Stdio};
use crate::options::{Options, ROOT};
use cofferdam::{
    container::{Container, CreateOptions, Driver, ExecOptions, Store},
    criu::{self, CgroupsMode, Images, RestoreOptions},
    error::{Error, Verb, message},
    features::Features,
    state::Root,
};
use cofferdam_proto::runc_options::CheckpointOptions;
use cofferdam_sys::net;
use std::{fs::OpenOptions, os::fd::OwnedFd, path::Path};

/// The library, and what the options tell it.
pub struct Library {
    store: Store,
    driver: Driver,
    no_pivot: bool,
    no_new_keyring: bool,
}

impl Library {
    /// Containers of `namespace`, whose state the `cofferdam` command finds with `--root <root>/<namespace>`.
    pub fn new(options: &Options, namespace: &str, systemd_cgroup: bool) -> Library {
        let root = if options.root.is_empty() { ROOT } else { &options.root };
        Library {
            store: Store::new(Root::new(Path::new(root).join(namespace))),
            driver: if systemd_cgroup { Driver::Systemd } else { Driver::Fs },
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        }
    }

    fn create_options(
        &self,
        id: &str,
        bundle: &Path,
        console: Option<OwnedFd>,
        files: [OwnedFd; 3],
    ) -> CreateOptions {
        CreateOptions {
            id: id.into(),
            bundle: bundle.into(),
            console,
            pid_file: Some(bundle.join("init.pid")),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            driver: self.driver,
            stdio: Some(files),
            ..CreateOptions::default()
        }
    }

    fn load(&self, id: &str, what: &str) -> Result<Container, Failure> {
        self.store.load(id).map_err(|error| failure(what, &error))
    }
}

/// What the library is given for a process's streams: files, and the socket that takes its terminal.
struct Streams {
    files: [OwnedFd; 3],
    console: Option<(OwnedFd, OwnedFd)>,
}

impl Streams {
    fn of(stdio: Stdio, what: &str) -> Result<Streams, Failure> {
        let failed = |error: std::io::Error| Failure::io(what, error);
        match stdio {
            Stdio::Files(files) => Ok(Streams { files: super::fill(files).map_err(failed)?, console: None }),
            Stdio::Terminal => {
                let (given, ours) = net::socketpair().map_err(|errno| Failure::io(what, errno))?;
                // Until init has its terminal, nothing of ours shall be its stream.
                let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
                let null = OwnedFd::from(null);
                let files = [null.try_clone().map_err(failed)?, null.try_clone().map_err(failed)?, null];
                Ok(Streams { files, console: Some((given.into(), ours.into())) })
            }
        }
    }
}

/// The terminal that init has sent, when it was to have one.
fn receive_console(socket: Option<OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    let Some(socket) = socket else { return Ok(None) };
    const WHAT: &str = "failed to retrieve console master";
    let mut name = [0; 4096];
    let (_, fd) = net::receive_fd(&socket, &mut name).map_err(|errno| Failure::io(WHAT, errno))?;
    fd.map(|fd| Some(fd.into())).ok_or_else(|| Failure::io(WHAT, "no terminal was sent"))
}

impl Engine for Library {
    fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Started, Failure> {
        const WHAT: &str = "OCI runtime create failed";
        let streams = Streams::of(stdio, WHAT)?;
        let (given, ours) = streams.console.unzip();
        let options = self.create_options(id, bundle, given, streams.files);
        let (_, process) = self.store.create(options).map_err(|error| failure(WHAT, &error))?;
        Ok(Started { pid: process.pid, pidfd: process.pidfd, console: receive_console(ours)? })
    }

    fn restore(&self, id: &str, bundle: &Path, from: &Restore, stdio: Stdio) -> Result<Started, Failure> {
        const WHAT: &str = "OCI runtime restore failed";
        let streams = Streams::of(stdio, WHAT)?;
        let (given, ours) = streams.console.unzip();
        let options = RestoreOptions {
            container: self.create_options(id, bundle, given, streams.files),
            // Earlier images are found by the link that the checkpoint has left.
            images: Images {
                image_path: from.image.clone(),
                work_path: Some(from.work.clone()),
                ..Images::default()
            },
            ..RestoreOptions::default()
        };
        let (_, process) = self.store.restore(options).map_err(|error| failure(WHAT, &error))?;
        Ok(Started { pid: process.pid, pidfd: process.pidfd, console: receive_console(ours)? })
    }

    fn start(&self, id: &str, _: &Path) -> Result<(), Failure> {
        const WHAT: &str = "OCI runtime start failed";
        self.load(id, WHAT)?.start().map_err(|error| failure(WHAT, &error))
    }

    fn exec(
        &self,
        id: &str,
        bundle: &Path,
        name: &str,
        process: &[u8],
        stdio: Stdio,
    ) -> Result<Started, Failure> {
        const WHAT: &str = "OCI runtime exec failed";
        let streams = Streams::of(stdio, WHAT)?;
        let (given, ours) = streams.console.unzip();
        let process =
            cofferdam_spec::Process::parse(process).map_err(|refused| Failure::io(WHAT, refused))?;
        let options = ExecOptions {
            process,
            console: given,
            pid_file: Some(bundle.join(format!("{name}.pid"))),
            stdio: Some(streams.files),
            ..ExecOptions::default()
        };
        let process = self.load(id, WHAT)?.exec(&options).map_err(|error| failure(WHAT, &error))?;
        Ok(Started { pid: process.pid, pidfd: process.pidfd, console: receive_console(ours)? })
    }

    fn kill(&self, id: &str, _: &Path, signal: u32, all: bool) -> Result<(), Failure> {
        const WHAT: &str = "unknown error after kill";
        self.load(id, WHAT)?.kill(signal as i32, all).map_err(|error| failure(WHAT, &error))
    }

    fn pause(&self, id: &str, _: &Path) -> Result<(), Failure> {
        const WHAT: &str = "OCI runtime pause failed";
        self.load(id, WHAT)?.pause().map_err(|error| failure(WHAT, &error))
    }

    fn resume(&self, id: &str, _: &Path) -> Result<(), Failure> {
        const WHAT: &str = "OCI runtime resume failed";
        self.load(id, WHAT)?.resume().map_err(|error| failure(WHAT, &error))
    }

    fn pids(&self, id: &str, _: &Path) -> Result<Vec<i32>, Failure> {
        const WHAT: &str = "OCI runtime ps failed";
        self.load(id, WHAT)?.pids().map_err(|error| failure(WHAT, &error))
    }

    fn update(&self, id: &str, _: &Path, resources: &[u8]) -> Result<(), Failure> {
        const WHAT: &str = "OCI runtime update failed";
        let resources =
            cofferdam_spec::parse_resources(resources).map_err(|error| Failure::io(WHAT, error))?;
        self.load(id, WHAT)?.update(&resources).map_err(|error| failure(WHAT, &error))
    }

    fn checkpoint(
        &self,
        id: &str,
        _: &Path,
        image: &Path,
        work: &Path,
        options: &CheckpointOptions,
    ) -> Result<(), Failure> {
        const WHAT: &str = "OCI runtime checkpoint failed";
        if let Some(other) = options.empty_namespaces.iter().find(|name| *name != "network") {
            return Err(Failure::Other(format!("{WHAT}: namespace {other:?} is not supported")));
        }
        let said = criu::CheckpointOptions {
            images: Images {
                image_path: image.into(),
                work_path: Some(work.into()),
                tcp_established: options.open_tcp,
                ext_unix_sk: options.external_unix_sockets,
                shell_job: options.terminal,
                file_locks: options.file_locks,
                cgroups: CgroupsMode::named(&options.cgroups_mode).map_err(|error| failure(WHAT, &error))?,
                ..Images::default()
            },
            parent_path: Some(&options.parent_path).filter(|path| !path.is_empty()).map(Into::into),
            leave_running: !options.exit,
            ..criu::CheckpointOptions::default()
        };
        self.load(id, WHAT)?.checkpoint(said).map_err(|error| failure(WHAT, &error))
    }

    fn delete(&self, id: &str, _: &Path, force: bool) -> Result<(), Failure> {
        const WHAT: &str = "failed to delete task";
        let container = match self.store.load(id) {
            // What a creator left that died before it had written anything.
            Err(Error::NotFound { .. }) => {
                self.store.root().sweep(id).map_err(|error| failure(WHAT, &error))?;
                return Err(Failure::NoSuchContainer);
            }
            other => other.map_err(|error| failure(WHAT, &error))?,
        };
        container.delete(force).map_err(|error| failure(WHAT, &error))
    }

    fn features(&self) -> Result<Vec<u8>, Failure> {
        Ok(Features::probe().to_json().into_bytes())
    }
}

/// The library's errors are kinds already.
fn failure(what: &str, error: &Error) -> Failure {
    match error {
        Error::NotFound { .. } => Failure::NoSuchContainer,
        Error::WrongState { verb: Verb::Kill, .. } | Error::NoProcess { .. } => Failure::NotRunning,
        _ => Failure::Other(format!("{what}: {}", message(error))),
    }
}
