//! States of alerts in a shard: taken once, kept, restored; and which devices are noted when points come.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::*;
use tidemark_node::shard::ApplyEntry;
use tidemark_proto::peer::{AlertChange, AlertChanges, AlertState, Applied, applied, shard_command};

/// A command that puts the device of an ordinal on a level.
fn alert(base: u64, ordinal: u32, level: &str) -> ApplyEntry {
    let state = (!level.is_empty()).then(|| AlertState {
        level: level.into(),
        ..AlertState::default()
    });
    let change = AlertChange {
        type_number: KIND,
        ordinal,
        profile: "depth".into(),
        state,
    };
    let changes = AlertChanges {
        base,
        changes: vec![change],
        steps: Vec::new(),
    };
    entry(1, shard_command::Command::Alerts(changes))
}

fn taken(applied: &Applied) -> bool {
    match &applied.result {
        Some(applied::Result::Alerts(alerts)) => alerts.taken,
        other => panic!("{other:?}"),
    }
}

/// Base and levels of the first two devices.
fn levels(shard: &tidemark_node::shard::Shard) -> (u64, Vec<String>) {
    let found = shard.alert_states([(KIND, 0, "depth"), (KIND, 1, "depth")]).unwrap();
    let level = |state: Option<AlertState>| state.map_or_else(String::new, |state| state.level);
    (found.base, found.states.into_iter().map(level).collect())
}

#[test]
fn of_two_commands_from_the_same_states_one_is_taken() {
    let place = Place::new();
    let shard = open(&place.path("a"));
    apply(&shard, 1, &[put_count(2)]);
    let answers = apply(
        &shard,
        4,
        &[alert(0, 0, "red"), alert(0, 0, "blue"), alert(1, 1, "blue")],
    );
    assert_eq!(
        answers.iter().map(taken).collect::<Vec<_>>(),
        [true, false, true],
        "within a chunk"
    );
    assert_eq!(levels(&shard), (2, vec!["red".into(), "blue".into()]));
    let answers = apply(&shard, 6, &[alert(1, 1, "red"), alert(3, 1, "red")]);
    assert!(
        !answers.iter().any(taken),
        "neither from old states nor from some that are not there yet"
    );
    let names = shard.alert_names(None, 9).unwrap();
    assert_eq!(names, [(KIND, 0, "depth".to_owned()), (KIND, 1, "depth".to_owned())]);
    assert_eq!(shard.alert_names(Some(&names[0]), 9).unwrap(), names[1..]);
    let unknown = apply(&shard, 7, &[alert(2, 7, "red")]).remove(0);
    assert!(
        matches!(unknown.result, Some(applied::Result::Failure(_))),
        "no such device"
    );
    shard.store().flush().unwrap();
    drop(shard);
    let shard = open(&place.path("a"));
    assert_eq!(
        levels(&shard),
        (2, vec!["red".into(), "blue".into()]),
        "after a restart"
    );
    assert!(taken(&apply(&shard, 8, &[alert(2, 0, "")])[0]));
    assert_eq!(levels(&shard), (3, vec![String::new(), "blue".into()]), "forgotten");
}

#[test]
fn states_are_part_of_the_digest_and_of_a_backup() {
    let place = Place::new();
    let shard = open(&place.path("a"));
    apply(&shard, 1, &[put_count(2)]);
    let before = shard.digest().unwrap();
    apply(&shard, 2, &[alert(0, 0, "red")]);
    assert_ne!(shard.digest().unwrap(), before);
    let other = open(&place.path("b"));
    apply(&other, 2, &restore_of(&shard, 1));
    assert_eq!(levels(&other), (1, vec!["red".into(), String::new()]));
    let answers = apply(&other, 4, &[alert(0, 1, "blue"), alert(1, 1, "blue")]);
    assert_eq!(
        answers.iter().map(taken).collect::<Vec<_>>(),
        [false, true],
        "it goes on from there"
    );
}

#[test]
fn devices_are_noted_where_somebody_wants_to_know() {
    let place = Place::new();
    let shard = open(&place.path("a"));
    apply(&shard, 1, &[put_count(3)]);
    let at = |ordinal: u32, times: &[i64]| (ordinal, rows(&times.iter().map(|t| (*t, 1.0)).collect::<Vec<_>>()));
    apply(&shard, 2, &[write(1, write_of(&[at(0, &[5])]))]);
    shard.notes().watch(BTreeSet::from([KIND]));
    assert_eq!(shard.notes().take(), Some(BTreeMap::new()), "nobody did");
    let first = write(1, write_of(&[at(0, &[1_500, 2_700]), at(1, &[40])]));
    apply(&shard, 4, &[first, write(1, write_of(&[at(0, &[900])]))]);
    let expected = BTreeMap::from([((KIND, 0), 900), ((KIND, 1), 40)]);
    assert_eq!(shard.notes().take(), Some(expected));
    shard.notes().watch(BTreeSet::from([KIND + 1]));
    apply(&shard, 5, &[write(1, write_of(&[at(2, &[5])]))]);
    assert_eq!(shard.notes().take(), Some(BTreeMap::new()), "another type");
}
