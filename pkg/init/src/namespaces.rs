//! Joining and creating namespaces, and the names that live in them.

use crate::{At, Failure, Init, Outcome, give_up, rootfs};
use alloc::format;
use cofferdam_step::{Attempt, Namespace, Namespaces, ReportKind, Slot, TimeOffset};
use cofferdam_sys::proc::Proc;
use cofferdam_sys::{Errno, cred, fs, process, root::Root};

/// Makes this process one that nobody in the container may trace, read or take descriptors from until its last execve
/// (CVE-2016-9962). The execve of the container's program undoes it.
pub(crate) fn hide_from_ptrace() {
    // Cannot fail: the value is valid (prctl(2)).
    let _ = process::prctl(libc::PR_SET_DUMPABLE, [0; 4]);
}

/// Lets the owner of the user namespace in again, once nothing of the host's is left to find here. This image was executed outside of
/// that namespace, so that while it is hidden only root outside may come near. What in the container has fewer capabilities than init
/// may not trace it all the same (`cap_ptrace_access_check` in `security/commoncap.c`).
pub(crate) fn show_to_ptrace() {
    // Cannot fail: the value is valid (prctl(2)).
    let _ = process::prctl(libc::PR_SET_DUMPABLE, [1, 0, 0, 0]);
}

pub(crate) fn unshare(namespaces: Namespaces) -> Outcome {
    process::unshare(namespaces.0).at(Attempt::Unshare)
}

/// Becomes uid and gid 0 of the new user namespace. The groups stay: they are the caller's, and setgroups may be denied.
pub(crate) fn become_root() -> Outcome {
    cred::setgid(0).at(Attempt::Setgid)?;
    cred::setuid(0).at(Attempt::Setuid)?;
    hide_from_ptrace();
    Ok(())
}

pub(crate) fn set_hostname(name: &str) -> Outcome {
    cofferdam_sys::names::sethostname(name.as_bytes()).at(Attempt::Sethostname)
}

pub(crate) fn set_domainname(name: &str) -> Outcome {
    cofferdam_sys::names::setdomainname(name.as_bytes()).at(Attempt::Setdomainname)
}

impl Init {
    /// One namespace. Those that belong to another user namespace than the one that is joined need the caller's rights, and
    /// so their turn comes first; those that need the rights in it are tried again.
    pub(crate) fn join_namespace(&mut self, kind: Namespace, slot: Slot, early: bool) -> Outcome {
        if self.joined.contains(kind) {
            return Ok(());
        }
        let file = self.slot(slot)?;
        match process::setns(&file, kind.clone_flag()) {
            Err(Errno::EPERM) if early => return Ok(()),
            joined => joined.at(Attempt::Setns)?,
        }
        self.joined.insert(kind);
        if kind == Namespace::User { become_root() } else { Ok(()) }
    }

    /// All namespaces of a process in one call; where the kernel or a filter refuses (Linux < 5.8), one by one.
    pub(crate) fn join_process(&mut self, pidfd: Slot, namespaces: Namespaces) -> Outcome {
        let pidfd = self.slot(pidfd)?;
        hide_from_ptrace();
        // `mounts add` stays in its pid namespace, an exec until it clones. Where a filter around us refuses fsopen, the container's own
        // /proc would be all there is to open later, and that one does not know us: the host's is kept.
        // Test: live, with fsopen failing (hack/test fallbacks)
        let proc = match namespaces.contains(Namespace::Pid) {
            true => Proc::in_place(),
            false => Proc::open(),
        }
        .ok();
        process::setns(&pidfd, namespaces.0).at(Attempt::Setns)?;
        if namespaces.contains(Namespace::User) {
            become_root()?;
        }
        // What was opened on the host's side of the mount namespace is of no more use.
        self.root = match &proc {
            Some(proc) => Some(rootfs::current_root(|dir| Root::knowing(dir, proc))?),
            None => None,
        };
        self.proc = proc;
        Ok(())
    }

    pub(crate) fn set_time_offsets(&mut self, offsets: &[TimeOffset]) -> Outcome {
        let mut text = alloc::string::String::new();
        for offset in offsets {
            text.push_str(&format!("{} {} {}\n", offset.clock, offset.secs, offset.nanosecs));
        }
        self.write_own(b"self/timens_offsets", text.as_bytes())
    }

    /// What is unshared is for children only; setns takes this process in, as long as it has one thread (`timens_install` in
    /// `kernel/time/namespace.c`).
    pub(crate) fn enter_time_namespace(&mut self) -> Outcome {
        let own = self.proc()?.open_file(b"self/ns", fs::O_PATH | fs::O_DIRECTORY).at(Attempt::Proc)?;
        let namespace = fs::openat(&own, b"time_for_children", fs::O_RDONLY, 0).at(Attempt::Open)?;
        // The container's own procfs is not mounted yet: a later step may adopt it.
        self.proc = None;
        process::setns(&namespace, Namespace::Time.clone_flag()).at(Attempt::Setns)
    }

    /// The clone goes on with the list, as a sibling; this process tells its pid and ends.
    pub(crate) fn clone_into(&mut self, namespaces: Namespaces) -> Outcome {
        // The procfs handle shows the pid namespace that is left behind, to whoever traces the clone from its first instruction on.
        (self.root, self.proc) = (None, None);
        match process::fork(namespaces.0, true).at(Attempt::Clone3)? {
            process::Forked::Child => {
                self.clones = false;
                if !namespaces.contains(Namespace::User) {
                    hide_from_ptrace();
                }
                Ok(())
            }
            process::Forked::Parent(pid) => match self.conversation.say(ReportKind::Cloned, i64::from(pid)) {
                Ok(()) => process::exit(0),
                Err(Failure { errno: Errno::EPIPE, .. }) => give_up(None),
                Err(failure) => {
                    // Nobody will hear of it.
                    let _ = process::kill(pid, libc::SIGKILL);
                    Err(failure)
                }
            },
        }
    }
}
