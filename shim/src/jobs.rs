//! Work that blocks: done by a short-lived thread each, so that no container waits for another one's runtime. What is to follow runs
//! in the event loop.

use crate::shim::Shim;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
};

/// What follows a job, with its result inside.
pub type Then = Box<dyn FnOnce(&mut Shim) + Send>;

/// What is in a slot that a thread may have been given.
fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().ok().and_then(|mut content| content.take())
}

/// Reserved, not used, address space: a thread touches some pages of it.
const STACK: usize = 512 * 1024;

/// Jobs under way.
pub struct Jobs {
    wake: Arc<EventFd>,
    sender: Sender<Then>,
    receiver: Receiver<Then>,
    running: usize,
}

impl Jobs {
    /// None yet.
    pub fn new() -> nix::Result<Jobs> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (sender, receiver) = channel();
        Ok(Jobs { wake: Arc::new(wake), sender, receiver, running: 0 })
    }

    /// Becomes readable when a job is done.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// How many are under way. While there are any, only their own threads collect children: a runtime's verb waits for
    /// processes that it makes, and the pid of a container's process is not known yet.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Does `work` in a thread, and then `then` with its result in the event loop. If no thread can be made, the work is done here:
    /// late is better than never.
    pub fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(&mut Shim, T) + Send + 'static,
    ) {
        self.running += 1;
        let (sender, wake) = (self.sender.clone(), self.wake.clone());
        let job = move || {
            let result = work();
            let then: Then = Box::new(move |shim| then(shim, result));
            // The event loop outlives its jobs; where it does not, the process ends.
            let _ = sender.send(then);
            let _ = wake.write(1);
        };
        let slot = Arc::new(Mutex::new(Some(job)));
        let given = slot.clone();
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            if let Some(job) = take(&given) {
                job();
            }
        });
        if let Err(error) = thread {
            // Late is better than never, even though everybody waits.
            crate::error!("no thread for a job: {error}");
            if let Some(job) = take(&slot) {
                job();
            }
        }
    }

    /// What is done by now.
    pub fn done(&mut self) -> Vec<Then> {
        let _ = self.wake.read();
        let done: Vec<Then> = self.receiver.try_iter().collect();
        self.running -= done.len();
        done
    }
}
