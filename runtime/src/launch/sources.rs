//! Sources of bind mounts, opened while init makes its namespaces.

use cofferdam_spec::lies_in;
use cofferdam_step::{Mount, Propagation, Source, Step};
use cofferdam_sys::{Cwd, Errno, Fd, fs, mount, process};
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
    let mounts = steps.iter().filter_map(|step| match step {
        Step::Mount(mount @ Mount { source: Source::Bind { ahead: true, path, recursive }, .. }) => {
            Some((mount, path, *recursive))
        }
        _ => None,
    });
    let trees = mounts.take(most()).map_while(|(mount, path, recursive)| {
        tree(path, recursive, &root).and_then(|tree| set_propagation(tree, &mount.propagation))
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

fn tree(path: &str, recursive: bool, root: &str) -> Option<Fd> {
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
    mount::open_tree_clone(&found.ok()?, b"", recursive).ok()
}

fn set_propagation(tree: Fd, changes: &[Propagation]) -> Option<Fd> {
    for how in changes {
        mount::set_propagation(&tree, how.recursive, how.flag).ok()?;
    }
    Some(tree)
}
