//! Plays a scenario, with a fault or without, and judges what became of it.

use crate::Result;
use crate::scenario::{Phase, Scenario};
use crate::tracer::{Act, Aim, Call, Ending, Outcome, Role, Tracer};
use crate::world::World;
use std::path::PathBuf;
use std::time::Duration;

/// Nothing that a runtime does takes as long: what is not over by then hangs.
pub const HANGS: Duration = Duration::from_secs(20);
/// How long processes may take to be gone.
const GONE: Duration = Duration::from_secs(5);
/// How long an init may take to notice that its creator is dead.
const AT_ONCE: Duration = Duration::from_millis(30);

/// A fault in one of a scenario's commands.
#[derive(Clone, Debug)]
pub struct Fault {
    pub phase: usize,
    pub aim: Aim,
}

/// What came of a scenario.
#[derive(Debug, Default)]
pub struct Played {
    /// Every command's calls.
    pub calls: Vec<Vec<Call>>,
    /// Where the fault met.
    pub hit: Option<Call>,
    /// What the command said that met the fault.
    pub said: String,
    /// How it ended.
    pub ending: Option<Ending>,
    /// The program had run when the fault met.
    pub ran: bool,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Someone who plays one scenario again and again.
pub struct Player<'a> {
    pub world: &'a World,
    pub tracer: &'a mut Tracer,
    pub scenario: &'a Scenario,
    bundle: PathBuf,
}

