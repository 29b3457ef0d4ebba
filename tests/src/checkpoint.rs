//! `checkpoint` and `restore`: what a container had before, it has afterwards; a failure of either changes nothing.
//!
//! CRIU's own limits are not ours to test: streams go to /dev/null or pipes, for it refuses files from outside.

use crate::harness::world::find_program;
use crate::harness::{Call, Container, Need, Out, T, Test, procs};
use crate::sockets::{Receiver, Terminal};
use crate::{always, below, test};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub const TESTS: &[Test] = &[
    test!(a_container_goes_on_where_it_stood).needs(&[Need::Criu]),
    test!(a_restored_container_is_saved_again)
        .needs(&[Need::Criu])
        .runc_fails(below!("1.2", "cannot restore it a second time")),
    test!(left_running_it_goes_on).needs(&[Need::Criu]),
    test!(a_paused_container_is_saved).by_driver().needs(&[Need::Criu]),
    test!(a_restore_in_the_foreground_gives_the_exit_status).needs(&[Need::Criu]),
    test!(runc_restores_what_we_saved).needs(&[
        Need::Criu,
        Need::Peer,
        Need::Ours("it is compared with runc"),
    ]),
    test!(we_restore_what_runc_saved).needs(&[
        Need::Criu,
        Need::Peer,
        Need::Ours("it is compared with runc"),
    ]),
    test!(pipes_are_replaced_by_the_callers).needs(&[Need::Criu]),
    test!(a_terminal_goes_to_the_new_socket).needs(&[Need::Criu]),
    test!(bind_mounts_come_from_the_host_again).needs(&[Need::Criu]),
    test!(mount_points_in_volumes_are_made_again).needs(&[Need::Criu]),
    test!(masks_and_read_only_paths_stay).needs(&[Need::Criu]),
    test!(files_of_a_tmpfs_come_back).needs(&[Need::Criu]),
    test!(a_foreign_network_namespace_is_joined_again).needs(&[Need::Criu]),
    test!(a_foreign_pid_namespace_is_joined_again).needs(&[Need::Criu]),
    test!(foreign_ipc_and_uts_namespaces_are_joined).needs(&[Need::Criu]),
    test!(limits_are_those_of_the_config).needs(&[Need::Criu, Need::Controller("pids")]),
    test!(another_cgroup_can_be_given).needs(&[Need::Criu, Need::CgroupFs, IGNORE]),
    test!(hooks_run_for_the_restored_process).needs(&[Need::Criu]),
    test!(a_hook_that_fails_undoes_the_restore)
        .needs(&[Need::Criu])
        .runc_fails(always!("leaves the processes, for the state of which nobody knows")),
    test!(a_pid_file_names_the_restored_process).needs(&[Need::Criu]),
    test!(monotonic_time_goes_on).needs(&[
        Need::Criu,
        Need::Namespace("time"),
        Need::Runc("1.2", "time namespaces"),
    ]),
    test!(the_configuration_file_is_the_annotations).needs(&[Need::Criu]),
    test!(memory_can_be_saved_beforehand).needs(&[Need::Criu]),
    test!(memory_goes_to_a_page_server).needs(&[Need::Criu]),
    test!(pages_are_moved_when_they_are_asked_for)
        .needs(&[Need::Criu, Need::CgroupFs, IGNORE])
        .runc_fails(always!("cannot delete what a killed restore has left")),
    test!(images_shrink_as_they_are_restored_where_asked)
        .needs(&[Need::Criu, Need::Runc("1.2", "restore --auto-dedup")]),
    test!(earlier_images_lose_what_newer_ones_have_where_asked)
        .needs(&[Need::Criu, Need::Runc("1.2", "checkpoint --auto-dedup")]),
    test!(open_connections_go_on_where_asked).needs(&[Need::Criu]),
    test!(connections_that_wait_are_left_out_where_asked)
        .needs(&[Need::Criu, Need::Runc("1.2", "--tcp-skip-in-flight")]),
    test!(file_locks_are_kept_where_asked).needs(&[Need::Criu]),
    test!(a_file_without_its_name_is_kept_where_asked)
        .needs(&[Need::Criu, Need::Runc("1.2", "--link-remap")]),
    test!(a_user_namespace_comes_back).needs(&[Need::Criu]),
    test!(a_session_from_outside_is_taken_where_asked).needs(&[Need::Criu]),
    test!(an_apparmor_profile_comes_back).needs(&[Need::Criu, Need::AppArmor]),
    test!(cgroups_are_left_alone_where_asked).needs(&[Need::Criu, Need::CgroupFs, IGNORE]),
    test!(a_user_cannot_save).needs(&[Need::Criu, Need::CgroupFs]),
    test!(what_cannot_be_saved_goes_on).needs(&[Need::Criu]),
    test!(a_restore_without_images_leaves_nothing).by_driver().needs(&[Need::Criu]),
    test!(a_restore_of_damaged_images_leaves_nothing).needs(&[Need::Criu]),
    test!(links_in_a_folder_of_images_are_not_followed).needs(&[Need::Criu, Need::Ours("runc follows them")]),
    test!(an_id_in_use_is_not_restored).needs(&[Need::Criu]),
    test!(a_container_that_does_not_run_is_not_saved),
    test!(flags_that_make_no_sense_are_refused).runc_fails(below!("1.2", "takes some of them")),
    test!(without_criu_nothing_happens).needs(&[Need::Ours("the words are our own")]),
];

const IGNORE: Need = Need::Runc("1.2", "--manage-cgroups-mode ignore");

/// Counts in a file, ten times a second.
const COUNT: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.1; done";

/// Makes a call whose output goes nowhere: what it leaves in the container must not be a file of the test's.
fn quietly(call: Call) -> Out {
    let null = || File::options().write(true).open("/dev/null").expect("open /dev/null");
    call.within(60).spawn_with(null(), null()).wait()
}

