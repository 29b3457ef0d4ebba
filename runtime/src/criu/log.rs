//! The end of CRIU's log, which says why it failed.

use crate::error::Error;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How much of the log's end is looked at.
const END: u64 = 64 * 1024;
/// How many errors are quoted: the last ones.
const QUOTED: usize = 3;
/// What every failed request ends with, whatever the reason.
const NO_REASON: [&str; 2] = ["Dumping FAILED.", "Restoring FAILED."];

/// A failure of CRIU's, with what its log says about it.
///
/// `message` is CRIU's own, which is shorter: for when there is no log.
pub(super) fn failed(verb: &'static str, id: &str, what: String, message: &str, log: &Path) -> Error {
    let mut errors = read(log).map(|text| errors_of(&text)).unwrap_or_default();
    if errors.is_empty() {
        errors = errors_of(message);
    }
    Error::Criu { verb, id: id.into(), what, errors, log: log.into() }
}

/// The file is one that CRIU has just written, in a folder that may be a stranger's.
fn read(path: &Path) -> std::io::Result<String> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
    let mut bytes = Vec::new();
    file.take(END).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last errors of a log, without their times.
fn errors_of(log: &str) -> Vec<String> {
    let mut errors: Vec<String> = log
        .lines()
        .filter_map(|line| line.find("Error (").map(|at| line[at..].trim().to_owned()))
        .filter(|error| !NO_REASON.iter().any(|end| error.ends_with(end)))
        .collect();
    errors.dedup();
    errors.drain(..errors.len().saturating_sub(QUOTED));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_are_quoted_without_their_times() {
        let log = "(00.1) fine\n(00.2) Error (a.c:1): one\n(00.3)  2: Error (b.c:2): two\n(00.4) Error (c.c:3): three\n\
                   Error (d.c:4): four\n(00.9) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";
        assert_eq!(errors_of(log), ["Error (b.c:2): two", "Error (c.c:3): three", "Error (d.c:4): four"]);
        assert!(errors_of("nothing\n(00.9) Error (x.c:1): Restoring FAILED.\n").is_empty());
    }

    #[test]
    fn a_link_is_not_read() {
        let link = std::env::temp_dir().join(format!("cofferdam-criu-log-{}", std::process::id()));
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let error = failed("restore", "web", "criu failed".into(), "Error (x.c:1): out\n", &link);
        std::fs::remove_file(&link).unwrap();
        assert_eq!(
            error.to_string(),
            format!("restore web: criu failed: Error (x.c:1): out, log file {}", link.display())
        );
    }
}
