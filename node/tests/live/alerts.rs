//! Alerts on three nodes, through the public client: an afternoon of rain as it came, late and corrected points, silence, the death of
//! leaders. What people answer: `alerts_answered`; everything else that the afternoon tells: `storm`.

use crate::common::TestCluster;
use crate::common::afternoon::*;
use crate::common::alarm::*;
use crate::common::eventually;
use crate::common::fleet::*;
use crate::common::operator::three_are_equal;
use crate::common::story;
use tidemark_client::{BatchBuilder, Client, v1};

/// Everything that happens to be observed at some times, moved by a shift.
fn observed(devices: &[&str], times: impl Iterator<Item = i64>, shift_ns: i64) -> v1::Batch {
    let mut batch = BatchBuilder::new(GAUGE);
    for t in times {
        for device in devices {
            let row = batch.row(device, t + shift_ns);
            match *device {
                "RG1" => row.set("rain", rain(0, t)),
                "RG2" => row.set("rain", rain(1, t)),
                "PD1" => row.set("depth", depth(t)),
                _ => row.set("level", level(t)),
            };
        }
    }
    batch.build().unwrap()
}

fn between(from: i64, to: i64) -> impl Iterator<Item = i64> {
    stamps().filter(move |t| (from..=to).contains(t))
}

#[tokio::test]
async fn an_afternoon_as_it_came() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &ALL).await;
    client.apply_alert_profiles(vec![witness()]).await.unwrap();
    let seen = async |steps: &[&str]| goes(&client, "PD1", "any_depth", steps, 0).await;
    client
        .write(write(observed(&ALL, between(at(14, 0), at(15, 5)), 0)))
        .await
        .unwrap();
    seen(&["15:05 red"]).await;
    let believed = steps(&client, "PD1", "depth").await;
    assert!(believed.is_empty(), "1.90 is seen, and no depth: {believed:?}");
    assert_eq!(findings(&client, at(15, 5)).await, (0, 1), "it came too fast");
    let mut from = at(15, 10);
    while from <= at(20, 0) {
        write_and_see(&cluster, &client, observed(&ALL, between(from, from + 4 * FIVE), 0)).await;
        if from == at(15, 10) {
            seen(&["15:05 red", "15:05 red withdrawn"]).await;
            assert_eq!(findings(&client, at(15, 5)).await, (1, 0), "it was a spike");
        }
        from += 5 * FIVE;
    }
    story::alerts_in_order(&client).await;

    let at_four = v1::ListAlertsRequest {
        selector: of_type(GAUGE),
        at_ns: at(16, 0),
        by_device: true,
        normal: true,
        ..Default::default()
    };
    let rows = alerts(&client, at_four.clone()).await;
    let told = rows.iter().map(|row| {
        (
            row.device.as_str(),
            row.level.as_str(),
            row.observed_at_ns,
            row.age_ms,
            row.stale,
        )
    });
    let expected = [("PD1", "red"), ("RG1", "orange"), ("RG2", "orange"), ("RL1", "orange")];
    assert_eq!(
        told.collect::<Vec<_>>(),
        expected.map(|(device, level)| (device, level, at(16, 0), 0, false))
    );
    assert_eq!(rows[0].value, 0.46);
    let limited = v1::ListAlertsRequest { limit: 1, ..at_four };
    assert_eq!(alerts(&client, limited).await[0].device, "PD1");
}

/// Of the depth of a time: how often it failed, and how often it was suspect.
async fn findings(client: &Client, t: i64) -> (u64, u64) {
    let request = v1::GetQualityRequest {
        selector: of_devices(&["PD1"]),
        property: "depth".into(),
        from_ns: t,
        to_ns: t + FIVE,
        ..Default::default()
    };
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    let report = &messages[0].reports[0];
    (report.points_fail, report.points_suspect)
}

