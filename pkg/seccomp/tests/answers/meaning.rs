//! What a profile means, evaluated straight from its JSON, against what its program does.

use cofferdam_seccomp::interpret::{Call, run};
use cofferdam_seccomp::{compile, describe, syscalls};
use oci_spec::runtime::Arch;
use serde_json::{Value, json};

use crate::calls::{self, arch_named, audit};
use crate::made_up::MadeUp;
use crate::{ENOSYS, profile, target};

/// Bit 30 of a number.
const X32: u32 = 1 << 30;

/// A profile, taken apart once for many calls. `SCMP_ACT_ERRNO` is always with EPERM here.
pub struct Meaning<'a> {
    default: &'a str,
    arches: Vec<ArchMeaning<'a>>,
}

struct ArchMeaning<'a> {
    arch: Arch,
    /// The largest number the profile names.
    newest: Option<u32>,
    rules: Vec<Rule<'a>>,
}

/// An entry that speaks of a number, which behind a multiplexer needs a first argument that selects the call.
struct Rule<'a> {
    number: u32,
    selector: Option<u64>,
    entry: &'a Value,
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl<'a> Meaning<'a> {
    pub fn of(json: &'a Value, native: &'a str) -> Meaning<'a> {
        let listed = list(&json["architectures"]).map(|arch| arch.as_str().unwrap());
        let mut arches: Vec<ArchMeaning> = Vec::new();
        for arch in listed.chain([native]).map(arch_named) {
            if arches.iter().all(|known| known.arch != arch) {
                arches.push(ArchMeaning::of(json, arch));
            }
        }
        Meaning { default: json["defaultAction"].as_str().unwrap(), arches }
    }

    fn arch(&self, call: &Call, x32: bool) -> Option<&ArchMeaning<'a>> {
        self.arches
            .iter()
            .find(|known| audit(known.arch) == call.arch && (known.arch == Arch::ScmpArchX32) == x32)
    }

    /// runc's stub, said anew: what is newer than all names of the profile is ENOSYS. It tells x32 by its bit.
    pub fn newer(&self, call: &Call) -> bool {
        let x32 = call.arch == audit(Arch::ScmpArchX32) && call.number & X32 != 0;
        let lets_by = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"].contains(&self.default);
        let Some(ArchMeaning { arch, newest: Some(newest), .. }) = self.arch(call, x32) else { return false };
        let setup = matches!(arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x) && call.number == 0;
        !lets_by && (call.number > *newest || setup)
    }

    /// The answer, if the profile's rules all have the same action. libseccomp tells x32 by what is not below its bit.
    fn answer(&self, call: &Call) -> u32 {
        if self.newer(call) {
            return ENOSYS;
        }
        let x32 = call.arch == audit(Arch::ScmpArchX32) && call.number >= X32;
        let Some(arch) = self.arch(call, x32) else {
            let skipped = call.number == u32::MAX && self.arch(call, false).is_some();
            return if skipped { value(self.default) } else { 0 };
        };
        let rule = arch.rules.iter().find(|rule| rule.matches(call, arch.arch));
        value(rule.map_or(self.default, |rule| rule.entry["action"].as_str().unwrap()))
    }
}

fn value(action: &str) -> u32 {
    match action {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0001,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        _ => panic!("{action}"),
    }
}

impl<'a> ArchMeaning<'a> {
    fn of(json: &'a Value, arch: Arch) -> ArchMeaning<'a> {
        let (mut rules, mut newest) = (Vec::new(), None);
        for entry in list(&json["syscalls"]) {
            for name in list(&entry["names"]).map(|name| name.as_str().unwrap()) {
                let direct = syscalls::number(name, arch).map(|number| (number, None));
                let through = calls::selector(name, arch).map(|(number, selector)| (number, Some(selector)));
                for (number, selector) in direct.into_iter().chain(through) {
                    newest = newest.max(Some(number));
                    rules.push(Rule { number, selector, entry });
                }
            }
        }
        ArchMeaning { arch, newest, rules }
    }
}

impl Rule<'_> {
    fn matches(&self, call: &Call, arch: Arch) -> bool {
        let keep = if calls::wide(arch) { u64::MAX } else { 0xffff_ffff };
        let index = |arg: &Value| arg["index"].as_u64().unwrap() as usize;
        let args = || list(&self.entry["args"]);
        let holds = |arg: &Value| {
            self.selector.is_some() && index(arg) == 0 || holds(arg, call.args[index(arg)] & keep, keep)
        };
        let any = args().any(|a| args().filter(|b| index(b) == index(a)).count() > 1);
        self.number == call.number
            && self.selector.is_none_or(|selector| call.args[0] & keep == selector)
            && if any { args().any(holds) } else { args().all(holds) }
    }
}

fn holds(arg: &Value, value: u64, keep: u64) -> bool {
    let one = arg["value"].as_u64().unwrap() & keep;
    match arg["op"].as_str().unwrap() {
        "SCMP_CMP_EQ" => value == one,
        "SCMP_CMP_NE" => value != one,
        "SCMP_CMP_LT" => value < one,
        "SCMP_CMP_LE" => value <= one,
        "SCMP_CMP_GT" => value > one,
        "SCMP_CMP_GE" => value >= one,
        "SCMP_CMP_MASKED_EQ" => value & one == arg["valueTwo"].as_u64().unwrap_or(0) & one,
        op => panic!("{op}"),
    }
}

#[test]
fn made_up_profiles_mean_what_they_say() {
    const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    for seed in 0..40 {
        let json = MadeUp::new(seed).profile(&OPERATORS, 3);
        let native = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"][seed as usize % 3];
        let program = compile(&profile(&json), &target(native)).unwrap().instructions;
        let meaning = Meaning::of(&json, native);
        calls::every(&json, native, |call| {
            let (got, expected) = (run(&program, call).unwrap().value, meaning.answer(call));
            assert!(
                got == expected,
                "{seed} on {native}: {call:x?} is {}, should be {}; {json}",
                describe(got),
                describe(expected)
            );
        });
    }
}

/// `count` values of one argument of three calls, some with an upper half, some with another action.
fn many_values(count: u64) -> Value {
    const CALLS: [&str; 3] = ["lseek", "ioctl", "kcmp"];
    let rules: Vec<Value> = (0..count)
        .map(|number| {
            let value = 1_000_000 + number + if number.is_multiple_of(20) { 7 << 32 } else { 0 };
            let action = if number.is_multiple_of(7) { "SCMP_ACT_LOG" } else { "SCMP_ACT_ERRNO" };
            json!({"names": [CALLS[number as usize % CALLS.len()]], "action": action,
                "args": [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]})
}

#[test]
fn many_values_of_one_argument_are_compared_one_after_the_other() {
    let json = many_values(60);
    let program = compile(&profile(&json), &target("SCMP_ARCH_X86_64")).unwrap().instructions;
    let meaning = Meaning::of(&json, "SCMP_ARCH_X86_64");
    calls::every(&json, "SCMP_ARCH_X86_64", |call| {
        let (got, expected) = (run(&program, call).unwrap().value, meaning.answer(call));
        assert!(got == expected, "{call:x?} is {}, should be {}", describe(got), describe(expected));
    });
    // For each of two widths little more than the comparison itself.
    let long = compile(&profile(&many_values(1000)), &target("SCMP_ARCH_X86_64")).unwrap().instructions;
    assert!(long.len() < 2100, "{}", long.len());
}
