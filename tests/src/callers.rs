//! What callers do with a runtime: their command lines word for word, from a container's beginning to its end, and the words of
//! its output that they look for (containerd's go-runc, conmon, podman, CRI-O, conmon-rs, BuildKit).

use crate::harness::{Bundle, Container, Need, Out, T, Test, cgroups, procs};
use crate::test;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

pub const TESTS: &[Test] = &[
    test!(containerds_calls),
    test!(containerds_clean_up),
    test!(conmons_calls),
    test!(podmans_calls),
    test!(podman_without_cgroups).needs(&[Need::Ours("runc has no --cgroup-manager")]),
    test!(podman_without_cgroups_has_no_limits).needs(&[Need::Ours("runc has no --cgroup-manager")]),
    test!(cri_os_calls),
    test!(conmon_rs_calls),
    test!(buildkits_calls),
    test!(what_callers_look_for_in_errors),
    test!(an_exec_that_callers_get_wrong).needs(&[Need::Ours("the message is")]),
    test!(the_last_line_of_the_log_is_the_error),
    test!(pid_files_are_whole),
    test!(a_megabyte_of_memory_is_enough)
        .needs(&[Need::Controller("memory"), Need::Ours("runc's own size is above such a limit")]),
    test!(cpus_are_those_of_the_cpuset).needs(&[
        Need::TwoCpus,
        Need::Controller("cpuset"),
        Need::Runc("1.4", "reset of the CPU affinity"),
    ]),
    test!(an_exec_joins_several_cgroups_below).needs(&[Need::CgroupV1, Need::Controller("pids")]),
    test!(listen_fds_of_others_are_not_passed_on),
];

/// A container that a caller names and calls for by itself, and the folders that it uses.
struct Caller<'t> {
    t: &'t T,
    container: Container<'t>,
    bundle: String,
    root: String,
}

impl<'t> Caller<'t> {
    fn new(t: &'t T, bundle: &Bundle) -> Caller<'t> {
        let container = t.container(bundle);
        container.bundle.save();
        let bundle = container.bundle.dir.to_string_lossy().into_owned();
        Caller { t, container, bundle, root: t.state_dir().to_string_lossy().into_owned() }
    }

    /// A path in the bundle.
    fn file(&self, name: &str) -> PathBuf {
        self.container.bundle.dir.join(name)
    }

    /// The words of a line: ID, BUNDLE and ROOT stand for what they are here. A driver that the suite is told to use comes first.
    fn words(&self, line: &str) -> Vec<String> {
        let put = |word: &str| {
            let word = word.replace("BUNDLE", &self.bundle).replace("ROOT", &self.root);
            if word == "ID" { self.container.id.clone() } else { word }
        };
        let mut words: Vec<String> = line.split_whitespace().map(put).collect();
        if self.t.systemd && !line.contains("--cgroup-manager") {
            words.insert(0, "--systemd-cgroup".into());
        }
        words
    }

    fn call(&self, line: &str) -> Out {
        self.t.call(&self.words(line)).bare().run()
    }

    fn call_with(&self, line: &str, input: &str) -> Out {
        self.t.call(&self.words(line)).bare().input(input).run()
    }

    /// Writes a process document as callers do: into a file of its own.
    fn process(&self, args: &[&str]) {
        let process = json!({"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/usr/bin:/bin"], "capabilities": {}});
        fs::write(self.file("process.json"), process.to_string()).expect("write process.json");
    }

    fn pid_of(&self, name: &str) -> i32 {
        let text = fs::read_to_string(self.file(name)).expect("the pid file");
        text.parse().unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }
}

fn sleeper(t: &T) -> Bundle {
    t.bundle().args(&["sleep", "1000"])
}

