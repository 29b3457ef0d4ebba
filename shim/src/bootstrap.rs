//! The `start` action: finds or makes the shim that shall run a container, and tells containerd its address.
//!
//! containerd 2.3 and newer write `BootstrapParams` to standard input and read a `BootstrapResult`; older ones write an `Any`
//! with the runtime's options and read JSON, or (1.6) a bare address. Either message parses as the other, so what tells them
//! apart is whether id and namespace repeat those of the command line.

use crate::{address, bundle::Config, flags::Flags, options::Options};
use cofferdam_proto::{Any, Message, bootstrap, type_url};
use cofferdam_sys::{Strings, shim};
use std::{
    ffi::OsString,
    io::{Read, Write},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, net::UnixListener},
    },
    path::Path,
};

/// As much as the Go shim reads.
const INPUT_MAX: u64 = 10 << 20;

/// What containerd said on standard input.
pub struct Request {
    /// Whether it speaks the bootstrap protocol.
    modern: bool,
    options: Options,
    socket_dir: Option<String>,
    ttrpc_address: Option<String>,
    debug: bool,
}

impl Request {
    /// Understands the input, in either form.
    ///
    /// # Errors
    /// A sentence about options that are not understood.
    pub fn parse(input: &[u8], flags: &Flags) -> Result<Request, String> {
        match bootstrap::BootstrapParams::parse_from_bytes(input) {
            Ok(params)
                if !input.is_empty()
                    && params.instance_id == flags.id
                    && params.namespace == flags.namespace =>
            {
                let mut any = params.extensions.iter().filter_map(|extension| extension.value.as_ref());
                Ok(Request {
                    modern: true,
                    options: Options::from_any(any.find(|any| is_options(any)))?,
                    debug: flags.debug || params.log_level < 0,
                    socket_dir: params.socket_dir,
                    ttrpc_address: Some(params.containerd_ttrpc_address)
                        .filter(|address| !address.is_empty()),
                })
            }
            _ => {
                let any = Any::parse_from_bytes(input)
                    .map_err(|error| format!("runtime options on stdin: {error}"))?;
                Ok(Request {
                    modern: false,
                    options: Options::from_any(Some(&any))?,
                    debug: flags.debug,
                    socket_dir: None,
                    ttrpc_address: None,
                })
            }
        }
    }

    /// The answer. `MAX_SHIM_VERSION` is set by every containerd that understands JSON (1.7 and newer).
    fn answer(&self, address: &str, takes_json: bool) -> Vec<u8> {
        if self.modern {
            let result = bootstrap::BootstrapResult {
                version: 3,
                address: address.into(),
                protocol: "ttrpc".into(),
                ..Default::default()
            };
            return result.write_to_bytes().unwrap_or_default();
        }
        if takes_json {
            return serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"})
                .to_string()
                .into_bytes();
        }
        address.as_bytes().to_vec()
    }
}

fn is_options(any: &Any) -> bool {
    [type_url::RUNC_OPTIONS, type_url::RUNTIME_OPTIONS, type_url::LINUX_RUNC_CREATE_OPTIONS]
        .iter()
        .any(|name| type_url::names(&any.type_url, name))
}

/// Does all of `start`. containerd reads standard output and error together, so nothing but the answer may be printed.
///
/// # Errors
/// A sentence for containerd's log.
pub fn start(flags: &Flags) -> Result<(), String> {
    let mut input = Vec::new();
    std::io::stdin()
        .take(INPUT_MAX)
        .read_to_end(&mut input)
        .map_err(|error| format!("failed to read stdin: {error}"))?;
    let request = Request::parse(&input, flags)?;
    let config = Config::read(Path::new(".")).map_err(|error| format!("config.json: {error}"))?;
    let group = config.group(&flags.id);
    let path = address::path(request.socket_dir.as_deref(), &flags.address, &flags.namespace, group)
        .map_err(|error| error.to_string())?;
    let address = format!("unix://{}", path.display());
    write_address(&address).map_err(|error| format!("write the address into the bundle: {error}"))?;
    address::remember_dir(request.socket_dir.as_deref());
    match address::take(&path)
        .map_err(|error| format!("create new shim socket {}: {error}", path.display()))?
    {
        address::Taken::Served => {}
        address::Taken::Listening(listener) => {
            if let Err(error) = launch(flags, &request, &listener) {
                address::remove(&path, Some(&listener.into()));
                return Err(error);
            }
        }
    }
    let answer = request.answer(&address, std::env::var_os("MAX_SHIM_VERSION").is_some());
    std::io::stdout().write_all(&answer).map_err(|error| format!("write the answer: {error}"))
}

