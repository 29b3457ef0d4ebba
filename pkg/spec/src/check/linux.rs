//! `/linux`, but for `sysctl`. `resources` belongs to `pkg/cgroup`, `seccomp` to `pkg/seccomp`.

use super::mounts::mappings;
use super::{Checked, Warnings, no_nul, refuse};
use crate::{Device, DeviceType, Spec};

const NAMESPACES: &str = "config-linux.md#namespaces";
const MAPPINGS: &str = "config-linux.md#user-namespace-mappings";
const TIME: &str = "config-linux.md#offset-for-time-namespace";
const DEVICES: &str = "config-linux.md#devices";

pub(super) fn check(spec: &Spec, warnings: &mut Warnings) -> Checked {
    namespaces(spec)?;
    user_namespace(spec, warnings)?;
    time_offsets(spec)?;
    devices(spec, warnings)?;
    paths(spec)?;
    personality(spec)?;
    let propagation = spec.linux.rootfs_propagation.as_str();
    match propagation.strip_prefix('r').unwrap_or(propagation) {
        "" if propagation.is_empty() => Ok(()),
        "shared" | "slave" | "private" | "unbindable" => Ok(()),
        _ => {
            let message = format!("rootfsPropagation={propagation} is not supported");
            refuse("/linux/rootfsPropagation", "config-linux.md#rootfs-mount-propagation", message)
        }
    }
}

const KINDS: [&str; 8] = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];

fn namespaces(spec: &Spec) -> Checked {
    let list = &spec.linux.namespaces;
    for (i, entry) in list.iter().enumerate() {
        let pointer = format!("/linux/namespaces/{i}");
        if !KINDS.contains(&entry.kind.as_str()) {
            let message = format!("{:?} is no kind of namespace", entry.kind);
            return refuse(format!("{pointer}/type"), NAMESPACES, message);
        }
        if let Some(first) = list[..i].iter().position(|other| other.kind == entry.kind) {
            let message = format!("{:?} is listed twice (first at /linux/namespaces/{first})", entry.kind);
            return refuse(pointer, NAMESPACES, message);
        }
        if !entry.path.is_empty() && !entry.path.starts_with('/') {
            let message = format!("{:?} is no absolute path", entry.path);
            return refuse(format!("{pointer}/path"), NAMESPACES, message);
        }
        no_nul(|| format!("{pointer}/path"), NAMESPACES, &entry.path)?;
    }
    Ok(())
}

fn user_namespace(spec: &Spec, warnings: &mut Warnings) -> Checked {
    let (uid, gid) = (&spec.linux.uid_mappings, &spec.linux.gid_mappings);
    let Some(namespace) = spec.linux.namespace("user") else {
        let given = [("uid", uid), ("gid", gid)].into_iter().find(|(_, list)| !list.is_empty());
        return match given {
            Some((name, _)) => refuse(
                format!("/linux/{name}Mappings"),
                MAPPINGS,
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            ),
            None => Ok(()),
        };
    };
    mappings(uid, "/linux/uidMappings", MAPPINGS)?;
    mappings(gid, "/linux/gidMappings", MAPPINGS)?;
    let joined = !namespace.path.is_empty();
    if joined && uid.is_empty() && gid.is_empty() {
        return Ok(());
    }
    if joined {
        // containerd and CRI-O send both. Whether they agree shows when the namespace has been joined.
        warnings.push(
            "config.json /linux/uidMappings: stands beside the path of a user namespace, which must have the same mappings"
                .to_owned(),
        );
    }
    for (name, list) in [("uid", uid), ("gid", gid)] {
        if !list.iter().any(|mapping| mapping.container_id == 0) {
            let message = format!("user namespaces enabled, but no mapping found for {name} 0");
            return refuse(format!("/linux/{name}Mappings"), MAPPINGS, message);
        }
    }
    Ok(())
}

fn time_offsets(spec: &Spec) -> Checked {
    let offsets = &spec.linux.time_offsets;
    if offsets.is_empty() {
        return Ok(());
    }
    match spec.linux.namespace("time") {
        None => {
            let message = "time namespace offsets specified, but time namespace isn't enabled in the config";
            return refuse("/linux/timeOffsets", TIME, message);
        }
        Some(namespace) if !namespace.path.is_empty() => {
            let message = "the offsets of a time namespace that is joined by its path cannot be changed";
            return refuse("/linux/timeOffsets", TIME, message);
        }
        Some(_) => {}
    }
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            let message = format!("{clock:?} is no clock that has an offset");
            return refuse("/linux/timeOffsets", TIME, message);
        }
        if offset.nanosecs >= 1_000_000_000 {
            let message = format!("{} is a second or more", offset.nanosecs);
            return refuse(format!("/linux/timeOffsets/{clock}/nanosecs"), TIME, message);
        }
    }
    Ok(())
}

/// The kernel's `dev_t` has 12 bits for the major number and 20 for the minor one.
const MAJOR_LIMIT: i64 = 1 << 12;
const MINOR_LIMIT: i64 = 1 << 20;

