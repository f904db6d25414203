//! Device types and devices through the public client: made, changed, refused, listed.
//! Never here: points, beyond what a change of type does to them. Invariant: all types of a request are applied or none.

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, Value, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;
use tonic_types::StatusExt as _;
use v1::registry_service_client::RegistryServiceClient;
use v1::{Kind, ValueType};

const DEVICES: usize = 2_000;

fn counts(answer: &v1::ApplyDeviceTypesResponse) -> (u32, u32, u32) {
    (answer.created, answer.changed, answer.unchanged)
}

fn with(change: impl FnOnce(&mut v1::DeviceType)) -> Vec<v1::DeviceType> {
    let mut changed = device_type(METER, 3_650);
    change(&mut changed);
    vec![changed]
}

#[tokio::test]
async fn types_grow_and_never_change_what_is_stored() {
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let made = client
        .apply_device_types(vec![device_type(METER, 3_650), device_type(RELIC, 0)])
        .await
        .unwrap();
    assert_eq!(counts(&made), (2, 0, 0));
    let first = &made.device_types[0];
    assert_eq!((first.id.as_str(), first.number, first.version), (METER, 1, 1));
    let numbers: Vec<_> = first.properties.iter().map(|p| p.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(first.bucket_span_s > 0, "chosen by the store");
    client.register_devices(vec![device("m1", METER, &[])]).await.unwrap();
    client
        .write(write(batch(METER, "level", [("m1", T0, 1.5)])))
        .await
        .unwrap();

    let again = client
        .apply_device_types(vec![device_type(METER, 3_650), device_type("test-third", 0)])
        .await
        .unwrap();
    assert_eq!(counts(&again), (1, 0, 1));
    let grown = with(|t| {
        t.properties.insert(0, property("depth", ValueType::F64, Kind::Gauge));
        t.properties[8].labels.push("warp".into());
        t.properties[1].deprecated = true;
    });
    let grown = client.apply_device_types(grown).await.unwrap();
    assert_eq!(counts(&grown), (0, 1, 0));
    assert_eq!(grown.device_types[0].version, 2);
    let depth = grown.device_types[0]
        .properties
        .iter()
        .find(|p| p.id == "depth")
        .unwrap();
    assert_eq!(depth.number, 10, "a new number");

    // Old points stay, new properties and labels are taken.
    client
        .write(write(batch(METER, "depth", [("m1", T0, 7.0)])))
        .await
        .unwrap();
    client
        .write(write(batch(METER, "mode", [("m1", T0, Value::Enum("warp".into()))])))
        .await
        .unwrap();
    cluster.stop(0).await;
    cluster.restart(0).await;
    let mut found: Vec<_> = read(&client, everything(of_devices(&["m1"])))
        .await
        .into_iter()
        .map(|(_, _, p, v)| format!("{p}={v}"))
        .collect();
    found.sort();
    assert_eq!(found, ["depth=7", "level=1.5", "mode=warp"]);
    let listed = client.list_device_types(vec![]).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|t| (t.id.as_str(), t.version)).collect();
    assert_eq!(listed, [(METER, 2), (RELIC, 1), ("test-third", 1)], "ordered by id");
    let one = client.list_device_types(vec![RELIC.into()]).await.unwrap();
    assert_eq!((one.len(), one[0].id.as_str()), (1, RELIC));
    let error = client
        .list_device_types(vec![RELIC.into(), "nope".into()])
        .await
        .unwrap_err();
    assert_eq!(shown(&error), "NOT_FOUND UNKNOWN_TYPE; tidemark type list");
}

