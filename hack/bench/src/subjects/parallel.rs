//! Two loops at once, as an engine starts containers on two processors.

use super::Report;
use crate::Result;
use crate::bench::Bench;
use crate::bounded::{Bounded, Outcome};
use crate::bundles::{Case, Config};
use crate::machine::reap;
use crate::peers::{Peer, Verb};
use crate::series::{Series, median, quantile};
use crate::table::{Table, ratio, time};
use std::time::Instant;

const LOOPS: usize = 2;

/// Batches of 100 containers, interleaved by peer.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let (count, batches) = if bench.options.quick { (20, 1) } else { (100, 3) };
    let (cases, refused) = bench.prepare(|peer| {
        (0..LOOPS)
            .map(|number| bench.bundles.make(peer, Config::Default, &format!("loop{number}"), |_| ()))
            .collect::<Result<Vec<Case>>>()
    });
    let mut all: Vec<(Series, Vec<f64>)> =
        cases.iter().map(|(peer, _)| (Series::new(&peer.name), Vec::new())).collect();
    for batch in 0..batches {
        for turn in 0..cases.len() {
            let index = (batch + turn) % cases.len();
            let (peer, own) = &cases[index];
            let (series, rates) = &mut all[index];
            let begin = Instant::now();
            let outcomes = loops(bench, peer, own, count)?;
            let done = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Done(_))).count();
            rates.push(done as f64 / begin.elapsed().as_secs_f64());
            outcomes.into_iter().for_each(|outcome| series.push(outcome));
            reap();
        }
    }
    let title = format!("{count} containers by {LOOPS} loops, run true, default config");
    report.table(&table(&title, &all, refused));
    report.keep(&title, &all.into_iter().map(|(series, _)| series).collect::<Vec<Series>>());
    Ok(())
}

fn loops(bench: &Bench, peer: &Peer, cases: &[Case], count: usize) -> Result<Vec<Outcome>> {
    let work = |number: usize, case: &Case| -> std::result::Result<Vec<Outcome>, String> {
        let errors = bench.machine.dir.join(format!("errors{number}"));
        let bounded = Bounded::new(&errors, bench.options.limit).map_err(|error| error.to_string())?;
        let mut outcomes = Vec::new();
        for _ in 0..count / LOOPS {
            let outcome =
                bounded.run(&mut peer.command(Verb::Run, case)).map_err(|error| error.to_string())?;
            let done = matches!(outcome, Outcome::Done(_));
            outcomes.push(outcome);
            if !done {
                break;
            }
        }
        Ok(outcomes)
    };
    let mut outcomes = Vec::new();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> =
            cases.iter().enumerate().map(|(number, case)| scope.spawn(move || work(number, case))).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    for result in results {
        outcomes.extend(result.map_err(|_| "a loop panicked")??);
    }
    for case in cases.iter().filter(|_| outcomes.iter().any(|outcome| !matches!(outcome, Outcome::Done(_)))) {
        bench.clear(peer, case)?;
    }
    Ok(outcomes)
}

fn table(title: &str, all: &[(Series, Vec<f64>)], refused: Vec<String>) -> Table {
    let head = ["", "containers/s", "rate/crun", "rate/floor", "median", "p99", "p99/median", "runs"];
    let mut table = Table::new(format!("{title} (rate: median of the batches)"), &head);
    let rate = |name: &str| {
        all.iter().find(|(series, _)| series.name == name).map_or(f64::NAN, |(_, rates)| median(rates))
    };
    for (series, rates) in all {
        let (own, middle, high) = (median(rates), median(&series.wall), quantile(&series.wall, 0.99));
        table.rows.push(vec![
            series.name.clone(),
            time(own),
            ratio(own / rate("crun")),
            ratio(own / rate("floor")),
            time(middle),
            time(high),
            ratio(high / middle),
            series.wall.len().to_string(),
        ]);
        if !series.note().is_empty() {
            table.notes.push(format!("{}: {}", series.name, series.note()));
        }
    }
    table.notes.extend(refused);
    table
}
