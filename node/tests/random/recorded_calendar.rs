//! Windows of recorded series by the calendar: days, weeks, months and years that begin when they are told to, where clocks are changed
//! while the series goes on, against a recomputation between borders that a look at the clock finds.
//! Never here: hours (see `windows`). Invariant: no time zone is taken from a database here.

use crate::asked::{Compared, Span, Whose, ask_for, compare, functions_of};
use crate::common::TestCluster;
use crate::common::derived::DERIVED;
use crate::common::fleet::*;
use crate::common::random::seed;
use crate::common::recordings::{Played, RECORDINGS, Stage, play_on};
use crate::common::zones::{Unit, ZONES, Zone};
use crate::recorded::tuning;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::v1;
use v1::{CalendarUnit, Function};

/// A year in which the changes of clocks lie that series are played around.
const YEAR: i64 = 2024;

/// Windows of a calendar over some time of a recording.
fn some_span(played: &Played, random: &mut StdRng) -> (Span, String) {
    let zone = &ZONES[random.random_range(0..ZONES.len())];
    let (unit, wire, longest) = match random.random_range(0..8) {
        0..4 => (Unit::Day, CalendarUnit::Day, 2 * DAY),
        4 | 5 => (Unit::Week, CalendarUnit::Week, 8 * DAY),
        6 => (Unit::Month, CalendarUnit::Month, 32 * DAY),
        _ => (Unit::Year, CalendarUnit::Year, 367 * DAY),
    };
    // From midnight, from hours that clocks jump over, from eight; later in longer units.
    let origin_s = [0, 0, 9_000, 8_100, 28_800, 72_000][random.random_range(0..6)];
    let days = match unit {
        Unit::Day => 0,
        Unit::Week => random.random_range(0..7),
        _ => random.random_range(0..27),
    };
    let origin_s = origin_s + days * 86_400;
    let origin_months = if unit == Unit::Year {
        random.random_range(0..12)
    } else {
        0
    };
    let length = [1, 1, 1, 2, 3][random.random_range(0..5)];
    let (from, to) = played.some_time(random);
    let around = (from - (length + 2) * longest, to + 2 * longest);
    let borders = zone.begins(unit, (origin_s, origin_months), around);
    let windows = borders
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[1] > from && pair[0] < to);
    let windows = windows.map(|(at, pair)| {
        let start = match length {
            1 => pair[0].max(from),
            length => borders[at + 1 - length as usize],
        };
        (start, pair[1].min(to))
    });
    let window = v1::Window {
        calendar: Some(v1::Calendar {
            unit: wire as i32,
            time_zone: zone.name.into(),
            origin_s,
            origin_months,
        }),
        length: length as u32,
        ..Default::default()
    };
    let span = Span {
        range: (from, to),
        window: Some(window),
        windows: windows.collect(),
    };
    (span, format!("{unit:?} of {}", zone.name))
}

/// A change of a clock that is changed.
fn some_change(random: &mut StdRng) -> (&'static Zone, i64) {
    let changed: Vec<&Zone> = ZONES.iter().filter(|zone| !zone.changed_ns(YEAR).is_empty()).collect();
    let zone = changed[random.random_range(0..changed.len())];
    let changes = zone.changed_ns(YEAR);
    (zone, changes[random.random_range(0..changes.len())])
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_by_the_calendar_are_those_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start_with(1, tuning()).await;
    let client = cluster.client().await;
    // The shortest of the series is two days long.
    let (zone, change) = some_change(&mut random);
    let end = change + random.random_range(2..40) * HOUR;
    println!("the clock of {} is changed at {change}, series end at {end}", zone.name);
    let mut all = Vec::new();
    for (stem, recordings) in [("recorded", &RECORDINGS[..]), ("derived", &DERIVED[..])] {
        let stage = Stage {
            recordings,
            stem,
            rollups_s: vec![vec![3_600], vec![], vec![86_400]],
            end_ns: Some(end),
        };
        all.extend(play_on(&client, &mut random, &stage).await);
    }
    for flushed in [false, true] {
        let mut compared = Compared::default();
        for round in 0..8 {
            for played in &all {
                let (span, calendar) = some_span(played, &mut random);
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, flushed {flushed}, {file}, {calendar}");
                let all = functions_of(played.recording.kind);
                let mut functions: Vec<Function> = all.iter().copied().filter(|_| random.random_bool(0.3)).collect();
                functions.push(Function::Count);
                let whose = Whose::any(played, &mut random);
                let asked = ask_for(played, &mut random, whose, functions, span);
                compare(&client, played, &asked, &what, &mut compared).await;
            }
        }
        compared.check(&[Function::Count], 200);
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}
