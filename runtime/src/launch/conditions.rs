//! What a plan takes for granted about namespaces that are joined, checked on the machine.

use crate::error::Error;
use cofferdam_plan::Condition;
use cofferdam_spec::{IdMapping, Refused};
use cofferdam_step::Slot;
use cofferdam_sys::{Cwd, Fd, fs};

/// Refuses namespaces that turn out to be the runtime's own; in front of the spawn.
pub(super) fn check_files(conditions: &[Condition], slots: &[Option<Fd>]) -> Result<(), Error> {
    for condition in conditions {
        if let Condition::NotOurs { slot, message } = condition {
            let file = behind(slots, *slot)?;
            let own = fs::openat(&Cwd, b"/proc/self/ns/net", fs::O_PATH, 0)
                .and_then(|own| Ok((fs::stat(&own, b"")?, fs::stat(file, b"")?)));
            // An O_PATH descriptor of a magic link's target: the namespace's inode, not the link's.
            let (own, wanted) = own.map_err(|errno| Error::io("look at", "/proc/self/ns/net", errno))?;
            if (own.dev, own.ino) == (wanted.dev, wanted.ino) {
                return Err(Refused::new("/linux/sysctl", "config-linux.md#sysctl", message.as_str()).into());
            }
        }
    }
    Ok(())
}

/// Refuses a user namespace whose mappings are not those of config.json; once a process is in it.
pub(super) fn check_maps(conditions: &[Condition], pid: i32) -> Result<(), Error> {
    for condition in conditions {
        if let Condition::Maps { uid, gid, message, .. } = condition {
            for (name, wanted) in [("uid_map", uid), ("gid_map", gid)] {
                let path = format!("/proc/{pid}/{name}");
                let text = std::fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
                if parse(&text) != *wanted {
                    let section = "config-linux.md#user-namespace-mappings";
                    return Err(Refused::new("/linux/namespaces", section, message.as_str()).into());
                }
            }
        }
    }
    Ok(())
}

fn behind(slots: &[Option<Fd>], slot: Slot) -> Result<&Fd, Error> {
    slots
        .get(usize::from(slot.0))
        .and_then(Option::as_ref)
        .ok_or_else(|| Error::Unsupported("the plan names a slot that it has not".into()))
}

/// A map as the kernel prints it, three numbers a line.
fn parse(map: &str) -> Vec<IdMapping> {
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(container_id)), Some(Ok(host_id)), Some(Ok(size))) => {
                    Some(IdMapping { container_id, host_id, size })
                }
                _ => None,
            }
        })
        .collect()
}
