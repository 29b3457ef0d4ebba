//! config.md, "Process": what the program is called with and what it is given.

use crate::harness::test::SYS_RESOURCE;
use crate::harness::{Need, T, Test, procs};
use crate::{below, test};
use serde_json::json;

pub const TESTS: &[Test] = &[
    test!(arguments_arrive_as_they_are),
    test!(the_environment_is_only_the_configs),
    test!(of_two_variables_of_a_name_the_last_counts),
    test!(home_comes_from_the_containers_passwd),
    test!(home_of_an_unknown_user_is_the_root),
    test!(home_of_the_config_stays),
    test!(the_working_directory_is_the_configs),
    test!(a_missing_working_directory_is_made),
    test!(a_working_directory_that_only_the_user_may_enter),
    test!(a_working_directory_that_only_root_may_enter),
    test!(no_new_privileges_is_set),
    test!(no_new_privileges_is_left),
    test!(the_umask_is_022_without_one),
    test!(the_umask_is_the_configs),
    test!(the_oom_score_is_the_configs),
    test!(the_oom_score_can_be_lowered).needs(&[SYS_RESOURCE]),
    test!(the_oom_score_is_inherited_without_one),
    test!(the_scheduler_is_batch).needs(&[Need::Runc("1.2", "process.scheduler")]),
    test!(the_scheduler_is_idle).needs(&[Need::Runc("1.2", "process.scheduler")]),
    test!(the_scheduler_is_real_time).needs(&[Need::Runc("1.2", "process.scheduler")]),
    test!(the_io_priority_is_the_configs).needs(&[Need::Runc("1.2", "process.ioPriority")]),
    test!(the_personality_is_32_bit)
        .needs(&[Need::Runc("1.2", "linux.personality"), Need::Machine("x86_64")]),
    test!(a_session_keyring_has_the_containers_name),
    test!(no_new_keyring_keeps_the_callers),
    test!(the_program_is_found_in_path),
    test!(the_program_is_found_in_the_containers_path_only),
    test!(a_program_without_slash_is_not_found_in_the_working_directory),
    test!(a_relative_program_is_found_from_the_working_directory),
    test!(a_script_runs_by_its_interpreter),
    test!(signals_are_as_a_new_process_has_them),
    test!(the_apparmor_profile_is_the_configs).needs(&[Need::AppArmor, Need::File("/sbin/apparmor_parser")]),
    test!(an_unknown_apparmor_profile_is_an_error).needs(&[Need::AppArmor]),
    test!(the_program_is_the_leader_of_its_session),
    test!(a_new_process_runs_on_every_cpu)
        .needs(&[Need::TwoCpus])
        .runc_fails(below!("1.2", "keeps the caller's CPU affinity")),
];

fn arguments_arrive_as_they_are(t: &T) {
    let bundle = t.bundle();
    bundle.add_probe(t);
    let args = ["/bin/probe", "see", "", "a b", "$HOME", "ünïcode", "-x", "--"];
    let out = t.run(&bundle, &args).ok();
    assert_eq!(out.json()["args"], json!(args));
}

fn the_environment_is_only_the_configs(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"env": ["PATH=/bin", "A=b c", "HOME=/x", "E="]}}));
    let mut seen: Vec<String> = serde_json::from_value(t.see(&bundle)["env"].clone()).unwrap();
    seen.sort();
    assert_eq!(seen, ["A=b c", "E=", "HOME=/x", "PATH=/bin"]);
}

fn of_two_variables_of_a_name_the_last_counts(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"env": ["PATH=/bin", "A=1", "B=0", "A=2"]}}));
    assert_eq!(t.sh(&bundle, "echo $A; env | grep -c ^A="), "2\n1\n");
}

fn home_comes_from_the_containers_passwd(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    assert_eq!(t.sh(&bundle, "echo $HOME"), "/home\n");
    assert_eq!(t.sh(&t.bundle(), "echo $HOME"), "/root\n");
}

fn home_of_an_unknown_user_is_the_root(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"user": {"uid": 4242, "gid": 4242}}}));
    assert_eq!(t.sh(&bundle, "echo $HOME"), "/\n");
    bundle.remove("/etc/passwd");
    assert_eq!(t.sh(&bundle, "echo $HOME"), "/\n");
}

fn home_of_the_config_stays(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"env": ["PATH=/bin", "HOME=/elsewhere"]}}));
    assert_eq!(t.sh(&bundle, "echo $HOME"), "/elsewhere\n");
}

fn the_working_directory_is_the_configs(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"cwd": "/tmp"}}));
    assert_eq!(t.sh(&bundle, "pwd -P; readlink /proc/self/cwd"), "/tmp\n/tmp\n");
}

