//! From a profile to code that tells system calls apart.
//!
//! A program looks at the architecture first, then finds the number's range by binary search, and only then looks at
//! arguments. Neighbouring numbers with one answer are one range, so that some 400 allowed calls become some 60
//! ranges. For every filter it is given, the kernel runs it once for each number of each of its architectures, to
//! learn which calls it can allow from then on without asking (kernel/seccomp.c, `seccomp_cache_prepare`, Linux
//! 5.11): thus the search tree is balanced by how many numbers end in each leaf, not by how many leaves there are.

use crate::Error;
use crate::action::{self, ENOSYS, KILL_THREAD};
use crate::arch::{ArchInfo, X32_BIT};
use crate::bpf::{ARCH, Assembler, Goto, Instruction, JUMP_EQUAL, JUMP_GREATER_EQUAL, NUMBER};
use crate::conditions::{self, Condition, Ordered, Rule};
use crate::profile::Profile;
use crate::syscalls::{Multiplexed, Row};

/// What a number leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Return(u32),
    /// One of the [`Builder::chains`].
    Chain(usize),
}

/// Rules for one call, shared by all calls with the same ones.
struct Chain {
    rules: Vec<Rule>,
    wide: bool,
}

/// Consecutive ranges of numbers: where each begins, and its verdict. The first begins at 0.
#[derive(Default)]
struct Lane(Vec<(u32, Verdict)>);

impl Lane {
    /// Continues the lane with `verdict` from `start` on.
    fn push(&mut self, start: u32, verdict: Verdict) {
        match self.0.last_mut() {
            Some((_, before)) if *before == verdict => return,
            Some((last, before)) if *last == start => *before = verdict,
            _ => return self.0.push((start, verdict)),
        }
        if let [.., (_, before), (_, last)] = self.0[..]
            && before == last
        {
            self.0.pop();
        }
    }
}

/// Writes the program for `profile`.
pub(crate) fn build(profile: &Profile) -> Result<Vec<Instruction>, Error> {
    let mut builder = Builder { profile, chains: Vec::new() };
    let mut lanes: Vec<(u32, Lane)> = Vec::new();
    for info in &profile.arches {
        if !lanes.iter().any(|(audit, _)| *audit == info.audit) {
            lanes.push((info.audit, builder.lane(info.audit)?));
        }
    }
    Ok(builder.assemble(&lanes))
}

/// A rule for a number.
#[derive(Clone, Copy, Default)]
struct Assigned {
    number: u32,
    /// Behind a multiplexing call: the first argument that selects the call meant.
    selector: Option<u64>,
    entry: usize,
}

/// Sorts by number and leaves equal numbers in the profile's order. Numbers are few and dense, so they are counted:
/// comparing them took a third of the compilation.
fn by_number(assigned: &[Assigned], base: u32) -> Vec<Assigned> {
    const PLAIN: usize = 1008;
    // Above the plain numbers there are only Arm's private ones, 0x0f0001 to 0x0f0006 (tested in syscalls.rs).
    let bucket = |rule: &Assigned| match (rule.number - base) as usize {
        plain @ ..PLAIN => plain,
        private => PLAIN + private % 16,
    };
    let mut next = [0_usize; PLAIN + 16];
    assigned.iter().for_each(|rule| next[bucket(rule)] += 1);
    let mut before = 0;
    for place in &mut next {
        before += std::mem::replace(place, before);
    }
    let mut sorted = vec![Assigned::default(); assigned.len()];
    for rule in assigned {
        let place = &mut next[bucket(rule)];
        sorted[*place] = *rule;
        *place += 1;
    }
    sorted
}

struct Builder<'a> {
    profile: &'a Profile,
    chains: Vec<Chain>,
}

/// What the profile says of one architecture's numbers.
struct Decisions {
    /// Sorted by number.
    decided: Vec<(u32, Verdict)>,
    /// Calls above this are newer than the profile; none if the profile names no call of this architecture.
    newest: Option<u32>,
}

