//! `cofferdam events`

use super::args::{ANY, Grammar, Words, switch, value};
use super::event::Event;
use super::{Context, say, words};
use crate::container::Container;
use crate::error::{Error, Verb, message};
use crate::state::Status;
use cofferdam_cgroup::OomWatch;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

pub static GRAMMAR: Grammar = Grammar {
    name: "events",
    summary: "print what a container uses, and when it runs out of memory",
    arguments: "<container-id>",
    about: "One line of JSON an event, until the container ends.",
    flags: &[
        value("interval", "", "time between figures, like 500ms or 1m; 5s if absent"),
        switch("stats", "", "print the figures once"),
    ],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let container = context.store().load(said.argument(0)?)?;
    let interval = match said.text("interval")? {
        None => Duration::from_secs(5),
        // Go's flags take a nothing without its unit.
        Some("0") => Duration::ZERO,
        Some(text) => words::duration(text)
            .map_err(|error| Error::Usage(format!("invalid value for --interval: {error}")))?,
    };
    if interval.is_zero() {
        return Err(Error::usage("duration interval must be greater than 0"));
    }
    let Some(pidfd) = container.pidfd()? else {
        let id = container.id().into();
        return Err(Error::WrongState { verb: Verb::Events, id, status: Status::Stopped });
    };
    if said.on("stats") {
        print_stats(&container)?;
    } else {
        Watch::begin(&container, pidfd)?.until_end(interval)?;
    }
    Ok(0)
}

fn print_stats(container: &Container) -> Result<(), Error> {
    let stats =
        container.cgroup().stats().map_err(|error| Error::below("read the container's figures", error))?;
    print(&Event::stats(container.id(), &stats))
}

fn print(event: &Event) -> Result<(), Error> {
    let line = serde_json::to_string(event).map_err(|error| Error::below("print an event", error))?;
    say(&(line + "\n"))
}

/// What is waited for.
struct Watch<'a> {
    container: &'a Container,
    pidfd: OwnedFd,
    oom: OomWatch,
}

impl<'a> Watch<'a> {
    fn begin(container: &'a Container, pidfd: OwnedFd) -> Result<Watch<'a>, Error> {
        let oom = container.cgroup().watch_oom();
        let oom = oom.map_err(|error| Error::below("watch for lack of memory", error))?;
        Ok(Watch { container, pidfd, oom })
    }

    fn until_end(&mut self, interval: Duration) -> Result<(), Error> {
        let mut next = Instant::now() + interval;
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            // A poll may end a little early, and then waits again.
            let limit = PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            let mut fds = [
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.oom.fd(), self.oom.interest()),
            ];
            match poll(&mut fds, limit) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::call("poll", errno)),
            }
            let ended = fds[0].any() == Some(true);
            // In this order: the last thing that a container does may be to run out of memory.
            if fds[1].revents().is_some_and(|events| !events.is_empty()) && !self.print_lacks()? || ended {
                return Ok(());
            }
            if Instant::now() >= next {
                if let Err(error) = print_stats(self.container) {
                    tracing::error!("{}", message(&error));
                }
                next = Instant::now() + interval;
            }
        }
    }

    /// An event for each time that memory ran out; false when the cgroup is gone.
    fn print_lacks(&mut self) -> Result<bool, Error> {
        let lacks = self.oom.take().map_err(|error| Error::below("watch for lack of memory", error))?;
        let Some(lacks) = lacks else { return Ok(false) };
        for _ in 0..lacks {
            print(&Event::oom(self.container.id()))?;
        }
        Ok(true)
    }
}
