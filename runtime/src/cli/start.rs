//! `cofferdam start`

use super::Context;
use super::args::{ANY, Grammar, Words};
use crate::error::Error;
use crate::notify::Notify;

pub static GRAMMAR: Grammar = Grammar {
    name: "start",
    summary: "run the process of a created container",
    arguments: "<container-id>",
    about: "Returns when the process has begun and the poststart hooks have run.",
    flags: &[],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let container = context.store().load(said.argument(0)?)?;
    let notify = Notify::listen(&context.root, container.id())?;
    container.start()?;
    if let (Some(notify), Some(init)) = (notify, container.saved().init) {
        notify.relay(&init, true)?;
    }
    Ok(0)
}
