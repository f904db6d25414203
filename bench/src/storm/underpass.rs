//! Water in an underpass: rain runs in, a pump draws it out, the depth follows the shape of the hollow. Pure numbers.
//! Invariant: the volume is never negative, so the depth never is.

use serde::Deserialize;

/// Constants of an underpass.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Underpass {
    /// Share of the rain that reaches the hollow.
    pub(crate) runoff: f64,
    pub(crate) area_m2: f64,
    pub(crate) pump_m3_s: f64,
    /// Volume is this times the square of the depth.
    pub(crate) shape_m: f64,
    /// Largest share by which other catchments are smaller.
    pub(crate) area_spread: f64,
}

impl Underpass {
    /// Depth in metres at the start and after each minute of rain (mm).
    pub(crate) fn depths_m(&self, rain_mm: &[f64]) -> Vec<f64> {
        let mut volume_m3: f64 = 0.0;
        let after = rain_mm.iter().map(|mm| {
            volume_m3 += self.runoff * self.area_m2 * mm / 1000.0 - 60.0 * self.pump_m3_s;
            volume_m3 = volume_m3.max(0.0);
            (volume_m3 / self.shape_m).sqrt()
        });
        std::iter::once(0.0).chain(after).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNDERPASS: Underpass = Underpass {
        runoff: 0.9,
        area_m2: 9000.0,
        pump_m3_s: 0.115,
        shape_m: 1150.0,
        area_spread: 0.0,
    };

    #[test]
    fn a_drizzle_is_pumped_away() {
        assert_eq!(UNDERPASS.depths_m(&[0.5; 30]), vec![0.0; 31]);
    }

    #[test]
    fn without_its_pump_it_fills_and_stays() {
        let failed = Underpass {
            pump_m3_s: 0.0,
            ..UNDERPASS
        };
        let depths = failed.depths_m(&[1.0, 1.0, 0.0]);
        // 16.2 m3 in a hollow of 1150 m
        assert!((depths[2] - (16.2_f64 / 1150.0).sqrt()).abs() < 1e-12);
        assert_eq!(depths[2], depths[3]);
    }
}
