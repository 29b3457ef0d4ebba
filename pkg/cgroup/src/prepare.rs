//! Making a container's cgroup: the part before its first process exists, and the part after.
//!
//! ```text
//! let mut prepared = Cgroup::begin(&placement, &settings, &options)?;
//! let child = clone3(…, cgroup: prepared.clone_dir());   // CLONE_INTO_CGROUP where there is a directory
//! prepared.complete()?;                                  // while the child does something else already
//! let cgroup = prepared.enter(child, cloned_into)?;      // before the child needs it
//! ```
//!
//! The caller's code is the same for all drivers and versions; what differs is what is left for `enter`:
//!
//! | | `begin` | `complete` | `enter` |
//! |---|---|---|---|
//! | fs, v2 | directory, controllers, limits, device filter | | nothing, if the child was cloned into the cgroup |
//! | fs, v1 and hybrid | hybrid: the v2 directory | v1 directories, limits, device rules | the child into each v1 hierarchy |
//! | systemd | connection to the bus | | scope with the child in it, then limits and device filter |
//!
//! On v1 the child can enter by itself, which is cheaper: see [`Prepared::self_entry`].
//!
//! Dropping a [`Prepared`] removes what it made, and nothing else.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::cgroup::{Cgroup, OwnDir, collect};
use crate::error::CgroupError;
use crate::layout::Version;
use crate::place::{Dir, Placement, Unit};
use crate::resctrl::{self, Group};
use crate::systemd::Session;
use crate::systemd::property::Property;
use crate::translate::Settings;
use crate::{apply, cpuset, delegate, device_filter, enable, file};

/// How a cgroup is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `--rootless`: a hierarchy in which nothing may be created is left out, as long as config.json names no path or it is a
    /// named one;
    /// a limit in it is then an error. Device rules that cannot be set are no error.
    pub rootless: bool,
    /// The host's user that is to own the container's v2 cgroup, so that it can make sub-cgroups: for a private cgroup
    /// namespace with a writable cgroup mount.
    pub owner: Option<u32>,
}

/// How many processes and threads a container can have while it is being made.
pub const ROOM: u64 = 8;

/// A cgroup that is ready for its first process.
#[must_use = "dropping it removes the cgroup"]
pub struct Prepared<'a> {
    cgroup: Cgroup,
    placement: &'a Placement,
    settings: &'a Settings,
    options: Options,
    clone_dir: Option<OwnedFd>,
    /// Directories made above the container's own, outermost first: removed on failure, kept on success, as in runc.
    parents: Vec<String>,
    session: Option<Session>,
    unit_started: bool,
    /// Nobody of ours can be in the cgroup.
    unoccupied: bool,
    done: bool,
}

impl Cgroup {
    /// [`Cgroup::begin`] and [`Prepared::complete`]: everything that can be done before the first process exists.
    ///
    /// # Errors
    ///
    /// Theirs.
    pub fn prepare<'a>(
        placement: &'a Placement,
        settings: &'a Settings,
        options: &Options,
    ) -> Result<Prepared<'a>, CgroupError> {
        let mut prepared = Cgroup::begin(placement, settings, options)?;
        prepared.complete()?;
        Ok(prepared)
    }

    /// Does what must be done before the container's first process exists.
    ///
    /// # Errors
    ///
    /// When a directory cannot be made or a limit cannot be set; when the cgroup was there before and holds processes
    /// or is frozen. What was made until then is removed again.
    pub fn begin<'a>(
        placement: &'a Placement,
        settings: &'a Settings,
        options: &Options,
    ) -> Result<Prepared<'a>, CgroupError> {
        let mut prepared = Prepared {
            cgroup: Cgroup {
                version: placement.version,
                dirs: Vec::new(),
                unit: placement.unit.clone(),
                resctrl: None,
            },
            placement,
            settings,
            options: *options,
            clone_dir: None,
            parents: Vec::new(),
            session: None,
            unit_started: false,
            unoccupied: false,
            done: false,
        };
        if let Some(class) = &settings.class_of_service {
            prepared.cgroup.resctrl = Some(Group::make(class, &resctrl::root()?)?);
        }
        match &placement.unit {
            Some(unit) => prepared.prepare_unit(unit)?,
            None => {
                prepared.make_dirs(Dir::is_unified)?;
                if let Some(path) = prepared.cgroup.unified_path() {
                    prepared.clone_dir = Some(open_dir(path, OFlag::O_PATH)?.into());
                }
                if placement.version == Version::V2 {
                    prepared.limit()?;
                }
            }
        }
        Ok(prepared)
    }
}

