//! How many values of rows took the place of others: mostly none, and then nothing is written.
//!
//! ```text
//! repeats = rows with some, an int stream with its length (varint): row less the row before, less one
//!         | int stream of their repeats, less one
//! ```
//!
//! Never here: what counts as a repeat (see `rows`). Invariant: the rows and their sum are those the header promised.

use super::header::RepeatsAt;
use crate::codec::ints;
use crate::codec::wire::{Reader, put_part};
use crate::corrupt::Corrupt;

/// Rows with repeats, their sum, and the section.
pub(super) fn encode(repeats: &[u32]) -> Option<(usize, u64, Vec<u8>)> {
    let (mut gaps, mut counts) = (Vec::new(), Vec::new());
    let (mut next, mut sum) = (0, 0);
    for (row, &count) in repeats.iter().enumerate().filter(|(_, count)| **count > 0) {
        gaps.push((row - next) as i64);
        counts.push(i64::from(count) - 1);
        next = row + 1;
        sum += u64::from(count);
    }
    if gaps.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    put_part(&mut out, &ints::encode(&gaps));
    ints::put(&counts, &mut out);
    Some((gaps.len(), sum, out))
}

/// Repeats of each of `rows` rows.
pub(super) fn decode(at: &RepeatsAt, bytes: &[u8], rows: usize) -> Result<Vec<u32>, Corrupt> {
    let mut reader = Reader::new(bytes, "repeats");
    let gaps = ints::decode(reader.part()?, at.rows)?;
    let counts = ints::decode(reader.rest(), at.rows)?;
    let mut repeats = vec![0; rows];
    let (mut next, mut sum) = (0, 0);
    for (gap, count) in gaps.into_iter().zip(counts) {
        let row = usize::try_from(gap).ok().and_then(|gap| gap.checked_add(next));
        let slot = row.and_then(|row| repeats.get_mut(row)).ok_or(reader.corrupt())?;
        let count = count.checked_add(1).filter(|count| *count > 0);
        *slot = count
            .and_then(|count| u32::try_from(count).ok())
            .ok_or(reader.corrupt())?;
        sum += u64::from(*slot);
        next = row.unwrap_or(rows) + 1;
    }
    match sum == at.sum {
        true => Ok(repeats),
        false => Err(reader.corrupt()),
    }
}

/// Repeats of `rows` rows, a third of them with three on average, from nothing but bytes.
pub(crate) fn read_repeats(bytes: &[u8], rows: usize) -> Result<(), Corrupt> {
    let at = RepeatsAt {
        rows: rows.div_ceil(3),
        sum: rows.div_ceil(3) as u64 * 3,
        ..RepeatsAt::default()
    };
    let repeats = decode(&at, bytes, rows)?;
    debug_assert_eq!(repeats.len(), rows);
    Ok(())
}
