//! The systemd driver: the container's cgroup is the cgroup of a transient unit, which systemd makes and removes.
//!
//! The unit is made with the container's first process in it (a scope cannot be without), so nothing but the connection
//! can be prepared before that process exists. All resource properties go along with the unit, where runc sets them in
//! a second call; systemd then never shows the unit without its limits. What systemd has no word for, or rounds, is
//! written to the files afterwards by the same code as with the fs driver: a scope is delegated to us.

pub mod annotation;
mod bus;
pub mod property;
pub(crate) mod quota;
pub mod value;
mod wire;

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::layout::Version;
use crate::place::Unit;
use crate::translate::Settings;

pub(crate) use bus::Bus;
use bus::Failure;
use property::Property;
use quota::PresentQuota;
use value::Value;

/// A connection on which systemd has been asked for its version.
pub(crate) struct Session {
    bus: Bus,
    version: Answer,
}

/// What became of a question.
enum Answer {
    Asked(u32),
    Known(u32),
}

impl Session {
    /// Connects, and asks for the version without waiting for the answer.
    pub(crate) fn open(unit: &Unit) -> Result<Session, CgroupError> {
        Session::over(Bus::connect(unit.user)?)
    }

    fn over(mut bus: Bus) -> Result<Session, CgroupError> {
        let serial = bus.ask_property("Version").map_err(|error| error.during("ask for the version"))?;
        Ok(Session { bus, version: Answer::Asked(serial) })
    }

    fn version(&mut self) -> Result<u32, CgroupError> {
        let serial = match self.version {
            Answer::Known(version) => return Ok(version),
            Answer::Asked(serial) => serial,
        };
        let failed = |error: Failure| error.during("ask for the version");
        let text = self.bus.property(serial).map_err(failed)?;
        let version = parse_version(&text).ok_or_else(|| CgroupError::Systemd {
            action: "ask for the version".to_owned(),
            reason: format!("{text:?} has no number in it"),
        })?;
        self.version = Answer::Known(version);
        Ok(version)
    }

    /// The manager's own cgroup, below which a user's units are.
    pub(crate) fn manager_cgroup(&mut self) -> Result<String, CgroupError> {
        self.version()?;
        let failed = |error: Failure| error.during("ask for the manager's cgroup");
        let serial = self.bus.ask_property("ControlGroup").map_err(failed)?;
        self.bus.property(serial).map_err(failed)
    }

    /// Makes the unit with the process `pid` in it.
    pub(crate) fn start(
        &mut self,
        unit: &Unit,
        v2: bool,
        pid: i32,
        resources: &[&Property],
    ) -> Result<(), CgroupError> {
        let version = self.version()?;
        let own = unit_properties(unit, v2, pid);
        let properties: Vec<&Property> = own
            .iter()
            .chain(resources.iter().copied())
            .filter(|property| property.since <= version)
            .collect();
        let action = || format!("start unit {}", unit.name);
        let mut result = self.bus.start_transient_unit(&unit.name, properties.iter().copied());
        if result.as_ref().is_err_and(|error| error.is("UnitExists")) {
            // Left over from a container that failed; systemd keeps it until it is told to forget.
            let _ = self.bus.reset_failed_unit(&unit.name);
            result = self.bus.start_transient_unit(&unit.name, properties.iter().copied());
        }
        match result.map_err(|error| error.during(action()))?.as_str() {
            "done" => Ok(()),
            other => {
                let _ = self.bus.reset_failed_unit(&unit.name);
                Err(CgroupError::Systemd { action: action(), reason: format!("the job ended as {other:?}") })
            }
        }
    }
}

/// `257.9-1~deb13u1`, `v245.4-1.fc32`, `"systemd 252 (252.5)"`: the first number.
fn parse_version(text: &str) -> Option<u32> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let rest = &text[start..];
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// What every unit of ours has.
fn unit_properties(unit: &Unit, v2: bool, pid: i32) -> Vec<Property> {
    let mut properties =
        vec![Property::new("Description", format!("cofferdam container {}", unit.container).as_str())];
    if unit.is_slice() {
        // A slice is put in its place by its name, and holds no processes of its own.
        properties.push(Property::new("Wants", Value::strings([unit.slice.as_str()])));
    } else {
        properties.push(Property::new("Slice", unit.slice.as_str()));
        properties.push(Property::new("Delegate", true));
        properties.push(Property::new("PIDs", Value::Array("u".to_owned(), vec![Value::U32(pid as u32)])));
    }
    let io = if v2 { "IOAccounting" } else { "BlockIOAccounting" };
    for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        properties.push(Property::new(accounting, true));
    }
    // A container must not be stopped with the first units of a shutdown: its engine does that.
    properties.push(Property::new("DefaultDependencies", false));
    properties
}

/// Changes the limits that systemd knows of a unit, which has the CPU quota of its files by now.
pub(crate) fn set_properties(cgroup: &Cgroup, settings: &Settings) -> Result<(), CgroupError> {
    let Some(unit) = cgroup.unit.as_ref().filter(|_| !settings.properties.is_empty()) else { return Ok(()) };
    let mut session = Session::open(unit)?;
    let version = session.version()?;
    let quota = PresentQuota::of(cgroup);
    let properties = match &quota {
        Some(quota) => &quota.within(&settings.properties),
        None => &settings.properties,
    };
    let properties = properties.iter().filter(|property| property.since <= version);
    // On v1 systemd applies the device rules anew with every change, from deny-all up; a process that opens its
    // terminal meanwhile would be refused. (systemd does not support v1 any more since 258.)
    let pause = cgroup.version != Version::V2 && !cgroup.is_frozen()? && cgroup.freeze().is_ok();
    let result = session.bus.set_unit_properties(&unit.name, properties);
    if pause {
        cgroup.thaw()?;
    }
    result.map_err(|error| error.during(format!("set properties of unit {}", unit.name)))?;
    quota.map_or(Ok(()), |quota| quota.restore())
}

