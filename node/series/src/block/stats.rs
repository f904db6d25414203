//! Statistics of a column in the header of its block: an aggregate over the whole block needs nothing else.
//!
//! ```text
//! statistics = times (only for columns with a presence): first value's time less the block's first, block's last
//!              less the last value's time (varints, in units) | body
//! f64   body = 1: integers over 10^e (e from the encoding): as i64 | 2: min max first last sum rest, 8 bytes each;
//!              min and max are NaN where every value is
//! i64   body = min (zigzag varint) | max - min | first - min | last - min (varints) | sum of value - min (wide varint)
//! bool  body = number of true ones * 4 + first * 2 + last (varint)
//! enum  body = min | max - min | first - min | last - min (varints)
//! text  body = first, last, each with its length
//! ```
//!
//! Never here: the decision of a reader to use them. Invariant: they equal a fold over the decoded values (sums of
//! doubles to the last bits, all else exactly).

use crate::codec::decimal::from_int;
use crate::codec::floats::exponent_of;
use crate::codec::wire::{Reader, put_part, put_signed, put_varint, put_varint_wide};
use crate::corrupt::Corrupt;
use crate::partial::{BoolPartial, EnumPartial, F64Partial, I64Partial, Partial, TextPartial};
use crate::record::{ValueType, Values};

/// Blocks of fewer rows carry no statistics: to fold so few values costs hardly more than to read what they would say, and
/// most of these blocks are fragments that a merge will rewrite.
pub(super) const ROWS_MIN: usize = 256;
/// Doubles that are no decimals need 49 bytes, worth it only from here on.
const PLAIN_VALUES_MIN: usize = 64;
/// Longer texts are not repeated in the header.
const TEXT_BYTES_MAX: usize = 64;

const INTEGERS: u8 = 1;
const PLAIN: u8 = 2;

/// Statistics of one column, kept in the header of its block.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnStats {
    /// What folding every value of the column gives.
    pub partial: Partial,
}

impl ColumnStats {
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.partial.count()
    }

    /// The smallest and the largest number, of columns of numbers.
    pub(crate) fn ends(&self) -> Option<(f64, f64)> {
        match &self.partial {
            Partial::F64(p) => p.min.zip(p.max),
            Partial::I64(p) => p.min.zip(p.max).map(|(min, max)| (min as f64, max as f64)),
            Partial::Bool(_) | Partial::Enum(_) | Partial::Text(_) => None,
        }
    }

    /// The same where every value lies between them: none is no number.
    pub(crate) fn ends_of_all(&self) -> Option<(f64, f64)> {
        match &self.partial {
            Partial::F64(p) if p.sum.is_nan() => None,
            _ => self.ends(),
        }
    }
}

/// What the header knows without the statistics: number of values and the times of the first and the last one.
#[derive(Copy, Clone, Debug)]
pub(super) struct Span {
    pub(super) count: u64,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
}

/// The body of the statistics of at least one value; `None` where they would cost more than they are worth.
pub(super) fn encode(values: &Values, integers: Option<&Vec<i64>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match values {
        Values::F64(_) if integers.is_some() => {
            out.push(INTEGERS);
            put_ints(&mut out, integers?)?;
        }
        Values::F64(values) => {
            if values.len() < PLAIN_VALUES_MIN {
                return None;
            }
            let mut all = F64Partial::default();
            values.iter().for_each(|&v| all.fold(0, v));
            let (min, max) = (all.min.unwrap_or(f64::NAN), all.max.unwrap_or(f64::NAN));
            out.push(PLAIN);
            for part in [min, max, *values.first()?, *values.last()?, all.sum, all.sum_rest] {
                out.extend(part.to_bits().to_le_bytes());
            }
        }
        Values::I64(values) => put_ints(&mut out, values)?,
        Values::Bool(values) => {
            let trues = values.iter().filter(|&&v| v).count() as u64;
            put_varint(
                &mut out,
                trues << 2 | u64::from(*values.first()?) << 1 | u64::from(*values.last()?),
            );
        }
        Values::Enum(values) => {
            let min = *values.iter().min()?;
            put_varint(&mut out, min.into());
            for value in [values.iter().max()?, values.first()?, values.last()?] {
                put_varint(&mut out, u64::from(value - min));
            }
        }
        Values::Text(values) => {
            for text in [values.first()?, values.last()?] {
                if text.len() > TEXT_BYTES_MAX {
                    return None;
                }
                put_part(&mut out, text.as_bytes());
            }
        }
    }
    Some(out)
}

