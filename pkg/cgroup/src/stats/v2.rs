//! Figures of v2's controllers.

use crate::error::CgroupError;
use crate::stats::parse::Files;
use crate::stats::{
    Cpu, Hugetlb, Io, IoDevice, IoEntry, Memory, MemoryEvents, MemoryUse, Stats, page_sizes, v1,
};

pub(super) fn read(dir: &str) -> Result<Stats, CgroupError> {
    let mut files = Files::new(dir);
    let files = &mut files;
    let mut stats = Stats { cpu: cpu(files)?, memory: memory(files)?, io: io(files)?, ..Stats::default() };
    if files.number("pids.current")?.is_some() {
        stats.pids = Some(v1::pids(files)?);
    }
    hugetlb(files, &mut stats)?;
    stats.rdma = files.rdma()?;
    misc(files, &mut stats)?;
    Ok(stats)
}

// cpu.stat is there without the controller, too, with fewer lines.
fn cpu(files: &mut Files<'_>) -> Result<Option<Cpu>, CgroupError> {
    let mut cpu = Cpu::default();
    let there = files.keyed("cpu.stat", |key, value| match key {
        "usage_usec" => cpu.total = value * 1000,
        "user_usec" => cpu.user = value * 1000,
        "system_usec" => cpu.kernel = value * 1000,
        "nr_periods" => cpu.periods = value,
        "nr_throttled" => cpu.throttled_periods = value,
        "throttled_usec" => cpu.throttled = value * 1000,
        "nr_bursts" => cpu.burst_periods = value,
        "burst_usec" => cpu.burst = value * 1000,
        _ => {}
    })?;
    cpu.psi = files.psi("cpu.pressure")?;
    Ok(there.then_some(cpu))
}

fn memory(files: &mut Files<'_>) -> Result<Option<Memory>, CgroupError> {
    let Some(stat) = files.map("memory.stat")? else { return Ok(None) };
    let mut events = MemoryEvents::default();
    let there = files.keyed("memory.events", |key, value| match key {
        "low" => events.low = value,
        "high" => events.high = value,
        "max" => events.max = value,
        "oom" => events.oom = value,
        "oom_kill" => events.oom_kill = value,
        "oom_group_kill" => events.oom_group_kill = value,
        _ => {}
    })?;
    Ok(Some(Memory {
        stat,
        memory: memory_use(files, "memory")?.unwrap_or_default(),
        swap: memory_use(files, "memory.swap")?,
        use_hierarchy: true,
        events: there.then_some(events),
        psi: files.psi("memory.pressure")?,
        v2: true,
        ..Memory::default()
    }))
}

// memory.peak is of Linux 5.19, memory.swap.peak of 6.5; without swap accounting the swap files are missing.
fn memory_use(files: &mut Files<'_>, prefix: &str) -> Result<Option<MemoryUse>, CgroupError> {
    let Some(usage) = files.number(&format!("{prefix}.current"))? else { return Ok(None) };
    Ok(Some(MemoryUse {
        usage,
        max_usage: files.number_or_0(&format!("{prefix}.peak"))?,
        failcnt: 0,
        limit: files.number(&format!("{prefix}.max"))?.unwrap_or(u64::MAX),
    }))
}

fn io(files: &mut Files<'_>) -> Result<Option<Io>, CgroupError> {
    let mut io = Io::default();
    let Some(text) = files.text("io.stat")? else { return Ok(None) };
    // "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0"; a device without figures may have no words at all, or share
    // its line with the next one (Linux before 5.14).
    for line in text.lines() {
        let mut device = None;
        for word in line.split_ascii_whitespace() {
            if let Some((major, minor)) = word.split_once(':') {
                if let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) {
                    io.devices.push(IoDevice { major, minor, ..IoDevice::default() });
                    device = io.devices.last_mut();
                }
            } else if let (Some(device), Some((key, value))) = (&mut device, word.split_once('=')) {
                set(device, key, value.parse().unwrap_or(0));
            }
        }
    }
    for &IoDevice { major, minor, rbytes, wbytes, rios, wios } in &io.devices {
        let entry = |op: &str, value| IoEntry { major, minor, op: op.to_owned(), value };
        io.service_bytes.extend([entry("Read", rbytes), entry("Write", wbytes)]);
        io.serviced.extend([entry("Read", rios), entry("Write", wios)]);
    }
    io.psi = files.psi("io.pressure")?;
    Ok(Some(io))
}

fn set(device: &mut IoDevice, key: &str, value: u64) {
    match key {
        "rbytes" => device.rbytes = value,
        "wbytes" => device.wbytes = value,
        "rios" => device.rios = value,
        "wios" => device.wios = value,
        _ => {}
    }
}

