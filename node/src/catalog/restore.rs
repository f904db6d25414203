//! The command that brings the device types of a backup back, with the numbers they had: stored blocks name them.
//!
//! Never here: types that are made or changed. Invariant: only a catalog without types takes them; the same ones again
//! change nothing; numbers given out later are greater.

use std::collections::BTreeSet;

use prost::Message as _;
use tidemark_proto::peer::{self, RestoreTypes, applied};
use tidemark_proto::v1::DeviceType;

use super::types::TypeDef;
use super::{Catalog, KEY_TYPE, Record};
use crate::error::{Error, Reason, Result};
use crate::limits::{Limits, TYPE_NUMBER_MAX};

impl Catalog {
    pub(super) fn restore_types(&mut self, restore: RestoreTypes) -> Result<(applied::Result, Vec<Record>)> {
        let (new, alerts) = (restore.device_types, restore.alert_profiles);
        let done = applied::Result::Done(peer::Done {});
        if !self.types.is_empty() {
            let known = |device_type: &DeviceType| {
                self.types
                    .get(&device_type.id)
                    .is_some_and(|def| def.stored == *device_type)
            };
            return match new.len() == self.types.len() && new.iter().all(known) {
                true => Ok((done, Vec::new())),
                false => Err(Error::new(
                    Reason::ClusterNotEmpty,
                    format!("the cluster has {} device types", self.types.len()),
                )
                .hint("restore into new nodes with empty data folders")),
            };
        }
        check(&new)?;
        let last = new.iter().map(|device_type| device_type.number).max().unwrap_or(0);
        self.state.next_type_number = self.state.next_type_number.max(last.saturating_add(1));
        let mut records = Vec::with_capacity(new.len() + alerts.len() + 1);
        for device_type in new {
            records.push((
                [KEY_TYPE, device_type.id.as_bytes()].concat(),
                device_type.encode_to_vec(),
            ));
            self.insert_type(device_type)?;
        }
        records.extend(self.restore_alerts(alerts, restore.alert_version));
        records.push(self.cluster_record());
        Ok((done, records))
    }
}

fn check(new: &[DeviceType]) -> Result<()> {
    let bad = |message: String| Err(Error::new(Reason::InvalidBackup, message));
    let (mut ids, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for device_type in new {
        let (id, number) = (&device_type.id, device_type.number);
        if let Err(error) = TypeDef::new(device_type.clone()) {
            return bad(format!("device type {id}: {}", error.message()));
        }
        if !(1..=TYPE_NUMBER_MAX).contains(&number) || !ids.insert(id) || !numbers.insert(number) {
            return bad(format!("device type {id} has number {number}, or its id twice"));
        }
    }
    match new.len() > Limits::default().types_max {
        true => bad(format!("{} device types", new.len())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tidemark_proto::v1::{Kind, Property, ValueType};

    use super::*;

    fn device_type(id: &str, number: u32) -> DeviceType {
        DeviceType {
            id: id.into(),
            number,
            version: 3,
            bucket_span_s: 3_600,
            ..DeviceType::default()
        }
    }

    fn of(device_types: Vec<DeviceType>) -> RestoreTypes {
        RestoreTypes {
            device_types,
            ..RestoreTypes::default()
        }
    }

    #[test]
    fn types_keep_their_numbers_and_later_ones_are_greater() {
        let mut catalog = Catalog::default();
        let types = vec![device_type("a", 9), device_type("b", 2)];
        let (_, records) = catalog.restore_types(of(types.clone())).unwrap();
        let loaded = Catalog::load(records).unwrap();
        assert_eq!(loaded.type_by_number(9).unwrap().id(), "a");
        assert_eq!(loaded.device_type("b").unwrap().stored, types[1]);
        assert_eq!(loaded.state().next_type_number, 10);
        let (_, records) = catalog.restore_types(of(types)).unwrap();
        assert!(records.is_empty(), "the same types again change nothing");
    }

    #[test]
    fn refused_where_there_are_types_or_numbers_clash() {
        let check = |first: Vec<DeviceType>, then: Vec<DeviceType>, reason| {
            let mut catalog = Catalog::default();
            catalog.restore_types(of(first)).unwrap();
            assert_eq!(catalog.restore_types(of(then)).unwrap_err().reason(), reason);
        };
        check(
            vec![device_type("a", 1)],
            vec![device_type("b", 2)],
            Reason::ClusterNotEmpty,
        );
        check(vec![device_type("a", 1)], vec![], Reason::ClusterNotEmpty);
        check(
            vec![],
            vec![device_type("a", 1), device_type("b", 1)],
            Reason::InvalidBackup,
        );
        check(
            vec![],
            vec![device_type("a", 1), device_type("a", 2)],
            Reason::InvalidBackup,
        );
        check(vec![], vec![device_type("a", 0)], Reason::InvalidBackup);
        check(
            vec![],
            vec![device_type("a", TYPE_NUMBER_MAX + 1)],
            Reason::InvalidBackup,
        );
    }

    #[test]
    fn no_type_gets_a_number_beyond_the_last_one() {
        let whole = |id: &str, number: u32| DeviceType {
            version: 0,
            bucket_span_s: 0,
            properties: vec![Property {
                id: "level".into(),
                value_type: ValueType::F64.into(),
                kind: Kind::Gauge.into(),
                ..Property::default()
            }],
            ..device_type(id, number)
        };
        let mut catalog = Catalog::default();
        catalog.restore_types(of(vec![whole("a", TYPE_NUMBER_MAX)])).unwrap();
        let one_more = vec![whole("b", 0)];
        assert_eq!(
            catalog.apply_types(one_more).unwrap_err().reason(),
            Reason::TooManyTypes
        );
        let again = vec![whole("a", 0)];
        assert!(catalog.apply_types(again).is_ok(), "types that are there may change");
    }
}
