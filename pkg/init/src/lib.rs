//! Init: the process that enters the container, carries the plan's steps out and becomes the container's process.
//!
//! It is a freestanding program (no std, no libc, some tens of kilobytes) that the runtime seals in a memfd and executes, so
//! that nothing in the container ever runs or can reach the host's binary. It gets a [`Program`] over a socket, does one step
//! after the other, and says which call of which step failed with which errno; the runtime writes the sentence.
//!
//! One function a step, in the module that bears its subject's name: `mounts`, `devices`, `masks`, `namespaces`, `rootfs`,
//! `process`, `console`, `hooks`, `program`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod console;
mod conversation;
mod devices;
mod hooks;
mod masks;
mod mounts;
mod namespaces;
mod parents;
mod process;
mod program;
mod rootfs;

use alloc::{string::String, vec::Vec};
use cofferdam_step::{Attempt, Barrier, Namespaces, Program, Slot, Step};
use cofferdam_sys::{Borrowed, Errno, Fd, proc::Proc, process as sys_process, root::Root};
use console::Console;
use conversation::Conversation;

/// Why a step failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    attempt: Attempt,
    errno: Errno,
    detail: i64,
}

/// What a step returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Names the call that failed.
pub(crate) trait At<T> {
    fn at(self, attempt: Attempt) -> Outcome<T>;
}

impl<T> At<T> for cofferdam_sys::Result<T> {
    fn at(self, attempt: Attempt) -> Outcome<T> {
        self.map_err(|errno| Failure { attempt, errno, detail: 0 })
    }
}

/// What the steps leave for one another.
pub(crate) struct Init {
    fds: Vec<i32>,
    conversation: Conversation,
    /// The rootfs; from `PrepareRoot` or `EnterRoot` on, or the root of a container that was joined.
    root: Option<Root>,
    /// Set by the mount of the container's /proc, else opened when first needed.
    proc: Option<Proc>,
    /// Whether the rootfs is known to be no procfs.
    plain_root: bool,
    /// An attached, empty, read-only tmpfs: the next directory is masked by a clone of it.
    mask: Option<Fd>,
    /// The container's /dev/null, proved to be it.
    null: Option<Fd>,
    /// Sources of the next bind mounts, with their propagation, or why there is none.
    sources: alloc::vec::IntoIter<Outcome<Fd>>,
    /// Directories in which something was made: the next thing is likely to be made there too.
    parents: parents::Parents,
    /// The host's propagation was kept, so detaching the old root must not reach the host.
    shared_with_host: bool,
    /// The mask to go back to where config.json has none.
    umask: u32,
    /// A filter that came behind the steps, and its flags.
    filter: Option<(Vec<u8>, u32)>,
    /// Where the program was found.
    program: Vec<u8>,
    /// `HOME=…` to add.
    home: Option<String>,
    /// Whether the host side wants to know when each step begins.
    timed: bool,
    /// Namespaces that have been joined one by one.
    joined: Namespaces,
    /// What the hook wrote that failed.
    hook_output: Vec<u8>,
    /// Whether the host side knows that only the filter and the execve are left.
    announced: bool,
    /// Whether another process will go on with the list, which is still to be cloned.
    clones: bool,
    /// Whether there is a start to wait for, still.
    waits: bool,
}

/// Entry point: the first argument is the number of the conversation's socket.
pub fn main(args: &[&[u8]]) -> ! {
    let number = args.get(1).and_then(|arg| core::str::from_utf8(arg).ok()).and_then(|arg| arg.parse().ok());
    let Some(number) = number else { sys_process::exit(64) };
    let conversation = Conversation::new(Fd::from_raw(number));
    let mut program = match conversation.read_program() {
        Ok(program) => program,
        Err(errno) => {
            conversation.fail(0, Failure { attempt: Attempt::Decode, errno, detail: 0 });
            sys_process::exit(1)
        }
    };
    let mut init = Init {
        fds: core::mem::take(&mut program.fds),
        conversation,
        root: None,
        proc: None,
        plain_root: false,
        mask: None,
        null: None,
        sources: Vec::new().into_iter(),
        parents: parents::Parents::default(),
        shared_with_host: false,
        umask: sys_process::umask(0),
        filter: None,
        program: Vec::new(),
        home: None,
        timed: program.timed,
        joined: Namespaces::default(),
        hook_output: Vec::new(),
        announced: false,
        clones: program.steps.iter().any(|step| matches!(step, Step::Clone { .. })),
        waits: program.steps.iter().any(|step| matches!(step, Step::AwaitStart { .. })),
    };
    init.carry_out(&program)
}

