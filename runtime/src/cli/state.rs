//! `cofferdam state`

use super::args::{ANY, Grammar, Words};
use super::{Context, say};
use crate::error::Error;

pub static GRAMMAR: Grammar = Grammar {
    name: "state",
    summary: "print the state of a container as JSON",
    arguments: "<container-id>",
    about: "",
    flags: &[],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let summary = context.store().load(said.argument(0)?)?.summary()?;
    let text =
        serde_json::to_string_pretty(&summary).map_err(|error| Error::below("print the state", error))?;
    say(&text)?;
    Ok(0)
}
