//! config.md, "POSIX-platform Hooks": when, where and with what each kind runs, and what its failure does.

use crate::harness::{Bundle, Container, Need, T, Test, procs};
use crate::{always, below, test};
use serde_json::{Value, json};
use std::path::Path;

pub const TESTS: &[Test] = &[
    test!(hooks_run_in_the_lifecycles_order).runc_fails(below!("1.5", "create runs poststart hooks")),
    test!(hooks_of_a_kind_run_in_their_order),
    test!(every_hook_reads_the_state),
    test!(hooks_of_the_runtime_are_in_its_namespaces),
    test!(a_create_container_hook_is_in_the_containers_namespaces),
    test!(a_start_container_hook_is_in_the_container),
    test!(a_hook_has_its_arguments_and_environment),
    test!(a_start_container_hook_has_the_programs_environment_unless_it_has_its_own)
        .runc_fails(below!("1.3", "it has none")),
    test!(a_hook_without_arguments_has_its_path),
    test!(a_hook_may_change_the_containers_files),
    test!(a_hook_may_change_the_containers_mounts),
    test!(a_hook_may_change_the_containers_network),
    test!(a_failing_prestart_hook_fails_create),
    test!(a_failing_create_runtime_hook_fails_create),
    test!(a_failing_create_container_hook_fails_create),
    test!(a_failing_start_container_hook_fails_start)
        .runc_fails(always!("start has returned by the time that the hook runs")),
    test!(a_failing_poststart_hook_of_a_run_leaves_nothing)
        .runc_fails(below!("1.5", "create runs poststart hooks")),
    test!(a_failing_poststart_hook_ends_the_container)
        .runc_fails(below!("1.5", "create runs poststart hooks")),
    test!(a_failing_poststop_hook_is_a_warning).runc_fails(always!("it is an error")),
    test!(hooks_behind_a_failing_one_do_not_run),
    test!(a_hook_that_is_not_there_fails_create),
    test!(a_hook_that_takes_too_long_is_ended).seconds(90),
    test!(a_large_state_reaches_a_hook_that_writes_first),
    test!(a_hook_that_does_not_read_a_large_state_has_its_timeout_all_the_same),
    test!(an_annotation_bounds_hooks_without_a_timeout)
        .needs(&[Need::Ours("the annotation is ours")])
        .seconds(90),
    test!(a_hook_killed_by_a_signal_fails_create),
    test!(the_error_has_the_hooks_output),
    test!(the_output_of_hooks_goes_where_annotations_say).needs(ANNOTATED),
    test!(a_file_for_output_that_cannot_be_opened_is_an_error).needs(ANNOTATED),
    test!(a_poststart_hook_runs_after_the_program)
        .runc_fails(below!("1.5", "runs it before the program's execve")),
    test!(a_poststop_hook_runs_after_the_containers_end),
    test!(poststop_hooks_run_after_a_failing_create)
        .needs(&[Need::Ours("the specification leaves it open; runc's versions differ")]),
    test!(hooks_of_a_foreground_run)
        .runc_fails(below!("1.5", "poststart hooks run before those of startContainer")),
    test!(a_hook_that_leaves_a_child_with_its_output_does_not_hang_create)
        .runc_fails(always!("waits until the last of the hook's pipe is closed")),
    test!(hooks_in_a_user_namespace),
];

const ANNOTATED: &[Need] = &[Need::Ours("the annotation is crun's")];

/// A hook that is a script of the host's.
fn script(text: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]})
}

