//! The bytes of an unfinished answer about a sequence, on their way between shards and nodes.
//!
//! ```text
//! sequence = 0x20, or 0x21 with rises | steps (varint) | rise, change where steps > 0
//!          | covered (varint) | area where covered > 0
//!          | values (varint) | mean, squares where values > 0
//!          | 0 | number (varint) | values, or 1 | number | place (zigzag), count (varint) each
//!          | bins (varint) | counts (varints)
//!          | states (varint) | code (zigzag), held, entered, points (varints) each
//! rises    = 1 last point + 2 its rise is known + 4 greatest rise is known | time, i64 | rise | greatest, each where it is there
//! ```
//! Doubles are little endian; areas are times seconds.
//!
//! Never here: what they mean. Invariant: decoding gives what was encoded, or `Corrupt`.

use std::collections::BTreeMap;

use super::quantiles::FEW;
use super::{Moments, NS_PER_S, Quantiles, STATES_MAX, Sequence, State};
use crate::codec::wire::{Reader, put_signed, put_varint, put_varint_wide};
use crate::corrupt::Corrupt;
use crate::exact::Exact;

const VERSION: u8 = 0x20;
const WITH_RISES: u8 = 0x21;

fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend(value.to_bits().to_le_bytes());
}

fn get_f64(reader: &mut Reader<'_>) -> Result<f64, Corrupt> {
    reader.array().map(|bits| f64::from_bits(u64::from_le_bytes(bits)))
}

pub(super) fn encode(sequence: &Sequence, out: &mut Vec<u8>) {
    let rises = sequence.last_rise.is_some() || sequence.most_rise.is_some();
    out.push(if rises { WITH_RISES } else { VERSION });
    put_varint(out, sequence.steps);
    if sequence.steps > 0 {
        put_f64(out, sequence.rise.value());
        put_f64(out, sequence.change.value());
    }
    put_varint_wide(out, sequence.covered_ns);
    if sequence.covered_ns > 0 {
        put_f64(out, sequence.area.value() / NS_PER_S);
    }
    put_varint(out, sequence.moments.count);
    if sequence.moments.count > 0 {
        put_f64(out, sequence.moments.mean);
        put_f64(out, sequence.moments.squares);
    }
    match &sequence.quantiles {
        Quantiles::Few(few) => {
            out.push(0);
            put_varint(out, few.len() as u64);
            few.iter().for_each(|value| put_f64(out, *value));
        }
        Quantiles::Many(counts) => {
            out.push(1);
            put_varint(out, counts.len() as u64);
            for (place, count) in counts {
                put_signed(out, i64::from(*place));
                put_varint(out, *count);
            }
        }
    }
    put_varint(out, sequence.bins.len() as u64);
    sequence.bins.iter().for_each(|count| put_varint(out, *count));
    put_varint(out, sequence.states.len() as u64);
    for (code, state) in &sequence.states {
        put_signed(out, *code);
        put_varint_wide(out, state.held_ns);
        put_varint(out, state.entered);
        put_varint(out, state.points);
    }
    if rises {
        put_rises(out, sequence);
    }
}

fn put_rises(out: &mut Vec<u8>, sequence: &Sequence) {
    let rise = sequence.last_rise.and_then(|(_, rise)| rise);
    let there = [
        sequence.last_rise.is_some(),
        rise.is_some(),
        sequence.most_rise.is_some(),
    ];
    out.push((0..3).map(|bit| u8::from(there[bit]) << bit).sum());
    if let Some((t_ns, _)) = sequence.last_rise {
        out.extend(t_ns.to_le_bytes());
    }
    rise.iter()
        .chain(&sequence.most_rise)
        .for_each(|value| put_f64(out, *value));
}

fn get_rises(r: &mut Reader<'_>, sequence: &mut Sequence) -> Result<(), Corrupt> {
    let there = r.byte()?;
    let is = |bit: u8| there >> bit & 1 == 1;
    if there > 7 || (is(1) && !is(0)) {
        return Err(r.corrupt());
    }
    if is(0) {
        let t_ns = r.array().map(i64::from_le_bytes)?;
        let rise = if is(1) { Some(get_f64(r)?) } else { None };
        sequence.last_rise = Some((t_ns, rise));
    }
    if is(2) {
        sequence.most_rise = Some(get_f64(r)?);
    }
    Ok(())
}

pub(super) fn decode(bytes: &[u8]) -> Result<Sequence, Corrupt> {
    let mut reader = Reader::new(bytes, "sequence");
    let r = &mut reader;
    let version = r.byte()?;
    if version != VERSION && version != WITH_RISES {
        return Err(Corrupt::new("sequence version", 0));
    }
    let mut sequence = Sequence {
        steps: r.varint()?,
        ..Sequence::default()
    };
    if sequence.steps > 0 {
        (sequence.rise, sequence.change) = (Exact::of(get_f64(r)?), Exact::of(get_f64(r)?));
    }
    sequence.covered_ns = r.varint_wide()?;
    if sequence.covered_ns > 0 {
        sequence.area = Exact::product(get_f64(r)?, NS_PER_S);
    }
    let count = r.varint()?;
    if count > 0 {
        let (mean, squares) = (get_f64(r)?, get_f64(r)?);
        sequence.moments = Moments { count, mean, squares };
    }
    sequence.quantiles = quantiles(r)?;
    let bins = r.count(bytes.len())?;
    for _ in 0..bins {
        sequence.bins.push(r.varint()?);
    }
    // One more than is kept apart says that there were more.
    let states = r.count(STATES_MAX.saturating_mul(64))?;
    for _ in 0..states {
        let code = r.signed()?;
        let state = State {
            held_ns: r.varint_wide()?,
            entered: r.varint()?,
            points: r.varint()?,
        };
        sequence.states.insert(code, state);
    }
    if version == WITH_RISES {
        get_rises(r, &mut sequence)?;
    }
    reader.end()?;
    Ok(sequence)
}

fn quantiles(r: &mut Reader<'_>) -> Result<Quantiles, Corrupt> {
    match r.byte()? {
        0 => {
            let number = r.count(FEW)?;
            let values: Result<_, _> = (0..number).map(|_| get_f64(r)).collect();
            values.map(Quantiles::Few)
        }
        1 => {
            // Every place takes two bytes at least, so damage ends this early.
            let number = r.varint()?;
            let mut counts = BTreeMap::new();
            for _ in 0..number {
                let place = i32::try_from(r.signed()?).map_err(|_| r.corrupt())?;
                counts.insert(place, r.varint()?);
            }
            Ok(Quantiles::Many(counts))
        }
        _ => Err(r.corrupt()),
    }
}
