//! What is there of records that were sent, acknowledged or not. Never here: sending them. Invariant: a type is read record by
//! record, unless nothing of it is of unknown fate and its count, sum and maximum are those of what was acknowledged; so a
//! record that was stored without an acknowledgement never stands for one that is lost.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::batches::{Batch, Span, slots};
use super::expect::close;
use super::fleet::{Device, Fleet, Property, START_MS, Type, ValueType};
use super::question::{Ask, Row, Series};
use super::stores::Session;
use super::value::value;
use crate::report;

/// What differs from what was acknowledged.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recount {
    /// Acknowledged, and not there with its value.
    pub(crate) lost: u64,
    /// There, but never sent, or once more.
    pub(crate) unsent: u64,
}

/// Counts what a span holds. `acknowledged` and `unknown`: all batches of that span that were sent.
pub(crate) async fn recount(
    fleet: &Fleet,
    session: &mut Session,
    span: &Span,
    acknowledged: &[&Batch],
    unknown: &[&Batch],
) -> Result<Recount> {
    let mut sum = Recount::default();
    for (type_at, one) in fleet.types.iter().enumerate() {
        let of_type = |batches: &[&Batch]| -> Vec<Batch> {
            let of_type = batches.iter().filter(|batch| batch.type_at == type_at);
            of_type.map(|batch| (*batch).clone()).collect()
        };
        let records = Records {
            series: counted(type_at, one)?,
            one,
            span_ms: span_ms(one, span),
            acknowledged: of_type(acknowledged),
            unknown: of_type(unknown),
        };
        let whole = records.unknown.is_empty() && records.as_expected(session).await?;
        if !whole && !slots(one, span).is_empty() {
            records.one_by_one(session, &mut sum).await?;
        }
    }
    Ok(sum)
}

/// Records are counted by a property that is a number.
fn counted(type_at: usize, one: &Type) -> Result<Series> {
    let number = |property: &Property| matches!(property.value_type, ValueType::F64 | ValueType::I64);
    let property = one.properties.iter().position(number);
    let property = property.with_context(|| format!("{} has no number", one.id))?;
    Ok(Series { type_at, property })
}

/// Half a second early at both ends, so that no record lies on an edge.
fn span_ms(one: &Type, span: &Span) -> (i64, i64) {
    let slots = slots(one, span);
    let ms = |slot: i64| START_MS + slot * one.interval_s * 1_000 - 500;
    (ms(slots.start), ms(slots.end))
}

/// What was sent of one type.
struct Records<'a> {
    series: Series,
    one: &'a Type,
    span_ms: (i64, i64),
    acknowledged: Vec<Batch>,
    unknown: Vec<Batch>,
}

/// Records of a device by their time: slot, and whether it was acknowledged.
type Sent = BTreeMap<i64, (i64, bool)>;

