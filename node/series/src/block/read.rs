//! Reads a block, only the sections that are asked for. The layout is drawn in `block`.
//!
//! Never here: writing. Invariant: a section is believed only after its CRC; no bytes make it panic or allocate more
//! than rows and length justify.

use std::ops::Range;

use super::clocks::{self, Clocks};
use super::header::{self, ColumnAt, FLAG_DELAY, FLAG_EQUAL, Header, PresenceAt, Section};
use super::like;
use super::repeats;
use super::stats::{self, ColumnStats, Span};
use crate::bitmap::Bitmap;
use crate::codec::emit::Whole;
use crate::codec::part::Part;
use crate::codec::wire::Reader;
use crate::codec::{floats, ints, presence, text};
use crate::corrupt::Corrupt;
use crate::record::{Column, PropertyNumber, ValueType, Values};
use crate::stamps::{Even, Stamps};

/// A block whose header was checked and whose columns were not touched.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    bytes: &'a [u8],
    header: Header<'a>,
}

/// Times of the rows of a block.
#[derive(Debug)]
pub(crate) enum Ticks {
    /// All so far apart.
    Even(Even),
    /// One by one and, where several clocks tell them, the rows of each clock.
    List(Vec<i64>, Option<Clocks>),
}

impl Ticks {
    pub(crate) fn list(self) -> Vec<i64> {
        match self {
            Ticks::Even(even) => even.list(),
            Ticks::List(times, _) => times,
        }
    }
}

/// When the rows of a block were received.
#[derive(Debug)]
pub(crate) enum Receipts {
    /// All so long after they were observed.
    Delay(i64),
    /// So long after they were observed.
    Delays(Vec<i64>),
    /// Then.
    Times(Vec<i64>),
}

impl Receipts {
    /// When a row was received that was observed at `time`.
    #[inline]
    pub(crate) fn at(&self, row: usize, time: i64) -> i64 {
        match self {
            Receipts::Delay(delay) => time.wrapping_add(*delay),
            Receipts::Delays(delays) => time.wrapping_add(delays.get(row).copied().unwrap_or_default()),
            Receipts::Times(times) => times.get(row).copied().unwrap_or_default(),
        }
    }
}

impl<'a> Block<'a> {
    /// Reads the header at the start of `bytes` and checks it; also gives what follows the block.
    ///
    /// # Errors
    /// The header is damaged or of an unknown version, or the block is cut short.
    pub fn parse(bytes: &'a [u8]) -> Result<(Block<'a>, &'a [u8]), Corrupt> {
        let header = header::parse(bytes)?;
        let cut = || Corrupt::new("block", bytes.len());
        let (bytes, rest) = bytes.split_at_checked(header.byte_len).ok_or_else(cut)?;
        Ok((Block { bytes, header }, rest))
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.header.rows
    }

    /// Earliest observation time.
    pub fn first_ns(&self) -> i64 {
        self.header.first_ns
    }

    /// Latest observation time.
    pub fn last_ns(&self) -> i64 {
        self.header.last_ns
    }

    /// Length of the block in bytes.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// The block's own bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether rows of equal time may follow each other, as in the newest values of a device.
    pub fn may_repeat_times(&self) -> bool {
        self.header.flags & FLAG_EQUAL != 0
    }

