//! Who is measured, and how each is called.

use crate::Result;
use crate::bundles::Case;
use crate::options::Options;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One runtime, or the floor.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name in the tables.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// Its state root.
    pub root: PathBuf,
    /// Whether it is the floor, which takes no config.json.
    pub is_floor: bool,
}

/// What a peer is told to do.
#[derive(Clone, Copy, Debug)]
pub enum Verb<'a> {
    /// Runs the container until it ends.
    Run,
    /// Makes it.
    Create,
    /// Lets it begin.
    Start,
    /// Takes it away.
    Delete,
    /// Takes it away, whatever it does.
    ForceDelete,
    /// Another process in it.
    Exec(&'a [&'a str]),
    /// What the state root holds.
    List,
}

/// Environment of every command: what a service manager gives.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Peer {
    /// The command for `verb` on the container of `case`.
    pub fn command(&self, verb: Verb, case: &Case) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", PATH);
        if self.is_floor {
            self.floor(&mut command, verb, case)
        } else {
            self.runtime(&mut command, verb, case)
        }
        command
    }

    fn runtime(&self, command: &mut Command, verb: Verb, case: &Case) {
        command.arg("--root").arg(&self.root);
        match verb {
            Verb::Run => command.args(["run", "--bundle"]).arg(&case.bundle).arg(&case.id),
            Verb::Create => {
                command.args(["create", "--bundle"]).arg(&case.bundle);
                command.arg("--pid-file").arg(self.pid_file(case)).arg(&case.id)
            }
            Verb::Start => command.arg("start").arg(&case.id),
            Verb::Delete => command.arg("delete").arg(&case.id),
            Verb::ForceDelete => command.args(["delete", "--force"]).arg(&case.id),
            Verb::Exec(args) => command.arg("exec").arg(&case.id).args(args),
            Verb::List => command.arg("list"),
        };
    }

    fn floor(&self, command: &mut Command, verb: Verb, case: &Case) {
        let (word, args, pid) = match verb {
            Verb::Run => ("run", case.args.as_slice(), String::new()),
            Verb::Create => ("create", case.args.as_slice(), String::new()),
            Verb::Start => ("start", case.args.as_slice(), String::new()),
            Verb::Delete | Verb::ForceDelete | Verb::List => ("delete", case.args.as_slice(), String::new()),
            Verb::Exec(_) => (
                "exec",
                case.args.as_slice(),
                std::fs::read_to_string(self.pid_file(case)).unwrap_or_default(),
            ),
        };
        command.arg(word).arg(case.config.name()).arg(&case.rootfs).arg(&case.cgroup);
        command.arg(case.hierarchies.join(":")).arg(self.root.join(&case.id));
        command.arg(case.filter.as_deref().unwrap_or(Path::new(""))).arg(case.binds.to_string()).arg(pid);
        match verb {
            Verb::Exec(args) => command.args(args),
            _ => command.args(args),
        };
    }

    /// Where `create` leaves the pid of the container's process.
    pub fn pid_file(&self, case: &Case) -> PathBuf {
        if self.is_floor { self.root.join(&case.id).join("pid") } else { case.bundle.join("pid") }
    }

    /// The folder of a container's state; where a runtime keeps it elsewhere, its root.
    pub fn state_dir(&self, case: &Case) -> PathBuf {
        let own = self.root.join(&case.id);
        if own.is_dir() { own } else { self.root.clone() }
    }
}

/// The peers that this machine has, cofferdam first and the floor last, without the floor's program.
///
/// # Errors
/// If a path that was given is not there.
pub fn find(options: &Options, dir: &Path) -> Result<Vec<Peer>> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for name in ["cofferdam", "crun", "runc", "youki"] {
        if let Some(program) = known(name) {
            found.push((name.to_owned(), program));
        }
    }
    for (name, path) in &options.peers {
        match found.iter_mut().find(|(other, _)| other == name) {
            Some((_, program)) => program.clone_from(path),
            None => found.push((name.clone(), path.clone())),
        }
    }
    found.push(("floor".to_owned(), dir.join("programs/floor")));
    let mut peers = Vec::new();
    for (name, path) in found.into_iter().filter(|(name, _)| options.wants_peer(name)) {
        let program = path.canonicalize().map_err(|error| format!("{name}: {}: {error}", path.display()))?;
        let root = dir.join("state").join(&name);
        std::fs::create_dir_all(&root)?;
        peers.push(Peer { is_floor: name == "floor", name, program, root });
    }
    Ok(peers)
}

fn known(name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(name.to_uppercase()) {
        return Some(path.into());
    }
    let own = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bin")).join(name);
    let cached = std::env::var_os("HOME")
        .map(|home| Path::new(&home).join(".cache/cofferdam").join(name).join("bin").join(name));
    let in_path = std::env::split_paths(PATH).map(|dir| dir.join(name));
    [own].into_iter().chain(in_path).chain(cached).find(|path| path.is_file())
}
