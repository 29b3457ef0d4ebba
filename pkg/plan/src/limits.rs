//! rlimits, scheduler, io priority, CPU mask, memory policy, personality, oom score.

use crate::draft::Draft;
use crate::{HostStep, Refused, Spec};
use cofferdam_spec::{Process, parse_cpu_list};
use cofferdam_step::{IoPriority, Rlimit, SchedAttr, Step};

/// The kernel's numbers of x86_64 and aarch64 (`include/uapi/asm-generic/resource.h`).
const RLIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// `/process/rlimits` in the kernel's numbers.
pub(crate) fn rlimits(process: &Process) -> Vec<Rlimit> {
    process
        .rlimits
        .iter()
        .filter_map(|limit| {
            let resource = RLIMITS.iter().position(|name| *name == limit.kind)? as u32;
            Some(Rlimit { resource, soft: limit.soft, hard: limit.hard })
        })
        .collect()
}

/// The steps of the host for what init in a user namespace may not do.
pub(crate) fn from_the_host(draft: &mut Draft, process: &Process) {
    if let Some(value) = process.oom_score_adj {
        draft.host(HostStep::SetOomScoreAdj { value });
    }
    let limits = rlimits(process);
    if !limits.is_empty() {
        draft.host(HostStep::SetRlimits { limits });
    }
}

/// The same as steps of init.
pub(crate) fn from_init(draft: &mut Draft, process: &Process) {
    from_init_but(draft, process, None);
}

/// The same for an init that clones the container's process last: it counts itself against a limit of the user's processes.
pub(crate) fn from_init_before_its_clone(draft: &mut Draft, process: &Process) {
    from_init_but(draft, process, Some(NPROC));
    draft.init.extend(of_processes(process).map(Step::RaiseRlimit));
}

/// And what the clone does then.
pub(crate) fn from_the_clone(draft: &mut Draft, process: &Process) {
    draft.init.extend(of_processes(process).map(Step::SetRlimit));
}

/// RLIMIT_NPROC
pub(crate) const NPROC: u32 = 6;

fn of_processes(process: &Process) -> impl Iterator<Item = Rlimit> {
    rlimits(process).into_iter().filter(|limit| limit.resource == NPROC)
}

fn from_init_but(draft: &mut Draft, process: &Process, left_out: Option<u32>) {
    if let Some(value) = process.oom_score_adj {
        draft.step(Step::SetOomScoreAdj { value });
    }
    let limits = rlimits(process).into_iter().filter(|limit| Some(limit.resource) != left_out);
    draft.init.extend(limits.map(Step::SetRlimit));
}

/// Scheduler and io priority.
pub(crate) fn priorities(draft: &mut Draft, process: &Process) {
    if let Some(scheduler) = &process.scheduler {
        draft.step(Step::SetScheduler(SchedAttr {
            policy: POLICIES
                .iter()
                .find(|(name, _)| *name == scheduler.policy)
                .map_or(0, |(_, number)| *number),
            flags: scheduler.flags.iter().filter_map(|flag| sched_flag(flag)).fold(0, |bits, bit| bits | bit),
            nice: scheduler.nice,
            priority: u32::try_from(scheduler.priority).unwrap_or_default(),
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
        }));
    }
    if let Some(priority) = &process.io_priority {
        let class = IO_CLASSES.iter().position(|name| *name == priority.class).map_or(0, |at| at as u32 + 1);
        draft.step(Step::SetIoPriority(IoPriority {
            class,
            priority: u32::try_from(priority.priority).unwrap_or_default(),
        }));
    }
}

/// `include/uapi/linux/sched.h`
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// `include/uapi/linux/ioprio.h`, from class 1 on.
const IO_CLASSES: [&str; 3] = ["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];

fn sched_flag(name: &str) -> Option<u64> {
    Some(match name {
        "SCHED_FLAG_RESET_ON_FORK" => 0x01,
        "SCHED_FLAG_RECLAIM" => 0x02,
        "SCHED_FLAG_DL_OVERRUN" => 0x04,
        "SCHED_FLAG_KEEP_POLICY" => 0x08,
        "SCHED_FLAG_KEEP_PARAMS" => 0x10,
        "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
        "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
        _ => return None,
    })
}

/// `/linux/personality`; the two domains of the spec.
pub(crate) fn personality(draft: &mut Draft, domain: Option<&str>) {
    match domain {
        Some("LINUX32") => draft.step(Step::SetPersonality { persona: 8 }),
        Some(_) => draft.step(Step::SetPersonality { persona: 0 }),
        None => {}
    }
}

/// `include/uapi/linux/mempolicy.h`
const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// `/linux/memoryPolicy`
pub(crate) fn memory_policy(draft: &mut Draft, spec: &Spec) -> Result<(), Refused> {
    const SECTION: &str = "config-linux.md#memory-policy";
    let Some(policy) = &spec.linux.memory_policy else { return Ok(()) };
    let refuse = |below: &str, message: String| {
        Err(Refused::new(format!("/linux/memoryPolicy/{below}"), SECTION, message))
    };
    let Some(known) = MEMORY_MODES.iter().find(|(name, _)| *name == policy.mode) else {
        return refuse("mode", format!("{:?} is no memory policy", policy.mode));
    };
    let mut mode = known.1;
    for (i, flag) in policy.flags.iter().enumerate() {
        mode |= match flag.as_str() {
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_STATIC_NODES" => 1 << 15,
            _ => return refuse(&format!("flags/{i}"), format!("{flag:?} is no flag of a memory policy")),
        };
    }
    let nodes = match policy.nodes.as_str() {
        "" => Vec::new(),
        list => match parse_cpu_list(list) {
            Ok(nodes) => nodes,
            Err(message) => return refuse("nodes", message),
        },
    };
    draft.step(Step::SetMemoryPolicy { mode, nodes });
    Ok(())
}
