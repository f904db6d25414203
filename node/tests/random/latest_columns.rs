//! Newest values in columns: the same as device by device, whatever was sent and however it is asked for.
//!
//! Never here: which values are newest (see `selectors`, `recorded_answers`). Invariant: both forms are asked of the same state.

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tidemark_client::{BatchBuilder, Client, Value, latest_rows, v1};
use v1::{Quality, ReportKind};

const DEVICES: usize = 60;

/// Some values of some properties, at times that devices and properties often share.
fn random_batch(device_type: &str, first: char, random: &mut StdRng) -> v1::Batch {
    let mut batch = BatchBuilder::new(device_type);
    for at in 0..DEVICES {
        for _ in 0..random.random_range(0..3) {
            let kinds = [
                ReportKind::Routine,
                ReportKind::Unspecified,
                ReportKind::Keepalive,
                ReportKind::Test,
            ];
            let mut row = batch
                .row(&format!("{first}{at}"), T0 + random.random_range(0..4) * MIN)
                .report_kind(kinds[random.random_range(0..kinds.len())]);
            let number: i64 = random.random_range(-3..3);
            let values: [(&str, Value); 6] = [
                ("level", (number as f64 / 4.0).into()),
                ("raw", f64::NAN.into()),
                ("count", (number * 1_000_000_007).into()),
                ("on", (number > 0).into()),
                ("mode", Value::Enum(["off", "fast"][usize::from(number > 0)].to_owned())),
                ("note", Value::Text("é".repeat(usize::try_from(number + 3).unwrap()))),
            ];
            let qualities = [Quality::Unspecified, Quality::Good, Quality::Fail];
            // A row has a value.
            let surely = random.random_range(0..values.len());
            for (at, (property, value)) in values.into_iter().enumerate() {
                if at == surely || random.random_bool(0.7) {
                    row = row.set_with_quality(property, value, qualities[random.random_range(0..3)]);
                }
            }
        }
    }
    batch.build().unwrap()
}

/// Every row of an answer, and its devices; sorted, since columns come type by type.
async fn rows(client: &Client, request: v1::GetLatestRequest) -> (Vec<String>, u64) {
    let in_columns = request.in_columns;
    let answer = client.get_latest(request).await.unwrap();
    let (messages, summary) = answer.collect().await.unwrap();
    for message in &messages {
        let other_form = if in_columns {
            message.devices.len()
        } else {
            message.tables.len()
        };
        assert_eq!(other_form, 0, "in columns: {in_columns}");
    }
    let mut rows: Vec<String> = messages
        .iter()
        .flat_map(latest_rows)
        .map(|row| format!("{row:?}"))
        .collect();
    rows.sort();
    (rows, summary.devices)
}

#[tokio::test]
async fn columns_tell_what_devices_one_by_one_tell() {
    let mut random = seeded();
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let ids: Vec<String> = ["m", "r"]
        .iter()
        .flat_map(|first| (0..DEVICES).map(move |at| format!("{first}{at}")))
        .collect();
    furnish(&client, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let everything = Some(v1::Selector {
        everything: true,
        ..Default::default()
    });
    let (mut told, mut silent) = (0, 0);
    for _ in 0..3 {
        for (device_type, first) in [(METER, 'm'), (RELIC, 'r')] {
            client
                .write(write(random_batch(device_type, first, &mut random)))
                .await
                .unwrap();
        }
        for _ in 0..12 {
            let properties = [
                vec![],
                vec!["level".to_owned()],
                vec!["note".to_owned(), "mode".to_owned()],
            ];
            let selectors = [
                of_type(METER),
                of_type(RELIC),
                of_devices(&["m3", "r5"]),
                everything.clone(),
            ];
            let request = v1::GetLatestRequest {
                selector: selectors[random.random_range(0..selectors.len())].clone(),
                properties: properties[random.random_range(0..properties.len())].clone(),
                stale_after_ms: [0, 90_000][random.random_range(0..2)],
                at_ns: [0, T0 + MIN, T0 + 2 * MIN][random.random_range(0..3)],
                any_quality: random.random(),
                test_points: random.random_bool(0.2),
                ..Default::default()
            };
            let in_columns = v1::GetLatestRequest {
                in_columns: true,
                ..request.clone()
            };
            let expected = rows(&client, request.clone()).await;
            assert_eq!(rows(&client, in_columns).await, expected, "{request:?}");
            let nothing = expected.0.iter().filter(|row| row.contains("newest: None")).count();
            (told, silent) = (told + expected.0.len() - nothing, silent + nothing);
        }
    }
    assert!(told > 1_000 && silent > 100, "{told} values, {silent} devices without");
}
