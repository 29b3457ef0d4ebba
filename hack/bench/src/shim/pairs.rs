//! Paired comparison: in each round everybody is measured once, and what counts is the difference within the round.

use crate::series::{least, median, quantile};
use crate::table::{Table, ratio, time};

/// One quantity of all rounds, by peer; the first peer is ours.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// What it is.
    pub title: String,
    /// Peers' names.
    pub names: Vec<String>,
    /// One row a round, with one time in milliseconds a peer.
    pub rounds: Vec<Vec<f64>>,
}

impl Pairs {
    /// Nothing yet.
    pub fn new(title: &str, names: &[String]) -> Pairs {
        Pairs { title: title.into(), names: names.to_vec(), rounds: Vec::new() }
    }

    /// All times of a peer.
    pub fn of(&self, peer: usize) -> Vec<f64> {
        self.rounds.iter().map(|round| round[peer]).collect()
    }

    /// A row a peer: minimum, median, p99, and ours minus theirs: the median of the differences with its 95 % interval.
    pub fn table(&self) -> Table {
        let head = ["", "min", "median", "p99", "ours/theirs", "ours - theirs", "from", "to", "pairs"];
        let mut table = Table::new(self.title.clone(), &head);
        let ours = self.of(0);
        for (peer, name) in self.names.iter().enumerate() {
            let own = self.of(peer);
            let mut row = vec![
                name.clone(),
                time(least(&own)),
                time(median(&own)),
                time(quantile(&own, 0.99)),
                ratio(median(&ours) / median(&own)),
            ];
            let differences: Vec<f64> = ours.iter().zip(&own).map(|(ours, theirs)| ours - theirs).collect();
            let (low, high) = interval(&differences);
            row.extend([median(&differences), low, high].map(|number| format!("{number:.2}")));
            row.push(own.len().to_string());
            table.rows.push(row);
        }
        table
    }
}

/// The 95 % interval of the median, by ranks (the binomial's normal approximation), which asks nothing of the distribution: of 100
/// numbers those of rank 40 and 61. NaN of nothing.
pub fn interval(numbers: &[f64]) -> (f64, f64) {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (count, half) = (sorted.len() as f64, 0.98 * (sorted.len() as f64).sqrt());
    let at =
        |rank: f64| sorted.get(rank.clamp(1.0, count.max(1.0)) as usize - 1).copied().unwrap_or(f64::NAN);
    (at((count / 2.0 - half).floor()), at((count / 2.0 + half + 1.0).ceil()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_of_ranks() {
        let numbers: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(interval(&numbers), (40.0, 61.0));
        assert_eq!(interval(&[3.0]), (3.0, 3.0));
        assert!(interval(&[]).0.is_nan());
    }

    #[test]
    fn differences_are_within_a_round() {
        let mut pairs = Pairs::new("t", &["ours".into(), "theirs".into()]);
        // The machine became slower half-way: the pairs know nothing of that.
        pairs.rounds =
            (0..100).map(|round| if round < 50 { vec![1.0, 3.0] } else { vec![11.0, 13.0] }).collect();
        let table = pairs.table();
        assert_eq!(table.rows[1][5..8], ["-2.00", "-2.00", "-2.00"]);
    }
}