impl Prepared<'_> {
    /// Makes what the child is not born in but enters: the v1 hierarchies, with their limits.
    ///
    /// # Errors
    ///
    /// Those of [`Cgroup::begin`]; what was made is removed when this is dropped.
    pub fn complete(&mut self) -> Result<(), CgroupError> {
        if self.placement.unit.is_some() || self.placement.version == Version::V2 {
            return Ok(());
        }
        self.make_dirs(|dir| !dir.is_unified())?;
        let placed = |own: &OwnDir| self.placement.dirs.iter().position(|dir| dir.path == own.path);
        self.cgroup.dirs.sort_by_key(placed);
        self.limit()
    }

    /// The cgroup as it stands now; what is to be recorded for a clean-up after a crash.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The directory for `CLONE_INTO_CGROUP` (clone3(2), Linux 5.7), where the child can be born in its v2 cgroup.
    ///
    /// The right way in: writing to `cgroup.procs` stops all forks and exits of the machine for an RCU grace period,
    /// which costs 13 to 18 ms on a machine where nobody has done so recently.
    pub fn clone_dir(&self) -> Option<BorrowedFd<'_>> {
        self.clone_dir.as_ref().map(AsFd::as_fd)
    }

    /// Files through which a single-threaded child puts itself into the v1 hierarchies: it writes `0` to each, in
    /// order, before it does anything else (and before `unshare(CLONE_NEWCGROUP)`). Then tell [`Prepared::entered`].
    ///
    /// Linux 5.6 and later take no global lock for a thread that moves itself by `tasks`, where moving another process
    /// by `cgroup.procs` stops all forks and exits of the machine for an RCU grace period (13 to 18 ms, measured on
    /// 6.18 with 20 ms between the containers; back to back the two cost the same).
    ///
    /// # Errors
    ///
    /// When a file cannot be opened.
    pub fn self_entry(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.cgroup.self_entry()
    }

    /// Puts the child, which must be waiting, into the cgroup. `cloned_into`: it was made with
    /// [`Prepared::clone_dir`].
    ///
    /// # Errors
    ///
    /// When the kernel or systemd does not let it in. The cgroup is then removed, and the child killed if it was in it
    /// already; reaping it is up to the caller.
    pub fn enter(mut self, child: i32, cloned_into: bool) -> Result<Cgroup, CgroupError> {
        let placement = self.placement;
        if let Some(group) = &self.cgroup.resctrl {
            group.enter(child)?;
        }
        if let Some(unit) = &placement.unit {
            self.enter_unit(unit, child)?;
        } else {
            let mut left = Vec::new();
            for (index, dir) in self.cgroup.dirs.iter().enumerate() {
                if cloned_into && dir.is_unified() {
                    continue;
                }
                match (join(&dir.path, child), self.placed(&dir.path)) {
                    (Err(error), Some(place)) if self.may_do_without(place, &error) => {
                        self.check_not_needed(place, error)?;
                        left.push(index);
                    }
                    (result, _) => result?,
                }
            }
            for index in left.into_iter().rev() {
                let dir = self.cgroup.dirs.remove(index);
                let _ = file::rmdir(&dir.path);
            }
        }
        Ok(self.finish())
    }

    /// The child has entered all hierarchies by itself: by [`Prepared::clone_dir`] and [`Prepared::self_entry`].
    /// Not with the systemd driver, where [`Prepared::enter`] is the only way.
    pub fn entered(self) -> Cgroup {
        self.finish()
    }

    /// Whether [`Prepared::self_entry`] and [`Prepared::clone_dir`] together do the work of [`Prepared::enter`].
    pub fn can_enter_by_itself(&self) -> bool {
        self.placement.unit.is_none()
            && !self.options.rootless
            && (self.clone_dir.is_some() || self.placement.version == Version::V1)
    }

    /// Kills what is in the cgroup, which can only be the container's, and removes it.
    fn undo(&self) -> Result<(), CgroupError> {
        let main = self.cgroup.main_path();
        let mut killed = Ok(());
        if !self.unoccupied && self.cgroup.dirs.iter().any(|dir| dir.path == main && !dir.existed) {
            // Without a descriptor for the list of processes nobody can be killed; mostly nobody is there, and the cgroup can go.
            killed = self.cgroup.kill_all(9);
            // Of a hybrid the child may have been born into the v2 hierarchy, and into no other yet.
            for dir in
                self.cgroup.dirs.iter().filter(|dir| dir.is_unified() && !dir.existed && dir.path != main)
            {
                let _ = file::write(&dir.path, "cgroup.kill", "1");
            }
        }
        self.cgroup.remove().map_err(|error| killed.err().unwrap_or(error))
    }

    fn finish(mut self) -> Cgroup {
        self.done = true;
        self.cgroup.clone()
    }

    fn make_dirs(&mut self, which: impl Fn(&Dir) -> bool) -> Result<(), CgroupError> {
        for dir in self.placement.dirs.iter().filter(|dir| which(dir)) {
            match self.make(dir) {
                Err(error) if self.may_do_without(dir, &error) => self.check_not_needed(dir, error)?,
                result => result?,
            }
        }
        Ok(())
    }

    /// All directories are there.
    fn limit(&mut self) -> Result<(), CgroupError> {
        if self.cgroup.dirs.iter().any(|dir| dir.existed)
            && let Err(error) = self.check_unused()
        {
            // What is in there, and what has been frozen, is somebody else's: nothing is killed or thawed on the way back.
            self.unoccupied = true;
            return Err(error);
        }
        self.set_limits(true)
    }

    fn make(&mut self, dir: &Dir) -> Result<(), CgroupError> {
        let controllers = dir.controllers.join(",");
        let created = file::mkdir_with_parents(dir, &mut self.parents)?;
        // Known before anything else can fail, so that the rollback finds it.
        self.cgroup.dirs.push(OwnDir { controllers, path: dir.path.clone(), existed: !created });
        if self.placement.version == Version::V2 {
            enable::controllers(dir, self.settings)?;
            if let Some(owner) = self.options.owner {
                delegate::chown(&dir.path, owner)?;
            }
        }
        if dir.controllers.iter().any(|c| c == "cpuset") {
            cpuset::inherit(dir, self.settings, created)?;
        }
        Ok(())
    }

    /// Rootless containers do without hierarchies in which they may not do anything, unless config.json names a path. What
    /// limits nothing is left out in any case: a named hierarchy, and v2 beside v1.
    fn may_do_without(&self, dir: &Dir, error: &CgroupError) -> bool {
        let named = dir.controllers.iter().any(|controller| controller.starts_with("name="));
        let beside = dir.controllers.is_empty() && self.placement.version == Version::Hybrid;
        self.options.rootless && (named || beside || !self.placement.explicit) && error.is_permission()
    }

    /// A v2 cgroup that cannot be had is an error where it is to hold limits; of a v1 hierarchy the limit itself says so.
    fn check_not_needed(&self, dir: &Dir, error: CgroupError) -> Result<(), CgroupError> {
        if self.placement.version == Version::V2 && !self.settings.writes.is_empty() {
            return Err(CgroupError::NotGranted { source: Box::new(error) });
        }
        tracing::debug!(%error, path = dir.path, "rootless: no cgroup");
        Ok(())
    }

    fn placed(&self, path: &str) -> Option<&Dir> {
        self.placement.dirs.iter().find(|dir| dir.path == path)
    }

    // As runc: one hierarchy stands for all as to processes, the freezer is asked in any case.
    fn check_unused(&self) -> Result<(), CgroupError> {
        let main = self.cgroup.main_path();
        if self.cgroup.dirs.iter().any(|dir| dir.existed && dir.path == main) {
            check_empty(main)?;
        }
        self.check_thawed()
    }

    fn check_thawed(&self) -> Result<(), CgroupError> {
        if !self.cgroup.is_frozen()? {
            return Ok(());
        }
        let path = self.cgroup.freezer_path().unwrap_or(self.cgroup.main_path());
        Err(CgroupError::Frozen { path: path.to_owned() })
    }

    fn set_limits(&self, fresh: bool) -> Result<(), CgroupError> {
        // `fresh`: nothing but us has touched the directories that we have made.
        if let Some(policy) = &self.settings.devices {
            let fresh = fresh
                && self
                    .cgroup
                    .path("devices")
                    .is_some_and(|path| self.cgroup.dirs.iter().any(|dir| dir.path == path && !dir.existed));
            match device_filter::set(&self.cgroup, policy, fresh) {
                // A user namespace cannot have device rules, nor can its processes make device nodes.
                Err(error) if self.options.rootless && !matches!(error, CgroupError::DeviceRules { .. }) => {
                    tracing::debug!(%error, "rootless: no device rules");
                }
                result => result?,
            }
        }
        let later = self.later();
        let now = self.settings.writes.iter().filter(|write| !later.writes.contains(write));
        apply::writes(&self.cgroup, now, fresh)?;
        if self.unit_started { crate::systemd::round_quota(&self.cgroup, self.settings) } else { Ok(()) }
    }

    fn later(&self) -> Settings {
        if self.settings.settle_later { self.settings.left_for_later() } else { Settings::default() }
    }

    fn prepare_unit(&mut self, unit: &Unit) -> Result<(), CgroupError> {
        let mut session = Session::open(unit)?;
        let mut cgroup = Cgroup::from_placement(self.placement);
        if unit.user {
            let manager = session.manager_cgroup()?;
            for (own, dir) in cgroup.dirs.iter_mut().zip(&self.placement.dirs) {
                let mount = dir.mount_point.trim_end_matches('/');
                own.path = format!("{mount}{}{}", manager.trim_end_matches('/'), &dir.path[mount.len()..]);
            }
        }
        self.cgroup.dirs = cgroup.dirs;
        self.session = Some(session);
        // Before systemd says only that there is such a unit, or puts the child where it would hang.
        check_empty(self.cgroup.main_path())?;
        self.check_thawed()
    }

    fn enter_unit(&mut self, unit: &Unit, child: i32) -> Result<(), CgroupError> {
        let v2 = self.placement.version == Version::V2;
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(unit)?,
        };
        let later = self.later();
        let now: Vec<&Property> =
            self.settings.properties.iter().filter(|property| !later.properties.contains(property)).collect();
        session.start(unit, v2, child, &now)?;
        // From here on the unit is ours to stop.
        self.unit_started = true;
        let dirs: Vec<Dir> = self
            .placement
            .dirs
            .iter()
            .zip(&self.cgroup.dirs)
            .map(|(dir, own)| Dir { path: own.path.clone(), ..dir.clone() })
            .collect();
        if v2 {
            for dir in &dirs {
                enable::controllers(dir, self.settings)?;
                if let Some(owner) = self.options.owner {
                    delegate::chown(&dir.path, owner)?;
                }
            }
            self.set_limits(false)?;
            // A slice cannot be made with processes in it.
            return if unit.is_slice() { self.cgroup.join(child, None) } else { Ok(()) };
        }
        // systemd knows only some of v1's controllers; its own hierarchy is its own business.
        let ours = |dir: &&Dir| !dir.controllers.is_empty() && dir.controllers != ["name=systemd"];
        for dir in dirs.iter().filter(ours) {
            let created = file::mkdir_with_parents(dir, &mut self.parents)?;
            if dir.controllers.iter().any(|c| c == "cpuset") {
                cpuset::inherit(dir, self.settings, created)?;
            }
        }
        // Before the child comes in: without CPUs it could not.
        self.set_limits(false)?;
        dirs.iter().filter(ours).try_for_each(|dir| join(&dir.path, child))
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let result = match &self.placement.unit {
            // There is no unit, or it is somebody else's.
            Some(_) if !self.unit_started => Ok(()),
            _ => self.undo(),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "cannot remove the cgroup of a failed container");
        }
        for parent in self.parents.iter().rev() {
            // Another container may have moved in meanwhile: then it stays.
            let _ = file::rmdir(parent);
        }
    }
}

