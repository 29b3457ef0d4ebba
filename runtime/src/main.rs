//! The command line of the runtime.
#![no_main]

cofferdam_sys::hosted_entry!(cofferdam::cli::main);