/// containerd up to 1.7 finds a shim again, after a restart of its own, by the file `address` that the shim has left in the bundle.
fn write_address(address: &str) -> std::io::Result<()> {
    let unfinished = Path::new(".address");
    std::fs::write(unfinished, address)?;
    std::fs::rename(unfinished, "address")
}

/// Starts the daemon with the listener as descriptor 3, and sets up what is set up from outside.
fn launch(flags: &Flags, request: &Request, listener: &UnixListener) -> Result<(), String> {
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        shim::create_core_scheduling_group()
            .map_err(|error| format!("enable sched core support: {error}"))?;
    }
    let executable = std::env::current_exe().map_err(|error| format!("find this executable: {error}"))?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| format!("open /dev/null: {error}"))?;
    let mut args: Vec<OsString> = vec![executable.clone().into()];
    for word in ["-namespace", &flags.namespace, "-id", &flags.id, "-address", &flags.address] {
        args.push(word.into());
    }
    if request.debug {
        args.push("-debug".into());
    }
    let program = |args: &Strings, env: &Strings| {
        shim::start(&shim::Program {
            path: executable.as_os_str().as_bytes(),
            args,
            env,
            fds: &[
                (0, null.as_raw_fd()),
                (1, null.as_raw_fd()),
                (2, null.as_raw_fd()),
                (3, listener.as_raw_fd()),
            ],
            new_group: true,
            dies_with_thread: false,
        })
    };
    let args: Vec<&[u8]> = args.iter().map(|word| word.as_bytes()).collect();
    let env = environment(request);
    let env: Vec<&[u8]> = env.iter().map(|word| word.as_bytes()).collect();
    let spawned = Strings::new(&args)
        .and_then(|args| Strings::new(&env).map(|env| (args, env)))
        .and_then(|(args, env)| program(&args, &env))
        .map_err(|error| format!("start {}: {error}", executable.display()))?;
    // The child is not waited for here, so its pid stays its own in what follows.
    let set_up =
        enter_cgroup(&request.options.shim_cgroup, spawned.pid).and_then(|()| adjust_oom_score(spawned.pid));
    if set_up.is_err() {
        let _ = cofferdam_sys::process::pidfd_send_signal(&spawned.pidfd, 9);
    }
    set_up
}

/// The daemon's environment: ours, with the address that containerd itself named for its events.
fn environment(request: &Request) -> Vec<OsString> {
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    if let Some(address) = &request.ttrpc_address {
        variables.retain(|(name, _)| name != "TTRPC_ADDRESS");
        variables.push(("TTRPC_ADDRESS".into(), address.into()));
    }
    variables
        .into_iter()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect()
}

