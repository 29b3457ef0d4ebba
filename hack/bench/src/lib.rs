//! Measures cofferdam beside its peers and beside the bare kernel (the floor).
//!
//! `cofferdam-bench --help` says how to call it; `README.md` in this folder says how it measures. One file of
//! [`subjects`] is one thing that is measured.

pub mod bench;
pub mod bounded;
pub mod bundles;
pub mod floor;
pub mod instructions;
pub mod kernel;
pub mod machine;
pub mod options;
pub mod peers;
pub mod series;
pub mod shim;
pub mod subjects;
pub mod syscalls;
pub mod table;

/// Whatever stops a measurement; its text is for the person who reads the tables.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