fn devices(spec: &Spec, warnings: &mut Warnings) -> Checked {
    let list = &spec.linux.devices;
    for (i, device) in list.iter().enumerate() {
        let at = |below: &str| format!("/linux/devices/{i}{below}");
        if !device.path.starts_with('/') {
            return refuse(at("/path"), DEVICES, format!("{:?} is no absolute path", device.path));
        }
        no_nul(|| at("/path"), DEVICES, &device.path)?;
        if device.kind != DeviceType::Fifo {
            for (name, number, limit) in
                [("major", device.major, MAJOR_LIMIT), ("minor", device.minor, MINOR_LIMIT)]
            {
                if !(0..limit).contains(&number) {
                    let message = format!("{number} is not within 0 and {}", limit - 1);
                    return refuse(at(&format!("/{name}")), DEVICES, message);
                }
            }
        }
        if let Some(first) = list[..i].iter().position(|other| other.path == device.path) {
            twice(&list[first], device, first, at(""), warnings)?;
        }
    }
    Ok(())
}

/// The same device twice is clumsy; two devices of one path are a contradiction.
fn twice(first: &Device, second: &Device, at: usize, pointer: String, warnings: &mut Warnings) -> Checked {
    let what = format!("{:?} is listed twice (first at /linux/devices/{at})", second.path);
    if first == second {
        warnings.push(format!("config.json {pointer}: {what}"));
        return Ok(());
    }
    refuse(pointer, DEVICES, what)
}

fn paths(spec: &Spec) -> Checked {
    for (name, list, section) in [
        ("maskedPaths", &spec.linux.masked_paths, "config-linux.md#masked-paths"),
        ("readonlyPaths", &spec.linux.readonly_paths, "config-linux.md#readonly-paths"),
    ] {
        for (i, path) in list.iter().enumerate() {
            let pointer = || format!("/linux/{name}/{i}");
            if !path.starts_with('/') {
                return refuse(pointer(), section, format!("{path:?} is no absolute path"));
            }
            no_nul(pointer, section, path)?;
        }
    }
    no_nul(|| "/linux/mountLabel".to_owned(), "config-linux.md#mount-label", &spec.linux.mount_label)
}

