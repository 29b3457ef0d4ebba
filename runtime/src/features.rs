//! What this build can do, in the shape of runtime-spec's features.md: engines read it before they offer user namespaces,
//! idmapped mounts and the like.
//!
//! Where a room below has a table, it is that table; the lists that are here are held against the compiler by tests.

use cofferdam_step::Namespace;
use serde::Serialize;
use std::collections::BTreeMap;

/// The commit that this was built from; `make build` sets it.
pub const COMMIT: &str = match option_env!("COFFERDAM_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: &'static [&'static str],
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<&'static str>,
    capabilities: &'static [&'static str],
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: &'static [&'static str],
    operators: &'static [&'static str],
    archs: &'static [&'static str],
    known_flags: Vec<&'static str>,
    supported_flags: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: &'static [&'static str],
    flags: &'static [&'static str],
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The words that are not handed to the filesystem.
const MOUNT_OPTIONS: [&str; 70] = [
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "rasync",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "rdirsync",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rmand",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnomand",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "rsync",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Annotations by which whoever may set them gets more than config.json's other authors mean to give.
const UNSAFE_ANNOTATIONS: [&str; 4] = ["cofferdam.", "org.criu.config", "org.systemd.property.", "run.oci."];

impl Features {
    /// Those of this build, on this machine where the machine decides.
    pub fn probe() -> Features {
        let needs = cofferdam_plan::Needs { seccomp: true, ..Default::default() };
        let target = cofferdam_plan::Host::probe(&needs).ok().and_then(|host| host.seccomp);
        Features {
            oci_version_min: "1.0.0",
            oci_version_max: cofferdam_spec::OCI_VERSION,
            hooks: &HOOKS,
            mount_options: &MOUNT_OPTIONS,
            linux: Linux {
                namespaces: namespaces(),
                capabilities: &cofferdam_spec::CAPABILITIES[..=last_capability()],
                cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
                seccomp: seccomp(target.map(|target| target.flags)),
                apparmor: Enabled { enabled: true },
                selinux: Enabled { enabled: true },
                intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
                memory_policy: MemoryPolicy { modes: &MEMORY_MODES, flags: &MEMORY_FLAGS },
                mount_extensions: MountExtensions { idmap: Enabled { enabled: true } },
                net_devices: Enabled { enabled: true },
            },
            annotations: BTreeMap::from([
                ("cofferdam.commit", COMMIT),
                ("cofferdam.version", env!("CARGO_PKG_VERSION")),
                ("org.opencontainers.runc.checkpoint.enabled", "true"),
            ]),
            potentially_unsafe_config_annotations: &UNSAFE_ANNOTATIONS,
        }
    }

    /// The document as runc prints it.
    pub fn to_json(&self) -> String {
        let mut text = Vec::with_capacity(8192);
        let blanks = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let written = self.serialize(&mut serde_json::Serializer::with_formatter(&mut text, blanks));
        debug_assert!(written.is_ok(), "memory does not fail to be written");
        text.push(b'\n');
        String::from_utf8(text).unwrap_or_default()
    }
}

fn namespaces() -> Vec<&'static str> {
    let mut names: Vec<_> = Namespace::ALL.iter().map(|kind| kind.spec_name()).collect();
    names.sort_unstable();
    names
}

/// The last capability that both the kernel and we know.
fn last_capability() -> usize {
    let ours = cofferdam_spec::CAPABILITIES.len() - 1;
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    text.ok().and_then(|text| text.trim().parse().ok()).map_or(ours, |kernel: usize| kernel.min(ours))
}

