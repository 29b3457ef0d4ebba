//! The log in runc's shape, for engines read its last line: one line an event, JSON or logfmt as logrus writes them.
//!
//! A [`tracing`] subscriber of our own: with no level enabled an event costs one load, and what is enabled is formatted into
//! one buffer and written by one `write(2)`, so that lines of several processes never mix. With `--debug` the end of each
//! span is an event too, which tells how long it took: the timeline of a start.

use crate::error::Error;
use crate::state::rfc3339;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::{Debug, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

/// Where a log is to go, as `--log` says: crun's forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the end of a file: `PATH` or `file:PATH`.
    File(PathBuf),
    /// `journald:NAME`
    Journald(String),
    /// `syslog:NAME`
    Syslog(String),
}

impl Destination {
    /// What the word says.
    pub fn of(word: &OsStr) -> Destination {
        let named =
            |prefix: &str| word.to_str().and_then(|word| word.strip_prefix(prefix)).map(str::to_owned);
        if let Some(name) = named("journald:") {
            return Destination::Journald(name);
        }
        if let Some(name) = named("syslog:") {
            return Destination::Syslog(name);
        }
        let path = word.as_bytes();
        Destination::File(OsStr::from_bytes(path.strip_prefix(b"file:").unwrap_or(path)).into())
    }
}

/// The socket of systemd's journal (its "native journal protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// The socket of syslog(3).
const SYSLOG: &str = "/dev/log";

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Stderr,
    File(File),
    /// A datagram for each event: the socket, and who we are said to be.
    Journald(UnixDatagram, String),
    Syslog(UnixDatagram, String),
}

impl Sink {
    fn open(to: &Destination) -> Result<Sink, Error> {
        let socket = |path: &str| {
            let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
            socket.map_err(|error| Error::io("open the log's socket", path, error))
        };
        match to {
            Destination::File(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .custom_flags(nix::libc::O_SYNC | nix::libc::O_CLOEXEC | nix::libc::O_NOCTTY)
                .open(path)
                .map(Sink::File)
                .map_err(|error| Error::io("open log file", path, error)),
            Destination::Journald(name) => Ok(Sink::Journald(socket(JOURNAL)?, name.clone())),
            Destination::Syslog(name) => Ok(Sink::Syslog(socket(SYSLOG)?, name.clone())),
        }
    }
}

/// The log of this process.
#[derive(Debug)]
pub struct Log {
    sink: Sink,
    format: Format,
    level: Level,
    spans: Mutex<BTreeMap<u64, Span>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Span {
    name: &'static str,
    fields: Fields,
    begun: Instant,
    handles: usize,
}

/// The process's log, once [`Log::install`]ed.
static LOG: OnceLock<Log> = OnceLock::new();

impl Log {
    /// A log onto stderr, or to where it is to go; a file is made (0644) when it is not there. Lines of `level` and above are
    /// written.
    pub fn open(to: Option<&Destination>, format: Format, level: Level) -> Result<Log, Error> {
        let sink = to.map_or(Ok(Sink::Stderr), Sink::open)?;
        Ok(Log { sink, format, level, spans: Mutex::default(), next: AtomicU64::new(1) })
    }

    /// Makes this the log of the process; the first one stays.
    pub fn install(self) {
        if LOG.set(self).is_ok()
            && let Some(log) = LOG.get()
        {
            // Fails only when somebody has set one before, which then stays too.
            let _ = tracing::subscriber::set_global_default(Installed(log));
        }
    }

    /// One line with its newline.
    fn line(&self, level: Level, message: &str, fields: &Fields) -> String {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let time = rfc3339(seconds);
        let mut line = match self.format {
            Format::Json => json_line(level, message, &time, fields),
            Format::Text => text_line(level, message, &time, fields),
        };
        line.push('\n');
        line
    }