/// Refuses a cgroup that is there and holds processes, below it included.
fn check_empty(path: &str) -> Result<(), CgroupError> {
    let mut pids = Vec::new();
    match collect(path, true, &mut pids) {
        Err(error) if error.is_gone() => {}
        result => result?,
    }
    match pids.len() {
        0 => Ok(()),
        count => Err(CgroupError::NotEmpty { path: path.to_owned(), count }),
    }
}

/// Opens a directory; with `O_PATH` for clone3(2), to which that is enough.
pub(crate) fn open_dir(path: &str, flags: OFlag) -> Result<File, CgroupError> {
    let flags = (OFlag::O_DIRECTORY | flags).bits();
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| CgroupError::io("open", path, source))
}

/// Moves a process into the cgroup at `path`.
pub(crate) fn join(path: &str, pid: i32) -> Result<(), CgroupError> {
    // Linux: a process that is not yet on the run queue (TASK_NEW) cannot be moved, and EINVAL is all that says so.
    // Five times, as runc, with a tenth of its pause.
    const TRIES: u32 = 5;
    let mut procs = file::Target::open(path, "cgroup.procs")?;
    let pid = pid.to_string();
    let mut tried = 1;
    loop {
        match procs.write(&pid) {
            Err(error) if error.is(Errno::EINVAL) && tried < TRIES => {
                std::thread::sleep(Duration::from_millis(3 << tried));
                tried += 1;
            }
            // cgroup v2: the place is "domain invalid", or it has controllers enabled for its children.
            Err(error) if error.is(Errno::EOPNOTSUPP) => {
                let state = file::read(path, "cgroup.type").unwrap_or_default();
                return Err(CgroupError::Threaded { path: path.to_owned(), state: state.trim().to_owned() });
            }
            result => return result,
        }
    }
}

