//! What is around a task: how the shim is started and placed, hooks, loggers, owners of pipes, and what an earlier build left.

use super::{change_config, end, running, with_shim};
use crate::{RUNTIME, support::*};
use cofferdam_proto::{Any, Message, bootstrap, runc_options, runtime_info, task};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

/// The lab's options, changed.
fn options(lab: &Lab, change: impl FnOnce(&mut runc_options::Options)) -> Any {
    let mut any = lab.options();
    let mut options = runc_options::Options::parse_from_bytes(&any.value).unwrap();
    change(&mut options);
    any.value = options.write_to_bytes().unwrap();
    any
}

#[test]
fn older_containerds_are_answered_in_json_or_by_the_bare_address() {
    let Some(lab) = lab("older", RUNTIME) else { return };
    lab.bundle("web", &Setup::shell("true"));
    let input = lab.options().write_to_bytes().unwrap();
    let answer: serde_json::Value =
        serde_json::from_slice(&lab.call_shim("web", &["start"], &input)).unwrap();
    assert_eq!((&answer["version"], &answer["protocol"]), (&2.into(), &"ttrpc".into()));
    let address = answer["address"].as_str().unwrap().to_string();
    let output = Command::new(SHIM)
        .args(["-namespace", NAMESPACE, "-address", &lab.dir.join("containerd.sock").to_string_lossy()])
        .args(["-id", "web", "start"])
        .current_dir(lab.dir.join("web"))
        .env_remove("MAX_SHIM_VERSION")
        .env("TTRPC_ADDRESS", &lab.events.path)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        address,
        "the shim that is there, by its bare address"
    );
    let path = Path::new(address.strip_prefix("unix://").unwrap());
    Client::connect(path).shutdown("web");
    until("the socket is gone", || !path.exists());
}

#[test]
fn the_socket_is_its_owner_s_alone() {
    if let Some(address) = std::env::var_os("SHIM_TEST_STRANGER") {
        return be_hung_up_on(Path::new(&address));
    }
    let Some((lab, mut client)) = with_shim("stranger", &Setup::shell("true")) else { return };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let dir = lab.address.parent().unwrap();
    assert_eq!((mode(&lab.address), mode(dir)), (0o600, 0o700));
    // Whatever the modes have become, the peer's user counts.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(&lab.address, fs::Permissions::from_mode(0o666)).unwrap();
    let program = lab.dir.join("stranger");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    make_executable(&program);
    let status = Command::new(program)
        .args(["--exact", "task::surroundings::the_socket_is_its_owner_s_alone"])
        .env("SHIM_TEST_STRANGER", &lab.address)
        .uid(65_534)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    assert!(client.shim_pid() > 0, "we are served");
    client.shutdown("web");
}

/// In a process of another user: the shim ends the connection without a word.
fn be_hung_up_on(address: &Path) {
    let mut socket = UnixStream::connect(address).unwrap();
    let _ = socket.write_all(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 0]);
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    assert!(
        answer.is_empty()
            && read.map_or_else(|e| e.kind() == std::io::ErrorKind::ConnectionReset, |n| n == 0)
    );
}

#[test]
fn a_shim_without_a_descriptor_for_a_connection_waits_for_one() {
    let Some((_lab, mut client)) = with_shim("nofd", &Setup::shell("true")) else { return };
    let pid = client.shim_pid();
    limit_descriptors(pid, Some(descriptors(pid) as u64));
    let mut second = Client::connect(client.address());
    let before = ticks(pid);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(ticks(pid) - before < 20, "it asks again and again: {} ticks", ticks(pid) - before);
    assert_eq!(client.state("none", "").unwrap_err().0, 5, "who is connected is served");
    limit_descriptors(pid, None);
    assert_eq!(second.state("none", "").unwrap_err().0, 5, "who waited comes in");
    client.shutdown("web");
}

#[test]
fn a_create_without_descriptors_leaves_nothing() {
    let Some((lab, mut client)) = with_shim("fewfds", &Setup::shell("exec sleep 1000")) else { return };
    let pid = client.shim_pid();
    let least = descriptors(pid) as u64;
    let made = (least..least + 100).find(|most| {
        limit_descriptors(pid, Some(*most));
        let result = client.create(&lab.create_request("web"));
        limit_descriptors(pid, None);
        if let Err((_, message)) = &result {
            assert!(message.to_lowercase().contains("too many open files"), "{most}: {message}");
            assert_eq!(lab.cgroups(), Vec::<std::path::PathBuf>::new(), "{most}: {message}");
            // The image of init is kept for the next one, and what the worker held goes behind its answer.
            let back = (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                descriptors(pid) as u64 <= least + 1
            });
            assert!(back, "{most}: {} descriptors, {least} before: {message}", descriptors(pid));
        }
        result.is_ok()
    });
    assert!(made.is_some_and(|most| most > least + 1), "{made:?}, {least} at first");
    client.delete("web", "").unwrap();
    client.shutdown("web");
    lab.assert_nothing_left();
}

