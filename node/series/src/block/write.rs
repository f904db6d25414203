//! Writes a block. The layout is drawn in `block`.
//!
//! Never here: reading. Invariant: equal records give equal bytes.

use std::ops::Range;

use super::header::{
    FLAG_DELAY, FLAG_EQUAL, FLAG_KIND, FLAG_SMALL, SHAPE_LIKE, SHAPE_QUALITY, SHAPE_STATS, VERSION, VERSION_REPEATS,
    names_encoding, type_number,
};
use super::sections::{Part, Sections};
use super::units::{UNITS_NS, unit_of};
use super::{BLOCK_ROWS_MAX, clocks, like, repeats, stats};
use crate::bitmap::Bitmap;
use crate::codec::divide::Divisor;
use crate::codec::wire::{put_part, put_part_with, put_varint, varint_len, zigzag};
use crate::codec::{floats, ints, presence, text};
use crate::record::{Column, Records, ValueType, Values};

/// A block whose sections have fewer bytes in all gets one CRC: to check them all costs less than a few more bytes.
const SMALL_BYTES: usize = 2048;

/// Encodes normalised records of 1 to [`BLOCK_ROWS_MAX`] rows; no rows give no bytes. (Rows of equal time may follow
/// each other, as they do in the newest values of a device; the block is then marked so.)
///
/// # Panics
/// More rows, ragged columns, or rows or columns out of order: bytes that nobody could read must not be written.
pub fn encode(records: &Records) -> Vec<u8> {
    let times = &records.observed_at;
    let rows = times.len();
    if rows == 0 {
        return Vec::new();
    }
    check(records);
    let unit = unit_of(times);
    let mut flags = unit << 4;
    if times.windows(2).any(|w| w[0] == w[1]) {
        flags |= FLAG_EQUAL;
    }
    let rows_of = Presences::of(records);
    let mut sections = Sections::default();
    let presences = put_rows(
        times,
        Divisor::new(UNITS_NS[usize::from(unit)]),
        &rows_of.distinct,
        flags,
        &mut sections,
    );
    let mut delayed = false;
    sections.plain(|out| delayed = put_receipts(records, out));
    flags |= if delayed { FLAG_DELAY } else { 0 };
    let kind = records.report_kind.first().copied().unwrap_or_default();
    if records.report_kind.iter().all(|&k| k == kind) {
        flags |= FLAG_KIND;
    } else {
        let kinds: Vec<i64> = records.report_kind.iter().map(|&k| k.into()).collect();
        sections.plain(|out| ints::put(&kinds, out));
    }
    put_repeats(records, &mut sections);
    for (map, (form, range)) in rows_of.distinct.iter().zip(presences.forms) {
        let bytes = sections.range(|out| out.extend_from_slice(presences.bytes.get(range).unwrap_or_default()));
        let before = sections.range(|out| {
            out.push(form);
            put_varint(out, map.count_ones() as u64);
        });
        sections.parts.push(Part {
            before,
            bytes,
            after: 0..0,
        });
    }
    encode_columns(records, &rows_of, unit, &mut sections);
    if sections.len() < SMALL_BYTES {
        flags |= FLAG_SMALL;
    }
    let counts = (rows_of.distinct.len(), rows_of.of_columns.len());
    assemble(records, flags, kind, counts, &sections)
}

fn check(records: &Records) {
    let rows = records.len();
    assert!(rows <= BLOCK_ROWS_MAX, "{rows} rows");
    assert!(
        records.observed_at.windows(2).all(|w| w[0] <= w[1]),
        "times must ascend"
    );
    assert!(
        records.received_at.len() == rows && records.report_kind.len() == rows,
        "ragged rows"
    );
    assert!(
        records.repeats.is_empty() || records.repeats.len() == rows,
        "ragged repeats"
    );
    assert!(
        records.columns.windows(2).all(|w| w[0].property < w[1].property),
        "columns must ascend"
    );
    for column in &records.columns {
        let count = column.presence.as_ref().map_or(rows, Bitmap::count_ones);
        assert!(
            column.presence.as_ref().is_none_or(|map| map.len() == rows),
            "ragged presence"
        );
        assert!(column.values.len() == count, "ragged values");
        assert!(
            column.quality.as_ref().is_none_or(|q| q.len() == count),
            "ragged qualities"
        );
    }
}

