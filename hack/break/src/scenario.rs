//! What is done to a container while something goes wrong.

use crate::bundle::Kind;
use crate::world::World;
use std::ffi::OsString;
use std::path::Path;

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Run,
    RunDetached,
    Create,
    Start,
    State,
    Exec,
    Pause,
    Resume,
    Kill,
    Delete,
    DeleteForced,
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Run => "run",
            Phase::RunDetached => "run --detach",
            Phase::Create => "create",
            Phase::Start => "start",
            Phase::State => "state",
            Phase::Exec => "exec",
            Phase::Pause => "pause",
            Phase::Resume => "resume",
            Phase::Kill => "kill",
            Phase::Delete => "delete",
            Phase::DeleteForced => "delete --force",
        }
    }

    /// Whether its failure must leave nothing of the container.
    pub const fn makes(self) -> bool {
        matches!(self, Phase::Run | Phase::RunDetached | Phase::Create)
    }

    /// What it prints when all is well.
    pub const fn says(self) -> Option<&'static str> {
        match self {
            Phase::Run | Phase::Exec => Some("ok\n"),
            _ => None,
        }
    }

    /// Its command line.
    pub fn command(self, world: &World, id: &str, bundle: &Path) -> Vec<OsString> {
        let bundle = bundle.to_string_lossy();
        let pid_file = world.file("pid");
        let pid_file = pid_file.to_string_lossy();
        world.command(&match self {
            Phase::Run => vec!["run", "--bundle", &bundle, id],
            Phase::RunDetached => vec!["run", "--detach", "--pid-file", &pid_file, "--bundle", &bundle, id],
            Phase::Create => vec!["create", "--pid-file", &pid_file, "--bundle", &bundle, id],
            Phase::Exec => vec!["exec", id, "/bin/echo", "ok"],
            Phase::Kill => vec!["kill", id, "KILL"],
            Phase::DeleteForced => vec!["delete", "--force", id],
            other => vec![other.name(), id],
        })
    }
}

/// A container's life.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub kind: Kind,
    pub program: &'static [&'static str],
    pub phases: &'static [Phase],
    /// A part of the quick suite.
    pub quick: bool,
}

const SHORT: &[&str] = &["/bin/echo", "ok"];
const LONG: &[&str] = &["/bin/sleep", "1000"];
const LIFE: &[Phase] = &[
    Phase::Create,
    Phase::State,
    Phase::Start,
    Phase::Exec,
    Phase::Pause,
    Phase::Resume,
    Phase::Kill,
    Phase::Delete,
];

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "run-docker", kind: Kind::Docker, program: SHORT, phases: &[Phase::Run], quick: true },
    Scenario { name: "life", kind: Kind::Default, program: LONG, phases: LIFE, quick: true },
    Scenario { name: "life-rich", kind: Kind::Rich, program: LONG, phases: LIFE, quick: false },
    Scenario {
        name: "hooks",
        kind: Kind::Hooks,
        program: LONG,
        phases: &[Phase::Create, Phase::Start, Phase::DeleteForced],
        quick: false,
    },
    Scenario {
        name: "user",
        kind: Kind::User,
        program: LONG,
        phases: &[Phase::RunDetached, Phase::Exec, Phase::DeleteForced],
        quick: true,
    },
    Scenario {
        name: "shared-pids",
        kind: Kind::SharedPids,
        program: LONG,
        phases: &[Phase::Create, Phase::Start, Phase::DeleteForced],
        quick: true,
    },
];
