//! How well recorded devices kept their promises, lost, late and doubled as networks do it: slots, gaps of any length, verdicts and
//! spacings of single devices, and those that are worst, against a recomputation from the points.
//! Never here: health, groups and maintenance (see `recorded_health`). Invariant: the recomputation knows nothing of the store.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::TestCluster;
use crate::common::fleet::*;
use crate::common::judged::Wrong;
use crate::common::placed::{TAGS, tag_of};
use crate::common::random::seed;
use crate::common::recordings::{LATENCY_S, Played, Said, play, play_on};
use crate::recorded::derived;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, v1};
use v1::{Freshness, Kind, Quality};

/// How often each verdict was compared.
type Verdicts = BTreeMap<&'static str, usize>;

/// Some time that is so long that promises can be judged, and not longer than needed.
fn some_time(played: &Played, random: &mut StdRng) -> (i64, i64) {
    let (from, to) = played.some_time(random);
    (from, to.min(from + 3_000 * played.interval_ns()))
}

/// Times between points, or beside them, that are longer than so many intervals.
fn gaps(points: &[i64], before: Option<i64>, (from, to): (i64, i64), interval: i64, factor: f64) -> Vec<v1::Gap> {
    let factor = if factor == 0.0 { 1.5 } else { factor };
    let mut found = Vec::new();
    let mut gap = |from_ns: i64, to_ns: i64, open: bool| {
        let intervals = (to_ns - from_ns) as f64 / interval as f64;
        let missing = if open {
            intervals.floor()
        } else {
            intervals.round() - 1.0
        };
        if intervals > factor {
            found.push(v1::Gap {
                from_ns,
                to_ns,
                missing: missing as u64,
                open,
            });
        }
    };
    let mut last = before.unwrap_or(from);
    for t in points {
        // What ends where the time begins is no gap of it.
        if *t > from {
            gap(last, *t, false);
        }
        last = *t;
    }
    if to > from {
        gap(last, to, true);
    }
    found
}

/// What a report says of a device, beside its gaps.
#[derive(Debug, PartialEq)]
struct Report {
    slots: (u64, u64),
    points: (u64, u64, u64),
    wrong: (u64, u64),
    duplicates: u64,
    offline: u64,
    availability: i64,
    freshness: Freshness,
}

/// What a device said until the end of a time and ten intervals before its begin, by which it is judged how often it reports.
struct Heard {
    end: i64,
    slots: i64,
    interval: i64,
    points: Vec<i64>,
    /// Of all time.
    ever: bool,
}

impl Heard {
    /// The verdict, and the spacing in the middle of all by the promised one, where it was measured.
    fn verdict(&self, inside: impl Fn(i64) -> bool) -> (Freshness, f64) {
        let Some(last) = self.points.last() else {
            return (
                if self.ever {
                    Freshness::Stalled
                } else {
                    Freshness::Never
                },
                0.0,
            );
        };
        if self.end - last > 10 * self.interval {
            return (Freshness::Stalled, 0.0);
        }
        let pairs = self.points.windows(2).filter(|pair| inside(pair[1]));
        let mut spacings: Vec<i64> = pairs.map(|pair| pair[1] - pair[0]).collect();
        spacings.sort_unstable();
        match spacings.get(spacings.len() / 2) {
            Some(median) if self.slots >= 3 => {
                let ratio = *median as f64 / self.interval as f64;
                (
                    if ratio <= 1.5 {
                        Freshness::AsPromised
                    } else {
                        Freshness::Slower
                    },
                    ratio,
                )
            }
            _ => (Freshness::NotAssessable, 0.0),
        }
    }
}

/// What a report should say: the report, the gaps, the spacing, and the last point, which may be further back than is looked at.
struct Should {
    report: Report,
    gaps: Vec<v1::Gap>,
    spacing_ratio: f64,
    last: Option<i64>,
    last_before: Option<i64>,
}

