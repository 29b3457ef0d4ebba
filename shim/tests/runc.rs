//! The Task API carried out by another runtime's binary, which `BinaryName` names.

mod support;
mod task;

const RUNTIME: &str = "runc";
