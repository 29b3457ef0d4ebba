//! Sources of bind mounts, opened while init makes its namespaces.

use cofferdam_spec::lies_in;
use cofferdam_step::{Propagation, Step};
use cofferdam_sys::mount::{self, MountAttr};
use cofferdam_sys::{Cwd, Errno, Fd, fs, process};
use std::borrow::Cow;
use std::os::fd::OwnedFd;

/// The sources of the first mounts that are `ahead`, as detached trees with their propagation. Init opens what is missing behind them: what
/// fails here, for it has the words for that, and what may look different to it.
pub(super) fn open(steps: &[Step]) -> Vec<OwnedFd> {
    let root = steps.iter().find_map(|step| match step {
        Step::PrepareRoot { path, .. } | Step::EnterRoot { path, .. } => real(path),
        _ => None,
    });
    let Some(root) = root else { return Vec::new() };
    let mounts = steps.iter().filter_map(Step::opened_ahead);
    let mut in_one_call = true;
    let trees = mounts.take(most()).map_while(|(mount, path, recursive)| {
        let found = source(path, recursive, &root)?;
        tree(&found, recursive, &mount.propagation, &mut in_one_call)
    });
    trees.map(OwnedFd::from).collect()
}

/// How many: init has the same limit, and other files.
fn most() -> usize {
    /// `include/uapi/asm-generic/resource.h`.
    const RLIMIT_NOFILE: u32 = 7;
    const ENOUGH: u64 = 256;
    process::rlimit(RLIMIT_NOFILE).map_or(0, |(soft, _)| (soft / 4).min(ENOUGH) as usize)
}

/// Where the links of a path lead.
fn real(path: &str) -> Option<String> {
    std::fs::canonicalize(path).ok()?.into_os_string().into_string().ok()
}

/// What is bound, where it looks the same to init.
fn source(path: &str, recursive: bool, root: &str) -> Option<Fd> {
    let open = |path: &str| fs::openat2(&Cwd, path.as_bytes(), fs::O_PATH, 0, fs::resolve::NO_SYMLINKS);
    let (found, path) = match open(path) {
        Err(Errno::ELOOP) => {
            // Init is another process: links of procfs may lead it elsewhere.
            let real = real(path).filter(|real| !lies_in(real, "/proc"))?;
            (open(&real), Cow::Owned(real))
        }
        found => (found, Cow::Borrowed(path)),
    };
    // By then init will have mounted in the rootfs.
    if lies_in(&path, root) || recursive && lies_in(root, &path) {
        return None;
    }
    found.ok()
}

/// A copy of the mount that the source lies on, with its propagation: that is the same for all that is copied, whatever words there are for
/// it (`opens_ahead` in `pkg/plan/src/mounts/ahead.rs`).
fn tree(source: &Fd, recursive: bool, propagation: &[Propagation], in_one_call: &mut bool) -> Option<Fd> {
    let propagation = propagation.first()?.flag;
    if *in_one_call {
        match mount::open_tree_attr(source, recursive, &MountAttr { propagation, ..MountAttr::default() }) {
            Ok(tree) => return Some(tree),
            // Linux < 6.15, or a filter around us that does not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) => *in_one_call = false,
            Err(_) => return None,
        }
    }
    let tree = mount::open_tree_clone(source, b"", recursive).ok()?;
    mount::set_propagation(&tree, recursive, propagation).ok()?;
    Some(tree)
}
