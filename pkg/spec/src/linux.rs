//! `/linux`: namespaces, devices, cgroups and the rest of what is the kernel's.

use crate::Profile;
use crate::json::nullable;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxPids,
    LinuxRdma, LinuxResources,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashMap};

/// `/linux`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// `uidMappings`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// `gidMappings`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    /// `sysctl`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// `resources`
    #[serde(deserialize_with = "resources", skip_serializing_if = "Option::is_none")]
    pub resources: Option<LinuxResources>,
    /// `cgroupsPath`; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub cgroups_path: String,
    /// `namespaces`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
    /// `devices`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// `netDevices`, by the name on the host.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// `seccomp`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Profile>,
    /// `rootfsPropagation`; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub rootfs_propagation: String,
    /// `maskedPaths`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<String>,
    /// `readonlyPaths`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub readonly_paths: Vec<String>,
    /// `mountLabel`; empty for none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mount_label: String,
    /// `intelRdt`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// `memoryPolicy`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// `personality`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// `timeOffsets`, by clock.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

impl Linux {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Linux::default()
    }

    /// The entry of one kind in `namespaces`, by the spec's name.
    pub fn namespace(&self, kind: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind)
    }
}

/// An entry of `uidMappings` or `gidMappings`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdMapping {
    /// First id in the container.
    #[serde(rename = "containerID", deserialize_with = "nullable")]
    pub container_id: u32,
    /// First id on the host.
    #[serde(rename = "hostID", deserialize_with = "nullable")]
    pub host_id: u32,
    /// How many.
    #[serde(deserialize_with = "nullable")]
    pub size: u32,
}

/// `/linux/namespaces/N`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// `type`, in the spec's words.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// `path` of one to join; empty for a new one.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// `/linux/devices/N`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `path` in the container.
    #[serde(default, deserialize_with = "nullable")]
    pub path: String,
    /// `type`
    #[serde(rename = "type")]
    pub kind: DeviceType,
    /// `major`
    #[serde(default, deserialize_with = "nullable")]
    pub major: i64,
    /// `minor`
    #[serde(default, deserialize_with = "nullable")]
    pub minor: i64,
    /// `fileMode`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// `uid`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// `gid`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// The `type` of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceType {
    /// Character device.
    #[serde(rename = "c")]
    Char,
    /// Character device, unbuffered: an old word for the same.
    #[serde(rename = "u")]
    Unbuffered,
    /// Block device.
    #[serde(rename = "b")]
    Block,
    /// Fifo.
    #[serde(rename = "p")]
    Fifo,
}

/// `/linux/netDevices/NAME`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// `name` in the container; empty keeps the host's.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// `/linux/intelRdt`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IntelRdt {
    /// `closID`
    #[serde(rename = "closID", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub clos_id: String,
    /// `schemata`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// `l3CacheSchema`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// `memBwSchema`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// `enableMonitoring`
    #[serde(deserialize_with = "nullable")]
    pub enable_monitoring: bool,
}

/// `/linux/memoryPolicy`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryPolicy {
    /// `mode`, `MPOL_…`
    #[serde(deserialize_with = "nullable")]
    pub mode: String,
    /// `nodes`, a list as `0-3,7`; empty for none.
    #[serde(deserialize_with = "nullable")]
    pub nodes: String,
    /// `flags`, `MPOL_F_…`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// `/linux/personality`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `domain`, `LINUX` or `LINUX32`.
    #[serde(deserialize_with = "nullable")]
    pub domain: String,
    /// `flags`; the spec names none.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// `/linux/timeOffsets/CLOCK`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// `secs`
    #[serde(deserialize_with = "nullable")]
    pub secs: i64,
    /// `nanosecs`
    #[serde(deserialize_with = "nullable")]
    pub nanosecs: u32,
}

/// `resources` as config.json has them: oci-spec's fields but for `pids`, whose limit may be absent (no limit).
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawResources {
    devices: Option<Vec<LinuxDeviceCgroup>>,
    memory: Option<LinuxMemory>,
    cpu: Option<LinuxCpu>,
    pids: Option<RawPids>,
    #[serde(rename = "blockIO")]
    block_io: Option<LinuxBlockIo>,
    hugepage_limits: Option<Vec<LinuxHugepageLimit>>,
    network: Option<LinuxNetwork>,
    rdma: Option<HashMap<String, LinuxRdma>>,
    unified: Option<HashMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPids {
    limit: Option<i64>,
}

/// Reads `resources`, so that `pids: {}` is no limit.
pub(crate) fn resources<'de, D: Deserializer<'de>>(input: D) -> Result<Option<LinuxResources>, D::Error> {
    let Some(raw) = Option::<RawResources>::deserialize(input)? else { return Ok(None) };
    let pids = raw.pids.and_then(|pids| pids.limit).map(|limit| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        pids
    });
    let mut resources = LinuxResources::default();
    resources
        .set_devices(raw.devices)
        .set_memory(raw.memory)
        .set_cpu(raw.cpu)
        .set_pids(pids)
        .set_block_io(raw.block_io)
        .set_hugepage_limits(raw.hugepage_limits)
        .set_network(raw.network)
        .set_rdma(raw.rdma)
        .set_unified(raw.unified);
    Ok(Some(resources))
}
