//! System calls by name: the number each architecture gives them, and the release that introduced them.
//!
//! The table is generated (hack/seccomp/generate.py) from libseccomp's, completed and cross-checked with the
//! kernel's own headers. It is one sorted list of names with a column of numbers for each architecture.

use oci_spec::runtime::Arch;

use crate::arch::{self, ArchInfo};

#[rustfmt::skip]
pub(crate) mod table;

use table::{COUNT, NAMES, OFFSETS, SINCE};

/// A name's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row(u16);

/// Stored where an architecture has no such call.
const ABSENT: u16 = 0xffff;
/// Arm's private calls, 0x0f0000 + n, are stored as 0xf000 + n.
pub(crate) const ARM_PRIVATE: u32 = 0x0f_0000;
const ARM_PRIVATE_STORED: u16 = 0xf000;

/// A column of the table.
pub(crate) type Column = [u16; COUNT];

/// The number `arch` gives the call `name`; none if the name or the call on that architecture is unknown.
///
/// x32's numbers carry bit 30 and the MIPS ABIs' their base, as the kernel shows them to a filter. `SCMP_ARCH_NATIVE`
/// has no numbers of its own.
pub fn number(name: &str, arch: Arch) -> Option<u32> {
    row(name)?.number(arch::info(arch)?)
}

/// The name of call `number` on `arch`.
pub fn name(number: u32, arch: Arch) -> Option<&'static str> {
    let info = arch::info(arch)?;
    (0..COUNT as u16).map(Row).find(|row| row.number(info) == Some(number)).map(Row::name)
}

/// The Linux release (major, minor, patch) that introduced the call `name`, by syscalls(2); none where unknown.
pub fn since(name: &str) -> Option<(u8, u8, u8)> {
    let [major, minor, patch] = SINCE[row(name)?.0 as usize];
    (major > 0).then_some((major, minor, patch))
}

/// Every name in the table, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    (0..COUNT as u16).map(|row| Row(row).name())
}

impl Row {
    pub(crate) fn name(self) -> &'static str {
        let row = self.0 as usize;
        &NAMES[OFFSETS[row] as usize..OFFSETS[row + 1] as usize]
    }

    pub(crate) fn number(self, info: &ArchInfo) -> Option<u32> {
        match info.column[self.0 as usize] {
            ABSENT => None,
            private @ ARM_PRIVATE_STORED.. => Some(ARM_PRIVATE + u32::from(private - ARM_PRIVATE_STORED)),
            plain => Some(info.base + u32::from(plain)),
        }
    }

    /// How this call is reached through socketcall(2) or ipc(2).
    pub(crate) fn multiplexed(self) -> Option<Multiplexed> {
        match MULTIPLEXED[self.0 as usize] {
            0 => None,
            call if call & IPC == 0 => Some(Multiplexed::Socketcall(call)),
            call => Some(Multiplexed::Ipc(call & !IPC)),
        }
    }
}

/// The first argument of the multiplexing call that selects another call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Multiplexed {
    Socketcall(u8),
    Ipc(u8),
}

const IPC: u8 = 0x80;