fn assemble(records: &Records, flags: u8, kind: u8, counts: (usize, usize), sections: &Sections) -> Vec<u8> {
    let rows = records.len();
    let (first, last) = (records.observed_at[0], records.observed_at[rows - 1]);
    let small = flags & FLAG_SMALL != 0;
    let mut out = Vec::with_capacity(sections.buffer.len() + sections.parts.len() * 6 + 40);
    let version = match records.repeats.iter().any(|&repeats| repeats > 0) {
        true => VERSION_REPEATS,
        false => VERSION,
    };
    out.extend([version, flags]);
    put_varint(&mut out, rows as u64);
    out.extend(first.to_le_bytes());
    if rows > 1 {
        put_varint(
            &mut out,
            last.wrapping_sub(first) as u64 / UNITS_NS[usize::from(flags >> 4)],
        );
    }
    if flags & FLAG_KIND != 0 {
        out.push(kind);
    }
    put_varint(&mut out, counts.0 as u64);
    put_varint(&mut out, counts.1 as u64);
    for part in &sections.parts {
        let bytes = sections.at(&part.bytes);
        out.extend_from_slice(sections.at(&part.before));
        put_varint(&mut out, bytes.len() as u64);
        if !small {
            out.extend(crc32c::crc32c(bytes).to_le_bytes());
        }
        out.extend_from_slice(sections.at(&part.after));
    }
    let mut crc = crc32c::crc32c(&out);
    let header = out.len();
    out.extend([0; 4]);
    for part in &sections.parts {
        out.extend_from_slice(sections.at(&part.bytes));
    }
    if small {
        crc = crc32c::crc32c_append(crc, out.get(header + 4..).unwrap_or_default());
    }
    if let Some(slot) = out.get_mut(header..header + 4) {
        slot.copy_from_slice(&crc.to_le_bytes());
    }
    out
}

/// Appends the differences between times, where they take fewer than `most` bytes.
fn put_times(times: &[i64], unit: Divisor, most: usize, out: &mut Vec<u8>) -> bool {
    let in_units = |w: &[i64]| {
        let step = w[1].wrapping_sub(w[0]) as u64;
        unit.quotient(step).unwrap_or_default() as i64
    };
    ints::put_below(&times.windows(2).map(in_units).collect::<Vec<i64>>(), most, out)
}

/// Appends receipt times or, where those are smaller, delays (then true).
fn put_receipts(records: &Records, out: &mut Vec<u8>) -> bool {
    let rows = records.received_at.iter().zip(&records.observed_at);
    let mut delays = rows.map(|(received, observed)| received.wrapping_sub(*observed));
    if let [received] = records.received_at[..] {
        let delay = delays.next().unwrap_or_default();
        let delayed = varint_len(zigzag(delay)) < varint_len(zigzag(received));
        ints::put(&[if delayed { delay } else { received }], out);
        return delayed;
    }
    let delays: Vec<i64> = delays.collect();
    let delayed = ints::shorter(&delays, &records.received_at);
    ints::put(if delayed { &delays } else { &records.received_at }, out);
    delayed
}

/// Appends repeats where there are some.
fn put_repeats(records: &Records, sections: &mut Sections) {
    let Some((rows, sum, bytes)) = repeats::encode(&records.repeats) else {
        return;
    };
    let bytes = sections.range(|out| out.extend(bytes));
    let before = sections.range(|out| {
        put_varint(out, rows as u64);
        put_varint(out, sum);
    });
    sections.parts.push(Part {
        before,
        bytes,
        after: 0..0,
    });
}

/// The distinct presences of columns that not every row has, and which one each column with values has.
struct Presences<'a> {
    distinct: Vec<&'a Bitmap>,
    of_columns: Vec<(&'a Column, Option<usize>)>,
}

