//! Every system call of every verb fails once, is interrupted once, and is once the last that its process makes.

use crate::Result;
use crate::options::Options;
use crate::scenario::{Phase, SCENARIOS, Scenario};
use crate::tally::Tally;
use crate::tracer::{Act, Aim, Call, Ending, Role, Tracer, When};
use crate::verdict::{Fault, HANGS, Played, Player};
use crate::world::World;
use nix::libc;
use std::collections::BTreeSet;

/// Plays all scenarios with all faults, or with a sample of them.
///
/// # Errors
/// When the tracer does not work.
pub fn run(world: &mut World, tally: &mut Tally, options: &Options) -> Result<()> {
    let mut tracer = match Tracer::new() {
        Ok(tracer) => tracer,
        Err(error) => {
            tally.skip("faults", &error.to_string());
            return Ok(());
        }
    };
    let before_main = calls_before_main(world, &mut tracer)?;
    for scenario in SCENARIOS {
        let wanted = match &options.scenario {
            Some(name) => scenario.name == name,
            None => options.full || scenario.quick,
        };
        if wanted {
            one_scenario(world, &mut tracer, scenario, tally, &Extent { full: options.full, before_main })?;
        }
    }
    Ok(())
}

/// How many calls libc and Rust's own start make: those of `--version` up to its output.
fn calls_before_main(world: &World, tracer: &mut Tracer) -> Result<usize> {
    let outcome = tracer.run(&world.command(&["--version"]), None, HANGS)?;
    let output = outcome.calls.iter().position(|call| call.name == "write");
    output.ok_or_else(|| format!("--version does not write: {:?}", outcome.stderr).into())
}

/// How much is tried.
struct Extent {
    full: bool,
    before_main: usize,
}

fn one_scenario(
    world: &World,
    tracer: &mut Tracer,
    scenario: &Scenario,
    tally: &mut Tally,
    extent: &Extent,
) -> Result<()> {
    let mut player = Player::new(world, tracer, scenario)?;
    let plain = player.play(None)?;
    tally.count(&format!("{} without a fault", scenario.name), &plain.problems);
    if !plain.problems.is_empty() {
        return Ok(());
    }
    for fault in faults(&plain.calls, extent) {
        let played = player.play(Some(&fault))?;
        report(scenario, &fault, &played, tally, extent);
    }
    Ok(())
}

fn report(scenario: &Scenario, fault: &Fault, played: &Played, tally: &mut Tally, extent: &Extent) {
    let phase = scenario.phases[fault.phase];
    let name = match (&fault.aim.when, &played.hit) {
        (_, Some(call)) => {
            format!(
                "{}, {}: {}'s call {}, {}, {}",
                scenario.name,
                phase.name(),
                call.role,
                call.index,
                call.name,
                fault.aim.act
            )
        }
        (When::At { role, index }, None) => {
            // A process's calls vary by a few: this time it made fewer.
            tally.note(&format!(
                "{}, {}: {role} made no call {index} this time",
                scenario.name,
                phase.name()
            ));
            return;
        }
        (When::Named { .. }, None) => return,
    };
    match played.hit.as_ref().and_then(|call| tolerated(call, phase, fault.aim.act, played, extent)) {
        Some(why) if !played.problems.is_empty() => tally.tolerate(&name, why),
        _ => {
            tally.count(&name, &played.problems);
            if !played.said.is_empty() {
                tally.note(&played.said);
            }
        }
    }
}

/// What is not perfect and stays so, with the reason.
fn tolerated(call: &Call, phase: Phase, act: Act, played: &Played, extent: &Extent) -> Option<&'static str> {
    let aborted = matches!(played.ending, Some(Ending::Killed(libc::SIGABRT | libc::SIGSEGV)));
    let memory = ["mmap", "brk", "mremap", "mprotect", "munmap", "madvise"].contains(&call.name);
    match act {
        Act::Fail(_) | Act::FailLikely if call.role == Role::Host && call.index < extent.before_main => {
            Some("libc's and Rust's start ends the process before main; nothing has been made")
        }
        Act::Fail(_) | Act::FailLikely if aborted && memory => {
            Some("Rust aborts without memory; that is death, which delete --force clears up")
        }
        Act::Fail(_) | Act::FailLikely if aborted && call.name == "rseq" => Some(
            "glibc aborts where a thread has no restartable sequences; that is death, which delete --force clears up",
        ),
        Act::Fail(_) | Act::FailLikely if call.name.ends_with("nanosleep") => {
            Some("Rust's sleep takes no failure but EINTR, nor does the kernel have one")
        }
        Act::Fail(_) | Act::FailLikely if call.name == "futex" => Some(
            "libc waits for its threads by it, and asks again whatever it says; nor does the kernel say this",
        ),
        Act::Fail(_) | Act::FailLikely if call.name == "close" && aborted => Some(
            "Rust aborts where a directory cannot be closed; that is death, which delete --force clears up",
        ),
        Act::Fail(_) | Act::FailLikely if call.role != Role::Host && unheard(call, phase, played) => {
            Some("init waits for its starter and has nobody to tell: it ends, and the container has stopped")
        }
        Act::Fail(_) | Act::FailLikely
            if memory && played.said.contains("open the mount sources: resource temp") =>
        {
            Some("pthread_create says EAGAIN, whatever it was that it could not have")
        }
        Act::Fail(_) | Act::FailLikely if phase == Phase::Run && played.ran => {
            Some("run cannot delete a container whose program has ended: it says why, and delete can do it")
        }
        _ => None,
    }
}

/// Whether init makes a call between `create` and `start`.
fn unheard(call: &Call, phase: Phase, played: &Played) -> bool {
    match phase {
        Phase::Create => {
            played.ending == Some(Ending::Exited(0))
                && ["read", "recvmsg", "signalfd4", "ppoll"].contains(&call.name)
        }
        Phase::Start => ["ppoll", "accept4"].contains(&call.name),
        _ => false,
    }
}

/// All faults of a scenario, or a sample: each call of each process once in the first place it stands, and every seventh.
fn faults(calls: &[Vec<Call>], extent: &Extent) -> Vec<Fault> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for (phase, calls) in calls.iter().enumerate() {
        for (nth, call) in calls.iter().enumerate() {
            let first = seen.insert((phase, call.role, call.name));
            let wanted = extent.full || (first && call.index >= extent.before_main) || nth % 7 == 3;
            if !wanted || never_fails(call.name) {
                continue;
            }
            let fault = |act| {
                let when = When::At { role: call.role, index: call.index };
                Fault { phase, aim: Aim { when, act } }
            };
            all.push(fault(Act::FailLikely));
            if interruptible(call.name) {
                all.push(fault(Act::Fail(libc::EINTR)));
            }
            if extent.full || nth % 3 == 0 {
                all.push(fault(Act::Kill));
            }
        }
    }
    all
}

/// Ends of processes and of handlers: there is no failure to inject.
fn never_fails(name: &str) -> bool {
    ["exit", "exit_group", "rt_sigreturn", "restart_syscall"].contains(&name)
}

/// Calls that a signal interrupts where they wait. Those on files of a disk do not.
fn interruptible(name: &str) -> bool {
    const WAITING: &[&str] = &[
        "wait4",
        "waitid",
        "ppoll",
        "poll",
        "epoll_wait",
        "epoll_pwait",
        "connect",
        "accept4",
        "flock",
        "sendto",
        "recvfrom",
    ];
    WAITING.contains(&name)
}
