//! What engines really write (dockerd 28.5, containerd's ctr, podman 5.8), compiled for a fixed machine: the printed plan is
//! compared with the one beside the config. `UPDATE_GOLDEN=1` writes them anew; read the difference before you commit it.
#![allow(clippy::disallowed_methods)] // these are the compiler's test files, not its input

mod support;

use cofferdam_plan::{Driver, Filter, HostStep, Options, Spec, compile};
use std::fs;
use std::path::Path;

fn golden(name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let spec = Spec::parse_most(fs::read_to_string(directory.join(format!("{name}.json"))).unwrap()).unwrap();
    let systemd = name.contains("v2-systemd");
    let host = if systemd { support::v2() } else { support::v1() };
    let options = Options {
        id: name.to_owned(),
        bundle: "/bundle".to_owned(),
        driver: if systemd { Driver::Systemd } else { Driver::Fs },
        console: spec.process.as_ref().is_some_and(|process| process.terminal),
        ..Options::default()
    };
    let mut plan = compile(&spec, &host, &options).unwrap();
    if plan.host.contains(&HostStep::CompileFilter) {
        plan.show_filter(Filter::compile(&spec, &host).unwrap().0);
    }
    let text = plan.to_string();
    let path = directory.join(format!("{name}.plan"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (number, (left, right)) in expected.lines().zip(text.lines()).enumerate() {
        assert_eq!(left, right, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(expected.lines().count(), text.lines().count(), "length of {}", path.display());

    let json = plan.to_json();
    let read: cofferdam_plan::Plan = serde_json::from_str(&json).unwrap();
    assert_eq!(read, plan.redacted(), "a plan is read from JSON as it was printed");
}

macro_rules! golden {
    ($($test:ident = $name:literal,)*) => { $(#[test] fn $test() { golden($name) })* };
}

golden! {
    runc_spec = "runc-spec",
    ctr_default = "ctr-default",
    ctr_userns = "ctr-userns",
    docker_default = "docker-default",
    docker_terminal = "docker-terminal",
    docker_limits = "docker-limits",
    docker_hardened = "docker-hardened",
    docker_volumes = "docker-volumes",
    docker_privileged = "docker-privileged",
    docker_init = "docker-init",
    docker_v2_systemd_default = "docker-v2-systemd-default",
    docker_v2_systemd_limits = "docker-v2-systemd-limits",
    podman_v2_systemd_default = "podman-v2-systemd-default",
}

#[test]
fn every_config_has_its_test() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let this = include_str!("golden.rs");
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".json") {
            assert!(this.contains(&format!("= \"{name}\",")), "{name} is compiled by no test");
        }
    }
}
