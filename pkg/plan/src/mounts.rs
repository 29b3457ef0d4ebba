//! `/mounts`: option words become flags, attributes and propagation; entries become steps.
//!
//! The meaning of each word is mount(8)'s as runc has it. What differs from runc, which goes through mount(2):
//!
//! - `ratime` and `rnostrictatime` set the kernel's default, relatime (runc hands the kernel a mask that it refuses).
//! - Recursive words also hold for new filesystems (runc drops them there).
//! - In a user namespace a bind mount keeps `ro`, `nosuid`, `nodev` and `noexec` of its source unless config.json takes them away by
//!   name, which runc refuses: it has no mount there that is not locked. Elsewhere, as with runc, a bind mount with any option loses
//!   those that are not listed. `nosymfollow` is lost everywhere; times of access stay unless one is set.

mod ahead;
mod alone;
mod cgroup;
mod options;

pub(crate) use ahead::open_ahead;
pub(crate) use options::{Parsed, read_only};

use crate::annotations;
use crate::draft::Draft;
use crate::idmap::{self, Ids};
use crate::namespaces::Wanted;
use crate::paths::{absolute, below_root};
use crate::{Host, Options, SlotSource};
use cofferdam_cgroup::{Placement, Version};
use cofferdam_spec::{Refused, Spec};
use cofferdam_step::{Attributes, Create, FsOption, Links, Mount, Namespace, Propagation, Source, Step};
use options::{
    ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, MS_PRIVATE, MS_RDONLY, MS_SHARED, MS_SLAVE,
    MS_UNBINDABLE,
};
use std::borrow::Cow;

/// What every mount of one container must know.
pub(crate) struct Context<'a> {
    pub spec: &'a Spec,
    /// The rootfs on the host, absolute and clean.
    pub root: &'a str,
    pub host: &'a Host,
    pub options: &'a Options,
    pub wanted: &'a Wanted,
    pub ids: &'a Ids,
    pub placement: &'a Placement,
    /// Init is in the container's mounts already, where the host's paths mean nothing.
    pub from_outside: bool,
}

/// The first folder of a clean path.
fn top(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?;
    Some(&path[..path.bytes().position(|byte| byte == b'/').unwrap_or(path.len())])
}

/// A mount on which init goes on working: read-only only at the end.
fn is_late_read_only(fstype: &str, destination: &str) -> bool {
    fstype == "tmpfs" || destination == "/dev"
}

