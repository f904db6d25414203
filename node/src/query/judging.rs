//! What neighbours say of the values of a raw range: of a bucket at once, for all that asks for it.
//!
//! Never here: what is said of a value by itself (see `filter`, `qualifiers`). Invariant: what is found of a value is what the quality of
//! its device counts, whatever block the neighbours lie in.

use tidemark_series::PropertyNumber;
use tidemark_series::checks::Finding;

use super::shard_side::{Answering, Chosen};
use super::walk::{Walk, Walked, choice, telling};
use super::way::Piece;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

/// What was found of a value.
#[derive(Copy, Clone, Debug)]
pub(super) struct Verdict {
    t_ns: i64,
    pub(super) finding: Option<Finding>,
    /// It stands still, whatever else was found.
    pub(super) still: bool,
}

/// What was found of the values of some time, by property.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Vec<(PropertyNumber, Vec<Verdict>)>);

impl Verdicts {
    /// Of a value; `None` where neighbours say nothing against it.
    pub(super) fn of(&self, property: PropertyNumber, t_ns: i64) -> Option<Verdict> {
        let (_, found) = self.0.iter().find(|(number, _)| *number == property)?;
        let at = found.binary_search_by_key(&t_ns, |verdict| verdict.t_ns).ok()?;
        found.get(at).copied()
    }
}

/// Looks at the neighbours of values of devices of one type.
pub(super) struct Judging<'d> {
    def: &'d TypeDef,
    properties: Vec<&'d PropertyDef>,
    /// Suspect values are told too, not only those that fail.
    tells: bool,
}

impl<'d> Judging<'d> {
    /// Of some properties, those of them that are judged by their neighbours.
    pub(super) fn new(def: &'d TypeDef, properties: &[&'d PropertyDef], tells: bool) -> Judging<'d> {
        let in_order = |property: &&&PropertyDef| match tells {
            true => property.checks.needs_order(),
            false => choice(property, false).needs_order(),
        };
        Judging {
            def,
            properties: properties.iter().filter(in_order).copied().collect(),
            tells,
        }
    }

    /// Whether neighbours say nothing of any value.
    pub(super) fn is_needless(&self) -> bool {
        self.properties.is_empty()
    }

    /// Of the values of a device from one time to another, both included.
    pub(super) fn over(
        &self,
        answering: &Answering<'_>,
        chosen: &Chosen,
        (first, last): (i64, i64),
    ) -> Result<Verdicts> {
        if self.is_needless() || first > last {
            return Ok(Verdicts::default());
        }
        let walked = self.properties.iter().map(|property| Walked {
            property,
            choice: match self.tells {
                true => telling(property),
                false => choice(property, false),
            },
        });
        let range = (first, last.saturating_add(1));
        let walk = Walk::new(answering, self.def, walked.collect(), range, (0, 0));
        let mut found: Vec<Vec<Verdict>> = self.properties.iter().map(|_| Vec::new()).collect();
        let told = |t_ns: i64, finding: Option<Finding>, still: bool| Verdict { t_ns, finding, still };
        answering.aside(|| {
            walk.pieces(chosen, &mut |at, piece| {
                match piece {
                    Piece::Told(judged) => {
                        found[at].extend(judged.iter().map(|one| told(one.t_ns, one.finding, one.still)));
                    }
                    // Those that fail by themselves are among them.
                    Piece::Points(points) if !self.tells => {
                        found[at].extend(
                            points
                                .dropped
                                .iter()
                                .map(|t_ns| told(*t_ns, Some(Finding::Spike), false)),
                        );
                    }
                    Piece::Points(_) | Piece::Row(_) => {}
                }
                Ok(())
            })
        })?;
        let numbers = self.properties.iter().map(|property| property.number);
        let in_order = found.into_iter().map(|mut verdicts| {
            verdicts.sort_unstable_by_key(|verdict| verdict.t_ns);
            verdicts
        });
        Ok(Verdicts(numbers.zip(in_order).collect()))
    }
}
