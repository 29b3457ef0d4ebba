//! `linux.resources` as systemd's unit properties, without I/O.
//!
//! systemd writes the controller files of its units itself whenever it likes, so it has to know the limits: what we
//! wrote to the files alone would be undone by the next `systemctl daemon-reload`. Properties that came with a later
//! systemd carry the version ([`Property::since`]); the same value is written to the files anyway.

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::devices::{DevicePolicy, DeviceType, Exception};
use crate::refused::Refused;
use crate::systemd::value::Value;
use crate::translate::{cpu_weight, swap_only};

/// A property of a systemd unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// Its D-Bus name, e.g. `TasksMax`.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Not sent to a systemd older than this version; 0: sent to all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub since: u32,
}

fn is_zero(since: &u32) -> bool {
    *since == 0
}

impl Property {
    /// A property that every systemd knows.
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Property { name: name.into(), value: value.into(), since: 0 }
    }

    /// Whether it is systemd's word for `cpu.idle`.
    pub(crate) fn is_idle(&self) -> bool {
        *self == idle()
    }

    fn of_version(mut self, version: u32) -> Self {
        self.since = version;
        self
    }
}

const BASE: &str = "/linux/resources";
const INFINITY: u64 = u64::MAX;
const DEFAULT_PERIOD: u64 = 100_000;

/// The properties that hold a container's resources. `v2`: in the words of the unified hierarchy.
///
/// # Errors
///
/// Refuses lists of CPUs that cannot be parsed, and values of `unified` that are not what their key needs.
pub fn from_resources(
    resources: &LinuxResources,
    devices: Option<&DevicePolicy>,
    v2: bool,
) -> Result<Vec<Property>, Refused> {
    let mut out = Vec::new();
    if let Some(policy) = devices {
        out.extend(device_properties(policy));
    }
    memory(resources, v2, &mut out)?;
    cpu(resources, v2, &mut out)?;
    if let Some(weight) = resources.block_io().as_ref().and_then(|io| io.weight()).filter(|&w| w != 0 && !v2)
    {
        out.push(Property::new("BlockIOWeight", u64::from(weight)));
    }
    if let Some(pids) = resources.pids() {
        // systemd refuses TasksMax=0; the file has 1, too.
        out.push(Property::new("TasksMax", u64::try_from(pids.limit()).unwrap_or(INFINITY).max(1)));
    }
    if v2 {
        unified(resources, &mut out)?;
    }
    Ok(out)
}

fn limit(name: &str, value: i64, out: &mut Vec<Property>) {
    if value != 0 {
        out.push(Property::new(name, u64::try_from(value).unwrap_or(INFINITY)));
    }
}

fn memory(resources: &LinuxResources, v2: bool, out: &mut Vec<Property>) -> Result<(), Refused> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let (bytes, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    if !v2 {
        limit("MemoryLimit", bytes, out);
        return Ok(());
    }
    limit("MemoryMax", bytes, out);
    limit("MemoryLow", memory.reservation().unwrap_or(0), out);
    // A new sum alone (`update --memory-swap`) needs the present limit, which only the file knows.
    if bytes != 0 || swap <= 0 {
        let only = swap_only(bytes, swap)?;
        if only != 0 || swap > 0 {
            out.push(Property::new("MemorySwapMax", u64::try_from(only).unwrap_or(INFINITY)));
        }
    }
    Ok(())
}

fn cpu(resources: &LinuxResources, v2: bool, out: &mut Vec<Property>) -> Result<(), Refused> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    let shares = cpu.shares().unwrap_or(0);
    if v2 {
        if cpu.idle() == Some(1) {
            out.push(idle());
        } else if shares != 0 {
            out.push(Property::new("CPUWeight", cpu_weight(shares)));
        }
    } else if shares != 0 {
        out.push(Property::new("CPUShares", shares));
    }
    quota(cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0), out);
    for (list, property, name) in
        [(cpu.cpus(), "cpu/cpus", "AllowedCPUs"), (cpu.mems(), "cpu/mems", "AllowedMemoryNodes")]
    {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            out.push(mask(name, list).map_err(|why| Refused::new(format!("{BASE}/{property}"), why))?);
        }
    }
    Ok(())
}

