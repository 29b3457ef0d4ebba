//! The compiler: config.json and a [`Host`] become a [`Plan`], two ordered lists that can be printed and carried out.
//!
//! Nothing here looks at the machine: no file is read, no call is made (clippy.toml keeps it so). Paths of the rootfs are
//! taken as they stand in config.json; they resolve when the plan is carried out, below the rootfs handle.
//!
//! # The order of a plan, and why
//!
//! runc's, from libcontainer's `rootfs_linux.go` and `standard_init_linux.go` (1.3 to 1.5), with two differences:
//!
//! - **What can fail, fails in `create`.** Behind the start barrier stand only the startContainer hooks, the seccomp filter, the
//!   last drop of capabilities, and execve.
//! - **Init waits for the cgroup as late as it can** ([`Barrier::CgroupJoined`](cofferdam_step::Barrier)): in front of the first
//!   step that needs it (a cgroup namespace, a tmpfs filled from an image, a hook, the CPU mask). On cgroup v1 the host moves
//!   init through a dozen hierarchies meanwhile.
//!
//! `order.rs` is that order; each other module decides one subject of config.json.
#![forbid(unsafe_code)]

mod annotations;
mod cgroup;
mod devices;
mod draft;
mod exec;
mod filter;
mod hooks;
mod idmap;
mod limits;
mod live;
mod mounts;
mod namespaces;
mod netdevices;
mod order;
mod paths;
mod print;
mod process;
mod seccomp;
mod sysctl;

pub use annotations::{HOOKS_STDERR, HOOKS_STDOUT, PIDFD_RECEIVER};
pub use cofferdam_cgroup::Driver;
pub use cofferdam_host::{Host, Needs};
pub use cofferdam_spec::{Refused, Spec};
pub use exec::{ExecOptions, ExecTarget, compile_exec};
pub use filter::Filter;
pub use live::{compile_mounts, compile_unmounts};
pub use order::compile;

use cofferdam_cgroup::{Placement, Settings};
use cofferdam_spec::{Hook, IdMapping};
use cofferdam_step::{Barrier, Namespace, Namespaces, Propagation, Rlimit, Slot, Step};
use serde::{Deserialize, Serialize};

/// What a container's creation consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// How init comes into being.
    pub road: Road,
    /// What the host side opens, by [`Slot`]: after [`HostStep::PrepareCgroup`] (a tree may be a cgroup directory) and before
    /// [`HostStep::Spawn`]; trees at [`HostStep::OpenTrees`], where the plan has it.
    pub slots: Vec<SlotSource>,
    /// What the host side does, in order.
    pub host: Vec<HostStep>,
    /// What init does, in order.
    pub init: Vec<Step>,
    /// What must be true of the opened slots; the host side looks before it spawns init.
    pub conditions: Vec<Condition>,
    /// What has no effect or is odd: lines for the log.
    pub warnings: Vec<String>,
}

/// Something about a namespace file that only a look at the machine tells, and on which the plan rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// It is not the runtime's own namespace: sysctls are going to be written in it.
    NotOurs {
        /// The namespace's file.
        slot: Slot,
        /// The message of the refusal.
        message: String,
    },
    /// The user namespace has exactly these mappings: config.json has them beside its path.
    Maps {
        /// The user namespace's file.
        slot: Slot,
        /// uids.
        uid: Vec<IdMapping>,
        /// gids.
        gid: Vec<IdMapping>,
        /// The message of the refusal.
        message: String,
    },
}

/// How the process that carries out [`Plan::init`] is spawned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Road {
    /// Init begins in the host's namespaces and clones the container's first process itself ([`Step::Clone`]): a user
    /// namespace is made or joined, or a time namespace made. Otherwise init *is* that process.
    pub staged: bool,
    /// The namespaces that the spawning clone makes; none on the staged road.
    pub clone: Namespaces,
}

/// Where the descriptor behind a [`Slot`] comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotSource {
    /// A namespace's file, opened O_RDONLY | O_CLOEXEC; its type is checked by ioctl NS_GET_NSTYPE.
    Namespace {
        /// What it must be.
        kind: Namespace,
        /// config.json's path.
        path: String,
    },
    /// A detached copy of a mount tree: open_tree with OPEN_TREE_CLONE.
    Tree {
        /// Absolute host path.
        path: String,
        /// AT_RECURSIVE: with everything mounted below.
        recursive: bool,
        /// What the path is, not what it leads to when it is a symbolic link.
        of_link: bool,
        /// What the copy's propagation is set to; none leaves it.
        propagation: Option<Propagation>,
        /// The copy is idmapped.
        idmap: Option<IdMap>,
        /// The idmap goes for the whole tree.
        idmap_recursive: bool,
        /// The container has a user namespace, and no mount namespace for [`HostStep::OpenTrees`] yet: the tree is taken from a copy of
        /// the host's mounts that belongs to another user namespace, which locks the flags just as well.
        locked: bool,
    },
    /// A file that hooks' output is appended to, as an annotation says.
    HookOutput {
        /// The annotation.
        annotation: String,
        /// What it says.
        path: String,
    },
    /// A user namespace with these mappings, for a mount that init idmaps.
    UserNamespace(IdMap),
    /// A connected socket that takes the terminal's master.
    ConsoleSocket,
    /// The listening socket on which init waits for `start`.
    StartListener,
    /// A pidfd of the container's first process (exec).
    Process,
}

