//! `exec`: another process in a container.

use crate::harness::{Need, T, Test, procs};
use crate::{below, test};
use nix::sys::signal::Signal;
use serde_json::json;

pub const TESTS: &[Test] = &[
    test!(an_exec_gives_its_exit_status),
    test!(an_exec_gives_a_signal_as_128_and_its_number),
    test!(an_exec_that_cannot_run_gives_255),
    test!(an_exec_s_error_is_told),
    test!(an_exec_passes_stdin_and_stdout),
    test!(an_exec_forwards_signals),
    test!(an_exec_has_the_containers_environment_and_more),
    test!(an_exec_s_home_is_its_users),
    test!(an_exec_has_the_containers_working_directory),
    test!(an_exec_may_have_another_working_directory),
    test!(an_exec_in_a_directory_that_is_not_there).runc_fails(below!("1.1", "fails")),
    test!(an_exec_of_a_process_document),
    test!(an_exec_has_the_umask_of_its_document).needs(&[Need::Ours("runc takes no notice of it")]),
    test!(an_exec_sees_the_containers_mounts_and_root),
    test!(an_exec_is_in_the_containers_cgroups).by_driver(),
    test!(an_exec_may_be_in_a_cgroup_below).needs(&[Need::CgroupFs, Need::Runc("1.1", "exec --cgroup")]),
    test!(an_exec_leaves_nothing),
    test!(a_detached_exec_has_a_pid_file),
    test!(an_exec_may_set_no_new_privileges),
    test!(an_exec_keeps_no_new_privileges),
    test!(an_exec_s_oom_score_is_the_containers),
    test!(an_exec_has_a_session_of_its_own),
    test!(an_exec_has_only_stdio),
    test!(an_exec_while_the_container_is_created),
    test!(an_exec_while_a_run_makes_the_container_is_an_error),
    test!(an_exec_after_the_containers_end_is_an_error),
    test!(an_exec_into_a_paused_container_by_will).by_driver().needs(&[Need::Runc("1.1", "--ignore-paused")]),
    test!(an_exec_outlives_nothing),
    test!(ten_execs_at_once),
    test!(an_exec_behind_two_dashes),
    test!(an_exec_of_a_program_that_is_not_executable),
    test!(an_exec_s_scheduler_and_priority).needs(&[Need::Runc("1.2", "process.scheduler of an exec")]),
    test!(an_exec_with_cpu_affinity).needs(&[Need::Runc("1.3", "execCPUAffinity"), Need::TwoCpus]),
    test!(an_exec_with_rlimits_of_its_own),
    test!(an_exec_with_a_large_environment),
];

fn sleeper(t: &T) -> crate::harness::Container<'_> {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    container
}

fn an_exec_gives_its_exit_status(t: &T) {
    let container = sleeper(t);
    for code in [0, 1, 42, 255] {
        container.exec(&["sh", "-c", &format!("exit {code}")]).code(code);
    }
    container.force_delete();
}

fn an_exec_gives_a_signal_as_128_and_its_number(t: &T) {
    let container = sleeper(t);
    container.exec(&["sh", "-c", "kill -TERM $$"]).code(143);
    container.exec(&["sh", "-c", "kill -KILL $$"]).code(137);
    container.force_delete();
}

fn an_exec_that_cannot_run_gives_255(t: &T) {
    let container = sleeper(t);
    container.exec(&["no-such-program"]).code(255);
    container.exec(&["/etc/passwd"]).code(255);
    container.exec_with(&["--cwd", "relative"], &["true"]).run().code(255);
    container.force_delete();
    container.exec(&["true"]).fails();
}

fn an_exec_s_error_is_told(t: &T) {
    let container = sleeper(t);
    container.exec(&["no-such-program"]).fails().says("executable file not found in $PATH");
    container.exec(&["/no/such/program"]).fails().says("no such file or directory");
    container.force_delete();
}

fn an_exec_passes_stdin_and_stdout(t: &T) {
    let container = sleeper(t);
    let out = container.exec_with(&[], &["sh", "-c", "cat; echo err >&2"]).input("some\ntext").run().ok();
    assert_eq!(out.stdout, "some\ntext");
    assert!(out.stderr.ends_with("err\n"), "{}", out.stderr);
    container.force_delete();
}

fn an_exec_forwards_signals(t: &T) {
    let container = sleeper(t);
    let script = "trap 'echo got USR1' USR1; trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let running = container.exec_with(&[], &["sh", "-c", script]).spawn();
    running.await_output("ready");
    running.kill(Signal::SIGUSR1);
    running.await_output("got USR1");
    running.kill(Signal::SIGTERM);
    running.wait().code(9);
    container.force_delete();
}

