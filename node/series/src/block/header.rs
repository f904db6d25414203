//! The header of a block, parsed: what is where. The layout is drawn in `block`.
//!
//! Never here: the contents of sections. Invariants: nothing is believed before the CRC is checked; the sections lie
//! inside the bytes, one after another, and fill the block to its end.

use super::BLOCK_ROWS_MAX;
use super::units::UNITS_NS;
use crate::codec::wire::Reader;
use crate::corrupt::Corrupt;
use crate::record::{PropertyNumber, ValueType};

pub(super) const VERSION: u8 = 1;
/// The same with repeats.
pub(super) const VERSION_REPEATS: u8 = 2;
pub(super) const FLAG_SMALL: u8 = 0x01;
pub(super) const FLAG_EQUAL: u8 = 0x02;
pub(super) const FLAG_DELAY: u8 = 0x04;
pub(super) const FLAG_KIND: u8 = 0x08;
pub(super) const SHAPE_STATS: u8 = 0x08;
pub(super) const SHAPE_QUALITY: u8 = 0x10;
pub(super) const SHAPE_LIKE: u8 = 0x20;
const SHAPE_KNOWN: u8 = 0x3f;
/// So many descriptors have room from the start; what promises more is believed as they come.
const DESCRIPTORS_AT_ONCE: usize = 32;

/// Where a section lies in the block.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    pub(super) at: usize,
    pub(super) len: usize,
    /// `None`: covered by the CRC of the block.
    pub(super) crc: Option<u32>,
}

/// Where repeats lie, of how many rows, and how many in all.
#[derive(Clone, Debug, Default)]
pub(super) struct RepeatsAt {
    pub(super) rows: usize,
    pub(super) sum: u64,
    pub(super) section: Section,
}

#[derive(Clone, Debug)]
pub(super) struct PresenceAt {
    pub(super) form: u8,
    pub(super) set: usize,
    pub(super) section: Section,
}

#[derive(Clone, Debug)]
pub(super) struct ColumnAt<'a> {
    pub(super) property: PropertyNumber,
    pub(super) value_type: ValueType,
    pub(super) quality: bool,
    /// Index among the presences; `None`: every row.
    pub(super) presence: Option<usize>,
    /// Index of the column that this one is like.
    pub(super) like: Option<usize>,
    pub(super) encoding: u8,
    pub(super) section: Section,
    pub(super) stats: Option<&'a [u8]>,
}

#[derive(Clone, Debug)]
pub(super) struct Header<'a> {
    pub(super) flags: u8,
    pub(super) rows: usize,
    pub(super) unit_ns: u64,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
    pub(super) kind: Option<u8>,
    pub(super) times: Option<Section>,
    pub(super) receipts: Section,
    pub(super) kinds: Option<Section>,
    pub(super) repeats: Option<RepeatsAt>,
    pub(super) presences: Vec<PresenceAt>,
    pub(super) columns: Vec<ColumnAt<'a>>,
    /// Bytes of the whole block.
    pub(super) byte_len: usize,
}

/// The number of a type in a column's shape.
pub(super) fn type_number(value_type: ValueType) -> u8 {
    match value_type {
        ValueType::F64 => 1,
        ValueType::I64 => 2,
        ValueType::Bool => 3,
        ValueType::Enum => 4,
        ValueType::Text => 5,
    }
}

/// Whether columns of a type name their encoding in the header.
pub(super) fn names_encoding(value_type: ValueType) -> bool {
    matches!(value_type, ValueType::F64 | ValueType::Text)
}

/// Parses and checks the header at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Header<'_>, Corrupt> {
    let mut reader = Reader::new(bytes, "block header");
    let version = reader.byte()?;
    if version != VERSION && version != VERSION_REPEATS {
        return Err(Corrupt::new("block version", 0));
    }
    let flags = reader.byte()?;
    let small = flags & FLAG_SMALL != 0;
    let unit_ns = UNITS_NS[usize::from(flags >> 4)];
    let rows = reader.count(BLOCK_ROWS_MAX)?;
    if rows == 0 {
        return Err(reader.corrupt());
    }
    let first_ns = i64::from_le_bytes(reader.array()?);
    let span = if rows > 1 { reader.varint()? } else { 0 };
    let last_ns = i128::from(first_ns) + i128::from(span) * i128::from(unit_ns);
    let last_ns = i64::try_from(last_ns).map_err(|_| reader.corrupt())?;
    let kind = if flags & FLAG_KIND != 0 {
        Some(reader.byte()?)
    } else {
        None
    };
    // A descriptor has at least two bytes, so these are bounded by the length.
    let presence_count = reader.count(bytes.len())?;
    let column_count = reader.count(bytes.len())?;
    let times = if rows > 1 {
        Some(section(&mut reader, small)?)
    } else {
        None
    };
    let receipts = section(&mut reader, small)?;
    let kinds = if kind.is_none() {
        Some(section(&mut reader, small)?)
    } else {
        None
    };
    let repeats = if version == VERSION_REPEATS {
        Some(repeats(&mut reader, rows, small)?)
    } else {
        None
    };
    let mut header = Header {
        flags,
        rows,
        unit_ns,
        first_ns,
        last_ns,
        kind,
        times,
        receipts,
        kinds,
        repeats,
        presences: Vec::new(),
        columns: Vec::new(),
        byte_len: 0,
    };
    header.read_descriptors(&mut reader, presence_count, column_count)?;
    check_crc(bytes, reader, header)
}

