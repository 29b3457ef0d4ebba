//! The command line: one file a verb. A verb's file has its grammar and turns words into calls; what the calls do is
//! elsewhere.

pub mod args;
mod checkpoint;
mod create;
mod delete;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod plan;
mod ps;
mod restore;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod table;
mod update;
mod words;

use crate::container::Store;
use crate::error::{Error, message};
use crate::log::{self, Format, Log};
use crate::state::Root;
use args::{ANY, Flag, Grammar, Words, flag_lines, switch, value};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use tracing::Level;

/// A verb.
struct Verb {
    grammar: &'static Grammar,
    run: fn(&Context, &Words) -> Result<i32, Error>,
    /// The exit status when it fails.
    failure: i32,
}

const fn verb(grammar: &'static Grammar, run: fn(&Context, &Words) -> Result<i32, Error>) -> Verb {
    Verb { grammar, run, failure: 1 }
}

static VERBS: [Verb; 18] = [
    verb(&create::GRAMMAR, create::run),
    verb(&run::GRAMMAR, run::run),
    verb(&start::GRAMMAR, start::run),
    verb(&state::GRAMMAR, state::run),
    verb(&kill::GRAMMAR, kill::run),
    verb(&delete::GRAMMAR, delete::run),
    // A caller must be able to tell our failure from the process's.
    Verb { failure: 255, ..verb(&exec::GRAMMAR, exec::run) },
    verb(&list::GRAMMAR, list::run),
    verb(&ps::GRAMMAR, ps::run),
    verb(&pause::GRAMMAR, pause::run),
    verb(&resume::GRAMMAR, resume::run),
    verb(&update::GRAMMAR, update::run),
    verb(&spec::GRAMMAR, spec::run),
    verb(&features::GRAMMAR, features::run),
    verb(&plan::GRAMMAR, plan::run),
    verb(&checkpoint::GRAMMAR, checkpoint::run),
    verb(&restore::GRAMMAR, restore::run),
    verb(&HELP, help),
];

static GLOBAL: Grammar = Grammar {
    name: "",
    summary: "",
    arguments: "",
    about: "",
    flags: &[
        value(
            "root",
            "",
            "directory for the state of containers; /run/cofferdam, or $XDG_RUNTIME_DIR/cofferdam for ordinary users",
        ),
        value("log", "", "file that the log is appended to; stderr if absent"),
        value("log-format", "", "text or json"),
        value("log-level", "", "error, warning, info or debug"),
        switch("debug", "", "log what is done and how long it takes"),
        switch("systemd-cgroup", "", "let systemd make cgroups: cgroupsPath is slice:prefix:name"),
        value("cgroup-manager", "", "systemd or cgroupfs, as crun names the same"),
        value("rootless", "", "forgive refused cgroups: true, false or auto"),
        switch("version", "v", "print the version"),
    ],
    count: (1, ANY),
    verbatim_after: ANY,
};

static HELP: Grammar = Grammar {
    name: "help",
    summary: "show help",
    arguments: "[command]",
    about: "",
    flags: &[] as &[Flag],
    count: (0, 1),
    verbatim_after: ANY,
};

/// What stands in front of the verb.
pub struct Context {
    /// How the program was called.
    program: String,
    root: Root,
    /// `--root` was given.
    explicit_root: bool,
    /// `--systemd-cgroup`
    pub systemd_cgroup: bool,
    /// `--rootless`; none is `auto`.
    rootless: Option<bool>,
}

impl Context {
    fn new(program: String, said: &Words) -> Result<Context, Error> {
        let root = match said.value("root") {
            Some(path) => Root::new(explicit_root(path)?),
            None => default_root(),
        };
        let manager = match said.text("cgroup-manager")? {
            None => said.on("systemd-cgroup"),
            Some("systemd") => true,
            Some("cgroupfs") => said.on("systemd-cgroup"),
            Some("disabled") => {
                let text = "--cgroup-manager disabled is not supported: every container has a cgroup";
                return Err(Error::Unsupported(text.into()));
            }
            Some(other) => return Err(Error::Usage(format!("invalid cgroup manager {other:?}"))),
        };
        let rootless = match said.text("rootless")? {
            None | Some("auto") => None,
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Some(true),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Some(false),
            Some(other) => return Err(Error::Usage(format!("invalid value {other:?} for --rootless"))),
        };
        let explicit_root = said.value("root").is_some();
        Ok(Context { program, root, explicit_root, systemd_cgroup: manager, rootless })
    }

    /// Whether a cgroup that may not be made is forgiven: `auto` does so for whoever is not root of the machine.
    pub fn forgives_cgroups(&self) -> bool {
        self.rootless.unwrap_or_else(|| !nix::unistd::geteuid().is_root() || in_user_namespace())
    }

