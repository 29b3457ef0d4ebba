//! `cofferdam start`

use super::args::{ANY, Grammar, Words};
use super::{Context, TIMELINE};
use crate::error::Error;
use crate::notify::Notify;
use crate::timeline;

pub static GRAMMAR: Grammar = Grammar {
    name: "start",
    summary: "run the process of a created container",
    arguments: "<container-id>",
    about: "Returns when the process has begun and the poststart hooks have run.",
    flags: &[TIMELINE],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let id = said.argument(0)?;
    let container = timeline::timed("read the state", || context.store().load(id))?;
    let notify = Notify::listen(&context.root, container.id())?;
    container.start()?;
    if let (Some(notify), Some(init)) = (notify, container.saved().init) {
        notify.relay(&init, true)?;
    }
    Ok(0)
}
