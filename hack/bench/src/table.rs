//! Tables, as aligned text or in Markdown.

use crate::series::{Series, least, median};
use std::fmt::Write;

/// Rows under a title.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What was measured, and in which unit.
    pub title: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// The first cell is a name, the others are numbers.
    pub rows: Vec<Vec<String>>,
    /// Sentences below it.
    pub notes: Vec<String>,
}

impl Table {
    /// An empty one.
    pub fn new(title: impl Into<String>, head: &[&str]) -> Table {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        Table { title: title.into(), head, ..Table::default() }
    }

    /// The usual columns: least, median, ratios of both to crun and to the floor, processor time.
    pub fn of_series(title: impl Into<String>, all: &[Series]) -> Table {
        let head =
            ["", "min", "median", "median/crun", "min/crun", "median/floor", "min/floor", "cpu", "runs"];
        let mut table = Table::new(title, &head);
        let find = |name: &str| all.iter().find(|series| series.name == name);
        for series in all {
            let mut row = vec![series.name.clone(), time(least(&series.wall)), time(median(&series.wall))];
            for other in ["crun", "floor"] {
                let against = |of: fn(&[f64]) -> f64| {
                    find(other).map_or(f64::NAN, |other| of(&series.wall) / of(&other.wall))
                };
                row.extend([ratio(against(median)), ratio(against(least))]);
            }
            row.extend([time(median(&series.cpu)), series.wall.len().to_string()]);
            table.rows.push(row);
            if !series.note().is_empty() {
                table.notes.push(format!("{}: {}", series.name, series.note()));
            }
        }
        table
    }

    /// As text with a blank line behind it.
    pub fn render(&self, markdown: bool) -> String {
        if markdown { self.markdown() } else { self.text() }
    }

    fn text(&self) -> String {
        let mut out = format!("{}\n", self.title);
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in all() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(line, "  {cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(out, "  {note}");
        }
        out + "\n"
    }

    fn markdown(&self) -> String {
        let mut out = format!("**{}**\n\n| {} |\n|---|", self.title, self.head.join(" | "));
        out.push_str(&"--:|".repeat(self.head.len().saturating_sub(1)));
        for row in &self.rows {
            let _ = write!(out, "\n| {} |", row.join(" | "));
        }
        for note in &self.notes {
            let _ = write!(out, "\n\n{note}");
        }
        out + "\n\n"
    }
}

/// Milliseconds, with three digits that count.
pub fn time(milliseconds: f64) -> String {
    match milliseconds {
        none if none.is_nan() => "-".to_owned(),
        small if small < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

/// A ratio.
pub fn ratio(number: f64) -> String {
    if number.is_nan() { "-".to_owned() } else { format!("{number:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Series> {
        let series = |name: &str, wall: &[f64]| Series {
            wall: wall.to_vec(),
            cpu: wall.to_vec(),
            ..Series::new(name)
        };
        vec![series("crun", &[4.0, 4.0, 5.0]), series("floor", &[1.0, 2.0, 3.0])]
    }

    #[test]
    fn ratios_are_of_medians_and_of_minima() {
        let table = Table::of_series("t", &two());
        assert_eq!(table.rows[0][3..7], ["1.00", "1.00", "2.00", "4.00"]);
        assert_eq!(table.rows[1][3..5], ["0.50", "0.25"]);
    }

    #[test]
    fn columns_are_aligned() {
        let text = Table::of_series("t", &two()).render(false);
        let widths: Vec<usize> = text.lines().skip(1).take(3).map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
