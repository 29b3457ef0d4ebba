//! Finds the mounted cgroup hierarchies.
//!
//! Every container start goes through here, so the usual places are tried first: one statfs(2) confirms pure v2, and on
//! v1 one access(2) a hierarchy its mount point (2 us each). Only what is not where it usually is costs a look
//! into `/proc/self/mountinfo`, which the kernel writes out mount by mount (1 µs each).
//!
//! libcgroups is not used for this: it reads mountinfo once for each controller, and leaves `name=systemd` out.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use crate::error::CgroupError;
use crate::file;
use crate::layout::{Hierarchy, Layout, Unified};

const ROOT: &str = "/sys/fs/cgroup";

/// v1 hierarchies that containers take part in. Others (`name=elogind`, out-of-tree controllers) are none of ours.
const KNOWN: [&str; 15] = [
    "cpuset",
    "cpu",
    "cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
    "name=systemd",
];

/// Reads the layout of this host, as this process sees it.
///
/// # Errors
///
/// When `/proc/self/cgroup` cannot be read, or no hierarchy is mounted.
pub fn probe() -> Result<Layout, CgroupError> {
    let own = file::read("/proc/self", "cgroup")?;
    let mut lines = own.lines().filter_map(hierarchy_line).peekable();
    if lines.peek().is_none() && is_cgroup2(ROOT) {
        return Ok(Layout::V2(Unified { mount_point: ROOT.to_owned(), own_path: own_v2(&own).to_owned() }));
    }
    let mut mounts = Mounts::default();
    let mut hierarchies = Vec::new();
    for (controllers, path) in lines {
        let usual = usual_place(&controllers);
        let (mount_point, own_path) = match usual {
            Some(place) => (place, path.to_owned()),
            None => match mounts.v1(&controllers)? {
                Some(mount) => (mount.point.clone(), below(&mount.root, path)),
                None => continue,
            },
        };
        hierarchies.push(Hierarchy { controllers, mount_point, own_path });
    }
    layout(hierarchies, &own, &mut mounts)
}

fn layout(hierarchies: Vec<Hierarchy>, own: &str, mounts: &mut Mounts) -> Result<Layout, CgroupError> {
    const HYBRID: &str = "/sys/fs/cgroup/unified";
    let own_path = own_v2(own);
    let usual =
        is_cgroup2(HYBRID).then(|| Unified { mount_point: HYBRID.to_owned(), own_path: own_path.to_owned() });
    let unified = match usual {
        // On v1 a v2 hierarchy in an unusual place is not looked for: the mountinfo of a busy host is long.
        None if hierarchies.is_empty() || mounts.read => mounts.v2()?.map(|mount| Unified {
            mount_point: mount.point.clone(),
            own_path: below(&mount.root, own_path),
        }),
        usual => usual,
    };
    match (hierarchies.is_empty(), unified) {
        (true, None) => Err(CgroupError::NoCgroups),
        (true, Some(unified)) => Ok(Layout::V2(unified)),
        (false, Some(unified)) => Ok(Layout::Hybrid { hierarchies, unified }),
        (false, None) => Ok(Layout::V1 { hierarchies }),
    }
}

fn is_cgroup2(path: &str) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

fn own_v2(own: &str) -> &str {
    own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/")
}

/// `4:memory:/path`, if it is one of [`KNOWN`].
fn hierarchy_line(line: &str) -> Option<(Vec<String>, &str)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let list: Vec<String> = controllers.split(',').map(str::to_owned).collect();
    list.iter().any(|c| KNOWN.contains(&c.as_str())).then_some((list, path))
}

// `cgroup.sane_behavior` exists in the root of every v1 hierarchy and nowhere else (Linux 3.16 to 7.x). So one call
// tells that the directory is of cgroup v1 and that the mount shows the whole hierarchy; in a container, where it
// shows a part, the mount's root has to be looked up.
fn usual_place(controllers: &[String]) -> Option<String> {
    let joined = controllers.join(",");
    let place = format!("{ROOT}/{}", joined.strip_prefix("name=").unwrap_or(&joined));
    access(Path::new(&file::join(&place, "cgroup.sane_behavior")), AccessFlags::F_OK).ok()?;
    Some(place)
}

/// A path of `/proc/self/cgroup` as seen through a mount whose root is `root`.
fn below(root: &str, path: &str) -> String {
    let root = root.trim_end_matches('/');
    match path.strip_prefix(root) {
        Some("") => "/".to_owned(),
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        // The mount shows another part of the hierarchy (one made in another cgroup namespace): start at its root.
        _ => "/".to_owned(),
    }
}

struct Mount {
    root: String,
    point: String,
    /// Options of the superblock: the controllers.
    options: String,
}

