//! Makes the writes of a [`Settings`], each by its [`How`].

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::device_filter;
use crate::error::CgroupError;
use crate::file;
use crate::translate::{AboveUsage, Settings};
use crate::write::{How, Write};

impl Cgroup {
    /// Sets new limits on a container that exists (`update`).
    ///
    /// # Errors
    ///
    /// When the kernel refuses a value; limits written before that stay.
    pub fn apply(&self, settings: &Settings) -> Result<(), CgroupError> {
        if let Some(check) = &settings.above_usage {
            self.check_usage(check)?;
        }
        if self.unit.is_some() {
            self.wake(settings)?;
            // systemd takes values that the kernel refuses (or rounds them), and keeps them: the kernel is asked first. What it
            // has no file for yet (a controller that systemd has not enabled) is no refusal.
            match writes(self, &settings.writes, false) {
                Err(error) if error.is(Errno::EINVAL) || error.is(Errno::ERANGE) => return Err(error),
                _ => {}
            }
            crate::systemd::set_properties(self, settings)?;
        }
        if let Some(policy) = &settings.devices {
            device_filter::set(self, policy, false)?;
        }
        writes(self, &settings.writes, false)?;
        if self.unit.is_some() { crate::systemd::round_quota(self, settings) } else { Ok(()) }
    }

    /// Sets what [`Settings::settle_later`] has left out. Where nothing was left out, it does nothing.
    ///
    /// # Errors
    ///
    /// As [`Cgroup::apply`].
    pub fn settle(&self, settings: &Settings) -> Result<(), CgroupError> {
        let left = settings.left_for_later();
        if !settings.settle_later || left.writes.is_empty() {
            return Ok(());
        }
        if self.unit.is_some() {
            crate::systemd::set_properties(self, &left)?;
        }
        writes(self, &left.writes, false)
    }

    // A weight ends `cpu.idle`, as systemd has it (since 252): the kernel refuses one meanwhile.
    fn wake(&self, settings: &Settings) -> Result<(), CgroupError> {
        let says = |file| settings.writes.iter().any(|write| write.file == file);
        if !says("cpu.weight") || says("cpu.idle") {
            return Ok(());
        }
        let path = self.need("cpu")?;
        match file::read(path, "cpu.idle") {
            Ok(text) if text.trim() == "1" => file::write(path, "cpu.idle", "0"),
            _ => Ok(()),
        }
    }

    // Best effort, as in runc: without a figure there is nothing to compare with.
    fn check_usage(&self, check: &AboveUsage) -> Result<(), CgroupError> {
        let text = self.path("memory").and_then(|path| file::read(path, "memory.current").ok());
        let Some(usage) = text.and_then(|text| text.trim().parse::<u64>().ok()) else { return Ok(()) };
        for (what, limit) in [("memory+swap", check.memory_swap), ("memory", check.memory)] {
            if limit > 0 && limit.unsigned_abs() <= usage {
                return Err(CgroupError::BelowUsage { what, limit, usage });
            }
        }
        Ok(())
    }
}

/// Makes the writes in order. `fresh`: no file of the cgroup has been written before.
pub(crate) fn writes<'a>(
    cgroup: &Cgroup,
    writes: impl IntoIterator<Item = &'a Write>,
    fresh: bool,
) -> Result<(), CgroupError> {
    let writes: Vec<&Write> = writes.into_iter().collect();
    let mut put_off: Vec<&Write> = Vec::new();
    let mut done_early: Option<&Write> = None;
    for (index, &write) in writes.iter().enumerate() {
        if done_early.is_some_and(|early| std::ptr::eq(early, write)) {
            continue;
        }
        let path = cgroup.need(&write.controller)?;
        let bigger = writes[index + 1..]
            .iter()
            .copied()
            .find(|later| matches!(&later.how, How::BeforeIfAbove { file } if *file == write.file));
        if let Some(bigger) = bigger
            && is_above(path, bigger, &write.file, fresh)?
        {
            one(path, bigger)?;
            done_early = Some(bigger);
        }
        match (one(path, write), &write.how) {
            (Err(error), How::OrAfter { .. }) if error.is(Errno::EINVAL) => put_off.push(write),
            (result, _) => result?,
        }
        while let Some(at) =
            put_off.iter().position(|w| matches!(&w.how, How::OrAfter { file } if *file == write.file))
        {
            one(path, put_off.remove(at))?;
        }
    }
    Ok(())
}

