//! What of a bucket value had been received by a time.
//!
//! Never here: who asks, and what a record said before it was written again (nobody keeps that). Invariant: what comes out is a
//! bucket value of just those records that had been received; a block of which all had been, or none, is not decoded.

use std::borrow::Cow;

use crate::block::{self, Block, Receipts};
use crate::bucket;
use crate::corrupt::Corrupt;

/// Records that were left out, and what it cost to tell.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Records that were received later.
    pub records: u64,
    /// Those of them that took the place of others.
    pub replaced: u64,
    /// Values that were decoded because only some of a block had been received.
    pub decoded: u64,
}

/// Which rows of a block had been received.
enum Rows {
    All,
    None,
    /// These, by their numbers.
    Some(Vec<usize>),
}

/// The records of a bucket value that had been received by a time; no bytes where there are none. Counts those left out that were
/// observed within `[from, to)`.
///
/// # Errors
/// A block is damaged.
pub fn received_by<'a>(
    value: &'a [u8],
    known_at_ns: i64,
    range: (i64, i64),
    left_out: &mut LeftOut,
) -> Result<Cow<'a, [u8]>, Corrupt> {
    let mut out: Option<Vec<u8>> = None;
    let mut at = 0;
    for block in bucket::blocks(value) {
        let block = block?;
        let rows = rows(&block, known_at_ns)?;
        if !matches!(rows, Rows::All) {
            count(&block, &rows, range, left_out)?;
        }
        match rows {
            Rows::All => {
                if let Some(out) = &mut out {
                    out.extend_from_slice(block.bytes());
                }
            }
            Rows::None => {
                out.get_or_insert_with(|| value[..at].to_vec());
            }
            Rows::Some(rows) => {
                let records = block.decode(None)?;
                left_out.decoded += records.points() as u64;
                let out = out.get_or_insert_with(|| value[..at].to_vec());
                out.extend(block::encode(&records.pick_rows(&rows)));
            }
        }
        at += block.byte_len();
    }
    Ok(out.map_or(Cow::Borrowed(value), Cow::Owned))
}

fn rows(block: &Block<'_>, known_at_ns: i64) -> Result<Rows, Corrupt> {
    let received: Vec<i64> = match block.read_receipts()? {
        Receipts::Times(times) => times,
        // Times ascend, and so do times that are all so much later.
        Receipts::Delay(delay) => {
            let end = |time: i64| time.checked_add(delay).map(|received| received <= known_at_ns);
            match (end(block.first_ns()), end(block.last_ns())) {
                (Some(true), Some(true)) => return Ok(Rows::All),
                (Some(false), Some(false)) => return Ok(Rows::None),
                _ => block
                    .times()?
                    .into_iter()
                    .map(|time| time.wrapping_add(delay))
                    .collect(),
            }
        }
        delays @ Receipts::Delays(_) => {
            let times = block.times()?.into_iter().enumerate();
            times.map(|(row, time)| delays.at(row, time)).collect()
        }
    };
    let known: Vec<usize> = (0..received.len())
        .filter(|row| received[*row] <= known_at_ns)
        .collect();
    Ok(match known.len() {
        0 => Rows::None,
        all if all == block.rows() => Rows::All,
        _ => Rows::Some(known),
    })
}

