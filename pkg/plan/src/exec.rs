//! The plan of an exec: another process in a container that runs.

use crate::draft::Draft;
use crate::idmap::Ids;
use crate::order::{behind_the_clone, console};
use crate::paths::absolute;
use crate::{Filter, Host, HostStep, Options, Plan, Refused, Road, SlotSource, Spec};
use crate::{limits, namespaces, process};
use cofferdam_seccomp::interpret::Preview;
use cofferdam_spec::{ExecCpuAffinity, IdMapping, Process, clean, lies_in, parse_cpu_list};
use cofferdam_step::{Barrier, Namespace, Namespaces, Step};
use serde::{Deserialize, Serialize};

/// What an exec must know of the container: a part of its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecTarget {
    /// The container's id.
    pub id: String,
    /// The namespaces that the container has of its own, made or joined.
    pub namespaces: Namespaces,
    /// Mappings of its user namespace, as far as config.json says.
    pub uid_mappings: Vec<IdMapping>,
    /// The same for groups.
    pub gid_mappings: Vec<IdMapping>,
    /// The user namespace's setgroups is `deny`, or an annotation keeps the groups of whoever calls.
    pub deny_setgroups: bool,
    /// Its seccomp filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Filter>,
    /// Its personality's domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<String>,
    /// It was made with `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// Its rootfs on the host, when it is in the host's mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_root: Option<String>,
}

impl ExecTarget {
    /// Takes from a container's config what later execs need.
    pub fn of(spec: &Spec, host: &Host, options: &Options, plan: &Plan) -> Result<ExecTarget, Refused> {
        let wanted = namespaces::Wanted::of(spec)?;
        let ids = Ids::of(spec, host, options, &wanted)?;
        let deny_setgroups = !ids.sets_groups();
        Ok(ExecTarget {
            id: options.id.clone(),
            namespaces: Namespace::ALL.into_iter().filter(|kind| wanted.has(*kind)).collect(),
            uid_mappings: ids.uid,
            gid_mappings: ids.gid,
            deny_setgroups,
            seccomp: Filter::of(spec, plan),
            personality: spec.linux.personality.as_ref().map(|personality| personality.domain.clone()),
            no_new_keyring: options.no_new_keyring,
            host_root: spec
                .root
                .as_ref()
                .filter(|_| !wanted.has(Namespace::Mount))
                .map(|root| absolute(&options.bundle, &root.path)),
        })
    }
}

/// What the command line adds to the process document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecOptions {
    /// Descriptors from 3 on that the process inherits.
    pub preserve_fds: u32,
    /// There is a socket that takes the terminal's master.
    pub console: bool,
    /// The caller keeps the master and copies what comes out of it to its own stdout, which may be a file.
    pub foreground: bool,
}

/// Compiles the plan of `exec`.
///
/// # Errors
/// When the process breaks a MUST of the runtime-spec, or asks for what this machine has not.
pub fn compile_exec(
    process: &Process,
    container: &ExecTarget,
    host: &Host,
    options: &ExecOptions,
) -> Result<Plan, Refused> {
    compile_inner(process, container, host, options).map_err(Refused::in_process_json)
}

fn compile_inner(
    process: &Process,
    container: &ExecTarget,
    host: &Host,
    options: &ExecOptions,
) -> Result<Plan, Refused> {
    let mut draft = Draft::default();
    draft.warnings = process.check()?;
    let user_namespace = container.namespaces.contains(Namespace::User);
    let ids = Ids {
        uid: container.uid_mappings.clone(),
        gid: container.gid_mappings.clone(),
        deny_setgroups: container.deny_setgroups,
        setgroups_denied: false,
        keep_groups: false,
        user_namespace,
        joined: None,
    };
    ids.check_user(process)?;
    draft.host(HostStep::Spawn);
    let born = Born::of(process, container);
    let road = join(&mut draft, process, container, born)?;
    draft.host(HostStep::EnterCgroup);
    if user_namespace {
        limits::from_the_host(&mut draft, process);
    }
    draft.host(HostStep::Release(Barrier::CgroupJoined));
    if container.host_root.is_some() {
        draft.step(Step::ChangeRoot { path: container.host_root.clone() });
    }
    prepare(&mut draft, process, container, options, born)?;
    rights(&mut draft, process, container, host, &ids, options, born)?;
    if born != Born::First {
        come_in(&mut draft, process, container, born)?;
    }
    draft.host(HostStep::Commit);
    draft.host(HostStep::Release(Barrier::Committed));
    draft.step(Step::Await(Barrier::Committed));
    if let Some(filter) = container.seccomp.as_ref().filter(|_| born != Born::Filtered) {
        draft.step(filter.load());
        if !process.no_new_privileges {
            draft.init.extend(process::set_capabilities(process));
        }
    }
    draft.step(Step::Exec { args: process.args.clone(), env: process::environment(process) });
    Ok(draft.plan(road))
}

