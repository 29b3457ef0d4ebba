//! A containerd of a few lines: starts a shim, calls it over ttrpc, and takes its events.

use crate::Result;
use cofferdam_proto::{Any, Empty, Message, runc_options, task, ttrpc};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// containerd's namespace in here.
pub const NAMESPACE: &str = "bench";
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A shim's program, and what it is told.
#[derive(Clone, Debug)]
pub struct Program {
    /// The shim's binary.
    pub shim: PathBuf,
    /// The runtime's binary; empty for the shim's own choice.
    pub runtime: String,
}

impl Program {
    fn options(&self, root: &Path) -> Result<Any> {
        let options = runc_options::Options {
            binary_name: self.runtime.clone(),
            root: root.to_string_lossy().into_owned(),
            ..Default::default()
        };
        Ok(Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes()?,
            ..Default::default()
        })
    }
}

/// Where shims find a containerd: folders, and a socket that takes events.
pub struct Daemon {
    dir: PathBuf,
}

impl Daemon {
    /// Takes events in threads of this process's own, until it ends.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn new(dir: &Path) -> Result<Daemon> {
        std::fs::create_dir_all(dir)?;
        let listener = UnixListener::bind(dir.join("events.sock"))?;
        std::thread::Builder::new().name("events".into()).spawn(move || {
            for socket in listener.incoming().flatten() {
                // A shim that no thread is there for keeps its events.
                let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(move || take_events(socket));
            }
        })?;
        Ok(Daemon { dir: dir.into() })
    }

    /// Runs the action `start` in a bundle, as containerd 1.7 and 2.0 to 2.2 do; what is then called is [`Shim::connect`].
    ///
    /// # Errors
    /// If it fails, or its answer has no address.
    pub fn start(&self, program: &Program, bundle: &Path, id: &str) -> Result<PathBuf> {
        self.start_in(None, program, bundle, id)
    }

    /// The same by a process that has entered a cgroup.
    ///
    /// # Errors
    /// The same.
    pub fn start_in(
        &self,
        group: Option<&Path>,
        program: &Program,
        bundle: &Path,
        id: &str,
    ) -> Result<PathBuf> {
        let mut command = match group {
            None => Command::new(&program.shim),
            Some(group) => {
                let mut command = Command::new("/bin/sh");
                command
                    .args(["-c", "echo 0 >\"$0\" && exec \"$@\""])
                    .arg(group.join("cgroup.procs"))
                    .arg(&program.shim);
                command
            }
        };
        let mut child = command
            .args(["-namespace", NAMESPACE, "-address"])
            .arg(self.dir.join("containerd.sock"))
            .args(["-publish-binary", "/bin/true", "-id", id, "start"])
            .current_dir(bundle)
            .env("TTRPC_ADDRESS", self.dir.join("events.sock"))
            .env("GRPC_ADDRESS", self.dir.join("containerd.sock"))
            .env("NAMESPACE", NAMESPACE)
            .env("MAX_SHIM_VERSION", "2")
            .env("GOMAXPROCS", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let options = program.options(&self.dir.join("state"))?.write_to_bytes()?;
        child.stdin.take().ok_or("no stdin")?.write_all(&options)?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(format!("start: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        let address = answer.as_ref().and_then(|answer| answer["address"].as_str()).unwrap_or(&text);
        Ok(address.strip_prefix("unix://").ok_or_else(|| format!("no address: {text}"))?.into())
    }

    /// Create's request.
    ///
    /// # Errors
    /// None in practice.
    pub fn create_request(
        &self,
        program: &Program,
        bundle: &Path,
        id: &str,
    ) -> Result<task::CreateTaskRequest> {
        Ok(task::CreateTaskRequest {
            id: id.into(),
            bundle: bundle.to_string_lossy().into_owned(),
            options: Some(program.options(&self.dir.join("state"))?).into(),
            ..Default::default()
        })
    }
}

/// The fifo that a shim logs to, held open as containerd does it. What is logged stays in it.
///
/// # Errors
/// If it cannot be made.
pub fn make_log(bundle: &Path) -> Result<File> {
    let path = bundle.join("log");
    if !path.exists() {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o700))?;
    }
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?)
}

