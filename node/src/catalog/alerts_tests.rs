//! Profiles in a catalog: versions, what is refused and why, what survives its records.

#![allow(clippy::unwrap_used, reason = "tests")]
use std::collections::BTreeMap;

use tidemark_proto::peer::{self, CatalogCommand, catalog_command::Command};
use tidemark_proto::v1::{DeviceType, Property};

use super::*;

fn catalog() -> (Catalog, BTreeMap<Vec<u8>, Vec<u8>>) {
    let property = |id: &str, kind: v1::Kind, value_type: v1::ValueType| Property {
        id: id.into(),
        kind: kind as i32,
        value_type: value_type as i32,
        ..Property::default()
    };
    let device_type = DeviceType {
        id: "gauge".into(),
        properties: vec![
            property("depth", v1::Kind::Gauge, v1::ValueType::F64),
            property("rain", v1::Kind::Increment, v1::ValueType::F64),
            property("note", v1::Kind::Event, v1::ValueType::Text),
        ],
        sample_interval_s: 300,
        ..DeviceType::default()
    };
    let mut catalog = Catalog::default();
    let (_, records) = catalog.apply_types(vec![device_type]).unwrap();
    (catalog, records.into_iter().collect())
}

fn level(name: &str, on: f64, off: f64) -> AlertLevel {
    AlertLevel {
        level: name.into(),
        on,
        off,
        severity: 0,
    }
}

fn profile(id: &str) -> AlertProfile {
    AlertProfile {
        id: id.into(),
        device_type: "gauge".into(),
        property: "depth".into(),
        function: v1::AlertFunction::Last as i32,
        hold_s: 600,
        levels: vec![level("blue", 0.05, 0.03), level("red", 0.4, 0.35)],
        ..AlertProfile::default()
    }
}

fn applied(catalog: &mut Catalog, profiles: Vec<AlertProfile>) -> (v1::ApplyAlertProfilesResponse, Vec<Record>) {
    let (result, records) = catalog.apply_alert_profiles(profiles).unwrap();
    let applied::Result::Alerts(alerts) = result else {
        panic!("{result:?}")
    };
    (alerts.profiles.unwrap(), records)
}

#[test]
fn versions_grow_and_the_same_again_changes_nothing() {
    let (mut catalog, mut store) = catalog();
    let (first, records) = applied(&mut catalog, vec![profile("a"), profile("b")]);
    store.extend(records);
    assert_eq!((first.created, first.profiles[1].version), (2, 2));
    assert_eq!(first.profiles[0].levels[1].severity, 2, "its position");
    let (again, records) = applied(&mut catalog, vec![profile("a")]);
    assert_eq!((again.unchanged, records.len()), (1, 0));
    let mut other = profile("a");
    other.hold_s = 0;
    let (changed, records) = applied(&mut catalog, vec![other]);
    store.extend(records);
    assert_eq!((changed.changed, changed.profiles[0].version), (1, 3));
    let remove = CatalogCommand {
        stamp_ns: 0,
        command: Some(Command::RemoveAlertProfiles(peer::RemoveAlertProfiles {
            ids: vec!["a".into()],
        })),
    };
    store.extend(catalog.apply(remove).unwrap().unwrap().1);
    let loaded = Catalog::load(store).unwrap();
    let ids: Vec<&str> = loaded.alert_profiles().map(|profile| profile.id.as_str()).collect();
    assert_eq!(ids, ["b"]);
    assert_eq!(
        loaded
            .alerts_of_type(loaded.device_type("gauge").unwrap().number())
            .len(),
        1
    );
    let (back, _) = applied(&mut catalog, vec![profile("a")]);
    assert_eq!(back.profiles[0].version, 5, "never that of the one that was removed");
    let gone = catalog.remove_alert_profiles(&["b".into(), "x".into()]).unwrap_err();
    assert_eq!(
        (gone.reason(), gone.field_path()),
        (Reason::UnknownAlertProfile, "ids[1]")
    );
    assert!(catalog.alert_profile("b").is_ok(), "none is removed");
}

