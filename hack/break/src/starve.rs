//! Containers with next to no memory.
//!
//! The kernel charges a cgroup for all that its processes make: page tables and stacks, but also the superblocks, inodes and
//! mounts of the container's filesystems. What init needs beside that decides how small a limit may be.

use crate::Result;
use crate::bundle::Kind;
use crate::tally::Tally;
use crate::tracer::Tracer;
use crate::world::{World, output};
use std::time::Duration;

const KIB: u64 = 1 << 10;
/// As many runs of each: what is charged differs from one run to the next.
const RUNS: usize = 5;

/// Runs containers with less and less memory.
///
/// # Errors
/// When the runtime does not work at all.
pub fn run(world: &mut World, tally: &mut Tally) -> Result<()> {
    for kind in [Kind::Default, Kind::Docker] {
        for limit in [4096 * KIB, 1024 * KIB, 512 * KIB] {
            let name = format!("{} with {} KiB of memory", kind.name(), limit / KIB);
            let mut problems = Vec::new();
            for _ in 0..RUNS {
                problems.extend(try_limit(world, kind, limit)?);
            }
            tally.count(&name, &problems);
        }
    }
    too_little(world, tally)
}

fn try_limit(world: &World, kind: Kind, limit: u64) -> Result<Option<String>> {
    let bundle = world.bundle_with(kind, "starved", &["/bin/true"], |config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({"limit": limit});
    })?;
    let done = output(&world.command(&["run", "--bundle", &bundle.to_string_lossy(), "starved"]))?;
    let left = world.left("starved")?;
    world.scrub("starved");
    Ok(match (done.succeeded(), left.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("leaves {left:?}")),
        (false, _) => Some(done.said()),
    })
}

/// With one page nothing starts: that is to be said, and nothing is to be left.
fn too_little(world: &World, tally: &mut Tally) -> Result<()> {
    let mut problems = Vec::new();
    let bundle = world.bundle_with(Kind::Default, "starved", &["/bin/true"], |config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({"limit": 4 * KIB});
    })?;
    let done = output(&world.command(&["run", "--bundle", &bundle.to_string_lossy(), "starved"]))?;
    if done.succeeded() || !done.stderr.contains("memory") {
        problems.push(done.said());
    }
    problems.extend(world.left("starved")?.iter().map(|what| format!("leaves {what}")));
    problems.extend(
        Tracer::new()?.settle(Duration::from_secs(5))?.iter().map(|pid| format!("leaves process {pid}")),
    );
    world.scrub("starved");
    tally.count("too little memory is told", &problems);
    Ok(())
}
