//! Random selectors over random devices, which change their tags in between, against a naive filter.
//!
//! Never here: what each part of a selector means (see `selectors`). Invariant: what is expected is worked out from the devices
//! as they were registered.

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seeded;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tidemark_client::{Client, latest_rows, v1};

const DEVICES: usize = 400;

fn random_device(at: usize, random: &mut StdRng) -> v1::Device {
    let mut tags = BTreeMap::new();
    for key in ["town", "vendor"] {
        if random.random_bool(0.8) {
            tags.insert(key.to_owned(), format!("{}", random.random_range(0..4)));
        }
    }
    tags.insert("own".to_owned(), format!("{at}"));
    let place = random.random_bool(0.8).then(|| v1::Place {
        latitude_deg: random.random_range(0..100) as f64 / 10.0,
        longitude_deg: 121.0,
    });
    let device_type = if at.is_multiple_of(3) { RELIC } else { METER };
    v1::Device {
        tags,
        place,
        ..device(&format!("d{at:03}"), device_type, &[])
    }
}

fn random_selector(random: &mut StdRng, depth: usize) -> v1::Selector {
    let mut selector = v1::Selector {
        // So that none chooses nothing.
        everything: true,
        ..Default::default()
    };
    if random.random_bool(0.3) {
        selector.device_type = if random.random_bool(0.5) { RELIC } else { METER }.into();
    }
    for key in ["town", "vendor", "own", "unknown"] {
        if random.random_bool(0.2) {
            let most = if key == "own" { DEVICES } else { 5 };
            let values = (0..random.random_range(1..4)).map(|_| random.random_range(0..most).to_string());
            selector.tags.push(v1::TagMatcher {
                key: key.into(),
                values: values.collect(),
            });
        }
    }
    if random.random_bool(0.2) {
        let south_deg = random.random_range(0..80) as f64 / 10.0;
        selector.area = Some(v1::Area {
            shape: Some(v1::area::Shape::Box(v1::BoundingBox {
                west_deg: 120.0,
                south_deg,
                east_deg: 122.0,
                north_deg: south_deg + 3.05,
            })),
        });
    }
    // Ids of a whole question must be registered, those within it need not.
    if random.random_bool(0.15) {
        let most = if depth == 0 { DEVICES } else { 2 * DEVICES };
        selector.device_ids = (0..50)
            .map(|_| format!("d{:03}", random.random_range(0..most)))
            .collect();
    }
    if depth < 3 {
        for _ in 0..random.random_range(0..3) {
            let nested = random_selector(random, depth + 1);
            match random.random_bool(0.5) {
                true => selector.any_of.push(nested),
                false => selector.none_of.push(nested),
            }
        }
    }
    selector
}

fn holds(selector: &v1::Selector, device: &v1::Device) -> bool {
    let is_inside = |area: &v1::Area| match (&area.shape, &device.place) {
        (Some(v1::area::Shape::Box(within)), Some(place)) => {
            (within.south_deg..=within.north_deg).contains(&place.latitude_deg)
        }
        _ => false,
    };
    let has = |tag: &v1::TagMatcher| {
        device
            .tags
            .get(&tag.key)
            .is_some_and(|value| tag.values.contains(value))
    };
    (selector.device_ids.is_empty() || selector.device_ids.contains(&device.id))
        && (selector.device_type.is_empty() || selector.device_type == device.device_type)
        && selector.tags.iter().all(has)
        && selector.area.as_ref().is_none_or(is_inside)
        && (selector.any_of.is_empty() || selector.any_of.iter().any(|one| holds(one, device)))
        && !selector.none_of.iter().any(|one| holds(one, device))
}

/// Those whose newest values are told.
async fn told(client: &Client, selector: v1::Selector, in_columns: bool) -> Vec<String> {
    let request = v1::GetLatestRequest {
        selector: Some(selector),
        in_columns,
        ..Default::default()
    };
    let (messages, _) = client.get_latest(request).await.unwrap().collect().await.unwrap();
    let rows = messages.iter().flat_map(latest_rows);
    let mut ids: Vec<String> = rows.map(|row| row.device.to_owned()).collect();
    ids.sort();
    ids.dedup();
    ids
}

#[tokio::test]
async fn selectors_choose_what_a_naive_filter_would_also_after_devices_changed() {
    let mut random = seeded();
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &[]).await;
    let mut devices: Vec<v1::Device> = (0..DEVICES).map(|at| random_device(at, &mut random)).collect();
    client.register_devices(devices.clone()).await.unwrap();
    let (mut some, mut all) = (0, 0);
    for round in 0..4 {
        for _ in 0..30 {
            let selector = random_selector(&mut random, 0);
            let chosen = devices.iter().filter(|device| holds(&selector, device));
            let expected: Vec<String> = chosen.map(|device| device.id.clone()).collect();
            assert_eq!(
                listed_ids(&client, selector.clone()).await,
                expected,
                "round {round}: {selector:?}"
            );
            assert_eq!(
                told(&client, selector.clone(), random.random()).await,
                expected,
                "round {round}: {selector:?}"
            );
            some += usize::from(!expected.is_empty() && expected.len() < DEVICES);
            all += 1;
        }
        let changed: Vec<usize> = (0..DEVICES).filter(|_| random.random_bool(0.1)).collect();
        for at in &changed {
            devices[*at] = random_device(*at, &mut random);
        }
        let changed: Vec<v1::Device> = changed.iter().map(|at| devices[*at].clone()).collect();
        client.register_devices(changed).await.unwrap();
    }
    assert!(
        some > all / 10,
        "hardly any selector chose some and not all: {some} of {all}"
    );
}
