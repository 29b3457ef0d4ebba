//! Shims beside each other: ours, and containerd's with runc, with crun and with us as its runtime. Runs inside `hack/testbed`, where
//! containerd and dockerd know all of them (`hack/bench/engines`).

mod client;
mod engines;
mod memory;
mod pairs;
mod part;

use crate::Result;
use crate::bench::Bench;
use crate::options::Options;
use crate::table::Table;
use client::Program;
use pairs::Pairs;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A shim with its runtime, and what engines call it by.
#[derive(Clone, Debug)]
pub struct Peer {
    name: String,
    program: Program,
    /// What `ctr run` is told.
    ctr: Vec<String>,
    /// What `docker run --runtime` is told.
    docker: &'static str,
}

/// Something that is measured.
struct Subject {
    name: &'static str,
    about: &'static str,
    measure: fn(&Ground, &mut Report) -> Result<()>,
}

const ALL: [Subject; 8] = [
    Subject {
        name: "part",
        about: "the shim's own part of a container and of an exec",
        measure: part::measure,
    },
    Subject { name: "ctr-run", about: "ctr run --rm true", measure: engines::ctr_run },
    Subject { name: "ctr-exec", about: "ctr task exec true", measure: engines::ctr_exec },
    Subject { name: "docker-run", about: "docker run --rm true", measure: engines::docker_run },
    Subject { name: "docker-exec", about: "docker exec true", measure: engines::docker_exec },
    Subject { name: "parallel-20", about: "20 starts at once by ctr", measure: engines::parallel_20 },
    Subject { name: "parallel-100", about: "100 starts at once by ctr", measure: engines::parallel_100 },
    Subject {
        name: "memory",
        about: "memory of 1, 20 and 100 shims, and after 1,000 execs",
        measure: memory::measure,
    },
];

/// What every subject stands on.
pub struct Ground<'a> {
    bench: &'a Bench<'a>,
    peers: Vec<Peer>,
}

impl Ground<'_> {
    /// How many rounds: 100, unless asked otherwise.
    fn pairs(&self) -> usize {
        self.bench.options.runs.unwrap_or(if self.bench.options.quick { 5 } else { 100 })
    }

    fn names(&self) -> Vec<String> {
        self.peers.iter().map(|peer| peer.name.clone()).collect()
    }

    /// Measures each peer once a round, the first another each round; the first round warms the caches. Engines and runtimes fail
    /// now and then on a busy machine: such a round is told, and done again under a number of its own, for what it made may still
    /// be there. Of too many of them the last error is this one's.
    fn interleave(
        &self,
        rounds: usize,
        mut once: impl FnMut(&Peer, usize) -> Result<Vec<f64>>,
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        let (mut all, mut failures) = (Vec::new(), 0);
        let mut number = 0;
        while all.len() <= rounds {
            match self.round(number, &mut once) {
                Ok(row) => all.push(row),
                Err(error) if failures < may_fail(rounds) => {
                    failures += 1;
                    eprintln!("round {number} is done again: {error}");
                }
                Err(error) => return Err(error),
            }
            number += 1;
        }
        all.remove(0);
        Ok(all)
    }

    fn round(
        &self,
        number: usize,
        once: &mut impl FnMut(&Peer, usize) -> Result<Vec<f64>>,
    ) -> Result<Vec<Vec<f64>>> {
        let count = self.peers.len();
        let mut row = vec![Vec::new(); count];
        for turn in 0..count {
            let at = (number + turn) % count;
            let peer = &self.peers[at];
            row[at] = once(peer, number).map_err(|error| format!("{}: {error}", peer.name))?;
            crate::machine::reap();
        }
        Ok(row)
    }
}

/// How many of so many may fail before it is no accident.
fn may_fail(count: usize) -> usize {
    2 + count / 20
}

/// Where subjects put what they found.
pub struct Report {
    markdown: bool,
    samples: Vec<Value>,
}

impl Report {
    fn table(&mut self, table: &Table) {
        print!("{}", table.render(self.markdown));
    }

    fn pairs(&mut self, pairs: &Pairs) {
        self.table(&pairs.table());
        for (peer, name) in pairs.names.iter().enumerate() {
            self.samples.push(json!({ "subject": pairs.title, "peer": name, "wall_ms": pairs.of(peer) }));
        }
    }
}

/// Measures what was asked for.
///
/// # Errors
/// Without the shims or the engines, or if one of them fails.
pub fn measure(options: &Options) -> Result<()> {
    let bench = Bench::new(options)?;
    let peers = peers(options)?;
    println!("{}. Times in milliseconds, interleaved; ours is the first.\n", bench.describe());
    let ground = Ground { bench: &bench, peers };
    let mut report = Report { markdown: options.markdown, samples: Vec::new() };
    let mut failed = Vec::new();
    for subject in ALL.iter().filter(|subject| options.wants(subject.name)) {
        // One that fails keeps nobody from the others' figures.
        if let Err(error) = (subject.measure)(&ground, &mut report) {
            eprintln!("{}: {error}", subject.name);
            failed.push(subject.name);
        }
    }
    if let Some(file) = &options.json {
        let all = json!({ "machine": bench.describe(), "samples": report.samples });
        std::fs::write(file, serde_json::to_vec_pretty(&all)?)?;
    }
    if !failed.is_empty() {
        return Err(format!("not measured: {}", failed.join(", ")).into());
    }
    Ok(())
}

/// The names of the subjects, for `--list`.
pub fn list() {
    for subject in &ALL {
        println!("shim {:<13} {}", subject.name, subject.about);
    }
}

/// All that are there and asked for; ours, which the others are compared with, always.
fn peers(options: &Options) -> Result<Vec<Peer>> {
    let found = |name: &str, why: &str| -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let file = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
        Ok(file.ok_or_else(|| format!("{name} is not in PATH: {why}"))?)
    };
    let inside = "this is run by hack/bench/engines";
    let ours = found("containerd-shim-cofferdam-v2", inside)?;
    let theirs = found("containerd-shim-runc-v2", inside)?;
    let binary = |name: &str| found(name, inside).map(|path| path.to_string_lossy().into_owned());
    let words = |kind: &str, runtime: &str| -> Vec<String> {
        let mut words = vec!["--runtime".to_owned(), kind.to_owned()];
        if !runtime.is_empty() {
            words.extend(["--runc-binary".to_owned(), runtime.to_owned()]);
        }
        words
    };
    let go = "io.containerd.runc.v2";
    let (crun, cofferdam) = (binary("crun")?, binary("cofferdam")?);
    let all = [
        ("cofferdam", ours, String::new(), words("io.containerd.cofferdam.v2", ""), "cofferdam"),
        ("runc-v2 + runc", theirs.clone(), String::new(), words(go, ""), "runc"),
        ("runc-v2 + crun", theirs.clone(), crun.clone(), words(go, &crun), "crun"),
        ("runc-v2 + cofferdam", theirs, cofferdam.clone(), words(go, &cofferdam), "cofferdam-path"),
    ];
    let all = all.into_iter().enumerate().filter(|(at, (name, ..))| *at == 0 || options.wants_peer(name));
    Ok(all
        .map(|(_, (name, shim, runtime, ctr, docker))| Peer {
            name: name.to_owned(),
            program: Program { shim, runtime },
            ctr,
            docker,
        })
        .collect())
}
