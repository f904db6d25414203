//! The oracle's own memory: one line per acknowledged batch in a text file. The first line is the plan. Invariant: a line
//! is written after the acknowledgement and before the next batch of that producer counts, so that a killed oracle
//! forgets an acknowledged batch at worst and never invents one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::points::Plan;

/// A journal open for writing.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Begins a journal; an existing file is refused, it is somebody's evidence.
    pub(crate) fn create(path: &Path, plan: &Plan) -> Result<Self> {
        let mut file = File::create_new(path).with_context(|| format!("create {}", path.display()))?;
        writeln!(file, "{}", serde_json::to_string(plan)?)?;
        Ok(Self { file })
    }

    /// Notes that a batch of `producer` with these numbers was acknowledged.
    pub(crate) fn acknowledged(&mut self, producer: u32, numbers: &Range<u64>) -> Result<()> {
        // one write call a line: a kill leaves whole lines, but for the last
        let line = format!("{producer} {} {}\n", numbers.start, numbers.end);
        Ok(self.file.write_all(line.as_bytes())?)
    }

    /// Brings it to disk.
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }
}

/// What a journal says: the plan, and the acknowledged numbers of each producer in order, neighbours joined.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) plan: Plan,
    pub(crate) acknowledged: BTreeMap<u32, Vec<Range<u64>>>,
}

/// Reads a journal; a last line that was cut off by a kill is left out.
pub(crate) fn read(path: &Path) -> Result<Evidence> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut lines = BufReader::new(file);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let plan = serde_json::from_str(&line).with_context(|| format!("{}: no plan in line 1", path.display()))?;
    let mut acknowledged: BTreeMap<u32, Vec<Range<u64>>> = BTreeMap::new();
    for number in 2.. {
        line.clear();
        if lines.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            break;
        }
        let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let [producer, start, end] = fields[..] else {
            bail!("{}: line {number} is not a batch", path.display())
        };
        acknowledged
            .entry(u32::try_from(producer)?)
            .or_default()
            .push(start..end);
    }
    for ranges in acknowledged.values_mut() {
        *ranges = joined(std::mem::take(ranges));
    }
    Ok(Evidence { plan, acknowledged })
}

/// Ranges in order, neighbours joined.
pub(crate) fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::single_range_in_vec_init,
        reason = "tests; one range is meant"
    )]
    use super::*;

    fn plan() -> Plan {
        Plan {
            device_type: "oracle".to_owned(),
            run: "r1".to_owned(),
            start_ns: 7,
            producers: 2,
            devices_per_producer: 3,
            rows_per_batch: 10,
        }
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &plan()).unwrap();
        for (producer, start) in [(0, 0), (1, 0), (0, 20), (0, 10), (1, 40)] {
            journal.acknowledged(producer, &(start..start + 10)).unwrap();
        }
        journal.sync().unwrap();
        journal.file.write_all(b"1 50").unwrap();
        let evidence = read(&path).unwrap();
        assert_eq!(evidence.plan, plan());
        assert_eq!(
            evidence.acknowledged,
            BTreeMap::from([(0, vec![0..30]), (1, vec![0..10, 40..50])])
        );
        assert!(
            Journal::create(&path, &plan()).is_err(),
            "evidence is never overwritten"
        );
    }
}
