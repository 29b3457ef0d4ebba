//! What `cofferdam spec` writes: byte for byte what `runc spec` of runc 1.5 does.
//!
//! runc's own test suite takes every config from the runtime's `spec` command and edits it with jq, so that each key and
//! its omission count.

use crate::linux::{IdMapping, Linux, Namespace};
use crate::process::{Capabilities, Process, Rlimit};
use crate::spec::{Mount, Root, Spec};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use serde::Serialize;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|item| (*item).to_owned()).collect()
}

fn mount(destination: &str, fstype: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        fstype: fstype.to_owned(),
        source: source.to_owned(),
        options: strings(options),
        ..Mount::default()
    }
}

/// The config of a container that runs a shell. `cgroup2` says whether cgroup v2 is the machine's only hierarchy: the
/// container then gets a cgroup namespace of its own.
pub fn default_spec(cgroup2: bool) -> Spec {
    Spec {
        oci_version: crate::OCI_VERSION.to_owned(),
        process: Some(process()),
        root: Some(Root { path: "rootfs".to_owned(), readonly: true }),
        hostname: "runc".to_owned(),
        mounts: mounts(),
        linux: linux(cgroup2),
        ..Spec::default()
    }
}

fn process() -> Process {
    let capabilities = strings(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    Process {
        terminal: true,
        args: strings(&["sh"]),
        env: strings(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
        cwd: "/".to_owned(),
        capabilities: Some(Capabilities {
            bounding: capabilities.clone(),
            effective: capabilities.clone(),
            permitted: capabilities,
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), hard: 1024, soft: 1024 }],
        no_new_privileges: true,
        ..Process::default()
    }
}

fn mounts() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn linux(cgroup2: bool) -> Linux {
    let mut deny = LinuxDeviceCgroup::default();
    deny.set_allow(false).set_access(Some("rwm".to_owned()));
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(vec![deny]));
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    Linux {
        resources: Some(resources),
        namespaces: kinds[..if cgroup2 { 6 } else { 5 }]
            .iter()
            .map(|kind| Namespace { kind: (*kind).to_owned(), ..Namespace::default() })
            .collect(),
        masked_paths: strings(&[
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ]),
        readonly_paths: strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..Linux::default()
    }
}

/// Makes a spec fit for a user without privileges: a user namespace that maps this one user, no network namespace, the
/// host's /sys, no resources.
pub fn to_rootless(spec: &mut Spec, euid: u32, egid: u32) {
    let linux = &mut spec.linux;
    linux.namespaces.retain(|namespace| !matches!(namespace.kind.as_str(), "network" | "user"));
    linux.namespaces.push(Namespace { kind: "user".to_owned(), ..Namespace::default() });
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: euid, size: 1 }];
    linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: egid, size: 1 }];
    linux.resources = None;
    for entry in &mut spec.mounts {
        if entry.destination == "/sys" {
            *entry = mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        } else {
            entry.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        }
    }
}

/// [`default_spec`], for an unprivileged `(euid, egid)` where given, as the text of config.json without a last newline.
pub fn default_spec_json(cgroup2: bool, rootless: Option<(u32, u32)>) -> String {
    let mut spec = default_spec(cgroup2);
    if let Some((euid, egid)) = rootless {
        to_rootless(&mut spec, euid, egid);
    }
    let mut text = Vec::with_capacity(4096);
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut out = serde_json::Serializer::with_formatter(&mut text, tabs);
    spec.serialize(&mut out).expect("a spec has only string keys, and memory does not fail to be written");
    String::from_utf8(text).expect("serde_json writes UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by runc 1.3.6 on cgroup v1, with the `ociVersion` of runc 1.5.
    const RUNC: &str = include_str!("../tests/runc-spec.json");
    const RUNC_ROOTLESS: &str = include_str!("../tests/runc-spec-rootless.json");

    #[test]
    fn the_default_spec_is_runc_s_to_the_byte() {
        assert_eq!(default_spec_json(false, None), RUNC);
    }

    #[test]
    fn the_rootless_spec_is_runc_s_to_the_byte() {
        assert_eq!(default_spec_json(false, Some((1000, 1001))), RUNC_ROOTLESS);
    }

    #[test]
    fn on_cgroup2_there_is_a_cgroup_namespace() {
        let kinds: Vec<_> = default_spec(true).linux.namespaces.into_iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
    }

    #[test]
    fn the_default_spec_is_read_as_it_was_written() {
        assert_eq!(Spec::parse(default_spec_json(true, None).as_bytes()).unwrap(), default_spec(true));
    }
}
