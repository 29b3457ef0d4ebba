//! `cofferdam resume`

use super::Context;
use super::args::{ANY, Grammar, Words};
use crate::error::Error;

pub static GRAMMAR: Grammar = Grammar {
    name: "resume",
    summary: "let the processes of a paused container go on",
    arguments: "<container-id>",
    about: "",
    flags: &[],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    context.store().load(said.argument(0)?)?.resume().map(|()| 0)
}