impl Cgroup {
    /// Moves a process into the cgroup, in all hierarchies.
    ///
    /// On v2 a container that has made sub-cgroups and enabled controllers for them can hold no process in its own
    /// cgroup any more (EBUSY); then the process joins `init`, the container's first process, where it is. That is
    /// what runc does for `exec`.
    ///
    /// # Errors
    ///
    /// When the kernel does not take the process.
    pub fn join(&self, pid: i32, init: Option<i32>) -> Result<(), CgroupError> {
        if let Some(group) = &self.resctrl {
            group.enter(pid)?;
        }
        for dir in &self.dirs {
            match (join(&dir.path, pid), init) {
                (Err(error), Some(init)) if dir.is_unified() && error.is(Errno::EBUSY) => {
                    let path = self.unified_path_of(init)?;
                    join(&path, pid)?;
                }
                (result, _) => result?,
            }
        }
        Ok(())
    }

    /// Moves a process into a sub-cgroup (`exec --cgroup [controllers:]path`). `controllers`, separated by commas,
    /// limits that to some v1 hierarchies; in the others the process joins the container's own cgroup.
    ///
    /// # Errors
    ///
    /// Refuses a path that leads out of the cgroup, and controllers that the container has no hierarchy for.
    pub fn join_sub(&self, pid: i32, subs: &[(Option<&str>, &str)]) -> Result<(), CgroupError> {
        if let Some(group) = &self.resctrl {
            group.enter(pid)?;
        }
        let mut paths: Vec<String> = self.dirs.iter().map(|dir| dir.path.clone()).collect();
        for (controllers, sub) in subs {
            let sub = inside(sub)?;
            match controllers.filter(|_| self.version != Version::V2) {
                None => {
                    for (path, dir) in paths.iter_mut().zip(&self.dirs) {
                        *path = sub_path(&dir.path, &sub);
                    }
                }
                Some(controllers) => {
                    for controller in controllers.split(',') {
                        let unknown = || CgroupError::UnknownController { controller: controller.to_owned() };
                        let dir = self.path(controller).ok_or_else(unknown)?;
                        let index = self.dirs.iter().position(|d| d.path == dir);
                        paths[index.expect("path() takes it from dirs")] = sub_path(dir, &sub);
                    }
                }
            }
        }
        paths.iter().try_for_each(|path| join(path, pid))
    }