impl Records<'_> {
    fn property(&self) -> Result<&Property> {
        let property = self.one.properties.get(self.series.property);
        property.context("no such property")
    }

    /// Whether count, sum and maximum are those of what was acknowledged. One that cannot say is read record by record.
    async fn as_expected(&self, session: &mut Session) -> Result<bool> {
        let property = self.property()?;
        let (mut count, mut total, mut max) = (0.0, 0.0, f64::NEG_INFINITY);
        for row in self.acknowledged.iter().flat_map(Batch::rows) {
            let device = self.one.devices.get(row.device).context("no such device")?;
            let v = value(device, property, row.slot, self.one.interval_s);
            (count, total, max) = (count + 1.0, total + v, v.max(max));
        }
        let (from_ms, to_ms) = self.span_ms;
        let ask = Ask::Total {
            of: self.series,
            from_ms,
            to_ms,
        };
        match session.ask(&ask).await {
            // Nothing at all is no row, or an empty one.
            Ok(rows) if count == 0.0 => Ok(rows
                .iter()
                .all(|row| row.values.first().is_none_or(|found| *found == 0.0))),
            Ok(rows) => Ok(matches!(&rows[..], [row] if close(&[count, total, max], &row.values))),
            Err(error) => {
                report::note(&format!("{}: read record by record: {error:#}", self.one.id));
                Ok(false)
            }
        }
    }

    async fn one_by_one(&self, session: &mut Session, sum: &mut Recount) -> Result<()> {
        let (from_ms, to_ms) = self.span_ms;
        for (at, sent) in self.by_device()?.iter().enumerate() {
            let ask = Ask::Raw {
                of: self.series,
                device: at,
                from_ms,
                to_ms,
            };
            let found = session.ask(&ask).await;
            let device = self.one.devices.get(at).context("no such device")?;
            let found = found.with_context(|| format!("read {} back", device.id))?;
            self.compare(device, sent, &found, sum)?;
        }
        Ok(())
    }

    fn by_device(&self) -> Result<Vec<Sent>> {
        let mut all = vec![Sent::new(); self.one.devices.len()];
        for (batches, acknowledged) in [(&self.acknowledged, true), (&self.unknown, false)] {
            for row in batches.iter().flat_map(Batch::rows) {
                let device = self.one.devices.get(row.device).context("no such device")?;
                let sent = all.get_mut(row.device).context("no such device")?;
                sent.insert(self.one.at_ms(device, row.slot), (row.slot, acknowledged));
            }
        }
        Ok(all)
    }

    fn compare(&self, device: &Device, sent: &Sent, found: &[Row], sum: &mut Recount) -> Result<()> {
        let (property, mut there) = (self.property()?, BTreeSet::new());
        for row in found {
            let right = sent.get(&row.at_ms).is_some_and(|(slot, _)| {
                let v = value(device, property, *slot, self.one.interval_s);
                close(&[v], &row.values)
            });
            // Once.
            if !(right && there.insert(row.at_ms)) {
                sum.unsent += 1;
            }
        }
        let lost = |(at_ms, (_, acknowledged)): &(&i64, &(i64, bool))| *acknowledged && !there.contains(*at_ms);
        sum.lost += sent.iter().filter(lost).count() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::batches::{Order, batches};
    use super::super::fleet::few;
    use super::super::stores::Made;
    use super::*;

    const SPAN: Span = 0..7_200;

    /// Two hours of two types, and a store that holds all of them.
    struct Scene {
        fleet: Fleet,
        all: Vec<Batch>,
        /// Where the batches of one of the types are.
        monitors: Vec<usize>,
        store: Made,
    }

    fn scene() -> Scene {
        let fleet = few();
        let all = batches(&fleet, &SPAN, Order::ByTime, 10);
        let type_at = fleet.type_at("electrical_fire_monitor").unwrap();
        let monitors = (0..all.len()).filter(|at| all[*at].type_at == type_at).collect();
        let mut store = Made::default();
        all.iter().for_each(|batch| store.put(&fleet, batch));
        Scene {
            fleet,
            all,
            monitors,
            store,
        }
    }

    /// `lost` and `unsent` where these batches are of unknown fate, and all others acknowledged.
    async fn check(scene: Scene, unknown: &[usize], expected: (u64, u64)) {
        let of = |known: bool| -> Vec<&Batch> {
            let all = scene.all.iter().enumerate();
            all.filter(|(at, _)| unknown.contains(at) != known)
                .map(|(_, batch)| batch)
                .collect()
        };
        let mut session = Session::Made(scene.store);
        let found = recount(&scene.fleet, &mut session, &SPAN, &of(true), &of(false)).await;
        let found = found.unwrap();
        assert_eq!((found.lost, found.unsent), expected, "lost, unsent");
    }

    #[tokio::test]
    async fn what_is_whole_is_whole() {
        check(scene(), &[], (0, 0)).await;
    }

    #[tokio::test]
    async fn a_batch_of_unknown_fate_may_be_there_or_not() {
        let (stored, mut gone) = (scene(), scene());
        let last = gone.monitors[gone.monitors.len() - 1];
        check(stored, &[last], (0, 0)).await;
        gone.store.lose(&gone.fleet, &gone.all[last]);
        check(gone, &[last], (0, 0)).await;
    }

    #[tokio::test]
    async fn a_stored_batch_of_unknown_fate_does_not_hide_a_lost_one() {
        let mut scene = scene();
        let (first, last) = (scene.monitors[0], scene.monitors[scene.monitors.len() - 1]);
        scene.store.lose(&scene.fleet, &scene.all[first]);
        let lost = scene.all[first].len() as u64;
        check(scene, &[last], (lost, 0)).await;
    }

    #[tokio::test]
    async fn a_record_that_nobody_sent_does_not_hide_a_lost_one() {
        let mut scene = scene();
        let first = scene.monitors[0];
        scene.store.lose(&scene.fleet, &scene.all[first]);
        let other = scene.all[scene.monitors[1]].clone();
        scene.store.put(&scene.fleet, &other);
        let (lost, twice) = (scene.all[first].len() as u64, other.len() as u64);
        check(scene, &[], (lost, twice)).await;
    }

    #[tokio::test]
    async fn another_value_is_a_record_lost_and_one_that_nobody_sent() {
        let mut scene = scene();
        let last = scene.monitors[scene.monitors.len() - 1];
        scene.store.points[0].v += 1.0;
        check(scene, &[last], (1, 1)).await;
    }

    #[tokio::test]
    async fn a_type_of_which_nothing_was_sent_holds_nothing() {
        let mut scene = scene();
        let monitor = scene.all[scene.monitors[0]].type_at;
        scene.all.retain(|batch| batch.type_at == monitor);
        let unsent = scene
            .store
            .points
            .iter()
            .filter(|point| point.type_at != monitor)
            .count();
        check(scene, &[], (0, unsent as u64)).await;
    }
}
