//! A containerd of a few lines: it starts the shim as containerd does, speaks ttrpc with it, and takes its events.
//!
//! Each test has folders, ids, sockets and cgroups of its own. Tests need root (mounts, namespaces) and a static busybox; what is
//! missing is said, and the test skipped.

#![allow(dead_code)]

use cofferdam_proto::{Any, Empty, Message, bootstrap, events, runc_options, task, ttrpc};
use nix::{fcntl::OFlag, sys::stat::Mode};
use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The binary under test.
pub const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-cofferdam-v2");
/// containerd's namespace in these tests.
pub const NAMESPACE: &str = "shim-test";

/// How long anything may take here. Nothing is timed; this only ends what hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Says why a test does not run.
pub fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}

/// A failure as the shim told it: code and message.
pub type Failure = (i32, String);

/// What a container is made with.
pub struct Setup {
    /// Arguments of its program.
    pub args: Vec<String>,
    /// Whether it has a pid namespace of its own.
    pub own_pids: bool,
    /// Limit of memory in bytes.
    pub memory: Option<u64>,
    /// Annotations.
    pub annotations: Vec<(String, String)>,
}

impl Setup {
    /// A shell that runs `script`.
    pub fn shell(script: &str) -> Setup {
        Setup {
            args: ["sh", "-c", script].map(String::from).to_vec(),
            own_pids: true,
            memory: None,
            annotations: Vec::new(),
        }
    }
}

/// A containerd with one shim.
pub struct Lab {
    /// Everything of this lab lies in here.
    pub dir: PathBuf,
    /// Its shim's address.
    pub address: PathBuf,
    /// Takes events.
    pub events: Events,
    /// The runtime's binary; empty for the shim's own.
    pub runtime: String,
    /// The shim's binary.
    pub shim: PathBuf,
    cgroup: String,
    /// Logs of bundles, held open as containerd does it.
    logs: Mutex<Vec<OwnedFd>>,
}

/// Makes a lab for `runtime` (a binary's name, or empty), unless something is missing.
pub fn lab(name: &str, runtime: &str) -> Option<Lab> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if !nix::unistd::geteuid().is_root() {
        skip("needs root");
        return None;
    }
    if busybox().is_none() {
        skip("needs a static busybox");
        return None;
    }
    if !runtime.is_empty() && which(runtime).is_none() {
        skip(&format!("{runtime} is not installed"));
        return None;
    }
    let unique = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(format!("shim-{unique}"));
    fs::create_dir_all(&dir).unwrap();
    let events = Events::serve(&dir.join("events.sock"));
    // Of this lab alone: a parent that all share would go, with the last test of another process, while a runtime makes its own below.
    let cgroup = format!("/cofferdam-shim-test-{unique}");
    Some(Lab {
        dir,
        address: PathBuf::new(),
        events,
        runtime: runtime.into(),
        shim: SHIM.into(),
        cgroup,
        logs: Default::default(),
    })
}

/// Runs a command with this on stdin to its end.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// The folder of `$CRIU`, which `hack/peers criu` names: a distribution's own may be too old for the kernel.
fn criu_folder() -> Option<PathBuf> {
    let criu = PathBuf::from(std::env::var_os("CRIU").filter(|path| !path.is_empty())?);
    criu.parent().map(Path::to_path_buf)
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

/// Why CRIU does not work here.
pub fn criu_is_missing() -> Option<String> {
    let criu = criu_folder().map_or_else(|| "criu".into(), |folder| folder.join("criu"));
    match Command::new(&criu).arg("check").output() {
        Err(error) => Some(format!("needs criu: {}: {error}", criu.display())),
        Ok(out) if out.status.success() => None,
        Ok(out) => Some(format!("needs a criu for this kernel: {}", String::from_utf8_lossy(&out.stderr))),
    }
}

/// The shim of an earlier build, which `hack/previous` makes, in the folder `$PREVIOUS`.
pub fn previous_shim() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("PREVIOUS").filter(|path| !path.is_empty())?);
    Some(dir.join("containerd-shim-cofferdam-v2"))
}

