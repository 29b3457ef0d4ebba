//! Exploits in small: what got out of a container once must not again. What is attacked are copies and directories of the test's
//! own; that nothing of the host has changed is what each test ends with.

mod exec;
mod files;
mod leaks;
mod links;
mod null;
mod races;
mod self_exe;

use crate::harness::{Bundle, T, Test, procs};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// All of them.
pub const TESTS: &[&[Test]] =
    &[exec::TESTS, files::TESTS, leaks::TESTS, links::TESTS, null::TESTS, races::TESTS, self_exe::TESTS];

/// A directory of the host's that no container has any business with, and what it was like.
pub struct Outside {
    /// Where it is.
    pub dir: PathBuf,
    before: Vec<String>,
    mounts: Vec<procs::MountLine>,
}

impl Outside {
    /// Makes one, with a few files.
    pub fn new(t: &T) -> Outside {
        let dir = t.make_dir("outside");
        for name in ["dev", "pts", "proc", "sys", "etc"] {
            fs::create_dir_all(dir.join(name)).expect("mkdir");
        }
        for name in ["null", "console", "ptmx", "secret", "etc/passwd", "target"] {
            fs::write(dir.join(name), "secret\n").expect("write");
        }
        let before = listing(&dir);
        Outside { dir, before, mounts: procs::mounts("/proc/self/mountinfo") }
    }

    /// Its path as text.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// From a directory of the rootfs that lies `depth` below it, relative.
    pub fn relative(&self, bundle: &Bundle, depth: usize, name: &str) -> String {
        let up = bundle.root().components().count() - 1 + depth;
        format!("{}{}", "../".repeat(up), self.path(name).trim_start_matches('/'))
    }

    /// Asserts that nothing has changed: no file, no content, no owner, no mode, no mount.
    #[track_caller]
    pub fn is_untouched(&self, after: &str) {
        assert_eq!(listing(&self.dir), self.before, "{after}: {} has changed", self.dir.display());
        assert_eq!(
            procs::mounts("/proc/self/mountinfo"),
            self.mounts,
            "{after}: the host's mounts have changed"
        );
    }
}

/// Everything below a directory, one line each.
fn listing(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(dir).expect("readdir").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let metadata = path.symlink_metadata().expect("stat");
        let content =
            if metadata.is_file() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        lines.push(format!("{} {mode:o} {uid}:{gid} {} {content:?}", path.display(), metadata.rdev()));
        if metadata.is_dir() {
            lines.extend(listing(&path));
        }
    }
    lines
}
