//! Numbers of one kind, and what is said of them.

use crate::bounded::{Outcome, Sample};

/// What one peer gave for one subject.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// The peer's name.
    pub name: String,
    /// Wall times, in milliseconds.
    pub wall: Vec<f64>,
    /// Processor times, in milliseconds.
    pub cpu: Vec<f64>,
    /// Runs that had to be killed.
    pub hung: usize,
    /// The last failure's text.
    pub failure: Option<String>,
    /// Runs that failed.
    pub failures: usize,
}

/// After so many hangs or failures a peer is left out of the rest of a subject.
const MOST_FAILURES: usize = 3;

impl Series {
    /// An empty one.
    pub fn new(name: &str) -> Series {
        Series { name: name.to_owned(), ..Series::default() }
    }

    /// Takes in how one run ended.
    pub fn push(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done(Sample { wall, cpu }) => {
                self.wall.push(wall);
                self.cpu.push(cpu);
            }
            Outcome::Failed(text) => {
                self.failure = Some(text);
                self.failures += 1;
            }
            Outcome::Hung => self.hung += 1,
        }
    }

    /// Whether it failed too often to go on.
    pub fn is_hopeless(&self) -> bool {
        self.failures + self.hung >= MOST_FAILURES
    }

    /// What stands beside its numbers.
    pub fn note(&self) -> String {
        let mut notes = Vec::new();
        if self.hung > 0 {
            notes.push(format!("{} hung", self.hung));
        }
        if let Some(text) = &self.failure {
            notes.push(format!("{} failed: {text}", self.failures));
        }
        notes.join("; ")
    }
}

/// The least; NaN of nothing.
pub fn least(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::NAN, f64::min)
}

/// The middle; NaN of nothing.
pub fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}

/// The number that a `part` of all lies below, between two by their distance; NaN of nothing.
pub fn quantile(numbers: &[f64], part: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = part * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (sorted.get(at.floor() as usize), sorted.get(at.ceil() as usize));
    match (below, above) {
        (Some(below), Some(above)) => below + (above - below) * at.fract(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_even_count_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn least_of_nothing_is_no_number() {
        assert!(least(&[]).is_nan() && median(&[]).is_nan());
    }

    #[test]
    fn a_peer_that_hangs_three_times_is_left_out() {
        let mut series = Series::new("hangs");
        (0..3).for_each(|_| series.push(Outcome::Hung));
        assert!(series.is_hopeless());
        assert_eq!(series.note(), "3 hung");
    }
}