#[test]
fn the_shim_says_what_it_is_and_can() {
    let Some(lab) = lab("info", RUNTIME) else { return };
    lab.bundle("web", &Setup::shell("true"));
    let info = Command::new(SHIM).arg("-info").stdin(std::process::Stdio::null()).output().unwrap();
    let info = runtime_info::RuntimeInfo::parse_from_bytes(&info.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.cofferdam.v2");
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    assert_eq!(
        features["linux"]["mountExtensions"]["idmap"]["enabled"], true,
        "Kubernetes' user namespaces need it"
    );
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&"user".into()));
    let version = Command::new(SHIM).arg("-v").output().unwrap();
    assert!(
        String::from_utf8(version.stdout).unwrap().starts_with("containerd-shim-cofferdam-v2:\n  Version:")
    );
}

#[test]
fn the_shim_gives_way_to_containerd_when_memory_is_short() {
    let Some((_lab, mut client)) = with_shim("oomscore", &Setup::shell("true")) else { return };
    let score = |pid: &str| -> i32 {
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
    };
    let pid = client.shim_pid().to_string();
    assert_eq!(score(&pid), (score("self") + 1).min(1000));
    client.shutdown("web");
}

#[test]
fn core_scheduling_is_the_shim_s_where_the_engine_asks_for_it() {
    use cofferdam_sys::shim::core_scheduling_cookie;
    let Some(lab) = lab("schedcore", RUNTIME) else { return };
    lab.bundle("web", &Setup::shell("true"));
    let input = lab.bootstrap_params("web");
    let start = |value: &str| {
        // In a group of its own, as containerd starts it: the cookie is the group's.
        run_with_input(lab.shim_command("web", &["start"]).env("SCHED_CORE", value).process_group(0), &input)
    };
    let client = |output: &std::process::Output| {
        let said = String::from_utf8_lossy(&output.stderr);
        let result = bootstrap::BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
        Client::connect(Path::new(result.address.strip_prefix("unix://").unwrap_or_else(|| panic!("{said}"))))
    };
    let own = core_scheduling_cookie(0);
    let output = start("1");
    match own {
        Ok(own) => {
            let mut client = client(&output);
            let cookie = core_scheduling_cookie(client.shim_pid() as i32).unwrap();
            assert!(cookie != 0 && cookie != own, "{cookie} {own}");
            client.shutdown("web");
        }
        // A kernel or a machine without: what it answers shows that it was asked, and there is no shim that is less apart than
        // the engine believes.
        Err(errno) => {
            let text = format!("{}: enable sched core support: {errno}", "io.containerd.cofferdam.v2");
            assert_eq!(String::from_utf8_lossy(&output.stderr), text);
            assert!(!output.status.success() && output.stdout.is_empty());
        }
    }
    lab.assert_nothing_left();
    // Not asked for: not done.
    let mut client = client(&start(""));
    assert_eq!(core_scheduling_cookie(client.shim_pid() as i32), own);
    client.shutdown("web");
    lab.assert_nothing_left();
}

#[test]
fn the_shim_goes_to_the_cgroup_that_the_options_name() {
    let Some(lab) = lab("shimcgroup", RUNTIME) else { return };
    lab.bundle("web", &Setup::shell("true"));
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let root = Path::new("/sys/fs/cgroup").join(if v2 { "" } else { "pids" });
    if !root.is_dir() {
        return skip("no pids controller");
    }
    let name = format!("cofferdam-shim-test-own-{}", std::process::id());
    fs::create_dir(root.join(&name)).unwrap();
    let input = options(&lab, |options| options.shim_cgroup = format!("/{name}")).write_to_bytes().unwrap();
    let answer: serde_json::Value =
        serde_json::from_slice(&lab.call_shim("web", &["start"], &input)).unwrap();
    let mut client =
        Client::connect(Path::new(answer["address"].as_str().unwrap().strip_prefix("unix://").unwrap()));
    let pid = client.shim_pid();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    client.shutdown("web");
    until("the shim is gone", || !Path::new(&format!("/proc/{pid}")).exists());
    fs::remove_dir(root.join(&name)).unwrap();
    assert!(groups.contains(&format!("/{name}\n")), "{groups}");
}

