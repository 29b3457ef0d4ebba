//! Much at once: many containers, many execs in one, verbs that race for one container.

use crate::Result;
use crate::bundle::Kind;
use crate::options::Options;
use crate::tally::Tally;
use crate::tracer::Tracer;
use crate::world::{Done, World, output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Duration;

/// A crowd's place and what went wrong in it.
struct Crowd<'a> {
    world: &'a World,
    problems: Mutex<Vec<String>>,
}

/// One kind of crowd.
type Crowding<'a> = &'a dyn Fn(&Crowd) -> Result<()>;

/// Crowds the runtime.
///
/// # Errors
/// When the runtime does not work at all.
pub fn run(world: &World, tally: &mut Tally, options: &Options) -> Result<()> {
    // Orphans are this process's children from here on; they are waited for between the crowds.
    let mut tracer = Tracer::new()?;
    let lives = if options.full { 200 } else { 40 };
    let rounds = if options.full { 60 } else { 12 };
    let crowds: [(&str, Crowding); 8] = [
        ("lives, two at a time", &|crowd| lives_at_once(crowd, lives, 2)),
        ("lives, twenty at a time", &|crowd| lives_at_once(crowd, lives, 20)),
        ("execs in one container, ten at a time", &|crowd| execs(crowd, lives)),
        ("list and state while others come and go", &|crowd| watch(crowd, lives)),
        ("creates of one id", &|crowd| repeat(rounds, |round| creates(crowd, round))),
        ("starts of one container", &|crowd| repeat(rounds, |round| starts(crowd, round))),
        ("start and delete --force", &|crowd| repeat(rounds, |round| start_and_delete(crowd, round))),
        ("kill and the end of the program", &|crowd| repeat(rounds, |round| kill_and_end(crowd, round))),
    ];
    for (name, crowd_of) in crowds {
        let crowd = Crowd { world, problems: Mutex::default() };
        let done = crowd_of(&crowd);
        let mut problems = crowd.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
        problems.extend(done.err().map(|error| error.to_string()));
        problems
            .extend(tracer.settle(Duration::from_secs(5))?.iter().map(|pid| format!("leaves process {pid}")));
        tracer.clear()?;
        problems.truncate(8);
        tally.count(name, &problems);
    }
    Ok(())
}

impl Crowd<'_> {
    fn verb(&self, words: &[&str]) -> Result<Done> {
        output(&self.world.command(words))
    }

    fn complain(&self, text: String) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// A verb that has to work.
    fn must(&self, words: &[&str]) -> bool {
        match self.verb(words) {
            Ok(done) if done.succeeded() => true,
            Ok(done) => {
                self.complain(format!("{}: {}", words.join(" "), done.said()));
                false
            }
            Err(error) => {
                self.complain(error.to_string());
                false
            }
        }
    }

    fn create(&self, id: &str, program: &[&str]) -> Result<bool> {
        let bundle = self.world.bundle(Kind::Docker, id, program)?;
        Ok(self.must(&["create", "--bundle", &bundle.to_string_lossy(), id]))
    }

    fn must_be_gone(&self, id: &str) -> Result<()> {
        let left = self.world.left(id)?;
        if !left.is_empty() {
            self.complain(format!("{id} leaves {left:?}"));
            self.world.scrub(id);
        }
        Ok(())
    }

    /// Whether a verb that came too late says so in a known sentence.
    fn may_fail(&self, done: &Done, sentences: &[&str]) {
        let known = sentences.iter().any(|sentence| done.stderr.contains(sentence));
        if !done.succeeded() && (!known || done.stderr.trim().lines().count() != 1) {
            self.complain(done.said());
        }
    }
}

fn repeat(rounds: usize, mut each: impl FnMut(usize) -> Result<()>) -> Result<()> {
    (0..rounds).try_for_each(&mut each)
}

/// Runs `each` for 0 to `count` on so many threads; the first error of each thread counts.
fn on_threads(crowd: &Crowd, count: usize, threads: usize, each: impl Fn(usize) -> Result<()> + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    if let Err(error) = each(number) {
                        crowd.complain(error.to_string());
                        break;
                    }
                }
            });
        }
    });
}

/// Runs both at the same moment.
fn together<A: Send, B: Send>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B + Send) -> (A, B) {
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            barrier.wait();
            other()
        });
        barrier.wait();
        let first = one();
        match other.join() {
            Ok(second) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn lives_at_once(crowd: &Crowd, count: usize, threads: usize) -> Result<()> {
    on_threads(crowd, count, threads, |number| {
        let id = format!("life-{number}");
        let lived = crowd.create(&id, &["/bin/sleep", "1000"])?
            && crowd.must(&["start", &id])
            && crowd.must(&["state", &id])
            && crowd.must(&["exec", &id, "/bin/true"]);
        crowd.must(&["delete", "--force", &id]);
        if lived { crowd.must_be_gone(&id) } else { Ok(()) }
    });
    Ok(())
}

fn execs(crowd: &Crowd, count: usize) -> Result<()> {
    if !(crowd.create("execs", &["/bin/sleep", "1000"])? && crowd.must(&["start", "execs"])) {
        return Ok(());
    }
    on_threads(crowd, count, 10, |number| {
        let text = number.to_string();
        let done = crowd.verb(&["exec", "execs", "/bin/echo", &text])?;
        if done.stdout.trim() != text {
            crowd.complain(format!("exec {number}: {} {:?}", done.said(), done.stdout));
        }
        Ok(())
    });
    crowd.must(&["delete", "--force", "execs"]);
    crowd.must_be_gone("execs")
}

/// Half-made and half-removed containers are no errors for those who look.
fn watch(crowd: &Crowd, count: usize) -> Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Err(error) = look(crowd, count) {
                        crowd.complain(error.to_string());
                    }
                }
            });
        }
        on_threads(crowd, count, 4, |number| {
            let id = format!("watched-{}", number % 8);
            // Two may have the same id: then one of them is told.
            let bundle = crowd.world.bundle(Kind::Docker, &id, &["/bin/sleep", "1000"])?;
            let done = crowd.verb(&["create", "--bundle", &bundle.to_string_lossy(), &id])?;
            crowd.may_fail(&done, &["already exists"]);
            crowd.must(&["delete", "--force", &id]);
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
    });
    (0..8).try_for_each(|number| {
        let id = format!("watched-{number}");
        crowd.must(&["delete", "--force", &id]);
        crowd.must_be_gone(&id)
    })
}

