//! The shim's log: lines in logrus's text form, which containerd copies into its own log, written to the fifo `log` of the
//! bundle.
//!
//! The fifo is opened for reading too, so a containerd that is away causes no EPIPE; it is never waited for, so a full fifo
//! loses lines instead of holding up containers.

use std::{
    fmt::Display,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

static DEBUG: AtomicBool = AtomicBool::new(false);

/// Writes debug lines too from now on.
pub fn set_debug(on: bool) {
    DEBUG.store(on, Ordering::Relaxed);
}

/// Whether debug lines are written.
pub fn is_debug() -> bool {
    DEBUG.load(Ordering::Relaxed)
}

/// Writes one line to standard error, which is the log once the daemon has opened it.
pub fn line(level: &str, message: &dyn Display) {
    let text = format!(
        "time=\"{}\" level={level} msg={:?} runtime=io.containerd.cofferdam.v2\n",
        rfc3339(SystemTime::now()),
        message.to_string()
    );
    // Nobody is left to tell when the log itself fails.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Logs at level error.
#[macro_export]
macro_rules! error {
    ($($arguments:tt)*) => { $crate::log::line("error", &format_args!($($arguments)*)) };
}

/// Logs at level warning.
#[macro_export]
macro_rules! warn {
    ($($arguments:tt)*) => { $crate::log::line("warning", &format_args!($($arguments)*)) };
}

/// Logs at level info.
#[macro_export]
macro_rules! info {
    ($($arguments:tt)*) => { $crate::log::line("info", &format_args!($($arguments)*)) };
}

/// Logs at level debug, if that is wanted.
#[macro_export]
macro_rules! debug {
    ($($arguments:tt)*) => { if $crate::log::is_debug() { $crate::log::line("debug", &format_args!($($arguments)*)) } };
}

/// A time as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_rfc_3339() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::new(seconds, 5));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000005Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59.000000005Z");
    }
}
