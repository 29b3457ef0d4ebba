//! Terminals: a pty that a runtime is called on, and console sockets.

use cofferdam_sys::{Borrowed, net};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes stdin the controlling terminal of a new session and becomes the program; the exit status if it cannot.
pub fn enter(mut words: impl Iterator<Item = String>) -> i32 {
    if let Err(errno) = nix::unistd::setsid() {
        eprintln!("setsid: {errno}");
        return 125;
    }
    if let Err(errno) = net::set_controlling_terminal(&Borrowed(0)) {
        eprintln!("TIOCSCTTY: {errno:?}");
        return 125;
    }
    let program = words.next().unwrap_or_default();
    let error = Command::new(&program).args(words).exec();
    eprintln!("{program}: {error}");
    125
}
