//! Rollups through the public client: made by themselves, used by themselves, and never another answer than that of points.
//! Never here: what a rollup holds (`shard/rollups.rs`). Invariant: every answer is compared with that without rollups.

use std::time::Duration;

use crate::common::fleet::*;
use crate::common::operator::three_are_equal;
use crate::common::random::seed;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, Value, answers_of, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;
use v1::Function;

pub(super) const IDS: [&str; 6] = ["g1", "g2", "g3", "g4", "g5", "g6"];
pub(super) const GRADED: &str = "graded";

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Makes rollups at once.
pub(super) fn tuning() -> Tuning {
    Tuning {
        rollups_every: Duration::from_millis(50),
        rollups_after: Duration::ZERO,
        retention_every: Duration::from_millis(100),
        flush_every: Duration::from_millis(200),
        flush_all_every: 2,
        ..Tuning::default()
    }
}

/// A level that must be in range, values that must not jump, and whatever else there is, at a promised interval.
pub(super) fn graded(retention_days: i64, sample_interval_s: i64) -> v1::DeviceType {
    let mut graded = v1::DeviceType {
        rollups_s: vec![300, 3_600, 86_400],
        bucket_span_s: 3 * 3_600,
        sample_interval_s,
        ..device_type(GRADED, retention_days)
    };
    graded.properties[0].min = Some(0.0);
    graded.properties[0].max = Some(50.0);
    let depth = property("depth", v1::ValueType::F64, v1::Kind::Gauge);
    let turns = property("turns", v1::ValueType::I64, v1::Kind::Counter);
    graded.properties.extend([depth, turns]);
    for property in &mut graded.properties {
        if ["depth", "speed", "turns"].contains(&property.id.as_str()) {
            property.attributes.insert("spike".into(), "5".into());
        }
        property.wrap = (property.id == "count").then_some(1_000.0);
    }
    graded
}

pub(super) async fn furnish_graded(client: &Client, retention_days: i64, sample_interval_s: i64) {
    let graded = graded(retention_days, sample_interval_s);
    client.apply_device_types(vec![graded]).await.unwrap();
    let town = |id: &str| if id < "g4" { "north" } else { "south" };
    let devices = IDS.map(|id| device(id, GRADED, &[("town", town(id))]));
    client.register_devices(devices.to_vec()).await.unwrap();
}

fn some_rows(random: &mut Random, t0: i64) -> v1::Batch {
    let mut batch = BatchBuilder::new(GRADED);
    let mut times: Vec<(usize, i64)> = Vec::new();
    for _ in 0..1 + random.below(20) {
        times.push((random.below(6) as usize, random.below(2 * 1_440) as i64));
    }
    // And one device minute by minute, with some of them left out.
    let (id, from) = (random.below(6) as usize, random.below(2 * 1_440) as i64);
    let minutes = (0..random.below(300) as i64).filter(|_| random.below(10) > 0);
    times.extend(minutes.map(|minute| (id, from + minute)));
    let mut count = random.below(900) as i64;
    for (at, minute) in times {
        let row = batch.row(IDS[at], t0 + minute * MIN);
        let level = random.below(600) as f64 / 10.0;
        let row = match random.below(8) {
            0 => row.set_with_quality("level", level, v1::Quality::Fail),
            _ => row.set("level", level),
        };
        let row = row.set("rain", random.below(30) as f64 / 10.0);
        let row = row
            .set("pulses", random.below(9) as i64)
            .set("on", random.below(5) == 0)
            .set(
                "mode",
                Value::Enum(["off", "slow", "fast"][random.below(3) as usize].into()),
            );
        if random.below(4) == 0 {
            continue;
        }
        count = (count + random.below(30) as i64) % 1_000;
        let jumpy = |random: &mut Random| random.below(30) as f64 / 10.0 + if random.below(4) == 0 { 9.0 } else { 0.0 };
        let (depth, speed, turns) = (jumpy(random), jumpy(random), jumpy(random) as i64);
        let row = row.set("count", count).set("depth", depth).set("turns", turns);
        let row = row.set_with_quality("speed", speed, qualities(random));
        match random.below(9) {
            0 => row.set("raw", f64::NAN),
            1 => row.set("note", format!("note {minute}")),
            _ => row.set("raw", level),
        };
    }
    batch.build().unwrap()
}