#[tokio::test]
async fn an_outage_is_silence_until_its_points_come() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &[&ALL[..], &["RL2"]].concat()).await;
    // It is four o'clock.
    let shift = tidemark_node::clock::now_ns() - at(16, 0) - S;
    let (live, held_back) = (["RG1", "PD1", "RL1"], (at(15, 25), at(16, 10)));
    client
        .write(write(observed(&live, between(at(14, 0), at(16, 0)), shift)))
        .await
        .unwrap();
    client
        .write(write(observed(&["RG2"], between(at(14, 0), at(15, 20)), shift)))
        .await
        .unwrap();
    goes(&client, "RG2", "rain_3h", &["15:55 normal stale"], shift).await;
    goes(&client, "PD1", "depth", &DEPTH_STEPS[..4], shift).await;
    goes(&client, "RG1", "rain_3h", &["15:40 orange"], shift).await;
    goes(&client, "RL1", "rise", &["15:45 yellow", "16:00 orange"], shift).await;
    let town = |at_ns: i64| v1::ListAlertsRequest {
        selector: of_devices(&ALL),
        at_ns: at_ns + shift,
        by_device: true,
        normal: true,
        ..Default::default()
    };
    let rows = alerts(&client, town(at(16, 0))).await;
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.device.as_str(), row.level.as_str(), row.age_ms / 1_000, row.stale))
        .collect();
    let expected = [
        ("PD1", "red", 0, false),
        ("RG1", "orange", 0, false),
        ("RL1", "orange", 0, false),
        ("RG2", "", 2_400, true),
    ];
    assert_eq!(told, expected);
    let stale_at = async |at_ns: i64| alerts(&client, town(at_ns)).await.iter().any(|row| row.stale);
    assert!(!stale_at(at(15, 50)).await, "1,800 s are not more than 1,800 s");
    assert!(stale_at(at(15, 55)).await);

    let before = tidemark_node::clock::now_ns();
    client
        .write(write(observed(&["RG2"], between(held_back.0, held_back.1), shift)))
        .await
        .unwrap();
    let steps = goes(
        &client,
        "RG2",
        "rain_3h",
        &["15:55 normal stale", "15:40 orange", "16:10 orange fresh"],
        shift,
    )
    .await;
    assert!(steps[1].raised_at_ns >= before && steps[1].since_ns == at(15, 40) + shift);
    client
        .write(write(observed(&["RG2"], between(at(16, 15), at(17, 0)), shift)))
        .await
        .unwrap();
    let all = ["15:55 normal stale", "15:40 orange", "16:10 orange fresh", "16:35 red"];
    goes(&client, "RG2", "rain_3h", &all, shift).await;

    // Another river, where it is a quarter past five: nothing came for more than half an hour.
    let later = tidemark_node::clock::now_ns() - at(17, 15) - S;
    client
        .write(write(observed(&["RL2"], between(at(14, 0), at(16, 40)), later)))
        .await
        .unwrap();
    goes(&client, "RL2", "river", &["16:35 yellow", "17:15 yellow stale"], later).await;
    let in_force = v1::ListAlertsRequest {
        selector: of_devices(&["RL2"]),
        profiles: vec!["river".into()],
        ..Default::default()
    };
    let alert = &alerts(&client, in_force).await[0];
    assert_eq!(
        (alert.level.as_str(), alert.stale, alert.value),
        ("yellow", true, 1.42),
        "silence clears nothing"
    );
    let request = v1::AnswerAlertsRequest {
        alerts: vec![v1::AlertName {
            device: "RL2".into(),
            profile: "river".into(),
            began_ns: alert.began_ns,
        }],
        by: "duty@town".into(),
        ..Default::default()
    };
    let seen = client.answer_alerts(request).await.unwrap().alerts.remove(0);
    assert!(seen.acknowledged && seen.stale, "as it is now: {seen:?}");
}

#[tokio::test]
async fn who_only_says_that_it_is_there_is_silent_all_the_same() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    let rivers = ["RL1", "RL2", "RL3"];
    ready(&client, &rivers).await;
    // It is a little before five past four: half an hour has passed, and no sample is missing since.
    let shift = tidemark_node::clock::now_ns() - at(16, 5) + 4 * S;
    let mut batch = BatchBuilder::new(GAUGE);
    for river in rivers {
        batch.row(river, at(15, 30) + shift).set("level", 1.45);
    }
    let later = at(15, 50) + shift;
    let row = batch.row("RL1", later).report_kind(v1::ReportKind::Keepalive);
    row.set("level", 1.0);
    let failed = tidemark_client::Value::F64(1.0);
    batch
        .row("RL2", later)
        .set_with_quality("level", failed, v1::Quality::Fail);
    client.write(write(batch.build().unwrap())).await.unwrap();
    for river in rivers {
        let steps = goes(&client, river, "river", &["15:30 yellow", "16:05 yellow stale"], shift).await;
        assert!(steps[1].raised_at_ns >= steps[1].since_ns, "{steps:?}");
    }
    // That it is there makes nothing fresh.
    let mut batch = BatchBuilder::new(GAUGE);
    let row = batch
        .row("RL1", at(15, 55) + shift)
        .report_kind(v1::ReportKind::Keepalive);
    row.set("level", 1.0);
    batch.row("RL3", at(15, 55) + shift).set("level", 1.45);
    write_and_see(&cluster, &client, batch.build().unwrap()).await;
    let fresh = ["15:30 yellow", "16:05 yellow stale", "15:55 yellow fresh"];
    goes(&client, "RL3", "river", &fresh, shift).await;
    goes(&client, "RL1", "river", &fresh[..2], shift).await;
}

