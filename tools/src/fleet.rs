//! The catalogue's fleet: every device of every type by integer rules, no random numbers. Never: I/O, the store's answers.
//!
//! Devices of a type are numbered `seq` = 1 … `count`. Town: contiguous blocks in the order of `towns`. Id: the catalogue's
//! pattern. Vendor: `(seq - 1) % 100` against the running percent. Age: `(seq * 17) % 48` months at the reference date.
//! Place: the town's, moved by `((seq * 37) % 101 - 50) * 0.0004` degrees north and `((seq * 53) % 101 - 50) * 0.0005` east.
//! Tags: `town`, `department`, `vendor`, `vendor_support`, `grade`, `share`, `warranty` (in, out) and `app:<id>` = `1`.
//!
//! Invariant: the same catalogue gives the same devices in the same order.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Deserialize;
use tidemark_client::v1::{Device, Place};

/// Ages of devices cycle through four years.
const AGE_CYCLE_MONTHS: u64 = 48;

/// The part of a catalogue that makes devices.
#[derive(Debug, Deserialize)]
pub(crate) struct Catalogue {
    catalog: Head,
    #[serde(default)]
    town: Vec<Town>,
    #[serde(default)]
    vendor: Vec<Vendor>,
    device_type: Vec<TypeFleet>,
}

#[derive(Debug, Deserialize)]
struct Head {
    admin_code: String,
    device_id_pattern: String,
    reference_date: String,
    device_count: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Town {
    id: String,
    code: String,
    lat: f64,
    lon: f64,
}

#[derive(Debug, Deserialize)]
struct Vendor {
    id: String,
    #[serde(default)]
    support: String,
}

#[derive(Debug, Deserialize)]
struct TypeFleet {
    id: String,
    code: String,
    #[serde(default)]
    department: String,
    #[serde(default)]
    grade: String,
    #[serde(default)]
    share: String,
    #[serde(default)]
    apps: Vec<String>,
    count: u64,
    warranty_months: u64,
    towns: toml::Table,
    vendor_pct: toml::Table,
}

/// Reads a catalogue; `file` is named in errors.
pub(crate) fn parse(file: &str, text: &str) -> Result<Catalogue, String> {
    toml::from_str(text).map_err(|error| format!("{file}: {error}"))
}

impl Catalogue {
    /// Every device, type by type in file order, by `seq` within a type.
    pub(crate) fn devices(&self) -> Result<Vec<Device>, String> {
        let reference: Date = self
            .catalog
            .reference_date
            .parse()
            .map_err(|_| format!("`reference_date` {} is not a date", self.catalog.reference_date))?;
        let installed = installed_by_age(reference)?;
        let mut devices = Vec::new();
        for kind in &self.device_type {
            self.expand(kind, &installed, &mut devices)
                .map_err(|why| format!("type {}: {why}", kind.id))?;
        }
        match self.catalog.device_count {
            Some(count) if count != devices.len() as u64 => Err(format!(
                "the catalogue promises {count} devices but its types make {}",
                devices.len()
            )),
            _ => Ok(devices),
        }
    }

    fn expand(&self, kind: &TypeFleet, installed: &[i64], devices: &mut Vec<Device>) -> Result<(), String> {
        let towns: HashMap<_, _> = self.town.iter().map(|town| (town.id.as_str(), town)).collect();
        let support: HashMap<_, _> = self
            .vendor
            .iter()
            .map(|vendor| (vendor.id.as_str(), &vendor.support))
            .collect();
        let vendors = counts("vendor_pct", &kind.vendor_pct)?;
        if vendors.iter().map(|(_, percent)| percent).sum::<u64>() != 100 {
            return Err("`vendor_pct` does not add up to 100".into());
        }
        let mut seq = 0;
        for (town, count) in counts("towns", &kind.towns)? {
            let town = towns.get(town).ok_or_else(|| format!("no [[town]] named {town}"))?;
            for _ in 0..count {
                seq += 1;
                let vendor = vendor_of(&vendors, seq);
                let age_months = (seq * 17) % AGE_CYCLE_MONTHS;
                let vendor_support = support.get(vendor).map_or("", |support| support.as_str());
                let tags = kind.tags(town, vendor, vendor_support, age_months);
                devices.push(Device {
                    id: self.id_of(kind, town, seq)?,
                    device_type: kind.id.clone(),
                    tags,
                    place: Some(Place {
                        latitude_deg: town.lat + offset(seq, 37) * 0.0004,
                        longitude_deg: town.lon + offset(seq, 53) * 0.0005,
                    }),
                    installed_at_ns: installed[age_months as usize],
                    ..Device::default()
                });
            }
        }
        if seq == kind.count {
            Ok(())
        } else {
            Err(format!("`count` is {} but `towns` add up to {seq}", kind.count))
        }
    }

