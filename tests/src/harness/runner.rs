//! Runs the tests that were asked for, some at a time, and counts.

use super::host::Host;
use super::options::{Options, Say};
use super::supervisor::{Order, SKIPPED};
use super::world::{Runtime, find_program};
use super::{Test, bundle, cgroups};
use cofferdam_sys::process;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What came of one test under one runtime.
enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
    /// It failed as it is known to.
    Known(String),
}

struct Outcome {
    runtime: String,
    test: &'static str,
    verdict: Verdict,
}

struct Runner<'a> {
    options: &'a Options,
    host: Host,
    image: PathBuf,
    probe: PathBuf,
    next: AtomicUsize,
    queue: Vec<(&'a Runtime, Test)>,
    outcomes: Mutex<Vec<Outcome>>,
}

/// Runs them; the exit status of the program.
pub fn run(options: &Options, tests: &[Test]) -> i32 {
    let chosen: Vec<Test> = tests.iter().filter(|test| options.wants(test)).copied().collect();
    if options.say == Say::List {
        chosen.iter().for_each(|test| println!("{}", test.name()));
        return 0;
    }
    if chosen.is_empty() && options.filters.is_empty() {
        eprintln!("everything is left out: no test is to run");
        return 2;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root");
        return 2;
    }
    let runner = match Runner::new(options, chosen) {
        Ok(runner) => runner,
        Err(message) => {
            eprintln!("{message}");
            return 2;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| runner.work());
        }
    });
    runner.clean();
    runner.summary()
}

