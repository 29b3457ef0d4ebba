//! What a runtime's processes take of memory while it runs a container, and how little the container may be given.

use super::Report;
use crate::Result;
use crate::bench::Bench;
use crate::bounded::Outcome;
use crate::bundles::{Case, Config, set_args};
use crate::peers::{Peer, Verb};
use crate::series::{least, median};
use crate::table::{Table, ratio};
use serde_json::json;
use std::process::Command;

/// Limits to try, in KiB, and how often each.
const LIMITS: [u64; 9] = [256, 384, 512, 768, 1024, 2048, 4096, 8192, 16384];
const TRIES: usize = 3;

/// Both.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for config in [Config::Default, Config::Docker] {
        report.table(&peaks(bench, config)?);
    }
    report.table(&least_limits(bench)?);
    Ok(())
}

/// The greatest resident set of any process, the container's own being the least there is.
fn peaks(bench: &Bench, config: Config) -> Result<Table> {
    let title = format!("peak resident set of run, {} config, kB (greatest of all processes)", config.name());
    let mut table = Table::new(title, &["", "min", "median", "median/crun", "median/floor"]);
    let (cases, refused) =
        bench.prepare(|peer| bench.bundles.make(peer, config, "peak", |json| set_args(json, &["/bin/tiny"])));
    let mut all: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for _ in 0..bench.options.runs(10) {
        for ((peer, case), peaks) in cases.iter().zip(&mut all) {
            peaks.extend(peak(bench, peer, case)?);
        }
    }
    let of = |name: &str| {
        cases.iter().position(|(peer, _)| peer.name == name).map_or(f64::NAN, |at| median(&all[at]))
    };
    for ((peer, _), peaks) in cases.iter().zip(&all) {
        let middle = median(peaks);
        let (to_crun, to_floor) = (middle / of("crun"), middle / of("floor"));
        let row = [format!("{:.0}", least(peaks)), format!("{middle:.0}"), ratio(to_crun), ratio(to_floor)];
        table.rows.push(std::iter::once(peer.name.clone()).chain(row).collect());
    }
    table.notes = refused;
    Ok(table)
}

fn peak(bench: &Bench, peer: &Peer, case: &Case) -> Result<Option<f64>> {
    let file = bench.machine.dir.join("peak");
    let run = peer.command(Verb::Run, case);
    let mut command = Command::new(bench.machine.dir.join("programs/rss"));
    command.env_clear().arg(&file).arg(run.get_program()).args(run.get_args());
    for (name, value) in run.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    match bench.bounded.run(&mut command)? {
        Outcome::Done(_) => Ok(Some(std::fs::read_to_string(file)?.trim().parse()?)),
        _ => {
            bench.clear(peer, case)?;
            Ok(None)
        }
    }
}

/// The floor takes no limit and is left out.
fn least_limits(bench: &Bench) -> Result<Table> {
    let title = format!("least memory limit under which run works ({TRIES} of {TRIES} times), KiB");
    let mut table = Table::new(title, &["", "limit"]);
    for peer in bench.peers.iter().filter(|peer| !peer.is_floor) {
        let mut works = "more".to_owned();
        for limit in LIMITS {
            let case = bench.bundles.make(peer, Config::Default, "limit", |json| {
                set_args(json, &["/bin/tiny"]);
                json["linux"]["resources"]["memory"] = json!({ "limit": limit * 1024 });
            })?;
            let mut done = true;
            for _ in 0..TRIES {
                done = done && matches!(bench.once(peer, Verb::Run, &case)?, Outcome::Done(_));
            }
            if done {
                works = limit.to_string();
                break;
            }
        }
        table.rows.push(vec![peer.name.clone(), works]);
    }
    Ok(table)
}
