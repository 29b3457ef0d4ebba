//! OCI seccomp profiles, compiled to classic BPF.
//!
//! [`compile`] is pure: it reads no file and makes no system call. What it must know of the kernel comes in as a
//! [`Target`]. It answers as runc with libseccomp does, call by call (tests/libseccomp.rs compares them), and
//! adds runc's rule that calls newer than the profile fail with ENOSYS:
//!
//! - the native architecture is always filtered; calls of an architecture that is not in the profile kill the thread;
//! - names that no table has are passed over, with a warning;
//! - an entry whose action is the default action is passed over;
//! - a rule without conditions beats rules with conditions for the same call, and the first such rule beats the others;
//! - if one argument has several conditions in an entry, any of them is enough; else all must hold;
//! - socketcall(2) and ipc(2) are taken apart where they exist.
//!
//! Where we differ, on purpose:
//!
//! - runc finds the newest call of a profile without looking at socket and ipc calls on architectures that multiplex
//!   them, and so can answer ENOSYS to calls that the profile allows. We look at all of them.
//! - `errnoRet` with an action that returns none, or above the kernel's limit, is refused, as the specification
//!   demands; runc ignores the former and truncates the latter.

mod action;
mod arch;
mod bpf;
mod conditions;
mod document;
pub mod interpret;
mod lanes;
mod profile;
pub mod syscalls;

use oci_spec::runtime::Arch;
use serde::{Deserialize, Serialize};

pub use action::{ActionSet, describe};
pub use bpf::{Instruction, MAX_INSTRUCTIONS};
pub use document::Seccomp;

/// `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h.
pub mod flag {
    /// Apply the filter to all threads (Linux 3.17).
    pub const TSYNC: u32 = 1 << 0;
    /// Log what is not allowed (Linux 4.14).
    pub const LOG: u32 = 1 << 1;
    /// Leave the Speculative Store Bypass mitigation off (Linux 4.17).
    pub const SPEC_ALLOW: u32 = 1 << 2;
    /// Return an fd that hears of `SCMP_ACT_NOTIFY` (Linux 5.0).
    pub const NEW_LISTENER: u32 = 1 << 3;
    /// Let a failed TSYNC be ESRCH (Linux 5.7).
    pub const TSYNC_ESRCH: u32 = 1 << 4;
    /// Let only fatal signals interrupt a call the listener has received (Linux 5.19).
    pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    /// All of them.
    pub const ALL: u32 = 0x3f;
}

/// The values a profile may use, sorted, as `features` lists them.
pub mod known {
    /// For `linux.seccomp.actions`.
    pub const ACTIONS: [&str; 9] = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ];
    /// For `linux.seccomp.operators`.
    pub const OPERATORS: [&str; 7] = [
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ];
    /// For `linux.seccomp.archs`.
    pub const ARCHITECTURES: [&str; 23] = [
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_LOONGARCH64",
        "SCMP_ARCH_M68K",
        "SCMP_ARCH_MIPS",
        "SCMP_ARCH_MIPS64",
        "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL",
        "SCMP_ARCH_MIPSEL64",
        "SCMP_ARCH_MIPSEL64N32",
        "SCMP_ARCH_PARISC",
        "SCMP_ARCH_PARISC64",
        "SCMP_ARCH_PPC",
        "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_S390",
        "SCMP_ARCH_S390X",
        "SCMP_ARCH_SH",
        "SCMP_ARCH_SHEB",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X86_64",
    ];
    /// For `linux.seccomp.knownFlags`, each with its bit, by which the kernel's answer gives `supportedFlags`.
    pub const FLAGS: [(&str, u32); 4] = [
        ("SECCOMP_FILTER_FLAG_LOG", super::flag::LOG),
        ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", super::flag::SPEC_ALLOW),
        ("SECCOMP_FILTER_FLAG_TSYNC", super::flag::TSYNC),
        ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", super::flag::WAIT_KILLABLE_RECV),
    ];
}

