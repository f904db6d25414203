//! Alert profiles of the afternoon of rain, and what is told of alerts in a form that reads well.
//! Never here: cases.

use tidemark_client::{Client, v1};
use v1::AlertReason::{self, *};

use super::afternoon::{GAUGE, TWO, at, equip};
use super::fleet::MIN;
use super::{TestCluster, eventually};

/// Two gauges of rain, an underpass and a river.
pub(crate) const ALL: [&str; 4] = ["RG1", "RG2", "PD1", "RL1"];

/// What the underpass goes through.
pub(crate) const DEPTH_STEPS: [&str; 6] = [
    "15:25 blue",
    "15:30 yellow",
    "15:35 orange",
    "15:40 red",
    "16:45 orange",
    "17:00 normal",
];

fn profile(id: &str, property: &str, function: v1::AlertFunction, window_s: i64, hold_s: i64) -> v1::AlertProfile {
    v1::AlertProfile {
        id: id.into(),
        device_type: GAUGE.into(),
        property: property.into(),
        function: function as i32,
        window_s,
        hold_s,
        accept_suspect: property == "rain",
        stale_after_s: 1_800,
        ..v1::AlertProfile::default()
    }
}

fn with(profile: v1::AlertProfile, levels: &[(&str, f64, f64)]) -> v1::AlertProfile {
    let severity = |name: &str| {
        1 + ["blue", "yellow", "orange", "red"]
            .iter()
            .position(|known| *known == name)
            .unwrap() as u32
    };
    let level = |(name, on, off): &(&str, f64, f64)| v1::AlertLevel {
        level: (*name).into(),
        on: *on,
        off: *off,
        severity: severity(name),
    };
    v1::AlertProfile {
        levels: levels.iter().map(level).collect(),
        ..profile
    }
}

/// Depth of an underpass, rain of three lengths, level and rise of a river.
pub(crate) fn profiles() -> Vec<v1::AlertProfile> {
    use v1::AlertFunction::{Last, RisePerHour, Sum};
    let depth = [
        ("blue", 0.05, 0.03),
        ("yellow", 0.15, 0.12),
        ("orange", 0.27, 0.22),
        ("red", 0.4, 0.35),
    ];
    let level = [("yellow", 1.4, 1.35), ("orange", 1.6, 1.55), ("red", 2.0, 1.95)];
    vec![
        with(profile("depth", "depth", Last, 0, 600), &depth),
        with(profile("rain_12h", "rain", Sum, 43_200, 1_800), &[("blue", 50.0, 45.0)]),
        with(
            profile("rain_6h", "rain", Sum, 21_600, 1_800),
            &[("yellow", 50.0, 45.0)],
        ),
        with(
            profile("rain_3h", "rain", Sum, 10_800, 1_800),
            &[("orange", 50.0, 45.0), ("red", 100.0, 90.0)],
        ),
        with(profile("river", "level", Last, 0, 1_800), &level),
        with(
            profile("rise", "level", RisePerHour, 3_600, 1_800),
            &[("yellow", 0.095, 0.065), ("orange", 0.195, 0.145)],
        ),
    ]
}

/// What sees depths that no other profile believes. It is evaluated with the others of its device and before them, as its name is: once
/// it has said something of a point, they have seen that point too.
pub(crate) fn witness() -> v1::AlertProfile {
    let depth = profile("any_depth", "depth", v1::AlertFunction::Last, 0, 0);
    let believes = v1::AlertProfile {
        accept_suspect: true,
        ..depth
    };
    with(believes, &[("red", 1.5, 1.5)])
}

/// Registers devices and applies all profiles.
pub(crate) async fn ready(client: &Client, ids: &[&str]) {
    equip(client, ids).await;
    let applied = client.apply_alert_profiles(profiles()).await.unwrap();
    assert_eq!(applied.created, 6);
}

/// Depths of PD1, minutes after two.
pub(crate) fn depths(points: &[(i64, f64)]) -> v1::Batch {
    let rows = points.iter().map(|(minute, depth)| ("PD1", at(14, *minute), *depth));
    super::fleet::batch(GAUGE, "depth", rows)
}

pub(crate) async fn alerts(client: &Client, request: v1::ListAlertsRequest) -> Vec<v1::Alert> {
    let answer = client.list_alerts(request).await.unwrap();
    let (messages, summary) = answer.collect().await.unwrap();
    let alerts: Vec<v1::Alert> = messages.into_iter().flat_map(|message| message.alerts).collect();
    assert_eq!(summary.rows, alerts.len() as u64);
    alerts
}

/// Everything that was ever said of a device under a profile, in the order in which it was known.
pub(crate) async fn steps(client: &Client, device: &str, profile: &str) -> Vec<v1::AlertStep> {
    let request = v1::ListAlertsRequest {
        selector: super::fleet::of_devices(&[device]),
        profiles: vec![profile.into()],
        history: true,
        normal: true,
        steps: true,
        ..v1::ListAlertsRequest::default()
    };
    let mut steps: Vec<v1::AlertStep> = Vec::new();
    for step in alerts(client, request).await.into_iter().flat_map(|alert| alert.steps) {
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps.sort_by_key(|step| step.raised_at_ns);
    steps
}

/// "15:40 red", or "15:40 red withdrawn" and the like where a step is no plain one; times are those of the afternoon.
pub(crate) fn told(steps: &[v1::AlertStep], shift_ns: i64) -> Vec<String> {
    let word = |reason: AlertReason| match reason {
        Raised | Lowered | Cleared => "",
        Stale => " stale",
        Fresh => " fresh",
        Withdrawn => " withdrawn",
        Acknowledged => " acknowledged",
        Closed => " closed",
        ProfileChanged => " profile changed",
        Unspecified => " unspecified",
    };
    let each = steps.iter().map(|step| {
        let minute = 14 * 60 + (step.since_ns - shift_ns - TWO).div_euclid(MIN);
        let level = if step.level.is_empty() { "normal" } else { &step.level };
        format!("{}:{:02} {level}{}", minute / 60, minute % 60, word(step.reason()))
    });
    each.collect()
}

/// Waits until a device under a profile has gone through exactly these steps.
pub(crate) async fn goes(
    client: &Client,
    device: &str,
    profile: &str,
    expected: &[&str],
    shift_ns: i64,
) -> Vec<v1::AlertStep> {
    eventually(&format!("{device} {profile}"), || async {
        let steps = steps(client, device, profile).await;
        let told = told(&steps, shift_ns);
        if told == expected {
            Ok(steps)
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await
}

/// How often devices were evaluated on all nodes that run.
async fn evaluations(cluster: &TestCluster, nodes: &[usize]) -> u64 {
    let mut sum = 0;
    for i in nodes {
        sum += cluster.metric(*i, "tidemark_alert_evaluations_total").await;
    }
    sum
}

/// Writes, and waits until somebody has looked at it.
pub(crate) async fn write_and_see(cluster: &TestCluster, client: &Client, batch: v1::Batch) {
    let nodes = [0, 1, 2];
    let before = evaluations(cluster, &nodes).await;
    client.write(super::fleet::write(batch)).await.unwrap();
    eventually("an evaluation", || async {
        match evaluations(cluster, &nodes).await {
            now if now > before => Ok(()),
            now => Err(format!("{now} evaluations")),
        }
    })
    .await;
}
