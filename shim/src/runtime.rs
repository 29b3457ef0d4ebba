//! The runtime, as the shim sees it: one trait, carried out by the library in this process or by another runtime's binary.
//!
//! Everything here blocks (some milliseconds, a hook's time at worst), so it is called from worker threads only.

pub mod binary;
pub mod library;

use crate::{bundle::Config, options::Options};
use cofferdam_proto::runc_options::CheckpointOptions;
use std::{
    fmt::{Display, Formatter},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a runtime did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The container, or the process, is not running.
    NotRunning,
    /// The runtime knows no such container.
    NoSuchContainer,
    /// Everything else, as the runtime told it.
    Other(String),
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::NotRunning => f.write_str("container not running"),
            Failure::NoSuchContainer => f.write_str("container does not exist"),
            Failure::Other(text) => f.write_str(text),
        }
    }
}

impl Failure {
    /// A failure around an I/O error.
    pub fn io(what: &str, error: impl Display) -> Failure {
        Failure::Other(format!("{what}: {error}"))
    }
}

/// What a process of a container gets as standard streams.
pub enum Stdio {
    /// These files; /dev/null for those that are not given.
    Files([Option<OwnedFd>; 3]),
    /// A terminal of its own.
    Terminal,
}

/// A process that the runtime has made. It is a child of this process.
pub struct Started {
    /// Its pid, in our pid namespace.
    pub pid: i32,
    /// What stands for it, whoever gets its pid later.
    pub pidfd: OwnedFd,
    /// The terminal's other end, if it got one.
    pub console: Option<OwnedFd>,
}

/// A checkpoint that a container is restored from.
#[derive(Clone, Debug)]
pub struct Restore {
    /// CRIU's images.
    pub image: PathBuf,
    /// The images before these, relative to them.
    pub parent: Option<PathBuf>,
    /// Where CRIU works.
    pub work: PathBuf,
}

/// Verbs of a runtime on containers of one namespace.
pub trait Engine: Send + Sync {
    /// Makes a container of the bundle, up to the point before its program runs.
    fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Started, Failure>;
    /// Makes a container of the bundle and a checkpoint, which runs at once.
    fn restore(&self, id: &str, bundle: &Path, from: &Restore, stdio: Stdio) -> Result<Started, Failure>;
    /// Lets a container's program run.
    fn start(&self, id: &str, bundle: &Path) -> Result<(), Failure>;
    /// Runs one more process, `process` being runtime-spec's JSON, in the container; `name` is unique in it.
    fn exec(
        &self,
        id: &str,
        bundle: &Path,
        name: &str,
        process: &[u8],
        stdio: Stdio,
    ) -> Result<Started, Failure>;
    /// Sends a signal to the container's init, or to all its processes.
    fn kill(&self, id: &str, bundle: &Path, signal: u32, all: bool) -> Result<(), Failure>;
    /// Freezes the container.
    fn pause(&self, id: &str, bundle: &Path) -> Result<(), Failure>;
    /// Thaws it.
    fn resume(&self, id: &str, bundle: &Path) -> Result<(), Failure>;
    /// Pids of all its processes, in our pid namespace.
    fn pids(&self, id: &str, bundle: &Path) -> Result<Vec<i32>, Failure>;
    /// Applies limits, `resources` being runtime-spec's JSON.
    fn update(&self, id: &str, bundle: &Path, resources: &[u8]) -> Result<(), Failure>;
    /// Writes a checkpoint of the container to `image`, working in `work`.
    fn checkpoint(
        &self,
        id: &str,
        bundle: &Path,
        image: &Path,
        work: &Path,
        options: &CheckpointOptions,
    ) -> Result<(), Failure>;
    /// Forgets the container; by force also one that runs.
    fn delete(&self, id: &str, bundle: &Path, force: bool) -> Result<(), Failure>;
    /// runtime-spec's features document, as JSON.
    fn features(&self) -> Result<Vec<u8>, Failure>;
}

/// The engine that the options ask for, for containers of `namespace`: the library, unless they name a binary. Where no option
/// says who makes the cgroups, the form of the container's own cgroupsPath does.
pub fn engine(options: &Options, namespace: &str, config: Option<&Config>) -> Arc<dyn Engine> {
    let systemd_cgroup = options.systemd_cgroup
        || (options.leave_the_driver_open() && config.is_some_and(Config::names_a_systemd_cgroup));
    if options.binary_name.is_empty() {
        Arc::new(library::Library::new(options, namespace, systemd_cgroup))
    } else {
        Arc::new(binary::Binary::new(options, namespace, systemd_cgroup))
    }
}

/// The streams, with /dev/null for what is missing.
fn fill(files: [Option<OwnedFd>; 3]) -> std::io::Result<[OwnedFd; 3]> {
    let [stdin, stdout, stderr] = files;
    let null = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let or_null = |file: Option<OwnedFd>| file.map_or_else(null, Ok);
    Ok([or_null(stdin)?, or_null(stdout)?, or_null(stderr)?])
}
