//! Everything that can go wrong, by kind: the shim matches kinds, engines match the text (features.md 1.4).
//!
//! `Display` tells what was attempted and never repeats its source; [`message`] joins the chain into the one line that
//! `main` prints. Errno text is the lower-case one that Go programs print, because engines look for it.

use crate::report::StepFailed;
use crate::state::Status;
use cofferdam_sys::Errno;
use std::error::Error as StdError;
use std::fmt::{Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};

/// What a verb failed with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// config.json asks for what cannot be, or for what is not supported.
    #[error(transparent)]
    Refused(Box<cofferdam_spec::Refused>),
    /// Init could not carry out a step.
    #[error(transparent)]
    StepFailed(Box<StepFailed>),
    /// Init ended without a word, in front of the container's process.
    #[error("{verb} {id}: init {end} before the program ran{}", .hint.map(|h| format!(". Hint: {h}")).unwrap_or_default())]
    InitDied {
        /// The verb.
        verb: &'static str,
        /// The container.
        id: String,
        /// How it ended.
        end: Ending,
        /// What may have caused it.
        hint: Option<&'static str>,
    },
    /// A hook failed.
    #[error("error running {kind} hook #{index}: {path}{}{failure}{}", if matches!(.failure, HookFailure::NotStarted(_)) {": "} else {" "}, quoted_output(.output))]
    HookFailed {
        /// `createRuntime`, …
        kind: &'static str,
        /// Index in config.json's list.
        index: usize,
        /// The hook's program.
        path: String,
        /// How it failed.
        failure: HookFailure,
        /// What it wrote to stdout and stderr; the last few kilobytes.
        output: String,
    },
    /// CRIU could not save or restore a container.
    #[error("{verb} {id}: {what}{}, log file {}", joined(.errors), .log.display())]
    Criu {
        /// `checkpoint` or `restore`.
        verb: &'static str,
        /// The container.
        id: String,
        /// What it answered.
        what: String,
        /// The last errors of its log.
        errors: Vec<String>,
        /// Where its log is.
        log: PathBuf,
    },
    /// The container is not in a state in which the verb can be done.
    #[error("{}", wrong_state(*.verb, .id, *.status))]
    WrongState {
        /// What should have been done.
        verb: Verb,
        /// The container.
        id: String,
        /// Where it stands.
        status: Status,
    },
    /// There is no such container.
    #[error("container \"{id}\" does not exist")]
    NotFound {
        /// The id asked for.
        id: String,
    },
    /// There is such a container already.
    #[error("container with given ID already exists: {id}")]
    Exists {
        /// The id asked for.
        id: String,
    },
    /// The id breaks the rule of [`crate::state::check_id`].
    #[error("invalid container ID format: {id:?}")]
    InvalidId {
        /// The id asked for.
        id: String,
    },
    /// Another verb works on the container.
    #[error("container \"{id}\" is being worked on by another process")]
    Busy {
        /// The container.
        id: String,
    },
    /// A state file of another version of this program.
    #[error("{}: state format {found} is not the one this version knows ({known})", .path.display())]
    StateFormat {
        /// The file.
        path: PathBuf,
        /// Its format number.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// A state file that says nothing.
    #[error("{}: damaged state: {why}", .path.display())]
    StateDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The process is gone.
    #[error("process {pid}: no such process")]
    NoProcess {
        /// Its pid.
        pid: i32,
    },
    /// The command line or a value of it is wrong.
    #[error("{0}")]
    Usage(String),
    /// Something this version does not do.
    #[error("{0}")]
    Unsupported(String),
    /// A system call failed; the source says why.
    #[error("{}", .path.as_ref().map_or_else(|| what.to_string(), |path| format!("{what} {}", path.display())))]
    Io {
        /// What was attempted, imperative.
        what: String,
        /// On what.
        path: Option<PathBuf>,
        /// Why it failed.
        source: io::Error,
    },
    /// Something below failed; the source says what.
    #[error("{what}")]
    Below {
        /// What was attempted, imperative.
        what: String,
        /// Why it failed.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl Error {
    /// A failed system call on a path.
    pub fn io(what: impl Into<String>, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Error {
        Error::Io { what: what.into(), path: Some(path.as_ref().to_path_buf()), source: source.into() }
    }

    /// A failed system call on no path.
    pub fn call(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io { what: what.into(), path: None, source: source.into() }
    }

    /// A failure of a room below.
    pub fn below(what: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Below { what: what.into(), source: source.into() }
    }

    /// A wrong command line.
    pub fn usage(text: impl Into<String>) -> Error {
        Error::Usage(text.into())
    }

    /// The errno behind the error, when one system call made it.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::StepFailed(failed) => Some(failed.errno),
            Error::Io { source, .. } => source.raw_os_error(),
            Error::NoProcess { .. } => Some(nix::libc::ESRCH),
            _ => None,
        }
    }
}

impl From<cofferdam_spec::Refused> for Error {
    fn from(refused: cofferdam_spec::Refused) -> Error {
        Error::Refused(Box::new(refused))
    }
}

impl From<cofferdam_spec::LoadError> for Error {
    fn from(error: cofferdam_spec::LoadError) -> Error {
        match error {
            cofferdam_spec::LoadError::Refused(refused) => refused.into(),
            cofferdam_spec::LoadError::Read { path, source } => Error::io("read", path, source),
        }
    }
}