fn put_ints(out: &mut Vec<u8>, values: &[i64]) -> Option<()> {
    let min = *values.iter().min()?;
    put_signed(out, min);
    for value in [values.iter().max()?, values.first()?, values.last()?] {
        put_varint(out, value.wrapping_sub(min) as u64);
    }
    put_varint_wide(out, values.iter().map(|v| u128::from(v.wrapping_sub(min) as u64)).sum());
    Some(())
}

/// Reads the body of the statistics of a column of `value_type` in `encoding`.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    value_type: ValueType,
    encoding: u8,
    span: Span,
) -> Result<ColumnStats, Corrupt> {
    let Span {
        count,
        first_ns,
        last_ns,
    } = span;
    let partial = match value_type {
        ValueType::F64 => Partial::F64(decode_floats(reader, encoding, span)?),
        ValueType::I64 => Partial::I64(get_ints(reader, span)?),
        ValueType::Bool => {
            let word = reader.varint()?;
            let (first, last) = (Some((first_ns, word & 2 != 0)), Some((last_ns, word & 1 != 0)));
            Partial::Bool(BoolPartial {
                count,
                trues: (word >> 2).min(count),
                first,
                last,
            })
        }
        ValueType::Enum => {
            let mut parts = [0u32; 4];
            for part in &mut parts {
                *part = u32::try_from(reader.varint()?).map_err(|_| reader.corrupt())?;
            }
            let at = |above: u32| parts[0].checked_add(above).ok_or_else(|| reader.corrupt());
            let (first, last) = (Some((first_ns, at(parts[2])?)), Some((last_ns, at(parts[3])?)));
            Partial::Enum(EnumPartial {
                count,
                min: Some(parts[0]),
                max: Some(at(parts[1])?),
                first,
                last,
            })
        }
        ValueType::Text => {
            let (first, last) = (get_text(reader)?, get_text(reader)?);
            Partial::Text(TextPartial {
                count,
                first: Some((first_ns, first)),
                last: Some((last_ns, last)),
            })
        }
    };
    Ok(ColumnStats { partial })
}

/// The statistics of `count` values from nothing but their bytes.
pub(crate) fn read_stats(bytes: &[u8], of: ValueType, encoding: u8, count: u64) -> Result<ColumnStats, Corrupt> {
    let mut reader = Reader::new(bytes, "statistics");
    let stats = decode(
        &mut reader,
        of,
        encoding,
        Span {
            count,
            first_ns: 0,
            last_ns: 0,
        },
    )?;
    reader.end().map(|()| stats)
}

fn get_text(reader: &mut Reader<'_>) -> Result<String, Corrupt> {
    let part = reader.part()?;
    std::str::from_utf8(part)
        .map(str::to_owned)
        .map_err(|_| reader.corrupt())
}

fn get_ints(reader: &mut Reader<'_>, span: Span) -> Result<I64Partial, Corrupt> {
    let min = reader.signed()?;
    let mut parts = [0i64; 3];
    for part in &mut parts {
        *part = min.wrapping_add(reader.varint()? as i64);
    }
    let above = i128::try_from(reader.varint_wide()?).map_err(|_| reader.corrupt())?;
    Ok(I64Partial {
        count: span.count,
        sum: (i128::from(min) * i128::from(span.count)).saturating_add(above),
        min: Some(min),
        max: Some(parts[0]),
        first: Some((span.first_ns, parts[1])),
        last: Some((span.last_ns, parts[2])),
    })
}

fn decode_floats(reader: &mut Reader<'_>, encoding: u8, span: Span) -> Result<F64Partial, Corrupt> {
    let Span {
        count,
        first_ns,
        last_ns,
    } = span;
    match (reader.byte()?, exponent_of(encoding)) {
        (INTEGERS, Some(exponent)) => {
            let ints = get_ints(reader, span)?;
            let value = |i: i64| from_int(i, exponent);
            Ok(F64Partial {
                count,
                sum: ints.sum as f64 / crate::codec::decimal::power(exponent),
                sum_rest: 0.0,
                min: ints.min.map(value),
                max: ints.max.map(value),
                first: ints.first.map(|(t, i)| (t, value(i))),
                last: ints.last.map(|(t, i)| (t, value(i))),
            })
        }
        (PLAIN, _) => {
            let mut parts = [0.0; 6];
            for part in &mut parts {
                *part = f64::from_bits(u64::from_le_bytes(reader.array()?));
            }
            let [min, max, first, last, sum, sum_rest] = parts;
            let some = |v: f64| Some(v).filter(|v| !v.is_nan());
            let (first, last) = (Some((first_ns, first)), Some((last_ns, last)));
            Ok(F64Partial {
                count,
                sum,
                sum_rest,
                min: some(min),
                max: some(max),
                first,
                last,
            })
        }
        _ => Err(reader.corrupt()),
    }
}
