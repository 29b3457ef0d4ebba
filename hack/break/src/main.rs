//! Breaks the runtime on purpose and looks at what is left.
//!
//! `cofferdam-break --help` says how to call it; `README.md` in this folder what it proves and what it tolerates.
#![forbid(unsafe_code)]

mod bundle;
mod crowd;
mod errno;
mod fallbacks;
mod faults;
mod filter;
mod look;
mod options;
mod scenario;
mod starve;
mod tally;
mod tracer;
mod verdict;
mod world;

use options::{Options, Task};
use std::path::PathBuf;
use std::sync::OnceLock;
use tally::Tally;
use world::World;

/// Whatever keeps this program from doing its work; the text is for whoever called it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The path of this program. Read once and early: in a new mount namespace the kernel cannot tell where an old mount is.
///
/// # Errors
/// When procfs is not there.
fn own_path() -> Result<&'static PathBuf> {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    match PATH.get() {
        Some(path) => Ok(path),
        None => std::env::current_exe().map(|path| PATH.get_or_init(|| path)).map_err(Into::into),
    }
}

fn main() {
    let status = Options::read(std::env::args_os().skip(1)).and_then(|options| run(&options));
    std::process::exit(status.unwrap_or_else(|error| {
        eprintln!("cofferdam-break: {error}");
        2
    }))
}

fn run(options: &Options) -> Result<i32> {
    match &options.task {
        Task::Help => print!("{}", options::HELP),
        Task::Stop { command } => tracer::stop_and_become(command)?,
        Task::Fail { rules, command } => return filter::run(rules, command),
        Task::Suite { subjects } => return suite(options, subjects),
    }
    Ok(0)
}

fn suite(options: &Options, subjects: &[options::Subject]) -> Result<i32> {
    let mut world = World::make(&options.runtime)?;
    let mut tally = Tally::new(options.verbose);
    for subject in subjects {
        match subject {
            options::Subject::Fallbacks => fallbacks::run(&mut world, &mut tally, options)?,
            options::Subject::Faults => faults::run(&mut world, &mut tally, options)?,
            options::Subject::Crowd => crowd::run(&world, &mut tally, options)?,
            options::Subject::Starve => starve::run(&mut world, &mut tally)?,
        }
    }
    Ok(tally.print())
}
