//! Rows of a block, assessed without looking at each of them where the block says that they are even: as far apart as the one
//! before, and as long on their way. Around maintenance it looks at each.
//!
//! Never here: which rows count (the caller knows). Invariant: what comes out is what giving the points one by one gives.

use super::Assessing;
use crate::block::{Block, Receipts, Ticks};
use crate::checks::Checks;
use crate::corrupt::Corrupt;
use crate::record::{PropertyNumber, Values};
use crate::stamps::{Even, Stamps};
use crate::window::Edge;

impl Block<'_> {
    /// Whether nothing is said or found against any value of a column: by what the header says, else by a look at the values. False also
    /// where neighbours have to be known.
    ///
    /// # Errors
    /// The column is damaged.
    pub fn is_sound(&self, property: PropertyNumber, checks: &Checks) -> Result<bool, Corrupt> {
        if self.has_qualities(property) || checks.needs_order() {
            return Ok(false);
        }
        if checks.limits_nothing() || self.count(property) == 0 {
            return Ok(true);
        }
        if let Some((min, max)) = self.stats(property).and_then(|stats| stats.ends_of_all()) {
            return Ok(checks.finds_nothing(min) && checks.finds_nothing(max));
        }
        let values = self.values_between(property, 0..self.count(property))?;
        Ok(match values {
            Values::F64(values) => values.iter().all(|value| checks.finds_nothing(*value)),
            Values::I64(values) => values.iter().all(|value| checks.finds_nothing(*value as f64)),
            Values::Bool(_) | Values::Enum(_) | Values::Text(_) => true,
        })
    }
}

impl Assessing<'_> {
    /// Takes the rows of a block that have a value of a property and were observed within `[from_ns, to_ns)`. All of them count, and
    /// the same latency is promised for each.
    ///
    /// # Errors
    /// A section of the block is damaged.
    pub fn rows(
        &mut self,
        block: &Block<'_>,
        property: PropertyNumber,
        (from_ns, to_ns): (i64, i64),
        latency_ns: Option<i64>,
    ) -> Result<(), Corrupt> {
        let ticks = block.read_ticks()?;
        let clocks = match &ticks {
            Ticks::Even(_) => None,
            Ticks::List(_, clocks) => clocks.as_ref(),
        };
        let presence = block.presence_of(property, clocks)?;
        let receipts = block.read_receipts()?;
        let within = |times: &[i64]| {
            let start = times.partition_point(|t| *t < from_ns);
            start..times.partition_point(|t| *t < to_ns).max(start)
        };
        match (ticks, presence) {
            (Ticks::Even(even), None) => {
                let (start, end) = (even.partition(|t| t < from_ns), even.partition(|t| t < to_ns));
                self.even(even, start..end, &receipts, latency_ns);
            }
            (Ticks::List(times, _), None) => {
                for row in within(&times) {
                    self.row(times[row], &receipts, row, latency_ns);
                }
            }
            (ticks, Some(presence)) => {
                let times = ticks.list();
                let rows = within(&times);
                for row in presence.ones_between(rows.start, rows.end) {
                    self.row(times[row], &receipts, row, latency_ns);
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, t_ns: i64, receipts: &Receipts, row: usize, latency_ns: Option<i64>) {
        self.point(t_ns, receipts.at(row, t_ns), latency_ns);
        self.counting(t_ns);
    }

    /// Rows that all have a value, at even times.
    fn even(&mut self, times: Even, rows: std::ops::Range<usize>, receipts: &Receipts, latency_ns: Option<i64>) {
        let (edge, from_ns, to_ns) = (self.promise.edge, self.promise.from_ns, self.promise.to_ns);
        let first = times.partition(|t| match edge {
            Edge::StartClosed => t < from_ns,
            Edge::EndClosed => t <= from_ns,
        });
        let behind = times.partition(|t| match edge {
            Edge::StartClosed => t < to_ns,
            Edge::EndClosed => t <= to_ns,
        });
        let end = rows.end.min(behind);
        // Of those before the time only the last one tells anything, and the first one within it looks back to that. Of one under
        // maintenance the ones before it have to be known.
        let start = match first.checked_sub(1) {
            Some(last) if self.is_left_out(times.at(last)) => rows.start,
            last => rows.start.max(last.unwrap_or(0)),
        };
        let single = (rows.start.max(first) + 1).min(end);
        for row in start..single {
            self.row(times.at(row), receipts, row, latency_ns);
        }
        if single >= end {
            return;
        }
        if !self.steps(times.at(single), times.at(end - 1), times.step_ns, end - single) {
            for row in single..end {
                self.row(times.at(row), receipts, row, latency_ns);
            }
            return;
        }
        let Some(latency) = latency_ns else { return };
        self.found.timed += (end - single) as u64;
        self.found.in_time += match receipts {
            Receipts::Delay(delay) if *delay <= latency => (end - single) as u64,
            Receipts::Delay(_) => 0,
            Receipts::Delays(delays) => {
                let rows = delays.get(single..end).unwrap_or_default();
                rows.iter().filter(|delay| **delay <= latency).count() as u64
            }
            Receipts::Times(_) => {
                let late_by = |row: usize| receipts.at(row, times.at(row)).saturating_sub(times.at(row));
                (single..end).filter(|row| late_by(*row) <= latency).count() as u64
            }
        };
    }

    /// Points within the time, so far apart each, the first one so far from the last point; how late they came is not looked at. False, and
    /// nothing done, where there are gaps between them, more than slots, or maintenance.
    fn steps(&mut self, first_ns: i64, last_ns: i64, step_ns: i64, count: usize) -> bool {
        let promise = self.promise;
        let interval = promise.interval_ns.max(1);
        let before_ns = first_ns.wrapping_sub(step_ns);
        let (Some(before), Some((first_counting, last_counting))) = (self.slot, self.counting_ns) else {
            return false;
        };
        let follows = self.found.last_ns == Some(before_ns) && last_counting == before_ns;
        let last = self.slot_of(last_ns);
        if !follows || step_ns as f64 / interval as f64 > promise.gap_factor || last >= self.slots {
            return false;
        }
        if self.left_out.touch(before_ns, last_ns) {
            return false;
        }
        self.found.points += count as u64;
        // A step of more than an interval reaches another slot, all smaller ones together reach each.
        self.found.filled += match step_ns > interval {
            true => count as u64,
            false => (last - before).max(0) as u64,
        };
        self.found.alive_ns += step_ns.min(promise.alive_ns).saturating_mul(count as i64);
        self.evenly.push((step_ns, count as u64));
        self.slot = Some(last);
        self.found.last_ns = Some(last_ns);
        self.counting_ns = Some((first_counting, last_ns));
        true
    }
}