fn containerds_calls(t: &T) {
    let caller = Caller::new(t, &sleeper(t));
    let call =
        |line: &str| caller.call(&format!("--root ROOT --log BUNDLE/log.json --log-format json {line}"));
    call("create --bundle BUNDLE --pid-file BUNDLE/init.pid --no-new-keyring ID").ok();
    let pid = caller.pid_of("init.pid");
    call("start ID").ok();
    let state = call("state ID").ok().json();
    assert_eq!((&state["pid"], &state["status"]), (&json!(pid), &json!("running")));
    for key in ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created"] {
        assert!(!state[key].is_null(), "state has no {key}: {state}");
    }
    caller.process(&["sleep", "999"]);
    call("exec --process BUNDLE/process.json --detach --pid-file BUNDLE/exec.pid ID").ok();
    let pids = call("ps --format json ID").ok().json();
    assert_eq!(pids, json!([pid, caller.pid_of("exec.pid")]));
    let listed = call("list --format=json").ok().json();
    assert_eq!(listed[0]["id"], caller.container.id.as_str());
    call("pause ID").ok();
    assert_eq!(call("state ID").ok().json()["status"], "paused");
    call("resume ID").ok();
    let line = "--root ROOT --log BUNDLE/log.json --log-format json update --resources=- ID";
    caller.call_with(line, r#"{"pids":{"limit":40}}"#).ok();
    assert_eq!(call("events --stats ID").ok().json()["data"]["pids"]["limit"], 40);
    call("kill --all ID 15").ok();
    call("kill ID 9").ok();
    caller.container.await_stop();
    call("kill ID 9").fails();
    let log = fs::read_to_string(caller.file("log.json")).expect("the log");
    let last = log.lines().rfind(|line| line.contains(r#""level":"error""#)).unwrap_or_default();
    assert!(last.contains("not running") || last.contains("already finished"), "{log}");
    call("delete ID").ok();
    let log_before = fs::read_to_string(caller.file("log.json")).expect("the log");
    // The shim takes this for deleted.
    call("delete ID").fails();
    let log = fs::read_to_string(caller.file("log.json")).expect("the log");
    assert!(log[log_before.len()..].contains("does not exist"), "{log}");
    t.nothing_is_left(&caller.container);
}

fn containerds_clean_up(t: &T) {
    // `shim delete` does not know what there is.
    let caller = Caller::new(t, &sleeper(t));
    caller.call("--root ROOT --log BUNDLE/log.json --log-format json delete --force ID").ok();
    caller.call("--root ROOT create --bundle BUNDLE ID").ok();
    caller.call("--root ROOT --log BUNDLE/log.json --log-format json delete --force ID").ok();
    t.nothing_is_left(&caller.container);
}

fn conmons_calls(t: &T) {
    let caller = Caller::new(t, &sleeper(t));
    // conmon puts what it is told with --runtime-arg in front, and podman's log has this name indeed.
    let front = "--root ROOT --log-format=json --log BUNDLE/oci-log";
    caller
        .call(&format!(
            "{front} create --bundle BUNDLE --pid-file BUNDLE/pidfile --no-pivot --no-new-keyring --preserve-fds 0 ID"
        ))
        .ok();
    caller.call("--root ROOT start ID").ok();
    assert!(procs::is_alive(caller.pid_of("pidfile")));
    caller.process(&["sh", "-c", "exit 3"]);
    caller
        .call(&format!("{front} exec --pid-file BUNDLE/exec_pid --process BUNDLE/process.json --detach ID"))
        .ok();
    assert!(caller.pid_of("exec_pid") > 0);
    // What conmon tells podman of a failed create is the last line of the log.
    let twin = caller.call(&format!("{front} create --bundle BUNDLE --pid-file BUNDLE/pidfile ID")).fails();
    let log = fs::read_to_string(caller.file("oci-log")).expect("the log");
    let entry: Value = serde_json::from_str(log.lines().last().unwrap_or_default()).expect("a line of JSON");
    assert_eq!(entry["level"], "error");
    let said = entry["msg"].as_str().expect("a message");
    assert!(said.contains("exists") || said.contains("in use"), "{said}");
    assert!(twin.stderr.contains(said), "{twin:?}");
    caller.container.force_delete();
}

fn podmans_calls(t: &T) {
    let caller = Caller::new(t, &sleeper(t));
    caller.call("--root ROOT create --bundle BUNDLE --pid-file BUNDLE/pidfile --no-new-keyring ID").ok();
    for line in ["start ID", "pause ID", "resume ID"] {
        caller.call(&format!("--root ROOT {line}")).ok();
    }
    let resources = caller.file("resources.json");
    fs::write(&resources, r#"{"cpu":{"shares":512}}"#).expect("write the resources");
    caller.call("--root ROOT update --resources=BUNDLE/resources.json ID").ok();
    caller.call("--root ROOT kill ID 15").ok();
    caller.call("--root ROOT kill --all ID 9").ok();
    caller.container.await_stop();
    caller.call("--root ROOT delete --force ID").ok();
    caller.call("--root ROOT delete --force ID").ok();
    t.nothing_is_left(&caller.container);
}

fn podman_without_cgroups(t: &T) {
    let own = fs::read_to_string("/proc/self/cgroup").expect("the own cgroups");
    let mut bundle = sleeper(t);
    bundle.set(json!({"linux": {"cgroupsPath": "/nowhere/at/all"}}));
    let caller = Caller::new(t, &bundle);
    let front = "--root ROOT --cgroup-manager disabled";
    caller.call(&format!("{front} create --bundle BUNDLE --pid-file BUNDLE/pidfile ID")).ok();
    caller.call(&format!("{front} start ID")).ok();
    let pid = caller.pid_of("pidfile");
    let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container's cgroups");
    assert_eq!(theirs, own, "it stays where its creator is");
    assert!(cgroups::places(&t.host, "/nowhere").is_empty());
    assert!(cgroups::places(&t.host, &caller.container.cgroup).is_empty());
    // An exec, too; and everything that needs no cgroup.
    assert_eq!(caller.container.exec_sh("echo in"), "in\n");
    assert_eq!(caller.call(&format!("{front} state ID")).ok().json()["status"], "running");
    caller.call(&format!("{front} pause ID")).fails();
    let update =
        caller.call_with(&format!("{front} update --resources=- ID"), r#"{"pids":{"limit":5}}"#).fails();
    assert!(update.stderr.contains("container could not join or create cgroup"), "{}", update.stderr);
    caller.call(&format!("{front} kill ID KILL")).ok();
    caller.container.await_stop();
    caller.call(&format!("{front} delete ID")).ok();
    t.nothing_is_left(&caller.container);
    // The container's cgroup file system is there, and cannot be written.
    let seen = caller
        .t
        .bundle()
        .script("test -d /sys/fs/cgroup && ! mkdir /sys/fs/cgroup/x 2>/dev/null && echo read-only");
    let caller = Caller::new(t, &seen);
    let out = caller.call(&format!("{front} run --bundle BUNDLE ID")).ok();
    assert_eq!(out.stdout, "read-only\n");
}

fn podman_without_cgroups_has_no_limits(t: &T) {
    let limits = json!({"linux": {"resources": {"memory": {"limit": 41_943_040}}}});
    let caller = Caller::new(t, &sleeper(t).with(limits));
    let out = caller.call("--root ROOT --cgroup-manager=disabled create --bundle BUNDLE ID").fails();
    let want =
        "config.json /linux/resources/memory: cannot set limits without cgroups (--cgroup-manager disabled)";
    assert!(out.stderr.contains(want), "{}", out.stderr);
    t.nothing_is_left(&caller.container);
    let out = caller.call("--root ROOT --cgroup-manager=none create --bundle BUNDLE ID").fails();
    assert!(out.stderr.contains("for --cgroup-manager"), "{}", out.stderr);
}

fn cri_os_calls(t: &T) {
    let caller = Caller::new(t, &sleeper(t));
    caller.call("--root=ROOT create --bundle BUNDLE --pid-file BUNDLE/pidfile --no-pivot ID").ok();
    caller.call("--root ROOT start ID").ok();
    caller.call("--root ROOT state ID").ok();
    caller.process(&["echo", "probed"]);
    assert_eq!(caller.call("--root ROOT exec --process BUNDLE/process.json ID").ok().stdout, "probed\n");
    // Without --systemd-cgroup, whatever made it.
    let words: Vec<String> = caller
        .words("--root ROOT update --resources - ID")
        .into_iter()
        .filter(|word| word != "--systemd-cgroup")
        .collect();
    t.call(&words).bare().input(r#"{"pids":{"limit":30}}"#).run().ok();
    caller.call("--root ROOT kill ID TERM").ok();
    caller.call("--root ROOT kill -a ID 9").ok();
    caller.container.await_stop();
    // CRI-O takes this for a container that is not there.
    let out = caller.call("--root ROOT kill ID KILL").fails();
    let found = ["no such process", "container not running", "process already finished"];
    assert!(found.iter().any(|words| out.stderr.contains(words)), "{}", out.stderr);
    caller.call("--root ROOT delete --force ID").ok();
    caller.call("--version").ok();
}

fn conmon_rs_calls(t: &T) {
    let caller = Caller::new(t, &sleeper(t));
    caller.call("--root=ROOT create --bundle BUNDLE --pid-file BUNDLE/pidfile ID").ok();
    caller.call("--root=ROOT start ID").ok();
    caller.call("--root=ROOT exec -d --pid-file=BUNDLE/exec_pid ID sleep 999").ok();
    assert!(procs::is_alive(caller.pid_of("exec_pid")));
    caller.container.force_delete();
}

fn buildkits_calls(t: &T) {
    let caller = Caller::new(t, &t.bundle().script("read word; echo \"got $word\" >&2; exit 7"));
    let front = "--root ROOT --log BUNDLE/runc-log.json --log-format json";
    let out = caller.call_with(&format!("{front} run --bundle BUNDLE --keep ID"), "something\n").code(7);
    assert_eq!(out.stderr, "got something\n");
    // What it kept is there, and to be deleted.
    assert_eq!(caller.container.status(), "stopped");
    caller.call(&format!("{front} delete ID")).ok();
    let caller = Caller::new(t, &sleeper(t));
    let run = t.call(&caller.words(&format!("{front} run --bundle BUNDLE ID"))).bare().spawn();
    assert!(procs::wait_until(t.seconds(20), || {
        caller.container.exists() && caller.call("--root ROOT state ID").stdout.contains("running")
    }));
    caller.process(&["sh", "-c", "cat; exit 4"]);
    let exec = format!("{front} exec --process BUNDLE/process.json --pid-file BUNDLE/exec.pid ID");
    let out = caller.call_with(&exec, "passed on\n").code(4);
    assert_eq!(out.stdout, "passed on\n");
    caller.call(&format!("{front} kill ID 9")).ok();
    run.wait().code(137);
    t.nothing_is_left(&caller.container);
}

fn what_callers_look_for_in_errors(t: &T) {
    let said = |args: &[&str]| {
        let container = t.container(&t.bundle().args(args));
        let out = container.create();
        let out = if out.code == Some(0) { container.start() } else { out };
        let message = out.fails().message();
        container.delete_if_there();
        message.to_lowercase()
    };
    // moby makes 127 of the first two and 126 of the others; podman looks for "executable file not found in".
    let message = said(&["no-such-program"]);
    assert!(message.contains("executable file not found in $path"), "{message}");
    let message = said(&["/no/such/program"]);
    assert!(message.contains("no such file or directory"), "{message}");
    let message = said(&["/etc/passwd"]);
    assert!(message.contains("permission denied"), "{message}");
    let message = said(&["/etc"]);
    assert!(message.contains("is a directory") || message.contains("permission denied"), "{message}");
    // The shim and CRI-O make "not found" of these.
    let container = t.container(&sleeper(t));
    container.create().ok();
    container.kill("KILL").ok();
    container.await_stop();
    let message = container.kill("KILL").fails().message();
    assert!(message.contains("container not running"), "{message}");
    container.force_delete();
    for verb in ["state", "start", "delete", "pause", "ps"] {
        container.verb(&[verb]).run().fails().says("does not exist");
    }
}

fn an_exec_that_callers_get_wrong(t: &T) {
    let caller = Caller::new(t, &sleeper(t));
    caller.container.launch();
    fs::write(caller.file("process.json"), "{").expect("write process.json");
    let out = caller.call("--root ROOT exec --process BUNDLE/process.json ID").code(255);
    assert!(out.stderr.contains("process.json"), "{}", out.stderr);
    let out = caller.call("--root ROOT exec --process BUNDLE/nowhere.json ID").code(255);
    assert!(out.stderr.contains("nowhere.json") && out.stderr.contains("no such file"), "{}", out.stderr);
    caller.process(&["nothing-of-the-kind"]);
    let out = caller.call("--root ROOT exec --process BUNDLE/process.json ID").code(255);
    assert!(out.stderr.contains("executable file not found in $PATH"), "{}", out.stderr);
    caller.container.force_delete();
}

fn the_last_line_of_the_log_is_the_error(t: &T) {
    // getLastRuntimeError: the last line with this level, whose time Go's parser takes.
    let caller = Caller::new(t, &t.bundle().args(&["no-such-program"]));
    let line = "--root ROOT --log BUNDLE/log.json --log-format json create --bundle BUNDLE ID";
    let out = caller.call(line).code(1);
    let log = fs::read_to_string(caller.file("log.json")).expect("the log");
    let entry: Value = serde_json::from_str(log.lines().last().unwrap_or_default()).expect("a line of JSON");
    assert_eq!(entry["level"], "error");
    let time = entry["time"].as_str().expect("a time");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("0000-00-00T00:00:00"), "{time}");
    assert!(shape.ends_with('Z') || shape[19..].contains(['+', '-']), "{time}");
    assert!(out.stderr.contains(entry["msg"].as_str().expect("a message")), "{out:?}");
    t.nothing_is_left(&caller.container);
}

fn pid_files_are_whole(t: &T) {
    // Digits alone, and nothing beside it is left of how it was written.
    let caller = Caller::new(t, &sleeper(t));
    let dir = t.make_dir("pids");
    let file = dir.join("init.pid").to_string_lossy().into_owned();
    caller.call(&format!("--root ROOT create --bundle BUNDLE --pid-file {file} ID")).ok();
    let text = fs::read_to_string(&file).expect("the pid file");
    assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()), "{text:?}");
    assert_eq!(fs::read_dir(&dir).expect("the folder").count(), 1);
    assert_eq!(text, caller.container.pid().to_string());
    caller.container.force_delete();
}

fn a_megabyte_of_memory_is_enough(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"resources": {"memory": {"limit": 1_048_576}}}}));
    assert_eq!(t.sh(&bundle, "echo in"), "in\n");
    let container = t.container(&bundle.clone().args(&["sleep", "1000"]));
    container.launch();
    for _ in 0..5 {
        assert_eq!(container.exec_sh("echo in"), "in\n");
    }
    container.force_delete();
    // So it is with what makes the runtime do more.
    let mut bundle = bundle.script("echo in");
    bundle.user_namespace();
    bundle.set(json!({"hooks": {"startContainer": [{"path": "/bin/true"}]}}));
    let container = t.container(&bundle);
    assert_eq!(container.run().ok().stdout, "in\n");
}

