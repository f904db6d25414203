//! Devices and selectors on their way in: what valid ones are. Never: storage.

use tidemark_proto::v1::area::Shape;
use tidemark_proto::v1::{self, Device, Maintenance, Selector};

use crate::catalog::types::is_id;
use crate::error::{Error, Reason, Result};
use crate::limits::{Limits, MAINTENANCE_MAX, MAINTENANCE_REASON_BYTES_MAX, SELECTOR_DEPTH_MAX, SELECTORS_MAX};
use crate::shard::{Area, Spot};

/// Checks one device of a request; `at` is its position.
pub fn check_device(device: &Device, at: usize, limits: &Limits) -> Result<()> {
    let fail =
        |reason, field: &str, message: String| Err(Error::new(reason, message).field(format!("devices[{at}].{field}")));
    if !is_id(&device.id, limits.id_bytes_max) {
        let shown: String = device.id.chars().take(80).collect();
        return fail(
            Reason::InvalidId,
            "id",
            format!("{shown:?} is not of the form [A-Za-z0-9._:-]{{1,64}}"),
        );
    }
    if device.tags.len() > limits.tags_max {
        return fail(
            Reason::InvalidDevice,
            "tags",
            format!("more than {} tags", limits.tags_max),
        );
    }
    for (key, value) in &device.tags {
        if !is_id(key, limits.id_bytes_max) {
            return fail(
                Reason::InvalidDevice,
                "tags",
                format!("tag {key:?} is not of the form [A-Za-z0-9._:-]{{1,64}}"),
            );
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
            return fail(
                Reason::InvalidDevice,
                "place",
                format!("{lat}, {lon} is no place on earth"),
            );
        }
    }
    match check_maintenance(&device.maintenance) {
        Err((field, message)) => fail(Reason::InvalidDevice, &field, message),
        Ok(()) => Ok(()),
    }
}

/// Checks declared maintenance of a device; what is wrong has the name of its field.
fn check_maintenance(declared: &[Maintenance]) -> std::result::Result<(), (String, String)> {
    if declared.len() > MAINTENANCE_MAX {
        return Err((
            "maintenance".to_owned(),
            format!("more than {MAINTENANCE_MAX} times of maintenance"),
        ));
    }
    for (at, one) in declared.iter().enumerate() {
        if one.from_ns >= one.to_ns {
            let message = "maintenance that does not end after its begin".to_owned();
            return Err((format!("maintenance[{at}].to_ns"), message));
        }
        if one.reason.len() > MAINTENANCE_REASON_BYTES_MAX || one.reason.chars().any(char::is_control) {
            let most = MAINTENANCE_REASON_BYTES_MAX;
            let message = format!("a reason that is longer than {most} bytes or has control characters");
            return Err((format!("maintenance[{at}].reason"), message));
        }
    }
    let mut by_begin: Vec<(i64, i64, usize)> = declared
        .iter()
        .enumerate()
        .map(|(at, one)| (one.from_ns, one.to_ns, at))
        .collect();
    by_begin.sort_unstable();
    for pair in by_begin.windows(2) {
        let [(_, ends, before), (begins, _, at)] = pair else {
            continue;
        };
        if begins < ends {
            let message = format!("it begins before maintenance[{before}] ends");
            return Err((format!("maintenance[{at}].from_ns"), message));
        }
    }
    Ok(())
}

/// Checks the selector of a query; `required` refuses one that chooses nothing.
pub fn check_selector(selector: Option<&Selector>, required: bool, limits: &Limits) -> Result<Selector> {
    let selector = selector.cloned().unwrap_or_default();
    if required && selector == Selector::default() {
        return Err(Error::new(Reason::NoSelector, "the query chooses no device")
            .field("selector")
            .hint("name device ids, a device type, tags or an area; every device: `everything`"));
    }
    check_nested(&selector, "selector", 0)?;
    if selector.device_ids.len() > limits.batch_devices_max {
        let most = limits.batch_devices_max;
        return Err(
            Error::new(Reason::QueryTooLarge, format!("more than {most} device ids")).field("selector.device_ids"),
        );
    }
    for (at, id) in selector.device_ids.iter().enumerate() {
        if !is_id(id, limits.id_bytes_max) {
            return Err(
                Error::new(Reason::InvalidId, "device id is not of the form [A-Za-z0-9._:-]{1,64}")
                    .field(format!("selector.device_ids[{at}]")),
            );
        }
    }
    Ok(selector)
}

/// What a selector says beside its ids, and the selectors in it.
fn check_nested(selector: &Selector, field: &str, depth: usize) -> Result<()> {
    if depth > SELECTOR_DEPTH_MAX {
        let message = format!("selectors in selectors, more than {SELECTOR_DEPTH_MAX} deep");
        return Err(Error::new(Reason::InvalidValue, message).field(field));
    }
    let most = SELECTORS_MAX;
    for (name, nested) in [("any_of", &selector.any_of), ("none_of", &selector.none_of)] {
        if nested.len() > most {
            let message = format!("{} selectors, the limit is {most}", nested.len());
            return Err(Error::new(Reason::InvalidValue, message).field(format!("{field}.{name}")));
        }
        for (at, one) in nested.iter().enumerate() {
            let field = format!("{field}.{name}[{at}]");
            if *one == Selector::default() {
                return Err(Error::new(Reason::NoSelector, "a selector that chooses nothing").field(field));
            }
            check_nested(one, &field, depth + 1)?;
        }
    }
    match &selector.area {
        Some(given) => check_area(given, &format!("{field}.area")),
        None => Ok(()),
    }
}

fn check_area(given: &v1::Area, field: &str) -> Result<()> {
    let wrong = |message: String| Err(Error::new(Reason::InvalidValue, message).field(field));
    let latitude = |deg: f64| (-90.0..=90.0).contains(&deg);
    let longitude = |deg: f64| (-180.0..=180.0).contains(&deg);
    match &given.shape {
        None => wrong("an area without a shape".into()),
        Some(Shape::Box(b)) if !(latitude(b.south_deg) && latitude(b.north_deg) && b.south_deg <= b.north_deg) => {
            wrong(format!("from {} to {} degrees north", b.south_deg, b.north_deg))
        }
        Some(Shape::Box(b)) if !(longitude(b.west_deg) && longitude(b.east_deg)) => {
            wrong(format!("from {} to {} degrees east", b.west_deg, b.east_deg))
        }
        Some(Shape::Circle(c)) if !(latitude(c.latitude_deg) && longitude(c.longitude_deg)) => wrong(format!(
            "{} degrees north, {} degrees east",
            c.latitude_deg, c.longitude_deg
        )),
        Some(Shape::Circle(c)) if !(c.radius_m.is_finite() && c.radius_m >= 0.0) => {
            wrong(format!("a radius of {} m", c.radius_m))
        }
        Some(_) => Ok(()),
    }
}

/// The area of a checked selector.
pub fn area(given: &v1::Area) -> Option<Area> {
    Some(match given.shape.as_ref()? {
        Shape::Box(b) => Area::Box {
            west_deg: b.west_deg,
            south_deg: b.south_deg,
            east_deg: b.east_deg,
            north_deg: b.north_deg,
        },
        Shape::Circle(c) => Area::Circle {
            middle: Spot {
                latitude_deg: c.latitude_deg,
                longitude_deg: c.longitude_deg,
            },
            radius_m: c.radius_m,
        },
    })
}
