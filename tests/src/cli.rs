//! The command line as its callers use it: global flags, `spec`, `features`, `--version`, the log, the ids.

use crate::harness::{Bundle, Need, T, Test, procs};
use crate::{below, test};
use nix::mount::MsFlags;
use serde_json::{Value, json};
use std::fs;

pub const TESTS: &[Test] = &[
    test!(version_has_its_first_line),
    test!(spec_writes_a_config_that_runs),
    test!(spec_writes_what_runc_writes).needs(&[Need::Peer, Need::Ours("compared with runc")]),
    test!(spec_does_not_overwrite),
    test!(features_are_json),
    test!(features_have_what_engines_ask_for).needs(&[Need::Runc("1.2", "features of the mounts")]),
    test!(ids_are_checked),
    test!(odd_ids_are_taken),
    test!(the_log_is_json_lines),
    test!(the_log_is_appended_to),
    test!(the_error_is_on_stderr_too),
    test!(the_log_as_text),
    test!(the_log_goes_to_a_file_of_that_name).needs(CRUNS),
    test!(the_log_goes_to_the_journal).needs(CRUNS),
    test!(the_log_goes_to_syslog).needs(CRUNS),
    test!(a_log_without_anybody_who_listens_is_an_error).needs(CRUNS),
    test!(spec_writes_another_file).needs(CRUNS),
    test!(a_pattern_means_all_containers_that_have_it).needs(CRUNS),
    test!(a_pattern_that_is_none_is_an_error).needs(CRUNS),
    test!(a_single_dash_is_enough),
    test!(options_may_stand_behind_the_id),
    test!(a_wrong_flag_is_an_error),
    test!(a_missing_id_is_an_error),
    test!(the_root_is_made_when_needed),
    test!(the_root_slash_is_refused).runc_fails(below!("1.2", "lists the root's directories")),
    test!(a_relative_root),
    test!(list_does_not_make_the_root).runc_fails(below!("1.2", "makes it")),
    test!(cgroup_errors_are_forgiven_for_the_rootless).needs(&[Need::CgroupFs]),
    test!(debug_says_more),
    test!(plan_prints_the_steps).needs(&[Need::Ours("only cofferdam has a plan")]),
    test!(plan_does_not_show_the_environment).needs(&[Need::Ours("only cofferdam has a plan")]),
    test!(plan_needs_no_privileges).needs(&[Need::Ours("only cofferdam has a plan")]),
    test!(a_timeline_has_a_span_for_every_step).needs(&[Need::Ours("only cofferdam has timelines")]),
    test!(a_timeline_that_cannot_be_written_is_an_error).needs(&[Need::Ours("only cofferdam has timelines")]),
    test!(help_is_there),
];

const CRUNS: &[Need] = &[Need::Ours("crun has it, and runc has not")];

fn version_has_its_first_line(t: &T) {
    let out = t.call(&["--version"]).bare().run().ok();
    let line = out.stdout.lines().next().unwrap().to_owned();
    assert!(line.contains(" version ") && out.stdout.contains("\nspec: 1."), "{}", out.stdout);
    assert_eq!(t.call(&["-v"]).bare().run().ok().stdout, out.stdout);
}

fn spec_writes_a_config_that_runs(t: &T) {
    let bundle = t.bundle();
    t.call(&["spec"]).bare().cwd(&bundle.dir).run().ok();
    let text = fs::read_to_string(bundle.dir.join("config.json")).unwrap();
    let mut bundle = bundle.clone();
    bundle.config = serde_json::from_str(&text).unwrap();
    assert_eq!(bundle.config["process"]["terminal"], true);
    bundle.set(json!({"process": {"terminal": false}}));
    assert_eq!(t.sh(&bundle, "touch /x 2>/dev/null || echo read-only"), "read-only\n");
}

