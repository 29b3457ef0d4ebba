//! Classic BPF as seccomp takes it, and an assembler that works from the end of the program to its beginning.
//!
//! Jumps go forward only, so an assembler that starts at the end knows every target when it writes the jump: no
//! fix-ups, no second pass. Conditional jumps reach 255 instructions; what lies further away is reached through a
//! copy of the return, or through a long jump, placed just behind the jump.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `BPF_MAXINSNS` of linux/bpf_common.h: the kernel refuses longer programs.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `BPF_LD | BPF_W | BPF_ABS`: load a word of `struct seccomp_data`.
pub(crate) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(crate) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
pub(crate) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(crate) const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`, unsigned.
pub(crate) const JUMP_GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`, unsigned.
pub(crate) const JUMP_GREATER_EQUAL: u16 = 0x35;
/// `BPF_JMP | BPF_JSET | BPF_K`.
pub(crate) const JUMP_SET: u16 = 0x45;
/// `BPF_RET | BPF_K`.
pub(crate) const RETURN: u16 = 0x06;

/// `offsetof(struct seccomp_data, nr)`.
pub(crate) const NUMBER: u32 = 0;
/// `offsetof(struct seccomp_data, arch)`.
pub(crate) const ARCH: u32 = 4;
/// `offsetof(struct seccomp_data, args)`.
pub(crate) const ARGS: u32 = 16;

/// One instruction, `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a conditional jump's condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand: a constant, an offset into `struct seccomp_data`, or how far an unconditional jump skips.
    pub k: u32,
}

impl Instruction {
    const fn plain(code: u16, k: u32) -> Instruction {
        Instruction { code, jt: 0, jf: 0, k }
    }

    /// The eight bytes of `struct sock_filter`, in this machine's byte order.
    pub fn to_bytes(self) -> [u8; 8] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }

    /// The inverse of [`Instruction::to_bytes`].
    pub fn from_bytes([c0, c1, jt, jf, k0, k1, k2, k3]: [u8; 8]) -> Instruction {
        Instruction { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
    }
}

/// As the kernel's `bpf_dbg` prints it, near enough: `jeq #0x29, +3, +0`.
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Instruction { code, jt, jf, k } = *self;
        match code {
            LOAD => write!(f, "ld [{k}]"),
            AND => write!(f, "and #{k:#x}"),
            JUMP => write!(f, "ja +{k}"),
            JUMP_EQUAL => write!(f, "jeq #{k:#x}, +{jt}, +{jf}"),
            JUMP_GREATER => write!(f, "jgt #{k:#x}, +{jt}, +{jf}"),
            JUMP_GREATER_EQUAL => write!(f, "jge #{k:#x}, +{jt}, +{jf}"),
            JUMP_SET => write!(f, "jset #{k:#x}, +{jt}, +{jf}"),
            RETURN => write!(f, "ret #{k:#x}"),
            _ => write!(f, "code {code:#x} jt {jt} jf {jf} k {k:#x}"),
        }
    }
}

/// An instruction already written: its place counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Where control goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goto {
    /// End the program with this value.
    Return(u32),
    /// On to an instruction already written.
    To(Label),
}

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// Writes a program backwards.
#[derive(Default)]
pub(crate) struct Assembler {
    /// The program, last instruction first.
    reversed: Vec<Instruction>,
    /// The nearest return of each value.
    returns: Vec<(u32, Label)>,
    /// The nearest long jump to a label.
    long_jumps: Vec<(Label, Label)>,
}

impl Assembler {
    fn push(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }

