//! What the process sees is what runc shows: the same bundle under both, line by line. Each difference has its reason in a table;
//! one without is a failure.

use crate::harness::bundle::merge;
use crate::harness::world::{Kind, Runtime};
use crate::harness::{Bundle, Call, Need, T, Test, procs};
use crate::test;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub const TESTS: &[Test] = &[
    test!(what_the_process_sees_is_what_runc_shows_by_default).by_driver().needs(COMPARED),
    test!(what_the_process_sees_is_what_runc_shows_with_dockers_config).by_driver().needs(COMPARED),
    test!(what_the_process_sees_is_what_runc_shows_to_a_user).needs(COMPARED),
    test!(what_the_process_sees_is_what_runc_shows_in_a_user_namespace).needs(COMPARED),
    test!(what_an_exec_sees_is_what_runc_shows).by_driver().needs(COMPARED),
];

const COMPARED: &[Need] = &[Need::Peer, Need::Ours("compared with the peer")];

/// Files whose lines are compared, by the name of what looks them up.
const FILES: [&str; 12] = [
    "status",
    "limits",
    "stat",
    "environ",
    "mountinfo",
    "cgroup",
    "oom_score_adj",
    "attr/current",
    "personality",
    "coredump_filter",
    "timerslack_ns",
    "uid_map",
];

/// What differs for a reason: a file, a line of it, and the reason. Lines are named by their first word (status), column
/// (stat), mount point (mountinfo).
const EXPLAINED: &[(&str, &str, &str)] = &[
    ("status", "Vm", "memory of a moment, and addresses are random"),
    ("status", "Rss", "memory of a moment"),
    ("status", "voluntary_ctxt_switches", "time of a moment"),
    ("status", "nonvoluntary_ctxt_switches", "time of a moment"),
    ("status", "State", "it sleeps or runs at that moment"),
    ("status", "FDSize", "room in the table of descriptors: more was open at one time"),
    ("status", "SigQ", "how many signals are pending for the user on the whole machine"),
    ("stat", "state", "it sleeps or runs at that moment"),
    ("stat", "wchan", "it sleeps or runs at that moment"),
    ("stat", "minflt", "memory of a moment"),
    ("stat", "cminflt", "memory of a moment: the children's"),
    ("stat", "majflt", "memory of a moment"),
    ("stat", "cmajflt", "memory of a moment: the children's"),
    ("stat", "utime", "time of a moment"),
    ("stat", "stime", "time of a moment"),
    ("stat", "cutime", "time of a moment"),
    ("stat", "cstime", "time of a moment"),
    ("stat", "starttime", "time of a moment"),
    ("stat", "vsize", "the stack's size depends on random addresses"),
    ("stat", "rss", "memory of a moment"),
    ("stat", "startcode", "random address"),
    ("stat", "endcode", "random address"),
    ("stat", "startstack", "random address"),
    ("stat", "kstkesp", "random address"),
    ("stat", "kstkeip", "random address"),
    ("stat", "start_data", "random address"),
    ("stat", "end_data", "random address"),
    ("stat", "start_brk", "random address"),
    ("stat", "arg_start", "random address"),
    ("stat", "arg_end", "random address"),
    ("stat", "env_start", "random address"),
    ("stat", "env_end", "random address"),
    ("stat", "processor", "the CPU of a moment"),
    ("stat", "delayacct_blkio_ticks", "time of a moment"),
    (
        "mountinfo",
        "/sys/fs/cgroup",
        "read-only is for the tmpfs above v1's hierarchies too; runc leaves it writable",
    ),
];

/// What runc below 1.2 does otherwise.
const OLD: &[(&str, &str, &str)] = &[
    ("mountinfo", "/proc/acpi", "a tmpfs of its own for each masked directory, without bounds"),
    ("mountinfo", "/proc/scsi", "a tmpfs of its own for each masked directory, without bounds"),
    ("mountinfo", "/sys/firmware", "a tmpfs of its own for each masked directory, without bounds"),
];

