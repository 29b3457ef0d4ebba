//! The standard streams that containerd asks for: pipes for the process, and what they are connected with. Opened by the
//! worker that starts the process, carried on by [`crate::streams`].
//!
//! A process never gets containerd's fifos themselves: when containerd restarts, its ends close, and the process would die of
//! SIGPIPE or read an end of file. So the shim copies, and holds the other end of each fifo open too.

use crate::{logger::Logger, runtime::Stdio};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    sys::stat::{Mode, SFlag},
    unistd::{Gid, Uid, fchown, pipe2},
};
use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

/// What a call says about streams.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Path of a fifo, or empty.
    pub stdin: String,
    /// Path of a fifo, or a URI.
    pub stdout: String,
    /// As `stdout`.
    pub stderr: String,
    /// All three are one terminal.
    pub terminal: bool,
}

/// Who owns the pipes, and whose logs a logger writes.
pub struct Owner<'a> {
    /// Owner of the pipes.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
    /// The container's id, or an exec's.
    pub id: &'a str,
    /// containerd's namespace.
    pub namespace: &'a str,
}

/// Where output goes.
pub struct Sink {
    /// A fifo, a pipe or a regular file.
    pub file: OwnedFd,
    /// Whether it is a regular file, which is always writable and knows no splice when it is appended to.
    pub regular: bool,
    /// A fifo's reading end: while we hold it, nobody's absence breaks the pipe.
    pub held: Option<OwnedFd>,
}

/// Where input comes from.
pub struct Input {
    /// The fifo's reading end.
    pub fifo: OwnedFd,
    /// Its writing end: input ends only after CloseIO has closed this.
    pub held: OwnedFd,
    /// The writing end of the process's pipe; a terminal has none.
    pub pipe: Option<OwnedFd>,
}

/// One direction of output.
pub struct Output {
    /// The reading end of the process's pipe; a terminal has none.
    pub pipe: Option<OwnedFd>,
    /// Where it goes.
    pub sink: Sink,
}

/// The shim's side of a process's streams.
#[derive(Default)]
pub struct Ends {
    /// Standard input.
    pub input: Option<Input>,
    /// Standard output and error; a terminal has at most one.
    pub outputs: Vec<Output>,
    /// A program that takes the output.
    pub logger: Option<Logger>,
}

/// A path, or a URI of one of containerd's schemes.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A fifo, or whatever lies at the path.
    Path(String),
    /// A file that is made and appended to.
    File(String),
    /// A logger, with its query; strictly ready only if it says so (`binary-v2`).
    Binary {
        /// The program.
        path: String,
        /// Names and values.
        query: Vec<(String, String)>,
        /// One byte must arrive; an end of file is no readiness.
        strict: bool,
    },
}

impl Target {
    /// Understands a `stdout` or `stderr` of a call.
    ///
    /// # Errors
    /// A sentence about an unknown scheme or a broken escape.
    pub fn parse(text: &str) -> Result<Target, String> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Target::Path(text.into())) };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = unescape(path, false)?;
        match scheme {
            "fifo" => Ok(Target::Path(path)),
            "file" => Ok(Target::File(path)),
            "binary" | "binary-v2" => {
                let pairs = query.split('&').filter(|pair| !pair.is_empty());
                let query = pairs
                    .map(|pair| {
                        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                        Ok((unescape(name, true)?, unescape(value, true)?))
                    })
                    .collect::<Result<_, String>>()?;
                Ok(Target::Binary { path, query, strict: scheme == "binary-v2" })
            }
            _ => Err(format!("unknown STDIO scheme {scheme}")),
        }
    }
}

fn unescape(text: &str, plus_is_space: bool) -> Result<String, String> {
    let mut plain = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digits = [bytes.next(), bytes.next()]
                    .map(|digit| digit.and_then(|digit| (digit as char).to_digit(16)));
                let [Some(high), Some(low)] = digits else {
                    return Err(format!("invalid URL escape in {text:?}"));
                };
                (high * 16 + low) as u8
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(plain).map_err(|_| format!("{text:?} is not UTF-8"))
}