fn written_by(t: &T, runtime: &crate::harness::world::Runtime, flags: &[&str]) -> Value {
    let dir = t.make_dir(&format!("spec{}", t.number()));
    let words: Vec<&str> = ["spec", "--bundle", dir.to_str().unwrap()].iter().chain(flags).copied().collect();
    let out = std::process::Command::new(&runtime.path).args(words).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    serde_json::from_str(&fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
}

fn spec_writes_what_runc_writes(t: &T) {
    let peer = t.peer.as_ref().unwrap();
    for flags in [&[][..], &["--rootless"]] {
        let [mut ours, mut theirs] = [&t.runtime, peer].map(|runtime| written_by(t, runtime, flags));
        for config in [&mut ours, &mut theirs] {
            // Versions differ by name, and runc 1.1 has ambient capabilities that the kernel refuses.
            config["ociVersion"].take();
            config["hostname"].take();
            config["process"]["capabilities"]["ambient"].take();
            config["linux"]["maskedPaths"].take();
        }
        // runc 1.2 has a cgroup namespace on v2 hosts only.
        assert_eq!(ours, theirs, "{flags:?}");
    }
}

fn spec_does_not_overwrite(t: &T) {
    let dir = t.make_dir("spec");
    fs::write(dir.join("config.json"), "mine").unwrap();
    let out = t.call(&["spec", "--bundle", &dir.to_string_lossy()]).run().fails();
    assert!(out.message().contains("exists"), "{}", out.message());
    assert_eq!(fs::read_to_string(dir.join("config.json")).unwrap(), "mine");
}

fn features_are_json(t: &T) {
    let features = t.call(&["features"]).bare().run().ok().json();
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string(), "{features}");
    let has = |pointer: &str, word: &str| {
        let list = features.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("{pointer}"));
        assert!(list.iter().any(|entry| entry == word), "{pointer} has no {word}");
    };
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        has("/hooks", kind);
    }
    for kind in ["pid", "network", "mount", "ipc", "uts", "user", "cgroup"] {
        has("/linux/namespaces", kind);
    }
    for option in ["bind", "rbind", "ro", "rro", "nosuid", "tmpcopyup", "rslave"] {
        has("/mountOptions", option);
    }
    for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_ACT_KILL_PROCESS"] {
        has("/linux/seccomp/actions", action);
    }
    has("/linux/seccomp/operators", "SCMP_CMP_MASKED_EQ");
    has("/linux/seccomp/archs", "SCMP_ARCH_X86_64");
    has("/linux/capabilities", "CAP_SYS_ADMIN");
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["linux"]["cgroup"]["systemd"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert_eq!(features["linux"]["apparmor"]["enabled"], true);
}

fn features_have_what_engines_ask_for(t: &T) {
    // Without it Kubernetes has no user namespaces, and containerd no idmapped mounts.
    let features = t.call(&["features"]).bare().run().ok().json();
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert!(features["potentiallyUnsafeConfigAnnotations"].is_array());
}

fn ids_are_checked(t: &T) {
    let bundle = t.bundle();
    bundle.save();
    let dir = bundle.dir.to_string_lossy().into_owned();
    for id in ["", ".", "..", "a/b", "/abs", "a b", "a\nb", "ü", "a:b", "../../etc", "a\\b"] {
        let out = t.call(&["create", "--bundle", &dir, id]).run().fails();
        assert!(!out.message().is_empty(), "{id:?}");
        let entries = fs::read_dir(t.state_dir()).map_or(0, Iterator::count);
        assert_eq!(entries, 0, "{id:?} left something");
    }
}

fn odd_ids_are_taken(t: &T) {
    for id in ["a", "A_1+b.c-d", "-", "...", "_"].map(|id| format!("{id}{}", t.tag)) {
        let mut container = t.container(&t.bundle().script("echo in"));
        container.id = id;
        let dir = container.bundle.dir.to_string_lossy().into_owned();
        container.bundle.save();
        let out = t.call(&["run", "--bundle", &dir, "--", &container.id]).run().ok();
        assert_eq!(out.stdout, "in\n");
    }
}

