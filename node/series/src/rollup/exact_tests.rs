//! Whole numbers that no double holds, in rollups of a property with a spike check: settled ones in their windows, and loose ones.
//! Never here: which points settle (see `checks/tests`). Invariant: entries of the log from before still give the bytes that they gave.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::checks::{Checks, Choice};
use crate::partial::I64Partial;
use crate::record::Values;

const LENGTH: i64 = 100;
const PROPERTY: PropertyNumber = PropertyNumber(1);
/// Above it no double holds an odd number: the nearest ones are as far on either side.
const BASE: i64 = 1 << 53;
/// A spike, and at the end a step that only the next bucket can tell of.
const VALUES: [i64; 5] = [BASE + 1, BASE + 3, 7, BASE + 5, BASE + 101];

/// What the window of a rollup holds, and its loose points.
fn kept(format: Format) -> (I64Partial, Vec<i64>) {
    let times: Vec<i64> = (0..).step_by(10).take(VALUES.len()).collect();
    let records = Records {
        received_at: times.clone(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
        observed_at: times,
        columns: vec![Column {
            property: PROPERTY,
            presence: None,
            values: Values::I64(VALUES.to_vec()),
            quality: None,
        }],
    };
    let checks = Checks {
        spike: Some(50.0),
        ..Checks::default()
    };
    let rolled = [Rolled {
        property: PROPERTY,
        edge: Edge::StartClosed,
        choice: Choice {
            checks: &checks,
            ..Choice::ALL
        },
        follows: Some(Follows::Linear(LENGTH)),
    }];
    let value = bucket::encode(&records);
    let rollup = roll_up(&value, format, (1, LENGTH), &rolled).unwrap().unwrap();
    let rollup = Rollup::open(&rollup, LENGTH).unwrap();
    let wanted = Wanted {
        property: PROPERTY,
        value_type: ValueType::I64,
        follows: Some(Follows::Linear(LENGTH)),
    };
    let mut rows = rollup.rows(&wanted).unwrap();
    assert_eq!((rows.len(), rows[0].dropped), (1, 1));
    let Some(Partial::I64(partial)) = rows.remove(0).points else {
        unreachable!("whole numbers");
    };
    match &rollup.loose(PROPERTY).unwrap().columns[0].values {
        Values::I64(loose) => (partial, loose.clone()),
        _ => unreachable!("whole numbers"),
    }
}

#[test]
fn whole_numbers_are_kept_as_they_are_stored() {
    let (partial, loose) = kept(Format::WithSlots(10));
    let expected = I64Partial {
        count: 3,
        sum: 3 * i128::from(BASE) + 9,
        min: Some(BASE + 1),
        max: Some(BASE + 5),
        first: Some((0, BASE + 1)),
        last: Some((30, BASE + 5)),
    };
    assert_eq!((partial, loose), (expected, vec![BASE + 101]));
}

#[test]
fn in_the_version_before_they_are_the_nearest_doubles() {
    let (partial, loose) = kept(Format::WithSequences);
    let expected = I64Partial {
        count: 3,
        sum: 3 * i128::from(BASE) + 8,
        min: Some(BASE),
        max: Some(BASE + 4),
        first: Some((0, BASE)),
        last: Some((30, BASE + 4)),
    };
    assert_eq!((partial, loose), (expected, vec![BASE + 100]));
}
