//! Where the tries take place: a mount namespace, a folder and a cgroup of this program's own; and what is left in them.

use crate::bundle::{self, Kind, Places};
use crate::verdict::HANGS;
use crate::{Result, filter, own_path, tracer};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The place. Removed when dropped.
pub struct World {
    pub runtime: PathBuf,
    dir: PathBuf,
    name: String,
    /// Mount points of all cgroup hierarchies.
    hierarchies: Vec<PathBuf>,
    mounts: BTreeSet<String>,
    /// What the runtime's `spec` writes.
    default: serde_json::Value,
}

impl World {
    /// Makes it.
    ///
    /// # Errors
    /// Without root's rights, a runtime or busybox.
    pub fn make(runtime: &Path) -> Result<World> {
        if !nix::unistd::geteuid().is_root() {
            return Err("this needs root".into());
        }
        let runtime = fs::canonicalize(runtime).map_err(|error| format!("{}: {error}", runtime.display()))?;
        own_path()?;
        enter_mount_namespace()?;
        let name = format!("cofferdam-break-{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir(&dir)?;
        let default = bundle::default(&runtime, &dir)?;
        let (hierarchies, mounts) = (hierarchies()?, BTreeSet::new());
        let mut world = World { runtime, dir, name, hierarchies, mounts, default };
        bundle::make_rootfs(&world.rootfs())?;
        fs::create_dir_all(world.volume().join("tree/below"))?;
        fs::write(world.volume().join("tree/file"), "in the volume\n")?;
        fs::write(world.volume().join("file"), "a file\n")?;
        world.mounts = self::mounts()?;
        Ok(world)
    }

    /// The root file system of all bundles.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    fn volume(&self) -> PathBuf {
        self.dir.join("volume")
    }

    /// Where containers' states are.
    pub fn state_root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A file beside the bundles.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.name)
    }

    /// Makes (or makes again) the bundle of a container.
    ///
    /// # Errors
    /// When the config cannot be written.
    pub fn bundle(&self, kind: Kind, id: &str, args: &[&str]) -> Result<PathBuf> {
        self.bundle_with(kind, id, args, |_| ())
    }

    /// The same with changes of the config.
    ///
    /// # Errors
    /// When the config cannot be written.
    pub fn bundle_with(
        &self,
        kind: Kind,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut serde_json::Value),
    ) -> Result<PathBuf> {
        let dir = self.dir.join("bundles").join(id);
        fs::create_dir_all(&dir)?;
        let (rootfs, volume, cgroup) = (self.rootfs(), self.volume(), self.cgroup(id));
        let places = Places { rootfs: &rootfs, volume: &volume, cgroup: &cgroup };
        let mut config = bundle::config(kind, &self.default, &places, args)?;
        change(&mut config);
        fs::write(dir.join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(dir)
    }

    /// A command line of the runtime.
    pub fn command(&self, words: &[&str]) -> Vec<OsString> {
        let mut all: Vec<OsString> =
            vec![self.runtime.clone().into(), "--root".into(), self.state_root().into()];
        all.extend(words.iter().map(OsString::from));
        all
    }

    /// The same with calls that fail.
    ///
    /// # Errors
    /// When this program cannot be found.
    pub fn failing(&self, rules: &[filter::Rule], words: &[&str]) -> Result<Vec<OsString>> {
        let mut all: Vec<OsString> = vec![own_path()?.into()];
        for rule in rules {
            let text = format!("{}={}", rule.call, crate::errno::name(rule.errno));
            all.extend(["--fail".into(), text.into()]);
        }
        all.push("--".into());
        all.extend(self.command(words));
        Ok(all)
    }

    /// What is left of a container besides processes: its state, cgroups, mounts on the host.
    ///
    /// # Errors
    /// When the mounts cannot be read.
    pub fn left(&self, id: &str) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let home = self.state_root().join(id);
        if home.exists() {
            left.push(format!("state directory {id}"));
        }
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.join(&self.cgroup(id)[1..]);
            if dir.exists() {
                let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                left.push(format!("cgroup {} ({} processes)", dir.display(), procs.lines().count()));
            }
        }
        let now = mounts()?;
        left.extend(now.difference(&self.mounts).map(|mount| format!("mount {mount}")));
        left.extend(self.mounts.difference(&now).map(|mount| format!("a lack of mount {mount}")));
        Ok(left)
    }

    /// Removes by hand what a broken runtime left, so that the next try begins clean.
    pub fn scrub(&self, id: &str) {
        let _ = fs::remove_dir_all(self.state_root().join(id));
        for hierarchy in &self.hierarchies {
            remove_cgroup(&hierarchy.join(&self.cgroup(id)[1..]));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for hierarchy in &self.hierarchies {
            remove_cgroup(&hierarchy.join(&self.name));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes a cgroup and those below it. Processes in it keep it there.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// A mount namespace whose mounts are shared, as on most machines, but not with the machine's own: a mount that escapes from
/// a container shows here and does no harm.
fn enter_mount_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    for flag in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount::<str, str, str, str>(None, "/", None, flag | MsFlags::MS_REC, None)?;
    }
    Ok(())
}

/// Every mount here: device, root, mount point, type.
fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let describe = |line: &str| {
        let (mount, fs) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        Some(format!("{} {} {} {}", fields.get(4)?, fs.split(' ').next()?, fields.get(2)?, fields.get(3)?))
    };
    Ok(text.lines().filter_map(describe).collect())
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let point = |line: &str| {
        let (mount, fs) = line.split_once(" - ")?;
        let cgroup = fs.starts_with("cgroup ") || fs.starts_with("cgroup2 ");
        cgroup.then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
    };
    let found: BTreeSet<PathBuf> = text.lines().filter_map(point).collect();
    if found.is_empty() {
        Err("no cgroup hierarchy is mounted".into())
    } else {
        Ok(found.into_iter().collect())
    }
}

/// What a command of the crowd came to.
#[derive(Debug)]
pub struct Done {
    /// The exit status; 128 and the signal's number when killed.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Status and last line, for messages.
    pub fn said(&self) -> String {
        format!("{} {:?}", self.status, self.stderr.trim())
    }

    pub const fn succeeded(&self) -> bool {
        self.status == 0
    }
}

/// Runs a command, for at most as long as nothing takes.
///
/// # Errors
/// When it cannot be started, or had to be killed.
pub fn output(command: &[OsString]) -> Result<Done> {
    use std::os::unix::process::ExitStatusExt;
    let (program, args) = command.split_first().ok_or("there is no command")?;
    let (out, err) = (tracer::memory_file("stdout")?, tracer::memory_file("stderr")?);
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()
        .map_err(|error| format!("run {}: {error}", program.display()))?;
    let until = Instant::now() + HANGS;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() >= until => {
                child.kill()?;
                child.wait()?;
                return Err(format!("{:?} hangs", args.join(" ".as_ref())).into());
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Done { status, stdout: tracer::content(&out), stderr: tracer::content(&err) })
}
