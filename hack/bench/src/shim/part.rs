//! The shim's own part of a container's life, as containerd sees it: from the spawn of `start` to its answer, and each call.

use super::client::{Daemon, Shim, make_log};
use super::{Ground, Pairs, Peer, Report};
use crate::Result;
use crate::bundles::{Config, set_args};
use cofferdam_proto::task;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The steps, in their order.
const STEPS: [&str; 5] = ["start of the shim to its answer", "create", "start", "exec", "delete"];

/// Both configs.
pub fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let daemon = Daemon::new(&ground.bench.machine.dir.join("containerd"))?;
    for config in [Config::Default, Config::Docker] {
        let all = ground.interleave(ground.pairs(), |peer, _| once(ground, &daemon, peer, config))?;
        let title = format!("the shim's part, {} config", config.name());
        let mut sum = Pairs::new(&format!("{title}: all"), &ground.names());
        sum.rounds = all.iter().map(|round| round.iter().map(|steps| steps.iter().sum()).collect()).collect();
        report.pairs(&sum);
        for (step, name) in STEPS.iter().enumerate() {
            let mut pairs = Pairs::new(&format!("{title}: {name}"), &ground.names());
            pairs.rounds = all.iter().map(|round| round.iter().map(|steps| steps[step]).collect()).collect();
            report.pairs(&pairs);
        }
    }
    Ok(())
}

/// A bundle of a peer, whose container sleeps.
pub fn bundle(ground: &Ground, peer: &Peer, config: Config, purpose: &str) -> Result<(PathBuf, String)> {
    // The bench's own peers are runtimes; what it makes for one of them serves a shim as well.
    let mut like = ground.bench.peers.first().ok_or("no runtime")?.clone();
    like.name = format!("shim-{}", peer.docker);
    like.is_floor = false;
    let case = ground
        .bench
        .bundles
        .make(&like, config, purpose, |json| set_args(json, &["/bin/sleep", "100000"]))?;
    Ok((case.bundle, case.id))
}

/// The root file system as containerd would have it mounted: an overlay.
pub fn with_overlay(
    mut request: task::CreateTaskRequest,
    bundle: &Path,
    lower: &Path,
) -> Result<task::CreateTaskRequest> {
    for dir in ["upper", "overlay", "rootfs"] {
        std::fs::create_dir_all(bundle.join(dir))?;
    }
    let option = |name: &str, dir: &Path| format!("{name}={}", dir.display());
    request.rootfs = vec![task::Mount {
        type_: "overlay".into(),
        source: "overlay".into(),
        options: vec![
            "index=off".into(),
            option("workdir", &bundle.join("overlay")),
            option("upperdir", &bundle.join("upper")),
            option("lowerdir", lower),
        ],
        ..Default::default()
    }];
    Ok(request)
}

fn once(ground: &Ground, daemon: &Daemon, peer: &Peer, config: Config) -> Result<Vec<f64>> {
    let (bundle, id) = bundle(ground, peer, config, "part")?;
    let lower = point_at_own_rootfs(&bundle)?;
    let _log = make_log(&bundle)?;
    let mut times = Vec::new();
    let mut begun = Instant::now();
    let mut lap = |begun: &mut Instant| {
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        *begun = Instant::now();
    };
    let address = daemon.start(&peer.program, &bundle, &id)?;
    lap(&mut begun);
    let request = with_overlay(daemon.create_request(&peer.program, &bundle, &id)?, &bundle, &lower)?;
    begun = Instant::now();
    let mut shim = Shim::connect(&address)?;
    let _: task::CreateTaskResponse = shim.call("Create", &request)?;
    lap(&mut begun);
    shim.start(&id, "")?;
    lap(&mut begun);
    let process =
        json!({ "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    shim.exec(&id, "one", &process)?;
    shim.start(&id, "one")?;
    lap(&mut begun);
    shim.wait(&id, "one")?;
    shim.delete(&id, "one")?;
    shim.kill(&id)?;
    begun = Instant::now();
    shim.delete(&id, "")?;
    lap(&mut begun);
    shim.shutdown(&id)?;
    Ok(times)
}

/// Makes a bundle's config name the folder that containerd mounts the root file system at; where its content is.
pub fn point_at_own_rootfs(bundle: &Path) -> Result<PathBuf> {
    let path = bundle.join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let lower = PathBuf::from(json["root"]["path"].as_str().ok_or("no root.path")?);
    json["root"]["path"] = json!("rootfs");
    std::fs::write(path, serde_json::to_vec(&json)?)?;
    Ok(lower)
}
