//! `/linux/cgroupsPath` and `/linux/resources`: the container's place and its limits, by `pkg/cgroup`'s rules.

use crate::draft::Draft;
use crate::idmap::Ids;
use crate::namespaces::Wanted;
use crate::{Host, HostStep, Options, SlotSource};
use cofferdam_cgroup::resctrl::ClassOfService;
use cofferdam_cgroup::systemd::annotation;
use cofferdam_cgroup::{Dir, Driver, Placement, default_device_rules, place, translate};
use cofferdam_spec::{IntelRdt, Refused, Spec};
use cofferdam_step::Namespace;
use oci_spec::runtime::LinuxResources;

/// Decides the place and appends the step that prepares it.
pub(crate) fn prepare(
    draft: &mut Draft,
    spec: &Spec,
    host: &Host,
    options: &Options,
    wanted: &Wanted,
    ids: &Ids,
) -> Result<Placement, Refused> {
    let driver = options.driver;
    let path = Some(spec.linux.cgroups_path.as_str());
    let user = options.rootless && driver == Driver::Systemd;
    let placement = place(&host.cgroup, &options.id, path, driver, user).map_err(refused)?;
    let resources = with_default_devices(spec);
    let mut settings = translate(&resources, &host.cgroup, driver, true).map_err(refused)?;
    settings.class_of_service = class_of_service(spec, &options.id).map_err(refused)?;
    // The launcher settles when init has cloned all that it clones.
    settings.settle_later = true;
    draft.warnings.append(&mut settings.warnings);
    if driver == Driver::Systemd {
        settings.properties.append(&mut annotation::properties(&spec.annotations).map_err(refused)?);
    }
    let owner = owner(spec, wanted, ids);
    draft.host(HostStep::RecordPlan);
    draft.host(HostStep::PrepareCgroup { placement: placement.clone(), settings: Box::new(settings), owner });
    Ok(placement)
}

/// Lets init be on its way before its cgroup is prepared, where the spawn needs nothing of that: neither is it born in a cgroup of v2, nor
/// does a mount's source lie in one.
pub(crate) fn prepare_behind_the_spawn(draft: &mut Draft, placement: &Placement) {
    let trees = draft.slots.iter().any(|slot| matches!(slot, SlotSource::Tree { .. }));
    if trees || placement.unit.is_some() || placement.dirs.iter().any(Dir::is_unified) {
        return;
    }
    let first = |step: &HostStep| matches!(step, HostStep::RecordPlan | HostStep::PrepareCgroup { .. });
    let Some(completed) = draft.host.iter().position(|step| matches!(step, HostStep::CompleteCgroup)) else {
        return;
    };
    let (before, mut host): (Vec<_>, Vec<_>) = draft.host.drain(..=completed).partition(first);
    let complete = host.len() - 1;
    host.splice(complete..complete, before);
    draft.host.splice(..0, host);
}

/// `/linux/intelRdt`
fn class_of_service(spec: &Spec, id: &str) -> Result<Option<ClassOfService>, cofferdam_cgroup::Refused> {
    let Some(rdt) = &spec.linux.intel_rdt else { return Ok(None) };
    let IntelRdt { clos_id, schemata, l3_cache_schema, mem_bw_schema, enable_monitoring } = rdt;
    ClassOfService::new(id, clos_id, l3_cache_schema, mem_bw_schema, schemata, *enable_monitoring).map(Some)
}

fn refused(error: cofferdam_cgroup::Refused) -> Refused {
    Refused::new(error.pointer, "config-linux.md#control-groups", error.reason)
}

/// The config's resources with the device rules that every container has, behind the config's own: as in runc, a container
/// cannot give them up.
fn with_default_devices(spec: &Spec) -> LinuxResources {
    let mut resources = spec.linux.resources.clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.extend(default_device_rules());
    resources.set_devices(Some(rules));
    resources
}

/// Who gets the cgroup: the host's uid of the container's process, when the container has a cgroup namespace of its own and
/// mounts its cgroup writable (runc's rule for delegation).
fn owner(spec: &Spec, wanted: &Wanted, ids: &Ids) -> Option<u32> {
    let writable = |mount: &cofferdam_spec::Mount| {
        mount.source == "cgroup"
            && cofferdam_spec::clean(&mount.destination) == "/sys/fs/cgroup"
            && !crate::mounts::read_only(&mount.options)
    };
    if !wanted.new.contains(Namespace::Cgroup) || !spec.mounts.iter().any(writable) {
        return None;
    }
    ids.host_uid(spec.process.as_ref().map_or(0, |process| process.user.uid))
}
