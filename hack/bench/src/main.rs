//! Measures cofferdam beside its peers and beside the bare kernel (the floor).
//!
//! `cofferdam-bench --help` says how to call it; `README.md` in this folder says how it measures.

mod bench;
mod bounded;
mod bundles;
mod floor;
mod instructions;
mod kernel;
mod machine;
mod options;
mod peers;
mod series;
mod subjects;
mod syscalls;
mod table;

use options::{Options, Task};
use std::process::ExitCode;

/// Whatever stops a measurement; its text is for the person who reads the tables.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let done = Options::parse(std::env::args().skip(1)).and_then(|options| run(&options));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cofferdam-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    match options.task {
        Task::Help => print!("{}", options::HELP),
        Task::List => {
            for subject in subjects::ALL {
                println!("{:<14} {}", subject.name, subject.about);
            }
        }
        Task::Time => subjects::measure(options)?,
        Task::Syscalls => syscalls::count(options)?,
        Task::Instructions => instructions::count(options)?,
        Task::Kernel => kernel::trace_floor(options)?,
    }
    Ok(())
}
