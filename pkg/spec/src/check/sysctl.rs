//! `/linux/sysctl`: only what belongs to a namespace of the container's own.

use super::{Checked, no_nul, refuse};
use crate::Spec;

const SECTION: &str = "config-linux.md#sysctl";

/// What is in an ipc namespace, besides `fs.mqueue.*`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn check(spec: &Spec) -> Checked {
    for (key, value) in &spec.linux.sysctl {
        let pointer = || format!("/linux/sysctl/{}", key.replace('~', "~0").replace('/', "~1"));
        no_nul(pointer, SECTION, key)?;
        no_nul(pointer, SECTION, value)?;
        if let Err(message) = one(spec, &dotted(key)) {
            return refuse(pointer(), SECTION, message);
        }
    }
    Ok(())
}

fn one(spec: &Spec, key: &str) -> Result<(), String> {
    let own = |kind| spec.linux.namespace(kind).is_some();
    // What climbs or doubles separators is no name of a sysctl, whatever it begins with.
    if key
        .split('.')
        .any(|part| part.is_empty() || part == "/" || part.split('/').any(|name| name.is_empty()))
    {
        return Err(format!("{key:?} is no name of a sysctl"));
    }
    if IPC.contains(&key) || key.starts_with("fs.mqueue.") {
        return match own("ipc") {
            true => Ok(()),
            false => Err(format!("sysctl {key:?} is not allowed in the hosts ipc namespace")),
        };
    }
    if key.starts_with("net.") {
        return match own("network") {
            true => Ok(()),
            false => Err(format!("sysctl {key:?} not allowed in host network namespace")),
        };
    }
    if key.starts_with("user.") && own("user") {
        return Ok(());
    }
    match key {
        "kernel.hostname" if own("uts") => {
            Err(format!("sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field"))
        }
        "kernel.domainname" if own("uts") && !spec.domainname.is_empty() => {
            Err(format!("sysctl {key:?} is not allowed as it conflicts with the OCI \"domainname\" field"))
        }
        "kernel.domainname" if own("uts") => Ok(()),
        _ => Err(format!("sysctl {key:?} is not in a separate kernel namespace")),
    }
}

/// A name with dots between its parts. Where the first separator is a slash, slash and dot change places, as sysctl(8) has it:
/// `net/ipv4/conf/eno2.100/rp_filter`.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, warnings};
    use serde_json::json;

    #[test]
    fn a_sysctl_of_a_namespace_of_its_own_is_taken() {
        let sysctl = json!({
            "kernel.shmmax": "1", "fs.mqueue.msg_max": "1", "net.ipv4.ip_forward": "1", "kernel.domainname": "x",
            "net/ipv4/conf/eno2.100/rp_filter": "1"
        });
        assert!(warnings(json!({"linux": {"sysctl": sysctl}})).is_empty());
    }

    #[test]
    fn a_sysctl_of_the_host_is_refused() {
        let host = json!([{"type": "mount"}, {"type": "pid"}]);
        for (key, message) in [
            (
                "kernel.sem",
                "config.json /linux/sysctl/kernel.sem: sysctl \"kernel.sem\" is not allowed in the hosts ipc namespace",
            ),
            (
                "net.ipv4.ip_forward",
                "config.json /linux/sysctl/net.ipv4.ip_forward: sysctl \"net.ipv4.ip_forward\" not allowed in host \
                 network namespace",
            ),
            (
                "vm.overcommit_memory",
                "config.json /linux/sysctl/vm.overcommit_memory: sysctl \"vm.overcommit_memory\" is not in a separate \
                 kernel namespace",
            ),
            (
                "user.max_user_namespaces",
                "config.json /linux/sysctl/user.max_user_namespaces: sysctl \"user.max_user_namespaces\" is not in a \
                 separate kernel namespace",
            ),
        ] {
            let change = json!({"hostname": "", "linux": {"namespaces": host, "sysctl": {key: "1"}}});
            assert_eq!(refusal(change), message);
        }
    }

    #[test]
    fn a_sysctl_does_not_contradict_the_name() {
        assert_eq!(
            refusal(json!({"linux": {"sysctl": {"kernel.hostname": "x"}}})),
            "config.json /linux/sysctl/kernel.hostname: sysctl \"kernel.hostname\" is not allowed as it conflicts with \
             the OCI \"hostname\" field"
        );
        assert_eq!(
            refusal(json!({"domainname": "d", "linux": {"sysctl": {"kernel.domainname": "x"}}})),
            "config.json /linux/sysctl/kernel.domainname: sysctl \"kernel.domainname\" is not allowed as it conflicts \
             with the OCI \"domainname\" field"
        );
    }

    #[test]
    fn a_sysctl_does_not_climb() {
        assert_eq!(
            refusal(json!({"linux": {"sysctl": {"net.ipv4...kernel.core_pattern": "x"}}})),
            "config.json /linux/sysctl/net.ipv4...kernel.core_pattern: \"net.ipv4...kernel.core_pattern\" is no name of \
             a sysctl"
        );
        assert_eq!(
            refusal(json!({"linux": {"sysctl": {"net/../kernel/core_pattern": "x"}}})),
            "config.json /linux/sysctl/net~1..~1kernel~1core_pattern: \"net.//.kernel.core_pattern\" is no name of a \
             sysctl"
        );
    }
}
