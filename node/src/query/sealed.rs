//! What a question concerns of the time whose raw points are gone for their age, so that its answer can say so.
//!
//! Never here: when points go (see `delete/retention`), which rollups will do (see `rollups`). Invariant: it is looked at after all was
//! read, so that points that went meanwhile are told of too.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tidemark_proto::v1::SealedTime;

use crate::catalog::types::TypeDef;
use crate::clock::NS_PER_S;
use crate::shard::Shard;

/// Types that a question was asked about, each with the begin of its time and the length of the rollups that may answer.
#[derive(Default)]
pub(super) struct Concerned(RefCell<BTreeMap<u32, Concern>>);

struct Concern {
    device_type: String,
    from_ns: i64,
    /// Of those that may answer.
    rollup_s: u32,
    /// Of the shortest that did.
    answered_s: Option<u32>,
}

impl Concerned {
    /// Notes that the points of a type are asked for from a time on and before another, or rollups of a length (0: of none).
    pub(super) fn note(&self, def: &TypeDef, (from_ns, to_ns): (i64, i64), rollup_s: u32) {
        if from_ns >= to_ns {
            return;
        }
        let mut all = self.0.borrow_mut();
        let concern = all.entry(def.number()).or_insert_with(|| Concern {
            device_type: def.id().to_owned(),
            from_ns,
            rollup_s,
            answered_s: None,
        });
        concern.from_ns = concern.from_ns.min(from_ns);
        concern.rollup_s = concern.rollup_s.min(rollup_s);
    }

    /// Notes that a rollup with windows so long answered for points that are gone.
    pub(super) fn answered_by(&self, def: &TypeDef, length_ns: i64) {
        let length_s = u32::try_from(length_ns / NS_PER_S).unwrap_or(u32::MAX);
        if let Some(concern) = self.0.borrow_mut().get_mut(&def.number()) {
            concern.answered_s = Some(concern.answered_s.map_or(length_s, |known| known.min(length_s)));
        }
    }

    /// Those of them that begin where points are gone.
    pub(super) fn sealed(&self, shard: &Shard) -> Vec<SealedTime> {
        let all = self.0.borrow();
        let sealed = all.iter().filter_map(|(type_number, concern)| {
            let before_ns = shard.sealed_before(*type_number)?;
            (concern.from_ns < before_ns).then(|| SealedTime {
                device_type: concern.device_type.clone(),
                before_ns,
                rollup_s: concern.answered_s.unwrap_or(concern.rollup_s),
            })
        });
        sealed.collect()
    }
}

/// Adds what another shard says.
pub(super) fn add(total: &mut Vec<SealedTime>, shard: &[SealedTime]) {
    for sealed in shard {
        match total.iter_mut().find(|known| known.device_type == sealed.device_type) {
            None => total.push(sealed.clone()),
            Some(known) => {
                known.before_ns = known.before_ns.max(sealed.before_ns);
                known.rollup_s = known.rollup_s.min(sealed.rollup_s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_differ_are_told_as_the_worst_of_them() {
        let sealed = |device_type: &str, before_ns: i64, rollup_s: u32| SealedTime {
            device_type: device_type.to_owned(),
            before_ns,
            rollup_s,
        };
        let mut total = Vec::new();
        add(&mut total, &[sealed("a", 5, 300)]);
        add(&mut total, &[]);
        add(&mut total, &[sealed("b", 7, 0), sealed("a", 3, 300)]);
        add(&mut total, &[sealed("a", 9, 60)]);
        assert_eq!(total, [sealed("a", 9, 60), sealed("b", 7, 0)]);
    }
}