impl Init {
    /// All steps; the last one does not return.
    fn carry_out(&mut self, program: &Program) -> ! {
        if !self.clones {
            namespaces::hide_from_ptrace();
        }
        for (index, step) in program.steps.iter().enumerate() {
            // Behind the announcement there may be a filter that forbids to say anything.
            if self.timed && !self.announced {
                self.conversation.time(index);
            }
            if let Err(failure) = self.step(step, program) {
                self.conversation.fail(index, failure);
                self.conversation.append(&self.hook_output);
                sys_process::exit(1);
            }
        }
        sys_process::exit(0)
    }

    fn step(&mut self, step: &Step, program: &Program) -> Outcome {
        match step {
            Step::JoinNamespace { kind, slot, early, .. } => self.join_namespace(*kind, *slot, *early),
            Step::JoinProcess { pidfd, namespaces } => self.join_process(*pidfd, *namespaces),
            Step::Unshare { namespaces } => namespaces::unshare(*namespaces),
            Step::SetTimeOffsets { offsets } => self.set_time_offsets(offsets),
            Step::EnterTimeNamespace => self.enter_time_namespace(),
            Step::Clone { namespaces } => self.clone_into(*namespaces),
            Step::BecomeNamespaceRoot => namespaces::become_root(),
            Step::ShowToOwner => {
                namespaces::show_to_ptrace();
                Ok(())
            }
            Step::Tell(barrier) => self.conversation.tell(*barrier),
            Step::Await(Barrier::CgroupJoined) => self.conversation.wait_for_cgroup(),
            Step::Await(Barrier::TreesOpened) => self.wait_for_trees(program),
            Step::Await(Barrier::SourcesOpened) => self.wait_for_sources(),
            Step::Await(Barrier::Committed) => self.wait_for_commit(program),
            Step::Await(barrier) => self.conversation.wait_for(*barrier),
            Step::AwaitTree { slot } => self.wait_for_tree(*slot),
            Step::AwaitStart { listener } => self.await_start(*listener, program),
            Step::NewSession => cofferdam_sys::process::setsid().at(Attempt::Setsid),
            Step::BringUpLoopback => cofferdam_sys::net::bring_up_loopback().at(Attempt::Ioctl),
            Step::SetHostname { name } => namespaces::set_hostname(name),
            Step::SetDomainname { name } => namespaces::set_domainname(name),
            Step::SetHostPropagation(how) => rootfs::set_host_propagation(*how),
            Step::PrepareRoot { path, slot, keep_propagation } => {
                self.prepare_root(path, *slot, *keep_propagation)
            }
            Step::EnterRoot { path, propagation } => self.enter_root(path, *propagation, program),
            Step::Mount(mount) => self.mount(mount),
            Step::MakeDirectory { path, mode } => self.make_directory(path, *mode),
            Step::MakeDevice { path, mode, major, minor, uid, gid } => {
                self.make_device(path, *mode, (*major, *minor), *uid, *gid)
            }
            Step::BindDevice { path, source, slot } => self.bind_device(path, source, *slot),
            Step::MakeSymlink { path, target, replace } => self.make_symlink(path, target, *replace),
            Step::OpenConsole { socket, size, mount, uid, plain } => self
                .open_console(*socket, &Console { size: *size, mounted: *mount, uid: *uid, plain: *plain }),
            Step::TakeTerminal => Init::take_terminal(),
            Step::RunHooks(hooks) => self.run_hooks(hooks, program),
            Step::ChangeRoot { path } => self.change_root(path.as_deref()),
            Step::PivotRoot { no_pivot } => self.pivot_root(*no_pivot),
            Step::SetRootPropagation(how) => rootfs::set_root_propagation(*how),
            Step::MakeRootReadonly => self.make_root_readonly(),
            Step::MaskPath { path, label } => self.mask_path(path, label.as_deref()),
            Step::MakeReadonly { path } => self.make_readonly(path),
            Step::Unmount { path } => self.unmount(path),
            Step::RemountReadonly { path } => self.remount_readonly(path),
            Step::SetFileLabel { path, label } => self.set_file_label(path, label),
            Step::SetSysctl { key, value } => self.set_sysctl(key, value),
            Step::JoinSessionKeyring { name, label } => self.join_session_keyring(name, label.as_deref()),
            Step::SetNoNewPrivileges => process::set_no_new_privileges(),
            Step::SetRlimit(limit) => process::set_rlimit(*limit),
            Step::RaiseRlimit(limit) => process::raise_rlimit(*limit),
            Step::SetScheduler(attr) => process::set_scheduler(*attr),
            Step::SetIoPriority(priority) => process::set_io_priority(*priority),
            Step::SetAffinity { mask } => process::set_affinity(mask),
            Step::SetPersonality { persona } => process::set_personality(*persona),
            Step::SetMemoryPolicy { mode, nodes } => process::set_memory_policy(*mode, nodes),
            Step::SetOomScoreAdj { value } => self.set_oom_score_adj(*value),
            Step::OwnStdio { uid } => self.own_stdio(*uid),
            Step::SetAppArmor { profile } => self.set_apparmor(profile),
            Step::SetSelinux { label } => self.write_own(b"self/attr/exec", label.as_bytes()),
            Step::SetUser { uid, gid, additional_gids, umask } => {
                self.set_user(*uid, *gid, additional_gids.as_deref(), *umask)
            }
            Step::DropBounding { keep } => process::drop_bounding(*keep),
            Step::SetCapabilities(sets) => process::set_capabilities(*sets),
            Step::ChangeDirectory { path, create } => self.change_directory(path, *create),
            Step::SetHome { uid } => self.set_home(*uid, program),
            Step::ResolveProgram => self.resolve_program(program),
            Step::LoadSeccomp { filter, flags } => self.load_seccomp(filter.as_deref(), *flags),
            Step::SealDescriptors { preserve } => self.seal_descriptors(*preserve),
            Step::Exec { args, env } => self.exec(args, env),
            // The compiler and init are built from one source; this arm is for the lint of non-exhaustive enums.
            _ => Err(Failure { attempt: Attempt::Decode, errno: Errno::ENOSYS, detail: 0 }),
        }
    }

