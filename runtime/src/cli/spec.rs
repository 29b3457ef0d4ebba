//! `cofferdam spec`

use super::Context;
use super::args::{ANY, Grammar, Words, switch, value};
use crate::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

pub static GRAMMAR: Grammar = Grammar {
    name: "spec",
    summary: "write an example config.json",
    arguments: "",
    about: "The config.json runs a shell in the directory rootfs. To get one:\n\n   \
            mkdir rootfs && cp -a /bin/busybox rootfs && rootfs/busybox --install -s rootfs",
    flags: &[
        value("bundle", "b", "directory of the file; the current one if absent"),
        value("file", "f", "the file, if it is not to be the directory's config.json"),
        switch("rootless", "", "for an ordinary user: a user namespace, no network of its own, no limits"),
    ],
    count: (0, 0),
    verbatim_after: ANY,
};

pub fn run(_context: &Context, said: &Words) -> Result<i32, Error> {
    let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let text = cofferdam_spec::default_spec_json(only_cgroup2(), said.on("rootless").then_some(ids));
    let name = said.path("file").unwrap_or_else(|| PathBuf::from("config.json"));
    let path = said.path("bundle").unwrap_or_else(|| PathBuf::from(".")).join(&name);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::usage(format!("File {} exists. Remove it first", name.display())))
        }
        Err(error) => Err(Error::io("write", path, error)),
    }
}

/// Whether cgroup v2 is this machine's only hierarchy.
fn only_cgroup2() -> bool {
    cofferdam_cgroup::probe().is_ok_and(|layout| layout.version() == cofferdam_cgroup::Version::V2)
}
