//! What shapes the process: limits, scheduling, credentials, labels.

use crate::{At, Failure, Init, Outcome};
use cofferdam_step::{Attempt, Capabilities, IoPriority, Rlimit, SchedAttr};
use cofferdam_sys::{Borrowed, Errno, cred, fs, process};

pub(crate) fn set_no_new_privileges() -> Outcome {
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]).map(drop).at(Attempt::Prctl)
}

pub(crate) fn set_rlimit(limit: Rlimit) -> Outcome {
    process::prlimit(0, limit.resource, limit.soft, limit.hard).at(Attempt::Prlimit)
}

pub(crate) fn raise_rlimit(limit: Rlimit) -> Outcome {
    let (soft, hard) = process::rlimit(limit.resource).at(Attempt::Prlimit)?;
    if limit.hard <= hard {
        return Ok(());
    }
    process::prlimit(0, limit.resource, soft, limit.hard).at(Attempt::Prlimit)
}

pub(crate) fn set_scheduler(attr: SchedAttr) -> Outcome {
    let SchedAttr { policy, flags, nice, priority, runtime, deadline, period } = attr;
    process::sched_setattr(
        0,
        process::SchedAttr { size: 0, policy, flags, nice, priority, runtime, deadline, period },
    )
    .at(Attempt::SchedSetattr)
}

pub(crate) fn set_io_priority(value: IoPriority) -> Outcome {
    process::ioprio_set(value.class, value.priority).at(Attempt::IoprioSet)
}

/// An empty mask asks for every CPU: the kernel cuts that down to the cpuset. An affinity that the runtime inherited (from
/// systemd's CPUAffinity=, from taskset) is none of the container's business.
pub(crate) fn set_affinity(mask: &[u8]) -> Outcome {
    let all = [0xffu8; 1024];
    let asked = process::sched_setaffinity(0, if mask.is_empty() { &all } else { mask });
    match asked {
        // A best effort, as with runc: a cpuset may leave nothing of what was inherited.
        Err(_) if mask.is_empty() => Ok(()),
        other => other.at(Attempt::SchedSetaffinity),
    }
}

pub(crate) fn set_personality(persona: u32) -> Outcome {
    process::personality(persona).at(Attempt::Personality)
}

pub(crate) fn set_memory_policy(mode: u32, nodes: &[u8]) -> Outcome {
    process::set_mempolicy(mode, nodes).at(Attempt::SetMempolicy)
}

/// Up to the kernel's last capability, which says EINVAL to the next.
pub(crate) fn drop_bounding(keep: u64) -> Outcome {
    for capability in 0..64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        match cred::drop_bounding(capability) {
            Ok(()) => {}
            Err(Errno::EINVAL) => break,
            // Without CAP_SETPCAP (exec in a user namespace that was joined without it): what is dropped already is good.
            Err(Errno::EPERM) if cred::in_bounding(capability) == Ok(false) => {}
            Err(errno) => {
                return Err(Failure { attempt: Attempt::Bounding, errno, detail: i64::from(capability) });
            }
        }
    }
    Ok(())
}

pub(crate) fn set_capabilities(sets: Capabilities) -> Outcome {
    // Ambient capabilities go with whatever leaves permitted or inheritable; what the caller had is cleared by name.
    cred::clear_ambient().at(Attempt::Ambient)?;
    cred::capset(sets.effective, sets.permitted, sets.inheritable).at(Attempt::Capset)?;
    // The kernel raises what is permitted and inheritable and says EPERM to the rest; runc warns about those, and its default
    // config has three of them. The compiler warns; here they are left out.
    let ambient = sets.ambient & sets.permitted & sets.inheritable;
    for capability in (0..64).filter(|capability| ambient & (1 << capability) != 0) {
        cred::raise_ambient(capability).map_err(|errno| Failure {
            attempt: Attempt::Ambient,
            errno,
            detail: i64::from(capability),
        })?;
    }
    Ok(())
}

impl Init {
    /// Groups, gid, uid. Capabilities stay permitted and effective: SetCapabilities sets them at the end, and in between a
    /// seccomp filter may have to be loaded.
    pub(crate) fn set_user(
        &mut self,
        uid: u32,
        gid: u32,
        groups: Option<&[u32]>,
        umask: Option<u32>,
    ) -> Outcome {
        if let Some(groups) = groups {
            match cred::setgroups(groups) {
                // A namespace that is joined says so only now (user_namespaces(7)): as runc does, none are the ones that it has.
                Err(Errno::EPERM) if groups.is_empty() && self.setgroups_denied()? => {}
                set => set.at(Attempt::Setgroups)?,
            }
        }
        cred::setgid(gid).at(Attempt::Setgid)?;
        if uid == 0 {
            cred::setuid(0).at(Attempt::Setuid)?;
        } else {
            cred::keep_capabilities(true).at(Attempt::Prctl)?;
            cred::setuid(uid).at(Attempt::Setuid)?;
            let (_, permitted, inheritable) = cred::capget().at(Attempt::Capset)?;
            cred::capset(permitted, permitted, inheritable).at(Attempt::Capset)?;
            cred::keep_capabilities(false).at(Attempt::Prctl)?;
        }
        process::umask(umask.unwrap_or(self.umask));
        Ok(())
    }

