//! Deleting points through the public client on three nodes, and types that keep points for a while only.
//! Never here: what a removal does within a shard (`shard/delete.rs`). Invariant: every answer is compared with a model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::common::fleet::*;
use crate::common::operator::three_are_equal;
use crate::common::random::seed;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, Value, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;

const IDS: [&str; 12] = ["m1", "m2", "m3", "m4", "m5", "m6", "r1", "r2", "r3", "r4", "r5", "r6"];

/// Level by device and time.
type Model = BTreeMap<(String, i64), f64>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn delete(selector: Option<v1::Selector>, from_ns: i64, to_ns: i64) -> v1::DeletePointsRequest {
    v1::DeletePointsRequest {
        selector,
        from_ns: Some(from_ns),
        to_ns: Some(to_ns),
        ..v1::DeletePointsRequest::default()
    }
}

/// Everything that is stored, by raw records.
async fn content(client: &Client) -> Model {
    let points = stored(client).await.into_iter();
    let level = |(device, t, _, value): Point| ((device, t), number(&value));
    points.map(level).collect()
}

fn number(value: &Value) -> f64 {
    match value {
        Value::F64(number) => *number,
        other => panic!("{other:?}"),
    }
}

/// Time and level of the newest record of each device.
async fn newest(client: &Client) -> BTreeMap<String, (i64, f64)> {
    let mut found = BTreeMap::new();
    for device_type in [METER, RELIC] {
        for ((device, _), (t, value)) in last_words(client, device_type).await {
            found.insert(device, (t, number(&value)));
        }
    }
    found
}

async fn last_words(client: &Client, device_type: &str) -> BTreeMap<(String, String), (i64, Value)> {
    let request = v1::GetLatestRequest {
        selector: of_type(device_type),
        ..v1::GetLatestRequest::default()
    };
    let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    latest(&messages)
}

/// Points of a type by counting them.
async fn counted(client: &Client, device_type: &str) -> u64 {
    let request = v1::QueryAggregateRequest {
        selector: of_type(device_type),
        properties: vec!["level".into()],
        functions: vec![v1::Function::Count as i32],
        from_ns: i64::MIN + 1,
        to_ns: i64::MAX,
        ..v1::QueryAggregateRequest::default()
    };
    let messages = ask(client, request).await;
    let series = messages.iter().flat_map(|message| &message.series);
    series.flat_map(|series| &series.points_seen).sum()
}

async fn compare(client: &Client, model: &Model) {
    let found = content(client).await;
    for (key, value) in model {
        assert_eq!(found.get(key), Some(value), "{key:?} is missing");
    }
    for key in found.keys() {
        assert!(model.contains_key(key), "{key:?} should be gone");
    }
    let expected = model
        .iter()
        .map(|((device, time), level)| (device.clone(), (*time, *level)))
        .collect::<BTreeMap<_, _>>();
    assert_eq!(newest(client).await, expected, "newest values");
    for (device_type, prefix) in [(METER, "m"), (RELIC, "r")] {
        let expected = model.keys().filter(|(device, _)| device.starts_with(prefix)).count();
        assert_eq!(counted(client, device_type).await, expected as u64, "{device_type}");
    }
}

async fn write_some(client: &Client, model: &mut Model, random: &mut Random, (round, t0): (u64, i64)) {
    let device_type = [METER, RELIC][random.below(2) as usize];
    let ours: Vec<&str> = IDS
        .into_iter()
        .filter(|id| id.starts_with('m') == (device_type == METER))
        .collect();
    let mut batch = BatchBuilder::new(device_type);
    for _ in 0..1 + random.below(40) {
        let id = ours[random.below(ours.len() as u64) as usize];
        let t = t0 + random.below(30 * 1_440) as i64 * MIN;
        if model.contains_key(&(id.to_string(), t)) && random.below(4) > 0 {
            continue;
        }
        let level = random.below(10_000) as f64 / 100.0;
        batch.row(id, t).set("level", level);
        model.insert((id.to_string(), t), level);
    }
    if batch.is_empty() {
        return;
    }
    let batch = numbered(batch.build().unwrap(), "model", round + 1);
    client.write(batch).await.unwrap();
}

