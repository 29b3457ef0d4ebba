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
use crate::conditions::{self, Condition, Ordered, Rule, Values};
use crate::profile::Profile;
use crate::syscalls::{ARM_PRIVATE, Multiplexed};

/// What a number leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Return(u32),
    /// One of the [`Builder::chains`].
    Chain(u32),
}

/// Rules for one call, shared by all calls with the same ones.
struct Chain {
    /// The entries they come from, with their selectors.
    key: Vec<(u32, Option<u8>)>,
    rules: Rules,
    wide: bool,
}

#[derive(PartialEq)]
enum Rules {
    /// Sorted out, the first that matches decides.
    Ordered(Vec<Rule>),
    /// What is quickly sorted out: all want one argument to be one of several values.
    Values(Values),
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

/// What the profile says of one number.
#[derive(Clone, Copy)]
enum Place {
    /// Nothing.
    Unnamed,
    /// The first rule without conditions, for it beats all others.
    Decided(u32),
    /// Rules with conditions: the first one's place in [`ByNumber::rules`].
    Rules(u32),
}

/// A rule with conditions for a number.
#[derive(Clone, Copy)]
struct Assigned {
    entry: u32,
    /// Behind a multiplexing call: the first argument that selects the call meant.
    selector: Option<u8>,
    /// The place of the next rule for the same number; 0 for none.
    next: u32,
    /// Of the first: the place of the last.
    last: u32,
}

/// Numbers are few and dense, so each has a place of its own: sorting the rules by number took a third of the compilation.
struct ByNumber<'a> {
    places: &'a mut [Place; PLACES],
    /// Behind the last place that is named.
    end: usize,
    /// In the profile's order.
    rules: Vec<Assigned>,
}

/// Above the plain numbers there are only Arm's private ones, 0x0f0001 to 0x0f0006 (tested in syscalls.rs).
const PLAIN: usize = 1008;
const PLACES: usize = PLAIN + 16;

impl ByNumber<'_> {
    /// The place of a number, which is without its architecture's base.
    fn place(&mut self, number: u32) -> &mut Place {
        let number = number as usize;
        let place = if number < PLAIN { number } else { PLAIN + number % 16 };
        self.end = self.end.max(place + 1);
        &mut self.places[place]
    }

    fn decide(&mut self, number: u32, action: u32) {
        let place = self.place(number);
        if !matches!(place, Place::Decided(_)) {
            *place = Place::Decided(action);
        }
    }

    fn push(&mut self, number: u32, entry: u32, selector: Option<u8>) {
        let new = self.rules.len() as u32;
        match self.place(number) {
            Place::Decided(_) => return,
            &mut Place::Rules(first) => {
                let last = std::mem::replace(&mut self.rules[first as usize].last, new);
                self.rules[last as usize].next = new;
            }
            unnamed => *unnamed = Place::Rules(new),
        }
        self.rules.push(Assigned { entry, selector, next: 0, last: new });
    }

    /// The places up to the last one that is named, with their numbers.
    fn numbers(&self) -> impl Iterator<Item = (u32, Place)> {
        self.places[..self.end].iter().enumerate().map(|(place, what)| {
            let private = place.checked_sub(PLAIN).map(|private| ARM_PRIVATE + private as u32);
            (private.unwrap_or(place as u32), *what)
        })
    }

    /// A rule and those behind it for the same number.
    fn from(&self, first: u32) -> impl Iterator<Item = &Assigned> + Clone {
        let next = |rule: &&Assigned| self.rules.get(rule.next as usize).filter(|_| rule.next != 0);
        std::iter::successors(self.rules.get(first as usize), next)
    }
}

struct Builder<'a> {
    profile: &'a Profile,
    chains: Vec<Chain>,
}

/// What the profile says of one architecture's numbers.
struct Decisions {
    /// Where something else begins to hold, sorted by number. Before the first one and from the last one on it is the default.
    changes: Vec<(u32, Verdict)>,
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

