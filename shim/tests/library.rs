//! The Task API carried out by the library in the shim's own process.

mod support;
mod task;

/// No `BinaryName`.
const RUNTIME: &str = "";
