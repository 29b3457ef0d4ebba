//! What init says: fixed-size records, so that it needs neither memory nor text to say that something went wrong.

/// One record from init, [`Report::SIZE`] bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it says.
    pub kind: ReportKind,
    /// For a failure: which call of the step.
    pub attempt: Attempt,
    /// Index into [`crate::Program::steps`].
    pub step: u16,
    /// For a failure: the errno.
    pub errno: i32,
    /// Depends on kind and step: a pid, a descriptor number, an exit status of a hook, an index into a list.
    pub detail: i64,
}

/// What a [`Report`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReportKind {
    /// The step failed, init has ended.
    Failed = 1,
    /// Init stands at the [`crate::Barrier`] in `detail`.
    AtBarrier = 2,
    /// `detail` is the pid of the process that carries out the rest, as the host sees it.
    Cloned = 3,
    /// `detail` is the number of the seccomp listener in init's descriptor table; init waits for a byte.
    SeccompListener = 4,
    /// All that can fail with a word has been done: the stream's end now means that the program runs.
    Executing = 5,
    /// The step begins, at `detail` nanoseconds since 1970. Only of a [`crate::Program`] that is timed.
    Timed = 6,
}

macro_rules! attempts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Which call failed inside a step; its name is what the user reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Attempt { $($(#[$doc])* $name,)* }

        impl Attempt {
            const ALL: &'static [Attempt] = &[$(Attempt::$name,)*];
            /// What the user reads: mostly the name of the system call.
            pub const fn name(self) -> &'static str {
                match self { $(Attempt::$name => $text,)* }
            }
        }
    };
}

attempts! {
    None = "",
    Decode = "read the plan",
    Setns = "setns",
    Unshare = "unshare",
    Clone3 = "clone3",
    Fork = "fork",
    OpenRoot = "open the rootfs",
    Resolve = "resolve the path",
    MakeDir = "mkdir",
    MakeNode = "mknod",
    MakeFile = "create the file",
    Symlink = "symlink",
    Readlink = "readlink",
    Unlink = "unlink",
    Open = "open",
    Read = "read",
    Write = "write",
    Stat = "stat",
    Chown = "chown",
    Chmod = "chmod",
    FsOpen = "fsopen",
    FsConfigSource = "fsconfig source",
    /// `detail` is the index of the option.
    FsConfig = "fsconfig",
    FsConfigCreate = "fsconfig create",
    FsMount = "fsmount",
    FsPick = "fspick",
    OpenTree = "open_tree",
    MountSetattr = "mount_setattr",
    Idmap = "mount_setattr idmap",
    Propagation = "set propagation",
    MoveMount = "move_mount",
    Mount = "mount",
    Remount = "remount",
    Umount = "umount2",
    PivotRoot = "pivot_root",
    Chroot = "chroot",
    Chdir = "chdir",
    Fchdir = "fchdir",
    Getcwd = "getcwd",
    CopyUp = "copy the covered directory",
    OutsideRoot = "prove that the directory lies inside the container",
    WrongType = "check the file's type",
    Symlinked = "check that the destination is no symbolic link",
    CoversRoot = "check that the destination is not the rootfs itself",
    Proc = "open a private procfs",
    Socket = "socket",
    Ioctl = "ioctl",
    SendFd = "send the terminal's master",
    Accept = "accept",
    Setsid = "setsid",
    Sethostname = "sethostname",
    Setdomainname = "setdomainname",
    Keyctl = "keyctl",
    Prctl = "prctl",
    Prlimit = "prlimit64",
    SchedSetattr = "sched_setattr",
    SchedSetaffinity = "sched_setaffinity",
    IoprioSet = "ioprio_set",
    Personality = "personality",
    SetMempolicy = "set_mempolicy",
    Setgroups = "setgroups",
    Setgid = "setresgid",
    Setuid = "setresuid",
    Bounding = "prctl PR_CAPBSET_DROP",
    Capset = "capset",
    Ambient = "prctl PR_CAP_AMBIENT",
    Seccomp = "seccomp",
    CloseRange = "close_range",
    Execve = "execve",
    /// `detail`: the index of the hook in the low 32 bits, its wait status in the high ones.
    HookStatus = "run the hook",
    HookTimeout = "wait for the hook",
    OutOfMemory = "allocate memory",
    Pty = "open the pseudo terminal",
    EnterCgroup = "enter the cgroup",
    PidNamespaceOfProc = "fsconfig pidns",
    Panic = "run init",
}

impl Attempt {
    const fn from_byte(byte: u8) -> Option<Attempt> {
        if (byte as usize) < Self::ALL.len() { Some(Self::ALL[byte as usize]) } else { None }
    }
}

impl Report {
    /// Behind the record of a hook's failure come at most that many bytes of what the hook wrote, and the end of the stream.
    pub const MOST_APPENDED: usize = 4096;
    /// Bytes of one record on the wire.
    pub const SIZE: usize = 16;

    /// The record as bytes.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0] = self.kind as u8;
        bytes[1] = self.attempt as u8;
        bytes[2..4].copy_from_slice(&self.step.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.detail.to_le_bytes());
        bytes
    }

    /// The record of some bytes; none when they say nothing that init says.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Report> {
        let kind = match bytes[0] {
            1 => ReportKind::Failed,
            2 => ReportKind::AtBarrier,
            3 => ReportKind::Cloned,
            4 => ReportKind::SeccompListener,
            5 => ReportKind::Executing,
            6 => ReportKind::Timed,
            _ => return None,
        };
        Some(Report {
            kind,
            attempt: Attempt::from_byte(bytes[1])?,
            step: u16::from_le_bytes([bytes[2], bytes[3]]),
            errno: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            detail: i64::from_le_bytes([
                bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15],
            ]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_survives_the_wire() {
        for (i, attempt) in Attempt::ALL.iter().enumerate() {
            let report = Report {
                kind: ReportKind::Failed,
                attempt: *attempt,
                step: i as u16,
                errno: -1,
                detail: 1 << 40,
            };
            assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        }
    }

    #[test]
    fn an_unknown_record_is_no_report() {
        assert_eq!(Report::from_bytes(&[0; 16]), None);
        assert_eq!(Report::from_bytes(&[1, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
