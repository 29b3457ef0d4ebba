//! The command: see the library's head.

use cofferdam_bench::options::{self, Options, Task};
use cofferdam_bench::{Result, instructions, kernel, shim, subjects, syscalls};
use std::process::ExitCode;

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
            shim::list();
        }
        Task::Time => subjects::measure(options)?,
        Task::Syscalls => syscalls::count(options)?,
        Task::Instructions => instructions::count(options)?,
        Task::Shim => shim::measure(options)?,
        Task::Kernel => kernel::trace_floor(options)?,
    }
    Ok(())
}
