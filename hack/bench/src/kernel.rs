//! Where the kernel's time goes: the floor, built so that it times each of its calls by the processor's counter.

use crate::Result;
use crate::bench::Bench;
use crate::bundles::{Case, Config};
use crate::options::Options;
use crate::peers::{Peer, Verb};
use crate::series::{least, median};
use crate::table::{Table, time};
use std::collections::BTreeMap;
use std::process::Stdio;

/// A call, or the calls of one name: how many in a run, and what they took in each run, in microseconds.
type Costs = BTreeMap<String, (usize, Vec<f64>)>;

/// What the floor calls the writing of the trace itself.
const TRACE: &str = "(trace)";

/// One line of the trace.
struct Call {
    name: String,
    from: u64,
    ticks: u64,
    own: u64,
}

/// Prints, for both configs, what each system call costs `run` and `exec`, all of a name together and the dearest single ones.
///
/// # Errors
/// If the floor does not work here.
pub fn trace_floor(options: &Options) -> Result<()> {
    let bench = Bench::new(options)?;
    let floor = bench.peers.iter().find(|peer| peer.is_floor).ok_or("the floor was left out")?;
    let traced = Peer { program: bench.machine.dir.join("programs/floor-traced"), ..floor.clone() };
    println!("{}\n", bench.describe());
    for config in [Config::Default, Config::Docker] {
        let case = bench.bundles.make(&traced, config, "traced", |_| ())?;
        report(&bench, &traced, Verb::Run, &case, &format!("run, {} config", config.name()))?;
        let case = bench.running(floor, config)?;
        report(
            &bench,
            &traced,
            Verb::Exec(&["/bin/true"]),
            &case,
            &format!("exec, {} config", config.name()),
        )?;
        bench.clear(floor, &case)?;
    }
    Ok(())
}

fn report(bench: &Bench, floor: &Peer, verb: Verb, case: &Case, title: &str) -> Result<()> {
    let (mut by_name, mut single, mut totals) = (Costs::new(), Costs::new(), Vec::new());
    for _ in 0..bench.options.runs(200) {
        let output = floor.command(verb, case).stdin(Stdio::null()).stdout(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(
                format!("{title}: {}: {}", output.status, text.lines().last().unwrap_or_default()).into()
            );
        }
        let (calls, per_tick) = read(&text)?;
        totals.push(calls.iter().map(|call| call.own).sum::<u64>() as f64 * per_tick);
        let mut sums: [BTreeMap<String, (usize, u64)>; 2] = Default::default();
        for call in &calls {
            let name = call.name.split(' ').next().unwrap_or_default().to_owned();
            for (sum, key) in sums.iter_mut().zip([name, call.name.clone()]) {
                let entry = sum.entry(key).or_default();
                *entry = (entry.0 + 1, entry.1 + call.own);
            }
        }
        for (costs, sums) in [&mut by_name, &mut single].into_iter().zip(sums) {
            for (key, (count, ticks)) in sums {
                let entry = costs.entry(key).or_default();
                entry.0 = count;
                entry.1.push(ticks as f64 * per_tick);
            }
        }
    }
    let total = median(&totals);
    let table = |costs: &Costs, what: &str, most: usize| {
        let mut table = Table::new(
            format!("floor, {title}: {what}, µs, median {:.0} in all", total),
            &["", "calls", "min", "median", "%"],
        );
        let mut rows: Vec<_> =
            costs.iter().map(|(key, (count, runs))| (key, count, median(runs), least(runs))).collect();
        rows.sort_by(|a, b| b.2.total_cmp(&a.2));
        for (key, count, cost, low) in rows.into_iter().take(most) {
            table.rows.push(vec![
                key.clone(),
                count.to_string(),
                time(low),
                time(cost),
                format!("{:.1}", cost / total * 100.0),
            ]);
        }
        print!("{}", table.render(bench.options.markdown));
    };
    table(&by_name, "by system call", 20);
    table(&single, "by call and object", 40);
    Ok(())
}

/// The calls with what each took by itself, in ticks; microseconds a tick.
fn read(text: &str) -> Result<(Vec<Call>, f64)> {
    let (mut calls, mut scale) = (Vec::new(), None);
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [who, name, detail, from, ticks] = fields[..] else {
            return Err(format!("trace: {line}").into());
        };
        let (from, ticks) = (from.parse::<u64>()?, ticks.parse::<u64>()?);
        if name == "clock" {
            scale = Some(from as f64 / 1e3 / ticks as f64);
            continue;
        }
        let detail = if detail.is_empty() { who } else { detail };
        let name = if name == TRACE { name.to_owned() } else { format!("{name} {detail}") };
        calls.push(Call { name, from, ticks, own: ticks });
    }
    let per_tick = scale.ok_or("trace: no clock")?;
    // A call that waits for other processes holds their calls: they are taken off it.
    calls.sort_by_key(|call| (call.from, std::cmp::Reverse(call.ticks)));
    // One that only overlaps another is not: host and init run at the same time.
    let end = |call: &Call| call.from + call.ticks;
    let mut open: Vec<usize> = Vec::new();
    for index in 0..calls.len() {
        open.retain(|other| end(&calls[*other]) > calls[index].from);
        if let Some(outer) =
            open.iter().copied().rev().find(|other| end(&calls[*other]) >= end(&calls[index]))
        {
            calls[outer].own = calls[outer].own.saturating_sub(calls[index].ticks);
        }
        open.push(index);
    }
    calls.retain(|call| call.name != TRACE);
    Ok((calls, per_tick))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_waits_is_charged_what_is_left() {
        let text = "host\twait4\t\t100\t50\ninit\tmount\tproc\t110\t20\nhost\tclock\t\t2000\t1000\n";
        let (calls, per_tick) = read(text).expect("a trace");
        let own = |name: &str| calls.iter().find(|call| call.name == name).map(|call| call.own);
        assert_eq!((own("wait4 host"), own("mount proc")), (Some(30), Some(20)));
        assert_eq!(per_tick, 0.002);
    }

    #[test]
    fn calls_that_only_overlap_keep_what_they_took() {
        let text = "init\tumount2\t\t100\t50\nhost\twait4\t\t140\t500\nhost\tclock\t\t2000\t1000\n";
        let (calls, _) = read(text).expect("a trace");
        assert_eq!(calls.iter().map(|call| call.own).collect::<Vec<u64>>(), [50, 500]);
    }
}