fn is_above(path: &str, write: &Write, file: &str, fresh: bool) -> Result<bool, CgroupError> {
    let new: i64 = number(path, &write.file, &write.value)?;
    // A new cgroup has no limit, which nothing but no limit is above.
    if new == -1 || fresh {
        return Ok(new == -1);
    }
    Ok(new > number(path, file, file::read(path, file)?.trim())?)
}

fn number(path: &str, file: &str, text: &str) -> Result<i64, CgroupError> {
    text.parse().map_err(|_| {
        let reason = format!("{text:?} is no number");
        CgroupError::Malformed { path: file::join(path, file), reason }
    })
}

fn one(path: &str, write: &Write) -> Result<(), CgroupError> {
    let result = match &write.how {
        How::KeepFirstWord => {
            let text = file::read(path, &write.file)?;
            let first = text.split_whitespace().next().unwrap_or("max");
            file::write(path, &write.file, &format!("{first} {}", write.value))
        }
        How::Minus { file } => file::write(path, &write.file, &minus(path, write, file)?),
        _ => file::Target::open(path, &write.file).and_then(|mut target| target.write_lines(&write.value)),
    };
    match (result, &write.how) {
        (Err(error), How::IfPresent) if error.is(Errno::ENOENT) => Ok(()),
        (Err(error), How::Else { file, value }) if error.is(Errno::ENOENT) => {
            file::write(path, file, value).map_err(|error| named(path, write, file, error))
        }
        (Err(error), _) if error.is(Errno::EBUSY) && write.file == "memory.limit_in_bytes" => {
            Err(in_use(path, write).unwrap_or(error))
        }
        (Err(error), _) if error.is_gone() || error.is_permission() => {
            Err(named(path, write, &write.file, explain(path, write).unwrap_or(error)))
        }
        (Err(error), _) => Err(named(path, write, &write.file, error)),
        (Ok(()), _) => Ok(()),
    }
}

fn minus(path: &str, write: &Write, file: &str) -> Result<String, CgroupError> {
    let text = file::read(path, file)?;
    if text.trim() == "max" {
        let reason = "unable to set swap limit without memory limit".to_owned();
        return Err(CgroupError::Malformed { path: file::join(path, file), reason });
    }
    let (sum, part) = (number(path, &write.file, &write.value)?, number(path, file, text.trim())?);
    match sum - part {
        rest @ 0.. => Ok(rest.to_string()),
        _ => {
            let reason = format!("memory+swap limit {sum} should be >= memory limit {part}");
            Err(CgroupError::Malformed { path: file::join(path, file), reason })
        }
    }
}

/// Says it if the controller, not the file, is what is missing. v1 has no list of controllers and needs none: what is
/// mounted is there.
fn explain(path: &str, write: &Write) -> Option<CgroupError> {
    let controllers = file::read(path, "cgroup.controllers").ok()?;
    let there = controllers.split_whitespace().any(|c| c == write.controller) || write.controller == "cgroup";
    let what = match write.how {
        How::Unified => format!("unified resource {:?}", write.file),
        _ => write.file.clone().into_owned(),
    };
    (!there).then(|| CgroupError::Unavailable { what, controller: write.controller.clone().into_owned() })
}

/// Names the property. Where the directory is gone, that is what is wrong and no property is.
fn named(path: &str, write: &Write, file: &str, error: CgroupError) -> CgroupError {
    let Some(property) = write.property() else { return error };
    if !std::path::Path::new(path).is_dir() {
        return error;
    }
    let source = match error.is(Errno::ENOENT) {
        true => CgroupError::NoFile { file: file.to_owned(), source: Box::new(error) },
        false => error,
    };
    CgroupError::Property { property, source: Box::new(source) }
}

