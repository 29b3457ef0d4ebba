//! `linux.intelRdt`: the share of a container in the processor's caches and memory bandwidth, by the resctrl filesystem.
//!
//! A directory of resctrl is a class of service: `schemata` says what its tasks get, `tasks` who they are. A container gets a
//! class of its own, named after it, or joins the one that `closID` names, which others may be in as well; so what was there
//! before is never changed nor removed. With `enableMonitoring` the container is counted by itself, in a monitoring group
//! below its class. runtime-spec 1.3, "IntelRdt"; the kernel's Documentation/filesystems/resctrl.rst.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::error::CgroupError;
use crate::file;
use crate::refused::Refused;

const BASE: &str = "/linux/intelRdt";
const SCHEMATA: &str = "schemata";
const TASKS: &str = "tasks";

/// What config.json asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassOfService {
    /// The directory: `closID`, or the container's id. Empty is the class that everything is in by default.
    pub name: String,
    /// `closID` is set: the class is somebody else's.
    pub given: bool,
    /// The lines for `schemata`; none leaves them alone.
    pub schemata: Vec<String>,
    /// The monitoring group: the container's id.
    pub monitor: Option<String>,
}

impl ClassOfService {
    /// Takes `linux.intelRdt` apart.
    ///
    /// # Errors
    ///
    /// Refuses a `closID` that is no name of a directory, and lines that are not one line each.
    pub fn new(
        id: &str,
        clos_id: &str,
        l3_cache_schema: &str,
        mem_bw_schema: &str,
        schemata: &[String],
        monitoring: bool,
    ) -> Result<ClassOfService, Refused> {
        let refuse = |below: &str, reason: String| Err(Refused::new(format!("{BASE}/{below}"), reason));
        let reserved = ["info", "mon_data", "mon_groups", ".", ".."];
        let no_name =
            clos_id.len() > 255 || clos_id.contains(['/', '\0', '\n']) || reserved.contains(&clos_id);
        if clos_id != "/" && no_name {
            return refuse("closID", format!("invalid intelRdt.ClosID {clos_id:?}"));
        }
        if !mem_bw_schema.is_empty() && (!mem_bw_schema.starts_with("MB:") || mem_bw_schema.contains('\n')) {
            return refuse("memBwSchema", format!("{mem_bw_schema:?} is no line that begins with \"MB:\""));
        }
        // The spec only says that it should be one line, and what becomes of a line for memory bandwidth in it.
        let l3 = l3_cache_schema.lines().filter(|line| mem_bw_schema.is_empty() || !line.starts_with("MB:"));
        let mut lines: Vec<String> = l3.filter(|line| !line.is_empty()).map(str::to_owned).collect();
        lines.extend((!mem_bw_schema.is_empty()).then(|| mem_bw_schema.to_owned()));
        for (i, line) in schemata.iter().enumerate() {
            if line.contains('\n') {
                return refuse(&format!("schemata/{i}"), format!("{line:?} is more than a line"));
            }
            lines.push(line.clone());
        }
        for line in &lines {
            if let Err(reason) = parse(line) {
                return Err(Refused::new(BASE, reason));
            }
        }
        let name = match clos_id {
            "" => id,
            "/" => "",
            given => given,
        };
        Ok(ClassOfService {
            name: name.to_owned(),
            given: !clos_id.is_empty(),
            schemata: lines,
            monitor: monitoring.then(|| id.to_owned()),
        })
    }
}

/// What a container has in resctrl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The directory of its class of service.
    pub path: String,
    /// It was made for the container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made: bool,
    /// The directory of its monitoring group, made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
}

/// Where resctrl is mounted.
///
/// # Errors
///
/// When it is not, or mountinfo cannot be read.
pub fn root() -> Result<String, CgroupError> {
    let text = file::read("/proc/self", "mountinfo")?;
    find_root(&text).ok_or(CgroupError::NoResctrl)
}

fn find_root(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        (fs.split(' ').next()? == "resctrl").then(|| mount.split(' ').nth(4).map(crate::probe::unescape))?
    })
}

