//! Counts system calls and processes of each verb with strace: free of noise, and true on machines whose clocks lie. What the
//! container's own process calls after its execve is not counted, nor is strace's.

use crate::Result;
use crate::bench::Bench;
use crate::bounded::Outcome;
use crate::bundles::{Config, set_args};
use crate::options::Options;
use crate::peers::{Peer, Verb};
use crate::table::Table;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The container's process: the one that is nobody else's name.
const PROGRAM: &str = "/bin/tiny";

/// What one verb did.
#[derive(Clone, Debug, Default)]
struct Counts {
    calls: BTreeMap<String, usize>,
    processes: usize,
    threads: usize,
    executed: usize,
}

impl Counts {
    fn total(&self) -> usize {
        self.calls.values().sum()
    }

    /// Adds what lines of strace -f say. `gone` holds the processes that have become the container's.
    fn read(&mut self, lines: &[&str], gone: &mut BTreeSet<String>) {
        let mut becoming = BTreeSet::new();
        for line in lines {
            let Some((pid, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            if call.starts_with("<... execve") && becoming.remove(pid) && call.ends_with("= 0") {
                gone.insert(pid.to_owned());
            }
            let Some((name, rest)) = call.split_once('(') else { continue };
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if gone.contains(pid) || !is_name {
                continue;
            }
            *self.calls.entry(name.to_owned()).or_default() += 1;
            match name {
                "clone" | "clone3" if rest.contains("CLONE_THREAD") => self.threads += 1,
                "clone" | "clone3" | "fork" | "vfork" => self.processes += 1,
                "execve" | "execveat" => self.executed += 1,
                _ => (),
            }
            if name == "execve" && rest.starts_with(&format!("\"{PROGRAM}\"")) {
                if rest.ends_with("= 0") {
                    gone.insert(pid.to_owned());
                } else if rest.contains("<unfinished") {
                    becoming.insert(pid.to_owned());
                }
            }
        }
    }
}

/// One column of the tables: a verb, and how each peer did it.
type Column = (&'static str, Vec<Option<Counts>>);

/// Prints calls, processes, threads and executions of each verb and peer.
///
/// # Errors
/// Without strace.
pub fn count(options: &Options) -> Result<()> {
    let bench = Bench::new(options)?;
    println!("{}\n", bench.describe());
    let mut columns: Vec<Column> = Vec::new();
    let mut notes = Vec::new();
    for peer in &bench.peers {
        let (own, failures) = verbs(&bench, peer);
        notes.extend(failures);
        for verb in VERBS {
            if !columns.iter().any(|(name, _)| *name == verb) {
                columns.push((verb, Vec::new()));
            }
            let counts = own.iter().find(|(name, _)| *name == verb).map(|(_, counts)| counts.clone());
            columns
                .iter_mut()
                .filter(|(name, _)| *name == verb)
                .for_each(|(_, all)| all.push(counts.clone()));
        }
    }
    type Number = fn(&Counts) -> usize;
    let tables: [(&str, Number); 4] = [
        ("system calls, up to the container's execve", Counts::total),
        ("processes made, the container's included", |counts| counts.processes),
        ("threads made", |counts| counts.threads),
        ("programs executed, the container's included", |counts| counts.executed),
    ];
    for (title, number) in tables {
        let mut table = Table::new(title, &[&[""], &VERBS[..]].concat());
        for (index, peer) in bench.peers.iter().enumerate() {
            let cells = columns
                .iter()
                .map(|(_, all)| all[index].as_ref().map_or("-".to_owned(), |it| number(it).to_string()));
            table.rows.push(std::iter::once(peer.name.clone()).chain(cells).collect());
        }
        table.notes = std::mem::take(&mut notes);
        print!("{}", table.render(options.markdown));
    }
    if let Some(name) = &options.by_name {
        let index = bench
            .peers
            .iter()
            .position(|peer| peer.name == *name)
            .ok_or_else(|| format!("no peer {name}"))?;
        print!("{}", by_name(name, index, &columns).render(options.markdown));
    }
    Ok(())
}

const VERBS: [&str; 7] = ["run", "run docker", "create", "start", "delete", "exec", "exec docker"];

fn by_name(peer: &str, index: usize, columns: &[Column]) -> Table {
    let mut table = Table::new(format!("system calls of {peer} by name"), &[&[""], &VERBS[..]].concat());
    let of = |name: &str, column: &Column| {
        column.1[index].as_ref().and_then(|counts| counts.calls.get(name)).copied()
    };
    let names: BTreeSet<&String> = columns
        .iter()
        .filter_map(|(_, all)| all[index].as_ref())
        .flat_map(|counts| counts.calls.keys())
        .collect();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_key(|name| {
        std::cmp::Reverse(columns.first().and_then(|column| of(name, column)).unwrap_or(0))
    });
    for name in names {
        let cells =
            columns.iter().map(|column| of(name, column).map_or(String::new(), |count| count.to_string()));
        table.rows.push(std::iter::once(name.clone()).chain(cells).collect());
    }
    table
}

/// What each verb did, and why one could not be counted.
fn verbs(bench: &Bench, peer: &Peer) -> (Vec<(&'static str, Counts)>, Vec<String>) {
    let (mut all, mut failures) = (Vec::new(), Vec::new());
    let mut keep = |what: &'static str, counts: Result<Counts>| match counts {
        Ok(counts) => all.push((what, counts)),
        Err(error) => failures.push(format!("{}: {what}: {error}", peer.name)),
    };
    for (config, run_name, exec_name) in
        [(Config::Default, "run", "exec"), (Config::Docker, "run docker", "exec docker")]
    {
        keep(run_name, run(bench, peer, config));
        keep(exec_name, exec(bench, peer, config));
    }
    match lifecycle(bench, peer) {
        Ok(three) => three.into_iter().for_each(|(verb, counts)| keep(verb, Ok(counts))),
        Err(error) => keep("create", Err(error)),
    }
    (all, failures)
}

fn run(bench: &Bench, peer: &Peer, config: Config) -> Result<Counts> {
    let case = bench.bundles.make(peer, config, "calls", |json| set_args(json, &[PROGRAM]))?;
    let counts = whole(bench, peer.command(Verb::Run, &case));
    bench.clear(peer, &case)?;
    counts
}

fn exec(bench: &Bench, peer: &Peer, config: Config) -> Result<Counts> {
    let case = bench.running(peer, config)?;
    let counts = whole(bench, peer.command(Verb::Exec(&[PROGRAM]), &case));
    bench.clear(peer, &case)?;
    counts
}

/// strace stays until the container's process has ended, longer than `create`: what init calls after that is `start`'s.
fn lifecycle(bench: &Bench, peer: &Peer) -> Result<[(&'static str, Counts); 3]> {
    let case = bench.bundles.make(peer, Config::Default, "calls", |json| set_args(json, &[PROGRAM]))?;
    let log = log_file(bench, "create");
    std::fs::write(&log, "")?;
    let mut command = traced(&log, peer.command(Verb::Create, &case));
    let errors = bench.machine.dir.join("create.errors");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&errors)?);
    let mut child = command.spawn()?;
    let ended = wait_until(bench, || Ok(creator_is_gone(&log) || child.try_wait()?.is_some()))?;
    let started = if ended {
        whole(bench, peer.command(Verb::Start, &case))
    } else {
        Err("create: did not end".into())
    };
    if started.is_err() || !wait_until(bench, || Ok(child.try_wait()?.is_some()))? {
        child.kill()?;
        child.wait()?;
        bench.clear(peer, &case)?;
        let said = std::fs::read_to_string(&errors)?;
        let said = said.lines().last().unwrap_or("nothing").to_owned();
        return Err(format!("start: {:?} (create said: {said})", started.err()).into());
    }
    let text = std::fs::read_to_string(&log)?;
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.iter().position(|line| is_end_of_creator(line, &lines)).unwrap_or(lines.len());
    let (mut created, mut gone) = (Counts::default(), BTreeSet::new());
    created.read(&lines[..end], &mut gone);
    let mut started = started?;
    started.read(&lines[end..], &mut gone);
    bench.wait(peer, &case)?;
    let deleted = whole(bench, peer.command(Verb::Delete, &case));
    bench.clear(peer, &case)?;
    Ok([("create", created), ("start", started), ("delete", deleted?)])
}

/// Whether it came true within the limit.
fn wait_until(bench: &Bench, mut what: impl FnMut() -> Result<bool>) -> Result<bool> {
    let until = Instant::now() + bench.options.limit;
    while !what()? {
        if Instant::now() > until {
            return Ok(false);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(true)
}

fn creator_is_gone(log: &Path) -> bool {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().any(|line| is_end_of_creator(line, &lines))
}

/// Whether `line` is the end of the process that the first line is of.
fn is_end_of_creator(line: &str, lines: &[&str]) -> bool {
    let first = lines.first().and_then(|line| line.split_once(' ')).map_or("", |(pid, _)| pid);
    line.split_once(' ').is_some_and(|(pid, rest)| pid == first && rest.trim_start().starts_with("+++ "))
}

fn whole(bench: &Bench, command: Command) -> Result<Counts> {
    let log = log_file(bench, "calls");
    match bench.bounded.run(&mut traced(&log, command))? {
        Outcome::Done(_) => (),
        other => return Err(format!("under strace: {other:?}").into()),
    }
    let mut counts = Counts::default();
    let text = std::fs::read_to_string(&log)?;
    counts.read(&text.lines().collect::<Vec<&str>>(), &mut BTreeSet::new());
    Ok(counts)
}

fn log_file(bench: &Bench, name: &str) -> PathBuf {
    bench.machine.dir.join(format!("{name}.strace"))
}

fn traced(log: &Path, command: Command) -> Command {
    let mut strace = Command::new("strace");
    strace.env_clear().env("PATH", crate::peers::PATH);
    strace
        .args(["-f", "-q", "-e", "signal=none", "-o"])
        .arg(log)
        .arg(command.get_program())
        .args(command.get_args());
    strace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_container_calls_is_not_counted() {
        let lines = [
            "7 execve(\"/bin/runtime\", [\"runtime\"], 0x1 /* 1 var */) = 0",
            "7 clone3({flags=CLONE_VM|CLONE_VFORK|CLONE_NEWPID, exit_signal=SIGCHLD}, 88 <unfinished ...>",
            "8 execve(\"/bin/tiny\", [\"tiny\"], 0x1 /* 1 var */ <unfinished ...>",
            "7 <... clone3 resumed>) = 8",
            "8 <... execve resumed>) = 0",
            "8 exit_group(0) = ?",
            "7 wait4(8, NULL, 0, NULL) = 8",
        ];
        let mut counts = Counts::default();
        counts.read(&lines, &mut BTreeSet::new());
        assert_eq!((counts.total(), counts.processes, counts.executed), (4, 1, 2));
    }

    #[test]
    fn threads_are_no_processes() {
        let mut counts = Counts::default();
        counts.read(&["7 clone(child_stack=0x1, flags=CLONE_VM|CLONE_THREAD) = 9"], &mut BTreeSet::new());
        assert_eq!((counts.threads, counts.processes), (1, 0));
    }
}
