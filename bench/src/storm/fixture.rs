//! A small fleet for tests: the types of the catalogue, a few devices of each. The two gauges of the story stand where no
//! anchor is: what falls on them must come from the scenario.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde::Deserialize;
use tidemark_client::v1::{self, Kind, ValueType};

use super::fleet::Fleet;

pub(crate) const DEVICES_PER_TYPE: usize = 3;

#[derive(Deserialize)]
struct File {
    device_type: Vec<Type>,
}

#[derive(Deserialize)]
struct Type {
    id: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    count: i64,
    sample_interval_s: i64,
    properties: Vec<Property>,
}

#[derive(Deserialize)]
struct Property {
    id: String,
    value_type: String,
    kind: String,
    min: Option<f64>,
    max: Option<f64>,
    step: Option<f64>,
    typical: Option<[f64; 2]>,
    wrap: Option<f64>,
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    max_len: u32,
}

fn file() -> File {
    toml::from_str(include_str!("../../catalogue/device-types.toml")).unwrap()
}

fn type_of(t: Type) -> v1::DeviceType {
    let property = |p: Property| v1::Property {
        value_type: ValueType::from_str_name(&format!("VALUE_TYPE_{}", p.value_type.to_uppercase())).unwrap() as i32,
        kind: Kind::from_str_name(&format!("KIND_{}", p.kind.to_uppercase())).unwrap() as i32,
        id: p.id,
        min: p.min,
        max: p.max,
        step: p.step,
        typical_min: p.typical.map(|t| t[0]),
        typical_max: p.typical.map(|t| t[1]),
        wrap: p.wrap,
        labels: p.values,
        max_len: p.max_len,
        ..Default::default()
    };
    v1::DeviceType {
        id: t.id,
        sample_interval_s: t.sample_interval_s,
        properties: t.properties.into_iter().map(property).collect(),
        ..Default::default()
    }
}

/// The types of the catalogue, as far as a storm looks at them.
pub(crate) fn types() -> Vec<v1::DeviceType> {
    file().device_type.into_iter().map(type_of).collect()
}

/// Devices 1, 2 and 3 of each type, spread over the county.
pub(crate) fn fleet() -> Fleet {
    let mut fleet = Fleet::new(types());
    for t in file().device_type {
        for seq in 1..=DEVICES_PER_TYPE {
            fleet.add(v1::Device {
                id: format!("330482-{}-01-{seq:05}", t.code),
                device_type: t.id.clone(),
                place: Some(v1::Place {
                    latitude_deg: 30.72 - 0.03 * seq as f64,
                    longitude_deg: 120.97 + 0.04 * seq as f64,
                }),
                ..Default::default()
            });
        }
    }
    fleet
}

#[test]
fn the_catalogue_promises_what_its_readme_says() {
    let types = file().device_type;
    let records = |t: &Type| t.count * (86_400 / t.sample_interval_s);
    assert_eq!(types.iter().map(records).sum::<i64>(), 3_217_924);
    let points = |t: &Type| records(t) * t.properties.len() as i64;
    assert_eq!(types.iter().map(points).sum::<i64>(), 16_655_792);
}

#[test]
fn every_recorded_set_has_one_type_of_its_name() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets");
    let paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(paths.len(), 6);
    for path in paths {
        let file: File = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let [t]: [Type; 1] = file.device_type.try_into().ok().unwrap();
        assert_eq!(path.file_stem().and_then(|s| s.to_str()), Some(t.id.as_str()));
        for p in type_of(t).properties {
            assert_eq!(p.value_type() == ValueType::Enum, !p.labels.is_empty(), "{}", p.id);
            let bounds = (p.min, p.max);
            assert_eq!(bounds, (None, None), "{}: a replay keeps what the source says", p.id);
        }
    }
}
