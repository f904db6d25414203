//! Random joins by time of random series, with gaps, late, doubled and failed values, as a recomputation does them.
//! Never here: small examples (see `join`). Invariant: the recomputation looks at every point of every series for every record.

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seed;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{BatchBuilder, Client, Value, joined_rows, v1};
use v1::{JoinDirection, Kind, Quality, ValueType};

/// Promises a point a minute, an hour to a bucket.
const PROBE: &str = "random-probe";
/// Promises a point in five minutes, three hours to a bucket.
const STATION: &str = "random-station";
/// Device, type, group, degrees east.
const DEVICES: [(&str, &str, &str, f64); 8] = [
    ("p1", PROBE, "x", 1.0),
    ("p2", PROBE, "y", 2.0),
    ("p3", PROBE, "", 3.0),
    ("s1", STATION, "x", 1.3),
    ("s2", STATION, "y", 2.2),
    ("s3", STATION, "x", 2.9),
    ("s4", STATION, "z", 5.1),
    ("silent", STATION, "x", 1.1),
];
const PROPERTIES: [&str; 2] = ["level", "speed"];
const HOURS: i64 = 16;

/// By device and property: time, value, whether it counts.
type Said = BTreeMap<(&'static str, &'static str), BTreeMap<i64, (f64, bool)>>;

async fn equip(client: &Client) {
    let level = v1::Property {
        max: Some(90.0),
        ..property("level", ValueType::F64, Kind::Gauge)
    };
    let made = |id: &str, interval_s, span_s| v1::DeviceType {
        id: id.into(),
        properties: vec![level.clone(), property("speed", ValueType::F64, Kind::Mean)],
        sample_interval_s: interval_s,
        bucket_span_s: span_s,
        ..v1::DeviceType::default()
    };
    let types = vec![made(PROBE, 60, 3_600), made(STATION, 300, 3 * 3_600)];
    client.apply_device_types(types).await.unwrap();
    let devices = DEVICES.map(|(id, device_type, group, longitude_deg)| v1::Device {
        place: Some(v1::Place {
            latitude_deg: 0.0,
            longitude_deg,
        }),
        tags: (!group.is_empty())
            .then(|| ("group".to_owned(), group.to_owned()))
            .into_iter()
            .collect(),
        ..device(id, device_type, &[])
    });
    client.register_devices(devices.into()).await.unwrap();
}

/// Writes points of all devices but the silent one, in any order, some of them twice with other values.
async fn say(client: &Client, random: &mut StdRng) -> Said {
    let mut rows = Vec::new();
    for (id, device_type, ..) in DEVICES.iter().filter(|(id, ..)| *id != "silent") {
        let mut minute = random.random_range(0..60);
        while minute < HOURS * 60 {
            rows.push((
                *id,
                *device_type,
                T0 + minute * MIN + random.random_range(0..3) * 20 * S,
            ));
            minute += match random.random_range(0..30) {
                0 => random.random_range(20..400),
                _ => random.random_range(1..7),
            };
        }
    }
    rows.shuffle(random);
    let doubled: Vec<_> = rows.iter().step_by(6).copied().collect();
    let mut said = Said::new();
    let parts = rows.chunks(200).chain(doubled.chunks(200));
    for part in parts {
        for device_type in [PROBE, STATION] {
            let mut batch = BatchBuilder::new(device_type);
            for (id, _, t) in part.iter().filter(|(_, of, _)| *of == device_type) {
                let mut row = batch.row(id, *t);
                let some = [0..2, 0..1, 1..2][random.random_range(0..3)].clone();
                for property in &PROPERTIES[some] {
                    let value = f64::from(random.random_range(0..100));
                    let fails = random.random_bool(0.15);
                    let counts = !fails && (*property != "level" || value <= 90.0);
                    let quality = if fails { Quality::Fail } else { Quality::Good };
                    row = row.set_with_quality(property, value, quality);
                    said.entry((id, property)).or_default().insert(*t, (value, counts));
                }
            }
            if !batch.is_empty() {
                client.write(write(batch.build().unwrap())).await.unwrap();
            }
        }
    }
    said
}

