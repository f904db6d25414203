//! Partials: any grouping agrees, bytes round trip, and every function means what it says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::Rng;
use proptest::prelude::*;
use tidemark_series::{Edge, Finished, Function, Kind, Partial, SumOverflow, ValueRef, ValueType, Values};

const TYPES: u32 = 5;

/// Several runs of cells, in time order within and between the runs (times may repeat).
fn partials(rng: &mut Rng, number: u32, runs: usize) -> Vec<Partial> {
    let mut at = -50i64;
    (0..runs)
        .map(|_| {
            let count = rng.below(20) as usize;
            let mut values = common::values(rng, number, count);
            // Sums near the largest double overflow in some groupings and not in others.
            if let Values::F64(values) = &mut values {
                values.iter_mut().filter(|v| v.abs() > 1e300).for_each(|v| *v = 1.0);
            }
            let mut partial = Partial::empty(values.value_type());
            for i in 0..count {
                at += rng.below(3) as i64;
                partial.fold(at, values.get(i).unwrap());
            }
            partial
        })
        .collect()
}

fn merged(parts: &[Partial]) -> Partial {
    let mut all = Partial::empty(parts[0].value_type());
    parts.iter().for_each(|part| all.merge(part));
    all
}

#[track_caller]
fn assert_same(a: &Partial, b: &Partial, size: f64) {
    let (mut a, b) = (a.clone(), b);
    if let (Partial::F64(a), Partial::F64(b)) = (&mut a, b) {
        let (x, y) = (a.sum + a.sum_rest, b.sum + b.sum_rest);
        assert!(
            (x - y).abs() <= size * 1e-12 || x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan(),
            "{x} {y}"
        );
        (a.sum, a.sum_rest) = (b.sum, b.sum_rest);
    }
    assert_eq!(&a, b);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_grouping_agrees(seed: u64, number in 0..TYPES, runs in 1usize..8) {
        let rng = &mut Rng(seed);
        let parts = partials(rng, number, runs);
        let size: f64 = parts.iter().map(|p| match p {
            Partial::F64(p) => p.count as f64 * p.max.unwrap_or(0.0).abs().max(p.min.unwrap_or(0.0).abs()),
            _ => 0.0,
        }).sum();
        let expected = merged(&parts);
        let mut grouped = parts.clone();
        while grouped.len() > 1 {
            let at = rng.below(grouped.len() as u64 - 1) as usize;
            let pair = merged(&grouped[at..at + 2]);
            grouped.splice(at..at + 2, [pair]);
        }
        assert_same(&grouped[0], &expected, size);
        prop_assert_eq!(expected.count(), parts.iter().map(Partial::count).sum::<u64>());
        for part in parts.iter().chain([&expected]) {
            prop_assert_eq!(&Partial::decode(&part.encode()).unwrap(), part);
        }
    }

    #[test]
    fn damaged_bytes_never_panic(seed: u64, number in 0..TYPES, at: prop::sample::Index, byte: u8) {
        let mut bytes = partials(&mut Rng(seed), number, 1)[0].encode();
        bytes.push(0);
        prop_assert!(Partial::decode(&bytes).is_err());
        bytes.pop();
        let at = at.index(bytes.len());
        prop_assert!(Partial::decode(&bytes[..at]).is_err());
        bytes[at] = byte;
        if let Ok(mut partial) = Partial::decode(&bytes) {
            let copy = partial.clone();
            partial.merge(&copy);
            for function in [Function::Sum, Function::Avg, Function::Min, Function::Last] {
                let _ = partial.finish(function);
            }
        }
    }
}

