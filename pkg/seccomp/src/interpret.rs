//! Runs a filter on a made-up system call, as the kernel would.
//!
//! For tests, for showing what a compiled profile does to a call, and for knowing in front of a load what will be allowed behind it.
//! Unlike the kernel's own interpreter it knows only the instructions that seccomp filters are made of here and in libseccomp.

use oci_spec::runtime::Arch;

use crate::arch::{self, is_big_endian};
use crate::bpf::{
    AND, ARCH, ARGS, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, JUMP_SET, LOAD, NUMBER,
    RETURN,
};

/// A system call as a filter sees it: `struct seccomp_data` of linux/seccomp.h, without the instruction pointer, of
/// which no OCI profile can speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Number, with x32's bit 30 where it applies.
    pub number: u32,
    /// `AUDIT_ARCH_*` of linux/audit.h; it also says in which order the halves of an argument lie.
    pub arch: u32,
    /// The six arguments.
    pub args: [u64; 6],
}

/// What a filter answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `SECCOMP_RET_*` with its data.
    pub value: u32,
    /// How many instructions it took.
    pub steps: usize,
}

/// The program is not one the kernel would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An instruction unknown here.
    #[error("instruction {0} has the unknown code {1:#x}")]
    Code(usize, u16),
    /// Control left the program.
    #[error("control leaves the program at {0}")]
    End(usize),
    /// A load from outside of `struct seccomp_data`.
    #[error("instruction {0} loads from {1}")]
    Load(usize, u32),
}

/// Runs `program` on `call`.
pub fn run(program: &[Instruction], call: &Call) -> Result<Answer, Invalid> {
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    for steps in 1.. {
        let instruction = program.get(at).ok_or(Invalid::End(at))?;
        let skip = match (instruction.code, instruction.step(Some(accumulator))) {
            (RETURN, _) => return Ok(Answer { value: instruction.k, steps }),
            (LOAD, _) => {
                accumulator = call.word(instruction.k).ok_or(Invalid::Load(at, instruction.k))?;
                0
            }
            (_, Some(Step::Accumulate(Some(value)))) => {
                accumulator = value;
                0
            }
            (_, Some(Step::Skip(skip))) => skip,
            (code, _) => return Err(Invalid::Code(at, code)),
        };
        at += 1 + skip;
    }
    unreachable!("jumps go forward only")
}

/// A filter in front of its load.
pub struct Preview {
    program: Vec<Instruction>,
    arch: Arch,
}

impl Preview {
    /// A filter in the bytes that the kernel takes, and the architecture that its calls will come from.
    pub fn new(filter: &[u8], arch: Arch) -> Preview {
        let (instructions, _) = filter.as_chunks();
        Preview { program: instructions.iter().map(|bytes| Instruction::from_bytes(*bytes)).collect(), arch }
    }

    /// Whether it lets the call through, and does no more than that, whatever the arguments are that are not given here.
    pub fn allows(&self, name: &str, args: [Option<u64>; 6]) -> bool {
        self.answers(name, args, |value| value == crate::action::ALLOW)
    }

    /// Whether all that it can answer is of one kind (`SECCOMP_RET_*` with its data). False for calls that nobody knows.
    pub fn answers(&self, name: &str, args: [Option<u64>; 6], kind: impl Fn(u32) -> bool) -> bool {
        let number = crate::syscalls::number(name, self.arch);
        let (Some(info), Some(number)) = (arch::info(self.arch), number) else { return false };
        let call = Call { number, arch: info.audit, args: args.map(Option::unwrap_or_default) };
        let is_known = |offset: u32| {
            let argument = offset.checked_sub(ARGS).map(|offset| offset as usize / 8);
            argument.is_none_or(|argument| args.get(argument).is_some_and(Option::is_some))
        };
        // Where branches lead that hang on what is not known; each of them is looked at once.
        let (mut ahead, mut seen) = (vec![(0, Some(0))], Vec::new());
        while let Some((mut at, mut accumulator)) = ahead.pop() {
            loop {
                let Some(instruction) = self.program.get(at) else { return false };
                at += 1;
                match (instruction.code, instruction.step(accumulator)) {
                    (RETURN, _) if kind(instruction.k) => break,
                    (LOAD, _) if !is_known(instruction.k) => accumulator = None,
                    (LOAD, _) => match call.word(instruction.k) {
                        Some(word) => accumulator = Some(word),
                        None => return false,
                    },
                    (_, Some(Step::Accumulate(value))) => accumulator = value,
                    (_, Some(Step::Skip(skip))) => at += skip,
                    (_, Some(Step::Either)) if seen.contains(&at) => break,
                    (_, Some(Step::Either)) => {
                        seen.push(at);
                        ahead.push((at + usize::from(instruction.jf), None));
                        at += usize::from(instruction.jt);
                    }
                    (_, None) => return false,
                }
            }
        }
        true
    }
}