#[tokio::test]
async fn types_that_break_a_rule_are_refused_whole() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    client
        .apply_device_types(vec![device_type(METER, 3_650)])
        .await
        .unwrap();
    let stored = client.list_device_types(vec![]).await.unwrap();
    let refused = |field: &str| format!("FAILED_PRECONDITION TYPE_CHANGE_REFUSED device_types[0].{field}");
    let invalid = |field: &str| format!("INVALID_ARGUMENT INVALID_TYPE device_types[0].{field}");
    let removed =
        "FAILED_PRECONDITION TYPE_CHANGE_REFUSED device_types[0].properties; keep the property and set deprecated";
    let cases: Vec<(&str, Vec<v1::DeviceType>, String)> = vec![
        (
            "a property removed",
            with(|t| drop(t.properties.remove(0))),
            removed.into(),
        ),
        (
            "another value type",
            with(|t| t.properties[0].value_type = ValueType::I64 as i32),
            refused("properties"),
        ),
        (
            "another kind",
            with(|t| t.properties[0].kind = Kind::Mean as i32),
            refused("properties"),
        ),
        (
            "a label removed",
            with(|t| drop(t.properties[7].labels.pop())),
            refused("properties"),
        ),
        (
            "labels in another order",
            with(|t| t.properties[7].labels.swap(0, 1)),
            refused("properties"),
        ),
        (
            "another bucket span",
            with(|t| t.bucket_span_s = 77),
            refused("properties"),
        ),
        ("an id with a space", with(|t| t.id = "a b".into()), invalid("id")),
        ("no id", with(|t| t.id.clear()), invalid("id")),
        ("no properties", with(|t| t.properties.clear()), invalid("properties")),
        (
            "a property twice",
            with(|t| t.properties[3] = t.properties[0].clone()),
            invalid("properties[3].id"),
        ),
        (
            "a property without an id",
            with(|t| t.properties[2].id.clear()),
            invalid("properties[2]"),
        ),
        (
            "no value type",
            with(|t| t.properties[2].value_type = 0),
            invalid("properties[2]"),
        ),
        ("no kind", with(|t| t.properties[2].kind = 0), invalid("properties[2]")),
        (
            "an enum without labels",
            with(|t| t.properties[7].labels.clear()),
            invalid("properties[7]"),
        ),
        (
            "a label twice",
            with(|t| t.properties[7].labels.push("off".into())),
            invalid("properties[7]"),
        ),
        (
            "labels of a float",
            with(|t| t.properties[0].labels.push("off".into())),
            invalid("properties[0]"),
        ),
        (
            "a negative interval",
            with(|t| t.sample_interval_s = -1),
            invalid("sample_interval_s"),
        ),
        (
            "texts of a megabyte",
            with(|t| t.properties[8].max_len = 1 << 20),
            invalid("properties[8]"),
        ),
    ];
    for (what, mut types, expected) in cases {
        types.push(device_type("test-beside", 0));
        let error = client.apply_device_types(types).await.expect_err(what);
        assert_eq!(shown(&error), expected, "{what}: {}", error.message);
        assert_eq!(
            client.list_device_types(vec![]).await.unwrap(),
            stored,
            "{what}: nothing was applied"
        );
    }
}

#[tokio::test]
async fn a_type_comes_once_in_a_request() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let twice = vec![device_type("test-beside", 0), device_type("test-beside", 0)];
    let error = client.apply_device_types(twice).await.unwrap_err();
    assert_eq!(shown(&error), "INVALID_ARGUMENT INVALID_TYPE device_types[1].id");
    assert_eq!(client.list_device_types(vec![]).await.unwrap(), []);
}

#[tokio::test]
async fn devices_that_break_a_rule_are_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let good = || device("good", METER, &[]);
    let bad = |change: fn(&mut v1::Device)| {
        let mut device = device("bad", METER, &[]);
        change(&mut device);
        vec![good(), device]
    };
    let long = "x".repeat(257);
    let many: Vec<_> = (0..65).map(|i| format!("k{i}")).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "v")).collect();
    let invalid = |field: &str| format!("INVALID_ARGUMENT INVALID_DEVICE devices[1].{field}");
    let cases: Vec<(&str, Vec<v1::Device>, String)> = vec![
        (
            "no id",
            bad(|d| d.id.clear()),
            "INVALID_ARGUMENT INVALID_ID devices[1].id".into(),
        ),
        (
            "an id of 65 bytes",
            bad(|d| d.id = "x".repeat(65)),
            "INVALID_ARGUMENT INVALID_ID devices[1].id".into(),
        ),
        (
            "a newline in an id",
            bad(|d| d.id.push('\n')),
            "INVALID_ARGUMENT INVALID_ID devices[1].id".into(),
        ),
        (
            "an unknown type",
            bad(|d| d.device_type = "nope".into()),
            "NOT_FOUND UNKNOWN_TYPE devices[1].device_type; tidemark type list".into(),
        ),
        (
            "a tag key with a space",
            vec![good(), device("bad", METER, &[("a b", "v")])],
            invalid("tags"),
        ),
        (
            "a tag of 257 bytes",
            vec![good(), device("bad", METER, &[("a", &long)])],
            invalid("tags"),
        ),
        (
            "a tag with an escape",
            vec![good(), device("bad", METER, &[("a", "\u{1b}[31m")])],
            invalid("tags"),
        ),
        ("65 tags", vec![good(), device("bad", METER, &many)], invalid("tags")),
        (
            "no place on earth",
            bad(|d| {
                d.place = Some(v1::Place {
                    latitude_deg: 91.0,
                    longitude_deg: 0.0,
                })
            }),
            invalid("place"),
        ),
        (
            "a place that is no number",
            bad(|d| {
                d.place = Some(v1::Place {
                    latitude_deg: f64::NAN,
                    longitude_deg: 0.0,
                })
            }),
            invalid("place"),
        ),
        (
            "another type",
            vec![good(), device("m1", RELIC, &[])],
            "FAILED_PRECONDITION DEVICE_TYPE_FIXED devices[1].device_type; register it under another id".into(),
        ),
    ];
    for (what, devices, expected) in cases {
        let error = client.register_devices(devices).await.expect_err(what);
        assert_eq!(shown(&error), expected, "{what}: {}", error.message);
    }
    assert_eq!(
        list(&client, of_devices(&["m1"]), 0).await.0[0].device_type,
        METER,
        "nothing changed"
    );
}