/// Counts the rows of a block that are left out.
fn count(block: &Block<'_>, rows: &Rows, (from_ns, to_ns): (i64, i64), left_out: &mut LeftOut) -> Result<(), Corrupt> {
    if block.last_ns() < from_ns || block.first_ns() >= to_ns {
        return Ok(());
    }
    let inside = block.first_ns() >= from_ns && block.last_ns() < to_ns;
    if inside && block.repeats_sum() == 0 {
        let known = if let Rows::Some(known) = rows { known.len() } else { 0 };
        left_out.records += (block.rows() - known) as u64;
        return Ok(());
    }
    let (times, repeats) = (block.times()?, block.repeats()?);
    let known: &[usize] = if let Rows::Some(known) = rows { known } else { &[] };
    let later = |row: &usize| (from_ns..to_ns).contains(&times[*row]) && known.binary_search(row).is_err();
    for row in (0..times.len()).filter(later) {
        left_out.records += 1;
        left_out.replaced += u64::from(repeats.get(row).is_some_and(|repeats| *repeats > 0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::record::{Column, PropertyNumber, Records, Values};

    const ALL: (i64, i64) = (i64::MIN, i64::MAX);

    /// Records at these times, received then, with values that tell them apart.
    fn records(rows: &[(i64, i64)]) -> Records {
        Records {
            observed_at: rows.iter().map(|row| row.0).collect(),
            received_at: rows.iter().map(|row| row.1).collect(),
            report_kind: vec![1; rows.len()],
            columns: vec![Column {
                property: PropertyNumber(1),
                presence: None,
                values: Values::F64(rows.iter().map(|row| row.0 as f64 / 8.0).collect()),
                quality: None,
            }],
            repeats: Vec::new(),
        }
    }

    #[test]
    fn what_is_left_is_what_had_been_received() {
        let check = |rows: &[(i64, i64)], known_at_ns: i64| {
            let value = bucket::encode(&records(rows));
            let mut left_out = LeftOut::default();
            let known = received_by(&value, known_at_ns, ALL, &mut left_out).unwrap();
            let expected: Vec<_> = rows.iter().filter(|row| row.1 <= known_at_ns).copied().collect();
            let whole = expected.len() == rows.len();
            assert_eq!(matches!(known, Cow::Borrowed(_)), whole, "{known_at_ns}");
            assert_eq!(*known, bucket::encode(&records(&expected)), "{known_at_ns}");
            assert_eq!(left_out.records, (rows.len() - expected.len()) as u64);
            assert_eq!(left_out.decoded > 0, !whole && !expected.is_empty());
        };
        let later = |by: fn(i64) -> i64| (0..50).map(|t| (t * 10, t * 10 + by(t))).collect::<Vec<_>>();
        for rows in [
            later(|_| 5),
            later(|_| -5),
            later(|t| t % 7 * 40),
            later(|t| 10_000 - t * 10),
            later(|t| if (20..30).contains(&t) { 700 } else { 5 }),
        ] {
            (-20..1_200)
                .step_by(7)
                .for_each(|known_at_ns| check(&rows, known_at_ns));
            check(&rows, i64::MIN);
            check(&rows, i64::MAX);
        }
        check(
            &[(i64::MAX - 3, i64::MIN + 4), (i64::MAX - 2, i64::MIN + 5)],
            i64::MIN + 4,
        );
    }

    #[test]
    fn blocks_that_are_known_as_a_whole_stay_as_they_are() {
        let whole = |from: i64| records(&(from..from + 40).map(|t| (t * 10, t * 10 + 5)).collect::<Vec<_>>());
        let blocks = [
            block::encode(&whole(0)),
            block::encode(&whole(40)),
            block::encode(&whole(80)),
        ];
        let mut left_out = LeftOut::default();
        let value = blocks.concat();
        let known = received_by(&value, 500, ALL, &mut left_out).unwrap();
        assert!(known.starts_with(&blocks[0]) && known.len() < blocks[0].len() + blocks[1].len());
        assert_eq!((left_out.records, left_out.decoded), (30 + 40, 40));
    }

    #[test]
    fn what_was_written_again_is_told_and_counted_within_the_range() {
        let first = records(&[(10, 11), (20, 21), (30, 31)]);
        let again = records(&[(20, 90), (30, 90), (40, 90)]);
        let value = bucket::encode(&Records::merge(&first, &again));
        let left = |range: (i64, i64), known_at_ns: i64| {
            let mut left_out = LeftOut::default();
            received_by(&value, known_at_ns, range, &mut left_out).unwrap();
            (left_out.records, left_out.replaced)
        };
        assert_eq!(left(ALL, 50), (3, 2));
        assert_eq!(left((30, 41), 50), (2, 1));
        assert_eq!(left((30, 40), 5), (1, 1));
        assert_eq!(left((40, 50), 50), (1, 0));
        assert_eq!(left((41, 50), 50), (0, 0));
        assert_eq!(left(ALL, 90), (0, 0));
    }
}
