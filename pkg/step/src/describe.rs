//! What a step is called in `plan`'s output and in an error: a few words, imperative.

use crate::{Barrier, Mount, Propagation, Source, Step};
use core::fmt::{Display, Formatter, Result};

impl Display for Barrier {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Barrier::IdsMapped => "ids mapped",
            Barrier::CgroupJoined => "cgroup joined",
            Barrier::RuntimeHooks => "runtime hooks run",
            Barrier::Committed => "committed",
            Barrier::TreesOpened => "mount sources opened",
            Barrier::Followed => "clone followed",
            Barrier::TreeWanted => "mount source made",
            Barrier::SourcesOpened => "bind sources opened",
        })
    }
}

impl Display for Propagation {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.recursive {
            f.write_str("r")?;
        }
        f.write_str(match self.flag {
            0x10_0000 => "shared",
            0x8_0000 => "slave",
            0x4_0000 => "private",
            _ => "unbindable",
        })
    }
}

impl Display for Mount {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.source {
            Source::New { fstype, .. } => write!(f, "mount {fstype} on {}", self.destination),
            Source::Bind { path, .. } | Source::Link { path, .. } | Source::Tree { path, .. } => {
                write!(f, "bind {path} on {}", self.destination)
            }
            Source::Remount { .. } => write!(f, "remount {}", self.destination),
        }
    }
}

/// Namespaces in the spec's words, separated by blanks.
struct Kinds(crate::Namespaces);

impl Display for Kinds {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (i, kind) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { " " }, kind.spec_name())?;
        }
        Ok(())
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Step::JoinNamespace { kind, path, early, .. } => {
                let early = if *early { ", if the caller may" } else { "" };
                write!(f, "join {} namespace {path}{early}", kind.spec_name())
            }
            Step::JoinProcess { namespaces, .. } => write!(f, "join namespaces {}", Kinds(*namespaces)),
            Step::Unshare { namespaces } => write!(f, "unshare {}", Kinds(*namespaces)),
            Step::SetTimeOffsets { .. } => f.write_str("set time offsets"),
            Step::EnterTimeNamespace => f.write_str("enter the time namespace"),
            Step::Clone { namespaces } if namespaces.is_empty() => f.write_str("clone"),
            Step::Clone { namespaces } => write!(f, "clone with {}", Kinds(*namespaces)),
            Step::BecomeNamespaceRoot => f.write_str("become root of the user namespace"),
            Step::ShowToOwner => f.write_str("let the owner come near"),
            Step::Tell(barrier) => write!(f, "tell the host: {barrier}"),
            Step::Await(barrier) => write!(f, "await the host: {barrier}"),
            Step::AwaitTree { slot } => write!(f, "await the host: slot {} opened", slot.0),
            Step::AwaitStart { .. } => f.write_str("await start"),
            Step::NewSession => f.write_str("begin a session"),
            Step::BringUpLoopback => f.write_str("bring up lo"),
            Step::SetHostname { name } => write!(f, "set hostname {name}"),
            Step::SetDomainname { name } => write!(f, "set domainname {name}"),
            Step::SetHostPropagation(how) => write!(f, "make the host's mounts {how}"),
            Step::PrepareRoot { path, .. } => write!(f, "prepare rootfs {path}"),
            Step::EnterRoot { path, propagation } => {
                write!(f, "enter a mount namespace of rootfs {path}, {propagation}")
            }
            Step::Mount(mount) => mount.fmt(f),
            Step::MakeDirectory { path, .. } => write!(f, "make directory {path}"),
            Step::MakeDevice { path, .. } => write!(f, "make device {path}"),
            Step::BindDevice { path, .. } => write!(f, "bind device {path}"),
            Step::MakeSymlink { path, target, .. } => write!(f, "link {path} to {target}"),
            Step::OpenConsole { .. } => f.write_str("open the console"),
            Step::TakeTerminal => f.write_str("take the terminal"),
            Step::RunHooks(hooks) => write!(f, "run {} hooks", hooks.kind),
            Step::PivotRoot { no_pivot: false } => f.write_str("pivot the root"),
            Step::ChangeRoot { .. } => f.write_str("change the root"),
            Step::PivotRoot { no_pivot: true } => f.write_str("move the root"),
            Step::SetRootPropagation(how) => write!(f, "make the root mount {how}"),
            Step::MakeRootReadonly => f.write_str("make the root mount read-only"),
            Step::MaskPath { path, .. } => write!(f, "mask {path}"),
            Step::MakeReadonly { path } => write!(f, "make {path} read-only"),
            Step::Unmount { path } => write!(f, "unmount {path}"),
            Step::RemountReadonly { path } => write!(f, "remount {path} read-only"),
            Step::SetFileLabel { path, .. } => write!(f, "label {path}"),
            Step::SetSysctl { key, .. } => write!(f, "set sysctl {key}"),
            Step::JoinSessionKeyring { .. } => f.write_str("join a session keyring"),
            Step::SetNoNewPrivileges => f.write_str("set no_new_privs"),
            Step::SetRlimit(limit) => {
                write!(f, "set rlimit {} to {}:{}", limit.resource, limit.soft, limit.hard)
            }
            Step::RaiseRlimit(limit) => write!(f, "raise rlimit {} to {}", limit.resource, limit.hard),
            Step::SetScheduler(_) => f.write_str("set scheduler"),
            Step::SetIoPriority(_) => f.write_str("set io priority"),
            Step::SetAffinity { .. } => f.write_str("set cpu affinity"),
            Step::SetPersonality { .. } => f.write_str("set personality"),
            Step::SetMemoryPolicy { .. } => f.write_str("set memory policy"),
            Step::SetOomScoreAdj { value } => write!(f, "set oom_score_adj {value}"),
            Step::OwnStdio { uid } => write!(f, "give stdio to uid {uid}"),
            Step::SetAppArmor { profile } => write!(f, "set AppArmor profile {profile}"),
            Step::SetSelinux { label } => write!(f, "set SELinux label {label}"),
            Step::SetUser { uid, gid, .. } => write!(f, "become uid {uid} gid {gid}"),
            Step::DropBounding { .. } => f.write_str("drop bounding capabilities"),
            Step::SetCapabilities(_) => f.write_str("set capabilities"),
            Step::ChangeDirectory { path, .. } => write!(f, "change directory to {path}"),
            Step::SetHome { uid } => write!(f, "set HOME of uid {uid}"),
            Step::ResolveProgram => f.write_str("find the program"),
            Step::LoadSeccomp { filter: Some(filter), .. } => {
                write!(f, "load seccomp filter of {} instructions", filter.len() / 8)
            }
            Step::LoadSeccomp { filter: None, .. } => f.write_str("load seccomp filter"),
            Step::SealDescriptors { .. } => f.write_str("seal descriptors"),
            Step::Exec { args, .. } => write!(f, "exec {}", args.first().map_or("", |arg| arg.as_str())),
        }
    }
}
