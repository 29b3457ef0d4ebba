//! The reaper beside those who wait for children of their own. Alone in its program, for it collects every stranger there is.

use cofferdam_sys::{
    Errno, Strings,
    children::{self, Swept},
    process,
    shim::{Program, start},
    spawn::Spawned,
};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

fn shell(script: &str) -> Spawned {
    let program = Program {
        path: b"/bin/sh",
        args: &Strings::new(&["sh", "-c", script]).unwrap(),
        env: &Strings::new(&["PATH=/bin:/usr/bin"]).unwrap(),
        fds: &[],
        new_group: false,
        dies_with_thread: false,
    };
    start(&program).unwrap()
}

/// Sweeps until `done`; nothing is timed, this only ends what hangs.
fn sweep_until(what: &str, strangers: &mut BTreeSet<i32>, mut done: impl FnMut(&BTreeSet<i32>) -> bool) {
    let begun = Instant::now();
    loop {
        children::reap_strangers(|ended| _ = strangers.insert(ended.pid));
        if done(strangers) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never came: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An orphan that ends at once with this status: a shell leaves it behind, and its pid in a file.
fn orphan(status: u32) -> i32 {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("sys-children-{}-{number}", std::process::id()));
    let parent =
        shell(&format!("(sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exit {status}' &)", file.display()));
    assert_eq!(children::wait(parent.pid), Ok(0));
    let begun = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(&file) {
            std::fs::remove_file(&file).unwrap();
            return text.trim().parse().unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the orphan never began");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_status_goes_to_its_owner_and_every_stranger_is_buried() {
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, [1, 0, 0, 0]).unwrap();
    let mut strangers = BTreeSet::new();

    // A child that the reaper meets first, with a stranger behind it: its status is kept.
    let child = shell("exit 7");
    assert!(process::poll_readable(&child.pidfd, 60_000).unwrap());
    let lost = orphan(0);
    sweep_until("the stranger's end", &mut strangers, |strangers| strangers.contains(&lost));
    assert!(!strangers.contains(&child.pid));
    assert_eq!(children::collect(child.pid, &child.pidfd).unwrap().map(|ended| ended.status), Some(7));
    assert_eq!(children::collect(child.pid, &child.pidfd), Err(Errno::ECHILD), "it is told once");
    let child = shell("kill -TERM $$");
    assert!(process::poll_readable(&child.pidfd, 60_000).unwrap());
    assert_eq!(children::reap_strangers(|_| ()), Swept::All);
    assert_eq!(children::wait(child.pid), Ok(libc::SIGTERM));

    // One that somebody else names: while it runs, after its end, and when nobody has expected it.
    let expecting = children::expect();
    let named = orphan(9);
    sweep_until("the named one's end", &mut strangers, |strangers| strangers.contains(&named));
    let pidfd = children::adopt(named).unwrap();
    assert!(process::poll_readable(&pidfd, 0).unwrap());
    assert_eq!(children::wait(named), Ok(9 << 8));
    drop(expecting);
    let unnamed = orphan(9);
    sweep_until("the unnamed one's end", &mut strangers, |strangers| strangers.contains(&unnamed));
    assert_eq!(children::adopt(unnamed).err(), Some(Errno::ESRCH));

    beside_a_busy_reaper(&mut strangers);
    assert_eq!(process::wait(-1, true), Err(Errno::ECHILD), "there are no children left");
}

/// Threads that spawn and wait as fast as they can, each child leaving an orphan, while the reaper never rests.
fn beside_a_busy_reaper(strangers: &mut BTreeSet<i32>) {
    const THREADS: u32 = 4;
    let done = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (done, failed) = (&done, &failed);
            scope.spawn(move || {
                for turn in 0..60 {
                    let status = (thread * 60 + turn) % 256;
                    let child = shell(&format!("(true &); exit {status}"));
                    let told = if turn % 2 == 0 {
                        children::wait(child.pid).map(|status| (status >> 8) as u32)
                    } else {
                        process::poll_readable(&child.pidfd, -1).unwrap();
                        children::collect(child.pid, &child.pidfd).map(|ended| ended.unwrap().status)
                    };
                    if told != Ok(status) {
                        eprintln!("child {} was to end with {status}: {told:?}", child.pid);
                        failed.store(true, Ordering::Relaxed);
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        sweep_until("the threads' end", strangers, |_| done.load(Ordering::Relaxed) == THREADS as usize);
    });
    assert!(!failed.load(Ordering::Relaxed), "a status was lost");
    let alone =
        || children::reap_strangers(|_| ()) == Swept::All && process::wait(-1, true) == Err(Errno::ECHILD);
    sweep_until("the last orphans' end", strangers, |_| alone());
}
