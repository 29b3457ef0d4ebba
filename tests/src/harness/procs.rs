//! Processes and mounts as /proc shows them.

use cofferdam_sys::process;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// One line of a mountinfo file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    /// The mount's own id.
    pub id: String,
    /// The id of the mount that it lies on.
    pub parent: String,
    /// `major:minor` of its file system.
    pub device: String,
    /// The part of the file system that is mounted.
    pub root: String,
    /// Where it is mounted, as the reader's root sees it.
    pub target: String,
    /// The mount's own options.
    pub options: String,
    /// `shared:N`, `master:N`, `unbindable`; empty when private.
    pub propagation: String,
    /// The kind of file system.
    pub fstype: String,
    /// Its source.
    pub source: String,
    /// The file system's options.
    pub super_options: String,
}

impl MountLine {
    /// Reads a line as `proc_pid_mountinfo(5)` describes it.
    pub fn parse(line: &str) -> Option<MountLine> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ');
        let mut word = || front.next().map(str::to_owned);
        let (id, parent, device, root, target, options) =
            (word()?, word()?, word()?, word()?, word()?, word()?);
        let propagation = front.collect::<Vec<_>>().join(" ");
        let mut back = back.splitn(3, ' ').map(str::to_owned);
        let (fstype, source) = (back.next()?, back.next()?);
        let super_options = back.next().unwrap_or_default();
        Some(MountLine {
            id,
            parent,
            device,
            root,
            target,
            options,
            propagation,
            fstype,
            source,
            super_options,
        })
    }

    /// Whether an option is among the mount's own.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|have| have == option)
    }

    /// Whether an option is among the file system's.
    pub fn super_has(&self, option: &str) -> bool {
        self.super_options.split(',').any(|have| have == option)
    }
}

/// The lines of a mountinfo's text.
pub fn parse_mounts(text: &str) -> Vec<MountLine> {
    text.lines().filter_map(MountLine::parse).collect()
}

/// The lines of a mountinfo file.
pub fn mounts(path: &str) -> Vec<MountLine> {
    parse_mounts(&fs::read_to_string(path).unwrap_or_default())
}

/// A field of a status file.
pub fn status(path: &str, field: &str) -> Option<String> {
    field_of(&fs::read_to_string(path).ok()?, field)
}

/// A field of a status file's text.
pub fn field_of(text: &str, field: &str) -> Option<String> {
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().replace('\t', " ")))
}

/// A field of a status file, in hexadecimal.
pub fn status_hex(path: &str, field: &str) -> u64 {
    status(path, field).and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(0)
}

/// The fields of /proc/PID/stat from the state on: `[0]` is proc(5)'s field 3.
pub fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect())
}

/// The state letter of a process.
pub fn state(pid: i32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Whether the process is there and no zombie.
pub fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// All pids of this pid namespace.
pub fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processes that descend from `ancestor`, without the zombies.
pub fn descendants(ancestor: i32) -> Vec<i32> {
    let mut parents: Vec<(i32, i32, bool)> = Vec::new();
    for pid in all() {
        if let Some(fields) = stat(pid)
            && let Some(parent) = fields.get(1).and_then(|text| text.parse().ok())
        {
            parents.push((pid, parent, fields[0] == "Z"));
        }
    }
    let mut found = vec![ancestor];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(_, other, _)| *other == parent).map(|(pid, ..)| *pid));
        at += 1;
    }
    let zombies: Vec<i32> = parents.iter().filter(|(.., zombie)| *zombie).map(|(pid, ..)| *pid).collect();
    found.into_iter().skip(1).filter(|pid| !zombies.contains(pid)).collect()
}

/// A process's command line, for messages.
pub fn command_line(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = text.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{pid} ({}) {}", comm.trim(), words.join(" ").trim())
}

/// Ends a process by a pidfd, if it is still the one that began when `stat` was read.
pub fn end(pid: i32) {
    let began = stat(pid).and_then(|fields| fields.get(19).cloned());
    let Ok(pidfd) = process::pidfd_open(pid) else { return };
    if began.is_some() && stat(pid).and_then(|fields| fields.get(19).cloned()) == began {
        let _ = process::pidfd_send_signal(&pidfd, nix::libc::SIGKILL);
    }
}

/// Waits for something to become true; false when it does not.
pub fn wait_until(limit: Duration, mut true_now: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    loop {
        if true_now() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Where a symbolic link of /proc leads, as text.
pub fn link(path: impl AsRef<Path>) -> String {
    fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}
