//! Values that are no numbers, among numbers and by themselves: what counts does not depend on the block that they lie in, nor on the way
//! in which they are asked for. Never here: numbers (see `suspects`). Invariant: what is expected is counted by hand.

use super::suspects::{About, furnish_checked, send};
use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{Value, v1};
use v1::Function::{Avg, Count};
use v1::query_intervals_request::Condition;
use v1::{Kind, Quality, ValueType};

const METERED: &str = "test-metered";
const ROWS: i64 = 300;

/// What is no number is in no range, in a block that was sent whole and in one that was merged.
#[tokio::test]
async fn what_is_no_number_is_left_out_of_every_block() {
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let raw = v1::Property {
        min: Some(0.0),
        max: Some(100.0),
        allow_non_finite: true,
        ..property("raw", ValueType::F64, Kind::Gauge)
    };
    let metered = v1::DeviceType {
        id: METERED.into(),
        properties: vec![raw],
        sample_interval_s: 60,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![metered]).await.unwrap();
    for (id, fragments) in [("whole", 1), ("parts", 3)] {
        client.register_devices(vec![device(id, METERED, &[])]).await.unwrap();
        for part in 0..fragments {
            let length = ROWS / fragments;
            let rows = (part * length..(part + 1) * length).map(|row| {
                let value = if row == 30 { f64::NAN } else { (row % 7) as f64 };
                (id, T0 + row * MIN, value)
            });
            client.write(write(batch(METERED, "raw", rows))).await.unwrap();
        }
    }
    for flushed in [false, true] {
        for id in ["whole", "parts"] {
            for (no_rollups, largest_gap, step_ns) in [
                (false, false, 0),
                (true, false, 0),
                (true, true, 0),
                (true, false, HOUR),
            ] {
                let about = About {
                    id,
                    property: "raw",
                    span: (T0, T0 + ROWS * MIN),
                };
                let request = v1::QueryAggregateRequest {
                    selector: of_devices(&[id]),
                    functions: vec![Count as i32, Avg as i32],
                    from_ns: T0,
                    to_ns: T0 + ROWS * MIN,
                    window: (step_ns > 0).then(|| v1::Window {
                        step_ns,
                        ..Default::default()
                    }),
                    no_rollups,
                    largest_gap,
                    ..Default::default()
                };
                let what = format!("{id}, flushed {flushed}: {request:?}");
                let answers = about.answers(&client, request).await;
                let first = if step_ns > 0 { 59.0 } else { 299.0 };
                assert!(
                    answers.len() == 2 && answers[0] == first && answers[1] < 7.0,
                    "{answers:?}, {what}"
                );
            }
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}

/// Each second value is the one, then the other; the source doubts one and calls another failed.
async fn check<V: Clone + Into<Value>>(checked: v1::Property, values: [V; 2], states: Option<&str>) {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let limits = [
        ("spike", "0.5"),
        ("rate_per_min", "0.1"),
        ("flat_s", "300"),
        ("flat_eps", "5"),
    ];
    let id = format!("test-{}", checked.id);
    let about = About {
        id: &id,
        property: &checked.id.clone(),
        span: (T0, T0 + 20 * MIN),
    };
    let checked = v1::Property {
        min: Some(5.0),
        typical_max: Some(0.5),
        attributes: limits.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..checked
    };
    furnish_checked(&client, &id, checked).await;
    let points: Vec<(V, Quality)> = (0..20)
        .map(|minute: usize| {
            let stated = match minute {
                7 => Quality::Suspect,
                12 => Quality::Fail,
                _ => Quality::Unspecified,
            };
            (values[minute % 2].clone(), stated)
        })
        .collect();
    send(&client, &id, about.property, &points).await;
    about.check(&client, [20, 1, 1]).await;
    assert!(about.qualifiers(&client).await.is_empty(), "{id}");
    let Some(state) = states else { return };
    // Each odd minute, one longer behind which the next one failed, without that which the source doubts.
    for (drop_suspect, minutes) in [(false, 10.0), (true, 9.0)] {
        let request = v1::QueryAggregateRequest {
            selector: of_devices(&[&id]),
            properties: vec![about.property.into()],
            functions: vec![v1::Function::Duration as i32],
            states: vec![state.into()],
            from_ns: T0,
            to_ns: T0 + 19 * MIN,
            drop_suspect,
            ..Default::default()
        };
        let request_of_intervals = v1::QueryIntervalsRequest {
            selector: of_devices(&[&id]),
            property: about.property.into(),
            from_ns: T0,
            to_ns: T0 + 19 * MIN,
            condition: Some(Condition::State(state.into())),
            drop_suspect,
            ..Default::default()
        };
        assert_eq!(
            about.answers(&client, request).await,
            [minutes * 60.0],
            "{id}, {drop_suspect}"
        );
        let answer = client.query_intervals(request_of_intervals).await.unwrap();
        let (messages, _) = answer.collect().await.unwrap();
        let total = messages[0].devices[0].total_ns as f64 / MIN as f64;
        assert_eq!(total, minutes, "{id}, {drop_suspect}");
    }
}

#[tokio::test]
async fn a_bool_has_no_limits_and_no_neighbours() {
    check(
        property("on", ValueType::Bool, Kind::State),
        [false, true],
        Some("true"),
    )
    .await;
}

#[tokio::test]
async fn a_label_has_no_limits_and_no_neighbours() {
    let mode = v1::Property {
        labels: ["dry", "wet"].map(str::to_owned).into(),
        ..property("mode", ValueType::Enum, Kind::State)
    };
    let values = ["dry", "wet"].map(|label| Value::Enum(label.into()));
    check(mode, values, Some("wet")).await;
}

#[tokio::test]
async fn a_text_has_no_limits_and_no_neighbours() {
    check(
        property("note", ValueType::Text, Kind::Event),
        ["a", "b"].map(|text| Value::Text(text.into())),
        None,
    )
    .await;
}
