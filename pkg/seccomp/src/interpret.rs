//! Runs a filter on a made-up system call, as the kernel would.
//!
//! For tests, and for showing what a compiled profile does to a call. Unlike the kernel's own interpreter it knows
//! only the instructions that seccomp filters are made of here and in libseccomp.

use crate::arch::is_big_endian;
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
        let Instruction { code, jt, jf, k } = *program.get(at).ok_or(Invalid::End(at))?;
        let branch = |holds| usize::from(if holds { jt } else { jf });
        let skip = match code {
            LOAD => {
                accumulator = call.word(k).ok_or(Invalid::Load(at, k))?;
                0
            }
            AND => {
                accumulator &= k;
                0
            }
            JUMP => k as usize,
            JUMP_EQUAL => branch(accumulator == k),
            JUMP_GREATER => branch(accumulator > k),
            JUMP_GREATER_EQUAL => branch(accumulator >= k),
            JUMP_SET => branch(accumulator & k != 0),
            RETURN => return Ok(Answer { value: k, steps }),
            _ => return Err(Invalid::Code(at, code)),
        };
        at += 1 + skip;
    }
    unreachable!("jumps go forward only")
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
}
