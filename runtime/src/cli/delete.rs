//! `cofferdam delete`

use super::Context;
use super::args::{ANY, Grammar, Words, switch};
use crate::error::Error;
use crate::notify;

pub static GRAMMAR: Grammar = Grammar {
    name: "delete",
    summary: "delete what a container holds",
    arguments: "<container-id>",
    about: "",
    flags: &[switch("force", "f", "kill the container if it runs; one that does not exist is no error")],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let id = said.argument(0)?;
    let force = said.on("force");
    match context.store().load(id).and_then(|container| container.delete(force)) {
        Err(Error::NotFound { .. }) => {
            context.root.sweep(id)?;
            notify::forget(&context.root, id)?;
            if force { Ok(0) } else { Err(Error::NotFound { id: id.into() }) }
        }
        done => done.and_then(|()| notify::forget(&context.root, id)).map(|()| 0),
    }
}