    /// The containers.
    pub fn store(&self) -> Store {
        Store::new(self.root.clone())
    }
}

/// runc's rule: relative to here, and never `/`, which is what an empty variable in a script makes of it.
fn explicit_root(path: &OsStr) -> Result<PathBuf, Error> {
    let root = absolute(Path::new(path))?;
    if root == Path::new("/") {
        Err(Error::usage("Option --root argument should not be set to /"))
    } else {
        Ok(root)
    }
}

/// An ordinary user has a root below XDG_RUNTIME_DIR. So has root of a user namespace, unless it says that it is `root`:
/// then it is somebody who manages containers there as on a machine of its own.
fn default_root() -> Root {
    let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") else { return Root::by_default(false, None) };
    let rootless = !nix::unistd::geteuid().is_root()
        || (std::env::var_os("USER").is_none_or(|user| user != "root") && in_user_namespace());
    Root::by_default(rootless, Some(&dir))
}

fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}

/// The path from `/`, without `.` and `..`, by its text alone (as Go's `filepath.Abs`).
pub fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let whole = if path.is_absolute() {
        path.to_path_buf()
    } else {
        let here =
            std::env::current_dir().map_err(|error| Error::call("find the current directory", error))?;
        here.join(path)
    };
    let mut clean = PathBuf::from("/");
    for part in whole.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    Ok(clean)
}

/// Writes to stdout.
pub fn say(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::call("write to stdout", error))
}

/// Runs the command line of this process; the value is its exit status.
pub fn main() -> i32 {
    let mut words = std::env::args_os();
    let program = words.next().as_deref().and_then(|name| Path::new(name).file_name().map(OsStr::to_owned));
    let program = program.and_then(|name| name.into_string().ok()).unwrap_or_else(|| "cofferdam".into());
    let mut failure = 1;
    enter(program, &mut words, &mut failure).unwrap_or_else(|error| {
        log::fatal(&message(&error));
        failure
    })
}

fn enter(
    program: String,
    words: &mut dyn Iterator<Item = OsString>,
    failure: &mut i32,
) -> Result<i32, Error> {
    let said = GLOBAL.parse(words, true)?;
    if said.on("version") {
        return say(&version()).map(|()| 0);
    }
    let Some(name) = said.rest.first().filter(|_| !said.help) else {
        return say(&overview(&program)).map(|()| i32::from(!said.help));
    };
    open_log(&said)?;
    let Some(verb) = VERBS.iter().find(|verb| *verb.grammar.name == **name) else {
        return Err(Error::Usage(format!("No help topic for '{}'", name.display())));
    };
    let heard = verb.grammar.parse(words, false)?;
    if heard.help {
        return say(&verb.grammar.help(&program)).map(|()| 0);
    }
    verb.grammar.check_count(&heard)?;
    let context = Context::new(program, &said)?;
    *failure = verb.failure;
    (verb.run)(&context, &heard)
}

fn open_log(said: &Words) -> Result<(), Error> {
    let format = match said.text("log-format")? {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(Error::Usage(format!("invalid log-format: {other}"))),
    };
    let level = match said.text("log-level")? {
        _ if said.on("debug") => Level::DEBUG,
        None | Some("info") => Level::INFO,
        Some("error") => Level::ERROR,
        Some("warning" | "warn") => Level::WARN,
        Some("debug") => Level::DEBUG,
        Some(other) => return Err(Error::Usage(format!("invalid log-level: {other}"))),
    };
    Log::open(said.path("log").as_deref(), format, level).map(Log::install)
}

/// runc's shape: engines take the first line apart at the word "version", and show the rest.
fn version() -> String {
    format!(
        "cofferdam version {}\ncommit: {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        crate::features::COMMIT,
        cofferdam_spec::OCI_VERSION
    )
}

fn overview(program: &str) -> String {
    let mut page = format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\n\
         USAGE:\n   {program} [global options] command [options] [arguments...]\n\n\
         A bundle is a directory with a file config.json (`{program} spec` writes an example) and the container's files.\n\
         `{program} run ID` runs it, `{program} plan` prints what that would do.\n\nCOMMANDS:\n"
    );
    for verb in &VERBS {
        page.push_str(&format!("   {:<11} {}\n", verb.grammar.name, verb.grammar.summary));
    }
    page.push_str("\nGLOBAL OPTIONS:\n");
    page.push_str(&flag_lines(GLOBAL.flags));
    page
}

fn help(context: &Context, said: &Words) -> Result<i32, Error> {
    let Some(name) = said.rest.first() else { return say(&overview(&context.program)).map(|()| 0) };
    match VERBS.iter().find(|verb| *verb.grammar.name == **name) {
        Some(verb) => say(&verb.grammar.help(&context.program)).map(|()| 0),
        None => Err(Error::Usage(format!("No help topic for '{}'", name.display()))),
    }
}