/// proc_pid_stat(5)'s names of its columns, from 3 on.
const COLUMNS: [&str; 50] = [
    "state",
    "ppid",
    "pgrp",
    "session",
    "tty_nr",
    "tpgid",
    "flags",
    "minflt",
    "cminflt",
    "majflt",
    "cmajflt",
    "utime",
    "stime",
    "cutime",
    "cstime",
    "priority",
    "nice",
    "num_threads",
    "itrealvalue",
    "starttime",
    "vsize",
    "rss",
    "rsslim",
    "startcode",
    "endcode",
    "startstack",
    "kstkesp",
    "kstkeip",
    "signal",
    "blocked",
    "sigignore",
    "sigcatch",
    "wchan",
    "nswap",
    "cnswap",
    "exit_signal",
    "processor",
    "rt_priority",
    "policy",
    "delayacct_blkio_ticks",
    "guest_time",
    "cguest_time",
    "start_data",
    "end_data",
    "start_brk",
    "arg_start",
    "arg_end",
    "env_start",
    "env_end",
    "exit_code",
];

/// What a container of the bundle says about the process `$P`, by file and line.
type Seen = BTreeMap<(String, String), String>;

/// The program: a shell that shows its own process, which is what the runtime has executed.
fn script() -> String {
    let mut script = String::new();
    for file in FILES {
        // A shell that waits for another program blocks all signals for a moment, which these two files show.
        script += &if file.starts_with("stat") {
            format!(
                "echo '=={file}'; while IFS= read -r line; do echo \"$line\"; done </proc/$$/{file}; echo;"
            )
        } else {
            format!("echo '=={file}'; cat /proc/$$/{file} 2>/dev/null | tr '\\0' '\\n'; echo;")
        };
    }
    script
        + "echo '==fd'; ls -l /proc/$$/fd > /dev/shm/fd; sed 's/.* \\([0-9]* -> .*\\)/\\1/' /dev/shm/fd; rm /dev/shm/fd; \
           echo '==dev'; ls -lR /dev | sed 's/ [A-Z][a-z][a-z]  *[0-9]* *[0-9:]* / /'; \
           echo '==net'; ip -o addr; ip route; cat /proc/sys/net/ipv4/ip_forward; \
           echo '==names'; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; \
           echo '==root'; stat -c '%F %a %u %g' /proc/$$/cwd/.; stat -c '%n %F %a %u %g' / /tmp /proc /sys /dev/shm; \
           echo '==masked'; for f in /proc/kcore /proc/keys /proc/timer_list /sys/firmware; do stat -c '%n %F %a' $f; done; true"
}

fn parse(t: &T, text: &str) -> Seen {
    let mut seen = Seen::new();
    let mut file = "";
    let (mut count, mut mounts) = (0, Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("==") {
            file = name;
            count = 0;
            continue;
        }
        if line.is_empty() {
            continue;
        }
        // What the test itself calls things by numbers that go on.
        let line = line.replace(&t.dir.to_string_lossy().into_owned(), "DIR");
        match file {
            "stat" => {
                let (_, rest) = line.rsplit_once(") ").unwrap_or_default();
                for (name, value) in COLUMNS.iter().zip(rest.split(' ')) {
                    seen.insert((file.into(), (*name).into()), value.into());
                }
            }
            "status" => {
                let (name, value) = line.split_once(':').unwrap_or_default();
                let mut value = value.trim().to_owned();
                if name == "SigIgn" {
                    // Signal 32 is glibc's own, which Go cannot change: runc passes on what its caller does with it.
                    let mask = u64::from_str_radix(&value, 16).unwrap_or_default() & !(1 << 31);
                    value = format!("{mask:016x}");
                }
                seen.insert((file.into(), name.into()), value);
            }
            "mountinfo" => mounts.extend(procs::MountLine::parse(&line)),
            "fd" => {
                let line = numbers_away(&line);
                seen.insert((file.into(), line.clone()), line);
            }
            _ => {
                count += 1;
                seen.insert((file.into(), format!("{count:03} {line}")), line);
            }
        }
    }
    seen.extend(name_mounts(&mounts));
    seen
}