/// A container of this script that runs; its network is left alone.
fn running<'t>(t: &'t T, script: &str, change: Value) -> Container<'t> {
    started(t.container(&quiet(t, script).with(change)))
}

/// With the tools CRIU locks packets out, without them a configuration file keeps it from doing so (of which 4.1 dies).
fn quiet(t: &T, script: &str) -> crate::harness::Bundle {
    let bundle = t.bundle().script(script);
    if find_program("iptables-restore").is_some() && find_program("ip6tables-restore").is_some() {
        return bundle;
    }
    let file = t.path("criu.conf");
    fs::write(&file, "network-lock skip\n").expect("write criu's configuration");
    bundle.with(json!({"annotations": {"org.criu.config": file}}))
}

fn started(container: Container) -> Container {
    quietly(container.make(&["run", "--detach"])).ok();
    container
}

fn images(t: &T, name: &str) -> String {
    t.path(name).to_string_lossy().into_owned()
}

fn save<'t>(container: &Container<'t>, images: &str, flags: &[&str]) -> Call<'t> {
    let words = [&["checkpoint", "--image-path", images], flags].concat();
    container.verb(&words).within(60)
}

fn restore<'t>(container: &Container<'t>, images: &str, flags: &[&str]) -> Call<'t> {
    container.make(&[&["restore", "--detach", "--image-path", images], flags].concat())
}

/// Saves and restores a container.
#[track_caller]
fn there_and_back(t: &T, container: &Container) {
    let images = images(t, "images");
    save(container, &images, &[]).run().ok();
    assert!(!container.exists(), "the container is still there");
    quietly(restore(container, &images, &[])).ok();
    assert_eq!(container.status(), "running");
}

fn count(container: &Container) -> u32 {
    let text = fs::read_to_string(container.bundle.file("/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[track_caller]
fn counts_beyond(t: &T, container: &Container, number: u32) {
    let there = procs::wait_until(t.seconds(10), || count(container) > number);
    assert!(there, "stands at {}, not beyond {number}", count(container));
}

fn a_container_goes_on_where_it_stood(t: &T) {
    let container = running(t, COUNT, json!({}));
    counts_beyond(t, &container, 2);
    let images = images(t, "images");
    let (pid, cgroup) = (container.pid(), container.cgroup_dir("pids"));
    save(&container, &images, &[]).run().ok();
    assert!(!procs::is_alive(pid) && !container.exists() && !cgroup.exists());
    let stood = count(&container);
    assert!(stood > 2);
    quietly(restore(&container, &images, &[])).ok();
    counts_beyond(t, &container, stood);
    assert!(count(&container) < stood + 100, "it began anew");
    // Every verb knows it.
    assert_eq!(container.status(), "running");
    assert_eq!(container.exec_sh("cat /proc/1/comm; hostname"), "sh\nrunc\n");
    assert!(container.verb(&["ps"]).run().ok().stdout.contains("sleep"));
    assert!(container.verb(&["events", "--stats"]).run().ok().json()["data"]["pids"].is_object());
    container.verb(&["pause"]).run().ok();
    assert_eq!(container.status(), "paused");
    container.verb(&["resume"]).run().ok();
    container.kill("KILL").ok();
    container.await_stop();
    container.delete().ok();
    t.nothing_is_left(&container);
}

fn a_restored_container_is_saved_again(t: &T) {
    let container = running(t, COUNT, json!({}));
    for _ in 0..2 {
        counts_beyond(t, &container, count(&container));
        // A loop: of a restored sleep that was interrupted, not every kernel and CRIU lets the rest be slept.
        let background = container.exec_sh("while :; do sleep 0.5; done <&- >/dev/null 2>&1 & echo $!");
        there_and_back(t, &container);
        assert_eq!(container.exec_sh(&format!("cat /proc/{}/comm", background.trim())), "sh\n");
    }
    container.force_delete();
}

fn left_running_it_goes_on(t: &T) {
    let container = running(t, COUNT, json!({}));
    let (pid, images) = (container.pid(), images(t, "images"));
    counts_beyond(t, &container, 1);
    save(&container, &images, &["--leave-running"]).run().ok();
    assert_eq!((container.pid(), container.status().as_str()), (pid, "running"));
    counts_beyond(t, &container, count(&container));
    assert!(t.path("images/inventory.img").exists() && t.path("images/descriptors.json").exists());
    // Another container of the same images.
    container.force_delete();
    let other = t.container(&container.bundle);
    quietly(restore(&other, &images, &["--manage-cgroups-mode", "ignore"])).ok();
    counts_beyond(t, &other, count(&other));
    other.force_delete();
}

fn a_paused_container_is_saved(t: &T) {
    let container = running(t, COUNT, json!({}));
    counts_beyond(t, &container, 1);
    container.verb(&["pause"]).run().ok();
    there_and_back(t, &container);
    counts_beyond(t, &container, count(&container));
    container.force_delete();
}

fn a_restore_in_the_foreground_gives_the_exit_status(t: &T) {
    let container = running(t, "trap 'exit 7' TERM; echo > /ready; while :; do sleep 0.1; done", json!({}));
    assert!(procs::wait_until(t.seconds(5), || container.bundle.file("/ready").exists()));
    let images = images(t, "images");
    save(&container, &images, &[]).run().ok();
    let null = || File::options().write(true).open("/dev/null").expect("open /dev/null");
    let call = container.make(&["restore", "--image-path", &images]).within(60);
    let mut call = call.spawn_with(null(), null());
    assert!(procs::wait_until(t.seconds(20), || container.exists()
        && container.verb(&["state"]).run().stdout.contains("running")));
    assert!(!call.has_ended());
    call.kill(Signal::SIGTERM);
    call.wait().code(7);
    assert!(!container.exists());
}

/// The same container for the other runtime.
fn by_peer<'t>(t: &'t T, container: &Container, words: &[&str]) -> Call<'t> {
    let peer = t.peer.as_ref().expect("a peer");
    let words: Vec<&str> = words.iter().copied().chain([container.id.as_str()]).collect();
    Call::new(t, peer, &words).within(60)
}

fn runc_restores_what_we_saved(t: &T) {
    let container = running(t, COUNT, json!({}));
    counts_beyond(t, &container, 2);
    let (images, bundle) = (images(t, "images"), container.bundle.dir.to_string_lossy().into_owned());
    save(&container, &images, &[]).run().ok();
    let stood = count(&container);
    let words = ["restore", "--detach", "--image-path", &images, "--bundle", &bundle];
    quietly(by_peer(t, &container, &words)).ok();
    counts_beyond(t, &container, stood);
    by_peer(t, &container, &["delete", "--force"]).run().ok();
}

fn we_restore_what_runc_saved(t: &T) {
    let container = t.container(&quiet(t, COUNT));
    container.bundle.save();
    let (images, bundle) = (images(t, "images"), container.bundle.dir.to_string_lossy().into_owned());
    quietly(by_peer(t, &container, &["run", "--detach", "--bundle", &bundle])).ok();
    counts_beyond(t, &container, 2);
    by_peer(t, &container, &["checkpoint", "--image-path", &images]).run().ok();
    let stood = count(&container);
    quietly(restore(&container, &images, &[])).ok();
    counts_beyond(t, &container, stood);
    assert_eq!(container.exec_sh("cat /proc/1/comm"), "sh\n");
    container.force_delete();
}

/// A pipe: what to read from, what to write to.
fn pipe() -> (File, OwnedFd) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
    (read.into(), write)
}

