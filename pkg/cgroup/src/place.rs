//! Decides in which cgroup of each hierarchy a container lives: `linux.cgroupsPath` by runc's rules.
//!
//! With the fs driver an absolute path counts from the root of each hierarchy, a relative one from the caller's
//! own cgroup (on v2 from that cgroup's parent, since a cgroup with processes in it cannot hand controllers down),
//! and an empty one means the container's id. `..` is resolved before the path is joined to anything, so it cannot
//! climb out. With the systemd driver the path has the form `slice:prefix:name`.

use serde::{Deserialize, Serialize};

use crate::layout::{Layout, Version};
use crate::refused::Refused;

const POINTER: &str = "/linux/cgroupsPath";

/// Who makes the cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Driver {
    /// This process, by mkdir(2) in the hierarchies.
    #[default]
    Fs,
    /// systemd, as a transient unit, asked over D-Bus (`--systemd-cgroup`).
    Systemd,
    /// Nobody: the container stays in the cgroups of whoever creates it (crun's `--cgroup-manager disabled`, which podman passes
    /// for `--cgroups=disabled`).
    Disabled,
}

/// One directory that a container gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dir {
    /// The controllers of its v1 hierarchy; empty for the v2 hierarchy.
    pub controllers: Vec<String>,
    /// Mount point of the hierarchy: a prefix of `path` that is never created or removed.
    pub mount_point: String,
    /// Absolute path of the directory.
    pub path: String,
}

impl Dir {
    /// Whether it lies in the v2 hierarchy.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// The systemd unit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Full unit name, `prefix-name.scope` or `name.slice`.
    pub name: String,
    /// The slice it is put into, as systemd names it: `a-b.slice`.
    pub slice: String,
    /// The `name` of `slice:prefix:name`, for the unit's description.
    pub container: String,
    /// Ask the user's service manager, not the system's. The paths of the directories are then relative to the
    /// manager's own cgroup, which only it can tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
}

impl Unit {
    /// systemd ends every slice with `.slice`; anything else we make is a scope.
    pub fn is_slice(&self) -> bool {
        self.name.ends_with(SLICE)
    }
}

/// Where a container's processes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Which kind of layout this was made for.
    pub version: Version,
    /// One for each v1 hierarchy, then the v2 one.
    pub dirs: Vec<Dir>,
    /// Set when systemd makes the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// config.json gave a path. A rootless caller may then not do without the cgroup.
    pub explicit: bool,
}

/// Applies runc's rules to `cgroups_path` (`linux.cgroupsPath`, `None` or empty when config.json has none).
///
/// `user` asks for the systemd manager of the user instead of the system's; the fs driver ignores it.
///
/// # Errors
///
/// Refuses a path that names a hierarchy's root, and with [`Driver::Systemd`] one that is not
/// `slice:prefix:name` with names systemd accepts.
pub fn place(
    layout: &Layout,
    id: &str,
    cgroups_path: Option<&str>,
    driver: Driver,
    user: bool,
) -> Result<Placement, Refused> {
    let given = cgroups_path.unwrap_or("");
    if given.contains('\0') {
        return Err(Refused::new(POINTER, "contains a NUL character"));
    }
    match driver {
        Driver::Fs => place_fs(layout, id, given),
        Driver::Systemd => place_systemd(layout, id, given, user),
        // As in crun, a path of config.json means nothing then.
        Driver::Disabled => {
            Ok(Placement { version: layout.version(), dirs: Vec::new(), unit: None, explicit: false })
        }
    }
}

fn place_fs(layout: &Layout, id: &str, given: &str) -> Result<Placement, Refused> {
    let absolute = given.starts_with('/');
    let inner = clean(if given.is_empty() { id } else { given });
    if inner.is_empty() {
        return Err(Refused::new(POINTER, format!("{given:?} names no cgroup of the container's own")));
    }
    let below = |own: &str| if absolute { format!("/{inner}") } else { join(own, &inner) };
    let mut dirs: Vec<Dir> = layout
        .hierarchies()
        .iter()
        .map(|h| dir(h.controllers.clone(), &h.mount_point, &below(&h.own_path)))
        .collect();
    if let Some(unified) = layout.unified() {
        // Linux, cgroup v2: a cgroup that holds processes cannot enable controllers for its children ("no
        // internal processes"), so what is relative starts one level up. Hybrid's v2 has no controllers to hand
        // down and follows the v1 rule, as in runc.
        let own = if layout.version() == Version::V2 { parent(&unified.own_path) } else { &unified.own_path };
        dirs.push(dir(Vec::new(), &unified.mount_point, &below(own)));
    }
    Ok(Placement { version: layout.version(), dirs, unit: None, explicit: !given.is_empty() })
}

