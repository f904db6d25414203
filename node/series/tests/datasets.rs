//! Recorded series, where `TIDEMARK_DATASETS` names a folder of them (`*.csv.zst` with device, property, timestamp_ms,
//! value), else a generated one: every value comes back bit for bit, and the bytes per point are printed and bounded.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use common::recorded::{Cells, read_cells};
use tidemark_series::{Column, PropertyNumber, Records, ValueType, Values, bucket};

fn column(property: u32, texts: &[(i64, String)]) -> Column {
    let doubles: Option<Vec<f64>> = texts.iter().map(|(_, text)| text.parse().ok()).collect();
    let values = match doubles {
        Some(doubles) => Values::F64(doubles),
        None => {
            let mut labels: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
            labels.sort_unstable();
            labels.dedup();
            Values::Enum(
                texts
                    .iter()
                    .map(|(_, text)| labels.binary_search(&text.as_str()).unwrap() as u32)
                    .collect(),
            )
        }
    };
    Column {
        property: PropertyNumber(property),
        presence: None,
        values,
        quality: None,
    }
}

fn devices(cells: &Cells) -> Vec<Records> {
    let mut parts: BTreeMap<&str, Vec<Records>> = BTreeMap::new();
    let mut properties: Vec<&str> = cells.keys().map(|(_, property)| property.as_str()).collect();
    properties.sort_unstable();
    properties.dedup();
    for ((device, property), series) in cells {
        let number = properties.binary_search(&property.as_str()).unwrap() as u32 + 1;
        let observed_at: Vec<i64> = series.iter().map(|(time, _)| *time).collect();
        let received_at = observed_at.iter().map(|t| t + 250_000_000).collect();
        let report_kind = vec![1; observed_at.len()];
        let columns = vec![column(number, series)];
        parts.entry(device).or_default().push(Records {
            observed_at,
            received_at,
            report_kind,
            columns,
            repeats: Vec::new(),
        });
    }
    parts.into_values().map(Records::merge_all).collect()
}

/// Bytes per point in buckets of `rows` rows.
fn check(name: &str, devices: &[Records], rows: usize) -> f64 {
    let (mut bytes, mut points, mut values) = (0, 0, 0);
    let (mut encode_s, mut decode_s) = (0.0, 0.0);
    for device in devices {
        for start in (0..device.len()).step_by(rows) {
            let part = device.slice_rows(start, start + rows);
            let begun = Instant::now();
            let encoded = bucket::encode(&part);
            encode_s += begun.elapsed().as_secs_f64();
            let begun = Instant::now();
            let decoded = bucket::decode(&encoded, None).unwrap();
            decode_s += begun.elapsed().as_secs_f64();
            assert_eq!(decoded, part, "{name}: not bit for bit");
            bytes += encoded.len();
            points += part.points();
            values += part.points() + part.len();
        }
    }
    let per_point = bytes as f64 / points as f64;
    println!(
        "{name:>16} {rows:>5} rows: {per_point:.3} B/point, encode {:.1} decode {:.0} M values/s",
        values as f64 / encode_s / 1e6,
        values as f64 / decode_s / 1e6
    );
    per_point
}

fn generated() -> Vec<Records> {
    let mut rng = common::Rng(11);
    let rows = 10_000;
    let observed_at: Vec<i64> = (0..rows)
        .map(|i| 1_700_000_000_000_000_000 + i * 900_000_000_000)
        .collect();
    let mut level = 4000i64;
    let mut walk = |scale: f64| {
        (0..rows)
            .map(|_| {
                level += rng.below(7) as i64 - 3;
                level as f64 / scale
            })
            .collect::<Vec<f64>>()
    };
    let columns = vec![walk(10.0), walk(100.0)].into_iter().enumerate();
    let columns = columns.map(|(i, values)| Column {
        property: PropertyNumber(i as u32),
        presence: None,
        values: Values::F64(values),
        quality: None,
    });
    let columns = columns.collect();
    let received_at = observed_at.iter().map(|t| t + 1).collect();
    vec![Records {
        received_at,
        report_kind: vec![1; rows as usize],
        repeats: Vec::new(),
        observed_at,
        columns,
    }]
}

#[test]
fn recorded_series_round_trip() {
    let device = generated();
    assert!(check("generated", &device, 4096) < 0.45);
    assert!(check("generated", &device, 128) < 0.75);
    assert_eq!(device[0].columns[0].values.value_type(), ValueType::F64);
    let Ok(folder) = std::env::var("TIDEMARK_DATASETS") else {
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".csv.zst"));
    files.sort();
    for path in files {
        let devices = devices(&read_cells(&path));
        let name = path.file_name().unwrap().to_string_lossy().replace(".csv.zst", "");
        for rows in [16, 128, 1024, 4096] {
            check(&name, &devices, rows);
        }
    }
}
