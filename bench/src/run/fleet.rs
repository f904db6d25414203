//! Who reports in a run: types and devices of the catalogue, thinned or multiplied, each with a phase of its own. Never
//! here: values, requests. Invariant: the same catalogue and settings make the same fleet, in the same order.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

/// The catalogue that comes with the program.
const CATALOGUE: &str = include_str!("../../catalogue/device-types.toml");
/// Time 0 of every run: 2026-10-01T00:00:00Z.
pub(crate) const START_MS: i64 = 1_790_812_800_000;

/// How much of the catalogue plays.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FleetSpec {
    /// Every so manieth device of a type.
    pub(crate) every: u32,
    /// Each of them so many times.
    pub(crate) copies: u32,
    /// Types by id; none means all.
    pub(crate) types: Vec<String>,
    /// Another seed, other values.
    pub(crate) seed: u64,
}

impl Default for FleetSpec {
    fn default() -> Self {
        Self {
            every: 1,
            copies: 1,
            types: Vec::new(),
            seed: 1,
        }
    }
}

/// What a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueType {
    F64,
    I64,
    Bool,
    Enum,
}

/// A property as the generator and the stores need it.
#[derive(Debug, Clone)]
pub(crate) struct Property {
    pub(crate) id: String,
    pub(crate) unit: String,
    pub(crate) value_type: ValueType,
    pub(crate) kind: String,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// Resolution; 1 where the catalogue has none.
    pub(crate) step: f64,
    /// Where it usually is: plausible range, else the range of the sensor.
    pub(crate) usual: (f64, f64),
    pub(crate) wrap: Option<f64>,
    /// A reading of the device's own health.
    pub(crate) diag: bool,
    pub(crate) labels: Vec<String>,
    /// Distinguishes its values from those of other properties.
    pub(crate) seed: u64,
}

/// One device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) town: String,
    /// Its records come this long after a slot begins.
    pub(crate) phase_s: i64,
    pub(crate) seed: u64,
}

/// One type with its devices, ordered by phase.
#[derive(Debug, Clone)]
pub(crate) struct Type {
    pub(crate) id: String,
    pub(crate) interval_s: i64,
    pub(crate) properties: Vec<Property>,
    pub(crate) devices: Vec<Device>,
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) types: Vec<Type>,
    /// Copies of every device.
    pub(crate) copies: u32,
}

#[derive(Debug, Deserialize)]
struct Catalogue {
    catalog: Head,
    town: Vec<Town>,
    device_type: Vec<TypeEntry>,
}

#[derive(Debug, Deserialize)]
struct Head {
    admin_code: String,
}

#[derive(Debug, Deserialize)]
struct Town {
    id: String,
    code: String,
}

#[derive(Debug, Deserialize)]
struct TypeEntry {
    id: String,
    code: String,
    sample_interval_s: i64,
    towns: toml::Table,
    properties: Vec<PropertyEntry>,
}

#[derive(Debug, Deserialize)]
struct PropertyEntry {
    id: String,
    unit: String,
    value_type: String,
    kind: String,
    min: Option<f64>,
    max: Option<f64>,
    step: Option<f64>,
    typical: Option<(f64, f64)>,
    wrap: Option<f64>,
    #[serde(default)]
    diag: bool,
    #[serde(default)]
    values: Vec<String>,
}

impl Fleet {
    /// The fleet of a scenario.
    pub(crate) fn new(spec: &FleetSpec) -> Result<Fleet> {
        ensure!(spec.every > 0 && spec.copies > 0, "`every` and `copies` are at least 1");
        let catalogue: Catalogue = toml::from_str(CATALOGUE).context("the catalogue")?;
        let codes: BTreeMap<&str, &str> = catalogue
            .town
            .iter()
            .map(|town| (town.id.as_str(), town.code.as_str()))
            .collect();
        for id in &spec.types {
            let known = catalogue.device_type.iter().any(|entry| entry.id == *id);
            ensure!(known, "the catalogue has no type {id}");
        }
        let wanted = |entry: &&TypeEntry| spec.types.is_empty() || spec.types.contains(&entry.id);
        let types = catalogue.device_type.iter().filter(wanted).map(|entry| {
            let devices = devices(entry, &catalogue.catalog.admin_code, &codes, spec);
            let devices = devices.with_context(|| format!("type {}", entry.id))?;
            Ok(Type {
                id: entry.id.clone(),
                interval_s: entry.sample_interval_s,
                properties: entry.properties.iter().filter_map(property).collect(),
                devices,
            })
        });
        Ok(Fleet {
            types: types.collect::<Result<_>>()?,
            copies: spec.copies,
        })
    }

    pub(crate) fn devices(&self) -> u64 {
        self.types.iter().map(|one| one.devices.len() as u64).sum()
    }

    /// Properties of devices.
    pub(crate) fn series(&self) -> u64 {
        let of = |one: &Type| (one.devices.len() * one.properties.len()) as u64;
        self.types.iter().map(of).sum()
    }

