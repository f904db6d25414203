//! The oracle of a run: every answer made again from the generator and compared. Never here: a store. Invariant: an answer
//! passes only if every row is there once with its values; sums and averages may differ by the order of adding.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Result, bail, ensure};

use super::batches::{Span, slots};
use super::fleet::{Device, Fleet, Property, Type};
use super::question::{Ask, Row, Series, TOP};
use super::value::value;

const HOUR_MS: i64 = 3_600_000;
/// Relative difference that the order of adding, or a decimal on its way, may make.
const TOLERANCE: f64 = 1e-9;
/// Rows of a difference that are told.
const TOLD: usize = 3;

/// Checks an answer. `written`: what is stored for certain.
pub(crate) fn check(fleet: &Fleet, written: &Span, ask: &Ask, expected: &[Row], found: Vec<Row>) -> Result<()> {
    match ask {
        Ask::Top { .. } => check_top(expected, found),
        Ask::Latest { type_at, .. } => match fleet.types.get(*type_at) {
            Some(one) => check_latest(one, written, expected, found),
            None => bail!("no such type"),
        },
        _ => check_rows(expected, found),
    }
}

/// The right answer. For a top list: the maximum of every device.
pub(crate) fn expect(fleet: &Fleet, written: &Span, ask: &Ask) -> Vec<Row> {
    // A question about what the fleet does not have is answered by nothing.
    answer(fleet, written, ask).unwrap_or_default()
}

fn answer(fleet: &Fleet, written: &Span, ask: &Ask) -> Option<Vec<Row>> {
    let column = |of: &Series| Column::new(fleet, written, of);
    let hour = |at_ms: i64| at_ms - at_ms.rem_euclid(HOUR_MS);
    Some(match ask {
        Ask::Raw {
            of,
            device,
            from_ms,
            to_ms,
        } => {
            let column = column(of)?;
            let points = column.points(column.one.devices.get(*device)?, *from_ms, *to_ms);
            points.map(|(at_ms, v)| Row::new("", at_ms, vec![v])).collect()
        }
        Ask::Hourly {
            of,
            device,
            from_ms,
            to_ms,
        } => {
            let column = column(of)?;
            let device = column.one.devices.get(*device..=*device)?;
            let groups = column.fold(device, (*from_ms, *to_ms), |_, at_ms| ("", hour(at_ms)));
            rows(groups, |s| vec![s.sum / s.count, s.min, s.max])
        }
        Ask::Latest { type_at, .. } => latest(fleet.types.get(*type_at)?, written),
        Ask::GroupHour { of, from_ms, to_ms } => {
            let column = column(of)?;
            let groups = column.fold(&column.one.devices, (*from_ms, *to_ms), |d, at_ms| {
                (&d.town, hour(at_ms))
            });
            rows(groups, |s| vec![s.max])
        }
        Ask::Top { of, from_ms, to_ms } => {
            let column = column(of)?;
            let groups = column.fold(&column.one.devices, (*from_ms, *to_ms), |d, _| (&d.id, 0));
            rows(groups, |s| vec![s.max])
        }
        Ask::Total { of, from_ms, to_ms } => {
            let column = column(of)?;
            let groups = column.fold(&column.one.devices, (*from_ms, *to_ms), |_, _| ("", 0));
            rows(groups, |s| vec![s.count, s.sum, s.max])
        }
    })
}

/// A property of a type as it is stored.
struct Column<'a> {
    one: &'a Type,
    property: &'a Property,
    slots: Range<i64>,
}

type Groups<'a> = BTreeMap<(&'a str, i64), Sums>;

