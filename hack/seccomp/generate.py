#!/usr/bin/env python3
"""Write pkg/seccomp/src/syscalls/table.rs from three sources (hack/seccomp/fetch brings them):

  1. libseccomp's src/syscalls.csv: names and numbers for every SCMP_ARCH;
  2. the kernel's uapi unistd headers (Debian's linux-libc-dev carries all architectures): calls newer than 1,
     and a cross-check of every number of 1;
  3. the man page syscalls(2): the kernel release that introduced each call. What is too new for it, or absent
     from it, stands in SINCE below.

A number on which 1 and 2 disagree ends the run: a wrong number in a seccomp filter is a hole.

usage: generate.py SYSCALLS_CSV UAPI_DIR SYSCALLS_2 --versions LIBSECCOMP LINUX_LIBC_DEV MAN_PAGES > table.rs
"""

import csv
import re
import sys
from pathlib import Path

# Column -> (uapi header, what the header adds to each number).
HEADERS = {
    "x86": "x86/asm/unistd_32.h",
    "x86_64": "x86/asm/unistd_64.h",
    "x32": "x86/asm/unistd_x32.h",
    "arm": "arm/asm/unistd-eabi.h",
    "aarch64": "arm64/asm/unistd_64.h",
    "loongarch64": "loongarch/asm/unistd_64.h",
    "m68k": "m68k/asm/unistd_32.h",
    "mips": "mips/asm/unistd_o32.h",
    "mips64": "mips/asm/unistd_n64.h",
    "mips64n32": "mips/asm/unistd_n32.h",
    "parisc": "parisc/asm/unistd_32.h",
    "parisc64": "parisc/asm/unistd_64.h",
    "ppc": "powerpc/asm/unistd_32.h",
    "ppc64": "powerpc/asm/unistd_64.h",
    "riscv64": "riscv/asm/unistd_64.h",
    "s390": None,  # 31-bit s390 has left the kernel
    "s390x": "s390/asm/unistd_64.h",
    "sh": "sh/asm/unistd_32.h",
}

# Releases that syscalls(2) does not have.
SINCE = {
    **{
        f"{name}_time64": "5.1"
        for name in (
            "clock_getres clock_nanosleep futex io_pgetevents mq_timedreceive mq_timedsend ppoll pselect6 recvmmsg "
            "rt_sigtimedwait sched_rr_get_interval semtimedop utimensat"
        ).split()
    },
    **{
        name: "5.1"
        for name in (
            "clock_adjtime64 clock_gettime64 clock_settime64 timer_gettime64 timer_settime64 timerfd_gettime64 "
            "timerfd_settime64"
        ).split()
    },
    "mount_setattr": "5.12",
    "process_mrelease": "5.15",
    "futex_waitv": "5.16",
    "set_mempolicy_home_node": "5.17",
    "riscv_hwprobe": "6.4",
    "cachestat": "6.5",
    "fchmodat2": "6.6",
    "map_shadow_stack": "6.6",
    "futex_wake": "6.7",
    "futex_wait": "6.7",
    "futex_requeue": "6.7",
    "statmount": "6.8",
    "listmount": "6.8",
    "lsm_get_self_attr": "6.8",
    "lsm_set_self_attr": "6.8",
    "lsm_list_modules": "6.8",
    "mseal": "6.10",
    "uretprobe": "6.11",
    "setxattrat": "6.13",
    "getxattrat": "6.13",
    "listxattrat": "6.13",
    "removexattrat": "6.13",
    "open_tree_attr": "6.15",
    "file_getattr": "6.17",
    "file_setattr": "6.17",
    "uprobe": "6.18",
    "listns": "6.19",
    "rseq_slice_yield": "7.0",
}

ABSENT = 0xFFFF
# Arm's private calls start at 0x0f0000: stored as 0xf000 + n, below ABSENT, above every other number.
ARM_PRIVATE, ARM_PRIVATE_STORED = 0x0F0000, 0xF000


def read_csv(path):
    rows = list(csv.reader(open(path, encoding="utf-8")))
    columns = rows[0][1::2]
    kernel = re.search(r"v(\d+\.\d+)", rows[0][0])[1]
    table = {
        row[0]: {c: None if row[1 + 2 * i] == "PNR" else int(row[1 + 2 * i]) for i, c in enumerate(columns)}
        for row in rows[1:]
    }
    return columns, table, kernel