fn pipes_are_replaced_by_the_callers(t: &T) {
    let container = t.container(&quiet(t, "while read word; do echo got $word; done; echo end; exit 3"));
    let (mut pipes, images) = (Vec::new(), images(t, "images"));
    for round in ["one", "two"] {
        let ((stdin, feed), (mut stdout, out)) = (pipe(), pipe());
        let call = match round {
            "one" => container.make(&["run", "--detach"]),
            _ => restore(&container, &images, &[]),
        };
        let err = out.try_clone().expect("dup");
        call.within(60).stdin(stdin).spawn_with(out, err).wait().ok();
        let mut feed = File::from(feed);
        writeln!(feed, "{round}").expect("write");
        let mut line = [0; 64];
        let length = stdout.read(&mut line).expect("read");
        assert_eq!(String::from_utf8_lossy(&line[..length]), format!("got {round}\n"));
        if round == "one" {
            save(&container, &images, &[]).run().ok();
        }
        pipes.push((feed, stdout));
    }
    let (feed, mut stdout) = pipes.pop().expect("pipes");
    drop(feed);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("read");
    assert_eq!(rest, "end\n");
    container.await_stop();
    container.force_delete();
}

fn a_terminal_goes_to_the_new_socket(t: &T) {
    let bundle =
        quiet(t, "while read word; do echo got $word; done").with(json!({"process": {"terminal": true}}));
    let (container, images) = (t.container(&bundle), images(t, "images"));
    let receiver = Receiver::new(t, "console");
    quietly(container.make(&["run", "--detach", "--console-socket", &receiver.word()])).ok();
    let mut terminal = Terminal::new(t, receiver.receive().1);
    terminal.type_in("one\n");
    terminal.await_output("got one");
    save(&container, &images, &[]).run().ok();
    let receiver = Receiver::new(t, "another");
    quietly(restore(&container, &images, &["--console-socket", &receiver.word()])).ok();
    let mut terminal = Terminal::new(t, receiver.receive().1);
    terminal.type_in("two\n");
    terminal.await_output("got two");
    assert_eq!(container.exec_sh("readlink /proc/1/fd/0"), "/dev/pts/0\n");
    container.force_delete();
}

fn bind_mounts_come_from_the_host_again(t: &T) {
    let mut bundle = quiet(t, COUNT);
    bundle.make_dir("/real/conf");
    bundle.link("/conf", "/real/conf");
    let (volume, file) = (t.make_dir("volume"), t.path("one file"));
    fs::write(volume.join("word"), "first").expect("write");
    fs::write(&file, "content").expect("write");
    bundle.mount(json!({"destination": "/conf", "source": volume, "type": "bind", "options": ["bind"]}));
    bundle.mount(json!({"destination": "/etc/one file", "source": file, "options": ["bind", "ro"]}));
    let container = started(t.container(&bundle));
    there_and_back(t, &container);
    fs::write(volume.join("word"), "second").expect("write");
    assert_eq!(container.exec_sh("cat /real/conf/word /conf/word '/etc/one file'"), "secondsecondcontent");
    container.exec(&["sh", "-c", "echo > '/etc/one file'"]).fails();
    container.force_delete();
}

fn mount_points_in_volumes_are_made_again(t: &T) {
    let mut bundle = quiet(t, COUNT);
    let (outer, inner) = (t.make_dir("outer"), t.make_dir("inner"));
    bundle.mount(json!({"destination": "/test", "source": outer, "type": "bind", "options": ["bind"]}));
    bundle.mount(
        json!({"destination": "/test/for/nested", "source": inner, "type": "bind", "options": ["bind"]}),
    );
    let (container, images) = (started(t.container(&bundle)), images(t, "images"));
    save(&container, &images, &[]).run().ok();
    fs::remove_dir_all(outer.join("for")).expect("remove the mount points");
    quietly(restore(&container, &images, &[])).ok();
    container.exec_sh("echo > /test/for/nested/made");
    assert!(inner.join("made").exists() && !outer.join("for/nested/made").exists());
    container.force_delete();
}