impl Builder<'_> {
    /// Everything about the calls that arrive as `audit`.
    fn lane(&mut self, audit: u32) -> Result<Lane, Error> {
        let of = |x32: bool| {
            let mut arches = self.profile.arches.iter();
            arches.find(|info| info.audit == audit && (info.base == X32_BIT) == x32).copied()
        };
        let (plain, x32) = (of(false), of(true));
        let plain = plain.map(|info| Ok((info, self.decisions(info)?))).transpose()?;
        let x32 = x32.map(|info| self.decisions(info)).transpose()?;
        Ok(match plain {
            Some((info, plain)) if info.arch == oci_spec::runtime::Arch::ScmpArchX86_64 => {
                self.x86_lane(Some(plain), x32)
            }
            Some((_, plain)) => {
                let mut lane = Lane::default();
                self.fill(&mut lane, 0, &plain);
                self.newer(&mut lane, plain.newest, u32::MAX);
                lane
            }
            None => self.x86_lane(None, x32),
        })
    }

    /// x86_64 and x32 share an audit architecture. If one of them is not in the profile, its calls are of a wrong
    /// architecture; except number -1, by which a tracer skips a call.
    fn x86_lane(&self, plain: Option<Decisions>, x32: Option<Decisions>) -> Lane {
        let default = Verdict::Return(self.profile.default);
        let mut lane = Lane::default();
        match &plain {
            Some(plain) => {
                self.fill(&mut lane, 0, plain);
                self.newer(&mut lane, plain.newest, X32_BIT);
            }
            None => lane.push(0, Verdict::Return(KILL_THREAD)),
        }
        // runc calls a number newer than x86_64's newest only where bit 30 is clear, so between 2 and 3 << 30 too.
        let newest = plain.and_then(|plain| plain.newest);
        let clear = if self.stubs() && newest.is_some() { Some(Verdict::Return(ENOSYS)) } else { None };
        match &x32 {
            Some(x32) => {
                self.fill(&mut lane, X32_BIT, x32);
                if self.stubs() && x32.newest.is_some() {
                    self.newer(&mut lane, x32.newest, u32::MAX);
                    lane.push(2 * X32_BIT, clear.unwrap_or(default));
                    lane.push(3 * X32_BIT, Verdict::Return(ENOSYS));
                } else {
                    lane.push(2 * X32_BIT, clear.unwrap_or(default));
                    lane.push(3 * X32_BIT, default);
                }
            }
            None => {
                let wrong = Verdict::Return(KILL_THREAD);
                lane.push(X32_BIT, wrong);
                lane.push(2 * X32_BIT, clear.unwrap_or(wrong));
                lane.push(3 * X32_BIT, wrong);
                lane.push(u32::MAX, default);
            }
        }
        lane
    }

    /// Writes the ranges from `start` to the last number the profile decides, and what follows it.
    fn fill(&self, lane: &mut Lane, start: u32, decisions: &Decisions) {
        let default = Verdict::Return(self.profile.default);
        let mut next = start;
        for &(number, verdict) in &decisions.decided {
            if number > next {
                lane.push(next, default);
            }
            lane.push(number, verdict);
            next = number + 1;
        }
        lane.push(next, default);
    }

    /// Calls newer than the profile exist for programs that try them and fall back on ENOSYS, and on nothing else.
    fn newer(&self, lane: &mut Lane, newest: Option<u32>, limit: u32) {
        if let Some(newest) = newest
            && self.stubs()
            && newest + 1 < limit
        {
            lane.push(newest + 1, Verdict::Return(ENOSYS));
        }
    }

    /// runc's rule (libcontainer/seccomp/patchbpf): not where unmentioned calls get by.
    fn stubs(&self) -> bool {
        !action::lets_by(self.profile.default)
    }

    fn decisions(&mut self, info: &'static ArchInfo) -> Result<Decisions, Error> {
        let mut assigned = Vec::with_capacity(self.profile.calls.len() + 32);
        let mut newest = None;
        for &(row, entry) in &self.profile.calls {
            // An entry that says what is said anyway is no rule, but it shows what the profile's author knew of.
            let redundant = self.profile.entries[entry].action == self.profile.default;
            for (number, selector) in numbers(row, info).into_iter().flatten() {
                newest = newest.max(Some(number));
                if !redundant {
                    assigned.push(Assigned { number, selector, entry });
                }
            }
        }
        let mut decided = Vec::with_capacity(assigned.len());
        for same in by_number(&assigned, info.base).chunk_by(|a, b| a.number == b.number) {
            decided.push((same[0].number, self.verdict(same, info)?));
        }
        if self.stubs() && is_s390(info) && newest.is_some() {
            // There, an unknown call with a large number arrives as number 0, once setup(2) (runc's rule).
            match decided.first_mut() {
                Some((0, verdict)) => *verdict = Verdict::Return(ENOSYS),
                _ => decided.insert(0, (0, Verdict::Return(ENOSYS))),
            }
        }
        Ok(Decisions { decided, newest })
    }

    /// What decides a call for which these rules are: the first without conditions, else the conditions of all.
    fn verdict(&mut self, rules: &[Assigned], info: &'static ArchInfo) -> Result<Verdict, Error> {
        let mut conditional = Vec::new();
        for &Assigned { selector, entry: index, .. } in rules {
            let entry = &self.profile.entries[index];
            if entry.alternatives.is_empty() && selector.is_none() {
                return Ok(Verdict::Return(entry.action));
            }
            let always = [Vec::new()];
            let alternatives =
                if entry.alternatives.is_empty() { &always[..] } else { &entry.alternatives[..] };
            for alternative in alternatives {
                let conditions = narrowed(alternative, selector, info.wide);
                if conditions.is_empty() {
                    return Ok(Verdict::Return(entry.action));
                }
                conditional.push(Rule { conditions, action: entry.action, entry: index });
            }
        }
        let mut ordered = Ordered::default();
        for rule in conditional {
            let entry = rule.entry;
            ordered.add(rule, info.wide).map_err(|other| contradiction(entry, other, info))?;
        }
        Ok(Verdict::Chain(self.chain(Chain { rules: ordered.into_rules(), wide: info.wide })))
    }

    fn chain(&mut self, chain: Chain) -> usize {
        let same = |known: &Chain| known.wide == chain.wide && known.rules == chain.rules;
        self.chains.iter().position(same).unwrap_or_else(|| {
            self.chains.push(chain);
            self.chains.len() - 1
        })
    }

    fn assemble(&self, lanes: &[(u32, Lane)]) -> Vec<Instruction> {
        let mut assembler = Assembler::default();
        let big_endian = self.profile.arches[0].big_endian();
        let chain = |chain: &Chain| {
            let Chain { rules, wide } = chain;
            Goto::To(conditions::assemble(rules, self.profile.default, *wide, big_endian, &mut assembler))
        };
        let chains: Vec<Goto> = self.chains.iter().map(chain).collect();
        let mut entries = Vec::with_capacity(lanes.len());
        for (audit, lane) in lanes.iter().rev() {
            let ranges: Vec<Range> =
                lane.0.iter().map(|&(start, verdict)| Range::new(start, verdict, &chains)).collect();
            // x32's numbers are one leaf among x86_64's: hardly a program uses them, and the kernel's cache has none.
            let (plain, x32) = ranges.split_at(ranges.partition_point(|range| range.start < X32_BIT));
            let mut ranges = plain.to_vec();
            if let [first, ..] = x32 {
                ranges.push(Range { start: first.start, goto: search(x32, &mut assembler) });
            }
            let entry = search(&ranges, &mut assembler);
            entries.push((*audit, assembler.load(NUMBER, entry)));
        }
        let mut next = Goto::Return(KILL_THREAD);
        for (audit, entry) in entries {
            next = assembler.branch(JUMP_EQUAL, audit, entry, next);
        }
        let entry = assembler.load(ARCH, next);
        assembler.finish(entry)
    }
}