/// Numbers of mounts and devices are never the same twice: a mount is called by where it is, a device by the first of its mounts.
fn name_mounts(mounts: &[procs::MountLine]) -> Seen {
    let mut seen = Seen::new();
    for (at, mount) in mounts.iter().enumerate() {
        let covered = mounts[..at].iter().filter(|other| other.target == mount.target).count();
        let parent =
            mounts.iter().find(|other| other.id == mount.parent).map_or("outside", |other| &other.target);
        let same = mounts.iter().filter(|other| other.device == mount.device).map(|other| &other.target);
        let device = if mount.device.starts_with("0:") { same.min() } else { Some(&mount.device) };
        let propagation: String = mount.propagation.chars().filter(|c| !c.is_ascii_digit()).collect();
        let value = format!(
            "on {parent}, device {}, {} {} [{propagation}] {} {} {}",
            device.map_or("", |device| device.as_str()),
            mount.root,
            mount.options,
            mount.fstype,
            mount.source,
            mount.super_options
        );
        let name = format!("{}{}", mount.target, "+".repeat(covered));
        seen.insert(("mountinfo".into(), name), value);
    }
    seen
}

/// `call12.out` and `pipe:[345]` without their numbers.
fn numbers_away(line: &str) -> String {
    match line.split_once(" -> ") {
        Some((number, target)) => {
            let target: String = target.chars().filter(|c| !c.is_ascii_digit()).collect();
            format!("{number} -> {target}")
        }
        None => line.to_owned(),
    }
}

/// The peer where no AppArmor profile names it: Debian's `runc`, which allows everything, is attached to /usr/sbin/runc, and
/// would be what a container without a profile of its own shows.
fn peer(t: &T) -> Runtime {
    let peer = t.peer.clone().expect("a peer");
    let path = t.path("peer");
    std::fs::write(&path, "").expect("write");
    t.bind(&peer.path, &path);
    Runtime { path, ..peer }
}

/// The same call by another runtime.
fn by<'t>(t: &'t T, runtime: &Runtime, words: &[&str]) -> Call<'t> {
    Call::new(t, runtime, words)
}

fn run(t: &T, runtime: &Runtime, bundle: &Bundle, id: &str) -> Seen {
    bundle.save();
    let dir = bundle.dir.to_string_lossy().into_owned();
    let out = by(t, runtime, &["create", "--bundle", &dir, id]).run().ok();
    by(t, runtime, &["start", id]).run().ok();
    let status = || by(t, runtime, &["state", id]).run().ok().json()["status"].clone();
    assert!(procs::wait_until(t.seconds(20), || status() == "stopped"), "{} does not end", runtime.label);
    by(t, runtime, &["delete", id]).run().ok();
    parse(t, &std::fs::read_to_string(&out.stdout_file).expect("the output"))
}

/// Every difference that has no reason.
fn differences(t: &T, ours: &Seen, theirs: &Seen, more: &[(&str, &str, &str)]) -> Vec<String> {
    let old = match t.peer.as_ref().map(|peer| &peer.kind) {
        Some(Kind::Runc(version)) if *version < [1, 2, 0] => OLD,
        _ => &[],
    };
    let keys: BTreeSet<&(String, String)> = ours.keys().chain(theirs.keys()).collect();
    let mut list = Vec::new();
    for key in keys {
        let (one, other) = (ours.get(key), theirs.get(key));
        let explained = |(file, line, _): &&(&str, &str, &str)| {
            *file == key.0
                && key.1.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with(line)
        };
        if one == other || EXPLAINED.iter().chain(old).chain(more).any(|entry| explained(&entry)) {
            continue;
        }
        let text = |value: Option<&String>| value.map_or("-".to_owned(), |value| value.replace('\t', " "));
        list.push(format!("{} {}\n      ours   {}\n      theirs {}", key.0, key.1, text(one), text(other)));
    }
    list
}

fn compare(t: &T, bundle: Bundle, more: &[(&str, &str, &str)]) {
    let id = t.id();
    let mut bundle = bundle.script(&script());
    bundle.set(json!({"linux": {"cgroupsPath": format!("{}/{id}", t.cgroup)}}));
    if t.systemd {
        bundle.set(json!({"linux": {"cgroupsPath": format!("system.slice:cofferdam:{id}")}}));
    }
    let peer = peer(t);
    let theirs = run(t, &peer, &bundle, &id);
    let ours = run(t, &t.runtime, &bundle, &id);
    let list = differences(t, &ours, &theirs, more);
    assert!(list.is_empty(), "compared with {}:\n  {}", peer.label, list.join("\n  "));
}

