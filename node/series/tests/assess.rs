//! Quality of a device from blocks, told by headers where that is possible, is what its points one by one tell, and that is what going
//! through its slots one by one tells.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Rng;
use proptest::prelude::*;
use tidemark_series::assess::{Assessing, Assessment, Freshness, Gap, Promise};
use tidemark_series::{Bitmap, Block, Checks, Column, Edge, PropertyNumber, Records, Spans, Values, block};

const S: i64 = 1_000_000_000;
const LEVEL: PropertyNumber = PropertyNumber(2);

/// A device that mostly reports each `step`: some points are missing, some clocks are not exact, some points come late.
fn device(rng: &mut Rng, step: i64) -> Vec<Records> {
    let (misses, jitters) = (rng.chance(2), rng.chance(3));
    let (late, sparse) = (rng.below(3), rng.chance(3));
    let mut parts = Vec::new();
    let mut at = rng.below(20) as i64 * step;
    for _ in 0..1 + rng.below(4) {
        let mut times = Vec::new();
        for _ in 0..1 + rng.below(60) {
            at += step;
            if misses && rng.chance(9) {
                at += rng.below(14) as i64 * step;
            }
            times.push(at + if jitters { rng.below(7) as i64 * S } else { 0 });
        }
        let mut map = Bitmap::new(times.len());
        (0..times.len()).for_each(|row| map.set(row, row == 0 || !rng.chance(3)));
        let presence = Some(map).filter(|map| sparse && map.count_ones() < times.len());
        let count = presence.as_ref().map_or(times.len(), Bitmap::count_ones);
        let delay = |t: &i64| match late {
            0 => t + 5 * S,
            1 => t + rng.below(90) as i64 * S,
            _ => at + 100 * S,
        };
        parts.push(Records {
            received_at: times.iter().map(delay).collect(),
            report_kind: vec![1; times.len()],
            columns: vec![Column {
                property: LEVEL,
                presence,
                values: Values::F64((0..count).map(|v| v as f64).collect()),
                quality: None,
            }],
            observed_at: times,
            repeats: Vec::new(),
        });
    }
    parts
}

fn promise(rng: &mut Rng, step: i64) -> (Promise, Vec<(i64, i64)>) {
    let interval_ns = [step, step * 2, step / 2, step * 4 / 3][rng.below(4) as usize];
    let from_ns = rng.below(120) as i64 * step / 2;
    let to_ns = from_ns + rng.below(90) as i64 * interval_ns;
    let declared = match rng.chance(2) {
        true => Vec::new(),
        false => maintenance(rng, (from_ns, to_ns), interval_ns),
    };
    let promise = Promise {
        from_ns,
        to_ns,
        until_ns: to_ns + rng.below(3) as i64 * interval_ns / 2,
        since_ns: if rng.chance(2) { i64::MIN } else { from_ns - 2 * step },
        serves: true,
        edge: if rng.chance(2) {
            Edge::StartClosed
        } else {
            Edge::EndClosed
        },
        interval_ns,
        alive_ns: interval_ns * (1 + rng.below(4) as i64),
        gap_factor: [1.0, 1.5, 3.0][rng.below(3) as usize],
        maintenance: Spans::new(declared.iter().copied()),
    };
    (promise, declared)
}

/// Some times around and in another one: of whole slots, or not, or one that holds all of it.
fn maintenance(rng: &mut Rng, (from_ns, to_ns): (i64, i64), interval_ns: i64) -> Vec<(i64, i64)> {
    if rng.chance(12) {
        return vec![(from_ns - interval_ns, to_ns + S)];
    }
    let slots = ((to_ns - from_ns) / interval_ns) as u64;
    let mut declared = Vec::new();
    for _ in 0..1 + rng.below(4) {
        let begin = from_ns + (rng.below(slots + 30) as i64 - 15) * interval_ns;
        let moved = if rng.chance(2) {
            0
        } else {
            rng.below(interval_ns as u64) as i64
        };
        let length = [1, interval_ns, rng.below(20) as i64 * interval_ns / 2][rng.below(3) as usize];
        declared.push((begin + moved, begin + moved + length.max(1)));
    }
    declared
}

/// The slots of a promise, before and behind its time too, and which of them are in scope: one by one, as slowly as that may be.
struct Grid<'a>(&'a Promise, Vec<(i64, i64)>);

