//! The root file system that containerd describes in Create: mounted in order, undone as a whole.

use crate::runtime::binary::execute;
use cofferdam_proto::task;
use cofferdam_sys::{Errno, mount, root::Root, shim};
use std::{
    ffi::OsString,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// Mounts that are undone when this is dropped, unless they are kept.
pub struct Mounted {
    root: Option<PathBuf>,
}

impl Mounted {
    /// Leaves the mounts to somebody else from now on.
    pub fn keep(mut self) {
        self.root = None;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(root) = &self.root
            && let Err(error) = unmount(root)
        {
            crate::warn!("failed to clean up the root file system {}: {error}", root.display());
        }
    }
}

/// Mounts `mounts` on `root`, one over or inside the other.
///
/// # Errors
/// A sentence with the mount that failed; those before it are undone.
pub fn mount(mounts: &[task::Mount], root: &Path) -> Result<Mounted, String> {
    let mounted = Mounted { root: (!mounts.is_empty()).then(|| root.to_path_buf()) };
    for mount in mounts {
        mount_one(mount, root).map_err(|error| {
            format!(
                "failed to mount rootfs component: mount {} of type {}: {error}",
                mount.source, mount.type_
            )
        })?;
    }
    Ok(mounted)
}

fn mount_one(mount: &task::Mount, root: &Path) -> std::io::Result<()> {
    let rootfs = shim::Rootfs {
        fstype: mount.type_.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
    };
    // What lies below the root is an image's content already: a link in it must not lead out of it.
    let held;
    let mut target = root.to_path_buf();
    if !mount.target.is_empty() {
        let dir = std::fs::OpenOptions::new().read(true).open(root)?;
        held = Root::new(std::os::fd::OwnedFd::from(dir).into()).resolve(mount.target.as_bytes())?;
        target = format!("/proc/self/fd/{}", held.as_raw_fd()).into();
    }
    match mount.type_.split_once('.') {
        Some((helper @ ("fuse" | "fuse3"), fstype)) => run_helper(helper, fstype, &rootfs, &target),
        _ => Ok(shim::mount_rootfs(&rootfs, target.as_os_str().as_bytes())?),
    }
}

/// FUSE file systems are mounted by the program that serves them.
fn run_helper(helper: &str, fstype: &str, rootfs: &shim::Rootfs, target: &Path) -> std::io::Result<()> {
    let helper = format!("mount.{helper}");
    let mut args: Vec<OsString> = vec![helper.clone().into(), rootfs.source.clone().into(), target.into()];
    for option in &rootfs.options {
        args.extend(["-o".into(), option.into()]);
    }
    args.extend(["-t".into(), fstype.into()]);
    match execute(&helper, &args, None, None)? {
        (0, _) => Ok(()),
        (status, output) => {
            let output = String::from_utf8_lossy(&output);
            Err(std::io::Error::other(format!("{helper} failed with {status}: {}", output.trim())))
        }
    }
}

/// Undoes all mounts on and below `root`. The mount table is read only where something is mounted below it; what is
/// busy is detached.
pub fn unmount(root: &Path) -> std::io::Result<()> {
    const MNT_DETACH: i32 = libc::MNT_DETACH;
    const UMOUNT_NOFOLLOW: i32 = libc::UMOUNT_NOFOLLOW;
    let umount = |path: &Path, flags| mount::umount(path.as_os_str().as_bytes(), flags | UMOUNT_NOFOLLOW);
    // A root file system has a handful of layers at most.
    for _ in 0..64 {
        match umount(root, 0) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => {
                for below in mounts_below(root)? {
                    let _ = umount(&below, 0);
                }
                match umount(root, 0) {
                    Ok(()) | Err(Errno::EINVAL) => {}
                    Err(_) => umount(root, MNT_DETACH)?,
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EBUSY.into())
}

/// Mount points below `root`, the deepest and latest first.
fn mounts_below(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|point| PathBuf::from(<std::ffi::OsStr as OsStrExt>::from_bytes(&unescape(point))))
        .filter(|point| point != root && point.starts_with(root))
        .collect();
    points.reverse();
    Ok(points)
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        if *byte == b'\\'
            && let Some(digits) = tail.get(..3)
            && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        {
            plain.push(digits.iter().fold(0u8, |value, digit| (value << 3) | (digit - b'0')));
            rest = &tail[3..];
            continue;
        }
        plain.push(*byte);
        rest = tail;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_escapes_of_the_mount_table_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c\x"), br"/a b\c\x");
    }
}