fn the_log_is_json_lines(t: &T) {
    let out = t.call(&["start", "no-such-container"]).run().fails();
    let line = out.log.lines().last().unwrap();
    let entry: Value = serde_json::from_str(line).unwrap();
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().unwrap().contains("does not exist"));
    // As RFC 3339 has it.
    let time = entry["time"].as_str().unwrap();
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.as_bytes()[13] == b':', "{time}");
    assert_eq!(entry.as_object().unwrap().len(), 3, "{line}");
}

fn log_flags<'a>(t: &T, file: &'a str, format: &'a str) -> Vec<String> {
    let state = t.state_dir().to_string_lossy().into_owned();
    ["--root", &state, "--log", file, "--log-format", format, "state", "no-such-container"]
        .map(str::to_owned)
        .to_vec()
}

fn the_log_is_appended_to(t: &T) {
    let file = t.path("log").to_string_lossy().into_owned();
    fs::write(&file, "first\n").unwrap();
    for _ in 0..2 {
        t.call(&log_flags(t, &file, "json")).bare().run().fails();
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("first\n") && text.lines().count() == 3, "{text}");
}

fn the_error_is_on_stderr_too(t: &T) {
    let out = t.call(&["start", "no-such-container"]).run().fails();
    assert!(out.stderr.contains(&out.message()), "{out:?}");
}

fn the_log_as_text(t: &T) {
    let file = t.path("log").to_string_lossy().into_owned();
    t.call(&log_flags(t, &file, "text")).bare().run().fails();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("time=\"") && text.contains("\" level=error msg=\""), "{text}");
    let out = t.call(&log_flags(t, &file, "nonsense")).bare().run().fails();
    assert!(out.stderr.contains("log-format") || out.stderr.contains("nonsense"), "{}", out.stderr);
}

fn a_single_dash_is_enough(t: &T) {
    let container = t.container(&t.bundle().script("echo in"));
    container.bundle.save();
    let state = t.state_dir().to_string_lossy().into_owned();
    let dir = container.bundle.dir.to_string_lossy().into_owned();
    let words =
        ["-root", &state, "-log-format=json", "run", "-bundle", &dir, "-no-pivot=false", &container.id];
    assert_eq!(t.call(&words).bare().run().ok().stdout, "in\n");
}

fn options_may_stand_behind_the_id(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    t.call(&["update", &container.id, "--pids-limit", "40"]).run().ok();
    t.call(&["delete", &container.id, "--force"]).run().ok();
}

fn a_wrong_flag_is_an_error(t: &T) {
    let out = t.call(&["create", "--no-such-flag", "id"]).run().fails();
    assert!(format!("{}{}", out.stdout, out.stderr).contains("no-such-flag"), "{out:?}");
    let out = t.call(&["nonsense"]).run().fails();
    assert!(format!("{}{}", out.stdout, out.stderr).contains("nonsense"), "{out:?}");
}

fn a_missing_id_is_an_error(t: &T) {
    for verb in
        ["create", "start", "state", "kill", "delete", "pause", "resume", "ps", "events", "update", "run"]
    {
        t.call(&[verb]).run().fails();
    }
}

fn the_root_is_made_when_needed(t: &T) {
    let root = t.path("a/b/root");
    let container = t.container(&t.bundle().script("echo in"));
    container.bundle.save();
    let (root, dir) =
        (root.to_string_lossy().into_owned(), container.bundle.dir.to_string_lossy().into_owned());
    assert_eq!(t.call(&["--root", &root, "run", "-b", &dir, &container.id]).bare().run().ok().stdout, "in\n");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&root).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "others may look into the state: {mode:o}");
}

fn the_root_slash_is_refused(t: &T) {
    t.call(&["--root", "/", "list"]).bare().run().fails();
}

