//! Bytes: of the program, and of what a running container leaves in the state root.

use super::Report;
use crate::Result;
use crate::bench::Bench;
use crate::bundles::Config;
use crate::table::Table;
use std::path::Path;

/// Both, in bytes.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let head = ["", "program", "state, default config", "files", "state, Docker's config", "files"];
    let mut table = Table::new("size in bytes (program without the libraries it loads)", &head);
    for peer in &bench.peers {
        let mut row = vec![peer.name.clone(), std::fs::metadata(&peer.program)?.len().to_string()];
        for config in [Config::Default, Config::Docker] {
            let case = match bench.running(peer, config) {
                Ok(case) => case,
                Err(error) => {
                    table.notes.push(format!("{}: {error}", peer.name));
                    row.extend(["-".to_owned(), "-".to_owned()]);
                    continue;
                }
            };
            let (bytes, files) = tree(&peer.state_dir(&case));
            row.extend([bytes.to_string(), files.to_string()]);
            bench.clear(peer, &case)?;
        }
        table.rows.push(row);
    }
    report.table(&table);
    Ok(())
}

/// Bytes in, and number of, the files below `dir`.
fn tree(dir: &Path) -> (u64, usize) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(about) = entry.path().symlink_metadata() else { continue };
        let (bytes, files) = if about.is_dir() { tree(&entry.path()) } else { (about.len(), 1) };
        sum = (sum.0 + bytes, sum.1 + files);
    }
    sum
}
