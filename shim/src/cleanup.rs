//! The `delete` action: what containerd calls when a shim is gone and its container may not be. It leaves nothing behind: no
//! process, no mount, no state, no socket.

use crate::{address, bundle::Config, flags::Flags, options::Options, publisher::timestamp, rootfs, runtime};
use cofferdam_proto::{Message, task};
use std::{io::Write, path::PathBuf, time::SystemTime};

/// Cleans up after a shim, and tells containerd how the container ended. Warnings go to standard error, which containerd logs.
///
/// # Errors
/// A sentence, when the bundle cannot even be read.
pub fn delete(flags: &Flags) -> Result<(), String> {
    let here = std::env::current_dir().map_err(|error| format!("getwd: {error}"))?;
    // In a group containerd calls from the bundle of any of its containers.
    let bundle = here.parent().map_or_else(|| PathBuf::from(&flags.bundle), |parent| parent.join(&flags.id));
    let options = Options::load(&bundle).map_err(|error| format!("options of {}: {error}", flags.id))?;
    let config = Config::read(&bundle).ok();
    let engine = runtime::engine(&options, &flags.namespace, config.as_ref());
    match engine.delete(&flags.id, &bundle, true) {
        Ok(()) | Err(runtime::Failure::NoSuchContainer) => {}
        Err(failure) => eprintln!("failed to remove the container: {failure}"),
    }
    if let Err(error) = rootfs::unmount(&bundle.join("rootfs")) {
        eprintln!("failed to clean up the root file system: {error}");
    }
    remove_socket(flags, config.as_ref(), address::remembered_dir(&bundle).as_deref());
    let pid = runtime::binary::read_pid(&bundle.join("init.pid")).unwrap_or(0);
    let response = task::DeleteResponse {
        pid: pid as u32,
        exit_status: 128 + libc::SIGKILL as u32,
        exited_at: Some(timestamp(SystemTime::now())).into(),
        ..Default::default()
    };
    let bytes = response.write_to_bytes().map_err(|error| error.to_string())?;
    std::io::stdout().write_all(&bytes).map_err(|error| format!("write the answer: {error}"))
}

/// A shim that was killed could not remove its socket; one that still serves others keeps it.
fn remove_socket(flags: &Flags, config: Option<&Config>, dir: Option<&str>) {
    let group = config.map_or(flags.id.as_str(), |config| config.group(&flags.id));
    if let Ok(path) = address::path(dir, &flags.address, &flags.namespace, group)
        && path.exists()
    {
        address::remove(&path, None);
    }
}
