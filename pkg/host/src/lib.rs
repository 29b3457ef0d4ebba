//! What this machine can do, as a value.
//!
//! The compiler (`pkg/plan`) looks at no machine: what it must know comes in as a [`Host`], which is serde, so that a test
//! can replay a laptop without privileges or an old enterprise kernel. [`Host::probe`] stands on the way of every container's
//! start, so that it makes a dozen cheap calls, parses no mount table, and looks only at what the config asks for
//! ([`Needs`]).
//!
//! The executor needs no such value: it tries the new call and falls back on the errno, because a filter around us (docker
//! in docker) can take a call away that the kernel has.
//!
//! | feature | Linux | what it does for us | without it |
//! |---|---|---|---|
//! | openat2, RESOLVE_IN_ROOT | 5.6 | paths below the rootfs end at an fd that lies there | a walk of one component at a time, O_NOFOLLOW |
//! | clone3, CLONE_PIDFD | 5.3, 5.2 | the container's process and its pidfd in one call | clone, then pidfd_open |
//! | CLONE_INTO_CGROUP (v2) | 5.7 | born in its cgroup: no migration, limits hold from the first page | a write to cgroup.procs |
//! | cgroup namespace | 4.6 | the container sees its cgroup as the root | refused where config.json asks for it |
//! | time namespace | 5.6 | `timeOffsets` | refused where config.json asks for it |
//! | setns by pidfd | 5.8 | exec joins all namespaces in one call | a call for each file in /proc/PID/ns |
//! | fsopen, fsmount, move_mount | 5.2 | mounts by fds, private procfs, errors with a reason | mount(2) onto /proc/self/fd/N |
//! | open_tree | 5.2 | the host side opens what a user namespace mounts | a bind mount from inside |
//! | open_tree_attr | 6.15 | a source and its propagation in one call | open_tree, mount_setattr |
//! | open_tree, OPEN_TREE_NAMESPACE | 7.0 | a mount namespace of the rootfs alone: no copy of the host's mounts, no pivot | unshare, pivot_root, umount |
//! | procfs `pidns=` | 6.18 | a shared pid namespace sees a new container's process only in its root, with its rights | cloned into it first, as under runc |
//! | mount_setattr | 5.12 | recursive attributes, idmapped mounts | remount with MS_BIND; what has no other way fails |
//! | MOUNT_ATTR_NOSYMFOLLOW | 5.14 | `nosymfollow` | MS_NOSYMFOLLOW (5.10) |
//! | close_range, CLOSE_RANGE_CLOEXEC | 5.9, 5.11 | no descriptor of ours reaches the container | /proc/self/fd, one fcntl each |
//! | SECCOMP_FILTER_FLAG_SPEC_ALLOW | 4.17 | the default flag of a profile that lists none | – (all kernels from 5.10 have it) |
//! | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | 5.19 | asked for by some notify profiles | refused where config.json asks for it |
//! | MPOL_PREFERRED_MANY, MPOL_WEIGHTED_INTERLEAVE | 5.15, 6.9 | `memoryPolicy` | the kernel's EINVAL names the step |
#![forbid(unsafe_code)]

use cofferdam_cgroup::Layout;
use cofferdam_seccomp::{ActionSet, Target, flag, native_arch};
use cofferdam_sys::mount;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// What one config must know of the machine. Everything else is left unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `process.apparmorProfile` is set.
    pub apparmor: bool,
    /// `process.selinuxLabel` or `linux.mountLabel` is set.
    pub selinux: bool,
    /// `linux.seccomp` is set.
    pub seccomp: bool,
    /// `linux.namespaces` has a pid namespace to join.
    pub procfs_pidns: bool,
    /// A process joins a container that is there: nobody asks where cgroups are, nor what /dev gets.
    pub process_alone: bool,
}

/// What the compiler knows of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Major and minor number of the kernel's release.
    pub kernel: (u32, u32),
    /// Effective uid of the runtime.
    pub euid: u32,
    /// Effective gid of the runtime.
    pub egid: u32,
    /// The runtime is itself in a user namespace that does not map everything: no device nodes, locked mount flags.
    pub user_namespace: bool,
    /// That user namespace denies setgroups(2), and so does every one below it.
    #[serde(default)]
    pub setgroups_denied: bool,
    /// AppArmor is enabled; false when nobody asked.
    pub apparmor: bool,
    /// SELinux is enabled; false when nobody asked.
    pub selinux: bool,
    /// procfs has a `kcore`, for which /dev gets a link; false when nobody asked.
    #[serde(default)]
    pub kcore: bool,
    /// A procfs can be mounted that shows another pid namespace than the mounter's; false when nobody asked.
    #[serde(default)]
    pub procfs_pidns: bool,
    /// open_tree(2) makes a mount namespace of a tree, with nothing of the host's below it; false when nobody asked.
    #[serde(default)]
    pub tree_namespaces: bool,
    /// What a seccomp filter may use; none without seccomp, or when nobody asked.
    pub seccomp: Option<Target>,
    /// Where the cgroup hierarchies are; nowhere when nobody asked.
    pub cgroup: Layout,
}