impl From<StepFailed> for Error {
    fn from(failed: StepFailed) -> Error {
        Error::StepFailed(Box::new(failed))
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an exit status.
    Exited(i32),
    /// By a signal.
    Killed(i32),
    /// Nobody knows: it was not our child.
    Unknown,
    /// It was, and waiting for it failed: errno.
    Unheard(i32),
}

impl Display for Ending {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exited(status) => write!(f, "exited with status {status}"),
            Ending::Killed(signal @ nix::libc::SIGSYS) => {
                write!(f, "was killed by signal {signal}, SIGSYS: bad system call (seccomp)")
            }
            Ending::Killed(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "was killed by {name}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            Ending::Unknown => f.write_str("ended"),
            Ending::Unheard(errno) => write!(f, "ended, and waitid does not say how: {}", errno_text(*errno)),
        }
    }
}

/// How a hook failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookFailure {
    /// It could not be executed: errno.
    NotStarted(i32),
    /// It ended with something other than 0.
    Ended(Ending),
    /// It took longer than its `timeout`, in seconds, and was killed.
    TimedOut(u64),
}

impl Display for HookFailure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            HookFailure::NotStarted(errno) => f.write_str(&errno_text(*errno)),
            HookFailure::Ended(ending) => ending.fmt(f),
            HookFailure::TimedOut(seconds) => write!(f, "took longer than its timeout of {seconds} s"),
        }
    }
}

/// A verb that wants the container in a certain state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verb {
    Start,
    Exec,
    Kill,
    Delete,
    Pause,
    Resume,
    Update,
    Events,
    Ps,
    Checkpoint,
}

/// runc's sentences, for engines match parts of them.
fn wrong_state(verb: Verb, id: &str, status: Status) -> String {
    match (verb, status) {
        (Verb::Start, Status::Stopped) => "cannot start a container that has stopped".into(),
        (Verb::Start, Status::Running) => "cannot start an already running container".into(),
        (Verb::Start, _) => format!("cannot start a container in the {status} state"),
        (Verb::Exec, Status::Paused) => {
            "cannot exec in a paused container (use --ignore-paused to override)".into()
        }
        (Verb::Exec, Status::Stopped) => "cannot exec in a stopped container: container not running".into(),
        (Verb::Exec, _) => format!("cannot exec in a container in the {status} state"),
        (Verb::Delete, _) => format!("cannot delete container {id} that is not stopped: {status}"),
        (Verb::Resume, _) => "container not paused".into(),
        (Verb::Checkpoint, _) => format!("container cannot be checkpointed in {status} state"),
        (Verb::Events, _) => format!("container with id {id} is not running"),
        (Verb::Kill | Verb::Pause | Verb::Update | Verb::Ps, _) => "container not running".into(),
    }
}

/// Errors of a log as the end of a sentence.
fn joined(errors: &[String]) -> String {
    errors.iter().fold(String::new(), |text, error| format!("{text}: {error}"))
}

/// A hook's output as the end of a sentence, on one line.
pub(crate) fn quoted_output(output: &str) -> String {
    match output.trim() {
        "" => String::new(),
        text => format!(", output: {text:?}"),
    }
}

/// The kernel's word for an errno as Go programs print it: `no such file or directory`. Engines match on it, and C libraries
/// have words of their own.
pub fn errno_text(errno: i32) -> String {
    Errno(errno).to_string()
}

/// An I/O error's text, by [`errno_text`] when a system call made it.
fn io_text(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), errno_text)
}

/// The whole chain of an error as one line, each cause once.
pub fn message(error: &(dyn StdError + 'static)) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<io::Error>() {
            Some(error) => io_text(error),
            None => error.to_string(),
        };
        // A transparent wrapper says what its source says.
        if line != text && !line.ends_with(&format!(": {text}")) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        next = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_is_told_in_gos_words() {
        for (errno, text) in [
            (nix::libc::ENOENT, "no such file or directory"),
            (nix::libc::EACCES, "permission denied"),
            (nix::libc::EPERM, "operation not permitted"),
            (nix::libc::EISDIR, "is a directory"),
            (nix::libc::ENOTDIR, "not a directory"),
            (nix::libc::ESRCH, "no such process"),
            (nix::libc::ENOEXEC, "exec format error"),
            (nix::libc::EINVAL, "invalid argument"),
            (nix::libc::EIO, "input/output error"),
        ] {
            assert_eq!(errno_text(errno), text);
        }
    }

    #[test]
    fn the_chain_names_each_cause_once() {
        let error = Error::below(
            "create web",
            Error::io("open", "/x/config.json", io::Error::from_raw_os_error(nix::libc::ENOENT)),
        );
        assert_eq!(message(&error), "create web: open /x/config.json: no such file or directory");
    }

    #[test]
    fn the_shim_finds_its_words() {
        let wrong = |verb, status| Error::WrongState { verb, id: "web".into(), status }.to_string();
        assert_eq!(wrong(Verb::Kill, Status::Stopped), "container not running");
        assert_eq!(wrong(Verb::Pause, Status::Stopped), "container not running");
        assert_eq!(wrong(Verb::Resume, Status::Running), "container not paused");
        assert_eq!(
            wrong(Verb::Delete, Status::Running),
            "cannot delete container web that is not stopped: running"
        );
        assert_eq!(Error::NotFound { id: "web".into() }.to_string(), "container \"web\" does not exist");
        assert!(Error::NoProcess { pid: 7 }.to_string().contains("no such process"));
    }

    #[test]
    fn a_hooks_output_stays_on_one_line() {
        let error = Error::HookFailed {
            kind: "createRuntime",
            index: 1,
            path: "/bin/hook".into(),
            failure: HookFailure::Ended(Ending::Exited(3)),
            output: "first\nsecond\n".into(),
        };
        assert_eq!(
            message(&error),
            r#"error running createRuntime hook #1: /bin/hook exited with status 3, output: "first\nsecond""#
        );
    }
}