async fn delete_some(client: &Client, model: &mut Model, random: &mut Random, t0: i64) {
    let chosen: Vec<&str> = IDS.into_iter().filter(|_| random.below(3) == 0).collect();
    let selector = match chosen.is_empty() {
        true => of_type(METER),
        false => of_devices(&chosen),
    };
    let matches = |id: &str| chosen.contains(&id) || (chosen.is_empty() && id.starts_with('m'));
    let mut end = || t0 + random.below(32 * 1_440) as i64 * MIN - DAY;
    let (a, b) = (end(), end());
    let (from, to) = (a.min(b), a.max(b));
    let inside = |(id, t): &(String, i64)| matches(id) && (from..to).contains(t);
    let gone: Vec<_> = model.keys().filter(|key| inside(key)).cloned().collect();
    let devices: BTreeSet<&String> = gone.iter().map(|(id, _)| id).collect();
    let request = delete(selector, from, to);
    let dry_run = v1::DeletePointsRequest {
        dry_run: true,
        ..request.clone()
    };
    let there_is = client.delete_points(dry_run).await.unwrap();
    assert_eq!(
        (there_is.records, there_is.devices),
        (gone.len() as u64, devices.len() as u64)
    );
    let answer = client.delete_points(request).await.unwrap();
    assert_eq!((answer.records, answer.devices), (there_is.records, there_is.devices));
    model.retain(|key, _| !inside(key));
}

/// Every replica of every shard holds the same.
async fn replicas_are_equal(client: &Client) {
    let status = client.status().await.unwrap();
    for shard in status.shards.iter().filter(|shard| shard.shard > 0) {
        three_are_equal(client, shard.shard).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_writes_and_deletes_read_as_the_model_does() {
    // At 0 it would stand still.
    let mut random = Random(seed().max(1));
    let tuning = Tuning {
        flush_every: Duration::from_millis(200),
        flush_all_every: 2,
        ..Tuning::default()
    };
    let mut cluster = TestCluster::start_with(3, tuning).await;
    let client = cluster.client().await;
    furnish(&client, &IDS).await;
    let (t0, mut model) = (T0, Model::new());
    for round in 0..60u64 {
        match random.below(3) {
            0 => delete_some(&client, &mut model, &mut random, t0).await,
            _ => write_some(&client, &mut model, &mut random, (round, t0)).await,
        }
        match round {
            // A leader hands over; a node is away for a while; one dies and comes back.
            12 => {
                let status = cluster.healthy(0).await;
                let shard = status.shards.iter().find(|shard| shard.shard == 1).unwrap();
                let to_node = if shard.leader_node == 1 { 2 } else { 1 };
                let request = v1::TransferLeaderRequest { shard: 1, to_node };
                client.transfer_leader(request).await.unwrap();
            }
            20 => cluster.stop(2).await,
            28 => cluster.restart(2).await,
            36 => cluster.drop_node(0).await,
            44 => cluster.restart(0).await,
            50 => drop(client.compact_shard(1).await.unwrap()),
            _ => {}
        }
        if round % 6 == 5 {
            compare(&client, &model).await;
        }
    }
    cluster.healthy(1).await;
    compare(&client, &model).await;
    replicas_are_equal(&client).await;
}

#[tokio::test]
async fn what_was_not_meant_is_refused_and_everything_must_be_said() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "r1"]).await;
    for device_type in [METER, RELIC] {
        let id = if device_type == METER { "m1" } else { "r1" };
        let batch = batch(device_type, "level", [(id, T0, 1.0), (id, T0 + DAY, 2.0)]);
        client.write(write(batch)).await.unwrap();
    }
    let open = |from_ns, to_ns, selector, everything| v1::DeletePointsRequest {
        selector,
        from_ns,
        to_ns,
        everything,
        dry_run: false,
    };
    for (request, reason, field) in [
        (open(Some(0), Some(1), None, false), "NO_SELECTOR", "selector"),
        (
            open(None, Some(1), of_devices(&["m1"]), false),
            "MISSING_FIELD",
            "from_ns",
        ),
        (
            open(Some(0), None, of_devices(&["m1"]), false),
            "MISSING_FIELD",
            "to_ns",
        ),
        (
            open(Some(1), Some(0), of_devices(&["m1"]), false),
            "RANGE_REVERSED",
            "from_ns",
        ),
        (
            open(Some(0), Some(1), of_devices(&["x"]), false),
            "UNKNOWN_DEVICE",
            "selector.device_ids",
        ),
        (
            open(Some(0), Some(1), of_type("x"), false),
            "UNKNOWN_TYPE",
            "selector.device_type",
        ),
    ] {
        let error = client.delete_points(request).await.unwrap_err();
        assert_eq!((error.reason.as_str(), error.field.as_deref()), (reason, Some(field)));
    }
    assert_eq!(content(&client).await.len(), 4);
    let answer = client
        .delete_points(open(None, Some(T0 + DAY), None, true))
        .await
        .unwrap();
    assert_eq!((answer.devices_matched, answer.devices, answer.records), (2, 2, 2));
    let left: Vec<_> = content(&client).await.into_iter().collect();
    let stay = |id: &str| ((id.to_string(), T0 + DAY), 2.0);
    assert_eq!(left, [stay("m1"), stay("r1")]);
    assert_eq!(cluster.metric(0, "tidemark_deleted_records_total").await, 2);
}