fn a_missing_working_directory_is_made(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"cwd": "/a/b/c"}}));
    assert_eq!(t.sh(&bundle, "pwd -P; stat -c %a /a/b/c"), "/a/b/c\n755\n");
}

fn a_working_directory_that_only_the_user_may_enter(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"cwd": "/own", "user": {"uid": 1000, "gid": 1000}}}));
    let dir = bundle.make_dir("/own");
    std::os::unix::fs::chown(&dir, Some(1000), Some(1000)).unwrap();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(t.sh(&bundle, "pwd -P"), "/own\n");
}

fn a_working_directory_that_only_root_may_enter(t: &T) {
    // runc enters it before it drops what it may (its issue 2086), and engines have come to rely on it.
    let bundle = t.bundle().with(json!({"process": {"cwd": "/root/x", "user": {"uid": 1000, "gid": 1000}}}));
    bundle.make_dir("/root/x");
    let dir = bundle.file("/root");
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(t.sh(&bundle, "readlink /proc/self/cwd"), "/root/x\n");
}

fn no_new_privileges_is_set(t: &T) {
    assert_eq!(t.see(&t.bundle())["status"]["NoNewPrivs"], "1");
}

fn no_new_privileges_is_left(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"noNewPrivileges": false}}));
    assert_eq!(t.see(&bundle)["status"]["NoNewPrivs"], "0");
}

fn the_umask_is_022_without_one(t: &T) {
    let container = t.container(&t.bundle().script("umask"));
    let out = container.make(&["run"]).after("umask 077").run().ok();
    assert_eq!(out.stdout, "0022\n");
}

fn the_umask_is_the_configs(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"user": {"umask": 0o127}}}));
    assert_eq!(t.sh(&bundle, "umask"), "0127\n");
}

fn the_oom_score_is_the_configs(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"oomScoreAdj": 321}}));
    assert_eq!(t.sh(&bundle, "cat /proc/self/oom_score_adj"), "321\n");
}

fn the_oom_score_can_be_lowered(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"oomScoreAdj": -321}}));
    assert_eq!(t.sh(&bundle, "cat /proc/self/oom_score_adj"), "-321\n");
}

fn the_oom_score_is_inherited_without_one(t: &T) {
    let container = t.container(&t.bundle().script("cat /proc/self/oom_score_adj"));
    let out = container.make(&["run"]).after("echo 123 > /proc/self/oom_score_adj").run().ok();
    assert_eq!(out.stdout, "123\n");
}

/// Nice value, real-time priority and policy: proc(5)'s fields 19, 40 and 41.
fn scheduling(stat: &serde_json::Value) -> [i64; 3] {
    let text = stat.as_str().unwrap();
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    [19, 40, 41].map(|field| fields[field - 3].parse().unwrap())
}

fn the_scheduler_is_batch(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"scheduler": {"policy": "SCHED_BATCH", "nice": 7}}}));
    assert_eq!(scheduling(&t.see(&bundle)["stat"]), [7, 0, 3]);
}

fn the_scheduler_is_idle(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"scheduler": {"policy": "SCHED_IDLE"}}}));
    assert_eq!(scheduling(&t.see(&bundle)["stat"]), [0, 0, 5]);
}

fn the_scheduler_is_real_time(t: &T) {
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        t.skip("RT_GROUP_SCHED: a new cgroup has no real-time at all");
    }
    let mut bundle = t.bundle();
    bundle.capabilities(&["CAP_SYS_NICE"]);
    bundle.set(json!({"process": {"scheduler": {"policy": "SCHED_FIFO", "priority": 9}}}));
    assert_eq!(scheduling(&t.see(&bundle)["stat"]), [0, 9, 1]);
}

fn the_io_priority_is_the_configs(t: &T) {
    let priority = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    let bundle = t.bundle().with(json!({"process": {"ioPriority": priority}}));
    assert_eq!(t.sh(&bundle, "ionice"), "best-effort: prio 6\n");
    let priority = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    let bundle = t.bundle().with(json!({"process": {"ioPriority": priority}}));
    assert_eq!(t.sh(&bundle, "ionice"), "idle\n");
}

fn the_personality_is_32_bit(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"personality": {"domain": "LINUX32"}}}));
    assert_eq!(t.sh(&bundle, "uname -m; cat /proc/self/personality"), "i686\n00000008\n");
    let bundle = t.bundle().with(json!({"linux": {"personality": {"domain": "LINUX"}}}));
    assert_eq!(t.sh(&bundle, "uname -m"), "x86_64\n");
}