/// The cgroup mounts of `/proc/self/mountinfo`, read when first asked for.
#[derive(Default)]
struct Mounts {
    read: bool,
    v1: Vec<Mount>,
    v2: Vec<Mount>,
}

impl Mounts {
    fn v1(&mut self, controllers: &[String]) -> Result<Option<&Mount>, CgroupError> {
        self.read()?;
        let all = |mount: &&Mount| controllers.iter().all(|c| mount.options.split(',').any(|o| o == c));
        Ok(self.v1.iter().find(all))
    }

    fn v2(&mut self) -> Result<Option<&Mount>, CgroupError> {
        self.read()?;
        Ok(self.v2.first())
    }

    fn read(&mut self) -> Result<(), CgroupError> {
        const PATH: &str = "/proc/self/mountinfo";
        if std::mem::replace(&mut self.read, true) {
            return Ok(());
        }
        let file = File::open(PATH).map_err(|source| CgroupError::io("open", PATH, source))?;
        for line in BufReader::with_capacity(64 << 10, file).lines() {
            self.add(&line.map_err(|source| CgroupError::io("read", PATH, source))?);
        }
        Ok(())
    }

    /// Takes up a line of mountinfo if it is about cgroups (proc_pid_mountinfo(5)).
    fn add(&mut self, line: &str) {
        let Some((mount, fs)) = line.split_once(" - ") else { return };
        let (mut mount, mut fs) = (mount.split(' ').skip(3), fs.split(' '));
        let list = match fs.next() {
            Some("cgroup") => &mut self.v1,
            Some("cgroup2") => &mut self.v2,
            _ => return,
        };
        if let (Some(root), Some(point), Some(options)) = (mount.next(), mount.next(), fs.nth(1)) {
            list.push(Mount { root: unescape(root), point: unescape(point), options: options.to_owned() });
        }
    }
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
pub(crate) fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_known_hierarchies_are_taken() {
        assert_eq!(
            hierarchy_line("4:cpu,cpuacct:/a:b"),
            Some((vec!["cpu".to_owned(), "cpuacct".to_owned()], "/a:b"))
        );
        assert_eq!(hierarchy_line("9:name=systemd:/"), Some((vec!["name=systemd".to_owned()], "/")));
        assert_eq!(hierarchy_line("10:name=elogind:/"), None);
        assert_eq!(hierarchy_line("0::/x"), None);
        assert_eq!(own_v2("1:cpu:/\n0::/x y\n"), "/x y");
    }

    #[test]
    fn own_path_counts_from_the_root_of_the_mount() {
        assert_eq!(below("/", "/a/b"), "/a/b");
        assert_eq!(below("/docker/x", "/docker/x/b"), "/b");
        assert_eq!(below("/docker/x", "/docker/x"), "/");
        assert_eq!(below("/docker/x", "/docker/xy"), "/");
        assert_eq!(below("/../..", "/"), "/");
    }

    #[test]
    fn mountinfo_is_searched_by_controllers() {
        let mut mounts = Mounts { read: true, ..Mounts::default() };
        for line in [
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
            "32 31 0:29 /docker/x /my\\040cgroups/cpu rw shared:1 - cgroup cgroup rw,cpu,cpuacct",
            "33 31 0:30 / /sd rw - cgroup cgroup rw,xattr,name=systemd",
            "41 31 0:38 / /two rw - cgroup2 cgroup2 rw,nsdelegate",
            "malformed",
        ] {
            mounts.add(line);
        }
        let found = |mounts: &mut Mounts, controllers: &[&str]| {
            let list: Vec<String> = controllers.iter().map(|c| c.to_string()).collect();
            mounts.v1(&list).unwrap().map(|m| (m.point.clone(), m.root.clone()))
        };
        assert_eq!(
            found(&mut mounts, &["cpu", "cpuacct"]),
            Some(("/my cgroups/cpu".into(), "/docker/x".into()))
        );
        assert_eq!(found(&mut mounts, &["name=systemd"]), Some(("/sd".into(), "/".into())));
        assert_eq!(found(&mut mounts, &["memory"]), None);
        assert_eq!(mounts.v2().unwrap().unwrap().point, "/two");
    }

    #[test]
    fn this_host_is_understood() {
        let layout = probe().unwrap();
        for hierarchy in layout.hierarchies() {
            let own = format!("{}{}", hierarchy.mount_point, hierarchy.own_path);
            let procs = file::read(own.trim_end_matches('/'), "cgroup.procs").unwrap();
            let pid = std::process::id().to_string();
            assert!(procs.lines().any(|line| line == pid), "{pid} is not in {own}");
        }
    }
}
