//! The command line of the runtime.
#![forbid(unsafe_code)]

fn main() {
    std::process::exit(cofferdam::cli::main())
}
