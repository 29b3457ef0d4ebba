//! How `run` grows with what is around it: with mounts of the host, mounts of the config, containers, seccomp rules.

use super::Report;
use crate::Result;
use crate::bench::Bench;
use crate::bundles::{Case, Config, set_args};
use crate::peers::{Peer, Verb};
use crate::series::{Series, least, median};
use crate::table::{Table, time};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Measurements at growing levels of something.
struct Growth {
    title: String,
    what: &'static str,
    levels: Vec<(usize, Vec<Series>)>,
    notes: Vec<String>,
}

impl Growth {
    fn new(title: &str, what: &'static str) -> Growth {
        Growth { title: title.to_owned(), what, levels: Vec::new(), notes: Vec::new() }
    }

    fn push(&mut self, level: usize, all: Vec<Series>, notes: Vec<String>) {
        self.notes.extend(
            notes.into_iter().chain(
                all.iter()
                    .filter(|series| !series.note().is_empty())
                    .map(|series| format!("{}: {}", series.name, series.note())),
            ),
        );
        self.levels.push((level, all));
    }

    /// Medians, minima beside them, and what the last level adds to the first.
    fn report(self, report: &mut Report) {
        let mut head = vec![String::new()];
        head.extend(self.levels.iter().map(|(level, _)| format!("{level} {}", self.what)));
        head.extend(["added".to_owned(), "cpu added".to_owned()]);
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let mut table = Table::new(format!("{}, median (min)", self.title), &head);
        let (Some((_, first)), Some((_, last))) = (self.levels.first(), self.levels.last()) else { return };
        for series in first {
            let mut row = vec![series.name.clone()];
            let at = |all: &[Series]| {
                all.iter().find(|other| other.name == series.name).cloned().unwrap_or_default()
            };
            for (_, all) in &self.levels {
                let here = at(all);
                row.push(format!("{} ({})", time(median(&here.wall)), time(least(&here.wall))));
            }
            let last = at(last);
            let (middle, low) =
                (median(&last.wall) - median(&series.wall), least(&last.wall) - least(&series.wall));
            row.push(format!("{middle:+.2} ({low:+.2})"));
            row.push(format!("{:+.2}", median(&last.cpu) - median(&series.cpu)));
            table.rows.push(row);
        }
        table.notes = self.notes;
        report.table(&table);
        for (level, all) in &self.levels {
            report.keep(&format!("{}: {level} {}", self.title, self.what), all);
        }
    }
}

/// Bind mounts of one folder beside the containers': the kernel copies them all for each mount namespace.
pub fn host_mounts(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut growth = Growth::new("run true, default config", "mounts more");
    let dir = bench.machine.dir.join("many");
    fs::create_dir_all(&dir)?;
    mount(Some("many"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    let mut have = 0;
    for level in [0, 1, 100, 1_000, 10_000] {
        if level > 1_000 && !bench.options.full {
            continue;
        }
        for one in have..level {
            let target = dir.join(one.to_string());
            fs::create_dir(&target)?;
            mount(Some(&dir), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        have = level;
        let (cases, refused) =
            bench.prepare(|peer| bench.bundles.make(peer, Config::Default, "mounts", |_| ()));
        growth.push(level, run_all(bench, &cases)?, refused);
    }
    umount2(&dir, MntFlags::MNT_DETACH)?;
    growth.report(report);
    Ok(())
}

/// Volumes.
pub fn config_mounts(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut growth = Growth::new("run true, default config with more mounts", "mounts more");
    for level in [0, 10, 100] {
        let (cases, refused) = bench.prepare(|peer| {
            bench.bundles.make(peer, Config::Default, "volumes", |json| bench.bundles.add_binds(json, level))
        });
        growth.push(level, run_all(bench, &cases)?, refused);
    }
    growth.report(report);
    Ok(())
}

/// Rules of distinct system calls and arguments.
pub fn seccomp(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut growth = Growth::new("run true, default config with a seccomp profile", "rules");
    for level in [1, 100, 1_000] {
        let profile = profile(level);
        let (cases, refused) = bench.prepare(|peer| {
            bench
                .bundles
                .make(peer, Config::Default, "rules", |json| json["linux"]["seccomp"] = profile.clone())
        });
        growth.push(level, run_all(bench, &cases)?, refused);
    }
    growth.report(report);
    Ok(())
}

/// A profile that forbids `count` things that no container here does, each a call with a certain argument. libseccomp
/// needs one instruction a rule for it.
fn profile(count: usize) -> Value {
    const CALLS: [&str; 10] = [
        "socket",
        "personality",
        "ioctl",
        "kcmp",
        "fcntl",
        "madvise",
        "lseek",
        "setpriority",
        "msync",
        "tee",
    ];
    let rule = |one: usize| {
        json!({
            "names": [CALLS[one % CALLS.len()]], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{ "index": 1, "value": 1_000_000 + one, "op": "SCMP_CMP_EQ" }],
        })
    };
    json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": (0..count).map(rule).collect::<Vec<Value>>(),
    })
}

fn run_all(bench: &Bench, cases: &[(&Peer, Case)]) -> Result<Vec<Series>> {
    bench.interleave(cases, bench.options.runs(30), |peer, case| bench.once(peer, Verb::Run, case))
}

/// Stopped containers: one made by the peer itself, its state copied under other ids. `run` should not see them, `list` must.
pub fn containers(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut running = Growth::new("run true, default config", "containers more");
    let mut listing = Growth::new("list", "containers");
    let mut have = 0;
    for level in [1, 100, 1_000] {
        let (cases, refused) = bench.prepare(|peer| {
            if have == 0 && !peer.is_floor {
                stopped(bench, peer)?;
            }
            copy_state(peer, have, level)?;
            bench.bundles.make(peer, Config::Default, "beside", |_| ())
        });
        have = level;
        running.push(level, run_all(bench, &cases)?, refused);
        let runtimes: Vec<(&Peer, Case)> = cases.into_iter().filter(|(peer, _)| !peer.is_floor).collect();
        let all = bench
            .interleave(&runtimes, bench.options.runs(10), |peer, case| bench.once(peer, Verb::List, case))?;
        listing.push(level, all, Vec::new());
    }
    for peer in &bench.peers {
        fs::remove_dir_all(&peer.root)?;
        fs::create_dir_all(&peer.root)?;
    }
    running.report(report);
    listing.report(report);
    Ok(())
}

const FIRST: &str = "stopped-0";

fn stopped(bench: &Bench, peer: &Peer) -> Result<()> {
    let mut case =
        bench.bundles.make(peer, Config::Default, "stopped", |json| set_args(json, &["/bin/true"]))?;
    FIRST.clone_into(&mut case.id);
    bench.must(peer, Verb::Create, &case)?;
    bench.must(peer, Verb::Start, &case)?;
    bench.wait(peer, &case)
}

fn copy_state(peer: &Peer, have: usize, level: usize) -> Result<()> {
    if peer.is_floor {
        return Ok(());
    }
    let first = peer.root.join(FIRST);
    if !first.is_dir() {
        return Err("it keeps its state elsewhere than in ROOT/ID".into());
    }
    for one in have.max(1)..level {
        copy_tree(&first, &peer.root.join(format!("stopped-{one}")), &format!("stopped-{one}"))?;
    }
    Ok(())
}

/// Files that are text have the first container's id replaced.
fn copy_tree(from: &Path, to: &Path, id: &str) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target, id)?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path())?;
            match String::from_utf8(bytes) {
                Ok(text) => fs::write(target, text.replace(FIRST, id))?,
                Err(error) => fs::write(target, error.into_bytes())?,
            }
        }
    }
    Ok(())
}
