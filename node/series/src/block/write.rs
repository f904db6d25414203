//! Writes a block. The layout is drawn in `block`.
//!
//! Never here: reading. Invariant: equal records give equal bytes.

use super::header::{
    FLAG_DELAY, FLAG_EQUAL, FLAG_KIND, FLAG_SMALL, SHAPE_QUALITY, SHAPE_STATS, VERSION, names_encoding, type_number,
};
use super::units::{UNITS_NS, unit_of};
use super::{BLOCK_ROWS_MAX, stats};
use crate::bitmap::Bitmap;
use crate::codec::wire::{put_part, put_varint};
use crate::codec::{floats, ints, presence, text};
use crate::record::{Column, Records, Values};

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
}

/// Encodes normalised records of 1 to [`BLOCK_ROWS_MAX`] rows. (Rows of equal time may follow each other, as they do
/// in the newest values of a device; the block is then marked so.)
pub fn encode(records: &Records) -> Vec<u8> {
    let times = &records.observed_at;
    let rows = times.len();
    debug_assert!((1..=BLOCK_ROWS_MAX).contains(&rows), "{rows} rows");
    debug_assert!(times.windows(2).all(|w| w[0] <= w[1]), "times must ascend");
    debug_assert!(
        records.received_at.len() == rows && records.report_kind.len() == rows,
        "ragged rows"
    );
    debug_assert!(
        records.columns.windows(2).all(|w| w[0].property < w[1].property),
        "columns must ascend"
    );

    let unit = unit_of(times);
    let mut flags = unit << 4;
    if times.windows(2).any(|w| w[0] == w[1]) {
        flags |= FLAG_EQUAL;
    }
    let mut parts = Vec::new();
    if rows > 1 {
        parts.push(Part::plain(encode_times(times, UNITS_NS[usize::from(unit)])));
    }
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
    let (presences, columns) = encode_columns(records, unit);
    let counts = (presences.len(), columns.len());
    parts.extend(presences);
    parts.extend(columns);
    if parts.iter().map(|p| p.bytes.len()).sum::<usize>() < SMALL_BYTES {
        flags |= FLAG_SMALL;
    }
    assemble(records, flags, kind, counts, &parts)
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

/// Sections of the distinct presences and of the columns.
fn encode_columns(records: &Records, unit: u8) -> (Vec<Part>, Vec<Part>) {
    let rows = records.len();
    let partly = |column: &Column| column.presence.as_ref().filter(|map| map.count_ones() < rows).cloned();
    let columns = records.columns.iter().filter(|c| !c.values.is_empty());
    let columns: Vec<(&Column, Option<Bitmap>)> = columns.map(|c| (c, partly(c))).collect();
    let mut distinct: Vec<&Bitmap> = Vec::new();
    for map in columns.iter().filter_map(|(_, map)| map.as_ref()) {
        if !distinct.contains(&map) {
            distinct.push(map);
        }
    }
    let mut before = None;
    let mut parts = Vec::with_capacity(columns.len());
    for (column, map) in &columns {
        let number = u64::from(column.property.0);
        let mut lead = Vec::new();
        put_varint(&mut lead, before.map_or(number, |b: u64| number.wrapping_sub(b + 1)));
        before = Some(number);
        let presence = map.as_ref().and_then(|map| distinct.iter().position(|d| *d == map));
        parts.push(encode_column(
            column,
            records,
            lead,
            (presence, distinct.len()),
            map.as_ref(),
            unit,
        ));
    }
    let presences = distinct.iter().map(|map| {
        let (form, bytes) = presence::encode(map);
        let mut before = vec![form];
        put_varint(&mut before, map.count_ones() as u64);
        Part {
            before,
            bytes,
            after: Vec::new(),
        }
    });
    (presences.collect(), parts)
}

fn encode_column(
    column: &Column,
    records: &Records,
    lead: Vec<u8>,
    (presence, presences): (Option<usize>, usize),
    map: Option<&Bitmap>,
    unit: u8,
) -> Part {
    let value_type = column.values.value_type();
    let mut bytes = Vec::new();
    let quality = column.quality.as_ref().filter(|q| q.iter().any(|&q| q != 0));
    if let Some(quality) = quality {
        put_part(
            &mut bytes,
            &ints::encode(&quality.iter().map(|&q| q.into()).collect::<Vec<i64>>()),
        );
    }
    let (encoding, integers) = encode_values(&column.values, &mut bytes);
    let mut after = Vec::new();
    let wanted = records.len() >= stats::ROWS_MIN;
    if let Some(body) = wanted
        .then(|| stats::encode(&column.values, integers.as_ref()))
        .flatten()
    {
        let mut part = Vec::new();
        if let Some(map) = map {
            put_stats_times(&mut part, records, map, UNITS_NS[usize::from(unit)]);
        }
        part.extend(body);
        put_part(&mut after, &part);
    }
    let shape = type_number(value_type)
        | if after.is_empty() { 0 } else { SHAPE_STATS }
        | if quality.is_some() { SHAPE_QUALITY } else { 0 };
    let mut before = lead;
    before.push(shape);
    if presences > 0 {
        put_varint(&mut before, presence.map_or(0, |p| p as u64 + 1));
    }
    if names_encoding(value_type) {
        before.push(encoding);
    }
    Part { before, bytes, after }
}

/// Appends the values; gives their encoding and, of decimals, the integers.
fn encode_values(values: &Values, out: &mut Vec<u8>) -> (u8, Option<(u8, Vec<i64>)>) {
    match values {
        Values::F64(values) => {
            let encoded = floats::encode(values);
            out.extend(encoded.bytes);
            return (encoded.form, encoded.integers);
        }
        Values::I64(values) => out.extend(ints::encode(values)),
        Values::Bool(values) => out.extend(ints::encode(&values.iter().map(|&v| v.into()).collect::<Vec<i64>>())),
        Values::Enum(values) => out.extend(ints::encode(&values.iter().map(|&v| v.into()).collect::<Vec<i64>>())),
        Values::Text(values) => {
            let (form, bytes) = text::encode(values);
            out.extend(bytes);
            return (form, None);
        }
    }
    (0, None)
}

fn put_stats_times(out: &mut Vec<u8>, records: &Records, map: &Bitmap, unit_ns: u64) {
    let times = &records.observed_at;
    let first = map.iter_ones().next().unwrap_or(0);
    let last = (0..map.len()).rev().find(|&row| map.get(row)).unwrap_or(0);
    put_varint(out, times[first].wrapping_sub(times[0]) as u64 / unit_ns);
    put_varint(out, times[times.len() - 1].wrapping_sub(times[last]) as u64 / unit_ns);
}
