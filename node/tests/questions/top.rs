//! Lists of leaders through the public client, against the whole answer sorted here.
//! Never here: other aggregates. Invariant: the list is the front of the whole answer, whoever holds the devices.

use crate::common::TestCluster;
use crate::common::fleet::*;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{BatchBuilder, Client, Value, v1, value_at};
use v1::Function::{self, Avg, Count, First, Last, Max, Min, Percentile, Sum};

const DEVICES: usize = 40;
const TOWNS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

fn device_id(device: usize) -> String {
    format!("r{device:02}")
}

/// A device in each town in turn; the last one has no points. Few different values, so that many are equal.
async fn seed_points(client: &Client, random: &mut StdRng) {
    furnish(client, &[]).await;
    let town = |d: usize| [("town", TOWNS[d % TOWNS.len()])];
    let devices = (0..=DEVICES).map(|d| device(&device_id(d), RELIC, &town(d)));
    client.register_devices(devices.collect()).await.unwrap();
    let mut batch = BatchBuilder::new(RELIC);
    for device in 0..DEVICES {
        // Enough rows for blocks with statistics, or a few.
        let rows = if device % 3 == 0 { 400 } else { 5 + device as i64 % 4 };
        let level = random.random_range(-6..6);
        for row in 0..rows {
            let value = f64::from(level) + f64::from(random.random_range(-2..3)) / 4.0;
            let pulses = (1_i64 << 60) + i64::from(random.random_range(0..3));
            let mode = Value::Enum(["off", "slow", "fast"][random.random_range(0..3)].into());
            let row = batch.row(&device_id(device), row * MIN);
            row.set("level", value).set("count", pulses).set("mode", mode);
        }
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

fn question(property: &str, by: Function, also: &[Function], grouped: bool) -> v1::QueryAggregateRequest {
    let functions = std::iter::once(&by).chain(also);
    v1::QueryAggregateRequest {
        selector: of_type(RELIC),
        properties: vec![property.into()],
        functions: functions.map(|function| *function as i32).collect(),
        from_ns: 2 * MIN,
        to_ns: 300 * MIN,
        grouping: grouped.then(|| v1::Grouping {
            tags: vec!["town".into()],
        }),
        allow_unlawful: true,
        ..v1::QueryAggregateRequest::default()
    }
}

async fn ask(client: &Client, request: v1::QueryAggregateRequest) -> (Vec<v1::AggregateSeries>, v1::AnswerSummary) {
    let answer = client.query_aggregate(request).await.unwrap();
    let (messages, summary) = answer.collect().await.unwrap();
    (
        messages.into_iter().flat_map(|message| message.series).collect(),
        summary,
    )
}

/// The whole answer in the order of a list, best first.
fn sorted(mut series: Vec<v1::AggregateSeries>, lowest: bool) -> Vec<v1::AggregateSeries> {
    let number = |series: &v1::AggregateSeries| match value_at(series.columns[0].values.as_ref().unwrap(), 0).unwrap() {
        Value::F64(value) => value,
        // Counters are large and near each other, counts of points are small.
        Value::I64(value) => (value - (value >> 59 << 59)) as f64,
        Value::Enum(label) => f64::from(["off", "slow", "fast"].iter().position(|l| *l == label).unwrap() as u32),
        other => panic!("{other:?}"),
    };
    let name = |series: &v1::AggregateSeries| (series.tags.get("town").cloned(), series.device.clone());
    series.sort_by(|a, b| {
        // What is covered too thinly has no value, and comes last.
        let thin = |series: &v1::AggregateSeries| series.start_ns.is_empty();
        if thin(a) || thin(b) {
            return (thin(a), name(a)).cmp(&(thin(b), name(b)));
        }
        let (a_value, b_value) = if lowest { (a, b) } else { (b, a) };
        let by_value = number(a_value).total_cmp(&number(b_value));
        by_value.then_with(|| name(a).cmp(&name(b)))
    });
    series
}

#[tokio::test]
async fn a_list_is_the_front_of_the_whole_answer() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let seed = rand::random();
    println!("seed {seed}");
    seed_points(&client, &mut StdRng::seed_from_u64(seed)).await;
    let cases: [(&str, Function, &[Function]); 8] = [
        ("level", Max, &[]),
        ("level", Min, &[Max, Count]),
        ("level", Avg, &[First]),
        ("level", Sum, &[]),
        ("level", Count, &[]),
        ("level", Last, &[Max]),
        ("count", Max, &[First]),
        ("mode", Last, &[Count]),
    ];
    for (property, by, also) in cases {
        for grouped in [false, true] {
            let whole = question(property, by, also, grouped);
            let (all, summary) = ask(&client, whole.clone()).await;
            assert_eq!(all.len(), if grouped { TOWNS.len() } else { DEVICES });
            for (limit, lowest) in [(1, false), (5, true), (6, false), (1_000, true)] {
                let top = Some(v1::Top { limit, lowest });
                let (list, of_list) = ask(&client, v1::QueryAggregateRequest { top, ..whole.clone() }).await;
                let mut expected = sorted(all.clone(), lowest);
                expected.truncate(limit as usize);
                assert_eq!(
                    list, expected,
                    "{limit} of {property} by {by:?}, lowest: {lowest}, grouped: {grouped}"
                );
                assert_eq!((of_list.rows, of_list.devices), (list.len() as u64, summary.devices));
            }
        }
    }
}

const FIVES: &str = "test-fives";

/// A day of a type that promises a record in five minutes. Each fourth device said one thing, by which it would lead; those of town `a`
/// are such devices.
async fn a_day_with_holes(client: &Client) {
    let fives = v1::DeviceType {
        sample_interval_s: 300,
        ..device_type(FIVES, 0)
    };
    client.apply_device_types(vec![fives]).await.unwrap();
    let town = |d: usize| [("town", TOWNS[d % 4])];
    let devices = (0..12).map(|d| device(&device_id(d), FIVES, &town(d)));
    client.register_devices(devices.collect()).await.unwrap();
    let mut batch = BatchBuilder::new(FIVES);
    for d in 0..12 {
        let id = device_id(d);
        if d % 4 == 0 {
            let far = if d % 8 == 0 { 100.0 } else { -100.0 };
            batch.row(&id, T0 + 12 * HOUR).set("level", far + d as f64);
            continue;
        }
        for slot in 0..288_i64 {
            let level = (slot * 7 % 50) as f64 - 25.0 + d as f64;
            batch.row(&id, T0 + slot * 5 * MIN).set("level", level);
        }
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

#[tokio::test]
async fn who_is_covered_too_thinly_leads_no_list() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    a_day_with_holes(&client).await;
    for by in [Max, Min, Avg, Last, Percentile] {
        for grouped in [false, true] {
            let whole = v1::QueryAggregateRequest {
                selector: of_type(FIVES),
                from_ns: T0,
                to_ns: T0 + DAY,
                min_coverage: 0.9,
                percentiles: if by == Percentile { vec![90.0] } else { Vec::new() },
                ..question("level", by, &[], grouped)
            };
            let (all, _) = ask(&client, whole.clone()).await;
            let thin = all.iter().filter(|series| series.start_ns.is_empty()).count();
            assert_eq!((all.len(), thin), if grouped { (4, 1) } else { (12, 3) });
            for (limit, lowest) in [(1, false), (1, true), (3, false), (10, true), (100, false)] {
                let top = Some(v1::Top { limit, lowest });
                let (list, _) = ask(&client, v1::QueryAggregateRequest { top, ..whole.clone() }).await;
                let mut expected = sorted(all.clone(), lowest);
                expected.truncate(limit as usize);
                assert_eq!(
                    list, expected,
                    "{limit} by {by:?}, lowest: {lowest}, grouped: {grouped}"
                );
                assert!(!list[0].start_ns.is_empty(), "who leads has a value");
            }
        }
    }
}

/// Devices whose levels lie far apart, in towns that devices take in turns; each has blocks with statistics.
async fn seed_many(client: &Client, devices: usize, rows: i64) {
    furnish(client, &[]).await;
    let id = |d: usize| format!("r{d:03}");
    let town = |d: usize| [("town", TOWNS[d % TOWNS.len()])];
    let all = (0..devices).map(|d| device(&id(d), RELIC, &town(d)));
    client.register_devices(all.collect()).await.unwrap();
    for some in (0..devices).collect::<Vec<_>>().chunks(20) {
        let mut batch = BatchBuilder::new(RELIC);
        for device in some {
            let level = (device * 37 % devices) as f64 * 10.0;
            for row in 0..rows {
                let value = level + ((row * 7) % 11) as f64 / 10.0;
                batch.row(&id(*device), row * MIN).set("level", value);
            }
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

#[tokio::test]
async fn who_cannot_lead_by_its_headers_is_not_decoded() {
    let (devices, rows) = (300, 400);
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    seed_many(&client, devices, rows).await;
    let whole = v1::QueryAggregateRequest {
        explain: true,
        ..question("level", Max, &[Count], false)
    };
    let (all, summary) = ask(&client, whole.clone()).await;
    assert!(summary.points_read > 298 * devices as u64 - 1, "{summary:?}");
    for lowest in [false, true] {
        for by in [Max, Last] {
            let top = Some(v1::Top { limit: 3, lowest });
            let functions = vec![by as i32, Count as i32];
            let asked = v1::QueryAggregateRequest {
                top,
                functions: functions.clone(),
                ..whole.clone()
            };
            let (list, of_list) = ask(&client, asked).await;
            let all = match by {
                Max => all.clone(),
                _ => {
                    ask(
                        &client,
                        v1::QueryAggregateRequest {
                            functions,
                            ..whole.clone()
                        },
                    )
                    .await
                    .0
                }
            };
            let mut expected = sorted(all, lowest);
            expected.truncate(3);
            assert_eq!(list, expected, "by {by:?}, lowest: {lowest}");
            assert_eq!((of_list.devices, of_list.points_dropped), (devices as u64, 0));
            assert!(of_list.points_read < summary.points_read / 2, "{of_list:?}");
            let total = of_list.explain.unwrap().total.unwrap();
            assert_eq!(total.blocks, summary.explain.clone().unwrap().total.unwrap().blocks);
            assert!(total.blocks_header_only > total.blocks_decoded, "{total:?}");
        }
    }

    // Of a group, devices that others outdo in every window are counted and not decoded.
    let hours = v1::QueryAggregateRequest {
        window: Some(v1::Window {
            step_ns: HOUR,
            ..Default::default()
        }),
        ..question("level", Max, &[Count], true)
    };
    for by in [Max, Min] {
        let one_sided = v1::QueryAggregateRequest {
            functions: vec![by as i32, Count as i32],
            ..hours.clone()
        };
        let both = v1::QueryAggregateRequest {
            functions: vec![Max as i32, Count as i32, Min as i32],
            ..hours.clone()
        };
        let ((got, of_got), (whole, of_whole)) = (ask(&client, one_sided).await, ask(&client, both).await);
        assert!(
            of_got.points_read < of_whole.points_read / 2,
            "{of_got:?} of {of_whole:?}"
        );
        assert_eq!((got.len(), whole.len()), (TOWNS.len(), TOWNS.len()));
        for (got, whole) in got.iter().zip(&whole) {
            let place = if by == Max { 0 } else { 2 };
            assert_eq!((&got.tags, &got.start_ns), (&whole.tags, &whole.start_ns));
            assert_eq!(got.points_seen, whole.points_seen);
            assert_eq!(got.columns[0].values, whole.columns[place].values);
            assert_eq!(got.columns[1].values, whole.columns[1].values);
        }
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_is_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1"]).await;
    let top = |limit| v1::QueryAggregateRequest {
        top: Some(v1::Top { limit, lowest: false }),
        ..question("level", Max, &[], false)
    };
    let window = Some(v1::Window {
        step_ns: HOUR,
        origin_ns: 0,
        length_ns: 0,
        ..Default::default()
    });
    let two = vec!["level".into(), "count".into()];
    let cases = [
        ("no series", top(0), "top.limit"),
        ("windows", v1::QueryAggregateRequest { window, ..top(3) }, "window"),
        (
            "two properties",
            v1::QueryAggregateRequest {
                properties: two,
                ..top(3)
            },
            "properties",
        ),
    ];
    for (what, request, field) in cases {
        let error = client.query_aggregate(request).await.expect_err(what);
        assert_eq!(
            shown(&error),
            format!("INVALID_ARGUMENT INVALID_VALUE {field}"),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_sum_that_does_not_fit_is_refused_in_a_list_too() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["r1", "r2"]).await;
    let rows = [("r1", S, i64::MAX), ("r1", 2 * S, 1), ("r2", S, 5)];
    client.write(write(batch(RELIC, "pulses", rows))).await.unwrap();
    for grouped in [false, true] {
        let request = v1::QueryAggregateRequest {
            from_ns: 0,
            top: Some(v1::Top { limit: 1, lowest: true }),
            ..question("pulses", Sum, &[], grouped)
        };
        let answer = match client.query_aggregate(request).await {
            Ok(answer) => answer.collect().await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(answer.expect_err("the sum").reason, "SUM_OVERFLOW");
    }
}
