//! Another runtime's binary, run with the very command lines that containerd's go-runc gives to runc.

use super::{Engine, Failure, Restore, Started, Stdio, fill};
use crate::options::{BINARY_ROOT, Options};
use cofferdam_proto::runc_options::CheckpointOptions;
use cofferdam_sys::{Fd, Strings, children, net, process, shim};
use nix::fcntl::OFlag;
use serde::Deserialize;
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How long a runtime that has ended well may keep us waiting for the terminal it promised.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(30);

/// As much of a runtime's output as is kept for a message.
const OUTPUT_MAX: usize = 64 * 1024;

/// A runtime's binary and the flags that all its verbs get.
pub struct Binary {
    command: String,
    root: PathBuf,
    systemd_cgroup: bool,
    no_pivot_root: bool,
    no_new_keyring: bool,
}

/// How a verb's process is set up.
struct Run<'a> {
    bundle: &'a Path,
    stdio: Option<[OwnedFd; 3]>,
    input: Option<&'a [u8]>,
}

impl Binary {
    /// The runtime that the options name, with its state below `<root>/<namespace>`.
    pub fn new(options: &Options, namespace: &str, systemd_cgroup: bool) -> Binary {
        let or =
            |text: &str, default: &str| if text.is_empty() { default.to_string() } else { text.to_string() };
        Binary {
            command: options.binary_name.clone(),
            root: Path::new(&or(&options.root, BINARY_ROOT)).join(namespace),
            systemd_cgroup,
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        }
    }

    fn global(&self, log: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> =
            vec![self.command.clone().into(), "--root".into(), self.root.clone().into()];
        args.extend(["--log".into(), log.into(), "--log-format".into(), "json".into()]);
        if self.systemd_cgroup {
            args.push("--systemd-cgroup".into());
        }
        args
    }

    /// Runs a verb to its end; its output if it succeeded, else what it told, behind `what`.
    fn run(&self, what: &str, run: Run, verb: &[&OsStr]) -> Result<Vec<u8>, Failure> {
        let log = run.bundle.join("log.json");
        // Errors of earlier verbs are in there too.
        let logged = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut args = self.global(&log);
        args.extend(verb.iter().map(OsString::from));
        let (status, output) =
            execute(&self.command, &args, run.stdio, run.input).map_err(|error| Failure::io(what, error))?;
        if status == 0 {
            return Ok(output);
        }
        let told = String::from_utf8_lossy(&output).trim().to_string();
        let message = last_error(&log, logged).unwrap_or_else(|| {
            let command = &self.command;
            let rest = if told.is_empty() { String::new() } else { format!(": {told}") };
            format!("{command} did not terminate successfully: exit status {status}{rest}")
        });
        Err(failure(what, &message, &told))
    }

    /// The simple verbs: no streams, nothing to hand over.
    fn verb(&self, what: &str, bundle: &Path, verb: &[&OsStr]) -> Result<Vec<u8>, Failure> {
        self.run(what, Run { bundle, stdio: None, input: None }, verb)
    }

    /// Runs a verb that makes a process, whose pid it leaves in `pid_file`.
    fn make(
        &self,
        what: &str,
        bundle: &Path,
        stdio: Stdio,
        pid_file: &Path,
        verb: impl FnOnce(Option<&Path>) -> Vec<OsString>,
    ) -> Result<Started, Failure> {
        let (socket, stdio) = match stdio {
            Stdio::Terminal => (Some(ConsoleSocket::new().map_err(|error| Failure::io(what, error))?), None),
            Stdio::Files(files) => (None, Some(fill(files).map_err(|error| Failure::io(what, error))?)),
        };
        let verb = verb(socket.as_ref().map(|socket| socket.path.as_path()));
        let verb: Vec<&OsStr> = verb.iter().map(OsString::as_os_str).collect();
        // The process comes to us as an orphan of the runtime's, and may have ended before we read who it is.
        let _expecting = children::expect();
        self.run(what, Run { bundle, stdio, input: None }, &verb)?;
        let console = match &socket {
            None => None,
            Some(socket) => Some(
                socket.receive().map_err(|error| Failure::io("failed to retrieve console master", error))?,
            ),
        };
        let pid = read_pid(pid_file)
            .map_err(|error| Failure::io("failed to retrieve OCI runtime container pid", error))?;
        let pidfd = children::adopt(pid).map_err(|error| Failure::io("pidfd_open", error))?;
        Ok(Started { pid, pidfd: pidfd.into(), console })
    }
}