    /// Properties with a column, ascending.
    pub fn properties(&self) -> impl Iterator<Item = PropertyNumber> + '_ {
        self.header.columns.iter().map(|c| c.property)
    }

    /// Type of a column; `None` where the block has none of this property.
    pub fn value_type(&self, property: PropertyNumber) -> Option<ValueType> {
        self.find(property).map(|c| c.value_type)
    }

    /// Number of values of a column, 0 where the block has none of this property.
    pub fn count(&self, property: PropertyNumber) -> usize {
        self.find(property).map_or(0, |c| self.values_of(c))
    }

    /// Why all rows were reported, where it was for one reason.
    pub fn report_kind(&self) -> Option<u8> {
        self.header.kind
    }

    /// Whether some values of a column have a quality other than 0.
    pub fn has_qualities(&self, property: PropertyNumber) -> bool {
        self.find(property).is_some_and(|c| c.quality)
    }

    /// Statistics of a column, where the block carries them; of all values, whatever their quality.
    pub fn stats(&self, property: PropertyNumber) -> Option<ColumnStats> {
        let column = self.find(property)?;
        let mut reader = Reader::new(column.stats?, "statistics");
        let (mut first_ns, mut last_ns) = (self.first_ns(), self.last_ns());
        if column.presence.is_some() {
            let unit = self.header.unit_ns;
            first_ns = first_ns.wrapping_add(reader.varint().ok()?.wrapping_mul(unit) as i64);
            last_ns = last_ns.wrapping_sub(reader.varint().ok()?.wrapping_mul(unit) as i64);
        }
        let span = Span {
            count: self.values_of(column) as u64,
            first_ns,
            last_ns,
        };
        let stats = stats::decode(&mut reader, column.value_type, column.encoding, span).ok()?;
        reader.end().ok().map(|()| stats)
    }

    /// Observation times of all rows.
    ///
    /// # Errors
    /// The section is damaged.
    pub fn times(&self) -> Result<Vec<i64>, Corrupt> {
        self.read_times().map(|(times, _)| times)
    }

    /// One column, its checksum verified; `None` where the block has none of this property.
    ///
    /// # Errors
    /// The column is damaged.
    pub fn column(&self, property: PropertyNumber) -> Result<Option<Column>, Corrupt> {
        let form = |at: &ColumnAt<'_>| at.presence.map(|index| self.header.presences[index].form);
        let clocks = match self.find(property).and_then(form) {
            Some(form) if clocks::needs_clocks(form) => self.read_times()?.1,
            _ => None,
        };
        let presence = self.presence_of(property, clocks.as_ref())?;
        let read = |at| self.read_column(at, presence, Part::all(self.values_of(at)), &[]);
        self.find(property).map(read).transpose()
    }

    /// Which rows have a value of a column, given the clocks of the rows; `None`: every row.
    pub(crate) fn presence_of(
        &self,
        property: PropertyNumber,
        clocks: Option<&Clocks>,
    ) -> Result<Option<Bitmap>, Corrupt> {
        let presence = self.find(property).and_then(|at| at.presence);
        let read = |index: usize| self.presence(&self.header.presences[index], clocks);
        presence.map(read).transpose()
    }

    /// Some of the values of a column, by their places among all of them.
    pub(crate) fn values_between(&self, property: PropertyNumber, range: Range<usize>) -> Result<Values, Corrupt> {
        let at = self.find(property).ok_or(Corrupt::new("column", 0))?;
        let part = Part::of(range, self.values_of(at));
        let other = at.like.map(|index| &self.header.columns[index]);
        let other = other.map(|other| self.read_values(other, None, part)).transpose()?;
        self.read_values(at, other.as_ref(), part)
    }

    /// How many values of a row took the place of others, per row; empty: none of any.
    ///
    /// # Errors
    /// The section is damaged.
    pub fn repeats(&self) -> Result<Vec<u32>, Corrupt> {
        let Some(at) = &self.header.repeats else {
            return Ok(Vec::new());
        };
        let bytes = self.section(&at.section, "repeats")?;
        repeats::decode(at, bytes, self.rows()).map_err(|corrupt| corrupt.shift(at.section.at))
    }

    /// How often each record came again, per row; empty: none. One whose values all came again counts each time, one of which some did
    /// counts for a part, rounded up.
    ///
    /// # Errors
    /// A section is damaged.
    pub fn repeated_records(&self) -> Result<Vec<u32>, Corrupt> {
        let mut repeats = self.repeats()?;
        if repeats.is_empty() {
            return Ok(repeats);
        }
        let clocks = self.read_times()?.1;
        let columns = |index: Option<usize>| self.header.columns.iter().filter(|c| c.presence == index).count() as u32;
        let mut values = vec![columns(None); self.rows()];
        for (index, presence) in self.header.presences.iter().enumerate() {
            let columns = columns(Some(index));
            let map = self.presence(presence, clocks.as_ref())?;
            map.iter_ones().for_each(|row| values[row] += columns);
        }
        for (repeats, values) in repeats.iter_mut().zip(values) {
            *repeats = repeats.div_ceil(values.max(1));
        }
        Ok(repeats)
    }

    /// The sum of all repeats: the header knows it.
    pub fn repeats_sum(&self) -> u64 {
        self.header.repeats.as_ref().map_or(0, |at| at.sum)
    }

    /// When the rows were received.
    pub(crate) fn read_receipts(&self) -> Result<Receipts, Corrupt> {
        self.read_receipts_of(0..self.rows())
    }

    /// When some rows were received; the first of them is row 0 of what comes out.
    pub(super) fn read_receipts_of(&self, rows: Range<usize>) -> Result<Receipts, Corrupt> {
        let bytes = self.section(&self.header.receipts, "receipts")?;
        let delayed = self.header.flags & FLAG_DELAY != 0;
        if let Some(delay) = ints::constant(bytes).filter(|_| delayed) {
            return Ok(Receipts::Delay(delay));
        }
        let numbers = ints::decode_part(bytes, Part::of(rows, self.rows()), Whole::PLAIN)?;
        Ok(match delayed {
            true => Receipts::Delays(numbers),
            false => Receipts::Times(numbers),
        })
    }

    /// The newest time of a row that is not after `until_ns`; of a block that begins before that.
    ///
    /// # Errors
    /// The times are damaged.
    pub fn last_until(&self, until_ns: i64) -> Result<Option<i64>, Corrupt> {
        if self.last_ns() <= until_ns {
            return Ok(Some(self.last_ns()));
        }
        let last = |times: &[i64]| Some(times[times.partition_point(|t| *t <= until_ns).checked_sub(1)?]);
        Ok(match self.read_ticks()? {
            Ticks::Even(even) => even.partition(|t| t <= until_ns).checked_sub(1).map(|row| even.at(row)),
            Ticks::List(times, _) => last(&times),
        })
    }

    /// Times of all rows and, where several clocks tell them, the rows of each.
    pub(super) fn read_times(&self) -> Result<(Vec<i64>, Option<Clocks>), Corrupt> {
        Ok(match self.read_ticks()? {
            Ticks::Even(even) => (even.list(), None),
            Ticks::List(times, clocks) => (times, clocks),
        })
    }

    /// The same without a list where the steps between the times are even.
    pub(crate) fn read_ticks(&self) -> Result<Ticks, Corrupt> {
        let Some(section) = &self.header.times else {
            return Ok(Ticks::List(vec![self.first_ns()], None));
        };
        let bytes = self.section(section, "times")?;
        let corrupt = || Corrupt::new("times", section.at);
        let unit = self.header.unit_ns;
        if let Some(even) = ints::constant(bytes).and_then(|step| self.even_steps(step)) {
            return Ok(Ticks::Even(even));
        }
        let (times, clocks) = match bytes.split_first() {
            Some((&clocks::CLOCKS, rest)) => {
                let (times, clocks) = clocks::decode_times(rest, self.first_ns(), unit, self.rows())
                    .map_err(|e| e.shift(section.at + 1))?;
                (times, Some(clocks))
            }
            _ => (
                self.sum_steps(ints::decode(bytes, self.rows() - 1)?)
                    .ok_or_else(corrupt)?,
                None,
            ),
        };
        let ends = (times.first().copied(), times.last().copied());
        if ends == (Some(self.first_ns()), Some(self.last_ns())) {
            Ok(Ticks::List(times, clocks))
        } else {
            Err(corrupt())
        }
    }

    /// Times that are all so many units apart, where that is what the header says of the last one.
    fn even_steps(&self, step: i64) -> Option<Even> {
        let step_ns = step.checked_mul(i64::try_from(self.header.unit_ns).ok()?)?;
        let span = i128::from(step_ns) * (self.rows() as i128 - 1);
        let ends = i128::from(self.first_ns()) + span == i128::from(self.last_ns());
        (ends && step_ns > 0).then_some(Even {
            first_ns: self.first_ns(),
            step_ns,
            count: self.rows(),
        })
    }

    /// Times from the differences between them; `None` where they do not ascend.
    fn sum_steps(&self, steps: Vec<i64>) -> Option<Vec<i64>> {
        let unit = self.header.unit_ns as i64;
        let equal = self.may_repeat_times();
        let mut time = self.first_ns();
        let mut ordered = true;
        let mut times = vec![time; steps.len() + 1];
        for (slot, step) in times[1..].iter_mut().zip(steps) {
            let next = time.wrapping_add(step.wrapping_mul(unit));
            ordered &= next > time || equal && next == time;
            time = next;
            *slot = next;
        }
        ordered.then_some(times)
    }

    fn find(&self, property: PropertyNumber) -> Option<&ColumnAt<'a>> {
        let columns = &self.header.columns;
        columns
            .binary_search_by_key(&property, |c| c.property)
            .ok()
            .map(|i| &columns[i])
    }

    pub(super) fn values_of(&self, column: &ColumnAt<'_>) -> usize {
        column.presence.map_or(self.rows(), |p| self.header.presences[p].set)
    }

    /// The bytes of a section, checked.
    pub(super) fn section(&self, section: &Section, what: &'static str) -> Result<&'a [u8], Corrupt> {
        let bytes = self.bytes.get(section.at..section.at + section.len).unwrap_or_default();
        match section.crc {
            Some(crc) if crc32c::crc32c(bytes) != crc => Err(Corrupt::new(what, section.at)),
            _ => Ok(bytes),
        }
    }

    pub(super) fn presence(&self, at: &PresenceAt, clocks: Option<&Clocks>) -> Result<Bitmap, Corrupt> {
        let bytes = self.section(&at.section, "presence")?;
        if !clocks::needs_clocks(at.form) {
            return presence::decode(at.form, bytes, self.rows(), at.set);
        }
        let clocks = clocks.ok_or(Corrupt::new("presence of a clock", at.section.at))?;
        clocks.decode_presence(at.form, bytes, at.set)
    }

    /// A part of the values of a column; `other`: the same part of those that it is like.
    pub(super) fn read_values(&self, at: &ColumnAt<'_>, other: Option<&Values>, part: Part) -> Result<Values, Corrupt> {
        let bytes = self.section(&at.section, "column")?;
        let read = || {
            let mut reader = Reader::new(bytes, "column");
            if at.quality {
                reader.part()?;
            }
            match other {
                None => decode_values(at, reader.rest(), part),
                Some(other) => like::decode(other, at.encoding, reader.rest(), part),
            }
        };
        read().map_err(|corrupt: Corrupt| corrupt.shift(at.section.at))
    }

    /// A part of the qualities of a column whose section was checked.
    pub(super) fn read_qualities(&self, at: &ColumnAt<'_>, part: Part) -> Result<Option<Vec<u8>>, Corrupt> {
        if !at.quality {
            return Ok(None);
        }
        let bytes = self.bytes.get(at.section.at..at.section.at + at.section.len);
        let read = || {
            let stream = Reader::new(bytes.unwrap_or_default(), "column").part()?;
            bytes_of(stream, part, "qualities")
        };
        read()
            .map(Some)
            .map_err(|corrupt: Corrupt| corrupt.shift(at.section.at))
    }
}