fn a_relative_root(t: &T) {
    let container = t.container(&t.bundle().script("echo in"));
    container.bundle.save();
    let dir = container.bundle.dir.to_string_lossy().into_owned();
    let words = ["--root", "relative", "run", "-b", &dir, &container.id];
    assert_eq!(t.call(&words).bare().cwd(&t.dir).run().ok().stdout, "in\n");
    assert!(t.path("relative").is_dir());
}

fn list_does_not_make_the_root(t: &T) {
    let root = t.path("nowhere");
    t.call(&["--root", &root.to_string_lossy(), "list"]).bare().run();
    assert!(!root.exists());
}

fn cgroup_errors_are_forgiven_for_the_rootless(t: &T) {
    let mounts = procs::mounts("/proc/self/mountinfo");
    for mount in mounts.iter().filter(|mount| mount.fstype.starts_with("cgroup")) {
        let target = std::path::Path::new(&mount.target);
        t.bind(target, target);
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>).unwrap();
    }
    let mut bundle = t.bundle().script("echo in");
    bundle.without_mount("/sys/fs/cgroup");
    let state = t.state_dir().to_string_lossy().into_owned();
    let run = |bundle: &Bundle| {
        let container = t.container(bundle);
        container.bundle.save();
        let dir = bundle.dir.to_string_lossy().into_owned();
        t.call(&["--root", &state, "--rootless", "true", "run", "-b", &dir, &container.id]).bare().run()
    };
    t.container(&bundle).run().fails();
    // Whoever names a cgroup means it.
    let out = run(&bundle).fails();
    assert!(out.stderr.contains("read-only file system"), "{out:?}");
    bundle.own_cgroup = true;
    t.container(&bundle).run().fails();
    assert_eq!(run(&bundle).ok().stdout, "in\n");
}

fn debug_says_more(t: &T) {
    let container = t.container(&t.bundle().script("echo in"));
    container.bundle.save();
    let state = t.state_dir().to_string_lossy().into_owned();
    let dir = container.bundle.dir.to_string_lossy().into_owned();
    let file = t.path("log").to_string_lossy().into_owned();
    let words = [
        "--root",
        &state,
        "--debug",
        "--log",
        &file,
        "--log-format",
        "json",
        "run",
        "-b",
        &dir,
        &container.id,
    ];
    let out = t.call(&words).bare().run().ok();
    assert_eq!(out.stdout, "in\n");
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains("\"level\":\"debug\""), "{text}");
    for line in text.lines() {
        let _: Value = serde_json::from_str(line).unwrap();
    }
}

fn plan(t: &T, flags: &[&str], bundle: &Bundle) -> String {
    bundle.save();
    let dir = bundle.dir.to_string_lossy().into_owned();
    let words: Vec<&str> = ["plan", "--bundle", &dir].iter().chain(flags).copied().collect();
    t.call(&words).run().ok().stdout
}

/// How a container gets its root: on Linux 7 by the second way, where nothing is against it.
const PIVOTS: &str = "pivot the root";
const ENTERS: &str = "enter a mount namespace of rootfs ";

fn plan_prints_the_steps(t: &T) {
    let bundle = t.bundle();
    let text = plan(t, &[], &bundle);
    for words in ["mount", "/proc", "capabilities"] {
        assert!(text.to_lowercase().contains(words), "{words}: {text}");
    }
    assert!(text.contains(PIVOTS) != text.contains(ENTERS), "{text}");
    let json: Value = serde_json::from_str(&plan(t, &["--format", "json"], &bundle)).unwrap();
    assert!(json["init"].as_array().is_some_and(|steps| steps.len() > 10), "{json}");
    // Nothing is carried out.
    assert!(!t.state_dir().exists());
}

fn plan_does_not_show_the_environment(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"env": ["PATH=/bin", "TOKEN=very-secret-value"]}}));
    for flags in [&[][..], &["--format", "json"]] {
        let text = plan(t, flags, &bundle);
        assert!(!text.contains("very-secret-value") && text.contains("TOKEN"), "{text}");
    }
}

