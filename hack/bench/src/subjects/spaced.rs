//! `run` on a machine that was idle before. A process that is moved through `cgroup.procs` (or `tasks`, by another) then waits
//! for a grace period of RCU, 13 to 18 ms; back to back such periods are shared and look free.

use super::Report;
use crate::Result;
use crate::bench::Bench;
use crate::bundles::Config;
use crate::peers::Verb;

/// The same as `run`, each run after a pause.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cases, refused) = bench.prepare(|peer| bench.bundles.make(peer, Config::Default, "spaced", |_| ()));
    let idle = bench.options.idle;
    let all = bench.interleave(&cases, bench.options.runs(20), |peer, case| {
        bench.idle(idle);
        bench.once(peer, Verb::Run, case)
    })?;
    let title = format!("run true, default config, {} ms idle before each", idle.as_millis());
    report.series(&title, &all, refused);
    Ok(())
}
