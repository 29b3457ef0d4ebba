//! `cofferdam features`

use super::args::{ANY, Grammar, Words};
use super::{Context, say};
use crate::error::Error;
use crate::features::Features;

pub static GRAMMAR: Grammar = Grammar {
    name: "features",
    summary: "print what this runtime can do as JSON",
    arguments: "",
    about: "The document is described in features.md of the runtime-spec.",
    flags: &[],
    count: (0, 0),
    verbatim_after: ANY,
};

pub fn run(_context: &Context, _said: &Words) -> Result<i32, Error> {
    say(&Features::probe().to_json()).map(|()| 0)
}
