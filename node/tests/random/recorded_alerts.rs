//! Alerts of recorded series against levels told plainly from the list of all points: as they come, after late and corrected ones, and in
//! silence.
//! Never here: how levels are told (see `common/alerted`). Invariant: only what points and profile decide is compared, never when a
//! node knew it.

use crate::common::alarm::alerts;
use crate::common::alerted::{Measured, Stepped, measured, over, silent_after_ns, stale_after_ns, standing, steps};
use crate::common::fleet::*;
use crate::common::random::seed;
use crate::common::recordings::{Played, VALUE, play, play_until};
use crate::common::{TestCluster, eventually};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, v1};
use tidemark_node::clock::now_ns;
use v1::{AlertFunction, AlertReason, Kind};

/// Points so much older than the newest one of their device change nothing.
const LOOKBACK: i64 = 7 * DAY;
/// Steps under a profile: far fewer than are kept, since those that never were take room too.
const STEPS_MAX: usize = 12;
/// So many steps of a device under a profile are kept, of all that were known.
const KEPT: usize = 128;

/// A device under a profile.
struct Watched {
    /// Place of the recording.
    played: usize,
    device: String,
    profile: v1::AlertProfile,
    /// Since when points count: some days before the newest one when it was first looked at.
    from_ns: i64,
}

impl Watched {
    /// What is compared with levels. Points of windows that begin before count too, and nothing is told of those themselves.
    fn values(&self, played: &Played, until_ns: i64) -> Vec<Measured> {
        let interval = played.interval_ns();
        let rise = self.profile.function() == AlertFunction::RisePerHour;
        let reach = self.profile.window_s * S + if rise { interval } else { 0 };
        let span = (self.from_ns - reach, until_ns);
        let points = played.alerting(&self.device, span, self.profile.accept_suspect);
        let mut values = measured(&self.profile, interval, &points);
        values.retain(|(t, ..)| *t >= self.from_ns);
        values
    }

    fn steps(&self, played: &Played) -> Vec<Stepped> {
        steps(&self.profile, played.interval_ns(), &self.values(played, i64::MAX))
    }

    fn name(&self, level: usize) -> String {
        let named = level.checked_sub(1).map(|at| self.profile.levels[at].level.clone());
        named.unwrap_or_default()
    }

    /// The alerts of the device as they are told.
    async fn listed(&self, client: &Client, at_ns: i64) -> Vec<v1::Alert> {
        let request = v1::ListAlertsRequest {
            selector: of_devices(&[&self.device]),
            profiles: vec![self.profile.id.clone()],
            history: at_ns == 0,
            normal: true,
            steps: true,
            at_ns,
            ..Default::default()
        };
        alerts(client, request).await
    }

    /// What is told differs from what it should be, if it does.
    async fn compare(&self, client: &Client, played: &Played, values: Values) -> Result<usize, String> {
        let expected = self.steps(played);
        let rows = self.listed(client, 0).await;
        let (now, over_by_now): (Vec<&v1::Alert>, Vec<&v1::Alert>) = rows.iter().partition(|row| is_now(row));
        let now = now[0];
        assert!(now.steps.len() < KEPT, "more steps than are kept: {:?}", self.profile);
        let told: Vec<_> = standing(&now.steps).iter().map(|step| told_of(step, values)).collect();
        let plain: Vec<_> = expected.iter().map(|step| self.step(step, values)).collect();
        if told != plain {
            return Err(format!("{told:?}, not {plain:?}"));
        }
        let last = expected.last();
        let in_force = (now.level.clone(), now.rank as usize, now.since_ns, now.began_ns);
        let level = last.map_or(0, |step| step.level);
        let began_ns = last.filter(|step| step.level > 0).map_or(0, |step| step.began_ns);
        let should = (self.name(level), level, last.map_or(0, |step| step.t_ns), began_ns);
        if in_force != should {
            return Err(format!("{in_force:?} in force, not {should:?}"));
        }
        let ended = over_by_now.iter().filter(|row| !row.withdrawn);
        let ended: Vec<_> = ended
            .map(|row| (row.began_ns, row.ended_ns, row.worst_level.clone()))
            .collect();
        let should: Vec<_> = over(&expected)
            .into_iter()
            .map(|(began, end, worst)| (began, end, self.name(worst)))
            .collect();
        match ended == should {
            true => Ok(expected.len()),
            false => Err(format!("{ended:?} over, not {should:?}")),
        }
    }