    /// The descriptor behind a slot; it stays open, for the seal in front of the execve closes all.
    fn slot(&self, slot: Slot) -> Outcome<Borrowed> {
        self.fds.get(usize::from(slot.0)).map(|fd| Borrowed(*fd)).ok_or(Failure {
            attempt: Attempt::Decode,
            errno: Errno::EBADF,
            detail: i64::from(slot.0),
        })
    }

    /// The rootfs handle: from `PrepareRoot`, or of the container that was joined.
    fn root(&mut self) -> Outcome<&Root> {
        if self.root.is_none() {
            self.root = Some(rootfs::current_root(Root::new)?);
        }
        self.root.as_ref().ok_or(Failure { attempt: Attempt::OpenRoot, errno: Errno::ENOENT, detail: 0 })
    }

    /// The procfs handle.
    fn proc(&mut self) -> Outcome<&Proc> {
        if self.proc.is_none() {
            self.proc = Some(Proc::open().at(Attempt::Proc)?);
        }
        self.proc.as_ref().ok_or(Failure { attempt: Attempt::Proc, errno: Errno::ENOENT, detail: 0 })
    }

    /// Writes a value to a file of our own below /proc.
    fn write_own(&mut self, path: &[u8], value: &[u8]) -> Outcome {
        match self.proc()?.write(path, value) {
            // Something in the container's plan lies over this path in the /proc that was adopted: mount one of our own.
            Err(Errno::EXDEV) => Proc::private().at(Attempt::Proc)?.write(path, value),
            other => other,
        }
        .at(Attempt::Write)
    }
}

/// Ends this process because whoever started it is gone: nobody is there to hear about it.
pub(crate) fn give_up(_: Option<Barrier>) -> ! {
    sys_process::exit(1)
}