fn plan_needs_no_privileges(t: &T) {
    let bundle = t.bundle();
    bundle.save();
    for dir in bundle.dir.ancestors().take(3) {
        let _ = fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    }
    let runtime = t.path("runtime");
    fs::copy(&t.runtime.path, &runtime).unwrap();
    let out = std::os::unix::process::CommandExt::uid(&mut std::process::Command::new(&runtime), 1234)
        .args(["plan", "--bundle"])
        .arg(&bundle.dir)
        .output()
        .unwrap();
    assert!(out.status.success() && !out.stdout.is_empty(), "{out:?}");
}

fn help_is_there(t: &T) {
    for words in [&["--help"][..], &["create", "--help"], &["help"]] {
        let out = t.call(words).bare().run().ok();
        assert!(out.stdout.contains("USAGE") || out.stdout.contains("Usage"), "{out:?}");
    }
}

/// The names of a timeline's spans, by the process that they belong to.
fn spans(file: &std::path::Path) -> [Vec<String>; 2] {
    let trace: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let process = |name: &str| {
        events.iter().find(|event| event["args"]["name"] == name).map(|event| event["pid"].clone())
    };
    ["host", "init"].map(|name| {
        let own = |event: &&Value| event["ph"] == "X" && Some(&event["pid"]) == process(name).as_ref();
        events.iter().filter(own).map(|event| event["name"].as_str().unwrap().to_owned()).collect()
    })
}

fn a_timeline_has_a_span_for_every_step(t: &T) {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    let file = |name: &str| t.path(name);
    let said = |name: &str| file(name).to_string_lossy().into_owned();
    container.make(&["create", "--timeline", &said("create")]).run().ok();
    container.verb(&["start", "--timeline", &said("start")]).run().ok();
    container.exec_with(&["--timeline", &said("exec")], &["true"]).run().ok();
    container.force_delete();
    let [host, init] = spans(&file("create"));
    for name in ["read config.json", "compile the plan", "spawn init", "seal the image", "cofferdam create"] {
        assert!(host.iter().any(|span| span == name), "{name}: {host:?}");
    }
    let has = |name: &str| init.iter().any(|span| span.contains(name));
    for name in ["begin a session", "mount proc on /proc", "make /proc/sys read-only", "find the program"] {
        assert!(has(name), "{name}: {init:?}");
    }
    assert!(has(PIVOTS) != has(ENTERS), "{init:?}");
    let [host, init] = spans(&file("start"));
    assert!(host.iter().any(|span| span == "await the program"), "{host:?}");
    assert!(init.iter().any(|span| span.ends_with("exec sleep")), "{init:?}");
    let [host, init] = spans(&file("exec"));
    assert!(host.iter().any(|span| span == "wait for the process"), "{host:?}");
    assert!(init.iter().any(|span| span.ends_with("exec true")), "{init:?}");
}

fn a_timeline_that_cannot_be_written_is_an_error(t: &T) {
    let container = t.container(&t.bundle().args(&["true"]));
    let out = container.make(&["run", "--timeline", "/no/such/dir/file"]).run().fails();
    assert!(out.message().contains("create the timeline /no/such/dir/file"), "{}", out.message());
    t.nothing_is_left(&container);
}