/// The shard of a device.
pub(crate) fn shard_of(map: &v1::GetShardMapResponse, device: &str) -> u32 {
    let slot = xxhash_rust::xxh3::xxh3_64(device.as_bytes()) % map.slots.len() as u64;
    map.slots[slot as usize]
}

/// The shard of a device, and the number of the node that leads it.
pub(crate) async fn shard_and_leader(client: &Client, device: &str) -> (u32, usize) {
    eventually("the shard has a leader", || async {
        let map = client.shard_map().await.map_err(|error| error.to_string())?;
        let shard = shard_of(&map, device);
        let leader = map.leaders.iter().find(|leader| leader.shard == shard);
        let leader = leader.and_then(|found| found.leader.as_ref());
        leader
            .map(|leader| (shard, leader.id as usize - 1))
            .ok_or(format!("{map:?}"))
    })
    .await
}

#[tokio::test]
async fn leaders_die_and_alerts_go_on_without_doubles() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &ALL).await;
    client
        .write(write(observed(&ALL, between(at(14, 0), at(15, 40)), 0)))
        .await
        .unwrap();
    goes(&client, "PD1", "depth", &DEPTH_STEPS[..4], 0).await;
    let (shard, killed) = shard_and_leader(&client, "PD1").await;
    cluster.drop_node(killed).await;
    for (n, t) in between(at(15, 45), at(20, 0)).enumerate() {
        let batch = observed(&ALL, [t].into_iter(), 0);
        client.write(numbered(batch, "town", n as u64 + 1)).await.unwrap();
    }
    goes(&client, "PD1", "depth", &DEPTH_STEPS, 0).await;
    goes(
        &client,
        "RG2",
        "rain_3h",
        &["15:40 orange", "16:35 red", "19:00 normal"],
        0,
    )
    .await;
    cluster.restart(killed).await;
    cluster.healthy(killed).await;
    for i in 0..3 {
        if i != killed {
            cluster.stop(i).await;
            cluster.restart(i).await;
            cluster.healthy(i).await;
        }
    }
    // Whoever leads now has looked at everything again.
    let late = observed(&["PD1"], [at(20, 0)].into_iter(), FIVE);
    client.write(write(late)).await.unwrap();
    goes(&client, "PD1", "depth", &DEPTH_STEPS, 0).await;
    goes(&client, "RL1", "river", &["16:35 yellow", "18:25 orange"], 0).await;
    three_are_equal(&client, shard).await;
}

#[tokio::test]
async fn late_and_corrected_points_withdraw_what_never_was() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &ALL).await;
    let send = async |points: &[(i64, f64)]| client.write(write(depths(points))).await.unwrap();
    send(&[(0, 0.0), (10, 0.1), (15, 0.2), (20, 0.2)]).await;
    goes(&client, "PD1", "depth", &["14:10 blue", "14:15 yellow"], 0).await;
    send(&[(15, 0.1)]).await;
    let all = ["14:10 blue", "14:15 yellow", "14:15 yellow withdrawn", "14:20 yellow"];
    goes(&client, "PD1", "depth", &all, 0).await;
    send(&[(5, 0.06)]).await;
    let steps = steps_by_level(&client).await;
    assert_eq!(steps, ["14:05 blue", "14:20 yellow"], "the alert began earlier");
    send(&[(5, 0.0), (10, 0.0), (15, 0.0), (20, 0.0)]).await;
    let history = v1::ListAlertsRequest {
        selector: of_devices(&["PD1"]),
        profiles: vec!["depth".into()],
        history: true,
        ..Default::default()
    };
    eventually("nothing ever was", || async {
        let alerts = alerts(&client, history.clone()).await;
        match !alerts.is_empty() && alerts.iter().all(|alert| alert.withdrawn && alert.rank == 0) {
            true => Ok(()),
            false => Err(format!("{alerts:?}")),
        }
    })
    .await;
}

