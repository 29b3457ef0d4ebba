//! The system calls on which two programs are compared.

use cofferdam_seccomp::interpret::Call;
use cofferdam_seccomp::syscalls;
use oci_spec::runtime::Arch;
use serde_json::Value;

pub fn arch_named(name: &str) -> Arch {
    name.parse().unwrap_or_else(|_| panic!("{name} is no architecture"))
}

/// `seccomp_data.arch`.
pub fn audit(arch: Arch) -> u32 {
    if arch == Arch::ScmpArchX32 { Arch::ScmpArchX86_64 as u32 } else { arch as u32 }
}

/// Whether arguments have 64 bits that count.
pub fn wide(arch: Arch) -> bool {
    use Arch::*;
    const WIDE: [Arch; 10] = [
        ScmpArchX86_64,
        ScmpArchAarch64,
        ScmpArchMips64,
        ScmpArchMipsel64,
        ScmpArchPpc64,
        ScmpArchPpc64le,
        ScmpArchS390x,
        ScmpArchParisc64,
        ScmpArchRiscv64,
        ScmpArchLoongarch64,
    ];
    WIDE.contains(&arch)
}

/// socketcall(2) or ipc(2) and what its first argument must be, if the architecture has them and reaches `name`
/// through them.
pub fn selector(name: &str, arch: Arch) -> Option<(u32, u64)> {
    use Arch::*;
    const MULTIPLEXING: [Arch; 11] = [
        ScmpArchX86,
        ScmpArchMips,
        ScmpArchMipsel,
        ScmpArchPpc,
        ScmpArchPpc64,
        ScmpArchPpc64le,
        ScmpArchS390,
        ScmpArchS390x,
        ScmpArchM68k,
        ScmpArchSh,
        ScmpArchSheb,
    ];
    const SOCKET: &str = "- socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom \
        shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg";
    const IPC: &str = "- semop semget semctl semtimedop - - - - - - msgsnd msgrcv msgget msgctl - - - - - - shmat shmdt \
        shmget shmctl";
    let base = if matches!(arch, ScmpArchMips | ScmpArchMipsel) { 4000 } else { 0 };
    let within = |list: &str| list.split_ascii_whitespace().position(|other| other == name);
    let call = within(SOCKET).map(|n| (base + 102, n)).or(within(IPC).map(|n| (base + 117, n)));
    call.filter(|_| MULTIPLEXING.contains(&arch)).map(|(number, n)| (number, n as u64))
}

fn multiplexer(name: &str, arch: Arch) -> Option<u32> {
    selector(name, arch).map(|(number, _)| number)
}

/// Every number under which a call arrives.
pub fn numbers(name: &str, arch: Arch) -> impl Iterator<Item = u32> {
    syscalls::number(name, arch).into_iter().chain(multiplexer(name, arch))
}

/// Puts every number, and where the profile looks at arguments, every combination of values at the edges of what it
/// compares them with.
pub fn every(profile: &Value, native: &str, mut put: impl FnMut(&Call)) {
    let listed = profile["architectures"].as_array().into_iter().flatten().map(|arch| arch.as_str().unwrap());
    let mut arches: Vec<Arch> = listed.chain([native, "SCMP_ARCH_AARCH64"]).map(arch_named).collect();
    arches.sort_by_key(|&arch| arch as u32);
    arches.dedup();
    for arch in arches {
        // Where the architecture's own numbers begin: read(2) is among the first of each.
        let base = syscalls::number("read", arch).unwrap_or(0) / 1000 * 1000;
        let plain = (0..600).flat_map(|n| [n, 0x4000_0000 + n, base + n]);
        let private = 0x0f_0000..0x0f_0010;
        let huge =
            [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, 0xffff_fffe, 0xffff_ffff];
        for number in plain.chain(private).chain(huge) {
            put(&Call { number, arch: audit(arch), args: [0; 6] });
            put(&Call { number, arch: audit(arch), args: [u64::MAX, 1, 2, 3, 4, 5] });
        }
        for entry in profile["syscalls"].as_array().into_iter().flatten() {
            for name in entry["names"].as_array().unwrap() {
                with_arguments(profile, name.as_str().unwrap(), arch, &mut put);
            }
        }
    }
}

fn with_arguments(profile: &Value, name: &str, arch: Arch, put: &mut impl FnMut(&Call)) {
    let mut edges: [Vec<u64>; 6] = Default::default();
    for entry in profile["syscalls"].as_array().unwrap() {
        if entry["names"].as_array().unwrap().iter().any(|other| other == name) {
            for arg in entry["args"].as_array().into_iter().flatten() {
                let edges = &mut edges[arg["index"].as_u64().unwrap() as usize];
                let values = [arg["value"].as_u64().unwrap(), arg["valueTwo"].as_u64().unwrap_or(0)];
                for v in values {
                    edges.extend([
                        0,
                        v.wrapping_sub(1),
                        v,
                        v.wrapping_add(1),
                        !v,
                        v ^ 1 << 32,
                        v & 0xffff_ffff,
                        v << 32,
                    ]);
                }
                edges.push(values[0] & values[1]);
            }
        }
    }
    for number in numbers(name, arch) {
        if multiplexer(name, arch) == Some(number) {
            edges[0] = (0..=25).chain([1 << 32 | 1, u64::MAX]).collect();
        }
        for edges in &mut edges {
            edges.sort_unstable();
            edges.dedup();
        }
        combinations(&edges, number, arch, put);
    }
}

/// All combinations, or where they are too many, a spread of them.
fn combinations(edges: &[Vec<u64>; 6], number: u32, arch: Arch, put: &mut impl FnMut(&Call)) {
    let all: usize = edges.iter().map(|edges| edges.len().max(1)).product();
    let step = if all > 4_000 { 1009 } else { 1 };
    for combination in (0..all).step_by(step).take(4_000) {
        let mut rest = combination;
        let args = edges.each_ref().map(|edges| {
            let value = edges.get(rest % edges.len().max(1)).copied().unwrap_or(0);
            rest /= edges.len().max(1);
            value
        });
        put(&Call { number, arch: audit(arch), args });
    }
}
