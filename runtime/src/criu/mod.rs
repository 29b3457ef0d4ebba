//! Checkpoint and restore, by CRIU.
//!
//! CRIU runs as `criu swrk`: one process for one request, which comes over a socket (`session`). What it cannot know is said in the
//! request: which mounts and namespaces are the host's (`external`), what became of stdio, where the cgroup is. What we must do
//! while it works comes back as notifications: hooks, the state file, the terminal's master.
//!
//! Images, descriptors.json and the names in the request are those of runc, so that either runtime restores what the other has
//! written; what both must agree on is told beside it. Images are somebody else's data: what we read ourselves of a folder of images
//! is read without following links and within bounds.
//!
//! The oldest CRIU that speaks all of this is 3.16; which kernels it runs on is its own affair (`criu check`).

mod dump;
mod external;
mod log;
mod restore;
mod scaffold;
mod session;

pub(crate) use dump::checkpoint;
pub(crate) use external::{Outside, stdio_names};
pub(crate) use restore::restore;

use crate::container::CreateOptions;
use crate::error::Error;
use cofferdam_proto::criu as rpc;
use cofferdam_step::Namespace;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What checkpoint and restore are both told.
#[derive(Debug, Default)]
pub struct Images {
    /// `--image-path`: the folder of the images.
    pub image_path: PathBuf,
    /// `--work-path`: the folder of CRIU's log and statistics; none is the images' own.
    pub work_path: Option<PathBuf>,
    /// `--tcp-established`
    pub tcp_established: bool,
    /// `--ext-unix-sk`
    pub ext_unix_sk: bool,
    /// `--shell-job`
    pub shell_job: bool,
    /// `--file-locks`
    pub file_locks: bool,
    /// `--auto-dedup`
    pub auto_dedup: bool,
    /// `--lazy-pages`
    pub lazy_pages: bool,
    /// `--manage-cgroups-mode`
    pub cgroups: CgroupsMode,
    /// `--network-lock`
    pub network_lock: Option<NetworkLock>,
}

/// What CRIU does about cgroups: `--manage-cgroups-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupsMode {
    /// CRIU's own default, which is soft.
    #[default]
    Default,
    /// Properties of those cgroups that restore makes.
    Soft,
    /// Properties of all.
    Full,
    /// All are made by restore, none may be there.
    Strict,
    /// None of its business.
    Ignore,
}

impl CgroupsMode {
    /// The mode of this name; the empty one is CRIU's default.
    ///
    /// # Errors
    /// When there is no such mode.
    pub fn named(name: &str) -> Result<CgroupsMode, Error> {
        match name {
            "" => Ok(CgroupsMode::Default),
            "soft" => Ok(CgroupsMode::Soft),
            "full" => Ok(CgroupsMode::Full),
            "strict" => Ok(CgroupsMode::Strict),
            "ignore" => Ok(CgroupsMode::Ignore),
            _ => Err(Error::usage(format!(
                "invalid manage-cgroups-mode value {name:?}: soft, full, strict or ignore"
            ))),
        }
    }

    const fn wire(self) -> rpc::CgroupMode {
        match self {
            CgroupsMode::Default => rpc::CgroupMode::DEFAULT,
            CgroupsMode::Soft => rpc::CgroupMode::SOFT,
            CgroupsMode::Full => rpc::CgroupMode::FULL,
            CgroupsMode::Strict => rpc::CgroupMode::STRICT,
            CgroupsMode::Ignore => rpc::CgroupMode::IGNORE,
        }
    }
}

/// How CRIU keeps packets away from connections while it saves them: crun's `--network-lock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NetworkLock {
    Iptables,
    Nftables,
    Skip,
}

impl NetworkLock {
    /// The method of this name.
    ///
    /// # Errors
    /// When there is no such method.
    pub fn named(name: &str) -> Result<NetworkLock, Error> {
        match name {
            "iptables" => Ok(NetworkLock::Iptables),
            "nftables" => Ok(NetworkLock::Nftables),
            "skip" => Ok(NetworkLock::Skip),
            _ => {
                Err(Error::usage(format!("invalid network-lock value {name:?}: iptables, nftables or skip")))
            }
        }
    }

    const fn wire(self) -> rpc::NetworkLock {
        match self {
            NetworkLock::Iptables => rpc::NetworkLock::IPTABLES,
            NetworkLock::Nftables => rpc::NetworkLock::NFTABLES,
            NetworkLock::Skip => rpc::NetworkLock::SKIP,
        }
    }
}

/// What [`Container::checkpoint`](crate::container::Container::checkpoint) is told.
#[derive(Debug, Default)]
pub struct CheckpointOptions {
    /// What restore is told too.
    pub images: Images,
    /// `--parent-path`: earlier images that these build upon, relative to the images' folder.
    pub parent_path: Option<PathBuf>,
    /// `--leave-running`
    pub leave_running: bool,
    /// `--pre-dump`: only memory is saved, and the container goes on.
    pub pre_dump: bool,
    /// `--tcp-skip-in-flight`
    pub tcp_skip_in_flight: bool,
    /// `--link-remap`
    pub link_remap: bool,
    /// `--page-server`: where memory goes instead of into the images' folder.
    pub page_server: Option<(String, u16)>,
    /// `--status-fd`: gets one zero byte when memory can be asked for (`lazy_pages`), and is closed then.
    pub status_fd: Option<OwnedFd>,
}