fn masks_and_read_only_paths_stay(t: &T) {
    let container =
        running(t, COUNT, json!({"linux": {"maskedPaths": ["/proc/kcore", "/proc/acpi", "/etc/passwd"]}}));
    let look =
        "cat /proc/kcore /etc/passwd; ls /proc/acpi 2>/dev/null; touch /proc/sys/kernel/domainname 2>&1";
    let before = container.exec(&["sh", "-c", look]).stdout;
    there_and_back(t, &container);
    assert_eq!(container.exec(&["sh", "-c", look]).stdout, before);
    container.exec(&["sh", "-c", "echo x > /proc/sys/kernel/domainname"]).fails();
    container.force_delete();
}

fn files_of_a_tmpfs_come_back(t: &T) {
    let script = format!("echo kept > /dev/shm/file; chmod 640 /dev/shm/file; {COUNT}");
    let container = running(t, &script, json!({}));
    counts_beyond(t, &container, 0);
    let look = "cat /dev/shm/file; stat -c %a /dev/shm/file; ls /dev; ls -l /dev/null | cut -c1-10";
    let before = container.exec_sh(look);
    assert!(before.starts_with("kept\n640\n"), "{before}");
    there_and_back(t, &container);
    assert_eq!(container.exec_sh(look), before);
    container.force_delete();
}

/// The inode of a namespace of a process.
fn namespace(pid: i32, kind: &str) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).expect("a namespace").ino()
}

/// A container whose namespaces another one joins.
fn owner(t: &T) -> Container<'_> {
    let owner = t.container(&t.bundle().args(&["sleep", "1000"]));
    owner.launch();
    owner
}

fn a_foreign_network_namespace_is_joined_again(t: &T) {
    let owner = owner(t);
    let mut bundle = quiet(t, COUNT);
    bundle.namespace("network", Some(&format!("/proc/{}/ns/net", owner.pid())));
    let container = started(t.container(&bundle));
    there_and_back(t, &container);
    assert_eq!(namespace(container.pid(), "net"), namespace(owner.pid(), "net"));
    container.force_delete();
    owner.force_delete();
}

fn a_foreign_pid_namespace_is_joined_again(t: &T) {
    let first = owner(t);
    let mut bundle = quiet(t, COUNT);
    bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", first.pid())));
    let mut container = started(t.container(&bundle));
    let images = images(t, "images");
    save(&container, &images, &[]).run().ok();
    assert_eq!(first.status(), "running");
    first.force_delete();
    // A new sandbox, in which the old pids are free.
    let second = owner(t);
    container.bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", second.pid())));
    quietly(restore(&container, &images, &[])).ok();
    assert_eq!(namespace(container.pid(), "pid"), namespace(second.pid(), "pid"));
    counts_beyond(t, &container, count(&container));
    container.force_delete();
    assert_eq!(second.status(), "running");
    second.force_delete();
}

fn foreign_ipc_and_uts_namespaces_are_joined(t: &T) {
    let owner = owner(t);
    let mut bundle = quiet(t, COUNT);
    bundle.set(json!({"hostname": null}));
    for (kind, name) in [("ipc", "ipc"), ("uts", "uts")] {
        bundle.namespace(kind, Some(&format!("/proc/{}/ns/{name}", owner.pid())));
    }
    let container = started(t.container(&bundle));
    there_and_back(t, &container);
    for kind in ["ipc", "uts"] {
        assert_eq!(namespace(container.pid(), kind), namespace(owner.pid(), kind), "{kind}");
    }
    container.force_delete();
    owner.force_delete();
}

fn limits_are_those_of_the_config(t: &T) {
    let container = running(t, COUNT, json!({"linux": {"resources": {"pids": {"limit": 41}}}}));
    let images = images(t, "images");
    save(&container, &images, &[]).run().ok();
    let changed = container.bundle.with(json!({"linux": {"resources": {"pids": {"limit": 43}}}}));
    changed.save();
    quietly(container.verb(&[
        "restore",
        "--detach",
        "--image-path",
        &images,
        "--bundle",
        &changed.dir.to_string_lossy(),
    ]))
    .ok();
    assert_eq!(container.cgroup_value("pids", "pids.max"), "43");
    assert!(container.verb(&["ps"]).run().ok().stdout.contains("sh"));
    container.force_delete();
}

fn another_cgroup_can_be_given(t: &T) {
    let container = running(t, COUNT, json!({}));
    let (images, before) = (images(t, "images"), container.cgroup_dir("pids"));
    save(&container, &images, &["--manage-cgroups-mode", "ignore"]).run().ok();
    assert!(!before.exists());
    let mut other = t.container(&container.bundle);
    let path = format!("{}/elsewhere", t.cgroup);
    other.bundle.set(json!({"linux": {"cgroupsPath": path}}));
    quietly(restore(&other, &images, &["--manage-cgroups-mode", "ignore"])).ok();
    let now = other.cgroup_dir("pids");
    assert!(now.ends_with("elsewhere") && now != before && !before.exists(), "{}", now.display());
    other.force_delete();
    assert!(!now.exists());
}

fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
}

fn hooks_run_for_the_restored_process(t: &T) {
    let container = running(t, COUNT, json!({}));
    let (images, said) = (images(t, "images"), t.path("said"));
    save(&container, &images, &[]).run().ok();
    let script = format!("cat >> '{}'; readlink /proc/self/ns/mnt >> '{}'", said.display(), said.display());
    let hooks = json!({"hooks": {"createRuntime": hook(&script)}});
    let mut container = container;
    container.bundle.set(hooks);
    quietly(restore(&container, &images, &[])).ok();
    let text = fs::read_to_string(&said).expect("the hook ran");
    let (state, namespace) = text.trim().rsplit_once('}').expect("a state and a namespace");
    let state: Value = serde_json::from_str(&format!("{state}}}")).expect("a state");
    assert_eq!(
        (state["id"].as_str(), state["pid"].as_i64()),
        (Some(&*container.id), Some(container.pid().into()))
    );
    // In the runtime's own namespaces, as for a new container.
    assert_eq!(namespace, procs::link("/proc/self/ns/mnt"));
    container.force_delete();
}