/// `SYS_*` of linux/net.h and the call numbers of linux/ipc.h, 1-based; ipc(2)'s are marked with `IPC`.
static MULTIPLEXED: [u8; COUNT] = {
    const SOCKETCALL: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC_CALLS: [(&str, u8); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let mut calls = [0; COUNT];
    let mut i = 0;
    while i < SOCKETCALL.len() {
        calls[const_row(SOCKETCALL[i])] = i as u8 + 1;
        i += 1;
    }
    i = 0;
    while i < IPC_CALLS.len() {
        calls[const_row(IPC_CALLS[i].0)] = IPC_CALLS[i].1 | IPC;
        i += 1;
    }
    calls
};

/// Slots of the hash index: four times the names, so that a probe rarely needs a second look.
const SLOTS: usize = 2048;

/// Open addressing over the names: row + 1, 0 for an empty slot. A profile names some 400 calls; this way each costs
/// one comparison of strings, where binary search would cost nine.
static INDEX: [u16; SLOTS] = {
    let mut index = [0; SLOTS];
    let mut row = 0;
    while row < COUNT {
        let (name, _) = NAMES.as_bytes().split_at(OFFSETS[row + 1] as usize);
        let mut slot = slot(name.split_at(OFFSETS[row] as usize).1);
        while index[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = row as u16 + 1;
        row += 1;
    }
    index
};

/// In the manner of FNV-1a, but four bytes at a time, folded to a slot.
const fn slot(mut name: &[u8]) -> usize {
    let mut hash = 0x811c_9dc5_u32;
    while let Some((four, rest)) = name.split_first_chunk() {
        hash = (hash.rotate_left(5) ^ u32::from_le_bytes(*four)).wrapping_mul(0x0100_0193);
        name = rest;
    }
    while let Some((one, rest)) = name.split_first() {
        hash = (hash ^ *one as u32).wrapping_mul(0x0100_0193);
        name = rest;
    }
    (hash ^ hash >> 15) as usize % SLOTS
}

/// Whether both are the same. Musl's memcmp looks at each byte on its own.
fn same(mut one: &[u8], mut other: &[u8]) -> bool {
    while let (Some((a, one_rest)), Some((b, other_rest))) =
        (one.split_first_chunk(), other.split_first_chunk())
    {
        if u64::from_le_bytes(*a) != u64::from_le_bytes(*b) {
            return false;
        }
        (one, other) = (one_rest, other_rest);
    }
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a == b)
}

pub(crate) fn row(name: &str) -> Option<Row> {
    let mut slot = slot(name.as_bytes());
    loop {
        let row = Row(INDEX[slot].checked_sub(1)?);
        if same(row.name().as_bytes(), name.as_bytes()) {
            return Some(row);
        }
        slot = (slot + 1) % SLOTS;
    }
}

const fn const_row(name: &str) -> usize {
    let (name, names) = (name.as_bytes(), NAMES.as_bytes());
    let mut row = 0;
    while row < COUNT {
        let from = OFFSETS[row] as usize;
        if OFFSETS[row + 1] as usize - from == name.len() {
            let mut i = 0;
            while i < name.len() && names[from + i] == name[i] {
                i += 1;
            }
            if i == name.len() {
                return row;
            }
        }
        row += 1;
    }
    panic!("the table lacks a multiplexed call")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_its_own_row() {
        for (i, name) in names().enumerate() {
            assert_eq!(row(name), Some(Row(i as u16)), "{name}");
        }
        assert_eq!(row(""), None);
        assert_eq!(row("openat3"), None);
    }

    #[test]
    fn numbers_are_small_but_for_arms_private_ones() {
        for info in &arch::ARCHES {
            for row in (0..COUNT as u16).map(Row) {
                let Some(number) = row.number(info) else { continue };
                let offset = number - info.base;
                let private =
                    info.arch == Arch::ScmpArchArm && (ARM_PRIVATE..ARM_PRIVATE + 16).contains(&offset);
                assert!(offset < 1008 || private, "{} on {}", row.name(), info.arch);
            }
        }
    }

    #[test]
    fn numbers_are_those_a_filter_sees() {
        assert_eq!(number("openat", Arch::ScmpArchX86_64), Some(257));
        assert_eq!(number("execve", Arch::ScmpArchX32), Some(0x4000_0000 + 520));
        assert_eq!(number("openat", Arch::ScmpArchAarch64), Some(56));
        assert_eq!(number("open", Arch::ScmpArchAarch64), None);
        assert_eq!(number("read", Arch::ScmpArchMips), Some(4003));
        assert_eq!(number("read", Arch::ScmpArchMipsel64n32), Some(6000));
        assert_eq!(number("set_tls", Arch::ScmpArchArm), Some(0x0f_0005));
        assert_eq!(number("listns", Arch::ScmpArchX86_64), Some(470));
        assert_eq!(name(0x0f_0005, Arch::ScmpArchArm), Some("set_tls"));
        assert_eq!(name(9999, Arch::ScmpArchX86), None);
    }

    #[test]
    fn releases_are_known() {
        assert_eq!(since("clone3"), Some((5, 3, 0)));
        assert_eq!(since("close_range"), Some((5, 9, 0)));
        assert_eq!(since("accept4"), Some((2, 6, 28)));
        assert_eq!(since("tuxcall"), None);
    }

    #[test]
    fn multiplexed_calls_carry_the_kernels_selectors() {
        let of = |name| row(name).unwrap().multiplexed();
        assert_eq!(of("socket"), Some(Multiplexed::Socketcall(1)));
        assert_eq!(of("sendmmsg"), Some(Multiplexed::Socketcall(20)));
        assert_eq!(of("shmctl"), Some(Multiplexed::Ipc(24)));
        assert_eq!(of("semop"), Some(Multiplexed::Ipc(1)));
        assert_eq!(of("read"), None);
    }
}