    fn step(&self, step: &Stepped, values: Values) -> (i64, i64, String, String, AlertReason, i64) {
        let value = values.of(step.value);
        let (level, before) = (self.name(step.level), self.name(step.before));
        (step.t_ns, step.began_ns, level, before, step.reason(), value)
    }

    /// The level, the newest value and the silence of some time.
    async fn compare_at(&self, client: &Client, played: &Played, at_ns: i64) -> Result<(), String> {
        let row = self.listed(client, at_ns).await.remove(0);
        let all = self.steps(played);
        let level = all.iter().rfind(|step| step.t_ns <= at_ns).map_or(0, |step| step.level);
        let newest = self.values(played, at_ns + 1).last().copied();
        let found = (
            row.level.clone(),
            row.unknown,
            row.observed_at_ns,
            row.age_ms,
            row.stale,
        );
        let age = newest.map_or(0, |(t, ..)| at_ns - t);
        let stale = newest.is_some() && age > stale_after_ns(&self.profile, played.interval_ns());
        let observed = newest.map_or(0, |(t, ..)| t);
        let expected = (self.name(level), newest.is_none(), observed, age / 1_000_000, stale);
        let value = newest.map_or(0.0, |(_, value, _)| value);
        match found == expected && (value - row.value).abs() <= 1e-6 * value.abs().max(1.0) {
            true => Ok(()),
            false => Err(format!("{row:?}, not {expected:?} {value}")),
        }
    }
}

/// Rows of alerts that are over have a begin and no level.
fn is_now(row: &v1::Alert) -> bool {
    row.rank > 0 || row.began_ns == 0
}

/// Whether values of steps are compared: a step has the one with which it was first known, also where late points have moved it since.
#[derive(Copy, Clone, PartialEq)]
enum Values {
    Compared,
    AsKnownFirst,
}

impl Values {
    fn of(self, value: f64) -> i64 {
        match self {
            Values::Compared => (value * 1e6).round() as i64,
            Values::AsKnownFirst => 0,
        }
    }
}

fn told_of(step: &v1::AlertStep, values: Values) -> (i64, i64, String, String, AlertReason, i64) {
    let value = values.of(step.value);
    let (level, before) = (step.level.clone(), step.level_before.clone());
    (step.since_ns, step.began_ns, level, before, step.reason(), value)
}

/// Functions that mean something for a kind, with windows or without.
fn functions_of(kind: Kind) -> &'static [AlertFunction] {
    use AlertFunction as F;
    match kind {
        Kind::Gauge => &[F::Last, F::Avg, F::Max, F::Min, F::RisePerHour],
        Kind::Increment => &[F::Last, F::Sum, F::Sum],
        Kind::Counter => &[F::Last],
        _ => &[],
    }
}

