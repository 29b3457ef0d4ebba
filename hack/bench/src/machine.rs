//! The place where everything is measured: a private mount namespace with a tmpfs for bundles and state, and one cgroup in
//! each hierarchy that all containers lie below. What the machine itself has mounted stays as it is.

use crate::Result;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Folders of the File Hierarchy Standard that a server has no use for: one of them is covered by the tmpfs. A fixed place, so
/// that counts of instructions do not depend on the length of a path, and one that needs no taking away.
const WORK: [&str; 3] = ["/media", "/srv", "/opt"];
const CGROUPS: &str = "/sys/fs/cgroup";
const PREFIX: &str = "cofferdam-bench-";

/// The place, until it is dropped.
pub struct Machine {
    /// An empty tmpfs.
    pub dir: PathBuf,
    /// The v1 hierarchies' folders below /sys/fs/cgroup; none on cgroup v2.
    pub hierarchies: Vec<String>,
    /// Path, in every hierarchy, of the cgroup that holds all containers.
    pub parent: String,
}

impl Machine {
    /// Enters a mount namespace of this process's own and makes the place. Called before any thread is.
    ///
    /// # Errors
    /// Without root, or where the kernel refuses.
    pub fn enter(hugetlb: bool) -> Result<Machine> {
        if !nix::unistd::geteuid().is_root() {
            return Err("measuring containers needs root".into());
        }
        unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("unshare the mount namespace: {error}"))?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        let dir =
            PathBuf::from(WORK.iter().find(|dir| Path::new(dir).is_dir()).ok_or("no folder to mount on")?);
        mount(Some("bench"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        let hierarchies = hierarchies(hugetlb)?;
        let parent = format!("/{PREFIX}{:07}", std::process::id());
        let machine = Machine { dir, hierarchies, parent };
        machine.remove_leftovers();
        machine.make_parents()?;
        Ok(machine)
    }

    fn roots(&self) -> Vec<PathBuf> {
        match self.hierarchies.as_slice() {
            [] => vec![CGROUPS.into()],
            names => names.iter().map(|name| Path::new(CGROUPS).join(name)).collect(),
        }
    }

    fn make_parents(&self) -> Result<()> {
        for root in self.roots() {
            let dir = root.join(&self.parent[1..]);
            fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if self.hierarchies.is_empty() || !dir.join(file).exists() {
                    continue;
                }
                fs::write(dir.join(file), fs::read_to_string(root.join(file))?)?;
            }
            if self.hierarchies.is_empty() {
                let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
                for name in controllers.split_whitespace() {
                    // One that another tree of the machine owns cannot be had, and the containers do without it.
                    let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{name}"));
                    let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
                }
            }
        }
        Ok(())
    }

    /// The folders of a cgroup below [`Machine::parent`], one in each hierarchy.
    pub fn cgroup_dirs(&self, path: &str) -> Vec<PathBuf> {
        self.roots().into_iter().map(|root| root.join(path.trim_start_matches('/'))).collect()
    }

    /// Ends what runs in a cgroup and below it, reaps what of it is ours, and removes the cgroup.
    pub fn clear(&self, path: &str) {
        for dir in self.cgroup_dirs(path) {
            let until = Instant::now() + Duration::from_secs(2);
            while !remove_tree(&dir) && Instant::now() < until {
                reap();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Cgroups of an earlier run that was stopped half-way.
    fn remove_leftovers(&self) {
        for root in self.roots() {
            for entry in fs::read_dir(root).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let Some(pid) = name.strip_prefix(PREFIX) else { continue };
                if !Path::new("/proc").join(pid.trim_start_matches('0')).exists() {
                    self.clear(&name);
                }
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.clear(&self.parent);
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

/// Kills all below `dir` and removes it; whether it is gone.
fn remove_tree(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    // A frozen process dies once it is thawed.
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    fs::remove_dir(dir).is_ok() || !dir.exists()
}

/// Reaps the strangers that this process inherits as a subreaper. Only where no `Child` is waited for.
pub fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if matches!(status, WaitStatus::StillAlive) {
            break;
        }
    }
}

/// crun refuses a machine with controllers in a cgroup2 beside v1 hierarchies, as long as it sees that cgroup2 mounted: so it
/// is not, in here. Or hugetlb, which is what such a cgroup2 holds, becomes a v1 hierarchy, too.
fn hierarchies(hugetlb: bool) -> Result<Vec<String>> {
    let unified = Path::new(CGROUPS).join("unified");
    if hugetlb && !Path::new(CGROUPS).join("hugetlb/tasks").exists() {
        let dir = Path::new(CGROUPS).join("hugetlb");
        fs::create_dir_all(&dir)?;
        mount(Some("cgroup"), &dir, Some("cgroup"), MsFlags::empty(), Some("hugetlb"))
            .map_err(|error| format!("mount hugetlb as a v1 hierarchy: {error}"))?;
    } else if unified.join("cgroup.controllers").exists() {
        umount2(&unified, MntFlags::MNT_DETACH)?;
    }
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut names = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let target = left.split(' ').nth(4).unwrap_or_default();
        if let Some(name) = target.strip_prefix("/sys/fs/cgroup/")
            && right.starts_with("cgroup ")
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