    /// Writes the ranges from `start` on.
    fn fill(&self, lane: &mut Lane, start: u32, decisions: &Decisions) {
        lane.push(start, Verdict::Return(self.profile.default));
        for &(number, verdict) in &decisions.changes {
            lane.push(number, verdict);
        }
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
        let mut places = [Place::Unnamed; PLACES];
        let mut by_number = ByNumber { places: &mut places, end: 0, rules: Vec::new() };
        let newest = self.assign(info, &mut by_number);
        if self.stubs() && is_s390(info) && newest.is_some() {
            // There, an unknown call with a large number arrives as number 0, once setup(2) (runc's rule).
            *by_number.place(0) = Place::Decided(ENOSYS);
        }
        let default = Verdict::Return(self.profile.default);
        let mut changes = Vec::with_capacity(64);
        let (mut before, mut next) = (default, 0);
        for (number, place) in by_number.numbers() {
            let verdict = match place {
                Place::Unnamed => default,
                Place::Decided(action) => Verdict::Return(action),
                Place::Rules(first) => self.conditional(&by_number, first, info)?,
            };
            if verdict != before {
                changes.push((info.base + number, verdict));
                before = verdict;
            }
            next = number + 1;
        }
        if before != default {
            changes.push((info.base + next, default));
        }
        Ok(Decisions { changes, newest })
    }

    /// Gives each rule to the numbers under which its calls arrive: their own, and the multiplexing call's with a first argument that
    /// selects the call. What comes back is the largest number that the profile names.
    fn assign(&self, info: &ArchInfo, by_number: &mut ByNumber) -> Option<u32> {
        let profile = self.profile;
        let mut newest = None;
        for &(row, index) in &profile.calls {
            let entry = &profile.entries[index as usize];
            // An entry that says what is said anyway is no rule, but it shows what the profile's author knew of.
            let redundant = entry.action == profile.default;
            if let Some(number) = row.number(info) {
                newest = newest.max(Some(number));
                if redundant {
                } else if entry.always() || profile.alternatives(entry).any(|all| holds(all, info.wide)) {
                    by_number.decide(number - info.base, entry.action);
                } else {
                    by_number.push(number - info.base, index, None);
                }
            }
            if let Some((socketcall, ipc)) = info.multiplexers
                && let Some(call) = row.multiplexed()
            {
                let (number, selector) = match call {
                    Multiplexed::Socketcall(selector) => (socketcall, selector),
                    Multiplexed::Ipc(selector) => (ipc, selector),
                };
                newest = newest.max(Some(number));
                if !redundant {
                    by_number.push(number - info.base, index, Some(selector));
                }
            }
        }
        newest
    }

    /// What decides a call for which there are rules with conditions alone.
    fn conditional(
        &mut self,
        by_number: &ByNumber,
        first: u32,
        info: &'static ArchInfo,
    ) -> Result<Verdict, Error> {
        let profile = self.profile;
        let rules = by_number.from(first);
        let key: Vec<(u32, Option<u8>)> = rules.clone().map(|rule| (rule.entry, rule.selector)).collect();
        let known = self.chains.iter().position(|chain| chain.wide == info.wide && chain.key == key);
        if let Some(known) = known {
            return Ok(Verdict::Chain(known as u32));
        }
        let each = rules.flat_map(|rule| {
            let entry = &profile.entries[rule.entry as usize];
            profile.alternatives(entry).map(move |alternative| (rule, entry.action, alternative))
        });
        let rules = match one_of(each.clone(), info.wide) {
            Some(values) => Rules::Values(values),
            None => Rules::Ordered(ordered(each, info)?),
        };
        let known = self.chains.iter().position(|chain| chain.wide == info.wide && chain.rules == rules);
        Ok(Verdict::Chain(known.unwrap_or_else(|| {
            self.chains.push(Chain { key, rules, wide: info.wide });
            self.chains.len() - 1
        }) as u32))
    }

