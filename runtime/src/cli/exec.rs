//! `cofferdam exec`

use super::args::{ANY, Grammar, Words, switch, value, values};
use super::create::{CONSOLE_SOCKET, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS, check_terminal};
use super::run::DETACH;
use super::{Context, TIMELINE};
use crate::console::{self, Foreground};
use crate::container::ExecOptions;
use crate::error::Error;
use crate::timeline;
use cofferdam_spec::Process;

pub static GRAMMAR: Grammar = Grammar {
    name: "exec",
    summary: "run another process in a container",
    arguments: "<container-id> <command> [command options] || -p process.json <container-id>",
    about: "The process is like the container's own, apart from what the options say. Waits for it and ends with its exit status;\n\
            255 if it could not be run.",
    flags: &[
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        value("cwd", "", "working directory in the container"),
        values("env", "e", "environment variable, NAME=value"),
        switch("tty", "t", "give the process a terminal"),
        value("user", "u", "uid[:gid] of the process"),
        values("additional-gids", "g", "supplementary group"),
        value("process", "p", "file with the whole process as JSON; no option about the process counts then"),
        DETACH,
        PID_FILE,
        value("process-label", "", "SELinux label"),
        value("apparmor", "", "AppArmor profile"),
        switch("no-new-privs", "", "set no_new_privs"),
        values("cap", "c", "capability to add to the bounding, effective and permitted sets"),
        TIMELINE,
        PRESERVE_FDS,
        values("cgroup", "", "[controller[,controller]:]path of a cgroup below the container's"),
        switch("ignore-paused", "", "go on although the container is paused"),
        switch("no-subreaper", "", "processes are never reparented to exec").ignored(),
    ],
    count: (1, ANY),
    verbatim_after: 1,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let id = said.argument(0)?;
    let container = timeline::timed("read the state", || context.store().load(id))?;
    let process = match said.path("process") {
        Some(path) => Process::load(&path)?,
        None => process(said, container.saved().kept().process.clone())?,
    };
    let (terminal, detach) = (process.terminal, said.on("detach"));
    let mut options = ExecOptions {
        process,
        console_socket: said.path("console-socket"),
        pid_file: said.path("pid-file"),
        pidfd_socket: said.path("pidfd-socket"),
        preserve_fds: said.number("preserve-fds")?.unwrap_or(0),
        cgroups: cgroups(&said.texts("cgroup")?)?,
        ignore_paused: said.on("ignore-paused"),
        ..ExecOptions::default()
    };
    check_terminal(terminal, detach, options.console_socket.is_some())?;
    if detach {
        return container.exec(&options).map(|_| 0);
    }
    let mut foreground = Foreground::begin(false)?;
    if terminal {
        options.console = Some(foreground.console()?);
        options.foreground = true;
        options.process.console_size = console::own_size().or(options.process.console_size);
    } else {
        options.stdio = foreground.streams()?;
    }
    let child = container.exec(&options)?;
    // The other end must close when init is done with it.
    drop(options);
    timeline::timed("wait for the process", || foreground.attend(&child))
}

/// The container's own process, as the flags change it.
fn process(said: &Words, mut process: Process) -> Result<Process, Error> {
    process.args =
        (1..said.rest.len()).map(|index| said.argument(index).map(String::from)).collect::<Result<_, _>>()?;
    if process.args.is_empty() {
        return Err(Error::usage("exec args cannot be empty"));
    }
    for (flag, field) in [
        ("cwd", &mut process.cwd),
        ("apparmor", &mut process.apparmor_profile),
        ("process-label", &mut process.selinux_label),
    ] {
        if let Some(text) = said.text(flag)? {
            *field = text.into();
        }
    }
    process.env.extend(said.texts("env")?.into_iter().map(String::from));
    // The container's own may have had one; this one has what it was asked for.
    process.terminal = said.on("tty");
    process.no_new_privileges = said.switch("no-new-privs").unwrap_or(process.no_new_privileges);
    add_capabilities(&said.texts("cap")?, &mut process);
    if let Some(user) = said.text("user")? {
        set_user(user, &mut process)?;
    }
    for gid in said.texts("additional-gids")? {
        process.user.additional_gids.push(id("additional gid", gid)?);
    }
    Ok(process)
}

/// Ambient ones only where config.json has inheritable ones, without which the kernel refuses them.
fn add_capabilities(names: &[&str], process: &mut Process) {
    if names.is_empty() {
        return;
    }
    let sets = process.capabilities.get_or_insert_default();
    let inheritable = !sets.inheritable.is_empty();
    for name in names {
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.push((*name).into());
        }
        if inheritable {
            sets.ambient.push((*name).into());
        }
    }
}

/// `uid[:gid]`, numbers only: a name would be looked up in a file that belongs to the container (CVE-2016-3697), and a number
/// that is read in part is somebody else (CVE-2026-30892).
fn set_user(text: &str, process: &mut Process) -> Result<(), Error> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    if let Some(gid) = gid {
        process.user.gid = id("gid", gid)?;
    }
    process.user.uid = id("uid", uid)?;
    Ok(())
}

