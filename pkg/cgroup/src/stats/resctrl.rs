//! What a container's class of service has, and what its monitoring group has counted.
//!
//! Which files there are depends on the processor. A counter can be `Unavailable` for a while (the kernel's
//! Documentation/filesystems/resctrl.rst): it is then 0, where runc gives up all figures of the container.

use serde::{Deserialize, Serialize};
use std::path::Path;

use crate::error::CgroupError;
use crate::file;
use crate::resctrl::Group;

/// A container in resctrl. What the processor cannot do is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntelRdt {
    /// Shares of the L3 cache can be given out.
    pub l3: Option<L3Cache>,
    /// Shares of memory bandwidth can be given out.
    pub memory_bandwidth: Option<MemoryBandwidth>,
    /// Memory bandwidth used, by L3 cache.
    pub bandwidth_counts: Option<Vec<BandwidthCount>>,
    /// Bytes in each L3 cache.
    pub occupancy: Option<Vec<u64>>,
}

/// `info/L3` and the lines for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct L3Cache {
    /// The mask of all of the cache, hexadecimal.
    pub cbm_mask: String,
    /// Least bits in a mask.
    pub min_cbm_bits: u64,
    /// How many classes of service there can be.
    pub num_closids: u64,
    /// The line of the class that everything is in by default.
    pub schema_root: String,
    /// The container's line.
    pub schema: String,
}

/// `info/MB` and the lines for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryBandwidth {
    /// Steps in which it is given out, percent.
    pub bandwidth_gran: u64,
    /// 1 where the delay is linear.
    pub delay_linear: u64,
    /// The least share, percent.
    pub min_bandwidth: u64,
    /// How many classes of service there can be.
    pub num_closids: u64,
    /// The line of the class that everything is in by default.
    pub schema_root: String,
    /// The container's line.
    pub schema: String,
}

/// Bytes that have gone through one L3 cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandwidthCount {
    /// From and to all memory.
    pub total: u64,
    /// From and to memory of the same node.
    pub local: u64,
}

/// Reads what `group` has below `root`, the mount point of resctrl.
pub(super) fn read(group: &Group, root: &str) -> Result<IntelRdt, CgroupError> {
    let (of_root, of_group) = (file::read(root, "schemata")?, file::read(&group.path, "schemata")?);
    let mut rdt = IntelRdt::default();
    if let Some(info) = info(root, "L3") {
        rdt.l3 = Some(L3Cache {
            cbm_mask: file::read(&info, "cbm_mask")?.trim().to_owned(),
            min_cbm_bits: number(&info, "min_cbm_bits"),
            num_closids: number(&info, "num_closids"),
            schema_root: line(&of_root, "L3"),
            schema: line(&of_group, "L3"),
        });
    }
    if let Some(info) = info(root, "MB") {
        rdt.memory_bandwidth = Some(MemoryBandwidth {
            bandwidth_gran: number(&info, "bandwidth_gran"),
            delay_linear: number(&info, "delay_linear"),
            min_bandwidth: number(&info, "min_bandwidth"),
            num_closids: number(&info, "num_closids"),
            schema_root: line(&of_root, "MB"),
            schema: line(&of_group, "MB"),
        });
    }
    if let Some(info) = info(root, "L3_MON") {
        count(&mut rdt, group, &file::read(&info, "mon_features")?)?;
    }
    Ok(rdt)
}

fn info(root: &str, kind: &str) -> Option<String> {
    let dir = format!("{root}/info/{kind}");
    Path::new(&dir).is_dir().then_some(dir)
}