impl<'a> Column<'a> {
    fn new(fleet: &'a Fleet, written: &Span, of: &Series) -> Option<Column<'a>> {
        let one = fleet.types.get(of.type_at)?;
        Some(Column {
            one,
            property: one.properties.get(of.property)?,
            slots: slots(one, written),
        })
    }

    fn points(&self, device: &'a Device, from_ms: i64, to_ms: i64) -> impl Iterator<Item = (i64, f64)> + use<'a> {
        let (one, property, first_ms) = (self.one, self.property, self.one.at_ms(device, 0));
        // From the slot that holds the first moment to the one that holds the last.
        let slot_of = |ms: i64| (ms - first_ms).div_euclid(one.interval_s * 1_000);
        let range = slot_of(from_ms).max(self.slots.start)..(slot_of(to_ms) + 1).min(self.slots.end);
        range.filter_map(move |slot| {
            let at_ms = one.at_ms(device, slot);
            let within = (from_ms..to_ms).contains(&at_ms);
            within.then(|| (at_ms, value(device, property, slot, one.interval_s)))
        })
    }

    /// Sums of all points, by a key of device and time.
    fn fold(
        &self,
        devices: &'a [Device],
        (from_ms, to_ms): (i64, i64),
        key: impl Fn(&'a Device, i64) -> (&'a str, i64),
    ) -> Groups<'a> {
        let mut groups = Groups::new();
        for device in devices {
            for (at_ms, v) in self.points(device, from_ms, to_ms) {
                groups.entry(key(device, at_ms)).or_insert(NONE).add(v);
            }
        }
        groups
    }
}

fn rows(groups: Groups<'_>, values: impl Fn(Sums) -> Vec<f64>) -> Vec<Row> {
    let row = |((key, at_ms), sums): ((&str, i64), Sums)| Row::new(key, at_ms, values(sums));
    groups.into_iter().map(row).collect()
}

#[derive(Clone, Copy)]
struct Sums {
    count: f64,
    sum: f64,
    min: f64,
    max: f64,
}

const NONE: Sums = Sums {
    count: 0.0,
    sum: 0.0,
    min: f64::INFINITY,
    max: f64::NEG_INFINITY,
};

impl Sums {
    fn add(&mut self, v: f64) {
        self.count += 1.0;
        self.sum += v;
        self.min = self.min.min(v);
        self.max = self.max.max(v);
    }
}

fn latest(one: &Type, written: &Span) -> Vec<Row> {
    let slots = slots(one, written);
    let mut rows = Vec::new();
    if slots.is_empty() {
        return rows;
    }
    for device in &one.devices {
        for property in &one.properties {
            let v = value(device, property, slots.end - 1, one.interval_s);
            rows.push(Row::new(
                format!("{}/{}", device.id, property.id),
                one.at_ms(device, slots.end - 1),
                vec![v],
            ));
        }
    }
    rows
}

fn check_rows(expected: &[Row], mut found: Vec<Row>) -> Result<()> {
    found.sort_by(|a, b| (&a.key, a.at_ms).cmp(&(&b.key, b.at_ms)));
    let mut expected: Vec<&Row> = expected.iter().collect();
    expected.sort_by(|a, b| (&a.key, a.at_ms).cmp(&(&b.key, b.at_ms)));
    let differs: Vec<String> = expected
        .iter()
        .zip(&found)
        .filter(|(a, b)| a.key != b.key || a.at_ms != b.at_ms || !close(&a.values, &b.values))
        .map(|(a, b)| format!("{a:?} came as {b:?}"))
        .take(TOLD)
        .collect();
    ensure!(
        expected.len() == found.len(),
        "{} rows instead of {}; {}",
        found.len(),
        expected.len(),
        differs.join("; ")
    );
    ensure!(differs.is_empty(), "{}", differs.join("; "));
    Ok(())
}

/// While more is written, a store may show a newer value than was known for certain; it must be that of its time.
fn check_latest(one: &Type, written: &Span, expected: &[Row], mut found: Vec<Row>) -> Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{} latest values instead of {}",
        found.len(),
        expected.len()
    );
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let known: BTreeMap<&str, &Row> = expected.iter().map(|row| (row.key.as_str(), row)).collect();
    let end = slots(one, written).end;
    for pair in found.windows(2) {
        if let [a, b] = pair {
            ensure!(a.key != b.key, "{} came twice", a.key);
        }
    }
    for row in &found {
        let Some(expected) = known.get(row.key.as_str()) else {
            bail!("{} is not asked for", row.key)
        };
        let mut right = expected.values.clone();
        if row.at_ms > expected.at_ms {
            let newer = newer(one, row, expected.at_ms, end);
            ensure!(newer.is_some(), "{row:?} is of no record");
            right = newer.into_iter().collect();
        }
        ensure!(
            close(&right, &row.values) && (row.at_ms == 0 || row.at_ms >= expected.at_ms),
            "{expected:?} came as {row:?}"
        );
    }
    Ok(())
}