fn personality(spec: &Spec) -> Checked {
    const SECTION: &str = "config-linux.md#personality";
    let Some(personality) = &spec.linux.personality else { return Ok(()) };
    if !matches!(personality.domain.as_str(), "LINUX" | "LINUX32") {
        let message = format!("invalid personality domain {:?}", personality.domain);
        return refuse("/linux/personality/domain", SECTION, message);
    }
    match personality.flags.first() {
        Some(flag) => {
            let message = format!("{flag:?}: the specification supports no flag values");
            refuse("/linux/personality/flags/0", SECTION, message)
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, warnings};
    use serde_json::{Value, json};

    fn linux(change: Value) -> String {
        refusal(json!({ "linux": change }))
    }

    #[test]
    fn a_namespace_is_known_listed_once_and_absolute() {
        assert_eq!(
            linux(json!({"namespaces": [{"type": "mnt"}]})),
            "config.json /linux/namespaces/0/type: \"mnt\" is no kind of namespace"
        );
        let list =
            json!([{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "pid"}]);
        assert_eq!(
            linux(json!({ "namespaces": list })),
            "config.json /linux/namespaces/4: \"pid\" is listed twice (first at /linux/namespaces/0)"
        );
        assert_eq!(
            linux(json!({"namespaces": [{"type": "pid", "path": "proc/1/ns/pid"}]})),
            "config.json /linux/namespaces/0/path: \"proc/1/ns/pid\" is no absolute path"
        );
    }

    #[test]
    fn mappings_need_a_user_namespace_and_root() {
        let one = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let other = json!([{"containerID": 1, "hostID": 1000, "size": 1}]);
        let user = json!([{"type": "mount"}, {"type": "uts"}, {"type": "user"}]);
        assert_eq!(
            linux(json!({ "gidMappings": one })),
            "config.json /linux/gidMappings: user namespace mappings specified, but user namespace isn't enabled in the \
             config"
        );
        assert_eq!(
            linux(json!({ "namespaces": user })),
            "config.json /linux/uidMappings: user namespaces enabled, but no mapping found for uid 0"
        );
        assert_eq!(
            linux(json!({ "namespaces": user, "uidMappings": one, "gidMappings": other })),
            "config.json /linux/gidMappings: user namespaces enabled, but no mapping found for gid 0"
        );
    }

    #[test]
    fn mappings_are_ones_that_the_kernel_takes() {
        let user = json!([{"type": "mount"}, {"type": "uts"}, {"type": "user"}]);
        let uid = |list: Value| linux(json!({ "namespaces": user, "uidMappings": list }));
        assert_eq!(
            uid(json!([{"containerID": 0, "hostID": 4294967290_u32, "size": 10}])),
            "config.json /linux/uidMappings/0/hostID: 4294967290 and 10 ids go beyond the last one"
        );
        assert_eq!(
            uid(
                json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 9, "hostID": 5000, "size": 1}])
            ),
            "config.json /linux/uidMappings/1: overlaps /linux/uidMappings/0"
        );
        let many: Vec<_> =
            (0..341).map(|i| json!({"containerID": i, "hostID": 1000 + i, "size": 1})).collect();
        assert_eq!(
            uid(json!(many)),
            "config.json /linux/uidMappings: has 341 entries, and the kernel takes 340"
        );
    }

    #[test]
    fn a_path_and_mappings_together_are_a_warning() {
        let one = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let user = json!([{"type": "mount"}, {"type": "uts"}, {"type": "user", "path": "/proc/1/ns/user"}]);
        assert_eq!(
            warnings(json!({"linux": {"namespaces": user, "uidMappings": one, "gidMappings": one}})),
            [
                "config.json /linux/uidMappings: stands beside the path of a user namespace, which must have the same \
              mappings"
            ]
        );
        assert!(warnings(json!({"linux": {"namespaces": user}})).is_empty());
    }

    #[test]
    fn time_offsets_need_a_new_time_namespace() {
        let offsets = json!({"monotonic": {"secs": 1}});
        assert_eq!(
            linux(json!({ "timeOffsets": offsets })),
            "config.json /linux/timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the \
             config"
        );
        let joined = json!([{"type": "uts"}, {"type": "time", "path": "/t"}]);
        assert_eq!(
            linux(json!({ "namespaces": joined, "timeOffsets": offsets })),
            "config.json /linux/timeOffsets: the offsets of a time namespace that is joined by its path cannot be changed"
        );
        let new = json!([{"type": "uts"}, {"type": "time"}]);
        assert_eq!(
            linux(json!({ "namespaces": new, "timeOffsets": {"realtime": {"secs": 1}} })),
            "config.json /linux/timeOffsets: \"realtime\" is no clock that has an offset"
        );
        assert_eq!(
            linux(json!({ "namespaces": new, "timeOffsets": {"boottime": {"nanosecs": 1_000_000_000} } })),
            "config.json /linux/timeOffsets/boottime/nanosecs: 1000000000 is a second or more"
        );
    }

    #[test]
    fn a_device_has_a_path_and_numbers() {
        let device = |change: Value| linux(json!({ "devices": [change] }));
        assert_eq!(
            device(json!({"path": "dev/x", "type": "c"})),
            "config.json /linux/devices/0/path: \"dev/x\" is no absolute path"
        );
        assert_eq!(
            device(json!({"path": "/dev/x", "type": "b", "major": -1})),
            "config.json /linux/devices/0/major: -1 is not within 0 and 4095"
        );
        assert_eq!(
            device(json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 1_048_576})),
            "config.json /linux/devices/0/minor: 1048576 is not within 0 and 1048575"
        );
    }

    #[test]
    fn a_device_s_type_is_known() {
        let error = crate::Spec::parse(
            br#"{"ociVersion": "1.0.0", "linux": {"devices": [{"path": "/dev/x", "type": "a"}]}}"#,
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "config.json /linux/devices/0/type: unknown variant `a`, expected one of `c`, `u`, `b`, `p` (line 1)"
        );
    }

    #[test]
    fn two_devices_of_one_path_are_refused_and_one_twice_is_a_warning() {
        let fuse = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229});
        let other = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 230});
        assert_eq!(
            linux(json!({ "devices": [fuse, other] })),
            "config.json /linux/devices/1: \"/dev/fuse\" is listed twice (first at /linux/devices/0)"
        );
        assert_eq!(
            warnings(json!({"linux": {"devices": [fuse, fuse]}})),
            ["config.json /linux/devices/1: \"/dev/fuse\" is listed twice (first at /linux/devices/0)"]
        );
    }

    #[test]
    fn masked_and_readonly_paths_are_absolute() {
        assert_eq!(
            linux(json!({"maskedPaths": ["/a", "b"]})),
            "config.json /linux/maskedPaths/1: \"b\" is no absolute path"
        );
        assert_eq!(
            linux(json!({"readonlyPaths": ["./b"]})),
            "config.json /linux/readonlyPaths/0: \"./b\" is no absolute path"
        );
    }

    #[test]
    fn a_personality_is_one_of_two() {
        assert_eq!(
            linux(json!({"personality": {"domain": "BSD"}})),
            "config.json /linux/personality/domain: invalid personality domain \"BSD\""
        );
        assert_eq!(
            linux(json!({"personality": {"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]}})),
            "config.json /linux/personality/flags/0: \"ADDR_NO_RANDOMIZE\": the specification supports no flag values"
        );
    }

    #[test]
    fn a_root_propagation_is_a_propagation() {
        assert_eq!(
            linux(json!({"rootfsPropagation": "rhared"})),
            "config.json /linux/rootfsPropagation: rootfsPropagation=rhared is not supported"
        );
        for fine in ["shared", "rslave", "private", "runbindable"] {
            assert!(warnings(json!({"linux": {"rootfsPropagation": fine}})).is_empty());
        }
    }
}