/// Moves the daemon into the cgroup that the options name, on every hierarchy that there is.
fn enter_cgroup(cgroup: &str, pid: i32) -> Result<(), String> {
    if cgroup.is_empty() {
        return Ok(());
    }
    let root = Path::new("/sys/fs/cgroup");
    let relative = cgroup.trim_start_matches('/');
    if Path::new(relative).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(format!("failed to load cgroup {cgroup}: not a plain path"));
    }
    let mut dirs = vec![root.join(relative)];
    if !root.join("cgroup.controllers").exists() {
        let hierarchies =
            std::fs::read_dir(root).map_err(|error| format!("failed to load cgroup {cgroup}: {error}"))?;
        dirs = hierarchies
            .filter_map(|entry| Some(entry.ok()?.path().join(relative)))
            .filter(|dir| dir.join("cgroup.procs").exists())
            .collect();
    }
    if dirs.is_empty() {
        return Err(format!("failed to load cgroup {cgroup}: no such cgroup"));
    }
    for dir in dirs {
        std::fs::write(dir.join("cgroup.procs"), pid.to_string())
            .map_err(|error| format!("failed to join cgroup {}: {error}", dir.display()))?;
    }
    Ok(())
}

/// One more than containerd's: under memory pressure the kernel shall rather take the shim than containerd.
fn adjust_oom_score(pid: i32) -> Result<(), String> {
    let parent = nix::unistd::getppid();
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj"))
        .map_err(|error| format!("get parent OOM score: {error}"))?;
    let score: i32 = score.trim().parse().map_err(|error| format!("get parent OOM score: {error}"))?;
    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), (score + 1).min(1000).to_string()) {
        // The kernel refuses values below the one a process was started with, without CAP_SYS_RESOURCE: a shim that counts the
        // same as its containerd is better than none.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        other => other.map_err(|error| format!("failed to adjust OOM score for shim: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_proto::runc_options;

    fn flags() -> Flags {
        Flags { id: "web".into(), namespace: "k8s.io".into(), ..Flags::default() }
    }

    fn options() -> Any {
        let options = runc_options::Options { io_uid: 5, ..Default::default() };
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Default::default()
        }
    }

    #[test]
    fn the_bootstrap_protocol_is_answered_in_its_own_form() {
        let params = bootstrap::BootstrapParams {
            instance_id: "web".into(),
            namespace: "k8s.io".into(),
            log_level: -4,
            containerd_ttrpc_address: "/run/c.ttrpc".into(),
            socket_dir: Some("/s".into()),
            extensions: vec![bootstrap::Extension { value: Some(options()).into(), ..Default::default() }],
            ..Default::default()
        };
        let request = Request::parse(&params.write_to_bytes().unwrap(), &flags()).unwrap();
        assert!(request.modern && request.debug);
        assert_eq!((request.options.io_uid, request.socket_dir.as_deref()), (5, Some("/s")));
        assert_eq!(request.ttrpc_address.as_deref(), Some("/run/c.ttrpc"));
        let answer =
            bootstrap::BootstrapResult::parse_from_bytes(&request.answer("unix:///s/1", true)).unwrap();
        assert_eq!(
            (answer.version, answer.address.as_str(), answer.protocol.as_str()),
            (3, "unix:///s/1", "ttrpc")
        );
    }

    #[test]
    fn an_older_containerd_gets_json_and_the_oldest_the_address_alone() {
        for input in [options().write_to_bytes().unwrap(), Vec::new()] {
            let request = Request::parse(&input, &flags()).unwrap();
            assert!(!request.modern);
            assert_eq!(request.options.io_uid, if input.is_empty() { 0 } else { 5 });
            assert_eq!(request.answer("unix:///s/1", false), b"unix:///s/1");
            let json: serde_json::Value =
                serde_json::from_slice(&request.answer("unix:///s/1", true)).unwrap();
            assert_eq!(
                json,
                serde_json::json!({"version": 2, "address": "unix:///s/1", "protocol": "ttrpc"})
            );
        }
    }

    #[test]
    fn params_of_another_container_are_not_believed() {
        let params = bootstrap::BootstrapParams {
            instance_id: "other".into(),
            namespace: "k8s.io".into(),
            ..Default::default()
        };
        // Read as an Any, they are options of the type "other".
        let error = Request::parse(&params.write_to_bytes().unwrap(), &flags()).err();
        assert_eq!(error.as_deref(), Some("runtime options of type \"other\" are not supported"));
    }
}
