//! Whole commands of engines: most of their time is containerd's and dockerd's own.

use super::{Ground, Pairs, Peer, Report};
use crate::Result;
use crate::bounded::Outcome;
use crate::series::{median, quantile};
use crate::table::{Table, ratio, time};
use std::process::{Command, Stdio};
use std::time::Instant;

const IMAGE: &str = "docker.io/library/busybox:latest";
/// As many at once as an engine has workers.
const AT_ONCE: usize = 20;

fn ctr(args: &[&str]) -> Command {
    let mut command = Command::new("ctr");
    command.args(args);
    command
}

fn docker(args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(args);
    command
}

/// A command that must succeed, in milliseconds.
fn timed(ground: &Ground, mut command: Command) -> Result<f64> {
    match ground.bench.bounded.run(&mut command)? {
        Outcome::Done(sample) => Ok(sample.wall),
        other => Err(format!("{command:?}: {other:?}").into()),
    }
}

/// A command in preparation of what is measured; what it prints.
fn prepare(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn id(peer: &Peer, purpose: &str) -> String {
    format!("bench-{}-{purpose}", peer.docker)
}

fn compare(
    ground: &Ground,
    report: &mut Report,
    title: &str,
    mut once: impl FnMut(&Peer, usize) -> Result<f64>,
) -> Result<()> {
    let mut pairs = Pairs::new(title, &ground.names());
    let all = ground.interleave(ground.pairs(), |peer, round| Ok(vec![once(peer, round)?]))?;
    pairs.rounds = all.into_iter().map(|round| round.into_iter().flatten().collect()).collect();
    report.pairs(&pairs);
    Ok(())
}

fn ctr_run_command(peer: &Peer, options: &[&str], id: &str, args: &[&str]) -> Command {
    let mut command = ctr(&["run", "--null-io"]);
    command.args(options).args(&peer.ctr).args([IMAGE, id]).args(args);
    command
}

/// A container's whole life by containerd.
pub fn ctr_run(ground: &Ground, report: &mut Report) -> Result<()> {
    compare(ground, report, "ctr run --rm true", |peer, round| {
        let id = id(peer, &format!("run{round}"));
        let time = timed(ground, ctr_run_command(peer, &["--rm"], &id, &["true"]));
        if time.is_err() {
            let _ = ctr_remove(&[id]);
        }
        time
    })
}

/// An exec by containerd.
pub fn ctr_exec(ground: &Ground, report: &mut Report) -> Result<()> {
    for peer in &ground.peers {
        prepare(ctr_run_command(peer, &["-d"], &id(peer, "exec"), &["sleep", "100000"]))?;
    }
    let done = compare(ground, report, "ctr task exec true", |peer, round| {
        timed(ground, ctr(&["task", "exec", "--exec-id", &format!("e{round}"), &id(peer, "exec"), "true"]))
    });
    ctr_remove(&ground.peers.iter().map(|peer| id(peer, "exec")).collect::<Vec<String>>())?;
    done
}

fn ctr_remove(ids: &[String]) -> Result<()> {
    for lot in ids.chunks(20) {
        let lot: Vec<&str> = lot.iter().map(String::as_str).collect();
        // It reports the exit status of what it has ended as its own.
        let _ = prepare(ctr(&[&["task", "delete", "-f"], lot.as_slice()].concat()));
        prepare(ctr(&[&["container", "delete"], lot.as_slice()].concat()))?;
    }
    Ok(())
}

/// A container's whole life by Docker.
pub fn docker_run(ground: &Ground, report: &mut Report) -> Result<()> {
    compare(ground, report, "docker run --rm --network none true", |peer, _| {
        let words = ["run", "--rm", "--network", "none", "--runtime", peer.docker, "busybox", "true"];
        timed(ground, docker(&words))
    })
}

/// An exec by Docker.
pub fn docker_exec(ground: &Ground, report: &mut Report) -> Result<()> {
    for peer in &ground.peers {
        let name = id(peer, "exec");
        let words = [
            "run",
            "-d",
            "--network",
            "none",
            "--runtime",
            peer.docker,
            "--name",
            &name,
            "busybox",
            "sleep",
            "100000",
        ];
        prepare(docker(&words))?;
    }
    let done = compare(ground, report, "docker exec true", |peer, _| {
        timed(ground, docker(&["exec", &id(peer, "exec"), "true"]))
    });
    for peer in &ground.peers {
        prepare(docker(&["rm", "-f", &id(peer, "exec")]))?;
    }
    done
}

/// 20 starts.
pub fn parallel_20(ground: &Ground, report: &mut Report) -> Result<()> {
    parallel(ground, report, 20, 5)
}

/// 100 starts.
pub fn parallel_100(ground: &Ground, report: &mut Report) -> Result<()> {
    parallel(ground, report, 100, 3)
}

/// Batches of `count` containers that are started by as many `ctr run -d`, up to [`AT_ONCE`] under way at a time, and stay.
fn parallel(ground: &Ground, report: &mut Report, count: usize, batches: usize) -> Result<()> {
    let batches = if ground.bench.options.quick { 1 } else { batches };
    let all = ground.interleave(batches, |peer, round| {
        let ids: Vec<String> = (0..count).map(|number| id(peer, &format!("p{round}-{number}"))).collect();
        let times = batch(peer, &ids);
        let removed = ctr_remove(&ids);
        times.and_then(|times| removed.map(|()| times))
    })?;
    let title = format!("{count} starts by ctr run -d, {AT_ONCE} at a time");
    let mut table = Table::new(title, &["", "containers/s", "rate/ours", "median", "p99", "starts"]);
    // The first number of a batch is the time of all of it.
    let rate = |peer: usize| -> f64 {
        median(&all.iter().map(|round| count as f64 * 1e3 / round[peer][0]).collect::<Vec<f64>>())
    };
    for (peer, name) in ground.names().into_iter().enumerate() {
        let each: Vec<f64> = all.iter().flat_map(|round| round[peer][1..].to_vec()).collect();
        let cells =
            [time(rate(peer)), ratio(rate(peer) / rate(0)), time(median(&each)), time(quantile(&each, 0.99))];
        table.rows.push([vec![name], cells.to_vec(), vec![each.len().to_string()]].concat());
    }
    report.table(&table);
    Ok(())
}

/// The time of all, and each one's.
fn batch(peer: &Peer, ids: &[String]) -> Result<Vec<f64>> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || -> std::result::Result<Vec<f64>, String> {
        let mut times = Vec::new();
        while let Some(id) = ids.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let begun = Instant::now();
            prepare(ctr_run_command(peer, &["-d"], id, &["sleep", "100000"]))
                .map_err(|error| error.to_string())?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    };
    let begun = Instant::now();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE.min(ids.len())).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut times = vec![begun.elapsed().as_secs_f64() * 1e3];
    for result in results {
        times.extend(result.map_err(|_| "a starter panicked")??);
    }
    Ok(times)
}
