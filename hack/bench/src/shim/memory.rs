//! What shims take of memory. The proportional set counts what is mapped; a sealed memfd hides from it, and so does what the
//! kernel keeps for a process. So the shims are started in a cgroup of their own, whose shmem and kernel memory are added.

use super::client::{Daemon, Shim, make_log};
use super::part::{bundle, point_at_own_rootfs, with_overlay};
use super::{Ground, Peer, Report};
use crate::Result;
use crate::bundles::Config;
use crate::table::Table;
use cofferdam_proto::task;
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long shims are left alone before they are measured; a Go shim frees memory every 30 s only.
const CALM: Duration = Duration::from_secs(2);
const EXECS: [usize; 2] = [1_000, 2_000];

/// One table for numbers of shims, one for execs.
pub fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let daemon = Daemon::new(&ground.bench.machine.dir.join("containerd-memory"))?;
    let quick = ground.bench.options.quick;
    let head = ["", "shims", "RSS", "private", "PSS", "shmem", "kernel", "PSS + shmem + kernel", "threads"];
    let mut table = Table::new("memory of a shim with one container, kB each (mean of all shims)", &head);
    for count in if quick { vec![1, 3] } else { vec![1, 20, 100] } {
        for peer in &ground.peers {
            let lot = Lot::start(ground, &daemon, peer, count)?;
            std::thread::sleep(CALM);
            table
                .rows
                .push(lot.row(&peer.name).map_err(|error| format!("{}, {count} shims: {error}", peer.name))?);
            lot.end().map_err(|error| format!("{}, {count} shims: {error}", peer.name))?;
        }
    }
    report.table(&table);
    let mut table = Table::new(
        "the same shim after execs, kB",
        &["", "execs", "RSS", "private", "PSS", "fds", "threads"],
    );
    for peer in &ground.peers {
        let mut lot = Lot::start(ground, &daemon, peer, 1)?;
        lot.execs(&peer.name, if quick { &[20, 40] } else { &EXECS }, &mut table)?;
        lot.end()?;
    }
    report.table(&table);
    Ok(())
}

/// Some shims with a container each.
struct Lot {
    shims: Vec<(String, Shim, u32)>,
    /// Their logs, held open.
    _logs: Vec<File>,
    group: PathBuf,
}

impl Lot {
    fn start(ground: &Ground, daemon: &Daemon, peer: &Peer, count: usize) -> Result<Lot> {
        let name = format!("{}/shims-{}", ground.bench.machine.parent, peer.docker);
        let mut dirs = ground.bench.machine.cgroup_dirs(&name).into_iter();
        let counts = |dir: &PathBuf| {
            let parent = dir.parent().unwrap_or(Path::new("/"));
            parent.join("memory.limit_in_bytes").exists() || parent.join("memory.max").exists()
        };
        let group = dirs.find(counts).ok_or("no memory controller")?;
        fs::create_dir_all(&group)?;
        let mut lot = Lot { shims: Vec::new(), _logs: Vec::new(), group };
        for number in 0..count {
            lot.add(ground, daemon, peer, number)?;
        }
        Ok(lot)
    }

    fn add(&mut self, ground: &Ground, daemon: &Daemon, peer: &Peer, number: usize) -> Result<()> {
        let (bundle, id) = bundle(ground, peer, Config::Default, &format!("memory{number}"))?;
        let lower = point_at_own_rootfs(&bundle)?;
        self._logs.push(make_log(&bundle)?);
        // Born in the cgroup, so that all of a shim's memory is charged there.
        let address = daemon.start_in(Some(&self.group), &peer.program, &bundle, &id)?;
        let request = with_overlay(daemon.create_request(&peer.program, &bundle, &id)?, &bundle, &lower)?;
        let mut shim = Shim::connect(&address)?;
        let _: task::CreateTaskResponse = shim.call("Create", &request)?;
        shim.start(&id, "")?;
        let pid = shim.pid(&id)?;
        self.shims.push((id, shim, pid));
        crate::machine::reap();
        Ok(())
    }

    fn row(&self, name: &str) -> Result<Vec<String>> {
        let count = self.shims.len() as u64;
        let sum =
            |field: &str| -> Result<u64> { self.shims.iter().map(|(_, _, pid)| rollup(*pid, field)).sum() };
        let private = sum("Private_Clean")? + sum("Private_Dirty")?;
        let (pss, shmem, kernel) =
            (sum("Pss")?, charged(&self.group, "shmem"), charged(&self.group, "kernel"));
        // What of the shmem is mapped is in the PSS already.
        let total = pss - sum("Pss_Shmem")?.min(pss) + shmem + kernel;
        let threads = self.shims.iter().map(|(_, _, pid)| threads(*pid)).max().unwrap_or(0);
        let mut row = vec![name.to_owned(), count.to_string()];
        row.extend([sum("Rss")?, private, pss, shmem, kernel, total].map(|sum| (sum / count).to_string()));
        row.push(threads.to_string());
        Ok(row)
    }

    fn execs(&mut self, name: &str, marks: &[usize], table: &mut Table) -> Result<()> {
        let Some((id, shim, pid)) = self.shims.first_mut() else { return Ok(()) };
        let process = json!({ "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
        let mut failures = 0;
        for number in 0..=marks.last().copied().unwrap_or(0) {
            if number == 0 || marks.contains(&number) {
                std::thread::sleep(CALM);
                let private = rollup(*pid, "Private_Clean")? + rollup(*pid, "Private_Dirty")?;
                let fds = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
                let numbers =
                    [rollup(*pid, "Rss")?, private, rollup(*pid, "Pss")?, fds as u64, threads(*pid) as u64];
                let mut row = vec![name.to_owned(), number.to_string()];
                row.extend(numbers.map(|number| number.to_string()));
                table.rows.push(row);
            }
            // A runtime that fails once in a while is told of, and its execs are as many as the others'.
            while let Err(error) = exec(shim, id, &format!("e{number}-{failures}"), &process) {
                failures += 1;
                eprintln!("{name}: exec {number} is done again: {error}");
                if failures > super::may_fail(number) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        for (id, mut shim, _) in self.shims {
            shim.kill(&id)?;
            shim.delete(&id, "")?;
            shim.shutdown(&id)?;
            crate::machine::reap();
        }
        // A shim may take a moment; what stays is cleared with the place.
        for _ in 0..100 {
            if fs::remove_dir(&self.group).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            crate::machine::reap();
        }
        Ok(())
    }
}

/// An exec's whole life, which must leave nothing in the shim.
fn exec(shim: &mut Shim, id: &str, exec: &str, process: &serde_json::Value) -> Result<()> {
    shim.exec(id, exec, process)?;
    let started = shim.start(id, exec).and_then(|_| shim.wait(id, exec));
    let deleted = shim.delete(id, exec);
    started.and(deleted.map(drop))
}

/// A field of a process's smaps_rollup, in kB.
fn rollup(pid: u32, field: &str) -> Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}: the shim has ended"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.and_then(|line| line.split_whitespace().next()).ok_or(field.to_owned())?.parse()?)
}

/// What a cgroup is charged with of a kind, in kB: `shmem` or `kernel`. 0 where the kernel does not tell.
fn charged(group: &Path, kind: &str) -> u64 {
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')?.parse::<u64>().ok());
    // cgroup v1 has a file for the kernel's.
    let file =
        || fs::read_to_string(group.join("memory.kmem.usage_in_bytes")).ok()?.trim().parse::<u64>().ok();
    let bytes = line.or_else(|| if kind == "kernel" { file() } else { None });
    bytes.unwrap_or(0) / 1024
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}