fn in_use(path: &str, write: &Write) -> Option<CgroupError> {
    let read = |name| file::read(path, name).ok().map(|text| text.trim().to_owned());
    Some(CgroupError::MemoryInUse {
        limit: write.value.clone(),
        usage: read("memory.usage_in_bytes")?,
        peak: read("memory.max_usage_in_bytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::OwnDir;
    use crate::layout::Version;

    struct Fake {
        dir: std::path::PathBuf,
        cgroup: Cgroup,
    }

    impl Fake {
        fn new(name: &str, files: &[(&str, &str)]) -> Fake {
            let dir = std::env::temp_dir().join(format!("cofferdam-cgroup-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            for (name, value) in files {
                std::fs::write(dir.join(name), value).unwrap();
            }
            let path = dir.to_str().unwrap().to_owned();
            let own = OwnDir { controllers: String::new(), path, existed: false };
            Fake { dir, cgroup: Cgroup { version: Version::V2, dirs: vec![own], unit: None, resctrl: None } }
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.dir.join(name)).unwrap()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.dir).unwrap();
        }
    }

    /// An error and its cause.
    fn two(error: &CgroupError) -> String {
        let source = std::error::Error::source(error).unwrap();
        format!("{error}: {source}")
    }

    #[test]
    fn a_missing_file_has_a_stand_in() {
        let fake = Fake::new("else", &[("io.weight", "")]);
        let how = How::Else { file: "io.weight".into(), value: "5001".into() };
        writes(&fake.cgroup, &[Write::new("io", "io.bfq.weight", 505).how(how)], false).unwrap();
        assert_eq!(fake.read("io.weight"), "5001");
    }

    #[test]
    fn a_missing_file_may_not_matter() {
        let fake = Fake::new("present", &[]);
        writes(&fake.cgroup, &[Write::new("memory", "memory.swap.max", "max").how(How::IfPresent)], false)
            .unwrap();
        let error = writes(&fake.cgroup, &[Write::new("memory", "memory.max", 5)], false).unwrap_err();
        assert_eq!(two(&error), "config.json /linux/resources/memory/limit: this kernel has no memory.max");
        assert!(error.is(Errno::ENOENT));
    }

    #[test]
    fn a_property_without_a_file_is_named() {
        let fake = Fake::new("missing", &[]);
        for (resources, want) in [
            (r#"{"blockIO":{"weight":500}}"#, "blockIO/weight: this kernel has no io.weight"),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#,
                "hugepageLimits: this kernel has no hugetlb.2MB.max",
            ),
            (r#"{"rdma":{"mlx":{"hcaHandles":1}}}"#, "rdma: this kernel has no rdma.max"),
            (r#"{"cpu":{"idle":1}}"#, "cpu/idle: this kernel has no cpu.idle"),
            (r#"{"cpu":{"burst":1}}"#, "cpu/burst: this kernel has no cpu.max.burst"),
        ] {
            let layout = crate::Layout::V2(crate::Unified {
                mount_point: "/sys/fs/cgroup".into(),
                own_path: "/".into(),
            });
            let resources = serde_json::from_str(resources).unwrap();
            let settings = crate::translate(&resources, &layout, crate::Driver::Fs, false).unwrap();
            let error = fake.cgroup.apply(&settings).unwrap_err();
            assert_eq!(two(&error), format!("config.json /linux/resources/{want}"));
        }
    }

    #[test]
    fn a_new_period_keeps_the_quota() {
        let fake = Fake::new("period", &[("cpu.max", "50000 100000\n")]);
        writes(&fake.cgroup, &[Write::new("cpu", "cpu.max", 20000).how(How::KeepFirstWord)], false).unwrap();
        // A plain file keeps the tail of what was longer.
        assert!(fake.read("cpu.max").starts_with("50000 20000"));
    }

    #[test]
    fn systemd_hears_of_the_quota_that_is_there() {
        use crate::systemd::{property::Property, quota::PresentQuota};
        let fake = Fake::new("quota", &[("cpu.max", "50000 90000\n")]);
        let said = [
            Property::new("CPUQuotaPeriodUSec", 90_000u64),
            Property::new("CPUQuotaPerSecUSec", u64::MAX),
            Property::new("TasksMax", 7u64),
        ];
        let quota = PresentQuota::of(&fake.cgroup).unwrap();
        let heard = quota.within(&said);
        let heard: Vec<_> = heard.iter().map(|one| (one.name.as_str(), one.value.clone())).collect();
        let want = [
            ("TasksMax", 7u64.into()),
            ("CPUQuotaPeriodUSec", 90_000u64.into()),
            ("CPUQuotaPerSecUSec", 560_000u64.into()),
        ];
        assert_eq!(heard, want);
        file::write(fake.cgroup.path("cpu").unwrap(), "cpu.max", "60000 90000").unwrap();
        quota.restore().unwrap();
        assert!(fake.read("cpu.max").starts_with("50000 90000"));
    }

    #[test]
    fn systemd_s_quota_is_whole_percents() {
        use crate::systemd::quota::PresentQuota;
        for (text, want) in [
            ("600000 900000\n", "603000"),
            ("5000 100000\n", "5000 100000"),
            ("33333 100000\n", "34000"),
            ("max 100000\n", "max 100000"),
        ] {
            let fake = Fake::new("percents", &[("cpu.max", text)]);
            PresentQuota::of(&fake.cgroup).unwrap().round().unwrap();
            assert!(fake.read("cpu.max").starts_with(want), "{text}: {}", fake.read("cpu.max"));
        }
    }

    #[test]
    fn swap_alone_is_counted_from_the_present_limit() {
        let how = || How::Minus { file: "memory.max".into() };
        let fake = Fake::new("minus", &[("memory.max", "1000\n"), ("memory.swap.max", "")]);
        writes(&fake.cgroup, &[Write::new("memory", "memory.swap.max", 1500).how(how())], false).unwrap();
        assert_eq!(fake.read("memory.swap.max"), "500");
        let error = writes(&fake.cgroup, &[Write::new("memory", "memory.swap.max", 900).how(how())], false)
            .unwrap_err();
        assert!(
            error.to_string().ends_with("memory+swap limit 900 should be >= memory limit 1000"),
            "{error}"
        );
        std::fs::write(fake.dir.join("memory.max"), "max\n").unwrap();
        let error = writes(&fake.cgroup, &[Write::new("memory", "memory.swap.max", 900).how(how())], false)
            .unwrap_err();
        assert!(error.to_string().ends_with("unable to set swap limit without memory limit"), "{error}");
    }

    #[test]
    fn a_unified_key_without_its_controller_is_explained() {
        let fake = Fake::new("unified", &[("cgroup.controllers", "cpu memory\n")]);
        let write =
            |file: &'static str, controller: &'static str| Write::new(controller, file, 1).how(How::Unified);
        let error = writes(&fake.cgroup, &[write("hugetlb.2MB.max", "hugetlb")], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unified resource \"hugetlb.2MB.max\" can't be set: controller \"hugetlb\" not available"
        );
        let error = writes(&fake.cgroup, &[Write::new("pids", "pids.max", 5)], false).unwrap_err();
        assert_eq!(
            two(&error),
            "config.json /linux/resources/pids/limit: pids.max can't be set: controller \"pids\" not available"
        );
        let error = writes(&fake.cgroup, &[write("memory.nonsense", "memory")], false).unwrap_err();
        assert!(error.to_string().starts_with("cgroup: open "), "{error}");
    }

    #[test]
    fn limits_below_the_usage_are_rejected() {
        let fake = Fake::new("usage", &[("memory.current", "4096\n"), ("memory.max", "max")]);
        let settings = |memory, memory_swap| Settings {
            above_usage: Some(AboveUsage { memory, memory_swap }),
            ..Settings::default()
        };
        let error = fake.cgroup.apply(&settings(4096, 0)).unwrap_err();
        assert_eq!(error.to_string(), "rejecting memory limit 4096 <= usage 4096");
        let error = fake.cgroup.apply(&settings(8192, 100)).unwrap_err();
        assert_eq!(error.to_string(), "rejecting memory+swap limit 100 <= usage 4096");
        fake.cgroup.apply(&settings(4097, -1)).unwrap();
    }
}
