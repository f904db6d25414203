//! Rollups in questions: which rollups will do for which windows, and what of a type is rolled up.
//!
//! Never here: when rollups are made. Invariant: an answer from rollups is the answer from points; where that is not sure, points
//! are read.

use std::ops::ControlFlow;

use prost::Message as _;
use tidemark_proto::peer::{RollUp, RolledProperty};
use tidemark_proto::v1::QueryAggregateRequest;
use tidemark_series::{ValueType, Windows, window::Edge};
use xxhash_rust::xxh3::xxh3_64;

use super::shard_side::{Answering, Chosen};
use super::walk::choice;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::clock::NS_PER_S;
use crate::error::Result;
use crate::raft::state::store_error;
use crate::shard::{Rolling, Stored};

/// Whether a property is rolled up: no texts, nor where neighbours decide which points count.
fn is_rolled(property: &PropertyDef) -> bool {
    property.value_type != ValueType::Text && !choice(property, false).needs_order()
}

/// What of a type is rolled up, and the rule that names just that.
pub fn rolled_properties(def: &TypeDef) -> (u64, Vec<RolledProperty>) {
    let rolled = |property: &PropertyDef| RolledProperty {
        number: property.number.0,
        end_closed: property.kind.edge() == Edge::EndClosed,
        accepted: choice(property, false).accepted.0,
        min: property.checks.min,
        max: property.checks.max,
    };
    let properties = def.properties.iter().filter(|property| is_rolled(property)).map(rolled);
    let all = RollUp {
        properties: properties.collect(),
        ..RollUp::default()
    };
    (xxh3_64(&all.encode_to_vec()), all.properties)
}

/// The rollups that will do for functions of points one by one over some windows: the longest that windows are made of.
pub(super) fn rolling(
    def: &TypeDef,
    request: &QueryAggregateRequest,
    asked: &[(&PropertyDef, Windows)],
) -> Option<Rolling> {
    // When their points were received is not told by rollups.
    let points = request.no_rollups || request.known_at_ns != 0;
    if points || request.drop_suspect || !asked.iter().all(|(property, _)| is_rolled(property)) {
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
    let will_do = |length_s: &&u32| {
        let length_ns = i64::from(**length_s) * NS_PER_S;
        asked.iter().all(|(_, windows)| made_of(windows, length_ns))
    };
    let ends = |pick: fn(&Windows) -> i64| asked.iter().map(move |(_, windows)| pick(windows));
    Some(Rolling {
        length_s: *def.stored.rollups_s.iter().filter(will_do).max()?,
        rule: rolled_properties(def).0,
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
        let mut used = 0;
        let scanned = self.shard.scan_rolled(
            (def.number(), &ordinals),
            def.bucket_span_ns,
            (from_ns, to_ns),
            rolling,
            |at, stored| {
                let counted = match &stored {
                    Stored::Points(value) => self.read(value),
                    Stored::Rollup(_) => {
                        used += 1;
                        self.tally.rollup();
                        self.listened_to()
                    }
                };
                match counted.and_then(|()| visit(at, stored)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                }
            },
        );
        self.metrics.rollups_used.add(used);
        match scanned.map_err(store_error)? {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tidemark_proto::v1::{self, DeviceType, Property};

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
            let rolling = rolling(&def, &QueryAggregateRequest::default(), &asked);
            assert_eq!(
                rolling.map(|rolling| rolling.length_s),
                expected,
                "{step_ns:?} from {origin_ns}"
            );
        };
        check(0, None, 0, Some(86_400));
        check(0, Some(HOUR), 0, Some(3_600));
        check(0, Some(6 * HOUR), 2 * HOUR, Some(3_600));
        check(0, Some(48 * HOUR), 24 * HOUR, Some(86_400));
        check(0, Some(HOUR / 4), 0, Some(300));
        check(0, Some(HOUR), 7, None);
        check(0, Some(HOUR / 60), 0, None);
        check(1, Some(HOUR), 0, None);
        check(2, Some(HOUR), 0, None);
        for (borders, expected) in [([7, 26, 100], Some(3_600)), ([24, 48, 120], Some(86_400))] {
            let borders: Vec<i64> = borders.iter().map(|hours| hours * HOUR).collect();
            let between = Windows {
                borders: Some(borders.into()),
                ..windows(Some(0), 0)
            };
            let asked = [(&def.properties[0], between)];
            let rolling = rolling(&def, &QueryAggregateRequest::default(), &asked);
            assert_eq!(rolling.map(|rolling| rolling.length_s), expected);
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
            assert!(rolling(&def, &request, &asked).is_none());
        }
        let (rule, properties) = rolled_properties(&def);
        assert_eq!(
            properties.iter().map(|property| property.number).collect::<Vec<_>>(),
            [1]
        );
        let mut other = def.clone();
        other.properties[0].checks.max = Some(5.0);
        assert_ne!(rolled_properties(&other).0, rule);
    }
}