fn an_exec_has_the_containers_environment_and_more(t: &T) {
    let env = json!(["PATH=/bin", "A=1", "B=2"]);
    let container =
        t.container(&t.bundle().with(json!({"process": {"env": env, "args": ["sleep", "1000"]}})));
    container.launch();
    let flags = ["--env", "B=3", "--env", "C=x y"];
    let out = container.exec_with(&flags, &["sh", "-c", "echo $PATH:$A:$B:$C; env | grep -c ^B="]).run().ok();
    assert_eq!(out.stdout, "/bin:1:3:x y\n1\n");
    container.force_delete();
}

fn an_exec_s_home_is_its_users(t: &T) {
    let container = sleeper(t);
    assert_eq!(container.exec_sh("echo $HOME"), "/root\n");
    let out = container.exec_with(&["--user", "1000:1000"], &["sh", "-c", "echo $HOME"]).run().ok();
    assert_eq!(out.stdout, "/home\n");
    let out = container.exec_with(&["--env", "HOME=/x"], &["sh", "-c", "echo $HOME"]).run().ok();
    assert_eq!(out.stdout, "/x\n");
    container.force_delete();
}

fn an_exec_has_the_containers_working_directory(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"cwd": "/tmp", "args": ["sleep", "1000"]}}));
    let container = t.container(&bundle);
    container.launch();
    assert_eq!(container.exec_sh("pwd -P"), "/tmp\n");
    container.force_delete();
}

fn an_exec_may_have_another_working_directory(t: &T) {
    let container = sleeper(t);
    assert_eq!(container.exec_with(&["--cwd", "/etc"], &["pwd", "-P"]).run().ok().stdout, "/etc\n");
    container.force_delete();
}

fn an_exec_in_a_directory_that_is_not_there(t: &T) {
    let container = sleeper(t);
    let out = container.exec_with(&["--cwd", "/not/there"], &["pwd"]).run().fails();
    assert!(out.message().contains("no such file or directory"), "{}", out.message());
    container.force_delete();
}