impl Context<'_> {
    /// The host side opens what init inside a user namespace may not reach, provided that the host side may.
    pub fn opens_trees(&self) -> bool {
        self.from_outside || self.ids.user_namespace && self.host.euid == 0
    }

    /// Mounts carry flags that this container may not take away.
    fn has_locked_flags(&self) -> bool {
        self.ids.user_namespace || self.host.user_namespace
    }

    fn destination<'e>(&self, entry: &'e cofferdam_spec::Mount) -> Cow<'e, str> {
        below_root(self.root, &entry.destination)
    }

    /// Whether a source lies in the container's own root: mounts that were made before belong to it, so that it is looked up
    /// when its turn comes.
    fn is_inside(&self, path: &str) -> bool {
        !self.from_outside && below_root(self.root, path) != path
    }

    /// `mountLabel`, where there is an SELinux to understand it.
    pub fn label(&self) -> Option<String> {
        let label = &self.spec.linux.mount_label;
        (!label.is_empty() && self.host.selinux).then(|| label.clone())
    }

    /// The propagation that the host's mounts have in the container's mount namespace.
    pub fn host_propagation(&self) -> Propagation {
        match options::propagation(&self.spec.linux.rootfs_propagation) {
            // The rootfs cannot be bound where everything is unbindable: that comes at the end.
            Some(Propagation { flag, recursive }) if matches!(flag, MS_SHARED | MS_SLAVE | MS_PRIVATE) => {
                Propagation { flag, recursive }
            }
            _ => Propagation { flag: MS_SLAVE, recursive: true },
        }
    }

    /// The head of the mounts: propagation and rootfs.
    pub fn prepare_root(&self, draft: &mut Draft, path: &str) {
        let propagation = self.host_propagation();
        let shares_mounts = !self.wanted.has(Namespace::Mount);
        if !shares_mounts {
            draft.step(Step::SetHostPropagation(propagation));
        }
        let slot = self.opens_trees().then(|| draft.slot(self.tree(path, true)));
        // Without recursion the mounts below "/" stay as shared as the host has them.
        let keep_propagation = !shares_mounts && (propagation.flag == MS_SHARED || !propagation.recursive);
        draft.step(Step::PrepareRoot { path: path.to_owned(), slot, keep_propagation });
    }

    /// The entries in order, but for those of cgroups where these [wait](Context::cgroups_can_wait) for [`Context::mount_rest`].
    pub fn mount_most(&self, draft: &mut Draft, wait: bool) -> Result<(), Refused> {
        let mut entries = self.spec.mounts.iter().enumerate();
        entries.try_for_each(|(at, entry)| match wait && entry.fstype == "cgroup" {
            true => Ok(()),
            false => self.mount(draft, entry, at),
        })
    }

    /// Mounts of cgroups, if they have waited.
    pub fn mount_rest(&self, draft: &mut Draft, waited: bool) -> Result<(), Refused> {
        if !waited {
            return Ok(());
        }
        let entries = self.spec.mounts.iter().enumerate();
        entries
            .filter(|(_, entry)| entry.fstype == "cgroup")
            .try_for_each(|(at, entry)| self.mount(draft, entry, at))
    }

    /// Whether mounts of cgroups can be the last ones: the host makes v1's directories while init mounts the others. Nothing may be
    /// mounted below them, or hide them.
    pub fn cgroups_can_wait(&self) -> bool {
        if self.host.cgroup.version() == Version::V2 || self.ids.user_namespace {
            return false;
        }
        let mut later = self.spec.mounts.iter().skip_while(|entry| entry.fstype != "cgroup");
        let Some(first) = later.next() else { return false };
        let first = self.destination(first);
        later.all(|entry| entry.fstype == "cgroup" || top(&self.destination(entry)) != top(&first))
    }

    /// Behind the pivot: what was left writable and shall not be.
    pub fn remount_read_only(&self, draft: &mut Draft) {
        for entry in self.spec.mounts.iter().filter(|entry| !is_bind(entry) && read_only(&entry.options)) {
            let path = self.destination(entry);
            if is_late_read_only(&entry.fstype, &path) {
                draft.step(Step::RemountReadonly { path: path.into_owned() });
            }
        }
    }

    fn mount(&self, draft: &mut Draft, entry: &cofferdam_spec::Mount, at: usize) -> Result<(), Refused> {
        let destination = self.destination(entry).into_owned();
        let parsed = Parsed::of(&entry.options);
        draft.shared_mounts |= parsed.propagation.iter().any(|how| how.flag == MS_SHARED);
        if parsed.remount {
            draft.step(Step::Mount(self.remount(destination, parsed)));
        } else if parsed.bind || entry.fstype == "bind" {
            let mount = self.bind(draft, entry, at, destination, parsed)?;
            draft.step(Step::Mount(mount));
        } else if entry.fstype == "cgroup" {
            self.mount_cgroup(draft, entry, destination, parsed);
        } else {
            self.check_owner(&parsed, at)?;
            let mount = self.new_filesystem(draft, entry, destination, parsed);
            if mount.copy_up {
                draft.need_cgroup();
            }
            draft.step(Step::Mount(mount));
            if entry.fstype == "mqueue" {
                self.label_mqueue(draft, entry);
            }
        }
        Ok(())
    }

    /// `uid=` and `gid=` of a new filesystem are ids of the container: where they are not mapped, the kernel says EINVAL.
    fn check_owner(&self, parsed: &Parsed, at: usize) -> Result<(), Refused> {
        for option in &parsed.data {
            let Some(id) = option.value.as_ref().and_then(|value| value.parse().ok()) else { continue };
            let mapped = match option.key.as_str() {
                "uid" => self.ids.maps_uid(id),
                "gid" => self.ids.maps_gid(id),
                _ => true,
            };
            if !mapped {
                let message =
                    format!("{}={id} is not mapped into the container's user namespace", option.key);
                return Err(Refused::new(format!("/mounts/{at}/options"), "config.md#mounts", message));
            }
        }
        Ok(())
    }

    /// mqueue takes no `context=`; its root can be labelled once it is mounted.
    fn label_mqueue(&self, draft: &mut Draft, entry: &cofferdam_spec::Mount) {
        if let Some(label) = self.label() {
            draft.step(Step::SetFileLabel { path: self.destination(entry).into_owned(), label });
        }
    }

    fn remount(&self, destination: String, parsed: Parsed) -> Mount {
        let attributes = parsed.bind_attributes(self.has_locked_flags());
        Mount {
            source: Source::Remount {
                flags: parsed.superblock_flags(),
                bind: parsed.bind,
                options: parsed.data,
            },
            attributes,
            recursive: parsed.recursive,
            propagation: parsed.propagation,
            ..blank(destination, Create::Directory)
        }
    }

    fn bind(
        &self,
        draft: &mut Draft,
        entry: &cofferdam_spec::Mount,
        at: usize,
        destination: String,
        parsed: Parsed,
    ) -> Result<Mount, Refused> {
        let path = absolute(&self.options.bundle, &entry.source);
        let mut mount = Mount {
            attributes: parsed.bind_attributes(self.has_locked_flags()),
            recursive: parsed.recursive,
            propagation: parsed.propagation,
            links: if parsed.over_link { Links::Covered } else { Links::Followed },
            ..blank(destination, if parsed.copy_link { Create::SameLink } else { Create::AsSource })
        };
        let recursive = parsed.rbind;
        let itself = parsed.source_itself || parsed.copy_link;
        let mapped =
            parsed.idmap.is_some() || !entry.uid_mappings.is_empty() || !entry.gid_mappings.is_empty();
        let idmap = match &parsed.idmap_text {
            Some((option, text)) => {
                let pointer = format!("/mounts/{at}/options/{option}");
                Some(idmap::of_option(text, &pointer, entry, self.ids)?)
            }
            None if mapped => Some(idmap::of_mount(entry, at, self.ids)?),
            None => None,
        };
        let idmap_recursive = parsed.idmap == Some(true);
        if self.opens_trees() && (!self.is_inside(&path) || idmap.is_some()) {
            let mut tree = self.tree(&path, recursive);
            if let SlotSource::Tree { of_link, idmap: of_tree, idmap_recursive: whole, .. } = &mut tree {
                (*of_link, *of_tree, *whole) = (itself, idmap, idmap_recursive);
            }
            let slot = draft.slot(tree);
            if self.is_inside(&path) && self.wanted.new.contains(Namespace::Mount) {
                // It may be a mount that the container itself has made, of which the host knows only now.
                draft.open_tree(slot);
            }
            mount.source = Source::Tree { slot, path, recursive };
        } else {
            let ahead = !itself && !mapped && self.opens_ahead(draft, &mount, &path, recursive);
            mount.source = match itself {
                true => Source::Link { path, recursive },
                false => Source::Bind { path, recursive, ahead },
            };
            mount.idmap = idmap.map(|map| draft.slot(SlotSource::UserNamespace(map)));
            mount.idmap_recursive = idmap_recursive && mount.idmap.is_some();
        }
        Ok(mount)
    }

    fn new_filesystem(
        &self,
        draft: &mut Draft,
        entry: &cofferdam_spec::Mount,
        destination: String,
        parsed: Parsed,
    ) -> Mount {
        let late = is_late_read_only(&entry.fstype, &destination);
        let (mut flags, mut attributes) = (parsed.superblock_flags(), parsed.new_attributes());
        if late {
            flags &= !(MS_RDONLY as u32);
            attributes.set &= !ATTR_RDONLY;
        }
        let kernel_view = matches!(entry.fstype.as_str(), "proc" | "sysfs");
        let or_else = self.sysfs_of_the_host(draft, entry, &destination, attributes);
        let inherit_mode = entry.fstype == "tmpfs" && !parsed.data.iter().any(|option| option.key == "mode");
        let mut options = parsed.data;
        if let Some(label) = self.label().filter(|_| !kernel_view && entry.fstype != "mqueue") {
            let key = annotations::context_type(self.spec).to_owned();
            options.push(FsOption { key, value: Some(label) });
        }
        Mount {
            source: Source::New {
                fstype: entry.fstype.clone(),
                source: entry.source.clone(),
                options,
                flags,
                inherit_mode,
            },
            attributes,
            recursive: parsed.recursive,
            propagation: parsed.propagation,
            copy_up: parsed.copy_up,
            links: if kernel_view { Links::Refused } else { Links::Followed },
            pid_namespace: self.wanted.of_procfs(draft, entry),
            or_else,
            ..blank(destination, Create::Directory)
        }
    }

    /// Linux lets a user namespace mount sysfs only with a network namespace of its own (sysfs shows that one's devices): the
    /// host's /sys is bound instead, with all that is mounted in it, as the kernel demands of a less privileged copy.
    fn sysfs_of_the_host(
        &self,
        draft: &mut Draft,
        entry: &cofferdam_spec::Mount,
        destination: &str,
        attributes: Attributes,
    ) -> Option<Box<Mount>> {
        let shares_network = self.has_locked_flags() && !self.wanted.new.contains(Namespace::Network);
        if entry.fstype != "sysfs" || !shares_network {
            return None;
        }
        Some(Box::new(Mount {
            source: self.host_path(draft, "/sys", true),
            // With what the host has mounted below: its cgroups must not be writable where its /sys is not (CVE-2023-25809).
            recursive: attributes,
            propagation: vec![Propagation { flag: MS_SLAVE, recursive: true }],
            links: Links::Refused,
            ..blank(destination.to_owned(), Create::Directory)
        }))
    }

    /// A path of the host as a source, opened on the side that can.
    fn host_path(&self, draft: &mut Draft, path: &str, recursive: bool) -> Source {
        if self.opens_trees() {
            let slot = draft.slot(self.tree(path, recursive));
            Source::Tree { slot, path: path.to_owned(), recursive }
        } else {
            Source::Bind { path: path.to_owned(), recursive, ahead: false }
        }
    }

    /// A tree with the propagation that a bind mount would have got inside.
    pub fn tree(&self, path: &str, recursive: bool) -> SlotSource {
        SlotSource::Tree {
            path: path.to_owned(),
            recursive,
            of_link: false,
            propagation: Some(self.host_propagation()),
            idmap: None,
            idmap_recursive: false,
            locked: self.ids.user_namespace && !self.wanted.new.contains(Namespace::Mount),
        }
    }

    /// For a device of the host: its tree, where the host side opens it.
    pub fn device_slot(&self, draft: &mut Draft, path: &str) -> Option<cofferdam_step::Slot> {
        self.opens_trees().then(|| draft.slot(self.tree(path, false)))
    }
}

/// The container's root mount's propagation where it can only be set at the end: the pivot needs a private one, and what is
/// unbindable could not be bound.
pub(crate) fn late_root_propagation(word: &str) -> Option<Propagation> {
    options::propagation(word).filter(|how| matches!(how.flag, MS_SHARED | MS_UNBINDABLE))
}

/// Whether mounts made from now on have peers.
pub(crate) fn is_shared(how: Option<Propagation>) -> bool {
    how.is_some_and(|how| how.flag == MS_SHARED)
}

/// Whether an entry binds something that exists.
pub(crate) fn is_bind(entry: &cofferdam_spec::Mount) -> bool {
    entry.fstype == "bind" || entry.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"))
}

/// A mount with nothing but its destination.
fn blank(destination: String, create: Create) -> Mount {
    Mount {
        destination,
        source: Source::Bind { path: String::new(), recursive: false, ahead: false },
        create,
        attributes: Attributes::default(),
        recursive: Attributes::default(),
        propagation: Vec::new(),
        idmap: None,
        idmap_recursive: false,
        pid_namespace: None,
        copy_up: false,
        links: Links::Followed,
        or_else: None,
    }
}

/// `nosuid,nodev,noexec`
const HARDENED: u64 = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;
