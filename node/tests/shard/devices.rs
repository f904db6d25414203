//! The registry of a shard.
//!
//! Never here: points. Invariant: a command is applied to all its devices or to none.

use std::ops::ControlFlow;

use crate::support::*;
use tidemark_node::shard::{DeviceFilter, Shard};
use tidemark_proto::peer::{Applied, PutDevice, PutDevices, applied, shard_command};
use tidemark_proto::v1::{Maintenance, Place as Where};

fn told(answer: &Applied) -> String {
    match &answer.result {
        Some(applied::Result::Devices(counts)) => {
            format!(
                "{} created, {} changed, {} unchanged",
                counts.created, counts.changed, counts.unchanged
            )
        }
        Some(applied::Result::Failure(failure)) => format!("{} {} {}", failure.code, failure.reason, failure.field),
        other => panic!("{other:?}"),
    }
}

fn of_type(put: PutDevice, type_number: u32) -> PutDevice {
    PutDevice { type_number, ..put }
}

fn listed(shard: &Shard, filter: &DeviceFilter) -> Vec<String> {
    let mut ids = Vec::new();
    let end = shard.devices(filter, |stored| {
        ids.push(stored.device.as_ref().unwrap().id.clone());
        ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    ids
}

#[test]
fn devices_are_created_changed_and_left_alone() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    let step = |stamp, devices| told(&apply(&shard, 1, &[put(stamp, devices)])[0]);
    let a = || device("a", &[("town", "north")]);
    assert_eq!(
        step(100, vec![a(), device("b", &[])]),
        "2 created, 0 changed, 0 unchanged"
    );
    assert_eq!(
        step(200, vec![a(), device("c", &[])]),
        "1 created, 0 changed, 1 unchanged"
    );
    let mut moved = device("b", &[]);
    moved.device.as_mut().unwrap().place = Some(Where {
        latitude_deg: 1.5,
        longitude_deg: -2.5,
    });
    assert_eq!(step(300, vec![moved.clone()]), "0 created, 1 changed, 0 unchanged");
    assert_eq!(
        step(400, vec![moved, device("e", &[]), device("e", &[("x", "y")])]),
        "1 created, 1 changed, 1 unchanged"
    );
    assert_eq!(step(500, vec![]), "0 created, 0 changed, 0 unchanged");

    assert_eq!(shard.device_count(), 4);
    let found = shard.resolve(&["e", "nobody", "a", "c", "b"]).unwrap();
    assert_eq!(
        found,
        [Some((KIND, 3)), None, Some((KIND, 0)), Some((KIND, 2)), Some((KIND, 1))]
    );
    let b = shard.device("b").unwrap().unwrap();
    assert_eq!(
        (b.type_number, b.ordinal, b.device.as_ref().unwrap().registered_at_ns),
        (KIND, 1, 100)
    );
    assert_eq!(b.device.unwrap().place.unwrap().longitude_deg, -2.5);
    assert_eq!(shard.device("e").unwrap().unwrap().device.unwrap().tags["x"], "y");
    assert!(shard.device("nobody").unwrap().is_none());
}

#[test]
fn known_devices_keep_their_maintenance_where_that_is_said() {
    let place = Place::new();
    let path = place.path("db");
    let shard = open(&path);
    let declared = |from_ns| Maintenance {
        from_ns,
        to_ns: from_ns + 10,
        reason: "pump".to_owned(),
    };
    let with = |id, from_ns: Option<i64>| {
        let mut put = device(id, &[]);
        put.device.as_mut().unwrap().maintenance = from_ns.map(declared).into_iter().collect();
        put
    };
    let step = |keep_maintenance, devices| {
        let put = PutDevices {
            devices,
            keep_maintenance,
        };
        told(&apply(&shard, 1, &[entry(1, shard_command::Command::PutDevices(put))])[0])
    };
    let begins = |shard: &Shard, id| {
        let stored = shard.device(id).unwrap().unwrap().device.unwrap();
        stored.maintenance.iter().map(|one| one.from_ns).collect::<Vec<_>>()
    };
    assert_eq!(
        step(false, vec![with("a", Some(5))]),
        "1 created, 0 changed, 0 unchanged"
    );
    let both = vec![with("a", None), with("b", Some(7)), with("b", Some(8))];
    assert_eq!(step(true, both), "1 created, 0 changed, 2 unchanged");
    assert_eq!((begins(&shard, "a"), begins(&shard, "b")), (vec![5], vec![7]));
    assert_eq!(step(false, vec![with("b", None)]), "0 created, 1 changed, 0 unchanged");
    shard.store().flush().unwrap();
    drop(shard);
    let shard = open(&path);
    assert_eq!((begins(&shard, "a"), begins(&shard, "b")), (vec![5], vec![]));
}

#[test]
fn all_devices_of_a_command_or_none() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    apply(&shard, 1, &[put(1, vec![device("a", &[])])]);
    let before = shard.digest().unwrap();
    let step = |devices| told(&apply(&shard, 1, &[put(2, devices)])[0]);
    assert_eq!(
        step(vec![device("new", &[]), of_type(device("a", &[]), KIND + 1)]),
        "9 DEVICE_TYPE_FIXED devices[1].device_type"
    );
    // Within the command too.
    assert_eq!(
        step(vec![device("new", &[]), of_type(device("new", &[]), KIND + 1)]),
        "9 DEVICE_TYPE_FIXED devices[1].device_type"
    );
    assert_eq!(
        step(vec![device("new", &[]), device("", &[])]),
        "3 BAD_DEVICE devices[1].id"
    );
    assert_eq!(step(vec![PutDevice::default()]), "3 BAD_DEVICE devices[0].id");
    assert_eq!(shard.digest().unwrap(), before);
    assert_eq!(shard.device_count(), 1);
    assert_eq!(step(vec![device("new", &[])]), "1 created, 0 changed, 0 unchanged");
    assert_eq!(shard.resolve(&["new"]).unwrap(), [Some((KIND, 1))]);
}

