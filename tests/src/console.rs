//! config.md, "Process": terminal and consoleSize; `--console-socket`, and the foreground's own terminal.

use crate::harness::{Call, Container, Need, T, Test, procs};
use crate::sockets::{Receiver, Terminal};
use crate::{always, test};
use cofferdam_sys::{Fd, net};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::Write as _;
use std::os::fd::AsFd;

pub const TESTS: &[Test] = &[
    test!(the_master_is_sent_with_a_name),
    test!(the_terminal_is_the_controlling_one),
    test!(what_is_typed_arrives),
    test!(control_c_interrupts),
    test!(the_terminal_has_the_configs_size),
    test!(dev_console_is_the_terminal),
    test!(the_terminal_is_in_the_containers_devpts),
    test!(the_terminal_is_its_users),
    test!(the_terminal_ends_with_the_program),
    test!(the_terminal_hangs_up),
    test!(a_terminal_in_a_user_namespace),
    test!(a_terminal_with_a_read_only_root),
    test!(a_terminal_of_a_detached_exec),
    test!(an_exec_without_terminal_in_a_container_with_one),
    test!(a_terminal_without_a_socket_is_refused),
    test!(a_socket_without_a_terminal_is_refused),
    test!(a_socket_that_nobody_listens_to_is_an_error),
    test!(run_on_a_terminal),
    test!(run_on_a_terminal_passes_control_keys_on),
    test!(run_on_a_terminal_gives_the_exit_status),
    test!(run_on_a_terminal_restores_it),
    test!(run_on_a_terminal_follows_its_size),
    test!(a_run_without_a_terminal_does_not_have_its_callers),
    test!(a_run_on_a_full_terminal_passes_signals_on),
    test!(an_exec_without_a_terminal_does_not_have_its_callers),
    test!(an_exec_on_a_terminal_ends_with_its_process),
    test!(exec_on_a_terminal),
    test!(the_size_is_there_from_the_beginning)
        .needs(&[Need::Ours("runc sets it when the program runs already")]),
    test!(a_terminal_when_the_caller_has_none).runc_fails(always!("opens /dev/tty")),
    test!(output_is_as_the_program_wrote_it),
    test!(much_output_arrives_whole),
    test!(much_that_is_pasted_arrives_whole),
    test!(a_signal_passes_output_that_nobody_takes).runc_fails(always!("opens /dev/tty")),
    test!(a_pidfd_is_sent).needs(&[Need::Runc("1.2", "--pidfd-socket")]),
    test!(a_pidfd_is_sent_where_an_annotation_says).needs(&[Need::Ours("the annotation is crun's")]),
    test!(a_pidfd_of_an_exec_is_sent).needs(&[Need::Runc("1.2", "--pidfd-socket")]),
];

/// A created container with a terminal, and the terminal's master.
fn with_terminal<'t>(t: &'t T, script: &str, change: serde_json::Value) -> (Container<'t>, Terminal) {
    let bundle = t.bundle().script(script).with(json!({"process": {"terminal": true}})).with(change);
    created(t, t.container(&bundle))
}

/// Creates a container with a terminal.
pub(crate) fn created<'t>(t: &'t T, container: Container<'t>) -> (Container<'t>, Terminal) {
    let receiver = Receiver::new(t, &format!("console{}", t.number()));
    container.make(&["create", "--console-socket", &receiver.word()]).run().ok();
    let (_, master) = receiver.receive();
    (container, Terminal::new(t, master))
}

fn the_master_is_sent_with_a_name(t: &T) {
    let bundle = t.bundle().script("sleep 1000").with(json!({"process": {"terminal": true}}));
    let container = t.container(&bundle);
    let receiver = Receiver::new(t, "console");
    container.make(&["create", "--console-socket", &receiver.word()]).run().ok();
    let (name, master) = receiver.receive();
    assert!(!name.is_empty(), "go-runc takes a message without bytes for the end");
    // Only a terminal has a size.
    net::window_size(&master).unwrap();
    container.force_delete();
}

fn the_terminal_is_the_controlling_one(t: &T) {
    let (container, mut terminal) =
        with_terminal(t, "tty; exec < /dev/tty && echo have one; cut -d' ' -f7,8 /proc/self/stat", json!({}));
    container.start().ok();
    let text = terminal.until_end();
    assert!(text.starts_with("/dev/pts/0\r\nhave one\r\n"), "{text}");
    // The terminal's number, and the process group in the foreground.
    assert_eq!(text.lines().last().unwrap().trim(), format!("{} 1", 136 << 8));
    container.force_delete();
}

