//! The vocabulary of a plan: what init can do, how it is told, and how it reports.
//!
//! A [`Step`] is one *intention*. The compiler (`pkg/plan`) decides which steps a config.json needs and in which order;
//! the executor (`pkg/init`) has one function for each; the runtime (`runtime/launch`) writes the sentence when one fails.
//! The three meet only here, so this crate has no system call and no I/O, and works without `std` (init has none).
//!
//! On the wire (one stream socket between the runtime and init) a [`Program`] goes in as a little-endian `u32` length and
//! that many bytes of postcard; then single bytes, one a [`Barrier`], go in, and behind one of them perhaps a filter ([`FilterHead`]);
//! fixed-size [`Report`]s come out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod describe;
mod mount;
mod process;
mod report;

pub use mount::{Attributes, Create, FsOption, Links, Mount, Propagation, Source};
pub use process::{Capabilities, Hook, Hooks, IoPriority, Rlimit, SchedAttr, TimeOffset};
pub use report::{Attempt, Report, ReportKind};

use alloc::{borrow::Cow, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// A named place for a file descriptor that the host side opens and init inherits: an index into [`Program::fds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub u16);

/// Everything init needs to know: its steps, and the descriptor behind every [`Slot`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Program<'a> {
    /// Descriptor numbers as init has inherited them, by slot.
    pub fds: Vec<i32>,
    /// Init tells when each step begins.
    pub timed: bool,
    /// Carried out in order; the last is [`Step::Exec`]. The host side lends the plan's.
    pub steps: Cow<'a, [Step]>,
}

/// A kind of namespace, in the runtime-spec's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// `mnt`
    Mount,
    /// `pid`
    Pid,
    /// `net`
    Network,
    /// `uts`
    Uts,
    /// `ipc`
    Ipc,
    /// `user`
    User,
    /// `cgroup`
    Cgroup,
    /// `time`
    Time,
}

impl Namespace {
    /// Every kind, in the order in which joining them is safe (the mount namespace last: paths change with it).
    pub const ALL: [Namespace; 8] = [
        Namespace::User,
        Namespace::Cgroup,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Network,
        Namespace::Pid,
        Namespace::Time,
        Namespace::Mount,
    ];

    /// The `CLONE_NEW*` bit (`include/uapi/linux/sched.h`).
    pub const fn clone_flag(self) -> u32 {
        match self {
            Namespace::Mount => 0x0002_0000,
            Namespace::Cgroup => 0x0200_0000,
            Namespace::Uts => 0x0400_0000,
            Namespace::Ipc => 0x0800_0000,
            Namespace::User => 0x1000_0000,
            Namespace::Pid => 0x2000_0000,
            Namespace::Network => 0x4000_0000,
            Namespace::Time => 0x0000_0080,
        }
    }

    /// The name in `/proc/PID/ns`.
    pub const fn proc_name(self) -> &'static str {
        match self {
            Namespace::Mount => "mnt",
            Namespace::Pid => "pid",
            Namespace::Network => "net",
            Namespace::Uts => "uts",
            Namespace::Ipc => "ipc",
            Namespace::User => "user",
            Namespace::Cgroup => "cgroup",
            Namespace::Time => "time",
        }
    }

    /// The runtime-spec's name, as in config.json `/linux/namespaces/N/type`.
    pub const fn spec_name(self) -> &'static str {
        match self {
            Namespace::Mount => "mount",
            Namespace::Network => "network",
            other => other.proc_name(),
        }
    }
}

/// A set of namespaces as `CLONE_NEW*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces(pub u32);

