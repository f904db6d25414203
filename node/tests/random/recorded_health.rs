//! Health of rooms that were recorded, whose readings stand for what devices say of themselves, against a recomputation from the points:
//! devices one by one, and summed, some of them under maintenance for some of the time.
//! Never here: spikes and other checks (see `recorded_answers`). Invariant: the recomputation knows nothing of the store.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::random::seed;
use crate::common::recordings::{LATENCY_S, recorded};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{BatchBuilder, Client, Value, v1};
use v1::{Freshness, Kind, Quality, ReportKind, ValueType};

const ROOM: &str = "recorded-room";
const INTERVAL: i64 = 600 * S;
/// What is recorded, what it is called here, and what of the device it tells.
const READINGS: [(&str, &str, &str); 4] = [
    ("Temperature", "temperature", ""),
    ("Humidity", "charge", "battery"),
    ("ThermostatTemperature", "volts", "supply"),
    ("Brightness", "dbm", "signal"),
];
/// Rooms, and the floor that each is on; nothing is recorded of the last one.
const ROOMS: [(&str, &str); 6] = [
    ("Bathroom", "wet"),
    ("Kitchen", "wet"),
    ("Room1", "dry"),
    ("Room2", "dry"),
    ("Toilet", "wet"),
    ("Cellar", "dark"),
];
/// No battery is fuller.
const FULL: f64 = 100.0;
/// Readings of a room that are played.
const POINTS: usize = 400;

/// What a room said of one time, in the end.
#[derive(Clone, Debug)]
struct Row {
    values: [Option<(f64, Quality)>; 4],
    received_ns: i64,
    kind: ReportKind,
    again: u64,
}

impl Row {
    /// The reading of a property that counts by itself.
    fn good(&self, at: usize) -> Option<f64> {
        let sound = |(value, stated): &(f64, Quality)| {
            !matches!(stated, Quality::Fail | Quality::Missing) && (at != 1 || *value <= FULL)
        };
        self.values[at].filter(sound).map(|(value, _)| value)
    }

    /// Whether it is a point of the first property.
    fn is_point(&self) -> bool {
        let apart = matches!(self.kind, ReportKind::Test | ReportKind::Keepalive);
        !apart && self.values[0].is_some_and(|(_, stated)| stated != Quality::Missing)
    }
}

/// What a room said, by time, and when it is declared to be under maintenance.
#[derive(Default)]
struct Room {
    rows: BTreeMap<i64, Row>,
    declared: Vec<(i64, i64)>,
}

/// By name.
type Rooms = BTreeMap<String, Room>;

/// The sample intervals that a time is judged by, before and behind it too, and which of them are under maintenance.
struct Scope<'a> {
    from: i64,
    declared: &'a [(i64, i64)],
}

impl Scope<'_> {
    fn slot(&self, t: i64) -> i64 {
        (t - self.from).div_euclid(INTERVAL)
    }

    fn holds_slot(&self, slot: i64) -> bool {
        let start = self.from + slot * INTERVAL;
        let shares = |(a, b): &(i64, i64)| *a < start + INTERVAL && start < *b;
        !self.declared.iter().any(shares)
    }

    fn holds(&self, t: i64) -> bool {
        self.holds_slot(self.slot(t))
    }

    /// How much of a time lies in it.
    fn length(&self, from: i64, to: i64) -> i64 {
        let slots = (self.slot(from)..=self.slot(to)).filter(|slot| from < to && self.holds_slot(*slot));
        let parts = slots.map(|slot| {
            let start = self.from + slot * INTERVAL;
            (start + INTERVAL).min(to) - start.max(from)
        });
        parts.sum()
    }
}

async fn furnish_rooms(client: &Client) {
    let properties = READINGS.map(|(_, id, role)| v1::Property {
        max: (role == "battery").then_some(FULL),
        attributes: [("diag".to_owned(), role.to_owned())]
            .into_iter()
            .filter(|_| !role.is_empty())
            .collect(),
        ..property(id, ValueType::F64, Kind::Gauge)
    });
    let room = v1::DeviceType {
        id: ROOM.into(),
        properties: properties.into(),
        sample_interval_s: INTERVAL / S,
        latency_s: LATENCY_S,
        bucket_span_s: INTERVAL / S * 40,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![room]).await.unwrap();
    let devices = ROOMS.map(|(id, floor)| device(id, ROOM, &[("floor", floor)]));
    client.register_devices(devices.to_vec()).await.unwrap();
}

