//! `cofferdam restore`

use super::Context;
use super::args::{ANY, Grammar, Words};
use crate::error::Error;

pub static GRAMMAR: Grammar = Grammar {
    name: "restore",
    summary: "run a container from a checkpoint (not supported yet)",
    arguments: "<container-id>",
    about: "",
    flags: &[],
    count: (0, ANY),
    verbatim_after: 0,
};

pub fn run(_context: &Context, _said: &Words) -> Result<i32, Error> {
    Err(Error::Unsupported("restore is not supported by this version of cofferdam".into()))
}