impl Group {
    /// Makes what is wanted below `root`, the mount point of resctrl.
    ///
    /// # Errors
    ///
    /// When the class of service is somebody else's and is not there, or has other limits; those of the kernel, which checks
    /// every line. What was made is removed again.
    pub fn make(wanted: &ClassOfService, root: &str) -> Result<Group, CgroupError> {
        let root = root.trim_end_matches('/');
        let path = if wanted.name.is_empty() { root.to_owned() } else { file::join(root, &wanted.name) };
        let mut group = Group { path, made: false, monitor: None };
        let filled = group.fill(wanted);
        if filled.is_err()
            && let Err(error) = group.remove()
        {
            tracing::warn!(%error, "cannot remove the class of service of a failed container");
        }
        filled.map(|()| group)
    }

    fn fill(&mut self, wanted: &ClassOfService) -> Result<(), CgroupError> {
        if wanted.given && wanted.schemata.is_empty() {
            if !std::path::Path::new(&self.path).is_dir() {
                return Err(CgroupError::NoClass { path: self.path.clone() });
            }
        } else if wanted.name.is_empty() || !file::mkdir(&self.path)? {
            self.check(&wanted.schemata)?;
        } else {
            self.made = true;
            self.limit(&wanted.schemata)?;
        }
        if let Some(name) = &wanted.monitor {
            let path = format!("{}/mon_groups/{name}", self.path);
            file::mkdir(&path)?;
            self.monitor = Some(path);
        }
        Ok(())
    }

    /// Compares the wanted lines with those of a class that is there.
    fn check(&self, lines: &[String]) -> Result<(), CgroupError> {
        let have = file::read(&self.path, SCHEMATA)?;
        let have: Vec<Line> = have.lines().filter_map(|line| parse(line).ok()).collect();
        for line in lines {
            let wanted = parse(line).map_err(|reason| Refused::new(BASE, reason))?;
            if !have.contains(&wanted) {
                return Err(CgroupError::OtherLimits { path: self.path.clone(), line: line.clone() });
            }
        }
        Ok(())
    }

    /// Writes lines of `schemata`, each by itself: the kernel then says which one it does not take.
    ///
    /// # Errors
    ///
    /// Those of the kernel.
    pub fn limit(&self, lines: &[String]) -> Result<(), CgroupError> {
        lines.iter().try_for_each(|line| write(&self.path, SCHEMATA, &format!("{line}\n")))
    }

    /// Puts a process in, by its first thread.
    ///
    /// # Errors
    ///
    /// Those of the kernel.
    pub fn enter(&self, pid: i32) -> Result<(), CgroupError> {
        let dirs = [Some(&self.path), self.monitor.as_ref()];
        dirs.into_iter().flatten().try_for_each(|dir| write(dir, TASKS, &pid.to_string()))
    }

    /// Files to which a thread writes `0` to enter.
    ///
    /// # Errors
    ///
    /// When they cannot be opened.
    pub fn self_entry(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let dirs = [Some(&self.path), self.monitor.as_ref()];
        let open = |dir: &String| {
            let path = file::join(dir, TASKS);
            let opened = OpenOptions::new().write(true).open(&path);
            opened.map(OwnedFd::from).map_err(|source| CgroupError::io("open", path, source))
        };
        dirs.into_iter().flatten().map(open).collect()
    }

    /// Removes what was made. A class that was made under a name of config.json's may have others in it by now: then it stays.
    ///
    /// # Errors
    ///
    /// Those of rmdir(2).
    pub fn remove(&self) -> Result<(), CgroupError> {
        if let Some(monitor) = &self.monitor {
            file::rmdir(monitor)?;
        }
        if !self.made {
            return Ok(());
        }
        let others = file::read(&self.path, TASKS).is_ok_and(|text| !text.trim().is_empty());
        if others { Ok(()) } else { file::rmdir(&self.path) }
    }
}

fn write(dir: &str, name: &str, value: &str) -> Result<(), CgroupError> {
    let path = file::join(dir, name);
    let written =
        OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| CgroupError::io(format!("write {:?} to", value.trim_end()), path, source))
}

/// A line of `schemata`: a resource, and a value for each of its domains.
type Line<'a> = (&'a str, BTreeMap<u32, u64>);

