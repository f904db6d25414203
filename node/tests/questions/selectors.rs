//! Selectors through the public client: areas, alternatives and exceptions, on every question that takes one.
//! Never here: tags and types alone (see `registry`).

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{Client, v1};
use v1::area::Shape;

/// A row of gauges from south to north, a hundredth of a degree apart (1,112 m), the last one without a place.
async fn street(client: &Client) {
    furnish(client, &[]).await;
    let gauge = |at: u32| {
        let town = if at < 5 { "south" } else { "north" };
        let place = v1::Place {
            latitude_deg: 30.0 + f64::from(at) / 100.0,
            longitude_deg: 121.0,
        };
        v1::Device {
            place: (at < 9).then_some(place),
            ..device(
                &format!("m{at}"),
                METER,
                &[("town", town), ("odd", if at % 2 == 1 { "yes" } else { "no" })],
            )
        }
    };
    client.register_devices((0..10).map(gauge).collect()).await.unwrap();
    client
        .register_devices(vec![device("r1", RELIC, &[("town", "south")])])
        .await
        .unwrap();
}

fn with_tag(key: &str, value: &str) -> v1::Selector {
    let matcher = v1::TagMatcher {
        key: key.into(),
        values: vec![value.into()],
    };
    v1::Selector {
        tags: vec![matcher],
        ..Default::default()
    }
}

fn within(shape: Shape) -> v1::Selector {
    let area = v1::Area { shape: Some(shape) };
    v1::Selector {
        area: Some(area),
        ..Default::default()
    }
}

fn around(latitude_deg: f64, radius_m: f64) -> v1::Selector {
    within(Shape::Circle(v1::Circle {
        latitude_deg,
        longitude_deg: 121.0,
        radius_m,
    }))
}

fn between(south_deg: f64, north_deg: f64) -> v1::Selector {
    within(Shape::Box(v1::BoundingBox {
        west_deg: 120.9,
        south_deg,
        east_deg: 121.0,
        north_deg,
    }))
}

#[tokio::test]
async fn places_alternatives_and_exceptions_are_joined_freely() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    street(&client).await;
    let odd = || with_tag("odd", "yes");
    let cases: Vec<(v1::Selector, &[&str])> = vec![
        (around(30.04, 1_200.0), &["m3", "m4", "m5"]),
        (between(30.06, 30.08), &["m6", "m7", "m8"]),
        (
            v1::Selector {
                none_of: vec![odd()],
                ..around(30.04, 2_300.0)
            },
            &["m2", "m4", "m6"],
        ),
        (
            v1::Selector {
                any_of: vec![around(30.0, 10.0), around(30.08, 10.0), of_type(RELIC).unwrap()],
                ..Default::default()
            },
            &["m0", "m8", "r1"],
        ),
        (
            v1::Selector {
                device_type: METER.into(),
                none_of: vec![between(29.0, 31.0)],
                ..Default::default()
            },
            &["m9"],
        ),
        (
            v1::Selector {
                any_of: vec![of_devices(&["m1", "nobody"]).unwrap(), of_devices(&["m2"]).unwrap()],
                ..odd()
            },
            &["m1"],
        ),
        (
            v1::Selector {
                none_of: vec![odd()],
                ..of_devices(&["m0", "m1", "m2"]).unwrap()
            },
            &["m0", "m2"],
        ),
    ];
    for (selector, expected) in cases {
        assert_eq!(listed_ids(&client, selector.clone()).await, expected, "{selector:?}");
    }
    let levels = ["m3", "m4", "m5"].map(|id| (id, T0, 2.5));
    client.write(write(batch(METER, "level", levels))).await.unwrap();
    let request = v1::QueryAggregateRequest {
        selector: Some(v1::Selector {
            none_of: vec![odd()],
            ..around(30.04, 1_200.0)
        }),
        properties: vec!["level".into()],
        functions: vec![v1::Function::Count as i32],
        from_ns: T0,
        to_ns: T0 + S,
        grouping: Some(v1::Grouping::default()),
        ..Default::default()
    };
    let messages = ask(&client, request).await;
    assert_eq!(messages[0].series[0].points_seen, [1], "of m4 alone");
    let latest = v1::GetLatestRequest {
        selector: Some(around(30.04, 1_200.0)),
        ..Default::default()
    };
    let (messages, summary) = client.get_latest(latest).await.unwrap().collect().await.unwrap();
    assert_eq!(
        (summary.devices, messages.iter().map(|m| m.devices.len()).sum::<usize>()),
        (3, 3)
    );
}