fn expected_report(played: &Played, device: &str, (from, to): (i64, i64), factor: f64) -> Should {
    let interval = played.interval_ns();
    let slots = (to - from) / interval;
    let end = from + slots * interval;
    let ends = matches!(played.recording.kind, Kind::Increment | Kind::Mean);
    let inside = |t: i64| {
        if ends {
            from < t && t <= end
        } else {
            from <= t && t < end
        }
    };
    let said = &played.said[device];
    let measured = || said.iter().filter(|(_, said)| said.stated != Quality::Missing);
    let points: Vec<(i64, &Said)> = measured()
        .filter(|(t, _)| inside(**t))
        .map(|(t, said)| (*t, said))
        .collect();
    let slot = |t: i64| (t - from - i64::from(ends)).div_euclid(interval);
    let filled: BTreeSet<i64> = points.iter().map(|(t, _)| slot(*t)).collect();
    let in_time = points.iter().filter(|(t, said)| said.received_ns - t <= LATENCY_S * S);
    let verdicts = played.verdicts(device, (from, to));
    let wrong = |what: Wrong| {
        verdicts
            .iter()
            .filter(|(t, wrong)| inside(**t) && **wrong == Some(what))
            .count() as u64
    };
    let alive = 3 * interval;
    let times: Vec<i64> = measured()
        .map(|(t, _)| *t)
        .filter(|t| *t <= end && (inside(*t) || *t <= from))
        .collect();
    let next = times.iter().skip(1).copied().chain([i64::MAX]);
    let there = times.iter().zip(next).map(|(t, next)| {
        let until = (t + alive).min(next).min(end);
        (until - (*t).max(from)).max(0)
    });
    let behind = |t: i64| if ends { t > end } else { t >= end };
    let until: Vec<i64> = measured().map(|(t, _)| *t).filter(|t| !behind(*t)).collect();
    let heard_of = Heard {
        end,
        slots,
        interval,
        points: until.iter().copied().filter(|t| *t >= from - 10 * interval).collect(),
        ever: measured().next().is_some(),
    };
    let (freshness, spacing_ratio) = heard_of.verdict(inside);
    // Who is there is judged at the very end of the time.
    let heard = said.range(..=to).next_back().map(|(t, _)| *t);
    let report = Report {
        slots: (slots as u64, filled.len() as u64),
        points: (points.len() as u64, points.len() as u64, in_time.count() as u64),
        wrong: (wrong(Wrong::Fail), wrong(Wrong::Suspect)),
        duplicates: said
            .iter()
            .filter(|(t, _)| inside(**t))
            .map(|(_, said)| said.again)
            .sum(),
        offline: u64::from(heard.is_none_or(|heard| to - heard > alive)),
        availability: there.sum::<i64>() / S,
        freshness,
    };
    // Gaps lie between points that count, however far back the first of these lies.
    let counting = played.counting(device, false).into_iter().map(|(t, _)| t);
    let before = counting.clone().rfind(|t| !inside(*t) && *t <= from);
    let inner: Vec<i64> = counting.filter(|t| inside(*t)).collect();
    Should {
        report,
        gaps: gaps(&inner, before, (from, end), interval, factor),
        spacing_ratio,
        last: heard_of.points.last().copied(),
        last_before: until.last().copied(),
    }
}

async fn reports(client: &Client, request: v1::GetQualityRequest) -> Vec<v1::QualityReport> {
    let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
    messages.into_iter().flat_map(|message| message.reports).collect()
}

#[track_caller]
fn check(told: &v1::QualityReport, should: &Should, interval: i64, what: &str) {
    let expected = &should.report;
    let length = expected.slots.0 as i64 * interval / S;
    let found = Report {
        slots: (told.slots_expected, told.slots_filled),
        points: (told.points, told.points_timed, told.points_in_time),
        wrong: (told.points_fail, told.points_suspect),
        duplicates: told.duplicates,
        offline: told.offline,
        availability: (told.availability_mean * length as f64).round() as i64,
        freshness: told.freshness(),
    };
    let near = (found.availability - expected.availability).abs() <= 1;
    let found = Report {
        availability: if near {
            expected.availability
        } else {
            found.availability
        },
        ..found
    };
    assert_eq!(found, *expected, "{what}");
    let verdicts = [
        (told.as_promised, Freshness::AsPromised),
        (told.slower, Freshness::Slower),
        (told.stalled, Freshness::Stalled),
        (told.never, Freshness::Never),
        (told.not_assessable, Freshness::NotAssessable),
    ];
    let counted = verdicts
        .iter()
        .all(|(count, verdict)| *count == u64::from(*verdict == expected.freshness));
    assert!(counted, "{what}: {told:?}");
    let share = if expected.slots.0 == 0 {
        0.0
    } else {
        expected.slots.1 as f64 / expected.slots.0 as f64
    };
    assert!((told.completeness_mean - share).abs() < 1e-9, "{what}");
    assert!(
        (told.spacing_ratio - should.spacing_ratio).abs() < 1e-9,
        "{what}: spaced by {}, not {}",
        told.spacing_ratio,
        should.spacing_ratio
    );
    // What is further back than ten intervals need not be found, but nothing else is.
    let last = Some(told.last_observed_at_ns).filter(|last| *last != 0);
    let found = last == should.last || (should.last.is_none() && last == should.last_before);
    assert!(
        found,
        "{what}: last {last:?}, not {:?} or {:?}",
        should.last, should.last_before
    );
    assert_eq!(told.gaps, should.gaps, "{what}");
}

async fn compare(client: &Client, played: &Played, random: &mut StdRng, what: &str, seen: &mut Verdicts) {
    let (from, to) = some_time(played, random);
    // Also long behind the end.
    let later = match random.random_range(0..6) {
        0 => random.random_range(0..60) * played.interval_ns(),
        _ => 0,
    };
    let (from, to) = (from + later, to + later);
    let factor = [0.0, 1.0, 1.2, 2.0, 3.5, 20.0][random.random_range(0..6)];
    let whole_type = random.random_bool(0.3);
    let devices = match whole_type {
        true => played.devices(),
        false => vec![played.any(random)],
    };
    let request = v1::GetQualityRequest {
        selector: match whole_type {
            true => of_type(&played.device_type),
            false => of_devices(&devices),
        },
        from_ns: from,
        to_ns: to,
        gaps: true,
        gap_factor: factor,
        ..Default::default()
    };
    let what = format!("{what}: {request:?}");
    let found = reports(client, request).await;
    assert_eq!(found.len(), devices.len(), "{what}");
    for told in &found {
        let should = expected_report(played, &told.device, (from, to), factor);
        check(told, &should, played.interval_ns(), &format!("{what}: {}", told.device));
        *seen.entry(should.report.freshness.as_str_name()).or_default() += 1;
    }
}

