//! Level of a river reach: rain on the water counts at once, rain on the land drains out of a store, pumps draw the
//! channel down. Pure numbers. Invariant: the level never falls below its base.

use serde::Deserialize;

/// Constants of a reach.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct River {
    /// Share of the catchment that is water.
    pub(crate) water_share: f64,
    /// Share of the rain on land that reaches the river.
    pub(crate) runoff: f64,
    /// Time constant of the store, minutes.
    pub(crate) storage_min: f64,
    pub(crate) base_m: f64,
    /// How fast pumps lower the channel, metres an hour.
    pub(crate) pumped_m_h: f64,
    /// Largest height by which other reaches rest higher, metres.
    pub(crate) base_spread_m: f64,
}

impl River {
    /// Level in metres at the start and after each minute of rain (mm).
    pub(crate) fn levels_m(&self, rain_mm: &[f64]) -> Vec<f64> {
        let gain = self.runoff * (1.0 - self.water_share) / self.water_share;
        let (mut stored_m, mut level_m) = (0.0, self.base_m);
        let after = rain_mm.iter().map(|mm| {
            let rain_m = mm / 1000.0;
            stored_m += rain_m * gain;
            let out_m = stored_m / self.storage_min;
            stored_m -= out_m;
            level_m = (level_m + rain_m + out_m - self.pumped_m_h / 60.0).max(self.base_m);
            level_m
        });
        std::iter::once(self.base_m).chain(after).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_with_rain_and_returns_to_its_base() {
        let river = River {
            water_share: 0.09,
            runoff: 0.65,
            storage_min: 70.0,
            base_m: 1.05,
            pumped_m_h: 0.1,
            base_spread_m: 0.0,
        };
        let mut rain = vec![1.0; 60];
        rain.resize(1_200, 0.0);
        let levels = river.levels_m(&rain);
        assert!(levels[60] > 1.05 && levels[60] < 2.0, "{}", levels[60]);
        assert_eq!((levels[0], levels[1_200]), (1.05, 1.05));
        assert!(levels.iter().all(|m| *m >= 1.05));
    }
}