impl Engine for Binary {
    fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Started, Failure> {
        let pid_file = bundle.join("init.pid");
        self.make("OCI runtime create failed", bundle, stdio, &pid_file, |socket| {
            let mut verb = words(&["create", "--bundle"]);
            verb.extend([bundle.into(), "--pid-file".into(), pid_file.clone().into()]);
            if let Some(socket) = socket {
                verb.extend(["--console-socket".into(), socket.into()]);
            }
            if self.no_pivot_root {
                verb.push("--no-pivot".into());
            }
            if self.no_new_keyring {
                verb.push("--no-new-keyring".into());
            }
            verb.push(id.into());
            verb
        })
    }

    fn restore(&self, id: &str, bundle: &Path, from: &Restore, stdio: Stdio) -> Result<Started, Failure> {
        let pid_file = bundle.join("init.pid");
        self.make("OCI runtime restore failed", bundle, stdio, &pid_file, |socket| {
            let mut verb = words(&["restore", "--image-path"]);
            verb.extend([from.image.clone().into(), "--work-path".into(), from.work.clone().into()]);
            if let Some(parent) = &from.parent {
                verb.extend(["--parent-path".into(), parent.into()]);
            }
            verb.extend(["--detach".into(), "--pid-file".into(), pid_file.clone().into()]);
            if let Some(socket) = socket {
                verb.extend(["--console-socket".into(), socket.into()]);
            }
            if self.no_pivot_root {
                verb.push("--no-pivot".into());
            }
            verb.extend(["-no-subreaper".into(), "--bundle".into(), bundle.into(), id.into()]);
            verb
        })
    }

    fn start(&self, id: &str, bundle: &Path) -> Result<(), Failure> {
        self.verb("OCI runtime start failed", bundle, &["start".as_ref(), id.as_ref()]).map(drop)
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
        let pid_file = bundle.join(format!("{name}.pid"));
        let file = TemporaryFile::new(process).map_err(|error| Failure::io(WHAT, error))?;
        self.make(WHAT, bundle, stdio, &pid_file, |socket| {
            let mut verb = words(&["exec", "--process"]);
            verb.push(file.0.clone().into());
            if let Some(socket) = socket {
                verb.extend(["--console-socket".into(), socket.into()]);
            }
            verb.extend(["--detach".into(), "--pid-file".into(), pid_file.clone().into(), id.into()]);
            verb
        })
    }

    fn kill(&self, id: &str, bundle: &Path, signal: u32, all: bool) -> Result<(), Failure> {
        let signal = signal.to_string();
        let mut verb: Vec<&OsStr> = vec!["kill".as_ref()];
        if all {
            verb.push("--all".as_ref());
        }
        verb.extend([OsStr::new(id), OsStr::new(&signal)]);
        self.verb("unknown error after kill", bundle, &verb).map(drop)
    }

    fn pause(&self, id: &str, bundle: &Path) -> Result<(), Failure> {
        self.verb("OCI runtime pause failed", bundle, &["pause".as_ref(), id.as_ref()]).map(drop)
    }

    fn resume(&self, id: &str, bundle: &Path) -> Result<(), Failure> {
        self.verb("OCI runtime resume failed", bundle, &["resume".as_ref(), id.as_ref()]).map(drop)
    }

    fn pids(&self, id: &str, bundle: &Path) -> Result<Vec<i32>, Failure> {
        const WHAT: &str = "OCI runtime ps failed";
        let verb = ["ps".as_ref(), "--format".as_ref(), "json".as_ref(), id.as_ref()];
        let output = self.verb(WHAT, bundle, &verb)?;
        // runc of no processes prints "null".
        let pids: Option<Vec<i32>> =
            serde_json::from_slice(&output).map_err(|error| Failure::io(WHAT, error))?;
        Ok(pids.unwrap_or_default())
    }

    fn update(&self, id: &str, bundle: &Path, resources: &[u8]) -> Result<(), Failure> {
        let verb: [&OsStr; 4] = ["update".as_ref(), "--resources".as_ref(), "-".as_ref(), id.as_ref()];
        self.run("OCI runtime update failed", Run { bundle, stdio: None, input: Some(resources) }, &verb)
            .map(drop)
    }

    fn checkpoint(
        &self,
        id: &str,
        bundle: &Path,
        image: &Path,
        work: &Path,
        options: &CheckpointOptions,
    ) -> Result<(), Failure> {
        let mut verb = words(&["checkpoint", "--image-path"]);
        verb.extend([image.into(), "--work-path".into(), work.into()]);
        if !options.parent_path.is_empty() {
            verb.extend(["--parent-path".into(), options.parent_path.clone().into()]);
        }
        let switches = [
            (options.open_tcp, "--tcp-established"),
            (options.external_unix_sockets, "--ext-unix-sk"),
            (options.terminal, "--shell-job"),
            (options.file_locks, "--file-locks"),
        ];
        verb.extend(switches.iter().filter(|(on, _)| *on).map(|(_, name)| name.into()));
        if !options.cgroups_mode.is_empty() {
            verb.extend(["--manage-cgroups-mode".into(), options.cgroups_mode.clone().into()]);
        }
        for namespace in &options.empty_namespaces {
            verb.extend(["--empty-ns".into(), namespace.into()]);
        }
        if !options.exit {
            verb.push("--leave-running".into());
        }
        verb.push(id.into());
        let verb: Vec<&OsStr> = verb.iter().map(OsString::as_os_str).collect();
        self.verb("OCI runtime checkpoint failed", bundle, &verb).map(drop)
    }

