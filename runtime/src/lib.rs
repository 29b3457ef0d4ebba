//! The runtime as a library: what the command line and the shim share.
#![forbid(unsafe_code)]

pub mod error;
pub mod launch;
pub mod log;
pub mod report;
pub mod state;