/// A range of numbers, ready to be searched.
#[derive(Clone, Copy)]
struct Range {
    start: u32,
    goto: Goto,
}

impl Range {
    fn new(start: u32, verdict: Verdict, chains: &[Goto]) -> Range {
        let goto = match verdict {
            Verdict::Return(value) => Goto::Return(value),
            Verdict::Chain(chain) => chains[chain],
        };
        Range { start, goto }
    }
}

/// Numbers beyond the largest in use are asked for by no one, neither by programs nor by the kernel's cache.
const IN_USE: u32 = 512;

/// How many numbers in use lie between the starts of two ranges; at least one, for a leaf costs something.
fn weight(from: u32, to: u32) -> u32 {
    let base = from & X32_BIT;
    let clamp = |number: u32| number.saturating_sub(base).min(IN_USE);
    (clamp(to) - clamp(from)).max(1)
}

/// Writes the search through `ranges`, one of which is known to hold the number.
fn search(ranges: &[Range], assembler: &mut Assembler) -> Goto {
    match ranges {
        [only] => only.goto,
        [before, single, after] if before.goto == after.goto && after.start == single.start + 1 => {
            assembler.branch(JUMP_EQUAL, single.start, single.goto, before.goto)
        }
        _ => {
            let middle = balance(ranges);
            let (low, high) = ranges.split_at(middle);
            let high = search(high, assembler);
            let low = search(low, assembler);
            assembler.branch(JUMP_GREATER_EQUAL, ranges[middle].start, high, low)
        }
    }
}

