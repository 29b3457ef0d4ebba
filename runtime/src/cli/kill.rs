//! `cofferdam kill`

use super::args::{ANY, Grammar, Words, switch};
use super::{Context, words};
use crate::error::{Error, Verb};

pub static GRAMMAR: Grammar = Grammar {
    name: "kill",
    summary: "send a signal to a container",
    arguments: "<container-id> [signal]",
    about: "The signal is a number or a name, with or without SIG; SIGTERM if there is none.\n\
            It goes to the container's first process; where that has no pid namespace of its own, to every process.",
    flags: &[switch("all", "a", "send it to every process, and let a stopped container be no error").hidden()],
    count: (1, 2),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let signal = match said.rest.len() {
        1 => nix::libc::SIGTERM,
        _ => words::signal(said.argument(1)?)?,
    };
    let all = said.on("all");
    match context.store().load(said.argument(0)?)?.kill(signal, all) {
        Err(Error::WrongState { verb: Verb::Kill, .. }) if all => Ok(0),
        done => done.map(|()| 0),
    }
}
