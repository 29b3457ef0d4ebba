//! The command line: one file a verb. A verb's file has its grammar and turns words into calls; what the calls do is
//! elsewhere.

pub mod args;
mod checkpoint;
mod completion;
mod create;
mod delete;
mod event;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod mounts;
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

use crate::container::{Container, Driver, Rootless, Store};
use crate::error::{Error, message};
use crate::log::{self, Destination, Format, Log};
use crate::state::Root;
use crate::timeline::Recording;
use args::{ANY, Flag, Grammar, Words, flag_lines, switch, value};
use cofferdam_sys::pattern::Pattern;
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

static VERBS: [Verb; 21] = [
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
    verb(&mounts::GRAMMAR, mounts::run),
    verb(&events::GRAMMAR, events::run),
    verb(&spec::GRAMMAR, spec::run),
    verb(&features::GRAMMAR, features::run),
    verb(&plan::GRAMMAR, plan::run),
    verb(&checkpoint::GRAMMAR, checkpoint::run),
    verb(&restore::GRAMMAR, restore::run),
    verb(&completion::GRAMMAR, completion::run),
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
        value(
            "log",
            "",
            "file that the log is appended to ([file:]PATH), or journald:NAME or syslog:NAME; stderr if absent",
        ),
        value("log-format", "", "text or json"),
        value("log-level", "", "error, warning, info or debug"),
        switch("debug", "", "log what is done and how long it takes"),
        switch("systemd-cgroup", "", "let systemd make cgroups: cgroupsPath is slice:prefix:name"),
        value(
            "cgroup-manager",
            "",
            "systemd, cgroupfs or disabled: the last leaves containers in the caller's cgroup",
        ),
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
    /// `--systemd-cgroup` and `--cgroup-manager`
    pub driver: Driver,
    /// `--rootless`
    pub rootless: Rootless,
}

impl Context {
    fn new(program: String, said: &Words) -> Result<Context, Error> {
        let root = match said.value("root") {
            Some(path) => Root::new(explicit_root(path)?),
            None => default_root(),
        };
        let driver = match said.text("cgroup-manager")? {
            // podman may pass both.
            Some("disabled") => Driver::Disabled,
            Some("systemd") => Driver::Systemd,
            None | Some("cgroupfs") if said.on("systemd-cgroup") => Driver::Systemd,
            None | Some("cgroupfs") => Driver::Fs,
            Some(other) => return Err(Error::Usage(format!("invalid value {other:?} for --cgroup-manager"))),
        };
        let rootless = match said.text("rootless")? {
            None | Some("auto") => Rootless::Auto,
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Rootless::Yes,
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Rootless::No,
            Some(other) => return Err(Error::Usage(format!("invalid value {other:?} for --rootless"))),
        };
        let explicit_root = said.value("root").is_some();
        Ok(Context { program, root, explicit_root, driver, rootless })
    }