#[test]
fn a_hook_that_takes_its_time_holds_nobody_else_up() {
    let Some(mut lab) = lab("hooks", RUNTIME) else { return };
    let mut setup = Setup::shell("exec sleep 1000");
    setup.annotations.push(("io.containerd.runc.v2.group".into(), "group".into()));
    lab.bundle("other", &setup);
    lab.bundle("web", &setup);
    let (gate, out) = (lab.fifo("gate"), lab.dir.join("poststop"));
    // Its orphan comes to the shim, and is reaped there; its own end is its starter's business.
    let script = format!("(/bin/sleep 0.1 &) ; read line <{gate}; exit $line");
    change_config(&lab, "web", |config| {
        let hook = |script: &str| serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        config["hooks"] = serde_json::json!({ "createRuntime": hook(&script), "poststop": hook(&format!("echo ran >{}", out.display())) });
    });
    let mut client = lab.start_shim("other");
    client.create(&lab.create_request("other")).unwrap();
    client.start("other", "").unwrap();
    let pid = client.shim_pid();
    for (answer, is_well) in [("3", false), ("0", true)] {
        let creating = client.send("Create", &lab.create_request("web"));
        // The other container is served while the hook waits.
        client.exec(&lab, "other", "e", &["true"]).unwrap();
        client.start("other", "e").unwrap();
        assert_eq!(client.wait("other", "e"), Ok(0));
        client.delete("other", "e").unwrap();
        fs::write(&gate, format!("{answer}\n")).unwrap();
        match client.receive::<task::CreateTaskResponse>(creating) {
            Ok(_) => assert!(is_well),
            Err((_, message)) => {
                assert!(!is_well && message.contains("hook") && message.contains('3'), "{message}")
            }
        }
    }
    client.start("web", "").unwrap();
    for id in ["web", "other"] {
        client.kill(id, "", 9).unwrap();
        assert_eq!(client.wait(id, ""), Ok(137));
        client.delete(id, "").unwrap();
    }
    assert_eq!(fs::read_to_string(out).unwrap(), "ran\n");
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    until("strangers are reaped", || children().trim().is_empty());
    client.shutdown("web");
    lab.assert_nothing_left();
}

/// A hook that leaves an orphan behind, and then waits until it is told with which status to end.
struct Lingering {
    gate: String,
    end: String,
    pid_file: std::path::PathBuf,
}

impl Lingering {
    fn new(lab: &Lab, name: &str) -> Lingering {
        let file = |what: &str| format!("{name}-{what}");
        Lingering {
            gate: lab.fifo(&file("gate")),
            end: lab.fifo(&file("end")),
            pid_file: lab.dir.join(file("pid")),
        }
    }

    /// As config.json has it.
    fn hooks(&self) -> serde_json::Value {
        let (gate, end, pid) = (&self.gate, &self.end, self.pid_file.display());
        let orphan = format!("echo $$ >{pid}.new; mv {pid}.new {pid}; read line <{end}; exit 9");
        let script = format!("(/bin/sh -c '{orphan}' &) ; read line <{gate}; exit $line");
        serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    }

    /// While the hook runs its orphan comes to the shim, ends, and is reaped.
    fn sees_its_orphan_reaped(&self, shim: u32) {
        until("the orphan begins", || self.pid_file.exists());
        let pid = fs::read_to_string(&self.pid_file).unwrap().trim().to_string();
        fs::remove_file(&self.pid_file).unwrap();
        let status = format!("/proc/{pid}/status");
        let parent = format!("PPid:\t{shim}\n");
        until("the orphan is the shim's", || fs::read_to_string(&status).unwrap().contains(&parent));
        fs::write(&self.end, "\n").unwrap();
        until("the orphan is reaped while the hook runs", || !Path::new(&status).exists());
    }

    fn ends_with(&self, status: u8) {
        fs::write(&self.gate, format!("{status}\n")).unwrap();
    }
}

