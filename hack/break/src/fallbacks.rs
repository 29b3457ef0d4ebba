//! The newer system calls do not exist (an old kernel) or are forbidden (a filter around us): a container is to be the same.

use crate::Result;
use crate::bundle::Kind;
use crate::filter::Rule;
use crate::look;
use crate::options::Options;
use crate::tally::Tally;
use crate::tracer::{Outcome, Tracer};
use crate::verdict::HANGS;
use crate::world::World;
use nix::libc;
use std::path::Path;

/// What is missing, and with which error.
struct Lack {
    name: String,
    rules: Vec<Rule>,
}

impl Lack {
    fn of(calls: &[&str], errno: i32) -> Lack {
        let rules: Vec<Rule> = calls.iter().map(|call| Rule::always(call, errno)).collect();
        Lack { name: format!("{}={}", calls.join(","), crate::errno::name(errno)), rules }
    }
}

/// The mount interface of Linux 5.2.
const MOUNT: &[&str] =
    &["fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "open_tree_attr"];

/// What may be missing alone.
const EACH: &[&str] = &[
    "openat2",
    "clone3",
    "fsopen",
    "open_tree",
    "open_tree_attr",
    "mount_setattr",
    "close_range",
    "faccessat2",
];

fn lacks() -> Vec<Lack> {
    let mut all = Vec::new();
    for errno in [libc::ENOSYS, libc::EPERM] {
        for &call in EACH {
            all.push(Lack::of(&[call], errno));
        }
        all.push(Lack::of(MOUNT, errno));
        let mut old = MOUNT.to_vec();
        old.extend(["openat2", "clone3", "mount_setattr", "close_range", "faccessat2"]);
        all.push(Lack {
            name: format!("all of them={}", crate::errno::name(errno)),
            ..Lack::of(&old, errno)
        });
    }
    // Linux 5.10: no mount_setattr, close_range without CLOEXEC.
    let mut floor = Lack::of(&["mount_setattr"], libc::ENOSYS);
    floor.rules.push(Rule::always("close_range", libc::EINVAL));
    floor.name = "Linux 5.10".into();
    all.push(floor);
    all
}

/// Looks at containers with and without each of the calls.
///
/// # Errors
/// When the tracer or the runtime does not work at all.
pub fn run(world: &mut World, tally: &mut Tally, _options: &Options) -> Result<()> {
    let mut tracer = match Tracer::new() {
        Ok(tracer) => tracer,
        Err(error) => {
            tally.skip("fallbacks", &error.to_string());
            return Ok(());
        }
    };
    for kind in [Kind::Default, Kind::Docker, Kind::Rich, Kind::User, Kind::Hooks, Kind::SharedPids] {
        let mut views = Views { world, tracer: &mut tracer, kind };
        // A call that nobody makes: the container is below a filter in any case, which it sees.
        let none = Lack::of(&["uselib"], libc::ENOSYS);
        let want = match views.take(&none)? {
            Ok(want) => want,
            Err(why) => {
                tally.count(&format!("{} without a fault", kind.name()), &[why]);
                continue;
            }
        };
        for lack in lacks() {
            let problems = match views.take(&lack)? {
                Ok(got) => {
                    want.iter().zip(&got).flat_map(|(want, got)| look::difference(want, got)).collect()
                }
                Err(why) => vec![why],
            };
            tally.count(&format!("{} with {}", kind.name(), lack.name), &problems);
        }
    }
    refusals(world, &mut tracer, tally)
}

/// Looks at one kind of container.
struct Views<'a> {
    world: &'a World,
    tracer: &'a mut Tracer,
    kind: Kind,
}

