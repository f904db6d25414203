//! Values by which a device says that it has none: kept as they came, and taken for nothing.
//! Never here: which lists a type may have (see `catalog::missing`). Invariant: such a value is in no answer but that to a raw question.

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, Value, answers_of, rows, v1};
use v1::Function::{Count, Max};
use v1::{Kind, Quality, ValueType};

const PIT: &str = "test-pit";

fn pit_type(listed: &[&str]) -> v1::DeviceType {
    let depth = v1::Property {
        max: Some(5.0),
        missing: listed.iter().map(ToString::to_string).collect(),
        ..property("depth", ValueType::F64, Kind::Gauge)
    };
    v1::DeviceType {
        id: PIT.into(),
        properties: vec![depth],
        sample_interval_s: 60,
        ..v1::DeviceType::default()
    }
}

/// Depths at minutes 0, 1, 2 …
async fn write_depths(client: &Client, depths: &[f64]) {
    let mut batch = BatchBuilder::new(PIT);
    for (minute, depth) in (0..).zip(depths) {
        batch.row("p1", T0 + minute * MIN).set("depth", *depth);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

#[tokio::test]
async fn a_sentinel_is_no_value() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    client
        .apply_device_types(vec![pit_type(&["65535", "-999999"])])
        .await
        .unwrap();
    client.register_devices(vec![device("p1", PIT, &[])]).await.unwrap();
    write_depths(&client, &[1.0, 65_535.0, 2.0, 7.0, -999_999.0]).await;

    let (messages, summary) = client
        .query_range(everything(of_devices(&["p1"])))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let batches = messages.iter().filter_map(|message| message.batch.as_ref());
    let said: Vec<(Value, Option<Quality>)> = batches
        .flat_map(rows)
        .map(|row| (row.values[0].1.clone(), row.quality.get("depth").copied()))
        .collect();
    let (missing, nothing) = (Some(Quality::Missing), Some(Quality::Unspecified));
    let expected = [
        (1.0, nothing),
        (65_535.0, missing),
        (2.0, nothing),
        (7.0, nothing),
        (-999_999.0, missing),
    ];
    assert_eq!(said, expected.map(|(depth, quality)| (Value::F64(depth), quality)));
    assert_eq!(summary.points_dropped, 0);

    let counted = v1::QueryAggregateRequest {
        selector: of_devices(&["p1"]),
        properties: vec!["depth".into()],
        functions: vec![Count as i32, Max as i32],
        from_ns: T0,
        to_ns: T0 + 5 * MIN,
        ..Default::default()
    };
    let messages = ask(&client, counted).await;
    let series = &messages[0].series[0];
    let answers: Vec<_> = series
        .columns
        .iter()
        .map(|column| answers_of(column).next().flatten())
        .collect();
    assert_eq!(answers, [Some(Value::I64(2)), Some(Value::F64(2.0))]);

    let latest = client.get_latest(v1::GetLatestRequest {
        selector: of_devices(&["p1"]),
        ..Default::default()
    });
    let (messages, _) = latest.await.unwrap().collect().await.unwrap();
    let newest = &messages[0].devices[0].values[0];
    assert_eq!(
        newest.observed_at_ns,
        T0 + 2 * MIN,
        "7.0 is out of range, -999999 is nothing"
    );

    let quality = v1::GetQualityRequest {
        selector: of_devices(&["p1"]),
        from_ns: T0,
        to_ns: T0 + 5 * MIN,
        ..Default::default()
    };
    let (messages, _) = client.get_quality(quality).await.unwrap().collect().await.unwrap();
    let report = &messages[0].reports[0];
    let (filled, points, fail) = (report.slots_filled, report.points, report.points_fail);
    assert_eq!(
        (report.slots_expected, filled, points, fail),
        (5, 3, 3, 1),
        "{report:?}"
    );
}

#[tokio::test]
async fn what_was_stored_before_it_was_listed_stays() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    client.apply_device_types(vec![pit_type(&[])]).await.unwrap();
    client.register_devices(vec![device("p1", PIT, &[])]).await.unwrap();
    write_depths(&client, &[1.0, 4.5]).await;
    client.apply_device_types(vec![pit_type(&["4.5"])]).await.unwrap();
    write_depths(&client, &[4.5]).await;
    let (messages, _) = client
        .query_range(everything(of_devices(&["p1"])))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let stated = &messages[0].batch.as_ref().unwrap().columns[0].quality;
    assert_eq!(stated, &[Quality::Missing as i32, Quality::Unspecified as i32]);

    let refused = client.apply_device_types(vec![pit_type(&["FF"])]).await.unwrap_err();
    assert_eq!(
        shown(&refused),
        "INVALID_ARGUMENT INVALID_TYPE device_types[0].properties[0]"
    );
    assert!(refused.message.contains("\"FF\" is no finite number"), "{refused}");
}
