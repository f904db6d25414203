//! The generator: what a property of a device shows in a slot. Never here: what is stored or asked. Invariant: a function
//! of device, property and slot alone, so that any answer can be made again; a value is the float nearest to its decimal.

use super::fleet::{Device, Property, ValueType};

/// Slots over which slow noise goes from one level to the next.
const KNOT_SLOTS: i64 = 12;
const DAY_S: i64 = 86_400;
/// Most steps of the resolution that a day, or slow noise, moves a value.
const WAVE_STEPS: i64 = 300;
const SLOW_STEPS: i64 = 60;

/// The value of a property of a device in a slot. Truth is 0 or 1, a label its position.
pub(crate) fn value(device: &Device, property: &Property, slot: i64, interval_s: i64) -> f64 {
    let seed = mix(device.seed ^ property.seed);
    match property.kind.as_str() {
        "counter" => counter(property, seed, slot),
        "increment" => increment(property, seed, slot),
        "state" => state(property, seed, slot),
        "event" => f64::from(u8::from(at(seed, slot) & 63 == 0)),
        _ => level(property, seed, slot, interval_s),
    }
}

/// A level: its own middle, a wave a day, slow noise and a little fast noise.
fn level(property: &Property, seed: u64, slot: i64, interval_s: i64) -> f64 {
    let (low, high) = property.usual;
    let (low, high) = (steps(low, property.step), steps(high, property.step));
    let span = (high - low).max(1);
    let (middle, fast) = (low + span / 4 + pick(seed, span / 2 + 1), property.seed >> 9 & 3);
    let slow = (span / 20).min(SLOW_STEPS);
    let wave = if property.diag { 0 } else { (span / 10).min(WAVE_STEPS) };
    let phase = ((slot * interval_s).rem_euclid(DAY_S) + pick(seed >> 8, DAY_S)) % DAY_S;
    let day = wave * ((2 * phase - DAY_S).abs() - DAY_S / 2) / (DAY_S / 2);
    let fast = (at(seed ^ 1, slot) % (fast + 1)) as i64;
    let steps = middle + day + slow_noise(seed, slot, slow) + fast;
    let (min, max) = (property.min.unwrap_or(f64::MIN), property.max.unwrap_or(f64::MAX));
    decimal(steps, property.step).clamp(min, max)
}

/// Between two levels, each up to `most` steps away.
fn slow_noise(seed: u64, slot: i64, most: i64) -> i64 {
    let (knot, within) = (slot.div_euclid(KNOT_SLOTS), slot.rem_euclid(KNOT_SLOTS));
    let level = |knot| pick(at(seed ^ 2, knot), 2 * most + 1) - most;
    level(knot) + (level(knot + 1) - level(knot)) * within / KNOT_SLOTS
}

/// A running total: a rate of its own, and less than that up or down.
fn counter(property: &Property, seed: u64, slot: i64) -> f64 {
    let rate = 1 + pick(seed, 40);
    // Late enough that no slot before time 0 is negative.
    let total = (1_000_000 + slot) * rate + pick(at(seed, slot), rate);
    let wrap = property.wrap.map_or(i64::MAX, |wrap| steps(wrap, property.step));
    decimal(total.rem_euclid(wrap.max(1)), property.step)
}

/// Nothing most of the time.
fn increment(property: &Property, seed: u64, slot: i64) -> f64 {
    let wet = at(seed, slot.div_euclid(KNOT_SLOTS)) & 15 == 0;
    let amount = if wet { pick(at(seed ^ 3, slot), 12) } else { 0 };
    decimal(amount, property.step)
}

/// Holds for a while; the first state more often than all others.
fn state(property: &Property, seed: u64, slot: i64) -> f64 {
    let states = match property.value_type {
        ValueType::Bool => 2,
        ValueType::Enum => property.labels.len() as i64,
        _ => steps(property.max.unwrap_or(1.0), property.step) - steps(property.min.unwrap_or(0.0), property.step) + 1,
    };
    let hold = at(seed, slot.div_euclid(3 * KNOT_SLOTS));
    let state = if hold & 3 == 0 {
        pick(hold >> 2, states.max(1))
    } else {
        0
    };
    let low = steps(property.min.unwrap_or(0.0), property.step);
    decimal(low + state, property.step)
}

fn steps(value: f64, step: f64) -> i64 {
    (value / step).round() as i64
}

/// The float nearest to so many steps.
fn decimal(steps: i64, step: f64) -> f64 {
    if step < 1.0 {
        steps as f64 / (1.0 / step).round()
    } else {
        steps as f64 * step
    }
}

/// One of `0..below`.
fn pick(bits: u64, below: i64) -> i64 {
    ((bits >> 16) % below.unsigned_abs().max(1)) as i64
}

fn at(seed: u64, slot: i64) -> u64 {
    mix(seed ^ (slot as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
}

fn mix(key: u64) -> u64 {
    let z = (key ^ (key >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fleet::{Fleet, FleetSpec};
    use super::*;

    #[test]
    fn values_stay_in_the_range_of_their_sensor_and_on_its_steps() {
        let spec = FleetSpec {
            every: 50,
            ..FleetSpec::default()
        };
        for one in &Fleet::new(&spec).unwrap().types {
            let device = &one.devices[0];
            for property in &one.properties {
                for slot in -50..500 {
                    let v = value(device, property, slot, one.interval_s);
                    let low = property.min.unwrap_or(0.0);
                    let high = property.max.unwrap_or((property.labels.len().max(2) - 1) as f64);
                    assert!((low..=high).contains(&v), "{}.{}: {v}", one.id, property.id);
                    let n = v / property.step;
                    assert!((n - n.round()).abs() < 1e-3, "{}.{}: {v}", one.id, property.id);
                }
            }
        }
    }

    #[test]
    fn counters_only_grow_and_levels_move_a_little() {
        let fleet = Fleet::new(&FleetSpec::default()).unwrap();
        let one = &fleet.types[fleet.type_at("vehicle_tracker").unwrap()];
        let at = |id: &str| one.properties.iter().find(|p| p.id == id).unwrap();
        let (mileage, speed) = (at("mileage_total"), at("speed"));
        for slot in 0..1_000 {
            let pair = |property| {
                let v = |slot| value(&one.devices[3], property, slot, one.interval_s);
                (v(slot), v(slot + 1))
            };
            let (a, b) = pair(mileage);
            assert!(b >= a);
            let (a, b) = pair(speed);
            assert!((a - b).abs() < 3.0, "{a} {b}");
        }
    }

    #[test]
    fn a_value_is_the_float_nearest_to_its_decimal() {
        for (n, step, text) in [
            (123, 0.1, "12.3"),
            (-5, 0.001, "-0.005"),
            (3, 0.5, "1.5"),
            (30_700_001, 1e-6, "30.700001"),
            (7, 1.0, "7"),
        ] {
            assert_eq!(decimal(n, step).to_string(), text);
        }
    }
}