/// A directory that the host and the container see: the container as `/log`.
fn log_dir(t: &T, bundle: &mut Bundle) -> std::path::PathBuf {
    let dir = t.make_dir("log");
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // Whoever writes first need not be who writes later: ids differ in a user namespace.
    std::fs::write(dir.join("order"), "").unwrap();
    std::fs::set_permissions(dir.join("order"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    bundle.mount(json!({"destination": "/log", "type": "bind", "source": dir, "options": ["rbind"]}));
    dir
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// One hook of every kind that writes its kind to `order` and its stdin to a file of its own.
fn every_kind(dir: &Path) -> Value {
    let mut hooks = json!({});
    for kind in KINDS {
        let dir = if kind == "startContainer" { Path::new("/log") } else { dir };
        let text = format!("cat > {0}/{kind}; echo {kind} >> {0}/order", dir.display());
        hooks[kind] = json!([script(&text)]);
    }
    hooks
}

fn hooks_run_in_the_lifecycles_order(t: &T) {
    let mut bundle = t.bundle().script("echo program >> /log/order; sleep 1000");
    let dir = log_dir(t, &mut bundle);
    bundle.set(json!({"hooks": every_kind(&dir)}));
    let order = || read(dir.join("order"));
    let container = t.container(&bundle);
    container.create().ok();
    assert_eq!(order(), "prestart\ncreateRuntime\ncreateContainer\n");
    container.start().ok();
    procs::wait_until(t.seconds(5), || order().lines().count() == 6);
    let front = "prestart\ncreateRuntime\ncreateContainer\nstartContainer\n";
    let text = order();
    assert!(text.starts_with(front), "{text}");
    let mut late: Vec<&str> = text[front.len()..].lines().collect();
    late.sort_unstable();
    // The program runs while poststart hooks do.
    assert_eq!(late, ["poststart", "program"]);
    container.kill("KILL").ok();
    container.await_stop();
    assert!(!order().contains("poststop"));
    container.delete().ok();
    assert!(order().ends_with("poststop\n"), "{}", order());
}

fn hooks_of_a_kind_run_in_their_order(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let hook = |number: u32| script(&format!("echo {number} >> {}/order", dir.display()));
    bundle.set(
        json!({"hooks": {"createRuntime": [hook(1), hook(2), hook(3)], "poststop": [hook(4), hook(5)]}}),
    );
    t.sh(&bundle, "true");
    assert_eq!(read(dir.join("order")), "1\n2\n3\n4\n5\n");
}

fn every_hook_reads_the_state(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    let dir = log_dir(t, &mut bundle);
    bundle.set(json!({"hooks": every_kind(&dir), "annotations": {"some.key": "some value"}}));
    let container = t.container(&bundle);
    container.launch();
    let pid = container.pid();
    procs::wait_until(t.seconds(5), || dir.join("poststart").exists());
    container.force_delete();
    for (kind, statuses) in [
        ("prestart", ["created", "creating"]),
        ("createRuntime", ["creating", "creating"]),
        ("createContainer", ["creating", "creating"]),
        ("startContainer", ["created", "created"]),
        // runc below 1.5 runs them in create.
        ("poststart", ["running", if t.is_ours() { "running" } else { "created" }]),
        ("poststop", ["stopped", "stopped"]),
    ] {
        let text = read(dir.join(kind));
        let state: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{kind}: {error}: {text:?}"));
        assert_eq!(state["id"], json!(container.id), "{kind}");
        assert_eq!(state["bundle"], json!(container.bundle.dir), "{kind}");
        assert_eq!(state["annotations"]["some.key"], "some value", "{kind}");
        assert!(
            state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")),
            "{kind}: {state}"
        );
        assert!(statuses.contains(&state["status"].as_str().unwrap()), "{kind}: {state}");
        if ["prestart", "createRuntime", "poststart"].contains(&kind) {
            assert_eq!(state["pid"], json!(pid), "{kind}");
        }
    }
}

fn namespace(kind: &str, file: &str, bundle: &mut Bundle, t: &T) -> String {
    let dir = log_dir(t, bundle);
    let at = if kind == "startContainer" { Path::new("/log") } else { &dir };
    let text = format!("readlink /proc/self/ns/{file} > {}/ns", at.display());
    bundle.set(json!({"hooks": {kind: [script(&text)]}}));
    t.sh(bundle, "true");
    read(dir.join("ns")).trim().to_owned()
}

fn hooks_of_the_runtime_are_in_its_namespaces(t: &T) {
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        for file in ["mnt", "net", "uts", "pid"] {
            let seen = namespace(kind, file, &mut t.bundle(), t);
            assert_eq!(seen, procs::link(format!("/proc/self/ns/{file}")), "{kind}");
        }
    }
}

fn a_create_container_hook_is_in_the_containers_namespaces(t: &T) {
    for file in ["mnt", "net", "uts"] {
        let seen = namespace("createContainer", file, &mut t.bundle(), t);
        assert!(!seen.is_empty() && seen != procs::link(format!("/proc/self/ns/{file}")), "{file}: {seen}");
    }
    // The host's files are still there, the container's are where the bundle is.
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let text = format!(
        "test -d {0} && test -c {0}/dev/null && echo in > {1}/seen",
        bundle.root().display(),
        dir.display()
    );
    bundle.set(json!({"hooks": {"createContainer": [script(&text)]}}));
    t.sh(&bundle, "true");
    assert_eq!(read(dir.join("seen")), "in\n");
}

fn a_start_container_hook_is_in_the_container(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    bundle.write_program(
        "/only/inside",
        "#!/bin/sh\n(pwd; id -u; hostname; grep CapEff /proc/self/status) > /log/seen",
    );
    bundle.set(json!({"hooks": {"startContainer": [{"path": "/only/inside"}]}, "hostname": "inside"}));
    t.sh(&bundle, "true");
    let seen = read(dir.join("seen"));
    assert!(seen.starts_with("/\n0\ninside\n"), "{seen}");
}

fn a_hook_has_its_arguments_and_environment(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let file = dir.join("seen");
    let text = format!(
        "(echo \"$0|$1|$2\"; env | sort | grep -v ^PWD= | grep -v ^SHLVL= | grep -v ^_=) > {}",
        file.display()
    );
    let hook =
        json!({"path": "/bin/sh", "args": ["sh", "-c", text, "zero", "a b", ""], "env": ["A=1", "B=x y"]});
    bundle.set(json!({"hooks": {"createRuntime": [hook]}}));
    t.sh(&bundle, "true");
    assert_eq!(read(&file), "zero|a b|\nA=1\nB=x y\n");
}

fn a_start_container_hook_has_the_programs_environment_unless_it_has_its_own(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let says =
        |file: &str| json!(["sh", "-c", format!("echo \"$OF_THE_PROGRAM|$OF_THE_HOOK\" > /log/{file}")]);
    let hooks = json!([
        {"path": "/bin/sh", "args": says("without")},
        {"path": "/bin/sh", "args": says("with"), "env": ["OF_THE_HOOK=1"]}
    ]);
    bundle.set(
        json!({"hooks": {"startContainer": hooks}, "process": {"env": ["PATH=/bin", "OF_THE_PROGRAM=2"]}}),
    );
    t.sh(&bundle, "true");
    assert_eq!((read(dir.join("without")), read(dir.join("with"))), ("2|\n".into(), "|1\n".into()));
}

fn a_hook_without_arguments_has_its_path(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let hook = t.path("hook");
    std::fs::write(&hook, format!("#!/bin/sh\necho $# > {}/seen\n", dir.display())).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.set(json!({"hooks": {"createRuntime": [{"path": hook, "env": ["PATH=/bin"]}]}}));
    t.sh(&bundle, "true");
    assert_eq!(read(dir.join("seen")), "0\n");
}

fn a_hook_may_change_the_containers_files(t: &T) {
    let mut bundle = t.bundle();
    let text = format!("echo text > {}/from-hook", bundle.root().display());
    bundle.set(json!({"hooks": {"createRuntime": [script(&text)]}}));
    assert_eq!(t.sh(&bundle, "cat /from-hook"), "text\n");
}

fn a_hook_may_change_the_containers_mounts(t: &T) {
    let mut bundle = t.bundle();
    bundle.make_dir("/late");
    let root = bundle.root();
    let text = format!("mount -t tmpfs late {0}/late && echo text > {0}/late/file", root.display());
    bundle.set(json!({"hooks": {"createContainer": [script(&text)]}}));
    assert_eq!(t.sh(&bundle, "cat /late/file"), "text\n");
    assert!(!root.join("late/file").exists());
}

fn a_hook_may_change_the_containers_network(t: &T) {
    let mut bundle = t.bundle();
    let text = "pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'); \
                /bin/busybox nsenter -t $pid -n /bin/busybox ip addr add 10.9.8.7/32 dev lo";
    bundle.set(json!({"hooks": {"createRuntime": [script(text)]}}));
    assert!(t.sh(&bundle, "ip addr show dev lo").contains("10.9.8.7/32"));
}

fn failing(t: &T, kind: &str) -> (Bundle, std::path::PathBuf) {
    let mut bundle = t.bundle().script("echo program > /log/program; sleep 1000");
    let dir = log_dir(t, &mut bundle);
    bundle.set(json!({"hooks": {kind: [script("echo bad luck >&2; exit 3")]}}));
    (bundle, dir)
}

fn fails_create(t: &T, kind: &str) {
    let (bundle, _) = failing(t, kind);
    let message = t.refused(&bundle);
    assert!(
        message.contains("hook") && message.contains('3') && (!t.is_ours() || message.contains(kind)),
        "{message}"
    );
}

fn a_failing_prestart_hook_fails_create(t: &T) {
    fails_create(t, "prestart");
}

fn a_failing_create_runtime_hook_fails_create(t: &T) {
    fails_create(t, "createRuntime");
}

fn a_failing_create_container_hook_fails_create(t: &T) {
    fails_create(t, "createContainer");
}

fn a_failing_start_container_hook_fails_start(t: &T) {
    let (bundle, dir) = failing(t, "startContainer");
    let container = t.container(&bundle);
    container.create().ok();
    let out = container.start().fails();
    assert!(out.message().contains("startContainer"), "{}", out.message());
    container.await_stop();
    assert!(!dir.join("program").exists());
    container.delete().ok();
}

fn a_failing_poststart_hook_ends_the_container(t: &T) {
    let (bundle, _) = failing(t, "poststart");
    let container = t.container(&bundle);
    container.create().ok();
    let out = container.start().fails();
    assert!(out.message().contains("poststart"), "{}", out.message());
    container.await_stop();
    container.delete().ok();
}

fn a_failing_poststart_hook_of_a_run_leaves_nothing(t: &T) {
    let mut bundle = t.bundle().script("sleep 1000 & sleep 1000 & echo > /log/ready; wait");
    let ready = log_dir(t, &mut bundle).join("ready");
    let until_ready = format!("until [ -e {} ]; do sleep 0.01; done; exit 3", ready.display());
    bundle.set(json!({"hooks": {"poststart": [script(&until_ready)]}}));
    // Nobody but us ends what it has started.
    bundle.without_namespace("pid");
    let container = t.container(&bundle);
    let out = container.run().fails();
    assert!(out.message().contains("poststart"), "{}", out.message());
    t.nothing_is_left(&container);
}

fn a_failing_poststop_hook_is_a_warning(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let second = script(&format!("echo second > {}/second", dir.display()));
    bundle.set(json!({"hooks": {"poststop": [script("exit 3"), second]}}));
    let container = t.container(&bundle.args(&["true"]));
    container.launch();
    container.await_stop();
    let out = container.delete().ok();
    assert!(out.warnings().iter().any(|line| line.contains("hook")), "{out:?}");
    // The specification has the others run all the same.
    assert_eq!(read(dir.join("second")), "second\n");
    t.nothing_is_left(&container);
}

fn hooks_behind_a_failing_one_do_not_run(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let second = script(&format!("echo second > {}/second", dir.display()));
    bundle.set(json!({"hooks": {"createRuntime": [script("exit 3"), second]}}));
    t.refused(&bundle);
    assert!(!dir.join("second").exists());
}

fn a_hook_that_is_not_there_fails_create(t: &T) {
    let bundle = t.bundle().with(json!({"hooks": {"createRuntime": [{"path": "/no/such/hook"}]}}));
    let message = t.refused(&bundle);
    assert!(message.contains("/no/such/hook") && message.contains("no such file or directory"), "{message}");
    let bundle = t.bundle().with(json!({"hooks": {"createContainer": [{"path": "/no/such/hook"}]}}));
    let message = t.refused(&bundle);
    assert!(message.contains("no such file or directory"), "{message}");
}

fn a_hook_that_takes_too_long_is_ended(t: &T) {
    for kind in ["createRuntime", "createContainer"] {
        let mut hook = script("exec sleep 1000");
        hook["timeout"] = json!(1);
        let message = t.refused(&t.bundle().with(json!({"hooks": {kind: [hook]}})));
        assert!(message.contains("timeout"), "{kind}: {message}");
    }
}

fn a_hook_killed_by_a_signal_fails_create(t: &T) {
    let bundle = t.bundle().with(json!({"hooks": {"createRuntime": [script("kill -9 $$")]}}));
    let message = t.refused(&bundle);
    assert!(message.contains("kill") || message.contains("KILL"), "{message}");
}

fn the_error_has_the_hooks_output(t: &T) {
    let (bundle, _) = failing(t, "createRuntime");
    assert!(t.refused(&bundle).contains("bad luck"));
}

fn a_poststart_hook_runs_after_the_program(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    let dir = log_dir(t, &mut bundle);
    let text = format!(
        "pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'); tr '\\0' ' ' < /proc/$pid/cmdline > {}/seen",
        dir.display()
    );
    bundle.set(json!({"hooks": {"poststart": [script(&text)]}}));
    let container = t.container(&bundle);
    container.launch();
    assert_eq!(read(dir.join("seen")), "sleep 1000 ");
    container.force_delete();
}

fn a_poststop_hook_runs_after_the_containers_end(t: &T) {
    let mut bundle = t.bundle().args(&["sleep", "1000"]);
    let dir = log_dir(t, &mut bundle);
    bundle.set(json!({"hooks": {"poststop": [script(&format!("echo ran >> {}/seen", dir.display()))]}}));
    let container = t.container(&bundle);
    container.launch();
    container.force_delete();
    assert_eq!(read(dir.join("seen")), "ran\n");
    let container = t.container(&bundle);
    container.create().ok();
    container.force_delete();
    assert_eq!(read(dir.join("seen")), "ran\nran\n");
}

fn poststop_hooks_run_after_a_failing_create(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let stop = script(&format!("echo ran >> {}/seen", dir.display()));
    bundle.set(json!({"hooks": {"createRuntime": [script("exit 3")], "poststop": [stop]}}));
    t.refused(&bundle);
    assert_eq!(read(dir.join("seen")), "ran\n");
}

fn hooks_of_a_foreground_run(t: &T) {
    let mut bundle = t.bundle().args(&["true"]);
    let dir = log_dir(t, &mut bundle);
    bundle.set(json!({"hooks": every_kind(&dir)}));
    t.run(&bundle, &["true"]).ok();
    let order = read(dir.join("order"));
    assert_eq!(order, "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npoststart\npoststop\n");
}

fn a_hook_that_leaves_a_child_with_its_output_does_not_hang_create(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let hook = script("sleep 1000 & echo $! > /dev/null");
    let container: Container = t.container(&bundle.with(json!({"hooks": {"createRuntime": [hook]}})));
    let out = container.make(&["create"]).within(5).run();
    // The hook's child may still be on its way to its program.
    assert!(procs::wait_until(t.seconds(10), || {
        let all = procs::descendants(nix::unistd::getppid().as_raw()).into_iter();
        let child = all
            .into_iter()
            .find(|pid| procs::command_line(*pid).ends_with("sleep 1000") && *pid != container.pid());
        child.inspect(|pid| procs::end(*pid)).is_some()
    }));
    out.ok();
    container.force_delete();
}

fn hooks_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle().args(&["true"]);
    bundle.user_namespace();
    let dir = log_dir(t, &mut bundle);
    bundle.set(json!({"hooks": every_kind(&dir)}));
    t.run(&bundle, &["true"]).ok();
    let mut order: Vec<String> = read(dir.join("order")).lines().map(str::to_owned).collect();
    order.sort();
    let mut want = KINDS;
    want.sort_unstable();
    assert_eq!(order, want);
}

/// Annotations for files of hooks' output.
fn outputs(stdout: &Path, stderr: &Path) -> Value {
    json!({"run.oci.hooks.stdout": stdout, "run.oci.hooks.stderr": stderr})
}

fn the_output_of_hooks_goes_where_annotations_say(t: &T) {
    for user_namespace in [false, true] {
        let mut bundle = t.bundle().args(&["sleep", "1000"]);
        if user_namespace {
            bundle.user_namespace();
        }
        let mut hooks = json!({});
        for kind in KINDS {
            // What runs in the container gets a pipe, not the host's file.
            let file = format!(
                "echo {kind}; readlink /proc/self/fd/1 | grep -q pipe && echo pipe; echo {kind} again >&2"
            );
            hooks[kind] = json!([script(if kind == "startContainer" {
                &file
            } else {
                file.split("; readlink").next().unwrap()
            })]);
        }
        let (out, err) = (t.path(&format!("out{user_namespace}")), t.path(&format!("err{user_namespace}")));
        hooks["createContainer"] = json!([script("echo createContainer; echo aside >&2")]);
        bundle.set(json!({"hooks": hooks, "annotations": outputs(&out, &err)}));
        let container = t.container(&bundle);
        container.launch();
        container.force_delete();
        let lines = "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npipe\npoststart\npoststop\n";
        assert_eq!(read(&out), lines);
        assert_eq!(read(&err), "aside\nstartContainer again\n");
        // Once more, behind what is there; one file for both, and the error has the output of what runs inside all the same.
        bundle.set(json!({"hooks": {"createContainer": [script("echo a; echo b >&2; echo c; exit 3")]},
            "annotations": outputs(&out, &out)}));
        let message = t.refused(&bundle);
        assert!(message.ends_with("exited with status 3, output: \"a\\nb\\nc\""), "{message}");
        let text = read(&out);
        assert_eq!(text.strip_prefix(lines), Some("prestart\ncreateRuntime\na\nb\nc\npoststop\n"), "{text}");
    }
}

fn a_file_for_output_that_cannot_be_opened_is_an_error(t: &T) {
    let link = t.path("link");
    std::os::unix::fs::symlink(t.path("elsewhere"), &link).unwrap();
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let mut bundle = t.bundle();
        bundle.set(json!({"hooks": {kind: [script("echo x")]}, "annotations": outputs(&link, &link)}));
        let message = t.refused(&bundle);
        assert!(message.contains("annotation run.oci.hooks.stdout: open"), "{message}");
        bundle.set(json!({"annotations": {"run.oci.hooks.stdout": "relative"}}));
        let message = t.refused(&bundle);
        let words = "config.json /annotations/run.oci.hooks.stdout: \"relative\" is no absolute path";
        assert!(message.contains(words), "{message}");
    }
    assert!(!t.path("elsewhere").exists());
}

