//! Every decoder by itself: bytes in, and nothing but an answer or `Corrupt` may come out. For fuzzing and the tests
//! that stand in for it; the checksums of a block would keep nearly every damaged byte away from them.
//!
//! Never here: logic. Invariant: one function for each kind of bytes this crate reads, all of one shape; the writers
//! at the end give them bytes to damage.

use crate::block::{Block, Projection};
use crate::bucket;
use crate::codec::emit::Whole;
use crate::codec::part::Part;
use crate::codec::{floats, ints, presence, text};
use crate::corrupt::Corrupt;
use crate::latest;
use crate::partial::Partial;
use crate::record::{PropertyNumber, ValueType, Values};
use crate::rollup::{Follows, Rollup, Wanted};
use crate::sequence::{Sequence, SequenceFunction};

/// A decoder by itself: the number of values to expect (at most a block's rows), then the bytes.
pub type Decoder = fn(usize, &[u8]) -> Result<(), Corrupt>;

/// All of them, by name.
pub const ALL: [(&str, Decoder); 14] = [
    ("ints", read_ints),
    ("floats", read_floats),
    ("text", read_text),
    ("presence", read_presence),
    ("stats", read_stats),
    ("clocks", read_clocks),
    ("repeats", read_repeats),
    ("like", read_like),
    ("block", read_block),
    ("bucket", read_bucket),
    ("latest", read_latest),
    ("partial", read_partial),
    ("sequence", read_sequence),
    ("rollup", read_rollup),
];

/// All types of values.
const TYPES: [ValueType; 5] = [
    ValueType::F64,
    ValueType::I64,
    ValueType::Bool,
    ValueType::Enum,
    ValueType::Text,
];

fn front(bytes: &[u8]) -> Result<(u8, &[u8]), Corrupt> {
    bytes
        .split_first()
        .map(|(first, rest)| (*first, rest))
        .ok_or_else(|| Corrupt::new("input", 0))
}

/// A stream of integers.
///
/// # Errors
/// The bytes are not such a stream.
pub fn read_ints(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let part = Part::of(count / 3..count - count / 5, count);
    let some = ints::decode_part(bytes, part, Whole::PLAIN);
    let values = ints::decode(bytes, count)?;
    debug_assert_eq!(values.len(), count);
    debug_assert_eq!(some.as_deref(), Ok(&values[part.from..part.to]));
    Ok(())
}

/// A form byte and a column of doubles.
///
/// # Errors
/// The bytes are not such a column.
pub fn read_floats(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let (form, rest) = front(bytes)?;
    let values = floats::decode(form, rest, Part::all(count))?;
    debug_assert_eq!(values.len(), count);
    Ok(())
}

/// A form byte and a column of texts.
///
/// # Errors
/// The bytes are not such a column.
pub fn read_text(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let (form, rest) = front(bytes)?;
    let values = text::decode(form, rest, count)?;
    debug_assert_eq!(values.len(), count);
    Ok(())
}

/// A form byte and a presence, of which half the rows are set.
///
/// # Errors
/// The bytes are not such a presence.
pub fn read_presence(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let (form, rest) = front(bytes)?;
    presence::decode(form, rest, count, count / 2).map(drop)
}

/// A type number, a form byte and statistics.
///
/// # Errors
/// The bytes are not statistics.
pub fn read_stats(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let (number, rest) = front(bytes)?;
    let (form, rest) = front(rest)?;
    crate::block::read_stats(rest, TYPES[usize::from(number) % TYPES.len()], form, count as u64).map(drop)
}

/// Times that several clocks tell, and which rows each has.
///
/// # Errors
/// The bytes are not such times.
pub fn read_clocks(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    crate::block::read_clocks(bytes, count)
}

/// How often rows were sent again.
///
/// # Errors
/// The bytes are not such counts.
pub fn read_repeats(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    crate::block::read_repeats(bytes, count)
}

