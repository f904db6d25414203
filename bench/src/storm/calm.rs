//! What a property shows when the storm does not touch it: near the middle of its range, varying a little. Driven by the
//! type definition alone. Invariant: a number lies within min and max, on a step; the same device, property and time
//! give the same value.

use std::f64::consts::TAU;

use tidemark_client::v1::{Kind, Property, ValueType};

use super::chance;
use super::steps;

/// Share of the range by which a value swings.
const SWING: f64 = 0.02;
/// Nanoseconds in a second and in an hour.
const SECOND_NS: i64 = 1_000_000_000;
const HOUR_NS: i64 = 3_600 * SECOND_NS;
/// A counter runs through its whole range in this time, seconds (ten years).
const COUNTER_TURN_S: f64 = 315_576_000.0;

/// One value on its way into a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    F64(f64),
    I64(i64),
    Bool(bool),
    /// Position in the label list of the property.
    Label(u32),
    Text(String),
}

/// The value at a time; none where nothing happened (an event that carries a text).
pub(crate) fn value(p: &Property, seed: u64, device: u64, at_ns: i64) -> Option<Value> {
    let own = [seed, device, chance::key(&p.id)];
    let hour = at_ns.div_euclid(HOUR_NS) as u64;
    let by_hour = chance::hash(&[own[0], own[1], own[2], hour]);
    Some(match p.value_type() {
        ValueType::Bool => Value::Bool(by_hour.is_multiple_of(400)),
        ValueType::Enum => Value::Label(label(p.labels.len(), by_hour)),
        ValueType::Text if by_hour.is_multiple_of(400) => Value::Text(format!("E{:02}", by_hour / 400 % 100)),
        ValueType::Text | ValueType::Unspecified => return None,
        ValueType::F64 => Value::F64(number(p, own, at_ns)),
        ValueType::I64 => Value::I64(number(p, own, at_ns) as i64),
    })
}

/// The first label nearly always, another one now and then.
fn label(labels: usize, chance: u64) -> u32 {
    if labels < 2 || !chance.is_multiple_of(50) {
        0
    } else {
        (1 + chance / 50 % (labels as u64 - 1)) as u32
    }
}

fn number(p: &Property, own: [u64; 3], at_ns: i64) -> f64 {
    let (min, max) = (p.min.unwrap_or(0.0), p.max.or(p.wrap).unwrap_or(100.0));
    let step = p.step.or((p.value_type() == ValueType::I64).then_some(1.0));
    match p.kind() {
        Kind::Counter => {
            let turn = p.wrap.unwrap_or(max - min);
            let seconds = at_ns as f64 / SECOND_NS as f64;
            let shown = (chance::unit(&own) + seconds / COUNTER_TURN_S).fract() * turn;
            steps::floor(shown, step).min(max)
        }
        Kind::Increment => {
            let share = chance::unit(&[own[0], own[1], own[2], at_ns as u64]) * 0.001;
            steps::floor(min + share * (max - min), step).clamp(min, max)
        }
        Kind::State => {
            let hour = at_ns.div_euclid(HOUR_NS) as u64;
            let swing = chance::unit(&[own[0], own[1], own[2], hour]) * 2.0 - 1.0;
            middle(p, min, max, step, swing)
        }
        Kind::Gauge | Kind::Mean | Kind::Event | Kind::Unspecified => {
            let phase = chance::unit(&own);
            let turns = at_ns as f64 / HOUR_NS as f64 / (2.0 + 4.0 * phase) + phase;
            let noise = chance::unit(&[own[0], own[1], own[2], at_ns as u64]) * 2.0 - 1.0;
            middle(p, min, max, step, 0.8 * (turns.fract() * TAU).sin() + 0.2 * noise)
        }
    }
}

/// `swing` in [-1, 1] about the middle of the plausible range.
fn middle(p: &Property, min: f64, max: f64, step: Option<f64>, swing: f64) -> f64 {
    let (low, high) = (p.typical_min.unwrap_or(min), p.typical_max.unwrap_or(max));
    steps::round((low + high) / 2.0 + swing * SWING * (high - low), step).clamp(min, max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fixture;
    use super::*;

    const NOON_NS: i64 = 1_718_884_800 * SECOND_NS;

    #[test]
    fn every_property_of_the_catalogue_stays_in_range_on_step() {
        let types = fixture::types();
        let (seed, mut numbers) = (1, 0);
        for p in types.iter().flat_map(|t| &t.properties) {
            for i in 0..500_i64 {
                let x = match value(p, seed, i as u64 % 7, NOON_NS + i * 97 * SECOND_NS) {
                    Some(Value::F64(x)) => x,
                    Some(Value::I64(x)) => x as f64,
                    Some(Value::Label(label)) => {
                        assert!((label as usize) < p.labels.len());
                        continue;
                    }
                    Some(Value::Text(text)) => {
                        assert!(text.len() as u32 <= p.max_len || p.max_len == 0);
                        continue;
                    }
                    _ => continue,
                };
                assert!(
                    p.min.is_none_or(|min| x >= min) && p.max.is_none_or(|max| x <= max),
                    "{}: {x}",
                    p.id
                );
                assert_eq!(steps::round(x, p.step).to_bits(), x.to_bits(), "{}: {x}", p.id);
                numbers += 1;
            }
        }
        assert!(numbers > 40_000, "{numbers}");
    }

    #[test]
    fn a_counter_never_falls_within_hours() {
        let types = fixture::types();
        for p in types
            .iter()
            .flat_map(|t| &t.properties)
            .filter(|p| p.kind() == Kind::Counter)
        {
            let shown: Vec<f64> = (0..24).map(|h| number(p, [1, 2, 3], NOON_NS + h * HOUR_NS)).collect();
            assert!(shown.is_sorted(), "{}: {shown:?}", p.id);
        }
    }

    #[test]
    fn the_same_question_gets_the_same_answer() {
        let types = fixture::types();
        let p = &types[0].properties[2];
        assert_eq!(value(p, 1, 2, NOON_NS), value(p, 1, 2, NOON_NS));
        assert_ne!(value(p, 1, 2, NOON_NS), value(p, 1, 3, NOON_NS));
    }
}