impl Host {
    /// Looks at this machine, as far as `needs` asks.
    ///
    /// # Errors
    /// When /proc cannot be read or no cgroup hierarchy is found, with the path in the message.
    pub fn probe(needs: &Needs) -> io::Result<Host> {
        let kernel = kernel_version()?;
        let user_namespace = !maps_everything(&read("/proc/self/uid_map")?);
        Ok(Host {
            kernel,
            euid: nix::unistd::geteuid().as_raw(),
            egid: nix::unistd::getegid().as_raw(),
            user_namespace,
            setgroups_denied: user_namespace && read("/proc/self/setgroups")?.trim() == "deny",
            apparmor: needs.apparmor && apparmor_enabled(),
            selinux: needs.selinux && Path::new("/sys/fs/selinux/enforce").exists(),
            kcore: !needs.process_alone && Path::new("/proc/kcore").exists(),
            procfs_pidns: needs.procfs_pidns && procfs_takes_pidns(),
            tree_namespaces: !needs.process_alone && kernel >= (7, 0) && makes_tree_namespaces(),
            seccomp: if needs.seccomp { seccomp_target(kernel)? } else { None },
            cgroup: match needs.process_alone {
                true => Layout::V1 { hierarchies: Vec::new() },
                false => cofferdam_cgroup::probe().map_err(io::Error::other)?,
            },
        })
    }
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| {
        // In words that do not depend on the C library.
        let (kind, why) = (error.kind(), cofferdam_sys::Errno::from(error));
        io::Error::new(kind, format!("read {path}: {why}"))
    })
}

fn kernel_version() -> io::Result<(u32, u32)> {
    let name = nix::sys::utsname::uname()?;
    let release = name.release().to_string_lossy();
    parse_release(&release)
        .ok_or_else(|| io::Error::other(format!("kernel release {release:?} has no version")))
}

/// The first two numbers of `6.18.5-rt` and the like.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether a uid_map is the initial user namespace's: one line that maps every id to itself.
fn maps_everything(uid_map: &str) -> bool {
    let mut words = uid_map.split_ascii_whitespace();
    [words.next(), words.next(), words.next(), words.next()]
        == [Some("0"), Some("0"), Some("4294967295"), None]
}

/// As libapparmor's aa_is_enabled has it: the module is on, and its interface can be reached.
fn apparmor_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
        && Path::new("/sys/kernel/security/apparmor").exists()
}

/// Whether procfs knows the option `pidns` (Linux 6.18, `fs/proc/root.c`), and nobody around us forbids the mount interface.
fn procfs_takes_pidns() -> bool {
    let asked = mount::fsopen(b"proc")
        .and_then(|context| mount::fsconfig(&context, b"pidns", Some(b"/proc/self/ns/pid")));
    asked.is_ok()
}

/// Below the root of such a namespace lies the machine's first root. It is an empty nullfs, unless this machine has never left its
/// initramfs: then it would be all that the machine has.
fn makes_tree_namespaces() -> bool {
    use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
    /// `include/uapi/linux/magic.h`
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    mount::makes_tree_namespaces()
        && statfs("/").is_ok_and(|root| ![TMPFS_MAGIC, RAMFS_MAGIC].contains(&root.filesystem_type()))
}

fn seccomp_target((major, minor): (u32, u32)) -> io::Result<Option<Target>> {
    let words = match read("/proc/sys/kernel/seccomp/actions_avail") {
        // No file without CONFIG_SECCOMP_FILTER.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        words => words?,
    };
    // Linux < 5.19 does not know WAIT_KILLABLE_RECV. A probe would be seccomp(2) with a null filter, which also asks for a
    // privilege or no_new_privs that this process need not have, so the version decides. Every other flag is older than 5.10.
    let flags = if (major, minor) < (5, 19) { flag::ALL & !flag::WAIT_KILLABLE_RECV } else { flag::ALL };
    let actions = ActionSet::from_actions_avail(&words);
    Ok(native_arch().map(|arch| Target { arch, actions, flags }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_a_version() {
        assert_eq!(parse_release("6.18.5"), Some((6, 18)));
        assert_eq!(parse_release("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(parse_release("6.1-rc3"), Some((6, 1)));
        assert_eq!(parse_release("x"), None);
    }

    #[test]
    fn only_the_initial_user_namespace_maps_everything() {
        assert!(maps_everything("         0          0 4294967295\n"));
        assert!(!maps_everything("         0     100000      65536\n"));
        assert!(!maps_everything("0 0 1000\n1000 100000 65536\n"));
        assert!(!maps_everything(""));
    }

    #[test]
    fn what_nobody_asked_for_is_not_looked_at() {
        let host = Host::probe(&Needs::default()).unwrap();
        assert_eq!((host.seccomp, host.apparmor, host.selinux), (None, false, false));
        let host = Host::probe(&Needs { seccomp: true, ..Needs::default() }).unwrap();
        assert_eq!(host.seccomp.unwrap().arch, native_arch().unwrap());
        assert!(!host.cgroup.hierarchies().is_empty() || host.cgroup.unified().is_some());
        let host = Host::probe(&Needs { process_alone: true, ..Needs::default() }).unwrap();
        assert!(!host.kcore && host.cgroup == Layout::V1 { hierarchies: Vec::new() });
    }

    #[test]
    fn a_host_survives_json() {
        let needs =
            Needs { seccomp: true, apparmor: true, selinux: true, procfs_pidns: true, process_alone: false };
        let host = Host::probe(&needs).unwrap();
        let text = serde_json::to_string(&host).unwrap();
        assert_eq!(serde_json::from_str::<Host>(&text).unwrap(), host);
    }
}
