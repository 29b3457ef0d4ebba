//! The plan of an exec: another process in a container that runs.

use crate::draft::Draft;
use crate::idmap::Ids;
use crate::order::console;
use crate::paths::absolute;
use crate::{Filter, Host, HostStep, Options, Plan, Refused, Road, SlotSource, Spec};
use crate::{limits, namespaces, process};
use cofferdam_spec::{ExecCpuAffinity, IdMapping, Process, parse_cpu_list};
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
    let road = join(&mut draft, container);
    draft.host(HostStep::EnterCgroup);
    if user_namespace {
        limits::from_the_host(&mut draft, process);
    }
    draft.host(HostStep::Release(Barrier::CgroupJoined));
    affinity(&mut draft, process, |affinity| &affinity.initial)?;
    draft.need_cgroup();
    if container.host_root.is_some() {
        draft.step(Step::ChangeRoot { path: container.host_root.clone() });
    }
    prepare(&mut draft, process, container, options)?;
    rights(&mut draft, process, container, host, &ids, options)?;
    draft.host(HostStep::Commit);
    draft.host(HostStep::Release(Barrier::Committed));
    draft.step(Step::Await(Barrier::Committed));
    if let Some(filter) = &container.seccomp {
        draft.step(filter.load());
        if !process.no_new_privileges {
            draft.init.extend(process::set_capabilities(process));
        }
    }
    draft.step(Step::Exec { args: process.args.clone(), env: process::environment(process) });
    Ok(draft.plan(road))
}

/// Into the container, always by the staged road where its pid namespace is not ours: until its execve a process that was born
/// in there would be one of the host's binary, for whoever in the container may trace (CVE-2019-5736). The sealed image joins
/// everything, and its clone is the first that the container can see.
fn join(draft: &mut Draft, container: &ExecTarget) -> Road {
    let pidfd = draft.slot(SlotSource::Process);
    let theirs = container.namespaces;
    let staged = theirs.contains(Namespace::User) || theirs.contains(Namespace::Pid);
    if !theirs.is_empty() {
        draft.step(Step::JoinProcess { pidfd, namespaces: theirs });
    }
    if staged {
        namespaces::clone(draft, Namespaces::default());
    }
    if theirs.contains(Namespace::User) {
        draft.step(Step::BecomeNamespaceRoot);
    }
    Road { staged, ..Road::default() }
}

fn prepare(
    draft: &mut Draft,
    process: &Process,
    container: &ExecTarget,
    options: &ExecOptions,
) -> Result<(), Refused> {
    draft.step(Step::NewSession);
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
            draft.step(Step::TakeTerminal);
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
) -> Result<(), Refused> {
    match &process.exec_cpu_affinity {
        Some(given) if !(given.initial.is_empty() && given.last.is_empty()) => {
            affinity(draft, process, |affinity| &affinity.last)?;
        }
        _ => draft.step(Step::SetAffinity { mask: Vec::new() }),
    }
    limits::priorities(draft, process);
    limits::personality(draft, container.personality.as_deref());
    if !ids.user_namespace {
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
