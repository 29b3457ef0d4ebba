//! Rules with conditions on arguments: which of several rules for one call decides, and their code.
//!
//! **Order.** The specification does not say which rule wins when several match. runc's answer is libseccomp's: a
//! tree that compares one half of an argument at a time, later arguments first, larger values first, whatever the
//! order in the profile. Docker's and podman's profiles hold for that answer, so we give the same: [`Ordered`] keeps
//! rules in the order in which such a tree would be walked. Where libseccomp refuses a rule because it contradicts an
//! earlier one, so do we. Rules with one and the same action match in any order alike.
//!
//! libseccomp loses or misplaces rules in corners where we do not (seen in 2.5.4 and 2.6.0):
//!
//! - Its code goes on from a failed comparison to the next rule's without loading what that one compares. With `a2 <= 1`
//!   and `a2 >= 1 << 63` for one call, or on x86 with `a0 != 8 && a2 != 0xffffffff` and `a0 == 5`, its program does not
//!   do what its own pseudo code says.
//! - It drops `a0 > 7 && a1 == 3` when `a0 > 9` is there already, for it looks at the upper half alone.
//! - Of `NE`, `LT` and `LE` rules that contradict each other and have equal upper halves, it lets the one added first
//!   decide all that differs in the upper half.
//!
//! **Code.** seccompiler compiles the conditions of a rule. We leave out the two jumps it puts in front of each rule
//! (its own dispatch needs them, ours does not), and turn the halves around for big-endian architectures, which it
//! does not know.

use std::ops::Range;

use oci_spec::runtime::LinuxSeccompOperator as Op;
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use crate::bpf::{ARGS, Assembler, Goto, Instruction, JUMP_EQUAL, LOAD};

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Which argument, 0 to 5.
    pub arg: u8,
    pub op: Op,
    /// What the argument is compared with.
    pub value: u64,
    /// Of `SCMP_CMP_MASKED_EQ`: the bits that are compared.
    pub mask: u64,
}

impl Condition {
    /// As an architecture compares it: in the lower half alone where it is not `wide`. None if it always holds, which
    /// is so of an empty mask.
    pub fn on(self, wide: bool) -> Option<Condition> {
        let mask = if wide { self.mask } else { self.mask & u64::from(u32::MAX) };
        let value = if wide { self.value } else { self.value & u64::from(u32::MAX) };
        match self.op {
            Op::ScmpCmpMaskedEq if mask == 0 => None,
            Op::ScmpCmpMaskedEq => Some(Condition { value: value & mask, mask, ..self }),
            _ => Some(Condition { value, ..self }),
        }
    }

    fn compiled(&self, wide: bool) -> SeccompCondition {
        let length = if wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
        let op = match self.op {
            Op::ScmpCmpNe => SeccompCmpOp::Ne,
            Op::ScmpCmpLt => SeccompCmpOp::Lt,
            Op::ScmpCmpLe => SeccompCmpOp::Le,
            Op::ScmpCmpEq => SeccompCmpOp::Eq,
            Op::ScmpCmpGe => SeccompCmpOp::Ge,
            Op::ScmpCmpGt => SeccompCmpOp::Gt,
            Op::ScmpCmpMaskedEq => SeccompCmpOp::MaskedEq(self.mask),
        };
        SeccompCondition::new(self.arg, length, op, self.value).expect("the index was checked at the door")
    }
}

/// A rule whose conditions must all hold, sorted by argument; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub conditions: Vec<Condition>,
    /// `SECCOMP_RET_*` with its data.
    pub action: u32,
    /// Which entry of `/linux/seccomp/syscalls` it comes from.
    pub entry: u32,
}

impl Rule {
    /// Whether both want nothing but equality of one argument, the same one with the same upper half.
    fn differs_in_value(&self, other: &Rule, wide: bool) -> bool {
        let ([one], [another]) = (&self.conditions[..], &other.conditions[..]) else { return false };
        (one.op, another.op) == (Op::ScmpCmpEq, Op::ScmpCmpEq)
            && one.arg == another.arg
            && (!wide || one.value >> 32 == another.value >> 32)
    }
}

/// How a half of an argument is compared, once negations are turned into the other branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equal,
    MaskedEqual,
    Greater,
    GreaterEqual,
}

