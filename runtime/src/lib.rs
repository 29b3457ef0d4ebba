//! The runtime as a library: what the command line and the shim share.
#![forbid(unsafe_code)]

pub mod error;
pub mod report;
pub mod state;