    /// How this program was called.
    pub fn program(&self) -> &str {
        &self.program
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
pub fn main(words: Vec<OsString>) -> i32 {
    let mut words = words.into_iter();
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
        return say(&version(&program)).map(|()| 0);
    }
    let Some(name) = said.rest.first().filter(|_| !said.help) else {
        return say(&overview(&program)).map(|()| 0);
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
    let _timed = tracing::debug_span!("command", name = verb.grammar.name).entered();
    let recording = match heard.path("timeline") {
        Some(path) => Some(Recording::begin(&path, format_args!("cofferdam {}", verb.grammar.name))?),
        None => None,
    };
    let done = (verb.run)(&context, &heard);
    match recording.map_or(Ok(()), Recording::end) {
        Err(error) if done.is_ok() => Err(error),
        _ => done,
    }
}

/// Does something with every container whose id a pattern is found in, in the order of their ids, whatever becomes of the others. That
/// there is none is no error; the last one that fails is.
fn each_match(
    context: &Context,
    pattern: &str,
    mut act: impl FnMut(&Container) -> Result<(), Error>,
) -> Result<i32, Error> {
    let pattern = Pattern::new(pattern)
        .map_err(|sentence| Error::Usage(format!("--regex: {pattern:?}: {}", sentence.to_lowercase())))?;
    let mut failed: Option<Error> = None;
    for container in context.store().list()?.filter(|container| pattern.is_in(container.id())) {
        if let Err(error) = act(&container)
            && let Some(earlier) = failed.replace(error)
        {
            tracing::error!("{}", message(&earlier));
        }
    }
    failed.map_or(Ok(0), Err)
}

/// Of the verbs that start something.
const TIMELINE: Flag =
    value("timeline", "", "write a trace of what took how long to this file: Perfetto and Chrome show it");

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
    let to = said.path("log").map(|word| Destination::of(word.as_os_str()));
    Log::open(to.as_ref(), format, level).map(Log::install)
}

/// runc's shape: engines take the first line apart at the word "version", and show the rest.
fn version(program: &str) -> String {
    format!(
        "{program} version {}\ncommit: {}\nspec: {}\n",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command line says: in front of the verb, the verb, behind it.
    fn heard(line: &str) -> (Words, &'static str, Words) {
        let mut words = line.split(' ').map(OsString::from);
        let global = GLOBAL.parse(&mut words, true).unwrap_or_else(|error| panic!("{line}: {error}"));
        let verb = VERBS.iter().find(|verb| *verb.grammar.name == *global.rest[0]);
        let verb = verb.unwrap_or_else(|| panic!("{line}: no such verb"));
        let said = verb.grammar.parse(&mut words, false).unwrap_or_else(|error| panic!("{line}: {error}"));
        verb.grammar.check_count(&said).unwrap_or_else(|error| panic!("{line}: {error}"));
        (global, verb.grammar.name, said)
    }

    /// That a line is understood as this verb, with this id, these switches and these values.
    fn means(line: &str, verb: &str, id: &str, switches: &[&str], values: &[(&str, &str)]) {
        let (_, name, said) = heard(line);
        assert_eq!((name, said.argument(0).unwrap()), (verb, id), "{line}");
        for switch in switches {
            assert!(said.on(switch), "{line}: {switch}");
        }
        for (flag, value) in values {
            assert_eq!(said.value(flag).unwrap(), *value, "{line}: {flag}");
        }
    }

    #[test]
    fn the_go_shim_is_understood() {
        let line = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup \
                    create --bundle /b --pid-file /b/init.pid --console-socket /s --no-pivot --no-new-keyring web";
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let (global, _, _) = heard(&line);
        assert!(global.on("systemd-cgroup"));
        assert_eq!(global.value("log-format").unwrap(), "json");
        let values = [("bundle", "/b"), ("pid-file", "/b/init.pid"), ("console-socket", "/s")];
        means(&line, "create", "web", &["no-pivot", "no-new-keyring"], &values);
        means("start web", "start", "web", &[], &[]);
        means("pause web", "pause", "web", &[], &[]);
        means("resume web", "resume", "web", &[], &[]);
        means(
            "exec --process /tmp/runc-process1 --console-socket /s --detach --pid-file /b/e.pid web",
            "exec",
            "web",
            &["detach"],
            &[("process", "/tmp/runc-process1"), ("console-socket", "/s"), ("pid-file", "/b/e.pid")],
        );
        means("kill --all web 9", "kill", "web", &["all"], &[]);
        means("kill web 15", "kill", "web", &[], &[]);
        means("ps --format json web", "ps", "web", &[], &[("format", "json")]);
        means("update --resources=- web", "update", "web", &[], &[("resources", "-")]);
        means("delete web", "delete", "web", &[], &[]);
        means("delete --force web", "delete", "web", &["force"], &[]);
        assert_eq!(heard("features").1, "features");
        for line in [
            "checkpoint --image-path P --work-path W --parent-path Q --tcp-established --ext-unix-sk --shell-job \
             --file-locks --empty-ns network --leave-running web",
            "restore --image-path P --work-path W --parent-path Q --detach --pid-file F --console-socket S --no-pivot \
             -no-subreaper --bundle B web",
        ] {
            heard(&line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }

    #[test]
    fn go_runcs_other_clients_are_understood() {
        means(
            "run --bundle /b --detach --pidfd-socket /s web",
            "run",
            "web",
            &["detach"],
            &[("pidfd-socket", "/s")],
        );
        assert_eq!(heard("list --format=json").2.value("format").unwrap(), "json");
        means("state web", "state", "web", &[], &[]);
        means("events --stats web", "events", "web", &["stats"], &[]);
        means("events --interval=5s web", "events", "web", &[], &[("interval", "5s")]);
        assert!(GLOBAL.parse(&mut ["--version".into()].into_iter(), true).unwrap().on("version"));
    }

    #[test]
    fn buildkit_is_understood() {
        let global = "--log /r/runc-log.json --log-format json";
        let line = format!("{global} run --bundle /b --no-pivot --keep web");
        means(&line, "run", "web", &["no-pivot", "keep"], &[("bundle", "/b")]);
        let line = format!("{global} exec --process /p --pid-file /f web");
        means(&line, "exec", "web", &[], &[("process", "/p"), ("pid-file", "/f")]);
        means(&format!("{global} kill web 9"), "kill", "web", &[], &[]);
        means(&format!("{global} delete web"), "delete", "web", &[], &[]);
    }

    #[test]
    fn conmon_and_podman_are_understood() {
        let global = "--systemd-cgroup --log-format=json --log --runtime-arg=/l";
        let line = format!(
            "{global} create --bundle /b --pid-file /p --no-pivot --no-new-keyring --preserve-fds 2 --console-socket /s web"
        );
        assert_eq!(heard(&line).0.value("log").unwrap(), "--runtime-arg=/l");
        let values = [("preserve-fds", "2"), ("console-socket", "/s")];
        means(&line, "create", "web", &["no-pivot", "no-new-keyring"], &values);
        means(
            &format!(
                "{global} exec --pid-file /p --process /f --detach --preserve-fds 1 --console-socket /s web"
            ),
            "exec",
            "web",
            &["detach"],
            &[("preserve-fds", "1")],
        );
        heard(
            "restore --bundle /b --pid-file /p --no-pivot --no-new-keyring --detach --image-path C --work-path B web",
        );
        heard(
            "restore --bundle /b --pid-file /p --detach --tcp-close --lsm-profile=selinux:L --lsm-mount-context=L web",
        );
        assert_eq!(
            heard("--cgroup-manager disabled state web").0.value("cgroup-manager").unwrap(),
            "disabled"
        );
        means("update --resources=/f web", "update", "web", &[], &[("resources", "/f")]);
        heard(
            "checkpoint --image-path P --work-path W --leave-running --pre-dump --parent-path ../pre-checkpoint web",
        );
    }

    #[test]
    fn cri_o_and_conmon_rs_are_understood() {
        let (_, _, said) = heard("--root /r --systemd-cgroup kill web TERM");
        assert_eq!(said.argument(1).unwrap(), "TERM");
        means("--root /r kill -a web 9", "kill", "web", &["all"], &[]);
        means("--root /r exec --process /p web", "exec", "web", &[], &[("process", "/p")]);
        means("--root /r update --resources - web", "update", "web", &[], &[("resources", "-")]);
        let line = "--log=/l --log-level=info --root=/r --systemd-cgroup create --bundle /b --pid-file /p --console-socket=/s web";
        means(line, "create", "web", &[], &[("console-socket", "/s")]);
        let (_, _, said) = heard("exec -d --console-socket=/s --tty --pid-file=/p web ls -l --tty=false");
        assert!(said.on("detach") && said.on("tty"));
        assert_eq!(said.rest, ["web", "ls", "-l", "--tty=false"]);
    }

    #[test]
    fn runcs_tests_put_options_behind_the_id() {
        means(
            "update web --memory 64M --cpu-quota -1",
            "update",
            "web",
            &[],
            &[("memory", "64M"), ("cpu-quota", "-1")],
        );
        assert_eq!(heard("update -r - web").2.value("resources").unwrap(), "-");
    }

    #[test]
    fn every_verb_has_a_help_page() {
        for verb in &VERBS {
            let page = verb.grammar.help("cofferdam");
            assert!(page.contains(&format!("cofferdam {} ", verb.grammar.name)), "{page}");
            assert!(!verb.grammar.summary.is_empty());
        }
        let page = overview("runc");
        assert!(page.starts_with("NAME:\n   runc - Open Container Initiative runtime\n"), "{page}");
        assert!(page.contains("   kill        send a signal to a container\n"), "{page}");
    }

    #[test]
    fn the_version_is_taken_apart_by_engines() {
        let text = version("cofferdam");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(concat!("cofferdam version ", env!("CARGO_PKG_VERSION"))));
        assert!(lines.next().unwrap().starts_with("commit: "));
        assert_eq!(lines.next(), Some("spec: 1.3.0"));
        // moby splits every line at that word.
        assert_eq!(text.matches("version").count(), 1);
    }

    #[test]
    fn paths_become_absolute_by_their_text() {
        let here = std::env::current_dir().unwrap();
        for (path, want) in [("/a/./b/../c/", "/a/c"), ("/..", "/"), ("/", "/")] {
            assert_eq!(absolute(Path::new(path)).unwrap(), Path::new(want));
        }
        assert_eq!(absolute(Path::new("x")).unwrap(), here.join("x"));
        assert_eq!(absolute(Path::new("")).unwrap(), here);
        for root in ["/", "/..", "//"] {
            let refusal = explicit_root(OsStr::new(root)).unwrap_err().to_string();
            assert_eq!(refusal, "Option --root argument should not be set to /");
        }
    }
}