    /// Whether the user namespace denies setgroups.
    fn setgroups_denied(&mut self) -> Outcome<bool> {
        let file = self.proc()?.open_file(b"self/setgroups", fs::O_RDONLY).at(Attempt::Proc)?;
        let mut word = [0u8; 4];
        Ok(fs::read(&file, &mut word).at(Attempt::Proc)? == 4 && word == *b"deny")
    }

    /// stdin, stdout and stderr belong to the container's user, so that it can open `/proc/self/fd/1` and its kind again. The
    /// host's /dev/null belongs to everybody and becomes the container's, which `/proc/self/fd` can name.
    pub(crate) fn own_stdio(&mut self, uid: u32) -> Outcome {
        for number in 0..3 {
            let file = Borrowed(number);
            let stat = match fs::stat(&file, b"") {
                Err(Errno::EBADF) => continue,
                other => other.at(Attempt::Stat)?,
            };
            if stat.is_char_device(1, 3) {
                self.reopen_null(number)?;
                continue;
            }
            if stat.uid == uid {
                continue;
            }
            match fs::fchown(&file, uid, u32::MAX) {
                // Files that the user namespace does not own, on filesystems that are read-only: as with runc, no reason to
                // fail.
                Ok(())
                | Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
                Err(errno) => {
                    return Err(Failure { attempt: Attempt::Chown, errno, detail: i64::from(number) });
                }
            }
        }
        Ok(())
    }

    /// Puts the container's /dev/null in place of the host's; a container without one keeps the host's.
    fn reopen_null(&mut self, number: i32) -> Outcome {
        let Ok(null) = self.root()?.open(b"/dev/null", fs::O_RDWR | fs::O_NOFOLLOW | fs::O_NONBLOCK) else {
            return Ok(());
        };
        if fs::stat(&null, b"").at(Attempt::Stat)?.is_char_device(1, 3) {
            fs::dup_onto(&null, number).at(Attempt::Open)?;
        }
        Ok(())
    }

    pub(crate) fn set_oom_score_adj(&mut self, value: i32) -> Outcome {
        let text = alloc::format!("{value}");
        match self.write_own(b"self/oom_score_adj", text.as_bytes()) {
            // Lowering it takes CAP_SYS_RESOURCE: where the value is the one asked for already, nothing is lost.
            Err(failure @ Failure { errno: Errno::EACCES | Errno::EPERM, .. }) => {
                if self.oom_score_adj_is(value) { Ok(()) } else { Err(failure) }
            }
            other => other,
        }
    }

    fn oom_score_adj_is(&mut self, value: i32) -> bool {
        let mut text = [0u8; 16];
        self.proc()
            .ok()
            .and_then(|proc| proc.open_file(b"self/oom_score_adj", fs::O_RDONLY).ok())
            .and_then(|file| fs::read(&file, &mut text).ok())
            .and_then(|length| core::str::from_utf8(&text[..length]).ok()?.trim().parse().ok())
            == Some(value)
    }

    /// `attr/apparmor/exec` since Linux 5.1, `attr/exec` before.
    pub(crate) fn set_apparmor(&mut self, profile: &str) -> Outcome {
        let value = alloc::format!("exec {profile}");
        match self.write_own(b"self/attr/apparmor/exec", value.as_bytes()) {
            Err(Failure { errno: Errno::ENOENT, .. }) => self.write_own(b"self/attr/exec", value.as_bytes()),
            other => other,
        }
    }

    pub(crate) fn join_session_keyring(&mut self, name: &str, label: Option<&str>) -> Outcome {
        if let Some(label) = label {
            self.write_own(b"self/attr/keycreate", label.as_bytes())?;
        }
        let ring = match process::join_session_keyring(name.as_bytes()) {
            // No keyrings in this kernel: runc goes on too.
            Err(Errno::ENOSYS) => return Ok(()),
            other => other.at(Attempt::Keyctl)?,
        };
        if label.is_some() {
            self.write_own(b"self/attr/keycreate", b"")?;
        }
        // What the kernel gives a new session keyring (security/keys/process_keys.c), and search for its user, as runc has it.
        const PERMISSIONS: u32 = 0x3f13_0000 | 0x0008_0000;
        process::set_keyring_permissions(ring, PERMISSIONS).at(Attempt::Keyctl)
    }
}
