//! A plan being written.

use crate::{Condition, HostStep, Plan, Road, SlotSource};
use cofferdam_step::{Barrier, Slot, Step};

/// Two lists that grow, and the slots that both speak of.
#[derive(Default)]
pub(crate) struct Draft {
    pub slots: Vec<SlotSource>,
    pub host: Vec<HostStep>,
    pub init: Vec<Step>,
    pub conditions: Vec<Condition>,
    pub warnings: Vec<String>,
    /// Whether some mount so far is shared: what is mounted below it becomes shared, too.
    pub shared_mounts: bool,
    cgroup_awaited: bool,
}

impl Draft {
    /// The slot of a source; equal sources share one, but for trees, which a mount uses up.
    pub fn slot(&mut self, source: SlotSource) -> Slot {
        let shared = !matches!(source, SlotSource::Tree { .. });
        let known = self.slots.iter().position(|known| shared && *known == source);
        let index = known.unwrap_or_else(|| {
            self.slots.push(source);
            self.slots.len() - 1
        });
        Slot(u16::try_from(index).expect("check() bounds the number of mounts and devices"))
    }

    /// Appends a step of init.
    pub fn step(&mut self, step: Step) {
        self.init.push(step);
    }

    /// Appends a step of the host.
    pub fn host(&mut self, step: HostStep) {
        self.host.push(step);
    }

    /// Makes init stop until the host side has opened this tree in init's mount namespace, as it is by then.
    pub fn open_tree(&mut self, slot: Slot) {
        self.need_cgroup();
        self.step(Step::Tell(Barrier::TreeWanted));
        self.host(HostStep::Await(Barrier::TreeWanted));
        self.host(HostStep::OpenTree { slot });
        self.host(HostStep::Release(Barrier::TreeWanted));
        self.step(Step::AwaitTree { slot });
    }

    /// The finished plan.
    pub fn plan(self, road: Road) -> Plan {
        let Draft { slots, host, init, conditions, warnings, .. } = self;
        Plan { road, slots, host, init, conditions, warnings }
    }

    /// Makes init wait for its cgroup, once: in front of the first step that needs it.
    pub fn need_cgroup(&mut self) {
        if !self.cgroup_awaited {
            self.cgroup_awaited = true;
            self.init.push(Step::Await(Barrier::CgroupJoined));
        }
    }
}
