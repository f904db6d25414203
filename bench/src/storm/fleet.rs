//! Who plays: devices and types as the cluster knows them. Nothing here asks the cluster or makes up a device. Invariant:
//! whatever the order in which they were added, the same devices and types make the same fleet.

use std::collections::HashMap;

use tidemark_client::v1;

/// One device that plays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Device {
    pub(crate) id: String,
    /// Position of its type in the fleet.
    pub(crate) type_index: usize,
    /// Where it stands, degrees.
    pub(crate) lat: f64,
    pub(crate) lon: f64,
}

/// Device types, and the devices of them that stand somewhere.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) types: Vec<v1::DeviceType>,
    pub(crate) devices: Vec<Device>,
    /// Devices that do not play.
    pub(crate) left_out: u64,
    positions: HashMap<String, usize>,
}

impl Fleet {
    /// Types without devices yet, ordered by id.
    pub(crate) fn new(mut types: Vec<v1::DeviceType>) -> Self {
        types.sort_by(|a, b| a.id.cmp(&b.id));
        let positions = types.iter().enumerate().map(|(i, t)| (t.id.clone(), i)).collect();
        Self {
            types,
            devices: Vec::new(),
            left_out: 0,
            positions,
        }
    }

    /// Adds a device; one without a place (rain falls on places), retired, or of another type is only counted.
    pub(crate) fn add(&mut self, device: v1::Device) {
        match (device.place, self.positions.get(&device.device_type)) {
            (Some(place), Some(type_index)) if device.retired_at_ns == 0 => self.devices.push(Device {
                id: device.id,
                type_index: *type_index,
                lat: place.latitude_deg,
                lon: place.longitude_deg,
            }),
            _ => self.left_out += 1,
        }
    }

    /// The same fleet, ordered by type, then by id.
    pub(crate) fn in_order(mut self) -> Self {
        self.devices
            .sort_by(|a, b| (a.type_index, &a.id).cmp(&(b.type_index, &b.id)));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, device_type: &str, lat: Option<f64>) -> v1::Device {
        v1::Device {
            id: id.to_owned(),
            device_type: device_type.to_owned(),
            place: lat.map(|latitude_deg| v1::Place {
                latitude_deg,
                longitude_deg: 121.0,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn whoever_stands_somewhere_plays_and_the_order_of_the_answer_does_not_matter() {
        let types = ["b", "a"].map(|id| v1::DeviceType {
            id: id.to_owned(),
            ..Default::default()
        });
        let retired = v1::Device {
            retired_at_ns: 1,
            ..device("a-3", "a", Some(30.0))
        };
        let mut answer = [
            device("b-1", "b", Some(30.0)),
            device("a-2", "a", Some(31.0)),
            device("a-1", "a", Some(32.0)),
            device("a-4", "a", None),
            device("c-1", "c", Some(30.0)),
            retired,
        ];
        for _ in 0..2 {
            let mut fleet = Fleet::new(types.to_vec());
            answer.iter().cloned().for_each(|d| fleet.add(d));
            let fleet = fleet.in_order();
            let ids: Vec<&str> = fleet.devices.iter().map(|d| d.id.as_str()).collect();
            assert_eq!((ids, fleet.left_out), (vec!["a-1", "a-2", "b-1"], 3));
            assert_eq!((fleet.devices[0].type_index, fleet.devices[0].lat), (0, 32.0));
            answer.reverse();
        }
    }
}
