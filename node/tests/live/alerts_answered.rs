//! What people say of alerts, through the public client: acknowledged and closed, also where points move the alert later.
//! Never here: when levels begin and end (`alerts`).

use crate::common::TestCluster;
use crate::common::afternoon::at;
use crate::common::alarm::*;
use crate::common::eventually;
use crate::common::fleet::*;
use tidemark_client::v1;

#[tokio::test]
async fn acknowledged_and_closed() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &ALL).await;
    client.write(write(depths(&[(0, 0.0), (5, 0.3)]))).await.unwrap();
    goes(&client, "PD1", "depth", &["14:05 orange"], 0).await;
    let answer = |close: bool, minute: i64| v1::AnswerAlertsRequest {
        alerts: vec![v1::AlertName {
            device: "PD1".into(),
            profile: "depth".into(),
            began_ns: at(14, minute),
        }],
        close,
        by: "duty@town".into(),
        note: "pump is on its way".into(),
    };
    let refused = async |request| shown(&client.answer_alerts(request).await.unwrap_err());
    let seen = client.answer_alerts(answer(false, 5)).await.unwrap();
    assert!(seen.alerts[0].acknowledged && seen.alerts[0].level == "orange");
    let step = seen.alerts[0].steps.last().unwrap();
    assert_eq!(
        (step.by.as_str(), step.note.as_str()),
        ("duty@town", "pump is on its way")
    );
    client.answer_alerts(answer(false, 5)).await.unwrap();
    assert_eq!(
        refused(answer(true, 5)).await,
        "FAILED_PRECONDITION ALERT_IN_FORCE alerts[0]; acknowledge it; it can be closed once it is over"
    );
    assert_eq!(
        refused(answer(true, 6)).await,
        "NOT_FOUND UNKNOWN_ALERT alerts[0]; tidemark alert list --history"
    );
    client
        .write(write(depths(&[(10, 0.3), (15, 0.15), (20, 0.0), (30, 0.0)])))
        .await
        .unwrap();
    let reasons = async || {
        let all = steps(&client, "PD1", "depth").await;
        all.iter().map(|step| step.reason()).collect::<Vec<_>>()
    };
    use v1::AlertReason::{Acknowledged, Cleared, Closed, Raised};
    eventually("cleared", || async {
        let seen = reasons().await;
        if seen == [Raised, Acknowledged, Cleared] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    let closed = client.answer_alerts(answer(true, 5)).await.unwrap();
    assert!(closed.alerts[0].closed && closed.alerts[0].ended_ns == at(14, 30));
    assert_eq!(closed.alerts[0].worst_level, "orange");
    client.answer_alerts(answer(true, 5)).await.unwrap();
    assert_eq!(
        reasons().await,
        [Raised, Acknowledged, Cleared, Closed],
        "once is enough"
    );
    let nobody = v1::AnswerAlertsRequest {
        by: String::new(),
        ..answer(true, 5)
    };
    assert_eq!(refused(nobody).await, "INVALID_ARGUMENT INVALID_VALUE by");
}

#[tokio::test]
async fn an_acknowledgement_goes_with_an_alert_whose_begin_moves() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    ready(&client, &ALL).await;
    let send = async |points: &[(i64, f64)]| client.write(write(depths(points))).await.unwrap();
    let of_pd1 = v1::ListAlertsRequest {
        selector: of_devices(&["PD1"]),
        profiles: vec!["depth".into()],
        steps: true,
        ..Default::default()
    };
    let in_force = async |began: i64, since: i64, level: &str| {
        eventually("the alert as it is by now", || async {
            match alerts(&client, of_pd1.clone()).await.pop() {
                Some(alert)
                    if (alert.began_ns, alert.since_ns, alert.level.as_str())
                        == (at(14, began), at(14, since), level) =>
                {
                    Ok(alert)
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await
    };
    send(&[(0, 0.0), (10, 0.06), (15, 0.2)]).await;
    in_force(10, 15, "yellow").await;
    let request = v1::AnswerAlertsRequest {
        alerts: vec![v1::AlertName {
            device: "PD1".into(),
            profile: "depth".into(),
            began_ns: at(14, 10),
        }],
        by: "duty@town".into(),
        note: "pump is on its way".into(),
        close: false,
    };
    let answered = client.answer_alerts(request).await.unwrap().alerts.remove(0);
    let who = |alert: &v1::Alert| {
        let words = (alert.acknowledged_by.clone(), alert.acknowledged_note.clone());
        (alert.acknowledged, words, alert.acknowledged_at_ns)
    };
    let expected = who(&answered);
    let words = ("duty@town".to_owned(), "pump is on its way".to_owned());
    assert!(expected.0 && expected.1 == words && expected.2 > 0, "{answered:?}");

    // It began earlier, then later than was known, and so did the level that is in force.
    send(&[(5, 0.06)]).await;
    let earlier = in_force(5, 15, "yellow").await;
    assert_eq!(who(&earlier), expected);
    let step = earlier
        .steps
        .iter()
        .find(|step| step.reason() == v1::AlertReason::Acknowledged);
    assert_eq!(step.map(|step| step.moved_from_ns), Some(at(14, 10)));
    send(&[(5, 0.0), (10, 0.0), (20, 0.2)]).await;
    assert_eq!(who(&in_force(15, 15, "yellow").await), expected);
    send(&[(15, 0.06)]).await;
    assert_eq!(who(&in_force(15, 20, "yellow").await), expected);
    // A level that nobody has heard of is news.
    send(&[(18, 0.3)]).await;
    assert!(!in_force(15, 18, "orange").await.acknowledged);
}
