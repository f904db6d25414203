//! Devices on their way in: what a valid one is. Never: storage.

use tidemark_proto::v1::{Device, Selector};

use crate::catalog::types::is_id;
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;

/// Checks one device of a request; `at` is its position.
pub fn check_device(device: &Device, at: usize, limits: &Limits) -> Result<()> {
    let fail = |reason, field: &str, message: String| {
        Err(Error::new(reason, message).field(format!("devices[{at}].{field}")))
    };
    if !is_id(&device.id, limits.id_bytes_max) {
        let shown: String = device.id.chars().take(80).collect();
        return fail(Reason::InvalidId, "id", format!("{shown:?} is not of the form [A-Za-z0-9._:-]{{1,64}}"));
    }
    if device.tags.len() > limits.tags_max {
        return fail(Reason::InvalidDevice, "tags", format!("more than {} tags", limits.tags_max));
    }
    for (key, value) in &device.tags {
        if !is_id(key, limits.id_bytes_max) {
            return fail(Reason::InvalidDevice, "tags", format!("tag {key:?} is not of the form [A-Za-z0-9._:-]{{1,64}}"));
        }
        if value.len() > limits.tag_bytes_max || value.chars().any(char::is_control) {
            let most = limits.tag_bytes_max;
            return fail(
                Reason::InvalidDevice,
                "tags",
                format!("tag {key} is longer than {most} bytes or has control characters"),
            );
        }
    }
    if let Some(place) = &device.place {
        let (lat, lon) = (place.latitude_deg, place.longitude_deg);
        if !(-90.0..=90.0).contains(&lat) || !(-180.0..=180.0).contains(&lon) {
            return fail(Reason::InvalidDevice, "place", format!("{lat}, {lon} is no place on earth"));
        }
    }
    Ok(())
}

/// Checks the selector of a query; `required` refuses one that chooses nothing.
pub fn check_selector(selector: Option<&Selector>, required: bool, limits: &Limits) -> Result<Selector> {
    let selector = selector.cloned().unwrap_or_default();
    let chooses = !selector.device_ids.is_empty() || !selector.device_type.is_empty() || !selector.tags.is_empty();
    if required && !chooses {
        return Err(Error::new(Reason::NoSelector, "the query chooses no device")
            .field("selector")
            .hint("name device ids, a device type or tags"));
    }
    if selector.device_ids.len() > limits.batch_devices_max {
        let most = limits.batch_devices_max;
        return Err(Error::new(Reason::QueryTooLarge, format!("more than {most} device ids")).field("selector.device_ids"));
    }
    for (at, id) in selector.device_ids.iter().enumerate() {
        if !is_id(id, limits.id_bytes_max) {
            return Err(Error::new(Reason::InvalidId, "device id is not of the form [A-Za-z0-9._:-]{1,64}")
                .field(format!("selector.device_ids[{at}]")));
        }
    }
    Ok(selector)
}
