//! How long a profile takes to compile, and how long the kernel's run over the result is.
//!
//!     cargo run -p cofferdam-seccomp --release --example time_compile [PROFILE.json ...]
//!
//! Without arguments: the profiles of Docker and podman in tests/data. A file may also be a whole config.json. Beside
//! our figures stand those of libseccomp's program, if python3 and libseccomp are there.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_seccomp::interpret::{Call, run};
use cofferdam_seccomp::{Instruction, Seccomp, Target, compile};
use oci_spec::runtime::Arch;
use serde_json::{Value, json};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
const ROUNDS: usize = 2000;

fn main() {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        files = ["docker", "podman"].map(|name| format!("{TESTS}/data/{name}.json")).into();
    }
    let target = Target::newest().expect("libseccomp has a name for this machine");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut json: Value = serde_json::from_str(&text).unwrap();
        if let Some(profile) = json.pointer("/linux/seccomp") {
            json = profile.clone();
        }
        let profile: Seccomp = serde_json::from_value(json.clone()).unwrap();
        let program = compile(&profile, &target).unwrap_or_else(|error| panic!("{file}: {error}"));
        let (minimum, median) = time(|| compile(&profile, &target));
        println!("{file}");
        println!("  compile: minimum {minimum:?}, median {median:?} of {ROUNDS}");
        print_program("ours", &program.instructions, target.arch);
        match libseccomp(&json, target.arch) {
            Some(program) => print_program("libseccomp's, without runc's ENOSYS stub", &program, target.arch),
            None => println!("  libseccomp's: not at hand"),
        }
    }
}

fn time<T>(mut work: impl FnMut() -> T) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(work());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[0], times[ROUNDS / 2])
}

/// The length, and how many instructions a call takes on the way through, over the numbers in use: what the kernel
/// spends once for each filter to fill its cache (kernel/seccomp.c, `seccomp_cache_prepare_bitmap`).
fn print_program(whose: &str, program: &[Instruction], arch: Arch) {
    let steps: Vec<usize> = (0..470)
        .map(|number| run(program, &Call { number, arch: arch as u32, ..Call::default() }).unwrap().steps)
        .collect();
    println!(
        "  {whose}: {} instructions; per call {:.1} on average, at most {}",
        program.len(),
        steps.iter().sum::<usize>() as f64 / steps.len() as f64,
        steps.iter().max().unwrap()
    );
}

fn libseccomp(profile: &Value, native: Arch) -> Option<Vec<Instruction>> {
    let mut child = Command::new("python3")
        .arg(format!("{TESTS}/answers/libseccomp.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    writeln!(child.stdin.take()?, "{}", json!({ "profile": profile, "native": native })).ok()?;
    let answer: Value = serde_json::from_slice(&child.wait_with_output().ok()?.stdout).ok()?;
    let hex = answer["bpf"].as_str()?;
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    Some(
        (0..hex.len() / 16)
            .map(|i| Instruction::from_bytes(std::array::from_fn(|b| byte(8 * i + b))))
            .collect(),
    )
}
