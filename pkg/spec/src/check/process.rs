//! `/process`

use super::{Checked, Warnings, no_nul, refuse};
use crate::{Capabilities, Process, capability_bit, parse_cpu_list};

const SECTION: &str = "config.md#process";
const POSIX: &str = "config.md#posix-process";
const LINUX: &str = "config.md#linux-process";
const USER: &str = "config.md#posix-platform-user";

/// What `(uid_t) -1` is to the kernel: no user at all.
const NOBODY: u32 = u32::MAX;

pub(super) fn check(process: &Process, warnings: &mut Warnings) -> Checked {
    words(process)?;
    user(process)?;
    console(process)?;
    rlimits(process)?;
    if let Some(capabilities) = &process.capabilities {
        self::capabilities(capabilities, warnings)?;
    }
    match process.oom_score_adj {
        Some(value) if !(-1000..=1000).contains(&value) => {
            return refuse("/process/oomScoreAdj", LINUX, format!("{value} is not within -1000 and 1000"));
        }
        _ => {}
    }
    scheduler(process)?;
    io_priority(process)?;
    affinity(process)
}

fn words(process: &Process) -> Checked {
    if process.cwd.is_empty() {
        return refuse("/process/cwd", SECTION, "Cwd property must not be empty");
    }
    if !process.cwd.starts_with('/') {
        return refuse(
            "/process/cwd",
            SECTION,
            format!("Cwd must be an absolute path, not {:?}", process.cwd),
        );
    }
    if process.args.is_empty() {
        return refuse("/process/args", POSIX, "args must not be empty");
    }
    no_nul(|| "/process/cwd".to_owned(), SECTION, &process.cwd)?;
    for (i, arg) in process.args.iter().enumerate() {
        no_nul(|| format!("/process/args/{i}"), POSIX, arg)?;
    }
    for (i, entry) in process.env.iter().enumerate() {
        let pointer = || format!("/process/env/{i}");
        no_nul(pointer, POSIX, entry)?;
        match entry.find('=') {
            None => return refuse(pointer(), POSIX, "invalid environment variable: missing '='"),
            Some(0) => return refuse(pointer(), POSIX, "invalid environment variable: name cannot be empty"),
            Some(_) => {}
        }
    }
    no_nul(|| "/process/apparmorProfile".to_owned(), LINUX, &process.apparmor_profile)?;
    no_nul(|| "/process/selinuxLabel".to_owned(), LINUX, &process.selinux_label)
}

fn user(process: &Process) -> Checked {
    let user = &process.user;
    if user.uid == NOBODY {
        return refuse("/process/user/uid", USER, format!("{NOBODY} is no uid"));
    }
    if user.gid == NOBODY {
        return refuse("/process/user/gid", USER, format!("{NOBODY} is no gid"));
    }
    if let Some(i) = user.additional_gids.iter().position(|gid| *gid == NOBODY) {
        return refuse(format!("/process/user/additionalGids/{i}"), USER, format!("{NOBODY} is no gid"));
    }
    match user.umask {
        Some(umask) if umask > 0o777 => {
            refuse("/process/user/umask", USER, format!("{umask} is more than 511, which is 0777"))
        }
        _ => Ok(()),
    }
}

fn console(process: &Process) -> Checked {
    let Some(size) = process.console_size.filter(|_| process.terminal) else { return Ok(()) };
    for (name, value) in [("height", size.height), ("width", size.width)] {
        if value > u64::from(u16::MAX) {
            let message = format!("{value} is more than a terminal has: {}", u16::MAX);
            return refuse(format!("/process/consoleSize/{name}"), SECTION, message);
        }
    }
    Ok(())
}

const RLIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];

fn rlimits(process: &Process) -> Checked {
    for (i, limit) in process.rlimits.iter().enumerate() {
        let pointer = format!("/process/rlimits/{i}");
        if !RLIMITS.contains(&limit.kind.as_str()) {
            return refuse(format!("{pointer}/type"), POSIX, format!("{:?} is no rlimit", limit.kind));
        }
        if let Some(first) = process.rlimits[..i].iter().position(|other| other.kind == limit.kind) {
            let message = format!("{:?} is listed twice (first at /process/rlimits/{first})", limit.kind);
            return refuse(pointer, POSIX, message);
        }
        if limit.soft > limit.hard {
            let message = format!("the soft limit {} is above the hard limit {}", limit.soft, limit.hard);
            return refuse(pointer, POSIX, message);
        }
    }
    Ok(())
}

