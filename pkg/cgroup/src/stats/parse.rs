//! The formats in which the kernel writes figures (cgroup-v2.rst, "Interface Files").

use std::collections::BTreeMap;

use crate::error::CgroupError;
use crate::file;
use crate::stats::{IoEntry, Pressure, Psi, Rdma, RdmaEntry};

/// Reads files of one directory into one buffer.
pub(super) struct Files<'a> {
    dir: &'a str,
    text: String,
}

impl<'a> Files<'a> {
    pub(super) fn new(dir: &'a str) -> Self {
        Files { dir, text: String::new() }
    }

    /// The content of a file, `None` if there is no such file (or the kernel does not support what it is about).
    pub(super) fn text(&mut self, name: &str) -> Result<Option<&str>, CgroupError> {
        use nix::errno::Errno::EOPNOTSUPP;
        match file::read_into(self.dir, name, &mut self.text) {
            Ok(()) => Ok(Some(&self.text)),
            // EOPNOTSUPP: pressure files while PSI is switched off (psi=0).
            Err(error) if error.is_gone() || error.is(EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn malformed(&self, name: &str, what: &str) -> CgroupError {
        let reason = format!("{what:?} is not what was expected");
        CgroupError::Malformed { path: file::join(self.dir, name), reason }
    }

    /// A single number; `max` is the largest one.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, CgroupError> {
        let Some(text) = self.text(name)?.map(str::trim) else { return Ok(None) };
        match number(text) {
            Some(number) => Ok(Some(number)),
            None => {
                let what = text.to_owned();
                Err(self.malformed(name, &what))
            }
        }
    }

    /// As [`Files::number`], 0 where there is no file.
    pub(super) fn number_or_0(&mut self, name: &str) -> Result<u64, CgroupError> {
        Ok(self.number(name)?.unwrap_or(0))
    }

    /// `key value` lines, handed to `take`. A value that is no number is skipped: new kernels may bring other kinds.
    pub(super) fn keyed(&mut self, name: &str, mut take: impl FnMut(&str, u64)) -> Result<bool, CgroupError> {
        let Some(text) = self.text(name)? else { return Ok(false) };
        for line in text.lines() {
            if let Some((key, value)) = line.split_once(' ').and_then(|(k, v)| Some((k, number(v.trim())?))) {
                take(key, value);
            }
        }
        Ok(true)
    }

    pub(super) fn map(&mut self, name: &str) -> Result<Option<BTreeMap<String, u64>>, CgroupError> {
        let mut map = BTreeMap::new();
        let there = self.keyed(name, |key, value| {
            map.insert(key.to_owned(), value);
        })?;
        Ok(there.then_some(map))
    }

    pub(super) fn psi(&mut self, name: &str) -> Result<Option<Psi>, CgroupError> {
        Ok(self.text(name)?.map(psi))
    }

    pub(super) fn rdma(&mut self) -> Result<Option<Rdma>, CgroupError> {
        let Some(current) = self.text("rdma.current")?.map(rdma) else { return Ok(None) };
        let limit = self.text("rdma.max")?.map(rdma).unwrap_or_default();
        Ok(Some(Rdma { current, limit }))
    }
}

pub(super) fn number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        // v1 writes -1 for some limits that are not set.
        "-1" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let pressure = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            set(pressure, key, value);
        }
    }
    psi
}

fn set(pressure: &mut Pressure, key: &str, value: &str) {
    match key {
        "avg10" => pressure.avg10 = value.parse().unwrap_or(0.0),
        "avg60" => pressure.avg60 = value.parse().unwrap_or(0.0),
        "avg300" => pressure.avg300 = value.parse().unwrap_or(0.0),
        "total" => pressure.total = value.parse().unwrap_or(0),
        _ => {}
    }
}

/// `mlx4_0 hca_handle=2 hca_object=max`
fn rdma(text: &str) -> Vec<RdmaEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(device) = words.next() else { continue };
        let mut entry = RdmaEntry { device: device.to_owned(), ..RdmaEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = if value == "max" { u32::MAX } else { value.parse().unwrap_or(0) };
            match key {
                "hca_handle" => entry.hca_handles = value,
                "hca_object" => entry.hca_objects = value,
                _ => {}
            }
        }
        entries.push(entry);
    }
    entries
}

/// v1's `8:0 Read 1234` and `8:0 1234` lines; the `Total 1234` of all devices at the end is left out.
pub(super) fn io_entries(text: &str) -> Option<Vec<IoEntry>> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (device, op, value) = match words.as_slice() {
            ["Total", _] => continue,
            [device, value] => (device, "", value),
            [device, op, value] => (device, *op, value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        entries.push(IoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_lines() {
        let psi = psi(
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=7\n",
        );
        assert_eq!(psi.some, Pressure { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 123 });
        assert_eq!((psi.full.avg10, psi.full.total), (0.1, 7));
    }

    #[test]
    fn rdma_lines() {
        assert_eq!(
            rdma("mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_handle=3 hca_object=5\n"),
            [
                RdmaEntry { device: "mlx4_0".into(), hca_handles: 2, hca_objects: u32::MAX },
                RdmaEntry { device: "ocrdma1".into(), hca_handles: 3, hca_objects: 5 },
            ]
        );
    }

    #[test]
    fn block_lines() {
        let entry = |op: &str, value| IoEntry { major: 8, minor: 16, op: op.into(), value };
        assert_eq!(
            io_entries("8:16 Read 5\n8:16 Total 9\nTotal 14\n").unwrap(),
            [entry("Read", 5), entry("Total", 9)]
        );
        assert_eq!(io_entries("8:16 7\n").unwrap(), [entry("", 7)]);
        assert_eq!(io_entries(""), Some(vec![]));
        for bad in ["8:16", "8 Read 5", "8:16 Read x", "8:16 Read 5 6"] {
            assert_eq!(io_entries(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number("max"), Some(u64::MAX));
        assert_eq!(number("-1"), Some(u64::MAX));
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
        assert_eq!(number("x"), None);
    }
}
