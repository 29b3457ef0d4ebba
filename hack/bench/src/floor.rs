//! Builds the floor and rss.c, and the floor's seccomp filters.

use crate::Result;
use cofferdam_seccomp::{Seccomp, Target, compile};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the image that is sealed for each container, in bytes: that of cofferdam's init.
const IMAGE: u64 = 120_000;

const FLAGS: [&str; 13] = [
    "-O2",
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pie",
    "-no-pie",
    "-fno-tree-loop-distribute-patterns",
    "-fno-asynchronous-unwind-tables",
    "-Wl,-z,noseparate-code",
    "-Wl,-z,norelro",
    "-Wl,--build-id=none",
    "-s",
];

const SOURCES: [(&str, &str); 3] = [
    ("raw.h", include_str!("../raw.h")),
    ("floor.c", include_str!("../floor.c")),
    ("rss.c", include_str!("../rss.c")),
];

/// Builds `floor`, `floor-traced` and `rss` in `dir`.
///
/// # Errors
/// Without a C compiler and the kernel's headers.
pub fn build(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, text) in SOURCES {
        fs::write(dir.join(name), text)?;
    }
    cc(dir, "rss.c", "rss", &[])?;
    build_floor(dir, "floor", &[])?;
    build_floor(dir, "floor-traced", &["-DTRACE"])
}

fn build_floor(dir: &Path, name: &str, defines: &[&str]) -> Result<()> {
    let init = format!("{name}-init");
    let with = |more: &str| -> Vec<String> {
        defines.iter().map(|d| (*d).to_owned()).chain([more.to_owned()]).collect()
    };
    cc(dir, "floor.c", &init, &with("-DINIT"))?;
    let padding = IMAGE.saturating_sub(fs::metadata(dir.join(&init))?.len()).max(1);
    let mut padded = with("-DINIT");
    padded.push(format!("-DPAD={padding}"));
    cc(dir, "floor.c", &init, &padded)?;
    cc(dir, "floor.c", name, &with(&format!("-DIMAGE=\"{}\"", dir.join(&init).display())))
}

fn cc(dir: &Path, source: &str, program: &str, defines: &[String]) -> Result<()> {
    let mut command = Command::new("cc");
    command.current_dir(dir).args(FLAGS).args(defines).args(["-o", program, source]);
    let output = command.output().map_err(|error| format!("cc: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// The filter of a config.json, in the file `name` of `dir`; nothing if the config has none.
///
/// # Errors
/// If the profile does not compile.
pub fn filter(dir: &Path, name: &str, config: &serde_json::Value) -> Result<Option<PathBuf>> {
    let Some(profile) = config.pointer("/linux/seccomp") else { return Ok(None) };
    let profile: Seccomp = serde_json::from_value(profile.clone())?;
    let target = Target::newest().ok_or("seccomp knows no such architecture")?;
    let file = dir.join(format!("{name}.bpf"));
    fs::write(&file, compile(&profile, &target)?.to_bytes())?;
    Ok(Some(file))
}
