//! The device-type catalogue as written in TOML, and its translation to the wire. Nothing here talks to a cluster or
//! knows a type by name. Invariant: a field that is not understood is kept as an attribute, never dropped.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tidemark_client::v1;

/// The catalogue that comes with the program.
const BUILT_IN: &str = include_str!("../catalogue/device-types.toml");

/// Types, and the reference lists that make devices of them.
#[derive(Debug, Deserialize)]
pub(crate) struct Catalogue {
    pub(crate) catalog: Option<Head>,
    #[serde(default)]
    pub(crate) town: Vec<Town>,
    #[serde(default)]
    pub(crate) vendor: Vec<Vendor>,
    pub(crate) device_type: Vec<TypeDef>,
}

/// What holds for the whole catalogue.
#[derive(Debug, Deserialize)]
pub(crate) struct Head {
    pub(crate) admin_code: String,
    /// Year, month, day: when the ages of devices hold.
    pub(crate) reference_date: String,
}

/// A town: its code in device ids and the middle of its devices.
#[derive(Debug, Deserialize)]
pub(crate) struct Town {
    pub(crate) id: String,
    pub(crate) code: String,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
}

/// A maker of devices.
#[derive(Debug, Deserialize)]
pub(crate) struct Vendor {
    pub(crate) id: String,
}

/// One device type and how many devices of it stand where.
#[derive(Debug, Deserialize)]
pub(crate) struct TypeDef {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) name_en: String,
    #[serde(default)]
    pub(crate) department: String,
    #[serde(default)]
    pub(crate) count: u32,
    #[serde(default)]
    pub(crate) grade: String,
    #[serde(default)]
    pub(crate) share: String,
    pub(crate) sample_interval_s: i64,
    #[serde(default)]
    pub(crate) report_interval_s: i64,
    #[serde(default)]
    pub(crate) latency_s: i64,
    pub(crate) retention_days: i64,
    #[serde(default)]
    pub(crate) warranty_months: u32,
    #[serde(default)]
    pub(crate) towns: BTreeMap<String, u32>,
    #[serde(default)]
    pub(crate) vendor_pct: BTreeMap<String, u32>,
    #[serde(default)]
    pub(crate) apps: Vec<String>,
    pub(crate) properties: Vec<PropertyDef>,
    #[serde(flatten)]
    pub(crate) extra: BTreeMap<String, toml::Value>,
}

/// The type of a property's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ValueType {
    F64,
    I64,
    Bool,
    Enum,
    Text,
}

/// What a value means in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Gauge,
    Mean,
    Increment,
    Counter,
    State,
    Event,
}

/// One property of a type.
#[derive(Debug, Deserialize)]
pub(crate) struct PropertyDef {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name_en: String,
    #[serde(default)]
    pub(crate) unit: String,
    pub(crate) value_type: ValueType,
    pub(crate) kind: Kind,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) step: Option<f64>,
    pub(crate) typical: Option<[f64; 2]>,
    pub(crate) wrap: Option<f64>,
    #[serde(default)]
    pub(crate) values: Vec<String>,
    #[serde(default)]
    pub(crate) max_len: u32,
    #[serde(default)]
    pub(crate) grade: String,
    #[serde(flatten)]
    pub(crate) extra: BTreeMap<String, toml::Value>,
}

impl Catalogue {
    /// Reads a catalogue file, or the one that comes with the program.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        match path {
            None => Self::parse(BUILT_IN).context("the built-in catalogue"),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                Self::parse(&text).with_context(|| format!("in {}", path.display()))
            }
        }
    }

    /// Parses and checks that counts, towns and vendors agree.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let catalogue: Self = toml::from_str(text)?;
        for t in &catalogue.device_type {
            if t.sample_interval_s <= 0 {
                bail!("type {}: sample_interval_s must be more than 0", t.id);
            }
            let placed: u32 = t.towns.values().sum();
            if placed != t.count {
                bail!("type {}: towns hold {placed} devices, count says {}", t.id, t.count);
            }
            let towns = t
                .towns
                .keys()
                .find(|id| !catalogue.town.iter().any(|known| known.id == **id));
            let vendors = t
                .vendor_pct
                .keys()
                .find(|id| !catalogue.vendor.iter().any(|known| known.id == **id));
            if let Some(unknown) = towns.or(vendors) {
                bail!("type {}: {unknown} is in no list of towns or vendors", t.id);
            }
        }
        Ok(catalogue)
    }
}