/// Declares maintenance of some rooms anew, of none or a few times each.
async fn declare(client: &Client, random: &mut StdRng, rooms: &mut Rooms, (begin, end): (i64, i64)) {
    let margin = 30 * INTERVAL / S;
    for room in rooms.values_mut() {
        let count = [0, 0, 2, 4, 10][random.random_range(0..5)];
        let times = (0..count).map(|_| random.random_range(begin / S - margin..end / S + margin) * S);
        let times: BTreeSet<i64> = times.collect();
        let times: Vec<i64> = times.into_iter().collect();
        room.declared = times.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    }
    let devices = ROOMS.map(|(id, floor)| {
        let declared = rooms[id].declared.iter().map(|(from_ns, to_ns)| v1::Maintenance {
            from_ns: *from_ns,
            to_ns: *to_ns,
            reason: String::new(),
        });
        v1::Device {
            maintenance: declared.collect(),
            ..device(id, ROOM, &[("floor", floor)])
        }
    });
    client.register_devices(devices.to_vec()).await.unwrap();
}

/// Series of all readings of all rooms but the last; waves where nothing is recorded.
#[allow(clippy::print_stdout, reason = "whether recordings are there is seen nowhere else")]
fn readings(random: &mut StdRng) -> Vec<Vec<(i64, f64)>> {
    let rooms = &ROOMS[..ROOMS.len() - 1];
    let wanted: Vec<(&str, &str)> = rooms
        .iter()
        .flat_map(|(room, _)| READINGS.map(|(recorded, ..)| (*room, recorded)))
        .collect();
    let recorded = recorded("smart_home.csv.zst", &wanted, &[]);
    println!("rooms are {}", if recorded.is_some() { "recorded" } else { "made up" });
    recorded.unwrap_or_else(|| {
        let mut wave = |at: usize| {
            let jitter_s = random.random_range(0..30) * i64::from(at % 2 == 1);
            let value = |n: i64| 30.0 + 25.0 * (n as f64 / 20.0 + at as f64).sin();
            (0..1_000)
                .map(|n| (T0 + n * INTERVAL + jitter_s * S, value(n)))
                .collect()
        };
        (0..wanted.len()).map(&mut wave).collect()
    })
}

/// What a room says: its readings of a time in one row, some of them lost, late, doubtful, or of other kinds; some rooms fall silent.
fn rows_of(random: &mut StdRng, series: &[Vec<(i64, f64)>], (begin, end): (i64, i64)) -> BTreeMap<i64, Row> {
    let mut rows: BTreeMap<i64, Row> = BTreeMap::new();
    let silent = match random.random_bool(0.4) {
        true => random.random_range(begin / S..end / S) * S,
        false => end,
    };
    for (at, points) in series.iter().enumerate() {
        for (t, value) in points.iter().filter(|(t, _)| (begin..silent).contains(t)) {
            let stated = match random.random_range(0..40) {
                0 => Quality::Fail,
                1 => Quality::Missing,
                2 => Quality::Suspect,
                _ => Quality::Unspecified,
            };
            let too_full = at == 1 && random.random_range(0..30) == 0;
            let late_s = if random.random_range(0..8) == 0 {
                3 * LATENCY_S
            } else {
                5
            };
            let row = rows.entry(*t).or_insert_with(|| Row {
                values: [None; 4],
                received_ns: t + late_s * S,
                kind: ReportKind::Unspecified,
                again: 0,
            });
            row.values[at] = Some((if too_full { FULL + 1.0 } else { *value }, stated));
        }
    }
    let mut lost = 0;
    rows.retain(|_, _| {
        if lost == 0 && random.random_range(0..100) == 0 {
            lost = random.random_range(1..90);
        }
        let kept = lost == 0;
        lost -= i32::from(!kept);
        kept
    });
    for _ in 0..12 {
        let t = random.random_range(begin / S..end / S) * S;
        let kind = if random.random_bool(0.5) {
            ReportKind::Keepalive
        } else {
            ReportKind::Test
        };
        rows.entry(t).or_insert_with(|| Row {
            values: [Some((1.0, Quality::Unspecified)), None, None, None],
            received_ns: t + 5 * S,
            kind,
            again: 0,
        });
    }
    rows
}