/// A profile with levels at what some shares of the values of a device reach; `None` where all are the same, or it steps too often.
fn some_profile(played: &Played, id: String, function: AlertFunction, random: &mut StdRng) -> Option<v1::AlertProfile> {
    let interval_s = played.recording.interval_s;
    let window_s = match function {
        AlertFunction::Last => 0,
        _ => interval_s * random.random_range(2..12),
    };
    let mut profile = v1::AlertProfile {
        id,
        device_type: played.device_type.clone(),
        property: VALUE.into(),
        function: function as i32,
        window_s,
        hold_s: interval_s * random.random_range(0..6),
        accept_suspect: random.random_bool(0.3),
        stale_after_s: [0, 2 * interval_s, 20 * interval_s][random.random_range(0..3)],
        below: random.random_bool(0.3),
        ..Default::default()
    };
    let sign = if profile.below { -1.0 } else { 1.0 };
    let values = |profile: &v1::AlertProfile, device: &str| {
        let points = played.alerting(device, (i64::MIN, i64::MAX), profile.accept_suspect);
        measured(profile, played.interval_ns(), &points)
    };
    let device = played.any(random).to_owned();
    let mut sorted: Vec<f64> = values(&profile, &device)
        .iter()
        .map(|(_, value, _)| sign * value)
        .collect();
    sorted.sort_by(f64::total_cmp);
    let at_share = |share: f64| sorted.get((share * sorted.len() as f64) as usize).copied();
    for (name, on, off) in [("blue", 0.6, 0.45), ("orange", 0.85, 0.75), ("red", 0.97, 0.95)] {
        let (on, off) = (at_share(on)?, at_share(off)?);
        let last = profile
            .levels
            .last()
            .map(|level: &v1::AlertLevel| (sign * level.on, sign * level.off));
        if last.is_none_or(|(before, _)| on > before) && on > sorted[0] {
            let off = last.map_or(off, |(_, before)| off.max(before));
            profile.levels.push(v1::AlertLevel {
                level: name.into(),
                on: sign * on,
                off: sign * off,
                ..Default::default()
            });
        }
    }
    for _ in 0..6 {
        let steps_of = |device: &String| steps(&profile, played.interval_ns(), &values(&profile, device)).len();
        if played.said.keys().map(steps_of).max()? <= STEPS_MAX {
            return Some(profile).filter(|profile| !profile.levels.is_empty());
        }
        profile.hold_s = ((profile.hold_s + interval_s) * 3).min(20 * DAY / S);
    }
    None
}

/// Applies some profiles to every recording, and gives every device under them.
async fn watch(client: &Client, all: &[Played], random: &mut StdRng) -> Vec<Watched> {
    let mut watched = Vec::new();
    let mut profiles = Vec::new();
    for (number, played) in all.iter().enumerate() {
        let functions = functions_of(played.recording.kind);
        for at in 0..functions.len().min(3) {
            let function = functions[random.random_range(0..functions.len())];
            let Some(profile) = some_profile(played, format!("p{number}.{at}"), function, random) else {
                continue;
            };
            for (device, said) in &played.said {
                watched.push(Watched {
                    played: number,
                    device: device.clone(),
                    profile: profile.clone(),
                    from_ns: said.keys().next_back().unwrap() - LOOKBACK,
                });
            }
            profiles.push(profile);
        }
    }
    client.apply_alert_profiles(profiles).await.unwrap();
    watched
}

/// Waits until all is as it should be; says how many steps there are.
async fn settle(client: &Client, all: &[Played], watched: &[Watched], values: Values, what: &str) -> usize {
    let mut compared = 0;
    for one in watched {
        let what = format!("{what}: {} under {:?}", one.device, one.profile);
        compared += eventually(&what, || one.compare(client, &all[one.played], values)).await;
    }
    compared
}

#[tokio::test]
async fn alerts_of_recordings_are_those_that_are_told_plainly() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let mut all = play(&client, &mut random, &[]).await;
    let watched = watch(&client, &all, &mut random).await;
    let mut compared = 0;
    for round in 0..4 {
        let what = format!("seed {seed}, round {round}");
        let values = if round == 0 {
            Values::Compared
        } else {
            Values::AsKnownFirst
        };
        compared += settle(&client, &all, &watched, values, &what).await;
        for one in &watched {
            let played = &all[one.played];
            let newest = played.said[&one.device].keys().next_back().unwrap();
            let first = one.from_ns.max(played.span.0);
            let some = random.random_range(first / S..newest / S + 8 * played.recording.interval_s) * S;
            let what = format!("{what}, at {some}: {} under {:?}", one.device, one.profile);
            eventually(&what, || one.compare_at(&client, played, some)).await;
        }
        if round == 1 {
            cluster.stop(0).await;
            cluster.restart(0).await;
        }
        // What came before that is older than what changes anything.
        for played in &mut all {
            let devices: Vec<String> = played.said.keys().cloned().collect();
            for device in &devices {
                if !played.recording.labels.is_empty() {
                    continue;
                }
                let newest = *played.said[device].keys().next_back().unwrap();
                played
                    .amend(&client, &mut random, device, newest - LOOKBACK + DAY)
                    .await;
            }
        }
    }
    settle(
        &client,
        &all,
        &watched,
        Values::AsKnownFirst,
        &format!("seed {seed}, in the end"),
    )
    .await;
    println!("{compared} steps compared");
    assert!(compared > 200, "{compared} steps were compared");
}

