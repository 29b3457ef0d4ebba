//! `cofferdam checkpoint`

use super::args::{ANY, Flag, Grammar, Words, switch, value, values};
use super::{Context, absolute};
use crate::criu::{CgroupsMode, CheckpointOptions, Images, NetworkLock};
use crate::error::Error;
use cofferdam_sys::Fd;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub const IMAGE_PATH: Flag = value("image-path", "", "folder of the images; ./checkpoint if absent");
pub const WORK_PATH: Flag = value("work-path", "", "folder of CRIU's log; the images' own if absent");
pub const TCP_ESTABLISHED: Flag = switch("tcp-established", "", "save and restore open TCP connections");
pub const EXT_UNIX_SK: Flag = switch("ext-unix-sk", "", "allow unix sockets whose other end is outside");
pub const SHELL_JOB: Flag = switch("shell-job", "", "allow a session that was begun outside");
pub const LAZY_PAGES: Flag = switch("lazy-pages", "", "move memory when it is asked for, by userfaultfd");
pub const FILE_LOCKS: Flag = switch("file-locks", "", "save and restore file locks");
pub const MANAGE_CGROUPS_MODE: Flag =
    value("manage-cgroups-mode", "", "soft (the default), full, strict or ignore");
pub const EMPTY_NS: Flag = values(
    "empty-ns",
    "",
    "make this namespace, and leave what is in it to others; always so for network, which is the only one",
);
pub const AUTO_DEDUP: Flag = switch("auto-dedup", "", "drop memory from earlier images that newer ones have");
pub const NETWORK_LOCK: Flag = value(
    "network-lock",
    "",
    "how packets are kept away meanwhile: iptables (the default), nftables or skip",
);

pub static GRAMMAR: Grammar = Grammar {
    name: "checkpoint",
    summary: "save a running container to a folder, by CRIU",
    arguments: "<container-id>",
    about: "The container is deleted then, unless --leave-running or --pre-dump is given; restore makes it again.\n\
            criu (3.16 or newer) must be in PATH, and `criu check` content with the kernel.",
    flags: &[
        IMAGE_PATH,
        WORK_PATH,
        value(
            "parent-path",
            "",
            "folder of earlier images, relative to --image-path: only what changed is saved",
        ),
        switch("leave-running", "", "let the container go on"),
        TCP_ESTABLISHED,
        switch("tcp-skip-in-flight", "", "leave connections out that are not established yet"),
        switch("link-remap", "", "allow files that have lost their name: they get one again"),
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        value("status-fd", "", "descriptor that gets a zero byte when lazy pages can be asked for"),
        value("page-server", "", "ADDRESS:PORT that memory is sent to (with --lazy-pages: asked for at)"),
        FILE_LOCKS,
        switch("pre-dump", "", "save memory only, and let the container go on"),
        MANAGE_CGROUPS_MODE,
        EMPTY_NS,
        AUTO_DEDUP,
        NETWORK_LOCK,
    ],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let container = context.store().load(said.argument(0)?)?;
    let options = options(said)?;
    keep_to_ourselves()?;
    let goes_on = options.leave_running || options.pre_dump;
    container.checkpoint(options)?;
    if !goes_on {
        // Its processes are ended already, or about to be.
        container.delete(true)?;
    }
    Ok(0)
}

/// What the flags of checkpoint and restore both say.
pub fn images(said: &Words) -> Result<Images, Error> {
    for name in said.texts("empty-ns")? {
        if name != "network" {
            return Err(Error::usage(format!("--empty-ns: namespace {name:?} is not supported: network is")));
        }
    }
    let image_path = said.path("image-path").unwrap_or_else(|| PathBuf::from("checkpoint"));
    Ok(Images {
        image_path: absolute(&image_path)?,
        work_path: said.path("work-path").map(|path| absolute(&path)).transpose()?,
        tcp_established: said.on("tcp-established"),
        ext_unix_sk: said.on("ext-unix-sk"),
        shell_job: said.on("shell-job"),
        file_locks: said.on("file-locks"),
        auto_dedup: said.on("auto-dedup"),
        lazy_pages: said.on("lazy-pages"),
        cgroups: CgroupsMode::named(said.text("manage-cgroups-mode")?.unwrap_or_default())?,
        network_lock: said.text("network-lock")?.map(NetworkLock::named).transpose()?,
    })
}

fn options(said: &Words) -> Result<CheckpointOptions, Error> {
    Ok(CheckpointOptions {
        images: images(said)?,
        parent_path: said.path("parent-path").filter(|path| !path.as_os_str().is_empty()),
        leave_running: said.on("leave-running"),
        pre_dump: said.on("pre-dump"),
        tcp_skip_in_flight: said.on("tcp-skip-in-flight"),
        link_remap: said.on("link-remap"),
        page_server: said.text("page-server")?.map(page_server).transpose()?,
        status_fd: said.number("status-fd")?.filter(|fd: &i32| *fd != -1).map(status_fd).transpose()?,
    })
}

fn page_server(text: &str) -> Result<(String, u16), Error> {
    let (address, port) = text
        .rsplit_once(':')
        .filter(|(address, port)| !address.is_empty() && !port.is_empty())
        .ok_or_else(|| Error::usage("Use --page-server ADDRESS:PORT to specify page server"))?;
    // An IPv6 address stands in brackets.
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match port.parse() {
        Ok(port) if port != 0 => Ok((address.into(), port)),
        _ => Err(Error::usage(format!("--page-server: Invalid port number {port:?}"))),
    }
}

/// The caller's descriptor, which must be open for writing; it is ours from here on.
fn status_fd(number: i32) -> Result<OwnedFd, Error> {
    let what = format!("invalid --status-fd argument {number}");
    if !cofferdam_sys::is_open(number) {
        return Err(Error::call(what, nix::errno::Errno::EBADF));
    }
    let given = OwnedFd::from(Fd::from_raw(number));
    let flags = fcntl(&given, FcntlArg::F_GETFL).map_err(|errno| Error::call(what.clone(), errno))?;
    match OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => Err(Error::usage(format!("{what}: not writable"))),
        _ => Ok(given),
    }
}

/// What a caller has left open is not for CRIU, which would take it along.
pub fn keep_to_ourselves() -> Result<(), Error> {
    cofferdam_sys::fs::close_range_on_exec(3)
        .map_err(|errno| Error::call("mark descriptors close-on-exec", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        assert_eq!(page_server("10.0.0.1:27000").unwrap(), ("10.0.0.1".into(), 27000));
        assert_eq!(page_server("[::1]:1").unwrap(), ("::1".into(), 1));
        for text in ["host", ":1", "host:"] {
            let text = page_server(text).unwrap_err().to_string();
            assert_eq!(text, "Use --page-server ADDRESS:PORT to specify page server");
        }
        for (text, port) in [("h:0", "0"), ("h:65536", "65536"), ("h:1x", "1x")] {
            let text = page_server(text).unwrap_err().to_string();
            assert_eq!(text, format!("--page-server: Invalid port number {port:?}"));
        }
    }

    #[test]
    fn a_status_fd_is_open_for_writing() {
        use std::os::fd::IntoRawFd;
        let (read, write) = nix::unistd::pipe().unwrap();
        assert!(status_fd(write.into_raw_fd()).is_ok());
        let number = read.into_raw_fd();
        let text = status_fd(number).unwrap_err().to_string();
        assert_eq!(text, format!("invalid --status-fd argument {number}: not writable"));
        let text = crate::error::message(&status_fd(9999).unwrap_err());
        assert_eq!(text, "invalid --status-fd argument 9999: bad file descriptor");
    }
}
