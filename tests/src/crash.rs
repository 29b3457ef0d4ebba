//! A process of the runtime may end at any moment: nothing hangs, and `delete --force` cleans up.

use crate::harness::{Container, T, Test, procs};
use crate::{always, test};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    test!(create_killed_at_any_moment)
        .seconds(120)
        .runc_fails(always!("may leave what delete does not find")),
    test!(create_killed_in_a_user_namespace_at_any_moment)
        .seconds(120)
        .runc_fails(always!("may leave what delete does not find")),
    test!(create_killed_by_its_hook).runc_fails(always!("leaves the container's cgroup")),
    test!(create_terminated_by_its_hook).runc_fails(always!("leaves the container's cgroup")),
    test!(run_killed_at_any_moment).seconds(120).runc_fails(always!("may leave what delete does not find")),
    test!(start_killed_at_any_moment).seconds(120),
    test!(delete_killed_at_any_moment).seconds(120),
    test!(exec_killed_at_any_moment).seconds(120),
    test!(a_foreground_run_that_is_killed_leaves_the_container),
    test!(a_created_container_whose_init_is_killed),
    test!(a_state_that_is_garbage_spoils_nobody_elses_day),
    test!(a_state_of_another_boot_is_a_stopped_container),
    test!(killed_execs_leave_the_container_alone),
];

/// Kills a call some time after it has begun; how it ends is not asked.
fn killed(call: crate::harness::Call<'_>, after: Duration) {
    let running = call.spawn();
    std::thread::sleep(after);
    let _ = kill(Pid::from_raw(running.pid()), Signal::SIGKILL);
    running.wait();
}

/// Moments from before a process's first instruction to behind its end.
fn moments(t: &T) -> impl Iterator<Item = Duration> {
    let scale = if t.is_ours() { 1 } else { 4 };
    let patience = t.patience;
    (0..24).map(move |number| Duration::from_micros(300 * number * scale) * patience)
}

fn force_delete(t: &T, container: &Container) {
    container.verb(&["delete", "--force"]).run().ok();
    t.nothing_is_left(container);
}

fn create_killed_at_any_moment(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for moment in moments(t) {
        let container = t.container(&bundle);
        killed(container.make(&["create"]), moment);
        println!("{moment:?}: {}", container.exists());
        force_delete(t, &container);
    }
}

fn create_killed_in_a_user_namespace_at_any_moment(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    bundle.user_namespace();
    for moment in moments(t) {
        let container = t.container(&bundle);
        killed(container.make(&["create"]), moment);
        println!("{moment:?}: {}", container.exists());
        force_delete(t, &container);
    }
}

fn by_hook(t: &T, signal: &str) {
    for kind in ["prestart", "createRuntime"] {
        let hook =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("kill -{signal} $PPID; sleep 1")]}]);
        let container = t.container(&t.bundle().with(json!({"hooks": {kind: hook}})));
        let out = container.create();
        assert_ne!(out.code, Some(0), "{kind}");
        force_delete(t, &container);
    }
}

fn create_killed_by_its_hook(t: &T) {
    by_hook(t, "KILL");
}

fn create_terminated_by_its_hook(t: &T) {
    by_hook(t, "TERM");
}

fn run_killed_at_any_moment(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for moment in moments(t) {
        let container = t.container(&bundle);
        killed(container.make(&["run"]), moment);
        println!("{moment:?}: {}", container.exists());
        force_delete(t, &container);
    }
}

fn start_killed_at_any_moment(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for moment in moments(t) {
        let container = t.container(&bundle);
        container.create().ok();
        killed(container.verb(&["start"]), moment / 2);
        let status = container.status();
        println!("{moment:?}: {status}");
        assert!(status == "created" || status == "running" || status == "stopped", "{status}");
        force_delete(t, &container);
    }
}

fn delete_killed_at_any_moment(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for moment in moments(t) {
        let container = t.container(&bundle);
        container.launch();
        killed(container.verb(&["delete", "--force"]), moment / 2);
        force_delete(t, &container);
    }
}

fn exec_killed_at_any_moment(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    for moment in moments(t) {
        killed(container.exec_with(&[], &["true"]), moment / 2);
        assert_eq!(container.status(), "running", "{moment:?}");
    }
    assert_eq!(container.exec_sh("echo in"), "in\n");
    // No half-made process stays with the container.
    let alone =
        || container.verb(&["ps", "--format", "json"]).run().ok().json().as_array().unwrap().len() == 1;
    assert!(procs::wait_until(t.seconds(10), alone), "{}", container.verb(&["ps"]).run().stdout);
    force_delete(t, &container);
}

fn a_foreground_run_that_is_killed_leaves_the_container(t: &T) {
    let container = t.container(&t.bundle().script("echo ready; sleep 1000"));
    let running = container.spawn_run();
    running.await_output("ready");
    running.kill(Signal::SIGKILL);
    running.wait();
    assert_eq!(container.status(), "running");
    assert_eq!(container.exec_sh("echo in"), "in\n");
    force_delete(t, &container);
}

fn a_created_container_whose_init_is_killed(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.create().ok();
    kill(Pid::from_raw(container.pid()), Signal::SIGKILL).unwrap();
    container.await_stop();
    container.start().fails();
    container.delete().ok();
    t.nothing_is_left(&container);
}

fn a_state_that_is_garbage_spoils_nobody_elses_day(t: &T) {
    let good = t.container(&t.bundle().args(&["sleep", "1000"]));
    good.launch();
    for garbage in ["", "{", "[]", "{\"id\": 5}", "\0\0\0"] {
        let dir = t.state_dir().join("garbage");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("state.json"), garbage).unwrap();
        let out = t.call(&["list", "--quiet"]).run().ok();
        assert!(out.stdout.contains(&good.id), "{garbage:?}: {out:?}");
        let out = t.call(&["state", "garbage"]).run();
        assert!(out.code == Some(1), "{garbage:?}: {out:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
    good.force_delete();
}

fn a_state_of_another_boot_is_a_stopped_container(t: &T) {
    if !t.is_ours() {
        t.skip("the state's format is cofferdam's");
    }
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let pid = container.pid();
    let file = t.state_dir().join(&container.id).join("state.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    state["bootId"] = json!("00000000-0000-0000-0000-000000000000");
    std::fs::write(&file, state.to_string()).unwrap();
    assert_eq!(container.status(), "stopped");
    container.kill("KILL").fails();
    // The process of that number is somebody else's.
    assert!(procs::is_alive(pid));
    std::fs::write(&file, text).unwrap();
    assert_eq!(container.status(), "running");
    force_delete(t, &container);
}

fn killed_execs_leave_the_container_alone(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let running = container.exec_with(&[], &["sh", "-c", "echo ready; sleep 1000"]).spawn();
    running.await_output("ready");
    running.kill(Signal::SIGKILL);
    running.wait();
    assert_eq!(container.status(), "running");
    force_delete(t, &container);
}