/// Steps that the clock takes, in the order in which they were known.
fn of_silence(steps: &[v1::AlertStep]) -> Vec<(AlertReason, i64, bool)> {
    let by_clock = |step: &&v1::AlertStep| matches!(step.reason(), AlertReason::Stale | AlertReason::Fresh);
    let told = steps.iter().filter(by_clock);
    told.map(|step| (step.reason(), step.since_ns, step.stale)).collect()
}

#[tokio::test]
async fn silence_of_recordings_is_told_by_the_clock() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let ended = now_ns() / S * S - 2 * HOUR;
    let mut all = play_until(&client, &mut random, &[], Some(ended)).await;
    let stale_s = HOUR / S;
    let (mut profiles, mut watched) = (Vec::new(), Vec::new());
    for (number, played) in all.iter().enumerate() {
        let functions = functions_of(played.recording.kind);
        let last = functions
            .first()
            .map(|first| some_profile(played, format!("p{number}"), *first, &mut random));
        let Some(profile) = last.flatten() else { continue };
        let profile = v1::AlertProfile {
            stale_after_s: stale_s,
            ..profile
        };
        profiles.push(profile.clone());
        watched.extend(played.said.iter().map(|(device, said)| Watched {
            played: number,
            device: device.clone(),
            profile: profile.clone(),
            from_ns: said.keys().next_back().unwrap() - LOOKBACK,
        }));
    }
    client.apply_alert_profiles(profiles).await.unwrap();
    let last = |one: &Watched| *one.values(&all[one.played], i64::MAX).last().unwrap();
    let silent: Vec<(i64, f64)> = watched.iter().map(last).map(|(t, value, _)| (t, value)).collect();
    settle(
        &client,
        &all,
        &watched,
        Values::Compared,
        &format!("seed {seed}, silent"),
    )
    .await;
    // That it fell silent long ago is no news.
    let stale = |one: &Watched, newest: i64| {
        let from_ns = newest + silent_after_ns(&one.profile, all[one.played].interval_ns());
        (now_ns() - from_ns <= LOOKBACK).then_some((AlertReason::Stale, from_ns, true))
    };
    let each = watched.iter().zip(&silent);
    let stale: Vec<_> = each.map(|(one, (newest, _))| stale(one, *newest)).collect();
    assert!(stale.iter().flatten().count() > 3);
    for (one, stale) in watched.iter().zip(&stale) {
        let rows = one.listed(&client, 0).await;
        let now = rows.iter().find(|row| is_now(row)).unwrap();
        let expected = Vec::from_iter(*stale);
        assert_eq!(of_silence(&now.steps), expected, "seed {seed}: {}", one.device);
        assert!(now.stale, "seed {seed}: {}", one.device);
    }

    // They speak again, each with a value that it had.
    let again = now_ns() / S * S - MIN;
    for (one, (_, value)) in watched.iter().zip(&silent) {
        all[one.played].say(&client, &one.device, again, *value).await;
    }
    settle(
        &client,
        &all,
        &watched,
        Values::AsKnownFirst,
        &format!("seed {seed}, again"),
    )
    .await;
    for (one, stale) in watched.iter().zip(&stale) {
        let what = format!("seed {seed}: {}", one.device);
        let fresh = stale.map(|_| (AlertReason::Fresh, again, false));
        let expected: Vec<_> = stale.iter().copied().chain(fresh).collect();
        eventually(&what, || async {
            let rows = one.listed(&client, 0).await;
            let now = rows.iter().find(|row| is_now(row)).unwrap();
            match of_silence(&now.steps) {
                told if told == expected && !now.stale => Ok(()),
                told => Err(format!("{told:?}, not {expected:?}")),
            }
        })
        .await;
    }
}