/// The times of the points of a device that a range gives.
async fn in_range(client: &Client, device: &str, span: (i64, i64), drop_suspect: bool) -> BTreeSet<i64> {
    let request = v1::QueryRangeRequest {
        selector: of_devices(&[device]),
        from_ns: span.0,
        to_ns: span.1,
        quality: Some(v1::QualityFilter {
            drop_failed: true,
            drop_suspect,
            ..Default::default()
        }),
        ..Default::default()
    };
    read(client, request).await.into_iter().map(|(_, t, ..)| t).collect()
}

/// To leave suspect points out leaves out those that a report counts, and lets none in. Returns how many.
async fn compare_counts(client: &Client, played: &Played, random: &mut StdRng, what: &str) -> usize {
    let device = played.any(random).to_owned();
    let (from, to) = some_time(played, random);
    let end = from + (to - from) / played.interval_ns() * played.interval_ns();
    let request = v1::GetQualityRequest {
        selector: of_devices(&[&device]),
        from_ns: from,
        to_ns: to,
        ..Default::default()
    };
    let told = reports(client, request).await.remove(0);
    let ends = matches!(played.recording.kind, Kind::Increment | Kind::Mean);
    let span = (from + i64::from(ends), end + i64::from(ends));
    let all = in_range(client, &device, span, false).await;
    let sure = in_range(client, &device, span, true).await;
    let what = format!("{what}: {device} {span:?}");
    assert!(sure.is_subset(&all), "{what}: {:?}", sure.difference(&all));
    let counted = (all.len() as u64, (all.len() - sure.len()) as u64);
    assert_eq!(counted, (told.points - told.points_fail, told.points_suspect), "{what}");
    all.len() - sure.len()
}

/// The devices, or groups of them, that kept least of their promises: equal ones by name.
async fn compare_worst(client: &Client, played: &Played, random: &mut StdRng, what: &str) -> usize {
    let (from, to) = some_time(played, random);
    let grouped = random.random_bool(0.4);
    let worst = random.random_range(1..=played.said.len() as u64 + 1);
    let request = v1::GetQualityRequest {
        selector: of_type(&played.device_type),
        from_ns: from,
        to_ns: to,
        grouping: grouped.then(|| v1::Grouping {
            tags: vec![TAGS[0].to_owned()],
        }),
        worst,
        ..Default::default()
    };
    let what = format!("{what}: {request:?}");
    let found = reports(client, request).await;
    let found = found.iter().map(|told| {
        let name = match grouped {
            true => told.tags[TAGS[0]].clone(),
            false => told.device.clone(),
        };
        (name, (told.slots_expected, told.slots_filled))
    });
    let found: Vec<_> = found.collect();
    let mut all: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for device in played.devices() {
        let name = if grouped { tag_of(device, TAGS[0]) } else { device };
        let slots = expected_report(played, device, (from, to), 0.0).report.slots;
        let sum = all.entry(name.to_owned()).or_default();
        *sum = (sum.0 + slots.0, sum.1 + slots.1);
    }
    let mut expected: Vec<_> = all.into_iter().collect();
    // Equal ones stay in the order of their names.
    expected.sort_by(|(_, a), (_, b)| (a.1 * b.0).cmp(&(b.1 * a.0)));
    expected.truncate(worst as usize);
    let any = expected.iter().any(|(_, (slots, _))| *slots > 0);
    if any {
        assert_eq!(found, expected, "{what}");
    }
    usize::from(any)
}

#[tokio::test]
async fn promises_of_recordings_are_kept_as_a_recomputation_says() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let mut all = play(&client, &mut random, &[]).await;
    all.extend(play_on(&client, &mut random, &derived(&[])).await);
    let (mut seen, mut worst, mut suspect) = (Verdicts::new(), 0, 0);
    for flushed in [false, true] {
        for round in 0..10 {
            for played in &all {
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, flushed {flushed}, {file}");
                compare(&client, played, &mut random, &what, &mut seen).await;
                suspect += compare_counts(&client, played, &mut random, &what).await;
                if played.said.len() > 1 {
                    worst += compare_worst(&client, played, &mut random, &what).await;
                }
            }
        }
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
    // Who is slower than promised is rare: compared where it occurs.
    for verdict in [Freshness::AsPromised, Freshness::Stalled] {
        let count = seen.get(verdict.as_str_name()).copied().unwrap_or(0);
        assert!(count > 10, "{verdict:?}: {seen:?}");
    }
    assert!(worst > 10, "{worst} lists of the worst");
    assert!(suspect > 20, "{suspect} points left out");
}