/// `L3:0=ff;1=0f`: masks are hexadecimal, memory bandwidths decimal; blanks and leading zeroes mean nothing.
fn parse(line: &str) -> Result<Line<'_>, String> {
    let malformed = || format!("{line:?} is no line of a schemata file");
    let (resource, values) = line.split_once(':').ok_or_else(malformed)?;
    let resource = resource.trim();
    let radix = if resource.starts_with("MB") || resource.starts_with("SMBA") { 10 } else { 16 };
    let mut domains = BTreeMap::new();
    for part in values.split(';').filter(|part| !part.trim().is_empty()) {
        let (domain, value) = part.split_once('=').ok_or_else(malformed)?;
        let domain = domain.trim().parse().map_err(|_| malformed())?;
        let value = u64::from_str_radix(value.trim(), radix).map_err(|_| malformed())?;
        domains.insert(domain, value);
    }
    if resource.is_empty() || domains.is_empty() { Err(malformed()) } else { Ok((resource, domains)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory that looks like resctrl: its files are there already where the kernel would make them with the directory.
    struct Fake(String);

    impl Fake {
        fn new(name: &str) -> Fake {
            let path = std::env::temp_dir().join(format!("cofferdam-resctrl-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Fake(path.to_str().unwrap().to_owned())
        }

        fn class(&self, name: &str, schemata: &str) -> String {
            let dir = file::join(&self.0, name);
            fs::create_dir_all(format!("{dir}/mon_groups")).unwrap();
            fs::write(file::join(&dir, SCHEMATA), schemata).unwrap();
            fs::write(file::join(&dir, TASKS), "").unwrap();
            dir
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn wanted(clos_id: &str, l3: &str, mb: &str, schemata: &[&str], monitoring: bool) -> ClassOfService {
        let schemata: Vec<String> = schemata.iter().map(|line| (*line).to_owned()).collect();
        ClassOfService::new("c1", clos_id, l3, mb, &schemata, monitoring).unwrap()
    }

    #[test]
    fn lines_are_put_together_as_the_spec_says() {
        let class = wanted("", "L3:0=f;1=f0\nMB:0=70", "MB:0=20", &["L2:0=3"], false);
        assert_eq!(class.schemata, ["L3:0=f;1=f0", "MB:0=20", "L2:0=3"]);
        assert_eq!((class.name.as_str(), class.given, class.monitor), ("c1", false, None));
        assert_eq!(wanted("", "L3:0=f\nMB:0=70", "", &[], false).schemata, ["L3:0=f", "MB:0=70"]);
        assert_eq!(wanted("/", "", "", &[], true).name, "");
    }

    #[test]
    fn what_is_no_name_and_no_line_is_refused() {
        let refusal = |clos_id: &str, l3: &str, mb: &str, line: &str| {
            let lines = if line.is_empty() { vec![] } else { vec![line.to_owned()] };
            ClassOfService::new("c1", clos_id, l3, mb, &lines, false).unwrap_err().to_string()
        };
        for bad in ["..", ".", "a/b", "info", "mon_groups", "/a"] {
            assert_eq!(
                refusal(bad, "", "", ""),
                format!("config.json /linux/intelRdt/closID: invalid intelRdt.ClosID {bad:?}")
            );
        }
        let want = "config.json /linux/intelRdt/memBwSchema: \"L3:0=f\" is no line that begins with \"MB:\"";
        assert_eq!(refusal("", "", "L3:0=f", ""), want);
        let want = "config.json /linux/intelRdt/schemata/0: \"L3:0=f\\nMB:0=1\" is more than a line";
        assert_eq!(refusal("", "", "", "L3:0=f\nMB:0=1"), want);
        for bad in ["L3", "L3:", "L3:0", "L3:x=f", "L3:0=g", "MB:0=f", ":0=1"] {
            let want = format!("config.json /linux/intelRdt: {bad:?} is no line of a schemata file");
            assert_eq!(refusal("", "", "", bad), want);
        }
    }

    #[test]
    fn a_line_is_compared_by_its_meaning() {
        assert_eq!(parse("L3:0=00f; 1=FF;"), parse("    L3:1=ff;0=f"));
        assert_ne!(parse("L3:0=f"), parse("L3:0=f;1=f"));
        assert_ne!(parse("L3CODE:0=f"), parse("L3DATA:0=f"));
    }

    #[test]
    fn a_class_of_somebody_elses_is_joined_and_not_changed() {
        let fake = Fake::new("join");
        let dir = fake.class("gold", "L3:0=ff;1=ff\nMB:0=100;1=100\n");
        let group = Group::make(&wanted("gold", "", "", &[], false), &fake.0).unwrap();
        assert_eq!(group, Group { path: dir.clone(), made: false, monitor: None });
        group.enter(77).unwrap();
        assert_eq!(fs::read_to_string(file::join(&dir, TASKS)).unwrap(), "77");
        // The same limits are good, others are not.
        let same = Group::make(&wanted("gold", "L3:1=0ff;0=ff", "MB:0=100;1=100", &[], false), &fake.0);
        assert!(!same.unwrap().made);
        let error = Group::make(&wanted("gold", "L3:0=f;1=f", "", &[], false), &fake.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("intelRdt: the schemata of {dir} is not what config.json has: no line \"L3:0=f;1=f\"")
        );
        group.remove().unwrap();
        assert!(fs::read_to_string(file::join(&dir, SCHEMATA)).unwrap().starts_with("L3:0=ff;1=ff\n"));
    }

    #[test]
    fn a_class_that_is_only_named_must_be_there() {
        let fake = Fake::new("named");
        let error = Group::make(&wanted("silver", "", "", &[], false), &fake.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "clos dir not accessible (must be pre-created when l3CacheSchema and memBwSchema are empty): {}/silver: no \
                 such directory",
                fake.0
            )
        );
    }

    #[test]
    fn a_class_of_its_own_is_made_and_removed() {
        let fake = Fake::new("own");
        let group = Group::make(&wanted("", "", "", &[], false), &fake.0).unwrap();
        assert_eq!((group.path.clone(), group.made), (format!("{}/c1", fake.0), true));
        let dir = fake.class("c1", "");
        group.limit(&["L3:0=f".to_owned(), "MB:0=20".to_owned()]).unwrap();
        assert_eq!(fs::read_to_string(file::join(&dir, SCHEMATA)).unwrap(), "L3:0=f\nMB:0=20\n");
        group.enter(5).unwrap();
        // Somebody is in there still.
        group.remove().unwrap();
        assert!(std::path::Path::new(&dir).is_dir());
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        group.remove().unwrap();
        assert!(!std::path::Path::new(&dir).exists());
    }

    #[test]
    fn a_class_whose_limits_are_not_taken_is_removed() {
        let fake = Fake::new("failed");
        // A directory that stays without a schemata file, as nobody's kernel would leave it.
        let error = Group::make(&wanted("", "L3:0=f", "", &[], false), &fake.0).unwrap_err();
        assert!(error.to_string().starts_with("cgroup: write \"L3:0=f\" to "), "{error}");
        assert!(!std::path::Path::new(&format!("{}/c1", fake.0)).exists());
    }

    #[test]
    fn a_container_is_monitored_by_itself() {
        let fake = Fake::new("monitor");
        let dir = fake.class("gold", "L3:0=ff\n");
        let group = Group::make(&wanted("gold", "", "", &[], true), &fake.0).unwrap();
        let monitor = format!("{dir}/mon_groups/c1");
        assert_eq!(group.monitor.as_ref(), Some(&monitor));
        fs::write(file::join(&monitor, TASKS), "").unwrap();
        group.enter(9).unwrap();
        assert_eq!(fs::read_to_string(file::join(&monitor, TASKS)).unwrap(), "9");
        fs::remove_file(file::join(&monitor, TASKS)).unwrap();
        group.remove().unwrap();
        assert!(!std::path::Path::new(&monitor).exists() && std::path::Path::new(&dir).is_dir());
    }

    #[test]
    fn the_mount_point_is_looked_up() {
        let text = "22 1 0:20 / /sys rw - sysfs sysfs rw\n30 22 0:33 / /sys/fs/res\\040ctrl rw,relatime - resctrl resctrl rw\n";
        assert_eq!(find_root(text).as_deref(), Some("/sys/fs/res ctrl"));
        assert_eq!(find_root("22 1 0:20 / /sys rw - sysfs sysfs rw\n"), None);
        assert_eq!(
            CgroupError::NoResctrl.to_string(),
            "config.json /linux/intelRdt: intelRdt is specified in config, but Intel RDT is not enabled: no resctrl is mounted"
        );
    }
}
