//! `cofferdam mounts`

use super::Context;
use super::args::{ANY, Grammar, Words};
use crate::error::Error;
use cofferdam_spec::Mount;
use std::fs::File;
use std::io::Read;

/// More than this is no list of mounts.
const MAX_MOUNTS: u64 = 1 << 20;

pub static GRAMMAR: Grammar = Grammar {
    name: "mounts",
    summary: "add mounts to a running container, or remove them",
    arguments: "add|remove <container-id> <file>",
    about: "The file has mounts as JSON, in the words of config.json: a list, or an object with a list `mounts`; - is stdin. Of those that \
            are removed only the destination counts. Either all are added or none.",
    flags: &[],
    count: (3, 3),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let add = match said.argument(0)? {
        "add" => true,
        "remove" => false,
        other => return Err(Error::Usage(format!("mounts: {other:?} is neither add nor remove"))),
    };
    let container = context.store().load(said.argument(1)?)?;
    let mounts = match said.argument(2)? {
        "-" => read(std::io::stdin().lock(), "stdin")?,
        path => read(File::open(path).map_err(|error| Error::io("open", path, error))?, path)?,
    };
    if add {
        container.add_mounts(&mounts)?
    } else {
        container.remove_mounts(&mounts)?
    }
    Ok(0)
}

fn read(input: impl Read, name: &str) -> Result<Vec<Mount>, Error> {
    let mut text = Vec::new();
    let taken = input.take(MAX_MOUNTS + 1).read_to_end(&mut text);
    taken.map_err(|error| Error::call(format!("read {name}"), error))?;
    if text.len() as u64 > MAX_MOUNTS {
        return Err(Error::Usage(format!("{name}: larger than {MAX_MOUNTS} bytes")));
    }
    cofferdam_spec::parse_mounts(&text)
        .map_err(|error| Error::below(format!("read mounts from {name}"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_names_the_file() {
        let error = crate::error::message(&read(&b"{}"[..], "x.json").unwrap_err());
        assert_eq!(error, "read mounts from x.json: mounts: missing field `mounts` (line 1)");
    }
}