fn seccomp(kernel: Option<u32>) -> Seccomp {
    use cofferdam_seccomp::known;
    let flags =
        |mask: u32| known::FLAGS.iter().filter(|(_, bit)| mask & bit != 0).map(|(name, _)| *name).collect();
    Seccomp {
        enabled: kernel.is_some(),
        actions: &known::ACTIONS,
        operators: &known::OPERATORS,
        archs: &known::ARCHITECTURES,
        known_flags: flags(u32::MAX),
        supported_flags: flags(kernel.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_plan::{Host, HostStep, Needs, Options, Plan, Refused, Spec};
    use cofferdam_spec::{MemoryPolicy, Mount};
    use cofferdam_step::{Source, Step};

    fn compile(change: impl FnOnce(&mut Spec)) -> Result<Plan, Refused> {
        let mut spec = cofferdam_spec::default_spec(false);
        if let Some(process) = &mut spec.process {
            process.terminal = false;
        }
        change(&mut spec);
        let host = Host::probe(&Needs::default()).unwrap();
        let options = Options { id: "web".into(), bundle: "/b".into(), run: true, ..Options::default() };
        cofferdam_plan::compile(&spec, &host, &options)
    }

    /// What a tmpfs with one option gets as its own options.
    fn filesystem_options(option: &str) -> Vec<String> {
        let plan = compile(|spec| {
            spec.mounts.push(Mount {
                destination: "/probe".into(),
                fstype: "tmpfs".into(),
                source: "tmpfs".into(),
                options: vec![option.into()],
                ..Mount::default()
            });
        });
        let plan = plan.unwrap_or_else(|refused| panic!("{option}: {refused}"));
        let options = plan.init.iter().find_map(|step| match step {
            Step::Mount(mount) if mount.destination == "/probe" => match &mount.source {
                Source::New { options, .. } => {
                    Some(options.iter().map(|option| option.key.clone()).collect())
                }
                _ => Some(Vec::new()),
            },
            _ => None,
        });
        options.unwrap_or_else(|| panic!("{option}: no such mount in the plan"))
    }

    #[test]
    fn every_listed_mount_option_is_the_runtimes_own() {
        for option in MOUNT_OPTIONS {
            // These want a bind mount, which has no options of a filesystem at all.
            let for_binds =
                ["copy-symlink", "src-nofollow", "dest-nofollow", "bind", "rbind", "idmap", "ridmap"];
            if option != "remount" && !for_binds.contains(&option) {
                assert!(!filesystem_options(option).iter().any(|key| key == option), "{option}");
            }
        }
        assert_eq!(filesystem_options("huge=always"), ["huge"]);
        assert!(MOUNT_OPTIONS.is_sorted());
    }

    #[test]
    fn every_listed_namespace_compiles_and_no_other() {
        for kind in namespaces().into_iter().chain(["nope"]) {
            let compiled = compile(|spec| {
                let kept = ["mount"];
                spec.linux
                    .namespaces
                    .retain(|namespace| kept.contains(&namespace.kind.as_str()) && namespace.kind != kind);
                spec.linux
                    .namespaces
                    .push(cofferdam_spec::Namespace { kind: kind.into(), ..Default::default() });
                spec.hostname.clear();
                if kind == "user" {
                    cofferdam_spec::to_rootless(spec, 0, 0);
                }
            });
            assert_eq!(compiled.is_ok(), kind != "nope", "{kind}: {compiled:?}");
        }
    }

    #[test]
    fn every_listed_memory_policy_compiles_and_no_other() {
        let compiles = |mode: &str, flags: &[&str]| {
            let policy = MemoryPolicy {
                mode: mode.into(),
                nodes: "0".into(),
                flags: flags.iter().map(|flag| flag.to_string()).collect(),
            };
            compile(|spec| spec.linux.memory_policy = Some(policy)).is_ok()
        };
        for mode in MEMORY_MODES {
            assert!(compiles(mode, &[]), "{mode}");
        }
        for flag in MEMORY_FLAGS {
            assert!(compiles("MPOL_BIND", &[flag]), "{flag}");
        }
        assert!(!compiles("MPOL_NOPE", &[]) && !compiles("MPOL_BIND", &["MPOL_F_NOPE"]));
    }

    #[test]
    fn network_devices_compile_as_said() {
        let net = compile(|spec| drop(spec.linux.net_devices.insert("eth0".into(), Default::default())));
        let moves =
            |plan: Plan| plan.host.iter().any(|step| matches!(step, HostStep::MoveNetworkDevices { .. }));
        assert_eq!(net.is_ok_and(moves), Features::probe().linux.net_devices.enabled);
    }

    #[test]
    fn intel_rdt_compiles_as_said() {
        let rdt = cofferdam_spec::IntelRdt {
            schemata: vec!["L3:0=f".into()],
            enable_monitoring: true,
            ..Default::default()
        };
        let plan = compile(|spec| spec.linux.intel_rdt = Some(rdt)).unwrap();
        let class = plan.host.iter().find_map(|step| match step {
            HostStep::PrepareCgroup { settings, .. } => settings.class_of_service.clone(),
            _ => None,
        });
        let said = Features::probe().linux.intel_rdt;
        assert_eq!(class.is_some(), said.enabled);
        let class = class.unwrap();
        assert_eq!((class.schemata == ["L3:0=f"], class.monitor.is_some()), (said.schemata, said.monitoring));
    }

    #[test]
    fn the_document_has_what_engines_look_for() {
        let text = Features::probe().to_json();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["ociVersionMax"], "1.3.0");
        assert_eq!(value["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(value["linux"]["namespaces"].as_array().unwrap().contains(&"user".into()));
        assert_eq!(value["linux"]["seccomp"]["knownFlags"].as_array().unwrap().len(), 4);
        assert!(text.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n") && text.ends_with("}\n"));
    }
}
