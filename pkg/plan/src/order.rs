//! The order of a new container's plan.

use crate::draft::Draft;
use crate::idmap::Ids;
use crate::mounts::Context;
use crate::namespaces::Wanted;
use crate::paths::absolute;
use crate::{Host, HostStep, Options, Plan, Refused, SlotSource, Spec};
use crate::{
    annotations, cgroup, devices, hooks, limits, mounts, namespaces, netdevices, process, seccomp, sysctl,
};
use cofferdam_spec::{Process, Profile, clean};
use cofferdam_step::{Barrier, Namespace, Namespaces, Step};

/// How many steps a container has, beside its mounts.
const USUAL_STEPS: usize = 96;

/// Compiles the plan of `create` and `run`.
///
/// # Errors
/// When config.json breaks a MUST of the runtime-spec, asks for what this machine has not, or for what is not implemented.
pub fn compile(spec: &Spec, host: &Host, options: &Options) -> Result<Plan, Refused> {
    let mut draft = Draft::default();
    // A step is some hundred bytes: no list of them is copied because it grows.
    draft.init.reserve(USUAL_STEPS + spec.mounts.len());
    draft.warnings = spec.check()?;
    annotations::check(spec)?;
    let none = Process { cwd: "/".to_owned(), ..Process::default() };
    let process = match &spec.process {
        Some(process) => process,
        // Create can do without; the start that follows cannot.
        None if !options.run => &none,
        None => {
            let message = "process property must not be empty";
            return Err(Refused::new("/process", "config.md#process", message));
        }
    };
    let root = spec.root.as_ref().ok_or_else(|| missing("/root", "config.md#root"))?;
    check_console(process, options)?;
    check_no_pivot(spec, options)?;
    let mut wanted = Wanted::of(spec)?;
    wanted.clone_last(spec, host);
    let ids = Ids::of(spec, host, options, &wanted)?;
    if host.setgroups_denied && !ids.keep_groups && !process.user.additional_gids.is_empty() {
        let text = "config.json /process/user/additionalGids: this user namespace denies setgroups, so they stay as they are";
        draft.warnings.push(text.to_owned());
    }

    let placement = cgroup::prepare(&mut draft, spec, host, options, &wanted, &ids)?;
    let root_path = absolute(&options.bundle, &root.path);
    let context = Context {
        spec,
        root: &root_path,
        host,
        options,
        wanted: &wanted,
        ids: &ids,
        placement: &placement,
        from_outside: false,
    };
    let road = wanted.road();
    // The host opens what is mounted in a user namespace, the cgroup's directories too; else they can wait until init has
    // something to do.
    if ids.user_namespace {
        draft.host(HostStep::CompleteCgroup);
    }
    draft.host(HostStep::Spawn);
    wanted.enter(&mut draft, spec, &ids, context.opens_trees());
    wanted.conditions(&mut draft, spec);
    if !ids.user_namespace {
        draft.host(HostStep::CompleteCgroup);
    }
    draft.host(HostStep::EnterCgroup);
    netdevices::place(&mut draft, spec, &wanted, options)?;
    if ids.user_namespace {
        limits::from_the_host(&mut draft, process);
    }
    draft.host(HostStep::Release(Barrier::CgroupJoined));
    if let Some(Profile::Unread { .. }) = &spec.linux.seccomp {
        // Nobody waits for the host side now, in front of hooks and the commit.
        draft.host(HostStep::CompileFilter);
    }

    if !wanted.clones_last {
        draft.step(Step::NewSession);
    }
    keyring(&mut draft, process, options);
    names(&mut draft, spec, &wanted);
    filesystem(&mut draft, &context, process)?;
    draft.need_cgroup();
    if wanted.new.contains(Namespace::Cgroup) {
        context.enter_cgroup_namespace(&mut draft);
    }
    rights(&mut draft, &context, process)?;
    if wanted.clones_last {
        clone_last(&mut draft, process);
    }
    if host.euid != 0 && wanted.joined.is_empty() && (!options.run || spec.linux.seccomp.is_some()) {
        // Whoever is in a namespace that is joined may not come near init (CVE-2016-9962).
        draft.step(Step::ShowToOwner);
    }
    let mut filter = filter(&mut draft, spec, host, process)?;
    let early = !options.run && filter.first().is_some_and(seccomp::belongs_to_create);
    if early {
        draft.init.append(&mut filter);
    }
    commit(&mut draft, options);
    draft.init.append(&mut filter);
    // They are what the container can exchange: with the program's rights and below its filter, as with runc.
    hooks::start_container(&mut draft, spec, options);
    draft.step(Step::Exec { args: process.args.clone(), env: process::environment(process) });
    if !road.staged {
        cgroup::prepare_behind_the_spawn(&mut draft, &placement);
    }
    Ok(draft.plan(road))
}