/// A comparison in the tree.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Twice the argument's index, one more for its upper half.
    half: u8,
    test: Test,
    value: u32,
    mask: u32,
    /// Larger goes first among tests of one half.
    rank: u8,
    /// Among equal ranks the smaller value goes first (it is the narrower one).
    ascending: bool,
    /// The rule continues where the comparison holds, or where it does not.
    branch: bool,
}

impl Node {
    fn same_test(&self, other: &Node) -> bool {
        (self.half, self.test, self.value, self.mask) == (other.half, other.test, other.value, other.mask)
    }

    fn goes_before(&self, other: &Node) -> bool {
        if (self.half, self.rank) != (other.half, other.rank) {
            return (self.half, self.rank) > (other.half, other.rank);
        }
        if other.ascending { self.value < other.value } else { self.value > other.value }
    }
}

/// The comparisons that a rule makes, in order.
fn path(conditions: &[Condition], wide: bool) -> Vec<Node> {
    let mut path = Vec::with_capacity(conditions.len() * 2);
    for condition in conditions {
        let (rank, ascending, branch) = match condition.op {
            Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => (3, false, true),
            Op::ScmpCmpNe => (3, false, false),
            Op::ScmpCmpLe | Op::ScmpCmpLt => (2, true, false),
            Op::ScmpCmpGe | Op::ScmpCmpGt => (1, false, true),
        };
        let (upper, lower) = match condition.op {
            Op::ScmpCmpEq | Op::ScmpCmpNe => (Test::Equal, Test::Equal),
            Op::ScmpCmpMaskedEq => (Test::MaskedEqual, Test::MaskedEqual),
            Op::ScmpCmpGe | Op::ScmpCmpLt => (Test::Greater, Test::GreaterEqual),
            Op::ScmpCmpGt | Op::ScmpCmpLe => (Test::Greater, Test::Greater),
        };
        let mask = if condition.op == Op::ScmpCmpMaskedEq { condition.mask } else { u64::MAX };
        let node = |test, shift: u8, branch| Node {
            half: condition.arg * 2 + shift / 32,
            test,
            value: (condition.value >> shift) as u32,
            mask: (mask >> shift) as u32,
            rank,
            ascending,
            branch,
        };
        if wide {
            path.push(node(upper, 32, true));
        }
        path.push(node(lower, 0, branch));
    }
    path
}

/// Rules for one call on one architecture, the first that matches decides.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    rules: Vec<(Vec<Node>, Rule)>,
    /// Indices of `rules`, in the order in which they decide: numbers are quickly moved for one among thousands.
    order: Vec<u32>,
}

/// Where a rule belongs among others.
enum Place {
    /// Before this one.
    At(usize),
    /// Nowhere: a rule with fewer conditions already covers it.
    Covered,
    /// Instead of these, all of which it covers.
    Instead(Range<usize>),
}

impl Ordered {
    /// Adds a rule after those that the profile lists before it. Errs with the entry of an earlier rule that it
    /// contradicts: the same conditions or more, and another action.
    pub fn add(&mut self, rule: Rule, wide: bool) -> Result<(), u32> {
        let path = path(&rule.conditions, wide);
        let index = self.rules.len() as u32;
        match self.place(&path) {
            Place::Covered => return Ok(()),
            Place::At(at) => self.order.insert(at, index),
            Place::Instead(covered) => {
                let mut others = self.order[covered.clone()].iter().map(|&at| &self.rules[at as usize].1);
                if let Some(other) = others.find(|other| other.action != rule.action) {
                    return Err(other.entry);
                }
                self.order.splice(covered, [index]);
            }
        }
        self.rules.push((path, rule));
        Ok(())
    }

    /// The walk down libseccomp's tree, over a list: rules that share the beginning of their paths lie together, and what is
    /// compared at one depth is in order.
    fn place(&self, path: &[Node]) -> Place {
        let mut here = 0..self.order.len();
        for (depth, node) in path.iter().enumerate() {
            let nodes = |at: usize| &self.rules[self.order[at] as usize].0;
            if !here.is_empty() && nodes(here.start).len() == depth {
                return Place::Covered;
            }
            let test = |at: usize| &nodes(at)[depth];
            let mut at = self.first(here.clone(), |path| !path[depth].goes_before(node));
            // Comparisons of other kinds may have the same place in the order.
            while at < here.end && !test(at).same_test(node) {
                if node.goes_before(test(at)) {
                    return Place::At(at);
                }
                at += 1;
            }
            // Of the rules with this comparison, those that go on where it holds lie first.
            let end = self.first(at..here.end, |path| !path[depth].same_test(node));
            let fails = self.first(at..end, |path| !path[depth].branch);
            here = if node.branch { at..fails } else { fails..end };
            if here.is_empty() {
                return Place::At(here.start);
            }
        }
        Place::Instead(here)
    }