fn qualities(random: &mut Random) -> v1::Quality {
    match random.below(6) {
        0 => v1::Quality::Fail,
        1 => v1::Quality::Suspect,
        _ => v1::Quality::Good,
    }
}

const QUESTIONS: [(&str, &[Function]); 13] = [
    (
        "level",
        &[
            Function::Avg,
            Function::Min,
            Function::Max,
            Function::First,
            Function::Last,
            Function::Count,
        ],
    ),
    (
        "level",
        &[Function::TimeWeightedAvg, Function::Integral, Function::Delta],
    ),
    ("rain", &[Function::Sum, Function::Max, Function::Count]),
    ("pulses", &[Function::Sum, Function::Count]),
    ("on", &[Function::Last, Function::Count]),
    (
        "on",
        &[
            Function::TimeWeightedAvg,
            Function::Duration,
            Function::Transitions,
            Function::Mode,
        ],
    ),
    ("mode", &[Function::Duration, Function::Transitions, Function::Mode]),
    ("note", &[Function::Count, Function::First, Function::Last]),
    ("raw", &[Function::TimeWeightedAvg, Function::Min, Function::Count]),
    (
        "depth",
        &[
            Function::TimeWeightedAvg,
            Function::Delta,
            Function::Max,
            Function::Avg,
            Function::Count,
        ],
    ),
    ("speed", &[Function::Avg, Function::Max, Function::Count]),
    ("count", &[Function::Increase, Function::Rate, Function::Last]),
    ("turns", &[Function::Increase, Function::First, Function::Count]),
];