fn maintenance(from_ns: i64, to_ns: i64, reason: &str) -> v1::Maintenance {
    v1::Maintenance {
        from_ns,
        to_ns,
        reason: reason.into(),
    }
}

#[tokio::test]
async fn declared_maintenance_is_stored_in_order_and_replaced_whole() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    furnish(&client, &["m1", "m2"]).await;
    let declared = vec![
        maintenance(30, 40, "pump"),
        maintenance(-20, 10, ""),
        maintenance(10, 30, "pump"),
    ];
    let with = |maintenance: &[v1::Maintenance], tags| v1::Device {
        maintenance: maintenance.to_vec(),
        ..device("m1", METER, tags)
    };
    let told = async |client: &Client| list(client, of_devices(&["m1"]), 0).await.0.remove(0);
    let counts = |answer: v1::RegisterDevicesResponse| (answer.created, answer.changed, answer.unchanged);
    let one = client.register_devices(vec![with(&declared, &[])]).await.unwrap();
    assert_eq!(counts(one), (0, 1, 0));
    let again = client.register_devices(vec![with(&declared, &[])]).await.unwrap();
    assert_eq!(counts(again), (0, 0, 1), "the order in a request does not matter");
    let sorted = [declared[1].clone(), declared[2].clone(), declared[0].clone()];
    assert_eq!(told(&client).await.maintenance, sorted);

    // Every replica has it, also after a restart.
    for node in 0..3 {
        cluster.stop(node).await;
        cluster.restart(node).await;
        cluster.healthy(node).await;
        let client = cluster.client_at(node).await;
        eventually("the devices are there", || async {
            let found = told(&client).await.maintenance;
            if found == sorted {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }

    // Who registers from a list that knows nothing of it keeps it, or takes it away.
    let keep = |devices, keep_maintenance| v1::RegisterDevicesRequest {
        devices,
        keep_maintenance,
    };
    let new = v1::Device {
        maintenance: declared[..1].to_vec(),
        ..device("m3", METER, &[])
    };
    let kept = client
        .register(keep(vec![with(&[], &[("town", "zhapu")]), new], true))
        .await
        .unwrap();
    assert_eq!(counts(kept), (1, 1, 0));
    let kept = told(&client).await;
    assert_eq!(
        (kept.maintenance.as_slice(), kept.tags["town"].as_str()),
        (&sorted[..], "zhapu")
    );
    let new = list(&client, of_devices(&["m3"]), 0).await.0.remove(0);
    assert_eq!(new.maintenance, declared[..1], "of a new device it counts");
    client.register(keep(vec![with(&[], &[])], false)).await.unwrap();
    assert_eq!(told(&client).await.maintenance, []);
}

#[tokio::test]
async fn maintenance_that_breaks_a_rule_is_refused() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    let many: Vec<_> = (0..129).map(|n| maintenance(n, n + 1, "")).collect();
    for (what, declared, field) in [
        ("129 times", many.clone(), "maintenance"),
        (
            "it ends as it begins",
            vec![maintenance(5, 5, "")],
            "maintenance[0].to_ns",
        ),
        (
            "it ends before",
            vec![maintenance(0, 1, ""), maintenance(5, 4, "")],
            "maintenance[1].to_ns",
        ),
        (
            "a long reason",
            vec![maintenance(0, 1, &"x".repeat(257))],
            "maintenance[0].reason",
        ),
        (
            "a reason with an escape",
            vec![maintenance(0, 1, "\u{1b}[31m")],
            "maintenance[0].reason",
        ),
        (
            "two at once",
            vec![maintenance(10, 20, "a"), maintenance(0, 5, ""), maintenance(4, 11, "")],
            "maintenance[2].from_ns",
        ),
    ] {
        let bad = v1::Device {
            maintenance: declared,
            ..device("m1", METER, &[])
        };
        let error = client
            .register_devices(vec![device("good", METER, &[]), bad])
            .await
            .expect_err(what);
        let expected = format!("INVALID_ARGUMENT INVALID_DEVICE devices[1].{field}");
        assert_eq!(shown(&error), expected, "{what}: {}", error.message);
    }
    let most = v1::Device {
        maintenance: many[..128].to_vec(),
        ..device("m1", METER, &[])
    };
    client.register_devices(vec![most]).await.unwrap();
    assert_eq!(
        list(&client, of_devices(&["m1"]), 0).await.0[0].maintenance,
        many[..128]
    );
}

async fn list(client: &Client, selector: Option<v1::Selector>, limit: u64) -> (Vec<v1::Device>, v1::AnswerSummary) {
    let request = v1::ListDevicesRequest {
        selector,
        limit,
        ..v1::ListDevicesRequest::default()
    };
    let (messages, summary) = client.list_devices(request).await.unwrap().collect().await.unwrap();
    for message in &messages {
        assert!(
            message.devices.is_sorted_by_key(|device| &device.id),
            "ordered within a message"
        );
    }
    let mut devices: Vec<_> = messages.into_iter().flat_map(|message| message.devices).collect();
    devices.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(summary.rows, devices.len() as u64);
    (devices, summary)
}

#[tokio::test]
async fn devices_are_registered_updated_and_listed() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish(&client, &[]).await;
    let town = |i: usize| ["a", "b", "c", "d"][i % 4];
    let device_type = |i: usize| if i.is_multiple_of(10) { RELIC } else { METER };
    let fleet = || {
        (0..DEVICES)
            .map(|i| device(&format!("d{i:04}"), device_type(i), &[("town", town(i)), ("n", "1")]))
            .collect::<Vec<_>>()
    };
    let registered = |created, changed, unchanged| v1::RegisterDevicesResponse {
        created,
        changed,
        unchanged,
    };
    assert_eq!(client.register_devices(fleet()).await.unwrap(), registered(2_000, 0, 0));
    assert_eq!(client.register_devices(fleet()).await.unwrap(), registered(0, 0, 2_000));
    let mut moved = fleet();
    for device in &mut moved[..100] {
        device.tags.insert("town".into(), "e".into());
        device.place = Some(v1::Place {
            latitude_deg: 47.5,
            longitude_deg: 19.0,
        });
    }
    assert_eq!(client.register_devices(moved).await.unwrap(), registered(0, 100, 1_900));

    let tags = |tags: &[(&str, &[&str])], device_type: &str| {
        let matcher = |(key, values): &(&str, &[&str])| v1::TagMatcher {
            key: key.to_string(),
            values: values.iter().map(ToString::to_string).collect(),
        };
        Some(v1::Selector {
            tags: tags.iter().map(matcher).collect(),
            device_type: device_type.into(),
            ..v1::Selector::default()
        })
    };
    let cases: Vec<(&str, Option<v1::Selector>, u64, usize, bool)> = vec![
        ("all", None, 0, 2_000, false),
        ("an empty selector", Some(v1::Selector::default()), 0, 2_000, false),
        ("a type", of_type(RELIC), 0, 200, false),
        ("a town", tags(&[("town", &["a"])], ""), 0, 475, false),
        ("two towns", tags(&[("town", &["a", "e"])], ""), 0, 575, false),
        ("a town of a type", tags(&[("town", &["e"])], RELIC), 0, 10, false),
        ("two tags", tags(&[("town", &["e"]), ("n", &["1"])], ""), 0, 100, false),
        ("a tag nobody has", tags(&[("colour", &["red"])], ""), 0, 0, false),
        ("three ids", of_devices(&["d0007", "d0100", "d1999"]), 0, 3, false),
        ("a thousand of them", None, 1_000, 1_000, true),
        ("as many as there are", of_type(RELIC), 200, 200, false),
    ];
    for (what, selector, limit, expected, limited) in cases {
        let (devices, summary) = list(&client, selector, limit).await;
        assert_eq!((devices.len(), summary.limited), (expected, limited), "{what}");
    }
    let (one, _) = list(&client, of_devices(&["d0000"]), 0).await;
    assert_eq!(one[0].tags["town"], "e");
    assert_eq!(one[0].place.as_ref().unwrap().latitude_deg, 47.5);
    assert!(one[0].registered_at_ns > 0);
    let request = v1::ListDevicesRequest {
        selector: of_devices(&["d0000", "nope"]),
        ..v1::ListDevicesRequest::default()
    };
    let error = cluster.at(0).devices(request).await.unwrap_err();
    assert_eq!(shown(&error), "NOT_FOUND UNKNOWN_DEVICE selector.device_ids");
    let request = v1::ListDevicesRequest {
        selector: of_type("nope"),
        ..v1::ListDevicesRequest::default()
    };
    let error = cluster.at(0).devices(request).await.unwrap_err();
    assert_eq!(
        shown(&error),
        "NOT_FOUND UNKNOWN_TYPE selector.device_type; tidemark type list"
    );
}

