use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// One value for one file of a control group.
///
/// The list that [`translate`](crate::translate()) makes is in the order in which the writes have to happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The controller whose directory the file is in (on v2 there is only one directory).
    pub controller: Cow<'static, str>,
    /// Name of the file, without a slash.
    pub file: Cow<'static, str>,
    /// What is written. Several lines are written one by one, since the kernel takes one entry a write.
    pub value: String,
    /// What happens when the plain write is not possible, or not right yet.
    #[serde(default, skip_serializing_if = "How::is_must")]
    pub how: How,
}

/// The rule that goes with a [`Write`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// Written as it stands; any error ends the operation.
    #[default]
    Must,
    /// A missing file is no error: without it the value holds anyway, or cannot.
    IfPresent,
    /// When the file is missing, another one in the same directory takes another form of the value.
    Else {
        /// Name of the other file.
        file: Cow<'static, str>,
        /// The value in its terms.
        value: String,
    },
    /// On EINVAL, wait until `file` has been written and try once more. Quota, period and burst of the CPU
    /// controller are checked against each other's old values at each write.
    OrAfter {
        /// The file that may have to go first; its write is later in the list.
        file: Cow<'static, str>,
    },
    /// Goes before the write of `file` (earlier in the list) when it is -1 or more than `file` now holds. The
    /// kernel keeps memory <= memory+swap at each write, so raising and lowering need opposite orders.
    BeforeIfAbove {
        /// The file that holds the smaller of the two limits.
        file: Cow<'static, str>,
    },
    /// The value is the second word of the file; the first one stays what it is.
    KeepFirstWord,
    /// The value is a sum; what is written is the difference to what `file` holds.
    Minus {
        /// The file that holds the number to subtract.
        file: Cow<'static, str>,
    },
    /// A key of `linux.resources.unified`: a missing file is explained by the missing controller.
    Unified,
}

impl How {
    fn is_must(&self) -> bool {
        *self == How::Must
    }
}

impl Write {
    pub(crate) fn new(
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Write { controller: controller.into(), file: file.into(), value: value.to_string(), how: How::Must }
    }

    /// The property of `linux.resources` that the file stands for, for messages; none for the keys of `unified`.
    pub(crate) fn property(&self) -> Option<&'static str> {
        if self.how == How::Unified {
            return None;
        }
        Some(match self.file.as_ref() {
            "memory.limit_in_bytes" | "memory.max" => "memory/limit",
            "memory.memsw.limit_in_bytes" | "memory.swap.max" => "memory/swap",
            "memory.soft_limit_in_bytes" | "memory.low" => "memory/reservation",
            "memory.oom_control" => "memory/disableOOMKiller",
            "memory.swappiness" => "memory/swappiness",
            "cpu.shares" | "cpu.weight" => "cpu/shares",
            "cpu.cfs_quota_us" | "cpu.max" => "cpu/quota",
            "cpu.cfs_period_us" => "cpu/period",
            "cpu.cfs_burst_us" | "cpu.max.burst" => "cpu/burst",
            "cpu.idle" => "cpu/idle",
            "cpu.rt_runtime_us" => "cpu/realtimeRuntime",
            "cpu.rt_period_us" => "cpu/realtimePeriod",
            "cpuset.cpus" => "cpu/cpus",
            "cpuset.mems" => "cpu/mems",
            "pids.max" => "pids/limit",
            "blkio.bfq.weight" | "io.bfq.weight" => "blockIO/weight",
            "blkio.leaf_weight" => "blockIO/leafWeight",
            "blkio.bfq.weight_device" | "blkio.leaf_weight_device" => "blockIO/weightDevice",
            "blkio.throttle.read_bps_device" => "blockIO/throttleReadBpsDevice",
            "blkio.throttle.write_bps_device" => "blockIO/throttleWriteBpsDevice",
            "blkio.throttle.read_iops_device" => "blockIO/throttleReadIOPSDevice",
            "blkio.throttle.write_iops_device" => "blockIO/throttleWriteIOPSDevice",
            "io.max" => "blockIO",
            "net_cls.classid" => "network/classID",
            "net_prio.ifpriomap" => "network/priorities",
            "rdma.max" => "rdma",
            file if file.starts_with("hugetlb.") => "hugepageLimits",
            _ => return None,
        })
    }

    pub(crate) fn how(mut self, how: How) -> Self {
        self.how = how;
        self
    }
}