fn a_hook_that_fails_undoes_the_restore(t: &T) {
    let mut container = running(t, COUNT, json!({}));
    let images = images(t, "images");
    save(&container, &images, &[]).run().ok();
    container.bundle.set(json!({"hooks": {"createRuntime": hook("echo no >&2; exit 3")}}));
    let out = quietly(restore(&container, &images, &[])).fails();
    assert!(out.message().contains("createRuntime hook #0: /bin/sh exited with status 3"), "{out:?}");
    t.nothing_is_left(&container);
    let stood = count(&container);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(count(&container), stood);
}

fn a_pid_file_names_the_restored_process(t: &T) {
    let container = running(t, COUNT, json!({}));
    let (images, file) = (images(t, "images"), t.path("pid"));
    save(&container, &images, &[]).run().ok();
    quietly(restore(&container, &images, &["--pid-file", &file.to_string_lossy()])).ok();
    assert_eq!(fs::read_to_string(&file).expect("a pid file"), container.pid().to_string());
    container.force_delete();
}

fn monotonic_time_goes_on(t: &T) {
    let container = running(t, COUNT, json!({}));
    there_and_back(t, &container);
    let pid = container.pid();
    // An exec sees the clocks that the container has.
    let link = container.exec_sh("readlink /proc/1/ns/time; readlink /proc/self/ns/time");
    let (first, second) = link.trim().split_once('\n').expect("two links");
    assert_eq!(first, second);
    assert_eq!(first, procs::link(format!("/proc/{pid}/ns/time")));
    container.force_delete();
}

fn the_configuration_file_is_the_annotations(t: &T) {
    // Not the name that `quiet` writes to, where it has to.
    let file = t.path("annotated.conf");
    fs::write(&file, "network-lock skip\nlog-file other.log\n").expect("write");
    let container = running(t, COUNT, json!({"annotations": {"org.criu.config": file}}));
    let (images, work) = (images(t, "images"), t.make_dir("work"));
    let work = ["--work-path", &work.to_string_lossy()];
    let out = save(&container, &images, &work).run();
    if out.stderr.contains("it was killed by SIGSEGV") || out.log.contains("EOF") {
        container.force_delete();
        t.skip("this criu dies of a configuration file");
    }
    out.ok();
    quietly(restore(&container, &images, &work)).ok();
    assert!(t.path("work/other.log").exists() && !t.path("work/dump.log").exists());
    assert!(!t.path("images/dump.log").exists());
    container.force_delete();
}

fn memory_can_be_saved_beforehand(t: &T) {
    let container = running(t, COUNT, json!({}));
    let (before, after) = (images(t, "before"), images(t, "after"));
    let out = save(&container, &before, &["--pre-dump"]).run();
    assert_eq!(container.status(), "running");
    if out.code != Some(0) {
        assert!(out.message().to_lowercase().contains("criu is missing features"), "{out:?}");
        container.force_delete();
        t.skip("needs dirty memory tracking (CONFIG_MEM_SOFT_DIRTY)");
    }
    save(&container, &after, &["--parent-path", "../before"]).run().ok();
    assert!(t.path("after/parent").is_symlink());
    quietly(restore(&container, &after, &[])).ok();
    counts_beyond(t, &container, count(&container));
    container.force_delete();
}

/// A criu that runs beside the calls, until it ends or this goes.
struct Beside(std::process::Child);