/// Somebody makes up ids: so many get in, and those that are known go on.
#[tokio::test]
async fn a_shard_takes_no_more_devices_than_its_limit_and_known_ones_go_on() {
    const MOST: usize = 3;
    let tuning = Tuning {
        shard_devices_max: MOST as u64,
        ..Tuning::default()
    };
    let cluster = TestCluster::uninitialised(2, tuning).await;
    // Each node has one of the shards, so this one asks the other of the second.
    let request = v1::InitRequest {
        peers: (0..2).map(|i| cluster.peer_address(i)).collect(),
        shards: 2,
        replication_factor: 1,
    };
    cluster.at(0).init(request).await.unwrap();
    cluster.healthy(0).await;
    let client = cluster.client_at(0).await;
    furnish(&client, &[]).await;
    let node = cluster.at(0);
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let id = format!("m{number}");
        match node.register(vec![device(&id, METER, &[])]).await {
            Ok(_) => taken.push(id),
            Err(error) => {
                let hint = "raise shard_devices_max on every node, if these devices are meant";
                assert_eq!(
                    shown(&error),
                    format!("RESOURCE_EXHAUSTED TOO_MANY_DEVICES devices; {hint}")
                );
                assert!(error.message.contains("has 3 devices, and the limit is 3"), "{error}");
                refused.push(id);
            }
        }
    }
    assert_eq!(taken.len(), 2 * MOST, "{taken:?}");
    // Known ones are changed and written; with a new one beside them, none is changed.
    let changed: Vec<_> = taken.iter().map(|id| device(id, METER, &[("room", "7")])).collect();
    assert_eq!(node.register(changed).await.unwrap().changed as usize, taken.len());
    node.write(write(batch_of(&taken[0]))).await.unwrap();
    let both = vec![device(&taken[0], METER, &[]), device(&refused[0], METER, &[])];
    assert_eq!(node.register(both).await.unwrap_err().reason, "TOO_MANY_DEVICES");
    let (devices, _) = list(&client, of_type(METER), 0).await;
    assert_eq!(devices.len(), taken.len());
    assert!(devices.iter().all(|device| device.tags["room"] == "7"), "{devices:?}");
}

