//! From a catalogue to its devices, in integer arithmetic as `catalogue/README.md` lays down. Nothing here is random or
//! talks to a cluster. Invariant: the same catalogue gives the same devices in the same order.

use std::collections::HashMap;

use anyhow::{Context, Result};
use jiff::ToSpan;
use tidemark_client::v1;

use crate::catalogue::{Catalogue, Head, Town, TypeDef, Vendor};

/// One device of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Device {
    pub(crate) id: String,
    /// Position of its type in the catalogue.
    pub(crate) type_index: usize,
    /// Position of its town and vendor in their lists.
    pub(crate) town: usize,
    pub(crate) vendor: Option<usize>,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    /// Age at the reference date of the catalogue.
    pub(crate) age_months: u32,
}

/// Every device, type by type in the order of the catalogue, numbered within its type.
pub(crate) fn expand(catalogue: &Catalogue) -> Result<Vec<Device>> {
    let head = catalogue
        .catalog
        .as_ref()
        .context("the catalogue has no [catalog] table, so it describes no fleet")?;
    let mut devices = Vec::new();
    for (type_index, t) in catalogue.device_type.iter().enumerate() {
        let mut seq = 0;
        for (town, place) in catalogue.town.iter().enumerate() {
            for _ in 0..t.towns.get(&place.id).copied().unwrap_or(0) {
                seq += 1;
                devices.push(device(head, &catalogue.vendor, t, (type_index, seq), (town, place)));
            }
        }
    }
    Ok(devices)
}

fn device(
    head: &Head,
    vendors: &[Vendor],
    t: &TypeDef,
    (type_index, seq): (usize, u32),
    (town, place): (usize, &Town),
) -> Device {
    let offset = |factor: u32| f64::from((seq * factor) % 101) - 50.0;
    Device {
        id: format!("{}-{}-{}-{seq:05}", head.admin_code, t.code, place.code),
        type_index,
        town,
        vendor: vendor_of(vendors, t, (seq - 1) % 100),
        lat: place.lat + offset(37) * 0.0004,
        lon: place.lon + offset(53) * 0.0005,
        age_months: (seq * 17) % 48,
    }
}

/// The first vendor whose running share exceeds `percentile`.
fn vendor_of(vendors: &[Vendor], t: &TypeDef, percentile: u32) -> Option<usize> {
    let mut running = 0;
    vendors.iter().position(|v| {
        running += t.vendor_pct.get(&v.id).copied().unwrap_or(0);
        running > percentile
    })
}

impl Device {
    /// The device as the registry takes it: town, department, vendor and warranty as tags.
    pub(crate) fn to_wire(&self, catalogue: &Catalogue) -> Result<v1::Device> {
        let t = &catalogue.device_type[self.type_index];
        let mut tags = HashMap::from([
            ("town".to_owned(), catalogue.town[self.town].id.clone()),
            ("department".to_owned(), t.department.clone()),
            (
                "warranty".to_owned(),
                if self.age_months >= t.warranty_months {
                    "out"
                } else {
                    "in"
                }
                .to_owned(),
            ),
        ]);
        if let Some(vendor) = self.vendor {
            tags.insert("vendor".to_owned(), catalogue.vendor[vendor].id.clone());
        }
        Ok(v1::Device {
            id: self.id.clone(),
            device_type: t.id.clone(),
            tags: tags.into_iter().collect(),
            place: Some(v1::Place {
                latitude_deg: self.lat,
                longitude_deg: self.lon,
            }),
            installed_at_ns: self.installed_at_ns(catalogue)?,
            ..Default::default()
        })
    }

    /// Midnight UTC of the reference date, less the age; 0 where the catalogue has no reference date.
    fn installed_at_ns(&self, catalogue: &Catalogue) -> Result<i64> {
        let Some(head) = &catalogue.catalog else { return Ok(0) };
        let date: jiff::civil::Date = head.reference_date.parse().context("reference_date")?;
        let day = date.checked_sub(i64::from(self.age_months).months())?;
        let at = day.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_nanosecond();
        i64::try_from(at).context("reference_date is out of range")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn fleet() -> (Catalogue, Vec<Device>) {
        let catalogue = Catalogue::load(None).unwrap();
        let fleet = expand(&catalogue).unwrap();
        (catalogue, fleet)
    }

    #[test]
    fn self_check_by_town_and_warranty() {
        let (c, fleet) = fleet();
        assert_eq!(fleet.len(), 22_042);
        let in_town: Vec<usize> = (0..9)
            .map(|town| fleet.iter().filter(|d| d.town == town).count())
            .collect();
        assert_eq!(in_town, [7_544, 3_499, 1_487, 2_873, 1_737, 1_407, 1_735, 796, 964]);
        let out: Vec<&Device> = fleet
            .iter()
            .filter(|d| d.age_months >= c.device_type[d.type_index].warranty_months)
            .collect();
        let ended = c.vendor.iter().position(|v| v.id == "v7");
        assert_eq!(
            (out.len(), out.iter().filter(|d| d.vendor == ended).count()),
            (4_912, 609)
        );
        let ids: std::collections::HashSet<&str> = fleet.iter().map(|d| d.id.as_str()).collect();
        assert_eq!(ids.len(), fleet.len());
    }

    #[test]
    fn the_first_and_the_fourteenth_gauge() {
        let (c, fleet) = fleet();
        assert_eq!(
            (fleet[0].id.as_str(), fleet[13].id.as_str()),
            ("330482-RG-01-00001", "330482-RG-02-00014")
        );
        let wire = fleet[0].to_wire(&c).unwrap();
        assert_eq!(
            (wire.tags["town"].as_str(), wire.tags["vendor"].as_str()),
            ("danghu", "v1")
        );
        assert!((fleet[0].lat - 30.6948).abs() < 1e-9 && (fleet[0].lon - 121.0215).abs() < 1e-9);
        // 17 months before 2024-06-01
        assert_eq!(wire.installed_at_ns, 1_672_531_200_000_000_000);
    }

    #[test]
    fn the_same_catalogue_gives_the_same_fleet() {
        assert_eq!(fleet().1, fleet().1);
    }
}
