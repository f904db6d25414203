//! Recorded series, where they are: `TIDEMARK_DATASETS` names a folder of `*.csv.zst` (device, property, timestamp_ms,
//! value), else `../shared/data` beside the checkout is looked at. Where neither is, made series stand in for them.
//!
//! Never here: what is measured. Invariant: numbers that are whole throughout a column are still doubles; texts become
//! labels; the same files give the same records.
#![allow(dead_code, unreachable_pub, reason = "each target uses its part")]

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use tidemark_series::{Bitmap, Column, PropertyNumber, Records, Values};

use super::Rng;

/// Rows that one batch of a device brings: they share a time of receipt.
const BATCH_ROWS: usize = 1_000;
const S: i64 = 1_000_000_000;

/// Devices of one type.
pub struct Set {
    /// Name of the file, or of the shape that was made.
    pub name: String,
    /// What a bucket of the type spans, seconds.
    pub span_s: i64,
    /// All records of each device.
    pub devices: Vec<Records>,
}

impl Set {
    /// Number of points.
    pub fn points(&self) -> usize {
        self.devices.iter().map(Records::points).sum()
    }

    /// Records of each bucket of each device.
    pub fn buckets(&self) -> Vec<Records> {
        let span = self.span_s * S;
        let mut out = Vec::new();
        for device in &self.devices {
            let mut row = 0;
            while row < device.len() {
                let end = (device.observed_at[row].div_euclid(span) + 1) * span;
                let to = device.observed_at.partition_point(|&t| t < end);
                out.push(device.slice_rows(row, to));
                row = to;
            }
        }
        out
    }
}

/// What a bucket spans that holds 4096 rows at the promised interval, in whole days.
fn span_s(interval_s: i64) -> i64 {
    let day = 86_400;
    let longest = (interval_s * 4096).min(364 * day);
    let unit = [day, 3_600, 60, 1].into_iter().find(|u| longest >= *u).unwrap_or(1);
    longest / unit * unit
}

