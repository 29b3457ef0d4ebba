//! An entry of type `cgroup`: the container's view of its cgroups.
//!
//! On v1 it is a tmpfs with a directory for each hierarchy, and a link for each controller of a hierarchy that holds several.
//! With a cgroup namespace each directory is a cgroup filesystem (whose root is then the container's cgroup); without one it
//! is a bind mount of the container's own cgroup. On v2 it is cgroup2 itself, or a bind mount where that may not be mounted.

use super::{Context, HARDENED, Parsed, blank};
use crate::draft::Draft;
use cofferdam_cgroup::{Hierarchy, Version};
use cofferdam_step::{Attributes, Create, FsOption, Mount, Namespace, Propagation, Source, Step};

use super::options::{ATTR_RDONLY, MS_RDONLY};

impl Context<'_> {
    pub(super) fn mount_cgroup(
        &self,
        draft: &mut Draft,
        entry: &cofferdam_spec::Mount,
        destination: String,
        parsed: Parsed,
    ) {
        if self.wanted.new.contains(Namespace::Cgroup) {
            self.enter_cgroup_namespace(draft);
        }
        if self.host.cgroup.version() == Version::V2 {
            let mount = self.cgroup2(draft, entry, destination, parsed);
            draft.step(Step::Mount(mount));
        } else {
            // Its directories are what is mounted.
            draft.need_cgroup();
            self.mount_cgroup1(draft, destination, parsed);
        }
    }

    /// The namespace roots at the cgroup that the caller is in, so that init must be in the container's by then.
    pub fn enter_cgroup_namespace(&self, draft: &mut Draft) {
        let step = Step::Unshare { namespaces: [Namespace::Cgroup].into_iter().collect() };
        if !draft.init.contains(&step) {
            draft.need_cgroup();
            draft.step(step);
        }
    }

    fn cgroup2(
        &self,
        draft: &mut Draft,
        entry: &cofferdam_spec::Mount,
        destination: String,
        parsed: Parsed,
    ) -> Mount {
        let own = self.wanted.has(Namespace::Cgroup);
        let dirs = &self.placement.dirs;
        let path = match (dirs.last(), self.host.cgroup.unified()) {
            (Some(dir), _) if own => dir.path.clone(),
            (None, Some(unified)) if own => unified.own_dir(),
            (_, Some(unified)) => unified.mount_point.clone(),
            _ => "/sys/fs/cgroup".to_owned(),
        };
        // Linux refuses a new cgroup2 mount to a user namespace that does not own the cgroup namespace (EPERM, EBUSY).
        let or_else = self.has_locked_flags().then(|| {
            let rootless = self.options.rootless;
            Box::new(Mount {
                // By its path, and not opened before, where it is the container's own: what systemd makes is there only when init
                // is in it.
                source: if rootless || own {
                    bind(&path, false)
                } else {
                    self.host_path(draft, &path, false)
                },
                attributes: parsed.bind_attributes(true),
                propagation: parsed.propagation.clone(),
                or_else: rootless.then(|| Box::new(nothing(destination.clone()))),
                ..blank(destination.clone(), Create::Directory)
            })
        });
        Mount {
            source: Source::New {
                fstype: "cgroup2".to_owned(),
                source: entry.source.clone(),
                flags: parsed.superblock_flags(),
                inherit_mode: false,
                options: Vec::new(),
            },
            attributes: parsed.new_attributes(),
            recursive: parsed.recursive,
            propagation: parsed.propagation,
            or_else,
            ..blank(destination, Create::Directory)
        }
    }

    fn mount_cgroup1(&self, draft: &mut Draft, destination: String, parsed: Parsed) {
        let read_only = parsed.superblock_flags() & MS_RDONLY as u32 != 0;
        draft.step(Step::Mount(self.cgroup1_root(&destination, parsed.propagation.clone())));
        // The kernel lists hierarchies from the newest to the oldest; runc mounts them as they were mounted.
        for hierarchy in self.host.cgroup.hierarchies().iter().rev() {
            let name = base_name(&hierarchy.mount_point);
            let path = format!("{destination}/{name}");
            let mount = if self.wanted.has(Namespace::Cgroup) {
                cgroup1_filesystem(path, &hierarchy.controllers, read_only)
            } else {
                self.cgroup1_bind(draft, path, hierarchy, &parsed)
            };
            draft.step(Step::Mount(mount));
            if hierarchy.controllers.len() > 1 {
                for controller in hierarchy.controllers.iter().filter(|controller| *controller != name) {
                    let path = format!("{destination}/{controller}");
                    draft.step(Step::MakeSymlink { path, target: name.to_owned(), replace: false });
                }
            }
        }
        if read_only {
            draft.step(Step::RemountReadonly { path: destination });
        }
    }

    fn cgroup1_root(&self, destination: &str, propagation: Vec<Propagation>) -> Mount {
        let mut options = vec![FsOption { key: "mode".to_owned(), value: Some("755".to_owned()) }];
        if let Some(label) = self.label() {
            options.push(FsOption { key: "context".to_owned(), value: Some(label) });
        }
        Mount {
            source: Source::New {
                fstype: "tmpfs".to_owned(),
                source: "tmpfs".to_owned(),
                options,
                flags: 0,
                inherit_mode: false,
            },
            attributes: Attributes { set: HARDENED, clear: 0 },
            propagation,
            ..blank(destination.to_owned(), Create::Directory)
        }
    }

    fn cgroup1_bind(&self, draft: &mut Draft, path: String, hierarchy: &Hierarchy, parsed: &Parsed) -> Mount {
        let dir = self.placement.dirs.iter().find(|dir| dir.controllers == hierarchy.controllers);
        let own = hierarchy.own_dir();
        // Without a driver there is none of the container's.
        let source = dir.map_or(own.as_str(), |dir| dir.path.as_str());
        let mount = Mount {
            attributes: parsed.bind_attributes(self.has_locked_flags()),
            propagation: parsed.propagation.clone(),
            ..blank(path, Create::Directory)
        };
        if !self.options.rootless {
            return Mount { source: self.host_path(draft, source, true), ..mount };
        }
        // Where a rootless caller may not make a cgroup, the container stays in the caller's own.
        let own = Mount { source: bind(&own, true), ..mount.clone() };
        Mount { source: bind(source, true), or_else: Some(Box::new(own)), ..mount }
    }
}