    /// The container's directory in the v2 hierarchy, for `CLONE_INTO_CGROUP`; `sub` is a path below it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened; ENODEV when there is no v2 hierarchy.
    pub fn v2_dir_fd(&self, sub: Option<&str>) -> Result<OwnedFd, CgroupError> {
        let path =
            self.unified_path().ok_or_else(|| CgroupError::NoController { controller: "v2".into() })?;
        let path = match sub {
            Some(sub) => sub_path(path, &inside(sub)?),
            None => path.to_owned(),
        };
        open_dir(&path, OFlag::O_PATH).map(OwnedFd::from)
    }

    /// Files by which a single-threaded process puts itself into the v1 hierarchies, as [`Prepared::self_entry`].
    ///
    /// # Errors
    ///
    /// When a file cannot be opened.
    pub fn self_entry(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let resctrl = self.resctrl.as_ref().map_or(Ok(Vec::new()), Group::self_entry)?;
        let hierarchies = self.dirs.iter().filter(|dir| !dir.is_unified()).map(|dir| {
            let path = file::join(&dir.path, "tasks");
            match OpenOptions::new().write(true).open(&path) {
                Ok(file) => Ok(OwnedFd::from(file)),
                Err(source) => Err(CgroupError::io("open", path, source)),
            }
        });
        hierarchies.chain(resctrl.into_iter().map(Ok)).collect()
    }

