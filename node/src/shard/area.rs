//! Parts of the surface of the earth, and what lies in them. Pure.
//!
//! Never here: devices. Invariant: a border belongs to its area; no place at all lies nowhere.

/// Mean radius of the earth, metres.
const EARTH_M: f64 = 6_371_008.8;

/// Where a device is, degrees.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Spot {
    /// North of the equator.
    pub latitude_deg: f64,
    /// East of Greenwich.
    pub longitude_deg: f64,
}

/// A part of the surface.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Area {
    /// Between two parallels and two meridians; across the 180th where west is more than east.
    Box {
        /// Western border, degrees.
        west_deg: f64,
        /// Southern border, degrees.
        south_deg: f64,
        /// Eastern border, degrees.
        east_deg: f64,
        /// Northern border, degrees.
        north_deg: f64,
    },
    /// Within a distance of a spot.
    Circle {
        /// The middle.
        middle: Spot,
        /// The distance, metres.
        radius_m: f64,
    },
}

impl Area {
    /// Whether a spot lies in it.
    #[must_use]
    pub fn holds(&self, spot: Spot) -> bool {
        match *self {
            Area::Box {
                west_deg,
                south_deg,
                east_deg,
                north_deg,
            } => {
                let (from_west, to_east) = (spot.longitude_deg >= west_deg, spot.longitude_deg <= east_deg);
                let between = match west_deg <= east_deg {
                    true => from_west && to_east,
                    false => from_west || to_east,
                };
                between && (south_deg..=north_deg).contains(&spot.latitude_deg)
            }
            Area::Circle { middle, radius_m } => distance_m(middle, spot) <= radius_m,
        }
    }
}

/// Along a great circle (haversine), metres.
#[must_use]
pub fn distance_m(a: Spot, b: Spot) -> f64 {
    let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
    let across = a.latitude_deg.to_radians().cos() * b.latitude_deg.to_radians().cos();
    let chord = half(a.latitude_deg, b.latitude_deg) + across * half(a.longitude_deg, b.longitude_deg);
    2.0 * EARTH_M * chord.sqrt().min(1.0).asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(latitude_deg: f64, longitude_deg: f64) -> Spot {
        Spot {
            latitude_deg,
            longitude_deg,
        }
    }

    #[test]
    fn a_degree_along_a_meridian_is_111_km() {
        let middle = spot(30.0, 121.0);
        let within = |radius_m| Area::Circle { middle, radius_m }.holds(spot(31.0, 121.0));
        assert!(within(111_200.0) && !within(111_190.0));
        assert!(Area::Circle { middle, radius_m: 0.0 }.holds(middle));
        let antipode = Area::Circle {
            middle,
            radius_m: 20_020_000.0,
        };
        assert!(antipode.holds(spot(-30.0, -59.0)), "half around the earth");
    }

    #[test]
    fn boxes_hold_their_borders_and_may_cross_the_180th_meridian() {
        let area = |west_deg, east_deg| Area::Box {
            west_deg,
            south_deg: -1.0,
            east_deg,
            north_deg: 1.0,
        };
        assert!(area(10.0, 20.0).holds(spot(1.0, 10.0)) && area(10.0, 20.0).holds(spot(-1.0, 20.0)));
        assert!(!area(10.0, 20.0).holds(spot(0.0, 20.1)) && !area(10.0, 20.0).holds(spot(1.1, 15.0)));
        let pacific = area(170.0, -170.0);
        assert!(pacific.holds(spot(0.0, 175.0)) && pacific.holds(spot(0.0, -175.0)) && !pacific.holds(spot(0.0, 0.0)));
        assert!(!area(10.0, 20.0).holds(spot(f64::NAN, f64::NAN)));
    }
}
