//! runtime.md, "Lifecycle" and "Operations": create, start, state, kill, delete, and what is between them.

use crate::harness::{Need, T, Test, procs};
use crate::{always, test};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[Test] = &[
    test!(a_container_without_a_process_cannot_start)
        .needs(&[Need::Ours("runc refuses it at create, although process is required when start is called")]),
    test!(create_does_everything_but_run_the_program),
    test!(start_runs_the_program),
    test!(the_statuses_follow_each_other),
    test!(the_state_has_what_the_specification_says),
    test!(a_second_create_of_an_id_is_refused),
    test!(an_id_is_free_again_after_delete).by_driver(),
    test!(a_second_start_is_refused),
    test!(a_stopped_container_cannot_be_started),
    test!(a_container_that_is_not_there),
    test!(a_running_container_is_not_deleted),
    test!(a_created_container_is_deleted).by_driver(),
    test!(delete_by_force_ends_a_running_container).by_driver(),
    test!(delete_by_force_of_nothing_is_no_error),
    test!(kill_sends_signals_by_name_and_number),
    test!(kill_sends_term_by_default),
    test!(kill_of_a_stopped_container_is_an_error),
    test!(kill_all_of_a_stopped_container_is_no_error).by_driver(),
    test!(ps_of_a_stopped_container_is_empty).by_driver(),
    test!(kill_of_a_created_container).by_driver(),
    test!(kill_with_an_unknown_signal_is_an_error),
    test!(kill_reaches_a_program_that_ignores_others),
    test!(more_processes_than_we_may_open_files_are_killed),
    test!(pause_and_resume).by_driver(),
    test!(pause_and_resume_in_the_wrong_state),
    test!(a_paused_container_can_be_killed_and_deleted).by_driver(),
    test!(a_paused_container_cannot_be_deleted_without_force),
    test!(run_gives_the_programs_exit_status),
    test!(run_gives_a_signal_as_128_and_its_number),
    test!(run_leaves_nothing_behind).by_driver(),
    test!(run_can_keep_the_container),
    test!(a_run_that_is_deleted_by_force_has_its_programs_status),
    test!(buildkit_runs_a_step_of_a_build),
    test!(run_detached_returns_at_once),
    test!(run_forwards_signals),
    test!(run_passes_stdin_and_stdout),
    test!(a_run_that_fails_leaves_nothing).by_driver(),
    test!(the_pid_file_is_there_when_create_returns),
    test!(the_pid_file_of_run),
    test!(a_pid_file_that_cannot_be_written_is_an_error),
    test!(a_bundle_without_config_is_an_error),
    test!(a_config_that_changes_after_create_changes_nothing),
    test!(a_program_that_is_not_there_fails_create),
    test!(a_program_that_is_not_executable_fails_create),
    test!(a_program_that_is_a_directory_fails_create),
    test!(a_program_in_no_known_format_fails_start).runc_fails(always!("start has returned by then")),
    test!(a_script_without_its_interpreter_fails_start).runc_fails(always!("start has returned by then")),
    test!(a_program_with_wrong_format_fails_run),
    test!(two_starts_at_once_start_it_once)
        .runc_fails(always!("both may succeed, or one waits for a reader that does not come")),
    test!(many_creates_of_one_id_at_once_make_one),
    test!(ten_containers_at_once),
    test!(ten_deletes_at_once).by_driver(),
    test!(ps_shows_the_containers_processes).by_driver(),
    test!(list_shows_containers_and_their_statuses),
    test!(list_of_more_containers_than_open_files)
        .needs(&[Need::Ours("Go's runtime wants more descriptors")]),
    test!(list_of_no_containers),
    test!(events_show_the_resources).by_driver(),
    test!(events_that_follow_a_container),
];

fn create_does_everything_but_run_the_program(t: &T) {
    let container = t.container(&t.bundle().script("echo ran > /ran; sleep 1000"));
    container.create().ok();
    assert_eq!(container.status(), "created");
    let ran = container.bundle.file("/ran");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!ran.exists());
    assert_eq!(container.exec_sh("hostname; ls /dev/null"), "runc\n/dev/null\n");
    container.start().ok();
    assert!(procs::wait_until(t.seconds(5), || ran.exists()));
    container.force_delete();
}

