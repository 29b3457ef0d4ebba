//! `cofferdam ps`

use super::args::{ANY, Grammar, Words, value};
use super::{Context, say};
use crate::error::Error;
use std::ffi::OsString;
use std::process::Command;

pub static GRAMMAR: Grammar = Grammar {
    name: "ps",
    summary: "list the processes of a container",
    arguments: "<container-id> [ps options]",
    about: "The table is that of ps(1), whose options may follow; -ef if there are none.",
    flags: &[value("format", "f", "table or json")],
    count: (1, ANY),
    verbatim_after: 1,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let pids = context.store().load(said.argument(0)?)?.pids()?;
    match said.text("format")? {
        None | Some("table") => say(&only(&pids, &ps(&said.rest[1..])?)?)?,
        Some("json") => {
            say(&format!("[{}]\n", pids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")))?
        }
        Some(_) => return Err(Error::usage("invalid format option")),
    }
    Ok(0)
}

/// What ps(1) prints.
fn ps(options: &[OsString]) -> Result<String, Error> {
    let usual = [OsString::from("-ef")];
    let options = if options.is_empty() { &usual } else { options };
    let mut ps = Command::new("ps");
    // Of a command with a PATH of its own, the standard library makes a fork. Of others a posix_spawn, which fails below a filter that
    // forbids clone3 and does not deny it.
    if let Some(path) = std::env::var_os("PATH") {
        ps.env("PATH", path);
    }
    let output = ps.args(options).output().map_err(|error| Error::call("run ps", error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::Usage(format!("ps: {}: {}", output.status, String::from_utf8_lossy(&said).trim())))
}

/// The title and the lines of these processes.
fn only(pids: &[i32], table: &str) -> Result<String, Error> {
    let mut lines = table.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Error::usage("couldn't find PID field in ps output"))?;
    let mut text = format!("{title}\n");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        let pid: i32 = pid.ok_or_else(|| Error::Usage(format!("unable to parse pid: {line:?}")))?;
        if pids.contains(&pid) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_remain() {
        let table =
            "UID   PID  PPID CMD\nroot    1     0 init\nroot   77     1 sh -c x\n\nroot  770     1 sleep\n";
        assert_eq!(only(&[77, 5], table).unwrap(), "UID   PID  PPID CMD\nroot   77     1 sh -c x\n");
        assert_eq!(only(&[1], "CMD\nx\n").unwrap_err().to_string(), "couldn't find PID field in ps output");
        assert_eq!(only(&[1], "PID\nx\n").unwrap_err().to_string(), "unable to parse pid: \"x\"");
    }
}
