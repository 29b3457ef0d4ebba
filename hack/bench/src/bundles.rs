//! The bundles that are run: one root file system, and a config.json for each peer and purpose.

use crate::Result;
use crate::floor;
use crate::machine::Machine;
use crate::peers::{PATH, Peer};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// One of the two configs that everything begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    /// What `runc spec` writes.
    Default,
    /// What dockerd hands to its runtime for `docker run`, without hooks and the engine's own files.
    Docker,
}

impl Config {
    /// Its name, for people and for the floor.
    pub fn name(self) -> &'static str {
        match self {
            Config::Default => "default",
            Config::Docker => "docker",
        }
    }

    /// The config.json.
    ///
    /// # Errors
    /// Never: a test reads both.
    pub fn json(self) -> Result<Value> {
        Ok(serde_json::from_str(match self {
            Config::Default => include_str!("../data/default.json"),
            Config::Docker => include_str!("../data/docker.json"),
        })?)
    }
}

/// One container of one peer: what its commands name.
#[derive(Clone, Debug)]
pub struct Case {
    /// The config that its own was made from.
    pub config: Config,
    /// The folder of its config.json.
    pub bundle: PathBuf,
    /// The root file system, shared by all.
    pub rootfs: PathBuf,
    /// Its id.
    pub id: String,
    /// Its cgroup's path in every hierarchy.
    pub cgroup: String,
    /// The hierarchies; none on cgroup v2.
    pub hierarchies: Vec<String>,
    /// The compiled seccomp filter, for the floor.
    pub filter: Option<PathBuf>,
    /// How many bind mounts the config has beside its own.
    pub binds: usize,
    /// The container's process.
    pub args: Vec<String>,
}

/// Makes bundles below one folder.
pub struct Bundles {
    dir: PathBuf,
    rootfs: PathBuf,
    hierarchies: Vec<String>,
    parent: String,
}

/// How many of a config's extra mounts have a place in the root file system.
const MOST_BINDS: usize = 100;

impl Bundles {
    /// Makes the root file system: busybox, and the least program there is as /bin/tiny.
    ///
    /// # Errors
    /// Without a static busybox.
    pub fn new(machine: &Machine) -> Result<Bundles> {
        let dir = machine.dir.join("bundles");
        let rootfs = dir.join("rootfs");
        for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder))?;
        }
        for bind in 1..=MOST_BINDS {
            fs::create_dir_all(rootfs.join(format!("mnt/{bind}")))?;
        }
        fs::create_dir_all(dir.join("extra"))?;
        fs::copy(busybox()?, rootfs.join("bin/busybox"))?;
        for applet in ["sh", "true", "cat", "sleep", "ls", "ip"] {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        fs::copy(machine.dir.join("programs/rss"), rootfs.join("bin/tiny"))?;
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(rootfs.join("etc/group"), "root:x:0:\n")?;
        Ok(Bundles { dir, rootfs, hierarchies: machine.hierarchies.clone(), parent: machine.parent.clone() })
    }

    /// A bundle of `config` for `peer`, after `change`; `purpose` tells it from the peer's others.
    ///
    /// # Errors
    /// If a file cannot be written, or the seccomp profile does not compile.
    pub fn make(
        &self,
        peer: &Peer,
        config: Config,
        purpose: &str,
        change: impl Fn(&mut Value),
    ) -> Result<Case> {
        let id = format!("{}-{}-{purpose}", peer.name, config.name());
        let bundle = self.dir.join(&id);
        fs::create_dir_all(&bundle)?;
        let cgroup = format!("{}/{id}", self.parent);
        let mut json = config.json()?;
        json["root"]["path"] = json!(self.rootfs);
        json["linux"]["cgroupsPath"] = json!(cgroup);
        if self.hierarchies.is_empty() {
            // On cgroup v2 both `runc spec` and dockerd ask for it.
            json["linux"]["namespaces"].as_array_mut().ok_or("namespaces")?.push(json!({"type": "cgroup"}));
        }
        change(&mut json);
        fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&json)?)?;
        let filter = if peer.is_floor { floor::filter(&bundle, "filter", &json)? } else { None };
        let args = json["process"]["args"].as_array().into_iter().flatten();
        let args = args.map(|arg| arg.as_str().unwrap_or_default().to_owned()).collect();
        let binds = json["mounts"].as_array().into_iter().flatten();
        let binds = binds.filter(|mount| mount["type"] == "bind").count();
        let (rootfs, hierarchies) = (self.rootfs.clone(), self.hierarchies.clone());
        Ok(Case { config, bundle, rootfs, id, cgroup, hierarchies, filter, binds, args })
    }

    /// `count` more mounts in a config: a folder of the host, as a volume is.
    pub fn add_binds(&self, json: &mut Value, count: usize) {
        let Some(mounts) = json["mounts"].as_array_mut() else { return };
        for bind in 1..=count.min(MOST_BINDS) {
            mounts.push(json!({
                "destination": format!("/mnt/{bind}"), "type": "bind", "source": self.dir.join("extra"),
                "options": ["rbind", "rprivate"],
            }));
        }
    }
}

/// Sets process.args.
pub fn set_args(json: &mut Value, args: &[&str]) {
    json["process"]["args"] = json!(args);
}

fn busybox() -> Result<PathBuf> {
    let path = std::env::split_paths(PATH).map(|dir| dir.join("busybox")).find(|path| path.is_file());
    let path = path.ok_or("no busybox: install busybox-static")?;
    if is_dynamic(&path)? {
        return Err(format!("{} is not static: install busybox-static", path.display()).into());
    }
    Ok(path)
}

/// Whether an ELF file of 64 bits names an interpreter (a program header of type PT_INTERP).
fn is_dynamic(path: &Path) -> Result<bool> {
    let bytes = fs::read(path)?;
    let number = |at: usize, size: usize| -> usize {
        bytes
            .get(at..at + size)
            .into_iter()
            .flatten()
            .rev()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    Ok((0..count).any(|index| number(table + index * size, 4) == 3))
}