impl TypeDef {
    /// The type as the registry takes it.
    pub(crate) fn to_wire(&self) -> v1::DeviceType {
        v1::DeviceType {
            id: self.id.clone(),
            name: self.name_en.clone(),
            properties: self.properties.iter().map(PropertyDef::to_wire).collect(),
            sample_interval_s: self.sample_interval_s,
            report_interval_s: self.report_interval_s,
            latency_s: self.latency_s,
            retention_days: self.retention_days,
            department: self.department.clone(),
            grade: self.grade.clone(),
            share: self.share.clone(),
            apps: self.apps.clone(),
            attributes: attributes(&self.extra),
            ..Default::default()
        }
    }
}

impl PropertyDef {
    fn to_wire(&self) -> v1::Property {
        let value_type = match self.value_type {
            ValueType::F64 => v1::ValueType::F64,
            ValueType::I64 => v1::ValueType::I64,
            ValueType::Bool => v1::ValueType::Bool,
            ValueType::Enum => v1::ValueType::Enum,
            ValueType::Text => v1::ValueType::Text,
        };
        let kind = match self.kind {
            Kind::Gauge => v1::Kind::Gauge,
            Kind::Mean => v1::Kind::Mean,
            Kind::Increment => v1::Kind::Increment,
            Kind::Counter => v1::Kind::Counter,
            Kind::State => v1::Kind::State,
            Kind::Event => v1::Kind::Event,
        };
        v1::Property {
            id: self.id.clone(),
            name: self.name_en.clone(),
            unit: self.unit.clone(),
            value_type: value_type.into(),
            kind: kind.into(),
            min: self.min,
            max: self.max,
            step: self.step,
            typical_min: self.typical.map(|t| t[0]),
            typical_max: self.typical.map(|t| t[1]),
            wrap: self.wrap,
            labels: self.values.clone(),
            max_len: self.max_len,
            grade: self.grade.clone(),
            attributes: attributes(&self.extra),
            ..Default::default()
        }
    }
}

fn attributes<M: FromIterator<(String, String)>>(extra: &BTreeMap<String, toml::Value>) -> M {
    let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    extra.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn self_check_of_types_and_promises() {
        let c = Catalogue::load(None).unwrap();
        let sum = |f: &dyn Fn(&TypeDef) -> i64| c.device_type.iter().map(f).sum::<i64>();
        assert_eq!(c.device_type.len(), 30);
        assert_eq!(sum(&|t| i64::from(t.count)), 22_042);
        assert_eq!(sum(&|t| t.properties.len() as i64), 129);
        let a_day = |t: &TypeDef| i64::from(t.count) * (86_400 / t.sample_interval_s);
        assert_eq!(sum(&a_day), 3_217_924);
        assert_eq!(sum(&|t| a_day(t) * t.properties.len() as i64), 16_655_792);
        let of_grade = |g: &str| {
            c.device_type
                .iter()
                .filter(|t| t.grade == g)
                .map(|t| t.count)
                .sum::<u32>()
        };
        assert_eq!(["L1", "L2", "L3", "L4"].map(of_grade), [6_574, 5_690, 9_248, 530]);
    }

    #[test]
    fn what_is_not_understood_becomes_an_attribute() {
        let c = Catalogue::load(None).unwrap();
        let wire = c.device_type[0].to_wire();
        assert_eq!(wire.attributes["protocol"], "sl651");
        assert_eq!(wire.properties[0].attributes["sl651"], "F4");
        assert_eq!(wire.properties[2].attributes["diag"], "true");
        assert_eq!(
            (wire.properties[0].min, wire.properties[0].typical_max),
            (Some(0.0), Some(15.0))
        );
        assert_eq!(wire.properties[1].wrap, Some(10_000.0));
    }

    #[test]
    fn counts_that_disagree_are_refused() {
        let text = "[[device_type]]\nid = 'a'\nsample_interval_s = 1\nretention_days = 1\ncount = 2\nproperties = []\n";
        let error = Catalogue::parse(text).unwrap_err().to_string();
        assert_eq!(error, "type a: towns hold 0 devices, count says 2");
    }

    #[test]
    fn every_recorded_set_has_a_type_that_parses() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
        let mut files = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let c = Catalogue::load(Some(&path)).unwrap();
            assert_eq!(c.device_type.len(), 1, "{}", path.display());
            assert_eq!(
                Some(c.device_type[0].id.as_str()),
                path.file_stem().and_then(|s| s.to_str())
            );
            for p in &c.device_type[0].properties {
                assert_eq!(p.value_type == ValueType::Enum, !p.values.is_empty(), "{}", p.id);
                assert!(
                    p.min.is_none() && p.max.is_none(),
                    "{}: a replay keeps what the source says",
                    p.id
                );
            }
            files += 1;
        }
        assert_eq!(files, 6);
    }
}
