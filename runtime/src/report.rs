//! From init's sixteen bytes to a sentence: which step, which call, why, and what may help.

use crate::error::{Ending, errno_text, quoted_output};
use cofferdam_step::{Attempt, Namespace, Namespaces, Report, Source, Step};
use nix::libc;
use std::fmt::{Display, Formatter};

/// Init could not carry out a step of its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailed {
    /// The verb: `create`, `run`, `start`, `exec`.
    pub verb: &'static str,
    /// The container.
    pub container: String,
    /// The step's place in the plan, from 1.
    pub number: usize,
    /// How many steps the plan has.
    pub total: usize,
    /// The step in words.
    pub step: String,
    /// The part of the step that failed, in words; a system call's name where there is one.
    pub attempt: String,
    /// Why, from the kernel; 0 when no system call failed.
    pub errno: i32,
    /// The end of the sentence: errno's text, or what engines want to read instead.
    pub why: String,
    /// What may have caused it.
    pub hint: Option<&'static str>,
    /// Whether a hook of the container's namespaces failed: what it wrote follows the report.
    pub is_a_hook: bool,
}

impl StepFailed {
    /// The sentence of a [`cofferdam_step::ReportKind::Failed`] report about the plan's `steps`.
    pub fn new(verb: &'static str, container: &str, steps: &[Step], report: Report) -> StepFailed {
        let index = usize::from(report.step);
        let step = steps.get(index);
        let (attempt, why) = match step {
            Some(step) => sentence(step, steps, &report),
            None => (report.attempt.name().into(), errno_text(report.errno)),
        };
        StepFailed {
            verb,
            container: container.into(),
            number: index + 1,
            total: steps.len(),
            step: step.map_or_else(|| "begin".into(), ToString::to_string),
            attempt,
            errno: report.errno,
            why,
            hint: step.and_then(|step| hint(step, report.attempt, report.errno)),
            is_a_hook: matches!(step, Some(Step::RunHooks(_))),
        }
    }

    /// The same with what the hook wrote.
    pub fn with_output(mut self, output: &str) -> StepFailed {
        self.why.push_str(&quoted_output(output));
        self
    }
}