/// After the files have been written: a quota is what systemd has made of it.
pub(crate) fn round_quota(cgroup: &Cgroup, settings: &Settings) -> Result<(), CgroupError> {
    if !settings.properties.iter().any(|property| property.name == "CPUQuotaPerSecUSec") {
        return Ok(());
    }
    PresentQuota::of(cgroup).map_or(Ok(()), |quota| quota.round())
}

/// Ends the unit. No such unit is no error: a scope goes away with its last process.
pub(crate) fn stop(unit: &Unit) -> Result<(), CgroupError> {
    let mut bus = Bus::connect(unit.user)?;
    match bus.stop_unit(&unit.name) {
        Ok(result) if result == "done" => {}
        Ok(result) => tracing::warn!(unit = unit.name, result, "stopping the unit"),
        Err(error) if error.is("NoSuchUnit") => return Ok(()),
        Err(error) => return Err(error.during(format!("stop unit {}", unit.name))),
    }
    // A unit that failed (the OOM killer, for one) stays until it is told to go.
    let _ = bus.reset_failed_unit(&unit.name);
    Ok(())
}

/// Whether this host was booted by systemd (sd_booted(3)).
pub fn booted() -> bool {
    std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::bus::tests::{Reply, peer};
    use super::wire::Message;
    use super::wire::tests::{error, job_removed, returns};
    use super::*;

    fn unit(name: &str) -> Unit {
        Unit { name: name.into(), slice: "system.slice".into(), container: "abc".into(), user: false }
    }

    fn version(text: &'static str) -> Reply {
        Box::new(move |call| vec![returns("v", text, call.serial)])
    }

    fn job(result: &'static str) -> Reply {
        Box::new(move |call| vec![returns("o", "/job/1", call.serial), job_removed("/job/1", "x", result)])
    }

    fn exists() -> Reply {
        Box::new(|call| vec![error("org.freedesktop.systemd1.UnitExists", "Unit exists.", call.serial)])
    }

    fn ok() -> Reply {
        Box::new(|call| vec![returns("", "", call.serial)])
    }

    fn start(answers: Vec<Reply>, resources: &[Property]) -> (Result<(), CgroupError>, Vec<Message>) {
        let (stream, thread) = peer(answers);
        let mut session = Session::over(Bus::over(stream, true).unwrap()).unwrap();
        let resources: Vec<&Property> = resources.iter().collect();
        let result = session.start(&unit("docker-abc.scope"), true, 42, &resources);
        drop(session);
        (result, thread.join().unwrap())
    }

    fn members(calls: &[Message]) -> Vec<&str> {
        calls.iter().map(|call| call.member.as_str()).collect()
    }

    #[test]
    fn versions_are_found_in_their_disguises() {
        for (text, number) in
            [("257.9-1~deb13u1", 257), ("v245.4-1.fc32", 245), ("\"245\"", 245), ("systemd 252 (252.5)", 252)]
        {
            assert_eq!(parse_version(text), Some(number));
        }
        assert_eq!(parse_version("unknown"), None);
    }

    #[test]
    fn a_scope_has_what_runc_gives_it() {
        let lines: Vec<String> = unit_properties(&unit("docker-abc.scope"), true, 42)
            .into_iter()
            .map(|p| format!("{}={}", p.name, p.value))
            .collect();
        assert_eq!(
            lines,
            [
                "Description='cofferdam container abc'",
                "Slice='system.slice'",
                "Delegate=true",
                "PIDs=[uint32 42]",
                "MemoryAccounting=true",
                "CPUAccounting=true",
                "IOAccounting=true",
                "TasksAccounting=true",
                "DefaultDependencies=false",
            ]
        );
        let slice = unit_properties(&unit("pod.slice"), false, 42);
        assert_eq!(slice[1], Property::new("Wants", Value::strings(["system.slice"])));
        assert_eq!(slice[4].name, "BlockIOAccounting");
    }

    #[test]
    fn properties_that_a_systemd_is_too_old_for_are_left_out() {
        let resources = [
            Property { name: "AllowedCPUs".into(), value: Value::bytes(&[1]), since: 244 },
            Property::new("TasksMax", 7u64),
        ];
        for (text, expected) in [("243", false), ("244", true)] {
            let (result, calls) = start(vec![version(text), job("done")], &resources);
            result.unwrap();
            let body = String::from_utf8_lossy(&calls[1].body).into_owned();
            assert_eq!(body.contains("AllowedCPUs"), expected);
            assert!(body.contains("TasksMax") && body.contains("docker-abc.scope"));
        }
    }

    #[test]
    fn a_leftover_unit_is_reset_once() {
        let (result, calls) = start(vec![version("257"), exists(), ok(), job("done")], &[]);
        result.unwrap();
        assert_eq!(members(&calls), ["Get", "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
        let (result, _) = start(vec![version("257"), exists(), ok(), exists()], &[]);
        assert_eq!(
            result.unwrap_err().to_string(),
            "systemd: start unit docker-abc.scope: Unit exists. (UnitExists)"
        );
    }

    #[test]
    fn a_job_that_fails_is_an_error() {
        let (result, calls) = start(vec![version("257"), job("failed"), ok()], &[]);
        assert_eq!(
            result.unwrap_err().to_string(),
            "systemd: start unit docker-abc.scope: the job ended as \"failed\""
        );
        assert_eq!(members(&calls), ["Get", "StartTransientUnit", "ResetFailedUnit"]);
    }
}
