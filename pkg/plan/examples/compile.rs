//! Prints the plan of a config.json on this machine, or with `--time` what loading and compiling it cost.
//!
//! `cargo run -p cofferdam-plan --release --example compile -- [--time] [--run] CONFIG`
#![allow(clippy::disallowed_methods)] // this is a program around the compiler, not the compiler

use cofferdam_plan::{Host, Options, Spec, compile, needs};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.iter().find(|argument| !argument.starts_with("--")).ok_or("which config.json?")?;
    let text = std::fs::read(path)?;
    let spec = Spec::parse(&text)?;
    let options = Options {
        id: "example".to_owned(),
        bundle: "/bundle".to_owned(),
        run: arguments.iter().any(|argument| argument == "--run"),
        console: spec.process.as_ref().is_some_and(|process| process.terminal),
        ..Options::default()
    };
    if arguments.iter().any(|argument| argument == "--time") {
        time("probe", || Host::probe(&needs(&spec)).is_ok());
        let host = Host::probe(&needs(&spec))?;
        time("parse", || Spec::parse(&text).is_ok());
        time("compile", || compile(&spec, &host, &options).is_ok());
    } else {
        print!("{}", compile(&spec, &Host::probe(&needs(&spec))?, &options)?);
    }
    Ok(())
}

/// Minimum and median of a thousand runs, in microseconds.
fn time(what: &str, run: impl Fn() -> bool) {
    let mut times: Vec<f64> = (0..1000)
        .map(|_| {
            let begin = Instant::now();
            assert!(run(), "{what} fails");
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:8} min {:7.1} µs, median {:7.1} µs", times[0], times[times.len() / 2]);
}