impl<'a> Presences<'a> {
    fn of(records: &'a Records) -> Presences<'a> {
        let rows = records.len();
        let mut distinct: Vec<&Bitmap> = Vec::new();
        let mut of_columns = Vec::with_capacity(records.columns.len());
        for column in records.columns.iter().filter(|c| !c.values.is_empty()) {
            let map = column.presence.as_ref().filter(|_| column.values.len() < rows);
            let index = map.map(|map| {
                distinct.iter().position(|d| *d == map).unwrap_or_else(|| {
                    distinct.push(map);
                    distinct.len() - 1
                })
            });
            of_columns.push((column, index));
        }
        Presences { distinct, of_columns }
    }
}

/// Bytes of presences, and of each its form and where its bytes are.
#[derive(Default)]
struct Told {
    bytes: Vec<u8>,
    forms: Vec<(u8, Range<usize>)>,
}

impl Told {
    /// Adds one with what appends it and gives its form; false where that gives up.
    fn add(&mut self, put: impl FnOnce(&mut Vec<u8>) -> Option<u8>) -> bool {
        let start = self.bytes.len();
        let form = put(&mut self.bytes);
        self.forms.extend(form.map(|form| (form, start..self.bytes.len())));
        form.is_some()
    }
}

/// Appends the times and gives presences: by one clock or, where that is shorter, by several.
fn put_rows(times: &[i64], unit: Divisor, presences: &[&Bitmap], flags: u8, sections: &mut Sections) -> Told {
    let mut told = Told::default();
    if times.len() == 1 {
        presences.iter().for_each(|map| {
            told.add(|out| presence::put(map, usize::MAX, out));
        });
        return told;
    }
    let several = clocks::group(presences, times.len()).filter(|_| flags & FLAG_EQUAL == 0);
    let mut several_told = Told::default();
    let mut several_times = Vec::new();
    if let Some(grouping) = &several {
        grouping.put_times(times, unit, &mut several_times);
        for (index, map) in presences.iter().enumerate() {
            several_told.add(|out| Some(grouping.put_presence(index, map, out)));
        }
    }
    // One clock must take no more than several; that is mostly clear before all of it is written.
    let most = several.map_or(usize::MAX, |_| several_times.len() + several_told.bytes.len() + 1);
    let start = sections.buffer.len();
    let mut one = false;
    sections.plain(|out| {
        one = put_times(times, unit, most, out);
        let left = most.saturating_sub(out.len() - start);
        one = one
            && presences.iter().all(|map| {
                let left = left.saturating_sub(told.bytes.len());
                told.add(|bytes| presence::put(map, left, bytes))
            });
        if !one {
            out.truncate(start);
            out.extend_from_slice(&several_times);
        }
    });
    if one { told } else { several_told }
}

fn encode_columns(records: &Records, rows_of: &Presences<'_>, unit: u8, sections: &mut Sections) {
    let unit_ns = UNITS_NS[usize::from(unit)];
    let mut before = None;
    // Columns that later ones may be like: all that are like none themselves.
    let mut plain: Vec<usize> = Vec::new();
    for (index, &(column, presence)) in rows_of.of_columns.iter().enumerate() {
        let others = plain.iter().map(|&other| (other, rows_of.of_columns[other]));
        let others = others
            .filter(|(_, (_, rows))| *rows == presence)
            .map(|(i, (c, _))| (i, &c.values));
        let start = sections.buffer.len();
        let body = put_body(column, others, &mut sections.buffer);
        let bytes = start..sections.buffer.len();
        let map = presence.map(|p| rows_of.distinct[p]);
        let stats = encode_stats(column, body.integers.as_ref(), records, map, unit_ns);
        let after = sections.range(|out| stats.iter().for_each(|stats| put_part(out, stats)));
        let number = u64::from(column.property.0);
        let gap = before.map_or(number, |b: u64| number.wrapping_sub(b + 1));
        before = Some(number);
        let value_type = column.values.value_type();
        let shape = type_number(value_type)
            | if stats.is_some() { SHAPE_STATS } else { 0 }
            | if body.quality { SHAPE_QUALITY } else { 0 }
            | if body.like.is_some() { SHAPE_LIKE } else { 0 };
        let before = sections.range(|out| {
            put_varint(out, gap);
            out.push(shape);
            if !rows_of.distinct.is_empty() {
                put_varint(out, presence.map_or(0, |p| p as u64 + 1));
            }
            if let Some(other) = body.like {
                put_varint(out, (index - other - 1) as u64);
            }
            if names_encoding(value_type) {
                out.push(body.encoding);
            }
        });
        if body.like.is_none() {
            plain.push(index);
        }
        sections.parts.push(Part { before, bytes, after });
    }
}

/// What a column's descriptor has to say of its section.
struct Body {
    quality: bool,
    encoding: u8,
    /// Index of the column that this one is like.
    like: Option<usize>,
    /// Of decimals, the integers over `10^encoding`.
    integers: Option<Vec<i64>>,
}

/// Appends the section of a column.
fn put_body<'a>(column: &'a Column, others: impl Iterator<Item = (usize, &'a Values)>, out: &mut Vec<u8>) -> Body {
    let quality = column.quality.as_ref().filter(|q| q.iter().any(|&q| q != 0));
    if let Some(quality) = quality {
        let numbers: Vec<i64> = quality.iter().map(|&q| q.into()).collect();
        put_part_with(out, |out| ints::put_below(&numbers, usize::MAX, out));
    }
    let start = out.len();
    let (mut encoding, decimals) = put_values(&column.values, out);
    let size = out.len() - start;
    let like = match (&column.values, &decimals) {
        (Values::I64(values), _) => like::put(values, 0, of_type(others, ValueType::I64), size, out),
        (Values::F64(_), Some((exponent, integers))) => {
            like::put(integers, *exponent, of_type(others, ValueType::F64), size, out)
        }
        _ => None,
    };
    let like = like.inspect(|_| {
        out.drain(start..start + size);
        encoding = decimals.as_ref().map_or(0, |(exponent, _)| *exponent);
    });
    let integers = decimals
        .filter(|(exponent, _)| *exponent == encoding)
        .map(|(_, integers)| integers);
    Body {
        quality: quality.is_some(),
        encoding,
        like,
        integers,
    }
}

fn of_type<'a>(
    others: impl Iterator<Item = (usize, &'a Values)>,
    value_type: ValueType,
) -> impl Iterator<Item = (usize, &'a Values)> {
    others.filter(move |(_, values)| values.value_type() == value_type)
}

fn encode_stats(
    column: &Column,
    integers: Option<&Vec<i64>>,
    records: &Records,
    map: Option<&Bitmap>,
    unit_ns: u64,
) -> Option<Vec<u8>> {
    if records.len() < stats::ROWS_MIN {
        return None;
    }
    let body = stats::encode(&column.values, integers)?;
    let Some(map) = map else {
        return Some(body);
    };
    let mut part = Vec::new();
    put_stats_times(&mut part, records, map, unit_ns);
    part.extend(body);
    Some(part)
}

/// Appends values; gives their encoding and, of decimals, the integers over a power of ten.
fn put_values(values: &Values, out: &mut Vec<u8>) -> (u8, Option<(u8, Vec<i64>)>) {
    let mut put = |values: &[i64]| {
        ints::put(values, out);
        (0, None)
    };
    match values {
        Values::F64(values) => floats::put(values, out),
        Values::I64(values) => put(values),
        Values::Bool(values) => put(&values.iter().map(|&v| v.into()).collect::<Vec<i64>>()),
        Values::Enum(values) => put(&values.iter().map(|&v| v.into()).collect::<Vec<i64>>()),
        Values::Text(values) => {
            let (form, bytes) = text::encode(values);
            out.extend(bytes);
            (form, None)
        }
    }
}

fn put_stats_times(out: &mut Vec<u8>, records: &Records, map: &Bitmap, unit_ns: u64) {
    let times = &records.observed_at;
    let first = map.iter_ones().next().unwrap_or(0);
    let last = (0..map.len()).rev().find(|&row| map.get(row)).unwrap_or(0);
    put_varint(out, times[first].wrapping_sub(times[0]) as u64 / unit_ns);
    put_varint(out, times[times.len() - 1].wrapping_sub(times[last]) as u64 / unit_ns);
}