impl Namespaces {
    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: Namespace) -> bool {
        self.0 & kind.clone_flag() != 0
    }
    /// Puts `kind` into the set.
    pub const fn insert(&mut self, kind: Namespace) {
        self.0 |= kind.clone_flag();
    }
    /// Takes `kind` out of the set.
    pub const fn remove(&mut self, kind: Namespace) {
        self.0 &= !kind.clone_flag();
    }
    /// Whether the set has no member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The members, in [`Namespace::ALL`]'s order.
    pub fn iter(self) -> impl Iterator<Item = Namespace> {
        Namespace::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<Namespace> for Namespaces {
    fn from_iter<I: IntoIterator<Item = Namespace>>(kinds: I) -> Self {
        let mut set = Namespaces::default();
        kinds.into_iter().for_each(|kind| set.insert(kind));
        set
    }
}

/// The words of `start` to an init behind [`Step::AwaitStart`].
pub mod start {
    /// First, in front of taking the socket's name away: from here on nobody else can come, and whoever dies has ended the container.
    pub const READY: u8 = b'r';
    /// Then: the program may run.
    pub const GO: u8 = b's';
    /// The same, and init is to tell when each step begins.
    pub const GO_TIMED: u8 = b't';
}

/// Where the host side and init meet. The host sends the barrier's byte when its part is done; init goes on when it has
/// read that byte, and ends quietly when it reads the end of the stream (the host side has died).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Barrier {
    /// The user namespace has its uid and gid maps.
    IdsMapped = 1,
    /// Init is in the container's cgroups (and, where the host sets them, has its rlimits and scheduler), or its byte comes
    /// with the `tasks` files of cgroup v1 hierarchies: init writes `0` to each and so moves itself, which takes no lock that
    /// stops the machine's forks (Linux 5.6); a move by `cgroup.procs` does, for an RCU grace period.
    CgroupJoined = 2,
    /// The prestart and createRuntime hooks have run, network devices have been moved in.
    RuntimeHooks = 3,
    /// `create`: state and pid file are written, the container may wait for its `start`.
    /// `run`: state and pid file are written, the process may start.
    /// Behind the byte comes the filter, if the program loads one that it has not.
    Committed = 4,
    /// The host side has opened the trees that init mounts, in init's own mount namespace. They come with the byte, in the order of the
    /// slots that are still empty; when they are many, [`Barrier::MORE`] stands in for it before the last ones.
    TreesOpened = 5,
    /// The host side has heard of the clone, which may speak from here on: before, its words could overtake the news of it.
    Followed = 6,
    /// Init has made the mounts that the next tree is taken from: the container's own, which it may not idmap itself. The tree comes
    /// with the byte.
    TreeWanted = 7,
    /// The host side has opened sources of bind mounts while init made its namespaces. They come with the byte, in the order of the mounts
    /// that are `ahead`, as many as there are: init opens the rest itself.
    SourcesOpened = 8,
}

impl Barrier {
    /// Not yet the barrier's byte: more descriptors follow.
    pub const MORE: u8 = 0;

    /// The barrier of a byte read from the socket.
    pub const fn from_byte(byte: u8) -> Option<Barrier> {
        match byte {
            1 => Some(Barrier::IdsMapped),
            2 => Some(Barrier::CgroupJoined),
            3 => Some(Barrier::RuntimeHooks),
            4 => Some(Barrier::Committed),
            5 => Some(Barrier::TreesOpened),
            6 => Some(Barrier::Followed),
            7 => Some(Barrier::TreeWanted),
            8 => Some(Barrier::SourcesOpened),
            _ => None,
        }
    }
}

/// What is in front of a seccomp filter that the host side sends behind its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterHead {
    /// `SECCOMP_FILTER_FLAG_*`
    pub flags: u32,
    /// How many bytes of `struct sock_filter` follow.
    pub length: u32,
}

impl FilterHead {
    /// Bytes on the wire.
    pub const SIZE: usize = 8;

    /// The head on the wire.
    pub const fn to_bytes(self) -> [u8; FilterHead::SIZE] {
        (self.flags as u64 | (self.length as u64) << 32).to_le_bytes()
    }

    /// The head that stands on the wire.
    pub const fn from_bytes(bytes: [u8; FilterHead::SIZE]) -> FilterHead {
        let both = u64::from_le_bytes(bytes);
        FilterHead { flags: both as u32, length: (both >> 32) as u32 }
    }
}

