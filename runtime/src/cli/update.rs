//! `cofferdam update`

use super::args::{ANY, Grammar, Words, value};
use super::{Context, words};
use crate::error::Error;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use std::fs::File;
use std::io::Read;

/// More than this is no list of resources.
const MAX_RESOURCES: u64 = 1 << 20;

pub static GRAMMAR: Grammar = Grammar {
    name: "update",
    summary: "change the limits of a container",
    arguments: "<container-id>",
    about: "What is not mentioned stays. Sizes may end in k, m, g or t.\n\
            With --resources, whose JSON is config.json's /linux/resources, no other option counts; devices are left alone.",
    flags: &[
        value("resources", "r", "file with the new limits as JSON; - is stdin"),
        value("blkio-weight", "", "weight of block I/O, 10 to 1000"),
        value("cpu-period", "", "CFS period in microseconds"),
        value("cpu-quota", "", "CPU time in microseconds that a period allows; -1 for no limit"),
        value("cpu-burst", "", "CPU time in microseconds that may be saved for later periods"),
        value("cpu-share", "", "weight among other containers (cpu.shares)"),
        value("cpu-rt-period", "", "realtime period in microseconds"),
        value("cpu-rt-runtime", "", "realtime CPU time in microseconds that a period allows"),
        value("cpuset-cpus", "", "CPUs to use: 0-3,5"),
        value("cpuset-mems", "", "memory nodes to use: 0,1"),
        value("cpu-idle", "", "1 runs the container as SCHED_IDLE, 0 does not"),
        value("memory", "", "limit of memory in bytes; -1 for none"),
        value("memory-reservation", "", "memory that is kept under pressure, in bytes"),
        value("memory-swap", "", "limit of memory and swap together, in bytes; -1 for none"),
        value("kernel-memory", "", "gone from the kernel").ignored(),
        value("kernel-memory-tcp", "", "gone from the kernel").ignored(),
        value("pids-limit", "", "greatest number of processes; -1 for no limit"),
        value("l3-cache-schema", "", "Intel RDT: the container's share of the L3 cache: L3:0=f;1=f"),
        value("mem-bw-schema", "", "Intel RDT: the container's share of memory bandwidth: MB:0=20;1=70"),
    ],
    count: (1, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    let resources = match said.path("resources") {
        Some(path) if path.as_os_str() == "-" => from_json(std::io::stdin().lock(), "stdin")?,
        Some(path) => {
            let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
            from_json(file, &path.display().to_string())?
        }
        None => from_flags(said)?,
    };
    let mut container = context.store().load(said.argument(0)?)?;
    container.update(&resources)?;
    let (l3, bandwidth) = (said.text("l3-cache-schema")?, said.text("mem-bw-schema")?);
    if l3.is_some() || bandwidth.is_some() {
        container.update_intel_rdt(l3.unwrap_or_default(), bandwidth.unwrap_or_default())?;
    }
    Ok(0)
}

/// What config.json would have as `/linux/resources`, without devices: an engine that sends them back does not want them
/// changed, and others (a GPU's tool) may have added theirs since.
fn from_json(input: impl Read, name: &str) -> Result<LinuxResources, Error> {
    let mut text = Vec::new();
    input
        .take(MAX_RESOURCES + 1)
        .read_to_end(&mut text)
        .map_err(|error| Error::call(format!("read {name}"), error))?;
    if text.len() as u64 > MAX_RESOURCES {
        return Err(Error::Usage(format!("{name}: larger than {MAX_RESOURCES} bytes")));
    }
    let mut resources = cofferdam_spec::parse_resources(&text)
        .map_err(|error| Error::below(format!("read resources from {name}"), error))?;
    resources.set_devices(None);
    Ok(resources)
}

fn from_flags(said: &Words) -> Result<LinuxResources, Error> {
    let size = |name: &str| match said.text(name)? {
        None => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => match words::bytes(text) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(Error::Usage(format!("invalid value for {name}: invalid size: '{text}'"))),
        },
    };
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(size("memory")?)
        .set_swap(size("memory-swap")?)
        .set_reservation(size("memory-reservation")?);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(said.number("cpu-share")?)
        .set_quota(said.number("cpu-quota")?)
        .set_period(said.number("cpu-period")?)
        .set_burst(said.number("cpu-burst")?)
        .set_realtime_runtime(said.number("cpu-rt-runtime")?)
        .set_realtime_period(said.number("cpu-rt-period")?)
        .set_cpus(said.text("cpuset-cpus")?.map(String::from))
        .set_mems(said.text("cpuset-mems")?.map(String::from))
        .set_idle(said.number("cpu-idle")?);
    let mut resources = LinuxResources::default();
    resources.set_memory(some_unless_default(memory)).set_cpu(some_unless_default(cpu));
    if let Some(weight) = said.number::<u16>("blkio-weight")?.filter(|weight| *weight != 0) {
        let mut block = LinuxBlockIo::default();
        block.set_weight(Some(weight));
        resources.set_block_io(Some(block));
    }
    if let Some(limit) = said.number("pids-limit")? {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

fn some_unless_default<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn flags(words: &[&str]) -> Result<LinuxResources, Error> {
        from_flags(&GRAMMAR.parse(&mut words.iter().map(OsString::from), false)?)
    }

    #[test]
    fn flags_become_resources() {
        let resources = flags(&[
            "id",
            "--memory",
            "64m",
            "--memory-swap=-1",
            "--cpu-quota",
            "-1",
            "--cpu-share",
            "512",
            "--cpuset-cpus",
            "0-1",
            "--pids-limit",
            "0",
            "--blkio-weight",
            "500",
        ])
        .unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap(), memory.reservation()), (Some(64 << 20), Some(-1), None));
        let cpu = resources.cpu().clone().unwrap();
        assert_eq!((cpu.quota(), cpu.shares(), cpu.period()), (Some(-1), Some(512), None));
        assert_eq!(cpu.cpus().as_deref(), Some("0-1"));
        assert_eq!(resources.pids().unwrap().limit(), 0);
        assert_eq!(resources.block_io().clone().unwrap().weight(), Some(500));
    }

    #[test]
    fn nothing_said_changes_nothing() {
        assert_eq!(flags(&["id", "--kernel-memory", "1m"]).unwrap(), LinuxResources::default());
    }

    #[test]
    fn odd_numbers_are_refused() {
        for (words, want) in [
            (["--memory", "64q"], "invalid value for memory: invalid size: '64q'"),
            (["--cpu-share", "-1"], "invalid value \"-1\" for --cpu-share: not a number that fits"),
            (
                ["--blkio-weight", "70000"],
                "invalid value \"70000\" for --blkio-weight: not a number that fits",
            ),
        ] {
            assert_eq!(flags(&words).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn json_gives_all_but_devices() {
        let text = r#"{"Memory":{"limit":1024},"pids":{},"devices":[{"allow":true}],"unified":{"memory.high":"1"},"other":1}"#;
        let resources = from_json(text.as_bytes(), "stdin").unwrap();
        assert_eq!(resources.memory().unwrap().limit(), Some(1024));
        assert!(resources.devices().is_none() && resources.pids().is_none());
        assert_eq!(resources.unified().as_ref().unwrap()["memory.high"], "1");
        let text = crate::error::message(&from_json(&b"{"[..], "stdin").unwrap_err());
        assert!(text.starts_with("read resources from stdin: resources: EOF while parsing"), "{text}");
    }
}