/// A bind mount that init makes by itself: only then does it show whether the source is there.
fn bind(path: &str, recursive: bool) -> Source {
    Source::Bind { path: path.to_owned(), recursive, ahead: false }
}

/// An empty, read-only directory: what a rootless container without a cgroup has for one, so that the host's, which come with a
/// bound /sys, cannot be written (CVE-2023-25809).
fn nothing(destination: String) -> Mount {
    let options =
        ["nr_blocks", "nr_inodes"].map(|key| FsOption { key: key.to_owned(), value: Some("1".to_owned()) });
    Mount {
        source: Source::New {
            fstype: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            options: options.to_vec(),
            flags: MS_RDONLY as u32,
            inherit_mode: false,
        },
        attributes: Attributes { set: HARDENED | ATTR_RDONLY, clear: 0 },
        ..blank(destination, Create::Directory)
    }
}

fn cgroup1_filesystem(path: String, controllers: &[String], read_only: bool) -> Mount {
    let named = controllers.iter().find_map(|controller| controller.strip_prefix("name="));
    let options = match named {
        Some(name) => vec![FsOption { key: "name".to_owned(), value: Some(name.to_owned()) }],
        None => controllers.iter().map(|key| FsOption { key: key.clone(), value: None }).collect(),
    };
    let attributes = Attributes { set: HARDENED | if read_only { ATTR_RDONLY } else { 0 }, clear: 0 };
    Mount {
        source: Source::New {
            fstype: "cgroup".to_owned(),
            source: named.unwrap_or("cgroup").to_owned(),
            options,
            flags: if read_only { MS_RDONLY as u32 } else { 0 },
            inherit_mode: false,
        },
        attributes,
        ..blank(path, Create::Directory)
    }
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}
