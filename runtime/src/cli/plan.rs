//! `cofferdam plan`

use super::args::{ANY, Grammar, Words, switch, value};
use super::create::{self, BUNDLE, CONFIG, NO_NEW_KEYRING, NO_PIVOT, PRESERVE_FDS};
use super::{Context, say};
use crate::create::plan_options;
use crate::error::Error;
use cofferdam_plan::{Filter, Host, HostStep, Options};
use std::ffi::OsString;

pub static GRAMMAR: Grammar = Grammar {
    name: "plan",
    summary: "print what creating a container would do",
    arguments: "[container-id]",
    about: "Needs no privileges and changes nothing. Values of environment variables are left out.",
    flags: &[
        BUNDLE,
        CONFIG,
        value("format", "", "text or json"),
        switch("run", "", "the plan of run, in place of create's"),
        NO_PIVOT,
        NO_NEW_KEYRING,
        PRESERVE_FDS,
    ],
    count: (0, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let mut said = said.clone();
    if said.rest.is_empty() {
        said.rest.push(OsString::from("example"));
    }
    let mut options = create::options(context, &said)?;
    options.run = said.on("run");
    let console = create::terminal(&options);
    let Some(spec) = options.spec.take() else { return Err(Error::usage("there is no config.json")) };
    let host = Host::probe(&cofferdam_plan::needs(&spec))
        .map_err(|error| Error::call("look at this machine", error))?;
    // Somebody would hold the terminal.
    let plan_options = Options { console, ..plan_options(&options, &host) };
    let mut plan = cofferdam_plan::compile(&spec, &host, &plan_options)?;
    if plan.host.contains(&HostStep::CompileFilter) {
        let (filter, mut warnings) = Filter::compile(&spec, &host)?;
        plan.show_filter(filter);
        plan.warnings.append(&mut warnings);
    }
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let text = match said.text("format")? {
        None | Some("text") => plan.to_string(),
        Some("json") => plan.to_json() + "\n",
        Some(_) => return Err(Error::usage("invalid format option")),
    };
    say(&text).map(|()| 0)
}