fn capabilities(sets: &Capabilities, warnings: &mut Warnings) -> Checked {
    for (set, names) in sets.sets() {
        let mut unknown: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| capability_bit(name).is_none()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if !unknown.is_empty() {
            // Behind the property these are runc's words: there are callers that look for them (youki's tests).
            warnings.push(format!(
                "config.json /process/capabilities/{set}: ignoring unknown or unavailable capabilities: [{}]",
                unknown.join(" ")
            ));
        }
    }
    let known = |names: &'_ [String], i: usize| capability_bit(&names[i]).is_some();
    for (i, name) in sets.effective.iter().enumerate() {
        if known(&sets.effective, i) && !sets.permitted.contains(name) {
            let message = format!("{name} is effective, but not in /process/capabilities/permitted");
            return refuse(format!("/process/capabilities/effective/{i}"), LINUX, message);
        }
    }
    let lone: Vec<&str> = (0..sets.ambient.len())
        .filter(|i| known(&sets.ambient, *i))
        .map(|i| sets.ambient[i].as_str())
        .filter(|name| {
            ![&sets.permitted, &sets.inheritable].iter().all(|set| set.iter().any(|other| other == name))
        })
        .collect();
    if !lone.is_empty() {
        // The kernel refuses to raise them. runc's default config of 1.1 had such, and its users' configs still have.
        warnings.push(format!(
            "config.json /process/capabilities/ambient: can't raise ambient capability {}: not both permitted and inheritable",
            lone.join(", ")
        ));
    }
    Ok(())
}

fn scheduler(process: &Process) -> Checked {
    const AT: &str = "/process/scheduler";
    let Some(scheduler) = &process.scheduler else { return Ok(()) };
    let policy = scheduler.policy.as_str();
    match policy {
        "SCHED_OTHER" | "SCHED_FIFO" | "SCHED_RR" | "SCHED_BATCH" | "SCHED_ISO" | "SCHED_IDLE"
        | "SCHED_DEADLINE" => {}
        "" => return refuse(format!("{AT}/policy"), LINUX, "scheduler policy is required"),
        other => return refuse(format!("{AT}/policy"), LINUX, format!("{other:?} is no scheduling policy")),
    }
    if !(-20..=19).contains(&scheduler.nice) {
        let message = format!("invalid scheduler.nice: {} is not within -20 and 19", scheduler.nice);
        return refuse(format!("{AT}/nice"), LINUX, message);
    }
    let real_time = matches!(policy, "SCHED_FIFO" | "SCHED_RR");
    if scheduler.priority != 0 && !real_time {
        let message = "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy";
        return refuse(format!("{AT}/priority"), LINUX, message);
    }
    if real_time && !(1..=99).contains(&scheduler.priority) {
        let message = format!("{} is not within 1 and 99, as {policy} needs", scheduler.priority);
        return refuse(format!("{AT}/priority"), LINUX, message);
    }
    for (name, value) in
        [("runtime", scheduler.runtime), ("deadline", scheduler.deadline), ("period", scheduler.period)]
    {
        if value != 0 && policy != "SCHED_DEADLINE" {
            let message = format!("scheduler.{name} can only be specified for SCHED_DEADLINE policy");
            return refuse(format!("{AT}/{name}"), LINUX, message);
        }
    }
    const FLAGS: [&str; 7] = [
        "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_RECLAIM",
        "SCHED_FLAG_DL_OVERRUN",
        "SCHED_FLAG_KEEP_POLICY",
        "SCHED_FLAG_KEEP_PARAMS",
        "SCHED_FLAG_UTIL_CLAMP_MIN",
        "SCHED_FLAG_UTIL_CLAMP_MAX",
    ];
    match scheduler.flags.iter().position(|flag| !FLAGS.contains(&flag.as_str())) {
        Some(i) => {
            let message = format!("{:?} is no scheduler flag", scheduler.flags[i]);
            refuse(format!("{AT}/flags/{i}"), LINUX, message)
        }
        None => Ok(()),
    }
}