impl Paths {
    /// Opens everything: what the process gets, and the shim's side.
    ///
    /// # Errors
    /// A sentence with the path that could not be opened.
    pub fn open(&self, owner: &Owner) -> Result<(Stdio, Ends), String> {
        let stdout = Target::parse(&self.stdout)?;
        if let Target::Binary { path, query, strict } = &stdout {
            return self.open_logger(owner, path, query, *strict);
        }
        let mut ends = Ends::default();
        let mut files = [None, None, None];
        if !self.stdin.is_empty() {
            let (input, file) = self.open_input(owner)?;
            (ends.input, files[0]) = (Some(input), file);
        }
        if !self.stdout.is_empty() {
            let (pipe, file) = self.output_pipe(owner)?;
            ends.outputs.push(Output { pipe, sink: open_sink(&stdout)? });
            files[1] = file;
        }
        // A file takes both, and a terminal has no standard error.
        let stderr = if matches!(stdout, Target::File(_)) { &self.stdout } else { &self.stderr };
        if !stderr.is_empty() && !self.terminal {
            let (pipe, file) = self.output_pipe(owner)?;
            ends.outputs.push(Output { pipe, sink: open_sink(&Target::parse(stderr)?)? });
            files[2] = file;
        }
        Ok((if self.terminal { Stdio::Terminal } else { Stdio::Files(files) }, ends))
    }

    fn open_logger(
        &self,
        owner: &Owner,
        path: &str,
        query: &[(String, String)],
        strict: bool,
    ) -> Result<(Stdio, Ends), String> {
        let mut ends = Ends::default();
        let mut stdin = None;
        if !self.stdin.is_empty() {
            let (input, file) = self.open_input(owner)?;
            (ends.input, stdin) = (Some(input), file);
        }
        let (mut logger, [stdout, stderr]) = Logger::start(path, query, owner, strict)?;
        if self.terminal {
            // The shim is between terminal and logger.
            let file = logger.stdout.take().ok_or("the logger has no pipe")?;
            set_nonblocking(&file)?;
            ends.outputs.push(Output { pipe: None, sink: Sink { file, regular: false, held: None } });
            ends.logger = Some(logger);
            return Ok((Stdio::Terminal, ends));
        }
        ends.logger = Some(logger);
        Ok((Stdio::Files([stdin, Some(stdout), Some(stderr)]), ends))
    }

    fn open_input(&self, owner: &Owner) -> Result<(Input, Option<OwnedFd>), String> {
        let fifo = open_file(&self.stdin, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
            .map_err(|errno| format!("containerd-shim: opening {} failed: {}", self.stdin, errno.desc()))?;
        let held = open_file(&self.stdin, OFlag::O_WRONLY | OFlag::O_NONBLOCK)
            .map_err(|errno| format!("failed to open stdin fifo {}: {}", self.stdin, errno.desc()))?;
        if self.terminal {
            return Ok((Input { fifo, held, pipe: None }, None));
        }
        let (read, write) = owned_pipe(owner, End::Read)?;
        set_nonblocking(&write)?;
        Ok((Input { fifo, held, pipe: Some(write) }, Some(read)))
    }

    /// A pipe for the process to write to: our end and the process's. A terminal takes its place.
    fn output_pipe(&self, owner: &Owner) -> Result<(Option<OwnedFd>, Option<OwnedFd>), String> {
        if self.terminal {
            return Ok((None, None));
        }
        let (read, write) = owned_pipe(owner, End::Write)?;
        set_nonblocking(&read)?;
        Ok((Some(read), Some(write)))
    }
}

/// Which end the process gets, and therefore owns.
pub enum End {
    /// The end that is read from.
    Read,
    /// The end that is written to.
    Write,
}

/// A pipe whose one end belongs to the user that the options name.
pub fn owned_pipe(owner: &Owner, end: End) -> Result<(OwnedFd, OwnedFd), String> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| format!("pipe: {}", errno.desc()))?;
    let given = if matches!(end, End::Read) { &read } else { &write };
    fchown(given, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).map_err(|errno| {
        format!("failed to chown a pipe to {}:{}: {}", owner.uid, owner.gid, errno.desc())
    })?;
    Ok((read, write))
}

