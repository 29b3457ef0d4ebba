//! What a test has at hand: the runtime, a place to work, a cgroup to work below.

use super::call::Call;
use super::host::Host;
use super::test::parse;
use super::{Bundle, Container, Out};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Who made a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// cofferdam
    Ours,
    /// runc of a version
    Runc([u32; 3]),
    /// Somebody else.
    Other,
}

/// A runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The program.
    pub path: PathBuf,
    /// Who made it.
    pub kind: Kind,
    /// How it calls itself: `runc 1.1.5`.
    pub label: String,
}

impl Runtime {
    /// Looks a runtime up and asks it who it is.
    pub fn find(word: &str) -> Result<Runtime, String> {
        let path = find_program(word).ok_or(format!("{word}: no such program"))?;
        let out =
            Command::new(&path).arg("--version").output().map_err(|error| format!("{word}: {error}"))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let line = text.lines().next().unwrap_or_default();
        let (name, version) = line.split_once(" version ").ok_or(format!("{word} says {line:?}"))?;
        let kind = match name {
            "cofferdam" => Kind::Ours,
            "runc" => Kind::Runc(parse(version)),
            _ => Kind::Other,
        };
        Ok(Runtime { path, kind, label: format!("{name} {version}") })
    }
}

/// An absolute path of a program.
pub fn find_program(word: &str) -> Option<PathBuf> {
    if word.contains('/') {
        return std::fs::canonicalize(word).ok();
    }
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    path.split(':').map(|dir| Path::new(dir).join(word)).find(|file| file.is_file())
}

/// A test's world.
pub struct T {
    /// The runtime under test.
    pub runtime: Runtime,
    /// The one to compare with.
    pub peer: Option<Runtime>,
    /// An earlier build of it.
    pub previous: Option<Runtime>,
    /// The machine.
    pub host: Host,
    /// This test's own directory.
    pub dir: PathBuf,
    /// busybox's root file system, to copy.
    pub image: PathBuf,
    /// The program that looks around inside.
    pub probe: PathBuf,
    /// The cgroup below which the test makes its own: `/cofferdam-test-PID/N`.
    pub cgroup: String,
    /// systemd makes the cgroups.
    pub systemd: bool,
    /// How much slower the machine is than an ordinary one.
    pub patience: u32,
    /// Something no other test has in its names.
    pub tag: String,
    numbers: Cell<u32>,
    mounts: RefCell<Vec<PathBuf>>,
    caller: RefCell<Option<Caller>>,
}

/// Somebody other than root who makes the calls.
#[derive(Clone)]
struct Caller {
    /// Words in front of the call's own.
    front: Vec<String>,
    /// A copy of the runtime where everybody can reach it.
    program: PathBuf,
}

/// What is in the names of everything of the test with this cgroup.
pub fn tag(cgroup: &str) -> String {
    cgroup.trim_start_matches("/cofferdam-test-").replace('/', "-")
}

/// The ordinary user of [`T::as_user`].
pub const USER: u32 = 4242;

impl T {
    /// A world for one test; its directory is there.
    #[expect(clippy::too_many_arguments, reason = "the supervisor alone makes one")]
    pub fn new(
        runtime: Runtime,
        peer: Option<Runtime>,
        previous: Option<Runtime>,
        dir: PathBuf,
        image: PathBuf,
        probe: PathBuf,
        cgroup: String,
        systemd: bool,
        patience: u32,
    ) -> T {
        let tag = tag(&cgroup);
        T {
            runtime,
            peer,
            previous,
            host: Host::probe(),
            dir,
            image,
            probe,
            cgroup,
            systemd,
            patience,
            tag,
            numbers: Cell::new(0),
            mounts: RefCell::new(Vec::new()),
            caller: RefCell::new(None),
        }
    }

    /// From here on an ordinary user makes the calls, [`USER`], who owns the test's directory. `first` is what a shell does
    /// in front of that, as root.
    pub fn as_user(&self, first: &str) {
        let ids = format!("{USER}");
        let user =
            ["/usr/bin/setpriv", "--reuid", &ids, "--regid", &ids, "--clear-groups", "--inh-caps=-all"];
        self.through(first, &user);
        std::os::unix::fs::chown(&self.dir, Some(USER), Some(USER)).expect("chown");
    }