/// The file that PATH has for a command.
pub fn which(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(command))
        .find(|f| f.is_file())
}

fn busybox() -> Option<PathBuf> {
    which("busybox").filter(|path| fs::read(path).is_ok_and(|bytes| is_static(&bytes)))
}

/// Whether an ELF file (64 bits, little-endian) names no interpreter.
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, size: usize| {
        elf[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte))
    };
    const PT_INTERP: usize = 3;
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).all(|n| number(table + n * size, 4) != PT_INTERP)
}

impl Lab {
    /// Options as CRI would give them to runc.
    pub fn options(&self) -> Any {
        let binary_name =
            which(&self.runtime).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let options = runc_options::Options {
            binary_name: if self.runtime.is_empty() { String::new() } else { binary_name },
            root: self.dir.join("state").to_string_lossy().into_owned(),
            ..Default::default()
        };
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Default::default()
        }
    }

    /// Makes a bundle.
    pub fn bundle(&self, id: &str, setup: &Setup) -> PathBuf {
        let bundle = self.dir.join(id);
        let rootfs = bundle.join("rootfs");
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "root"] {
            fs::create_dir_all(rootfs.join(dir)).unwrap();
        }
        fs::copy(busybox().unwrap(), rootfs.join("bin/busybox")).unwrap();
        // containerd's folder for what is the runtime's own business.
        fs::create_dir(bundle.join("work")).unwrap();
        for applet in [
            "sh", "cat", "sleep", "echo", "true", "stty", "head", "dd", "kill", "id", "seq", "wc", "tail",
            "trap", "nc",
        ] {
            let _ = std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet));
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        let log = bundle.join("log");
        nix::unistd::mkfifo(&log, Mode::from_bits_truncate(0o700)).unwrap();
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        self.logs.lock().unwrap().push(nix::fcntl::open(&log, flags, Mode::empty()).unwrap());
        fs::write(bundle.join("config.json"), self.config(id, setup).to_string()).unwrap();
        bundle
    }

    fn config(&self, id: &str, setup: &Setup) -> serde_json::Value {
        let mut namespaces = vec!["mount", "ipc", "uts", "network"];
        if setup.own_pids {
            namespaces.push("pid");
        }
        let namespaces: Vec<_> = namespaces.iter().map(|kind| serde_json::json!({ "type": kind })).collect();
        let annotations: serde_json::Map<_, _> =
            setup.annotations.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let mut config = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": self.process(&setup.args),
            "root": { "path": "rootfs" },
            "hostname": "shim-test",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }
            ],
            "annotations": annotations,
            "linux": {
                "cgroupsPath": format!("{}/{id}", self.cgroup),
                "namespaces": namespaces,
                "resources": { "devices": [{ "allow": true, "access": "rwm" }] }
            }
        });
        if let Some(limit) = setup.memory {
            config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": limit });
        }
        config
    }

    /// runtime-spec's process for these arguments.
    pub fn process(&self, args: &[String]) -> serde_json::Value {
        serde_json::json!({
            "args": args,
            "env": ["PATH=/bin", "TERM=dumb"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "capabilities": {}
        })
    }

    /// Runs `start` for a bundle, as containerd 2.3 does; the address that it answers.
    pub fn start_shim(&mut self, id: &str) -> Client {
        let output = self.call_shim(id, &["start"], &self.bootstrap_params(id));
        let result = bootstrap::BootstrapResult::parse_from_bytes(&output).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
        self.address = result.address.strip_prefix("unix://").unwrap().into();
        Client::connect(&self.address)
    }

    /// What containerd 2.3 tells `start` on stdin.
    pub fn bootstrap_params(&self, id: &str) -> Vec<u8> {
        let params = bootstrap::BootstrapParams {
            instance_id: id.into(),
            namespace: NAMESPACE.into(),
            containerd_ttrpc_address: self.events.path.to_string_lossy().into_owned(),
            extensions: vec![bootstrap::Extension {
                value: Some(self.options()).into(),
                ..Default::default()
            }],
            socket_dir: Some(self.dir.join("s").to_string_lossy().into_owned()),
            ..Default::default()
        };
        params.write_to_bytes().unwrap()
    }

    /// Runs the shim's binary in a bundle; what it printed.
    pub fn call_shim(&self, id: &str, action: &[&str], input: &[u8]) -> Vec<u8> {
        let output = run_with_input(&mut self.shim_command(id, action), input);
        assert!(output.status.success(), "{:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The shim's binary in a bundle, as containerd calls it. Programs that it looks for are found where the tests look.
    pub fn shim_command(&self, id: &str, action: &[&str]) -> Command {
        let mut command = Command::new(&self.shim);
        command
            .args(["-namespace", NAMESPACE, "-address", &self.dir.join("containerd.sock").to_string_lossy()])
            .args(["-publish-binary", "/bin/true", "-id", id])
            .args(action)
            .current_dir(self.dir.join(id))
            .env("TTRPC_ADDRESS", &self.events.path)
            .env("MAX_SHIM_VERSION", "2")
            .envs(Some(self.timelines()).filter(|dir| dir.is_dir()).map(|dir| ("COFFERDAM_TIMELINE", dir)))
            .envs(criu_folder().map(|dir| ("PATH", format!("{}:{}", dir.display(), path()))));
        command
    }

    /// Where the shim leaves timelines, if a test makes that folder before it starts.
    pub fn timelines(&self) -> PathBuf {
        self.dir.join("timelines")
    }

    /// Create's request for a bundle.
    pub fn create_request(&self, id: &str) -> task::CreateTaskRequest {
        task::CreateTaskRequest {
            id: id.into(),
            bundle: self.dir.join(id).to_string_lossy().into_owned(),
            options: Some(self.options()).into(),
            ..Default::default()
        }
    }

    /// A fifo in the lab.
    pub fn fifo(&self, name: &str) -> String {
        let path = self.dir.join(name);
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Asserts that nothing is left of the lab: no process, mount, cgroup, socket, state.
    pub fn assert_nothing_left(&self) {
        let needle = self.dir.to_string_lossy().into_owned();
        until("the shim is gone", || processes_with(&needle).is_empty());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&needle), "mounts are left");
        let sockets: Vec<_> = fs::read_dir(self.dir.join("s")).map(|dir| dir.collect()).unwrap_or_default();
        assert!(sockets.is_empty(), "sockets are left: {sockets:?}");
        let state = self.dir.join("state").join(NAMESPACE);
        let states: Vec<_> = fs::read_dir(state).map(|dir| dir.collect()).unwrap_or_default();
        assert!(states.is_empty(), "state is left: {states:?}");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left");
    }

    /// The end of what shims have logged, for who reads of a failed test.
    fn print_logs(&self) {
        for log in self.logs.lock().unwrap().iter() {
            let mut bytes = vec![0; 65_536];
            let n = nix::unistd::read(log, &mut bytes).unwrap_or(0);
            eprintln!("--- log:\n{}", String::from_utf8_lossy(&bytes[..n]));
        }
    }

    /// Folders of containers' cgroups of this lab.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies =
            fs::read_dir("/sys/fs/cgroup").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let mut roots: Vec<PathBuf> = hierarchies.filter(|path| path.is_dir()).collect();
        roots.push("/sys/fs/cgroup".into());
        let below = roots.iter().map(|root| root.join(self.cgroup.trim_start_matches('/')));
        below
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flatten()
            .filter_map(Result::ok)
            .map(|e| e.path())
            .filter(|p| p.is_dir())
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        // Whatever a failed test left running is ended by its pid: shims are found by this lab's own folder in their command line,
        // containers in its cgroups.
        let members =
            self.cgroups().into_iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        let members: Vec<String> = members.collect();
        let members = members.iter().flat_map(|pids| pids.lines()).filter_map(|pid| pid.parse().ok());
        for pid in processes_with(&self.dir.to_string_lossy()).into_iter().chain(members) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        self.events.stop();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(point).starts_with(&self.dir) {
                let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        for dir in self.cgroups() {
            let _ = fs::remove_dir(dir);
        }
        let roots =
            fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        for root in roots.chain(["/sys/fs/cgroup".into()]) {
            let _ = fs::remove_dir(root.join(self.cgroup.trim_start_matches('/')));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Pids of processes whose command line or working directory has `needle` in it, but not our own.
pub fn processes_with(needle: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id() as i32;
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(needle) || cwd.to_string_lossy().contains(needle)
        })
        .collect()
}

/// Waits until something is so; says what, if it never becomes so.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection to a shim.
pub struct Client {
    socket: UnixStream,
    stream: u32,
    /// Answers that came while another one was waited for.
    early: Vec<(u32, ttrpc::Response)>,
}

impl Client {
    /// Connects.
    pub fn connect(address: impl AsRef<Path>) -> Client {
        let socket = UnixStream::connect(address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Client { socket, stream: 1u32.wrapping_sub(2), early: Vec::new() }
    }

    /// Where the shim listens.
    pub fn address(&self) -> PathBuf {
        self.socket.peer_addr().unwrap().as_pathname().unwrap().to_path_buf()
    }

    /// Sends a request without waiting for its answer; the stream that it will come by.
    pub fn send(&mut self, method: &str, message: &impl Message) -> u32 {
        self.send_to("containerd.task.v3.Task", method, message)
    }

    /// The same to another service.
    pub fn send_to(&mut self, service: &str, method: &str, message: &impl Message) -> u32 {
        let request = ttrpc::Request {
            service: service.into(),
            method: method.into(),
            payload: message.write_to_bytes().unwrap(),
            ..Default::default()
        };
        self.stream = self.stream.wrapping_add(2);
        let payload = request.write_to_bytes().unwrap();
        let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&self.stream.to_be_bytes());
        frame.extend_from_slice(&[1, 0]);
        frame.extend_from_slice(&payload);
        self.socket.write_all(&frame).unwrap();
        self.stream
    }

    /// The answer that comes by a stream.
    pub fn receive<R: Message>(&mut self, stream: u32) -> Result<R, Failure> {
        let response = match self.early.iter().position(|(other, _)| *other == stream) {
            Some(at) => self.early.swap_remove(at).1,
            None => loop {
                let (other, response) = self.next_frame();
                if other == stream {
                    break response;
                }
                self.early.push((other, response));
            },
        };
        let status = response.status.unwrap_or_default();
        if status.code != 0 {
            return Err((status.code, status.message));
        }
        Ok(R::parse_from_bytes(&response.payload).unwrap())
    }

    fn next_frame(&mut self) -> (u32, ttrpc::Response) {
        let mut header = [0; 10];
        self.socket.read_exact(&mut header).expect("an answer in time");
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let mut payload = vec![0; word(0) as usize];
        self.socket.read_exact(&mut payload).unwrap();
        assert_eq!(header[8], 2, "a response");
        (word(4), ttrpc::Response::parse_from_bytes(&payload).unwrap())
    }

    /// Calls, and waits for the answer.
    pub fn call<R: Message>(&mut self, method: &str, message: &impl Message) -> Result<R, Failure> {
        let stream = self.send(method, message);
        self.receive(stream)
    }

    /// Create; the pid.
    pub fn create(&mut self, request: &task::CreateTaskRequest) -> Result<u32, Failure> {
        self.call("Create", request).map(|response: task::CreateTaskResponse| response.pid)
    }

    /// Start of init, or of an exec.
    pub fn start(&mut self, id: &str, exec_id: &str) -> Result<u32, Failure> {
        let request = task::StartRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.call("Start", &request).map(|response: task::StartResponse| response.pid)
    }

    /// Wait; the exit status.
    pub fn wait(&mut self, id: &str, exec_id: &str) -> Result<u32, Failure> {
        let request = task::WaitRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.call("Wait", &request).map(|response: task::WaitResponse| response.exit_status)
    }

    /// Kill.
    pub fn kill(&mut self, id: &str, exec_id: &str, signal: u32) -> Result<(), Failure> {
        let request =
            task::KillRequest { id: id.into(), exec_id: exec_id.into(), signal, ..Default::default() };
        self.call("Kill", &request).map(|_: Empty| ())
    }

    /// Delete; the exit status.
    pub fn delete(&mut self, id: &str, exec_id: &str) -> Result<u32, Failure> {
        let request = task::DeleteRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.call("Delete", &request).map(|response: task::DeleteResponse| response.exit_status)
    }

    /// State.
    pub fn state(&mut self, id: &str, exec_id: &str) -> Result<task::StateResponse, Failure> {
        self.call(
            "State",
            &task::StateRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() },
        )
    }

    /// Registers an exec without streams.
    pub fn exec(&mut self, lab: &Lab, id: &str, exec_id: &str, args: &[&str]) -> Result<(), Failure> {
        self.exec_with(lab, id, exec_id, args, task::ExecProcessRequest::default())
    }

    /// Registers an exec with the streams of `request`.
    pub fn exec_with(
        &mut self,
        lab: &Lab,
        id: &str,
        exec_id: &str,
        args: &[&str],
        mut request: task::ExecProcessRequest,
    ) -> Result<(), Failure> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        request.id = id.into();
        request.exec_id = exec_id.into();
        let value = lab.process(&args).to_string().into_bytes();
        let type_url = "types.containerd.io/opencontainers/runtime-spec/1/Process".into();
        request.spec = Some(Any { type_url, value, ..Default::default() }).into();
        self.call("Exec", &request).map(|_: Empty| ())
    }

    /// Shutdown.
    pub fn shutdown(&mut self, id: &str) {
        let request = task::ShutdownRequest { id: id.into(), ..Default::default() };
        let _: Empty = self.call("Shutdown", &request).unwrap();
    }

    /// The shim's pid.
    pub fn shim_pid(&mut self) -> u32 {
        let response: task::ConnectResponse = self.call("Connect", &task::ConnectRequest::default()).unwrap();
        response.shim_pid
    }
}

