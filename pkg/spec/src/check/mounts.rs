//! `/mounts`

use super::{Checked, Warnings, no_nul, refuse};
use crate::path::clean;
use crate::{IdMapping, Mount, Spec};

const SECTION: &str = "config.md#mounts";

/// Half of what the kernel allows a mount namespace by default (`fs.mount-max`), and what slot numbers bear.
const LIMIT: usize = 50_000;

/// Entries below /proc that may be mounted over: files that lxcfs and the like emulate. Everything else there is written to by
/// the runtime, or masked by it.
const PROC_ALLOWED: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

pub(super) fn check(spec: &Spec, warnings: &mut Warnings) -> Checked {
    if spec.mounts.len() > LIMIT {
        return refuse(
            "/mounts",
            SECTION,
            format!("has {} entries, and {LIMIT} are enough", spec.mounts.len()),
        );
    }
    for (i, mount) in spec.mounts.iter().enumerate() {
        one(mount, i, warnings)?;
    }
    Ok(())
}

fn one(mount: &Mount, i: usize, warnings: &mut Warnings) -> Checked {
    let at = |below: &str| format!("/mounts/{i}{below}");
    for (below, text) in
        [("/destination", &mount.destination), ("/source", &mount.source), ("/type", &mount.fstype)]
    {
        no_nul(|| at(below), SECTION, text)?;
    }
    for (n, option) in mount.options.iter().enumerate() {
        no_nul(|| at(&format!("/options/{n}")), SECTION, option)?;
    }
    if mount.destination.is_empty() {
        return refuse(at("/destination"), SECTION, "must not be empty");
    }
    if !mount.destination.starts_with('/') {
        warnings.push(format!(
            "config.json {}: relative destination path {:?} is deprecated, using it as relative to /",
            at("/destination"),
            mount.destination
        ));
    }
    let words = Words::of(mount);
    let destination = clean(&mount.destination);
    // The container's own process would not see it, and every exec would have it for its root.
    if destination == "/" && !words.remount {
        let message = format!("mountpoint {:?} is on the top of rootfs", mount.destination);
        return refuse(at("/destination"), SECTION, message);
    }
    kind(mount, &words, at)?;
    idmap(mount, &words, at)?;
    over_proc(mount, &destination, &words, at)
}

/// What an entry's options and type say of its kind.
#[derive(Default)]
struct Words {
    bind: bool,
    remount: bool,
    copy_link: bool,
    /// `src-nofollow`, `dest-nofollow`
    no_follow: bool,
    copy_up: bool,
    idmap: bool,
}

impl Words {
    fn of(mount: &Mount) -> Words {
        let mut words = Words { bind: mount.fstype == "bind", ..Words::default() };
        for option in &mount.options {
            match option.as_str() {
                "bind" | "rbind" => words.bind = true,
                "remount" => words.remount = true,
                "copy-symlink" => words.copy_link = true,
                "src-nofollow" | "dest-nofollow" => words.no_follow = true,
                "tmpcopyup" => words.copy_up = true,
                // crun's form has the mappings behind it, which are for the compiler to read.
                other => {
                    words.idmap |=
                        matches!(other.split_once('=').map_or(other, |(key, _)| key), "idmap" | "ridmap")
                }
            }
        }
        words
    }
}

fn kind(mount: &Mount, words: &Words, at: impl Fn(&str) -> String) -> Checked {
    let Words { bind, remount, .. } = *words;
    if bind && !remount && mount.source.is_empty() {
        return refuse(at("/source"), SECTION, "must not be empty, as this is a bind mount");
    }
    if !bind && !remount && mount.fstype.is_empty() {
        return refuse(
            at("/type"),
            SECTION,
            "must not be empty, as this is neither a bind mount nor a remount",
        );
    }
    if words.copy_link && words.no_follow {
        return refuse(at("/options"), SECTION, "copy-symlink excludes src-nofollow and dest-nofollow");
    }
    if (words.copy_link || words.no_follow) && (!bind || remount) {
        return refuse(
            at("/options"),
            SECTION,
            "copy-symlink, src-nofollow and dest-nofollow are for bind mounts only",
        );
    }
    if words.copy_up && (mount.fstype != "tmpfs" || bind || remount) {
        return refuse(at("/options"), SECTION, "tmpcopyup is for a new tmpfs only");
    }
    Ok(())
}

fn idmap(mount: &Mount, words: &Words, at: impl Fn(&str) -> String) -> Checked {
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if !own && !words.idmap {
        return Ok(());
    }
    if !words.bind {
        return refuse(at(""), SECTION, "id-mapped mounts are only supported for bind-mounts");
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return refuse(
            at(""),
            SECTION,
            "id-mapped mounts must have both uidMappings and gidMappings specified",
        );
    }
    mappings(&mount.uid_mappings, &at("/uidMappings"), SECTION)?;
    mappings(&mount.gid_mappings, &at("/gidMappings"), SECTION)
}