fn cpus_are_those_of_the_cpuset(t: &T) {
    // The caller is bound to the first CPU; the container has the second, or both.
    let show = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    for (cpus, want) in [("1", "1\n"), ("0-1", "0-1\n")] {
        let limits = json!({"linux": {"resources": {"cpu": {"cpus": cpus, "mems": "0"}}}});
        let container = t.container(&t.bundle().script(&format!("{show}; sleep 1000")).with(limits));
        let bound = "busybox taskset -p 1 $$ >/dev/null";
        let out = container.make(&["create"]).after(bound).run().ok();
        container.start().ok();
        let printed = || fs::read_to_string(&out.stdout_file).unwrap_or_default();
        assert!(procs::wait_until(t.seconds(10), || printed().ends_with('\n')), "{}", printed());
        assert_eq!(printed(), want, "cpuset {cpus}");
        let exec = container.exec_with(&[], &["sh", "-c", show]).after(bound).run().ok();
        assert_eq!(exec.stdout, want, "an exec with cpuset {cpus}");
        container.force_delete();
    }
}

fn an_exec_joins_several_cgroups_below(t: &T) {
    let container = t.container(&sleeper(t));
    container.launch();
    for controller in ["memory", "pids"] {
        fs::create_dir(container.cgroup_dir(controller).join(controller)).expect("mkdir");
    }
    let flags = ["--cgroup", "memory:memory", "--cgroup", "pids:pids"];
    let text = container.exec_with(&flags, &["cat", "/proc/self/cgroup"]).run().ok().stdout;
    for controller in ["memory", "pids"] {
        let line = text.lines().find(|line| line.split(':').nth(1) == Some(controller)).expect("a line");
        assert!(line.ends_with(&format!("/{controller}")), "{text}");
    }
    let out = container.exec_with(&["--cgroup", "nope:below"], &["true"]).run().fails();
    assert!(!t.is_ours() || out.message().contains("nope"), "{}", out.message());
    container.force_delete();
}

fn listen_fds_of_others_are_not_passed_on(t: &T) {
    // LISTEN_PID says whose they are.
    let container =
        t.container(&t.bundle().script("echo \"$LISTEN_FDS.$LISTEN_PID\"; ls /proc/self/fd | wc -l"));
    let call = container.make(&["run"]).env("LISTEN_FDS", "2").env("LISTEN_PID", "1");
    let plain = t.sh(&t.bundle(), "ls /proc/self/fd | wc -l");
    let out = call.after("exec 3</etc/passwd 4</").run().ok().stdout;
    if t.is_ours() {
        assert_eq!(out, format!(".\n{plain}"));
    } else {
        assert!(out.ends_with(&format!("\n{plain}")) || out.starts_with("2."), "{out}");
    }
}