/// Makes reads or writes return EAGAIN in place of waiting.
pub fn set_nonblocking(file: &OwnedFd) -> Result<(), String> {
    let flags = fcntl(file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags
        .and_then(|flags| fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)))
        .map(drop)
        .map_err(|errno| format!("fcntl: {}", errno.desc()))
}

fn open_file(path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    open(path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// How long the reader of a fifo may keep us waiting, as in containerd's shim.
const READER_TIMEOUT: Duration = Duration::from_secs(30);

fn open_sink(target: &Target) -> Result<Sink, String> {
    match target {
        Target::File(path) => open_log(path),
        Target::Path(path) => {
            let failed = |what: &str, errno: Errno| {
                format!("containerd-shim: opening {what} {path:?} failed: {}", errno.desc())
            };
            let kind = nix::sys::stat::stat(path.as_str()).map_err(|errno| failed("fifo", errno))?.st_mode;
            if SFlag::from_bits_truncate(kind) & SFlag::S_IFMT != SFlag::S_IFIFO {
                let file = open_file(path, OFlag::O_WRONLY | OFlag::O_APPEND)
                    .map_err(|errno| failed("file", errno))?;
                return Ok(Sink { file, regular: true, held: None });
            }
            let file = open_for_reader(path).map_err(|errno| failed("w/o fifo", errno))?;
            let held = open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
                .map_err(|errno| failed("r/o fifo", errno))?;
            Ok(Sink { file, regular: false, held: Some(held) })
        }
        Target::Binary { .. } => Err("a logger takes standard output and error together".into()),
    }
}

/// Opens a fifo for writing as soon as somebody has it open for reading: what was written and never read is lost when the last end
/// closes, and a process can be done before its reader comes.
fn open_for_reader(path: &str) -> Result<OwnedFd, Errno> {
    let deadline = Instant::now() + READER_TIMEOUT;
    let mut pause = Duration::from_micros(100);
    loop {
        match open_file(path, OFlag::O_WRONLY | OFlag::O_NONBLOCK) {
            Err(Errno::ENXIO) if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            Err(Errno::ENXIO) => return Err(Errno::ETIMEDOUT),
            other => return other,
        }
    }
}

/// A log file, made with the folders above it, and appended to.
fn open_log(path: &str) -> Result<Sink, String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("containerd-shim: opening file {path:?} failed: {error}");
    if let Some(dir) = Path::new(path).parent() {
        std::fs::create_dir_all(dir).map_err(|error| failed(&error))?;
    }
    let file =
        std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|error| failed(&error))?;
    Ok(Sink { file: file.into(), regular: true, held: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_containerd_s() {
        assert_eq!(Target::parse("/run/a%20b"), Ok(Target::Path("/run/a%20b".into())));
        assert_eq!(Target::parse("fifo:///run/a%20b"), Ok(Target::Path("/run/a b".into())));
        assert_eq!(Target::parse("file:///var/log/x"), Ok(Target::File("/var/log/x".into())));
        let query = vec![("id".to_string(), "a b".to_string()), ("env.X".into(), "1=2".into())];
        let logger = |strict| Ok(Target::Binary { path: "/bin/log".into(), query: query.clone(), strict });
        assert_eq!(Target::parse("binary:///bin/log?id=a+b&env.X=1%3D2"), logger(false));
        assert_eq!(Target::parse("binary-v2:///bin/log?id=a+b&env.X=1%3D2"), logger(true));
        assert_eq!(Target::parse("npipe:///x"), Err("unknown STDIO scheme npipe".into()));
        assert_eq!(Target::parse("file:///x%4"), Err("invalid URL escape in \"/x%4\"".into()));
    }
}
