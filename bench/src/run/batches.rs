//! Which rows go into which batch. Never here: values, requests. Invariant: spans that follow on each other hold every row
//! of their time once, whatever the order.

use std::ops::Range;

use super::fleet::{Fleet, Type};

/// A span of time, seconds from time 0.
pub(crate) type Span = Range<i64>;

/// In what order rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they are observed, the whole type by turns: what a gateway forwards.
    ByTime,
    /// All of a device, then the next: what devices send that were cut off, or what is filled in later.
    ByDevice,
}

/// A batch: rows of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) type_at: usize,
    order: Order,
    slots: Range<i64>,
    devices: usize,
    rows: Range<usize>,
    /// When its last row is observed, seconds from time 0.
    pub(crate) due_s: i64,
}

/// One record: device by position, and slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowAt {
    pub(crate) device: usize,
    pub(crate) slot: i64,
}

/// Slots of a type that lie in a span.
pub(crate) fn slots(one: &Type, span: &Span) -> Range<i64> {
    span.start.div_euclid(one.interval_s)..span.end.div_euclid(one.interval_s)
}

/// All rows of a span in batches of at most so many, ordered by when they are due.
pub(crate) fn batches(fleet: &Fleet, span: &Span, order: Order, rows: usize) -> Vec<Batch> {
    let mut all = Vec::new();
    for (type_at, one) in fleet.types.iter().enumerate() {
        let slots = slots(one, span);
        let per_device = usize::try_from(slots.end - slots.start).unwrap_or(0);
        let total = per_device * one.devices.len();
        for first in (0..total).step_by(rows.max(1)) {
            let mut batch = Batch {
                type_at,
                order,
                slots: slots.clone(),
                devices: one.devices.len(),
                rows: first..(first + rows.max(1)).min(total),
                due_s: 0,
            };
            let last = batch.rows.end - 1;
            let slot = match order {
                Order::ByTime => batch.row(last).slot,
                Order::ByDevice => slots.end,
            };
            batch.due_s = slot * one.interval_s;
            all.push(batch);
        }
    }
    all.sort_by_key(|batch| (batch.due_s, batch.type_at, batch.rows.start));
    all
}

/// Points in all rows of a span.
pub(crate) fn points(fleet: &Fleet, span: &Span) -> u64 {
    let of = |one: &Type| {
        let slots = slots(one, span);
        (slots.end - slots.start).unsigned_abs() * (one.devices.len() * one.properties.len()) as u64
    };
    fleet.types.iter().map(of).sum()
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn points(&self, fleet: &Fleet) -> u64 {
        let properties = fleet.types.get(self.type_at).map_or(0, |one| one.properties.len());
        (self.len() * properties) as u64
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = RowAt> + '_ {
        self.rows.clone().map(|row| self.row(row))
    }

    fn row(&self, row: usize) -> RowAt {
        match self.order {
            Order::ByTime => RowAt {
                device: row % self.devices,
                slot: self.slots.start + (row / self.devices) as i64,
            },
            Order::ByDevice => {
                let per_device = usize::try_from(self.slots.end - self.slots.start).unwrap_or(1).max(1);
                RowAt {
                    device: row / per_device,
                    slot: self.slots.start + (row % per_device) as i64,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use super::super::fleet::FleetSpec;
    use super::*;

    #[test]
    fn spans_that_follow_on_each_other_hold_every_row_once() {
        let spec = FleetSpec {
            every: 40,
            ..FleetSpec::default()
        };
        let fleet = Fleet::new(&spec).unwrap();
        let mut seen = HashSet::new();
        let mut count = 0;
        let cuts = [-7_200, 0, 5_000, 5_001, 86_400];
        for (i, pair) in cuts.windows(2).enumerate() {
            let order = [Order::ByDevice, Order::ByTime][i % 2];
            let span = pair[0]..pair[1];
            let mut points_in_batches = 0;
            for batch in batches(&fleet, &span, order, 700) {
                assert!(batch.len() <= 700);
                points_in_batches += batch.points(&fleet);
                for row in batch.rows() {
                    count += 1;
                    assert!(seen.insert((batch.type_at, row.device, row.slot)));
                }
            }
            assert_eq!(points_in_batches, points(&fleet, &span));
        }
        let whole: usize = batches(&fleet, &(-7_200..86_400), Order::ByTime, 700)
            .iter()
            .map(Batch::len)
            .sum();
        assert_eq!(count, whole);
    }

    #[test]
    fn rows_by_time_come_in_time_and_two_hours_of_the_fleet_are_a_storm() {
        let fleet = Fleet::new(&FleetSpec::default()).unwrap();
        let all = batches(&fleet, &(0..86_400), Order::ByTime, 10_000);
        for batch in &all {
            let one = &fleet.types[batch.type_at];
            let times: Vec<i64> = batch
                .rows()
                .map(|row| one.at_ms(&one.devices[row.device], row.slot))
                .collect();
            assert!(times.is_sorted());
        }
        // A record a day of the catalogue's README; text has no row of its own.
        assert_eq!(all.iter().map(Batch::len).sum::<usize>(), 3_217_924);
        assert!(all.is_sorted_by_key(|batch| batch.due_s));
    }
}