/// A record: device, time, values, and of each column of the right its name and what belongs to the record.
type Record = (String, i64, Vec<(String, f64)>, Vec<(String, Option<(f64, i64)>)>);

fn random_side(random: &mut StdRng) -> v1::JoinSide {
    let directions = [JoinDirection::Backward, JoinDirection::Forward, JoinDirection::Nearest];
    let however_far = random.random_bool(0.2);
    let tolerances = [0, 1, 60_000, 1_200_000, 3 * 3_600_000];
    let matching = v1::JoinMatch {
        tags: if random.random_bool(0.4) {
            vec!["group".into()]
        } else {
            vec![]
        },
        nearest: if random.random_bool(0.3) {
            random.random_range(1..3)
        } else {
            0
        },
        same_device: random.random_bool(0.1),
        within_m: if random.random_bool(0.2) { 100_000.0 } else { 0.0 },
    };
    v1::JoinSide {
        selector: of_type([STATION, PROBE][usize::from(random.random_bool(0.3))]),
        properties: match random.random_range(0..3) {
            0 => vec![],
            1 => vec!["speed".into()],
            _ => vec!["speed".into(), "level".into()],
        },
        direction: directions[random.random_range(0..3)] as i32,
        tolerance_ms: if however_far {
            0
        } else {
            tolerances[random.random_range(0..5)]
        },
        however_far,
        strictly: random.random_bool(0.3),
        r#match: random.random_bool(0.8).then_some(matching),
    }
}

fn random_question(random: &mut StdRng) -> v1::QueryJoinRequest {
    let from = random.random_range(-60..HOURS * 60);
    let to = from + [1, 20, 300, 2_000][random.random_range(0..4)];
    v1::QueryJoinRequest {
        selector: [of_type(PROBE), of_devices(&["p1", "s2"])][random.random_range(0..2)].clone(),
        properties: if random.random_bool(0.5) {
            vec![]
        } else {
            vec!["level".into()]
        },
        from_ns: T0 + from * MIN,
        to_ns: T0 + to * MIN,
        right: (0..random.random_range(1..3)).map(|_| random_side(random)).collect(),
        any_quality: random.random_bool(0.2),
        ..Default::default()
    }
}

/// Devices of a side that belong to a left one.
fn belonging(side: &v1::JoinSide, left: &str) -> Vec<&'static str> {
    let (_, _, group, east) = *DEVICES.iter().find(|(id, ..)| *id == left).unwrap();
    let of_type = &side.selector.as_ref().unwrap().device_type;
    let matching = side.r#match.clone().unwrap_or_default();
    let mut some: Vec<_> = DEVICES.iter().filter(|(_, of, ..)| of == of_type).collect();
    some.retain(|(id, ..)| !matching.same_device || *id == left);
    some.retain(|(_, _, other, _)| matching.tags.is_empty() || (!group.is_empty() && *other == group));
    // Along the equator a degree is as long everywhere.
    let far = |other: f64| (other - east).abs() * 111_195.08;
    some.retain(|(.., other)| matching.within_m == 0.0 || far(*other) <= matching.within_m);
    if matching.nearest > 0 {
        some.sort_by(|a, b| far(a.3).total_cmp(&far(b.3)));
        some.truncate(matching.nearest as usize);
    }
    let mut ids: Vec<_> = some.into_iter().map(|(id, ..)| *id).collect();
    ids.sort_unstable();
    ids
}

/// What belongs to a time.
fn value_at(said: Option<&BTreeMap<i64, (f64, bool)>>, side: &v1::JoinSide, any: bool, t: i64) -> Option<(f64, i64)> {
    let interval = if side.selector == of_type(PROBE) { MIN } else { 5 * MIN };
    let most = match (side.however_far, side.tolerance_ms) {
        (true, _) => i64::MAX,
        (false, 0) => 3 * interval,
        (false, ms) => ms * 1_000_000,
    };
    let counting = said.into_iter().flatten().filter(|(_, (_, counts))| any || *counts);
    let fits = |u: i64| {
        let direction = match side.direction() {
            JoinDirection::Forward => u >= t,
            JoinDirection::Nearest => true,
            _ => u <= t,
        };
        direction && (u - t).abs() <= most && !(side.strictly && u == t)
    };
    counting
        .filter(|(u, _)| fits(**u))
        .min_by_key(|(u, _)| ((**u - t).abs(), **u))
        .map(|(u, (value, _))| (*value, *u))
}

