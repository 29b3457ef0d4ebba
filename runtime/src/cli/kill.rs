//! `cofferdam kill`

use super::args::{ANY, Grammar, Words, switch};
use super::{Context, each_match, words};
use crate::container::Container;
use crate::error::{Error, Verb};

pub static GRAMMAR: Grammar = Grammar {
    name: "kill",
    summary: "send a signal to a container",
    arguments: "<container-id> [signal]",
    about: "The signal is a number or a name, with or without SIG; SIGTERM if there is none.\n\
            It goes to the container's first process; where that has no pid namespace of its own, to every process.",
    flags: &[
        switch("all", "a", "send it to every process, and let a stopped container be no error").hidden(),
        switch(
            "regex",
            "r",
            "the id is an extended regular expression: to all whose ids have a match and that are not stopped",
        ),
    ],
    count: (1, 2),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let signal = match said.rest.len() {
        1 => nix::libc::SIGTERM,
        _ => words::signal(said.argument(1)?)?,
    };
    let id = said.argument(0)?;
    if said.on("regex") {
        return each_match(context, id, |container| kill(container, signal, true));
    }
    kill(&context.store().load(id)?, signal, said.on("all")).map(|()| 0)
}

fn kill(container: &Container, signal: i32, all: bool) -> Result<(), Error> {
    match container.kill(signal, all) {
        Err(Error::WrongState { verb: Verb::Kill, .. }) if all => Ok(()),
        done => done,
    }
}