fn number(dir: &str, name: &str) -> u64 {
    file::read(dir, name).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The last line for a resource, as in runc: with code and data apart there are two for the L3 cache.
fn line(schemata: &str, resource: &str) -> String {
    let found = schemata.lines().map(str::trim).rfind(|line| line.starts_with(resource));
    found.unwrap_or_default().to_owned()
}

/// The counters of the container's own group, or of all that is in its class.
fn count(rdt: &mut IntelRdt, group: &Group, features: &str) -> Result<(), CgroupError> {
    let has = |name: &str| features.lines().any(|line| line == name);
    let (total, local) = (has("mbm_total_bytes"), has("mbm_local_bytes"));
    let dir = format!("{}/mon_data", group.monitor.as_ref().unwrap_or(&group.path));
    let mut caches = file::children(&dir)?;
    caches.sort_unstable();
    if total || local {
        let count = |dir: &String| BandwidthCount {
            total: number(dir, "mbm_total_bytes"),
            local: number(dir, "mbm_local_bytes"),
        };
        rdt.bandwidth_counts = Some(caches.iter().map(count).collect());
    }
    if has("llc_occupancy") {
        rdt.occupancy = Some(caches.iter().map(|dir| number(dir, "llc_occupancy")).collect());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory that looks like resctrl.
    struct Fake(String);

    impl Fake {
        fn new(name: &str, files: &[(&str, &str)]) -> Fake {
            let dir =
                std::env::temp_dir().join(format!("cofferdam-resctrl-stats-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = dir.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Fake(dir.to_str().unwrap().to_owned())
        }

        fn group(&self, name: &str, monitor: bool) -> Group {
            let path = format!("{}/{name}", self.0);
            Group { monitor: monitor.then(|| format!("{path}/mon_groups/c1")), path, made: true }
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const ALL: [(&str, &str); 15] = [
        ("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"),
        ("info/L3/cbm_mask", "fffff\n"),
        ("info/L3/min_cbm_bits", "1\n"),
        ("info/L3/num_closids", "16\n"),
        ("info/MB/bandwidth_gran", "10\n"),
        ("info/MB/delay_linear", "1\n"),
        ("info/MB/min_bandwidth", "10\n"),
        ("info/MB/num_closids", "8\n"),
        ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
        ("gold/schemata", "    MB:0=20;1=70\n    L3:0=f;1=f0\n"),
        ("gold/mon_data/mon_L3_00/llc_occupancy", "4096\n"),
        ("gold/mon_data/mon_L3_00/mbm_total_bytes", "9\n"),
        ("gold/mon_data/mon_L3_00/mbm_local_bytes", "8\n"),
        ("gold/mon_data/mon_L3_01/llc_occupancy", "Unavailable\n"),
        ("gold/mon_groups/c1/mon_data/mon_L3_00/llc_occupancy", "1024\n"),
    ];

    #[test]
    fn shares_and_counters_are_read() {
        let fake = Fake::new("all", &ALL);
        let rdt = read(&fake.group("gold", false), &fake.0).unwrap();
        assert_eq!(
            rdt.l3,
            Some(L3Cache {
                cbm_mask: "fffff".into(),
                min_cbm_bits: 1,
                num_closids: 16,
                schema_root: "L3:0=fffff;1=fffff".into(),
                schema: "L3:0=f;1=f0".into(),
            })
        );
        let bandwidth = rdt.memory_bandwidth.unwrap();
        assert_eq!((bandwidth.bandwidth_gran, bandwidth.min_bandwidth, bandwidth.num_closids), (10, 10, 8));
        assert_eq!(bandwidth.schema, "MB:0=20;1=70");
        let none = BandwidthCount::default();
        assert_eq!(rdt.bandwidth_counts, Some(vec![BandwidthCount { total: 9, local: 8 }, none]));
        assert_eq!(rdt.occupancy, Some(vec![4096, 0]), "what is unavailable takes nothing else away");
    }

    #[test]
    fn a_container_that_is_monitored_has_its_own_counters() {
        let fake = Fake::new("own", &ALL);
        assert_eq!(read(&fake.group("gold", true), &fake.0).unwrap().occupancy, Some(vec![1024]));
    }

    #[test]
    fn what_the_processor_cannot_do_is_left_out() {
        let fake = Fake::new("none", &[("schemata", "L2:0=ff\n"), ("gold/schemata", "L2:0=f\n")]);
        assert_eq!(read(&fake.group("gold", false), &fake.0).unwrap(), IntelRdt::default());
        assert!(read(&fake.group("silver", false), &fake.0).is_err());
    }
}
