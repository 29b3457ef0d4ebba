//! The image: see the library.
#![no_std]
#![no_main]

cofferdam_sys::entry!(cofferdam_init::main);
