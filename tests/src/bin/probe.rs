//! What looks around inside a container: prints what it sees as JSON, and tries what an attacker would.
#![forbid(unsafe_code)]

use cofferdam_sys::mount::{MountAttr, attr};
use nix::mount::MsFlags;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

fn main() {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    match verb.as_str() {
        "see" => println!("{}", see()),
        "rewrite" => rewrite(seconds(words.next())),
        "steal" => steal(&words.next().unwrap_or_default(), seconds(words.next())),
        "rights" => rights(&words.next().unwrap_or_default(), seconds(words.next())),
        "lock" => lock(&words.next().unwrap_or_default()),
        "try-lock" => try_lock(&words.next().unwrap_or_default()),
        "uproot" => uproot(&words.next().unwrap_or_default()),
        "notify" => notify(&words.next().unwrap_or_default()),
        _ => {
            eprintln!("{verb}: what is that?");
            std::process::exit(2);
        }
    }
}

fn seconds(word: Option<String>) -> Duration {
    Duration::from_secs(word.and_then(|word| word.parse().ok()).unwrap_or(0))
}

/// Locks a file (flock(2)) for as long as it is let.
fn lock(path: &str) {
    let file = fs::File::open(path).expect("open");
    file.lock().expect("flock");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Ends with 1 if somebody else has locked the file.
fn try_lock(path: &str) {
    if fs::File::open(path).expect("open").try_lock().is_err() {
        std::process::exit(1);
    }
}

/// The other processes that are to be seen.
fn others() -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| *name != own && name.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// Looks out for programs that are not the container's own, keeps them open, and tries to write to them: by the descriptor, by
/// making the mount below it writable, by its file's mode.
fn rewrite(limit: Duration) {
    let known = |metadata: &fs::Metadata| {
        ["/bin/busybox", "/proc/self/exe"].iter().any(|path| {
            fs::metadata(path).is_ok_and(|own| (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()))
        })
    };
    let mut caught: Vec<fs::File> = Vec::new();
    println!("ready");
    let end = Instant::now() + limit;
    loop {
        for pid in others() {
            let path = format!("/proc/{pid}/exe");
            let Ok(file) = fs::File::open(&path) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let same = |other: &fs::File| {
                other.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()))
            };
            if known(&metadata) || caught.iter().any(same) || caught.len() > 200 {
                continue;
            }
            println!("caught {}", fs::read_link(&path).unwrap_or_default().display());
            caught.push(file);
        }
        caught.iter().for_each(overwrite);
        if Instant::now() >= end {
            return;
        }
    }
}

fn overwrite(file: &fs::File) {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    let _ = nix::mount::mount(None::<&str>, path.as_str(), None::<&str>, flags, None::<&str>);
    let change = MountAttr { clear: attr::RDONLY, ..MountAttr::default() };
    let _ = cofferdam_sys::mount::mount_setattr(file, false, &change);
    let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o777));
    if let Ok(mut writable) = fs::OpenOptions::new().write(true).open(&path)
        && writable.write_all(b"pwned").is_ok()
    {
        println!("WROTE {}", fs::read_link(&path).unwrap_or_default().display());
    }
}

/// Looks at what every other process has open, stands on or has as its root, for a way to the host's file.
fn steal(secret: &str, limit: Duration) {
    println!("ready");
    let end = Instant::now() + limit;
    let mut told = std::collections::BTreeSet::new();
    loop {
        for pid in others() {
            let mut ways = vec![format!("/proc/{pid}/cwd"), format!("/proc/{pid}/root")];
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            ways.extend(open.map(|entry| entry.path().to_string_lossy().into_owned()));
            for way in ways {
                let found = (0..8).find(|depth| {
                    let path = format!("{way}/{}{}", "../".repeat(*depth), secret.trim_start_matches('/'));
                    fs::read_to_string(path).is_ok_and(|text| text.contains("secret"))
                });
                if found.is_some() {
                    let target = fs::read_link(&way).unwrap_or_default();
                    let kind = way.trim_start_matches(&format!("/proc/{pid}")).to_owned();
                    if told.insert(kind) {
                        println!("STOLEN by {way} -> {}", target.display());
                    }
                }
            }
        }
        if Instant::now() >= end {
            return;
        }
    }
}

/// Looks out for processes that hold more capabilities than a mask (hexadecimal, as /proc has it).
fn rights(mask: &str, limit: Duration) {
    let mask = u64::from_str_radix(mask, 16).expect("a mask");
    println!("ready");
    let end = Instant::now() + limit;
    let mut seen = std::collections::BTreeSet::new();
    while Instant::now() < end {
        for pid in others() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0").trim();
            let held = u64::from_str_radix(field("CapPrm:"), 16).unwrap_or(0);
            if held & !mask != 0 && seen.insert(held) {
                println!("MORE {held:016x} by {}", field("Name:"));
            }
        }
    }
}

/// Speaks to the service manager, and stays.
fn notify(words: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("socket");
    let path = std::env::var_os("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    socket.send_to(words.as_bytes(), path).expect("send");
    std::thread::sleep(Duration::from_secs(1000));
}

/// Takes the root away, enters its own mount namespace anew, and looks for a file of the host's in what lay below.
fn uproot(secret: &str) {
    let own = fs::File::open("/proc/self/ns/mnt").expect("open the mount namespace");
    let print = || println!("{secret}: {}", if fs::metadata(secret).is_ok() { "STOLEN" } else { "nothing" });
    for _ in 0..3 {
        match nix::mount::umount2("/", nix::mount::MntFlags::MNT_DETACH) {
            Ok(()) => println!("taken away"),
            Err(errno) => println!("stays: {errno}"),
        }
        nix::sched::setns(&own, nix::sched::CloneFlags::CLONE_NEWNS).expect("setns");
        print();
    }
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