/// A CPU weight of 0 is systemd's word for `cpu.idle`.
fn idle() -> Property {
    Property::new("CPUWeight", 0u64).of_version(252)
}

pub(super) fn quota(quota: i64, period: u64, out: &mut Vec<Property>) {
    if period != 0 {
        out.push(Property::new("CPUQuotaPeriodUSec", period).of_version(242));
    }
    if quota == 0 && period == 0 {
        return;
    }
    let per_second = match u64::try_from(quota) {
        Ok(quota @ 1..) => whole_percents(quota, if period == 0 { DEFAULT_PERIOD } else { period }),
        _ => INFINITY,
    };
    out.push(Property::new("CPUQuotaPerSecUSec", per_second));
}

/// Microseconds of CPU time a second. systemd keeps whole percents of a CPU. Rounded down, the limit would be below the one that
/// is then written to the files of the container's own sub-cgroups; rounded up it only leaves a little room.
pub(super) fn whole_percents(quota: u64, period: u64) -> u64 {
    let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(exact.div_ceil(10_000) * 10_000).unwrap_or(INFINITY)
}

fn mask(name: &str, list: &str) -> Result<Property, String> {
    Ok(Property::new(name, Value::bytes(&bitmask(&parse_list(list)?))).of_version(244))
}

/// Parses a list of CPUs or memory nodes (`0-3,7`) into inclusive ranges.
pub(crate) fn parse_list(list: &str) -> Result<Vec<(u32, u32)>, String> {
    // The kernel allows 8192 CPUs; the bound keeps a hostile number from becoming a huge mask.
    const MOST: u32 = 65_535;
    let bad = |part: &str| format!("{list:?} is no list of numbers and ranges: {part:?}");
    let mut ranges = Vec::new();
    for part in list.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        // `0-15:2/4` (two of each four) is the kernel's, too; it is left to the kernel to check.
        let range = part.split(':').next().unwrap_or(part);
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last && last <= MOST => ranges.push((first, last)),
            _ => return Err(bad(part)),
        }
    }
    if ranges.is_empty() { Err(bad("")) } else { Ok(ranges) }
}

/// systemd's byte array: bit `n % 8` of byte `n / 8` stands for CPU `n`.
fn bitmask(ranges: &[(u32, u32)]) -> Vec<u8> {
    let last = ranges.iter().map(|&(_, last)| last).max().unwrap_or(0) as usize;
    let mut bytes = vec![0; last / 8 + 1];
    for &(first, last) in ranges {
        for n in first as usize..=last as usize {
            bytes[n / 8] |= 1 << (n % 8);
        }
    }
    bytes
}

fn device_properties(policy: &DevicePolicy) -> Vec<Property> {
    const ENTRY: &str = "(ss)";
    let clear = Property::new("DeviceAllow", Value::Array(ENTRY.to_owned(), Vec::new()));
    if policy.allows_everything() {
        // No policy and an empty list stand for "everything".
        return vec![Property::new("DevicePolicy", "auto"), clear];
    }
    let strict = Property::new("DevicePolicy", "strict");
    if policy.allow_by_default {
        // systemd has no deny lists: deny everything until our own filter is in place, right after.
        return vec![strict, clear];
    }
    let allow = policy.exceptions.iter().filter_map(device_allow).collect();
    vec![strict, clear, Property::new("DeviceAllow", Value::Array(ENTRY.to_owned(), allow))]
}

// systemd >= 240 reads the numbers out of /dev/char/1:3 and char-136 without looking whether such a node exists.
// A wildcard major with a fixed minor cannot be said; our own filter says it.
fn device_allow(exception: &Exception) -> Option<Value> {
    let devices = exception.devices;
    let (dir, group) = match devices.typ {
        DeviceType::Block => ("block", "block-"),
        DeviceType::Char => ("char", "char-"),
    };
    let path = match (devices.major, devices.minor) {
        (Some(major), Some(minor)) => format!("/dev/{dir}/{major}:{minor}"),
        (Some(major), None) => format!("{group}{major}"),
        (None, None) => format!("{group}*"),
        (None, Some(_)) => return None,
    };
    Some(Value::Struct(vec![Value::Str(path), Value::Str(exception.access.to_string())]))
}

