//! Random points of a minute-by-minute type, with gaps, late and doubled rows, some of which failed a check.
//! Never here: questions. Invariant: the same seed gives the same points.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{BatchBuilder, Client, Value, v1};
use v1::Quality;

use super::fleet::*;

/// A seed: printed, and taken from `TIDEMARK_SEED` where that is set.
#[allow(clippy::print_stdout, reason = "a failure is replayed by its seed")]
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("TIDEMARK_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("TIDEMARK_SEED={seed}");
    seed
}

/// A random number generator from a [`seed`].
pub(crate) fn seeded() -> StdRng {
    StdRng::seed_from_u64(seed())
}

/// The devices that say something.
pub(crate) const SAYING: [&str; 3] = ["r1", "r2", "r3"];

/// What a device said of one property: (time, value), and whether it counts.
pub(crate) type Said = BTreeMap<i64, (f64, bool)>;

/// What all devices said, by device and property.
pub(crate) type AllSaid = BTreeMap<String, BTreeMap<&'static str, Said>>;

/// Values taken of a recording.
const RECORDED_MAX: usize = 20_000;

/// Values of a property of a recording, in the order in which they were made; none where there is no recording. `TIDEMARK_DATASETS`
/// names their folder, else it is looked for beside the checkout.
fn recorded(file: &str, property: &str) -> Vec<f64> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("TIDEMARK_DATASETS").map_or(beside, PathBuf::from);
    let Ok(opened) = std::fs::File::open(folder.join(file)) else {
        return Vec::new();
    };
    let lines = BufReader::new(zstd::Decoder::new(opened).unwrap()).lines();
    let value = |line: String| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[1] == property).then(|| fields[3].parse().ok()).flatten()
    };
    lines
        .filter_map(|line| value(line.unwrap()))
        .take(RECORDED_MAX)
        .collect()
}

/// What a property says: a recording from some place on, where there is one, else anything.
struct Source {
    recorded: Vec<f64>,
    at: usize,
}

impl Source {
    fn new(recorded: Vec<f64>, random: &mut StdRng) -> Source {
        let at = random.random_range(0..RECORDED_MAX);
        Source { recorded, at }
    }

    fn next(&mut self, random: &mut StdRng) -> f64 {
        let anything = f64::from(random.random_range(-400..400)) / 4.0;
        self.at += 1;
        match self.recorded.len() {
            0 => anything,
            len => self.recorded[self.at % len],
        }
    }
}

/// Writes ten hours of points from a time on: of a river and of rain that were recorded, where recordings are, else of any values.
#[allow(clippy::print_stdout, reason = "whether recordings are there is seen nowhere else")]
pub(crate) async fn random_points(client: &Client, random: &mut StdRng, begin: i64) -> AllSaid {
    furnish(client, &SAYING).await;
    let (river, rain) = (
        recorded("lro_river.csv.zst", "stage"),
        recorded("tharandt_rain.csv.zst", "rain_mm"),
    );
    println!("recorded values: {} of a river, {} of rain", river.len(), rain.len());
    let mut sources = [("level", river), ("rain", rain)].map(|(property, of)| (property, Source::new(of, random)));
    let mut all = AllSaid::new();
    let mut rows = Vec::new();
    for device in SAYING {
        let (mut minute, mut times) = (0, BTreeSet::new());
        while minute < 600 {
            // Now and then several in a minute.
            minute += match random.random_range(0..20) {
                0 => random.random_range(4..90),
                1 => 0,
                _ => 1,
            };
            times.insert(begin + minute * MIN + random.random_range(0..20) * S);
        }
        rows.extend(times.into_iter().map(|t| (device, t)));
    }
    // The second half comes first, and some of it twice.
    let half = rows.len() / 2;
    rows.rotate_left(half);
    let doubled: Vec<_> = rows.iter().step_by(7).copied().collect();
    rows.extend(doubled);
    for part in rows.chunks(97) {
        let mut batch = BatchBuilder::new(RELIC);
        for (device, t) in part {
            let said: &mut BTreeMap<&'static str, Said> = all.entry((*device).to_owned()).or_default();
            let fails = random.random_bool(0.1);
            let mut row = batch.row(device, *t);
            let mut say = |property, value: f64| {
                said.entry(property).or_default().insert(*t, (value, !fails));
            };
            let quality = if fails { Quality::Fail } else { Quality::Good };
            for (property, source) in &mut sources {
                let value = source.next(random);
                say(*property, value);
                row = row.set_with_quality(property, value, quality);
            }
            let count = random.random_range(0..1_000);
            say("count", count as f64);
            row = row.set_with_quality("count", count, quality);
            let mode = random.random_range(0..3_usize);
            say("mode", mode as f64);
            row.set_with_quality("mode", Value::Enum(["off", "slow", "fast"][mode].into()), quality);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
    all
}

/// The points of a device that count, in order.
pub(crate) fn counting(all: &AllSaid, device: &str, property: &str) -> Vec<(i64, f64)> {
    let said = all[device][property].iter();
    said.filter(|(_, (_, counts))| *counts)
        .map(|(t, (value, _))| (*t, *value))
        .collect()
}
