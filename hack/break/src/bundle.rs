//! Bundles: one root file system of busybox, and a config.json for each purpose.

use crate::Result;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the config.json is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What the runtime's `spec` writes.
    Default,
    /// What dockerd writes.
    Docker,
    /// Docker's with volumes, a tmpfs, a device, limits and a user.
    Rich,
    /// The default in a user namespace.
    User,
    /// Docker's with hooks of every kind and a pid file.
    Hooks,
    /// The default in a pid namespace that is there: this machine's own, which is as good as any.
    SharedPids,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Default => "default",
            Kind::Docker => "docker",
            Kind::Rich => "rich",
            Kind::User => "user",
            Kind::Hooks => "hooks",
            Kind::SharedPids => "shared-pids",
        }
    }
}

/// Makes the root file system. Places that a container of a user namespace may not make itself are there.
///
/// # Errors
/// Without a static busybox.
pub fn make_rootfs(root: &Path) -> Result<()> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
    let busybox = busybox.ok_or("there is no busybox (Debian: busybox-static)")?;
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "home", "volume", "kept", "scratch/below"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    let list = Command::new(busybox).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf", "one-file"] {
        fs::write(root.join(file), "")?;
    }
    fs::write(root.join("scratch/below/file"), "copied up\n")?;
    Ok(())
}

/// Where a bundle's parts are.
#[derive(Debug)]
pub struct Places<'a> {
    pub rootfs: &'a Path,
    /// A folder on the host to mount from.
    pub volume: &'a Path,
    /// The container's cgroup in every hierarchy.
    pub cgroup: &'a str,
}

/// The config.json of a kind.
///
/// # Errors
/// Never: Docker's config.json is part of this program.
pub fn config(kind: Kind, default: &Value, places: &Places, args: &[&str]) -> Result<Value> {
    let mut config = match kind {
        Kind::Default | Kind::User | Kind::SharedPids => default.clone(),
        _ => serde_json::from_str(include_str!("../../configs/docker.json"))?,
    };
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["type"] == "bind" {
            mount["source"] = json!(places.volume.join("file"));
        }
    }
    config["root"]["path"] = json!(places.rootfs);
    config["process"]["args"] = json!(args);
    config["process"]["terminal"] = json!(false);
    config["linux"]["cgroupsPath"] = json!(places.cgroup);
    match kind {
        Kind::Default | Kind::Docker => {}
        Kind::Rich => enrich(&mut config, places),
        Kind::User => move_to_user_namespace(&mut config, places),
        Kind::Hooks => hook(&mut config),
        Kind::SharedPids => share_pids(&mut config),
    }
    Ok(config)
}

/// The config.json that a runtime's `spec` writes.
///
/// # Errors
/// When it writes none.
pub fn default(runtime: &Path, scratch: &Path) -> Result<Value> {
    let file = scratch.join("config.json");
    let done = Command::new(runtime).arg("spec").current_dir(scratch).output()?;
    if !done.status.success() {
        return Err(format!("spec: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

fn push(list: &mut Value, entries: impl IntoIterator<Item = Value>) {
    match list {
        Value::Array(list) => list.extend(entries),
        other => *other = Value::Array(entries.into_iter().collect()),
    }
}

fn share_pids(config: &mut Value) {
    for namespace in config["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        if namespace["type"] == "pid" {
            namespace["path"] = json!("/proc/self/ns/pid");
        }
    }
}

fn enrich(config: &mut Value, places: &Places) {
    let bind = |to: &str, from: PathBuf, options: Value| json!({"destination": to, "type": "bind", "source": from, "options": options});
    let volume = places.volume;
    push(
        &mut config["mounts"],
        [
            bind("/volume", volume.join("tree"), json!(["rbind", "ro", "nosuid", "nodev", "rprivate"])),
            bind("/kept/new/deep", volume.join("tree"), json!(["bind", "rw", "noexec", "noatime"])),
            bind("/one-file", volume.join("file"), json!(["bind", "ro", "slave"])),
            json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "noexec", "size=64k", "mode=1777", "tmpcopyup"]}),
        ],
    );
    push(
        &mut config["linux"]["devices"],
        [json!({"path": "/dev/other/loop", "type": "b", "major": 7, "minor": 3, "fileMode": 0o640,
            "uid": 1000, "gid": 6})],
    );
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 29], "umask": 0o27});
    config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}]);
    config["process"]["noNewPrivileges"] = json!(true);
    config["process"]["oomScoreAdj"] = json!(500);
    config["process"]["cwd"] = json!("/home");
    config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    config["linux"]["resources"]["pids"] = json!({"limit": 100});
    config["linux"]["resources"]["cpu"] = json!({"shares": 512});
}

fn move_to_user_namespace(config: &mut Value, places: &Places) {
    push(
        &mut config["mounts"],
        [
            json!({"destination": "/volume", "type": "bind", "source": places.volume.join("tree"),
                "options": ["rbind", "ro", "nosuid", "rslave"]}),
            json!({"destination": "/one-file", "type": "bind", "source": places.volume.join("file"),
                "options": ["bind"]}),
        ],
    );
    push(&mut config["linux"]["namespaces"], [json!({"type": "user"})]);
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

fn hook(config: &mut Value) {
    let plain = json!([{"path": "/bin/true", "args": ["true"]}]);
    // stdin, stdout, stderr and what `ls` opens itself: a hook gets nothing else of init's.
    let script = "[ $(ls /proc/self/fd | wc -l) = 4 ]";
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]);
    config["hooks"] = json!({
        "prestart": plain, "createRuntime": plain, "createContainer": inside,
        "startContainer": inside, "poststart": plain, "poststop": plain,
    });
}