// What has no property is left to the file, as in runc.
fn unified(resources: &LinuxResources, out: &mut Vec<Property>) -> Result<(), Refused> {
    let Some(unified) = resources.unified() else { return Ok(()) };
    let mut entries: Vec<_> = unified.iter().map(|(key, value)| (key.as_str(), value.trim())).collect();
    entries.sort_unstable();
    let is_idle = unified.get("cpu.idle").is_some_and(|value| value.trim() == "1");
    for (key, value) in entries {
        let bad = |why: String| Refused::new(format!("{BASE}/unified/{key}"), why);
        let number =
            || max_or_number(value).ok_or_else(|| bad(format!("{value:?} is neither a number nor max")));
        let property = match key {
            "cpu.idle" if is_idle => idle(),
            "cpu.max" => {
                let (quota_us, period) = cpu_max(value).ok_or_else(|| {
                    bad(format!("{value:?} is not of the form \"QUOTA\" or \"QUOTA PERIOD\""))
                })?;
                quota(quota_us, period, out);
                continue;
            }
            "cpu.weight" if !is_idle => Property::new("CPUWeight", number()?),
            "cpuset.cpus" => mask("AllowedCPUs", value).map_err(bad)?,
            "cpuset.mems" => mask("AllowedMemoryNodes", value).map_err(bad)?,
            "memory.high" => Property::new("MemoryHigh", number()?),
            "memory.low" => Property::new("MemoryLow", number()?),
            "memory.min" => Property::new("MemoryMin", number()?),
            "memory.max" => Property::new("MemoryMax", number()?),
            "memory.swap.max" => Property::new("MemorySwapMax", number()?),
            "memory.oom.group" => {
                Property::new("OOMPolicy", if value == "1" { "kill" } else { "continue" }).of_version(253)
            }
            "pids.max" => Property::new("TasksMax", number()?.max(1)),
            _ => continue,
        };
        out.push(property);
    }
    Ok(())
}

fn max_or_number(value: &str) -> Option<u64> {
    if value == "max" { Some(INFINITY) } else { value.parse().ok() }
}