    /// From here on the calls are made through this program, behind what a shell does first.
    pub fn through(&self, first: &str, words: &[&str]) {
        let script = format!("{first}\nexec \"$@\"");
        let mut front: Vec<String> =
            ["/bin/busybox", "sh", "-c", &script, "sh"].iter().map(|word| (*word).to_owned()).collect();
        front.extend(words.iter().map(|word| (*word).to_owned()));
        let program = self.path("runtime");
        std::fs::copy(&self.runtime.path, &program).expect("copy the runtime");
        for dir in self.dir.ancestors().take(2) {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir, mode).expect("chmod");
        }
        *self.caller.borrow_mut() = Some(Caller { front, program });
    }

    /// The words that a call begins with: who makes it, and the runtime.
    pub fn caller(&self) -> (Vec<String>, PathBuf) {
        match &*self.caller.borrow() {
            Some(caller) => (caller.front.clone(), caller.program.clone()),
            None => (Vec::new(), self.runtime.path.clone()),
        }
    }

    /// Whether cofferdam is tested: exact messages are asked of it alone.
    pub fn is_ours(&self) -> bool {
        self.runtime.kind == Kind::Ours
    }

    /// Whether the runtime is runc below a version.
    pub fn is_runc_below(&self, version: &str) -> bool {
        matches!(&self.runtime.kind, Kind::Runc(have) if *have < parse(version))
    }

    /// Ends the test as skipped.
    pub fn skip(&self, reason: &str) -> ! {
        self.unmount_all();
        println!("{reason}");
        std::process::exit(super::supervisor::SKIPPED);
    }

    /// A number that this test has not used.
    pub fn number(&self) -> u32 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// A time limit that fits this machine.
    pub fn seconds(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds) * self.patience
    }

    /// How often a race is run: on a slow machine as often as there is time for, but not seldom.
    pub fn rounds(&self, rounds: u32) -> u32 {
        (rounds / self.patience).max(8)
    }

    /// A new bundle of busybox with runc's default config, without a terminal.
    pub fn bundle(&self) -> Bundle {
        Bundle::new(self, &self.dir.join(format!("bundle{}", self.number())))
    }

    /// A container's name that nobody else has.
    pub fn id(&self) -> String {
        format!("ct-{}-{}", self.tag, self.number())
    }

    /// A container of the bundle as it is configured now.
    pub fn container(&self, bundle: &Bundle) -> Container<'_> {
        Container::new(self, bundle, self.id())
    }

    /// A call of the runtime with the global flags that every test has.
    pub fn call<S: AsRef<str>>(&self, words: &[S]) -> Call<'_> {
        Call::new(self, &self.runtime, words)
    }

    /// Runs a script in a container of the bundle to its end; what it printed.
    pub fn sh(&self, bundle: &Bundle, script: &str) -> String {
        self.run(bundle, &["sh", "-c", script]).ok().stdout
    }

    /// Runs a program in a container of the bundle to its end.
    pub fn run(&self, bundle: &Bundle, args: &[&str]) -> Out {
        let bundle = bundle.clone().args(args);
        let container = self.container(&bundle);
        let out = container.run();
        container.delete_if_there();
        out
    }

    /// What the probe sees in a container of the bundle.
    pub fn see(&self, bundle: &Bundle) -> Value {
        bundle.add_probe(self);
        let out = self.run(bundle, &["/bin/probe", "see"]).ok();
        serde_json::from_str(&out.stdout).unwrap_or_else(|error| panic!("{error}: {}", out.stdout))
    }

    /// Asserts that a container of the bundle cannot be created, and that nothing is left of it; the message.
    pub fn refused(&self, bundle: &Bundle) -> String {
        let container = self.container(bundle);
        let message = container.create().fails().message();
        self.nothing_is_left(&container);
        message
    }

    /// Asserts that a failed container has no state, process or cgroup.
    pub fn nothing_is_left(&self, container: &Container) {
        let state = self.state_dir().join(&container.id);
        assert!(!state.exists(), "{} is left", state.display());
        let dirs = super::cgroups::places(&self.host, &container.cgroup);
        assert!(dirs.is_empty(), "cgroups are left: {dirs:?}");
        let gone = || super::procs::descendants(nix::unistd::getppid().as_raw()).len() <= 1;
        let left = || -> Vec<String> {
            let all = super::procs::descendants(nix::unistd::getppid().as_raw());
            all.into_iter().map(super::procs::command_line).collect()
        };
        assert!(super::procs::wait_until(self.seconds(5), gone), "processes are left: {:?}", left());
    }

    /// Where the runtime keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A path below the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A directory below the test's directory, made.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("mkdir");
        path
    }

    /// Mounts something in this test's mount namespace; it goes at the test's end.
    pub fn mount(&self, source: &str, target: &Path, fstype: &str, flags: MsFlags, data: &str) {
        if !target.exists() {
            std::fs::create_dir_all(target).expect("mkdir");
        }
        if let Err(errno) = mount(Some(source), target, Some(fstype), flags, Some(data)) {
            panic!("mount {fstype} on {}: {errno}", target.display());
        }
        self.mounts.borrow_mut().push(target.to_owned());
    }

    /// A bind mount, as [`T::mount`].
    pub fn bind(&self, source: &Path, target: &Path) {
        self.mount(&source.to_string_lossy(), target, "none", MsFlags::MS_BIND, "");
    }

    /// Takes the test's own mounts away.
    pub fn unmount_all(&self) {
        for target in self.mounts.borrow_mut().drain(..).rev() {
            let _ = umount2(&target, MntFlags::MNT_DETACH);
        }
    }
}
