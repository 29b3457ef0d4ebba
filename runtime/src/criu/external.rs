//! What a container has of the host's: CRIU saves none of it, and must be told each piece by a name that restore says again.
//!
//! The plan is where that stands: its bind mounts (v1's cgroup directories among them), bound devices and joined namespaces. State
//! keeps no more of it than a checkpoint needs.

use super::rpc;
use super::scaffold::copied_link;
use crate::error::Error;
use cofferdam_plan::Plan;
use cofferdam_spec::Spec;
use cofferdam_step::{Source, Step};
use cofferdam_sys::root::Root;
use cofferdam_sys::{AsFd, Cwd, fs};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;

/// What a checkpoint must know of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outside {
    /// Where something of the host is mounted, as config.json has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// Kinds of namespaces that belong to somebody else and are left alone (`net`, `pid`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The names of the descriptors 0 to 2 that the first process got, where a pipe is among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stdio: Vec<String>,
}

impl Outside {
    /// What the plan says of it.
    pub(crate) fn of(spec: &Spec, plan: &Plan) -> Outside {
        Outside {
            mounts: binds(plan).map(|bind| bind.destination.to_owned()).collect(),
            namespaces: foreign(spec).map(|(name, _)| name.to_owned()).collect(),
            stdio: Vec::new(),
        }
    }

    /// Whether there is nothing to know.
    pub fn is_empty(&self) -> bool {
        *self == Outside::default()
    }
}

/// Something of the host, mounted in the container.
pub(super) struct Bind<'a> {
    /// Where, as config.json has it.
    pub destination: &'a str,
    /// Absolute path on the host.
    pub source: &'a str,
}

/// Every bind mount of the plan.
pub(super) fn binds(plan: &Plan) -> impl Iterator<Item = Bind<'_>> {
    plan.init.iter().filter_map(|step| match step {
        Step::Mount(mount) => match &mount.source {
            Source::Link { path, .. } | Source::Tree { path, .. } if copied_link(mount, path).is_some() => {
                None
            }
            Source::Bind { path, .. } | Source::Link { path, .. } | Source::Tree { path, .. } => {
                Some(Bind { destination: &mount.destination, source: path })
            }
            Source::New { .. } | Source::Remount { .. } => None,
        },
        Step::BindDevice { path, source, .. } => Some(Bind { destination: path, source }),
        _ => None,
    })
}

/// The namespaces that CRIU takes as given, by their names in /proc, and their files: those of these kinds with a path.
pub(super) fn foreign(spec: &Spec) -> impl Iterator<Item = (&'static str, &str)> {
    let path = |kind: &str| {
        spec.linux.namespace(kind).map(|namespace| namespace.path.as_str()).filter(|path| !path.is_empty())
    };
    [("net", path("network")), ("pid", path("pid"))]
        .into_iter()
        .filter_map(|(name, path)| path.map(|path| (name, path)))
}

/// The name that dump and restore have for a namespace; runc's.
pub(super) fn namespace_key(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase()).into_iter();
    format!("extRoot{}NS", first.chain(letters).collect::<String>())
}

/// Names the foreign namespaces of a running container, for its dump.
pub(super) fn namespaces_of(outside: &Outside, pid: i32) -> Result<Vec<String>, Error> {
    outside
        .namespaces
        .iter()
        .map(|name| {
            let path = format!("/proc/{pid}/ns/{name}");
            let data = std::fs::metadata(&path).map_err(|error| Error::io("look at", &path, error))?;
            Ok(format!("{name}[{}]:{}", data.ino(), namespace_key(name)))
        })
        .collect()
}

/// What restore binds over masked files; runc's name for it.
const NULL: &str = "/dev/null";

/// Names the host's mounts in a running container, for its dump.
pub(super) fn mounts_of(outside: &Outside, pid: i32) -> Result<Vec<rpc::ExternalMount>, Error> {
    let path = format!("/proc/{pid}/root");
    let root = fs::openat(&Cwd, path.as_bytes(), fs::O_PATH | fs::O_DIRECTORY, 0);
    let root = Root::new(root.map_err(|errno| Error::io("open", &path, errno))?);
    let mut mounts = Vec::new();
    for destination in &outside.mounts {
        // A link on the way: CRIU knows the mount by where it really is.
        let real = real_path(&root, destination, "")?;
        mounts.push(external(&real, &real));
    }
    let path = format!("/proc/{pid}/mountinfo");
    let table = std::fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
    for masked in null_mounts(&table) {
        if mounts.iter().all(|mount| mount.key() != masked) {
            mounts.push(external(&masked, NULL));
        }
    }
    Ok(mounts)
}

