//! Rollups in questions: which rollups will do for which windows, and what of a type is rolled up.
//!
//! Never here: when rollups are made. Invariant: an answer from rollups is the answer from points; where that is not sure, points
//! are read.

use std::ops::ControlFlow;

use prost::Message as _;
use tidemark_proto::peer::{RollUp, RolledProperty, RolledSequence};
use tidemark_proto::v1::QueryAggregateRequest;
use tidemark_series::rollup::{Follows, Wanted};
use tidemark_series::sequence::STATES_MAX;
use tidemark_series::{Kind, SequenceFunction, ValueType, Windows, window::Edge};
use xxhash_rust::xxh3::xxh3_64;

use super::functions::{Asked, max_gap_ns};
use super::plan::{counts_slots, steps};
use super::shard_side::{Answering, Chosen, outcome, passed};
use super::walk::choice;
use crate::catalog::types::{PropertyDef, ROLLUPS_S, TypeDef};
use crate::clock::NS_PER_S;
use crate::error::Result;
use crate::raft::state::store_error;
use crate::shard::{Rolling, Stored};

/// How points of a property go on from one to the next, where rollups keep that.
fn follows(def: &TypeDef, property: &PropertyDef) -> Option<Follows> {
    let numbers = matches!(property.value_type, ValueType::F64 | ValueType::I64);
    let few_states = match property.value_type {
        ValueType::Bool => true,
        ValueType::Enum => property.labels.len() <= STATES_MAX,
        _ => false,
    };
    match property.kind {
        Kind::Counter if numbers => Some(Follows::Counter(property.wrap)),
        Kind::Gauge if numbers => Some(Follows::Linear(def.max_gap_ns())),
        Kind::State if numbers => Some(Follows::Held(def.max_gap_ns())),
        Kind::State if few_states => Some(Follows::State(def.max_gap_ns())),
        _ => None,
    }
}

/// A property, to be read from rollups.
pub(super) fn wanted(def: &TypeDef, property: &PropertyDef) -> Wanted {
    Wanted {
        property: property.number,
        value_type: property.value_type,
        follows: follows(def, property),
    }
}

/// Whether what is kept of a property as a sequence answers a function.
fn answers(follows: Option<Follows>, value_type: ValueType, function: SequenceFunction) -> bool {
    use SequenceFunction::{Delta, Duration, Increase, Integral, Mode, Rate, TimeWeightedAvg, Transitions};
    match follows {
        None => false,
        Some(Follows::Counter(_)) => matches!(function, Increase | Rate),
        Some(Follows::Linear(_)) => matches!(function, Delta | Integral | TimeWeightedAvg),
        Some(Follows::Held(_)) => function == TimeWeightedAvg,
        Some(Follows::State(_)) => {
            matches!(function, Duration(_) | Transitions | Mode)
                || function == TimeWeightedAvg && value_type == ValueType::Bool
        }
    }
}

/// Which edge the windows of each property have, by its number.
pub fn edges(def: &TypeDef) -> impl Iterator<Item = (u32, Edge)> + '_ {
    let of = |property: &PropertyDef| (property.number.0, property.kind.edge());
    def.properties.iter().map(of)
}

/// What of a type is rolled up, and the rule that names just that; no length and no buckets.
pub fn rolled(def: &TypeDef) -> RollUp {
    let rolled = |property: &PropertyDef| {
        let checks = &property.checks;
        let mut rolled = RolledProperty {
            number: property.number.0,
            end_closed: property.kind.edge() == Edge::EndClosed,
            accepted: choice(property, false).accepted.0,
            min: checks.min,
            max: checks.max,
            spike: checks.spike,
            neighbours_ns: if checks.spike.is_some() {
                checks.neighbours_ns
            } else {
                0
            },
            ..RolledProperty::default()
        };
        let (sequence, max_gap_ns) = match follows(def, property) {
            None => (RolledSequence::Unspecified, 0),
            Some(Follows::Counter(wrap)) => {
                rolled.wrap = wrap;
                (RolledSequence::Counter, 0)
            }
            Some(Follows::Linear(max_gap_ns)) => (RolledSequence::Linear, max_gap_ns),
            Some(Follows::Held(max_gap_ns)) => (RolledSequence::Held, max_gap_ns),
            Some(Follows::State(max_gap_ns)) => (RolledSequence::State, max_gap_ns),
        };
        rolled.set_sequence(sequence);
        rolled.max_gap_ns = max_gap_ns;
        rolled
    };
    let all = RollUp {
        properties: def.properties.iter().map(rolled).collect(),
        interval_ns: def.sample_interval_ns().unwrap_or(0),
        ..RollUp::default()
    };
    // Rollups of the versions before, which have less, have a rule without this or with a "2".
    let rule = xxh3_64(&[&all.encode_to_vec()[..], b"3"].concat());
    RollUp { rule, ..all }
}

