//! Compiles the interface files with protobuf-codegen's own parser: no protoc binary is needed. The lite runtime leaves
//! descriptors and reflection out, which nobody asks for and which would be most of the code.

use std::{env, fs, path::Path};

fn main() {
    let dirs = ["containerd", "criu"].map(Path::new);
    let mut inputs: Vec<_> = dirs
        .iter()
        .flat_map(|dir| fs::read_dir(dir).expect("a folder of interface files"))
        .map(|entry| entry.expect("an entry of it").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    inputs.sort();
    for dir in dirs {
        println!("cargo:rerun-if-changed={}", dir.display());
    }
    protobuf_codegen::Codegen::new()
        .pure()
        .includes(dirs)
        .inputs(&inputs)
        .customize(protobuf_codegen::Customize::default().lite_runtime(true).gen_mod_rs(true))
        .out_dir(env::var("OUT_DIR").expect("cargo sets OUT_DIR"))
        .run_from_script();
}