/// What a socket at `place`, which the runtime alone sees, gets of a call that fails.
fn logged(t: &T, name: &str, place: &str, log: &str) -> String {
    let socket = std::os::unix::net::UnixDatagram::bind(t.path(name)).unwrap();
    socket.set_read_timeout(Some(t.seconds(10))).unwrap();
    let (dir, file) = place.rsplit_once('/').unwrap();
    let script = format!(
        "mount -t tmpfs none {0} && mkdir -p {dir} && touch {dir}/{file} && mount --bind {1} {place} && exec \"$@\"",
        if place.starts_with("/run") { "/run" } else { dir },
        t.path(name).display(),
    );
    let call = t.call(&["--log", log, "--root", t.state_dir().to_str().unwrap(), "state", "nobody"]).bare();
    let out = call.through(&["unshare", "-m", "sh", "-c", &script, "sh"]).run().fails();
    assert_eq!(out.stderr, "container \"nobody\" does not exist\n");
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("a datagram");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

fn the_log_goes_to_a_file_of_that_name(t: &T) {
    let file = t.path("log");
    let log = format!("file:{}", file.display());
    t.call(&["--log", &log, "state", "nobody"]).bare().run().fails();
    assert!(fs::read_to_string(file).unwrap().contains("does not exist"));
}

fn the_log_goes_to_the_journal(t: &T) {
    let said = logged(t, "journal", "/run/systemd/journal/socket", "journald:web");
    assert!(said.starts_with("PRIORITY=3\n") && said.contains("\nID=web\n"), "{said}");
    assert!(said.contains("\nMESSAGE=container \"nobody\" does not exist\n"), "{said}");
}

fn the_log_goes_to_syslog(t: &T) {
    let said = logged(t, "syslog", "/dev/log", "syslog:web");
    assert!(said.starts_with("<27>web[") && said.ends_with("does not exist\""), "{said}");
}

fn a_log_without_anybody_who_listens_is_an_error(t: &T) {
    let script = "mount -t tmpfs none /run && exec \"$@\"";
    let call = t.call(&["--log", "journald:web", "list"]).bare();
    let out = call.through(&["unshare", "-m", "sh", "-c", script, "sh"]).run().fails();
    assert!(out.stderr.contains("/run/systemd/journal/socket: no such file or directory"), "{out:?}");
}

fn spec_writes_another_file(t: &T) {
    let dir = t.make_dir("spec");
    let file = dir.join("other.json");
    t.call(&["spec", "--file", file.to_str().unwrap()]).bare().run().ok();
    t.call(&["spec", "-b", dir.to_str().unwrap(), "-f", "third.json"]).bare().run().ok();
    assert_eq!(fs::read(&file).unwrap(), fs::read(dir.join("third.json")).unwrap());
    let again = t.call(&["spec", "--file", file.to_str().unwrap()]).bare().run().fails();
    assert!(again.stderr.contains("other.json exists. Remove it first"), "{again:?}");
    assert!(!dir.join("config.json").exists());
}

fn a_pattern_means_all_containers_that_have_it(t: &T) {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let ids: Vec<String> =
        ["a-one", "a-two", "b-one"].iter().map(|name| format!("{}-{name}", t.id())).collect();
    let containers: Vec<_> = ids
        .iter()
        .map(|id| {
            let container = crate::harness::Container::new(t, &bundle, id.clone());
            container.launch();
            container
        })
        .collect();
    let [one, two, other] = &containers[..] else { unreachable!("three") };
    t.call(&["kill", "--regex", "a-(one|two)$", "KILL"]).run().ok();
    one.await_stop();
    two.await_stop();
    assert_eq!(other.status(), "running");
    // Those that are stopped already are passed over; that there is none at all is no error.
    t.call(&["kill", "-r", "a-one$", "KILL"]).run().ok();
    t.call(&["kill", "-r", "no-such", "KILL"]).run().ok();
    // What fails does not keep the others.
    let out = t.call(&["delete", "--regex", "."]).run().fails();
    assert!(out.stderr.contains("is not stopped"), "{out:?}");
    assert!(!one.exists() && !two.exists());
    assert_eq!(other.status(), "running");
    t.call(&["delete", "-f", "-r", "."]).run().ok();
    assert!(!other.exists());
}

fn a_pattern_that_is_none_is_an_error(t: &T) {
    for verb in ["kill", "delete"] {
        let out = t.call(&[verb, "--regex", "("]).run().fails();
        assert!(out.stderr.contains("--regex: \"(\": "), "{out:?}");
    }
}