#[test]
fn strangers_are_reaped_while_hooks_run_and_every_status_is_right() {
    if !RUNTIME.is_empty() {
        return skip("runc takes the orphans of its hooks itself");
    }
    let Some((lab, mut client)) = with_shim("strangers", &Setup::shell("exit 7")) else { return };
    let [create, start, stop] = ["create", "start", "stop"].map(|name| Lingering::new(&lab, name));
    change_config(&lab, "web", |config| {
        config["hooks"] = serde_json::json!({
            "createRuntime": create.hooks(), "poststart": start.hooks(), "poststop": stop.hooks()
        });
    });
    let shim = client.shim_pid();
    let failing = client.send("Create", &lab.create_request("web"));
    create.sees_its_orphan_reaped(shim);
    create.ends_with(3);
    // Poststop hooks also run for a container that never came to be.
    stop.sees_its_orphan_reaped(shim);
    stop.ends_with(0);
    let (_, message) = client.receive::<task::CreateTaskResponse>(failing).unwrap_err();
    assert!(message.contains("hook") && message.contains("status 3"), "{message}");
    let creating = client.send("Create", &lab.create_request("web"));
    create.sees_its_orphan_reaped(shim);
    create.ends_with(0);
    let init = client.receive::<task::CreateTaskResponse>(creating).unwrap().pid;
    // Init ends behind its start, and the shim looks away until the hook is through: its status waits, and hides nobody.
    let request = task::StartRequest { id: "web".into(), ..Default::default() };
    let starting = client.send("Start", &request);
    start.sees_its_orphan_reaped(shim);
    start.ends_with(0);
    assert_eq!(client.receive::<task::StartResponse>(starting).unwrap().pid, init);
    assert_eq!(client.wait("web", ""), Ok(7));
    let deleting = client.send("Delete", &task::DeleteRequest { id: "web".into(), ..Default::default() });
    stop.sees_its_orphan_reaped(shim);
    stop.ends_with(0);
    assert_eq!(client.receive::<task::DeleteResponse>(deleting).unwrap().exit_status, 7);
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    assert_eq!(children.trim(), "", "zombies");
    client.shutdown("web");
    lab.assert_nothing_left();
}

#[test]
fn delete_does_not_wait_for_ever_for_output() {
    let Some((lab, mut client)) = with_shim("drain", &Setup::shell("read line; exit 0")) else { return };
    let (stdin, stdout) = (lab.fifo("stdin"), lab.fifo("stdout"));
    let mut request = lab.create_request("web");
    (request.stdin, request.stdout) = (stdin.clone(), stdout.clone());
    let out = read_all(&stdout);
    client.create(&request).unwrap();
    let pid = client.start("web", "").unwrap();
    // As a descendant would that nobody knows of.
    let holder = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    fs::write(&stdin, "go\n").unwrap();
    assert_eq!(client.wait("web", ""), Ok(0));
    assert_eq!(client.delete("web", ""), Ok(0));
    client.shutdown("web");
    lab.assert_nothing_left();
    drop(holder);
    assert_eq!(out.join().unwrap(), b"");
}

#[test]
fn pipes_belong_to_whom_the_options_name() {
    let Some((lab, mut client)) = with_shim("owner", &Setup::shell("exec sleep 1000")) else { return };
    let stdout = lab.fifo("stdout");
    let mut request = lab.create_request("web");
    request.stdout = stdout.clone();
    let named = |options: &mut runc_options::Options| (options.io_uid, options.io_gid) = (1234, 1235);
    request.options = Some(options(&lab, named)).into();
    let out = read_all(&stdout);
    client.create(&request).unwrap();
    let pid = client.start("web", "").unwrap();
    let pipe = fs::metadata(format!("/proc/{pid}/fd/1")).unwrap();
    // The runtime gives a process's streams to its user; the group stays.
    assert_eq!((pipe.uid(), pipe.gid()), (0, 1235));
    end(&lab, &mut client);
    out.join().unwrap();
}

#[test]
fn loggers_that_are_not_trusted_or_not_ready_are_refused() {
    let Some((lab, mut client)) = with_shim("loggers", &Setup::shell("echo out")) else { return };
    let program = lab.dir.join("logger");
    let mut create = |scheme: &str, script: &str, mode: u32| {
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let mut request = lab.create_request("web");
        request.stdout = format!("{scheme}://{}", program.display());
        client.create(&request)
    };
    let (_, message) = create("binary", "#!/bin/sh\n", 0o777).unwrap_err();
    assert!(message.ends_with("is refused: others can write to it"), "{message}");
    std::os::unix::fs::chown(&program, Some(65_534), None).unwrap();
    let (_, message) = create("binary", "#!/bin/sh\n", 0o755).unwrap_err();
    assert!(message.ends_with("is refused: it is not owned by root"), "{message}");
    std::os::unix::fs::chown(&program, Some(0), None).unwrap();
    let (_, message) = create("binary", "#!/bin/sh\n", 0o755 | 0o020).unwrap_err();
    assert!(message.ends_with("is refused: others can write to it"), "{message}");
    let (_, message) = create("binary-v2", "#!/bin/sh\nexit 0\n", 0o755).unwrap_err();
    assert!(message.contains("logging binary did not call ready"), "{message}");
    create("binary-v2", "#!/bin/sh\necho >&5\nexec 5>&-\ncat <&3 >/dev/null\n", 0o755).unwrap();
    let mut request = lab.create_request("web");
    (request.id, request.stdout) = ("relative".into(), "binary://bin/logger".into());
    let (_, message) = client.create(&request).unwrap_err();
    assert!(message.ends_with("\"bin/logger\" is refused: its path is not absolute"), "{message}");
    client.start("web", "").unwrap();
    end(&lab, &mut client);
}