/// The value that a record later than the known one would have.
fn newer(one: &Type, row: &Row, known_ms: i64, end: i64) -> Option<f64> {
    let (device, property) = row.key.split_once('/')?;
    let device = one.devices.iter().find(|d| d.id == device)?;
    let property = one.properties.iter().find(|p| p.id == property)?;
    let step_ms = one.interval_s * 1_000;
    let later = (row.at_ms - known_ms) / step_ms;
    ((row.at_ms - known_ms) % step_ms == 0).then(|| value(device, property, end - 1 + later, one.interval_s))
}

/// The order that Tidemark promises, and other stores need not have: rows of a key by time; a top list from its leader on,
/// of equal ones the first by name.
pub(crate) fn check_order(ask: &Ask, expected: &[Row], found: &[Row]) -> Result<()> {
    if let Ask::Top { .. } = ask {
        let mut right: Vec<&Row> = expected.iter().collect();
        right.sort_by(|a, b| first(b).total_cmp(&first(a)).then_with(|| a.key.cmp(&b.key)));
        let right: Vec<&str> = right.iter().take(TOP).map(|row| row.key.as_str()).collect();
        let found: Vec<&str> = found.iter().map(|row| row.key.as_str()).collect();
        ensure!(found == right, "the leaders are {right:?}, not {found:?}");
        return Ok(());
    }
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for row in found {
        if let Some(before_ms) = last.insert(&row.key, row.at_ms) {
            ensure!(before_ms < row.at_ms, "{row:?} came behind the time {before_ms}");
        }
    }
    Ok(())
}

/// Equal values may stand in any order, and the last of them may be any device with that value.
fn check_top(expected: &[Row], mut found: Vec<Row>) -> Result<()> {
    let known: BTreeMap<&str, f64> = expected
        .iter()
        .filter_map(|row| Some((row.key.as_str(), *row.values.first()?)))
        .collect();
    let mut best: Vec<f64> = known.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    best.truncate(TOP);
    found.sort_by(|a, b| first(b).total_cmp(&first(a)));
    let values: Vec<f64> = found.iter().map(first).collect();
    ensure!(
        values.len() == best.len() && close(&best, &values),
        "{values:?} instead of {best:?}"
    );
    let mut seen = BTreeSet::new();
    for row in &found {
        ensure!(seen.insert(&row.key), "{} came twice", row.key);
        let right = known.get(row.key.as_str()).is_some_and(|v| close(&[*v], &row.values));
        ensure!(right, "{} does not have {:?}", row.key, row.values);
    }
    Ok(())
}

fn first(row: &Row) -> f64 {
    row.values.first().copied().unwrap_or(f64::NAN)
}

