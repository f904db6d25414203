//! Where devices of recordings stand: the tags that they are grouped and joined by, and their places along the equator.
//! Never here: points. Invariant: both are told by the number of a device in its type.

use super::recordings::Played;

const ROWS: [&str; 4] = ["north", "middle", "south", "yard"];
const SIDES: [&str; 3] = ["left", "right", "none"];
/// Distances between these differ from each other as seen from each of them, so that it is known who is nearer.
const EAST_DEG: [f64; 10] = [0.0, 1.3, 2.9, 5.1, 8.4, 12.0, 17.3, 23.9, 31.0, 40.2];
/// The keys of all tags.
pub(crate) const TAGS: [&str; 2] = ["row", "side"];

/// Tags of the device of a number.
pub(super) fn tags(at: usize) -> [(&'static str, &'static str); 2] {
    [("row", ROWS[at % ROWS.len()]), ("side", SIDES[at / 2 % SIDES.len()])]
}

/// Its place: two devices stand at each.
pub(super) fn east_deg(at: usize) -> f64 {
    EAST_DEG[at / 2 % EAST_DEG.len()]
}

fn number(device: &str) -> usize {
    device.rsplit('.').next().unwrap().parse().unwrap()
}

/// Degrees east of a device.
pub(crate) fn place_of(device: &str) -> f64 {
    east_deg(number(device))
}

/// The value of a tag of a device.
pub(crate) fn tag_of(device: &str, key: &str) -> &'static str {
    let tags = tags(number(device));
    tags.iter().find(|(other, _)| *other == key).unwrap().1
}

impl Played {
    /// The devices by what some tags say of them, told in the order of these tags.
    pub(crate) fn groups(&self, by: &[String]) -> Vec<(String, Vec<&str>)> {
        let name = |device: &str| by.iter().map(|key| tag_of(device, key)).collect::<Vec<_>>().join(" ");
        let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
        for device in self.devices() {
            let name = name(device);
            match groups.iter_mut().find(|(other, _)| *other == name) {
                Some((_, devices)) => devices.push(device),
                None => groups.push((name, vec![device])),
            }
        }
        groups
    }
}