impl Beside {
    fn start(t: &T, words: &[&str]) -> Beside {
        let criu =
            crate::harness::host::criu_folder().map_or_else(|| "criu".into(), |folder| folder.join("criu"));
        let log = File::create(t.path("beside.log")).expect("a log");
        let mut command = std::process::Command::new(criu);
        command
            .args(words)
            .stdin(std::process::Stdio::null())
            .stderr(log.try_clone().expect("a log"))
            .stdout(log);
        Beside(command.spawn().expect("start criu"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of this machine that nobody uses at the moment.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port().to_string()
}

/// Whether somebody listens, without a connection that would be taken for the one that is awaited.
fn is_listening(port: &str) -> bool {
    let port: u16 = port.parse().expect("a port");
    let wanted = format!(":{port:04X} 00000000:0000 0A ");
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    table.lines().any(|line| line.contains(&wanted))
}

fn memory_goes_to_a_page_server(t: &T) {
    let container = running(t, COUNT, json!({}));
    counts_beyond(t, &container, 2);
    let (path, port) = (images(t, "images"), free_port());
    t.make_dir("images");
    let words = ["page-server", "--images-dir", &path, "--address", "127.0.0.1", "--port", &port, "-v4"];
    let server = Beside::start(t, &words);
    assert!(procs::wait_until(t.seconds(10), || is_listening(&port)), "no page server");
    save(&container, &path, &["--page-server", &format!("127.0.0.1:{port}")]).run().ok();
    drop(server);
    let stood = count(&container);
    let pages = fs::read_dir(&path).expect("images").flatten();
    let pages = pages.filter(|entry| entry.file_name().to_string_lossy().starts_with("pages-"));
    assert!(pages.count() > 0, "the server has got no pages");
    quietly(restore(&container, &path, &[])).ok();
    counts_beyond(t, &container, stood);
    container.force_delete();
}

fn pages_are_moved_when_they_are_asked_for(t: &T) {
    let container = running(t, COUNT, json!({}));
    counts_beyond(t, &container, 2);
    let (path, port, ready) = (images(t, "images"), free_port(), t.path("ready"));
    let server = format!("127.0.0.1:{port}");
    let flags =
        ["--lazy-pages", "--page-server", &server, "--status-fd", "5", "--manage-cgroups-mode", "ignore"];
    let source = save(&container, &path, &flags).after(&format!("exec 5>{}", ready.display())).spawn();
    let told = || fs::metadata(&ready).is_ok_and(|metadata| metadata.len() > 0);
    assert!(procs::wait_until(t.seconds(20), told), "nothing was told by --status-fd");
    assert_eq!(fs::read(&ready).expect("what was told"), [0]);
    let words =
        ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port, "-D", &path, "-v4"];
    let _pages = Beside::start(t, &words);
    let socket = t.path("images/lazy-pages.socket");
    assert!(procs::wait_until(t.seconds(10), || socket.exists()), "no lazy-pages.socket");
    let mut other = t.container(&container.bundle);
    other.bundle.set(json!({"linux": {"cgroupsPath": other.cgroup}}));
    let stood = count(&container);
    let flags = ["--lazy-pages", "--work-path", &path, "--manage-cgroups-mode", "ignore"];
    let null = || File::options().write(true).open("/dev/null").expect("open /dev/null");
    let mut target = restore(&other, &path, &flags).within(40).spawn_with(null(), null());
    let mut source = source;
    procs::wait_until(t.seconds(40), || target.has_ended() || source.has_ended());
    if !target.has_ended() {
        // Who restores waits for pages that do not come.
        target.kill(Signal::SIGKILL);
        target.wait();
        let why = source.wait().fails().message();
        let want = if t.is_ours() { "Lazy pages transfer FAILED" } else { "criu failed: type DUMP" };
        assert!(why.contains(want), "{why}");
        other.force_delete();
        assert_eq!(container.status(), "running", "a save that fails changes nothing");
        counts_beyond(t, &container, count(&container));
        container.force_delete();
        t.skip(&format!("criu moves no pages here: {why}"));
    }
    target.wait().ok();
    counts_beyond(t, &other, stood);
    source.wait().ok();
    other.force_delete();
    assert!(!container.exists());
}

/// Saves without a flag, which must fail and change nothing, then with it; and restores.
#[track_caller]
fn only_with(t: &T, container: &Container, flag: &str, kept: &[&str]) {
    save(container, &images(t, "without"), &[]).run().fails();
    assert_eq!(container.status(), "running", "a save that fails changes nothing");
    let path = images(t, "with");
    save(container, &path, &[flag]).run().ok();
    quietly(restore(container, &path, kept)).ok();
}

fn open_connections_go_on_where_asked(t: &T) {
    let script = "nc -ll -p 7 -e cat & until cat /proc/net/tcp* | grep -q ':0007 .* 0A '; do sleep 0.1; done
        while :; do echo x; sleep 0.1; done | nc 127.0.0.1 7 > /got";
    // In a network that stays: that of a container is made anew without addresses, and they are others' to give (hooks, say).
    let owner = owner(t);
    let mut bundle = quiet(t, script);
    bundle.namespace("network", Some(&format!("/proc/{}/ns/net", owner.pid())));
    let container = started(t.container(&bundle));
    let got = || fs::metadata(container.bundle.file("/got")).map_or(0, |metadata| metadata.len());
    assert!(procs::wait_until(t.seconds(10), || got() > 4), "no connection");
    only_with(t, &container, "--tcp-established", &["--tcp-established"]);
    let stood = got();
    assert!(procs::wait_until(t.seconds(10), || got() > stood + 4), "stands at {stood}");
    container.force_delete();
    owner.force_delete();
}

/// What the pages of images take up on the disk, in bytes.
fn space_of_pages(path: &str) -> u64 {
    let pages = fs::read_dir(path).expect("images").flatten();
    let pages = pages.filter(|entry| entry.file_name().to_string_lossy().starts_with("pages-"));
    pages.map(|entry| entry.metadata().expect("an image").blocks() * 512).sum()
}

fn images_shrink_as_they_are_restored_where_asked(t: &T) {
    let container = running(t, COUNT, json!({}));
    let path = images(t, "images");
    for (flags, shrinks) in [(&[][..], false), (&["--auto-dedup"], true)] {
        counts_beyond(t, &container, count(&container));
        save(&container, &path, &[]).run().ok();
        let (stood, before) = (count(&container), space_of_pages(&path));
        quietly(restore(&container, &path, flags)).ok();
        counts_beyond(t, &container, stood);
        let after = space_of_pages(&path);
        assert!((after < before) == shrinks, "{flags:?}: {before} bytes, then {after}");
        fs::remove_dir_all(&path).expect("remove the images");
    }
    container.force_delete();
}

fn earlier_images_lose_what_newer_ones_have_where_asked(t: &T) {
    let container = running(t, COUNT, json!({}));
    let (before, after) = (images(t, "before"), images(t, "after"));
    let out = save(&container, &before, &["--pre-dump"]).run();
    if out.code != Some(0) {
        assert!(out.message().to_lowercase().contains("criu is missing features"), "{out:?}");
        container.force_delete();
        t.skip("needs dirty memory tracking (CONFIG_MEM_SOFT_DIRTY)");
    }
    counts_beyond(t, &container, count(&container));
    let space = space_of_pages(&before);
    save(&container, &after, &["--parent-path", "../before", "--auto-dedup"]).run().ok();
    assert!(space_of_pages(&before) < space, "as large as before: {space}");
    quietly(restore(&container, &after, &[])).ok();
    counts_beyond(t, &container, count(&container));
    container.force_delete();
}

fn connections_that_wait_are_left_out_where_asked(t: &T) {
    let owner = owner(t);
    let mut bundle = quiet(t, &format!("nc -ll -p 7 -e cat & {COUNT}"));
    bundle.namespace("network", Some(&format!("/proc/{}/ns/net", owner.pid())));
    let container = started(t.container(&bundle));
    let sockets = || owner.exec_sh("cat /proc/net/tcp*");
    let has = |state: &str| sockets().lines().any(|line| line.contains(":0007 ") && line.contains(state));
    assert!(procs::wait_until(t.seconds(10), || has(" 0A ")), "nobody listens");
    // Who is paused takes no connection; the client is not among what is saved.
    container.verb(&["pause"]).run().ok();
    owner.exec_sh("{ { echo early; sleep 1000; } | nc 127.0.0.1 7; } <&- >/dev/null 2>&1 &");
    assert!(procs::wait_until(t.seconds(10), || has(" 01 ")), "no connection");
    save(&container, &images(t, "without"), &[]).run().fails();
    assert_eq!(container.status(), "paused", "a save that fails changes nothing");
    let path = images(t, "with");
    save(&container, &path, &["--tcp-skip-in-flight"]).run().ok();
    quietly(restore(&container, &path, &[])).ok();
    assert_eq!(container.status(), "running");
    counts_beyond(t, &container, count(&container));
    assert_eq!(owner.exec_sh("echo text | timeout 10 nc 127.0.0.1 7"), "text\n");
    container.force_delete();
    owner.force_delete();
}

fn file_locks_are_kept_where_asked(t: &T) {
    let bundle = quiet(t, "").args(&["/bin/probe", "lock", "/lock"]);
    bundle.add_probe(t);
    bundle.write("/lock", "");
    let container = started(t.container(&bundle));
    let is_locked = || container.exec(&["/bin/probe", "try-lock", "/lock"]).code == Some(1);
    assert!(procs::wait_until(t.seconds(10), is_locked), "no lock");
    only_with(t, &container, "--file-locks", &["--file-locks"]);
    assert!(is_locked(), "the lock is free");
    container.force_delete();
}

fn a_file_without_its_name_is_kept_where_asked(t: &T) {
    let script = format!("echo text > /a; ln /a /b; exec 9</a; rm /a; {COUNT}");
    let container = running(t, &script, json!({}));
    counts_beyond(t, &container, 0);
    only_with(t, &container, "--link-remap", &[]);
    assert_eq!(container.exec_sh("cat /proc/1/fd/9"), "text\n");
    container.force_delete();
}

fn a_user_namespace_comes_back(t: &T) {
    let mut bundle = quiet(t, COUNT);
    bundle.user_namespace();
    let container = started(t.container(&bundle));
    counts_beyond(t, &container, 2);
    let map = fs::read_to_string(format!("/proc/{}/uid_map", container.pid())).expect("uid_map");
    let out = save(&container, &images(t, "images"), &[]).run();
    if out.code != Some(0) {
        assert_eq!(container.status(), "running", "a save that fails changes nothing");
        counts_beyond(t, &container, count(&container));
        container.force_delete();
        t.skip(&format!("criu does not save this user namespace: {}", out.message()));
    }
    let stood = count(&container);
    let back = quietly(restore(&container, &images(t, "images"), &[]));
    let log = fs::read_to_string(t.path("images/restore.log")).unwrap_or_default();
    if back.code != Some(0) && log.contains("Permission denied") {
        assert!(!t.is_ours() || back.message().contains("Permission denied"), "{back:?}");
        assert!(!container.exists(), "a restore that fails leaves nothing");
        t.nothing_is_left(&container);
        t.skip("criu opens its images as root of the user namespace, who may not read them");
    }
    back.ok();
    counts_beyond(t, &container, stood);
    assert_eq!(fs::read_to_string(format!("/proc/{}/uid_map", container.pid())).expect("uid_map"), map);
    assert_eq!(container.exec_sh("id -u"), "0\n");
    container.force_delete();
}

fn a_session_from_outside_is_taken_where_asked(t: &T) {
    // Without a pid namespace of its own the first process is in a session of the container, but its terminal is not.
    let container = running(t, COUNT, json!({}));
    counts_beyond(t, &container, 0);
    let path = images(t, "images");
    save(&container, &path, &["--shell-job", "--ext-unix-sk"]).run().ok();
    let stood = count(&container);
    quietly(restore(&container, &path, &["--shell-job", "--ext-unix-sk"])).ok();
    counts_beyond(t, &container, stood);
    container.force_delete();
}

fn an_apparmor_profile_comes_back(t: &T) {
    let label = |container: &Container| {
        fs::read_to_string(format!("/proc/{}/attr/apparmor/current", container.pid())).expect("a label")
    };
    let profiles = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    let Some(profile) = profiles.lines().find_map(|line| line.strip_suffix(" (enforce)")) else {
        t.skip("no AppArmor profile is loaded")
    };
    if !profiles.contains("docker-default (enforce)") {
        t.skip(&format!("no profile for containers is loaded, only such as {profile}"));
    }
    let container = running(t, COUNT, json!({"process": {"apparmorProfile": "docker-default"}}));
    counts_beyond(t, &container, 2);
    assert_eq!(label(&container), "docker-default (enforce)\n");
    there_and_back(t, &container);
    assert_eq!(label(&container), "docker-default (enforce)\n");
    counts_beyond(t, &container, count(&container));
    container.force_delete();
}

fn cgroups_are_left_alone_where_asked(t: &T) {
    let container = running(t, COUNT, json!({}));
    counts_beyond(t, &container, 0);
    for mode in ["ignore", "soft", "full", "strict"] {
        let path = images(t, mode);
        save(&container, &path, &["--manage-cgroups-mode", mode]).run().ok();
        let stood = count(&container);
        // strict wants what it has saved to be there, which the runtime has removed.
        let back = if mode == "strict" { "soft" } else { mode };
        quietly(restore(&container, &path, &["--manage-cgroups-mode", back])).ok();
        counts_beyond(t, &container, stood);
        let controller = if t.host.cgroup_v2 { "" } else { "pids" };
        assert!(container.cgroup_dir(controller).ends_with(&container.id), "{mode}");
    }
    container.force_delete();
}

fn a_user_cannot_save(t: &T) {
    t.as_user("");
    let mut bundle = quiet(t, COUNT);
    bundle.rootless();
    let container = t.container(&bundle);
    quietly(container.make(&["run", "--detach"])).ok();
    counts_beyond(t, &container, 0);
    let out = save(&container, &images(t, "images"), &[]).run().fails();
    assert!(!out.message().is_empty());
    assert_eq!(container.status(), "running");
    counts_beyond(t, &container, count(&container));
    container.force_delete();
}

fn what_cannot_be_saved_goes_on(t: &T) {
    let file: PathBuf = t.path("out");
    let container = t.container(&quiet(t, COUNT));
    let out = || File::create(&file).expect("make a file");
    container.make(&["run", "--detach"]).spawn_with(out(), out()).wait().ok();
    counts_beyond(t, &container, 1);
    let out = save(&container, &images(t, "images"), &[]).run().fails();
    if t.is_ours() {
        let text = out.message();
        let log = t.path("images/dump.log");
        assert!(text.contains("criu failed: type DUMP") && text.contains("Error (criu/"), "{text}");
        assert!(text.ends_with(&format!("log file {}", log.display())), "{text}");
        assert!(log.exists());
    }
    assert_eq!(container.status(), "running");
    counts_beyond(t, &container, count(&container));
    container.force_delete();
}

fn a_restore_without_images_leaves_nothing(t: &T) {
    let container = t.container(&quiet(t, COUNT));
    let out = quietly(restore(&container, &images(t, "nowhere"), &[])).fails();
    if t.is_ours() {
        let path = t.path("nowhere");
        assert_eq!(
            out.message(),
            format!("--image-path: open {}: no such file or directory", path.display())
        );
    }
    t.nothing_is_left(&container);
    let path = t.make_dir("empty").to_string_lossy().into_owned();
    let out = quietly(restore(&container, &path, &[])).fails();
    assert!(out.message().contains("descriptors.json: no such file or directory"), "{out:?}");
    t.nothing_is_left(&container);
}

fn a_restore_of_damaged_images_leaves_nothing(t: &T) {
    let container = running(t, COUNT, json!({}));
    let images = images(t, "images");
    save(&container, &images, &[]).run().ok();
    // CRIU never ends where an image of a process is cut short.
    fs::write(t.path("images/inventory.img"), "no image").expect("damage it");
    let out = quietly(restore(&container, &images, &[])).fails();
    assert!(out.message().contains("criu failed"), "{out:?}");
    t.nothing_is_left(&container);
    if t.is_ours() {
        assert!(out.message().ends_with("images/restore.log"), "{out:?}");
    }
}

fn links_in_a_folder_of_images_are_not_followed(t: &T) {
    let container = running(t, COUNT, json!({}));
    let (images, secret) = (images(t, "images"), t.path("secret"));
    fs::write(&secret, "[\"pipe:[1]\",\"Error (x.c:1): secret\",\"\"]").expect("write");
    save(&container, &images, &[]).run().ok();
    let log = t.path("images/restore.log");
    std::os::unix::fs::symlink(&secret, &log).expect("link");
    let out = quietly(restore(&container, &images, &[])).fails();
    assert_eq!(out.message(), format!("{} is a symbolic link: CRIU's log goes there", log.display()));
    fs::remove_file(&log).expect("remove");
    let descriptors = t.path("images/descriptors.json");
    fs::remove_file(&descriptors).expect("remove");
    std::os::unix::fs::symlink(&secret, &descriptors).expect("link");
    let out = quietly(restore(&container, &images, &[])).fails();
    assert!(out.message().contains("descriptors.json: too many levels of symbolic links"), "{out:?}");
    assert!(fs::read_to_string(&secret).expect("read").contains("secret"));
    t.nothing_is_left(&container);
}

fn an_id_in_use_is_not_restored(t: &T) {
    let container = running(t, COUNT, json!({}));
    let images = images(t, "images");
    save(&container, &images, &["--leave-running"]).run().ok();
    let pid = container.pid();
    let out = quietly(restore(&container, &images, &[])).fails();
    assert!(out.message().contains("container with given ID already exists"), "{out:?}");
    assert_eq!((container.pid(), container.status().as_str()), (pid, "running"));
    container.force_delete();
}

fn a_container_that_does_not_run_is_not_saved(t: &T) {
    let container = t.container(&t.bundle().args(&["true"]));
    container.create().ok();
    let images = images(t, "images");
    let out = save(&container, &images, &[]).run().fails();
    assert!(out.message().contains("ontainer cannot be checkpointed in created state"), "{out:?}");
    container.start().ok();
    container.await_stop();
    let out = save(&container, &images, &[]).run().fails();
    assert!(out.message().contains("ontainer cannot be checkpointed in stopped state"), "{out:?}");
    container.delete().ok();
    let out = save(&container, &images, &[]).run().fails();
    assert!(out.message().contains("does not exist"), "{out:?}");
}

fn flags_that_make_no_sense_are_refused(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let path = images(t, "images");
    for (flags, words) in [
        (&["--parent-path", "/tmp"][..], "--parent-path must be relative"),
        (&["--parent-path", "../nowhere"], "invalid --parent-path"),
        (&["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT to specify page server"),
        (&["--page-server", "host:many"], "Invalid port number"),
        (&["--manage-cgroups-mode", "hard"], "nvalid manage-cgroups-mode value"),
        (&["--empty-ns", "ipc"], "namespace \"ipc\" is not supported"),
    ] {
        let out = save(&container, &path, flags).run().fails();
        assert!(out.message().contains(words), "{flags:?}: {out:?}");
    }
    assert_eq!(container.status(), "running");
    container.force_delete();
}

fn without_criu_nothing_happens(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    let empty = t.make_dir("empty").to_string_lossy().into_owned();
    let words = "exec: \"criu\": executable file not found in $PATH: checkpoint and restore need it";
    let out = save(&container, &images(t, "images"), &[]).env("PATH", &empty).run().fails();
    assert_eq!(out.message(), words);
    assert_eq!(container.status(), "running");
    container.force_delete();
    fs::write(t.path("images/descriptors.json"), "[]").expect("write");
    let out = quietly(restore(&container, &images(t, "images"), &[]).env("PATH", &empty)).fails();
    assert_eq!(out.message(), words);
    t.nothing_is_left(&container);
}
