//! Counts.

use std::collections::BTreeMap;

/// What was tried and how it went.
pub struct Tally {
    verbose: bool,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Why something that is not perfect passed, and how often.
    tolerated: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// None yet; with `verbose` what passes is printed too.
    pub fn new(verbose: bool) -> Tally {
        Tally { verbose, passed: 0, failed: 0, skipped: 0, tolerated: BTreeMap::new() }
    }

    /// One try: what was wrong, if anything.
    pub fn count(&mut self, name: &str, problems: &[String]) {
        if problems.is_empty() {
            self.passed += 1;
            if self.verbose {
                println!("ok    {name}");
            }
            return;
        }
        self.failed += 1;
        for problem in problems {
            println!("FAIL  {name}: {problem}");
        }
    }

    /// One try that was passed with an excuse.
    pub fn tolerate(&mut self, name: &str, why: &'static str) {
        *self.tolerated.entry(why).or_default() += 1;
        self.passed += 1;
        if self.verbose {
            println!("ok    {name} ({why})");
        }
    }

    /// One that could not be tried.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.skipped += 1;
        println!("SKIP  {name}: {why}");
    }

    /// Something that a person may want to know.
    pub fn note(&self, text: &str) {
        if self.verbose {
            println!("      {text}");
        }
    }

    /// Prints the sum; the value is this program's exit status.
    pub fn print(&self) -> i32 {
        for (why, count) in &self.tolerated {
            println!("{count:5} tolerated: {why}");
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        i32::from(self.failed > 0)
    }
}