    fn write(&self, level: Level, message: &str, fields: &Fields) {
        let line = || self.line(level, message, fields);
        // Nobody is left to tell when the log cannot be written.
        let _ = match &self.sink {
            Sink::Stderr => io::stderr().lock().write_all(line().as_bytes()),
            Sink::File(file) => (&*file).write_all(line().as_bytes()),
            Sink::Journald(socket, name) => {
                socket.send(&journal_entry(level, message, name, fields)).map(drop)
            }
            Sink::Syslog(socket, name) => {
                socket.send(syslog_line(level, message, name, fields).as_bytes()).map(drop)
            }
        };
    }
}

/// Tells why the process ends: in the log, and on stderr when the log is elsewhere. A person at a terminal gets the bare
/// sentence.
pub fn fatal(message: &str) {
    let stderr = io::stderr();
    let said = match LOG.get() {
        Some(log @ Log { sink: Sink::File(_) | Sink::Journald(..) | Sink::Syslog(..), .. }) => {
            log.write(Level::ERROR, message, &Fields::default());
            writeln!(stderr.lock(), "{message}")
        }
        Some(Log { format: Format::Text, .. }) | None if stderr.is_terminal() => {
            writeln!(stderr.lock(), "cofferdam: {message}")
        }
        Some(log) => {
            log.write(Level::ERROR, message, &Fields::default());
            Ok(())
        }
        None => writeln!(stderr.lock(), "{message}"),
    };
    // Without stderr there is nobody to tell.
    let _ = said;
}

/// The words logrus has for levels.
const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// A message and what else an event says, sorted by name as logrus sorts.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: BTreeMap<&'static str, String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => drop(self.others.insert(name, format!("{value:?}"))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.into(),
            name => drop(self.others.insert(name, value.into())),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.others.insert(field.name(), crate::error::message(value));
    }
}

fn json_line(level: Level, message: &str, time: &str, fields: &Fields) -> String {
    let mut map: BTreeMap<&str, &str> =
        fields.others.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // As in logrus, an event's own field of such a name moves aside.
    for (name, moved) in [("level", "fields.level"), ("msg", "fields.msg"), ("time", "fields.time")] {
        if let Some(value) = map.remove(name) {
            map.insert(moved, value);
        }
    }
    map.insert("level", level_name(level));
    map.insert("msg", message);
    map.insert("time", time);
    serde_json::to_string(&map).unwrap_or_default()
}

/// syslog(3)'s severities.
const fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// An event as the journal takes it: fields, one a line; a value of several lines with its length in front. `ID` is what crun calls the
/// name that `--log` gives.
fn journal_entry(level: Level, message: &str, name: &str, fields: &Fields) -> Vec<u8> {
    let mut entry = format!("PRIORITY={}\n", severity(level)).into_bytes();
    let mut add = |key: &str, value: &str| {
        entry.extend_from_slice(key.as_bytes());
        if value.contains('\n') {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    };
    add("SYSLOG_IDENTIFIER", "cofferdam");
    add("ID", name);
    add("MESSAGE", message);
    for (key, value) in &fields.others {
        let key: String = key
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        add(&format!("COFFERDAM_{key}"), value);
    }
    entry
}

/// A line as syslog(3) sends it, of a daemon; who receives it adds the time.
fn syslog_line(level: Level, message: &str, name: &str, fields: &Fields) -> String {
    const DAEMON: u8 = 3 << 3;
    let text = text_fields(level, message, fields);
    format!("<{}>{name}[{}]: {text}", DAEMON | severity(level), std::process::id())
}

fn text_line(level: Level, message: &str, time: &str, fields: &Fields) -> String {
    format!("time={} {}", quoted(time), text_fields(level, message, fields))
}

fn text_fields(level: Level, message: &str, fields: &Fields) -> String {
    let mut line = format!("level={}", level_name(level));
    if !message.is_empty() {
        let _ = write!(line, " msg={}", quoted(message));
    }
    for (name, value) in &fields.others {
        let _ = write!(line, " {name}={}", quoted(value));
    }
    line
}

/// A value as logrus prints it: bare when it is a plain word, else as a Go string literal.
fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
    if value.bytes().all(plain) {
        return value.into();
    }
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\x07' => text.push_str("\\a"),
            '\x08' => text.push_str("\\b"),
            '\x0b' => text.push_str("\\v"),
            '\x0c' => text.push_str("\\f"),
            '\0'..' ' | '\x7f' => drop(write!(text, "\\x{:02x}", letter as u32)),
            '\u{80}'..='\u{9f}' => drop(write!(text, "\\u{:04x}", letter as u32)),
            _ => text.push(letter),
        }
    }
    text.push('"');
    text
}

