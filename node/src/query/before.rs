//! What lies around a range: of each property the last point before it that counts, and where neighbours decide which do, as many as it
//! takes to tell of those in the range; and the next point behind it.
//!
//! Never here: the range itself. Invariant: what is told of points in a range is what would be told if all points around it were
//! read.

use std::ops::ControlFlow;

use tidemark_series::rollup::{Rollup, Wanted};
use tidemark_series::{Number, Points, bucket};

use super::shard_side::{Chosen, corrupt};
use super::walk::{Walk, spans_back};
use super::way::{Walked, loose, number, points_of};
use crate::error::Result;
use crate::shard::Stored;

/// Points that are looked back over at most until one does not depend on those before it.
const SETTLING_MAX: usize = 4096;

/// What was found of a property, so far back.
struct Back<'w> {
    walked: &'w Walked<'w>,
    found: Found,
    /// Begin of what was looked at.
    begin_ns: i64,
    is_done: bool,
}

enum Found {
    /// The last point.
    Last(Option<Points>),
    /// Points from the one on that is known to count, or more.
    Neighbours(Vec<Neighbour>),
}

#[derive(Copy, Clone)]
struct Neighbour {
    point: (i64, Number),
    /// What its source says of it.
    stated: u8,
    /// It is known to count.
    known: bool,
}

