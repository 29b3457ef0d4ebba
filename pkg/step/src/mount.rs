//! One entry of `/mounts`, resolved: what is mounted, with which attributes, onto what.

use crate::{Slot, Step};
use alloc::{boxed::Box, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// One mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Path in the container; resolved below the rootfs handle.
    pub destination: String,
    /// What is mounted.
    pub source: Source,
    /// What becomes of a destination that is not there.
    pub create: Create,
    /// Per-mount attributes (`MOUNT_ATTR_*`), without recursion.
    pub attributes: Attributes,
    /// Attributes of the whole tree (`rro`, `rnosuid`, …).
    pub recursive: Attributes,
    /// Propagation changes, in the order of config.json.
    pub propagation: Vec<Propagation>,
    /// A user namespace's file: the mount is idmapped by it.
    pub idmap: Option<Slot>,
    /// Whether the idmap goes for the whole tree (`ridmap`).
    pub idmap_recursive: bool,
    /// A pid namespace's file: a new procfs shows that namespace, and not init's own (Linux 6.18).
    pub pid_namespace: Option<Slot>,
    /// `tmpcopyup`: the new tmpfs starts with the content of what it covers.
    pub copy_up: bool,
    /// What a symbolic link at the end of the destination means.
    pub links: Links,
    /// Tried instead when the mount fails with EPERM (sysfs in a user namespace without its own network).
    pub or_else: Option<Box<Mount>>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// A new instance of a filesystem.
    New {
        /// Filesystem type.
        fstype: String,
        /// The `source` option; empty for none.
        source: String,
        /// Filesystem options.
        options: Vec<FsOption>,
        /// Superblock flags (`MS_RDONLY`, `MS_SYNCHRONOUS`, `MS_DIRSYNC`, `MS_MANDLOCK`, `MS_LAZYTIME`, `MS_I_VERSION`, `MS_SILENT`).
        flags: u32,
        /// tmpfs without `mode=`: takes the mode of the directory that it covers.
        inherit_mode: bool,
    },
    /// A bind mount of a path that init can reach (no user namespace).
    Bind {
        /// Absolute host path.
        path: String,
        /// `rbind`
        recursive: bool,
        /// The host side may have opened it meanwhile, and made it private ([`crate::Barrier::SourcesOpened`]).
        ahead: bool,
    },
    /// The same of what the path is, not of what it leads to when it is a symbolic link (`src-nofollow`, `copy-symlink`).
    Link {
        /// Absolute host path.
        path: String,
        /// `rbind`
        recursive: bool,
    },
    /// A bind mount of a tree that the host side opened (`open_tree`, detached).
    Tree {
        /// The tree.
        slot: Slot,
        /// For messages.
        path: String,
        /// `rbind`
        recursive: bool,
    },
    /// Only attributes and propagation of what is mounted there change (`remount`).
    Remount {
        /// Superblock flags.
        flags: u32,
        /// Whether it is the mount alone that changes (`bind,remount`).
        bind: bool,
        /// Filesystem options.
        options: Vec<FsOption>,
    },
}

/// `key` or `key=value` of a filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsOption {
    /// Name.
    pub key: String,
    /// Value; none for a flag.
    pub value: Option<String>,
}

/// What becomes of a destination that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Create {
    /// A directory, with its parents.
    Directory,
    /// A directory or an empty file, as the source is one.
    AsSource,
    /// `copy-symlink`: the same; but a source that is a symbolic link is made again, with the same text, and nothing is mounted.
    SameLink,
}

/// What a symbolic link at the end of a destination means. Those on the way are followed, inside the rootfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Links {
    /// It is followed, inside the rootfs.
    #[default]
    Followed,
    /// It is an error: the destination must be a real directory (`/proc` and `/sys`, CVE-2019-19921).
    Refused,
    /// It is covered: the mount lies on the link itself (`dest-nofollow`).
    Covered,
}

/// `MOUNT_ATTR_*` bits to set and to clear (`include/uapi/linux/mount.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear; an explicit atime option puts the whole `MOUNT_ATTR__ATIME` field here.
    pub clear: u64,
}

impl Attributes {
    /// Whether nothing changes.
    pub const fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

/// A change of propagation (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub flag: u64,
    /// The whole tree (`rshared`, …).
    pub recursive: bool,
}

impl Step {
    /// The bind mount whose source the host side opens, its path on the host, and whether all that is mounted in it comes along.
    pub fn opened_ahead(&self) -> Option<(&Mount, &str, bool)> {
        match self {
            Step::Mount(mount @ Mount { source: Source::Bind { path, recursive, ahead: true }, .. }) => {
                Some((mount, path, *recursive))
            }
            _ => None,
        }
    }
}