/// What an instruction does that is neither a load nor a return.
enum Step {
    Accumulate(Option<u32>),
    Skip(usize),
    /// A branch on what is not known.
    Either,
}

impl Instruction {
    /// None for an unknown one.
    fn step(&self, accumulator: Option<u32>) -> Option<Step> {
        let Instruction { code, jt, jf, k } = *self;
        let branch = |holds: fn(u32, u32) -> bool| {
            let skip = accumulator.map(|value| usize::from(if holds(value, k) { jt } else { jf }));
            skip.map_or(Step::Either, Step::Skip)
        };
        Some(match code {
            AND => Step::Accumulate(accumulator.map(|value| value & k)),
            JUMP => Step::Skip(k as usize),
            JUMP_EQUAL => branch(|value, k| value == k),
            JUMP_GREATER => branch(|value, k| value > k),
            JUMP_GREATER_EQUAL => branch(|value, k| value >= k),
            JUMP_SET => branch(|value, k| value & k != 0),
            _ => return None,
        })
    }
}

impl Call {
    /// The word at `offset` of `struct seccomp_data`.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            NUMBER => Some(self.number),
            ARCH => Some(self.arch),
            ARGS..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset - ARGS) as usize / 8];
                let second = offset % 8 == 4;
                Some(if second == is_big_endian(self.arch) { arg as u32 } else { (arg >> 32) as u32 })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_an_argument_lie_as_the_architecture_says() {
        let args = [0, 0x1111_1111_2222_2222, 0, 0, 0, 0];
        let little = Call { number: 5, arch: 0xc000_003e, args };
        assert_eq!(little.word(24), Some(0x2222_2222));
        assert_eq!(little.word(28), Some(0x1111_1111));
        let big = Call { arch: 0x8000_0016, ..little };
        assert_eq!(big.word(24), Some(0x1111_1111));
        assert_eq!(big.word(28), Some(0x2222_2222));
        assert_eq!(little.word(64), None);
        assert_eq!(little.word(17), None);
    }

    #[test]
    fn programs_the_kernel_would_refuse_are_told_apart() {
        let instruction = |code, k| Instruction { code, jt: 0, jf: 0, k };
        assert_eq!(run(&[], &Call::default()), Err(Invalid::End(0)));
        assert_eq!(run(&[instruction(0x87, 0)], &Call::default()), Err(Invalid::Code(0, 0x87)));
        assert_eq!(run(&[instruction(LOAD, 64)], &Call::default()), Err(Invalid::Load(0, 64)));
        let error = run(&[instruction(JUMP, 9)], &Call::default()).unwrap_err();
        assert_eq!(error.to_string(), "control leaves the program at 10");
    }

    #[test]
    fn a_preview_says_what_holds_whatever_the_arguments_are() {
        let profile: crate::Seccomp = serde_json::from_value(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["read", "close"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 0x7e02_0000_u32, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
                ]},
                {"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]},
                {"names": ["fsync"], "action": "SCMP_ACT_LOG"}
            ]
        }))
        .unwrap();
        let arch = Arch::ScmpArchX86_64;
        let target = crate::Target { arch, ..crate::Target::newest().unwrap() };
        let preview = Preview::new(&crate::compile(&profile, &target).unwrap().to_bytes(), arch);
        let any = [None; 6];
        let first = |value| [Some(value), None, None, None, None, None];
        assert!(preview.allows("read", any) && preview.allows("close", any));
        assert!(preview.allows("clone", first(0x8000)) && !preview.allows("clone", any));
        assert!(!preview.allows("clone", first(0x2000_0000)));
        assert!(
            preview.allows("write", first(1))
                && !preview.allows("write", first(2))
                && !preview.allows("write", any)
        );
        assert!(
            !preview.allows("fsync", any)
                && !preview.allows("ioctl", any)
                && !preview.allows("nonesuch", any)
        );
        assert!(preview.answers("clone3", any, |value| value == crate::action::ENOSYS));
        assert!(!Preview::new(&[], arch).allows("read", any));
    }
}
