//! Reports of some types of the fleet recomputed from their raw records, read through the client, by definitions and nothing of the store.
//! Never here: what the fleet is known to report (see `fleet_health`). Invariant: every number of a device comes from the list of its records.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::seq::SliceRandom as _;
use tidemark_client::{Client, Value, rows, v1};
use v1::Freshness;

/// Types are taken as long as they promise no more records than this together.
const RECORDS_MAX: i64 = 300_000;

/// A record of a device: when it was received, and the value of the first property where that is a number.
type Record = (i64, Option<f64>);

/// What is told of a device, as whole numbers, by name.
type Numbers = BTreeMap<&'static str, u64>;

/// A device by its records.
struct Recomputed {
    numbers: Numbers,
    freshness: Freshness,
    completeness: f64,
    availability: f64,
}

/// Compares reports of the day that begins at a time, of devices and of types.
pub(crate) async fn check(
    client: &Client,
    types: &BTreeMap<String, v1::DeviceType>,
    (devices, by_type): (&[v1::QualityReport], &[v1::QualityReport]),
    from: i64,
) {
    let mut order: Vec<&v1::DeviceType> = types.values().collect();
    order.shuffle(&mut seeded());
    let (mut records, mut compared) = (0, Vec::new());
    for of in order {
        let reports = || devices.iter().filter(|report| report.device_type == of.id);
        let promised = reports().count() as i64 * DAY / (of.sample_interval_s * S);
        if records + promised > RECORDS_MAX {
            continue;
        }
        records += promised;
        let raw = raw(client, of, from + DAY).await;
        let mut all = Vec::new();
        for report in reports() {
            let found = recomputed(of, raw.get(&report.device), (from, from + DAY));
            assert_eq!(numbers_of(report), found.numbers, "{}", report.device);
            assert_eq!(report.freshness(), found.freshness, "{}", report.device);
            near(report.availability_mean, found.availability, &report.device);
            all.push(found);
        }
        let report = by_type.iter().find(|report| report.device_type == of.id).unwrap();
        assert_eq!(report.devices, all.len() as u64, "{}", of.id);
        let mut sums = Numbers::new();
        for (name, number) in all.iter().flat_map(|one| &one.numbers) {
            *sums.entry(*name).or_default() += *number;
        }
        assert_eq!(numbers_of(report), sums, "{}", of.id);
        let mean = |of_one: fn(&Recomputed) -> f64| all.iter().map(of_one).sum::<f64>() / all.len() as f64;
        near(report.completeness_mean, mean(|one| one.completeness), &of.id);
        near(report.availability_mean, mean(|one| one.availability), &of.id);
        compared.push(of.id.as_str());
    }
    println!("recomputed from {records} promised records: {compared:?}");
    assert!(compared.len() > 3, "{compared:?}");
}

fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-9, "{what}: {found}, not {expected}");
}

fn numbers_of(report: &v1::QualityReport) -> Numbers {
    Numbers::from([
        ("slots expected", report.slots_expected),
        ("slots filled", report.slots_filled),
        ("points", report.points),
        ("points in time", report.points_in_time),
        ("points that fail", report.points_fail),
        ("offline", report.offline),
        ("never", report.never),
    ])
}

/// All records of a type before a time, by device and time.
async fn raw(client: &Client, of: &v1::DeviceType, to: i64) -> BTreeMap<String, BTreeMap<i64, Record>> {
    let request = v1::QueryRangeRequest {
        to_ns: to,
        ..everything(of_type(&of.id))
    };
    let (messages, _) = client.query_range(request).await.unwrap().collect().await.unwrap();
    let mut found: BTreeMap<String, BTreeMap<i64, Record>> = BTreeMap::new();
    for row in messages
        .iter()
        .filter_map(|message| message.batch.as_ref())
        .flat_map(rows)
    {
        let (property, value) = &row.values[0];
        assert_eq!((row.values.len(), *property), (1, of.properties[0].id.as_str()));
        let number = match value {
            Value::F64(number) => Some(*number),
            Value::I64(number) => Some(*number as f64),
            _ => None,
        };
        let of_device = found.entry(row.device.to_owned()).or_default();
        let again = of_device.insert(row.observed_at_ns, (row.received_at_ns.unwrap(), number));
        assert!(again.is_none(), "{} has {} twice", row.device, row.observed_at_ns);
    }
    found
}

/// A device in a time, by its records.
fn recomputed(of: &v1::DeviceType, records: Option<&BTreeMap<i64, Record>>, (from, to): (i64, i64)) -> Recomputed {
    let nothing = BTreeMap::new();
    let records = records.unwrap_or(&nothing);
    let interval = of.sample_interval_s * S;
    let silent_after = 3
        * S
        * if of.report_interval_s > 0 {
            of.report_interval_s
        } else {
            of.sample_interval_s
        };
    let within: Vec<(&i64, &Record)> = records.range(from..to).collect();
    let count =
        |holds: &dyn Fn(i64, &Record) -> bool| within.iter().filter(|(t, record)| holds(**t, record)).count() as u64;
    let slots: BTreeSet<i64> = within.iter().map(|(t, _)| (**t - from) / interval).collect();
    let first = &of.properties[0];
    let outside = |value: f64| first.min.is_some_and(|min| value < min) || first.max.is_some_and(|max| value > max);
    let last = records.keys().next_back().copied();
    let expected = (to - from) / interval;
    let spacing = within.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let mut spacing: Vec<i64> = spacing.collect();
    spacing.sort_unstable();
    let freshness = match last {
        None => Freshness::Never,
        Some(last) if to - last > 10 * interval => Freshness::Stalled,
        _ if expected < 3 || spacing.is_empty() => Freshness::NotAssessable,
        _ if spacing[spacing.len() / 2] as f64 <= 1.5 * interval as f64 => Freshness::AsPromised,
        _ => Freshness::Slower,
    };
    let ends = records.keys().skip(1).copied().chain([i64::MAX]);
    let there = records.keys().zip(ends).map(|(t, next)| {
        let until = next.min(*t + silent_after).min(to);
        (until - (*t).max(from)).max(0)
    });
    Recomputed {
        numbers: Numbers::from([
            ("slots expected", expected as u64),
            ("slots filled", slots.len() as u64),
            ("points", within.len() as u64),
            ("points in time", count(&|t, record| record.0 - t <= of.latency_s * S)),
            ("points that fail", count(&|_, record| record.1.is_some_and(outside))),
            ("offline", u64::from(last.is_none_or(|last| to - last > silent_after))),
            ("never", u64::from(last.is_none())),
        ]),
        freshness,
        completeness: slots.len() as f64 / expected as f64,
        availability: there.sum::<i64>() as f64 / (to - from) as f64,
    }
}