    /// As [`Cgroup::v2_dir_fd`], of the sub-cgroup in which `init`, the container's first process, is now: for an
    /// `exec` after clone3(2) gave EBUSY, as [`Cgroup::join`] has it.
    ///
    /// # Errors
    ///
    /// When `init` is gone or has left the container's cgroup.
    pub fn v2_dir_fd_of(&self, init: i32) -> Result<OwnedFd, CgroupError> {
        open_dir(&self.unified_path_of(init)?, OFlag::O_PATH).map(OwnedFd::from)
    }

    /// Absolute path of the v2 cgroup that `pid` is in, which must be the container's or one below it.
    fn unified_path_of(&self, pid: i32) -> Result<String, CgroupError> {
        let own = self.unified_path().unwrap_or_default();
        let text = file::read(&format!("/proc/{pid}"), "cgroup")?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        match below(own, path) {
            Some(below) => Ok(format!("{own}{below}")),
            None => Err(CgroupError::BadSubCgroup { path: path.to_owned() }),
        }
    }
}

/// What `path`, counted from the root of a cgroup namespace, has below the directory `own`. Where the two roots are is
/// not known; but the one path begins with what the other one ends with.
fn below<'a>(own: &str, path: &'a str) -> Option<&'a str> {
    let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
    let below =
        ends.map(|end| path.split_at(end)).find(|(begin, _)| !begin.is_empty() && own.ends_with(begin))?.1;
    (!below.split('/').any(|part| part == "..")).then_some(below)
}

fn sub_path(dir: &str, sub: &str) -> String {
    if sub.is_empty() { dir.to_owned() } else { file::join(dir, sub) }
}

/// Checks that a path stays below where it starts, and takes the empty parts out of it.
fn inside(sub: &str) -> Result<String, CgroupError> {
    let parts: Vec<&str> = sub.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || sub.contains('\0') {
        return Err(CgroupError::BadSubCgroup { path: sub.to_owned() });
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_below_the_containers_cgroup() {
        let own = "/sys/fs/cgroup/a/c1x/c1";
        assert_eq!(below(own, "/a/c1x/c1/init.scope"), Some("/init.scope"));
        assert_eq!(below(own, "/a/c1x/c1"), Some(""));
        assert_eq!(
            below(own, "/c1/init.scope"),
            Some("/init.scope"),
            "our cgroup namespace begins further down"
        );
        assert_eq!(below(own, "/elsewhere"), None);
        assert_eq!(below(own, "/a/c1x/c1/../x"), None);
        assert_eq!(below(own, ""), None);
    }

    #[test]
    fn sub_cgroups_stay_inside() {
        assert_eq!(inside("/a//./b/").unwrap(), "a/b");
        assert_eq!(inside("").unwrap(), "");
        assert_eq!(inside("a/../b").unwrap_err().to_string(), "bad sub cgroup path: a/../b");
    }
}