#[tokio::test]
async fn everything_is_said_and_not_forgotten() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    street(&client).await;
    let all = || v1::Selector {
        everything: true,
        ..Default::default()
    };
    let known = listed_ids(&client, v1::Selector::default()).await;
    assert_eq!(listed_ids(&client, all()).await, known);
    let but = v1::Selector {
        none_of: vec![with_tag("odd", "yes")],
        ..all()
    };
    assert!(listed_ids(&client, but).await.len() < known.len());
    client
        .write(write(batch(METER, "level", [("m3", T0, 2.5)])))
        .await
        .unwrap();
    let asked = async |selector: Option<v1::Selector>| {
        let (from_ns, to_ns) = (T0, T0 + S);
        let devices = |summary: v1::AnswerSummary| summary.devices;
        let range = v1::QueryRangeRequest {
            selector: selector.clone(),
            from_ns,
            to_ns,
            ..Default::default()
        };
        let aggregate = v1::QueryAggregateRequest {
            selector: selector.clone(),
            functions: vec![v1::Function::Count as i32],
            from_ns,
            to_ns,
            ..Default::default()
        };
        let latest = v1::GetLatestRequest {
            selector: selector.clone(),
            ..Default::default()
        };
        let quality = v1::GetQualityRequest {
            selector: selector.clone(),
            from_ns,
            to_ns,
            ..Default::default()
        };
        let intervals = v1::QueryIntervalsRequest {
            selector,
            property: "level".into(),
            from_ns,
            to_ns,
            condition: Some(v1::query_intervals_request::Condition::AtLeast(1.0)),
            ..Default::default()
        };
        let node = cluster.at(0);
        let error = |error: tidemark_client::Error| shown(&error);
        [
            node.range(range)
                .await
                .map(|(_, summary)| devices(summary))
                .map_err(error),
            node.aggregate(aggregate)
                .await
                .map(|(_, summary)| devices(summary))
                .map_err(error),
            node.latest(latest)
                .await
                .map(|(_, summary)| devices(summary))
                .map_err(error),
            node.quality(quality)
                .await
                .map(|(_, summary)| devices(summary))
                .map_err(error),
            node.intervals(intervals)
                .await
                .map(|(_, summary)| devices(summary))
                .map_err(error),
        ]
    };
    for answer in asked(Some(all())).await {
        assert_eq!(answer, Ok(known.len() as u64));
    }
    let hint = "INVALID_ARGUMENT NO_SELECTOR selector; name device ids, a device type, tags or an area; every device: `everything`";
    for selector in [None, Some(v1::Selector::default())] {
        for answer in asked(selector).await {
            assert_eq!(answer, Err(hint.to_owned()));
        }
    }
}

#[tokio::test]
async fn selectors_that_mean_nothing_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let refused = async |selector: v1::Selector| {
        let request = v1::ListDevicesRequest {
            selector: Some(selector),
            ..Default::default()
        };
        match client.list_devices(request).await {
            Err(error) => shown(&error),
            Ok(_) => "accepted".to_owned(),
        }
    };
    let area = "INVALID_ARGUMENT INVALID_VALUE selector.area";
    assert_eq!(refused(around(91.0, 1.0)).await, area);
    assert_eq!(refused(around(30.0, -1.0)).await, area);
    assert_eq!(refused(around(30.0, f64::NAN)).await, area);
    assert_eq!(refused(between(2.0, 1.0)).await, area);
    let nothing = v1::Selector {
        none_of: vec![v1::Selector::default()],
        ..Default::default()
    };
    assert_eq!(
        refused(nothing).await,
        "INVALID_ARGUMENT NO_SELECTOR selector.none_of[0]"
    );
    let shapeless = v1::Selector {
        any_of: vec![v1::Selector {
            area: Some(v1::Area { shape: None }),
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(
        refused(shapeless).await,
        "INVALID_ARGUMENT INVALID_VALUE selector.any_of[0].area"
    );
    let deep = (0..6).fold(with_tag("a", "b"), |inner, _| v1::Selector {
        any_of: vec![inner],
        ..Default::default()
    });
    assert!(
        refused(deep)
            .await
            .starts_with("INVALID_ARGUMENT INVALID_VALUE selector.any_of")
    );
}