fn what_the_process_sees_is_what_runc_shows_by_default(t: &T) {
    compare(t, t.bundle(), &[]);
}

/// What Docker gives its runtime, with files of the test's own where Docker's would be.
fn docker(t: &T) -> Bundle {
    let text = if t.host.cgroup_v2 {
        include_str!("../data/docker-v2-systemd-default.json")
    } else {
        include_str!("../data/docker-default.json")
    };
    let mut config: Value = serde_json::from_str(text).expect("JSON");
    for mount in config["mounts"].as_array_mut().expect("a list") {
        if mount["type"] == "bind" {
            let file = t.path(mount["destination"].as_str().unwrap_or_default().trim_start_matches("/etc/"));
            std::fs::write(&file, "text\n").expect("write");
            mount["source"] = json!(file);
        }
    }
    merge(
        &mut config,
        json!({"root": {"path": "rootfs"}, "process": {"terminal": false, "consoleSize": null}}),
    );
    if !t.host.apparmor {
        merge(&mut config, json!({"process": {"apparmorProfile": null}}));
    }
    let mut bundle = t.bundle();
    bundle.config = config;
    bundle
}

fn what_the_process_sees_is_what_runc_shows_with_dockers_config(t: &T) {
    compare(t, docker(t), &[]);
}

fn what_the_process_sees_is_what_runc_shows_to_a_user(t: &T) {
    let user = json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 29], "umask": 0o27});
    compare(t, docker(t).with(json!({"process": {"user": user, "cwd": "/tmp", "oomScoreAdj": 77}})), &[]);
}

fn what_the_process_sees_is_what_runc_shows_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle();
    bundle.user_namespace();
    let mqueue = [("dev", "drwxrwxrwt", "its group is the container's root, and nobody under runc")];
    compare(t, bundle, &mqueue);
}

fn exec(t: &T, runtime: &Runtime, bundle: &Bundle, id: &str) -> Seen {
    bundle.save();
    let dir = bundle.dir.to_string_lossy().into_owned();
    by(t, runtime, &["create", "--bundle", &dir, id]).run().ok();
    by(t, runtime, &["start", id]).run().ok();
    let script = script() + "; echo ==end";
    let out = by(t, runtime, &["exec", "--detach", id, "sh", "-c", &script]).run().ok();
    let text = || std::fs::read_to_string(&out.stdout_file).expect("the output");
    assert!(
        procs::wait_until(t.seconds(20), || text().ends_with("==end\n")),
        "{} does not end",
        runtime.label
    );
    by(t, runtime, &["delete", "--force", id]).run().ok();
    parse(t, &text())
}

fn what_an_exec_sees_is_what_runc_shows(t: &T) {
    let id = t.id();
    let mut bundle = docker(t).args(&["sleep", "1000"]);
    let path = if t.systemd { format!("system.slice:cofferdam:{id}") } else { format!("{}/{id}", t.cgroup) };
    bundle.set(json!({"linux": {"cgroupsPath": path}}));
    let peer = peer(t);
    let theirs = exec(t, &peer, &bundle, &id);
    let ours = exec(t, &t.runtime, &bundle, &id);
    let more = [
        ("status", "Pid", "numbers of processes that came before"),
        ("status", "Tgid", "numbers of processes that came before"),
        ("status", "NStgid", "numbers of processes that came before"),
        ("status", "NSpid", "numbers of processes that came before"),
        ("status", "NSpgid", "numbers of processes that came before"),
        ("status", "NSsid", "numbers of processes that came before"),
        ("stat", "pgrp", "numbers of processes that came before"),
        ("stat", "session", "numbers of processes that came before"),
        // PF_SUPERPRIV: a clone begins without it, and ours uses no privilege any more.
        ("stat", "flags", "whether it has ever used a privilege"),
    ];
    let list = differences(t, &ours, &theirs, &more);
    assert!(list.is_empty(), "compared with {}:\n  {}", peer.label, list.join("\n  "));
}
