//! Alerts of devices whose points are gone for their age. Never here: silence while points are there (see `alerts`).
//! Invariant: what an alert was raised by may go, the alert stays until its device says otherwise.

use std::time::Duration;

use crate::common::alarm::{alerts, steps};
use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{Client, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;
use v1::{AlertFunction, Kind, ValueType};

const SHORT: &str = "short-kept";

/// A type that keeps points for a day, in buckets of a second, so that they go to the second.
async fn furnish_short(client: &Client) {
    let short = v1::DeviceType {
        id: SHORT.into(),
        properties: vec![property("depth", ValueType::F64, Kind::Gauge)],
        sample_interval_s: 1,
        report_interval_s: 1,
        retention_days: 1,
        bucket_span_s: 1,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![short]).await.unwrap();
    client.register_devices(vec![device("d1", SHORT, &[])]).await.unwrap();
}

fn profile(id: &str, on: f64) -> v1::AlertProfile {
    v1::AlertProfile {
        id: id.into(),
        device_type: SHORT.into(),
        property: "depth".into(),
        function: AlertFunction::Last as i32,
        stale_after_s: 60,
        levels: vec![v1::AlertLevel {
            level: "orange".into(),
            on,
            off: on / 2.0,
            severity: 3,
        }],
        ..v1::AlertProfile::default()
    }
}

#[tokio::test]
async fn an_alert_outlives_the_points_that_raised_it() {
    let tuning = Tuning {
        retention_every: Duration::from_millis(100),
        ..Tuning::default()
    };
    let mut cluster = TestCluster::start_with(1, tuning).await;
    let client = cluster.client().await;
    furnish_short(&client).await;
    client.apply_alert_profiles(vec![profile("depth", 0.4)]).await.unwrap();
    let begin = (now_ns() - DAY) / S * S + 12 * S;
    let rows = [("d1", begin, 0.0), ("d1", begin + S, 0.5)];
    client.write(write(batch(SHORT, "depth", rows))).await.unwrap();
    eventually("it is raised, and stale", || async {
        match steps(&client, "d1", "depth").await {
            steps if steps.len() == 2 => Ok(()),
            steps => Err(format!("{steps:?}")),
        }
    })
    .await;
    let told = steps(&client, "d1", "depth").await;
    eventually("the points are gone", || async {
        match read(&client, everything(of_type(SHORT))).await.len() {
            0 => Ok(()),
            left => Err(format!("{left} points")),
        }
    })
    .await;
    // Another profile has every device looked at anew; so does a new start.
    client.apply_alert_profiles(vec![profile("other", 0.3)]).await.unwrap();
    eventually("the other profile is looked at", || async {
        match alerts(&client, listing()).await.len() {
            2 => Ok(()),
            others => Err(format!("{others} alerts")),
        }
    })
    .await;
    assert_eq!(steps(&client, "d1", "depth").await, told);
    cluster.drop_node(0).await;
    cluster.restart(0).await;
    let client = cluster.client().await;
    eventually("it is looked at again", || async {
        match cluster.metric(0, "tidemark_alert_evaluations_total").await {
            0 => Err("no look".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(steps(&client, "d1", "depth").await, told);
    let rows = alerts(&client, listing()).await;
    let depth = rows.iter().find(|row| row.profile == "depth").unwrap();
    assert_eq!((depth.level.as_str(), depth.stale), ("orange", true));
}

fn listing() -> v1::ListAlertsRequest {
    v1::ListAlertsRequest {
        selector: of_type(SHORT),
        normal: true,
        ..Default::default()
    }
}