    fn assemble(&self, lanes: &[(u32, Lane)]) -> Vec<Instruction> {
        let mut assembler = Assembler::default();
        let big_endian = self.profile.arches[0].big_endian();
        let chain = |Chain { rules, wide, .. }: &Chain| {
            assembler.push_return(self.profile.default);
            match rules {
                Rules::Ordered(rules) => conditions::assemble(rules, *wide, big_endian, &mut assembler),
                Rules::Values(values) => values.assemble(*wide, big_endian, &mut assembler),
            }
            Goto::To(assembler.last())
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
            Verdict::Chain(chain) => chains[chain as usize],
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

/// Writes the search through `ranges`, which together hold every number.
fn search(ranges: &[Range], assembler: &mut Assembler) -> Goto {
    let mut weight_before = Vec::with_capacity(ranges.len());
    let mut sum = 0;
    weight_before.push(sum);
    for pair in ranges.windows(2) {
        sum += weight(pair[0].start, pair[1].start);
        weight_before.push(sum);
    }
    search_in(ranges, &weight_before, assembler)
}

/// The same through some of them, one of which is known to hold the number.
fn search_in(ranges: &[Range], weight_before: &[u32], assembler: &mut Assembler) -> Goto {
    match ranges {
        [only] => only.goto,
        [before, single, after] if before.goto == after.goto && after.start == single.start + 1 => {
            assembler.branch(JUMP_EQUAL, single.start, single.goto, before.goto)
        }
        _ => {
            let middle = balance(weight_before);
            let (low, high) = ranges.split_at(middle);
            let (weight_low, weight_high) = weight_before.split_at(middle);
            let high = search_in(high, weight_high, assembler);
            let low = search_in(low, weight_low, assembler);
            assembler.branch(JUMP_GREATER_EQUAL, ranges[middle].start, high, low)
        }
    }
}

/// Where to split ranges, at least two, so that both sides weigh about the same: given what lies before each. The last range is
/// taken to weigh 1.
fn balance(weight_before: &[u32]) -> usize {
    let base = weight_before[0];
    let total = weight_before[weight_before.len() - 1] - base + 1;
    let apart = |at: usize| {
        let low = weight_before[at] - base;
        low.abs_diff(total - low)
    };
    // The weights grow: what is nearest to the half lies on one side of it or the other.
    let over = weight_before.partition_point(|weight| (weight - base) * 2 < total);
    match over {
        ..=1 => 1,
        over if over == weight_before.len() || apart(over - 1) <= apart(over) => over - 1,
        over => over,
    }
}

fn is_s390(info: &ArchInfo) -> bool {
    use oci_spec::runtime::Arch;
    matches!(info.arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x)
}

/// The conditions as an architecture compares them. Behind a multiplexer the first argument is the selector; like
/// libseccomp we let the conditions on the others stand, although there they lie behind a pointer.
fn narrowed(conditions: &[Condition], selector: Option<u8>, wide: bool) -> impl Iterator<Item = Condition> {
    let select = selector.map(|value| {
        let op = oci_spec::runtime::LinuxSeccompOperator::ScmpCmpEq;
        Condition { arg: 0, op, value: value.into(), mask: u64::MAX }
    });
    let kept = conditions.iter().filter(move |condition| selector.is_none() || condition.arg != 0);
    select.into_iter().chain(kept.filter_map(move |condition| condition.on(wide)))
}

/// Whether conditions always hold on an architecture.
fn holds(conditions: &[Condition], wide: bool) -> bool {
    conditions.iter().all(|condition| condition.on(wide).is_none())
}

/// The values of rules that want one argument to be one of several.
fn one_of<'a>(
    mut rules: impl Iterator<Item = (&'a Assigned, u32, &'a [Condition])>,
    wide: bool,
) -> Option<Values> {
    let mut values = Values::default();
    rules.try_for_each(|(rule, action, alternative)| {
        let mut conditions = narrowed(alternative, rule.selector, wide);
        match (conditions.next(), conditions.next()) {
            (Some(condition), None) => values.push(condition, action, wide),
            _ => None,
        }
    })?;
    values.sorted()
}

/// Rules in the order in which they decide.
fn ordered<'a>(
    rules: impl Iterator<Item = (&'a Assigned, u32, &'a [Condition])>,
    info: &ArchInfo,
) -> Result<Vec<Rule>, Error> {
    let mut ordered = Ordered::default();
    for (&Assigned { entry, selector, .. }, action, alternative) in rules {
        let conditions = narrowed(alternative, selector, info.wide).collect();
        let rule = Rule { conditions, action, entry };
        ordered.add(rule, info.wide).map_err(|other| contradiction(entry, other, info))?;
    }
    Ok(ordered.into_rules())
}

fn contradiction(entry: u32, other: u32, info: &ArchInfo) -> Error {
    let sentence = format!(
        "on {}, its conditions are those of /linux/seccomp/syscalls/{other}, whose action is another",
        info.arch
    );
    Error::new(format!("syscalls/{entry}"), sentence)
}