fn batch_of(device: &str) -> v1::Batch {
    let mut batch = BatchBuilder::new(METER);
    batch.row(device, now_ns()).set("level", 1.0);
    batch.build().unwrap()
}

/// A client says which cluster it means once it knows; an address that leads elsewhere takes nothing from it.
#[tokio::test]
async fn a_call_that_means_another_cluster_is_refused() {
    let cluster = TestCluster::start(1).await;
    let map = cluster.at(0).shard_map().await.unwrap();
    let status = cluster.at(0).status().await.unwrap();
    assert_eq!(map.cluster_id, status.cluster_id);
    let call = |meant: String| {
        let mut registry = RegistryServiceClient::new(cluster.at(0).channel);
        let mut request = tonic::Request::new(v1::ApplyDeviceTypesRequest {
            device_types: vec![device_type(METER, 0)],
        });
        request
            .metadata_mut()
            .insert("tidemark-cluster", meant.parse().unwrap());
        async move { registry.apply_device_types(request).await }
    };
    let refused = call("0".repeat(32)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(
        refused.get_error_details().error_info().unwrap().reason,
        "WRONG_CLUSTER"
    );
    assert!(cluster.at(0).types(&[]).await.unwrap().is_empty(), "nothing was stored");
    assert_eq!(call(map.cluster_id).await.unwrap().into_inner().created, 1);
}
