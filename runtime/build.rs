//! Builds init as a freestanding static image and leaves it where `launch` embeds it.
//!
//! Cargo has no stable way to depend on another package's binary, so this asks cargo for it: with the workspace's own lock
//! file, in a target directory of its own (the outer one is locked by the build that runs this), and with the flags that a
//! program without libc needs.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No libc start files, no libraries, a fixed address (no relocations to carry out), no page-aligned gaps in the file.
const FLAGS: [&str; 7] = [
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-Wl,-z,noseparate-code,-z,norelro,--build-id=none,--gc-sections",
    "-Cforce-unwind-tables=no",
];

fn main() {
    let root = PathBuf::from(var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    for room in ["pkg/init", "pkg/step", "pkg/sys", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(room).display());
    }
    let out = PathBuf::from(var_os("OUT_DIR").expect("cargo sets it"));
    // Without a libc it is the same for all of them, and rustc adds start files of musl's that -nostartfiles does not keep away.
    let target = std::env::var("TARGET").expect("cargo sets it").replace("-musl", "-gnu");
    let image = build(&root, &target_dir(&out), target.as_ref());
    std::fs::copy(&image, out.join("init")).expect("copy the image of init");
    // With glibc, whose functions the list does not have, it would gain little; other linkers than GNU's make no second mapping of it.
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("musl") {
        let hot = root.join("runtime/hot.ld");
        println!("cargo::rerun-if-changed={}", hot.display());
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", hot.display());
    }
}

/// One target directory for all profiles of the outer build: OUT_DIR is TARGET_DIR[/TRIPLE]/PROFILE/build/NAME/out.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors().nth(4).map_or_else(|| out.join("init-target"), |dir| dir.join("init-target"))
}

fn build(root: &Path, target_dir: &Path, target: &std::ffi::OsStr) -> PathBuf {
    let mut cargo = Command::new(var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(root)
        .args(["build", "--locked", "--profile", "init", "-p", "cofferdam-init", "--features", "image"])
        .args(["--bin", "cofferdam-init", "--target"])
        .arg(target)
        .arg("--target-dir")
        .arg(target_dir);
    // What the outer build was told (a linter's wrapper, coverage) is not meant for this one.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_TARGET_")
            || text.starts_with("CARGO_PROFILE_")
            || text.contains("RUSTFLAGS")
        {
            cargo.env_remove(&name);
        }
    }
    cargo.env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("RUSTC_WRAPPER").env_remove("CLIPPY_ARGS");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let status = cargo.status().expect("run cargo");
    assert!(status.success(), "building init failed: {status}");
    target_dir.join(target).join("init/cofferdam-init")
}
