//! The maps of a new user namespace.
//!
//! The kernel takes a map from a process that has CAP_SETUID (CAP_SETGID) in the parent namespace, and from anyone a map of
//! nothing but the writer's own id. For all else there are two small setuid programs, newuidmap and newgidmap (package
//! uidmap), which ask /etc/subuid and /etc/subgid what a user may map.

use crate::error::Error;
use crate::hooks;
use cofferdam_spec::{Hook, IdMapping};
use nix::libc;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How long a mapping tool may take, in seconds: it may have to ask a directory service.
const TOOL_TIME: i64 = 30;

/// Writes the maps of a process that waits for them.
///
/// # Errors
/// Those of write(2); for a caller without privileges what newuidmap or newgidmap has to say.
pub(super) fn map(pid: i32, uid: &[IdMapping], gid: &[IdMapping], deny_setgroups: bool) -> Result<(), Error> {
    if deny_setgroups {
        let path = format!("/proc/{pid}/setgroups");
        std::fs::write(&path, "deny").map_err(|error| Error::io("write", path, error))?;
    }
    for (kind, map) in [("gid", gid), ("uid", uid)] {
        let path = format!("/proc/{pid}/{kind}_map");
        match std::fs::write(&path, lines(map)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && !nix::unistd::geteuid().is_root() => {
                by_tool(&format!("new{kind}map"), pid, map)?;
            }
            Err(error) => return Err(Error::io("write", path, error)),
        }
    }
    Ok(())
}

fn lines(map: &[IdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

fn by_tool(name: &str, pid: i32, map: &[IdMapping]) -> Result<(), Error> {
    let Some(path) = in_path(name, std::env::var_os("PATH").as_deref()) else {
        let text = format!(
            "{name} is not in $PATH: a user without privileges cannot map more than its own id without it (operation not \
             permitted)"
        );
        return Err(Error::Unsupported(text));
    };
    let mut args = vec![name.to_owned(), pid.to_string()];
    args.extend(
        map.iter().flat_map(|m| [m.container_id, m.host_id, m.size]).map(|number| number.to_string()),
    );
    let path = path.to_string_lossy().into_owned();
    let tool = Hook { path, args, env: Vec::new(), timeout: Some(TOOL_TIME) };
    hooks::run_one(&tool, b"", &hooks::Output::default()).map_err(|(failure, output)| {
        let said = output.split_whitespace().collect::<Vec<_>>().join(" ");
        let colon = if said.is_empty() { "" } else { ": " };
        Error::Unsupported(format!("{} {failure}{colon}{said}", tool.path))
    })
}

/// The first executable file of this name in a search path; relative parts of it are passed over.
fn in_path(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let executable = |file: &PathBuf| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let dirs = std::env::split_paths(path?).filter(|dir| dir.is_absolute()).collect::<Vec<_>>();
    dirs.iter().map(|dir| Path::new(dir).join(name)).find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_one_line_a_range() {
        let range = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert_eq!(lines(&[range(0, 1000, 1), range(1, 100_000, 65_536)]), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn a_tool_is_looked_for_in_absolute_directories() {
        let found = |path: &str| in_path("sh", Some(OsStr::new(path)));
        assert_eq!(found("/nonexistent:bin:/bin:/usr/bin"), Some("/bin/sh".into()));
        assert_eq!(found("bin::."), None);
        assert_eq!(in_path("sh", None), None);
        // A directory, and a file that nobody can execute.
        assert_eq!(in_path("etc", Some(OsStr::new("/"))), None);
        assert_eq!(in_path("passwd", Some(OsStr::new("/etc"))), None);
    }

    #[test]
    fn what_the_tool_says_is_told() {
        let maps = [IdMapping { container_id: 0, host_id: 1, size: 1 }];
        let text = by_tool("no-such-tool", 1, &maps).unwrap_err().to_string();
        assert!(text.starts_with("no-such-tool is not in $PATH: "), "{text}");
    }
}