impl Walk<'_> {
    /// The last points of each property before the range.
    pub(super) fn before(&self, chosen: &Chosen) -> Result<Vec<Option<Points>>> {
        let mut backs: Vec<Back<'_>> = self.walked.iter().map(Back::new).collect();
        if let Some(begins) = self.answering.shard.data_begins(self.answering.number(self.def)) {
            let in_order = self.walked.iter().any(|walked| walked.choice.needs_order());
            let reach = if in_order { i64::MAX } else { self.back_ns };
            let lowest = self.from_ns.saturating_sub(reach).max(begins);
            for (begin, end) in spans_back(self.def, lowest, self.from_ns) {
                self.look(chosen, (begin, end), &mut backs)?;
                let enough = self.from_ns.saturating_sub(self.back_ns);
                backs.iter_mut().for_each(|back| back.judge_done(begin, enough));
                if backs.iter().all(|back| back.is_done) {
                    break;
                }
            }
        }
        Ok(backs.into_iter().map(Back::into_points).collect())
    }

    /// The first point of each property behind the range that counts by itself, as far ahead as one matters.
    pub(super) fn behind(&self, chosen: &Chosen) -> Result<Vec<Option<Points>>> {
        let mut found: Vec<Option<Points>> = self.walked.iter().map(|_| None).collect();
        let range = (self.to_ns, self.to_ns.saturating_add(self.ahead_ns));
        let one = std::slice::from_ref(chosen);
        let _ = self.answering.scan(self.def, one, range.0, range.1, |_, value| {
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < range.0 || block.first_ns() >= range.1 {
                    continue;
                }
                let mut folding = block.folding();
                for (found, walked) in found.iter_mut().zip(&self.walked).filter(|(found, _)| found.is_none()) {
                    let points = folding.points(walked.property.number, &walked.choice);
                    let Some(points) = points.map_err(corrupt)? else {
                        continue;
                    };
                    let first = points.times.partition_point(|t_ns| *t_ns < range.0);
                    let is_near = points.times.get(first).is_some_and(|t_ns| *t_ns < range.1);
                    *found = is_near.then(|| points.part(first..first + 1));
                }
                self.answering.tally.block(folding.decoded())?;
            }
            Ok(match found.iter().all(Option::is_some) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        Ok(found)
    }

    fn look(&self, chosen: &Chosen, (from_ns, to_ns): (i64, i64), backs: &mut [Back<'_>]) -> Result<()> {
        let mut sooner: Vec<Found> = backs.iter().map(|back| Found::nothing(back.walked)).collect();
        let _ = self.scan(chosen, (from_ns, to_ns), |stored| {
            let value = match stored {
                Stored::Points(value) => value,
                Stored::Rollup { rollup, .. } => {
                    for ((back, sooner), wanted) in backs.iter().zip(&mut sooner).zip(&self.wanted) {
                        if !back.is_done {
                            sooner.add_rollup(&rollup, wanted, (from_ns, to_ns))?;
                        }
                    }
                    return Ok(ControlFlow::Continue(()));
                }
            };
            for block in bucket::blocks(value) {
                let block = block.map_err(corrupt)?;
                if block.last_ns() < from_ns || block.first_ns() >= to_ns {
                    continue;
                }
                let mut folding = block.folding();
                for (back, sooner) in backs.iter().zip(&mut sooner).filter(|(back, _)| !back.is_done) {
                    let points = folding.points(back.walked.property.number, &back.walked.choice);
                    if let Some(points) = points.map_err(corrupt)? {
                        sooner.add(&points, (from_ns, to_ns));
                    }
                }
                self.answering.tally.block(folding.decoded())?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (back, sooner) in backs.iter_mut().zip(sooner) {
            back.found.begin_with(sooner);
        }
        Ok(())
    }
}

impl Found {
    fn nothing(walked: &Walked<'_>) -> Found {
        match walked.choice.needs_order() {
            true => Found::Neighbours(Vec::new()),
            false => Found::Last(None),
        }
    }

    /// Later points of a range.
    fn add(&mut self, points: &Points, (from_ns, to_ns): (i64, i64)) {
        match self {
            Found::Last(last) => {
                let behind = points.times.partition_point(|t_ns| *t_ns < to_ns);
                let at = behind.checked_sub(1).filter(|at| points.times[*at] >= from_ns);
                if let Some(at) = at {
                    *last = Some(points.part(at..at + 1));
                }
            }
            Found::Neighbours(found) => {
                let inside = |(t_ns, ..): &(i64, Number, u8)| (from_ns..to_ns).contains(t_ns);
                let numbers = points.stated_numbers().filter(inside);
                found.extend(numbers.map(|(t_ns, number, stated)| Neighbour {
                    point: (t_ns, number),
                    stated,
                    known: false,
                }));
            }
        }
    }

    /// Later points of a range, as a rollup.
    fn add_rollup(&mut self, rollup: &Rollup<'_>, wanted: &Wanted, (from_ns, to_ns): (i64, i64)) -> Result<()> {
        let inside = |t_ns: i64| (from_ns..to_ns).contains(&t_ns);
        let rows = rollup.rows(wanted).map_err(corrupt)?;
        // A window that lies across the end of the range is before it with all of its points.
        let before = |first_ns: i64| first_ns < to_ns;
        let newest = rows.iter().rfind(|row| row.begins_ns().is_some_and(before));
        let newest = newest.and_then(|row| row.points.as_ref()?.last());
        let newest = newest.filter(|(last_ns, _)| *last_ns >= from_ns);
        match self {
            Found::Last(found) => {
                // Where no neighbours are asked any more all loose points count.
                let loose = loose(rollup, wanted)?.into_iter().rfind(|(t_ns, _)| inside(*t_ns));
                let newest_ns = newest.map_or(i64::MIN, |(t_ns, _)| t_ns);
                if let Some(point) = loose.filter(|(t_ns, _)| *t_ns > newest_ns) {
                    *found = Some(points_of(wanted.value_type, &[point]));
                } else if let Some((t_ns, value)) = newest {
                    *found = Some(Points::one(t_ns, value));
                }
            }
            Found::Neighbours(found) => {
                let of_rollup = |point: (i64, Number), known: bool| Neighbour {
                    point,
                    stated: 0,
                    known,
                };
                let known = number(newest);
                let after = known.map_or(i64::MIN, |(t_ns, _)| t_ns);
                found.extend(known.map(|point| of_rollup(point, true)));
                let loose = loose(rollup, wanted)?.into_iter();
                let loose = loose.filter(|(t_ns, _)| inside(*t_ns) && (known.is_none() || *t_ns > after));
                found.extend(loose.map(|point| of_rollup(point, false)));
            }
        }
        Ok(())
    }

    /// Puts sooner points before.
    fn begin_with(&mut self, sooner: Found) {
        match (self, sooner) {
            (Found::Last(last), Found::Last(sooner)) => *last = last.take().or(sooner),
            (Found::Neighbours(found), Found::Neighbours(mut sooner)) => {
                sooner.append(found);
                *found = sooner;
            }
            _ => debug_assert!(false, "one kind a property"),
        }
    }
}

impl<'w> Back<'w> {
    fn new(walked: &'w Walked<'w>) -> Back<'w> {
        Back {
            walked,
            found: Found::nothing(walked),
            begin_ns: i64::MAX,
            is_done: false,
        }
    }

    /// Whether what lies before a time matters. `enough`: without any point from then on it does not.
    fn judge_done(&mut self, begin_ns: i64, enough: i64) {
        let choice = &self.walked.choice;
        self.begin_ns = begin_ns;
        self.is_done = match &self.found {
            Found::Last(last) => last.is_some() || begin_ns <= enough,
            Found::Neighbours(found) => match found.first() {
                None => begin_ns <= enough,
                Some(_) if found.len() > SETTLING_MAX => true,
                Some(first) => {
                    let alone = !choice.tells_suspects() && choice.checks.are_apart(begin_ns, first.point.0);
                    // Of these none may count, where suspect ones do not.
                    self.anchor().is_some() || alone && (!choice.drops() || begin_ns <= enough)
                }
            },
        };
    }

    /// The last point that counts whatever lies before it.
    fn anchor(&self) -> Option<usize> {
        let Found::Neighbours(found) = &self.found else {
            return None;
        };
        let value = |one: &Neighbour| (one.point.0, one.point.1.value());
        let points: Vec<(i64, f64)> = found.iter().map(value).collect();
        let choice = &self.walked.choice;
        if choice.tells() {
            return choice.settled(self.begin_ns, &points, |at| found[at].stated);
        }
        let known = found.iter().rposition(|one| one.known);
        known.max(choice.checks.anchors(&points).next_back())
    }

    fn into_points(self) -> Option<Points> {
        let first = self.anchor().unwrap_or(0);
        match self.found {
            Found::Last(last) => last,
            Found::Neighbours(found) => {
                let found = found.get(first..).filter(|found| !found.is_empty())?;
                let numbers: Vec<(i64, Number)> = found.iter().map(|one| one.point).collect();
                let points = points_of(self.walked.property.value_type, &numbers);
                Some(Points {
                    stated: found.iter().map(|one| one.stated).collect(),
                    ..points
                })
            }
        }
    }
}