fn missing(pointer: &str, section: &'static str) -> Refused {
    Refused::new(pointer, section, "is missing")
}

fn check_console(process: &Process, options: &Options) -> Result<(), Refused> {
    let message = match (process.terminal, options.console) {
        (true, false) => "cannot allocate tty if the runtime will detach without setting console socket",
        (false, true) => "cannot use console socket if the runtime will not allocate tty",
        _ => return Ok(()),
    };
    Err(Refused::new("/process/terminal", "config.md#process", message))
}

/// The container would be in the host's mount tree, and could be the only one to see what happens in it.
fn check_no_pivot(spec: &Spec, options: &Options) -> Result<(), Refused> {
    if options.no_pivot && matches!(spec.linux.rootfs_propagation.as_str(), "private" | "rprivate") {
        let message = "rootfsPropagation of [r]private is not safe without pivot_root";
        return Err(Refused::new(
            "/linux/rootfsPropagation",
            "config-linux.md#rootfs-mount-propagation",
            message,
        ));
    }
    Ok(())
}

fn keyring(draft: &mut Draft, process: &Process, options: &Options) {
    if !options.no_new_keyring {
        let label = &process.selinux_label;
        draft.step(Step::JoinSessionKeyring {
            name: format!("_ses.{}", options.id),
            label: (!label.is_empty()).then(|| label.clone()),
        });
    }
}

/// What new network and uts namespaces begin with.
fn names(draft: &mut Draft, spec: &Spec, wanted: &Wanted) {
    if wanted.new.contains(Namespace::Network) {
        draft.step(Step::BringUpLoopback);
    }
    if !spec.hostname.is_empty() {
        draft.step(Step::SetHostname { name: spec.hostname.clone() });
    }
    if !spec.domainname.is_empty() {
        draft.step(Step::SetDomainname { name: spec.domainname.clone() });
    }
}

/// From the host's mounts to the container's root, finished.
fn filesystem(draft: &mut Draft, context: &Context<'_>, process: &Process) -> Result<(), Refused> {
    let spec = context.spec;
    context.prepare_root(draft, context.root);
    let cgroups_wait = context.cgroups_can_wait();
    context.mount_most(draft, cgroups_wait)?;
    if devices::are_ours(spec) {
        devices::make(draft, context);
    }
    context.mount_rest(draft, cgroups_wait)?;
    mounts::open_ahead(draft);
    hooks::runtime(draft, spec);
    hooks::create_container(draft, spec, context.options);
    let cwd = clean(&process.cwd);
    if cwd != "/" {
        // In front of a root that becomes read-only. runc makes it too.
        draft.step(Step::MakeDirectory { path: cwd.into_owned(), mode: 0o755 });
    }
    draft.step(match context.wanted.has(Namespace::Mount) {
        true => Step::PivotRoot { no_pivot: context.options.no_pivot },
        false => Step::ChangeRoot { path: None },
    });
    if process.terminal {
        console(draft, process, true, context.options.foreground);
        if !context.wanted.clones_last {
            draft.step(Step::TakeTerminal);
        }
    }
    context.remount_read_only(draft);
    if spec.root.as_ref().is_some_and(|root| root.readonly) {
        draft.step(Step::MakeRootReadonly);
    }
    let late = mounts::late_root_propagation(&spec.linux.rootfs_propagation);
    let (shared, unbindable) = if mounts::is_shared(late) { (late, None) } else { (None, late) };
    draft.init.extend(shared.map(Step::SetRootPropagation));
    sysctl::set(draft, spec);
    for path in &spec.linux.readonly_paths {
        draft.step(Step::MakeReadonly { path: clean(path).into_owned() });
    }
    if !spec.linux.mount_label.is_empty() && context.label().is_none() {
        let warning = "config.json /linux/mountLabel: ignored, as SELinux is not enabled on this machine";
        draft.warnings.push(warning.to_owned());
    }
    for path in &spec.linux.masked_paths {
        draft.step(Step::MaskPath { path: clean(path).into_owned(), label: context.label() });
    }
    // Behind the last bind mount: what is unbindable can be bound no more (runc fails there).
    draft.init.extend(unbindable.map(Step::SetRootPropagation));
    context.enter_alone(draft);
    Ok(())
}