impl<'a> Runner<'a> {
    fn new(options: &'a Options, chosen: Vec<Test>) -> Result<Runner<'a>, String> {
        let busybox = find_program("busybox").ok_or("busybox is not there: install busybox-static")?;
        let probe =
            std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("cofferdam-probe");
        if !probe.exists() {
            return Err(format!("{} is not there", probe.display()));
        }
        let image = options.work.join("image");
        bundle::make_image(&busybox, &image).map_err(|error| format!("{}: {error}", image.display()))?;
        let mut queue = Vec::new();
        for runtime in &options.runtimes {
            for _ in 0..options.repeat {
                queue.extend(chosen.iter().map(|test| (runtime, *test)));
            }
        }
        Ok(Runner {
            options,
            host: Host::probe(),
            image,
            probe,
            next: AtomicUsize::new(0),
            queue,
            outcomes: Mutex::new(Vec::new()),
        })
    }

    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((runtime, test)) = self.queue.get(number) else { return };
            let began = Instant::now();
            let verdict = self.one(number, runtime, test);
            self.tell(runtime, test, &verdict, began.elapsed());
            let outcome = Outcome { runtime: runtime.label.clone(), test: test.name(), verdict };
            self.outcomes.lock().expect("no test panics here").push(outcome);
        }
    }

    fn one(&self, number: usize, runtime: &Runtime, test: &Test) -> Verdict {
        let Options { systemd, patience, peer, previous, work, .. } = self.options;
        if let Some(reason) = test.missing(&self.host, runtime, self.options) {
            return Verdict::Skipped(reason);
        }
        let order = Order {
            test: test.name().to_owned(),
            runtime: runtime.clone(),
            peer: peer.clone(),
            previous: previous.clone(),
            dir: work.join(number.to_string()),
            image: self.image.clone(),
            probe: self.probe.clone(),
            cgroup: format!("/cofferdam-test-{}/{number}", std::process::id()),
            systemd: *systemd,
            patience: *patience,
            seconds: test.seconds,
        };
        match (self.supervised(number, &order), test.known_failure(runtime)) {
            (Verdict::Failed(_), Some(why)) => Verdict::Known(why.to_owned()),
            (Verdict::Passed, Some(why)) => {
                println!("note {}: {} passes, though it is known to fail: {why}", runtime.label, test.name());
                Verdict::Passed
            }
            (verdict, _) => verdict,
        }
    }

    fn supervised(&self, number: usize, order: &Order) -> Verdict {
        let text = self.options.work.join(format!("{number}.txt"));
        let file = File::create(&text).expect("make the test's output");
        let copy = file.try_clone().expect("dup");
        let me = std::env::current_exe().expect("my own path");
        let mut child = Command::new(me)
            .arg("--as-supervisor")
            .arg(order.to_word())
            .env("RUST_BACKTRACE", "0")
            .stdin(std::process::Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .expect("start the supervisor");
        // The supervisor bounds the test and its own cleaning; should it hang itself, it is ended here.
        let limit = Duration::from_secs((order.seconds + 60) * order.patience);
        let pidfd = process::pidfd_open(child.id() as i32).expect("pidfd_open");
        if !process::poll_readable(&pidfd, limit.as_millis() as i64).unwrap_or(true) {
            let _ = child.kill();
        }
        let status = child.wait().expect("wait");
        let said = String::from_utf8_lossy(&fs::read(&text).unwrap_or_default()).into_owned();
        match status.code() {
            Some(0) => Verdict::Passed,
            Some(SKIPPED) => Verdict::Skipped(said.trim().to_owned()),
            _ => Verdict::Failed(said),
        }
    }

    fn tell(&self, runtime: &Runtime, test: &Test, verdict: &Verdict, took: Duration) {
        let quiet = self.options.say == Say::Unusual;
        let name = format!("{}: {}", runtime.label, test.name());
        match verdict {
            Verdict::Passed if quiet => {}
            Verdict::Passed => println!("ok   {name} ({:.2} s)", took.as_secs_f32()),
            Verdict::Skipped(_) | Verdict::Known(_) if quiet => {}
            Verdict::Skipped(reason) => println!("skip {name}: {reason}"),
            Verdict::Known(why) => println!("skip {name}: fails as known: {why}"),
            Verdict::Failed(said) => println!("FAIL {name}\n{}", indent(said)),
        }
    }

    fn clean(&self) {
        for dir in cgroups::places(&self.host, &format!("/cofferdam-test-{}", std::process::id())) {
            cgroups::remove(&dir);
        }
        let _ = fs::remove_dir_all(&self.options.work);
    }

    fn summary(&self) -> i32 {
        let outcomes = self.outcomes.lock().expect("no test panics here");
        let count = |which: fn(&Verdict) -> bool, runtime: Option<&str>| {
            let mine = outcomes.iter().filter(|outcome| runtime.is_none_or(|label| outcome.runtime == label));
            mine.filter(|outcome| which(&outcome.verdict)).count()
        };
        let passed = |verdict: &Verdict| matches!(verdict, Verdict::Passed);
        let failed = |verdict: &Verdict| matches!(verdict, Verdict::Failed(_));
        let skipped = |verdict: &Verdict| matches!(verdict, Verdict::Skipped(_) | Verdict::Known(_));
        println!("\n{:<24} {:>7} {:>7} {:>8}", "runtime", "passed", "failed", "skipped");
        for Runtime { label, .. } in &self.options.runtimes {
            let of = |which| count(which, Some(label));
            println!("{label:<24} {:>7} {:>7} {:>8}", of(passed), of(failed), of(skipped));
        }
        reasons(&outcomes);
        for outcome in outcomes.iter().filter(|outcome| failed(&outcome.verdict)) {
            println!("failed: {}: {}", outcome.runtime, outcome.test);
        }
        println!(
            "\n{} passed, {} failed, {} skipped",
            count(passed, None),
            count(failed, None),
            count(skipped, None)
        );
        i32::from(count(failed, None) > 0 || count(passed, None) == 0)
    }
}

/// Why tests were skipped, each reason once.
fn reasons(outcomes: &[Outcome]) {
    let mut list: Vec<(String, usize)> = Vec::new();
    for outcome in outcomes {
        let text = match &outcome.verdict {
            Verdict::Skipped(reason) => format!("{}: {reason}", outcome.runtime),
            Verdict::Known(why) => format!("{}: fails as known: {why}", outcome.runtime),
            _ => continue,
        };
        match list.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => list.push((text, 1)),
        }
    }
    list.sort();
    for (text, count) in list {
        println!("skipped {count:>3}  {text}");
    }
}

fn indent(text: &str) -> String {
    let lines: Vec<String> = text.trim_end().lines().map(|line| format!("     | {line}")).collect();
    lines.join("\n")
}
