//! What looks around inside a container: prints what it sees as JSON, and tries what an attacker would.
#![forbid(unsafe_code)]

use serde_json::{Map, Value, json};
use std::fs;

fn main() {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    match verb.as_str() {
        "see" => println!("{}", see()),
        "notify" => notify(&words.next().unwrap_or_default()),
        _ => {
            eprintln!("{verb}: what is that?");
            std::process::exit(2);
        }
    }
}

/// Speaks to the service manager, and stays.
fn notify(words: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("socket");
    let path = std::env::var_os("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    socket.send_to(words.as_bytes(), path).expect("send");
    std::thread::sleep(std::time::Duration::from_secs(1000));
}

fn text(path: &str) -> Value {
    match fs::read(path) {
        Ok(bytes) => json!(String::from_utf8_lossy(&bytes)),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn links(dir: &str) -> Value {
    let mut map = Map::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // The directory itself has a descriptor for as long as it is read.
        if let Ok(target) = fs::read_link(entry.path()) {
            map.insert(entry.file_name().to_string_lossy().into_owned(), json!(target.to_string_lossy()));
        }
    }
    Value::Object(map)
}

fn status() -> Value {
    let mut map = Map::new();
    for line in fs::read_to_string("/proc/self/status").unwrap_or_default().lines() {
        if let Some((key, value)) = line.split_once(':') {
            map.insert(key.to_owned(), json!(value.trim().replace('\t', " ")));
        }
    }
    Value::Object(map)
}

fn see() -> Value {
    let names = nix::sys::utsname::uname().ok();
    let environment: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    json!({
        "args": std::env::args().collect::<Vec<_>>(),
        "env": environment,
        "cwd": std::env::current_dir().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default(),
        "pid": std::process::id(),
        "status": status(),
        "stat": text("/proc/self/stat"),
        "limits": text("/proc/self/limits"),
        "mounts": text("/proc/self/mountinfo"),
        "cgroup": text("/proc/self/cgroup"),
        "ns": links("/proc/self/ns"),
        "fd": links("/proc/self/fd"),
        "hostname": names.as_ref().map(|names| names.nodename().to_string_lossy().into_owned()),
        "domainname": names.as_ref().map(|names| names.domainname().to_string_lossy().into_owned()),
        "machine": names.as_ref().map(|names| names.machine().to_string_lossy().into_owned()),
        "personality": text("/proc/self/personality"),
        "oom_score_adj": text("/proc/self/oom_score_adj"),
        "timens_offsets": text("/proc/self/timens_offsets"),
        "uid_map": text("/proc/self/uid_map"),
        "gid_map": text("/proc/self/gid_map"),
        "keys": text("/proc/keys"),
        "label": text("/proc/self/attr/current"),
    })
}