/// Answers every Forward.
fn take_events(mut socket: UnixStream) {
    let mut header = [0; 10];
    while socket.read_exact(&mut header).is_ok() {
        let length = word(&header, 0);
        if std::io::copy(&mut (&socket).take(u64::from(length)), &mut std::io::sink()).is_err() {
            return;
        }
        // A response with a status of no code is 2 bytes: field 1, of no length.
        let mut answer = vec![0, 0, 0, 2];
        answer.extend_from_slice(&header[4..8]);
        answer.extend_from_slice(&[2, 0, 0x0a, 0]);
        if socket.write_all(&answer).is_err() {
            return;
        }
    }
}

fn word(header: &[u8; 10], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// A connection to a shim.
pub struct Shim {
    socket: UnixStream,
    stream: u32,
}

impl Shim {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn connect(address: &Path) -> Result<Shim> {
        let socket = UnixStream::connect(address)?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Shim { socket, stream: 1u32.wrapping_sub(2) })
    }

    /// Calls a method of the Task service and waits for the answer.
    ///
    /// # Errors
    /// What the shim says, or no answer in time.
    pub fn call<R: Message>(&mut self, method: &str, message: &impl Message) -> Result<R> {
        let request = ttrpc::Request {
            service: "containerd.task.v2.Task".into(),
            method: method.into(),
            payload: message.write_to_bytes()?,
            ..Default::default()
        };
        self.stream = self.stream.wrapping_add(2);
        let payload = request.write_to_bytes()?;
        let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&self.stream.to_be_bytes());
        frame.extend_from_slice(&[1, 0]);
        frame.extend_from_slice(&payload);
        self.socket.write_all(&frame)?;
        let mut header = [0; 10];
        self.socket.read_exact(&mut header).map_err(|error| format!("{method}: no answer: {error}"))?;
        let mut payload = vec![0; word(&header, 0) as usize];
        self.socket.read_exact(&mut payload)?;
        let response = ttrpc::Response::parse_from_bytes(&payload)?;
        match response.status.as_ref() {
            Some(status) if status.code != 0 => Err(format!("{method}: {}", status.message).into()),
            _ => Ok(R::parse_from_bytes(&response.payload)?),
        }
    }

    /// Start of init, or of an exec.
    ///
    /// # Errors
    /// Those of [`Shim::call`].
    pub fn start(&mut self, id: &str, exec: &str) -> Result<()> {
        let request = task::StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.call("Start", &request).map(|_: task::StartResponse| ())
    }

    /// Registers an exec without streams.
    ///
    /// # Errors
    /// Those of [`Shim::call`].
    pub fn exec(&mut self, id: &str, exec: &str, process: &Value) -> Result<()> {
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: serde_json::to_vec(process)?,
            ..Default::default()
        };
        let request = task::ExecProcessRequest {
            id: id.into(),
            exec_id: exec.into(),
            spec: Some(spec).into(),
            ..Default::default()
        };
        self.call("Exec", &request).map(|_: Empty| ())
    }

    /// Waits for the end of init or an exec.
    ///
    /// # Errors
    /// Those of [`Shim::call`].
    pub fn wait(&mut self, id: &str, exec: &str) -> Result<u32> {
        let request = task::WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.call("Wait", &request).map(|response: task::WaitResponse| response.exit_status)
    }

    /// Takes a process, or the container, away.
    ///
    /// # Errors
    /// Those of [`Shim::call`].
    pub fn delete(&mut self, id: &str, exec: &str) -> Result<()> {
        let request = task::DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.call("Delete", &request).map(|_: task::DeleteResponse| ())
    }

    /// Ends init by SIGKILL and waits for it.
    ///
    /// # Errors
    /// Those of [`Shim::call`].
    pub fn kill(&mut self, id: &str) -> Result<()> {
        let request = task::KillRequest { id: id.into(), signal: 9, ..Default::default() };
        let _: Empty = self.call("Kill", &request)?;
        self.wait(id, "").map(drop)
    }

    /// The shim's pid.
    ///
    /// # Errors
    /// Those of [`Shim::call`].
    pub fn pid(&mut self, id: &str) -> Result<u32> {
        let request = task::ConnectRequest { id: id.into(), ..Default::default() };
        self.call("Connect", &request).map(|response: task::ConnectResponse| response.shim_pid)
    }

    /// Lets the shim end.
    ///
    /// # Errors
    /// Those of [`Shim::call`]; a shim that is gone before it answers is none.
    pub fn shutdown(mut self, id: &str) -> Result<()> {
        let request = task::ShutdownRequest { id: id.into(), now: true, ..Default::default() };
        match self.call::<Empty>("Shutdown", &request) {
            Err(error) if !error.to_string().contains("no answer") => Err(error),
            _ => Ok(()),
        }
    }
}