    fn id_of(&self, kind: &TypeFleet, town: &Town, seq: u64) -> Result<String, String> {
        let id = self
            .catalog
            .device_id_pattern
            .replace("{admin_code}", &self.catalog.admin_code)
            .replace("{type.code}", &kind.code)
            .replace("{town.code}", &town.code)
            .replace("{seq:05}", &format!("{seq:05}"));
        if id.contains(['{', '}']) {
            Err(format!("`device_id_pattern` has an unknown part: {id}"))
        } else {
            Ok(id)
        }
    }
}

impl TypeFleet {
    fn tags(&self, town: &Town, vendor: &str, vendor_support: &str, age_months: u64) -> BTreeMap<String, String> {
        let warranty = if age_months >= self.warranty_months {
            "out"
        } else {
            "in"
        };
        let own = [
            ("town", town.id.as_str()),
            ("department", &self.department),
            ("vendor", vendor),
            ("vendor_support", vendor_support),
            ("grade", &self.grade),
            ("share", &self.share),
            ("warranty", warranty),
        ];
        let own = own
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        own.chain(self.apps.iter().map(|app| (format!("app:{app}"), "1".to_owned())))
            .collect()
    }
}

/// Installation time by age in months: the reference date, that many months back, at midnight UTC.
fn installed_by_age(reference: Date) -> Result<Vec<i64>, String> {
    (0..AGE_CYCLE_MONTHS as i64)
        .map(|months| {
            let date = reference
                .checked_sub(Span::new().months(months))
                .map_err(|error| error.to_string())?;
            let instant: Timestamp = TimeZone::UTC
                .to_timestamp(date.at(0, 0, 0, 0))
                .map_err(|error| error.to_string())?;
            i64::try_from(instant.as_nanosecond()).map_err(|error| error.to_string())
        })
        .collect()
}

fn counts<'a>(key: &str, table: &'a toml::Table) -> Result<Vec<(&'a str, u64)>, String> {
    table
        .iter()
        .map(|(name, value)| {
            let count = value.as_integer().and_then(|count| u64::try_from(count).ok());
            count
                .map(|count| (name.as_str(), count))
                .ok_or_else(|| format!("`{key}.{name}` must be a count"))
        })
        .collect()
}

fn vendor_of<'a>(vendors: &[(&'a str, u64)], seq: u64) -> &'a str {
    let percent = (seq - 1) % 100;
    let mut total = 0;
    for (vendor, share) in vendors {
        total += share;
        if total > percent {
            return vendor;
        }
    }
    ""
}

/// Steps from the middle of a town, -50 to 50.
fn offset(seq: u64, factor: u64) -> f64 {
    ((seq * factor) % 101) as f64 - 50.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]
    use super::*;

    const SMALL: &str = r#"
