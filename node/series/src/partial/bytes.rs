//! The bytes of an unfinished aggregate, on their way between shards and nodes.
//!
//! ```text
//! partial = version and type u8: high nibble 1, low nibble 1 f64, 2 i64, 3 bool, 4 enum, 5 text
//!         | count (varint)                                         and where it is not 0:
//! f64     | sum | rest | 1 and min | max, or 0 where every value is NaN | first | last
//! i64     | sum, 16 bytes | min | max | first | last
//! bool    | number of true ones (varint) | first | last
//! enum    | min | max | first | last
//! text    | first | last
//! first, last = time, i64 | value; zeros where only extremes were needed
//! ```
//! Numbers are little endian and of full width, but for varints: enums, lengths of texts, bools as u8.
//!
//! Never here: what they mean. Invariant: decoding gives the very partial that was encoded (what was not needed may become
//! zeros), or `Corrupt`.

use super::{BoolPartial, EnumPartial, F64Partial, I64Partial, Partial, TextPartial};
use crate::codec::wire::{Reader, put_part, put_varint};
use crate::corrupt::Corrupt;

const VERSION: u8 = 0x10;

fn timed<T: Default>(out: &mut Vec<u8>, pair: Option<&(i64, T)>, put: impl Fn(&mut Vec<u8>, &T)) {
    match pair {
        Some((time, value)) => {
            out.extend(time.to_le_bytes());
            put(out, value);
        }
        None => {
            out.extend([0; 8]);
            put(out, &T::default());
        }
    }
}

fn put_f64(out: &mut Vec<u8>, value: &f64) {
    out.extend(value.to_bits().to_le_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: &i64) {
    out.extend(value.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: &u32) {
    put_varint(out, u64::from(*value));
}

pub(super) fn encode(partial: &Partial, out: &mut Vec<u8>) {
    let number = match partial {
        Partial::F64(_) => 1,
        Partial::I64(_) => 2,
        Partial::Bool(_) => 3,
        Partial::Enum(_) => 4,
        Partial::Text(_) => 5,
    };
    out.push(VERSION | number);
    put_varint(out, partial.count());
    if partial.count() == 0 {
        return;
    }
    match partial {
        Partial::F64(p) => {
            put_f64(out, &p.sum);
            put_f64(out, &p.sum_rest);
            out.push(p.min.is_some().into());
            p.min.iter().chain(&p.max).for_each(|v| put_f64(out, v));
            timed(out, p.first.as_ref(), put_f64);
            timed(out, p.last.as_ref(), put_f64);
        }
        Partial::I64(p) => {
            out.extend(p.sum.to_le_bytes());
            p.min.iter().chain(&p.max).for_each(|v| put_i64(out, v));
            timed(out, p.first.as_ref(), put_i64);
            timed(out, p.last.as_ref(), put_i64);
        }
        Partial::Bool(p) => {
            put_varint(out, p.trues);
            timed(out, p.first.as_ref(), |out, &v| out.push(v.into()));
            timed(out, p.last.as_ref(), |out, &v| out.push(v.into()));
        }
        Partial::Enum(p) => {
            p.min.iter().chain(&p.max).for_each(|v| put_u32(out, v));
            timed(out, p.first.as_ref(), put_u32);
            timed(out, p.last.as_ref(), put_u32);
        }
        Partial::Text(p) => {
            timed(out, p.first.as_ref(), |out, v| put_part(out, v.as_bytes()));
            timed(out, p.last.as_ref(), |out, v| put_part(out, v.as_bytes()));
        }
    }
}

fn get_i64(reader: &mut Reader<'_>) -> Result<i64, Corrupt> {
    reader.array().map(i64::from_le_bytes)
}

fn get_f64(reader: &mut Reader<'_>) -> Result<f64, Corrupt> {
    reader.array().map(|b| f64::from_bits(u64::from_le_bytes(b)))
}

fn get_u32(reader: &mut Reader<'_>) -> Result<u32, Corrupt> {
    u32::try_from(reader.varint()?).map_err(|_| reader.corrupt())
}

fn get_bool(reader: &mut Reader<'_>) -> Result<bool, Corrupt> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.corrupt()),
    }
}

fn get_text(reader: &mut Reader<'_>) -> Result<String, Corrupt> {
    let part = reader.part()?;
    std::str::from_utf8(part)
        .map(str::to_owned)
        .map_err(|_| reader.corrupt())
}

fn get_timed<'a, T>(
    reader: &mut Reader<'a>,
    get: impl Fn(&mut Reader<'a>) -> Result<T, Corrupt>,
) -> Result<Option<(i64, T)>, Corrupt> {
    Ok(Some((get_i64(reader)?, get(reader)?)))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Partial, Corrupt> {
    let mut reader = Reader::new(bytes, "partial");
    let r = &mut reader;
    let number = r.byte()?;
    let count = r.varint()?;
    let any = count > 0;
    let partial = match number ^ VERSION {
        1 if any => Partial::F64(decode_floats(r, count)?),
        2 if any => {
            let sum = i128::from_le_bytes(r.array()?);
            let (min, max) = (Some(get_i64(r)?), Some(get_i64(r)?));
            Partial::I64(I64Partial {
                count,
                sum,
                min,
                max,
                first: get_timed(r, get_i64)?,
                last: get_timed(r, get_i64)?,
            })
        }
        3 if any => {
            let trues = r.varint()?;
            Partial::Bool(BoolPartial {
                count,
                trues,
                first: get_timed(r, get_bool)?,
                last: get_timed(r, get_bool)?,
            })
        }
        4 if any => {
            let (min, max) = (Some(get_u32(r)?), Some(get_u32(r)?));
            Partial::Enum(EnumPartial {
                count,
                min,
                max,
                first: get_timed(r, get_u32)?,
                last: get_timed(r, get_u32)?,
            })
        }
        5 if any => Partial::Text(TextPartial {
            count,
            first: get_timed(r, get_text)?,
            last: get_timed(r, get_text)?,
        }),
        1 => Partial::F64(F64Partial::default()),
        2 => Partial::I64(I64Partial::default()),
        3 => Partial::Bool(BoolPartial::default()),
        4 => Partial::Enum(EnumPartial::default()),
        5 => Partial::Text(TextPartial::default()),
        _ => return Err(Corrupt::new("partial version", 0)),
    };
    reader.end()?;
    Ok(partial)
}

fn decode_floats(r: &mut Reader<'_>, count: u64) -> Result<F64Partial, Corrupt> {
    let (sum, sum_rest) = (get_f64(r)?, get_f64(r)?);
    let (min, max) = if get_bool(r)? {
        (Some(get_f64(r)?), Some(get_f64(r)?))
    } else {
        (None, None)
    };
    Ok(F64Partial {
        count,
        sum,
        sum_rest,
        min,
        max,
        first: get_timed(r, get_f64)?,
        last: get_timed(r, get_f64)?,
    })
}
