//! Facts about the machine that decide which tests can run.

use super::procs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The machine.
pub struct Host {
    /// Everything is in the unified hierarchy.
    pub cgroup_v2: bool,
    /// Where the controllers of v1 are mounted, by name; with v2 all are below [`Host::UNIFIED`].
    pub hierarchies: BTreeMap<String, PathBuf>,
    controllers: Vec<String>,
    /// systemd is pid 1.
    pub systemd: bool,
    /// AppArmor is on.
    pub apparmor: bool,
    /// This process's effective capabilities.
    pub capabilities: u64,
    /// Major and minor version.
    pub kernel: (u32, u32),
    /// `uname -m`
    pub machine: String,
    /// How many CPUs there are to run on.
    pub cpus: usize,
}

/// The folder of `$CRIU`, which a distribution's own may be too old for the kernel to take the place of.
pub fn criu_folder() -> Option<PathBuf> {
    let criu = PathBuf::from(std::env::var_os("CRIU").filter(|path| !path.is_empty())?);
    criu.parent().map(Path::to_path_buf)
}

/// Why CRIU does not work here.
pub fn criu_is_missing() -> Option<String> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let criu = criu_folder().map_or_else(|| "criu".into(), |folder| folder.join("criu"));
        match Command::new(&criu).arg("check").output() {
            Err(error) => Some(format!("needs criu: {}: {error}", criu.display())),
            Ok(out) if out.status.success() => None,
            Ok(out) => {
                let text = String::from_utf8_lossy(&out.stderr).into_owned();
                Some(format!("needs a criu for this kernel: {}", text.lines().last().unwrap_or_default()))
            }
        }
    };
    ANSWER.get_or_init(ask).clone()
}

impl Host {
    /// Where cgroup v2 is mounted.
    pub const UNIFIED: &str = "/sys/fs/cgroup";

    /// Looks around.
    pub fn probe() -> Host {
        let mut hierarchies = BTreeMap::new();
        let mut cgroup_v2 = false;
        for mount in procs::mounts("/proc/self/mountinfo") {
            if mount.fstype == "cgroup2" && mount.target == Self::UNIFIED {
                cgroup_v2 = true;
            }
            if mount.fstype == "cgroup" {
                let options = mount.super_options.split(',').filter(|option| *option != "rw");
                for name in options {
                    hierarchies.entry(name.to_owned()).or_insert_with(|| PathBuf::from(&mount.target));
                }
            }
        }
        let controllers = if cgroup_v2 {
            let list = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
            list.split_whitespace().map(str::to_owned).collect()
        } else {
            hierarchies.keys().cloned().collect()
        };
        let names = nix::sys::utsname::uname().expect("uname");
        let release = names.release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        Host {
            cgroup_v2,
            hierarchies,
            controllers,
            systemd: Path::new("/run/systemd/system").is_dir(),
            apparmor: enabled.trim() == "Y",
            capabilities: procs::status_hex("/proc/self/status", "CapEff"),
            kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            machine: names.machine().to_string_lossy().into_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Whether the controller can limit anything here.
    pub fn has_controller(&self, name: &str) -> bool {
        self.controllers.iter().any(|controller| controller == name)
    }

    /// Whether the kernel has this kind of namespace.
    pub fn has_namespace(&self, kind: &str) -> bool {
        Path::new("/proc/self/ns").join(kind).symlink_metadata().is_ok()
    }
}