fn look(crowd: &Crowd, count: usize) -> Result<()> {
    let list = crowd.verb(&["list", "--format", "json"])?;
    if !list.succeeded()
        || !list.stderr.is_empty()
        || serde_json::from_str::<serde_json::Value>(&list.stdout).is_err()
    {
        crowd.complain(format!("list: {} {:?}", list.said(), list.stdout));
    }
    let state = crowd.verb(&["state", &format!("watched-{}", count % 8)])?;
    crowd.may_fail(&state, &["does not exist"]);
    if state.succeeded() && serde_json::from_str::<serde_json::Value>(&state.stdout).is_err() {
        crowd.complain(format!("state: {:?}", state.stdout));
    }
    Ok(())
}

fn creates(crowd: &Crowd, round: usize) -> Result<()> {
    let bundle = crowd.world.bundle(Kind::Docker, "twin", &["/bin/sleep", "1000"])?;
    let create =
        || crowd.verb(&["create", "--bundle", &bundle.to_string_lossy(), "twin"]).map_err(|e| e.to_string());
    let (one, other) = together(create, create);
    let (one, other) = (one?, other?);
    match (one.succeeded(), other.succeeded()) {
        (true, false) => crowd.may_fail(&other, &["already exists"]),
        (false, true) => crowd.may_fail(&one, &["already exists"]),
        both => crowd.complain(format!("round {round}: {both:?} {} {}", one.said(), other.said())),
    }
    crowd.must(&["start", "twin"]);
    crowd.must(&["delete", "--force", "twin"]);
    crowd.must_be_gone("twin")
}

fn starts(crowd: &Crowd, round: usize) -> Result<()> {
    if !crowd.create("starts", &["/bin/sleep", "1000"])? {
        return Ok(());
    }
    let start = || crowd.verb(&["start", "starts"]).map_err(|error| error.to_string());
    let (one, other) = together(start, start);
    let (one, other) = (one?, other?);
    if one.succeeded() == other.succeeded() {
        crowd.complain(format!("round {round}: {} and {}", one.said(), other.said()));
    }
    let known = ["cannot start an already running container"];
    crowd.may_fail(&one, &known);
    crowd.may_fail(&other, &known);
    crowd.must(&["delete", "--force", "starts"]);
    crowd.must_be_gone("starts")
}

fn start_and_delete(crowd: &Crowd, round: usize) -> Result<()> {
    if !crowd.create("raced", &["/bin/sleep", "1000"])? {
        return Ok(());
    }
    let late = |delay: usize| std::thread::sleep(Duration::from_micros(300 * delay as u64));
    let start = || {
        late(round % 3);
        crowd.verb(&["start", "raced"]).map_err(|error| error.to_string())
    };
    let delete = || {
        late(round % 5);
        crowd.verb(&["delete", "--force", "raced"]).map_err(|error| error.to_string())
    };
    let (started, deleted) = together(start, delete);
    let (started, deleted) = (started?, deleted?);
    if !deleted.succeeded() {
        crowd.complain(format!("round {round}: delete --force: {}", deleted.said()));
    }
    // On cgroup v1 who kills all processes freezes them for a moment.
    crowd.may_fail(&started, &["does not exist", "start raced: ", "that has stopped", "in the paused state"]);
    crowd.must_be_gone("raced")
}

fn kill_and_end(crowd: &Crowd, round: usize) -> Result<()> {
    let seconds = format!("0.0{}", round % 4);
    if !(crowd.create("ends", &["/bin/sleep", &seconds])? && crowd.must(&["start", "ends"])) {
        return Ok(());
    }
    let kill = || crowd.verb(&["kill", "ends", "KILL"]).map_err(|error| error.to_string());
    let state = || crowd.verb(&["state", "ends"]).map_err(|error| error.to_string());
    let (killed, told) = together(kill, state);
    crowd.may_fail(&killed?, &["container not running", "process already finished"]);
    let told = told?;
    if !told.succeeded() {
        crowd.complain(format!("round {round}: state: {}", told.said()));
    }
    // The killed program may take a moment to be gone.
    for _ in 0..500 {
        let done = crowd.verb(&["delete", "ends"])?;
        if done.succeeded() {
            return crowd.must_be_gone("ends");
        }
        crowd.may_fail(&done, &["that is not stopped"]);
        std::thread::sleep(Duration::from_millis(2));
    }
    crowd.complain(format!("round {round}: a killed container does not stop"));
    crowd.must(&["delete", "--force", "ends"]);
    Ok(())
}
