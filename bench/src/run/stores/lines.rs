//! Rows as line protocol: a measurement is a type, device and town are tags, properties are fields, time in milliseconds.
//! Never here: HTTP. Invariant: a line is a row, with every property.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::run::batches::Batch;
use crate::run::fleet::Fleet;
use crate::run::value::value;

/// Bytes of a line, about.
const LINE: usize = 160;

pub(super) fn lines(fleet: &Fleet, batch: &Batch) -> Bytes {
    let mut text = String::with_capacity(batch.len() * LINE);
    let Some(one) = fleet.types.get(batch.type_at) else {
        return Bytes::new();
    };
    for row in batch.rows() {
        let Some(device) = one.devices.get(row.device) else {
            continue;
        };
        // Writing to a string does not fail.
        let _ = write!(text, "{},device={},town={}", one.id, device.id, device.town);
        for (i, property) in one.properties.iter().enumerate() {
            text.push(if i == 0 { ' ' } else { ',' });
            let v = value(device, property, row.slot, one.interval_s);
            let _ = write!(text, "{}={v}", property.id);
        }
        let _ = writeln!(text, " {}", one.at_ms(device, row.slot));
    }
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::run::batches::{Order, batches};
    use crate::run::fleet::FleetSpec;

    #[test]
    fn a_line_is_a_row() {
        let spec = FleetSpec {
            every: 1_000,
            types: vec!["waste_bin".into()],
            ..FleetSpec::default()
        };
        let fleet = Fleet::new(&spec).unwrap();
        let batch = &batches(&fleet, &(0..14_400), Order::ByTime, 10)[0];
        let text = String::from_utf8(lines(&fleet, batch).to_vec()).unwrap();
        let all: Vec<&str> = text.lines().collect();
        assert_eq!(all.len(), 2);
        let device = &fleet.types[0].devices[0];
        let begin = format!("waste_bin,device={},town={} fill_level=", device.id, device.town);
        assert!(all[0].starts_with(&begin), "{}", all[0]);
        assert!(all[0].ends_with(&fleet.types[0].at_ms(device, 0).to_string()));
    }
}
