//! Words of the command line that mean something: signals, durations, sizes of memory.

use crate::error::Error;
use nix::libc;
use nix::sys::signal::Signal;
use std::time::Duration;

/// A signal by number, by name or by name without SIG, in any case; `RTMIN+3` and `RTMAX-1` too.
pub fn signal(text: &str) -> Result<i32, Error> {
    let unknown = || Error::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=libc::SIGRTMAX()).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    let number = match name {
        "IOT" => Some(libc::SIGABRT),
        "CLD" => Some(libc::SIGCHLD),
        "POLL" => Some(libc::SIGIO),
        _ if name.starts_with("RTMIN") => offset(&name[5..], '+').map(|n| libc::SIGRTMIN() + n),
        _ if name.starts_with("RTMAX") => offset(&name[5..], '-').map(|n| libc::SIGRTMAX() - n),
        _ => format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32),
    };
    number.filter(|number| (1..=libc::SIGRTMAX()).contains(number)).ok_or_else(unknown)
}

/// A duration as Go prints it: `5s`, `1m30s`, `1.5h`, `100ms`.
pub fn duration(text: &str) -> Result<Duration, Error> {
    let wrong = || Error::Usage(format!("invalid duration {text:?}"));
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len() - digits);
        let factor = match &rest[digits..digits + unit] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number * factor;
        rest = &rest[digits + unit..];
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !text.is_empty() => Ok(duration),
        _ => Err(wrong()),
    }
}

/// Bytes as Docker's `units.RAMInBytes` reads them: `512`, `512b`, `64m`, `1.5g`, `2GiB`, all in powers of 1024.
pub fn bytes(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let scale = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit) {
        "" if unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    // Whole numbers stay exact.
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << scale);
    }
    let value = number.parse::<f64>().ok()? * (1u64 << scale) as f64;
    (value.is_finite() && value < i64::MAX as f64).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_spellings() {
        for text in ["TERM", "term", "SIGTERM", "sigterm", "Term", "15"] {
            assert_eq!(signal(text).unwrap(), 15, "{text}");
        }
        for (text, number) in [
            ("0", 0),
            ("KILL", 9),
            ("9", 9),
            ("SIGHUP", 1),
            ("IOT", 6),
            ("POLL", 29),
            ("RTMIN", libc::SIGRTMIN()),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("RTMAX-1", 63),
            ("64", 64),
            ("WINCH", 28),
            ("STKFLT", 16),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "NOPE", "65", "-1", "RTMIN+99", "RTMAX-99", "9x", "SIGSIGTERM", "RTMIN3"] {
            assert_eq!(signal(text).unwrap_err().to_string(), format!("unknown signal {text:?}"));
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in
            [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0s", 0), ("2000us", 2)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "5s x", "1..5s", "99999999999999999999h"] {
            assert_eq!(duration(text).unwrap_err().to_string(), format!("invalid duration {text:?}"));
        }
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, want) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512b", Some(512)),
            ("64m", Some(64 << 20)),
            ("64M", Some(64 << 20)),
            ("64MB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2t", Some(2 << 40)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1ib", None),
            ("1 2", None),
            ("8388608t", None),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
    }
}