/// Whether rollups of a length tell how many slots of all windows have a point as the points would: where no slot that is counted lies
/// across the border of two rollups. `windows` are those of a property, made of whole windows of the length.
fn tells_slots(def: &TypeDef, request: &QueryAggregateRequest, windows: &Windows, length_ns: i64) -> bool {
    let interval_ns = match def.sample_interval_ns() {
        Some(interval_ns) if counts_slots(request) => interval_ns,
        _ => return true,
    };
    // Windows so short touch two slots at most: those of their first and last point.
    if length_ns <= interval_ns {
        return true;
    }
    // A window that the range cuts short has its slots from there.
    let begins_ns = match windows.edge {
        Edge::StartClosed => windows.from_ns,
        Edge::EndClosed => windows.to_ns,
    };
    let same_slots = length_ns % interval_ns == 0 && begins_ns % interval_ns == 0;
    let slides = request.window.as_ref().is_some_and(|window| steps(window) > 1);
    let same_windows = match windows.step_ns {
        Some(step_ns) => step_ns == length_ns && windows.borders.is_none() && !slides,
        None => windows.from_ns % length_ns == 0 && windows.to_ns.checked_sub(windows.from_ns) == Some(length_ns),
    };
    same_slots || same_windows
}

/// Whether rollups have all that is asked of a property.
fn has_all(def: &TypeDef, request: &QueryAggregateRequest, functions: &[Asked], property: &PropertyDef) -> bool {
    let usual_gaps = max_gap_ns(request.max_gap_ms, def) == def.max_gap_ns();
    let known =
        |function: SequenceFunction| usual_gaps && answers(follows(def, property), property.value_type, function);
    functions.iter().all(|asked| asked.of_sequence().is_none_or(known))
}

/// The rollups that will do for functions over some windows: the longest that windows are made of and, where slots are counted, that tell
/// of these; where points are gone (`any_gone`), rollups of all lengths that windows are made of, which the type may have no more, and
/// which tell of slots as well as they can.
pub(super) fn rolling(
    def: &TypeDef,
    any_gone: bool,
    request: &QueryAggregateRequest,
    functions: &[Asked],
    asked: &[(&PropertyDef, Windows)],
) -> Option<Rolling> {
    // When their points were received is not told by rollups.
    let points_only = request.no_rollups || request.known_at_ns != 0 || request.drop_suspect || request.largest_gap;
    let all_there = |(property, _): &(&PropertyDef, Windows)| has_all(def, request, functions, property);
    if points_only || !asked.iter().all(all_there) {
        return None;
    }
    let (_, first) = asked.first()?;
    let made_of = |windows: &Windows, length_ns: i64| {
        // All that places a border of a window must be looked at: whoever adds to it decides here.
        let Windows {
            from_ns,
            to_ns,
            step_ns,
            origin_ns,
            edge: _,
            borders,
        } = windows;
        let same_ends = (*from_ns, *to_ns) == (first.from_ns, first.to_ns);
        let whole = from_ns % length_ns == 0 && to_ns % length_ns == 0;
        let steps = match borders {
            Some(borders) => borders.iter().all(|border| border % length_ns == 0),
            None => step_ns.is_none_or(|step_ns| step_ns % length_ns == 0 && origin_ns % length_ns == 0),
        };
        steps && (same_ends || whole)
    };
    let will_do = |length_s: &u32| {
        let length_ns = i64::from(*length_s) * NS_PER_S;
        asked.iter().all(|(_, windows)| made_of(windows, length_ns))
    };
    // Each is made of those before it.
    let gone_s = &ROLLUPS_S[..ROLLUPS_S.partition_point(will_do)];
    let tells = |length_s: &&u32| {
        let length_ns = i64::from(**length_s) * NS_PER_S;
        let tells = |(_, windows): &(&PropertyDef, Windows)| tells_slots(def, request, windows, length_ns);
        asked.iter().all(tells)
    };
    let of_today = def.stored.rollups_s.iter().filter(|length_s| gone_s.contains(length_s));
    let length_s = of_today.filter(tells).max().copied();
    let of_gone = gone_s.last().filter(|_| any_gone).copied();
    length_s.or(of_gone)?;
    let ends = |pick: fn(&Windows) -> i64| asked.iter().map(move |(_, windows)| pick(windows));
    Some(Rolling {
        length_s,
        gone_s,
        rule: rolled(def).rule,
        from_ns: ends(|windows| windows.from_ns).min()?,
        to_ns: ends(|windows| windows.to_ns).max()?,
    })
}

