//! An upgrade: containers that an earlier build has made (`hack/previous` says which) are driven by this one.

use crate::harness::{Bundle, Call, Container, Need, Out, T, Test};
use crate::test;
use serde_json::json;

pub const TESTS: &[Test] = &[
    test!(a_container_of_an_earlier_build_is_driven).needs(UPGRADE),
    test!(a_container_of_an_earlier_build_in_a_user_namespace_is_driven).needs(UPGRADE),
    test!(a_container_that_an_earlier_build_has_created_is_started).needs(UPGRADE),
    test!(a_container_that_an_earlier_build_has_paused_is_resumed).needs(UPGRADE),
    test!(a_stopped_container_of_an_earlier_build_is_deleted_with_its_hooks).needs(UPGRADE),
    test!(an_earlier_build_s_container_is_deleted_by_force).needs(UPGRADE),
];

const UPGRADE: &[Need] = &[Need::Ours("runc's state is runc's own"), Need::Previous];

/// A call of the earlier build, with the state of the present one.
fn earlier<'t>(t: &'t T, words: &[&str]) -> Call<'t> {
    Call::new(t, t.previous.as_ref().expect("needs Previous"), words)
}

/// A container that the earlier build has created.
fn created<'t>(t: &'t T, bundle: &Bundle) -> Container<'t> {
    let container = t.container(bundle);
    container.bundle.save();
    earlier(t, &["create", "--bundle", &container.bundle.dir.to_string_lossy(), &container.id]).run().ok();
    container
}

/// One that it has started, too.
fn running<'t>(t: &'t T, bundle: &Bundle) -> Container<'t> {
    let container = created(t, bundle);
    earlier(t, &["start", &container.id]).run().ok();
    container
}

fn verb(container: &Container, word: &str) -> Out {
    container.verb(&[word]).run().ok()
}

/// Every verb that a running container takes, to its end.
fn drive(t: &T, container: &Container) {
    assert_eq!(container.status(), "running");
    let listed = t.call(&["list", "--quiet"]).run().ok().stdout;
    assert_eq!(listed.trim(), container.id);
    let own = std::fs::read_link(format!("/proc/{}/ns/mnt", container.pid())).unwrap();
    assert_eq!(container.exec_sh("readlink /proc/self/ns/mnt").trim(), own.to_string_lossy());
    assert_eq!(container.exec(&["sh", "-c", "exit 7"]).code, Some(7));
    // Where it is in a cgroup of its own, so is what it executes.
    let inside = container.exec_sh("cat /proc/self/cgroup");
    assert_eq!(inside, container.exec_sh("cat /proc/1/cgroup"));
    verb(container, "pause");
    assert_eq!(container.status(), "paused");
    verb(container, "resume");
    assert_eq!(container.status(), "running");
    t.call(&["update", "--pids-limit", "77", &container.id]).run().ok();
    if t.host.has_controller("pids") {
        assert_eq!(container.cgroup_value("pids", "pids.max"), "77");
    }
    let processes = t.call(&["ps", "--format", "json", &container.id]).run().ok().json();
    assert_eq!(processes, json!([container.pid()]));
    let statistics = t.call(&["events", "--stats", &container.id]).run().ok().json();
    assert_eq!(statistics["id"], container.id.as_str());
    container.kill("KILL").ok();
    container.await_stop();
    container.delete().ok();
    t.nothing_is_left(container);
}

fn sleeping(t: &T) -> Bundle {
    t.bundle().args(&["sleep", "1000"])
}

fn a_container_of_an_earlier_build_is_driven(t: &T) {
    drive(t, &running(t, &sleeping(t)));
}

fn a_container_of_an_earlier_build_in_a_user_namespace_is_driven(t: &T) {
    let mut bundle = sleeping(t);
    bundle.user_namespace();
    drive(t, &running(t, &bundle));
}

fn a_container_that_an_earlier_build_has_created_is_started(t: &T) {
    let container = created(t, &sleeping(t));
    assert_eq!(container.status(), "created");
    container.start().ok();
    drive(t, &container);
}

fn a_container_that_an_earlier_build_has_paused_is_resumed(t: &T) {
    let container = running(t, &sleeping(t));
    earlier(t, &["pause", &container.id]).run().ok();
    assert_eq!(container.status(), "paused");
    container.exec(&["true"]).fails();
    verb(&container, "resume");
    drive(t, &container);
}

fn a_stopped_container_of_an_earlier_build_is_deleted_with_its_hooks(t: &T) {
    let told = t.path("poststop");
    let script = format!("cat >{}", told.display());
    let hooks = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    let container = running(t, &t.bundle().args(&["true"]).with(json!({"hooks": {"poststop": hooks}})));
    container.await_stop();
    container.delete().ok();
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(told).unwrap()).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&json!(container.id), &json!("stopped")));
    t.nothing_is_left(&container);
}

fn an_earlier_build_s_container_is_deleted_by_force(t: &T) {
    let container = running(t, &sleeping(t));
    container.force_delete();
    t.nothing_is_left(&container);
}