    fn delete(&self, id: &str, bundle: &Path, force: bool) -> Result<(), Failure> {
        let mut verb: Vec<&OsStr> = vec!["delete".as_ref()];
        if force {
            verb.push("--force".as_ref());
        }
        verb.push(id.as_ref());
        self.verb("failed to delete task", bundle, &verb).map(drop)
    }

    fn features(&self) -> Result<Vec<u8>, Failure> {
        let args = [OsString::from(&self.command), "features".into()];
        match execute(&self.command, &args, None, None) {
            Ok((0, output)) => Ok(output),
            Ok((status, output)) => {
                let output = String::from_utf8_lossy(&output);
                Err(Failure::Other(format!(
                    "{} features: exit status {status}: {}",
                    self.command,
                    output.trim()
                )))
            }
            Err(error) => Err(Failure::io(&format!("{} features", self.command), error)),
        }
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Sorts a failure by the sentences of runc that engines go by.
fn failure(what: &str, message: &str, told: &str) -> Failure {
    let says = |text: &str| message.contains(text) || told.contains(text);
    if says("os: process already finished") || says("container not running") || says("no such process") {
        Failure::NotRunning
    } else if says("does not exist") && (what.contains("kill") || what.contains("delete")) {
        Failure::NoSuchContainer
    } else {
        Failure::Other(format!("{what}: {message}"))
    }
}

/// The executable that `command` means: itself if it is a path, else the first of that name in PATH.
fn look_up(command: &str) -> std::io::Result<PathBuf> {
    if command.contains('/') {
        return Ok(command.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(command))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file());
    found.ok_or_else(|| {
        std::io::Error::new(
            std::io::ErrorKind::NotFound,
            format!("exec: {command:?}: executable file not found in $PATH"),
        )
    })
}

/// Runs a program to its end; its exit status, and what it wrote to standard output and error unless they were given.
pub fn execute(
    command: &str,
    args: &[OsString],
    stdio: Option<[OwnedFd; 3]>,
    input: Option<&[u8]>,
) -> std::io::Result<(u32, Vec<u8>)> {
    let executable = look_up(command)?;
    let (stdin, stdout, stderr, output);
    match stdio {
        Some([input, out, err]) => (stdin, stdout, stderr, output) = (input, out, err, None),
        None => {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            stdin = match input {
                None => File::open("/dev/null")?.into(),
                Some(bytes) => File::open(&TemporaryFile::new(bytes)?.0)?.into(),
            };
            (stderr, stdout, output) = (write.try_clone()?, write, Some(read));
        }
    }
    let args: Vec<&[u8]> = args.iter().map(|word| word.as_bytes()).collect();
    let env: Vec<Vec<u8>> = std::env::vars_os()
        .filter(|(name, _)| name != "NOTIFY_SOCKET")
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    let program = shim::Program {
        path: executable.as_os_str().as_bytes(),
        args: &Strings::new(&args)?,
        env: &Strings::new(&env)?,
        fds: &[(0, stdin.as_raw_fd()), (1, stdout.as_raw_fd()), (2, stderr.as_raw_fd())],
        new_group: false,
        dies_with_thread: true,
    };
    let spawned = shim::start(&program).map_err(|errno| {
        std::io::Error::new(
            std::io::Error::from(errno).kind(),
            format!("fork/exec {}: {errno}", executable.display()),
        )
    })?;
    drop((stdin, stdout, stderr));
    let told = match output {
        None => Vec::new(),
        Some(output) => collect(output, &spawned.pidfd)?,
    };
    process::poll_readable(&spawned.pidfd, -1)?;
    let ended = children::collect(spawned.pid, &spawned.pidfd)?.ok_or(std::io::ErrorKind::Interrupted)?;
    Ok((ended.status, told))
}

/// Reads what the program writes until it ends. What it left in the pipe is read too, but a descendant that keeps the pipe open
/// is not waited for.
fn collect(output: OwnedFd, pidfd: &Fd) -> std::io::Result<Vec<u8>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut told = Vec::new();
    let mut file = File::from(output);
    let mut buffer = [0; 4096];
    loop {
        let mut fds =
            [PollFd::new(file.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let ended = fds[1].any().unwrap_or(true);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(told),
                Ok(n) => told.extend_from_slice(&buffer[..n.min(OUTPUT_MAX - told.len().min(OUTPUT_MAX))]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if ended {
            return Ok(told);
        }
    }
}

/// The runtime's last complaint in its log, behind the first `skip` bytes.
fn last_error(log: &Path, skip: u64) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let mut file = File::open(log).ok()?;
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(skip)).ok()?;
    let lines = serde_json::Deserializer::from_reader(std::io::BufReader::new(file)).into_iter::<Line>();
    let errors = lines.map_while(Result::ok).filter(|line| line.level == "error");
    errors.last().map(|line| line.msg.trim().to_string()).filter(|message| !message.is_empty())
}

/// The pid in a runtime's pid file.
pub fn read_pid(path: &Path) -> std::io::Result<i32> {
    let text = std::fs::read_to_string(path)?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{}: no pid in it", path.display()))
    })
}

