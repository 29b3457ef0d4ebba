//! A mount namespace of the rootfs alone (Linux 7.0).
//!
//! A new mount namespace begins as a copy of the host's, of which the pivot leaves nothing: time that grows with what the host has mounted,
//! under a lock that all containers share. open_tree(2) makes one whose root is the rootfs, once no path of the host's is needed any more.

use super::{Context, MS_SHARED};
use crate::draft::Draft;
use cofferdam_step::{Barrier, Mount, Namespace, Source, Step};

/// So many sources init holds open at once; the least limit of descriptors that is usual is 1,024.
const MOST_SOURCES: usize = 256;

/// Filesystems that are mounted without a look at any path.
const PATHLESS: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

impl Context<'_> {
    /// Lets init enter such a namespace where the plan would copy and pivot, if nothing in between needs the host's mounts.
    pub fn enter_alone(&self, draft: &mut Draft) {
        if !self.may_enter_alone(draft) {
            return;
        }
        let propagation = self.host_propagation();
        draft.init.retain_mut(|step| match step {
            Step::Unshare { namespaces } => {
                namespaces.remove(Namespace::Mount);
                !namespaces.is_empty()
            }
            Step::Clone { namespaces } => {
                namespaces.remove(Namespace::Mount);
                true
            }
            Step::PrepareRoot { path, .. } => {
                *step = Step::EnterRoot { path: std::mem::take(path), propagation };
                true
            }
            Step::SetHostPropagation(_) | Step::PivotRoot { .. } => false,
            _ => true,
        });
        // What the host side has opened comes first.
        let at = |wanted: fn(&Step) -> bool| draft.init.iter().position(wanted);
        let root = at(|step| matches!(step, Step::EnterRoot { .. }));
        let waits = at(|step| matches!(step, Step::Await(Barrier::SourcesOpened)));
        if let (Some(root), Some(waits)) = (root, waits)
            && root < waits
        {
            draft.init[root..=waits].rotate_right(1);
        }
    }

    /// In a user namespace mounts keep locks of what they are copied from, and there is no procfs without another one in sight. Hooks in front
    /// of the pivot find the host's files in the container's mounts (createContainer's are executed there, and others enter them).
    fn may_enter_alone(&self, draft: &Draft) -> bool {
        let propagation = self.host_propagation();
        let ahead = draft.init.iter().filter_map(Step::opened_ahead);
        self.host.tree_namespaces
            && self.host.euid == 0
            && !self.has_locked_flags()
            && self.wanted.new.contains(Namespace::Mount)
            && !self.options.no_pivot
            && propagation.recursive
            && propagation.flag != MS_SHARED
            && ahead.count() <= MOST_SOURCES
            && !draft.init.iter().any(needs_the_host)
    }
}

/// Whether a step, in front of the pivot, goes by a path of the host's, or shows the container's mounts to somebody who may.
fn needs_the_host(step: &Step) -> bool {
    match step {
        Step::Mount(mount) => mounts_of_the_host(mount),
        Step::BindDevice { .. } | Step::RunHooks(_) | Step::AwaitTree { .. } => true,
        Step::Await(barrier) => matches!(barrier, Barrier::RuntimeHooks | Barrier::TreesOpened),
        _ => false,
    }
}

fn mounts_of_the_host(mount: &Mount) -> bool {
    let source = match &mount.source {
        Source::New { fstype, .. } => !PATHLESS.contains(&fstype.as_str()),
        Source::Bind { ahead, .. } => !ahead,
        Source::Link { .. } | Source::Tree { .. } => true,
        Source::Remount { .. } => false,
    };
    source || mount.idmap.is_some() || mount.or_else.as_deref().is_some_and(mounts_of_the_host)
}