/// Takes events as containerd does, and can be away.
pub struct Events {
    /// Its socket.
    pub path: PathBuf,
    taken: Arc<Mutex<Vec<events::Envelope>>>,
    away: Arc<AtomicBool>,
    lose_answer: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    fn serve(path: &Path) -> Events {
        let mut events = Events {
            path: path.into(),
            taken: Default::default(),
            away: Default::default(),
            lose_answer: Default::default(),
            thread: None,
        };
        events.come_back();
        events
    }

    /// Stops listening and hangs up, as a containerd that ends.
    pub fn go_away(&mut self) {
        self.stop();
    }

    /// Takes the next event, and hangs up instead of answering.
    pub fn lose_answer(&self) {
        self.lose_answer.store(true, Ordering::SeqCst);
    }

    /// Listens again.
    pub fn come_back(&mut self) {
        let _ = fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.away.store(false, Ordering::SeqCst);
        let (taken, away, lose) = (self.taken.clone(), self.away.clone(), self.lose_answer.clone());
        self.thread = Some(std::thread::spawn(move || take_events(&listener, &taken, &away, &lose)));
    }

    fn stop(&mut self) {
        self.away.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        let _ = fs::remove_file(&self.path);
    }

    /// Topics so far, without `/tasks/`, each with the exec id where there is one.
    pub fn topics(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(describe).collect()
    }