fn hugetlb(files: &mut Files<'_>, stats: &mut Stats) -> Result<(), CgroupError> {
    for size in page_sizes() {
        for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
            let Some(usage) = files.number(&format!("{prefix}.current"))? else { continue };
            let limit = files.number(&format!("{prefix}.max"))?.unwrap_or(u64::MAX);
            let mut failcnt = 0;
            files.keyed(&format!("hugetlb.{size}.events"), |key, value| {
                if key == "max" {
                    failcnt = value;
                }
            })?;
            stats.hugetlb.insert(size.clone(), Hugetlb { usage, max_usage: 0, failcnt, limit });
            break;
        }
    }
    Ok(())
}

fn misc(files: &mut Files<'_>, stats: &mut Stats) -> Result<(), CgroupError> {
    files.keyed("misc.current", |key, value| stats.misc.entry(key.to_owned()).or_default().usage = value)?;
    files.keyed("misc.events", |key, value| {
        if let Some(key) = key.strip_suffix(".max") {
            stats.misc.entry(key.to_owned()).or_default().events = value;
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(std::path::PathBuf);

    impl Dir {
        fn new(name: &str, files: &[(&str, &str)]) -> Dir {
            let dir = std::env::temp_dir().join(format!("cofferdam-stats-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            for (name, text) in files {
                std::fs::write(dir.join(name), text).unwrap();
            }
            Dir(dir)
        }

        fn read(&self) -> Stats {
            read(self.0.to_str().unwrap()).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn an_empty_directory_is_no_error() {
        assert_eq!(Dir::new("empty", &[]).read(), Stats::default());
    }

    #[test]
    fn every_controller_is_read() {
        let dir = Dir::new(
            "all",
            &[
                (
                    "cpu.stat",
                    "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\nnr_bursts 1\nburst_usec 3\n",
                ),
                ("cpu.pressure", "some avg10=1.00 avg60=0.00 avg300=0.00 total=9\n"),
                ("memory.stat", "anon 100\nfile 200\n"),
                ("memory.current", "4096\n"),
                ("memory.max", "max\n"),
                ("memory.peak", "8192\n"),
                ("memory.swap.current", "10\n"),
                ("memory.swap.max", "20\n"),
                ("memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n"),
                ("pids.current", "3\n"),
                ("pids.max", "max\n"),
                (
                    "io.stat",
                    "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n254:1 \n7:0 7:1 rbytes=9 wbytes=0 rios=0 wios=0\n",
                ),
                ("misc.current", "res_a 3\n"),
                ("misc.events", "res_a.max 2\n"),
                ("rdma.current", "mlx4_0 hca_handle=1 hca_object=2\n"),
                ("rdma.max", "mlx4_0 hca_handle=max hca_object=3\n"),
            ],
        );
        let stats = dir.read();
        let cpu = stats.cpu.unwrap();
        assert_eq!((cpu.total, cpu.user, cpu.kernel), (10_000, 6000, 4000));
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled), (5, 2, 7000));
        assert_eq!((cpu.burst_periods, cpu.burst), (1, 3000));
        assert_eq!(cpu.psi.unwrap().some.total, 9);
        let memory = stats.memory.unwrap();
        assert_eq!(memory.cache(), 200);
        assert_eq!(memory.memory, MemoryUse { usage: 4096, max_usage: 8192, failcnt: 0, limit: u64::MAX });
        assert_eq!(memory.swap.unwrap().limit, 20);
        assert_eq!(memory.memory_and_swap().usage, 4106);
        assert_eq!(memory.memory_and_swap().limit, u64::MAX);
        assert_eq!(memory.events.unwrap().oom_group_kill, 6);
        assert_eq!(memory.psi, None);
        assert_eq!(stats.pids.unwrap().limit, u64::MAX);
        let io = stats.io.unwrap();
        let numbers: Vec<_> = io.devices.iter().map(|d| (d.major, d.minor, d.rbytes)).collect();
        assert_eq!(numbers, [(8, 0, 1), (254, 1, 0), (7, 0, 0), (7, 1, 9)]);
        assert_eq!((io.serviced[1].op.as_str(), io.serviced[1].value), ("Write", 4));
        assert_eq!((stats.misc["res_a"].usage, stats.misc["res_a"].events), (3, 2));
        assert_eq!(stats.rdma.unwrap().limit[0].hca_handles, u32::MAX);
    }

    #[test]
    fn a_file_that_is_no_number_is_named() {
        let dir = Dir::new("bad", &[("memory.stat", ""), ("memory.current", "lots\n")]);
        let error = read(dir.0.to_str().unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("/memory.current: \"lots\" is not what was expected"), "{error}");
    }
}
