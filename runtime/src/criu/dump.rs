//! `checkpoint`: CRIU saves a running container.

use super::session::{Failure, Session};
use super::{CheckpointOptions, DESCRIPTORS, Folders, external, log, options, rpc};
use crate::container::Container;
use crate::error::{Error, Verb};
use crate::state::Status;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

const LOG: &str = "dump.log";

/// Saves a container. Unless it is left running, its processes are ended when this returns.
pub(crate) fn checkpoint(container: &Container, mut said: CheckpointOptions) -> Result<(), Error> {
    // A delete or a second checkpoint shall not come between; exec and signals may.
    let _home = container.home().reopen()?.lock()?;
    let status = container.status()?;
    let pid = match (status, container.pid()) {
        (Status::Running | Status::Paused, Some(pid)) => pid,
        _ => return Err(container.wrong_state(Verb::Checkpoint, status)),
    };
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Error::io("open", "/dev/null", error))?;
    let stdio = [null.as_raw_fd(); 3];
    let folders = Folders::open(&said.images, true, LOG)?;
    // By way of the images' folder, which is there only now.
    check_parent(&said)?;
    check_features(container, &said, stdio, &folders)?;
    let request = rpc::Request {
        type_: Some(if said.pre_dump { rpc::Kind::PRE_DUMP } else { rpc::Kind::DUMP }.into()),
        opts: Some(dump_options(container, pid, &said, &folders)?).into(),
        ..rpc::Request::default()
    };
    if !said.pre_dump {
        write_descriptors(container, &said.images.image_path)?;
    }
    let session = Session::start(stdio, &[])?;
    let mut status_fd = said.status_fd.take();
    let answer = session.ask(&request, &mut |notice| {
        if notice.script == "status-ready"
            && let Some(fd) = status_fd.take()
            && let Err(errno) = nix::unistd::write(&fd, &[0])
        {
            tracing::warn!("cannot write to --status-fd: {errno}");
        }
        Ok(())
    });
    // After a pre-dump CRIU waits for the next one, and ends by the loss of its socket with an error.
    let ended = answer.and_then(|_| if said.pre_dump { end_anyway(session) } else { session.end() });
    ended.map_err(|failure| explain(container, failure, &folders.log))
}

fn end_anyway(session: Session) -> Result<(), Failure> {
    match session.end() {
        Err(Failure::Ours(error)) => Err(Failure::Ours(error)),
        _ => Ok(()),
    }
}

fn explain(container: &Container, failure: Failure, log: &Path) -> Error {
    match failure {
        Failure::Ours(error) => error,
        Failure::Criu(what, message) => log::failed("checkpoint", container.id(), what, &message, log),
    }
}

/// Earlier images are found by a link that CRIU makes in the new folder, which may be moved with them.
fn check_parent(said: &CheckpointOptions) -> Result<(), Error> {
    let Some(parent) = &said.parent_path else { return Ok(()) };
    if parent.components().any(|part| part == Component::RootDir) {
        return Err(Error::usage("--parent-path must be relative"));
    }
    let real = said.images.image_path.join(parent);
    let data = real.metadata().map_err(|error| Error::io("invalid --parent-path:", &real, error))?;
    if data.is_dir() {
        Ok(())
    } else {
        let error = std::io::Error::from_raw_os_error(nix::libc::ENOTDIR);
        Err(Error::io("invalid --parent-path:", &real, error))
    }
}

/// Asks for what not every kernel has, in front of a dump that would fail for it half-way.
fn check_features(
    container: &Container,
    said: &CheckpointOptions,
    stdio: [i32; 3],
    folders: &Folders,
) -> Result<(), Error> {
    if !said.pre_dump && !said.images.lazy_pages {
        return Ok(());
    }
    let wanted = rpc::Features {
        mem_track: said.pre_dump.then_some(true),
        lazy_pages: said.images.lazy_pages.then_some(true),
        ..rpc::Features::default()
    };
    let request = rpc::Request {
        type_: Some(rpc::Kind::FEATURE_CHECK.into()),
        features: Some(wanted).into(),
        ..rpc::Request::default()
    };
    let session = Session::start(stdio, &[])?;
    let answer = session
        .ask(&request, &mut |_| Ok(()))
        .map_err(|failure| explain(container, failure, &folders.log))?;
    let found = answer.features.unwrap_or_default();
    let missing = |flag: &str, what: &str| {
        Err(Error::Unsupported(format!("{flag}: criu is missing features on this kernel: {what}")))
    };
    if said.pre_dump && !found.mem_track() {
        return missing("--pre-dump", "dirty memory tracking (CONFIG_MEM_SOFT_DIRTY)");
    }
    if said.images.lazy_pages && !found.lazy_pages() {
        return missing("--lazy-pages", "lazy pages (userfaultfd)");
    }
    Ok(())
}

fn dump_options(
    container: &Container,
    pid: i32,
    said: &CheckpointOptions,
    folders: &Folders,
) -> Result<rpc::Options, Error> {
    let saved = container.saved();
    let outside = &saved.kept().outside;
    let common = options(&said.images, folders, &saved.annotations);
    let cgroup = container.cgroup();
    let parent = said.parent_path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let page_server = said.page_server.as_ref().map(|(address, port)| rpc::PageServer {
        address: Some(address.clone()),
        port: Some(i32::from(*port)),
        ..rpc::PageServer::default()
    });
    let mounts = if said.pre_dump { Vec::new() } else { external::mounts_of(outside, pid)? };
    Ok(rpc::Options {
        pid: Some(pid),
        root: Some(saved.rootfs.clone()),
        leave_running: Some(said.leave_running),
        tcp_skip_in_flight: Some(said.tcp_skip_in_flight),
        link_remap: Some(said.link_remap),
        external: external::namespaces_of(outside, pid)?,
        ext_mnt: mounts,
        // Without a freezer (a rootless container may have none) it stops processes one by one.
        freeze_cgroup: cgroup.path("freezer").filter(|_| cgroup.exists()).map(str::to_owned),
        track_mem: parent.as_ref().map(|_| true),
        parent_img: parent,
        ps: page_server.into(),
        ..common
    })
}

/// Leaves the names of the container's first descriptors beside the images, where runc's restore looks for them too.
fn write_descriptors(container: &Container, images: &Path) -> Result<(), Error> {
    let path = images.join(DESCRIPTORS);
    let mut names = container.saved().kept().outside.stdio.clone();
    names.resize(3, String::new());
    let failed = |error: std::io::Error| Error::io("write", &path, error);
    let text = serde_json::to_vec(&names).map_err(|error| failed(error.into()))?;
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(&path)
        .map_err(failed)?;
    file.write_all(&text).map_err(failed)
}