#[test]
fn what_makes_no_sense_is_refused_and_named() {
    let check = |change: fn(&mut AlertProfile), reason: Reason, field: &str| {
        let (mut catalog, _) = catalog();
        let mut bad = profile("bad");
        change(&mut bad);
        let refused = catalog.apply_alert_profiles(vec![profile("good"), bad]).unwrap_err();
        assert_eq!(
            (refused.reason(), refused.field_path()),
            (reason, format!("profiles[1].{field}").as_str())
        );
        assert_eq!(catalog.alert_profiles().count(), 0, "all or none");
    };
    let bad = Reason::InvalidAlertProfile;
    check(|p| p.id = "a b".into(), bad, "id");
    check(|p| p.device_type = "x".into(), Reason::UnknownType, "device_type");
    check(|p| p.property = "x".into(), Reason::UnknownProperty, "property");
    check(|p| p.property = "note".into(), bad, "property");
    check(|p| p.function = 0, bad, "function");
    check(
        |p| p.function = v1::AlertFunction::Sum as i32,
        Reason::UnlawfulFunction,
        "function",
    );
    check(|p| p.function = v1::AlertFunction::Max as i32, bad, "window_s");
    check(|p| p.window_s = 60, bad, "window_s");
    check(|p| p.hold_s = -1, bad, "hold_s");
    check(|p| p.stale_after_s = i64::MAX, bad, "stale_after_s");
    check(|p| p.levels.clear(), bad, "levels");
    check(|p| p.levels = vec![level("a", 1.0, 1.0); 17], bad, "levels");
    check(|p| p.levels[1].level = "Red".into(), bad, "levels[1].level");
    check(|p| p.levels[1].level = "blue".into(), bad, "levels[1].level");
    check(|p| p.levels[0].on = f64::NAN, bad, "levels[0].on");
    check(|p| p.levels[0].off = 0.06, bad, "levels[0].off");
    check(|p| p.levels[1].on = 0.05, bad, "levels[1].off");
    check(|p| p.levels[1].off = 0.02, bad, "levels[1].off");
    check(|p| p.levels[0].severity = 2, bad, "levels[1].severity");
    check(|p| p.below = true, bad, "levels[0].off");
}

#[test]
fn silence_is_longer_than_the_time_between_two_samples() {
    let silence = |report_interval_s: i64, stale_after_s: i64| {
        let (mut catalog, _) = catalog();
        let gauge = DeviceType {
            report_interval_s,
            ..catalog.device_type("gauge").unwrap().stored.clone()
        };
        catalog.apply_types(vec![gauge]).unwrap();
        let asked = AlertProfile {
            stale_after_s,
            ..profile("a")
        };
        let checked = catalog
            .check_silence(&asked)
            .map_err(|error| error.field_path().to_owned());
        applied(&mut catalog, vec![asked]);
        let number = catalog.device_type("gauge").unwrap().number();
        let of_type = &catalog.alerts_of_type(number)[0];
        let from_ns = of_type.silent_from_ns(0).unwrap();
        (checked, of_type.stale_after_ns.unwrap() / NS_PER_S, from_ns / NS_PER_S)
    };
    // So long may a point be the newest one, and the sample that is missing then.
    assert_eq!(silence(0, 0), (Ok(()), 900, 1_200));
    assert_eq!(silence(3_600, 0), (Ok(()), 10_800, 11_100));
    assert_eq!(
        silence(60, 0),
        (Ok(()), 900, 1_200),
        "it says each minute that it is there"
    );
    assert_eq!(silence(60, 300), (Ok(()), 300, 600));
    assert_eq!(silence(60, 301), (Ok(()), 301, 600));
    // What was stored before it was refused stays as it is.
    assert_eq!(silence(60, 299), (Err("stale_after_s".into()), 299, 300));
}

#[test]
fn versions_of_a_backup_are_not_given_out_again() {
    let (mut from, _) = catalog();
    applied(&mut from, vec![profile("a"), profile("b")]);
    from.remove_alert_profiles(&["b".into()]).unwrap();
    let numbered = |stored: &DeviceType| DeviceType {
        number: 1,
        ..stored.clone()
    };
    let version_of_b = |alert_version: u32| {
        let mut to = Catalog::default();
        let restore = peer::RestoreTypes {
            // A catalog that was never initialised numbers its first type 0, which no restore takes.
            device_types: from.types().map(|def| numbered(&def.stored)).collect(),
            alert_profiles: from.alert_profiles().cloned().collect(),
            alert_version,
        };
        let command = CatalogCommand {
            stamp_ns: 0,
            command: Some(Command::RestoreTypes(restore)),
        };
        let (_, records) = to.apply(command).unwrap().unwrap();
        let mut loaded = Catalog::load(records).unwrap();
        assert_eq!(loaded.alert_profile("a").unwrap().version, 1, "as it was");
        applied(&mut loaded, vec![profile("b")]).0.profiles[0].version
    };
    assert_eq!(version_of_b(103), 104);
    assert_eq!(version_of_b(0), 2, "a command of before says nothing");
}

#[test]
fn there_are_only_so_many() {
    let (mut catalog, _) = catalog();
    let many = |count: usize| (0..count).map(|n| profile(&format!("p{n}"))).collect::<Vec<_>>();
    let refused = catalog.apply_alert_profiles(many(ALERT_PROFILES_MAX + 1)).unwrap_err();
    assert_eq!(refused.reason(), Reason::TooManyAlertProfiles);
    let (stored, _) = applied(&mut catalog, many(ALERT_PROFILES_MAX));
    assert_eq!(stored.created as usize, ALERT_PROFILES_MAX);
}
