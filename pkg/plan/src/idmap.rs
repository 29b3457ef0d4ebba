//! User namespaces: `/linux/uidMappings`, `/linux/gidMappings`, and the mappings of single mounts.

use crate::annotations;
use crate::namespaces::Wanted;
use crate::{Host, IdMap, Options};
use cofferdam_spec::{IdMapping, Mount, Process, Refused, Spec};
use cofferdam_step::Namespace;

const SECTION: &str = "config-linux.md#user-namespace-mappings";

/// The container's mappings.
pub(crate) struct Ids {
    pub uid: Vec<IdMapping>,
    pub gid: Vec<IdMapping>,
    /// An unprivileged caller may write its gid_map only when setgroups is denied.
    pub deny_setgroups: bool,
    /// setgroups is denied to whatever runs here: the groups stay as they are.
    pub setgroups_denied: bool,
    /// An annotation wants them to stay.
    pub keep_groups: bool,
    /// The container has a user namespace.
    pub user_namespace: bool,
    /// The path of a user namespace that is joined.
    pub joined: Option<String>,
}

impl Ids {
    /// Reads the mappings, which [`Spec::check`] has seen.
    pub fn of(spec: &Spec, host: &Host, options: &Options, wanted: &Wanted) -> Result<Ids, Refused> {
        let joined =
            wanted.joined.iter().find(|(kind, _)| *kind == Namespace::User).map(|(_, path)| path.clone());
        let ids = Ids {
            uid: spec.linux.uid_mappings.clone(),
            gid: spec.linux.gid_mappings.clone(),
            deny_setgroups: host.euid != 0 && maps_one(&spec.linux.gid_mappings, host.egid),
            setgroups_denied: host.setgroups_denied,
            keep_groups: annotations::keeps_groups(spec),
            user_namespace: wanted.has(Namespace::User),
            joined,
        };
        if let Some(process) = &spec.process {
            ids.check_user(process)?;
        }
        if options.rootless && ids.deny_setgroups && !ids.keep_groups {
            return ids.without_groups(spec);
        }
        Ok(ids)
    }

    /// Whether supplementary groups can be set, and shall be.
    pub fn sets_groups(&self) -> bool {
        !self.deny_setgroups && !self.setgroups_denied && !self.keep_groups
    }

    /// Whether a uid of the container means a user of the host. A namespace that is joined by its path without mappings beside it
    /// may map anything.
    pub fn maps_uid(&self, uid: u32) -> bool {
        !self.user_namespace || self.uid.is_empty() || maps(&self.uid, uid)
    }

    /// Whether a gid of the container means a group of the host.
    pub fn maps_gid(&self, gid: u32) -> bool {
        !self.user_namespace || self.gid.is_empty() || maps(&self.gid, gid)
    }

    /// The host's uid for one of the container; none where it is not mapped or not known.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        if !self.user_namespace {
            return Some(uid);
        }
        let mapping = self.uid.iter().find(|mapping| contains(mapping, uid))?;
        mapping.host_id.checked_add(uid - mapping.container_id)
    }

    /// Refuses a user or group that the container's user namespace does not map.
    pub fn check_user(&self, process: &Process) -> Result<(), Refused> {
        let refuse = |pointer: &str, what: &str, id: u32| {
            let message = format!("{what} {id} is not mapped into the container's user namespace");
            Err(Refused::new(pointer, SECTION, message))
        };
        if !self.maps_uid(process.user.uid) {
            return refuse("/process/user/uid", "uid", process.user.uid);
        }
        if !self.maps_gid(process.user.gid) {
            return refuse("/process/user/gid", "gid", process.user.gid);
        }
        for (i, gid) in process.user.additional_gids.iter().enumerate() {
            if !self.maps_gid(*gid) && !self.keep_groups {
                return refuse(&format!("/process/user/additionalGids/{i}"), "gid", *gid);
            }
        }
        Ok(())
    }

    fn without_groups(self, spec: &Spec) -> Result<Ids, Refused> {
        match &spec.process {
            Some(process) if !process.user.additional_gids.is_empty() => Err(Refused::new(
                "/process/user/additionalGids",
                "config.md#user",
                "cannot set any additional groups in a rootless container",
            )),
            _ => Ok(self),
        }
    }
}

