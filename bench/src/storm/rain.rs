//! Rain over one place: the design-storm curve, minute by minute. Pure numbers; nothing here knows devices or steps.
//! Invariant: the minutes of a storm add up to its total, and nothing falls outside it.

use serde::Deserialize;

/// Shape of a storm.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RainShape {
    pub(crate) duration_min: u32,
    /// Share of the duration that lies before the peak.
    pub(crate) peak_share: f64,
    pub(crate) b: f64,
    pub(crate) n: f64,
    /// Depth that tips the bucket of a gauge, mm.
    pub(crate) tip_mm: f64,
    pub(crate) anchor: Vec<Anchor>,
}

/// A place whose storm is known.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Anchor {
    pub(crate) id: String,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    #[serde(flatten)]
    pub(crate) storm: PlaceStorm,
}

/// Total and beginning of the storm at one place.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct PlaceStorm {
    pub(crate) total_mm: f64,
    /// Minutes from the start of the scenario.
    pub(crate) start_min: f64,
}

impl RainShape {
    /// Storm at a place: that of an anchor which stands there, else the mean of all by inverse squared distance.
    pub(crate) fn at(&self, lat: f64, lon: f64) -> PlaceStorm {
        let (mut weight, mut total, mut start) = (0.0, 0.0, 0.0);
        for a in &self.anchor {
            let (dy, dx) = (a.lat - lat, (a.lon - lon) * lat.to_radians().cos());
            let squared = dy * dy + dx * dx;
            if squared < 1e-16 {
                return a.storm;
            }
            weight += 1.0 / squared;
            total += a.storm.total_mm / squared;
            start += a.storm.start_min / squared;
        }
        if weight == 0.0 {
            return PlaceStorm {
                total_mm: 0.0,
                start_min: 0.0,
            };
        }
        PlaceStorm {
            total_mm: total / weight,
            start_min: (start / weight).round(),
        }
    }

    /// Rain of each of the first `minutes` minutes of the scenario, mm, before any bucket tips.
    pub(crate) fn minutes(&self, storm: PlaceStorm, minutes: usize) -> Vec<f64> {
        let curve: Vec<f64> = (0..self.duration_min)
            .map(|i| self.weight(f64::from(i) + 0.5))
            .collect();
        let whole: f64 = curve.iter().sum();
        let start = storm.start_min.max(0.0) as usize;
        let of = |minute: usize| {
            minute
                .checked_sub(start)
                .and_then(|i| curve.get(i))
                .copied()
                .unwrap_or(0.0)
        };
        (0..minutes).map(|minute| storm.total_mm * of(minute) / whole).collect()
    }

    /// Relative intensity `t` minutes into the storm.
    fn weight(&self, t: f64) -> f64 {
        let peak = self.peak_share * f64::from(self.duration_min);
        let x = if t <= peak {
            (peak - t) / self.peak_share
        } else {
            (t - peak) / (1.0 - self.peak_share)
        };
        ((1.0 - self.n) * x + self.b) / (x + self.b).powf(self.n + 1.0)
    }
}

/// The mean of several series of minutes.
pub(crate) fn mean(series: &[Vec<f64>]) -> Vec<f64> {
    let minutes = series.iter().map(Vec::len).max().unwrap_or(0);
    let at = |i: usize| series.iter().filter_map(|s| s.get(i)).sum::<f64>() / series.len() as f64;
    (0..minutes).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(anchor: Vec<Anchor>) -> RainShape {
        RainShape {
            duration_min: 180,
            peak_share: 0.4,
            b: 15.0,
            n: 0.8,
            tip_mm: 0.5,
            anchor,
        }
    }

    fn anchor(id: &str, lat: f64, lon: f64, total_mm: f64, start_min: f64) -> Anchor {
        Anchor {
            id: id.to_owned(),
            lat,
            lon,
            storm: PlaceStorm { total_mm, start_min },
        }
    }

    #[test]
    fn minutes_add_up_to_the_total_and_peak_at_the_share() {
        let minutes = shape(vec![]).minutes(
            PlaceStorm {
                total_mm: 98.0,
                start_min: 20.0,
            },
            300,
        );
        assert!((minutes.iter().sum::<f64>() - 98.0).abs() < 1e-9);
        assert!(minutes[..20].iter().chain(&minutes[200..]).all(|mm| *mm == 0.0));
        let peak = (0..300).max_by(|a, b| minutes[*a].total_cmp(&minutes[*b]));
        assert_eq!(peak, Some(92), "14:20 and 72 minutes is 15:32");
    }

    #[test]
    fn an_anchor_has_its_own_storm_and_between_them_it_varies() {
        let s = shape(vec![
            anchor("a", 30.0, 121.0, 100.0, 10.0),
            anchor("b", 30.2, 121.0, 60.0, 30.0),
        ]);
        assert_eq!(s.at(30.0, 121.0).total_mm, 100.0);
        let middle = s.at(30.1, 121.0);
        assert!(
            (middle.total_mm - 80.0).abs() < 1e-6 && middle.start_min == 20.0,
            "{middle:?}"
        );
        assert!(s.at(30.05, 121.0).total_mm > middle.total_mm);
    }

    #[test]
    fn no_anchors_no_rain() {
        assert_eq!(shape(vec![]).at(30.0, 121.0).total_mm, 0.0);
    }
}
