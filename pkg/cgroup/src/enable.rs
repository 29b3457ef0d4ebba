//! cgroup v2: a controller reaches a cgroup only if every cgroup above it hands it down (`cgroup.subtree_control`).
//!
//! All controllers are enabled on the way to the container, as runc has it: for the limits that come later, and for
//! the statistics.

use crate::error::CgroupError;
use crate::file;
use crate::place::Dir;
use crate::translate::Settings;

/// Controllers that a threaded cgroup cannot have; only limits of these are worth an error there.
const DOMAIN: [&str; 3] = ["memory", "io", "hugetlb"];

/// Enables the controllers of the root in all cgroups above `dir`, which exists.
pub(crate) fn controllers(dir: &Dir, settings: &Settings) -> Result<(), CgroupError> {
    let all = file::read(dir.mount_point.trim_end_matches('/'), "cgroup.controllers")?;
    // The usual case: somebody has done all this for the parent before. A cgroup in a threaded tree never has all
    // controllers, so this proves the type as well.
    if file::read(&dir.path, "cgroup.controllers")? == all {
        return Ok(());
    }
    let wanted: Vec<String> = all.split_whitespace().map(|controller| format!("+{controller}")).collect();
    let start = dir.mount_point.trim_end_matches('/').len();
    hand_down(&dir.path[..start], &wanted);
    for (end, _) in dir.path[start + 1..].match_indices('/') {
        let path = &dir.path[..start + 1 + end];
        check_type(path, settings)?;
        hand_down(path, &wanted);
    }
    check_type(&dir.path, settings)
}

// In a container, or without privilege, not every controller can be had; the limit that needs it will say so.
fn hand_down(path: &str, wanted: &[String]) {
    let Ok(mut control) = file::Target::open(path, "cgroup.subtree_control") else { return };
    if control.write(&wanted.join(" ")).is_err() {
        for controller in wanted {
            if let Err(error) = control.write(controller) {
                tracing::debug!(%error, "controller not available");
            }
        }
    }
}

fn check_type(path: &str, settings: &Settings) -> Result<(), CgroupError> {
    let state = match file::read(path, "cgroup.type") {
        Ok(state) => state,
        Err(error) if error.is_gone() => return Ok(()),
        Err(error) => return Err(error),
    };
    let state = state.trim();
    if state == "domain" {
        return Ok(());
    }
    // cpu belongs to the threaded controllers, but runc counts it among these.
    let domain = |write: &crate::Write| DOMAIN.contains(&&*write.controller) || write.controller == "cpu";
    if settings.writes.iter().any(domain) {
        return Err(CgroupError::Threaded { path: path.to_owned(), state: state.to_owned() });
    }
    if state == "domain invalid" {
        // Somebody's process lives in a cgroup above. A threaded cgroup is less than what is right, and all that can
        // be had.
        file::write(path, "cgroup.type", "threaded")?;
    }
    Ok(())
}