impl Views<'_> {
    /// What the container of a `run` sees, that of a `create` and `start`, and an `exec`; or why one does not work.
    fn take(&mut self, lack: &Lack) -> Result<std::result::Result<Vec<String>, String>> {
        let id = self.kind.name();
        let look = ["/bin/sh", "-c", look::SCRIPT];
        let bundle = self.world.bundle(self.kind, id, &look)?;
        let taken = self.take_all(lack, id, &bundle, &look)?;
        let deleted = self.tracer.plain(&self.world.command(&["delete", "--force", id]), HANGS)?;
        let mut left = self.world.left(id)?;
        left.extend(self.tracer.settle(HANGS / 4)?.iter().map(|pid| format!("process {pid}")));
        self.tracer.clear()?;
        self.world.scrub(id);
        Ok(match taken {
            Ok(_) if !deleted.succeeded() => Err(deleted.stderr),
            Ok(_) if !left.is_empty() => Err(format!("leaves {left:?}")),
            taken => taken,
        })
    }

    fn take_all(
        &mut self,
        lack: &Lack,
        id: &str,
        bundle: &Path,
        look: &[&str],
    ) -> Result<std::result::Result<Vec<String>, String>> {
        let bundle_word = bundle.to_string_lossy();
        let ran = self.run(lack, &["run", "--bundle", &bundle_word, id])?;
        if !ran.succeeded() {
            return Ok(Err(said("run", &ran)));
        }
        self.world.bundle(self.kind, id, &["/bin/sleep", "1000"])?;
        for words in [&["create", "--bundle", &bundle_word, id][..], &["start", id]] {
            let done = self.run(lack, words)?;
            if !done.succeeded() {
                return Ok(Err(said(words[0], &done)));
            }
        }
        let mut exec = vec!["exec", id];
        exec.extend(look);
        let inside = self.run(lack, &exec)?;
        if !inside.succeeded() {
            return Ok(Err(said("exec", &inside)));
        }
        for words in [&["kill", id, "KILL"][..], &["delete", id]] {
            let done = self.run(lack, words)?;
            self.tracer.settle(HANGS / 4)?;
            if !done.succeeded() {
                return Ok(Err(said(words[0], &done)));
            }
        }
        Ok(Ok(vec![look::normal(&ran.stdout), look::normal(&inside.stdout)]))
    }

    fn run(&mut self, lack: &Lack, words: &[&str]) -> Result<Outcome> {
        self.tracer.plain(&self.world.failing(&lack.rules, words)?, HANGS)
    }
}

fn said(verb: &str, outcome: &Outcome) -> String {
    let how = if outcome.timed_out { "hangs".into() } else { format!("{:?}", outcome.ending) };
    format!("{verb}: {how} {}", outcome.stderr.trim())
}

/// What has no older form must say so.
fn refusals(world: &World, tracer: &mut Tracer, tally: &mut Tally) -> Result<()> {
    let id = "refused";
    let recursive = serde_json::json!({"destination": "/volume", "type": "bind", "source": "/sys",
        "options": ["rbind", "rro"]});
    let map = serde_json::json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let mapped = serde_json::json!({"destination": "/volume", "type": "bind", "source": world.rootfs(),
        "options": ["bind"], "uidMappings": map, "gidMappings": map});
    for (name, entry) in [("a recursive attribute", recursive), ("an idmapped mount", mapped)] {
        let bundle = world.bundle_with(Kind::Default, id, &["/bin/true"], |config| {
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.push(entry);
            }
        })?;
        for errno in [libc::ENOSYS, libc::EPERM] {
            let rules = [Rule::always("mount_setattr", errno)];
            let command = world.failing(&rules, &["run", "--bundle", &bundle.to_string_lossy(), id])?;
            let outcome = tracer.plain(&command, HANGS)?;
            let mut problems = Vec::new();
            if outcome.succeeded() || outcome.timed_out || !outcome.stderr.contains("/volume") {
                problems.push(said("run", &outcome));
            }
            problems.extend(world.left(id)?.iter().map(|what| format!("leaves {what}")));
            tally.count(
                &format!("{name} without mount_setattr is refused ({})", crate::errno::name(errno)),
                &problems,
            );
            tally.note(outcome.stderr.trim());
            world.scrub(id);
        }
    }
    Ok(())
}
