//! `cofferdam list`

use super::args::{ANY, Grammar, Words, switch, value};
use super::{Context, say, table};
use crate::error::{Error, message};
use crate::state::{Summary, user_name};
use std::collections::BTreeMap;
use std::io;

pub static GRAMMAR: Grammar = Grammar {
    name: "list",
    summary: "list the containers of the root",
    arguments: "",
    about: "",
    flags: &[value("format", "f", "table or json"), switch("quiet", "q", "print ids only")],
    count: (0, 0),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let summaries = summaries(context)?;
    if said.on("quiet") {
        let ids: String = summaries.iter().map(|summary| format!("{}\n", summary.id)).collect();
        return say(&ids).map(|()| 0);
    }
    let text = match said.text("format")? {
        None | Some("table") => rows(&summaries),
        // Go's JSON of an empty list that was never made, which callers know from runc.
        Some("json") if summaries.is_empty() => "null\n".into(),
        Some("json") => match serde_json::to_string(&summaries) {
            Ok(text) => text + "\n",
            Err(error) => return Err(Error::below("print the list", error)),
        },
        Some(_) => return Err(Error::usage("invalid format option")),
    };
    say(&text).map(|()| 0)
}

/// Every container that can be read; for the others a line in the log.
fn summaries(context: &Context) -> Result<Vec<Summary>, Error> {
    let path = context.root.path();
    if context.explicit_root && !path.exists() {
        return Err(Error::io("open", path, io::Error::from_raw_os_error(nix::libc::ENOENT)));
    }
    let (mut summaries, mut owners) = (Vec::new(), BTreeMap::new());
    let store = context.store();
    for container in store.list()? {
        match container.summary() {
            Ok(mut summary) => {
                let uid = container.home().owner();
                let named = uid.map(|uid| owners.entry(uid).or_insert_with(|| user_name(uid)).clone());
                summary.owner = named.unwrap_or_default();
                summaries.push(summary);
            }
            Err(error) => tracing::error!("status for {}: {}", container.id(), message(&error)),
        }
    }
    Ok(summaries)
}

fn rows(summaries: &[Summary]) -> String {
    let title = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let rows = summaries.iter().map(|one| {
        [
            one.id.clone(),
            one.pid.to_string(),
            one.status.to_string(),
            one.bundle.clone(),
            one.created.clone(),
            one.owner.clone(),
        ]
    });
    table::layout(&std::iter::once(title).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Status;

    #[test]
    fn the_table_is_runcs() {
        let summary = Summary {
            oci_version: "1.3.0".into(),
            id: "web".into(),
            pid: 4711,
            status: Status::Running,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2024-03-01T00:00:00.005000000Z".into(),
            annotations: Default::default(),
            owner: "root".into(),
        };
        assert_eq!(
            rows(&[summary]),
            "ID          PID         STATUS      BUNDLE      CREATED                          OWNER\n\
             web         4711        running     /b          2024-03-01T00:00:00.005000000Z   root\n"
        );
        assert_eq!(rows(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }
}