#[test]
fn refused_devices_of_a_chunk_give_no_ordinals_away() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    let refused = vec![device("x", &[]), of_type(device("x", &[]), KIND + 1)];
    apply(
        &shard,
        1,
        &[
            put(1, refused),
            put(2, vec![device("y", &[])]),
            put(3, vec![device("y", &[("a", "b")])]),
        ],
    );
    assert_eq!(shard.resolve(&["x", "y"]).unwrap(), [None, Some((KIND, 0))]);
    shard.store().flush().unwrap();
    drop(shard);
    let shard = open(&place.path("db"));
    apply(&shard, 2, &[put(4, vec![device("z", &[])])]);
    assert_eq!(shard.resolve(&["z", "y"]).unwrap(), [Some((KIND, 1)), Some((KIND, 0))]);
    assert_eq!(shard.device_count(), 2);
}

#[test]
fn filters() {
    let place = Place::new();
    let shard = open(&place.path("db"));
    // More than one chunk of reading.
    let many = (0..700).rev().map(|number| {
        let town = if number % 2 == 0 { "north" } else { "south" };
        let third = if number % 3 == 0 { "yes" } else { "no" };
        let put = device(&format!("d{number:03}"), &[("town", town), ("third", third)]);
        of_type(put, if number < 600 { KIND } else { KIND + 1 })
    });
    apply(&shard, 1, &[put(1, many.collect())]);
    let tag = |key: &str, values: &[&str]| (key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect());
    let filter = |ids: &[&str], type_number, tags: Vec<(String, Vec<String>)>| DeviceFilter {
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        type_number,
        tags,
        ..DeviceFilter::default()
    };
    let check_count = |filter: &DeviceFilter, expected: usize, first: Option<&str>| {
        let ids = listed(&shard, filter);
        assert_eq!(
            (ids.len(), ids.first().map(String::as_str)),
            (expected, first),
            "{filter:?}"
        );
    };
    // By ordinal, which here runs against the ids.
    check_count(&filter(&[], None, vec![]), 700, Some("d699"));
    check_count(&filter(&[], Some(KIND), vec![]), 600, Some("d599"));
    check_count(&filter(&[], Some(KIND + 1), vec![]), 100, Some("d699"));
    check_count(&filter(&[], Some(KIND + 2), vec![]), 0, None);
    check_count(
        &filter(&[], Some(KIND), vec![tag("town", &["north"])]),
        300,
        Some("d598"),
    );
    check_count(
        &filter(&[], Some(KIND), vec![tag("town", &["north"]), tag("third", &["yes"])]),
        100,
        Some("d594"),
    );
    check_count(
        &filter(&[], None, vec![tag("town", &["south", "north"])]),
        700,
        Some("d699"),
    );
    check_count(&filter(&[], None, vec![tag("town", &["west"])]), 0, None);
    check_count(&filter(&[], None, vec![tag("street", &["north"])]), 0, None);
    // By id.
    let ids = filter(&["d650", "nobody", "d001", "d002", "d001"], None, vec![]);
    assert_eq!(listed(&shard, &ids), ["d001", "d002", "d650"]);
    let both = filter(&["d650", "d001", "d002"], Some(KIND), vec![tag("town", &["north"])]);
    assert_eq!(listed(&shard, &both), ["d002"]);
    let end = shard.devices(&DeviceFilter::default(), |stored| ControlFlow::Break(stored.ordinal));
    assert_eq!(end.unwrap(), ControlFlow::Break(0));
}