/// The terminal: rows and columns beyond 65,535 are no size, as check() says.
pub(crate) fn console(draft: &mut Draft, process: &Process, mount: bool, plain: bool) {
    let socket = draft.slot(SlotSource::ConsoleSocket);
    let size = process.console_size.map(|size| (size.height as u16, size.width as u16));
    draft.step(Step::OpenConsole { socket, size, mount, uid: process.user.uid, plain });
}

/// What the process is allowed and limited to, up to where it waits.
fn rights(draft: &mut Draft, context: &Context<'_>, process: &Process) -> Result<(), Refused> {
    let spec = context.spec;
    draft.step(Step::SetAffinity { mask: Vec::new() });
    limits::priorities(draft, process);
    let domain = spec.linux.personality.as_ref().map(|personality| personality.domain.as_str());
    limits::personality(draft, domain);
    limits::memory_policy(draft, spec)?;
    if context.wanted.clones_last {
        limits::from_init_before_its_clone(draft, process);
    } else if !context.ids.user_namespace {
        limits::from_init(draft, process);
    }
    if process.no_new_privileges {
        draft.step(Step::SetNoNewPrivileges);
    }
    process::labels(draft, process, context.host)?;
    process::become_user(draft, process, context.ids, process::umask(process));
    draft.step(Step::SealDescriptors { preserve: context.options.preserve_fds });
    let for_the_filter = spec.linux.seccomp.is_some() && !process.no_new_privileges;
    if !for_the_filter {
        draft.init.extend(process::set_capabilities(process));
    }
    if !process.args.is_empty() {
        draft.step(Step::ResolveProgram);
    }
    // Whoever is in the pid namespace already, or is brought into the container until its start, may trace the process, and must not find
    // all rights there.
    if for_the_filter && (context.wanted.clones_last || !context.options.run) {
        draft.init.extend(process::set_capabilities_but_for_the_filter(process));
    }
    Ok(())
}

/// Into the pid namespace that others are in already, with nothing that they may not have.
fn clone_last(draft: &mut Draft, process: &Process) {
    namespaces::clone(draft, Namespaces::default());
    draft.host(HostStep::Release(Barrier::Followed));
    draft.step(Step::Await(Barrier::Followed));
    behind_the_clone(draft, process);
}

/// What only the process itself can do, where it is cloned last.
pub(crate) fn behind_the_clone(draft: &mut Draft, process: &Process) {
    limits::from_the_clone(draft, process);
    draft.step(Step::NewSession);
    if process.terminal {
        draft.step(Step::TakeTerminal);
    }
}

/// Where `create` ends and `start` goes on. Only now does the container exist for others: whoever enters init's namespaces before its
/// root is the container's is in the host's.
fn commit(draft: &mut Draft, options: &Options) {
    draft.host(HostStep::DraftState);
    draft.host(HostStep::Await(Barrier::Committed));
    draft.step(Step::Tell(Barrier::Committed));
    draft.host(HostStep::Commit);
    draft.host(HostStep::Release(Barrier::Committed));
    draft.step(Step::Await(Barrier::Committed));
    if !options.run {
        let listener = draft.slot(SlotSource::StartListener);
        draft.step(Step::AwaitStart { listener });
    }
}

/// Mostly behind the start barrier. Loading a filter without no_new_privs needs CAP_SYS_ADMIN, so that the capabilities go last then.
fn filter(draft: &mut Draft, spec: &Spec, host: &Host, process: &Process) -> Result<Vec<Step>, Refused> {
    let Some(profile) = &spec.linux.seccomp else { return Ok(Vec::new()) };
    let (load, mut warnings) = seccomp::load(profile, host)?;
    draft.warnings.append(&mut warnings);
    let mut steps = vec![load];
    if !process.no_new_privileges {
        steps.extend(process::set_capabilities(process));
    }
    Ok(steps)
}