/// The idmap of a mount: its own mappings, else the container's.
pub(crate) fn of_mount(mount: &Mount, at: usize, ids: &Ids) -> Result<IdMap, Refused> {
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Ok(IdMap::Mappings { uid: mount.uid_mappings.clone(), gid: mount.gid_mappings.clone() });
    }
    match &ids.joined {
        Some(path) => Ok(IdMap::NamespaceFile(path.clone())),
        None if ids.user_namespace => Ok(IdMap::Mappings { uid: ids.uid.clone(), gid: ids.gid.clone() }),
        None => Err(Refused::new(
            format!("/mounts/{at}"),
            "config.md#mounts",
            "is to be idmapped, but neither the mount has mappings nor the container a user namespace",
        )),
    }
}

/// The idmap that an option names: `uids=0-1000-10#10-2000-5;gids=…`, crun's. The first number of each range is the filesystem's, the
/// second the host's or, behind an `@`, the container's, which its user namespace maps to the host's.
pub(crate) fn of_option(text: &str, pointer: &str, mount: &Mount, ids: &Ids) -> Result<IdMap, Refused> {
    const SECTION: &str = "config.md#mounts";
    let refuse = |message: String| Refused::new(pointer, SECTION, message);
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(refuse("names ids, and so does the mount with uidMappings and gidMappings".to_owned()));
    }
    let (mut uid, mut gid) = (Vec::new(), Vec::new());
    for part in text.split(';') {
        let (list, inside, ranges) = match (part.strip_prefix("uids="), part.strip_prefix("gids=")) {
            (Some(ranges), _) => (&mut uid, &ids.uid, ranges),
            (None, Some(ranges)) => (&mut gid, &ids.gid, ranges),
            (None, None) => return Err(refuse(format!("{part:?} is neither uids=… nor gids=…"))),
        };
        for range in ranges.split('#').filter(|range| !range.is_empty()) {
            add_range(range, inside, list).map_err(refuse)?;
        }
    }
    if uid.is_empty() || gid.is_empty() {
        return Err(refuse("must name uids as well as gids".to_owned()));
    }
    cofferdam_spec::check_mappings(&uid, pointer, SECTION)?;
    cofferdam_spec::check_mappings(&gid, pointer, SECTION)?;
    Ok(IdMap::Mappings { uid, gid })
}

/// Reads `0-1000-10` or `@0-0-10`. What an `@` makes of one range may be several: as many as the container's mappings cut it into.
fn add_range(range: &str, inside: &[IdMapping], list: &mut Vec<IdMapping>) -> Result<(), String> {
    let digits = range.strip_prefix('@').unwrap_or(range);
    let numbers: Option<Vec<u32>> = digits.split('-').map(|number| number.parse().ok()).collect();
    let Some(&[container_id, host_id, size]) = numbers.as_deref() else {
        return Err(format!("{range:?} is no range of ids (as in 0-1000-10)"));
    };
    if digits == range {
        list.push(IdMapping { container_id, host_id, size });
        return Ok(());
    }
    let (first, end) = (u64::from(host_id), u64::from(host_id) + u64::from(size));
    let mut at = first;
    while at < end {
        let id = u32::try_from(at).ok();
        let mapping = id.and_then(|id| inside.iter().find(|mapping| contains(mapping, id)));
        let Some(mapping) = mapping else {
            return Err(format!("{range:?}: {at} is not mapped into the container's user namespace"));
        };
        let offset = at - u64::from(mapping.container_id);
        let size = (end - at).min(u64::from(mapping.size) - offset);
        let part = [u64::from(container_id) + at - first, u64::from(mapping.host_id) + offset, size];
        let [Ok(container_id), Ok(host_id), Ok(size)] = part.map(u32::try_from) else {
            return Err(format!("{range:?} goes beyond the last id"));
        };
        list.push(IdMapping { container_id, host_id, size });
        at += u64::from(size);
    }
    Ok(())
}

fn contains(mapping: &IdMapping, id: u32) -> bool {
    id >= mapping.container_id && u64::from(id) < u64::from(mapping.container_id) + u64::from(mapping.size)
}

fn maps(mappings: &[IdMapping], id: u32) -> bool {
    mappings.iter().any(|mapping| contains(mapping, id))
}

/// A map of one id, the caller's own, which the kernel lets anyone write.
fn maps_one(mappings: &[IdMapping], own: u32) -> bool {
    matches!(mappings, [IdMapping { host_id, size: 1, .. }] if *host_id == own)
}
