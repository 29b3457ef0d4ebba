//! `org.systemd.property.NAME` annotations: unit properties that the container's creator asks for.
//!
//! Annotations come from images and pods as well as from engines, and some properties make systemd run or start things
//! (`OnFailure=`, `Wants=`), so only those of a list are taken: how the unit is ended and cleaned up, how it is ordered,
//! and what it may use. Any other is refused, not ignored: a container whose creator relies on it should not start.

use crate::refused::Refused;
use crate::systemd::property::Property;
use crate::systemd::value::Value;

const PREFIX: &str = "org.systemd.property.";

/// Without `Delegate`: systemd would take a hand in what lies below the container's cgroup, its device policy included.
/// In the order of systemd.resource-control(5), systemd.kill(5), systemd.unit(5) and systemd.scope(5).
const ALLOWED: [&str; 59] = [
    "CPUAccounting",
    "CPUWeight",
    "StartupCPUWeight",
    "CPUShares",
    "StartupCPUShares",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "AllowedCPUs",
    "StartupAllowedCPUs",
    "AllowedMemoryNodes",
    "StartupAllowedMemoryNodes",
    "MemoryAccounting",
    "MemoryMin",
    "MemoryLow",
    "DefaultMemoryMin",
    "DefaultMemoryLow",
    "MemoryHigh",
    "MemoryMax",
    "MemorySwapMax",
    "MemoryZSwapMax",
    "MemoryZSwapWriteback",
    "MemoryLimit",
    "TasksAccounting",
    "TasksMax",
    "IOAccounting",
    "IOWeight",
    "StartupIOWeight",
    "BlockIOAccounting",
    "BlockIOWeight",
    "StartupBlockIOWeight",
    "IPAccounting",
    "DelegateControllers",
    "ManagedOOMSwap",
    "ManagedOOMMemoryPressure",
    "ManagedOOMMemoryPressureLimit",
    "ManagedOOMMemoryPressureDurationUSec",
    "ManagedOOMPreference",
    "MemoryPressureWatch",
    "MemoryPressureThresholdUSec",
    "CoredumpReceive",
    "KillMode",
    "KillSignal",
    "RestartKillSignal",
    "SendSIGHUP",
    "SendSIGKILL",
    "FinalKillSignal",
    "WatchdogSignal",
    "Description",
    "Documentation",
    "After",
    "Before",
    "DefaultDependencies",
    "CollectMode",
    "IgnoreOnIsolate",
    "AddRef",
    "OOMPolicy",
    "RuntimeMaxUSec",
    "RuntimeRandomizedExtraUSec",
    "TimeoutStopUSec",
];

/// Takes the unit properties out of a container's annotations, sorted by name. They go at the end of
/// [`crate::Settings::properties`], where they win over our own.
///
/// # Errors
///
/// Refuses properties that are not on the list and values that are not GVariant text.
pub fn properties<K: AsRef<str>, V: AsRef<str>>(
    annotations: impl IntoIterator<Item = (K, V)>,
) -> Result<Vec<Property>, Refused> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let key = key.as_ref();
        if let Some(name) = key.strip_prefix(PREFIX) {
            let refuse = |why| Refused::new(format!("/annotations/{}", escape(key)), why);
            properties.push(property(name, text.as_ref()).map_err(refuse)?);
        }
    }
    properties.sort_by(|a: &Property, b| a.name.cmp(&b.name));
    Ok(properties)
}

fn property(name: &str, text: &str) -> Result<Property, String> {
    // systemd's manual pages say TimeoutStopSec= for what its D-Bus interface calls TimeoutStopUSec. As in runc, a small
    // letter before it tells such a name from one that ends in an abbreviation.
    let stem = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    let (name, value) = match stem {
        Some(stem) => (format!("{stem}USec"), microseconds(text)?),
        None => (name.to_owned(), text.parse()?),
    };
    if !ALLOWED.contains(&name.as_str()) {
        return Err(format!("the unit property {name} cannot be set by an annotation"));
    }
    Ok(Property { name, value, since: 0 })
}

fn microseconds(text: &str) -> Result<Value, String> {
    let seconds = match text.trim().strip_prefix("double").unwrap_or(text.trim()).trim() {
        fraction if fraction.contains('.') => {
            // Digits only: neither `inf` nor an exponent.
            let plain = fraction.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            fraction.parse::<f64>().ok().filter(|_| plain).map(|seconds| (seconds * 1e6) as u64)
        }
        _ => text.parse::<Value>()?.as_unsigned().and_then(|seconds| seconds.checked_mul(1_000_000)),
    };
    seconds.map(Value::U64).ok_or_else(|| format!("{text:?} is no number of seconds"))
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(annotations: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let properties = properties(annotations.iter().copied()).map_err(|refused| refused.to_string())?;
        Ok(properties.into_iter().map(|p| format!("{}={}", p.name, p.value)).collect())
    }

    #[test]
    fn podmans_annotations_are_taken() {
        assert_eq!(
            lines(&[
                ("org.systemd.property.TimeoutStopUSec", "uint64 10000000"),
                ("io.container.manager", "libpod"),
                ("org.systemd.property.KillSignal", "15"),
                ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
                ("org.systemd.property.After", "['crio.service']"),
            ])
            .unwrap(),
            [
                "After=['crio.service']",
                "CollectMode='inactive-or-failed'",
                "KillSignal=15",
                "TimeoutStopUSec=uint64 10000000",
            ]
        );
    }

    #[test]
    fn seconds_become_microseconds() {
        for (text, value) in
            [("10", "10000000"), ("uint64 2", "2000000"), ("1.5", "1500000"), ("double 0.25", "250000")]
        {
            assert_eq!(
                lines(&[("org.systemd.property.TimeoutStopSec", text)]).unwrap(),
                [format!("TimeoutStopUSec=uint64 {value}")]
            );
        }
    }

    #[test]
    fn others_are_refused() {
        for (name, text, message) in [
            ("OnFailure", "['evil.service']", "the unit property OnFailure cannot be set by an annotation"),
            ("Wants", "['evil.service']", "the unit property Wants cannot be set by an annotation"),
            ("Slice", "'other.slice'", "the unit property Slice cannot be set by an annotation"),
            ("PIDs", "[uint32 1]", "the unit property PIDs cannot be set by an annotation"),
            ("DeviceAllow", "@a(ss) []", "the unit property DeviceAllow cannot be set by an annotation"),
            ("", "1", "the unit property  cannot be set by an annotation"),
            ("KillSignal", "fifteen", "\"fifteen\" is no value of type \"i\""),
            ("TimeoutStopSec", "'x'", "\"'x'\" is no number of seconds"),
            ("TimeoutStopSec", "-1", "\"-1\" is no number of seconds"),
            ("TimeoutStopSec", "1.5.5", "\"1.5.5\" is no number of seconds"),
            (
                "TimeoutStopSec",
                "uint64 18446744073709551615",
                "\"uint64 18446744073709551615\" is no number of seconds",
            ),
        ] {
            let key = format!("{PREFIX}{name}");
            assert_eq!(
                lines(&[(&key, text)]).unwrap_err(),
                format!("config.json /annotations/{key}: {message}")
            );
        }
    }
}