/// What [`Store::restore`](crate::container::Store::restore) is told.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// What create is told. [`CreateOptions::run`] is taken for granted; nothing is preserved of the caller's descriptors.
    pub container: CreateOptions,
    /// What checkpoint was told too.
    pub images: Images,
    /// `--tcp-close`: connections are closed instead of restored.
    pub tcp_close: bool,
    /// `--lsm-profile`: `apparmor:NAME` or `selinux:LABEL`, in place of the one that was saved.
    pub lsm_profile: Option<String>,
    /// `--lsm-mount-context`: the SELinux context of mounts, in place of the one that was saved.
    pub lsm_mount_context: Option<String>,
}

/// The annotation that names a configuration file of CRIU; an empty one means none.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// Where runc's users have theirs.
const CONFIG: &str = "/etc/criu/runc.conf";

/// The names of a container's first three descriptors, for inherited pipes; runc's name and form.
const DESCRIPTORS: &str = "descriptors.json";

/// The folders of one request, open.
struct Folders {
    image: OwnedFd,
    work: Option<OwnedFd>,
    /// Where CRIU's log is written.
    log: PathBuf,
}

impl Folders {
    /// Opens both; `make` those that are not there.
    fn open(images: &Images, make: bool, log: &str) -> Result<Folders, Error> {
        if images.image_path.as_os_str().is_empty() {
            return Err(Error::usage("--image-path: it cannot be empty"));
        }
        let image = open_folder(&images.image_path, make, "--image-path")?;
        let work = match &images.work_path {
            Some(path) => Some(open_folder(path, true, "--work-path")?),
            None => None,
        };
        let log = images.work_path.as_ref().unwrap_or(&images.image_path).join(log);
        // CRIU would write through it, and images can be a stranger's.
        if log.symlink_metadata().is_ok_and(|data| data.is_symlink()) {
            return Err(Error::usage(format!("{} is a symbolic link: CRIU's log goes there", log.display())));
        }
        Ok(Folders { image: image.into(), work: work.map(OwnedFd::from), log })
    }
}

fn open_folder(path: &Path, make: bool, flag: &str) -> Result<File, Error> {
    if make {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| Error::io(format!("{flag}: make"), path, error))?;
    }
    let flags = nix::libc::O_DIRECTORY | nix::libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.map_err(|error| Error::io(format!("{flag}: open"), path, error))
}

/// What both requests say.
fn options(images: &Images, folders: &Folders, annotations: &BTreeMap<String, String>) -> rpc::Options {
    let log = folders.log.file_name().map(|name| name.to_string_lossy().into_owned());
    rpc::Options {
        // CRIU opens these by way of /proc/PID/fd of whoever made the socket.
        images_dir_fd: Some(folders.image.as_raw_fd()),
        work_dir_fd: folders.work.as_ref().map(AsRawFd::as_raw_fd),
        log_level: Some(4),
        log_file: log,
        notify_scripts: Some(true),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(images.cgroups.wire().into()),
        tcp_established: Some(images.tcp_established),
        ext_unix_sk: Some(images.ext_unix_sk),
        shell_job: Some(images.shell_job),
        file_locks: Some(images.file_locks),
        auto_dedup: Some(images.auto_dedup),
        lazy_pages: Some(images.lazy_pages),
        orphan_pts_master: Some(true),
        // Devices and addresses of a network namespace are the engine's, who sets them up for a restored container as for a new one.
        empty_ns: Some(Namespace::Network.clone_flag()),
        network_lock: images.network_lock.map(|lock| lock.wire().into()),
        config_file: match annotations.get(CONFIG_ANNOTATION) {
            Some(path) => Some(path.clone()).filter(|path| !path.is_empty()),
            None => Some(CONFIG.into()),
        },
        ..rpc::Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_runcs_names() {
        assert_eq!(CgroupsMode::named("").unwrap(), CgroupsMode::Default);
        assert_eq!(CgroupsMode::named("ignore").unwrap(), CgroupsMode::Ignore);
        let text = CgroupsMode::named("hard").unwrap_err().to_string();
        assert_eq!(text, "invalid manage-cgroups-mode value \"hard\": soft, full, strict or ignore");
        let text = NetworkLock::named("ebpf").unwrap_err().to_string();
        assert_eq!(text, "invalid network-lock value \"ebpf\": iptables, nftables or skip");
    }

    #[test]
    fn the_annotation_chooses_the_configuration_file() {
        let folder = std::env::temp_dir().join(format!("cofferdam-criu-{}", std::process::id()));
        let images = Images { image_path: folder.clone(), ..Images::default() };
        let folders = Folders::open(&images, true, "dump.log").unwrap();
        let said = |annotations: &[(&str, &str)]| {
            let annotations =
                annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            options(&images, &folders, &annotations).config_file
        };
        assert_eq!(said(&[]).as_deref(), Some(CONFIG));
        assert_eq!(said(&[(CONFIG_ANNOTATION, "/x.conf")]).as_deref(), Some("/x.conf"));
        assert_eq!(said(&[(CONFIG_ANNOTATION, "")]), None);
        std::fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn a_log_that_is_a_link_is_refused() {
        let folder = std::env::temp_dir().join(format!("cofferdam-criu-link-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("restore.log")).unwrap();
        let images = Images { image_path: folder.clone(), ..Images::default() };
        let text = Folders::open(&images, false, "restore.log").err().unwrap().to_string();
        assert!(text.ends_with("restore.log is a symbolic link: CRIU's log goes there"), "{text}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