fn what_is_typed_arrives(t: &T) {
    let (container, mut terminal) = with_terminal(t, "echo ready; read line; echo got $line", json!({}));
    container.start().ok();
    terminal.await_output("ready");
    terminal.type_in("some words\n");
    terminal.await_output("got some words");
    container.force_delete();
}

fn control_c_interrupts(t: &T) {
    let script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let (container, mut terminal) = with_terminal(t, script, json!({}));
    container.start().ok();
    terminal.await_output("ready");
    terminal.type_in("\x03");
    terminal.await_output("interrupted");
    container.await_stop();
    container.force_delete();
}

fn the_terminal_has_the_configs_size(t: &T) {
    let size = json!({"process": {"consoleSize": {"height": 33, "width": 111}}});
    let (container, mut terminal) = with_terminal(t, "stty size", size);
    assert_eq!(net::window_size(&terminal.master).unwrap(), (33, 111));
    container.start().ok();
    terminal.await_output("33 111");
    container.force_delete();
}

fn dev_console_is_the_terminal(t: &T) {
    let (container, mut terminal) =
        with_terminal(t, "echo to console > /dev/console; stat -c '%F %t' /dev/console", json!({}));
    container.start().ok();
    let text = terminal.until_end();
    assert!(text.starts_with("to console\r\ncharacter special file 88\r\n"), "{text}");
    container.force_delete();
}

fn the_terminal_is_in_the_containers_devpts(t: &T) {
    let (container, mut terminal) = with_terminal(t, "ls /dev/pts; stty -a | head -1", json!({}));
    container.start().ok();
    let text = terminal.until_end();
    assert!(
        text.starts_with("0     ptmx\r\n") || text.starts_with("0\r\nptmx\r\n") || text.contains("ptmx"),
        "{text}"
    );
    container.force_delete();
}

fn the_terminal_is_its_users(t: &T) {
    let user = json!({"process": {"user": {"uid": 1000, "gid": 1000}}});
    let (container, mut terminal) = with_terminal(t, "stat -c '%u %a' /dev/pts/0; echo again > $(tty)", user);
    container.start().ok();
    let text = terminal.until_end();
    assert!(text.starts_with("1000 6") && text.ends_with("again\r\n"), "{text}");
    container.force_delete();
}

fn the_terminal_ends_with_the_program(t: &T) {
    let (container, mut terminal) = with_terminal(t, "echo last words", json!({}));
    container.start().ok();
    assert_eq!(terminal.until_end(), "last words\r\n");
    container.await_stop();
    container.force_delete();
}

fn the_terminal_hangs_up(t: &T) {
    let script = "trap 'echo hung > /hung; exit' HUP; echo ready; while :; do sleep 0.1; done";
    let (container, mut terminal) = with_terminal(t, script, json!({}));
    container.start().ok();
    terminal.await_output("ready");
    drop(terminal);
    assert!(procs::wait_until(t.seconds(5), || container.bundle.file("/hung").exists()));
    container.force_delete();
}

fn a_terminal_in_a_user_namespace(t: &T) {
    let mut bundle = t.bundle().script("tty; stat -c %u /dev/pts/0; echo x > /dev/console");
    bundle.user_namespace().set(json!({"process": {"terminal": true}}));
    let (container, mut terminal) = created(t, t.container(&bundle));
    container.start().ok();
    assert_eq!(terminal.until_end(), "/dev/pts/0\r\n0\r\nx\r\n");
    container.force_delete();
}

fn a_terminal_with_a_read_only_root(t: &T) {
    let (container, mut terminal) = with_terminal(t, "tty", json!({"root": {"readonly": true}}));
    container.start().ok();
    assert_eq!(terminal.until_end(), "/dev/pts/0\r\n");
    container.force_delete();
}

fn sleeper(t: &T) -> Container<'_> {
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.launch();
    container
}

fn a_terminal_of_a_detached_exec(t: &T) {
    let container = sleeper(t);
    let receiver = Receiver::new(t, "console");
    let flags = ["--tty", "--detach", "--console-socket", &receiver.word()];
    let script = "tty; exec < /dev/tty && echo have one; echo ready; read line; echo got $line";
    container.exec_with(&flags, &["sh", "-c", script]).run().ok();
    let mut terminal = Terminal::new(t, receiver.receive().1);
    terminal.await_output("ready");
    terminal.type_in("words\n");
    let text = terminal.await_output("got words");
    assert!(text.starts_with("/dev/pts/0\r\nhave one\r\n"), "{text}");
    container.force_delete();
}

