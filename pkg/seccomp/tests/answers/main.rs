//! What programs answer to system calls.

mod calls;
mod libseccomp;
mod made_up;
mod meaning;
mod peer;
mod refusals;

use cofferdam_seccomp::{ActionSet, Seccomp, Target, flag};
use serde_json::Value;

const ENOSYS: u32 = 0x0005_0026;

fn profile(json: &Value) -> Seccomp {
    serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// A file of tests/data.
fn data(name: &str) -> Value {
    let path = format!("{}/tests/data/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A kernel of this architecture that knows everything.
fn target(native: &str) -> Target {
    Target { arch: calls::arch_named(native), actions: ActionSet::ALL, flags: flag::ALL }
}