[catalog]
admin_code = "330482"
device_id_pattern = "{admin_code}-{type.code}-{town.code}-{seq:05}"
reference_date = "2024-06-01"
device_count = 3
[[town]]
id = "south"
code = "02"
lat = 30.0
lon = 120.0
[[town]]
id = "east"
code = "01"
lat = 31.0
lon = 121.0
[[vendor]]
id = "z"
support = "ended"
[[vendor]]
id = "a"
support = "active"
[[device_type]]
id = "gauge"
code = "GA"
department = "water"
apps = ["flood"]
count = 3
warranty_months = 36
towns = { south = 2, east = 1 }
vendor_pct = { z = 1, a = 99 }
"#;

    #[test]
    fn towns_and_vendors_keep_the_order_of_the_file() {
        let devices = parse("c.toml", SMALL).unwrap().devices().unwrap();
        let ids: Vec<_> = devices.iter().map(|device| device.id.as_str()).collect();
        assert_eq!(ids, ["330482-GA-02-00001", "330482-GA-02-00002", "330482-GA-01-00003"]);
        let vendors: Vec<_> = devices.iter().map(|device| device.tags["vendor"].as_str()).collect();
        assert_eq!(vendors, ["z", "a", "a"]);
        // seq 1: 17 months before 2024-06-01 is 2023-01-01; seq 2: 34 months; seq 3: 51 % 48 = 3 months.
        assert_eq!(devices[0].installed_at_ns, 1_672_531_200_000_000_000);
        assert_eq!(devices[2].installed_at_ns, 1_709_251_200_000_000_000);
        let place = devices[0].place.unwrap();
        assert_eq!(
            (place.latitude_deg, place.longitude_deg),
            (30.0 + -13.0 * 0.0004, 120.0 + 3.0 * 0.0005)
        );
        assert_eq!(devices[0].tags["app:flood"], "1");
    }

    #[test]
    fn counts_that_do_not_add_up_are_refused() {
        for (from, to, expected) in [
            (
                "count = 3\nwarranty",
                "count = 4\nwarranty",
                "type gauge: `count` is 4 but `towns` add up to 3",
            ),
            (
                "device_count = 3",
                "device_count = 9",
                "the catalogue promises 9 devices but its types make 3",
            ),
            ("a = 99", "a = 98", "type gauge: `vendor_pct` does not add up to 100"),
            ("east = 1 }", "west = 1 }", "type gauge: no [[town]] named west"),
            (
                "{seq:05}",
                "{number}",
                "type gauge: `device_id_pattern` has an unknown part: 330482-GA-02-{number}",
            ),
        ] {
            let error = parse("c.toml", &SMALL.replace(from, to))
                .unwrap()
                .devices()
                .unwrap_err();
            assert_eq!(error, expected);
        }
    }

    /// The self-check of the catalogue's own README.
    #[test]
    fn the_reference_catalogue_adds_up() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/catalogue/device-types.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let types = crate::thing_model::parse(path, &text).unwrap();
        assert_eq!(
            (
                types.len(),
                types.iter().map(|made| made.properties.len()).sum::<usize>()
            ),
            (30, 129)
        );
        let catalogue = parse(path, &text).unwrap();
        let devices = catalogue.devices().unwrap();
        assert_eq!(devices.len(), 22_042);
        let by = |key: &str, value: &str| {
            devices
                .iter()
                .filter(|d| d.tags.get(key).is_some_and(|v| v == value))
                .count()
        };
        assert_eq!(
            ["L1", "L2", "L3", "L4"].map(|grade| by("grade", grade)),
            [6_574, 5_690, 9_248, 530]
        );
        let towns: Vec<_> = catalogue.town.iter().map(|town| by("town", &town.id)).collect();
        assert_eq!(towns, [7_544, 3_499, 1_487, 2_873, 1_737, 1_407, 1_735, 796, 964]);
        let out: Vec<_> = devices
            .iter()
            .filter(|device| device.tags["warranty"] == "out")
            .collect();
        let ended = out
            .iter()
            .filter(|device| device.tags["vendor_support"] == "ended")
            .count();
        assert_eq!((out.len(), ended), (4_912, 609));
        let mut ids: Vec<_> = devices.iter().map(|device| device.id.as_str()).collect();
        assert!(ids.contains(&"330482-RG-01-00001"));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 22_042);
    }
}