fn an_exec_without_terminal_in_a_container_with_one(t: &T) {
    let (container, _terminal) = with_terminal(t, "sleep 1000", json!({}));
    container.start().ok();
    assert_eq!(container.exec_sh("tty; echo out"), "not a tty\nout\n");
    container.force_delete();
}

fn a_terminal_without_a_socket_is_refused(t: &T) {
    let bundle = t.bundle().with(json!({"process": {"terminal": true}}));
    let message = t.refused(&bundle);
    assert!(message.contains("will detach without setting console socket"), "{message}");
}

fn a_socket_without_a_terminal_is_refused(t: &T) {
    let receiver = Receiver::new(t, "console");
    let container = t.container(&t.bundle());
    let out = container.make(&["create", "--console-socket", &receiver.word()]).run().fails();
    assert!(out.message().contains("cannot use console socket"), "{}", out.message());
    t.nothing_is_left(&container);
}

fn a_socket_that_nobody_listens_to_is_an_error(t: &T) {
    let container = t.container(&t.bundle().with(json!({"process": {"terminal": true}})));
    let out = container.make(&["create", "--console-socket", "/no/such/socket"]).run().fails();
    assert!(out.message().contains("no such file or directory"), "{}", out.message());
    t.nothing_is_left(&container);
}

/// A call on a pty of its own, whose size is 24 to 80; the pty's master.
fn on_terminal(t: &T, call: Call<'_>) -> (crate::harness::Running, Terminal) {
    let pty = openpty(None, None).unwrap();
    net::set_window_size(&pty.master, 24, 80).unwrap();
    let me = std::env::current_exe().unwrap();
    let call = call
        .through(&[me.to_string_lossy().into_owned(), "--on-terminal".into()])
        .stdin(pty.slave.try_clone().unwrap());
    let running = call.spawn_with(pty.slave.try_clone().unwrap(), pty.slave);
    (running, Terminal::new(t, Fd::from(pty.master)))
}

fn foreground(t: &T, script: &str) -> (crate::harness::Running, Terminal) {
    let bundle = t.bundle().script(script).with(json!({"process": {"terminal": true}}));
    on_terminal(t, t.container(&bundle).make(&["run"]))
}

fn run_on_a_terminal(t: &T) {
    let (running, mut terminal) = foreground(t, "tty; stty size; echo ready; read line; echo got $line");
    terminal.await_output("ready");
    terminal.type_in("words\r");
    let text = terminal.await_output("got words");
    assert_eq!(text.split_whitespace().take(3).collect::<Vec<_>>(), ["/dev/pts/0", "24", "80"], "{text}");
    running.wait().ok();
}

fn run_on_a_terminal_passes_control_keys_on(t: &T) {
    // Control-C is the container's to interpret: the runtime's own terminal is raw.
    let script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let (running, mut terminal) = foreground(t, script);
    terminal.await_output("ready");
    terminal.type_in("\x03");
    terminal.await_output("interrupted");
    running.wait().code(3);
}

fn run_on_a_terminal_gives_the_exit_status(t: &T) {
    let (running, mut terminal) = foreground(t, "echo last words; exit 42");
    terminal.await_output("last words");
    running.wait().code(42);
}

fn run_on_a_terminal_restores_it(t: &T) {
    let pty = openpty(None, None).unwrap();
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let bundle = t.bundle().script("echo x").with(json!({"process": {"terminal": true}}));
    let me = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let call = t.container(&bundle).make(&["run"]).through(&[me, "--on-terminal".into()]);
    let call = call.stdin(pty.slave.try_clone().unwrap());
    call.spawn_with(pty.slave.try_clone().unwrap(), pty.slave.try_clone().unwrap()).wait().ok();
    let after = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    assert_eq!(before.local_flags, after.local_flags);
    assert_eq!(before.input_flags, after.input_flags);
    assert_eq!(before.output_flags, after.output_flags);
}

fn run_on_a_terminal_follows_its_size(t: &T) {
    let (running, mut terminal) = foreground(
        t,
        "trap 'stty size' WINCH; echo ready; i=0; while [ $i -lt 300 ]; do i=$((i+1)); sleep 0.1; done",
    );
    terminal.await_output("ready");
    net::set_window_size(&terminal.master, 44, 101).unwrap();
    running.kill(Signal::SIGWINCH);
    terminal.await_output("44 101");
    terminal.type_in("\x03");
    running.wait();
}