impl<'a> Player<'a> {
    /// Makes the scenario's bundle.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(world: &'a World, tracer: &'a mut Tracer, scenario: &'a Scenario) -> Result<Player<'a>> {
        let bundle = world.bundle(scenario.kind, scenario.name, scenario.program)?;
        Ok(Player { world, tracer, scenario, bundle })
    }

    /// Plays it once and clears up.
    ///
    /// # Errors
    /// When the tracer does not work, or something cannot be cleared up even by force.
    pub fn play(&mut self, fault: Option<&Fault>) -> Result<Played> {
        let mut played = Played::default();
        self.tracer.begin();
        for (index, phase) in self.scenario.phases.iter().enumerate() {
            if !self.step(index, *phase, fault, &mut played)? {
                break;
            }
        }
        self.finish(&mut played)?;
        Ok(played)
    }

    fn id(&self) -> &'static str {
        self.scenario.name
    }

    /// One command; false when the scenario is over.
    fn step(
        &mut self,
        index: usize,
        phase: Phase,
        fault: Option<&Fault>,
        played: &mut Played,
    ) -> Result<bool> {
        if phase == Phase::Delete {
            self.tracer.settle(GONE)?;
        }
        let command = phase.command(self.world, self.id(), &self.bundle);
        let aim = fault.filter(|fault| fault.phase == index).map(|fault| &fault.aim);
        // Behind the fault nothing is of interest but whether it works.
        let outcome = match fault {
            Some(fault) if fault.phase < index => self.tracer.plain(&command, HANGS)?,
            _ => self.tracer.run(&command, aim, HANGS)?,
        };
        played.calls.push(outcome.calls.clone());
        if outcome.timed_out {
            played.problems.push(format!("{} hangs", phase.name()));
            played.hit = outcome.hit;
            return Ok(false);
        }
        if let (Some(aim), Some(call)) = (aim, &outcome.hit) {
            played.hit = Some(call.clone());
            played.said = outcome.stderr.trim().into();
            played.ending = Some(outcome.ending);
            played.ran = phase.says() == Some(outcome.stdout.as_str());
            let problems = self.judge(phase, aim.act, call, &outcome)?;
            played.problems.extend(problems);
            // A killed init is a container that has stopped: nothing more can be done to it.
            return Ok(outcome.succeeded() && aim.act != Act::Kill);
        }
        if !works(phase, &outcome) {
            let (name, said) = (phase.name(), outcome.stderr.trim());
            let what = match fault {
                Some(fault) if fault.phase < index => {
                    format!("said nothing, and then {name} does not work")
                }
                _ => format!("{name} does not work"),
            };
            played.problems.push(format!("{what}: {:?} {:?} {said:?}", outcome.ending, outcome.stdout));
            return Ok(false);
        }
        Ok(true)
    }

    /// What is wrong with how a command took its fault.
    fn judge(&mut self, phase: Phase, act: Act, call: &Call, outcome: &Outcome) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        match act {
            Act::Kill if call.role == Role::Host => problems.extend(self.after_death(phase)?),
            // For the host it was the program that was killed.
            Act::Kill if outcome.ending == Ending::Exited(128 + nix::libc::SIGKILL) => {}
            _ if outcome.succeeded() => {
                if act != Act::Kill && !works(phase, outcome) {
                    problems.push(format!("says nothing, but did not work: {:?}", outcome.stdout));
                }
            }
            _ => {
                problems.extend(bad_sentence(call.errno(act), outcome));
                if phase.makes() {
                    let mut left = self.world.left(self.id())?;
                    left.extend(self.tracer.settle(GONE)?.iter().map(|pid| format!("process {pid}")));
                    problems
                        .extend(left.iter().map(|what| format!("a failed {} leaves {what}", phase.name())));
                }
            }
        }
        Ok(problems)
    }

    /// The command was killed: init may not wait for it for ever, and what `state` says must be true.
    fn after_death(&mut self, phase: Phase) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        // What waits for a dead creator must have gone; a container that was created or runs stays.
        let stays = |status: &str| ["created", "running", "paused"].contains(&status);
        self.tracer.settle(AT_ONCE)?;
        let mut status = self.status()?;
        let left = self.tracer.settle_to(usize::from(stays(&status)), GONE)?;
        if !left.is_empty() {
            status = self.status()?;
            if !stays(&status) || left.len() > 1 {
                problems
                    .push(format!("{} is dead, the container is {status}, but {left:?} live", phase.name()));
            }
        }
        match status.as_str() {
            "created" => {
                let command = Phase::Start.command(self.world, self.id(), &self.bundle);
                let outcome = self.tracer.plain(&command, HANGS)?;
                if !outcome.succeeded() {
                    let said = outcome.stderr.trim();
                    problems.push(format!(
                        "{} is dead, the container is created, but start says {said:?}",
                        phase.name()
                    ));
                }
            }
            "none" | "stopped" | "creating" | "running" | "paused" => {}
            other => problems.push(format!("{} is dead, and state says {other}", phase.name())),
        }
        Ok(problems)
    }

    /// The status that `state` tells; `none` when there is no container.
    fn status(&mut self) -> Result<String> {
        let command = Phase::State.command(self.world, self.id(), &self.bundle);
        let outcome = self.tracer.plain(&command, HANGS)?;
        if !outcome.succeeded() && outcome.stderr.contains("does not exist") {
            return Ok("none".into());
        }
        let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
        Ok(value["status"].as_str().map_or_else(|| format!("{:?}", outcome.stderr), str::to_owned))
    }

    /// `delete --force` must always leave nothing.
    fn finish(&mut self, played: &mut Played) -> Result<()> {
        let command = Phase::DeleteForced.command(self.world, self.id(), &self.bundle);
        let outcome = self.tracer.plain(&command, HANGS)?;
        if outcome.timed_out {
            played.problems.push("delete --force hangs".into());
        } else if !outcome.succeeded() {
            played.problems.push(format!("delete --force fails: {:?}", outcome.stderr.trim()));
        }
        let mut left = self.world.left(self.id())?;
        left.extend(self.tracer.settle(GONE)?.iter().map(|pid| format!("process {pid}")));
        played.problems.extend(left.iter().map(|what| format!("delete --force leaves {what}")));
        self.tracer.clear()?;
        if !left.is_empty() {
            self.world.scrub(self.id());
        }
        Ok(())
    }
}

/// Whether a command did what it is for.
fn works(phase: Phase, outcome: &Outcome) -> bool {
    outcome.succeeded() && phase.says().is_none_or(|text| outcome.stdout == text)
}

/// A failure must be one sentence that names its reason.
fn bad_sentence(errno: Option<i32>, outcome: &Outcome) -> Option<String> {
    let said = outcome.stderr.trim();
    if let Ending::Killed(signal) = outcome.ending {
        return Some(format!("dies of signal {signal}: {said:?}"));
    }
    let errors = said.lines().filter(|line| !line.contains("level=warning")).count();
    if said.contains("panicked") || errors != 1 {
        return Some(format!("says not one sentence but {said:?}"));
    }
    let why = errno.map(reason).unwrap_or_default();
    (!said.to_lowercase().contains(&why)).then(|| format!("does not say why: {said:?}"))
}

/// An error in libc's words, in small letters.
fn reason(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
