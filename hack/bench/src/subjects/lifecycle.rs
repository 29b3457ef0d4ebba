//! `create`, `start` and `delete` as an engine calls them: three processes, the container's own end in between.

use super::Report;
use crate::Result;
use crate::bench::Bench;
use crate::bounded::{Outcome, Sample};
use crate::bundles::Config;
use crate::peers::Verb;
use crate::series::{Series, median};
use crate::table::{Table, time};
use std::cell::RefCell;

/// The sum of the three, and each.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for (config, title) in [(Config::Default, "default config"), (Config::Docker, "Docker's config")] {
        let (cases, refused) = bench.prepare(|peer| bench.bundles.make(peer, config, "life", |_| ()));
        let parts: RefCell<Vec<(String, [f64; 3])>> = RefCell::default();
        let all = bench.interleave(&cases, bench.options.runs(usize::MAX), |peer, case| {
            let mut total = Sample { wall: 0.0, cpu: 0.0 };
            let mut each = [0.0; 3];
            for (part, verb) in each.iter_mut().zip([Verb::Create, Verb::Start, Verb::Delete]) {
                if matches!(verb, Verb::Delete) {
                    bench.wait(peer, case)?;
                }
                match bench.once(peer, verb, case)? {
                    Outcome::Done(Sample { wall, cpu }) => {
                        *part = wall;
                        total.wall += wall;
                        total.cpu += cpu;
                    }
                    other => return Ok(other),
                }
            }
            parts.borrow_mut().push((peer.name.clone(), each));
            Ok(Outcome::Done(total))
        })?;
        report.series(&format!("create + start + delete, {title}"), &all, refused);
        report.table(&by_verb(&all, &parts.borrow(), title));
    }
    Ok(())
}

fn by_verb(all: &[Series], parts: &[(String, [f64; 3])], config: &str) -> Table {
    let mut table =
        Table::new(format!("each of them, {config}, medians"), &["", "create", "start", "delete"]);
    for series in all {
        let of = |verb: usize| -> f64 {
            let own = parts.iter().filter(|(name, _)| *name == series.name);
            median(&own.map(|(_, each)| each[verb]).collect::<Vec<f64>>())
        };
        table.rows.push(vec![series.name.clone(), time(of(0)), time(of(1)), time(of(2))]);
    }
    table
}