fn start_runs_the_program(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    // start returns when the program runs, not before.
    let runs = || procs::command_line(container.pid()).ends_with("(sleep) sleep 1000");
    assert!(if t.is_ours() { runs() } else { procs::wait_until(t.seconds(5), runs) });
    container.force_delete();
}

fn the_statuses_follow_each_other(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.create().ok();
    assert_eq!(container.status(), "created");
    container.start().ok();
    container.await_status("running");
    container.kill("KILL").ok();
    container.await_status("stopped");
    container.delete().ok();
    container.verb(&["state"]).run().fails().says("does not exist");
    assert!(!container.exists());
}

fn the_state_has_what_the_specification_says(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]).with(json!({"annotations": {"key": "value"}}));
    let container = t.container(&bundle);
    container.launch();
    let state = container.state();
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
    assert_eq!(state["id"], json!(container.id));
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], json!(bundle.dir));
    assert_eq!(state["rootfs"], json!(bundle.root()));
    assert_eq!(state["annotations"], json!({"key": "value"}));
    let created = state["created"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.as_bytes()[10] == b'T', "{created}");
    assert!(procs::command_line(state["pid"].as_i64().unwrap() as i32).ends_with("sleep 1000"));
    container.kill("KILL").ok();
    container.await_stop();
    assert_eq!(container.state()["pid"], 0);
    container.delete().ok();
}

fn a_second_create_of_an_id_is_refused(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let pid = container.pid();
    container.create().fails().says("exists");
    container.run().fails().says("exists");
    // The first one does not suffer.
    assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
    container.force_delete();
}

fn an_id_is_free_again_after_delete(t: &T) {
    let container = t.container(&t.bundle().args(&["true"]));
    for _ in 0..3 {
        container.launch();
        container.await_stop();
        container.delete().ok();
    }
}

fn a_second_start_is_refused(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    container.start().fails().says("cannot start an already running container");
    assert_eq!(container.status(), "running");
    container.force_delete();
}

fn a_stopped_container_cannot_be_started(t: &T) {
    let container = t.container(&t.bundle().args(&["true"]));
    container.launch();
    container.await_stop();
    container.start().fails().says("cannot start a container that has stopped");
    container.delete().ok();
}

fn a_container_that_is_not_there(t: &T) {
    for words in
        [&["state"][..], &["start"], &["kill"], &["delete"], &["pause"], &["resume"], &["ps"], &["update"]]
    {
        let mut words = words.to_vec();
        words.push("no-such-container");
        t.call(&words).run().fails().says("does not exist");
    }
    t.call(&["exec", "no-such-container", "true"]).run().fails().says("does not exist");
    t.call(&["events", "--stats", "no-such-container"]).run().fails().says("does not exist");
}

fn a_running_container_is_not_deleted(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    container.delete().fails().says("that is not stopped: running");
    assert_eq!(container.status(), "running");
    container.force_delete();
}

fn a_created_container_is_deleted(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.create().ok();
    container.delete().ok();
    t.nothing_is_left(&container);
}

fn delete_by_force_ends_a_running_container(t: &T) {
    let container =
        t.container(&t.bundle().script("trap '' TERM INT; setsid sleep 1000 & while :; do sleep 1; done"));
    container.launch();
    container.verb(&["delete", "--force"]).run().ok();
    t.nothing_is_left(&container);
}

fn delete_by_force_of_nothing_is_no_error(t: &T) {
    let out = t.call(&["delete", "--force", "no-such-container"]).run().ok();
    assert_eq!(out.stderr, "");
}

