//! `/linux/netDevices`: devices of the host that move into the container's network namespace.

use crate::draft::Draft;
use crate::namespaces::Wanted;
use crate::{HostStep, NetworkDevice, Options};
use cofferdam_spec::{Refused, Spec};
use cofferdam_step::Namespace;

const SECTION: &str = "config-linux.md#network-devices";

/// Appends the step, behind the one with which init has its namespaces.
pub(crate) fn place(
    draft: &mut Draft,
    spec: &Spec,
    wanted: &Wanted,
    options: &Options,
) -> Result<(), Refused> {
    let devices = &spec.linux.net_devices;
    if devices.is_empty() {
        return Ok(());
    }
    let refuse = |message: &str| Err(Refused::new("/linux/netDevices", SECTION, message));
    if !wanted.has(Namespace::Network) {
        return refuse("unable to move network devices without a network namespace of the container's");
    }
    if options.rootless {
        return refuse("network devices are not supported for rootless containers");
    }
    let devices: Vec<NetworkDevice> = devices
        .iter()
        .map(|(name, device)| {
            let new_name = if device.name.is_empty() { name.clone() } else { device.name.clone() };
            NetworkDevice { name: name.clone(), new_name }
        })
        .collect();
    for (i, device) in devices.iter().enumerate() {
        for name in [&device.name, &device.new_name] {
            if !is_device_name(name) {
                let pointer = format!("/linux/netDevices/{}", device.name);
                return Err(Refused::new(pointer, SECTION, format!("invalid network device name {name:?}")));
            }
        }
        if let Some(other) = devices[..i].iter().find(|other| other.new_name == device.new_name) {
            let pointer = format!("/linux/netDevices/{}/name", device.name);
            let message = format!("{:?} is the name of {:?} already", device.new_name, other.name);
            return Err(Refused::new(pointer, SECTION, message));
        }
    }
    let joined = wanted.joined.iter().find(|(kind, _)| *kind == Namespace::Network);
    let namespace = joined.map(|(_, path)| path.clone());
    draft.host(HostStep::MoveNetworkDevices { devices, namespace });
    Ok(())
}

/// The kernel's rule (`dev_valid_name` in net/core/dev.c).
fn is_device_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() < 16
        && !name.bytes().any(|byte| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for good in ["eth0", "a", "enp0s31f6", "fifteen_letters", "veth-1.2@x"] {
            assert!(is_device_name(good), "{good}");
        }
        for bad in ["", ".", "..", "sixteen_letters_", "a b", "a/b", "a:1", "a\n"] {
            assert!(!is_device_name(bad), "{bad}");
        }
    }
}
