//! A bundle: busybox's files and a config.json that a test changes.

use super::T;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A bundle. A clone has the same directory and a config of its own.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its directory.
    pub dir: PathBuf,
    /// What config.json is going to be.
    pub config: Value,
    /// The test has named the cgroup itself.
    pub own_cgroup: bool,
}

/// What `runc spec` writes, without its terminal and with a root that can be written to. The ambient set is left out, for
/// it has capabilities that are not inheritable: runc 1.1 wrote that, and the kernel takes none of it.
fn default_config() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "runc",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ])
}

impl Bundle {
    /// Makes the files and the config.
    pub fn new(t: &T, dir: &Path) -> Bundle {
        let bundle = Bundle { dir: dir.to_owned(), config: default_config(), own_cgroup: false };
        copy_tree(&t.image, &bundle.root()).expect("copy the root file system");
        bundle
    }

    /// Where the container's files are.
    pub fn root(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Merges a change into the config: objects key by key, `null` removes, everything else replaces.
    pub fn set(&mut self, change: Value) -> &mut Bundle {
        merge(&mut self.config, change);
        self
    }

    /// The bundle with a change.
    pub fn with(&self, change: Value) -> Bundle {
        let mut bundle = self.clone();
        bundle.set(change);
        bundle
    }

    /// The bundle with another program.
    pub fn args(self, args: &[&str]) -> Bundle {
        self.with(json!({"process": {"args": args}}))
    }

    /// The bundle with a script as its program.
    pub fn script(&self, script: &str) -> Bundle {
        self.clone().args(&["sh", "-c", script])
    }

    /// Adds a mount behind the others.
    pub fn mount(&mut self, mount: Value) -> &mut Bundle {
        self.list("/mounts").push(mount);
        self
    }

    /// A list of the config, made if it is not there.
    pub fn list(&mut self, pointer: &str) -> &mut Vec<Value> {
        let mut at = &mut self.config;
        for key in pointer.split('/').skip(1) {
            at = &mut at[key];
        }
        if at.is_null() {
            *at = json!([]);
        }
        at.as_array_mut().expect("a list")
    }

    /// Adds a namespace, or gives one its path.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Bundle {
        self.without_namespace(kind);
        self.list("/linux/namespaces").push(match path {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        });
        self
    }

    /// Takes a namespace away.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        self.list("/linux/namespaces").retain(|entry| entry["type"] != kind);
        self
    }

    /// Takes the mount of a destination away.
    pub fn without_mount(&mut self, destination: &str) -> &mut Bundle {
        self.list("/mounts").retain(|entry| entry["destination"] != destination);
        self
    }

    /// Gives the process these capabilities: bounding, permitted and effective.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Bundle {
        self.set(json!({"process": {"capabilities": {
            "bounding": names, "permitted": names, "effective": names, "inheritable": null, "ambient": null
        }}}))
    }

    /// A new user namespace: 65,536 ids from 100,000 on.
    pub fn user_namespace(&mut self) -> &mut Bundle {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        self.namespace("user", None);
        self.set(json!({"linux": {"uidMappings": map, "gidMappings": map}}));
        // Its root must be able to reach the files.
        for dir in self.root().ancestors().take(4) {
            let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
        }
        chown_tree(&self.root(), 100_000);
        self
    }

    /// What `spec --rootless` makes of a config, for [`USER`](super::world::USER): one id, no network of its own, no resources.
    pub fn rootless(&mut self) -> &mut Bundle {
        let user = super::world::USER;
        let map = json!([{"containerID": 0, "hostID": user, "size": 1}]);
        self.without_namespace("network").namespace("user", None);
        self.set(json!({"linux": {"uidMappings": map, "gidMappings": map, "resources": null}}));
        for mount in self.list("/mounts") {
            if mount["destination"] == "/sys" {
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            } else if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| !option.as_str().is_some_and(|option| option.starts_with("gid=")));
            }
        }
        self.own_cgroup = true;
        chown_tree(&self.dir, user);
        self
    }

    /// Writes a file of the container.
    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let file = self.file(path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("mkdir");
        fs::write(&file, text).expect("write");
        file
    }

    /// Writes a program of the container.
    pub fn write_program(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.write(path, "");
        fs::write(&file, content).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("chmod");
        file
    }

    /// Makes a directory of the container.
    pub fn make_dir(&self, path: &str) -> PathBuf {
        let dir = self.file(path);
        fs::create_dir_all(&dir).expect("mkdir");
        dir
    }

    /// Replaces a file or directory of the container by a symbolic link.
    pub fn link(&self, path: &str, target: &str) -> PathBuf {
        let file = self.file(path);
        remove(&file);
        symlink(target, &file).expect("symlink");
        file
    }

    /// Removes a file or directory of the container.
    pub fn remove(&self, path: &str) {
        remove(&self.file(path));
    }

    /// Where a file of the container is on the host.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Puts the probe to `/bin/probe`.
    pub fn add_probe(&self, t: &T) {
        let file = self.file("/bin/probe");
        if !file.exists() {
            fs::copy(&t.probe, &file).expect("copy the probe");
        }
    }

    /// Writes config.json.
    pub fn save(&self) {
        let text = serde_json::to_string_pretty(&self.config).expect("JSON");
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
    }
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).expect("rmdir"),
        Ok(_) => fs::remove_file(path).expect("unlink"),
        Err(_) => {}
    }
}

/// Merges as [`Bundle::set`] says.
pub fn merge(base: &mut Value, change: Value) {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => {
            for (key, value) in change {
                match value {
                    Value::Null => drop(base.remove(&key)),
                    value => merge(base.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (base, Value::Object(change)) => {
            *base = json!({});
            merge(base, Value::Object(change));
        }
        (base, change) => *base = change,
    }
}

/// Copies files, directories and links with their permissions.
pub fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, from.metadata()?.permissions())?;
    for entry in fs::read_dir(from)? {
        let (entry, target) = {
            let entry = entry?;
            let target = to.join(entry.file_name());
            (entry, target)
        };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn chown_tree(path: &Path, owner: u32) {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner)).expect("chown");
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        for entry in fs::read_dir(path).expect("readdir").flatten() {
            chown_tree(&entry.path(), owner);
        }
    }
}

/// The applets that tests call. Every bundle has a link for each, and links are most of what a bundle costs: not all 270.
const APPLETS: &str = "[ awk cat chmod chown cmp cp cut dd df dirname echo env expr false find grep head hostname id ionice ip kill \
    ln ls mkdir mknod mktemp mount mv nc nproc nsenter od pivot_root ping printf ps pwd readlink renice rm rmdir sed seq \
    setpriv setsid sh sleep sort stat stty sync sysctl tail taskset tee test timeout touch tr true tty umount uname uniq unlink \
    unshare wc which xargs yes";

/// The root file system that bundles are copied from: busybox and a few files of /etc.
pub fn make_image(busybox: &Path, dir: &Path) -> std::io::Result<()> {
    for part in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "var"] {
        fs::create_dir_all(dir.join(part))?;
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(busybox, dir.join("bin/busybox"))?;
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", dir.join("bin").join(applet))?;
    }
    let passwd =
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nuser:x:1000:1000::/home:/bin/sh\n";
    fs::write(dir.join("etc/passwd"), passwd)?;
    fs::write(dir.join("etc/group"), "root:x:0:\ndaemon:x:1:\naudio:x:29:user\nuser:x:1000:\n")
}
