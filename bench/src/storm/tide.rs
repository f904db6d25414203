//! Height of the outer tide: one sine of the period of the moon. Pure numbers.

use serde::Deserialize;

/// Constants of a tide.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tide {
    pub(crate) amplitude_m: f64,
    pub(crate) period_h: f64,
    /// When it stands highest, minutes from the start of the scenario.
    pub(crate) high_water_min: f64,
}

impl Tide {
    /// Height above the datum, metres, `minutes` from the start.
    pub(crate) fn height_m(&self, minutes: f64) -> f64 {
        let turns = (minutes - self.high_water_min) / (self.period_h * 60.0);
        self.amplitude_m * (turns * std::f64::consts::TAU).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_water_and_low_water() {
        let tide = Tide {
            amplitude_m: 2.3,
            period_h: 12.0,
            high_water_min: 150.0,
        };
        assert_eq!(tide.height_m(150.0), 2.3);
        assert!((tide.height_m(150.0 + 360.0) + 2.3).abs() < 1e-9);
    }
}