fn a_session_keyring_has_the_containers_name(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": []}})).script("cat /proc/keys");
    let container = t.container(&bundle);
    let out = container.run().ok();
    assert!(out.stdout.contains(&format!("_ses.{}: empty", container.id)), "{}", out.stdout);
}

fn no_new_keyring_keeps_the_callers(t: &T) {
    let bundle = t.bundle().with(json!({"linux": {"maskedPaths": []}})).script("cat /proc/keys");
    let container = t.container(&bundle);
    let out = container.make(&["run", "--no-new-keyring"]).run().ok();
    assert!(!out.stdout.contains(&format!("_ses.{}", container.id)), "{}", out.stdout);
}

fn the_program_is_found_in_path(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"env": ["PATH=/nowhere::/opt:/bin"], "args": ["prog"]}}));
    bundle.write_program("/opt/prog", "#!/bin/sh\necho found $0\n");
    let container = t.container(&bundle);
    assert_eq!(container.run().ok().stdout, "found /opt/prog\n");
}

fn the_program_is_found_in_the_containers_path_only(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"env": ["PATH=/opt"], "args": ["sh"]}}));
    t.container(&bundle).run().fails().says("executable file not found in $PATH");
}

fn a_program_without_slash_is_not_found_in_the_working_directory(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"cwd": "/opt", "args": ["prog"]}}));
    bundle.write_program("/opt/prog", "#!/bin/sh\necho found\n");
    t.container(&bundle).run().fails().says("executable file not found in $PATH");
}

fn a_relative_program_is_found_from_the_working_directory(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"cwd": "/opt", "args": ["./prog"]}}));
    bundle.write_program("/opt/prog", "#!/bin/sh\necho found $0\n");
    assert_eq!(t.container(&bundle).run().ok().stdout, "found ./prog\n");
}

fn a_script_runs_by_its_interpreter(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"args": ["/script", "x"]}}));
    bundle.write_program("/script", "#!/bin/busybox sh\necho $0 $1\n");
    assert_eq!(t.container(&bundle).run().ok().stdout, "/script x\n");
}

fn signals_are_as_a_new_process_has_them(t: &T) {
    // The caller ignores signals and blocks none; Rust's and Go's runtimes have dispositions of their own.
    let bundle = t.bundle().args(&["cat", "/proc/self/status"]);
    let out = t.container(&bundle).make(&["run"]).after("trap '' USR1 PIPE HUP TERM").run().ok();
    for field in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        let value = procs::field_of(&out.stdout, field).unwrap();
        // Signal 32 is glibc's own, which Go cannot change: who calls runc with it ignored passes that on.
        let seen = if t.is_ours() { mask(&value) } else { mask(&value) & !(1 << 31) };
        assert_eq!(seen, 0, "{field}");
    }
}

fn mask(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).unwrap()
}

fn the_apparmor_profile_is_the_configs(t: &T) {
    let name = format!("cofferdam-test-{}", t.tag);
    let profile = format!("#include <tunables/global>\nprofile {name} {{ file, deny /denied r, }}\n");
    let path = t.path("profile");
    std::fs::write(&path, profile).unwrap();
    let load =
        |flag| std::process::Command::new("/sbin/apparmor_parser").arg(flag).arg(&path).status().unwrap();
    assert!(load("-r").success());
    let mut bundle = t.bundle();
    bundle.set(json!({"process": {"apparmorProfile": name}}));
    bundle.write("/denied", "secret");
    let text = t.sh(&bundle, "cat /proc/self/attr/current; cat /denied 2>&1; true");
    load("-R");
    assert_eq!(text, format!("{name} (enforce)\ncat: can't open '/denied': Permission denied\n"));
}

fn an_unknown_apparmor_profile_is_an_error(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"apparmorProfile": "no-such-profile"}}));
    let message = t.refused(&bundle).to_lowercase();
    assert!(message.contains("apparmor") || message.contains("attr"), "{message}");
}

fn the_program_is_the_leader_of_its_session(t: &T) {
    // pid, parent, process group and session, as the container sees them.
    let text = t.sh(&t.bundle(), "cut -d' ' -f1,4,5,6 /proc/1/stat");
    assert_eq!(text, "1 0 1 1\n");
}

fn a_new_process_runs_on_every_cpu(t: &T) {
    let bundle = t.bundle().script("grep Cpus_allowed_list /proc/self/status | cut -f2");
    let all = procs::status("/proc/self/status", "Cpus_allowed_list").unwrap();
    let out = t.container(&bundle).make(&["run"]).after("busybox taskset -p 1 $$ >/dev/null").run().ok();
    assert_eq!(out.stdout.trim(), all);
}