    /// The first place from which on `holds` does; the end if it does nowhere. Profiles are mostly in order: both ends are tried first.
    fn first(&self, range: Range<usize>, holds: impl Fn(&[Node]) -> bool) -> usize {
        let holds = |&at: &u32| holds(&self.rules[at as usize].0);
        let order = &self.order[range.clone()];
        match order {
            [] => range.start,
            [first, ..] if holds(first) => range.start,
            [.., last] if !holds(last) => range.end,
            _ => range.start + order.partition_point(|at| !holds(at)),
        }
    }

    pub fn into_rules(self) -> Vec<Rule> {
        let mut rules: Vec<Option<Rule>> = self.rules.into_iter().map(|(_, rule)| Some(rule)).collect();
        self.order.into_iter().filter_map(|at| rules[at as usize].take()).collect()
    }
}

/// What rules want that all compare one argument with a value, the upper half of which is the same for all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    arg: u8,
    upper: u32,
    /// Lower halves and actions.
    values: Vec<(u32, u32)>,
}

impl Values {
    /// Adds a rule with one condition; none if it is of another kind.
    pub fn push(&mut self, condition: Condition, action: u32, wide: bool) -> Option<()> {
        let upper = if wide { (condition.value >> 32) as u32 } else { 0 };
        if self.values.is_empty() {
            (self.arg, self.upper) = (condition.arg, upper);
        }
        if condition.op != Op::ScmpCmpEq || (condition.arg, upper) != (self.arg, self.upper) {
            return None;
        }
        self.values.push((condition.value as u32, action));
        Some(())
    }

    /// In the order in which libseccomp's tree has them; none if a value stands alone or contradicts itself.
    pub fn sorted(mut self) -> Option<Values> {
        self.values.sort_unstable_by(|one, other| other.cmp(one));
        self.values.dedup();
        let contradicts = self.values.windows(2).any(|pair| pair[0].0 == pair[1].0);
        (self.values.len() > 1 && !contradicts).then_some(self)
    }

    /// Writes their code: the argument is loaded once for all of them. What is written already is for when none is equal.
    pub fn assemble(&self, wide: bool, big_endian: bool, assembler: &mut Assembler) {
        let (lower, upper) = if big_endian { (4, 0) } else { (0, 4) };
        let at = ARGS + u32::from(self.arg) * 8;
        let next = Goto::To(assembler.last());
        let mut code = next;
        for (value, action) in self.values.iter().rev() {
            code = assembler.branch(JUMP_EQUAL, *value, Goto::Return(*action), code);
        }
        code = assembler.load(at + lower, code);
        if wide {
            code = assembler.branch(JUMP_EQUAL, self.upper, code, next);
            assembler.load(at + upper, code);
        }
    }
}

/// Writes the code that tries `rules` in turn. What is written already is for when none holds.
pub(crate) fn assemble(rules: &[Rule], wide: bool, big_endian: bool, assembler: &mut Assembler) {
    let mut left = rules;
    while let Some((rule, before)) = left.split_last() {
        let alike = left.iter().rev().take_while(|other| other.differs_in_value(rule, wide)).count();
        if alike > 1 {
            let (rest, alike) = left.split_at(left.len() - alike);
            let mut values = Values::default();
            for rule in alike {
                values.push(rule.conditions[0], rule.action, wide);
            }
            values.assemble(wide, big_endian, assembler);
            left = rest;
            continue;
        }
        left = before;
        assembler.push_return(rule.action);
        let conditions = rule.conditions.iter().map(|condition| condition.compiled(wide)).collect();
        let rule = SeccompRule::new(conditions).expect("a rule without conditions is decided by its number");
        let code: Vec<Instruction> = BpfProgram::from(rule)
            .into_iter()
            .skip(2)
            .map(|i| {
                let swap = big_endian && i.code == LOAD && i.k >= ARGS;
                Instruction { code: i.code, jt: i.jt, jf: i.jf, k: if swap { i.k ^ 4 } else { i.k } }
            })
            .collect();
        assembler.push_fragment(&code);
    }
}
