//! The road into the container: one clone, one execve, then init's steps.
//!
//! **Direct** (no user or time namespace is involved, no pid namespace joined): this thread's clone3 carries every new namespace, the child executes
//! the sealed image and is the container's pid 1 already.
//!
//! **Staged**: the sealed image runs in the host's namespaces first, joins what must be joined, and clones once more with
//! CLONE_PARENT: an execve in a new user namespace would cost the capabilities in it (there is no uid 0 before the maps
//! are written), a time namespace takes effect for children only, and in a pid namespace that has others in it nothing
//! may appear that is not the sealed image yet.

use super::conversation::Conversation;
use super::image;
use crate::timeline;
use cofferdam_step::{Namespaces, Program, Report, ReportKind};
use cofferdam_sys::children::{self, Expecting};
use cofferdam_sys::spawn::{Spawn, spawn};
use cofferdam_sys::{Borrowed, Errno, Fd, Raw, Result, Strings, net, process};

/// How init is started.
pub struct Departure<'a> {
    /// Whether the first process clones the container's.
    pub staged: bool,
    /// What the first clone makes new; nothing when staged.
    pub namespaces: Namespaces,
    /// A cgroup v2 directory that the child is born in.
    pub cgroup: Option<Raw>,
    /// Descriptors that init inherits.
    pub inherit: &'a [Raw],
    /// What becomes stdin, stdout and stderr; none keeps this process's.
    pub stdio: Option<[Raw; 3]>,
}

/// Init on its way.
pub struct Traveller {
    /// The container's process, or with [`Departure::staged`] the one that will clone it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: Fd,
    /// Whether it was born in [`Departure::cgroup`].
    pub in_cgroup: bool,
    /// While the clone of a staged one is expected.
    expecting: Option<Expecting>,
    pub(super) conversation: Conversation,
}

/// What became of the way to the container's process.
pub enum Arrival {
    /// It is there.
    There,
    /// The report of the step that failed; none if the first process died without one.
    Failed(Option<Report>),
}

/// Starts init and sends it its steps.
///
/// # Errors
/// Those of memfd_create, socketpair, setns, clone3, execveat.
pub fn depart(departure: &Departure, program: &Program) -> Result<Traveller> {
    let image = timeline::timed("seal the image", image::sealed)?;
    let (ours, theirs) = net::socketpair()?;
    let inherit: Vec<Raw> = departure.inherit.iter().copied().chain([theirs.raw()]).collect();
    let args = Strings::new(&["cofferdam-init", &theirs.raw().to_string()])?;
    let env = Strings::new::<&str>(&[])?;
    let child = Spawn {
        image: &image,
        namespaces: departure.namespaces.0,
        cgroup: departure.cgroup,
        args: &args,
        env: &env,
        inherit: &inherit,
        stdio: departure.stdio,
    };
    let expecting = departure.staged.then(children::expect);
    let spawned = timeline::timed("clone and execute the image", || spawn(&child))?;
    let traveller = Traveller {
        pid: spawned.pid,
        pidfd: spawned.pidfd,
        in_cgroup: spawned.in_cgroup,
        expecting,
        conversation: Conversation(ours),
    };
    match timeline::timed("send the steps", || traveller.conversation.send(program)) {
        Ok(()) => Ok(traveller),
        Err(errno) => {
            traveller.end();
            Err(errno)
        }
    }
}

impl Traveller {
    /// Whether the container's process is still to be made by this one.
    pub fn will_clone(&self) -> bool {
        self.expecting.is_some()
    }

    /// With [`Departure::staged`]: waits until the container's process is there and becomes its traveller.
    ///
    /// # Errors
    /// Those of read, behind which the clone, if there is one, ends when its socket closes, and of pidfd_open.
    pub fn arrive(&mut self) -> Result<Arrival> {
        match self.conversation.read_from(&self.pidfd)? {
            Some(Report { kind: ReportKind::Cloned, detail, .. }) => {
                // The clone is this process's child, and if it has ended already it is remembered: the pid is its own.
                let pid = detail as i32;
                let pidfd = children::adopt(pid).inspect_err(|_| {
                    let _ = process::kill(pid, nix::libc::SIGKILL);
                })?;
                let _ = children::wait(self.pid);
                (self.pid, self.pidfd) = (pid, pidfd);
                self.expecting = None;
                Ok(Arrival::There)
            }
            report => Ok(Arrival::Failed(report)),
        }
    }

    /// Kills init and waits for it.
    pub fn end(&self) {
        let _ = process::pidfd_send_signal(&self.pidfd, nix::libc::SIGKILL);
        let _ = children::wait(self.pid);
    }

    /// A descriptor out of init's table, for a seccomp listener.
    pub fn take_fd(&self, number: Raw) -> Result<Fd> {
        match process::pidfd_getfd(&self.pidfd, number) {
            Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
            other => other,
        }
    }
}

/// Numbers of some descriptors; -1 for one that comes later.
pub fn numbers(fds: &[Option<Fd>]) -> Vec<Raw> {
    fds.iter().map(|fd| fd.as_ref().map_or(-1, Fd::raw)).collect()
}

/// stdio of this process, for those who pass it on.
pub const STDIO: [Borrowed; 3] = [Borrowed(0), Borrowed(1), Borrowed(2)];

impl Traveller {
    /// Init's next record; none when it has ended or become the container's program.
    pub fn next_report(&self) -> Result<Option<Report>> {
        self.conversation.read()
    }
}
