//! The story of the reference flood, 14:00 to 20:00: what the generator must give, value by value.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;

/// 2024-06-20 14:00 at UTC+8.
const START_NS: i64 = 1_718_863_200 * SECOND_NS;
const RG1: &str =
    "0.5 1 0.5 1 1 1 1.5 1.5 1.5 2.5 2.5 3.5 5 9 17 10.5 6.5 4.5 4 2.5 2.5 2.5 1.5 2 1.5 1.5 1 1 1.5 1 0.5 1 1 1 0.5 1";
const RG2: &str =
    "0.5 1 1 1 1 1.5 1.5 1.5 2 2.5 3 4 6 10.5 19 12 7.5 5 4.5 3.5 2.5 2.5 2 2 2 1.5 1.5 1 1.5 1 1 1 1 1 1 1";
const PD1: &str = "0.05 0.16 0.3 0.41 0.45 0.46 0.46 0.46 0.45 0.43 0.42 0.4 0.37 0.35 0.32 0.28 0.24 0.19 0.12 0";
const RL1: &str = "1.06 1.06 1.07 1.08 1.11 1.14 1.17 1.2 1.22 1.25 1.27 1.3 1.32 1.34 1.36 1.38 1.4 1.42 1.43 1.45 1.46 1.48 1.49 \
    1.5 1.52 1.53 1.54 1.55 1.55 1.56 1.57 1.57 1.58 1.58 1.59 1.59 1.59 1.59 1.6 1.6 1.6 1.6 1.6 1.6 1.6 1.6 1.6 1.6 1.6 1.6 1.6 \
    1.59 1.59 1.59 1.59 1.59 1.58 1.58";

fn storm(hours: i64) -> Storm {
    let end_ns = START_NS + hours * 60 * MINUTE_NS;
    Storm::new(fixture::fleet(), Scenario::load(None).unwrap(), START_NS, end_ns).unwrap()
}

/// Values of one property of one device from `from_min` on, five minutes apart.
fn series(storm: &Storm, id: &str, property: &str, from_min: i64, count: usize) -> Vec<f64> {
    let device = storm.fleet.devices.iter().position(|d| d.id == id).unwrap();
    let t = &storm.fleet.types[storm.fleet.devices[device].type_index];
    let property = t.properties.iter().position(|p| p.id == property).unwrap();
    let at = |i: usize| {
        storm
            .record(device, START_NS + (from_min + 5 * i as i64) * MINUTE_NS)
            .values[property]
            .clone()
    };
    (0..count)
        .map(|i| match at(i) {
            Some(Value::F64(x)) => x,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn text(values: &[f64]) -> String {
    values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn two_gauges_report_the_rain_of_the_story() {
    let s = storm(6);
    assert_eq!(text(&series(&s, "330482-RG-01-00001", "rain_5min", 25, 36)), RG1);
    assert_eq!(text(&series(&s, "330482-RG-01-00002", "rain_5min", 30, 36)), RG2);
    let whole = |id| series(&s, id, "rain_5min", 0, 73).iter().sum::<f64>();
    assert_eq!(
        (whole("330482-RG-01-00001"), whole("330482-RG-01-00002")),
        (98.0, 112.0)
    );
}

#[test]
fn the_rain_counter_wraps_at_its_modulus() {
    let total = series(&storm(6), "330482-RG-01-00001", "rain_total", 0, 73);
    assert_eq!(total[0], 9_950.0);
    assert_eq!((total[19], total[20]), (9_999.0, 9.5));
    assert_eq!(total[72], 48.0);
}

#[test]
fn the_underpass_fills_and_empties() {
    let depth = series(&storm(6), "330482-PD-01-00001", "depth", 0, 73);
    assert_eq!(text(&depth[17..37]), PD1);
    assert!(depth[..17].iter().chain(&depth[37..]).all(|m| *m == 0.0));
}

#[test]
fn a_failed_pump_keeps_the_water() {
    let depth = series(&storm(6), "330482-PD-01-00002", "depth", 0, 73);
    assert!(depth.is_sorted() && depth[72] > 0.3, "{depth:?}");
}

#[test]
fn the_river_rises_and_is_pumped_down() {
    let level = series(&storm(6), "330482-RL-01-00001", "level", 0, 73);
    assert_eq!(text(&level[15..]), RL1);
    assert!(level[..15].iter().all(|m| *m == 1.05));
}

#[test]
fn the_same_storm_whole_or_in_pieces() {
    let (a, b) = (storm(2), storm(2));
    for t in 0..a.fleet.types.len() {
        let whole = a.records(t, START_NS, a.end_ns + 1);
        let mut pieces: Vec<Record> = (0..9)
            .flat_map(|i| b.records(t, START_NS + i * 17 * MINUTE_NS, START_NS + (i + 1) * 17 * MINUTE_NS))
            .collect();
        pieces.sort_by_key(|r| (r.device, r.observed_at_ns));
        assert!(whole == pieces, "{}", a.fleet.types[t].id);
    }
}

#[test]
fn every_device_reports_at_its_interval_and_at_least_once() {
    let s = storm(2);
    for (t, def) in s.fleet.types.iter().enumerate() {
        let records = s.records(t, START_NS, s.end_ns + 1);
        let heard: std::collections::HashSet<usize> = records.iter().map(|r| r.device).collect();
        assert_eq!(heard.len(), fixture::DEVICES_PER_TYPE, "{}", def.id);
        if def.sample_interval_s <= 3_600 {
            let each = 7_200 / def.sample_interval_s as usize + 1;
            assert_eq!(records.len(), heard.len() * each, "{}", def.id);
        }
    }
}

#[test]
fn rain_makes_events_of_reports() {
    let s = storm(2);
    let gauge = s
        .fleet
        .devices
        .iter()
        .position(|d| d.id == "330482-RG-01-00001")
        .unwrap();
    let kind = |minute: i64| s.record(gauge, START_NS + minute * MINUTE_NS).kind;
    assert_eq!(
        [kind(20), kind(25), kind(120)],
        [ReportKind::Routine, ReportKind::Event, ReportKind::Event]
    );
}

#[test]
fn batches_hold_every_value_once() {
    let s = storm(2);
    for (t, def) in s.fleet.types.iter().enumerate() {
        let records = s.records(t, START_NS, s.end_ns + 1);
        let batches = s.batches(t, START_NS, s.end_ns + 1, 1_000);
        assert_eq!(batches.len(), records.len().div_ceil(1_000));
        let points: usize = records.iter().map(|r| r.values.iter().flatten().count()).sum();
        let sent: usize = batches.iter().flat_map(|b| &b.columns).map(values_in).sum();
        assert_eq!(points, sent, "{}", def.id);
        for b in &batches {
            assert_eq!(
                (b.device_index.len(), b.report_kind.len()),
                (b.observed_at_ns.len(), b.observed_at_ns.len())
            );
        }
    }
}

fn values_in(column: &tidemark_client::v1::Column) -> usize {
    use tidemark_client::v1::values::Kind;
    let count = match column.values.as_ref().and_then(|v| v.kind.as_ref()).unwrap() {
        Kind::F64(v) => v.values.len(),
        Kind::I64(v) => v.values.len(),
        Kind::Bool(v) => v.values.len(),
        Kind::Enum(v) => v.indexes.len(),
        Kind::Text(v) => v.values.len(),
    };
    let bits: usize = column.presence.iter().map(|byte| byte.count_ones() as usize).sum();
    assert!(column.presence.is_empty() || bits == count);
    count
}
