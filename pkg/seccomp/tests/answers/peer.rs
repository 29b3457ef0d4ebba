//! A Python process that answers for libseccomp.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cofferdam_seccomp::{Instruction, known, syscalls};
use serde_json::{Value, json};

use crate::calls::{arch_named, audit, numbers};

pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// By architecture and name.
    known: BTreeMap<String, BTreeMap<String, i64>>,
}

pub enum Answer {
    Program(Vec<Instruction>),
    Refused { entry: Option<u64>, errno: u64 },
    UnknownArch(String),
}

impl Peer {
    /// Errs with the reason why libseccomp cannot be asked.
    pub fn start() -> Result<Peer, String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/answers/libseccomp.py");
        let mut child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Peer { child, stdin, stdout, known: BTreeMap::new() };
        match peer.ask(&json!({ "numbers": [], "arches": [] })) {
            Some(_) => {
                peer.known = peer.numbers(syscalls::names().map(str::to_string).collect());
                Ok(peer)
            }
            None => {
                assert_eq!(peer.child.wait().unwrap().code(), Some(77), "libseccomp.py failed");
                Err("libseccomp.so.2 is not installed (Debian: libseccomp2)".into())
            }
        }
    }

    fn ask(&mut self, request: &Value) -> Option<Value> {
        writeln!(self.stdin, "{request}").ok()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// libseccomp's numbers for `names`, by architecture.
    pub fn numbers(&mut self, names: Vec<String>) -> BTreeMap<String, BTreeMap<String, i64>> {
        let answer = self.ask(&json!({ "numbers": names, "arches": known::ARCHITECTURES })).unwrap();
        serde_json::from_value(answer["numbers"].clone()).unwrap()
    }

    /// Whether libseccomp has this name with our numbers.
    pub fn agrees(&self, name: &str) -> bool {
        self.known.iter().all(|(arch, theirs)| {
            let ours = syscalls::number(name, arch_named(arch));
            match theirs.get(name) {
                None => false,
                Some(&number) if number >= 0 => ours == Some(number as u32),
                // It does not tell the direct number of a multiplexed call.
                Some(_) => ours.is_none() || numbers(name, arch_named(arch)).count() == 2,
            }
        })
    }

    pub fn compile(&mut self, profile: &Value, native: &str) -> Answer {
        let answer = self.ask(&json!({ "profile": profile, "native": native })).expect("libseccomp.py died");
        if let Some(hex) = answer["bpf"].as_str() {
            let little = audit(arch_named(native)) & 0x4000_0000 != 0;
            return Answer::Program(
                hex.as_bytes().chunks(16).map(|insn| instruction(insn, little)).collect(),
            );
        }
        if let Some(arch) = answer["unknown"].as_str() {
            return Answer::UnknownArch(arch.to_string());
        }
        Answer::Refused { entry: answer["entry"].as_u64(), errno: answer["refused"].as_u64().unwrap() }
    }
}

/// A `struct sock_filter` in hexadecimal.
fn instruction(hex: &[u8], little: bool) -> Instruction {
    let byte = |at: usize| u8::from_str_radix(std::str::from_utf8(&hex[2 * at..][..2]).unwrap(), 16).unwrap();
    let number = |bytes: std::ops::Range<usize>| -> u32 {
        let fold = |value, at| value << 8 | u32::from(byte(at));
        if little { bytes.rev().fold(0, fold) } else { bytes.fold(0, fold) }
    };
    Instruction { code: number(0..2) as u16, jt: byte(2), jf: byte(3), k: number(4..8) }
}
