//! Loggers: programs that take a container's output (`binary://`, `binary-v2://`).
//!
//! CVE-2026-53488: the URI of a logger came out of an image's label, and the shim ran it as root. The shim is where that
//! stops: it runs a file only if its path is absolute and nobody but root, or the shim's own user, can have written it.

use crate::stdio::{End, Owner, owned_pipe};
use cofferdam_sys::{Strings, children, process, shim};
use nix::fcntl::OFlag;
use std::{
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

/// How long a logger may take until it is ready.
const READY_TIMEOUT_MS: i64 = 30_000;

/// A running logger. Its pipes' writing ends stay open here for as long as the container is there, so it reads on when a
/// process of the container has closed its own.
pub struct Logger {
    /// Its pid.
    pub pid: i32,
    /// What stands for its process.
    pub pidfd: OwnedFd,
    /// Where standard output is written to.
    pub stdout: Option<OwnedFd>,
    /// Where standard error is written to.
    pub stderr: Option<OwnedFd>,
}

impl Logger {
    /// Runs a logger and waits until it is ready; also the two pipes' ends for the process whose output it takes.
    ///
    /// # Errors
    /// A sentence: the file is not trusted, does not start, or does not become ready.
    pub fn start(
        path: &str,
        query: &[(String, String)],
        owner: &Owner,
        strict: bool,
    ) -> Result<(Logger, [OwnedFd; 2]), String> {
        trust(path)?;
        let (out_read, out_write) = owned_pipe(owner, End::Write)?;
        let (err_read, err_write) = owned_pipe(owner, End::Write)?;
        let (ready_read, ready_write) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| errno.desc().to_string())?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| format!("open /dev/null: {error}"))?;
        let (args, env) = command(path, query, owner);
        let program = |args: &Strings, env: &Strings| {
            shim::start(&shim::Program {
                path: path.as_bytes(),
                args,
                env,
                fds: &[
                    (0, null.as_raw_fd()),
                    (1, null.as_raw_fd()),
                    (2, null.as_raw_fd()),
                    (3, out_read.as_raw_fd()),
                    (4, err_read.as_raw_fd()),
                    (5, ready_write.as_raw_fd()),
                ],
                new_group: false,
                dies_with_thread: false,
            })
        };
        let spawned = Strings::new(&args)
            .and_then(|args| Strings::new(&env).map(|env| (args, env)))
            .and_then(|(args, env)| program(&args, &env))
            .map_err(|errno| format!("failed to start binary process: {path}: {errno}"))?;
        drop((out_read, err_read, ready_write));
        let copies = out_write.try_clone().and_then(|out| Ok([out, err_write.try_clone()?]));
        let logger = Logger {
            pid: spawned.pid,
            pidfd: spawned.pidfd.into(),
            stdout: Some(out_write),
            stderr: Some(err_write),
        };
        match copies
            .map_err(|error| error.to_string())
            .and_then(|copies| logger.await_ready(ready_read, strict).map(|()| copies))
        {
            Ok(copies) => Ok((logger, copies)),
            Err(error) => {
                logger.kill();
                Err(error)
            }
        }
    }

    /// A closed pipe is readiness for `binary`; `binary-v2` wants a byte, so that a logger that died early is told from one that
    /// is ready.
    fn await_ready(&self, ready: OwnedFd, strict: bool) -> Result<(), String> {
        match process::poll_readable(&ready, READY_TIMEOUT_MS) {
            Err(errno) => return Err(format!("failed to read from logging binary: {errno}")),
            Ok(false) => return Err("logging binary was not ready in time".into()),
            Ok(true) => {}
        }
        let mut byte = [0];
        let n = std::fs::File::from(ready)
            .read(&mut byte)
            .map_err(|error| format!("failed to read from logging binary: {error}"))?;
        if strict && n == 0 {
            return Err(
                "logging binary did not call ready (it may have crashed or exited prematurely)".into()
            );
        }
        Ok(())
    }

    /// Ends a logger of which nothing came, and collects it.
    fn kill(&self) {
        let _ = process::pidfd_send_signal(&self.pidfd, libc::SIGKILL);
        let _ = process::poll_readable(&self.pidfd, 5_000);
        let _ = children::collect(self.pid, &self.pidfd);
    }
}

/// argv and environment: the query's pairs are arguments, those named `env.X` variables.
fn command(path: &str, query: &[(String, String)], owner: &Owner) -> (Vec<String>, Vec<String>) {
    let mut args = vec![path.to_string()];
    let mut env =
        vec![format!("CONTAINER_ID={}", owner.id), format!("CONTAINER_NAMESPACE={}", owner.namespace)];
    for (name, value) in query {
        match name.strip_prefix("env.") {
            Some("CONTAINER_ID" | "CONTAINER_NAMESPACE") => {}
            Some(name) => env.push(format!("{name}={value}")),
            None => args.extend([name.clone(), value.clone()]),
        }
    }
    (args, env)
}

/// Checks that the logger's file is nobody's but root's, or ours.
fn trust(path: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("logging binary {path:?} is refused: {why}"));
    if !Path::new(path).is_absolute() {
        return refuse("its path is not absolute");
    }
    let metadata = std::fs::metadata(path).map_err(|error| format!("logging binary {path:?}: {error}"))?;
    let own = nix::unistd::geteuid().as_raw();
    if !metadata.is_file() {
        return refuse("it is no regular file");
    }
    if metadata.uid() != 0 && metadata.uid() != own {
        return refuse("it is not owned by root");
    }
    if metadata.mode() & 0o022 != 0 {
        return refuse("others can write to it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn owner() -> Owner<'static> {
        let uid = nix::unistd::geteuid().as_raw();
        Owner { uid, gid: nix::unistd::getegid().as_raw(), id: "web", namespace: "ns" }
    }

    #[test]
    fn a_logger_that_others_can_write_to_is_refused() {
        let path = std::env::temp_dir().join(format!("shim-logger-{}", std::process::id()));
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o775)).unwrap();
        let text = path.to_str().unwrap();
        assert_eq!(
            trust(text).unwrap_err(),
            format!("logging binary {text:?} is refused: others can write to it")
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(trust(text), Ok(()));
        assert_eq!(
            trust("bin/log").unwrap_err(),
            "logging binary \"bin/log\" is refused: its path is not absolute"
        );
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_query_becomes_arguments_and_variables() {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        let query = [pair("k", "v"), pair("env.X", "1"), pair("env.CONTAINER_ID", "forged")];
        let (args, env) = command("/bin/log", &query, &owner());
        assert_eq!(args, ["/bin/log", "k", "v"]);
        assert_eq!(env, ["CONTAINER_ID=web", "CONTAINER_NAMESPACE=ns", "X=1"]);
    }

    #[test]
    fn a_logger_that_dies_early_is_ready_only_in_the_old_way() {
        let started = |strict| Logger::start("/bin/true", &[], &owner(), strict);
        let (logger, _) = started(false).unwrap();
        logger.kill();
        let error = started(true).err().unwrap();
        assert_eq!(error, "logging binary did not call ready (it may have crashed or exited prematurely)");
    }
}