/// Sends rows of a room in any order, and some again, perhaps corrected.
async fn send(client: &Client, random: &mut StdRng, room: &str, rows: &mut BTreeMap<i64, Row>) {
    let mut messages: Vec<(i64, Row)> = rows.iter().map(|(t, row)| (*t, row.clone())).collect();
    let mut again = messages.clone();
    again.retain(|_| random.random_bool(0.08));
    for (t, row) in &mut again {
        if let Some((value, _)) = row.values[0].as_mut().filter(|_| random.random_bool(0.5)) {
            *value += 0.5;
        }
        let known = rows.get_mut(t).unwrap();
        known.again += 1;
        known.values = row.values;
    }
    messages.shuffle(random);
    messages.extend(again);
    for part in messages.chunks(70) {
        let mut batch = BatchBuilder::new(ROOM);
        for (t, said) in part {
            let mut row = batch.row(room, *t).received_at(said.received_ns).report_kind(said.kind);
            for ((_, id, _), value) in READINGS.iter().zip(&said.values) {
                if let Some((value, stated)) = value {
                    row = row.set_with_quality(id, Value::F64(*value), *stated);
                }
            }
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

async fn play_rooms(client: &Client, random: &mut StdRng) -> (Rooms, (i64, i64)) {
    furnish_rooms(client).await;
    let series = readings(random);
    let at = random.random_range(0..series[0].len().saturating_sub(POINTS).max(1));
    let (begin, end) = (series[0][at].0, series[0][(at + POINTS).min(series[0].len()) - 1].0);
    let mut rooms = Rooms::new();
    for (at, (room, _)) in ROOMS.iter().enumerate() {
        let series = series.chunks(READINGS.len()).nth(at).unwrap_or_default();
        let mut rows = match series.is_empty() {
            true => BTreeMap::new(),
            false => rows_of(random, series, (begin, end)),
        };
        send(client, random, room, &mut rows).await;
        let declared = Vec::new();
        rooms.insert((*room).to_owned(), Room { rows, declared });
    }
    (rooms, (begin, end))
}

fn median_spacing(points: &[i64], scope: &Scope<'_>) -> Option<i64> {
    let measured = |pair: &&[i64]| {
        let all_of_it = scope.length(pair[0], pair[1]) == pair[1] - pair[0];
        pair[1] >= scope.from && scope.holds(pair[0]) && scope.holds(pair[1]) && all_of_it
    };
    let spacings = points.windows(2).filter(measured);
    let mut spacings: Vec<i64> = spacings.map(|pair| pair[1] - pair[0]).collect();
    spacings.sort_unstable();
    spacings.get(spacings.len() / 2).copied()
}

/// The verdict about points of a time and of ten intervals before, at its end; `rows`: all that was ever said.
fn verdict(points: &[i64], rows: &BTreeMap<i64, Row>, end: i64, scope: &Scope<'_>) -> Freshness {
    let slots = scope.length(scope.from, end) / INTERVAL;
    let ever = rows.values().any(Row::is_point);
    let before = rows.range(..end).rev().find(|(_, row)| row.is_point());
    let silent = |last: i64| scope.length(last, end) > 10 * INTERVAL;
    match points.last() {
        _ if slots == 0 && end > scope.from => Freshness::NotAssessable,
        None if before.is_some_and(|(last, _)| !silent(*last)) => Freshness::NotAssessable,
        None if ever => Freshness::Stalled,
        None => Freshness::Never,
        Some(last) if silent(*last) => Freshness::Stalled,
        Some(_) if slots < 3 => Freshness::NotAssessable,
        Some(_) => match median_spacing(points, scope) {
            None => Freshness::NotAssessable,
            Some(median) if 2 * median <= 3 * INTERVAL => Freshness::AsPromised,
            Some(_) => Freshness::Slower,
        },
    }
}

/// What the report of a room should be.
fn expected(room: &Room, (from, to): (i64, i64), low: f64) -> v1::QualityReport {
    let Room { rows, declared } = room;
    let end = from + (to - from) / INTERVAL * INTERVAL;
    let scope = Scope { from, declared };
    let slots = scope.length(from, end) / INTERVAL;
    let within = || rows.range(from..end).filter(|(t, _)| scope.holds(**t));
    let points: Vec<(i64, &Row)> = within()
        .filter(|(_, row)| row.is_point())
        .map(|(t, row)| (*t, row))
        .collect();
    let filled: BTreeSet<i64> = points.iter().map(|(t, _)| scope.slot(*t)).collect();
    let stated = |what: Quality| {
        points
            .iter()
            .filter(|(_, row)| row.values[0].unwrap().1 == what)
            .count() as u64
    };
    let seen = rows.range(from - 10 * INTERVAL..end).filter(|(_, row)| row.is_point());
    let seen: Vec<i64> = seen.map(|(t, _)| *t).collect();
    let next = seen.iter().skip(1).copied().chain([i64::MAX]);
    let there = seen.iter().zip(next).map(|(t, next)| {
        let until = (t + 3 * INTERVAL).min(next).min(end);
        scope.length((*t).max(from), until)
    });
    let there = there.sum::<i64>() as f64;
    let share = |part: f64, whole: i64| if whole > 0 { part / whole as f64 } else { 0.0 };
    let freshness = verdict(&seen, rows, end, &scope);
    let is = |what: Freshness| u64::from(freshness == what);
    let words = || rows.range(..=to).filter(|(_, row)| row.kind != ReportKind::Test);
    let heard = words().next_back().map(|(t, _)| *t);
    let online = heard.is_some_and(|heard| to - heard <= 3 * INTERVAL);
    let under = declared.iter().any(|(a, b)| (*a..*b).contains(&to));
    let excused = |heard: i64| {
        declared
            .iter()
            .map(move |(a, b)| ((*b).min(to) - (*a).max(heard)).max(0))
    };
    let missed = heard.is_none_or(|heard| to - heard - excused(heard).sum::<i64>() > 3 * INTERVAL);
    let newest = |at: usize| rows.range(..=to).rev().find_map(|(_, row)| row.good(at));
    let mut signals: Vec<f64> = within().filter_map(|(_, row)| row.good(3)).collect();
    signals.sort_by(f64::total_cmp);
    let again = within().filter(|(_, row)| row.kind != ReportKind::Test);
    v1::QualityReport {
        devices: 1,
        devices_assessed: u64::from(slots > 0),
        slots_expected: slots as u64,
        slots_filled: filled.len() as u64,
        completeness_mean: share(filled.len() as f64, slots),
        points: points.len() as u64,
        points_timed: points.len() as u64,
        points_in_time: points
            .iter()
            .filter(|(t, row)| row.received_ns - t <= LATENCY_S * S)
            .count() as u64,
        points_fail: stated(Quality::Fail),
        points_suspect: stated(Quality::Suspect),
        duplicates: again.map(|(_, row)| row.again).sum(),
        availability_mean: share(there, slots * INTERVAL),
        offline: u64::from(missed && !under),
        under_maintenance: u64::from(under),
        as_promised: is(Freshness::AsPromised),
        slower: is(Freshness::Slower),
        stalled: is(Freshness::Stalled),
        never: is(Freshness::Never),
        not_assessable: is(Freshness::NotAssessable),
        health: Some(v1::Health {
            online: u64::from(online),
            last_heard_at_ns: heard.unwrap_or(0),
            age_ms: heard.map_or(0, |heard| (to - heard) / 1_000_000),
            battery: newest(1),
            supply: newest(2),
            signal: newest(3),
            signal_median: signals.get(signals.len() / 2).copied(),
            battery_known: u64::from(newest(1).is_some()),
            battery_low: u64::from(newest(1).is_some_and(|battery| battery < low)),
            ..v1::Health::default()
        }),
        ..v1::QualityReport::default()
    }
}

/// Reports of rooms as one.
fn together(reports: &[v1::QualityReport]) -> v1::QualityReport {
    let sum = |of: fn(&v1::QualityReport) -> u64| reports.iter().map(of).sum::<u64>();
    let assessed = sum(|one| one.devices_assessed);
    let mean = |of: fn(&v1::QualityReport) -> f64| match assessed {
        0 => 0.0,
        assessed => reports.iter().map(of).sum::<f64>() / assessed as f64,
    };
    let health = || reports.iter().filter_map(|one| one.health.as_ref());
    let mut medians: Vec<i32> = health()
        .filter_map(|one| one.signal_median)
        .map(|median| median.round() as i32)
        .collect();
    medians.sort_unstable();
    let mut devices_by_signal = BTreeMap::new();
    medians
        .iter()
        .for_each(|median| *devices_by_signal.entry(*median).or_default() += 1);
    v1::QualityReport {
        devices: sum(|one| one.devices),
        devices_assessed: assessed,
        slots_expected: sum(|one| one.slots_expected),
        slots_filled: sum(|one| one.slots_filled),
        completeness_mean: mean(|one| one.completeness_mean),
        points: sum(|one| one.points),
        points_timed: sum(|one| one.points_timed),
        points_in_time: sum(|one| one.points_in_time),
        points_fail: sum(|one| one.points_fail),
        points_suspect: sum(|one| one.points_suspect),
        duplicates: sum(|one| one.duplicates),
        availability_mean: mean(|one| one.availability_mean),
        offline: sum(|one| one.offline),
        under_maintenance: sum(|one| one.under_maintenance),
        as_promised: sum(|one| one.as_promised),
        slower: sum(|one| one.slower),
        stalled: sum(|one| one.stalled),
        never: sum(|one| one.never),
        not_assessable: sum(|one| one.not_assessable),
        health: Some(v1::Health {
            online: health().map(|one| one.online).sum(),
            battery_known: health().map(|one| one.battery_known).sum(),
            battery_low: health().map(|one| one.battery_low).sum(),
            supply_min: health().filter_map(|one| one.supply).min_by(f64::total_cmp),
            signal_median: medians.get(medians.len() / 2).map(|median| f64::from(*median)),
            devices_by_signal,
            ..v1::Health::default()
        }),
        ..v1::QualityReport::default()
    }
}

/// What is told of a room or a floor, but for what only reports of promises say (see `recorded_answers`).
fn shown(report: &v1::QualityReport) -> v1::QualityReport {
    v1::QualityReport {
        device: String::new(),
        device_type: String::new(),
        tags: Default::default(),
        freshness: 0,
        spacing_ratio: 0.0,
        last_observed_at_ns: 0,
        completeness_mean: 0.0,
        availability_mean: 0.0,
        ..report.clone()
    }
}

#[track_caller]
fn assert_same(found: &v1::QualityReport, expected: &v1::QualityReport, what: &str) {
    assert_eq!(shown(found), shown(expected), "{what}");
    // Of sums of doubles the last bits depend on their order.
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let means = |of: &v1::QualityReport| (of.completeness_mean, of.availability_mean);
    let (found, expected) = (means(found), means(expected));
    assert!(
        near(found.0, expected.0) && near(found.1, expected.1),
        "{what}: {found:?}, not {expected:?}"
    );
}

async fn told(client: &Client, request: v1::GetHealthRequest) -> Vec<v1::QualityReport> {
    let (messages, _) = client.get_health(request).await.unwrap().collect().await.unwrap();
    messages.into_iter().flat_map(|message| message.reports).collect()
}

/// Asks about a time; returns how many rooms were there and how many were not.
async fn compare(client: &Client, rooms: &Rooms, span: (i64, i64), low: f64, what: &str) -> (u64, u64, u64) {
    let request = v1::GetHealthRequest {
        selector: of_type(ROOM),
        from_ns: span.0,
        to_ns: span.1,
        battery_low: low,
        ..Default::default()
    };
    let what = format!("{what}: {request:?}");
    let found = told(client, request.clone()).await;
    assert_eq!(found.len(), ROOMS.len(), "{what}");
    for report in &found {
        let expected = expected(&rooms[&report.device], span, low);
        assert_same(report, &expected, &format!("{what}: {}", report.device));
    }
    let floors: BTreeSet<&str> = ROOMS.iter().map(|(_, floor)| *floor).collect();
    let by_floor = v1::GetHealthRequest {
        grouping: Some(v1::Grouping {
            tags: vec!["floor".into()],
        }),
        ..request.clone()
    };
    let found = told(client, by_floor).await;
    assert_eq!(found.len(), floors.len(), "{what}");
    for report in &found {
        let on_it = ROOMS.iter().filter(|(_, floor)| report.tags["floor"] == *floor);
        let of_rooms: Vec<_> = on_it.map(|(room, _)| expected(&rooms[*room], span, low)).collect();
        assert_same(report, &together(&of_rooms), &format!("{what}: {:?}", report.tags));
    }
    let of_all = v1::GetHealthRequest {
        grouping: Some(v1::Grouping::default()),
        across_types: true,
        ..request
    };
    let found = told(client, of_all).await;
    let all: Vec<_> = rooms.values().map(|room| expected(room, span, low)).collect();
    let all = together(&all);
    assert_eq!(found.len(), 1, "{what}: {found:?}");
    assert_same(&found[0], &all, &what);
    (all.health.unwrap().online, all.offline, all.under_maintenance)
}

#[tokio::test]
async fn health_of_recorded_rooms_is_that_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let (mut rooms, (begin, end)) = play_rooms(&client, &mut random).await;
    let (mut online, mut offline, mut under) = (0, 0, 0);
    for flushed in [false, true] {
        for round in 0..25 {
            let margin = 15 * INTERVAL / S;
            let from = random.random_range(begin / S - margin..end / S);
            let most = [20 * INTERVAL / S, end / S + margin - from][random.random_range(0..2)];
            let to = from + random.random_range(1..most.max(2));
            let low = [20.0, 45.0, 50.0][random.random_range(0..3)];
            let what = format!("seed {seed}, round {round}, flushed {flushed}");
            if round % 3 == 1 {
                declare(&client, &mut random, &mut rooms, (begin, end)).await;
            }
            let found = compare(&client, &rooms, (from * S, to * S), low, &what).await;
            online += found.0;
            offline += found.1;
            under += found.2;
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
    assert!(
        online > 20 && offline > 40 && under > 10,
        "{online} rooms were there, {offline} were not, {under} were under maintenance"
    );
}