fn place_systemd(layout: &Layout, id: &str, given: &str, user: bool) -> Result<Placement, Refused> {
    if user && layout.version() != Version::V2 {
        return Err(Refused::new(POINTER, "systemd's user manager can only delegate cgroup v2, not v1"));
    }
    let default_slice = if user { "user.slice" } else { "system.slice" };
    let (slice, prefix, name) = if given.is_empty() {
        ("", "cofferdam", id)
    } else {
        let mut parts = given.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
            _ => {
                return Err(Refused::new(
                    POINTER,
                    format!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \
                         {given:?} instead"
                    ),
                ));
            }
        }
    };
    let slice = if slice.is_empty() { default_slice } else { slice };
    let slice_path = expand_slice(slice)?;
    let unit = if name.ends_with(SLICE) { name.to_owned() } else { format!("{prefix}-{name}.scope") };
    check_unit_name(&unit)?;
    let inner = join(&slice_path, &unit);
    let mut dirs: Vec<Dir> =
        layout.hierarchies().iter().map(|h| dir(h.controllers.clone(), &h.mount_point, &inner)).collect();
    if let Some(unified) = layout.unified() {
        dirs.push(dir(Vec::new(), &unified.mount_point, &inner));
    }
    let unit = Unit { name: unit, slice: slice.to_owned(), container: name.to_owned(), user };
    Ok(Placement { version: layout.version(), dirs, unit: Some(unit), explicit: !given.is_empty() })
}

fn dir(controllers: Vec<String>, mount_point: &str, inner: &str) -> Dir {
    let path = join(mount_point, inner.trim_start_matches('/'));
    Dir { controllers, mount_point: mount_point.to_owned(), path }
}

/// The components of `path` that remain when `.`, `..` and doubled slashes are resolved against a root.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn parent(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

fn join(base: &str, inner: &str) -> String {
    format!("{}/{inner}", base.trim_end_matches('/'))
}

const SLICE: &str = ".slice";

/// systemd nests slices by the dashes in their names: `a-b.slice` lives in `/a.slice/a-b.slice`.
///
/// # Errors
///
/// Refuses what systemd would not take for a slice name: another suffix, an empty part, a slash.
pub fn expand_slice(slice: &str) -> Result<String, Refused> {
    let invalid = || Refused::new(POINTER, format!("invalid slice name: {slice}"));
    check_unit_name(slice)?;
    let name = slice.strip_suffix(SLICE).ok_or_else(invalid)?;
    if name == "-" {
        return Ok("/".to_owned());
    }
    let mut path = String::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        let prefix = &name[..end];
        if prefix.is_empty() || prefix.ends_with('-') {
            return Err(invalid());
        }
        path.push('/');
        path.push_str(prefix);
        path.push_str(SLICE);
    }
    Ok(path)
}