    /// Waits until `count` events have come.
    pub fn wait_for(&self, count: usize) -> Vec<String> {
        until(&format!("{count} events (there are {:?})", self.topics()), || self.topics().len() >= count);
        self.topics()
    }

    /// The first event of a topic, decoded.
    pub fn find<M: Message>(&self, topic: &str) -> M {
        self.all(topic).remove(0)
    }

    /// All events of a topic, decoded.
    pub fn all<M: Message>(&self, topic: &str) -> Vec<M> {
        let taken = self.taken.lock().unwrap();
        let of_topic = taken.iter().filter(|envelope| envelope.topic == format!("/tasks/{topic}"));
        let decode = |envelope: &events::Envelope| {
            assert_eq!(envelope.namespace, NAMESPACE);
            M::parse_from_bytes(&envelope.event.value).unwrap()
        };
        of_topic.map(decode).collect()
    }
}

fn describe(envelope: &events::Envelope) -> String {
    let topic = envelope.topic.strip_prefix("/tasks/").unwrap();
    let value = &envelope.event.value;
    match topic {
        "exec-added" => {
            format!("{topic} {}", events::TaskExecAdded::parse_from_bytes(value).unwrap().exec_id)
        }
        "exec-started" => {
            format!("{topic} {}", events::TaskExecStarted::parse_from_bytes(value).unwrap().exec_id)
        }
        "exit" => {
            let exit = events::TaskExit::parse_from_bytes(value).unwrap();
            format!(
                "{topic} {} {}",
                if exit.id == exit.container_id { "init" } else { &exit.id },
                exit.exit_status
            )
        }
        _ => topic.to_string(),
    }
}