/// More than any pipe or socket holds.
const LARGE: usize = 600_000;

fn a_large_state_reaches_a_hook_that_writes_first(t: &T) {
    let mut bundle = t.bundle();
    let dir = log_dir(t, &mut bundle);
    let hook = |kind: &str| {
        let dir = if kind == "startContainer" { Path::new("/log") } else { &dir };
        let fill = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; i=$((i + 1)); done";
        json!([script(&format!("{fill}; {fill} >&2; wc -c > {}/{kind}", dir.display()))])
    };
    let mut hooks = json!({});
    for kind in KINDS {
        hooks[kind] = hook(kind);
    }
    bundle.set(json!({"hooks": hooks, "annotations": {"large": "x".repeat(LARGE)}}));
    t.sh(&bundle, "true");
    for kind in KINDS {
        let length: usize = read(dir.join(kind)).trim().parse().unwrap_or(0);
        assert!(length > LARGE, "{kind} has read {length} bytes");
    }
}

fn a_hook_that_does_not_read_a_large_state_has_its_timeout_all_the_same(t: &T) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut hook = script("exec sleep 1000");
        hook["timeout"] = json!(1);
        let mut bundle = t.bundle();
        bundle.set(json!({"hooks": {kind: [hook]}, "annotations": {"large": "x".repeat(LARGE)}}));
        let message = t.refused(&bundle);
        assert!(message.contains("timeout") || !t.is_ours(), "{kind}: {message}");
    }
}

