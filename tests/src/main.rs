//! Root tests of an OCI runtime, by the runtime-spec's sections; `cve/` has exploits in small. The same tests run under cofferdam
//! and, where a feature is runc's, under runc: what runc fails is suspect.
//!
//! A program of its own and no `cargo test`: it needs root, and is carried into the test machine as it is, with the probe beside
//! it. `--help` says how to call it.
#![forbid(unsafe_code)]

mod callers;
mod capabilities;
mod cgroups;
mod checkpoint;
mod cli;
mod compare;
mod console;
mod crash;
mod cve;
mod descriptors;
mod devices;
mod errors;
mod events;
mod exec;
mod features;
mod harness;
mod hooks;
mod idmap;
mod lifecycle;
mod limits;
mod live;
mod machine;
mod masks;
mod mounts;
mod namespaces;
mod netdevices;
mod previous;
mod process;
mod resources;
mod rootfs;
mod rootless;
mod seccomp;
mod sockets;
mod sysctl;
mod terminal;
mod user;

use harness::supervisor::Order;
use harness::{Test, options::Options, runner, supervisor};

/// Most of them, by subject.
const SUBJECTS: &[&[Test]] = &[
    mounts::TESTS,
    process::TESTS,
    user::TESTS,
    capabilities::TESTS,
    limits::TESTS,
    namespaces::TESTS,
    netdevices::TESTS,
    live::TESTS,
    rootfs::TESTS,
    masks::TESTS,
    sysctl::TESTS,
    seccomp::TESTS,
    hooks::TESTS,
    lifecycle::TESTS,
    exec::TESTS,
    console::TESTS,
    descriptors::TESTS,
    cli::TESTS,
    callers::TESTS,
    events::TESTS,
    features::TESTS,
    idmap::TESTS,
    rootless::TESTS,
    errors::TESTS,
    compare::TESTS,
    checkpoint::TESTS,
];

/// Subjects of which everything goes another way with each cgroup driver.
const BY_DRIVER: &[&[Test]] =
    &[devices::TESTS, cgroups::TESTS, resources::TESTS, crash::TESTS, previous::TESTS];

/// Every test.
fn all() -> Vec<Test> {
    let by_driver = BY_DRIVER.concat().into_iter().map(Test::by_driver).collect();
    [SUBJECTS.concat(), by_driver, cve::TESTS.concat()].concat()
}

fn main() {
    let mut words = std::env::args().skip(1).peekable();
    let status = match words.peek().map(String::as_str) {
        Some("--as-supervisor") => {
            supervisor::supervise(&Order::from_word(&words.nth(1).unwrap_or_default()))
        }
        Some("--as-test") => supervisor::test(Order::from_word(&words.nth(1).unwrap_or_default()), &all()),
        Some("--on-terminal") => terminal::enter(words.skip(1)),
        _ => match Options::read(words) {
            Ok(options) => runner::run(&options, &all()),
            Err(message) => {
                eprintln!("{message}");
                2
            }
        },
    };
    std::process::exit(status);
}
