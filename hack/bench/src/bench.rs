//! What every subject works with, and the interleaved run.

use crate::Result;
use crate::bounded::{Bounded, Outcome, Sample};
use crate::bundles::{Bundles, Case, Config, set_args};
use crate::floor;
use crate::machine::{Machine, reap};
use crate::options::Options;
use crate::peers::{self, Peer, Verb};
use crate::series::Series;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::time::Duration;

/// The place, the peers, the bundles.
pub struct Bench<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// All that are measured.
    pub peers: Vec<Peer>,
    /// Makes bundles.
    pub bundles: Bundles,
    /// Runs commands.
    pub bounded: Bounded,
    /// The place. Last, so that it goes last.
    pub machine: Machine,
}

impl<'a> Bench<'a> {
    /// Makes the place and finds the peers.
    ///
    /// # Errors
    /// Without root, a C compiler or busybox.
    pub fn new(options: &'a Options) -> Result<Bench<'a>> {
        let machine = Machine::enter(options.hugetlb)?;
        floor::build(&machine.dir.join("programs"))?;
        let bundles = Bundles::new(&machine)?;
        let peers = peers::find(options, &machine.dir)?;
        let bounded = Bounded::new(&machine.dir.join("errors"), options.limit)?;
        Ok(Bench { options, peers, bundles, bounded, machine })
    }

    /// One sentence for the head of everything printed: who was measured on what.
    pub fn describe(&self) -> String {
        let name = nix::sys::utsname::uname()
            .map(|it| it.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let layout = match self.machine.hierarchies.len() {
            0 => "cgroup v2".to_owned(),
            count => format!("cgroup v1, {count} hierarchies"),
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let peers: Vec<String> = self
            .peers
            .iter()
            .filter(|peer| !peer.is_floor)
            .map(|peer| format!("{} {}", peer.name, version(peer)))
            .collect();
        format!("Linux {name}, {cores} processors, {layout}; {}", peers.join(", "))
    }

    /// Calls `once` for one peer after the other, the first another each round, until each has had `runs`. A peer that keeps
    /// failing is left out of the rest.
    ///
    /// # Errors
    /// Those of `once`.
    pub fn interleave<T>(
        &self,
        cases: &[(&Peer, T)],
        runs: usize,
        mut once: impl FnMut(&Peer, &T) -> Result<Outcome>,
    ) -> Result<Vec<Series>> {
        let mut all: Vec<Series> = cases.iter().map(|(peer, _)| Series::new(&peer.name)).collect();
        for round in 0..=runs {
            for turn in 0..cases.len() {
                let index = (round + turn) % cases.len();
                let (peer, case) = &cases[index];
                if all[index].is_hopeless() {
                    continue;
                }
                let outcome = once(peer, case)?;
                // The first round warms the caches, and only counts if it went wrong.
                if round > 0 || !matches!(outcome, Outcome::Done(_)) {
                    all[index].push(outcome);
                }
                reap();
            }
        }
        Ok(all)
    }

    /// One command; after anything but success the container is cleared away.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn once(&self, peer: &Peer, verb: Verb, case: &Case) -> Result<Outcome> {
        let outcome = self.bounded.run(&mut peer.command(verb, case))?;
        if !matches!(outcome, Outcome::Done(_)) {
            self.clear(peer, case)?;
        }
        Ok(outcome)
    }

    /// A command that must succeed, in preparation of what is measured.
    ///
    /// # Errors
    /// If it does not.
    pub fn must(&self, peer: &Peer, verb: Verb, case: &Case) -> Result<Sample> {
        match self.once(peer, verb, case)? {
            Outcome::Done(sample) => Ok(sample),
            other => Err(format!("{} {verb:?}: {other:?}", peer.name).into()),
        }
    }

    /// Takes a container away, whatever state it is in.
    ///
    /// # Errors
    /// If no command can be started.
    pub fn clear(&self, peer: &Peer, case: &Case) -> Result<()> {
        self.machine.clear(&case.cgroup);
        if !peer.is_floor {
            self.bounded.run(&mut peer.command(Verb::ForceDelete, case))?;
        }
        self.machine.clear(&case.cgroup);
        let _ = std::fs::remove_dir_all(peer.root.join(&case.id));
        Ok(())
    }

    /// A container that sleeps until [`Bench::clear`].
    ///
    /// # Errors
    /// If the peer cannot make one.
    pub fn running(&self, peer: &Peer, config: Config) -> Result<Case> {
        let case =
            self.bundles.make(peer, config, "running", |json| set_args(json, &["/bin/sleep", "100000"]))?;
        self.must(peer, Verb::Create, &case)?;
        self.must(peer, Verb::Start, &case)?;
        Ok(case)
    }

    /// Waits until the container's process, which this process inherited, has ended.
    ///
    /// # Errors
    /// If its pid is not known.
    pub fn wait(&self, peer: &Peer, case: &Case) -> Result<()> {
        let file = peer.pid_file(case);
        let pid = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        // Whoever is not our child has been reaped by somebody.
        let _ = waitid(Id::Pid(Pid::from_raw(pid.trim().parse()?)), WaitPidFlag::WEXITED);
        Ok(())
    }

    /// The peers for which `make` succeeds, with what it made; the others' reasons as sentences.
    pub fn prepare<T>(&self, make: impl Fn(&Peer) -> Result<T>) -> (Vec<(&Peer, T)>, Vec<String>) {
        let (mut cases, mut refused) = (Vec::new(), Vec::new());
        for peer in &self.peers {
            match make(peer) {
                Ok(case) => cases.push((peer, case)),
                Err(error) => refused.push(format!("{}: left out: {error}", peer.name)),
            }
        }
        (cases, refused)
    }

    /// Lets the machine become idle.
    pub fn idle(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The first line of `--version`, its last word.
fn version(peer: &Peer) -> String {
    let output = std::process::Command::new(&peer.program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().and_then(|line| line.split(' ').next_back()).unwrap_or("?").to_owned()
}