fn kill_sends_signals_by_name_and_number(t: &T) {
    let script = "for s in HUP INT USR1 USR2 TERM; do trap \"echo $s\" $s; done; echo ready; while :; do sleep 0.1; done";
    let container = t.container(&t.bundle().script(script));
    let out = container.launch();
    let printed = |words: &str| {
        let there = procs::wait_until(t.seconds(5), || read(&out.stdout_file).ends_with(words));
        assert!(there, "{words}: {}", read(&out.stdout_file));
    };
    printed("ready\n");
    for (word, seen) in [
        ("HUP", "HUP"),
        ("SIGINT", "INT"),
        ("10", "USR1"),
        ("usr2", "USR2"),
        ("sigterm", "TERM"),
        ("1", "HUP"),
    ] {
        container.kill(word).ok();
        printed(&format!("{seen}\n"));
    }
    container.force_delete();
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn kill_sends_term_by_default(t: &T) {
    let container = t.container(
        &t.bundle().script("trap 'echo TERM; exit' TERM; echo ready; while :; do sleep 0.1; done"),
    );
    let out = container.launch();
    assert!(procs::wait_until(t.seconds(5), || read(&out.stdout_file) == "ready\n"));
    container.verb(&["kill"]).run().ok();
    container.await_stop();
    assert_eq!(read(&out.stdout_file), "ready\nTERM\n");
    container.delete().ok();
}

fn kill_of_a_stopped_container_is_an_error(t: &T) {
    let container = t.container(&t.bundle().args(&["true"]));
    container.launch();
    container.await_stop();
    let before = container.state();
    container.kill("KILL").fails().says("container not running");
    assert_eq!(container.state(), before);
    container.delete().ok();
}

// systemd removes the cgroup with the last process, in its own time.
fn ps_of_a_stopped_container_is_empty(t: &T) {
    let container = t.container(&t.bundle().args(&["true"]));
    container.launch();
    container.await_stop();
    for _ in 0..3 {
        let text = container.verb(&["ps"]).run().ok().stdout;
        assert!(text.lines().count() == 1 && text.contains("PID"), "{text}");
        std::thread::sleep(t.seconds(1) / 5);
    }
    container.delete().ok();
}

fn kill_all_of_a_stopped_container_is_no_error(t: &T) {
    let container = t.container(&t.bundle().args(&["true"]));
    container.launch();
    container.await_stop();
    t.call(&["kill", "--all", &container.id, "KILL"]).run().ok();
    container.delete().ok();
}

fn kill_of_a_created_container(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.create().ok();
    container.kill("KILL").ok();
    container.await_stop();
    container.delete().ok();
}

fn kill_with_an_unknown_signal_is_an_error(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    container.kill("NOSUCH").fails().says("unknown signal");
    assert_eq!(container.status(), "running");
    container.force_delete();
}

fn more_processes_than_we_may_open_files_are_killed(t: &T) {
    let mut bundle =
        t.bundle().script("for i in $(seq 300); do sleep 1000 & done; echo ready > /ready; wait");
    // Otherwise the kernel ends them with the first one.
    bundle.without_namespace("pid");
    let launched = || {
        let _ = std::fs::remove_file(bundle.file("/ready"));
        let container = t.container(&bundle);
        container.launch();
        assert!(procs::wait_until(t.seconds(10), || bundle.file("/ready").exists()));
        container
    };
    let container = launched();
    t.call(&["kill", "--all", &container.id, "KILL"]).after("ulimit -n 160").run().ok();
    container.await_stop();
    container.verb(&["delete"]).after("ulimit -n 160").run().ok();
    t.nothing_is_left(&container);
    let container = launched();
    container.verb(&["delete", "--force"]).after("ulimit -n 160").run().ok();
    t.nothing_is_left(&container);
}

fn kill_reaches_a_program_that_ignores_others(t: &T) {
    // To pid 1 of a pid namespace a signal without a handler does nothing; SIGKILL from outside does.
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    container.kill("TERM").ok();
    container.kill("USR1").ok();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(container.status(), "running");
    container.kill("9").ok();
    container.await_stop();
    container.delete().ok();
}

fn pause_and_resume(t: &T) {
    let script = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done";
    let container = t.container(&t.bundle().script(script));
    container.launch();
    let file = container.bundle.file("/count");
    let count = || read(&file);
    assert!(procs::wait_until(t.seconds(5), || !count().is_empty()));
    container.verb(&["pause"]).run().ok();
    assert_eq!(container.status(), "paused");
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(count(), before);
    container.exec(&["true"]).fails().says("paused");
    container.verb(&["resume"]).run().ok();
    assert_eq!(container.status(), "running");
    assert!(procs::wait_until(t.seconds(5), || count() != before));
    container.force_delete();
}

fn pause_and_resume_in_the_wrong_state(t: &T) {
    let container = t.container(&t.bundle().script("sleep 1000"));
    container.launch();
    container.verb(&["resume"]).run().fails().says("not paused");
    container.verb(&["pause"]).run().ok();
    container.verb(&["pause"]).run().fails().says("not running");
    container.kill("KILL").ok();
    if container.status() == "paused" {
        container.verb(&["resume"]).run().ok();
    }
    container.await_stop();
    container.verb(&["pause"]).run().fails().says("not running");
    container.delete().ok();
}

fn a_paused_container_can_be_killed_and_deleted(t: &T) {
    let container = t.container(&t.bundle().script("sleep 1000"));
    container.launch();
    container.verb(&["pause"]).run().ok();
    container.verb(&["delete", "--force"]).run().ok();
    t.nothing_is_left(&container);
}

fn a_paused_container_cannot_be_deleted_without_force(t: &T) {
    let container = t.container(&t.bundle().script("sleep 1000"));
    container.launch();
    container.verb(&["pause"]).run().ok();
    container.delete().fails().says("is not stopped: paused");
    assert_eq!(container.status(), "paused");
    container.force_delete();
}

fn run_gives_the_programs_exit_status(t: &T) {
    for code in [0, 1, 2, 42, 127, 255] {
        assert_eq!(t.run(&t.bundle(), &["sh", "-c", &format!("exit {code}")]).code, Some(code));
    }
}

fn run_gives_a_signal_as_128_and_its_number(t: &T) {
    // pid 1 does not die of its own signals: a killer from outside.
    for signal in ["KILL", "SEGV"] {
        let mut bundle = t.bundle().script(&format!("kill -{signal} $$; sleep 1000"));
        bundle.without_namespace("pid");
        let code = t.container(&bundle).run().code;
        assert_eq!(code, Some(128 + if signal == "KILL" { 9 } else { 11 }));
    }
}

fn run_leaves_nothing_behind(t: &T) {
    let container = t.container(&t.bundle().script("sleep 1000 & exit 0"));
    container.run().ok();
    t.nothing_is_left(&container);
}

fn a_run_that_is_deleted_by_force_has_its_programs_status(t: &T) {
    for _ in 0..5 {
        let container = t.container(&t.bundle().script("echo ready; exec sleep 1000"));
        let running = container.spawn_run();
        running.await_output("ready");
        container.force_delete();
        running.wait().code(137);
        t.nothing_is_left(&container);
    }
}

fn run_can_keep_the_container(t: &T) {
    let container = t.container(&t.bundle().script("exit 7"));
    assert_eq!(container.make(&["run", "--keep"]).run().code, Some(7));
    assert_eq!(container.status(), "stopped");
    container.delete().ok();
}

/// The command lines of BuildKit's own executor (moby/buildkit, executor/runcexecutor, through go-runc): everything in the
/// foreground, the container kept for a delete of its own.
fn buildkit_runs_a_step_of_a_build(t: &T) {
    let (stdin, mut input) = std::io::pipe().unwrap();
    let container = t.container(&t.bundle().script("echo a step; cat; exit 4"));
    let running = container.make(&["run", "--keep"]).stdin(stdin).spawn();
    running.await_output("a step");
    assert_eq!(container.status(), "running");
    // A shell in a step that has failed.
    let (file, pid_file) = (t.path("process.json"), t.path("exec.pid"));
    let mut process = container.bundle.config["process"].clone();
    process["args"] = json!(["sh", "-c", "cat; exit 3"]);
    std::fs::write(&file, process.to_string()).unwrap();
    let words = ["exec", "--process", &file.to_string_lossy(), "--pid-file", &pid_file.to_string_lossy()];
    let out = container.verb(&words).input("in exec\n").run().code(3);
    assert_eq!(out.stdout, "in exec\n");
    assert!(read(&pid_file).parse::<u32>().is_ok());
    std::io::Write::write_all(&mut input, b"input\n").unwrap();
    drop(input);
    assert_eq!(running.wait().code(4).stdout, "a step\ninput\n");
    assert_eq!(container.status(), "stopped");
    container.delete().ok();
    t.nothing_is_left(&container);
    // A build that is given up.
    let container = t.container(&t.bundle().script("echo a step; exec sleep 1000"));
    let running = container.make(&["run", "--keep"]).spawn();
    running.await_output("a step");
    container.kill("9").ok();
    running.wait().code(137);
    container.delete().ok();
    t.nothing_is_left(&container);
}

fn run_detached_returns_at_once(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    let pid_file = t.path("pid");
    container.make(&["run", "--detach", "--pid-file", &pid_file.to_string_lossy()]).run().ok();
    assert_eq!(container.status(), "running");
    assert_eq!(read(&pid_file), container.pid().to_string());
    container.force_delete();
}

fn run_forwards_signals(t: &T) {
    let script = "trap 'echo got USR1' USR1; trap 'echo got TERM; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let container = t.container(&t.bundle().script(script));
    let running = container.spawn_run();
    running.await_output("ready");
    running.kill(Signal::SIGUSR1);
    running.await_output("got USR1");
    running.kill(Signal::SIGTERM);
    let out = running.wait().code(9);
    assert!(out.stdout.ends_with("got TERM\n"), "{out:?}");
}

fn run_passes_stdin_and_stdout(t: &T) {
    let container = t.container(&t.bundle().script("cat; echo to stderr >&2"));
    let out = container.make(&["run"]).input("some\ntext").run().ok();
    assert_eq!(out.stdout, "some\ntext");
    assert!(out.stderr.ends_with("to stderr\n"), "{}", out.stderr);
}

fn a_run_that_fails_leaves_nothing(t: &T) {
    let container = t.container(&t.bundle().args(&["/no/such/program"]));
    container.run().fails();
    t.nothing_is_left(&container);
}

fn the_pid_file_is_there_when_create_returns(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    let dir = t.make_dir("pids");
    let file = dir.join("pid");
    std::fs::write(&file, "old and long content").unwrap();
    container.make(&["create", "--pid-file", &file.to_string_lossy()]).run().ok();
    assert_eq!(read(&file), container.pid().to_string());
    // It came by a rename, and nothing else is left beside it.
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    container.force_delete();
}

fn the_pid_file_of_run(t: &T) {
    let file = t.path("pid");
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    let running = container.make(&["run", "--pid-file", &file.to_string_lossy()]).spawn();
    assert!(procs::wait_until(t.seconds(10), || !read(&file).is_empty()));
    let pid: i32 = read(&file).parse().unwrap();
    container.await_status("running");
    assert_eq!(pid, container.pid());
    container.kill("KILL").ok();
    running.wait().code(137);
}

fn a_pid_file_that_cannot_be_written_is_an_error(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    let out = container.make(&["create", "--pid-file", "/no/such/dir/pid"]).run().fails();
    assert!(out.message().contains("no such file or directory"), "{}", out.message());
    t.nothing_is_left(&container);
}

fn a_bundle_without_config_is_an_error(t: &T) {
    let dir = t.make_dir("empty");
    let out = t.call(&["create", "--bundle", &dir.to_string_lossy(), &t.id()]).run().fails();
    assert!(out.message().contains("config.json"), "{}", out.message());
    let out = t.call(&["create", "--bundle", "/no/such/bundle", &t.id()]).run().fails();
    assert!(out.message().contains("no such file or directory"), "{}", out.message());
}

fn a_config_that_changes_after_create_changes_nothing(t: &T) {
    let container = t.container(&t.bundle().script("echo first; hostname"));
    let out = container.create().ok();
    t.bundle().script("echo second").with(json!({"hostname": "second"})).save();
    std::fs::write(container.bundle.dir.join("config.json"), "{").unwrap();
    container.start().ok();
    container.await_stop();
    assert_eq!(read(&out.stdout_file), "first\nrunc\n");
    std::fs::remove_file(container.bundle.dir.join("config.json")).unwrap();
    container.delete().ok();
}

fn a_program_that_is_not_there_fails_create(t: &T) {
    let message = t.refused(&t.bundle().args(&["no-such-program"]));
    assert!(message.contains("executable file not found in $PATH"), "{message}");
    let message = t.refused(&t.bundle().args(&["/no/such/program"]));
    assert!(message.contains("no such file or directory"), "{message}");
}

fn a_program_that_is_not_executable_fails_create(t: &T) {
    let message = t.refused(&t.bundle().args(&["/etc/passwd"]));
    assert!(message.contains("permission denied"), "{message}");
}

fn a_program_that_is_a_directory_fails_create(t: &T) {
    let message = t.refused(&t.bundle().args(&["/etc"]));
    assert!(message.contains("is a directory") || message.contains("permission denied"), "{message}");
}

fn fails_start(t: &T, content: &[u8], says: &str) {
    let bundle = t.bundle().args(&["/program"]);
    bundle.write_program("/program", content);
    let container = t.container(&bundle);
    container.create().ok();
    container.start().fails().says(says);
    container.await_stop();
    container.delete().ok();
    t.nothing_is_left(&container);
}

fn a_program_in_no_known_format_fails_start(t: &T) {
    fails_start(t, b"no program\n", "exec format error");
}

fn a_script_without_its_interpreter_fails_start(t: &T) {
    fails_start(t, b"#!/no/such/interpreter\n", "no such file or directory");
}

fn a_program_with_wrong_format_fails_run(t: &T) {
    let bundle = t.bundle().args(&["/program"]);
    bundle.write_program("/program", "no program\n");
    let container = t.container(&bundle);
    let out = container.run().fails();
    assert!(out.stderr.contains("exec format error"), "{out:?}");
    container.delete_if_there();
}

fn two_starts_at_once_start_it_once(t: &T) {
    for _ in 0..5 {
        let container = t.container(&t.bundle().script("echo ran >> /ran; sleep 1000"));
        container.bundle.write("/ran", "");
        container.create().ok();
        let starts = [(); 3].map(|()| container.verb(&["start"]).spawn());
        let codes = starts.map(|start| start.wait().code.unwrap());
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        // The program has begun; when it writes is its own affair.
        let file = container.bundle.file("/ran");
        assert!(procs::wait_until(t.seconds(5), || !read(&file).is_empty()));
        container.force_delete();
        assert_eq!(read(&file), "ran\n");
    }
}

fn many_creates_of_one_id_at_once_make_one(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.bundle.save();
    let creates = [(); 4].map(|()| container.make(&["create"]).spawn());
    let codes = creates.map(|create| create.wait().code.unwrap());
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(container.status(), "created");
    container.start().ok();
    container.force_delete();
    t.nothing_is_left(&container);
}

fn ten_containers_at_once(t: &T) {
    let bundles = [(); 10].map(|()| t.bundle().script("echo in; exit 3"));
    let containers = bundles.each_ref().map(|bundle| t.container(bundle));
    let running = containers.each_ref().map(|container| container.make(&["run"]).within(60).spawn());
    for run in running {
        assert_eq!(run.wait().code(3).stdout, "in\n");
    }
}

fn ten_deletes_at_once(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let deletes = [(); 10].map(|()| container.verb(&["delete", "--force"]).within(60).spawn());
    for delete in deletes {
        delete.wait();
    }
    container.verb(&["delete", "--force"]).run().ok();
    t.nothing_is_left(&container);
}

fn ps_shows_the_containers_processes(t: &T) {
    let container = t.container(&t.bundle().script("sleep 1000 & sleep 1000 & wait"));
    container.launch();
    let pids = || -> Vec<i32> {
        serde_json::from_value(container.verb(&["ps", "--format", "json"]).run().ok().json()).unwrap()
    };
    assert!(procs::wait_until(t.seconds(5), || pids().len() == 3));
    assert!(pids().contains(&container.pid()));
    let table = container.verb(&["ps"]).run().ok().stdout;
    assert!(table.starts_with("UID ") && table.lines().count() == 4, "{table}");
    // What has been forked may be a shell for a moment yet.
    let table = || t.call(&["ps", &container.id, "-o", "pid,comm"]).run().ok().stdout;
    let two_sleep = || table().matches("sleep").count() == 2;
    assert!(procs::wait_until(t.seconds(5), two_sleep) && table().contains("PID COMMAND"), "{}", table());
    container.force_delete();
}

fn list_shows_containers_and_their_statuses(t: &T) {
    let running = t.container(&t.bundle().args(&["sleep", "1000"]));
    running.launch();
    let created = t.container(&t.bundle().args(&["sleep", "1000"]));
    created.create().ok();
    let list = t.call(&["list", "--format", "json"]).run().ok().json();
    let find = |id: &str| list.as_array().unwrap().iter().find(|entry| entry["id"] == id).unwrap().clone();
    let entry: Value = find(&running.id);
    assert_eq!(entry["status"], "running");
    assert_eq!(entry["pid"], json!(running.pid()));
    assert_eq!(entry["bundle"], json!(running.bundle.dir));
    assert_eq!(entry["owner"], "root");
    assert_eq!(find(&created.id)["status"], "created");
    let table = t.call(&["list"]).run().ok().stdout;
    let words: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(words, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let quiet = t.call(&["list", "--quiet"]).run().ok().stdout;
    let mut ids: Vec<&str> = quiet.lines().collect();
    ids.sort_unstable();
    let mut want = [running.id.as_str(), created.id.as_str()];
    want.sort_unstable();
    assert_eq!(ids, want);
    running.force_delete();
    created.force_delete();
}

fn list_of_more_containers_than_open_files(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let containers: Vec<_> = (0..20).map(|_| t.container(&bundle)).collect();
    containers.iter().for_each(|container| drop(container.create().ok()));
    t.through("ulimit -n 14", &[]);
    let out = t.call(&["list", "--quiet"]).run().ok();
    assert_eq!(out.stdout.lines().count(), 20, "{out:?}");
    containers.iter().for_each(|container| container.force_delete());
}

fn list_of_no_containers(t: &T) {
    // A root that was made, and is empty again.
    t.run(&t.bundle(), &["true"]).ok();
    assert_eq!(t.call(&["list", "--quiet"]).run().ok().stdout, "");
    let out = t.call(&["list", "--format", "json"]).run().ok();
    assert_eq!(out.stdout.trim(), "null");
}

fn events_show_the_resources(t: &T) {
    let container = t.container(&t.bundle().script("sleep 1000 & sleep 1000"));
    container.launch();
    let event = t.call(&["events", "--stats", &container.id]).run().ok().json();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], json!(container.id));
    let data = &event["data"];
    assert!(data["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{data}");
    assert!(data["cpu"]["usage"]["total"].as_u64().is_some_and(|nanoseconds| nanoseconds > 0), "{data}");
    assert!(data["pids"]["current"].as_u64().is_some_and(|number| number >= 1), "{data}");
    container.force_delete();
}

fn events_that_follow_a_container(t: &T) {
    let container = t.container(&t.bundle().script("sleep 1000"));
    container.launch();
    let events = t.call(&["events", "--interval", "100ms", &container.id]).spawn();
    events.await_output("}\n{");
    container.kill("KILL").ok();
    container.await_stop();
    container.delete().ok();
    // They end when the container is gone.
    let out = events.wait();
    for line in out.stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["type"] == "stats" || event["type"] == "oom", "{line}");
    }
}

fn a_container_without_a_process_cannot_start(t: &T) {
    let bundle = t.bundle().with(json!({"process": null}));
    let container = t.container(&bundle);
    container.create().ok();
    assert_eq!(container.status(), "created");
    let out = container.start().fails();
    assert!(out.stderr.contains("process property must not be empty"), "{out:?}");
    container.force_delete();
}