/// The subscriber.
struct Installed(&'static Log);

impl Installed {
    fn with_span<T>(&self, id: &Id, act: impl FnOnce(&mut Span) -> T) -> Option<T> {
        self.0.spans.lock().ok()?.get_mut(&id.into_u64()).map(act)
    }
}

impl Subscriber for Installed {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0.level
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.0.level.into())
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut fields = Fields::default();
        span.record(&mut fields);
        let span = Span { name: span.metadata().name(), fields, begun: Instant::now(), handles: 1 };
        if let Ok(mut spans) = self.0.spans.lock() {
            spans.insert(number, span);
        }
        Id::from_u64(number)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.with_span(id, |span| values.record(&mut span.fields));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if self.0.level >= Level::DEBUG
            && let (Some(file), Some(line)) = (event.metadata().file(), event.metadata().line())
        {
            fields.others.insert("file", format!("{file}:{line}"));
        }
        let message = std::mem::take(&mut fields.message);
        self.0.write(*event.metadata().level(), &message, &fields);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}

    fn clone_span(&self, id: &Id) -> Id {
        self.with_span(id, |span| span.handles += 1);
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let last = self.with_span(&id, |span| {
            span.handles -= 1;
            span.handles == 0
        });
        if last != Some(true) {
            return false;
        }
        let closed = self.0.spans.lock().ok().and_then(|mut spans| spans.remove(&id.into_u64()));
        if let Some(mut span) = closed {
            span.fields.others.insert("us", span.begun.elapsed().as_micros().to_string());
            self.0.write(Level::DEBUG, span.name, &span.fields);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> Fields {
        Fields {
            message: String::new(),
            others: pairs.iter().map(|(name, value)| (*name, value.to_string())).collect(),
        }
    }

    #[test]
    fn json_is_logrus_shape_and_reads_back() {
        let line = json_line(Level::ERROR, "a \"b\"\nc", "2026-08-19T10:00:00Z", &fields(&[("pid", "7")]));
        assert_eq!(line, r#"{"level":"error","msg":"a \"b\"\nc","pid":"7","time":"2026-08-19T10:00:00Z"}"#);
        let back: BTreeMap<String, String> = serde_json::from_str(&line).unwrap();
        assert_eq!(back["msg"], "a \"b\"\nc");
    }

    #[test]
    fn a_field_does_not_replace_the_message() {
        let line = json_line(Level::WARN, "m", "t", &fields(&[("msg", "x"), ("level", "y")]));
        assert_eq!(line, r#"{"fields.level":"y","fields.msg":"x","level":"warning","msg":"m","time":"t"}"#);
    }

    #[test]
    fn text_is_logrus_shape() {
        let line = text_line(
            Level::ERROR,
            "exec: \"foo\": executable file not found in $PATH",
            "2026-08-19T10:00:00Z",
            &fields(&[("container", "web"), ("b", "x y")]),
        );
        assert_eq!(
            line,
            r#"time="2026-08-19T10:00:00Z" level=error msg="exec: \"foo\": executable file not found in $PATH" b="x y" container=web"#
        );
    }

    #[test]
    fn text_stays_on_one_line() {
        for (value, want) in [
            ("plain-word.1/@^+", "plain-word.1/@^+"),
            ("a\nb\tc\r\x07\x08\x0b\x0c", r#""a\nb\tc\r\a\b\v\f""#),
            ("\x1b[1m\x7f\u{85}", r#""\x1b[1m\x7f\u0085""#),
            ("ü \\", "\"ü \\\\\""),
            ("", ""),
        ] {
            assert_eq!(quoted(value), want);
        }
    }

    #[test]
    fn the_file_is_appended_to_line_by_line() {
        let path = std::env::temp_dir().join(format!("cofferdam-log-{}", std::process::id()));
        for message in ["one", "two"] {
            let log = Log::open(Some(&Destination::File(path.clone())), Format::Json, Level::INFO).unwrap();
            log.write(Level::ERROR, message, &Fields::default());
        }
        let content = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let messages: Vec<String> = content
            .lines()
            .map(|line| serde_json::from_str::<BTreeMap<String, String>>(line).unwrap()["msg"].clone())
            .collect();
        assert_eq!(messages, ["one", "two"]);
        assert!(content.ends_with("}\n"));
    }

    #[test]
    fn the_end_of_a_span_tells_how_long_it_took() {
        let path = std::env::temp_dir().join(format!("cofferdam-span-{}", std::process::id()));
        let log = Log::open(Some(&Destination::File(path.clone())), Format::Json, Level::DEBUG).unwrap();
        tracing::subscriber::with_default(Installed(Box::leak(Box::new(log))), || {
            let span = tracing::debug_span!("launch", container = "web");
            let entered = span.enter();
            tracing::warn!(pid = 7, "odd");
            tracing::trace!("not written");
            drop(entered);
        });
        let content = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<BTreeMap<String, String>> =
            content.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{content}");
        assert_eq!((lines[0]["level"].as_str(), lines[0]["msg"].as_str()), ("warning", "odd"));
        assert_eq!(lines[0]["pid"], "7");
        assert!(lines[0]["file"].contains("log.rs:"));
        assert_eq!((lines[1]["msg"].as_str(), lines[1]["container"].as_str()), ("launch", "web"));
        assert!(lines[1]["us"].parse::<u64>().is_ok());
    }

    #[test]
    fn a_destination_has_cruns_forms() {
        for (word, path) in [("/a", "/a"), ("file:/a", "/a"), ("file:a:b", "a:b"), ("journal:x", "journal:x")]
        {
            assert_eq!(Destination::of(word.as_ref()), Destination::File(path.into()), "{word}");
        }
        assert_eq!(Destination::of("journald:web".as_ref()), Destination::Journald("web".into()));
        assert_eq!(Destination::of("syslog:web".as_ref()), Destination::Syslog("web".into()));
    }

    #[test]
    fn the_journal_gets_fields() {
        let fields = fields(&[("container", "web"), ("a.b", "c")]);
        let entry = journal_entry(Level::WARN, "one\ntwo", "name", &fields);
        let before =
            b"PRIORITY=4\nSYSLOG_IDENTIFIER=cofferdam\nID=name\nMESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\n";
        assert_eq!(entry, [&before[..], b"COFFERDAM_A_B=c\nCOFFERDAM_CONTAINER=web\n"].concat());
        let entry = journal_entry(Level::ERROR, "bare", "n", &Fields::default());
        assert_eq!(entry, b"PRIORITY=3\nSYSLOG_IDENTIFIER=cofferdam\nID=n\nMESSAGE=bare\n");
    }

    #[test]
    fn syslog_gets_a_line() {
        let line = syslog_line(Level::INFO, "it is\nso", "name", &fields(&[("container", "web")]));
        let id = std::process::id();
        assert_eq!(line, format!("<30>name[{id}]: level=info msg=\"it is\\nso\" container=web"));
    }

    #[test]
    fn a_log_that_cannot_be_opened_says_so() {
        let error = Log::open(Some(&Destination::File("/nonexistent/x".into())), Format::Text, Level::INFO)
            .unwrap_err();
        assert_eq!(crate::error::message(&error), "open log file /nonexistent/x: no such file or directory");
    }
}