/// Whose ids a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdMap {
    /// Mappings from config.json.
    Mappings {
        /// uids.
        uid: Vec<IdMapping>,
        /// gids.
        gid: Vec<IdMapping>,
    },
    /// Those of an existing user namespace, by its file.
    NamespaceFile(String),
}

/// A network device that moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDevice {
    /// Its name on the host.
    pub name: String,
    /// Its name in the container.
    pub new_name: String,
}

/// One intention that the host side carries out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HostStep {
    /// Makes the cgroup and sets its limits.
    PrepareCgroup {
        /// Where.
        placement: Placement,
        /// What is set.
        settings: Box<Settings>,
        /// The host uid that gets the cgroup: the container has a cgroup namespace and a writable cgroup mount.
        owner: Option<u32>,
    },
    /// Spawns init as [`Plan::road`] says, with the slots.
    Spawn,
    /// Waits until a staged init has cloned the container's process, and goes on with that one.
    FollowClone,
    /// Opens the slots that are trees, in init's mount namespace, which belongs to another user namespace than the host's. There the
    /// host's read-only, nosuid, nodev, noexec and atime flags are locked (`lock_mnt_tree` in `fs/namespace.c`), and so they are in a
    /// tree that is taken from it: capabilities in the container's user namespace do not take them away.
    OpenTrees,
    /// Opens the sources of bind mounts that are `ahead`, while init makes its namespaces.
    OpenSources,
    /// As [`HostStep::OpenTrees`], for one slot, which is taken from a mount that init has made meanwhile.
    OpenTree {
        /// The slot.
        slot: Slot,
    },
    /// Makes what init is not born in: the v1 hierarchies.
    CompleteCgroup,
    /// Moves init into the cgroup; nothing is left to do where it was born there.
    EnterCgroup,
    /// Writes init's uid_map and gid_map.
    MapIds {
        /// uids.
        uid: Vec<IdMapping>,
        /// gids.
        gid: Vec<IdMapping>,
        /// Writes `deny` to /proc/PID/setgroups first (a caller without privileges).
        deny_setgroups: bool,
    },
    /// Moves network devices of the host into the container's network namespace.
    MoveNetworkDevices {
        /// Which, in the order of their names.
        devices: Vec<NetworkDevice>,
        /// The file of a namespace that is joined; none is init's own.
        namespace: Option<String>,
    },
    /// Writes init's oom_score_adj, which init in a user namespace may not lower.
    SetOomScoreAdj {
        /// -1000 to 1000.
        value: i32,
    },
    /// prlimit(2) on init, which in a user namespace may not raise hard limits.
    SetRlimits {
        /// One a resource.
        limits: Vec<Rlimit>,
    },
    /// Sends the barrier's byte.
    Release(Barrier),
    /// Waits for init's report that it stands at the barrier.
    Await(Barrier),
    /// Runs hooks in the runtime's namespaces.
    RunHooks {
        /// `prestart` or `createRuntime`.
        kind: String,
        /// In order.
        hooks: Vec<Hook>,
    },
    /// Reads and compiles the seccomp profile, whose filter goes to init with [`Barrier::Committed`].
    CompileFilter,
    /// Writes down what is going to be made, so that whoever finds it behind a crash can take it away: in front of the first cgroup.
    RecordPlan,
    /// Writes the state (created; running for `run`) where nobody sees it yet.
    DraftState,
    /// Lets everybody see the state, and writes the pid file.
    Commit,
}

/// What the command line adds to config.json.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The container's id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
    /// Descriptors from 3 on that the process inherits: `--preserve-fds` and LISTEN_FDS together.
    pub preserve_fds: u32,
    /// `--systemd-cgroup` and `--cgroup-manager`
    pub driver: Driver,
    /// Cgroup errors of a caller without privileges are forgiven; systemd is asked for the user's manager.
    pub rootless: bool,
    /// `run`: nobody waits for `start`.
    pub run: bool,
    /// There is a socket that takes the terminal's master.
    pub console: bool,
    /// The caller keeps the master and copies what comes out of it to its own stdout, which may be a file.
    pub foreground: bool,
}

/// What must be known of the machine to compile this spec.
pub fn needs(spec: &Spec) -> Needs {
    let process = spec.process.as_ref();
    Needs {
        procfs_pidns: spec.linux.namespaces.iter().any(|entry| entry.kind == "pid" && !entry.path.is_empty()),
        apparmor: process.is_some_and(|process| !process.apparmor_profile.is_empty()),
        selinux: process.is_some_and(|process| !process.selinux_label.is_empty())
            || !spec.linux.mount_label.is_empty(),
        seccomp: spec.linux.seccomp.is_some(),
        process_alone: false,
    }
}
