//! What a test declares.

use super::T;
use super::host::Host;
use super::options::Options;
use super::world::{Kind, Runtime};

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    /// `cofferdam_tests::module::sentence`
    path: &'static str,
    /// What it does; panics when it fails.
    pub run: fn(&T),
    /// Without these it is skipped.
    pub needs: &'static [Need],
    /// With which other runtimes it is known to fail, and why.
    pub fails: &'static [Known],
    /// How long it may take, in seconds, on an ordinary machine.
    pub seconds: u64,
    /// It goes another way with each cgroup driver.
    by_driver: bool,
}

/// Something that not every machine or runtime has.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// cgroup v1 hierarchies
    CgroupV1,
    /// cgroup v2 alone
    CgroupV2,
    /// a controller, on whatever version
    Controller(&'static str),
    /// systemd as pid 1
    Systemd,
    /// AppArmor, on
    AppArmor,
    /// a capability, by number and name
    Capability(u32, &'static str),
    /// at least this kernel
    Kernel(u32, u32),
    /// a kind of namespace, by its name in /proc/self/ns
    Namespace(&'static str),
    /// this processor, by `uname -m`
    Machine(&'static str),
    /// at least two CPUs
    TwoCpus,
    /// a file of the machine
    File(&'static str),
    /// Another runtime of runc's kind to compare with.
    Peer,
    /// An earlier build of cofferdam (`--previous`).
    Previous,
    /// The test is about cofferdam alone; the reason says why.
    Ours(&'static str),
    /// runc has it since this version.
    Runc(&'static str, &'static str),
    /// cgroupfs as the driver: the test names the cgroup's path.
    CgroupFs,
    /// a CRIU that is content with the kernel: `$CRIU`, else that of `$PATH`
    Criu,
}

/// CAP_SYS_RESOURCE
pub const SYS_RESOURCE: Need = Need::Capability(24, "CAP_SYS_RESOURCE");

/// A known failure of another runtime.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// runc from this version on.
    pub from: &'static str,
    /// runc below this version; empty for all that are newer.
    pub below: &'static str,
    /// What it does instead.
    pub why: &'static str,
}

impl Test {
    /// A test that needs nothing special.
    pub const fn new(path: &'static str, run: fn(&T)) -> Test {
        Test { path, run, needs: &[], fails: &[], seconds: 60, by_driver: false }
    }

    /// Its name without the program's.
    pub fn name(&self) -> &'static str {
        self.path.strip_prefix("cofferdam_tests::").unwrap_or(self.path)
    }

    /// The test with what it needs.
    pub const fn needs(self, needs: &'static [Need]) -> Test {
        Test { needs, ..self }
    }

    /// The test with a known failure of all of runc's versions, or of those below one.
    pub const fn runc_fails(self, fails: &'static [Known]) -> Test {
        Test { fails, ..self }
    }

    /// The test with more time than usual.
    pub const fn seconds(self, seconds: u64) -> Test {
        Test { seconds, ..self }
    }

    /// The test of something that goes another way with each cgroup driver: making, changing, finding and removing cgroups.
    pub const fn by_driver(self) -> Test {
        Test { by_driver: true, ..self }
    }

    /// Whether it goes another way with each cgroup driver: it says so, or what it needs is about cgroups.
    pub fn is_by_driver(&self) -> bool {
        let of_cgroups = |need: &Need| {
            matches!(need, Need::CgroupFs | Need::Controller(_) | Need::CgroupV1 | Need::CgroupV2)
        };
        self.by_driver || self.needs.iter().any(of_cgroups)
    }

    /// Why it cannot run here.
    pub fn missing(&self, host: &Host, runtime: &Runtime, options: &Options) -> Option<String> {
        self.needs.iter().find_map(|need| need.missing(host, runtime, options))
    }

    /// Why this runtime is known to fail it.
    pub fn known_failure(&self, runtime: &Runtime) -> Option<&'static str> {
        let Kind::Runc(version) = &runtime.kind else { return None };
        let known = |known: &&Known| {
            *version >= parse(known.from) && (known.below.is_empty() || *version < parse(known.below))
        };
        self.fails.iter().find(known).map(|known| known.why)
    }
}

/// Known failures of all versions of runc.
#[macro_export]
macro_rules! always {
    ($why:literal) => {
        &[$crate::harness::test::Known { from: "0", below: "", why: $why }]
    };
}

/// Known failures of versions of runc below one.
#[macro_export]
macro_rules! below {
    ($version:literal, $why:literal) => {
        &[$crate::harness::test::Known { from: "0", below: $version, why: $why }]
    };
}

/// Known failures of versions of runc from one on and below another.
#[macro_export]
macro_rules! between {
    ($from:literal, $below:literal, $why:literal) => {
        &[$crate::harness::test::Known { from: $from, below: $below, why: $why }]
    };
}

/// A [`Test`] of the function with this name.
#[macro_export]
macro_rules! test {
    ($function:ident) => {
        $crate::harness::Test::new(concat!(module_path!(), "::", stringify!($function)), $function)
    };
}

/// `1.1.5` of `1.1.5+ds1`.
pub fn parse(version: &str) -> [u32; 3] {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

impl Need {
    fn missing(self, host: &Host, runtime: &Runtime, options: &Options) -> Option<String> {
        let (there, reason) = match self {
            Need::CgroupV1 => (!host.cgroup_v2, "cgroup v1".to_owned()),
            Need::CgroupV2 => (host.cgroup_v2, "cgroup v2".to_owned()),
            Need::Controller(name) => (host.has_controller(name), format!("the {name} controller")),
            Need::Systemd => (host.systemd, "systemd".to_owned()),
            Need::AppArmor => (host.apparmor, "AppArmor".to_owned()),
            Need::Capability(bit, name) => (host.capabilities & 1 << bit != 0, name.to_owned()),
            Need::Kernel(major, minor) => (host.kernel >= (major, minor), format!("Linux {major}.{minor}")),
            Need::Namespace(kind) => (host.has_namespace(kind), format!("{kind} namespaces")),
            Need::Machine(name) => (host.machine == name, format!("{name} as the processor")),
            Need::TwoCpus => (host.cpus >= 2, "two CPUs".to_owned()),
            Need::File(path) => (std::path::Path::new(path).exists(), path.to_owned()),
            Need::Peer => (options.peer.is_some(), "a runtime to compare with".to_owned()),
            Need::Previous => {
                (options.previous.is_some(), "an earlier build: hack/previous, --previous".to_owned())
            }
            Need::CgroupFs => (!options.systemd, "the cgroupfs driver".to_owned()),
            Need::Criu => return super::host::criu_is_missing(),
            Need::Ours(why) => {
                return (runtime.kind != Kind::Ours).then(|| format!("about cofferdam: {why}"));
            }
            Need::Runc(version, what) => {
                let old = matches!(&runtime.kind, Kind::Runc(have) if *have < parse(version));
                return old.then(|| format!("{what}: runc has it since {version}"));
            }
        };
        (!there).then(|| format!("needs {reason}"))
    }
}