/// The same numbers, but for the order of adding.
pub(crate) fn close(a: &[f64], b: &[f64]) -> bool {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0);
    a.len() == b.len() && a.iter().zip(b).all(near)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fleet::{START_MS, few};
    use super::super::question::{Kind, Questioner, Subjects};
    use super::*;

    const DAY_S: i64 = 86_400;

    #[test]
    fn the_right_answer_passes_and_any_change_of_it_fails() {
        let (fleet, written) = (few(), 0..2 * DAY_S);
        let asks = Questioner::new(&fleet, &Subjects::default()).unwrap();
        for kind in Kind::ALL {
            let ask = asks.ask(kind, 3, &written);
            let right = expect(&fleet, &written, &ask);
            assert!(!right.is_empty(), "{kind:?}");
            let mut answer = right.clone();
            if kind == Kind::Top {
                answer.sort_by(|a, b| b.values[0].total_cmp(&a.values[0]));
                answer.truncate(TOP);
            }
            answer.reverse();
            check(&fleet, &written, &ask, &right, answer.clone()).unwrap();
            let mut wrong = answer.clone();
            wrong[0].values[0] += 0.1;
            assert!(check(&fleet, &written, &ask, &right, wrong).is_err(), "{kind:?}");
            answer.pop();
            assert!(check(&fleet, &written, &ask, &right, answer).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn a_device_twice_in_a_top_list_is_seen_where_it_has_the_value_of_another() {
        let (fleet, written) = (few(), 0..2 * DAY_S);
        let ask = Questioner::new(&fleet, &Subjects::default())
            .unwrap()
            .ask(Kind::Top, 0, &written);
        let rows = |keys: &[&str]| -> Vec<Row> { keys.iter().map(|key| Row::new(*key, 0, vec![7.0])).collect() };
        let right = rows(&["a", "b", "c"]);
        check(&fleet, &written, &ask, &right, rows(&["c", "a", "b"])).unwrap();
        assert!(check(&fleet, &written, &ask, &right, rows(&["a", "b", "b"])).is_err());
    }

    #[test]
    fn the_promised_order_passes_and_any_other_fails() {
        let (fleet, written) = (few(), 0..2 * DAY_S);
        let asks = Questioner::new(&fleet, &Subjects::default()).unwrap();
        for kind in [Kind::RawDay, Kind::HourlyAll, Kind::GroupHour, Kind::Top] {
            let ask = asks.ask(kind, 0, &written);
            let right = expect(&fleet, &written, &ask);
            let mut answer = right.clone();
            if kind == Kind::Top {
                // The leaders of equal value by name: a stable sort of what is in the order of names.
                answer.sort_by(|a, b| b.values[0].total_cmp(&a.values[0]));
                answer.truncate(TOP);
            }
            check_order(&ask, &right, &answer).unwrap();
            answer.swap(0, 1);
            check(&fleet, &written, &ask, &right, answer.clone()).unwrap();
            assert!(check_order(&ask, &right, &answer).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn equal_leaders_stand_by_name() {
        let ask = Ask::Top {
            of: Series {
                type_at: 0,
                property: 0,
            },
            from_ms: 0,
            to_ms: 1,
        };
        let rows = |keys: [&str; 3], values: [f64; 3]| -> Vec<Row> {
            let all = keys.iter().zip(values);
            all.map(|(key, v)| Row::new(*key, 0, vec![v])).collect()
        };
        let right = rows(["a", "b", "c"], [5.0, 7.0, 7.0]);
        check_order(&ask, &right, &rows(["b", "c", "a"], [7.0, 7.0, 5.0])).unwrap();
        assert!(check_order(&ask, &right, &rows(["c", "b", "a"], [7.0, 7.0, 5.0])).is_err());
    }

    #[test]
    fn answers_hold_what_the_span_holds() {
        let (fleet, written) = (few(), 0..2 * DAY_S);
        let asks = Questioner::new(&fleet, &Subjects::default()).unwrap();
        let rows = |kind| expect(&fleet, &written, &asks.ask(kind, 0, &written));
        assert_eq!(
            (
                rows(Kind::RawDay).len(),
                rows(Kind::RawAll).len(),
                rows(Kind::HourlyAll).len()
            ),
            (288, 576, 48)
        );
        assert_eq!(rows(Kind::Total)[0].values[0], (64 * 576) as f64);
        assert!(
            rows(Kind::RawAll)
                .iter()
                .all(|row| (START_MS..START_MS + 2 * DAY_S * 1_000).contains(&row.at_ms))
        );
        assert_eq!(rows(Kind::Latest).len(), 22 * 3);
    }

    #[test]
    fn a_newer_latest_value_must_be_that_of_its_time() {
        let (fleet, written) = (few(), 0..DAY_S);
        let ask = Questioner::new(&fleet, &Subjects::default())
            .unwrap()
            .ask(Kind::Latest, 0, &written);
        let right = expect(&fleet, &written, &ask);
        let mut later = expect(&fleet, &(0..DAY_S + 7_200), &ask);
        check(&fleet, &written, &ask, &right, later.clone()).unwrap();
        later[0].at_ms += 1_000;
        assert!(check(&fleet, &written, &ask, &right, later).is_err());
    }
}
