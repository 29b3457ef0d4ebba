//! What a filter must know of each architecture.

use oci_spec::runtime::Arch;

use crate::syscalls::{Column, table};

/// Bit 30 of a system call number marks x32 (asm/unistd.h, `__X32_SYSCALL_BIT`); its audit architecture is x86_64's.
pub(crate) const X32_BIT: u32 = 1 << 30;

/// Bit of an audit architecture: little-endian (linux/audit.h, `__AUDIT_ARCH_LE`).
const AUDIT_LITTLE_ENDIAN: u32 = 0x4000_0000;

/// One `SCMP_ARCH_*`.
#[derive(Debug)]
pub(crate) struct ArchInfo {
    pub arch: Arch,
    /// `seccomp_data.arch`, an `AUDIT_ARCH_*` of linux/audit.h.
    pub audit: u32,
    /// Compare all 64 bits of an argument. libseccomp compares only the lower 32 where pointers have 32, which
    /// includes x32 and n32.
    pub wide: bool,
    /// Added to the table's numbers.
    pub base: u32,
    pub column: &'static Column,
    /// Numbers of socketcall(2) and ipc(2), where these still multiplex.
    pub multiplexers: Option<(u32, u32)>,
}

impl ArchInfo {
    pub(crate) fn big_endian(&self) -> bool {
        is_big_endian(self.audit)
    }
}

pub(crate) fn is_big_endian(audit: u32) -> bool {
    audit & AUDIT_LITTLE_ENDIAN == 0
}

/// Facts about `arch`; none for `SCMP_ARCH_NATIVE`, which is a reference, not an architecture.
pub(crate) fn info(arch: Arch) -> Option<&'static ArchInfo> {
    ARCHES.iter().find(|info| info.arch == arch)
}

const fn wide(arch: Arch, column: &'static Column) -> ArchInfo {
    ArchInfo { arch, audit: arch as u32, wide: true, base: 0, column, multiplexers: None }
}

const fn narrow(arch: Arch, column: &'static Column) -> ArchInfo {
    ArchInfo { wide: false, ..wide(arch, column) }
}

impl ArchInfo {
    const fn from(self, base: u32) -> ArchInfo {
        ArchInfo { base, ..self }
    }

    /// With socketcall(2) and ipc(2), which have the same numbers wherever they exist.
    const fn multiplexing(self) -> ArchInfo {
        ArchInfo { multiplexers: Some((self.base + 102, self.base + 117)), ..self }
    }
}

/// The `SCMP_ARCH_*` constants are the audit architectures themselves, except x32's, which libseccomp made up.
pub(crate) static ARCHES: [ArchInfo; 23] = [
    wide(Arch::ScmpArchX86_64, &table::X86_64),
    narrow(Arch::ScmpArchX86, &table::X86).multiplexing(),
    ArchInfo { audit: Arch::ScmpArchX86_64 as u32, ..narrow(Arch::ScmpArchX32, &table::X32).from(X32_BIT) },
    wide(Arch::ScmpArchAarch64, &table::AARCH64),
    narrow(Arch::ScmpArchArm, &table::ARM),
    narrow(Arch::ScmpArchMips, &table::MIPS).from(4000).multiplexing(),
    narrow(Arch::ScmpArchMipsel, &table::MIPS).from(4000).multiplexing(),
    wide(Arch::ScmpArchMips64, &table::MIPS64).from(5000),
    wide(Arch::ScmpArchMipsel64, &table::MIPS64).from(5000),
    narrow(Arch::ScmpArchMips64n32, &table::MIPS64N32).from(6000),
    narrow(Arch::ScmpArchMipsel64n32, &table::MIPS64N32).from(6000),
    narrow(Arch::ScmpArchPpc, &table::PPC).multiplexing(),
    wide(Arch::ScmpArchPpc64, &table::PPC64).multiplexing(),
    wide(Arch::ScmpArchPpc64le, &table::PPC64).multiplexing(),
    narrow(Arch::ScmpArchS390, &table::S390).multiplexing(),
    wide(Arch::ScmpArchS390x, &table::S390X).multiplexing(),
    narrow(Arch::ScmpArchParisc, &table::PARISC),
    wide(Arch::ScmpArchParisc64, &table::PARISC64),
    wide(Arch::ScmpArchRiscv64, &table::RISCV64),
    wide(Arch::ScmpArchLoongarch64, &table::LOONGARCH64),
    narrow(Arch::ScmpArchM68k, &table::M68K).multiplexing(),
    narrow(Arch::ScmpArchSh, &table::SH).multiplexing(),
    narrow(Arch::ScmpArchSheb, &table::SH).multiplexing(),
];