def read_header(path):
    numbers = {}
    for line in open(path, encoding="utf-8"):
        found = re.match(
            r"#define\s+__NR_(\w+)\s+\(?(?:(?:__NR_Linux|__X32_SYSCALL_BIT|__NR_SYSCALL_BASE)\s*\+\s*)?(\d+)\)?\s*$", line
        )
        if found and not re.match(r"(unused|reserved)\d+$|Linux$", found[1]):
            numbers[found[1]] = int(found[2])
    return numbers


def merge_headers(columns, table, uapi):
    """Adds what only the headers know; ends the run on a contradiction."""
    added = {}
    for column in columns:
        if HEADERS[column] is None:
            continue
        for name, number in read_header(uapi / HEADERS[column]).items():
            row = table.setdefault(name, dict.fromkeys(columns))
            if row[column] is None:
                row[column] = number
                added.setdefault(name, []).append(column)
            elif row[column] != number:
                sys.exit(f"{name} on {column}: libseccomp says {row[column]}, the kernel's header {number}")
    for name, where in added.items():
        print(f"from the headers: {name} ({' '.join(where)})", file=sys.stderr)


def read_man_page(path):
    since, pending = {}, None
    for line in open(path, encoding="utf-8"):
        if found := re.match(r"\\f\[B\](\w+)\\f\[\]\(2\)\t(\S+)", line):
            since[found[1]] = found[2].rstrip(";")
        elif found := re.match(r"\.BR (\w+) \(2\)", line):
            pending = found[1]
        elif pending and (found := re.match(r"T\}\t(\d\S*)", line)):
            since.setdefault(pending, found[1].rstrip(";"))
            pending = None
    return since


def release(text):
    parts = [int(p) for p in re.findall(r"\d+", text or "")][:3]
    return tuple(parts + [0] * (3 - len(parts)))


def encode(number):
    if number is None:
        return ABSENT
    if number >= ARM_PRIVATE:
        number = number - ARM_PRIVATE + ARM_PRIVATE_STORED
    elif number >= ARM_PRIVATE_STORED:
        sys.exit(f"number {number} does not fit the encoding")
    return number


def wrap(items, width=110, indent="    "):
    lines, line = [], indent
    for item in items:
        if len(line) + len(item) + 1 > width:
            lines.append(line.rstrip())
            line = indent
        line += item + " "
    return "\n".join(lines + [line.rstrip()])


def main():
    csv_path, uapi, man = sys.argv[1:4]
    versions = sys.argv[sys.argv.index("--versions") + 1 :]
    columns, table, kernel = read_csv(csv_path)
    merge_headers(columns, table, Path(uapi))
    since = read_man_page(man) | SINCE
    names = sorted(table)
    for column in columns:
        numbers = [table[n][column] for n in names if table[n][column] is not None]
        if len(numbers) != len(set(numbers)):
            sys.exit(f"two names share a number on {column}")
    missing = [n for n in names if n not in since]
    print(f"{len(names)} names; release unknown for {len(missing)}: {' '.join(missing)}", file=sys.stderr)

    print("//! Generated by hack/seccomp/generate.py; do not edit.")
    print("//!")
    print(f"//! Sources: libseccomp {versions[0]} (src/syscalls.csv, Linux {kernel}), the uapi headers of linux-libc-dev")
    print(f"//! {versions[1]}, syscalls(2) of man-pages {versions[2]}.\n")
    print(f"/// How many names there are.\npub(super) const COUNT: usize = {len(names)};\n")
    print("/// Every name, sorted and run together: an array of strings would cost a relocation per name at start.")
    blob = "".join(names)
    print("pub(super) const NAMES: &str = concat!(")
    print("\n".join(f'    "{n}",' for n in names))
    print(");\n")
    offsets, at = [], 0
    for name in names:
        offsets.append(at)
        at += len(name)
    assert at == len(blob)
    print("/// Where in `NAMES` each name begins; the last entry is its end.")
    print("pub(super) static OFFSETS: [u16; COUNT + 1] = [")
    print(wrap([f"{o}," for o in offsets + [at]]))
    print("];\n")
    print("/// Release that introduced each call: major, minor, patch; zeros where unknown.")
    print("pub(super) static SINCE: [[u8; 3]; COUNT] = [")
    print(wrap([f"[{', '.join(map(str, release(since.get(n))))}]," for n in names]))
    print("];\n")
    for column in columns:
        print(f"/// {column}'s numbers, by row of `NAMES`.")
        print(f"pub(crate) static {column.upper()}: [u16; COUNT] = [")
        print(wrap([f"{encode(table[n][column])}," for n in names]))
        print("];\n")


if __name__ == "__main__":
    main()