/// A form byte and a column that is like another one.
///
/// # Errors
/// The bytes are not such a column.
pub fn read_like(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let (form, rest) = front(bytes)?;
    let doubles = (0..count).map(|i| [0.1, f64::NAN, -1e300, 7.0][i % 4]).collect();
    let integers = (0..count as i64).map(|i| i64::MAX - i).collect();
    let part = Part::all(count);
    let doubles = crate::block::read_like(&Values::F64(doubles), form, rest, part);
    let integers = crate::block::read_like(&Values::I64(integers), form, rest, part);
    doubles.and(integers).map(drop)
}

/// Blocks, every section of them.
///
/// # Errors
/// The bytes are no blocks.
pub fn read_block(_count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let (block, _) = Block::parse(bytes)?;
    for property in block.properties() {
        let _ = block.stats(property);
        let _ = block.column(property)?;
    }
    let middle = block.first_ns().midpoint(block.last_ns());
    let _ = block.decode_between(Projection::ALL, (middle, block.last_ns()))?;
    block.decode(None).map(drop)
}

/// A bucket, as existing value and as operand.
///
/// # Errors
/// The bytes are no bucket.
pub fn read_bucket(_count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let merged = bucket::merge(Some(bytes), [bytes].into_iter())?;
    bucket::decode(&merged, None).map(drop)
}

/// The newest values of a device, as existing value and as operand.
///
/// # Errors
/// The bytes are no such value.
pub fn read_latest(_count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    latest::merge_latest(Some(bytes), [bytes].into_iter()).map(drop)
}

/// An unfinished aggregate.
///
/// # Errors
/// The bytes are no such aggregate.
pub fn read_partial(_count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let mut partial = Partial::decode(bytes)?;
    let copy = partial.clone();
    partial.merge(&copy);
    Ok(())
}

/// An unfinished answer about a sequence.
///
/// # Errors
/// The bytes are no such answer.
pub fn read_sequence(_count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let mut sequence = Sequence::decode(bytes)?;
    let copy = sequence.clone();
    sequence.merge(&copy);
    for function in [
        SequenceFunction::Increase,
        SequenceFunction::TimeWeightedAvg,
        SequenceFunction::Stddev,
        SequenceFunction::Quantile(500_000),
        SequenceFunction::Mode,
        SequenceFunction::Duration(1),
        SequenceFunction::Transitions,
        SequenceFunction::Bin(0),
    ] {
        // More states than are told apart are no damage.
        let _ = sequence.finish(function, 1);
    }
    Ok(())
}

/// A rollup: windows and loose points of a property of each type, from number 1 on, followed in every way. Windows are as many seconds
/// long as values are expected.
///
/// # Errors
/// The bytes are no rollup of such properties.
pub fn read_rollup(count: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    const S: i64 = 1_000_000_000;
    let rollup = Rollup::open(bytes, count as i64 * S)?;
    rollup.windows()?;
    for (property, value_type) in (1..).map(PropertyNumber).zip(TYPES) {
        for follows in [
            None,
            Some(Follows::Counter(Some(100.0))),
            Some(Follows::Linear(S)),
            Some(Follows::Held(S)),
            Some(Follows::State(S)),
        ] {
            rollup.rows(&Wanted {
                property,
                value_type,
                follows,
            })?;
        }
        rollup.loose(property)?;
    }
    Ok(())
}

/// What [`read_ints`] reads.
pub fn write_ints(values: &[i64]) -> Vec<u8> {
    ints::encode(values)
}

/// What [`read_floats`] reads.
pub fn write_floats(values: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (form, _) = floats::put(values, &mut bytes);
    [&[form], bytes.as_slice()].concat()
}

/// What [`read_text`] reads.
pub fn write_text(values: &[String]) -> Vec<u8> {
    let (form, bytes) = text::encode(values);
    [&[form], bytes.as_slice()].concat()
}
