//! `exec` of a process that does nothing in a container that sleeps.

use super::Report;
use crate::Result;
use crate::bench::Bench;
use crate::bundles::Config;
use crate::peers::Verb;

/// In a container of what `runc spec` writes.
pub fn default(bench: &Bench, report: &mut Report) -> Result<()> {
    measure(bench, report, Config::Default, "exec true, default config")
}

/// In one of what dockerd writes.
pub fn docker(bench: &Bench, report: &mut Report) -> Result<()> {
    measure(bench, report, Config::Docker, "exec true, Docker's config")
}

fn measure(bench: &Bench, report: &mut Report, config: Config, title: &str) -> Result<()> {
    let (cases, refused) = bench.prepare(|peer| bench.running(peer, config));
    let all = bench.interleave(&cases, bench.options.runs(usize::MAX), |peer, case| {
        bench.bounded.run(&mut peer.command(Verb::Exec(&["/bin/true"]), case))
    })?;
    for (peer, case) in &cases {
        bench.clear(peer, case)?;
    }
    report.series(title, &all, refused);
    Ok(())
}
