//! The runtime as a library: what the command line and the shim share.
//!
//! [`container`] is the face; [`launch`] carries plans out; [`state`] remembers; [`hooks`] and [`console`] serve both sides.
#![forbid(unsafe_code)]

pub mod cli;
pub mod console;
pub mod container;
mod create;
pub mod criu;
pub mod error;
mod exec;
pub mod features;
mod files;
pub mod hooks;
pub mod launch;
pub mod log;
pub mod notify;
mod pipes;
pub mod report;
mod sockets;
mod start;
pub mod state;
pub mod timeline;