#[tokio::test]
async fn by_a_clock_that_most_nodes_do_not_confirm_nothing_goes() {
    let tuning = Tuning {
        retention_every: Duration::from_millis(100),
        retention_ahead: Duration::from_secs(10 * 365 * 86_400),
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(3, tuning).await;
    let client = cluster.client().await;
    client.apply_device_types(vec![device_type("brief", 1)]).await.unwrap();
    client.register_devices(vec![device("b1", "brief", &[])]).await.unwrap();
    let mut batch = BatchBuilder::new("brief");
    batch.row("b1", now_ns() - HOUR).set("level", 1.0);
    client.write(write(batch.build().unwrap())).await.unwrap();
    let before = cluster.metric(0, "tidemark_clock_doubts_total").await;
    for node in 0..3 {
        eventually("every node looks again", || async {
            match cluster.metric(node, "tidemark_clock_doubts_total").await {
                doubts if doubts > before + 3 => Ok(()),
                doubts => Err(format!("{doubts} doubts")),
            }
        })
        .await;
    }
    assert_eq!(read(&client, everything(of_type("brief"))).await.len(), 1);
}

#[tokio::test]
async fn a_type_loses_what_it_keeps_no_longer() {
    let tuning = Tuning {
        retention_every: Duration::from_millis(100),
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(3, tuning).await;
    let client = cluster.client().await;
    let brief = v1::DeviceType {
        bucket_span_s: 1,
        ..device_type("brief", 1)
    };
    client.apply_device_types(vec![brief]).await.unwrap();
    let devices = ["b1", "b2", "b3"].map(|id| device(id, "brief", &[]));
    client.register_devices(devices.to_vec()).await.unwrap();
    // These are almost a day old; some seconds later they are older.
    let old = now_ns() - DAY + 12 * S;
    let mut batch = BatchBuilder::new("brief");
    for (id, t, level) in [
        ("b1", old, 1.0),
        ("b2", old, 2.0),
        ("b2", old + HOUR, 3.0),
        ("b3", old, 4.0),
    ] {
        batch.row(id, t).set("level", level);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
    let records = || async { read(&client, everything(of_type("brief"))).await.len() };
    assert_eq!(records().await, 4);
    eventually("old points are gone", || async {
        match records().await {
            1 => Ok(()),
            others => Err(format!("{others} records")),
        }
    })
    .await;
    assert_eq!(
        last_words(&client, "brief").await.len(),
        3,
        "the last word of each device stays"
    );
    replicas_are_equal(&client).await;
    let mut expired = 0;
    for node in 0..3 {
        expired += cluster.metric(node, "tidemark_expired_buckets_total").await;
    }
    assert!((1..=3).contains(&expired), "{expired} spans of time over all shards");
}