/// When the process is made that the container can see. Whoever in there may trace gets hold of it, with all that it has by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Born {
    /// As soon as it has joined the namespaces, with all rights. In a user namespace these are no more than the container's, and the
    /// sealed image is out of reach, for it was executed outside (`__ptrace_may_access` in `kernel/ptrace.c`).
    First,
    /// Last, with its program's rights, and CAP_SYS_ADMIN where it still has to load a filter without no_new_privs.
    Last,
    /// The same, with the filter loaded before: it lets through what is left to do.
    Filtered,
}

impl Born {
    fn of(process: &Process, container: &ExecTarget) -> Born {
        let theirs = container.namespaces;
        // A scheduler may not be inherited, and links like /proc/self lead nowhere for whoever is not in the pid namespace.
        let first = process.scheduler.is_some()
            || leads_to_itself(&process.cwd)
            || process.args.first().is_some_and(|program| leads_to_itself(program));
        match &container.seccomp {
            _ if first || !theirs.contains(Namespace::Pid) || theirs.contains(Namespace::User) => Born::First,
            Some(filter) if !process.no_new_privileges && lets_come_in(filter, process) => Born::Filtered,
            _ => Born::Last,
        }
    }
}

/// Whether a path may be one of the process itself.
fn leads_to_itself(path: &str) -> bool {
    const OWN: [&str; 5] = ["/proc", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"];
    let path = clean(path);
    OWN.iter().any(|own| lies_in(&path, own))
}

/// Whether a filter lets a process through from its clone to its execve, as [`come_in`] has it; what comes then it must let through anyhow.
fn lets_come_in(filter: &Filter, process: &Process) -> bool {
    const LISTENER: u32 = cofferdam_seccomp::flag::NEW_LISTENER;
    const CLONE_PARENT: u64 = 0x8000;
    const PR_SET_DUMPABLE: u64 = 4;
    const TIOCSCTTY: u64 = 0x540e;
    // SECCOMP_RET_ERRNO with EPERM and ENOSYS: without clone3 there is clone.
    const NO_CLONE3: [u32; 2] = [0x0005_0001, 0x0005_0026];
    let Some(arch) = cofferdam_seccomp::native_arch().filter(|_| filter.flags & LISTENER == 0) else {
        return false;
    };
    let preview = Preview::new(&filter.program, arch);
    let any = [None; 6];
    let first = |value| [Some(value), None, None, None, None, None];
    let second = |value| [None, Some(value), None, None, None, None];
    let always =
        ["recvmsg", "sendto", "write", "close", "sched_setaffinity", "setsid", "clock_gettime", "exit_group"];
    (preview.allows("clone3", any) || preview.answers("clone3", any, |value| NO_CLONE3.contains(&value)))
        && preview.allows("clone", [Some(CLONE_PARENT), Some(0), Some(0), Some(0), Some(0), Some(0)])
        && preview.allows("prctl", first(PR_SET_DUMPABLE))
        && always.iter().all(|name| preview.allows(name, any))
        && (!process.terminal || preview.allows("ioctl", second(TIOCSCTTY)))
        && (process.rlimits.is_empty() || preview.allows("prlimit64", second(limits::NPROC.into())))
}

/// Into the container, always by the staged road where its pid namespace is not ours: until its execve a process that was born
/// in there would be one of the host's binary, for whoever in the container may trace (CVE-2019-5736). The sealed image joins
/// everything, and its clone is the first that the container can see.
fn join(draft: &mut Draft, process: &Process, container: &ExecTarget, born: Born) -> Result<Road, Refused> {
    let pidfd = draft.slot(SlotSource::Process);
    let theirs = container.namespaces;
    let staged = theirs.contains(Namespace::User) || theirs.contains(Namespace::Pid);
    if !theirs.is_empty() {
        draft.step(Step::JoinProcess { pidfd, namespaces: theirs });
    }
    if staged {
        draft.host(HostStep::FollowClone);
    }
    if staged && born == Born::First {
        draft.step(Step::Clone { namespaces: Namespaces::default() });
    }
    if theirs.contains(Namespace::User) {
        draft.step(Step::BecomeNamespaceRoot);
    }
    affinity(draft, process, |affinity| &affinity.initial)?;
    if born == Born::First {
        draft.need_cgroup();
    }
    Ok(Road { staged, ..Road::default() })
}

fn prepare(
    draft: &mut Draft,
    process: &Process,
    container: &ExecTarget,
    options: &ExecOptions,
    born: Born,
) -> Result<(), Refused> {
    if born == Born::First {
        draft.step(Step::NewSession);
    }
    if !container.no_new_keyring {
        let label = &process.selinux_label;
        draft.step(Step::JoinSessionKeyring {
            name: format!("_ses.{}", container.id),
            label: (!label.is_empty()).then(|| label.clone()),
        });
    }
    match (process.terminal, options.console) {
        (true, true) => {
            console(draft, process, false, options.foreground);
            if born == Born::First {
                draft.step(Step::TakeTerminal);
            }
        }
        (false, false) => {}
        (true, false) => {
            let message = "cannot allocate tty if the runtime will detach without setting console socket";
            return Err(Refused::new("/process/terminal", "config.md#process", message));
        }
        (false, true) => {
            let message = "cannot use console socket if the runtime will not allocate tty";
            return Err(Refused::new("/process/terminal", "config.md#process", message));
        }
    }
    Ok(())
}

fn rights(
    draft: &mut Draft,
    process: &Process,
    container: &ExecTarget,
    host: &Host,
    ids: &Ids,
    options: &ExecOptions,
    born: Born,
) -> Result<(), Refused> {
    if born == Born::First {
        last_affinity(draft, process)?;
    }
    limits::priorities(draft, process);
    limits::personality(draft, container.personality.as_deref());
    if born != Born::First {
        limits::from_init_before_its_clone(draft, process);
    } else if !ids.user_namespace {
        limits::from_init(draft, process);
    }
    if process.no_new_privileges {
        draft.step(Step::SetNoNewPrivileges);
    }
    process::labels(draft, process, host)?;
    process::become_user(draft, process, ids, process.user.umask);
    draft.step(Step::SealDescriptors { preserve: options.preserve_fds });
    if process.no_new_privileges || container.seccomp.is_none() {
        draft.init.extend(process::set_capabilities(process));
    }
    draft.step(Step::ResolveProgram);
    Ok(())
}

/// Into the pid namespace, behind everything else. The cgroup comes behind the clone, which a cgroup that is full would refuse.
fn come_in(draft: &mut Draft, process: &Process, container: &ExecTarget, born: Born) -> Result<(), Refused> {
    match &container.seccomp {
        Some(filter) if born == Born::Filtered => {
            draft.step(filter.load());
            draft.init.extend(process::set_capabilities(process));
        }
        Some(_) if !process.no_new_privileges => {
            draft.init.extend(process::set_capabilities_but_for_the_filter(process));
        }
        _ => {}
    }
    draft.step(Step::Clone { namespaces: Namespaces::default() });
    draft.need_cgroup();
    last_affinity(draft, process)?;
    behind_the_clone(draft, process);
    Ok(())
}

/// The CPUs of the program, once it is in its cgroup.
fn last_affinity(draft: &mut Draft, process: &Process) -> Result<(), Refused> {
    match &process.exec_cpu_affinity {
        Some(given) if !(given.initial.is_empty() && given.last.is_empty()) => {
            affinity(draft, process, |affinity| &affinity.last)
        }
        _ => {
            draft.step(Step::SetAffinity { mask: Vec::new() });
            Ok(())
        }
    }
}

/// One of the two lists of `execCPUAffinity`, if it is given. With none of them the process gets all CPUs of its cgroup, as the
/// mask of whoever called the runtime is none of its business; with the first alone, what the kernel makes of it stays.
fn affinity(
    draft: &mut Draft,
    process: &Process,
    which: impl Fn(&ExecCpuAffinity) -> &String,
) -> Result<(), Refused> {
    let Some(list) = process.exec_cpu_affinity.as_ref().map(which).filter(|list| !list.is_empty()) else {
        return Ok(());
    };
    let mask = parse_cpu_list(list)
        .map_err(|message| Refused::new("/process/execCPUAffinity", "config.md#linux-process", message))?;
    draft.step(Step::SetAffinity { mask });
    Ok(())
}
