//! Work in another namespace, from which the caller is back afterwards.

use cofferdam_step::Namespace;
use cofferdam_sys::{Cwd, Errno, fs, mount, process};

/// What `work` makes of it, which may leave or enter a namespace of this kind: by a thread of its own, of whose namespaces nobody else has
/// anything. An error of its own means that the work could not be begun, or that the way back was closed.
pub(super) fn aside<T: Send>(kind: Namespace, work: impl Fn() -> T + Sync) -> Result<T, Errno> {
    match by_thread(&work) {
        // A filter around us that forbids clone3, and does not deny that it is there, keeps libc from making threads.
        Err(Errno::EPERM) => and_back(kind, &work),
        done => done,
    }
}

fn by_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, work);
        thread.map_err(Errno::from)?.join().map_err(|_| Errno::EIO)
    })
}

/// By this thread, which goes back to where it was. Whoever enters a mount namespace gets its root directory (setns(2)), and so must change
/// to the one before, which need not be the namespace's.
fn and_back<T>(kind: Namespace, work: impl FnOnce() -> T) -> Result<T, Errno> {
    let path = format!("/proc/thread-self/ns/{}", kind.proc_name());
    let own = fs::openat(&Cwd, path.as_bytes(), fs::O_RDONLY, 0)?;
    let directory = |path: &[u8]| fs::openat(&Cwd, path, fs::O_PATH | fs::O_DIRECTORY, 0);
    let (root, here) = (directory(b"/")?, directory(b".")?);
    let done = work();
    process::setns(&own, kind.clone_flag())?;
    if kind == Namespace::Mount {
        fs::fchdir(&root)?;
        mount::chroot(b".")?;
        fs::fchdir(&here)?;
    }
    Ok(done)
}