fn id(what: &str, text: &str) -> Result<u32, Error> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        // The last one is the kernel's "no change".
        Ok(id) if digits && id != u32::MAX => Ok(id),
        _ => Err(Error::Usage(format!("bad {what}: {text:?} is no number from 0 to 4294967294"))),
    }
}

/// `--cgroup` as runc reads it: one path, or a path for each v1 controller.
fn cgroups(given: &[&str]) -> Result<Vec<(Option<String>, String)>, Error> {
    let mut subs: Vec<(Option<String>, String)> = Vec::new();
    for text in given {
        let Some((controllers, path)) = text.split_once(':') else {
            if given.len() != 1 {
                let text = format!("invalid --cgroup argument: {text} (missing <controller>: prefix)");
                return Err(Error::Usage(text));
            }
            return Ok(vec![(None, (*text).into())]);
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                let text = format!("invalid --cgroup argument: {text} (empty <controller> prefix)");
                return Err(Error::Usage(text));
            }
            if subs.iter().any(|(known, _)| known.as_deref() == Some(controller)) {
                let text =
                    format!("invalid --cgroup argument(s): controller {controller} specified multiple times");
                return Err(Error::Usage(text));
            }
            subs.push((Some(controller.into()), path.into()));
        }
    }
    Ok(subs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_spec::Capabilities;
    use std::ffi::OsString;

    fn changed(words: &[&str], process_: Process) -> Result<Process, Error> {
        let said = GRAMMAR.parse(&mut words.iter().map(OsString::from), false)?;
        process(&said, process_)
    }

    #[test]
    fn flags_change_the_containers_process() {
        let own = Process {
            terminal: true,
            cwd: "/".into(),
            env: vec!["A=1".into()],
            no_new_privileges: true,
            ..Process::default()
        };
        let words = [
            "-e",
            "B=2",
            "--cwd=/tmp",
            "-u",
            "5:6",
            "-g",
            "7",
            "-g=8",
            "--no-new-privs=false",
            "id",
            "ls",
            "-l",
        ];
        let process = changed(&words, own).unwrap();
        assert_eq!(process.args, ["ls", "-l"]);
        assert_eq!(process.env, ["A=1", "B=2"]);
        assert_eq!(
            (process.cwd.as_str(), process.terminal, process.no_new_privileges),
            ("/tmp", false, false)
        );
        assert_eq!((process.user.uid, process.user.gid, process.user.additional_gids), (5, 6, vec![7, 8]));
    }

    #[test]
    fn a_command_is_needed() {
        let refusal = changed(&["id"], Process::default()).unwrap_err().to_string();
        assert_eq!(refusal, "exec args cannot be empty");
    }

    #[test]
    fn cve_2026_30892_a_user_is_a_whole_number() {
        for (text, want) in [("1", Some((1, 9))), ("1:2", Some((1, 2))), ("0", Some((0, 9)))] {
            let mut process = Process::default();
            process.user.gid = 9;
            set_user(text, &mut process).unwrap();
            assert_eq!(Some((process.user.uid, process.user.gid)), want, "{text}");
        }
        for text in
            ["", "root", "-1", "+1", "1x", "1:", ":1", "1:2:3", "4294967295", "4294967296", "1 ", "0x1"]
        {
            let refusal = set_user(text, &mut Process::default()).unwrap_err().to_string();
            assert!(refusal.starts_with("bad "), "{text}: {refusal}");
        }
    }

    #[test]
    fn capabilities_join_the_sets_that_may_have_them() {
        let added = |inheritable: &[&str]| {
            let own = Capabilities {
                inheritable: inheritable.iter().map(|name| name.to_string()).collect(),
                ..Capabilities::default()
            };
            let own = Process { capabilities: Some(own), ..Process::default() };
            changed(&["-c", "CAP_KILL", "id", "x"], own).unwrap().capabilities.unwrap()
        };
        let sets = added(&[]);
        assert_eq!(
            (sets.bounding.len(), sets.effective.len(), sets.permitted.len(), sets.ambient.len()),
            (1, 1, 1, 0)
        );
        assert!(sets.inheritable.is_empty());
        assert_eq!(added(&["CAP_CHOWN"]).ambient, ["CAP_KILL"]);
    }

    #[test]
    fn cgroups_are_one_path_or_one_a_controller() {
        let owned = |name: &str, path: &str| (Some(name.to_string()), path.to_string());
        assert_eq!(cgroups(&[]).unwrap(), []);
        assert_eq!(cgroups(&["a/b"]).unwrap(), [(None, "a/b".to_string())]);
        assert_eq!(
            cgroups(&["cpu,cpuacct:x", "memory:y"]).unwrap(),
            [owned("cpu", "x"), owned("cpuacct", "x"), owned("memory", "y")]
        );
        for (given, want) in [
            (&["a", "b"][..], "invalid --cgroup argument: a (missing <controller>: prefix)"),
            (&["cpu,:x"], "invalid --cgroup argument: cpu,:x (empty <controller> prefix)"),
            (&["cpu:x", "cpu:y"], "invalid --cgroup argument(s): controller cpu specified multiple times"),
        ] {
            assert_eq!(cgroups(given).unwrap_err().to_string(), want);
        }
    }
}