fn an_exec_of_a_process_document(t: &T) {
    let container = sleeper(t);
    let document = json!({
        "terminal": false, "user": {"uid": 12, "gid": 34, "additionalGids": [56]},
        "args": ["sh", "-c", "id -u; id -g; id -G; pwd; echo $A; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status"],
        "env": ["PATH=/bin", "A=b"], "cwd": "/tmp", "noNewPrivileges": true,
        "capabilities": {"bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "effective": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    });
    let file = t.path("process.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let out = t.call(&["exec", "--process", &file.to_string_lossy(), &container.id]).run().ok();
    assert_eq!(out.stdout, "12\n34\n34 56\n/tmp\nb\nCapEff:\t0000000000000020\nNoNewPrivs:\t1\n");
    container.force_delete();
}

fn an_exec_has_the_umask_of_its_document(t: &T) {
    let container = sleeper(t);
    let document = json!({"args": ["sh", "-c", "umask"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0, "umask": 0o77}});
    let file = t.path("process.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let out = t.call(&["exec", "--process", &file.to_string_lossy(), &container.id]).run().ok();
    assert_eq!(out.stdout, "0077\n");
    container.force_delete();
}

fn an_exec_sees_the_containers_mounts_and_root(t: &T) {
    let mut bundle = t
        .bundle()
        .script("mkdir /tmp/own; mount -t tmpfs x /tmp/own; echo x > /tmp/own/f; echo ready; sleep 1000");
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    let container = t.container(&bundle);
    let out = container.launch();
    assert!(procs::wait_until(t.seconds(5), || std::fs::read(&out.stdout_file).unwrap() == b"ready\n"));
    assert_eq!(
        container.exec_sh("cat /tmp/own/f; cat /proc/1/mountinfo | cmp - /proc/self/mountinfo && echo same"),
        "x\nsame\n"
    );
    container.force_delete();
}

fn an_exec_is_in_the_containers_cgroups(t: &T) {
    let container = sleeper(t);
    let want = std::fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    assert_eq!(container.exec_sh("cat /proc/self/cgroup"), want);
    container.force_delete();
}

fn an_exec_may_be_in_a_cgroup_below(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.namespace("cgroup", None);
    let container = t.container(&bundle);
    container.launch();
    let controller = if t.host.cgroup_v2 { "" } else { "memory" };
    let dir = container.cgroup_dir("memory").join("below");
    std::fs::create_dir(&dir).unwrap();
    let word = if t.host.cgroup_v2 { "below".to_owned() } else { format!("{controller}:below") };
    let text = container.exec_with(&["--cgroup", &word], &["cat", "/proc/self/cgroup"]).run().ok().stdout;
    let line = text.lines().find(|line| line.split(':').nth(1) == Some(controller)).unwrap();
    assert!(line.ends_with("/below"), "{text}");
    container.exec_with(&["--cgroup", "../../.."], &["true"]).run().fails();
    let out = container.exec_with(&["--cgroup", "no/such"], &["true"]).run().fails();
    let message = out.says("no such file or directory").message();
    assert!(message.contains("adding pid"), "{message}");
    // On cgroup v2 controllers are not looked at.
    if !t.host.cgroup_v2 {
        container.exec_with(&["--cgroup", "none:/"], &["true"]).run().fails().says("unknown controller");
    }
    container.force_delete();
}

fn an_exec_leaves_nothing(t: &T) {
    let container = sleeper(t);
    let pids = || container.verb(&["ps", "--format", "json"]).run().ok().stdout;
    let before = pids();
    container.exec_sh("true");
    container.exec(&["no-such-program"]).fails();
    assert!(procs::wait_until(t.seconds(5), || pids() == before), "{}", pids());
    let entries = std::fs::read_dir(t.state_dir().join(&container.id)).unwrap().count();
    container.exec_sh("true");
    assert_eq!(std::fs::read_dir(t.state_dir().join(&container.id)).unwrap().count(), entries);
    container.force_delete();
}

fn a_detached_exec_has_a_pid_file(t: &T) {
    let container = sleeper(t);
    let file = t.path("pid");
    let flags = ["--detach", "--pid-file", &file.to_string_lossy()];
    container.exec_with(&flags, &["sleep", "999"]).run().ok();
    let pid: i32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    let runs = || procs::command_line(pid).ends_with("(sleep) sleep 999");
    assert!(procs::wait_until(t.seconds(5), runs), "{}", procs::command_line(pid));
    container.force_delete();
    assert!(procs::wait_until(t.seconds(5), || !procs::is_alive(pid)));
}

fn an_exec_may_set_no_new_privileges(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"noNewPrivileges": false, "args": ["sleep", "1000"]}}));
    let container = t.container(&bundle);
    container.launch();
    let field = |flags: &[&str]| {
        container.exec_with(flags, &["grep", "NoNewPrivs", "/proc/self/status"]).run().ok().stdout
    };
    assert_eq!(field(&[]), "NoNewPrivs:\t0\n");
    assert_eq!(field(&["--no-new-privs"]), "NoNewPrivs:\t1\n");
    container.force_delete();
}

fn an_exec_keeps_no_new_privileges(t: &T) {
    let container = sleeper(t);
    assert_eq!(container.exec_sh("grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t1\n");
    container.force_delete();
}

fn an_exec_s_oom_score_is_the_containers(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"oomScoreAdj": 300, "args": ["sleep", "1000"]}}));
    let container = t.container(&bundle);
    container.launch();
    assert_eq!(container.exec_sh("cat /proc/self/oom_score_adj"), "300\n");
    container.force_delete();
}

fn an_exec_has_a_session_of_its_own(t: &T) {
    let container = sleeper(t);
    let text = container.exec_sh("cut -d' ' -f5,6 /proc/$$/stat; echo $$");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words[0] == words[2] && words[1] == words[2], "{text}");
    container.force_delete();
}

fn an_exec_has_only_stdio(t: &T) {
    let container = sleeper(t);
    let text = container
        .exec_with(&[], &["sh", "-c", "ls /proc/$$/fd; true"])
        .after("exec 7</etc/passwd 9</")
        .run()
        .ok()
        .stdout;
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    container.force_delete();
}

fn an_exec_while_the_container_is_created(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.create().ok();
    assert_eq!(container.exec_sh("echo in"), "in\n");
    assert_eq!(container.status(), "created");
    container.force_delete();
}