// systemd.unit(5): letters, digits and `:-_.\@`, at most 255 bytes. A colon cannot get here, since it separates the
// three parts. systemd itself would refuse other names, but only after we had joined them to a path.
fn check_unit_name(name: &str) -> Result<(), Refused> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.\\@".contains(c);
    if name.len() > 255 {
        return Err(Refused::new(POINTER, format!("unit name {name:?} is longer than 255 bytes")));
    }
    match name.chars().find(|&c| !valid(c)) {
        Some(c) => Err(Refused::new(POINTER, format!("invalid character {c:?} in unit name {name:?}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Hierarchy, Unified};

    fn hierarchy(controllers: &[&str], own: &str) -> Hierarchy {
        Hierarchy {
            controllers: controllers.iter().map(|c| c.to_string()).collect(),
            mount_point: format!("/sys/fs/cgroup/{}", controllers.join(",").trim_start_matches("name=")),
            own_path: own.to_owned(),
        }
    }

    fn hybrid() -> Layout {
        Layout::Hybrid {
            hierarchies: vec![
                hierarchy(&["cpu", "cpuacct"], "/"),
                hierarchy(&["memory"], "/deeper/own"),
                hierarchy(&["name=systemd"], "/"),
            ],
            unified: Unified { mount_point: "/sys/fs/cgroup/unified".into(), own_path: "/own".into() },
        }
    }

    fn v2() -> Layout {
        Layout::V2(Unified {
            mount_point: "/sys/fs/cgroup".into(),
            own_path: "/user.slice/session-1.scope".into(),
        })
    }

    fn paths(layout: &Layout, path: &str, driver: Driver) -> Vec<String> {
        let placement = place(layout, "c1", Some(path), driver, false).unwrap();
        placement.dirs.into_iter().map(|d| d.path).collect()
    }

    fn reason(path: &str, driver: Driver) -> String {
        place(&v2(), "c1", Some(path), driver, false).unwrap_err().to_string()
    }

    #[test]
    fn absolute_path_counts_from_each_hierarchys_root() {
        assert_eq!(
            paths(&hybrid(), "/docker/c1", Driver::Fs),
            [
                "/sys/fs/cgroup/cpu,cpuacct/docker/c1",
                "/sys/fs/cgroup/memory/docker/c1",
                "/sys/fs/cgroup/systemd/docker/c1",
                "/sys/fs/cgroup/unified/docker/c1",
            ]
        );
        assert_eq!(paths(&v2(), "/docker/c1", Driver::Fs), ["/sys/fs/cgroup/docker/c1"]);
    }

    #[test]
    fn relative_path_counts_from_the_own_cgroup() {
        assert_eq!(
            paths(&hybrid(), "a/b", Driver::Fs),
            [
                "/sys/fs/cgroup/cpu,cpuacct/a/b",
                "/sys/fs/cgroup/memory/deeper/own/a/b",
                "/sys/fs/cgroup/systemd/a/b",
                "/sys/fs/cgroup/unified/own/a/b",
            ]
        );
    }

    #[test]
    fn relative_path_on_v2_counts_from_the_parent_of_the_own_cgroup() {
        assert_eq!(paths(&v2(), "a", Driver::Fs), ["/sys/fs/cgroup/user.slice/a"]);
        let root = Layout::V2(Unified { mount_point: "/sys/fs/cgroup".into(), own_path: "/".into() });
        assert_eq!(paths(&root, "a", Driver::Fs), ["/sys/fs/cgroup/a"]);
    }

    #[test]
    fn empty_path_means_the_id() {
        let placement = place(&v2(), "c1", None, Driver::Fs, false).unwrap();
        assert_eq!(placement.dirs[0].path, "/sys/fs/cgroup/user.slice/c1");
        assert!(!placement.explicit);
        let placement = place(&hybrid(), "c1", Some(""), Driver::Fs, false).unwrap();
        assert_eq!(placement.dirs[1].path, "/sys/fs/cgroup/memory/deeper/own/c1");
    }

    #[test]
    fn dot_dot_does_not_escape() {
        assert_eq!(paths(&v2(), "/../../etc", Driver::Fs), ["/sys/fs/cgroup/etc"]);
        assert_eq!(paths(&v2(), "../../../etc", Driver::Fs), ["/sys/fs/cgroup/user.slice/etc"]);
        assert_eq!(paths(&v2(), "a/../../b", Driver::Fs), ["/sys/fs/cgroup/user.slice/b"]);
    }

    #[test]
    fn a_path_to_a_root_is_refused() {
        for path in ["/", "/..", "..", ".", "//", "a/.."] {
            assert_eq!(
                reason(path, Driver::Fs),
                format!("config.json /linux/cgroupsPath: {path:?} names no cgroup of the container's own")
            );
        }
    }

    #[test]
    fn slices_are_nested_by_their_dashes() {
        assert_eq!(expand_slice("test.slice").unwrap(), "/test.slice");
        assert_eq!(expand_slice("test-a-b.slice").unwrap(), "/test.slice/test-a.slice/test-a-b.slice");
        assert_eq!(expand_slice("-.slice").unwrap(), "/");
        for bad in ["test--a.slice", "-test.slice", "test-.slice", ".slice", "test.scope", "test"] {
            assert_eq!(expand_slice(bad).unwrap_err().reason, format!("invalid slice name: {bad}"));
        }
        assert_eq!(
            expand_slice("a/b.slice").unwrap_err().reason,
            "invalid character '/' in unit name \"a/b.slice\""
        );
    }

    #[test]
    fn systemd_path_becomes_a_scope_in_its_slice() {
        let placement =
            place(&v2(), "c1", Some("kubepods-pod1.slice:cri-containerd:abc"), Driver::Systemd, false)
                .unwrap();
        assert_eq!(
            placement.dirs[0].path,
            "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope"
        );
        let unit = placement.unit.unwrap();
        assert_eq!(
            (unit.name.as_str(), unit.slice.as_str()),
            ("cri-containerd-abc.scope", "kubepods-pod1.slice")
        );
    }

    #[test]
    fn a_name_that_ends_in_slice_stays_as_it_is() {
        let placement =
            place(&v2(), "c1", Some("machine.slice:x:pod1.slice"), Driver::Systemd, false).unwrap();
        assert_eq!(placement.dirs[0].path, "/sys/fs/cgroup/machine.slice/pod1.slice");
        assert!(placement.unit.unwrap().is_slice());
    }

    #[test]
    fn systemd_defaults_to_the_system_or_user_slice() {
        assert_eq!(
            paths(&v2(), ":docker:abc", Driver::Systemd),
            ["/sys/fs/cgroup/system.slice/docker-abc.scope"]
        );
        let placement = place(&v2(), "c1", None, Driver::Systemd, true).unwrap();
        assert_eq!(placement.unit.unwrap().slice, "user.slice");
        let error = place(&hybrid(), "c1", None, Driver::Systemd, true).unwrap_err();
        assert_eq!(error.reason, "systemd's user manager can only delegate cgroup v2, not v1");
    }

    #[test]
    fn without_a_driver_there_is_no_place() {
        for layout in [v2(), hybrid()] {
            let placement = place(&layout, "c1", Some("/a"), Driver::Disabled, false).unwrap();
            assert_eq!((placement.dirs.len(), placement.unit, placement.explicit), (0, None, false));
        }
    }

    #[test]
    fn malformed_systemd_paths_are_refused() {
        assert_eq!(
            reason("/docker/abc", Driver::Systemd),
            "config.json /linux/cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd \
             cgroups, got \"/docker/abc\" instead"
        );
        assert_eq!(
            reason("system.slice:docker:../../x", Driver::Systemd),
            "config.json /linux/cgroupsPath: invalid character '/' in unit name \"docker-../../x.scope\""
        );
    }
}
