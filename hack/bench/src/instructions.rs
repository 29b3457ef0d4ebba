//! Counts the instructions of cofferdam's user-space half with callgrind: the same binary on the same input gives the same
//! count on any machine (of one kind of processor: libc chooses its copying loops by what the processor has), which no clock
//! does. Where a verb makes a process, the count ends there: what follows is init's and the kernel's.

use crate::Result;
use crate::bench::Bench;
use crate::bundles::Config;
use crate::options::Options;
use crate::peers::{Peer, Verb};
use crate::table::Table;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

/// Prints each count beside the one on record; `--update` writes the record.
///
/// # Errors
/// Without valgrind or without cofferdam.
pub fn count(options: &Options) -> Result<()> {
    let bench = Bench::new(options)?;
    let known = record();
    let mut table = Table::new("instructions in user space (callgrind)", &["", "on record", "now", "change"]);
    let mut text = String::new();
    for peer in bench.peers.iter().filter(|peer| peer.name.starts_with("cofferdam")) {
        for (name, count) in counts(&bench, peer)? {
            let before = known.get(&name).copied();
            let change = before.map_or("-".to_owned(), |before| {
                format!("{:+.2} %", (count as f64 / before as f64 - 1.0) * 100.0)
            });
            if peer.name == "cofferdam" {
                let _ = writeln!(text, "{name}\t{count}");
            }
            table.rows.push(vec![
                if peer.name == "cofferdam" { name } else { format!("{}: {name}", peer.name) },
                before.map_or("-".to_owned(), |n| n.to_string()),
                count.to_string(),
                change,
            ]);
        }
    }
    if table.rows.is_empty() {
        return Err("no cofferdam to count: make build, or --peer cofferdam=PATH".into());
    }
    print!("{}", table.render(options.markdown));
    if options.update {
        std::fs::write(RECORD, text)?;
    }
    Ok(())
}

fn record() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(RECORD).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.filter_map(|(name, count)| Some((name.to_owned(), count.trim().parse().ok()?))).collect()
}

fn counts(bench: &Bench, peer: &Peer) -> Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    let plain = |words: &[&str]| -> Vec<OsString> { words.iter().map(OsString::from).collect() };
    // Verbs that ask for a running process are not among them: valgrind 3.19 has no pidfd_open.
    let mut list = plain(&["--root"]);
    list.extend([peer.root.clone().into(), "list".into()]);
    for (name, words) in [
        ("--version", plain(&["--version"])),
        ("features", plain(&["features"])),
        ("list, no container", list),
    ] {
        all.push((name.to_owned(), callgrind(bench, &peer.program, &words, None)?));
    }
    for config in [Config::Default, Config::Docker] {
        let case = bench.bundles.make(peer, config, "count", |_| ())?;
        let mut plan = plain(&["plan", "--bundle"]);
        plan.push(case.bundle.clone().into());
        all.push((format!("plan, {} config", config.name()), callgrind(bench, &peer.program, &plan, None)?));
        // Init is pid 1 of its namespace, and what it shows as its own count is the host's half before it.
        let run: Vec<OsString> = peer.command(Verb::Run, &case).get_args().map(Into::into).collect();
        let counted = callgrind(bench, &peer.program, &run, Some(1));
        bench.clear(peer, &case)?;
        match counted {
            Ok(count) => all.push((format!("run, {} config, until init is made", config.name()), count)),
            Err(error) => eprintln!("run, {} config: not counted: {error}", config.name()),
        }
    }
    Ok(all)
}

/// The count of the process itself, or of the one that sees itself as `pid`.
fn callgrind(bench: &Bench, program: &Path, args: &[OsString], pid: Option<u32>) -> Result<u64> {
    let mut command = Command::new("timeout");
    command.arg(bench.options.limit.as_secs().to_string()).args(["valgrind", "--tool=callgrind"]);
    command.arg("--callgrind-out-file=/dev/null").arg(program).args(args);
    command.env_clear().env("PATH", crate::peers::PATH).current_dir("/").stdin(std::process::Stdio::null());
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().filter_map(|line| {
        let (head, count) = line.split_once("== Collected :")?;
        Some((head.trim_start_matches('=').parse::<u32>().ok()?, count.trim().parse::<u64>().ok()?))
    });
    let found: Vec<(u32, u64)> = lines.collect();
    let count = match pid {
        Some(pid) => found.iter().find(|(own, _)| *own == pid),
        None => found.last().filter(|_| output.status.success()),
    };
    count.map(|(_, count)| *count).ok_or_else(|| {
        let own: Vec<&str> = text.lines().filter(|line| !line.starts_with(['=', '-'])).collect();
        format!("valgrind {} {args:?}: {}: {}", program.display(), output.status, own.join("; ")).into()
    })
}
