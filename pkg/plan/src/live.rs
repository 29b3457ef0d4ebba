//! Mounts of a container that runs: `mounts add` and `mounts remove`.
//!
//! Init's image joins the container's user and mount namespace alone, and there does for each entry what it would have done when
//! the container was created: destinations resolve below the rootfs handle, sources are opened by the host side, in the
//! host's mounts. It has no clone and no program; the container's processes do not see it, for its pid namespace is the host's.

use crate::draft::Draft;
use crate::idmap::Ids;
use crate::mounts::{Context, is_bind};
use crate::namespaces::Wanted;
use crate::{ExecTarget, Host, HostStep, Options, Plan, Road, SlotSource};
use cofferdam_cgroup::{Placement, Version};
use cofferdam_spec::{Mount, Refused, Spec, clean};
use cofferdam_step::{Namespace, Namespaces, Source, Step};

const SECTION: &str = "config.md#mounts";

/// The plan that adds mounts to a container.
///
/// # Errors
/// What [`Spec::check_mounts`] refuses; a mount that only a creation can make; a caller who is not root.
pub fn compile_mounts(mounts: &[Mount], container: &ExecTarget, host: &Host) -> Result<Plan, Refused> {
    let mut draft = Draft::default();
    let mut spec = Spec { mounts: mounts.to_vec(), ..Spec::default() };
    if container.namespaces.contains(Namespace::User) {
        spec.linux
            .namespaces
            .push(cofferdam_spec::Namespace { kind: "user".to_owned(), path: String::new() });
    }
    draft.warnings = spec.check_mounts()?;
    for (at, entry) in mounts.iter().enumerate() {
        check(entry, at, host)?;
    }
    let ids = Ids {
        uid: container.uid_mappings.clone(),
        gid: container.gid_mappings.clone(),
        deny_setgroups: container.deny_setgroups,
        setgroups_denied: false,
        keep_groups: false,
        user_namespace: container.namespaces.contains(Namespace::User),
        joined: None,
    };
    let wanted = Wanted::nothing();
    let placement = Placement { version: Version::V2, dirs: Vec::new(), unit: None, explicit: false };
    let options = Options { id: container.id.clone(), bundle: "/".to_owned(), ..Options::default() };
    let context = Context {
        spec: &spec,
        root: "/",
        host,
        options: &options,
        wanted: &wanted,
        ids: &ids,
        placement: &placement,
        from_outside: true,
    };
    visit(&mut draft, container)?;
    context.mount_most(&mut draft, false)?;
    context.remount_read_only(&mut draft);
    // A tmpfs that is filled waits for its cgroup; this one is charged to the caller's.
    draft.init.retain(|step| !matches!(step, Step::Await(_)));
    for step in &mut draft.init {
        // Without open_tree init would go by the path, and find something of the container's there.
        if let Step::Mount(mount) = step
            && let Source::Tree { path, .. } = &mut mount.source
        {
            path.clear();
        }
    }
    Ok(draft.plan(Road::default()))
}

/// The plan that takes mounts away from a container, the last one first.
///
/// # Errors
/// A destination that is none; the root.
pub fn compile_unmounts(mounts: &[Mount], container: &ExecTarget, host: &Host) -> Result<Plan, Refused> {
    let mut draft = Draft::default();
    visit(&mut draft, container)?;
    for (at, entry) in mounts.iter().enumerate().rev() {
        only_root(host, at)?;
        let path = clean(&entry.destination);
        if path == "/" || entry.destination.contains('\0') {
            let message = format!("{:?} is no mount that can be removed", entry.destination);
            return Err(Refused::new(format!("/mounts/{at}/destination"), SECTION, message));
        }
        draft.step(Step::Unmount { path: path.into_owned() });
    }
    Ok(draft.plan(Road::default()))
}

fn visit(draft: &mut Draft, container: &ExecTarget) -> Result<(), Refused> {
    if !container.namespaces.contains(Namespace::Mount) {
        let message = "the container has no mount namespace: these would be the host's mounts";
        return Err(Refused::new("/linux/namespaces", "config-linux.md#namespaces", message));
    }
    let pidfd = draft.slot(SlotSource::Process);
    draft.host(HostStep::Spawn);
    let mut namespaces: Namespaces = [Namespace::Mount].into_iter().collect();
    if container.namespaces.contains(Namespace::User) {
        namespaces.insert(Namespace::User);
    }
    draft.step(Step::JoinProcess { pidfd, namespaces });
    Ok(())
}

fn only_root(host: &Host, at: usize) -> Result<(), Refused> {
    if host.euid == 0 && !host.user_namespace {
        return Ok(());
    }
    let message = "mounts of a running container can be changed by root of the machine alone";
    Err(Refused::new(format!("/mounts/{at}"), SECTION, message))
}

/// What makes sense only while a container is created, or only for it.
fn check(entry: &Mount, at: usize, host: &Host) -> Result<(), Refused> {
    only_root(host, at)?;
    let refuse =
        |below: &str, message: String| Err(Refused::new(format!("/mounts/{at}/{below}"), SECTION, message));
    if is_bind(entry) && !entry.source.starts_with('/') {
        return refuse("source", format!("{:?} is no absolute path", entry.source));
    }
    if clean(&entry.destination) == "/" {
        return refuse("destination", "the root mount of a running container stays as it is".to_owned());
    }
    // Both show what the process that mounts them sees, and that is not a process of the container.
    if !is_bind(entry) && matches!(entry.fstype.as_str(), "cgroup" | "cgroup2" | "proc" | "sysfs" | "mqueue")
    {
        return refuse("type", format!("{:?} cannot be mounted in a running container", entry.fstype));
    }
    Ok(())
}
