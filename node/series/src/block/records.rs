//! Rows of a block as records: all of them, or those between two times.
//!
//! Never here: one column alone (see `read`), aggregates (see `fold`). Invariant: what comes out is the same rows of the whole block,
//! whether the others were decoded or not.

use std::ops::Range;

use super::Block;
use super::clocks::Clocks;
use super::header::ColumnAt;
use super::read::{Receipts, Ticks, bytes_of};
use crate::bitmap::Bitmap;
use crate::codec::part::Part;
use crate::corrupt::Corrupt;
use crate::record::{Column, PropertyNumber, Records};
use crate::stamps::Stamps;

/// What of some rows is decoded, beside their times.
#[derive(Copy, Clone, Debug)]
pub struct Projection<'p> {
    /// These properties; `None`: all.
    pub properties: Option<&'p [PropertyNumber]>,
    /// When they were received; else that stays empty.
    pub receipts: bool,
}

impl Projection<'static> {
    /// Everything there is.
    pub const ALL: Projection<'static> = Projection {
        properties: None,
        receipts: true,
    };
}

impl Block<'_> {
    /// All rows, with all columns or only those of `projection`.
    ///
    /// # Errors
    /// A section that was read is damaged.
    pub fn decode(&self, projection: Option<&[PropertyNumber]>) -> Result<Records, Corrupt> {
        let (times, clocks) = self.read_times()?;
        let projection = Projection {
            properties: projection,
            receipts: true,
        };
        self.decode_rows(projection, 0..self.rows(), times, clocks.as_ref())
    }

    /// The rows with `from_ns <= observed_at < to_ns` alone: of the others no more is decoded than it takes to get there.
    ///
    /// # Errors
    /// A section that was read is damaged.
    pub fn decode_between(&self, projection: Projection<'_>, (from_ns, to_ns): (i64, i64)) -> Result<Records, Corrupt> {
        let ticks = self.read_ticks()?;
        let rows = match &ticks {
            Ticks::Even(even) => rows_between(*even, from_ns, to_ns),
            Ticks::List(times, _) => rows_between(times.as_slice(), from_ns, to_ns),
        };
        let (times, clocks) = match ticks {
            Ticks::Even(even) => (even.part(rows.start, rows.end).list(), None),
            Ticks::List(times, clocks) => (Part::of(rows.clone(), times.len()).cut(times, 0), clocks),
        };
        self.decode_rows(projection, rows, times, clocks.as_ref())
    }

    /// Some rows, given their times.
    fn decode_rows(
        &self,
        projection: Projection<'_>,
        rows: Range<usize>,
        observed_at: Vec<i64>,
        clocks: Option<&Clocks>,
    ) -> Result<Records, Corrupt> {
        if rows.is_empty() {
            return Ok(Records::default());
        }
        let received_at = match projection.receipts {
            true => self.received_at(rows.clone(), &observed_at)?,
            false => Vec::new(),
        };
        let header = self.header();
        let report_kind = match (&header.kinds, header.kind) {
            (Some(section), _) => {
                let part = Part::of(rows.clone(), self.rows());
                bytes_of(self.section(section, "report kinds")?, part, "report kinds")?
            }
            (None, kind) => vec![kind.unwrap_or_default(); rows.len()],
        };
        let mut presences: Vec<Option<Bitmap>> = vec![None; header.presences.len()];
        let mut columns = Vec::new();
        for at in &header.columns {
            if projection
                .properties
                .is_some_and(|wanted| !wanted.contains(&at.property))
            {
                continue;
            }
            let (presence, part) = match at.presence {
                None => (None, Part::of(rows.clone(), self.rows())),
                Some(index) => {
                    let map = match presences[index].take() {
                        Some(map) => map,
                        None => self.presence(&header.presences[index], clocks)?,
                    };
                    let part = Part::of(map.rank(rows.start)..map.rank(rows.end), self.values_of(at));
                    let some = (part.len() < rows.len()).then(|| map.part(rows.start, rows.end));
                    presences[index] = Some(map);
                    (some, part)
                }
            };
            if part.len() > 0 {
                columns.push(self.read_column(at, presence, part, &columns)?);
            }
        }
        let mut repeats = self.repeats()?;
        if !repeats.is_empty() {
            repeats = Part::of(rows, repeats.len()).cut(repeats, 0);
        }
        if repeats.iter().all(|count| *count == 0) {
            repeats.clear();
        }
        Ok(Records {
            observed_at,
            received_at,
            report_kind,
            columns,
            repeats,
        })
    }

    /// When some rows were received, given when they were observed.
    fn received_at(&self, rows: Range<usize>, observed_at: &[i64]) -> Result<Vec<i64>, Corrupt> {
        Ok(match self.read_receipts_of(rows)? {
            Receipts::Times(times) => times,
            Receipts::Delay(delay) => observed_at.iter().map(|time| time.wrapping_add(delay)).collect(),
            Receipts::Delays(mut delays) => {
                let both = delays.iter_mut().zip(observed_at);
                both.for_each(|(delay, time)| *delay = delay.wrapping_add(*time));
                delays
            }
        })
    }

    /// A part of the values of a column, with their rows; `known` are columns that were read already, ascending, of the same rows.
    pub(super) fn read_column(
        &self,
        at: &ColumnAt<'_>,
        presence: Option<Bitmap>,
        part: Part,
        known: &[Column],
    ) -> Result<Column, Corrupt> {
        let values = match at.like.map(|index| &self.header().columns[index]) {
            None => self.read_values(at, None, part)?,
            Some(other) => match known.binary_search_by_key(&other.property, |c| c.property) {
                Ok(found) => self.read_values(at, Some(&known[found].values), part)?,
                Err(_) => self.read_values(at, Some(&self.read_values(other, None, part)?), part)?,
            },
        };
        let quality = self.read_qualities(at, part)?;
        Ok(Column {
            property: at.property,
            presence,
            values,
            quality: quality.filter(|all| all.iter().any(|quality| *quality != 0)),
        })
    }
}

/// Places of the times from `from_ns` to before `to_ns`.
fn rows_between(times: impl Stamps, from_ns: i64, to_ns: i64) -> Range<usize> {
    let from = times.partition(|time| time < from_ns);
    from..times.partition(|time| time < to_ns).max(from)
}