fn folded(values: &[ValueRef<'_>], of: ValueType) -> Partial {
    let mut partial = Partial::empty(of);
    values.iter().enumerate().for_each(|(i, v)| partial.fold(i as i64, *v));
    partial
}

#[track_caller]
fn check(partial: &Partial, expected: &str) {
    use Function::{Avg, Count, First, Last, Max, Min, Sum};
    let shown = [Count, Sum, Min, Max, Avg, First, Last].map(|f| match partial.finish(f) {
        Ok(None) => "-".to_owned(),
        Ok(Some(Finished::U64(v))) => v.to_string(),
        Ok(Some(Finished::I64(v))) => v.to_string(),
        Ok(Some(Finished::F64(v))) => format!("{v:?}"),
        Ok(Some(Finished::Bool(v))) => v.to_string(),
        Ok(Some(Finished::Enum(v))) => format!("#{v}"),
        Ok(Some(Finished::Text(v))) => format!("'{v}'"),
        Err(SumOverflow) => "overflow".to_owned(),
    });
    assert_eq!(shown.join(" "), expected, "count sum min max avg first last");
}

#[test]
fn functions_answer_as_they_say() {
    use ValueRef as V;
    check(
        &folded(&[V::F64(2.5), V::F64(-1.0), V::F64(0.5)], ValueType::F64),
        "3 2.0 -1.0 2.5 0.6666666666666666 2.5 0.5",
    );
    check(
        &folded(&[V::F64(f64::NAN), V::F64(1.0)], ValueType::F64),
        "2 NaN 1.0 1.0 NaN NaN 1.0",
    );
    check(&folded(&[V::F64(f64::NAN)], ValueType::F64), "1 NaN - - NaN NaN NaN");
    check(
        &folded(&[V::F64(0.0), V::F64(-0.0)], ValueType::F64),
        "2 0.0 -0.0 0.0 0.0 0.0 -0.0",
    );
    check(
        &folded(&[V::F64(f64::INFINITY), V::F64(1.0)], ValueType::F64),
        "2 inf 1.0 inf inf inf 1.0",
    );
    check(
        &folded(&[V::F64(1e16), V::F64(1.0), V::F64(-1e16)], ValueType::F64),
        "3 1.0 -1e16 1e16 0.3333333333333333 1e16 -1e16",
    );
    check(&folded(&[V::I64(5), V::I64(-2)], ValueType::I64), "2 3 -2 5 1.5 5 -2");
    check(
        &folded(&[V::I64(i64::MAX), V::I64(1)], ValueType::I64),
        "2 overflow 1 9223372036854775807 4.611686018427388e18 9223372036854775807 1",
    );
    check(
        &folded(&[V::Bool(true), V::Bool(false)], ValueType::Bool),
        "2 1 false true 0.5 true false",
    );
    check(&folded(&[V::Enum(3), V::Enum(1)], ValueType::Enum), "2 - #1 #3 - #3 #1");
    check(
        &folded(&[V::Text("b"), V::Text("a")], ValueType::Text),
        "2 - - - - 'b' 'a'",
    );
    check(&Partial::empty(ValueType::F64), "0 - - - - - -");
}

#[test]
fn equal_times_keep_the_later_as_last() {
    let one = |v| {
        let mut partial = Partial::empty(ValueType::I64);
        partial.fold(7, ValueRef::I64(v));
        partial
    };
    check(&merged(&[one(1), one(2)]), "2 3 1 2 1.5 1 2");
    check(&merged(&[one(2), one(1)]), "2 3 1 2 1.5 2 1");
}

#[test]
fn kinds_know_their_functions_and_edges() {
    use Function::{Avg, Count, First, Last, Max, Min, Spread, Sum};
    assert_eq!(
        Function::lawful(Kind::Gauge),
        [Avg, Min, Max, Spread, First, Last, Count]
    );
    assert_eq!(
        Function::lawful(Kind::Mean),
        [Avg, Min, Max, Spread, First, Last, Count]
    );
    assert_eq!(Function::lawful(Kind::Increment), [Sum, Max, Count]);
    assert_eq!(Function::lawful(Kind::Counter), [First, Last, Count]);
    assert_eq!(Function::lawful(Kind::State), [Last, Min, Max, Count]);
    assert_eq!(Function::lawful(Kind::Event), [Count, First, Last]);
    let closed_at_end = [Kind::Mean, Kind::Increment];
    for kind in [
        Kind::Gauge,
        Kind::Mean,
        Kind::Increment,
        Kind::Counter,
        Kind::State,
        Kind::Event,
    ] {
        let expected = if closed_at_end.contains(&kind) {
            Edge::EndClosed
        } else {
            Edge::StartClosed
        };
        assert_eq!(kind.edge(), expected);
    }
}