    /// Position of a type by id.
    pub(crate) fn type_at(&self, id: &str) -> Result<usize> {
        let at = self.types.iter().position(|one| one.id == id);
        at.with_context(|| format!("the fleet has no type {id}"))
    }
}

impl Type {
    /// When the record of a slot of a device is observed.
    pub(crate) fn at_ms(&self, device: &Device, slot: i64) -> i64 {
        START_MS + (slot * self.interval_s + device.phase_s) * 1_000
    }
}

fn devices(entry: &TypeEntry, area: &str, codes: &BTreeMap<&str, &str>, spec: &FleetSpec) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    let mut seq: u32 = 0;
    let mut towns = Vec::new();
    for (town, count) in &entry.towns {
        let code = codes.get(town.as_str()).with_context(|| format!("no town {town}"))?;
        towns.push((code, town, count));
    }
    // Devices are numbered town by town.
    towns.sort_by_key(|(code, ..)| *code);
    for (code, town, count) in towns {
        for _ in 0..count.as_integer().context("`towns` holds counts")? {
            seq += 1;
            if seq % spec.every != 1 % spec.every {
                continue;
            }
            for copy in 0..spec.copies {
                let mut id = format!("{area}-{}-{code}-{seq:05}", entry.code);
                if copy > 0 {
                    id.push_str(&format!("-{copy}"));
                }
                let seed = xxh3_64(format!("{id}/{}", spec.seed).as_bytes());
                let phase_s = (seed >> 7) as i64 & i64::MAX;
                devices.push(Device {
                    id,
                    town: town.clone(),
                    phase_s: phase_s % entry.sample_interval_s.max(1),
                    seed,
                });
            }
        }
    }
    devices.sort_by(|a, b| (a.phase_s, &a.id).cmp(&(b.phase_s, &b.id)));
    Ok(devices)
}

/// Text is left out: not every store keeps it.
fn property(entry: &PropertyEntry) -> Option<Property> {
    let value_type = match entry.value_type.as_str() {
        "f64" => ValueType::F64,
        "i64" => ValueType::I64,
        "bool" => ValueType::Bool,
        "enum" => ValueType::Enum,
        _ => return None,
    };
    let range = (entry.min.unwrap_or(0.0), entry.max.unwrap_or(1.0));
    Some(Property {
        id: entry.id.clone(),
        unit: entry.unit.clone(),
        value_type,
        kind: entry.kind.clone(),
        min: entry.min,
        max: entry.max,
        step: entry.step.unwrap_or(1.0),
        usual: entry.typical.unwrap_or(range),
        wrap: entry.wrap,
        diag: entry.diag,
        labels: entry.values.clone(),
        seed: xxh3_64(entry.id.as_bytes()),
    })
}

/// A thirtieth of the devices of two types, for tests.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) fn few() -> Fleet {
    let spec = FleetSpec {
        every: 30,
        types: vec!["waste_bin".into(), "electrical_fire_monitor".into()],
        ..FleetSpec::default()
    };
    Fleet::new(&spec).unwrap()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_whole_catalogue_is_the_fleet_of_its_readme() {
        let fleet = Fleet::new(&FleetSpec::default()).unwrap();
        assert_eq!((fleet.types.len(), fleet.devices()), (30, 22_042));
        // One of the 129 properties is text.
        let properties: usize = fleet.types.iter().map(|one| one.properties.len()).sum();
        assert_eq!(properties, 128);
        assert!((80_000..90_000).contains(&fleet.series()), "{}", fleet.series());
        let gauges = &fleet.types[fleet.type_at("rain_gauge").unwrap()];
        assert!(gauges.devices.iter().any(|device| device.id == "330482-RG-01-00001"));
    }

    #[test]
    fn a_fleet_can_be_thinned_and_multiplied() {
        let count = |every, copies, types: &[&str]| {
            let types = types.iter().map(|id| (*id).to_owned()).collect();
            let spec = FleetSpec {
                every,
                copies,
                types,
                seed: 1,
            };
            Fleet::new(&spec).map(|fleet| fleet.devices())
        };
        assert_eq!(count(1, 10, &[]).unwrap(), 220_420);
        assert_eq!(count(10, 1, &["rain_gauge"]).unwrap(), 10);
        assert!(count(1, 1, &["rain_guage"]).is_err() && count(0, 1, &[]).is_err());
        let spec = FleetSpec {
            copies: 3,
            ..FleetSpec::default()
        };
        let fleet = Fleet::new(&spec).unwrap();
        let mut ids: Vec<_> = fleet.types.iter().flat_map(|one| &one.devices).map(|d| &d.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3 * 22_042);
    }

    #[test]
    fn records_of_a_device_keep_its_phase() {
        let fleet = Fleet::new(&FleetSpec::default()).unwrap();
        for one in &fleet.types {
            for device in &one.devices {
                assert!((0..one.interval_s).contains(&device.phase_s));
                let step = one.at_ms(device, -3) - one.at_ms(device, -4);
                assert_eq!(step, one.interval_s * 1_000);
            }
        }
    }
}