pub(super) fn cpu_max(value: &str) -> Option<(i64, u64)> {
    let mut words = value.split_ascii_whitespace();
    let quota = match words.next()? {
        "max" => 0,
        number => number.parse().ok()?,
    };
    let period = words.next().map_or(Some(DEFAULT_PERIOD), |period| period.parse().ok())?;
    words.next().is_none().then_some((quota, period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::default_device_rules;

    fn lines(json: &str, v2: bool) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let policy = resources.devices().as_ref().map(|rules| {
            let mut rules = rules.clone();
            rules.extend(default_device_rules());
            DevicePolicy::compile(&rules).unwrap()
        });
        let properties = from_resources(&resources, policy.as_ref(), v2).unwrap();
        properties
            .into_iter()
            .map(|p| match p.since {
                0 => format!("{}={}", p.name, p.value),
                since => format!("{}={} ({since})", p.name, p.value),
            })
            .collect()
    }

    #[test]
    fn dockers_limits_on_v2() {
        let json = r#"{"memory":{"limit":67108864,"swap":100663296},"cpu":{"quota":50000,"period":100000,"cpus":"0"},
                       "pids":{"limit":77},"blockIO":{}}"#;
        assert_eq!(
            lines(json, true),
            [
                "MemoryMax=uint64 67108864",
                "MemorySwapMax=uint64 33554432",
                "CPUQuotaPeriodUSec=uint64 100000 (242)",
                "CPUQuotaPerSecUSec=uint64 500000",
                "AllowedCPUs=[byte 1] (244)",
                "TasksMax=uint64 77",
            ]
        );
    }

    #[test]
    fn v1_has_words_of_its_own() {
        let json = r#"{"memory":{"limit":1048576,"reservation":4096},"cpu":{"shares":512},"blockIO":{"weight":500},
                       "pids":{"limit":-1}}"#;
        assert_eq!(
            lines(json, false),
            [
                "MemoryLimit=uint64 1048576",
                "CPUShares=uint64 512",
                "BlockIOWeight=uint64 500",
                "TasksMax=uint64 18446744073709551615",
            ]
        );
    }

    #[test]
    fn no_tasks_at_all_is_one_for_systemd() {
        assert_eq!(lines(r#"{"pids":{"limit":0}}"#, true), ["TasksMax=uint64 1"]);
    }

    #[test]
    fn quota_is_rounded_up_to_a_whole_percent() {
        let json = r#"{"cpu":{"quota":33333,"period":100000}}"#;
        assert_eq!(lines(json, true)[1], "CPUQuotaPerSecUSec=uint64 340000");
        assert_eq!(
            lines(r#"{"cpu":{"quota":-1}}"#, true),
            ["CPUQuotaPerSecUSec=uint64 18446744073709551615"]
        );
    }

    #[test]
    fn idle_beats_the_weight() {
        assert_eq!(lines(r#"{"cpu":{"idle":1,"shares":1024}}"#, true), ["CPUWeight=uint64 0 (252)"]);
        assert_eq!(lines(r#"{"cpu":{"idle":0,"shares":1024}}"#, true), ["CPUWeight=uint64 100"]);
    }

    #[test]
    fn devices_become_an_allow_list() {
        assert_eq!(
            lines(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#, true),
            [
                "DevicePolicy='strict'",
                "DeviceAllow=@a(ss) []",
                "DeviceAllow=[('block-*', 'm'), ('char-*', 'm'), ('/dev/char/1:3', 'rwm'), ('/dev/char/1:5', 'rwm'), \
                 ('/dev/char/1:7', 'rwm'), ('/dev/char/1:8', 'rwm'), ('/dev/char/1:9', 'rwm'), ('/dev/char/5:0', 'rwm'), \
                 ('/dev/char/5:2', 'rwm'), ('/dev/char/10:200', 'rwm'), ('char-136', 'rwm')]",
            ]
        );
        assert_eq!(
            lines(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#, true),
            ["DevicePolicy='auto'", "DeviceAllow=@a(ss) []"]
        );
    }

    #[test]
    fn unified_is_translated_where_systemd_has_a_word() {
        let json = r#"{"unified":{"cpu.max":"max 50000","cpu.weight":"50","cpuset.cpus":"0-2,9","memory.high":"max",
                       "memory.min":" 4096\n","memory.oom.group":"1","pids.max":"7","io.latency":"8:0 target=1"}}"#;
        assert_eq!(
            lines(json, true),
            [
                "CPUQuotaPeriodUSec=uint64 50000 (242)",
                "CPUQuotaPerSecUSec=uint64 18446744073709551615",
                "CPUWeight=uint64 50",
                "AllowedCPUs=[byte 7, byte 2] (244)",
                "MemoryHigh=uint64 18446744073709551615",
                "MemoryMin=uint64 4096",
                "OOMPolicy='kill' (253)",
                "TasksMax=uint64 7",
            ]
        );
        let resources = serde_json::from_str(r#"{"unified":{"memory.max":"1G"}}"#).unwrap();
        assert_eq!(
            from_resources(&resources, None, true).unwrap_err().to_string(),
            "config.json /linux/resources/unified/memory.max: \"1G\" is neither a number nor max"
        );
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_list("0-3,7").unwrap(), [(0, 3), (7, 7)]);
        assert_eq!(parse_list(" 1 , 2\n").unwrap(), [(1, 1), (2, 2)]);
        for bad in ["", "a", "3-1", "-1", "1-", "99999999"] {
            assert!(parse_list(bad).unwrap_err().contains("is no list of numbers and ranges"), "{bad}");
        }
    }
}