/// The kernel that is to run the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its native architecture; x86_64 on a machine that also runs x86 and x32.
    pub arch: Arch,
    /// The actions it knows.
    pub actions: ActionSet,
    /// The bits of [`flag`] that it knows.
    pub flags: u32,
}

impl Target {
    /// The architecture this code was built for, with a kernel that knows everything.
    pub fn newest() -> Option<Target> {
        Some(Target { arch: native_arch()?, actions: ActionSet::ALL, flags: flag::ALL })
    }
}

/// The architecture this code was built for, if libseccomp has a name for it.
pub fn native_arch() -> Option<Arch> {
    let little = cfg!(target_endian = "little");
    Some(match std::env::consts::ARCH {
        "x86_64" if cfg!(target_pointer_width = "32") => Arch::ScmpArchX32,
        "x86_64" => Arch::ScmpArchX86_64,
        "x86" => Arch::ScmpArchX86,
        "aarch64" => Arch::ScmpArchAarch64,
        "arm" => Arch::ScmpArchArm,
        "riscv64" => Arch::ScmpArchRiscv64,
        "loongarch64" => Arch::ScmpArchLoongarch64,
        "powerpc64" if little => Arch::ScmpArchPpc64le,
        "powerpc64" => Arch::ScmpArchPpc64,
        "powerpc" => Arch::ScmpArchPpc,
        "s390x" => Arch::ScmpArchS390x,
        "mips64" if little => Arch::ScmpArchMipsel64,
        "mips64" => Arch::ScmpArchMips64,
        "mips" if little => Arch::ScmpArchMipsel,
        "mips" => Arch::ScmpArchMips,
        "m68k" => Arch::ScmpArchM68k,
        _ => return None,
    })
}

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// For `struct sock_fprog`; at most [`MAX_INSTRUCTIONS`].
    pub instructions: Vec<Instruction>,
    /// Bits of [`flag`] for `SECCOMP_SET_MODE_FILTER`.
    pub flags: u32,
    /// Some rule is `SCMP_ACT_NOTIFY`: loading the filter yields an fd that is to be sent to `listenerPath`.
    pub uses_notify: bool,
    /// Sentences for the log about what has no effect.
    pub warnings: Vec<String>,
}

impl Program {
    /// The instructions as an array of `struct sock_filter`, in this machine's byte order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.instructions.len() * 8);
        self.instructions.iter().for_each(|instruction| bytes.extend_from_slice(&instruction.to_bytes()));
        bytes
    }
}

/// Why a profile is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {sentence}")]
pub struct Error {
    /// JSON pointer into config.json.
    pub pointer: String,
    /// What is wrong there.
    pub sentence: String,
}

impl Error {
    /// `below` is a pointer below `/linux/seccomp`.
    fn new(below: impl std::fmt::Display, sentence: impl Into<String>) -> Error {
        Error { pointer: format!("/linux/seccomp/{below}"), sentence: sentence.into() }
    }
}

/// Compiles a profile (runtime-spec, config-linux.md, "Seccomp") for a kernel.
///
/// # Errors
/// If the profile contradicts the specification or itself, asks for what the kernel lacks, or needs more than
/// [`MAX_INSTRUCTIONS`].
pub fn compile(profile: &Seccomp, target: &Target) -> Result<Program, Error> {
    let profile = profile::read(profile, target)?;
    let instructions = lanes::build(&profile)?;
    if instructions.len() > MAX_INSTRUCTIONS {
        let sentence = format!(
            "the profile compiles to {} instructions, and the kernel takes {MAX_INSTRUCTIONS} (BPF_MAXINSNS)",
            instructions.len()
        );
        return Err(Error::new("syscalls", sentence));
    }
    let profile::Profile { flags, uses_notify, warnings, .. } = profile;
    Ok(Program { instructions, flags, uses_notify, warnings })
}
