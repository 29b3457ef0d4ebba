//! `cofferdam delete`

use super::args::{ANY, Grammar, Words, switch};
use super::{Context, each_match};
use crate::error::Error;
use crate::notify;

pub static GRAMMAR: Grammar = Grammar {
    name: "delete",
    summary: "delete what a container holds",
    arguments: "<container-id>",
    about: "",
    flags: &[
        switch("force", "f", "kill the container if it runs; one that does not exist is no error"),
        switch(
            "regex",
            "r",
            "the id is an extended regular expression: all containers whose ids have a match",
        ),
    ],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let id = said.argument(0)?;
    let force = said.on("force");
    if said.on("regex") {
        return each_match(context, id, |container| delete(context, container.id(), force).map(drop));
    }
    delete(context, id, force)
}

fn delete(context: &Context, id: &str, force: bool) -> Result<i32, Error> {
    match context.store().load(id).and_then(|container| container.delete(force)) {
        Err(Error::NotFound { .. }) => {
            context.root.sweep(id)?;
            notify::forget(&context.root, id)?;
            if force { Ok(0) } else { Err(Error::NotFound { id: id.into() }) }
        }
        done => done.and_then(|()| notify::forget(&context.root, id)).map(|()| 0),
    }
}
