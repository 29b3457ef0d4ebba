//! Sources of bind mounts that the host side opens while init makes its namespaces: a third of what such a mount costs, and the host side has
//! nothing more urgent to do meanwhile.

use super::{Context, MS_PRIVATE, MS_SHARED, Mount, Namespace, Step};
use crate::HostStep;
use crate::draft::Draft;
use cofferdam_step::Barrier;

impl Context<'_> {
    /// Whether the host side may open this source: it finds there what init would find in its copy of the host's mounts, and nothing that is
    /// mounted meanwhile was going to reach the container. What looks different from within the rootfs is looked at again by the host side,
    /// which knows where links lead.
    pub(super) fn opens_ahead(&self, draft: &Draft, mount: &Mount, path: &str, whole: bool) -> bool {
        let own = self.wanted.new.contains(Namespace::Mount) && !self.wanted.road().staged;
        let private = mount.propagation.iter().all(|how| how.flag == MS_PRIVATE)
            && mount.propagation.iter().any(|how| how.recursive || !whole);
        // What is attached below a shared mount is shared by that: its propagation has to be set behind that.
        let shared = draft.shared_mounts || self.host_propagation().flag == MS_SHARED;
        own && private && !shared && self.host.euid == 0 && !self.host.user_namespace && !self.is_inside(path)
    }
}

/// Lets the host side open them behind the spawn, and init take them in front of the first one, and of whatever else the host side says.
pub(crate) fn open_ahead(draft: &mut Draft) {
    let Some(first) = draft.init.iter().position(|step| step.opened_ahead().is_some()) else { return };
    let waits = |step: &Step| matches!(step, Step::Await(Barrier::CgroupJoined));
    let first = draft.init.iter().take(first).position(waits).unwrap_or(first);
    let Some(spawned) = draft.host.iter().position(|step| matches!(step, HostStep::Spawn)) else { return };
    draft.init.insert(first, Step::Await(Barrier::SourcesOpened));
    let steps = [HostStep::OpenSources, HostStep::Release(Barrier::SourcesOpened)];
    draft.host.splice(spawned + 1..=spawned, steps);
}
