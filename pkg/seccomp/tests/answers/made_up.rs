//! Profiles made up from a seed.

use serde_json::{Value, json};

/// A small generator (xorshift64*), so that a seed always makes the same profile.
pub struct MadeUp(u64);

impl MadeUp {
    pub fn new(seed: u64) -> MadeUp {
        MadeUp(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }

    /// With at most so many `args` in an entry, and one action beside the default one: then every rule that matches gives the same answer, in whatever order.
    pub fn profile(&mut self, operators: &[&str], args: u64) -> Value {
        let arches = [
            json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
            json!(["SCMP_ARCH_X86"]),
            json!(["SCMP_ARCH_X32", "SCMP_ARCH_X86_64"]),
            json!([]),
        ];
        let (default, action) = match self.next() % 3 {
            0 => ("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"),
            1 => ("SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS"),
            _ => ("SCMP_ACT_TRAP", "SCMP_ACT_LOG"),
        };
        let entries: Vec<Value> =
            (0..1 + self.next() % 12).map(|_| self.entry(action, operators, args)).collect();
        let arches = &arches[self.next() as usize % 4];
        json!({ "defaultAction": default, "architectures": arches, "syscalls": entries })
    }

    fn entry(&mut self, action: &str, operators: &[&str], args: u64) -> Value {
        const NAMES: [&str; 12] = [
            "read",
            "clone",
            "personality",
            "socket",
            "sendto",
            "shmctl",
            "semop",
            "prctl",
            "mmap",
            "openat2",
            "ioctl",
            "fcntl64",
        ];
        let names: Vec<&str> = (0..1 + self.next() % 3).map(|_| self.one(&NAMES)).collect();
        let args: Vec<Value> = (0..self.next() % (args + 1)).map(|_| self.arg(operators)).collect();
        json!({ "names": names, "action": action, "args": args })
    }

    fn arg(&mut self, operators: &[&str]) -> Value {
        const VALUES: [u64; 11] = [0, 1, 2, 5, 8, 0xff, 0xffff_ffff, 1 << 32, 1 << 32 | 5, 1 << 63, u64::MAX];
        json!({
            "index": self.next() % 3,
            "op": format!("SCMP_CMP_{}", self.one(operators)),
            "value": self.one(&VALUES),
            "valueTwo": self.one(&VALUES),
        })
    }
}
