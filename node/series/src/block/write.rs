//! Writes a block. The layout is drawn in `block`.
//!
//! Never here: reading. Invariant: equal records give equal bytes.

use super::header::{
    FLAG_DELAY, FLAG_EQUAL, FLAG_KIND, FLAG_SMALL, SHAPE_LIKE, SHAPE_QUALITY, SHAPE_STATS, VERSION, names_encoding,
    type_number,
};
use super::units::{UNITS_NS, unit_of};
use super::{BLOCK_ROWS_MAX, clocks, like, stats};
use crate::bitmap::Bitmap;
use crate::codec::wire::{put_part, put_varint};
use crate::codec::{floats, ints, presence, text};
use crate::record::{Column, Records, ValueType, Values};

/// A block whose sections have fewer bytes in all gets one CRC.
const SMALL_BYTES: usize = 256;

/// One section and what its descriptor says before the length and after the CRC.
struct Part {
    before: Vec<u8>,
    bytes: Vec<u8>,
    after: Vec<u8>,
}

impl Part {
    fn plain(bytes: Vec<u8>) -> Part {
        Part {
            before: Vec::new(),
            bytes,
            after: Vec::new(),
        }
    }

    fn presence(map: &Bitmap, (form, bytes): (u8, Vec<u8>)) -> Part {
        let mut part = Part::plain(bytes);
        part.before.push(form);
        put_varint(&mut part.before, map.count_ones() as u64);
        part
    }
}

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
    let (times, presences) = encode_rows(times, UNITS_NS[usize::from(unit)], &rows_of.distinct, flags);
    let mut parts = Vec::with_capacity(3 + presences.len() + records.columns.len());
    parts.extend(times.map(Part::plain));
    let (delayed, receipts) = encode_receipts(records);
    flags |= if delayed { FLAG_DELAY } else { 0 };
    parts.push(Part::plain(receipts));
    let kind = records.report_kind.first().copied().unwrap_or_default();
    if records.report_kind.iter().all(|&k| k == kind) {
        flags |= FLAG_KIND;
    } else {
        let kinds: Vec<i64> = records.report_kind.iter().map(|&k| k.into()).collect();
        parts.push(Part::plain(ints::encode(&kinds)));
    }
    let columns = encode_columns(records, &rows_of, unit);
    let counts = (presences.len(), columns.len());
    parts.extend(presences);
    parts.extend(columns);
    if parts.iter().map(|p| p.bytes.len()).sum::<usize>() < SMALL_BYTES {
        flags |= FLAG_SMALL;
    }
    assemble(records, flags, kind, counts, &parts)
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

fn assemble(records: &Records, flags: u8, kind: u8, counts: (usize, usize), parts: &[Part]) -> Vec<u8> {
    let rows = records.len();
    let (first, last) = (records.observed_at[0], records.observed_at[rows - 1]);
    let small = flags & FLAG_SMALL != 0;
    let mut out = vec![VERSION, flags];
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
    for part in parts {
        out.extend_from_slice(&part.before);
        put_varint(&mut out, part.bytes.len() as u64);
        if !small {
            out.extend(crc32c::crc32c(&part.bytes).to_le_bytes());
        }
        out.extend_from_slice(&part.after);
    }
    let mut crc = crc32c::crc32c(&out);
    if small {
        crc = parts
            .iter()
            .fold(crc, |crc, part| crc32c::crc32c_append(crc, &part.bytes));
    }
    out.extend(crc.to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(&part.bytes));
    out
}

fn encode_times(times: &[i64], unit_ns: u64) -> Vec<u8> {
    let steps: Vec<i64> = times
        .windows(2)
        .map(|w| (w[1].wrapping_sub(w[0]) as u64 / unit_ns) as i64)
        .collect();
    ints::encode(&steps)
}