fn take_events(
    listener: &UnixListener,
    taken: &Mutex<Vec<events::Envelope>>,
    away: &AtomicBool,
    lose_answer: &AtomicBool,
) {
    let mut connections: Vec<(UnixStream, Vec<u8>)> = Vec::new();
    while !away.load(Ordering::SeqCst) {
        if let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true).unwrap();
            connections.push((socket, Vec::new()));
        }
        connections.retain_mut(|(socket, buffer)| {
            let mut bytes = [0; 4096];
            match socket.read(&mut bytes) {
                Ok(0) => return false,
                Ok(n) => buffer.extend_from_slice(&bytes[..n]),
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
            while let Some(answer) = take_event(buffer, taken) {
                // A shim that was killed does not hear it.
                if lose_answer.swap(false, Ordering::SeqCst) || socket.write_all(&answer).is_err() {
                    return false;
                }
            }
            true
        });
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes one Forward out of the buffer, and makes its answer.
fn take_event(buffer: &mut Vec<u8>, taken: &Mutex<Vec<events::Envelope>>) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(buffer.get(..4)?.try_into().unwrap()) as usize;
    let frame: Vec<u8> = buffer.get(..10 + length)?.to_vec();
    buffer.drain(..10 + length);
    let request = ttrpc::Request::parse_from_bytes(&frame[10..]).unwrap();
    assert_eq!(
        (request.service.as_str(), request.method.as_str()),
        ("containerd.services.events.ttrpc.v1.Events", "Forward")
    );
    let forward = events::ForwardRequest::parse_from_bytes(&request.payload).unwrap();
    taken.lock().unwrap().push(forward.envelope.unwrap());
    let response = ttrpc::Response { status: Some(ttrpc::Status::default()).into(), ..Default::default() };
    let payload = response.write_to_bytes().unwrap();
    let mut answer = (payload.len() as u32).to_be_bytes().to_vec();
    answer.extend_from_slice(&frame[4..8]);
    answer.extend_from_slice(&[2, 0]);
    answer.extend_from_slice(&payload);
    Some(answer)
}

/// Reads a fifo to its end in a thread.
pub fn read_all(path: &str) -> JoinHandle<Vec<u8>> {
    let path = path.to_string();
    std::thread::spawn(move || fs::read(path).unwrap())
}

/// How many threads a process has.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// How many descriptors a process has.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// How many descriptors a process may have from now on; none takes the limit off again.
pub fn limit_descriptors(pid: u32, most: Option<u64>) {
    let (_, hard) = cofferdam_sys::process::rlimit(libc::RLIMIT_NOFILE).unwrap();
    let soft = most.unwrap_or(hard);
    cofferdam_sys::process::prlimit(pid as i32, libc::RLIMIT_NOFILE, soft, hard).unwrap();
}

/// Processor time that a process has used, in ticks.
pub fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// A field of a process's smaps_rollup, in kB.
pub fn memory(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Makes a file executable by all and writable by its owner alone.
pub fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