    /// How many instructions the next one would skip to get to `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    /// Puts `RET value` before everything written so far.
    pub fn push_return(&mut self, value: u32) -> Label {
        let label = self.push(Instruction::plain(RETURN, value));
        match self.returns.iter_mut().find(|(known, _)| *known == value) {
            Some((_, nearest)) => *nearest = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// Puts instructions that fall through to what was written last before it; `code` is in the program's order.
    pub fn push_fragment(&mut self, code: &[Instruction]) {
        self.reversed.extend(code.iter().rev());
    }

    /// The instruction written last: the first of the program so far.
    pub fn last(&self) -> Label {
        Label(self.reversed.len() - 1)
    }

    /// A label for `target` that a conditional jump reaches even when `slack` more instructions come between.
    fn within_reach(&mut self, target: Goto, slack: usize) -> Label {
        let near = |label: &Label| self.distance(*label) + slack <= REACH;
        match target {
            Goto::Return(value) => {
                let known = self.returns.iter().find(|(known, _)| *known == value).map(|(_, label)| *label);
                known.filter(near).unwrap_or_else(|| self.push_return(value))
            }
            Goto::To(label) if near(&label) => label,
            Goto::To(label) => {
                let known = self.long_jumps.iter().rev().find(|(to, _)| *to == label).map(|(_, via)| *via);
                known.filter(near).unwrap_or_else(|| {
                    let via = self.push(Instruction::plain(JUMP, self.distance(label) as u32));
                    self.long_jumps.push((label, via));
                    via
                })
            }
        }
    }

    /// Puts a conditional jump first.
    pub fn branch(&mut self, code: u16, k: u32, yes: Goto, no: Goto) -> Goto {
        if yes == no {
            return yes;
        }
        let yes = self.within_reach(yes, 1);
        let no = self.within_reach(no, 0);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        Goto::To(self.push(Instruction { code, jt, jf, k }))
    }

    /// Puts a load first, followed by `next`. A return needs nothing loaded.
    pub fn load(&mut self, offset: u32, next: Goto) -> Goto {
        let Goto::To(label) = next else { return next };
        if label != self.last() {
            self.push(Instruction::plain(JUMP, self.distance(label) as u32));
        }
        Goto::To(self.push(Instruction::plain(LOAD, offset)))
    }

    /// The program that starts at `entry`, which must be what was written last or a return.
    pub fn finish(mut self, entry: Goto) -> Vec<Instruction> {
        match entry {
            Goto::Return(value) => vec![Instruction::plain(RETURN, value)],
            Goto::To(label) => {
                if label != self.last() {
                    self.push(Instruction::plain(JUMP, self.distance(label) as u32));
                }
                self.reversed.reverse();
                self.reversed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret::{Call, run};

    fn call(number: u32) -> Call {
        Call { number, ..Call::default() }
    }

    #[test]
    fn instructions_have_the_layout_of_sock_filter() {
        let instruction = Instruction { code: JUMP_EQUAL, jt: 1, jf: 2, k: 0x0102_0304 };
        assert_eq!(Instruction::from_bytes(instruction.to_bytes()), instruction);
        assert_eq!(instruction.to_bytes()[2..4], [1, 2]);
        assert_eq!(instruction.to_string(), "jeq #0x1020304, +1, +2");
    }

    #[test]
    fn far_targets_are_reached_by_a_copy_or_a_long_jump() {
        let mut assembler = Assembler::default();
        let far = Goto::To(assembler.push_return(7));
        assembler.push_fragment(&[Instruction::plain(AND, 0xff); 1000]);
        let entry = assembler.branch(JUMP_EQUAL, 1, far, Goto::Return(7));
        let entry = assembler.branch(JUMP_EQUAL, 2, Goto::Return(9), entry);
        let entry = assembler.load(NUMBER, entry);
        let program = assembler.finish(entry);
        assert_eq!(run(&program, &call(1)).unwrap().value, 7);
        assert_eq!(run(&program, &call(2)).unwrap().value, 9);
        assert_eq!(run(&program, &call(3)).unwrap().value, 7);
        assert_eq!(program.iter().filter(|i| i.code == JUMP).count(), 1);
    }

    #[test]
    fn targets_at_the_edge_of_reach_are_reached() {
        for between in 250..260 {
            let mut assembler = Assembler::default();
            let far = Goto::To(assembler.push_return(7));
            let near = Goto::To(assembler.push_return(8));
            assembler.push_fragment(&vec![Instruction::plain(AND, 0xff); between]);
            let entry = assembler.branch(JUMP_EQUAL, 1, far, near);
            let entry = assembler.load(NUMBER, entry);
            let program = assembler.finish(entry);
            assert_eq!(run(&program, &call(1)).unwrap().value, 7, "{between}");
            assert_eq!(run(&program, &call(2)).unwrap().value, 8, "{between}");
        }
    }

    #[test]
    fn a_chain_longer_than_the_reach_still_ends_where_it_should() {
        let mut assembler = Assembler::default();
        let mut entry = Goto::Return(0);
        for number in (0..2000).rev() {
            entry = assembler.branch(JUMP_EQUAL, number, Goto::Return(number % 5), entry);
        }
        let entry = assembler.load(NUMBER, entry);
        let program = assembler.finish(entry);
        for number in [0, 1, 4, 254, 255, 256, 700, 1998, 1999] {
            assert_eq!(run(&program, &call(number)).unwrap().value, number % 5, "{number}");
        }
        assert_eq!(run(&program, &call(2000)).unwrap().value, 0);
    }
}