/// One intention that init carries out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Step {
    // Namespaces
    /// `setns(2)` into one namespace by its file.
    JoinNamespace {
        /// Which kind the file must be.
        kind: Namespace,
        /// The opened namespace file.
        slot: Slot,
        /// For messages: config.json's path.
        path: String,
        /// In front of a user namespace: what the caller may not join waits until that has been joined.
        early: bool,
    },
    /// `setns(2)` into several namespaces of a process by its pidfd (Linux 5.8; exec into a running container).
    JoinProcess {
        /// A pidfd of the process whose namespaces are joined.
        pidfd: Slot,
        /// Which of them.
        namespaces: Namespaces,
    },
    /// `unshare(2)`. The cgroup namespace roots at the caller's cgroup, so it stands behind [`Barrier::CgroupJoined`].
    Unshare {
        /// What becomes new.
        namespaces: Namespaces,
    },
    /// Writes `/proc/self/timens_offsets`; stands between unsharing the time namespace and the first process in it.
    SetTimeOffsets {
        /// One a clock.
        offsets: Vec<TimeOffset>,
    },
    /// Into the time namespace that was unshared for children (`/proc/self/ns/time_for_children`).
    EnterTimeNamespace,
    /// `clone3(2)` with CLONE_PARENT: the child carries out the rest of the list, the caller reports it and ends.
    Clone {
        /// What becomes new with the clone.
        namespaces: Namespaces,
    },
    /// Becomes uid 0, gid 0 of the user namespace just entered.
    BecomeNamespaceRoot,
    /// Lets the unprivileged owner of the user namespace come near: whoever enters a process's namespaces, or takes its seccomp
    /// listener, must be allowed to trace it.
    ShowToOwner,

    // Conversation
    /// Tells the host side that init stands at the barrier.
    Tell(Barrier),
    /// Waits for the host side's byte.
    Await(Barrier),
    /// Waits for [`Barrier::TreeWanted`]'s byte, and the one tree that comes along.
    AwaitTree {
        /// What it fills.
        slot: Slot,
    },
    /// Closes the conversation with the creator and waits for `start` on a listening socket. What follows is reported to the
    /// starter's connection, which closes at the final execve.
    AwaitStart {
        /// A listening stream socket in the container's state directory.
        listener: Slot,
    },
    /// `setsid(2)`.
    NewSession,

    // Network and names
    /// Brings up `lo` in a new network namespace.
    BringUpLoopback,
    /// `sethostname(2)`.
    SetHostname {
        /// `/hostname`
        name: String,
    },
    /// `setdomainname(2)`.
    SetDomainname {
        /// `/domainname`
        name: String,
    },

    // Mounts, in front of the pivot
    /// Sets the propagation of all mounts of the new mount namespace, so that none reaches the host.
    SetHostPropagation(Propagation),
    /// Mounts the rootfs onto itself, makes its parent private and takes the rootfs handle.
    PrepareRoot {
        /// Absolute host path of the rootfs.
        path: String,
        /// The tree, opened by the host side, where init may not reach the path (user namespaces).
        slot: Option<Slot>,
        /// Whether the rootfs mount's parent must become private although the container's propagation is shared.
        keep_propagation: bool,
    },
    /// In place of these two, of the host's mounts in a new namespace, and of the pivot: into a mount namespace whose root is the rootfs
    /// (open_tree with OPEN_TREE_NAMESPACE, Linux 7.0). From here on no path of the host's leads anywhere.
    EnterRoot {
        /// Absolute host path of the rootfs.
        path: String,
        /// Of all mounts in it.
        propagation: Propagation,
    },
    /// One entry of `/mounts`.
    Mount(Mount),
    /// Makes a directory below the rootfs with its parents.
    MakeDirectory {
        /// Path in the container.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Makes a device node (or fifo) below the rootfs and gives it owner and mode.
    MakeDevice {
        /// Path in the container.
        path: String,
        /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO` with permission bits.
        mode: u32,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Owner; none is left alone.
        uid: Option<u32>,
        /// Group; none is left alone.
        gid: Option<u32>,
    },
    /// `chroot(2)` in place of the pivot, for a container in the host's mount namespace. Its root is the rootfs that was prepared or,
    /// for an exec, that path on the host.
    ChangeRoot {
        /// The rootfs.
        path: Option<String>,
    },
    /// Binds a device of the host onto an empty file below the rootfs (user namespaces cannot make nodes).
    BindDevice {
        /// Path in the container.
        path: String,
        /// Path on the host.
        source: String,
        /// The tree, opened by the host side.
        slot: Option<Slot>,
    },
    /// Makes a symbolic link below the rootfs; one that is there and reads the same is good.
    MakeSymlink {
        /// Path in the container.
        path: String,
        /// What the link reads.
        target: String,
        /// Replaces what is there (`/dev/ptmx`).
        replace: bool,
    },
    /// Opens a pty on the container's devpts, binds it over `/dev/console`, makes it stdin, stdout and stderr, and sends the
    /// master to the socket.
    OpenConsole {
        /// A connected socket that takes the master by SCM_RIGHTS.
        socket: Slot,
        /// Rows and columns, if config.json says.
        size: Option<(u16, u16)>,
        /// Whether `/dev/console` is mounted (a new container) or not (exec).
        mount: bool,
        /// Owner of the terminal.
        uid: u32,
        /// What is written to it comes out of the master as it is, line ends too.
        plain: bool,
    },
    /// Makes stdin the controlling terminal of the session.
    TakeTerminal,
    /// Runs hooks in the container's namespaces.
    RunHooks(Hooks),
    /// Makes the rootfs the root and detaches everything else.
    PivotRoot {
        /// `--no-pivot`: move the mount over `/` and chroot.
        no_pivot: bool,
    },
    /// Sets the container's root mount's propagation at the end (`/linux/rootfsPropagation` shared or unbindable).
    SetRootPropagation(Propagation),
    /// Makes the root mount read-only (`/root/readonly`).
    MakeRootReadonly,
    /// Hides a path: files and devices behind /dev/null, directories behind an empty read-only tmpfs.
    MaskPath {
        /// Path in the container; one that is not there is good.
        path: String,
        /// SELinux context of the tmpfs.
        label: Option<String>,
    },
    /// Makes a path read-only by a bind mount of itself.
    MakeReadonly {
        /// Path in the container; one that is not there is good.
        path: String,
    },
    /// Takes the topmost mount on this path away (MNT_DETACH).
    Unmount {
        /// Path in the container.
        path: String,
    },
    /// Makes the mount on this path read-only once everything in it is made (`/dev` mounted with `ro`).
    RemountReadonly {
        /// Path in the container.
        path: String,
    },
    /// Sets the SELinux label of a file (mqueue, which takes no `context=` option).
    SetFileLabel {
        /// Path in the container.
        path: String,
        /// `/linux/mountLabel`
        label: String,
    },
    /// Writes one sysctl through the private procfs handle.
    SetSysctl {
        /// Dotted or slashed name, as in config.json.
        key: String,
        /// Value as in config.json.
        value: String,
    },

    // Process
    /// Joins a new session keyring named after the container.
    JoinSessionKeyring {
        /// `_ses.<container id>`
        name: String,
        /// SELinux label of the keyring.
        label: Option<String>,
    },
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    SetNoNewPrivileges,
    /// `prlimit(2)`.
    SetRlimit(Rlimit),
    /// Raises the hard limit to this one's, if it is lower, which takes a capability; [`Step::SetRlimit`] follows without.
    RaiseRlimit(Rlimit),
    /// `sched_setattr(2)`.
    SetScheduler(SchedAttr),
    /// `ioprio_set(2)`.
    SetIoPriority(IoPriority),
    /// `sched_setaffinity(2)`: bit n of the little-endian mask is CPU n. An empty mask means all CPUs of the cpuset.
    SetAffinity {
        /// The mask.
        mask: Vec<u8>,
    },
    /// `personality(2)`.
    SetPersonality {
        /// Domain and flags, `include/uapi/linux/personality.h`.
        persona: u32,
    },
    /// `set_mempolicy(2)`.
    SetMemoryPolicy {
        /// `MPOL_*` with its mode flags.
        mode: u32,
        /// Node mask, little-endian bits.
        nodes: Vec<u8>,
    },
    /// Writes `/proc/self/oom_score_adj`.
    SetOomScoreAdj {
        /// -1000 to 1000.
        value: i32,
    },
    /// Gives stdin, stdout and stderr to the container's user where they are not /dev/null.
    OwnStdio {
        /// New owner.
        uid: u32,
    },
    /// Writes the AppArmor profile for the next execve.
    SetAppArmor {
        /// `/process/apparmorProfile`
        profile: String,
    },
    /// Writes the SELinux label for the next execve.
    SetSelinux {
        /// `/process/selinuxLabel`
        label: String,
    },
    /// Sets groups, gid and uid, keeping the permitted capabilities.
    SetUser {
        /// `/process/user/uid`
        uid: u32,
        /// `/process/user/gid`
        gid: u32,
        /// `/process/user/additionalGids`; none leaves the groups alone (setgroups is denied).
        additional_gids: Option<Vec<u32>>,
        /// `/process/user/umask`
        umask: Option<u32>,
    },
    /// Drops the bounding set to what is asked for.
    DropBounding {
        /// Capability bits to keep.
        keep: u64,
    },
    /// Sets permitted, effective, inheritable and ambient sets; the last change of credentials.
    SetCapabilities(Capabilities),
    /// Changes to the working directory and proves that it lies inside the container (CVE-2024-21626).
    ChangeDirectory {
        /// `/process/cwd`
        path: String,
        /// Makes it when it is not there (a new container).
        create: bool,
    },
    /// Sets HOME from the container's /etc/passwd when config.json's environment has none.
    SetHome {
        /// Whose home.
        uid: u32,
    },
    /// Finds `args[0]` inside the container, along the PATH of `env` when it has no slash.
    ResolveProgram,
    /// Opens the `NOTIFY` listener's way back and loads the filter; with a listener its descriptor number is reported.
    LoadSeccomp {
        /// `struct sock_filter` array, native byte order, eight bytes an instruction. None is one that comes with
        /// [`Barrier::Committed`], behind a [`FilterHead`], with its flags.
        filter: Option<Vec<u8>>,
        /// `SECCOMP_FILTER_FLAG_*`
        flags: u32,
    },
    /// Marks every descriptor from 3 + `preserve` on close-on-exec.
    SealDescriptors {
        /// `--preserve-fds` and LISTEN_FDS together.
        preserve: u32,
    },
    /// Resets signal dispositions and mask, and replaces init by the container's process.
    Exec {
        /// `/process/args`
        args: Vec<String>,
        /// `/process/env` and what the runtime adds.
        env: Vec<String>,
    },
}
