//! `-info`: what this runtime can do. CRI asks for it before it makes pods with user namespaces, and containerd before it
//! hands out id-mapped mounts.

use crate::{NAME, options::Options, runtime};
use cofferdam_proto::{Any, Message, runtime_info, type_url};
use std::io::{Read, Write};

/// Reads options from standard input, and writes a RuntimeInfo to standard output.
///
/// # Errors
/// A sentence about options that are not understood, or a runtime that does not answer.
pub fn print() -> Result<(), String> {
    let mut input = Vec::new();
    std::io::stdin()
        .take(10 << 20)
        .read_to_end(&mut input)
        .map_err(|error| format!("failed to read stdin: {error}"))?;
    let any = Any::parse_from_bytes(&input).map_err(|error| format!("runtime options on stdin: {error}"))?;
    let options =
        Options::from_any(Some(&any)).map_err(|error| format!("failed to read runtime options: {error}"))?;
    let bytes = describe(&options, any).write_to_bytes().map_err(|error| error.to_string())?;
    std::io::stdout().write_all(&bytes).map_err(|error| format!("write the answer: {error}"))
}

fn describe(options: &Options, any: Any) -> runtime_info::RuntimeInfo {
    // A runtime without the verb is described without its features, as containerd's shim does it.
    let features = runtime::engine(options, "", None).features().ok();
    let features = features.filter(|json| serde_json::from_slice::<serde_json::Map<_, _>>(json).is_ok());
    runtime_info::RuntimeInfo {
        name: NAME.into(),
        version: Some(runtime_info::RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        })
        .into(),
        options: (!any.type_url.is_empty()).then_some(any).into(),
        features: features
            .map(|value| Any { type_url: type_url::OCI_FEATURES.into(), value, ..Default::default() })
            .into(),
        ..Default::default()
    }
}
