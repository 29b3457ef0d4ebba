//! What is measured: one file a subject.

mod exec;
mod growth;
mod lifecycle;
mod memory;
mod parallel;
mod run;
mod size;
mod spaced;

use crate::Result;
use crate::bench::Bench;
use crate::options::Options;
use crate::series::Series;
use crate::table::Table;
use serde_json::{Value, json};

/// Something that is measured.
pub struct Subject {
    /// For `--filter`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    measure: fn(&Bench, &mut Report) -> Result<()>,
}

/// All, in the order they are printed.
pub const ALL: [Subject; 13] = [
    Subject { name: "run", about: "run true, default config", measure: run::default },
    Subject { name: "run-docker", about: "run true, Docker's config", measure: run::docker },
    Subject { name: "spaced", about: "run true, with the machine idle in between", measure: spaced::measure },
    Subject {
        name: "lifecycle",
        about: "create, start and delete as three processes",
        measure: lifecycle::measure,
    },
    Subject {
        name: "exec",
        about: "exec true in a running container, default config",
        measure: exec::default,
    },
    Subject {
        name: "exec-docker",
        about: "exec true in a running container, Docker's config",
        measure: exec::docker,
    },
    Subject {
        name: "memory",
        about: "peak resident set, and the least limit that works",
        measure: memory::measure,
    },
    Subject { name: "size", about: "bytes of the binary and of a container's state", measure: size::measure },
    Subject {
        name: "host-mounts",
        about: "growth with the mounts of the host",
        measure: growth::host_mounts,
    },
    Subject {
        name: "config-mounts",
        about: "growth with the mounts of the config",
        measure: growth::config_mounts,
    },
    Subject {
        name: "containers",
        about: "growth with the containers in the state root",
        measure: growth::containers,
    },
    Subject {
        name: "seccomp",
        about: "growth with the rules of the seccomp profile",
        measure: growth::seccomp,
    },
    Subject { name: "parallel", about: "100 containers by two loops", measure: parallel::measure },
];

/// Where subjects put what they found.
pub struct Report {
    markdown: bool,
    samples: Vec<Value>,
}

impl Report {
    /// Prints a table.
    pub fn table(&mut self, table: &Table) {
        print!("{}", table.render(self.markdown));
    }

    /// Prints the usual table, and keeps its samples.
    pub fn series(&mut self, title: &str, all: &[Series], notes: Vec<String>) {
        let mut table = Table::of_series(title, all);
        table.notes.extend(notes);
        self.table(&table);
        self.keep(title, all);
    }

    /// Keeps samples for `--json`.
    pub fn keep(&mut self, title: &str, all: &[Series]) {
        for series in all {
            self.samples.push(json!({
                "subject": title, "peer": series.name, "wall_ms": series.wall, "cpu_ms": series.cpu,
                "hung": series.hung, "failure": series.failure,
            }));
        }
    }
}

/// Measures what was asked for, and prints each table when it is there.
///
/// # Errors
/// If the place cannot be made, or a subject cannot go on.
pub fn measure(options: &Options) -> Result<()> {
    let bench = Bench::new(options)?;
    let mut report = Report { markdown: options.markdown, samples: Vec::new() };
    println!("{}. Times in milliseconds, peers interleaved.\n", bench.describe());
    for subject in ALL.iter().filter(|subject| options.wants(subject.name)) {
        (subject.measure)(&bench, &mut report).map_err(|error| format!("{}: {error}", subject.name))?;
    }
    if let Some(file) = &options.json {
        let all = json!({ "machine": bench.describe(), "samples": report.samples });
        std::fs::write(file, serde_json::to_vec_pretty(&all)?)?;
    }
    Ok(())
}