/// Takes out of `value` what the recorded one has not: an object's unknown fields.
fn keep_recorded(value: &mut serde_json::Value, recorded: &serde_json::Value) {
    if let (Some(object), Some(recorded)) = (value.as_object_mut(), recorded.as_object()) {
        object.retain(|name, _| recorded.contains_key(name));
        object.iter_mut().for_each(|(name, value)| keep_recorded(value, &recorded[name]));
    }
}

#[test]
fn a_container_of_an_earlier_build_is_taken_over() {
    if !RUNTIME.is_empty() {
        return skip("the state is another runtime's");
    }
    let Some((lab, mut client)) = running("earlier", "exec sleep 1000") else { return };
    // As the earlier build wrote it: a file of its own, recorded, says which fields there were.
    let path = lab.dir.join("state").join(NAMESPACE).join("web/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../data/state-format-1.json")).unwrap();
    assert_eq!(state["format"], recorded["format"]);
    for name in recorded.as_object().unwrap().keys().filter(|name| *name != "annotations") {
        assert!(state.get(name).is_some(), "{name} is not written any more: an earlier build would miss it");
    }
    keep_recorded(&mut state, &recorded);
    fs::write(&path, state.to_string()).unwrap();
    client.exec(&lab, "web", "e", &["sh", "-c", "exit 5"]).unwrap();
    client.start("web", "e").unwrap();
    assert_eq!(client.wait("web", "e"), Ok(5));
    // Its shim is that of the earlier build, and dies; the one that is installed now cleans up.
    shim_dies_and_is_cleaned_up_after(&lab, &mut client);
}

/// As containerd does it when a shim is gone: by the binary that is installed.
fn shim_dies_and_is_cleaned_up_after(lab: &Lab, client: &mut Client) {
    let shim = nix::unistd::Pid::from_raw(client.shim_pid() as i32);
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the shim is gone", || UnixStream::connect(&lab.address).is_err());
    let bundle = lab.dir.join("web").to_string_lossy().into_owned();
    let answer = lab.call_shim("web", &["-bundle", &bundle, "delete"], b"");
    assert_eq!(task::DeleteResponse::parse_from_bytes(&answer).unwrap().exit_status, 137);
    lab.assert_nothing_left();
}

#[test]
fn a_shim_of_an_earlier_build_is_relieved() {
    if !RUNTIME.is_empty() {
        return skip("the state is another runtime's");
    }
    let Some(earlier) = previous_shim() else {
        return skip("needs an earlier build: PREVIOUS=$(hack/previous)");
    };
    let Some(mut lab) = lab("relieved", RUNTIME) else { return };
    let mut setup = Setup::shell("exec sleep 1000");
    setup.annotations.push(("io.containerd.runc.v2.group".into(), "group".into()));
    lab.bundle("web", &setup);
    lab.bundle("later", &setup);
    lab.shim = earlier;
    let mut client = lab.start_shim("web");
    let shim = fs::read_link(format!("/proc/{}/exe", client.shim_pid())).unwrap();
    assert_eq!(shim, lab.shim.canonicalize().unwrap(), "the earlier build's");
    client.create(&lab.create_request("web")).unwrap();
    client.start("web", "").unwrap();
    // The upgrade: what the group starts from now on finds its shim, which is still the earlier one.
    lab.shim = SHIM.into();
    let address = lab.address.clone();
    let mut client = lab.start_shim("later");
    assert_eq!(lab.address, address);
    client.create(&lab.create_request("later")).unwrap();
    client.kill("later", "", 9).unwrap();
    client.delete("later", "").unwrap();
    client.exec(&lab, "web", "e", &["sh", "-c", "exit 5"]).unwrap();
    client.start("web", "e").unwrap();
    assert_eq!(client.wait("web", "e"), Ok(5));
    shim_dies_and_is_cleaned_up_after(&lab, &mut client);
}
