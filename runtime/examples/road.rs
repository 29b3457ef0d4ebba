//! The road alone, with hand-made steps: usage `road ROOTFS COUNT`.
use cofferdam::launch::road::*;
use cofferdam_step::*;
use cofferdam_sys::{Errno, process};

fn new(dest: &str, fstype: &str, opts: &[(&str, &str)], set: u64) -> Step {
    Step::Mount(Mount {
        destination: dest.into(),
        source: Source::New {
            fstype: fstype.into(),
            source: fstype.into(),
            options: opts
                .iter()
                .map(|(k, v)| FsOption { key: (*k).into(), value: (!v.is_empty()).then(|| (*v).into()) })
                .collect(),
            flags: 0,
            inherit_mode: false,
        },
        create: Create::Directory,
        attributes: Attributes { set, clear: 0 },
        recursive: Attributes::default(),
        propagation: vec![],
        idmap: None,
        idmap_recursive: false,
        pid_namespace: None,
        copy_up: false,
        links: if dest == "/proc" || dest == "/sys" { Links::Refused } else { Links::Followed },
        or_else: None,
    })
}

fn main() {
    let mut args = std::env::args().skip(1);
    let rootfs = args.next().unwrap();
    let count: u32 = args.next().unwrap().parse().unwrap();
    let staged = args.next().as_deref() == Some("staged");
    let namespaces: Namespaces =
        [Namespace::Mount, Namespace::Pid, Namespace::Uts, Namespace::Ipc, Namespace::Network]
            .into_iter()
            .collect();
    let mut steps = vec![];
    if staged {
        steps.push(Step::Clone { namespaces });
    }
    steps.extend([
        Step::NewSession,
        Step::BringUpLoopback,
        Step::SetHostname { name: "x".into() },
        Step::SetHostPropagation(Propagation { flag: 0x80000, recursive: true }),
        Step::PrepareRoot { path: rootfs.clone(), slot: None, keep_propagation: false },
        new("/proc", "proc", &[], 14),
        new("/dev", "tmpfs", &[("mode", "755"), ("size", "65536k")], 2 | 0x20),
        new(
            "/dev/pts",
            "devpts",
            &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
            10,
        ),
        new("/dev/shm", "tmpfs", &[("mode", "1777"), ("size", "65536k")], 14),
        new("/dev/mqueue", "mqueue", &[], 14),
        new("/sys", "sysfs", &[], 15),
    ]);
    for (p, a, b) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        steps.push(Step::MakeDevice {
            path: format!("/dev/{p}"),
            mode: 0o20666,
            major: a,
            minor: b,
            uid: None,
            gid: None,
        });
    }
    for (p, t) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        ("core", "/proc/kcore"),
    ] {
        steps.push(Step::MakeSymlink { path: format!("/dev/{p}"), target: t.into(), replace: false });
    }
    steps.push(Step::PivotRoot { no_pivot: false });
    for p in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
        steps.push(Step::MakeReadonly { path: p.into() });
    }
    for p in [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
    ] {
        steps.push(Step::MaskPath { path: p.into(), label: None });
    }
    steps.extend([
        Step::MakeRootReadonly,
        Step::SetNoNewPrivileges,
        Step::SetUser { uid: 0, gid: 0, additional_gids: Some(vec![]), umask: Some(0o22) },
        Step::ChangeDirectory { path: "/".into(), create: false },
        Step::SealDescriptors { preserve: 0 },
        Step::ResolveProgram,
        Step::Exec {
            args: std::env::var("CMD").unwrap_or("true".into()).split(' ').map(String::from).collect(),
            env: vec!["PATH=/bin".into()],
        },
    ]);
    let program = Program { steps: steps.into(), ..Program::default() };
    let mut times = vec![];
    for _ in 0..count {
        let t = std::time::Instant::now();
        let d = Departure {
            staged,
            namespaces: if staged { Namespaces::default() } else { namespaces },
            cgroup: None,
            inherit: &[],
            stdio: None,
        };
        let mut init = depart(&d, &program).unwrap();
        if staged {
            let arrival = init.arrive().unwrap();
            assert!(matches!(arrival, Arrival::There), "the clone did not come");
        }
        loop {
            match init.next_report() {
                Ok(Some(r)) if r.kind == ReportKind::Executing => {}
                Ok(None) => break,
                other => {
                    println!(
                        "{other:?} {:?}",
                        other.as_ref().ok().and_then(|r| r.as_ref()).map(|r| (
                            r.attempt.name(),
                            Errno(r.errno),
                            program.steps[r.step as usize].to_string()
                        ))
                    );
                    break;
                }
            }
        }
        let status = process::wait(init.pid, false).unwrap();
        times.push(t.elapsed().as_micros());
        if status != Some(0) {
            println!("status {status:?}");
        }
    }
    times.sort_unstable();
    eprintln!("min {} median {} us", times[0], times[times.len() / 2]);
}