fn an_annotation_bounds_hooks_without_a_timeout(t: &T) {
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        let mut bundle = t.bundle().args(&["sleep", "1000"]);
        bundle.set(json!({"hooks": {kind: [script("echo before; exec sleep 1000")]},
            "annotations": {"cofferdam.hooks.timeout": "1"}}));
        let message = if kind.starts_with("create") {
            t.refused(&bundle)
        } else {
            let container = t.container(&bundle);
            container.create().ok();
            let message = container.start().fails().message();
            container.force_delete();
            message
        };
        let words = format!("error running {kind} hook #0: /bin/sh took longer than its timeout of 1 s");
        assert!(message.contains(&words) && message.contains("before"), "{message}");
    }
    // One that says how long it may take keeps its word.
    let mut hook = script("sleep 2");
    hook["timeout"] = json!(30);
    let mut bundle = t.bundle();
    bundle.set(json!({"hooks": {"createRuntime": [hook]}, "annotations": {"cofferdam.hooks.timeout": "1"}}));
    assert_eq!(t.sh(&bundle, "echo in"), "in\n");
    // poststop is a warning, and the container goes all the same.
    bundle.set(json!({"hooks": {"createRuntime": [], "poststop": [script("exec sleep 1000")]}}));
    let container = t.container(&bundle.args(&["true"]));
    let out = container.run().ok();
    assert!(out.warnings().iter().any(|line| line.contains("timeout of 1 s")), "{out:?}");
    assert!(!container.exists());
}