impl Display for StepFailed {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: step {}/{}, {}: ", self.verb, self.container, self.number, self.total, self.step)?;
        if !self.attempt.is_empty() {
            write!(f, "{}: ", self.attempt)?;
        }
        f.write_str(&self.why)?;
        match self.hint {
            Some(hint) => write!(f, ". Hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StepFailed {}

/// The container's program as the plan's last step names it.
fn program(steps: &[Step]) -> &str {
    match steps.last() {
        Some(Step::Exec { args, .. }) => args.first().map_or("", String::as_str),
        _ => "",
    }
}

/// The attempt and the reason in words.
fn sentence(step: &Step, steps: &[Step], report: &Report) -> (String, String) {
    let errno = report.errno;
    let plain = (report.attempt.name().to_string(), errno_text(errno));
    match step {
        Step::ResolveProgram => lookup(program(steps), errno),
        Step::Exec { args, .. } if args.is_empty() => {
            (String::new(), "config.json /process: process property must not be empty".into())
        }
        Step::Exec { args, .. } => {
            (format!("exec {}", args.first().map_or("", String::as_str)), errno_text(errno))
        }
        // podman knows an LSM's refusal by this path.
        Step::SetAppArmor { .. } | Step::SetSelinux { .. } if report.attempt != Attempt::Proc => {
            (format!("{} /proc/thread-self/attr/exec", report.attempt.name()), errno_text(errno))
        }
        Step::RunHooks(hooks) => {
            let index = (report.detail & 0xffff_ffff) as usize;
            let path = hooks.hooks.get(index).map_or("", |hook| hook.path.as_str());
            let name = format!("error running {} hook #{index}: {path}", hooks.kind);
            match report.attempt {
                Attempt::HookStatus if errno == 0 => {
                    (String::new(), format!("{name} {}", hook_ending(report.detail)))
                }
                Attempt::HookTimeout if errno == libc::ETIMEDOUT => {
                    let limit = hooks.hooks.get(index).and_then(|hook| hook.timeout).unwrap_or_default();
                    (String::new(), format!("{name} took longer than its timeout of {limit} s"))
                }
                attempt => (format!("{name}: {}", attempt.name()), errno_text(errno)),
            }
        }
        Step::Mount(mount) if report.attempt == Attempt::FsConfig => {
            let options = match &mount.source {
                Source::New { options, .. } | Source::Remount { options, .. } => options.as_slice(),
                _ => &[],
            };
            let key = usize::try_from(report.detail).ok().and_then(|index| options.get(index));
            match key {
                Some(option) => (format!("option {:?}", option.key), errno_text(errno)),
                None => plain,
            }
        }
        Step::Mount(mount) if report.attempt == Attempt::Symlinked => (
            String::new(),
            format!("filesystem \"{}\" must be mounted on ordinary directory", mount.destination),
        ),
        // runc's words.
        Step::Mount(mount) if report.attempt == Attempt::CoversRoot => {
            (String::new(), format!("mountpoint {:?} is on the top of rootfs", mount.destination))
        }
        _ if report.attempt == Attempt::OutsideRoot => {
            (String::new(), "current working directory is outside of container mount namespace root".into())
        }
        _ if errno == 0 => (String::new(), format!("could not {}", report.attempt.name())),
        _ => plain,
    }
}

/// A program that was not found, in the words of Go's `os/exec`, by which engines choose 126 or 127.
fn lookup(program: &str, errno: i32) -> (String, String) {
    let why = match (errno, program.contains('/')) {
        (libc::ENOENT, false) => "executable file not found in $PATH".into(),
        (libc::ENOENT | libc::ENOTDIR, true) => format!("stat {program}: {}", errno_text(errno)),
        // With the kernel's own answer, of which podman makes 126; of an exec without it 255.
        (libc::EISDIR, _) => format!("{}: {}", errno_text(errno), errno_text(libc::EACCES)),
        _ => errno_text(errno),
    };
    (format!("exec: {program:?}"), why)
}

/// The wait status in the high half of a hook's report.
fn hook_ending(detail: i64) -> String {
    let status = (detail >> 32) as i32;
    let ending = if libc::WIFSIGNALED(status) {
        Ending::Killed(libc::WTERMSIG(status))
    } else {
        Ending::Exited(libc::WEXITSTATUS(status))
    };
    ending.to_string()
}

/// What is known to cause this.
fn hint(step: &Step, attempt: Attempt, errno: i32) -> Option<&'static str> {
    use libc::{E2BIG, EACCES, EBUSY, EDQUOT, EINVAL, ENOENT, ENOEXEC, ENOSPC, EPERM};
    match (step, errno) {
        (Step::Exec { args, .. }, _) if args.is_empty() => None,
        (Step::Clone { namespaces } | Step::Unshare { namespaces }, errno) => {
            namespace_hint(*namespaces, errno)
        }
        (Step::EnterRoot { .. }, ENOSPC) => namespace_hint([Namespace::Mount].into_iter().collect(), errno),
        (Step::JoinNamespace { kind: Namespace::User, .. }, EINVAL) => {
            Some("a process cannot join the user namespace it is in already")
        }
        (Step::JoinNamespace { .. }, EPERM) => Some(
            "joining needs CAP_SYS_ADMIN in the user namespace that owns the namespace; join that user namespace too",
        ),
        (Step::Mount(mount), EPERM) => match &mount.source {
            Source::New { fstype, .. } if fstype == "sysfs" => {
                Some("this user namespace does not own the network namespace")
            }
            Source::New { fstype, .. } if fstype == "proc" => Some(
                "the kernel allows no new procfs while parts of the present one are covered by mounts (a container in a container)",
            ),
            Source::New { .. } => Some("this filesystem cannot be mounted in a user namespace"),
            _ if attempt == Attempt::MountSetattr => {
                Some("the source is mounted with locked flags, which a user namespace cannot clear")
            }
            _ => None,
        },
        (Step::Mount(_), EINVAL) if attempt == Attempt::Idmap => {
            Some("the filesystem cannot be idmapped by this kernel, or is idmapped already")
        }
        (Step::Mount(_), ENOENT) if matches!(attempt, Attempt::OpenTree) => {
            Some("the mount's source is not there")
        }
        (Step::PivotRoot { no_pivot: false }, EINVAL) => {
            Some("a rootfs on a ramdisk cannot be pivoted to; --no-pivot helps there")
        }
        (Step::JoinSessionKeyring { .. }, EDQUOT) => Some(
            "the user's keys are used up (/proc/sys/kernel/keys/maxkeys, root_maxkeys); --no-new-keyring does without",
        ),
        (Step::SetRlimit(_) | Step::RaiseRlimit(_), EPERM) => {
            Some("a hard limit is raised only with CAP_SYS_RESOURCE")
        }
        (Step::SetOomScoreAdj { .. }, EACCES | EPERM) => {
            Some("the value is lowered only with CAP_SYS_RESOURCE")
        }
        (Step::SetScheduler(attr), EPERM) if attr.policy == libc::SCHED_DEADLINE as u32 => Some(
            "it needs CAP_SYS_NICE and all CPUs: process scheduler can't be used together with AllowedCPUs (resources.cpu.cpus)",
        ),
        (Step::SetScheduler(_), EPERM) => Some("the policy or a lower nice value needs CAP_SYS_NICE"),
        (Step::SetScheduler(_), EBUSY) => Some("the kernel has no bandwidth left for another deadline task"),
        (Step::SetIoPriority(_), EPERM) => Some("the real time class needs CAP_SYS_ADMIN or CAP_SYS_NICE"),
        (Step::SetAffinity { .. }, EINVAL) => Some("none of these CPUs is in the cgroup's cpuset"),
        (Step::SetAppArmor { .. }, ENOENT) => Some("the profile is not loaded into the kernel"),
        (Step::SetSelinux { .. }, EINVAL) => Some("the policy does not know the label"),
        (Step::SetUser { .. }, EINVAL) => Some("the uid or gid is not mapped into the user namespace"),
        (Step::SetSysctl { .. }, ENOENT) => {
            Some("this kernel has no such sysctl in the container's namespaces")
        }
        (Step::SetSysctl { .. }, EINVAL) => Some("the kernel refuses the value"),
        (Step::LoadSeccomp { .. }, EACCES) => {
            Some("a filter needs noNewPrivileges or CAP_SYS_ADMIN at this point")
        }
        (Step::LoadSeccomp { .. }, EBUSY) => Some("a filter with a listener is loaded already"),
        (Step::Exec { .. }, ENOENT) => {
            Some("the file is there, so its interpreter (the #! line or the dynamic loader) is not")
        }
        (Step::Exec { .. }, ENOEXEC) => {
            Some("it is built for another architecture, or is a script without a #! line")
        }
        (Step::Exec { .. }, E2BIG) => Some("arguments and environment are larger than the kernel takes"),
        (Step::MakeDevice { .. }, EPERM) => {
            Some("device nodes cannot be made in a user namespace or without CAP_MKNOD")
        }
        (_, ENOSPC) if matches!(attempt, Attempt::MoveMount | Attempt::Mount) => {
            Some("the mount namespace is full (/proc/sys/fs/mount-max)")
        }
        _ => None,
    }
}

/// What keeps the kernel from making a namespace.
fn namespace_hint(namespaces: Namespaces, errno: i32) -> Option<&'static str> {
    match errno {
        libc::ENOSPC | libc::EUSERS => {
            Some("a limit of /proc/sys/user/max_*_namespaces or 32 levels of nesting are reached")
        }
        libc::EPERM if namespaces.contains(Namespace::User) => Some(
            "unprivileged user namespaces are restricted (kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)",
        ),
        libc::EPERM => Some("namespaces need CAP_SYS_ADMIN; without it, a user namespace"),
        libc::EINVAL => Some("this kernel is built without one of these namespaces"),
        libc::EAGAIN => Some("the limit of processes is reached (RLIMIT_NPROC, pids.max)"),
        libc::ENOMEM => Some("the namespace's pid 1 is dead, or memory is short"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_step::{Hook, Hooks, ReportKind};

    fn failed(steps: &[Step], step: u16, attempt: Attempt, errno: i32, detail: i64) -> String {
        let report = Report { kind: ReportKind::Failed, attempt, step, errno, detail };
        StepFailed::new("create", "web", steps, report).to_string()
    }

    fn exec(program: &str) -> [Step; 2] {
        [Step::ResolveProgram, Step::Exec { args: vec![program.into()], env: vec![] }]
    }

    #[test]
    fn a_program_that_is_not_found_reads_as_engines_expect() {
        assert_eq!(
            failed(&exec("foo"), 0, Attempt::Open, libc::ENOENT, 0),
            "create web: step 1/2, find the program: exec: \"foo\": executable file not found in $PATH"
        );
        assert_eq!(
            failed(&exec("/foo"), 0, Attempt::Open, libc::ENOENT, 0),
            "create web: step 1/2, find the program: exec: \"/foo\": stat /foo: no such file or directory"
        );
        assert_eq!(
            failed(&exec("/x"), 0, Attempt::Open, libc::EACCES, 0),
            "create web: step 1/2, find the program: exec: \"/x\": permission denied"
        );
        assert_eq!(
            failed(&exec("/etc"), 0, Attempt::Open, libc::EISDIR, 0),
            "create web: step 1/2, find the program: exec: \"/etc\": is a directory: permission denied"
        );
        assert_eq!(
            failed(&exec("/etc/passwd/x"), 0, Attempt::Open, libc::ENOTDIR, 0),
            "create web: step 1/2, find the program: exec: \"/etc/passwd/x\": stat /etc/passwd/x: not a directory"
        );
    }

    #[test]
    fn a_program_that_cannot_be_executed_names_itself() {
        let text = failed(&exec("/x.sh"), 1, Attempt::Execve, libc::ENOEXEC, 0);
        assert!(text.contains("exec /x.sh: exec format error. Hint: it is built for another"), "{text}");
    }

    #[test]
    fn a_mount_option_is_named_but_its_value_is_not() {
        let mount = cofferdam_step::Mount {
            destination: "/sys".into(),
            source: Source::New {
                fstype: "cifs".into(),
                source: String::new(),
                options: vec![cofferdam_step::FsOption {
                    key: "password".into(),
                    value: Some("secret".into()),
                }],
                flags: 0,
                inherit_mode: false,
            },
            create: cofferdam_step::Create::Directory,
            attributes: Default::default(),
            recursive: Default::default(),
            propagation: vec![],
            idmap: None,
            idmap_recursive: false,
            pid_namespace: None,
            copy_up: false,
            links: cofferdam_step::Links::Followed,
            or_else: None,
        };
        let text = failed(&[Step::Mount(mount)], 0, Attempt::FsConfig, libc::EINVAL, 0);
        assert_eq!(text, "create web: step 1/1, mount cifs on /sys: option \"password\": invalid argument");
    }

    #[test]
    fn a_hook_tells_how_it_ended() {
        let hook = Hook { path: "/bin/hook".into(), args: vec![], env: vec![], timeout: Some(3) };
        let hooks = Hooks {
            kind: "createContainer".into(),
            hooks: vec![hook],
            state_head: String::new(),
            state_tail: String::new(),
            stdout: None,
            stderr: None,
        };
        let steps = [Step::RunHooks(hooks)];
        let text = failed(&steps, 0, Attempt::HookStatus, 0, 2 << (32 + 8));
        assert!(
            text.ends_with("error running createContainer hook #0: /bin/hook exited with status 2"),
            "{text}"
        );
        let text = failed(&steps, 0, Attempt::HookStatus, 0, 9 << 32);
        assert!(text.ends_with("was killed by SIGKILL"), "{text}");
        let text = failed(&steps, 0, Attempt::HookTimeout, libc::ETIMEDOUT, 0);
        assert!(text.ends_with("took longer than its timeout of 3 s"), "{text}");
    }

    #[test]
    fn an_lsm_failure_names_the_proc_file() {
        let steps = [Step::SetSelinux { label: "a:b:c".into() }];
        let text = failed(&steps, 0, Attempt::Write, libc::EINVAL, 0);
        assert!(text.contains("write /proc/thread-self/attr/exec: invalid argument. Hint:"), "{text}");
    }

    #[test]
    fn a_step_that_the_plan_does_not_have_is_still_told() {
        let text = failed(&[], 9, Attempt::Decode, libc::EINVAL, 0);
        assert_eq!(text, "create web: step 10/0, begin: read the plan: invalid argument");
    }
}
