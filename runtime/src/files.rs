//! Files that callers wait for.

use crate::error::Error;
use std::fs;
use std::path::Path;

/// Writes a pid file as runc does: whole or not at all, so that whoever watches it reads a number.
///
/// # Errors
/// When the file cannot be written beside its final place or renamed.
pub fn write_pid(path: &Path, pid: i32) -> Result<(), Error> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::usage(format!("--pid-file {}: no file name", path.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let hidden = path.with_file_name(hidden);
    fs::write(&hidden, pid.to_string()).map_err(|error| Error::io("write the pid file", &hidden, error))?;
    fs::rename(&hidden, path).map_err(|error| {
        let _ = fs::remove_file(&hidden);
        Error::io("rename the pid file to", path, error)
    })
}
