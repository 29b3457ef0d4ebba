//! The command line.

use crate::Result;
use crate::filter::Rule;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub const HELP: &str = "\
cofferdam-break --fail SYSCALL[=ERRNO][@N] [--fail …] -- COMMAND…
    runs a command in which, and in all of whose descendants, a system call fails: always, by a seccomp filter, or
    (@N) only the Nth one, by the tracer. Without ERRNO it is ENOSYS.

cofferdam-break quick|full [--runtime PATH] [--scenario NAME] [--verbose] [SUBJECT…]
    tries to break the runtime, says what broke, and ends with `N passed, N failed, N skipped`. As root.
    quick takes a sample of the faults (about a minute), full all of them.

Subjects (all of them, unless some are named):
    fallbacks  the newer system calls do not exist, or are forbidden: the container is to look the same
    faults     each system call of each verb fails, or is the last: a sentence and nothing left behind
    crowd      many containers, execs and verbs at once, of one id too
    starve     memory limits down to 512 KiB
";

/// What is to be done.
#[derive(Debug)]
pub enum Task {
    Help,
    /// Stops for the tracer, then becomes the command.
    Stop {
        command: Vec<OsString>,
    },
    Fail {
        rules: Vec<Rule>,
        command: Vec<OsString>,
    },
    Suite {
        subjects: Vec<Subject>,
    },
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Fallbacks,
    Faults,
    Crowd,
    Starve,
}

impl Subject {
    const ALL: [(&str, Subject); 4] = [
        ("fallbacks", Subject::Fallbacks),
        ("faults", Subject::Faults),
        ("crowd", Subject::Crowd),
        ("starve", Subject::Starve),
    ];
}

/// The word in front of the command that stops for the tracer.
pub const STOP: &str = "--stop";

/// A command line.
#[derive(Debug)]
pub struct Options {
    pub task: Task,
    /// The runtime's binary.
    pub runtime: PathBuf,
    /// All faults instead of a sample.
    pub full: bool,
    /// Says what passed, too.
    pub verbose: bool,
    /// Only the scenario with this name.
    pub scenario: Option<String>,
}

impl Options {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn read(words: impl Iterator<Item = OsString>) -> Result<Options> {
        let mut options = Options {
            task: Task::Help,
            runtime: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bin/cofferdam"),
            full: false,
            verbose: false,
            scenario: None,
        };
        let mut words = words;
        let mut rules = Vec::new();
        let mut subjects = Vec::new();
        let mut suite = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{} wants a value", word.display()));
            match word.to_str().unwrap_or_default() {
                STOP => {
                    options.task = Task::Stop { command: words.collect() };
                    return Ok(options);
                }
                "--" => break,
                "--fail" => rules.push(Rule::read(&value()?.to_string_lossy())?),
                "--runtime" => options.runtime = std::path::absolute(value()?)?,
                "--scenario" => options.scenario = Some(value()?.to_string_lossy().into_owned()),
                "--verbose" | "-v" => options.verbose = true,
                "--help" | "-h" => return Ok(options),
                "quick" => suite = true,
                "full" => (suite, options.full) = (true, true),
                name => match Subject::ALL.iter().find(|(known, _)| *known == name) {
                    Some((_, subject)) => subjects.push(*subject),
                    None => return Err(format!("what is {:?}? See --help", word.display()).into()),
                },
            }
        }
        let command: Vec<OsString> = words.collect();
        options.task = match (rules.is_empty(), suite) {
            (false, false) if !command.is_empty() => Task::Fail { rules, command },
            (false, false) => return Err("--fail wants a command behind --".into()),
            (true, true) if subjects.is_empty() => {
                Task::Suite { subjects: Subject::ALL.map(|(_, subject)| subject).to_vec() }
            }
            (true, true) => Task::Suite { subjects },
            (true, false) => Task::Help,
            (false, true) => return Err("--fail and a suite do not go together".into()),
        };
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        Options::read(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_rule_goes_with_a_command() {
        let options = read("--fail openat2 --fail clone3=EPERM -- runc run x --fail y").unwrap();
        let Task::Fail { rules, command } = options.task else { panic!("{options:?}") };
        assert_eq!((rules.len(), command.len()), (2, 5));
        assert_eq!(read("--fail openat2").unwrap_err().to_string(), "--fail wants a command behind --");
    }

    #[test]
    fn subjects_are_all_or_those_named() {
        let Task::Suite { subjects } = read("quick").unwrap().task else { panic!() };
        assert_eq!(subjects.len(), 4);
        let Task::Suite { subjects } = read("full crowd --runtime x").unwrap().task else { panic!() };
        assert_eq!(subjects, [Subject::Crowd]);
        assert_eq!(read("quick flood").unwrap_err().to_string(), "what is \"flood\"? See --help");
    }
}