/// What the kernel would refuse of a uid_map or gid_map, with its place (user_namespaces(7)).
///
/// # Errors
/// The first entry that it would refuse.
pub fn mappings(list: &[IdMapping], pointer: &str, section: &'static str) -> Checked {
    const LIMIT: usize = 340;
    if list.len() > LIMIT {
        let message = format!("has {} entries, and the kernel takes {LIMIT}", list.len());
        return refuse(pointer, section, message);
    }
    let end = |first: u32, size: u32| u64::from(first) + u64::from(size);
    for (i, mapping) in list.iter().enumerate() {
        if mapping.size == 0 {
            return refuse(format!("{pointer}/{i}/size"), section, "must not be zero");
        }
        for (name, first) in [("containerID", mapping.container_id), ("hostID", mapping.host_id)] {
            if end(first, mapping.size) > u64::from(u32::MAX) {
                let message = format!("{first} and {} ids go beyond the last one", mapping.size);
                return refuse(format!("{pointer}/{i}/{name}"), section, message);
            }
        }
        let overlap = |a: u32, b: u32, other: &IdMapping| {
            u64::from(a) < end(b, other.size) && u64::from(b) < end(a, mapping.size)
        };
        let clash = list[..i].iter().position(|other| {
            overlap(mapping.container_id, other.container_id, other)
                || overlap(mapping.host_id, other.host_id, other)
        });
        if let Some(first) = clash {
            return refuse(format!("{pointer}/{i}"), section, format!("overlaps {pointer}/{first}"));
        }
    }
    Ok(())
}

fn over_proc(mount: &Mount, destination: &str, words: &Words, at: impl Fn(&str) -> String) -> Checked {
    let below = destination.strip_prefix("/proc").filter(|below| below.is_empty() || below.starts_with('/'));
    let Some(below) = below.filter(|_| !PROC_ALLOWED.contains(&destination)) else { return Ok(()) };
    let message = if !below.is_empty() {
        format!("{destination:?} cannot be mounted because it is inside /proc")
    } else if mount.fstype != "proc" && !words.bind && !words.remount {
        format!("{destination:?} cannot be mounted because it is not of type proc")
    } else {
        return Ok(());
    };
    refuse(at("/destination"), SECTION, message)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, warnings};
    use serde_json::{Value, json};

    fn mount(mount: Value) -> String {
        refusal(json!({ "mounts": [mount] }))
    }

    #[test]
    fn a_mount_has_a_destination() {
        assert_eq!(mount(json!({"type": "tmpfs"})), "config.json /mounts/0/destination: must not be empty");
        assert_eq!(
            mount(json!({"destination": "/a\0", "type": "tmpfs"})),
            "config.json /mounts/0/destination: contains a NUL character"
        );
        assert_eq!(
            mount(json!({"destination": "/a", "type": "tmpfs", "options": ["ro", "size=1\0"]})),
            "config.json /mounts/0/options/1: contains a NUL character"
        );
    }

    #[test]
    fn the_root_is_covered_by_no_mount() {
        for destination in ["/", "/a/..", ".", "//"] {
            assert_eq!(
                mount(json!({"destination": destination, "type": "tmpfs"})),
                format!(
                    "config.json /mounts/0/destination: mountpoint {destination:?} is on the top of rootfs"
                )
            );
        }
        assert!(warnings(json!({"mounts": [{"destination": "/", "options": ["remount", "ro"]}]})).is_empty());
    }

    #[test]
    fn a_relative_destination_is_a_warning() {
        assert_eq!(
            warnings(json!({"mounts": [{"destination": "tmp", "type": "tmpfs"}]})),
            [
                "config.json /mounts/0/destination: relative destination path \"tmp\" is deprecated, using it as relative \
              to /"
            ]
        );
    }

    #[test]
    fn a_mount_says_what_it_mounts() {
        assert_eq!(
            mount(json!({"destination": "/a"})),
            "config.json /mounts/0/type: must not be empty, as this is neither a bind mount nor a remount"
        );
        assert_eq!(
            mount(json!({"destination": "/a", "options": ["rbind"]})),
            "config.json /mounts/0/source: must not be empty, as this is a bind mount"
        );
        assert!(
            warnings(json!({"mounts": [{"destination": "/a", "options": ["remount", "ro"]}]})).is_empty()
        );
    }

    #[test]
    fn only_a_tmpfs_copies_up() {
        assert_eq!(
            mount(json!({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]})),
            "config.json /mounts/0/options: tmpcopyup is for a new tmpfs only"
        );
    }

    #[test]
    fn only_a_bind_mount_is_idmapped() {
        assert_eq!(
            mount(json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]})),
            "config.json /mounts/0: id-mapped mounts are only supported for bind-mounts"
        );
        let one = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        assert_eq!(
            mount(json!({"destination": "/a", "source": "/b", "options": ["bind"], "uidMappings": one})),
            "config.json /mounts/0: id-mapped mounts must have both uidMappings and gidMappings specified"
        );
        let none = json!([{"containerID": 0, "hostID": 1000, "size": 0}]);
        assert_eq!(
            mount(json!({
                "destination": "/a", "source": "/b", "options": ["bind"], "uidMappings": none, "gidMappings": one
            })),
            "config.json /mounts/0/uidMappings/0/size: must not be zero"
        );
    }

    #[test]
    fn nothing_is_mounted_over_proc_but_what_lxcfs_emulates() {
        assert_eq!(
            mount(json!({"destination": "/proc/sys", "type": "tmpfs"})),
            "config.json /mounts/0/destination: \"/proc/sys\" cannot be mounted because it is inside /proc"
        );
        assert_eq!(
            mount(json!({"destination": "/x/../proc//self/", "source": "/b", "options": ["bind"]})),
            "config.json /mounts/0/destination: \"/proc/self\" cannot be mounted because it is inside /proc"
        );
        assert_eq!(
            mount(json!({"destination": "/proc", "type": "tmpfs"})),
            "config.json /mounts/0/destination: \"/proc\" cannot be mounted because it is not of type proc"
        );
        let fine = json!([
            {"destination": "/proc", "type": "proc"},
            {"destination": "/proc", "source": "/proc", "options": ["rbind"]},
            {"destination": "/proc/cpuinfo", "source": "/b", "options": ["bind"]},
            {"destination": "/process", "type": "tmpfs"}
        ]);
        assert!(warnings(json!({ "mounts": fine })).is_empty());
    }
}
