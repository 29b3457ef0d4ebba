//! The words that the test program takes.

use super::Test;
use super::world::Runtime;
use std::path::PathBuf;

/// What the caller asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The runtimes to test.
    pub runtimes: Vec<Runtime>,
    /// The one to compare with.
    pub peer: Option<Runtime>,
    /// An earlier build of the runtime, which makes containers that the runtime is to drive.
    pub previous: Option<Runtime>,
    /// Only tests whose names contain one of these.
    pub filters: Vec<String>,
    /// Not those whose names contain one of these.
    pub leave_out: Vec<String>,
    /// Only those that go another way with each cgroup driver.
    pub by_driver: bool,
    /// How many at a time.
    pub jobs: usize,
    /// Times are multiplied by this on a slow machine.
    pub patience: u64,
    /// systemd makes the cgroups.
    pub systemd: bool,
    /// Where tests work.
    pub work: PathBuf,
    /// What the caller wants to see besides failures.
    pub say: Say,
    /// How often each test runs.
    pub repeat: usize,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// A line a test.
    All,
    /// Only what did not pass.
    Unusual,
    /// Only the names, and nothing is run.
    List,
}

/// How to call the program.
pub const USAGE: &str = "\
cofferdam-tests [OPTION]... [NAME]...: runs the tests whose names contain a NAME (default: all) as root

  --runtime PATH     a runtime to test (repeatable; default: $RUNTIME, a list separated by spaces; else bin/cofferdam)
  --peer PATH        the runc to compare with (default: $PEER, else runc of $PATH)
  --previous DIR     the folder of an earlier build's programs, whose containers are to be driven (default: $PREVIOUS; hack/previous)
  --systemd-cgroup   let systemd make the cgroups
  --by-driver        only tests of what goes another way with each cgroup driver
  --jobs N           how many at a time (default 2)
  --patience N       multiply all time limits (default 1; $PATIENCE)
  --repeat N         run each test N times
  --skip NAME        leave out tests whose names contain NAME (repeatable)
  --work DIR         where to work (default: a directory of its own in $TMPDIR)
  --quiet            print what did not pass, and the summary
  --list             print the names
";

impl Options {
    /// Reads the words; an error is what to print.
    pub fn read(words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut paths = Vec::new();
        let mut peer = std::env::var("PEER").ok();
        let mut previous = std::env::var("PREVIOUS").ok().filter(|dir| !dir.is_empty());
        let mut options = Options {
            runtimes: Vec::new(),
            peer: None,
            previous: None,
            filters: Vec::new(),
            leave_out: Vec::new(),
            by_driver: false,
            jobs: 2,
            patience: std::env::var("PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1),
            systemd: false,
            work: std::env::temp_dir().join(format!("cofferdam-tests-{}", std::process::id())),
            say: Say::All,
            repeat: 1,
        };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let (flag, given) = match word.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
                _ => (word, None),
            };
            let mut value = || given.clone().or_else(|| words.next()).ok_or(format!("{flag} wants a value"));
            match flag.as_str() {
                "--runtime" => paths.push(value()?),
                "--peer" => peer = Some(value()?),
                "--previous" => previous = Some(value()?),
                "--systemd-cgroup" => options.systemd = true,
                "--by-driver" => options.by_driver = true,
                "--jobs" => options.jobs = number(&value()?)?,
                "--patience" => options.patience = number(&value()?)? as u64,
                "--repeat" => options.repeat = number(&value()?)?,
                "--skip" => options.leave_out.push(value()?),
                "--work" => options.work = PathBuf::from(value()?),
                "--quiet" => options.say = Say::Unusual,
                "--list" => options.say = Say::List,
                "--help" | "-h" => return Err(USAGE.to_owned()),
                _ if flag.starts_with('-') => return Err(format!("{flag} is no option\n\n{USAGE}")),
                _ => options.filters.push(flag),
            }
        }
        if options.say != Say::List {
            options.find_runtimes(paths, peer)?;
            let program = previous.map(|dir| format!("{dir}/cofferdam"));
            options.previous = program.map(|path| Runtime::find(&path)).transpose()?;
        }
        Ok(options)
    }

    fn find_runtimes(&mut self, mut paths: Vec<String>, peer: Option<String>) -> Result<(), String> {
        if paths.is_empty() {
            let named = std::env::var("RUNTIME").unwrap_or_else(|_| "bin/cofferdam".to_owned());
            paths = named.split_whitespace().map(str::to_owned).collect();
        }
        for path in paths {
            self.runtimes.push(Runtime::find(&path)?);
        }
        self.peer = match peer {
            Some(path) => Some(Runtime::find(&path)?),
            None => Runtime::find("runc").ok(),
        };
        Ok(())
    }

    /// Whether the test is asked for.
    pub fn wants(&self, test: &Test) -> bool {
        let has = |part: &String| test.name().contains(part.as_str());
        (self.filters.is_empty() || self.filters.iter().any(has))
            && !self.leave_out.iter().any(has)
            && (!self.by_driver || test.is_by_driver())
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or(format!("{text} is no number above 0"))
}