fn io_priority(process: &Process) -> Checked {
    let Some(priority) = &process.io_priority else { return Ok(()) };
    if !matches!(priority.class.as_str(), "IOPRIO_CLASS_RT" | "IOPRIO_CLASS_BE" | "IOPRIO_CLASS_IDLE") {
        let message = format!("{:?} is no io priority class", priority.class);
        return refuse("/process/ioPriority/class", LINUX, message);
    }
    if !(0..=7).contains(&priority.priority) {
        let message = format!("{} is not within 0 and 7", priority.priority);
        return refuse("/process/ioPriority/priority", LINUX, message);
    }
    Ok(())
}

fn affinity(process: &Process) -> Checked {
    let Some(affinity) = &process.exec_cpu_affinity else { return Ok(()) };
    for (name, list) in [("initial", &affinity.initial), ("final", &affinity.last)] {
        if let Err(message) = if list.is_empty() { Ok(Vec::new()) } else { parse_cpu_list(list) } {
            return refuse(format!("/process/execCPUAffinity/{name}"), LINUX, message);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, warnings};
    use serde_json::{Value, json};

    fn process(change: Value) -> String {
        refusal(json!({ "process": change }))
    }

    #[test]
    fn the_working_directory_is_absolute() {
        assert_eq!(process(json!({"cwd": ""})), "config.json /process/cwd: Cwd property must not be empty");
        assert_eq!(
            process(json!({"cwd": "tmp"})),
            "config.json /process/cwd: Cwd must be an absolute path, not \"tmp\""
        );
    }

    #[test]
    fn there_is_something_to_execute() {
        assert_eq!(process(json!({"args": []})), "config.json /process/args: args must not be empty");
        assert_eq!(process(json!({"args": null})), "config.json /process/args: args must not be empty");
        assert_eq!(
            process(json!({"args": ["sh", "a\0"]})),
            "config.json /process/args/1: contains a NUL character"
        );
    }

    #[test]
    fn an_environment_variable_has_a_name_and_a_value() {
        assert_eq!(
            process(json!({"env": ["A=1", "B"]})),
            "config.json /process/env/1: invalid environment variable: missing '='"
        );
        assert_eq!(
            process(json!({"env": ["=x"]})),
            "config.json /process/env/0: invalid environment variable: name cannot be empty"
        );
        assert_eq!(process(json!({"env": ["A=\0"]})), "config.json /process/env/0: contains a NUL character");
    }

    #[test]
    fn minus_one_is_no_user() {
        let nobody = u32::MAX;
        assert_eq!(
            process(json!({"user": {"uid": nobody}})),
            "config.json /process/user/uid: 4294967295 is no uid"
        );
        assert_eq!(
            process(json!({"user": {"gid": nobody}})),
            "config.json /process/user/gid: 4294967295 is no gid"
        );
        assert_eq!(
            process(json!({"user": {"additionalGids": [0, nobody]}})),
            "config.json /process/user/additionalGids/1: 4294967295 is no gid"
        );
        assert_eq!(
            process(json!({"user": {"umask": 512}})),
            "config.json /process/user/umask: 512 is more than 511, which is 0777"
        );
    }

    #[test]
    fn a_terminal_has_16_bits_of_rows() {
        assert_eq!(
            process(json!({"consoleSize": {"height": 70000, "width": 80}})),
            "config.json /process/consoleSize/height: 70000 is more than a terminal has: 65535"
        );
        assert!(
            warnings(json!({"process": {"terminal": false, "consoleSize": {"height": 70000, "width": 80}}}))
                .is_empty()
        );
    }

    #[test]
    fn an_rlimit_is_known_and_listed_once() {
        assert_eq!(
            process(json!({"rlimits": [{"type": "RLIMIT_NOPE", "hard": 1, "soft": 1}]})),
            "config.json /process/rlimits/0/type: \"RLIMIT_NOPE\" is no rlimit"
        );
        let twice =
            json!([{"type": "RLIMIT_AS", "hard": 1, "soft": 1}, {"type": "RLIMIT_AS", "hard": 2, "soft": 1}]);
        assert_eq!(
            process(json!({ "rlimits": twice })),
            "config.json /process/rlimits/1: \"RLIMIT_AS\" is listed twice (first at /process/rlimits/0)"
        );
        assert_eq!(
            process(json!({"rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 2}]})),
            "config.json /process/rlimits/0: the soft limit 2 is above the hard limit 1"
        );
    }

    #[test]
    fn unknown_capabilities_are_a_warning() {
        assert_eq!(
            warnings(
                json!({"process": {"capabilities": {"bounding": ["CAP_KILL", "kill", "CAP_NOPE", "kill"]}}})
            ),
            [
                "config.json /process/capabilities/bounding: ignoring unknown or unavailable capabilities: [CAP_NOPE kill]"
            ]
        );
    }

    #[test]
    fn effective_capabilities_are_permitted_ones() {
        assert_eq!(
            process(json!({"capabilities": {"effective": ["CAP_KILL", "CAP_CHOWN"]}})),
            "config.json /process/capabilities/effective/1: CAP_CHOWN is effective, but not in \
             /process/capabilities/permitted"
        );
    }

    #[test]
    fn ambient_capabilities_without_inheritable_ones_are_a_warning() {
        assert_eq!(
            warnings(json!({"process": {"capabilities": {"ambient": ["CAP_KILL"]}}})),
            [
                "config.json /process/capabilities/ambient: can't raise ambient capability CAP_KILL: not both permitted and inheritable"
            ]
        );
        let both =
            json!({"process": {"capabilities": {"ambient": ["CAP_KILL"], "inheritable": ["CAP_KILL"]}}});
        assert!(warnings(both).is_empty());
    }

    #[test]
    fn an_oom_score_is_within_a_thousand() {
        assert_eq!(
            process(json!({"oomScoreAdj": 1001})),
            "config.json /process/oomScoreAdj: 1001 is not within -1000 and 1000"
        );
    }

    #[test]
    fn a_scheduler_s_values_fit_its_policy() {
        let scheduler = |change: Value| process(json!({ "scheduler": change }));
        assert_eq!(
            scheduler(json!({})),
            "config.json /process/scheduler/policy: scheduler policy is required"
        );
        assert_eq!(
            scheduler(json!({"policy": "SCHED_NOPE"})),
            "config.json /process/scheduler/policy: \"SCHED_NOPE\" is no scheduling policy"
        );
        assert_eq!(
            scheduler(json!({"policy": "SCHED_OTHER", "nice": 20})),
            "config.json /process/scheduler/nice: invalid scheduler.nice: 20 is not within -20 and 19"
        );
        assert_eq!(
            scheduler(json!({"policy": "SCHED_BATCH", "priority": 1})),
            "config.json /process/scheduler/priority: scheduler.priority can only be specified for SCHED_FIFO or \
             SCHED_RR policy"
        );
        assert_eq!(
            scheduler(json!({"policy": "SCHED_FIFO", "priority": 100})),
            "config.json /process/scheduler/priority: 100 is not within 1 and 99, as SCHED_FIFO needs"
        );
        assert_eq!(
            scheduler(json!({"policy": "SCHED_FIFO", "priority": 1, "period": 5})),
            "config.json /process/scheduler/period: scheduler.period can only be specified for SCHED_DEADLINE policy"
        );
        assert_eq!(
            scheduler(json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOPE"]})),
            "config.json /process/scheduler/flags/0: \"SCHED_FLAG_NOPE\" is no scheduler flag"
        );
    }

    #[test]
    fn an_io_priority_is_known() {
        assert_eq!(
            process(json!({"ioPriority": {"class": "BE", "priority": 1}})),
            "config.json /process/ioPriority/class: \"BE\" is no io priority class"
        );
        assert_eq!(
            process(json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}})),
            "config.json /process/ioPriority/priority: 8 is not within 0 and 7"
        );
    }

    #[test]
    fn an_affinity_is_a_list() {
        assert_eq!(
            process(json!({"execCPUAffinity": {"initial": "0", "final": "3-1"}})),
            "config.json /process/execCPUAffinity/final: range \"3-1\" runs backwards"
        );
    }
}