/// Places the sections, then compares the CRC that follows the descriptors.
fn check_crc<'a>(bytes: &'a [u8], mut reader: Reader<'a>, mut header: Header<'a>) -> Result<Header<'a>, Corrupt> {
    let covered = reader.at();
    let crc = u32::from_le_bytes(reader.array()?);
    header.byte_len = header
        .place_sections(reader.at())
        .filter(|&end| end <= bytes.len())
        .ok_or(reader.corrupt())?;
    let mut got = crc32c::crc32c(bytes.get(..covered).unwrap_or_default());
    if header.flags & FLAG_SMALL != 0 {
        got = crc32c::crc32c_append(got, bytes.get(reader.at()..header.byte_len).unwrap_or_default());
    }
    if got != crc {
        return Err(Corrupt::new("block header checksum", covered));
    }
    Ok(header)
}

fn section(reader: &mut Reader<'_>, small: bool) -> Result<Section, Corrupt> {
    let len = reader.count(usize::MAX)?;
    let crc = if small {
        None
    } else {
        Some(u32::from_le_bytes(reader.array()?))
    };
    Ok(Section { at: 0, len, crc })
}

fn repeats(reader: &mut Reader<'_>, most: usize, small: bool) -> Result<RepeatsAt, Corrupt> {
    let rows = reader.count(most)?;
    let sum = reader.varint()?;
    let section = section(reader, small)?;
    Ok(RepeatsAt { rows, sum, section })
}

fn column<'a>(reader: &mut Reader<'a>, header: &Header<'a>, small: bool) -> Result<ColumnAt<'a>, Corrupt> {
    let number = reader.varint()?;
    let number = match header.columns.last() {
        None => Some(number),
        Some(before) => number.checked_add(u64::from(before.property.0) + 1),
    };
    let property = number
        .and_then(|n| u32::try_from(n).ok())
        .map(PropertyNumber)
        .ok_or_else(|| reader.corrupt())?;
    let shape = reader.byte()?;
    let value_type = match shape & 7 {
        1 => ValueType::F64,
        2 => ValueType::I64,
        3 => ValueType::Bool,
        4 => ValueType::Enum,
        5 => ValueType::Text,
        _ => return Err(reader.corrupt()),
    };
    if shape & !SHAPE_KNOWN != 0 {
        return Err(reader.corrupt());
    }
    let presence = if header.presences.is_empty() {
        0
    } else {
        reader.count(header.presences.len())?
    };
    let like = if shape & SHAPE_LIKE != 0 {
        Some(reader.varint()?)
    } else {
        None
    };
    let presence = presence.checked_sub(1);
    let like = like
        .map(|distance| other(header, distance, value_type, presence).ok_or_else(|| reader.corrupt()))
        .transpose()?;
    let encoding = if names_encoding(value_type) { reader.byte()? } else { 0 };
    let section = section(reader, small)?;
    let stats = if shape & SHAPE_STATS != 0 {
        Some(reader.part()?)
    } else {
        None
    };
    let quality = shape & SHAPE_QUALITY != 0;
    Ok(ColumnAt {
        property,
        value_type,
        quality,
        presence,
        like,
        encoding,
        section,
        stats,
    })
}

/// The column that one is like: of the same type and rows, and itself like none.
fn other(header: &Header<'_>, distance: u64, value_type: ValueType, presence: Option<usize>) -> Option<usize> {
    let back = usize::try_from(distance).ok()?.checked_add(1)?;
    let index = header.columns.len().checked_sub(back)?;
    let other = &header.columns[index];
    let numbers = matches!(value_type, ValueType::F64 | ValueType::I64);
    let fits = numbers && other.value_type == value_type && other.presence == presence && other.like.is_none();
    fits.then_some(index)
}

impl<'a> Header<'a> {
    fn read_descriptors(&mut self, reader: &mut Reader<'a>, presences: usize, columns: usize) -> Result<(), Corrupt> {
        let small = self.flags & FLAG_SMALL != 0;
        self.presences.reserve_exact(presences.min(DESCRIPTORS_AT_ONCE));
        self.columns.reserve_exact(columns.min(DESCRIPTORS_AT_ONCE));
        for _ in 0..presences {
            let form = reader.byte()?;
            let set = reader.count(self.rows)?;
            self.presences.push(PresenceAt {
                form,
                set,
                section: section(reader, small)?,
            });
        }
        for _ in 0..columns {
            let column = column(reader, self, small)?;
            self.columns.push(column);
        }
        Ok(())
    }

    /// Gives every section its place, the first one at `at`; returns the end of the last.
    fn place_sections(&mut self, mut at: usize) -> Option<usize> {
        let rows = self.times.iter_mut().chain([&mut self.receipts]).chain(&mut self.kinds);
        let repeats = self.repeats.iter_mut().map(|r| &mut r.section);
        let presences = self.presences.iter_mut().map(|p| &mut p.section);
        let columns = self.columns.iter_mut().map(|c| &mut c.section);
        for section in rows.chain(repeats).chain(presences).chain(columns) {
            section.at = at;
            at = at.checked_add(section.len)?;
        }
        Some(at)
    }
}