fn decode_values(at: &ColumnAt<'_>, bytes: &[u8], part: Part) -> Result<Values, Corrupt> {
    let narrow = || Corrupt::new("column values", 0);
    let integers = || ints::decode_part(bytes, part, Whole::PLAIN);
    Ok(match at.value_type {
        ValueType::F64 => Values::F64(floats::decode(at.encoding, bytes, part)?),
        ValueType::I64 => Values::I64(integers()?),
        ValueType::Bool => {
            let values = integers()?;
            if values.iter().any(|v| !(0..=1).contains(v)) {
                return Err(narrow());
            }
            Values::Bool(values.into_iter().map(|v| v == 1).collect())
        }
        ValueType::Enum => {
            let values = integers()?.into_iter().map(u32::try_from);
            Values::Enum(values.collect::<Result<_, _>>().map_err(|_| narrow())?)
        }
        ValueType::Text => Values::Text(part.cut(text::decode(at.encoding, bytes, part.count)?, 0)),
    })
}

/// A part of a stream of bytes.
pub(super) fn bytes_of(stream: &[u8], part: Part, what: &'static str) -> Result<Vec<u8>, Corrupt> {
    let values = ints::decode_part(stream, part, Whole::PLAIN)?
        .into_iter()
        .map(u8::try_from);
    values.collect::<Result<_, _>>().map_err(|_| Corrupt::new(what, 0))
}
