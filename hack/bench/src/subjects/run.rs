//! `run`, the whole life of a container that does nothing, in one process of the runtime.

use super::Report;
use crate::Result;
use crate::bench::Bench;
use crate::bundles::Config;
use crate::peers::Verb;

/// With what `runc spec` writes.
pub fn default(bench: &Bench, report: &mut Report) -> Result<()> {
    measure(bench, report, Config::Default, "run true, default config")
}

/// With what dockerd writes, its seccomp profile included.
pub fn docker(bench: &Bench, report: &mut Report) -> Result<()> {
    measure(bench, report, Config::Docker, "run true, Docker's config")
}

fn measure(bench: &Bench, report: &mut Report, config: Config, title: &str) -> Result<()> {
    let (cases, refused) = bench.prepare(|peer| bench.bundles.make(peer, config, "run", |_| ()));
    let all = bench
        .interleave(&cases, bench.options.runs(usize::MAX), |peer, case| bench.once(peer, Verb::Run, case))?;
    report.series(title, &all, refused);
    Ok(())
}
