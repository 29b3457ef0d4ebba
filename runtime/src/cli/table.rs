//! Columns, as Go's `text/tabwriter` lays them out for runc: a cell is at least 12 wide, with three blanks behind the
//! longest; the last column has no padding.

/// Lines of cells as text. Every line has as many cells as the first.
pub fn layout<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| {
        let longest = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        (longest + 3).max(12)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < N {
                text.extend(std::iter::repeat_n(' ', widths[column] - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_line_up_as_runcs() {
        let line = |cells: [&str; 4]| cells.map(String::from);
        let text = layout(&[
            line(["ID", "PID", "BUNDLE", "OWNER"]),
            line(["a-rather-long-id", "7", "/bündle/x/y/z", "root"]),
        ]);
        assert_eq!(
            text,
            "ID                 PID         BUNDLE          OWNER\na-rather-long-id   7           /bündle/x/y/z   root\n"
        );
    }
}