impl Grid<'_> {
    fn slot_of(&self, t_ns: i64) -> i64 {
        let begins = i64::from(self.0.edge == Edge::EndClosed);
        (t_ns - self.0.from_ns - begins).div_euclid(self.0.interval_ns)
    }

    fn in_scope(&self, slot: i64) -> bool {
        let start = self.0.from_ns + slot * self.0.interval_ns;
        let end = start + self.0.interval_ns;
        !self.1.iter().any(|(from, to)| *from < end && start < *to)
    }

    fn takes(&self, t_ns: i64) -> bool {
        self.in_scope(self.slot_of(t_ns))
    }

    /// How much of the time between two others is in scope.
    fn length(&self, from_ns: i64, to_ns: i64) -> i64 {
        let number = |t_ns: i64| (t_ns - self.0.from_ns).div_euclid(self.0.interval_ns);
        let slots = (number(from_ns)..=number(to_ns)).filter(|slot| from_ns < to_ns && self.in_scope(*slot));
        let parts = slots.map(|slot| {
            let start = self.0.from_ns + slot * self.0.interval_ns;
            (start + self.0.interval_ns).min(to_ns) - start.max(from_ns)
        });
        parts.sum()
    }

    fn gap(&self, from_ns: i64, to_ns: i64, open: bool) -> Option<Gap> {
        let intervals = self.length(from_ns, to_ns) as f64 / self.0.interval_ns as f64;
        let missing = if open {
            intervals.floor()
        } else {
            intervals.round() - 1.0
        };
        (intervals > self.0.gap_factor).then_some(Gap {
            from_ns,
            to_ns,
            missing: missing as u64,
            open,
        })
    }

    /// Of points before the time and in it, each of which counts.
    fn gaps(&self, before: &[i64], within: &[i64]) -> Vec<Gap> {
        let (from_ns, to_ns) = (self.0.from_ns, self.0.to_ns);
        let promised = before.iter().rev().find(|t| self.takes(**t));
        let begin = promised.copied().filter(|t| *t >= self.0.since_ns).unwrap_or(from_ns);
        let counting: Vec<i64> = within.iter().copied().filter(|t| self.takes(*t)).collect();
        let (first, open) = counting.first().map_or((to_ns, true), |first| (*first, false));
        let leading = self.gap(begin, first, open).filter(|_| self.length(from_ns, first) > 0);
        let between = counting.windows(2).map(|pair| self.gap(pair[0], pair[1], false));
        let trailing = counting.last().map(|last| self.gap(*last, to_ns, true));
        [leading].into_iter().chain(between).chain(trailing).flatten().collect()
    }

    /// Of points before the time and in it, and how many slots of it are in scope.
    fn freshness(&self, seen: &[i64], within: &[i64], slots: usize) -> Freshness {
        let interval_ns = self.0.interval_ns;
        let Some(last) = seen.last().filter(|_| slots > 0 || self.0.to_ns == self.0.from_ns) else {
            return match slots == 0 && self.0.to_ns > self.0.from_ns {
                true => Freshness::NotAssessable,
                false => Freshness::Never,
            };
        };
        if self.length(*last, self.0.to_ns) > 10 * interval_ns {
            return Freshness::Stalled;
        }
        let measured = |pair: &&[i64]| {
            let whole = self.length(pair[0], pair[1]) == pair[1] - pair[0];
            within.contains(&pair[1]) && self.takes(pair[0]) && self.takes(pair[1]) && whole
        };
        let mut spacings: Vec<i64> = seen.windows(2).filter(measured).map(|pair| pair[1] - pair[0]).collect();
        spacings.sort_unstable();
        match spacings.get(spacings.len() / 2) {
            Some(median) if slots >= 3 => {
                let ratio = *median as f64 / interval_ns as f64;
                match *median * 2 <= interval_ns * 3 {
                    true => Freshness::AsPromised(ratio),
                    false => Freshness::Slower(ratio),
                }
            }
            _ => Freshness::NotAssessable,
        }
    }
}

