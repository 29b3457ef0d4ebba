//! `/linux/namespaces`: which are made, which are joined, and on which road.

use crate::draft::Draft;
use crate::idmap::Ids;
use crate::{Condition, Host, HostStep, Road, SlotSource};
use cofferdam_spec::{Refused, Spec};
use cofferdam_step::{Barrier, Namespace, Namespaces, Slot, Step, TimeOffset};

/// The namespaces of a container, sorted out.
pub(crate) struct Wanted {
    /// Made.
    pub new: Namespaces,
    /// Joined, with the index in config.json, in [`Namespace::ALL`]'s order.
    pub joined: Vec<(Namespace, String)>,
    /// On the direct road, the new ones that init is born in; the others it makes by itself.
    born_in: Namespaces,
    /// [`Wanted::clone_last`]
    pub clones_last: bool,
}

/// The kind of a namespace by the spec's name.
pub(crate) fn kind(name: &str) -> Option<Namespace> {
    Namespace::ALL.into_iter().find(|kind| kind.spec_name() == name)
}

impl Wanted {
    /// None at all: somebody else has made what there is.
    pub fn nothing() -> Wanted {
        let none = Namespaces::default();
        Wanted { new: none, joined: Vec::new(), born_in: none, clones_last: false }
    }

    /// Reads `/linux/namespaces`, which [`Spec::check`] has seen.
    pub fn of(spec: &Spec) -> Result<Wanted, Refused> {
        let (mut new, mut joined) = (Namespaces::default(), Vec::new());
        for entry in &spec.linux.namespaces {
            let Some(kind) = kind(&entry.kind) else { continue };
            if entry.path.is_empty() {
                new.insert(kind);
            } else {
                joined.push((kind, entry.path.clone()));
            }
        }
        joined.sort_by_key(|(kind, _)| Namespace::ALL.iter().position(|known| known == kind));
        // A network that devices are moved into must be there when init is.
        let born_in = [Namespace::Pid, Namespace::Network].into_iter().filter(|kind| {
            new.contains(*kind) && (*kind == Namespace::Pid || !spec.linux.net_devices.is_empty())
        });
        let wanted = Wanted { new, joined, born_in: born_in.collect(), clones_last: false };
        // Nothing hides what the host mounts elsewhere (runc refuses these too).
        let restricted = [
            ("/linux/maskedPaths", &spec.linux.masked_paths),
            ("/linux/readonlyPaths", &spec.linux.readonly_paths),
        ];
        for (pointer, paths) in restricted {
            if !wanted.has(Namespace::Mount) && !paths.is_empty() {
                let message = "unable to restrict sys entries without a private MNT namespace";
                return Err(Refused::new(pointer, "config-linux.md#masked-paths", message));
            }
        }
        Ok(wanted)
    }

    /// Whether the container has its own, made or joined.
    pub fn has(&self, kind: Namespace) -> bool {
        self.new.contains(kind) || self.joins(kind)
    }

    /// Whether it is joined.
    pub fn joins(&self, kind: Namespace) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Init must clone the container's first process itself: only then can it enter the user namespace at the right moment,
    /// or write the time offsets in front of the first child.
    ///
    /// A pid namespace that is joined has others in it: what is born there must be the sealed image already (CVE-2019-5736).
    pub fn staged(&self) -> bool {
        self.has(Namespace::User) || self.new.contains(Namespace::Time) || self.joins(Namespace::Pid)
    }

    /// A pid namespace that is joined has others in it, and who of them holds CAP_SYS_PTRACE comes near whatever turns up there: by
    /// /proc/PID/root to the host's files before the pivot, by ptrace(2) to the rights that init still has (as under runc and crun).
    /// So the clone comes last where it can, and what they see has the container's root and its program's rights.
    ///
    /// It cannot where the process must be there earlier: for hooks of the runtime, which are told its pid; for network devices, which
    /// move by its pid; with a scheduler, which a child need not inherit. Nor where procfs takes no `pidns` (Linux < 6.18). In a user
    /// namespace there is no need: init was executed outside of it, so that nobody in there may trace it (`ptrace_may_access`).
    pub fn clone_last(&mut self, spec: &Spec, host: &Host) {
        let hooks = &spec.hooks;
        let told = [&hooks.prestart, &hooks.create_runtime, &hooks.create_container];
        self.clones_last = self.joins(Namespace::Pid)
            && !self.has(Namespace::User)
            && host.procfs_pidns
            && told.iter().all(|hooks| hooks.is_empty())
            && spec.linux.net_devices.is_empty()
            && spec.process.as_ref().is_none_or(|process| process.scheduler.is_none());
    }

    /// The pid namespace that a new procfs is to show where init is not in there yet.
    pub fn of_procfs(&self, draft: &mut Draft, entry: &cofferdam_spec::Mount) -> Option<Slot> {
        if !self.clones_last || entry.fstype != "proc" {
            return None;
        }
        let (kind, path) = self.joined.iter().find(|(kind, _)| *kind == Namespace::Pid)?;
        Some(draft.slot(SlotSource::Namespace { kind: *kind, path: path.clone() }))
    }

    /// The road.
    pub fn road(&self) -> Road {
        if self.staged() {
            return Road { staged: true, ..Road::default() };
        }
        // Only what a process must be born in. The others cost more than the rest of the clone, during which the parent
        // stands still: init makes them while the parent makes the cgroup.
        Road { staged: false, clone: self.born_in }
    }

