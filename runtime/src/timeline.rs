//! What took how long: a trace of one verb that Perfetto and Chrome open.
//!
//! The host's spans are recorded by the thread that makes the call; init says with which step it begins, and when, as it
//! goes ([`cofferdam_step::ReportKind::Timed`]). Times are the realtime clock's, the only one that is the same in a time namespace.
//! Whoever records nothing pays for one look at a thread-local cell a span.

use crate::error::Error;
use cofferdam_step::{Report, Step};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A trace that is being recorded by this thread.
#[derive(Debug)]
struct Trace {
    spans: Vec<Span>,
    init: Option<i32>,
    /// Names of init's steps, by their numbers.
    steps: Vec<String>,
    /// Steps that init has begun, and when.
    begun: Vec<(usize, u64)>,
}

/// Nanoseconds since 1970.
#[derive(Debug)]
struct Span {
    name: String,
    from: u64,
    to: u64,
}

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

fn with<T>(act: impl FnOnce(&mut Trace) -> T) -> Option<T> {
    TRACE.with_borrow_mut(|trace| trace.as_mut().map(act))
}

/// Whether this thread records.
pub(crate) fn recording() -> bool {
    TRACE.with_borrow(Option::is_some)
}

fn now() -> u64 {
    cofferdam_sys::process::realtime()
}

/// Records from here to its end, if this thread records.
#[must_use = "the span ends when this is dropped"]
pub struct Open(Option<(String, u64)>);

/// Begins a span.
pub fn span(name: impl Display) -> Open {
    Open(recording().then(|| (name.to_string(), now())))
}

/// Does `act` in a span of its own.
pub fn timed<T>(name: impl Display, act: impl FnOnce() -> T) -> T {
    let _span = span(name);
    act()
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some((name, from)) = self.0.take() {
            let to = now();
            with(|trace| trace.spans.push(Span { name, from, to }));
        }
    }
}

/// Init is `pid`, and has these steps.
pub(crate) fn init(pid: i32, steps: &[Step]) {
    with(|trace| {
        trace.init = Some(pid);
        trace.steps = steps.iter().map(ToString::to_string).collect();
    });
}

/// Init begins with a step.
pub(crate) fn step(report: &Report) {
    with(|trace| trace.begun.push((usize::from(report.step), report.detail as u64)));
}

/// Init has become the program.
pub(crate) fn gone() {
    let at = now();
    with(|trace| trace.begun.push((usize::MAX, at)));
}

/// A verb's trace, from [`Recording::begin`] to [`Recording::end`].
pub struct Recording {
    path: PathBuf,
    file: File,
    name: String,
    from: u64,
}

impl Recording {
    /// Makes the file and begins to record what this thread does.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(path: &Path, name: impl Display) -> Result<Recording, Error> {
        let file = File::create(path).map_err(|error| Error::io("create the timeline", path, error))?;
        let trace = Trace { spans: Vec::new(), init: None, steps: Vec::new(), begun: Vec::new() };
        TRACE.set(Some(trace));
        Ok(Recording { path: path.into(), file, name: name.to_string(), from: now() })
    }

    /// Writes the file: Chrome's trace event format, JSON object form.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end(mut self) -> Result<(), Error> {
        let Some(mut trace) = TRACE.take() else { return Ok(()) };
        trace.spans.push(Span { name: self.name, from: self.from, to: now() });
        let mut text = json!({"displayTimeUnit": "ns", "traceEvents": trace.events()}).to_string();
        text.push('\n');
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|error| Error::io("write the timeline", &self.path, error))
    }
}

impl Trace {
    fn events(&self) -> Vec<Value> {
        let host = std::process::id();
        let mut events = vec![named(host, "host")];
        events.extend(self.spans.iter().map(|span| event(host, &span.name, span.from, span.to)));
        if let Some(init) = self.init {
            events.push(named(init as u32, "init"));
            events.extend(self.begun.windows(2).map(|pair| {
                let ((index, from), (_, to)) = (pair[0], pair[1]);
                let what = self.steps.get(index).map_or("", String::as_str);
                event(init as u32, &format!("{} {what}", index + 1), from, to)
            }));
        }
        events
    }
}

fn named(pid: u32, name: &str) -> Value {
    json!({"ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": {"name": name}})
}

/// Times are microseconds there.
fn event(pid: u32, name: &str, from: u64, to: u64) -> Value {
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    let length = micros(to.saturating_sub(from));
    json!({"ph": "X", "name": name, "cat": "cofferdam", "pid": pid, "tid": pid, "ts": micros(from), "dur": length})
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_step::{Attempt, ReportKind};

    #[test]
    fn nothing_is_recorded_unasked() {
        let _open = span("nobody looks");
        step(&Report { kind: ReportKind::Timed, attempt: Attempt::None, step: 0, errno: 0, detail: 5 });
        assert!(!recording());
    }

    #[test]
    fn a_step_lasts_until_the_next_one_begins() {
        let path = std::env::temp_dir().join(format!("cofferdam-timeline-{}", std::process::id()));
        let recording = Recording::begin(&path, "run").unwrap();
        init(7, &[Step::NewSession, Step::BringUpLoopback]);
        timed("spawn init", || ());
        for (number, at) in [(0, 1000), (1, 3500)] {
            let kind = ReportKind::Timed;
            step(&Report { kind, attempt: Attempt::None, step: number, errno: 0, detail: at });
        }
        gone();
        recording.end().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let trace: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> = trace["traceEvents"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["ph"] == "X")
            .map(|event| event["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["spawn init", "run", "1 begin a session", "2 bring up lo"]);
        let first = &trace["traceEvents"].as_array().unwrap()[4];
        assert_eq!((&first["pid"], &first["ts"], &first["dur"]), (&json!(7), &json!(1.0), &json!(2.5)));
    }
}