fn an_exec_while_a_run_makes_the_container_is_an_error(t: &T) {
    // Its process is in its namespaces already, and its root is still the host's.
    let dir = t.make_dir("hook");
    let hook = format!("echo > {0}/here; until [ -e {0}/go ]; do sleep 0.01; done", dir.display());
    let bundle = t.bundle().script("echo ready; sleep 1000").with(json!({"hooks": {"createContainer": [
        {"path": "/bin/sh", "args": ["sh", "-c", hook], "env": ["PATH=/bin:/usr/bin"]}
    ]}}));
    let container = t.container(&bundle);
    let pid_file = t.path("pid");
    let running = container.make(&["run", "--pid-file", &pid_file.to_string_lossy()]).spawn();
    assert!(procs::wait_until(t.seconds(10), || dir.join("here").exists()), "the hook does not run");
    let out = container.exec(&["ls", "/"]).fails();
    assert!(!out.stdout.contains("usr"), "{out:?}");
    assert!(!pid_file.exists(), "there is nobody to be reached by a pid yet");
    std::fs::write(dir.join("go"), "").unwrap();
    running.await_output("ready");
    // runc writes it when the program may run already.
    assert!(procs::wait_until(t.seconds(5), || pid_file.exists()));
    assert_eq!(std::fs::read_to_string(pid_file).unwrap(), container.pid().to_string());
    container.exec(&["true"]).ok();
    container.force_delete();
    running.wait().code(137);
}

fn an_exec_after_the_containers_end_is_an_error(t: &T) {
    let container = t.container(&t.bundle().args(&["true"]));
    container.launch();
    container.await_stop();
    container.exec(&["true"]).fails().says("cannot exec in a stopped container");
    container.delete().ok();
}

fn an_exec_into_a_paused_container_by_will(t: &T) {
    let container = sleeper(t);
    container.verb(&["pause"]).run().ok();
    let running = container.exec_with(&["--ignore-paused"], &["echo", "late"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(running.printed(), "");
    container.verb(&["resume"]).run().ok();
    assert_eq!(running.wait().ok().stdout, "late\n");
    container.force_delete();
}

fn an_exec_outlives_nothing(t: &T) {
    let container = sleeper(t);
    let running = container.exec_with(&[], &["sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    running.await_output("ready");
    container.force_delete();
    running.wait().code(137);
}

fn ten_execs_at_once(t: &T) {
    let container = sleeper(t);
    let running: Vec<_> = (0..10)
        .map(|number| {
            container
                .exec_with(&[], &["sh", "-c", &format!("echo {number}; exit {number}")])
                .within(60)
                .spawn()
        })
        .collect();
    for (number, run) in running.into_iter().enumerate() {
        assert_eq!(run.wait().code(number as i32).stdout, format!("{number}\n"));
    }
    container.force_delete();
}

fn an_exec_behind_two_dashes(t: &T) {
    let container = sleeper(t);
    assert_eq!(t.call(&["exec", &container.id, "echo", "-n", "--tty"]).run().ok().stdout, "--tty");
    assert_eq!(t.call(&["exec", "--", &container.id, "echo", "-n", "x"]).run().ok().stdout, "x");
    container.force_delete();
}

fn an_exec_of_a_program_that_is_not_executable(t: &T) {
    let container = sleeper(t);
    container.exec(&["/etc/passwd"]).fails().says("permission denied");
    container.force_delete();
}

fn an_exec_s_scheduler_and_priority(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.set(json!({"process": {"scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6}}}));
    let container = t.container(&bundle);
    container.launch();
    assert_eq!(container.exec_sh("ionice; cut -d' ' -f19,41 /proc/self/stat"), "best-effort: prio 6\n3 3\n");
    container.force_delete();
}

fn an_exec_with_cpu_affinity(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.set(json!({"process": {"execCPUAffinity": {"initial": "0", "final": "1"}}}));
    let container = t.container(&bundle);
    container.launch();
    let script = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    assert_eq!(container.exec_sh(script), "1\n");
    container.force_delete();
}

fn an_exec_with_rlimits_of_its_own(t: &T) {
    let container = sleeper(t);
    let document = json!({"args": ["sh", "-c", "ulimit -Sn; ulimit -Hn"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66}]});
    let file = t.path("process.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let out = t.call(&["exec", "--process", &file.to_string_lossy(), &container.id]).run().ok();
    assert_eq!(out.stdout, "55\n66\n");
    container.force_delete();
}

fn an_exec_with_a_large_environment(t: &T) {
    let container = sleeper(t);
    let mut env = vec!["PATH=/bin".to_owned()];
    env.extend((0..2000).map(|number| format!("VARIABLE_{number}={}", "x".repeat(50))));
    let document = json!({"args": ["sh", "-c", "env | grep -c ^VARIABLE_"], "cwd": "/", "env": env,
        "user": {"uid": 0, "gid": 0}});
    let file = t.path("process.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let out = t.call(&["exec", "--process", &file.to_string_lossy(), &container.id]).run().ok();
    assert_eq!(out.stdout, "2000\n");
    container.force_delete();
}