/// Where to split so that both sides weigh about the same. The last range is taken to weigh 1.
fn balance(ranges: &[Range]) -> usize {
    let weights = ranges.windows(2).map(|pair| weight(pair[0].start, pair[1].start));
    let total: u32 = weights.clone().sum::<u32>() + 1;
    let mut below = 0;
    let mut best = (u32::MAX, 1);
    for (index, weight) in weights.enumerate() {
        below += weight;
        best = best.min((below.abs_diff(total - below), index + 1));
    }
    best.1
}

fn is_s390(info: &ArchInfo) -> bool {
    use oci_spec::runtime::Arch;
    matches!(info.arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x)
}

/// The numbers under which a call arrives: its own, and the multiplexing call's with a first argument that selects it.
fn numbers(row: Row, info: &ArchInfo) -> [Option<(u32, Option<u64>)>; 2] {
    let multiplexed = info.multiplexers.zip(row.multiplexed()).map(|((socketcall, ipc), call)| match call {
        Multiplexed::Socketcall(selector) => (socketcall, Some(selector)),
        Multiplexed::Ipc(selector) => (ipc, Some(selector)),
    });
    [row.number(info).map(|number| (number, None)), multiplexed]
}

/// The conditions as an architecture compares them. Behind a multiplexer the first argument is the selector; like
/// libseccomp we let the conditions on the others stand, although there they lie behind a pointer.
fn narrowed(conditions: &[Condition], selector: Option<u64>, wide: bool) -> Vec<Condition> {
    let select = selector.map(|value| {
        let op = oci_spec::runtime::LinuxSeccompOperator::ScmpCmpEq;
        Condition { arg: 0, op, value, mask: u64::MAX }
    });
    let kept = conditions.iter().filter(|condition| selector.is_none() || condition.arg != 0);
    select.into_iter().chain(kept.filter_map(|condition| condition.on(wide))).collect()
}

fn contradiction(entry: usize, other: usize, info: &ArchInfo) -> Error {
    let sentence = format!(
        "on {}, its conditions are those of /linux/seccomp/syscalls/{other}, whose action is another",
        info.arch
    );
    Error::new(format!("syscalls/{entry}"), sentence)
}