/// Receipt times, or delays where those are smaller (then true).
fn encode_receipts(records: &Records) -> (bool, Vec<u8>) {
    let plain = ints::encode(&records.received_at);
    let rows = records.received_at.iter().zip(&records.observed_at);
    let delays: Vec<i64> = rows
        .map(|(received, observed)| received.wrapping_sub(*observed))
        .collect();
    let delays = ints::encode(&delays);
    if delays.len() < plain.len() {
        (true, delays)
    } else {
        (false, plain)
    }
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

/// Times and presences: by one clock or, where that is shorter, by several.
fn encode_rows(times: &[i64], unit_ns: u64, presences: &[&Bitmap], flags: u8) -> (Option<Vec<u8>>, Vec<Part>) {
    let size = |(times, presences): &(Vec<u8>, Vec<Part>)| {
        times.len() + presences.iter().map(|p| p.bytes.len()).sum::<usize>()
    };
    let sections = |encode: &dyn Fn(usize, &Bitmap) -> (u8, Vec<u8>)| {
        let each = presences.iter().enumerate();
        each.map(|(index, map)| Part::presence(map, encode(index, map))).collect()
    };
    let one = (encode_times(times, unit_ns), sections(&|_, map| presence::encode(map)));
    let several = clocks::group(presences, times.len()).filter(|_| flags & FLAG_EQUAL == 0);
    let several = several.map(|grouping| {
        let presences = sections(&|index, map| grouping.encode_presence(index, map));
        (grouping.encode_times(times, unit_ns), presences)
    });
    let (bytes, presences) = several.filter(|several| size(several) < size(&one)).unwrap_or(one);
    (Some(bytes).filter(|_| times.len() > 1), presences)
}

fn encode_columns(records: &Records, rows_of: &Presences<'_>, unit: u8) -> Vec<Part> {
    let unit_ns = UNITS_NS[usize::from(unit)];
    let mut before = None;
    let mut parts = Vec::with_capacity(rows_of.of_columns.len());
    // Columns that later ones may be like: all that are like none themselves.
    let mut plain: Vec<usize> = Vec::new();
    for (index, &(column, presence)) in rows_of.of_columns.iter().enumerate() {
        let others = plain.iter().map(|&other| (other, rows_of.of_columns[other]));
        let others = others.filter(|(_, (_, rows))| *rows == presence).map(|(i, (c, _))| (i, &c.values));
        let body = encode_body(column, others);
        let number = u64::from(column.property.0);
        let mut part = Part::plain(body.bytes);
        put_varint(&mut part.before, before.map_or(number, |b: u64| number.wrapping_sub(b + 1)));
        before = Some(number);
        let map = presence.map(|p| rows_of.distinct[p]);
        if let Some(stats) = encode_stats(column, body.integers.as_ref(), records, map, unit_ns) {
            put_part(&mut part.after, &stats);
        }
        let value_type = column.values.value_type();
        part.before.push(
            type_number(value_type)
                | if part.after.is_empty() { 0 } else { SHAPE_STATS }
                | if body.quality { SHAPE_QUALITY } else { 0 }
                | if body.like.is_some() { SHAPE_LIKE } else { 0 },
        );
        if !rows_of.distinct.is_empty() {
            put_varint(&mut part.before, presence.map_or(0, |p| p as u64 + 1));
        }
        match body.like {
            Some(other) => put_varint(&mut part.before, (index - other - 1) as u64),
            None => plain.push(index),
        }
        if names_encoding(value_type) {
            part.before.push(body.encoding);
        }
        parts.push(part);
    }
    parts
}

/// A column's section and what its descriptor has to say of it.
struct Body {
    bytes: Vec<u8>,
    quality: bool,
    encoding: u8,
    /// Index of the column that this one is like.
    like: Option<usize>,
    /// Of decimals, the integers over `10^encoding`.
    integers: Option<Vec<i64>>,
}

fn encode_body<'a>(column: &'a Column, others: impl Iterator<Item = (usize, &'a Values)>) -> Body {
    let mut bytes = Vec::new();
    let quality = column.quality.as_ref().filter(|q| q.iter().any(|&q| q != 0));
    if let Some(quality) = quality {
        let numbers: Vec<i64> = quality.iter().map(|&q| q.into()).collect();
        put_part(&mut bytes, &ints::encode(&numbers));
    }
    let (mut encoding, mut values, decimals) = encode_values(&column.values);
    let like = match (&column.values, &decimals) {
        (Values::I64(values_of), _) => like::encode(values_of, 0, of_type(others, ValueType::I64), values.len()),
        (Values::F64(_), Some((exponent, integers))) => {
            like::encode(integers, *exponent, of_type(others, ValueType::F64), values.len())
        }
        _ => None,
    };
    let like = like.map(|(other, stream)| {
        values = stream;
        encoding = decimals.as_ref().map_or(0, |(exponent, _)| *exponent);
        other
    });
    bytes.extend(values);
    let integers = decimals.filter(|(exponent, _)| *exponent == encoding).map(|(_, integers)| integers);
    Body {
        bytes,
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

/// Encoding and bytes of values and, of decimals, the integers over a power of ten.
fn encode_values(values: &Values) -> (u8, Vec<u8>, Option<(u8, Vec<i64>)>) {
    let numbers = |numbers: Vec<i64>| (0, ints::encode(&numbers), None);
    match values {
        Values::F64(values) => {
            let encoded = floats::encode(values);
            (encoded.form, encoded.bytes, encoded.integers)
        }
        Values::I64(values) => (0, ints::encode(values), None),
        Values::Bool(values) => numbers(values.iter().map(|&v| v.into()).collect()),
        Values::Enum(values) => numbers(values.iter().map(|&v| v.into()).collect()),
        Values::Text(values) => {
            let (form, bytes) = text::encode(values);
            (form, bytes, None)
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