fn some_question(random: &mut Random, t0: i64) -> v1::QueryAggregateRequest {
    let (property, functions) = QUESTIONS[random.below(QUESTIONS.len() as u64) as usize];
    let unit = [MIN, 5 * MIN, HOUR][random.below(3) as usize];
    let mut end = || t0 + (random.below(60) as i64 - 6) * HOUR + random.below(12) as i64 * unit;
    let (a, b) = (end(), end());
    let step_ns = [5 * MIN, 15 * MIN, HOUR, 6 * HOUR, DAY, 7 * MIN][random.below(6) as usize];
    let mut window = v1::Window {
        step_ns,
        ..v1::Window::default()
    };
    if random.below(4) == 0 {
        window.length_ns = 2 * step_ns;
    }
    if random.below(3) == 0 {
        window.origin_ns = 8 * HOUR;
    }
    let grouping = (random.below(3) == 0).then(|| v1::Grouping {
        tags: vec!["town".into()],
    });
    // Values of devices that are covered well enough.
    let is_areal = grouping.is_some() && ["level", "rain", "speed"].contains(&property) && random.below(2) == 0;
    v1::QueryAggregateRequest {
        selector: of_type(GRADED),
        properties: vec![property.into()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns: a.min(b),
        to_ns: a.max(b),
        window: (random.below(5) > 0).then_some(window),
        grouping,
        slots_filled: random.below(3) == 0,
        min_coverage: [0.0, 0.0, 0.02, 0.3][random.below(4) as usize],
        areal: is_areal.then(|| v1::Areal {
            min_coverage: [0.02, 0.3][random.below(2) as usize],
        }),
        ..v1::QueryAggregateRequest::default()
    }
}

/// Series of an answer by name, and how many points were left out.
async fn answer(client: &Client, request: v1::QueryAggregateRequest) -> (Vec<String>, u64) {
    let (messages, summary) = client.query_aggregate(request).await.unwrap().collect().await.unwrap();
    let series = messages.into_iter().flat_map(|message| message.series);
    let mut series: Vec<String> = series.map(|series| format!("{series:?}")).collect();
    series.sort();
    (series, summary.points_dropped)
}

async fn compare(client: &Client, request: v1::QueryAggregateRequest) {
    let without = v1::QueryAggregateRequest {
        no_rollups: true,
        ..request.clone()
    };
    let (with, without) = (answer(client, request.clone()).await, answer(client, without).await);
    assert_eq!(with, without, "{request:?}");
}

/// Which points count does not depend on where the range of a question begins and ends.
async fn compare_ranges(client: &Client, random: &mut Random, t0: i64) {
    let mut end = || t0 + random.below(2 * 288) as i64 * 5 * MIN;
    let (a, b) = (end(), end());
    let part = (a.min(b), a.max(b));
    let property = ["depth", "speed", "turns"][random.below(3) as usize];
    let windows = async |(from_ns, to_ns): (i64, i64), no_rollups: bool| {
        let request = v1::QueryAggregateRequest {
            selector: of_type(GRADED),
            properties: vec![property.into()],
            functions: vec![Function::Count as i32, Function::Last as i32],
            allow_unlawful: true,
            from_ns,
            to_ns,
            window: Some(v1::Window {
                step_ns: 5 * MIN,
                ..v1::Window::default()
            }),
            no_rollups,
            ..v1::QueryAggregateRequest::default()
        };
        let mut windows = Vec::new();
        for series in ask(client, request)
            .await
            .into_iter()
            .flat_map(|message| message.series)
        {
            let columns = [0, 1].map(|at| answers_of(&series.columns[at]).collect::<Vec<_>>());
            for (at, start_ns) in series.start_ns.iter().enumerate() {
                let inside = (part.0..part.1).contains(start_ns);
                let answers = columns.each_ref().map(|column| format!("{:?}", column[at]));
                windows.extend(inside.then(|| (series.device.clone(), *start_ns, answers)));
            }
        }
        windows.sort();
        windows
    };
    let (first, second) = (random.below(2) == 0, random.below(2) == 0);
    let whole = windows((t0 - DAY, t0 + 3 * DAY), first).await;
    assert_eq!(windows(part, second).await, whole, "{property} in {part:?}");
}

/// What an answer cost, as it says itself.
async fn cost(client: &Client, request: v1::QueryAggregateRequest) -> v1::Work {
    let explained = v1::QueryAggregateRequest {
        explain: true,
        ..request
    };
    let (_, summary) = client
        .query_aggregate(explained)
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    summary.explain.unwrap().total.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_with_rollups_is_the_answer_without() {
    // At 0 it would stand still.
    let mut random = Random(seed().max(1));
    let cluster = TestCluster::start_with(3, tuning()).await;
    let client = cluster.client().await;
    // Slots that go into windows of rollups, that go into long ones, that go into none, and that are as long.
    let interval_s = [60, 300, 120, 420, 3_600][random.below(5) as usize];
    println!("promised: one in {interval_s} s");
    furnish_graded(&client, 0, interval_s).await;
    let t0 = T0;
    for round in 0..60 {
        match random.below(6) {
            0 => {
                let (a, b) = (random.below(48) as i64 * HOUR, random.below(2_880) as i64 * MIN);
                let request = v1::DeletePointsRequest {
                    selector: of_devices(&[IDS[random.below(6) as usize], IDS[random.below(6) as usize]]),
                    from_ns: Some(t0 + a.min(b)),
                    to_ns: Some(t0 + a.max(b)),
                    ..v1::DeletePointsRequest::default()
                };
                client.delete_points(request).await.unwrap();
            }
            _ => drop(client.write(write(some_rows(&mut random, t0))).await.unwrap()),
        }
        if round == 30 {
            let status = cluster.healthy(0).await;
            let shard = status.shards.iter().find(|shard| shard.shard == 1).unwrap();
            let to_node = if shard.leader_node == 1 { 2 } else { 1 };
            let request = v1::TransferLeaderRequest { shard: 1, to_node };
            client.transfer_leader(request).await.unwrap();
        }
        for _ in 0..12 {
            compare(&client, some_question(&mut random, t0)).await;
        }
        compare_ranges(&client, &mut random, t0).await;
    }
    // Once more something of every bucket, so that each has lost its rollups and gets them again.
    let mut everywhere = BatchBuilder::new(GRADED);
    for (hour, id) in (0..48).flat_map(|hour| IDS.map(|id| (hour, id))) {
        everywhere.row(id, t0 + hour * HOUR).set("level", hour as f64);
    }
    client.write(write(everywhere.build().unwrap())).await.unwrap();
    for (property, functions) in QUESTIONS {
        // Windows of an hour are those of rollups, however long slots are.
        let whole = v1::QueryAggregateRequest {
            window: Some(v1::Window {
                step_ns: HOUR,
                ..v1::Window::default()
            }),
            properties: vec![property.into()],
            functions: functions.iter().map(|function| *function as i32).collect(),
            from_ns: t0 - DAY,
            to_ns: t0 + 3 * DAY,
            areal: None,
            ..some_question(&mut random, t0)
        };
        eventually("rollups answer", || async {
            compare(&client, whole.clone()).await;
            let cost = cost(&client, whole.clone()).await;
            match cost.rollup_windows >= 96 && cost.points_decoded == 0 {
                true => Ok(()),
                false => Err(format!("{property} {functions:?} cost {cost:?}")),
            }
        })
        .await;
    }
    for shard in client
        .status()
        .await
        .unwrap()
        .shards
        .iter()
        .filter(|shard| shard.shard > 0)
    {
        three_are_equal(&client, shard.shard).await;
    }
}

#[tokio::test]
async fn points_go_and_their_rollups_answer_on() {
    let cluster = TestCluster::start_with(3, tuning()).await;
    let client = cluster.client().await;
    furnish_graded(&client, 0, 300).await;
    let t0 = (now_ns() - 4 * DAY) / DAY * DAY;
    let mut batch = BatchBuilder::new(GRADED);
    for minute in (0..600).filter(|minute| !(90..120).contains(&(minute % 300))) {
        for (at, id) in IDS.into_iter().enumerate() {
            let level = ((minute * 7 + at as i64) % 40) as f64;
            let depth = if (minute + at as i64) % 20 == 0 {
                9.0
            } else {
                level / 100.0
            };
            let row = batch.row(id, t0 + minute * MIN).set("level", level);
            let row = row.set("rain", 0.2).set("depth", depth);
            row.set("count", minute * 3 % 1_000).set("on", minute % 50 < 7);
        }
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    let hours = |(property, functions): &(&str, &[Function])| v1::QueryAggregateRequest {
        selector: of_type(GRADED),
        properties: vec![property.to_string()],
        functions: functions.iter().map(|function| *function as i32).collect(),
        from_ns: t0,
        to_ns: t0 + 12 * HOUR,
        window: Some(v1::Window {
            step_ns: HOUR,
            ..v1::Window::default()
        }),
        ..v1::QueryAggregateRequest::default()
    };
    let mut requests: Vec<_> = QUESTIONS.iter().map(hours).collect();
    let slots = requests.clone().into_iter().map(|request| v1::QueryAggregateRequest {
        slots_filled: true,
        min_coverage: 0.6,
        ..request
    });
    requests.extend(slots.collect::<Vec<_>>());
    let mut expected = Vec::new();
    for request in &requests {
        expected.push(answer(&client, request.clone()).await);
    }
    assert!(expected[9].1 > 130, "{} spikes", expected[9].1);
    // From now on points are kept for two days, their rollups for good.
    client.apply_device_types(vec![graded(2, 300)]).await.unwrap();
    eventually("points are gone", || async {
        match read(&client, everything(of_type(GRADED))).await.len() {
            0 => Ok(()),
            others => Err(format!("{others} points")),
        }
    })
    .await;
    for (request, expected) in requests.iter().zip(&expected) {
        assert_eq!(&answer(&client, request.clone()).await, expected, "{request:?}");
    }
    let points = v1::QueryAggregateRequest {
        no_rollups: true,
        ..requests[0].clone()
    };
    assert_eq!(answer(&client, points).await.0.len(), 0, "there are no points to read");
}