/// Steps of PD1 that hold, once the first one is at five past two.
async fn steps_by_level(client: &Client) -> Vec<String> {
    eventually("an earlier begin", || async {
        let all = steps(client, "PD1", "depth").await;
        let never = |step: &v1::AlertStep| {
            let same = |other: &v1::AlertStep| {
                (other.since_ns, &other.level, other.began_ns) == (step.since_ns, &step.level, step.began_ns)
            };
            all.iter()
                .any(|other| other.reason() == v1::AlertReason::Withdrawn && same(other))
        };
        let holds: Vec<v1::AlertStep> = all.iter().filter(|step| !never(step)).cloned().collect();
        let mut holds = told(&holds, 0);
        holds.sort();
        match holds.first().is_some_and(|first| first.starts_with("14:05")) {
            true => Ok(holds),
            false => Err(format!("{holds:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn deleted_points_withdraw_their_steps() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &ALL).await;
    client
        .write(write(depths(&[(0, 0.0), (10, 0.1), (15, 0.2), (20, 0.2)])))
        .await
        .unwrap();
    goes(&client, "PD1", "depth", &["14:10 blue", "14:15 yellow"], 0).await;
    let delete = v1::DeletePointsRequest {
        selector: of_devices(&["PD1"]),
        from_ns: Some(at(14, 15)),
        to_ns: Some(at(14, 16)),
        ..Default::default()
    };
    client.delete_points(delete).await.unwrap();
    let all = ["14:10 blue", "14:15 yellow", "14:15 yellow withdrawn", "14:20 yellow"];
    goes(&client, "PD1", "depth", &all, 0).await;
}

#[tokio::test]
async fn profiles_come_change_and_go() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &ALL).await;
    client.write(write(depths(&[(0, 0.0), (5, 0.3)]))).await.unwrap();
    goes(&client, "PD1", "depth", &["14:05 orange"], 0).await;
    let again = client.apply_alert_profiles(profiles()).await.unwrap();
    assert_eq!((again.created, again.changed, again.unchanged), (0, 0, 6));
    let mut milder = profiles().remove(0);
    milder.levels.truncate(1);
    let changed = client.apply_alert_profiles(vec![milder]).await.unwrap();
    assert_eq!((changed.changed, changed.profiles[0].version), (1, 7));
    let levels = async |profile: &str| {
        let all = steps(&client, "PD1", profile).await;
        all.iter()
            .map(|step| (step.level.clone(), step.reason()))
            .collect::<Vec<_>>()
    };
    use v1::AlertReason::{ProfileChanged, Raised};
    let step = |level: &str, reason| (level.to_owned(), reason);
    let expected = vec![step("orange", Raised), step("", ProfileChanged), step("blue", Raised)];
    eventually("the milder profile", || async {
        let seen = levels("depth").await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    let now = v1::ListAlertsRequest {
        selector: of_devices(&["PD1"]),
        profiles: vec!["depth".into()],
        at_ns: tidemark_node::clock::now_ns(),
        ..Default::default()
    };
    let in_force = alerts(&client, now).await;
    assert_eq!(in_force[0].since_ns, at(14, 5), "as the changed profile sees it");
    assert_eq!(client.remove_alert_profiles(vec!["depth".into()]).await.unwrap(), 1);
    let ended = [expected, vec![step("", ProfileChanged)]].concat();
    eventually("the end", || async {
        let seen = levels("depth").await;
        if seen == ended {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    let gone = client.list_alert_profiles(vec!["depth".into()]).await.unwrap_err();
    assert_eq!(
        shown(&gone),
        "NOT_FOUND UNKNOWN_ALERT_PROFILE; tidemark alert profile list"
    );
    assert_eq!(client.list_alert_profiles(Vec::new()).await.unwrap().len(), 5);
    let mut bad = profiles().remove(1);
    bad.property = "level".into();
    let refused = client.apply_alert_profiles(vec![bad]).await.unwrap_err();
    assert_eq!(
        shown(&refused),
        "INVALID_ARGUMENT UNLAWFUL_FUNCTION profiles[0].function"
    );
    let mut bad = profiles();
    bad[1].stale_after_s = FIVE / S - 1;
    let refused = client.apply_alert_profiles(bad).await.unwrap_err();
    assert_eq!(
        shown(&refused),
        "INVALID_ARGUMENT INVALID_ALERT_PROFILE profiles[1].stale_after_s"
    );
}