/// What points, each with when it came, say of a device that was under maintenance at these times.
fn by_slots(promise: &Promise, declared: &[(i64, i64)], points: &[(i64, i64)], latency: Option<i64>) -> Assessment {
    let grid = Grid(promise, declared.to_vec());
    let behind = |t: i64| t > promise.to_ns || t == promise.to_ns && promise.edge == Edge::StartClosed;
    let seen: Vec<i64> = points.iter().map(|(t, _)| *t).filter(|t| !behind(*t)).collect();
    let is_within = |t: &i64| promise.edge.holds(promise.from_ns, *t, promise.to_ns);
    let (within, before): (Vec<i64>, Vec<i64>) = seen.iter().partition(|t| is_within(t));
    let slots = (0..(promise.to_ns - promise.from_ns) / promise.interval_ns).filter(|slot| grid.in_scope(*slot));
    let slots = slots.count();
    let counted: Vec<_> = points.iter().filter(|(t, _)| is_within(t) && grid.takes(*t)).collect();
    let filled: std::collections::BTreeSet<i64> = counted.iter().map(|(t, _)| grid.slot_of(*t)).collect();
    let in_time = |(t, received): &&&(i64, i64)| latency.is_some_and(|latency| received - t <= latency);
    let next = seen.iter().skip(1).copied().chain([promise.to_ns]);
    let alive = seen.iter().zip(next).map(|(t, next)| {
        let until = (t + promise.alive_ns).min(next).min(promise.to_ns);
        grid.length((*t).max(promise.from_ns), until)
    });
    Assessment {
        slots: slots as u64,
        filled: filled.len() as u64,
        points: counted.len() as u64,
        timed: counted.iter().filter(|_| latency.is_some()).count() as u64,
        in_time: counted.iter().filter(in_time).count() as u64,
        alive_ns: alive.sum(),
        last_ns: seen.last().copied(),
        heard_ns: None,
        gaps: grid.gaps(&before, &within),
        freshness: grid.freshness(&seen, &within, slots),
    }
}

fn by_points(promise: &Promise, parts: &[Records], (from, to): (i64, i64), latency: Option<i64>) -> Assessment {
    let mut assessing = Assessing::new(promise);
    for part in parts {
        for (row, _, _) in part.column(LEVEL).unwrap().cells() {
            let t = part.observed_at[row];
            if (from..to).contains(&t) {
                assessing.point(t, part.received_at[row], latency);
                assessing.counting(t);
            }
        }
    }
    assessing.finish()
}

fn by_blocks(promise: &Promise, parts: &[Records], range: (i64, i64), latency: Option<i64>) -> Assessment {
    let mut assessing = Assessing::new(promise);
    for part in parts {
        let bytes = block::encode(part);
        let block = Block::parse(&bytes).unwrap().0;
        assessing.rows(&block, LEVEL, range, latency).unwrap();
    }
    assessing.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_tell_what_their_points_tell(seed: u64) {
        let rng = &mut Rng(seed);
        let step = [60, 300, 3_600][rng.below(3) as usize] * S;
        let parts = device(rng, step);
        let (promise, declared) = promise(rng, step);
        let before = rng.below(30) as i64 * step;
        let range = (promise.from_ns - before, promise.to_ns + 1);
        let latency = Some(60 * S).filter(|_| rng.chance(4) || seed % 2 == 0);
        let told = by_points(&promise, &parts, range, latency);
        prop_assert_eq!(&by_blocks(&promise, &parts, range, latency), &told);
        let points = parts.iter().flat_map(|part| {
            let rows = part.column(LEVEL).unwrap().cells().map(|(row, ..)| row);
            rows.map(|row| (part.observed_at[row], part.received_at[row])).collect::<Vec<_>>()
        });
        let points: Vec<_> = points.filter(|(t, _)| (range.0..range.1).contains(t)).collect();
        prop_assert_eq!(told, by_slots(&promise, &declared, &points, latency));
    }
}

#[test]
fn what_is_sound_is_told_by_the_header_or_by_the_values() {
    let sound = |values: Vec<f64>, checks: &Checks| {
        let rows = values.len() as i64;
        let bytes = block::encode(&Records {
            observed_at: (0..rows).collect(),
            received_at: (0..rows).collect(),
            report_kind: vec![0; rows as usize],
            columns: vec![Column {
                property: LEVEL,
                presence: None,
                values: Values::F64(values),
                quality: None,
            }],
            repeats: Vec::new(),
        });
        Block::parse(&bytes).unwrap().0.is_sound(LEVEL, checks).unwrap()
    };
    let checks = Checks {
        min: Some(0.0),
        typical_max: Some(5.0),
        ..Checks::default()
    };
    for rows in [10, 1_000] {
        let values = |odd: f64| {
            let mut values: Vec<f64> = (0..rows).map(|v| f64::from(v % 50) / 10.0).collect();
            values[7] = odd;
            values
        };
        assert!(sound(values(5.0), &checks), "{rows}");
        for odd in [5.1, -0.1, f64::NAN, f64::INFINITY] {
            assert!(!sound(values(odd), &checks), "{odd} among {rows}");
            assert!(sound(values(odd), &Checks::default()), "nothing is checked");
        }
        let order = Checks {
            spike: Some(1.0),
            ..checks.clone()
        };
        assert!(!sound(values(1.0), &order), "neighbours decide");
    }
}
