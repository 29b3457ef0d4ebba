//! Work that blocks: done by a short-lived thread each, so that no container waits for another one's runtime. What is to follow runs
//! in the event loop.

use crate::shim::Shim;
use cofferdam::timeline::Recording;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::{
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
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
    timelines: Timelines,
}

/// With COFFERDAM_TIMELINE=DIR in containerd's environment each job leaves a trace in DIR, as `cofferdam --timeline` does for a verb.
#[derive(Default)]
struct Timelines {
    dir: Option<PathBuf>,
    /// The call that jobs are for.
    call: String,
    count: u64,
}

impl Timelines {
    /// The next job's name, and its file.
    fn next(&mut self) -> Option<(String, PathBuf)> {
        let dir = self.dir.as_ref()?;
        self.count += 1;
        let file = format!("{}-{:04}-{}.json", std::process::id(), self.count, self.call);
        Some((self.call.clone(), dir.join(file)))
    }
}

/// Does `work`, and records what takes how long in it.
fn recorded<T>(timeline: Option<(String, PathBuf)>, work: impl FnOnce() -> T) -> T {
    let Some((call, path)) = timeline else { return work() };
    let recording = Recording::begin(&path, format_args!("shim {call}"));
    let result = work();
    if let Err(error) = recording.and_then(Recording::end) {
        crate::error!("{error}");
    }
    result
}

impl Jobs {
    /// None yet.
    pub fn new() -> nix::Result<Jobs> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (sender, receiver) = channel();
        let dir = std::env::var_os("COFFERDAM_TIMELINE").map(PathBuf::from);
        let timelines = Timelines { dir, ..Timelines::default() };
        Ok(Jobs { wake: Arc::new(wake), sender, receiver, running: 0, timelines })
    }

    /// The next jobs are for this call.
    pub fn call(&mut self, method: &str) {
        if self.timelines.dir.is_some() {
            method.clone_into(&mut self.timelines.call);
        }
    }

    /// Becomes readable when a job is done.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// How many are under way.
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
        let timeline = self.timelines.next();
        let job = move || {
            let result = recorded(timeline, work);
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
