//! The command line.

use crate::Result;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` prints.
pub const HELP: &str = "\
cofferdam-bench [OPTION]...               times every subject, all peers in one interleaved run
cofferdam-bench syscalls [OPTION]...      system calls and processes of each verb, up to the container's execve
cofferdam-bench instructions [OPTION]...  instructions of cofferdam's user-space half, beside those on record
cofferdam-bench kernel [OPTION]...        what each call of the floor costs
cofferdam-bench shim [OPTION]...          shims beside each other, and whole commands of engines: by hack/bench/engines

  --quick             few runs: to see that it works
  --full              10,000 mounts on the host, too
  --runs N            runs of each peer (default 60; with --quick 10; of shims 100 and 5)
  --filter TEXT       only subjects whose name holds TEXT (repeatable)
  --list              the subjects
  --peer NAME=PATH    another runtime, or another build of one (repeatable). A name that begins with one of the known
                      names is called like it: cofferdam-before=/tmp/cofferdam
  --only NAME         only this peer (repeatable)
  --without NAME      not this peer (repeatable)
  --hugetlb           mounts hugetlb as a cgroup v1 hierarchy, for ten of them; moves it for the whole machine meanwhile
  --limit SECONDS     the longest that one command may take (default 10)
  --idle MS           the pause of the subject `spaced` (default 100)
  --json FILE         all samples, in milliseconds
  --markdown          tables in Markdown
  --by-name PEER      syscalls: this peer's calls by their names, too
  --update            instructions: writes the record

Known peers are found by COFFERDAM, CRUN, RUNC and YOUKI in the environment (eval \"$(hack/peers)\" sets the last three), else
bin/cofferdam of this repository and what PATH has.
";

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// The help text.
    Help,
    /// The names of the subjects.
    List,
    /// Tables of times and sizes.
    Time,
    /// Tables of system calls.
    Syscalls,
    /// Instruction counts.
    Instructions,
    /// The floor, call by call.
    Kernel,
    /// Shims and engines.
    Shim,
}

/// The command line, read.
pub struct Options {
    /// What is asked for.
    pub task: Task,
    /// Few runs.
    pub quick: bool,
    /// The costly levels, too.
    pub full: bool,
    /// Runs of each peer.
    pub runs: Option<usize>,
    /// Parts of subjects' names; none is all.
    pub filters: Vec<String>,
    /// Peers by name and program.
    pub peers: Vec<(String, PathBuf)>,
    /// Names of the peers to measure; none is all.
    pub only: Vec<String>,
    /// Names of the peers to leave out.
    pub without: Vec<String>,
    /// hugetlb as a v1 hierarchy.
    pub hugetlb: bool,
    /// The longest that one command may take.
    pub limit: Duration,
    /// The pause between spaced runs.
    pub idle: Duration,
    /// Where samples go.
    pub json: Option<PathBuf>,
    /// Tables in Markdown.
    pub markdown: bool,
    /// The peer whose calls are listed by name.
    pub by_name: Option<String>,
    /// Writes the record of instructions.
    pub update: bool,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// An unknown option, a missing or unreadable value.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options {
            task: Task::Time,
            quick: false,
            full: false,
            runs: None,
            filters: Vec::new(),
            peers: Vec::new(),
            only: Vec::new(),
            without: Vec::new(),
            hugetlb: false,
            limit: Duration::from_secs(10),
            idle: Duration::from_millis(100),
            json: None,
            markdown: false,
            by_name: None,
            update: false,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "syscalls" => options.task = Task::Syscalls,
                "instructions" => options.task = Task::Instructions,
                "kernel" => options.task = Task::Kernel,
                "shim" => options.task = Task::Shim,
                "-h" | "--help" => options.task = Task::Help,
                "--list" => options.task = Task::List,
                "--quick" => options.quick = true,
                "--full" => options.full = true,
                "--runs" => options.runs = Some(number(&arg, &value()?)?.max(1)),
                "--filter" => options.filters.push(value()?),
                "--peer" => options.peers.push(named_path(&value()?)?),
                "--only" => options.only.push(value()?),
                "--without" => options.without.push(value()?),
                "--hugetlb" => options.hugetlb = true,
                "--limit" => options.limit = Duration::from_secs(number(&arg, &value()?)? as u64),
                "--idle" => options.idle = Duration::from_millis(number(&arg, &value()?)? as u64),
                "--json" => options.json = Some(value()?.into()),
                "--markdown" => options.markdown = true,
                "--by-name" => options.by_name = Some(value()?),
                "--update" => options.update = true,
                other => return Err(format!("unknown argument {other:?}; --help lists all").into()),
            }
        }
        Ok(options)
    }

    /// How often a subject is run: its own choice where that is less than what was asked for.
    pub fn runs(&self, most: usize) -> usize {
        self.runs.unwrap_or(if self.quick { 10 } else { 60 }).min(most)
    }

    /// Whether a subject of this name is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// Whether a peer of this name is to be measured.
    pub fn wants_peer(&self, name: &str) -> bool {
        let listed = |names: &[String]| names.iter().any(|other| other == name);
        (self.only.is_empty() || listed(&self.only)) && !listed(&self.without)
    }
}

fn number(option: &str, text: &str) -> Result<usize> {
    text.parse().map_err(|error| format!("{option} {text}: {error}").into())
}

fn named_path(text: &str) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').ok_or_else(|| format!("--peer {text}: wants NAME=PATH"))?;
    Ok((name.to_owned(), path.into()))
}