impl Answering<'_> {
    /// [`Answering::scan`], with rollups where they will do.
    pub(super) fn scan_rolled(
        &self,
        def: &TypeDef,
        devices: &[Chosen],
        (from_ns, to_ns): (i64, i64),
        rolling: Option<&Rolling>,
        mut visit: impl FnMut(usize, Stored<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(rolling) = rolling else {
            let _ = self.scan(def, devices, from_ns, to_ns, |at, value| {
                visit(at, Stored::Points(value)).map(ControlFlow::Continue)
            })?;
            return Ok(());
        };
        let ordinals: Vec<u32> = devices.iter().map(Chosen::ordinal).collect();
        let scanned = self.shard.scan_rolled(
            (def.number(), &ordinals),
            def.bucket_span_ns,
            (from_ns, to_ns),
            rolling,
            |at, stored| match self.counted(def, &stored).and_then(|()| visit(at, stored)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            },
        );
        match scanned.map_err(store_error)? {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Counts a bucket that is read, as points or as a rollup; an error where that must end.
    fn counted(&self, def: &TypeDef, stored: &Stored<'_>) -> Result<()> {
        match stored {
            Stored::Points(value) => self.read(value),
            Stored::Rollup { rollup, is_alone } => {
                if *is_alone {
                    self.concerned.answered_by(def, rollup.length_ns);
                }
                self.metrics.rollups_used.add(1);
                self.tally.rollup();
                self.listened_to()
            }
        }
    }

    /// The same for one device, oldest first, until `visit` breaks.
    pub(super) fn follow_rolled(
        &self,
        def: &TypeDef,
        chosen: &Chosen,
        (from_ns, to_ns): (i64, i64),
        rolling: Option<&Rolling>,
        mut visit: impl FnMut(Stored<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let Some(rolling) = rolling else {
            let one = std::slice::from_ref(chosen);
            return self.scan(def, one, from_ns, to_ns, |_, value| visit(Stored::Points(value)));
        };
        let device = (def.number(), chosen.ordinal());
        let range = (from_ns, to_ns);
        let scanned = self
            .shard
            .follow_rolled(device, def.bucket_span_ns, range, rolling, |stored| {
                passed(self.counted(def, &stored).and_then(|()| visit(stored)))
            });
        outcome(scanned.map_err(store_error)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tidemark_proto::v1::{self, DeviceType, Property};
    use tidemark_series::Checks;

    const HOUR: i64 = 3_600 * NS_PER_S;

    fn def() -> TypeDef {
        let property = |id: &str, number: u32, value_type: v1::ValueType| Property {
            id: id.into(),
            number,
            kind: v1::Kind::Gauge as i32,
            value_type: value_type as i32,
            ..Property::default()
        };
        let spiky = Property {
            attributes: [("spike".to_owned(), "0.5".to_owned())].into(),
            ..property("spiky", 3, v1::ValueType::F64)
        };
        let properties = vec![
            property("level", 1, v1::ValueType::F64),
            property("note", 2, v1::ValueType::Text),
            spiky,
        ];
        TypeDef::new(DeviceType {
            id: "t".into(),
            properties,
            rollups_s: vec![300, 3_600, 86_400],
            ..DeviceType::default()
        })
        .unwrap()
    }

    fn windows(step_ns: Option<i64>, origin_ns: i64) -> Windows {
        Windows {
            from_ns: 7,
            to_ns: 100 * HOUR,
            step_ns,
            origin_ns,
            borders: None,
            edge: Edge::StartClosed,
        }
    }

    #[test]
    fn the_longest_windows_that_fit_are_taken() {
        let def = def();
        let check = |property: usize, step_ns: Option<i64>, origin_ns: i64, expected: Option<u32>| {
            let asked = [(&def.properties[property], windows(step_ns, origin_ns))];
            let request = QueryAggregateRequest::default();
            let length_s = |def: &TypeDef, any_gone: bool| {
                let rolling = rolling(def, any_gone, &request, &[], &asked)?;
                Some((rolling.length_s, rolling.gone_s.last().copied()))
            };
            let both = expected.map(|length_s| (Some(length_s), Some(length_s)));
            assert_eq!(length_s(&def, false), both, "{step_ns:?} from {origin_ns}");
            // Of lengths that a type has no more there may be some where its points are gone.
            let mut others = def.clone();
            others.stored.rollups_s = vec![];
            assert_eq!(length_s(&others, false), None);
            assert_eq!(length_s(&others, true), expected.map(|length_s| (None, Some(length_s))));
        };
        check(0, None, 0, Some(86_400));
        check(0, Some(HOUR), 0, Some(3_600));
        check(0, Some(6 * HOUR), 2 * HOUR, Some(3_600));
        check(0, Some(48 * HOUR), 24 * HOUR, Some(86_400));
        check(0, Some(HOUR / 4), 0, Some(300));
        check(0, Some(HOUR), 7, None);
        check(0, Some(HOUR / 60), 0, None);
        check(1, Some(HOUR), 0, Some(3_600));
        check(2, Some(HOUR), 0, Some(3_600));
        for (borders, expected) in [([7, 26, 100], Some(3_600)), ([24, 48, 120], Some(86_400))] {
            let borders: Vec<i64> = borders.iter().map(|hours| hours * HOUR).collect();
            let between = Windows {
                borders: Some(borders.into()),
                ..windows(Some(0), 0)
            };
            let asked = [(&def.properties[0], between)];
            let rolling = rolling(&def, false, &QueryAggregateRequest::default(), &[], &asked);
            assert_eq!(rolling.and_then(|rolling| rolling.length_s), expected);
        }
    }

    #[test]
    fn questions_that_choose_points_otherwise_read_points() {
        let def = def();
        let asked = [(&def.properties[0], windows(Some(HOUR), 0))];
        for (no_rollups, drop_suspect, known_at_ns) in [(true, false, 0), (false, true, 0), (false, false, 7)] {
            let request = QueryAggregateRequest {
                no_rollups,
                drop_suspect,
                known_at_ns,
                ..QueryAggregateRequest::default()
            };
            assert!(rolling(&def, false, &request, &[], &asked).is_none());
        }
        let RollUp { rule, properties, .. } = rolled(&def);
        assert_eq!(properties.len(), 3);
        for change in [
            |checks: &mut Checks| checks.max = Some(5.0),
            |checks: &mut Checks| checks.spike = Some(5.0),
        ] {
            let mut other = def.clone();
            change(&mut other.properties[0].checks);
            assert_ne!(rolled(&other).rule, rule);
        }
        let mut other = def.clone();
        other.stored.sample_interval_s = 60;
        assert_ne!(rolled(&other).rule, rule, "gaps are bridged otherwise");
        let mut events = def.clone();
        events.properties.retain(|property| property.id == "note");
        let rule = rolled(&events).rule;
        events.stored.sample_interval_s = 60;
        assert_ne!(rolled(&events).rule, rule, "slots are others");
    }

    #[test]
    fn slots_are_told_where_none_lies_across_two_rollups() {
        let check = |interval_s: i64, windows: Windows, slides: bool, expected: Option<u32>| {
            let mut def = def();
            def.stored.sample_interval_s = interval_s;
            let window = windows.step_ns.map(|step_ns| v1::Window {
                step_ns,
                length_ns: if slides { 2 * step_ns } else { 0 },
                ..v1::Window::default()
            });
            let request = QueryAggregateRequest {
                min_coverage: 0.5,
                window,
                ..QueryAggregateRequest::default()
            };
            let asked = [(&def.properties[0], windows)];
            let found = rolling(&def, false, &request, &[], &asked);
            assert_eq!(
                found.and_then(|found| found.length_s),
                expected,
                "{interval_s}: {asked:?}"
            );
        };
        let from_7 = windows(Some(6 * HOUR), 0);
        let from_0 = Windows {
            from_ns: 0,
            ..from_7.clone()
        };
        let hours = windows(Some(HOUR), 0);
        check(0, from_7.clone(), false, Some(3_600));
        check(300, from_0.clone(), false, Some(3_600));
        check(300, from_0.clone(), true, Some(3_600));
        // Seven nanoseconds later all slots of the first window are others, but for those that no rollup is longer than.
        check(300, from_7.clone(), false, Some(300));
        check(200, from_7.clone(), false, None);
        check(3_600, from_7, false, Some(3_600));
        // Of 7 minutes none goes into an hour: an hour has its own.
        check(420, from_0.clone(), false, Some(300));
        check(420, hours.clone(), false, Some(3_600));
        check(420, hours.clone(), true, Some(300));
        // Of 40 seconds some go into an hour, and none into five minutes.
        check(40, from_0.clone(), false, Some(3_600));
        check(40, windows(Some(HOUR / 4), 0), false, None);
        check(7 * 3_600, from_0.clone(), false, Some(3_600));
        let ends = Windows {
            edge: Edge::EndClosed,
            ..from_0
        };
        check(300, ends.clone(), false, Some(3_600));
        check(
            200,
            Windows {
                to_ns: ends.to_ns + 7,
                ..ends
            },
            false,
            None,
        );
        let one = |to_ns: i64| Windows {
            from_ns: 0,
            to_ns,
            ..windows(None, 0)
        };
        check(420, one(24 * HOUR), false, Some(86_400));
        check(420, one(48 * HOUR), false, Some(300));
        let borders: Vec<i64> = [0, 24, 120].iter().map(|hours| hours * HOUR).collect();
        let between = Windows {
            borders: Some(borders.into()),
            ..windows(Some(0), 0)
        };
        check(420, between.clone(), false, Some(300));
        check(300, Windows { from_ns: 0, ..between }, false, Some(86_400));
    }

    #[test]
    fn sequences_are_answered_as_far_as_they_are_kept() {
        let def = def();
        let asked = [(&def.properties[0], windows(Some(HOUR), 0))];
        let check = |functions: &[v1::Function], max_gap_ms: i64, expected: bool| {
            let request = QueryAggregateRequest {
                functions: functions.iter().map(|function| *function as i32).collect(),
                max_gap_ms,
                ..QueryAggregateRequest::default()
            };
            let functions = super::super::functions::functions(&request).unwrap();
            let found = rolling(&def, false, &request, &functions, &asked);
            assert_eq!(found.is_some(), expected, "{request:?}");
        };
        let average = v1::Function::TimeWeightedAvg;
        check(&[average, v1::Function::Delta, v1::Function::Max], 0, true);
        check(&[average], 86_400_000, true);
        check(&[average], 86_400_001, false);
        check(&[average, v1::Function::Stddev], 0, false);
        check(&[v1::Function::Increase], 0, false);
    }
}