fn temporary_path(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let dir = dir.map_or_else(std::env::temp_dir, PathBuf::from);
    // Whoever knows the name in advance could be there first: O_EXCL and mkdir fail then, and the next name is tried.
    let moment =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    dir.join(format!("{name}{}-{count}-{moment:09}", std::process::id()))
}

/// A file that is gone when this is.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(bytes: &[u8]) -> std::io::Result<TemporaryFile> {
        loop {
            let path = temporary_path("runc-process");
            match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(mut file) => {
                    let file_guard = TemporaryFile(path);
                    return file.write_all(bytes).map(|()| file_guard);
                }
            }
        }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A socket in a folder of its own, to which the runtime sends the terminal.
struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    fn new() -> std::io::Result<ConsoleSocket> {
        use std::os::unix::fs::DirBuilderExt;
        loop {
            let dir = temporary_path("pty");
            match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let path = dir.join("pty.sock");
                    return UnixListener::bind(&path)
                        .map(|listener| ConsoleSocket { listener, path })
                        .inspect_err(|_| drop(std::fs::remove_dir(&dir)));
                }
            }
        }
    }

    /// The terminal, which a runtime that has ended must have sent.
    fn receive(&self) -> std::io::Result<OwnedFd> {
        let deadline = Instant::now() + CONSOLE_TIMEOUT;
        let left = || deadline.saturating_duration_since(Instant::now()).as_millis() as i64;
        if !process::poll_readable(&self.listener_fd()?, left())? {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let connection = net::accept(&self.listener_fd()?)?;
        if !process::poll_readable(&connection, left())? {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let mut name = [0; 4096];
        let (_, fd) = net::receive_fd(&connection, &mut name)?;
        fd.map(OwnedFd::from)
            .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "no terminal was sent"))
    }

    fn listener_fd(&self) -> std::io::Result<OwnedFd> {
        use std::os::fd::AsFd;
        self.listener.as_fd().try_clone_to_owned()
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        if let Some(dir) = self.path.parent() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("shim-binary-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn the_last_error_of_this_run_is_what_is_told() {
        let dir = scratch("log");
        let log = dir.join("log.json");
        let old = "{\"level\":\"error\",\"msg\":\"of an earlier run\",\"time\":\"2026-01-01T00:00:00Z\"}\n";
        let new = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\" last\\n\"}\n";
        std::fs::write(&log, format!("{old}{new}")).unwrap();
        assert_eq!(last_error(&log, old.len() as u64).as_deref(), Some("last"));
        std::fs::write(&log, old).unwrap();
        assert_eq!(last_error(&log, old.len() as u64), None);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_runtime_s_words_become_kinds() {
        assert_eq!(failure("unknown error after kill", "container not running", ""), Failure::NotRunning);
        assert_eq!(
            failure("failed to delete task", "container does not exist", ""),
            Failure::NoSuchContainer
        );
        let create = failure("OCI runtime create failed", "stat /x: does not exist", "");
        assert_eq!(create, Failure::Other("OCI runtime create failed: stat /x: does not exist".into()));
    }

    #[test]
    fn output_is_kept_and_a_lingering_descendant_not_waited_for() {
        let args = words(&["sh", "-c", "echo told; echo err >&2; sleep 30 & exit 3"]);
        let begun = Instant::now();
        let (status, output) = execute("sh", &args, None, None).unwrap();
        assert_eq!((status, String::from_utf8(output).unwrap().as_str()), (3, "told\nerr\n"));
        assert!(begun.elapsed() < Duration::from_secs(20), "waited for the descendant");
        let cat = words(&["cat"]);
        assert_eq!(execute("cat", &cat, None, Some(b"{}")).unwrap(), (0, b"{}".to_vec()));
    }

    #[test]
    fn a_missing_runtime_is_named() {
        let error = execute("no-such-runtime", &[], None, None).unwrap_err();
        assert_eq!(error.to_string(), "exec: \"no-such-runtime\": executable file not found in $PATH");
    }
}