fn exec_on_a_terminal(t: &T) {
    let container = sleeper(t);
    // runc may set the size after the program has begun.
    let script = "tty; until stty size 2>/dev/null | grep -q 80; do :; done; stty size; echo ready; read line; echo got $line; exit 6";
    let (running, mut terminal) = on_terminal(t, container.exec_with(&["--tty"], &["sh", "-c", script]));
    terminal.await_output("ready");
    terminal.type_in("words\r");
    let text = terminal.await_output("got words");
    assert_eq!(text.split_whitespace().take(3).collect::<Vec<_>>(), ["/dev/pts/0", "24", "80"], "{text}");
    running.wait().code(6);
    container.force_delete();
}

/// What it has of its caller's terminal: what is typed goes in, and what it writes comes out, as much as it is.
const PIPED: &str = "for fd in 0 1 2; do [ -p /proc/self/fd/$fd ] && echo pipe $fd; done; tty; echo ready >&2; read line; \
    echo got $line; cat >/dev/null; yes abcdefg | head -c 200000 | tr -d '\\n' | wc -c; yes 1234567 | head -n 20000; echo end; exit 5";

fn is_piped(running: crate::harness::Running, mut terminal: Terminal) {
    terminal.await_output("ready");
    terminal.type_in("words\n\u{4}");
    let text = terminal.await_output("end");
    for line in ["pipe 0", "pipe 1", "pipe 2", "not a tty", "got words", "175000"] {
        assert!(text.contains(line), "{line:?} is missing: {}", &text[..text.len().min(500)]);
    }
    assert_eq!(text.matches("1234567").count(), 20000);
    running.wait().code(5);
}

fn a_run_without_a_terminal_does_not_have_its_callers(t: &T) {
    let bundle = t.bundle().script(PIPED);
    let (running, terminal) = on_terminal(t, t.container(&bundle).make(&["run"]));
    is_piped(running, terminal);
    // A process that does not read what is typed, and one that closes its input, end as they would.
    for script in ["sleep 1; exit 4", "exec <&-; sleep 1; exit 4"] {
        let (running, terminal) = on_terminal(t, t.container(&t.bundle().script(script)).make(&["run"]));
        for _ in 0..50 {
            terminal.type_in("some words that nobody is going to read\n");
        }
        running.wait().code(4);
    }
}

/// Signals go on to a process whose output nobody takes for now.
fn a_run_on_a_full_terminal_passes_signals_on(t: &T) {
    let script = "trap 'echo told > /tmp/told; exit 3' TERM; yes & while :; do wait; done";
    for has_terminal in [false, true] {
        let bundle = t.bundle().with(json!({"process": {"terminal": has_terminal}})).script(script);
        let told = bundle.file("/tmp/told");
        let (running, mut terminal) = on_terminal(t, t.container(&bundle).make(&["run"]));
        terminal.await_output("y");
        // Nobody reads any more, until the terminal and the pipe are full.
        std::thread::sleep(std::time::Duration::from_millis(500));
        running.kill(Signal::SIGTERM);
        let arrives = procs::wait_until(t.seconds(10), || told.exists());
        assert!(arrives, "the signal does not arrive, with a terminal of its own: {has_terminal}");
        terminal.until_end();
        running.wait().code(3);
    }
}

fn an_exec_without_a_terminal_does_not_have_its_callers(t: &T) {
    let container = sleeper(t);
    let (running, terminal) = on_terminal(t, container.exec_with(&[], &["sh", "-c", PIPED]));
    is_piped(running, terminal);
    container.force_delete();
}

/// Whoever it leaves behind may hold the terminal.
fn an_exec_on_a_terminal_ends_with_its_process(t: &T) {
    let container = sleeper(t);
    let script = "trap '' HUP; sleep 1000 & echo left";
    let begun = std::time::Instant::now();
    let (running, mut terminal) = on_terminal(t, container.exec_with(&["--tty"], &["sh", "-c", script]));
    terminal.await_output("left");
    running.wait().ok();
    assert!(begun.elapsed().as_secs() < 100, "it waited for the one that is left behind");
    container.force_delete();
}

fn the_size_is_there_from_the_beginning(t: &T) {
    let container = sleeper(t);
    for _ in 0..5 {
        let (running, mut terminal) = on_terminal(t, container.exec_with(&["--tty"], &["stty", "size"]));
        terminal.await_output("24 80");
        running.wait().ok();
        let (running, mut terminal) = foreground(t, "stty size");
        terminal.await_output("24 80");
        running.wait().ok();
    }
    container.force_delete();
}

fn a_terminal_when_the_caller_has_none(t: &T) {
    // BuildKit's way: stdin and stdout are pipes, the process has a terminal of the runtime's making.
    let bundle = t.bundle().script("tty; echo done").with(json!({"process": {"terminal": true}}));
    let out = t.container(&bundle).run().ok();
    assert!(out.stdout.contains("/dev/pts/0") && out.stdout.contains("done"), "{out:?}");
}