/// Says where the host's mounts come from, for a restore below `root`.
pub(super) fn mounts_for(
    spec: &Spec,
    plan: &Plan,
    root: &Root,
    root_path: &str,
) -> Result<Vec<rpc::ExternalMount>, Error> {
    let mut mounts: Vec<rpc::ExternalMount> = Vec::new();
    for bind in binds(plan) {
        let real = real_path(root, bind.destination, root_path)?;
        mounts.push(external(&real, bind.source));
        // Where a link in a file system that only restore makes leads, nobody can tell by now.
        if real != bind.destination {
            mounts.push(external(bind.destination, bind.source));
        }
    }
    if !spec.linux.masked_paths.is_empty() {
        mounts.push(external(NULL, NULL));
    }
    Ok(mounts)
}

fn external(key: &str, value: &str) -> rpc::ExternalMount {
    rpc::ExternalMount { key: Some(key.into()), val: Some(value.into()), ..rpc::ExternalMount::default() }
}

/// Where a path below the root really is, from the root on: by its descriptor, links followed inside the root. What is not there is
/// where it says.
fn real_path(root: &Root, path: &str, root_path: &str) -> Result<String, Error> {
    let file = match root.resolve(path.as_bytes()) {
        Ok(file) => file,
        Err(cofferdam_sys::Errno::ENOENT) => return Ok(path.into()),
        Err(errno) => return Err(Error::io("resolve, in the container,", path, errno)),
    };
    let link = format!("/proc/self/fd/{}", file.number());
    let real = std::fs::read_link(&link).map_err(|error| Error::io("read", &link, error))?;
    let real = real.to_string_lossy();
    Ok(real.strip_prefix(root_path).filter(|rest| rest.starts_with('/')).unwrap_or(path).to_owned())
}

/// The mount points of masked files, in a table as /proc/PID/mountinfo: what is mounted there is the root of no filesystem but its
/// null device.
fn null_mounts(table: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in table.lines() {
        let mut fields = line.split(' ').skip(3);
        if let (Some("/null"), Some(point)) = (fields.next(), fields.next()) {
            let point = unescape(point);
            if !found.contains(&point) {
                found.push(point);
            }
        }
    }
    found
}

/// The kernel writes blanks, tabs, line feeds and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, letter)| text.replace(escape, letter))
}

/// What the kernel calls three descriptors of this process, if a pipe is among them: for runc's descriptors.json.
pub(crate) fn stdio_names(fds: [i32; 3]) -> Vec<String> {
    let name = |fd: i32| {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        link.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let names = fds.map(name);
    if names.iter().any(|name| is_pipe(name)) { names.to_vec() } else { Vec::new() }
}

/// Whether a descriptor's name is that of a pipe without a path.
pub(super) fn is_pipe(name: &str) -> bool {
    name.starts_with("pipe:[")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn namespaces_have_runcs_keys() {
        assert_eq!(namespace_key("net"), "extRootNetNS");
        assert_eq!(namespace_key("pid"), "extRootPidNS");
    }

    #[test]
    fn masked_files_are_found_by_what_is_mounted_there() {
        let table = "\
640 639 0:60 / / rw - overlay overlay rw
641 640 0:61 / /dev rw,nosuid - tmpfs tmpfs rw
650 640 0:61 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw
651 640 0:61 /null /proc/a\\040b rw,nosuid - tmpfs tmpfs rw
652 640 0:61 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw
653 640 0:61 /nullify /x rw,nosuid - tmpfs tmpfs rw
";
        assert_eq!(null_mounts(table), ["/proc/kcore", "/proc/a b"]);
    }

    #[test]
    fn a_link_below_the_root_stays_below_it() {
        let dir = std::env::temp_dir().join(format!("cofferdam-criu-root-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("run/lock")).unwrap();
        std::fs::create_dir(dir.join("var")).unwrap();
        std::os::unix::fs::symlink("/run", dir.join("var/run")).unwrap();
        let dir = dir.canonicalize().unwrap();
        let path = dir.to_str().unwrap();
        let root = Root::new(fs::openat(&Cwd, path.as_bytes(), fs::O_PATH, 0).unwrap());
        assert_eq!(real_path(&root, "/var/run/lock", path).unwrap(), "/run/lock");
        assert_eq!(real_path(&root, "/var/none", path).unwrap(), "/var/none");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn pipes_are_told_by_their_names() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let names = stdio_names([null.as_raw_fd(), write.as_raw_fd(), read.as_raw_fd()]);
        assert!(names[0] == "/dev/null" && is_pipe(&names[1]) && names[1] == names[2], "{names:?}");
        assert!(stdio_names([null.as_raw_fd(); 3]).is_empty());
    }
}
