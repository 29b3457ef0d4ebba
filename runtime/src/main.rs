//! The command line of the runtime.
#![no_main]

#[global_allocator]
static ALLOCATOR: cofferdam_sys::allocate::Classes = cofferdam_sys::allocate::Classes::new();

cofferdam_sys::hosted_entry!(cofferdam::cli::main);