fn output_is_as_the_program_wrote_it(t: &T) {
    // Through two terminals a line still ends with one \r\n.
    let (running, mut terminal) = foreground(t, "printf 'a\\nb\\n'; sleep 0.2");
    let text = terminal.await_output("b\r\n");
    // runc 1.1 may set its terminal raw when the first output has passed.
    assert!(text == "a\r\nb\r\n" || !t.is_ours(), "{text:?}");
    running.wait().ok();
}

fn much_output_arrives_whole(t: &T) {
    let (running, mut terminal) = foreground(t, "seq 1 20000; echo the end");
    let text = terminal.await_output("the end");
    assert_eq!(text.lines().filter(|line| line.trim().parse::<u32>().is_ok()).count(), 20_000);
    running.wait().ok();
}

fn much_that_is_pasted_arrives_whole(t: &T) {
    // The program reads on when its output has been taken, and its output is taken while its input waits.
    let (running, mut terminal) = foreground(t, "stty -echo; echo ready; exec cat");
    terminal.await_output("ready");
    let mut typing = std::fs::File::from(std::os::fd::OwnedFd::from(terminal.master.duplicate().unwrap()));
    let typist = std::thread::spawn(move || {
        let lines: String = (1..=20_000).map(|number| format!("{number}\r")).collect();
        typing.write_all(lines.as_bytes()).and_then(|()| typing.write_all(b"the end\r\x04"))
    });
    let text = terminal.await_output("the end");
    assert_eq!(text.lines().filter(|line| line.trim().parse::<u32>().is_ok()).count(), 20_000);
    typist.join().unwrap().unwrap();
    running.wait().ok();
}

fn a_signal_passes_output_that_nobody_takes(t: &T) {
    let script = "trap 'echo > /asked' TERM; yes & while :; do sleep 0.1; done";
    let container = t.container(&t.bundle().script(script).with(json!({"process": {"terminal": true}})));
    let (reader, writer) = std::io::pipe().unwrap();
    let running =
        container.make(&["run"]).spawn_with(writer.try_clone().unwrap(), std::process::Stdio::null());
    let is_full =
        || poll(&mut [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO).unwrap() == 0;
    assert!(procs::wait_until(t.seconds(10), is_full), "the pipe is not full");
    running.kill(Signal::SIGTERM);
    assert!(procs::wait_until(t.seconds(5), || container.bundle.file("/asked").exists()));
    container.force_delete();
    drop(reader);
    running.wait().code(137);
}

fn a_pidfd_is_sent(t: &T) {
    let receiver = Receiver::new(t, "pidfd");
    let container = t.container(&t.bundle().args(&["sleep", "1000"]));
    container.make(&["create", "--pidfd-socket", &receiver.word()]).run().ok();
    let (_, pidfd) = receiver.receive();
    container.start().ok();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.raw())).unwrap();
    assert_eq!(procs::field_of(&info, "Pid").unwrap(), container.pid().to_string());
    container.kill("KILL").ok();
    assert!(cofferdam_sys::process::poll_readable(&pidfd, 5000).unwrap());
    container.force_delete();
}

fn a_pidfd_is_sent_where_an_annotation_says(t: &T) {
    let receiver = Receiver::new(t, "pidfd");
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let container =
        t.container(&bundle.with(json!({"annotations": {"run.oci.pidfd_receiver": receiver.word()}})));
    container.create().ok();
    let (_, pidfd) = receiver.receive();
    let info = procs::field_of(
        &std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.raw())).unwrap(),
        "Pid",
    );
    assert_eq!(info, Some(container.pid().to_string()));
    container.force_delete();
    // Nobody there is an error, which leaves nothing.
    let nobody = t.path("nobody").to_string_lossy().into_owned();
    let message = t.refused(&bundle.with(json!({"annotations": {"run.oci.pidfd_receiver": nobody}})));
    assert!(message.contains("nobody"), "{message}");
}

fn a_pidfd_of_an_exec_is_sent(t: &T) {
    let container = sleeper(t);
    let receiver = Receiver::new(t, "pidfd");
    let file = t.path("pid");
    let flags = ["--detach", "--pid-file", &file.to_string_lossy(), "--pidfd-socket", &receiver.word()];
    container.exec_with(&flags, &["sleep", "1000"]).run().ok();
    let (_, pidfd) = receiver.receive();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.raw())).unwrap();
    assert_eq!(procs::field_of(&info, "Pid").unwrap(), std::fs::read_to_string(file).unwrap());
    container.force_delete();
}