    /// The head of init's list: into all namespaces but the cgroup one. `trees`: the host side opens mount sources for init.
    pub fn enter(&self, draft: &mut Draft, spec: &Spec, ids: &Ids, trees: bool) {
        if !self.staged() {
            let mut here = self.new;
            here.remove(Namespace::Cgroup);
            self.born_in.iter().for_each(|kind| here.remove(kind));
            if !here.is_empty() {
                draft.step(Step::Unshare { namespaces: here });
            }
            self.join(draft, false, |_| true);
            return;
        }
        // Those that the host owns are joined with the host's rights, in front of a user namespace, be it new or joined. One
        // that is joined mostly owns the others (a pod): whoever has no rights on the host joins those behind it.
        if self.joins(Namespace::User) {
            self.join(draft, true, |kind| kind != Namespace::User);
            self.join(draft, false, |kind| kind == Namespace::User);
        }
        self.join(draft, false, |kind| kind != Namespace::User);
        let mut rest = self.new;
        rest.remove(Namespace::Cgroup);
        // A new user namespace owns the others: without rights on the host, only from inside of it can one be made.
        let late_time = rest.contains(Namespace::User) && rest.contains(Namespace::Time);
        if rest.contains(Namespace::Time) && !late_time {
            unshare_time(draft, spec);
        }
        rest.remove(Namespace::Time);
        let late_ipc = self.has(Namespace::User) && rest.contains(Namespace::Ipc);
        if late_ipc {
            rest.remove(Namespace::Ipc);
        }
        if self.clones_last {
            if !rest.is_empty() {
                draft.step(Step::Unshare { namespaces: rest });
            }
            return;
        }
        clone(draft, rest);
        if late_time {
            // As long as the process is its owner's: once it hides, its files below /proc are the host's root's.
            unshare_time(draft, spec);
            draft.step(Step::EnterTimeNamespace);
        }
        if rest.contains(Namespace::User) {
            draft.host(HostStep::MapIds {
                uid: ids.uid.clone(),
                gid: ids.gid.clone(),
                deny_setgroups: ids.deny_setgroups,
            });
            draft.host(HostStep::Release(Barrier::IdsMapped));
            draft.step(Step::Await(Barrier::IdsMapped));
        }
        if trees && self.new.contains(Namespace::Mount) {
            draft.host(HostStep::OpenTrees);
            draft.host(HostStep::Release(Barrier::TreesOpened));
            draft.step(Step::Await(Barrier::TreesOpened));
        }
        if self.has(Namespace::User) {
            draft.step(Step::BecomeNamespaceRoot);
        }
        if late_ipc {
            // mqueue's root directory belongs to whoever makes the ipc namespace: that has to be the container's root.
            draft.step(Step::Unshare { namespaces: [Namespace::Ipc].into_iter().collect() });
        }
    }

    /// What the plan takes for granted about the namespaces that are joined.
    pub fn conditions(&self, draft: &mut Draft, spec: &Spec) {
        let linux = &spec.linux;
        for (kind, path) in &self.joined {
            let source = SlotSource::Namespace { kind: *kind, path: path.clone() };
            let net = linux.sysctl.keys().find(|key| key.starts_with("net.") || key.starts_with("net/"));
            if let (Namespace::Network, Some(key)) = (kind, net) {
                let slot = draft.slot(source);
                let message = format!("sysctl {key:?} not allowed in host network namespace");
                draft.conditions.push(Condition::NotOurs { slot, message });
            } else if *kind == Namespace::User
                && !(linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty())
            {
                let slot = draft.slot(source);
                let message =
                    "user namespaces enabled, but both namespace path and non-matching mapping specified -- \
                               you may only provide one"
                        .to_owned();
                let (uid, gid) = (linux.uid_mappings.clone(), linux.gid_mappings.clone());
                draft.conditions.push(Condition::Maps { slot, uid, gid, message });
            }
        }
    }

    fn join(&self, draft: &mut Draft, early: bool, which: impl Fn(Namespace) -> bool) {
        for (kind, path) in self.joined.iter().filter(|(kind, _)| which(*kind)) {
            let slot = draft.slot(SlotSource::Namespace { kind: *kind, path: path.clone() });
            draft.step(Step::JoinNamespace { kind: *kind, slot, path: path.clone(), early });
        }
    }
}

/// The staged init makes the process that goes on; the host side goes on with that one.
pub(crate) fn clone(draft: &mut Draft, namespaces: Namespaces) {
    draft.step(Step::Clone { namespaces });
    draft.host(HostStep::FollowClone);
}

/// A new time namespace for the processes to come.
fn unshare_time(draft: &mut Draft, spec: &Spec) {
    draft.step(Step::Unshare { namespaces: [Namespace::Time].into_iter().collect() });
    let offsets = time_offsets(spec);
    if !offsets.is_empty() {
        draft.step(Step::SetTimeOffsets { offsets });
    }
}

fn time_offsets(spec: &Spec) -> Vec<TimeOffset> {
    spec.linux
        .time_offsets
        .iter()
        .map(|(clock, offset)| TimeOffset {
            clock: clock.clone(),
            secs: offset.secs,
            nanosecs: offset.nanosecs,
        })
        .collect()
}