fn expected(said: &Said, request: &v1::QueryJoinRequest) -> Vec<Record> {
    let any = request.any_quality;
    let named = |given: &[String]| -> Vec<&'static str> {
        let all = PROPERTIES.iter().copied();
        match given {
            [] => all.collect(),
            given => given
                .iter()
                .map(|id| PROPERTIES.into_iter().find(|p| p == id).unwrap())
                .collect(),
        }
    };
    let selector = request.selector.as_ref().unwrap();
    let chosen = |id: &str, of: &str| selector.device_ids.iter().any(|other| other == id) || selector.device_type == of;
    let mut records = Vec::new();
    for (id, ..) in DEVICES.iter().filter(|(id, of, ..)| chosen(id, of)) {
        let mut rows: BTreeMap<i64, Vec<(String, f64)>> = BTreeMap::new();
        for property in named(&request.properties) {
            let points = said.get(&(*id, property)).into_iter().flatten();
            for (t, (value, counts)) in points {
                if (request.from_ns..request.to_ns).contains(t) && (any || *counts) {
                    rows.entry(*t).or_default().push((property.to_owned(), *value));
                }
            }
        }
        for (t, values) in rows {
            let mut right = Vec::new();
            for side in &request.right {
                for other in belonging(side, id) {
                    for property in named(&side.properties) {
                        let value = value_at(said.get(&(other, property)), side, any, t);
                        right.push((format!("{other}.{property}"), value));
                    }
                }
            }
            records.push(((*id).to_owned(), t, values, right));
        }
    }
    records
}

fn number(value: Value) -> f64 {
    match value {
        Value::F64(value) => value,
        other => panic!("{other:?}"),
    }
}

/// The whole answer, page by page.
async fn found(client: &Client, mut request: v1::QueryJoinRequest, limit: u64) -> Vec<Record> {
    request.limit = limit;
    let mut records = Vec::new();
    loop {
        let answer = client.query_join(request.clone()).await.unwrap();
        let (messages, summary) = answer.collect().await.unwrap();
        for part in messages.iter().flat_map(|message| &message.joined) {
            let names = part
                .columns
                .iter()
                .map(|column| format!("{}.{}", column.device, column.property));
            let names: Vec<String> = names.collect();
            for joined in joined_rows(part) {
                let values = joined
                    .row
                    .values
                    .into_iter()
                    .map(|(id, value)| (id.to_owned(), number(value)));
                let right = joined
                    .values
                    .into_iter()
                    .map(|value| value.map(|(value, t)| (number(value), t)));
                let (device, t) = (joined.row.device.to_owned(), joined.row.observed_at_ns);
                records.push((device, t, values.collect(), names.iter().cloned().zip(right).collect()));
            }
        }
        request.cursor = summary.next_cursor;
        if request.cursor.is_empty() {
            records.sort_by(|a: &Record, b: &Record| (&a.0, a.1).cmp(&(&b.0, b.1)));
            return records;
        }
    }
}

#[tokio::test]
async fn random_joins_are_answered_as_a_recomputation_does() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    equip(&client).await;
    let said = say(&client, &mut random).await;
    for flushed in [false, true] {
        let (mut records, mut values) = (0, 0);
        for round in 0..120 {
            let request = random_question(&mut random);
            let limit = if random.random_bool(0.2) {
                random.random_range(5..200)
            } else {
                0
            };
            let what = format!("seed {seed}, round {round}, flushed {flushed}, limit {limit}: {request:?}");
            let (found, expected) = (found(&client, request.clone(), limit).await, expected(&said, &request));
            let differ = found.iter().zip(&expected).find(|(a, b)| a != b);
            assert!(
                differ.is_none() && found.len() == expected.len(),
                "{what}: {} records, not {}; {differ:#?}",
                found.len(),
                expected.len()
            );
            records += found.len();
            let right = found.iter().flat_map(|(.., right)| right);
            values += right.filter(|(_, value)| value.is_some()).count();
        }
        assert!(records > 1_000 && values > 1_000, "{records} records, {values} values");
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}
