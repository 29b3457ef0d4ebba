//! System calls that fail: for good, by a seccomp filter that every descendant inherits, or once, by the tracer.

use crate::tracer::{Act, Aim, Ending, Tracer, When};
use crate::{Result, errno};
use cofferdam_seccomp::{Seccomp, Target, compile, native_arch, syscalls};
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// `SYSCALL[=ERRNO][@N]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The call's name.
    pub call: String,
    /// What it fails with.
    pub errno: i32,
    /// Only the Nth one of the whole tree of processes, from 1.
    pub nth: Option<usize>,
}

impl Rule {
    /// A call that always fails.
    pub fn always(call: &str, errno: i32) -> Rule {
        Rule { call: call.into(), errno, nth: None }
    }

    /// Reads a rule; without an error's name it is ENOSYS.
    ///
    /// # Errors
    /// When a part of it is unknown.
    pub fn read(text: &str) -> Result<Rule> {
        let (rest, nth) = match text.split_once('@') {
            Some((rest, nth)) => (rest, Some(nth.parse().map_err(|_| format!("{nth:?} is no number"))?)),
            None => (text, None),
        };
        let (call, errno) = rest.split_once('=').unwrap_or((rest, "ENOSYS"));
        let arch = native_arch().ok_or("there is no table of this machine's system calls")?;
        if syscalls::number(call, arch).is_none() {
            return Err(format!("{call:?} is no system call of this machine").into());
        }
        if nth == Some(0) {
            return Err("the first call is number 1".into());
        }
        Ok(Rule { call: call.into(), errno: errno::number(errno)?, nth })
    }
}

/// Puts this process and all its descendants below a filter in which the rules' calls fail.
///
/// # Errors
/// When the kernel does not take the filter.
pub fn load(rules: &[Rule]) -> Result<()> {
    let calls: Vec<_> = rules
        .iter()
        .map(|rule| json!({"names": [rule.call], "action": "SCMP_ACT_ERRNO", "errnoRet": rule.errno}))
        .collect();
    let profile: Seccomp =
        serde_json::from_value(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}))?;
    let target = Target::newest().ok_or("there is no table of this machine's system calls")?;
    let program = compile(&profile, &target).map_err(|error| error.to_string())?;
    cofferdam_sys::process::seccomp_set_filter(&program.to_bytes(), 0)
        .map_err(|error| format!("load the filter: {}", errno::name(error.0)))?;
    Ok(())
}

/// `--fail`: runs a command in which these calls fail; the value is its exit status.
///
/// # Errors
/// When the command cannot be run.
pub fn run(rules: &[Rule], command: &[OsString]) -> Result<i32> {
    let (once, always): (Vec<_>, Vec<_>) = rules.iter().cloned().partition(|rule| rule.nth.is_some());
    if !always.is_empty() {
        load(&always)?;
    }
    let Some(rule) = once.first() else {
        let (program, args) = command.split_first().ok_or("there is no command")?;
        return Err(Command::new(program).args(args).exec().into());
    };
    if once.len() > 1 {
        return Err("only one rule may have a number".into());
    }
    let when = When::Named { call: rule.call.clone(), nth: rule.nth.unwrap_or(1) };
    let mut tracer = Tracer::new()?;
    tracer.inherit_stdio();
    let outcome = tracer.run(command, Some(&Aim { when, act: Act::Fail(rule.errno) }), Duration::MAX)?;
    if outcome.hit.is_none() {
        eprintln!("cofferdam-break: there was no {} number {}", rule.call, rule.nth.unwrap_or(1));
    }
    Ok(match outcome.ending {
        Ending::Exited(status) => status,
        Ending::Killed(signal) => 128 + signal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_a_call_an_error_and_a_number() {
        let rule = Rule::read("openat2").unwrap();
        assert_eq!(rule, Rule::always("openat2", nix::libc::ENOSYS));
        let rule = Rule::read("clone3=EPERM@2").unwrap();
        assert_eq!((rule.call.as_str(), rule.errno, rule.nth), ("clone3", nix::libc::EPERM, Some(2)));
        for (text, why) in [
            ("fsopne", "\"fsopne\" is no system call of this machine"),
            ("fsopen=EWHAT", "\"EWHAT\" is the name of no error"),
            ("fsopen@x", "\"x\" is no number"),
            ("fsopen@0", "the first call is number 1"),
        ] {
            assert_eq!(Rule::read(text).unwrap_err().to_string(), why);
        }
    }
}
