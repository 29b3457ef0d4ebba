//! The same system calls put to our program and to libseccomp's, for Docker's and podman's profiles, hand-made ones
//! and made-up ones, on every architecture. libseccomp is asked through Python (libseccomp.py).

use std::collections::BTreeMap;

use cofferdam_seccomp::interpret::{Call, run};
use cofferdam_seccomp::{Instruction, compile, describe, known, syscalls};
use oci_spec::runtime::Arch;
use serde_json::Value;

use crate::calls::{self, arch_named};
use crate::made_up::MadeUp;
use crate::meaning::Meaning;
use crate::peer::{Answer, Peer};
use crate::{data, profile, target};

const ENOSYS: u32 = 0x0005_0026;

/// A session with libseccomp, or the reason why the test is skipped.
fn peer(test: &str) -> Option<Peer> {
    Peer::start().map_err(|reason| println!("SKIP {test}: {reason}")).ok()
}

/// Takes out the names that this libseccomp knows not, or with other numbers: its table may be older.
fn common_names(json: &Value, peer: &mut Peer) -> Value {
    let mut json = json.clone();
    let Some(entries) = json.get_mut("syscalls").and_then(Value::as_array_mut) else { return json };
    for entry in entries.iter_mut() {
        let names = entry["names"].as_array_mut().unwrap();
        names.retain(|name| peer.agrees(name.as_str().unwrap()));
    }
    entries.retain(|entry| !entry["names"].as_array().unwrap().is_empty());
    json
}

/// Puts every call to both programs.
fn compare(about: &str, json: &Value, native: &str, peer: &mut Peer) {
    let json = &common_names(json, peer);
    let theirs = match peer.compile(json, native) {
        Answer::Program(program) => program,
        Answer::UnknownArch(arch) => {
            return println!("SKIP {about} on {native}: libseccomp does not know {arch}");
        }
        Answer::Refused { entry, errno } => {
            panic!("{about}: libseccomp refuses entry {entry:?} with {errno}: {json}")
        }
    };
    let ours = compile(&profile(json), &target(native))
        .unwrap_or_else(|error| panic!("{about}: {error}"))
        .instructions;
    let meaning = Meaning::of(json, native);
    let mut count = 0;
    calls::every(json, native, |call| {
        count += 1;
        let mut expected = run(&theirs, call).unwrap().value;
        if meaning.newer(call) {
            expected = ENOSYS;
        }
        let got = run(&ours, call).unwrap().value;
        assert!(
            got == expected,
            "{about} on {native}: {call:x?} is {}, should be {}; {json}",
            describe(got),
            describe(expected)
        );
    });
    assert!(count > 3000, "{about}: only {count} calls were put");
}

#[test]
fn engines_profiles_answer_as_libseccomp_does() {
    let Some(mut peer) = peer("engines_profiles_answer_as_libseccomp_does") else { return };
    for name in ["docker", "podman"] {
        compare(name, &data(name), "SCMP_ARCH_X86_64", &mut peer);
    }
}

#[test]
fn hand_made_profiles_answer_as_libseccomp_does() {
    let Some(mut peer) = peer("hand_made_profiles_answer_as_libseccomp_does") else { return };
    for (about, json) in data("hand-made").as_object().unwrap() {
        compare(about, json, "SCMP_ARCH_X86_64", &mut peer);
    }
}

#[test]
fn every_architecture_answers_as_libseccomp_does() {
    let Some(mut peer) = peer("every_architecture_answers_as_libseccomp_does") else { return };
    let profiles = data("hand-made");
    for arch in known::ARCHITECTURES {
        for about in ["all operators", "multiplexed calls", "several actions", "podman's socket rules"] {
            let mut json = profiles[about].clone();
            json["architectures"] = Value::Array(vec![]);
            compare(about, &json, arch, &mut peer);
        }
    }
}

#[test]
fn made_up_profiles_answer_as_libseccomp_does() {
    let Some(mut peer) = peer("made_up_profiles_answer_as_libseccomp_does") else { return };
    for seed in 0..60 {
        // With more, libseccomp 2.5 and 2.6 are often wrong: from a comparison that fails they go on to the next
        // rule's without loading what it compares. `a2 <= 1` beside `a2 >= 1 << 63` is enough, or, on x86, `a0 != 8 &&
        // a2 != 0xffffffff` beside `a0 == 5`. meaning.rs looks at such profiles.
        let json = MadeUp::new(seed).profile(&["EQ", "NE"], 1);
        compare(&format!("made-up profile {seed}"), &json, "SCMP_ARCH_X86_64", &mut peer);
    }
}

#[test]
fn contradictions_are_refused_where_libseccomp_refuses_them() {
    let Some(mut peer) = peer("contradictions_are_refused_where_libseccomp_refuses_them") else { return };
    for (about, json) in data("contradictions").as_object().unwrap() {
        let error = compile(&profile(json), &target("SCMP_ARCH_X86_64")).expect_err(about);
        let Answer::Refused { entry: Some(entry), errno: 17 } = peer.compile(json, "SCMP_ARCH_X86_64") else {
            panic!("{about}: libseccomp takes it")
        };
        assert_eq!(error.pointer, format!("/linux/seccomp/syscalls/{entry}"), "{about}");
        assert!(error.sentence.contains("whose action is another"), "{about}: {error}");
    }
}

#[test]
fn numbers_agree_with_libseccomp() {
    let Some(mut peer) = peer("numbers_agree_with_libseccomp") else { return };
    let mut compared: BTreeMap<String, usize> = BTreeMap::new();
    for (arch, theirs) in peer.numbers(syscalls::names().map(str::to_string).collect()) {
        for (name, number) in theirs {
            // Negative: not on that architecture when that libseccomp was made, or multiplexed.
            if number >= 0 {
                assert_eq!(
                    syscalls::number(&name, arch_named(&arch)),
                    Some(number as u32),
                    "{name} on {arch}"
                );
                *compared.entry(arch.clone()).or_default() += 1;
            }
        }
    }
    assert!(compared.len() >= 19 && compared.values().all(|&count| count > 250), "{compared:?}");
}

#[test]
fn programs_are_shorter_than_libseccomps() {
    let Some(mut peer) = peer("programs_are_shorter_than_libseccomps") else { return };
    for name in ["docker", "podman"] {
        let json = data(name);
        let Answer::Program(theirs) = peer.compile(&json, "SCMP_ARCH_X86_64") else {
            panic!("{name} is refused")
        };
        let ours = compile(&profile(&json), &target("SCMP_ARCH_X86_64")).unwrap().instructions;
        let steps = |program: &[Instruction]| -> usize {
            let arch = calls::audit(Arch::ScmpArchX86_64);
            (0..470)
                .map(|number| run(program, &Call { number, arch, ..Call::default() }).unwrap().steps)
                .sum()
        };
        assert!(ours.len() < theirs.len() && steps(&ours) < steps(&theirs), "{name}");
    }
}