/// The recorded sets, and whether they are real: else a few made ones.
pub fn sets() -> (Vec<Set>, bool) {
    let folder = std::env::var_os("TIDEMARK_DATASETS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.unwrap_or(beside))
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.retain(|path| path.to_string_lossy().ends_with(".csv.zst"));
    files.sort();
    if files.is_empty() {
        return (made(), false);
    }
    (files.iter().map(|path| read(path)).collect(), true)
}

fn read(path: &Path) -> Set {
    let name = path.file_name().unwrap().to_string_lossy().replace(".csv.zst", "");
    let types = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../bench/datasets/{name}.toml"));
    let types = std::fs::read_to_string(types).unwrap_or_default();
    let number = |key: &str| types.lines().find_map(|line| line.strip_prefix(key)?.parse().ok());
    let span_s = number("bucket_span_s = ").unwrap_or_else(|| span_s(number("sample_interval_s = ").unwrap_or(60)));
    let mut devices = read_devices(path);
    devices.iter_mut().for_each(receive);
    Set { name, span_s, devices }
}

/// Times of receipt as of one batch after another.
fn receive(device: &mut Records) {
    let mut rng = Rng(7);
    let mut stamp = 1_795_600_000_000_000_000;
    for (row, received) in device.received_at.iter_mut().enumerate() {
        if row % BATCH_ROWS == 0 {
            stamp += 20_000_000 + rng.below(9_999_999) as i64;
        }
        *received = stamp;
    }
}

/// All rows in parts of so many, at most `most` of each bucket.
pub fn cut(buckets: &[Records], rows: usize, most: usize) -> Vec<Records> {
    let starts = |all: &Records| (0..all.len()).step_by(rows).take(most).collect::<Vec<_>>();
    let parts = |all: &Records| {
        starts(all)
            .into_iter()
            .map(|at| all.slice_rows(at, at + rows))
            .collect::<Vec<_>>()
    };
    buckets.iter().flat_map(parts).collect()
}

/// Times and texts of each property of each device.
pub type Cells = BTreeMap<(String, String), Vec<(i64, String)>>;

/// What a file holds.
pub fn read_cells(path: &Path) -> Cells {
    let file = zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut cells = Cells::new();
    for line in std::io::BufReader::new(file).lines().skip(1) {
        let line = line.unwrap();
        let mut fields = line.splitn(4, ',');
        let mut field = || fields.next().unwrap().to_owned();
        let (key, time) = ((field(), field()), field());
        let time = time.parse::<i64>().unwrap() * 1_000_000;
        cells.entry(key).or_default().push((time, field()));
    }
    cells
}

fn read_devices(path: &Path) -> Vec<Records> {
    let cells = read_cells(path);
    let mut properties: Vec<&str> = cells.keys().map(|(_, property)| property.as_str()).collect();
    properties.sort_unstable();
    properties.dedup();
    let mut parts: BTreeMap<&str, Vec<Records>> = BTreeMap::new();
    for ((device, property), series) in &cells {
        let number = properties.binary_search(&property.as_str()).unwrap() as u32 + 1;
        let times: Vec<i64> = series.iter().map(|(time, _)| *time).collect();
        let values = values(series);
        parts
            .entry(device)
            .or_default()
            .push(of_columns(times, vec![(number, values)]));
    }
    parts.into_values().map(Records::merge_all).collect()
}

fn values(texts: &[(i64, String)]) -> Values {
    let doubles: Option<Vec<f64>> = texts.iter().map(|(_, text)| text.parse().ok()).collect();
    if let Some(doubles) = doubles {
        return Values::F64(doubles);
    }
    let mut labels: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    let index = |text: &String| labels.binary_search(&text.as_str()).unwrap() as u32;
    Values::Enum(texts.iter().map(|(_, text)| index(text)).collect())
}

fn of_columns(observed_at: Vec<i64>, columns: Vec<(u32, Values)>) -> Records {
    let column = |(number, values)| Column {
        property: PropertyNumber(number),
        presence: None,
        values,
        quality: None,
    };
    Records {
        received_at: observed_at.iter().map(|t| t + 250_000_000).collect(),
        report_kind: vec![1; observed_at.len()],
        repeats: Vec::new(),
        columns: columns.into_iter().map(column).collect(),
        observed_at,
    }
}

/// Series of four shapes: regular levels, jittered clock, sent on change, computed doubles.
pub fn made() -> Vec<Set> {
    let rows = 3 * 4096;
    let set = |name: &str, interval_s, device| Set {
        name: name.to_owned(),
        span_s: span_s(interval_s),
        devices: vec![device],
    };
    vec![
        set("levels", 900, levels(rows)),
        set("jitter", 60, jitter(rows)),
        set("change", 600, change(rows)),
        set("computed", 300, computed(rows)),
    ]
}

fn regular(rows: usize, step_s: i64) -> Vec<i64> {
    (0..rows as i64).map(|i| 1_700_006_400 * S + i * step_s * S).collect()
}

/// A walk in steps of up to `step`, now and then at rest, over `10^digits`.
fn walk(rng: &mut Rng, rows: usize, step: u64, digits: i32) -> Vec<f64> {
    let mut level = 40_000i64;
    let power = 10f64.powi(digits);
    let mut next = || {
        let calm = rng.chance(3);
        level += if calm {
            0
        } else {
            (rng.below(step) + rng.below(step)) as i64 - step as i64 + 1
        };
        level as f64 / power
    };
    (0..rows).map(|_| next()).collect()
}

fn levels(rows: usize) -> Records {
    let rng = &mut Rng(1);
    let level = walk(rng, rows, 9, 1);
    let corrected = level.iter().map(|v| (v * 10.0 + 3.0) / 10.0).collect();
    let spikes = walk(rng, rows, 4, 2);
    let spikes = spikes.into_iter().map(|v| if rng.chance(300) { -9999.0 } else { v });
    let spikes = spikes.collect();
    let columns = [level, corrected, spikes, walk(rng, rows, 30, 3)];
    let columns = columns.into_iter().map(Values::F64);
    of_columns(regular(rows, 900), (1..).zip(columns).collect())
}

fn jitter(rows: usize) -> Records {
    let rng = &mut Rng(2);
    let times = regular(rows, 60)
        .into_iter()
        .map(|t| t + rng.below(900) as i64 * 1_000_000);
    let times = times.collect();
    let mut total = 0;
    let counter = (0..rows).map(|_| {
        total += [0, 0, 0, 1, 2, 17][rng.below(6) as usize];
        total
    });
    let counter = Values::I64(counter.collect());
    let on = Values::Bool((0..rows).map(|i| i / 97 % 5 == 0).collect());
    let state = Values::Enum((0..rows).map(|_| rng.below(200) as u32 / 50).collect());
    of_columns(
        times,
        vec![
            (1, counter),
            (2, Values::F64(walk(rng, rows, 3, 1))),
            (3, on),
            (4, state),
        ],
    )
}

fn change(rows: usize) -> Records {
    let rng = &mut Rng(3);
    let mut parts = Vec::new();
    for (first, clock) in [(1u32, 0), (4, 241)] {
        let mut at = 1_700_006_400 + clock;
        let times: Vec<i64> = (0..rows / 2)
            .map(|_| {
                at += if rng.chance(5) { 575 } else { 603 + rng.below(3) as i64 };
                at * S
            })
            .collect();
        for number in first..first + 2 {
            let mut column = of_columns(times.clone(), vec![(number, Values::F64(walk(rng, rows / 2, 2, 1)))]);
            let mut map = Bitmap::new(rows / 2);
            (0..rows / 2).for_each(|row| map.set(row, !rng.chance(4)));
            let Values::F64(all) = &column.columns[0].values else {
                continue;
            };
            column.columns[0].values = Values::F64(map.iter_ones().map(|row| all[row]).collect());
            column.columns[0].presence = Some(map);
            parts.push(column);
        }
    }
    let all = Records::merge_all(parts);
    let numbers: Vec<PropertyNumber> = all.columns.iter().map(|c| c.property).collect();
    all.project(&numbers)
}

fn computed(rows: usize) -> Records {
    let rng = &mut Rng(4);
    let noisy = walk(rng, rows, 40, 3);
    let noisy = noisy
        .into_iter()
        .map(|v| f64::from_bits(v.to_bits().wrapping_add(rng.below(3)).wrapping_sub(1)));
    let noisy = noisy.collect();
    let roots = walk(rng, rows, 900, 0).into_iter().map(|v| v.abs().sqrt()).collect();
    of_columns(
        regular(rows, 300),
        vec![(1, Values::F64(noisy)), (2, Values::F64(roots))],
    )
}
