//! What the storm does at one device: the models run once over the whole scenario, then read at any minute. Invariant:
//! minute 0 is the start of the scenario; a time before it sees the state at rest.

use super::chance;
use super::fleet::Device;
use super::rain::{self, PlaceStorm};
use super::scenario::{Part, Pinned, Play, Scenario};
use super::tips::Tips;
use super::underpass::Underpass;

/// The part of one property at one device, ready to be read.
#[derive(Debug, Clone)]
pub(crate) enum Course {
    Rain {
        tips: Tips,
    },
    RainTotal {
        tips: Tips,
        initial_mm: f64,
        wrap_mm: f64,
    },
    /// One value a minute.
    Level {
        minutes: Vec<f64>,
    },
    Tide(super::tide::Tide),
    /// A coordinate, and the phase of a slow round about it.
    Place {
        degrees: f64,
        phase: f64,
    },
}

/// How far a moving device strays, degrees, and how long its round takes, minutes.
const ROUND_DEG: f64 = 0.004;
const ROUND_MIN: f64 = 90.0;

impl Course {
    /// Runs the model of one part for `minutes` minutes.
    pub(crate) fn new(scenario: &Scenario, play: &Play, device: &Device, wrap: Option<f64>, minutes: usize) -> Self {
        let none = Pinned::default();
        let pinned = scenario.pinned(&device.id).unwrap_or(&none);
        let own = [scenario.seed, chance::key(&device.id)];
        // devices with the mean of named anchors are the ones whose constants are known
        let spread = if pinned.rain_of.is_empty() {
            chance::unit(&own)
        } else {
            0.0
        };
        let rain_mm = || rain_at(scenario, pinned, device, minutes);
        match play.part {
            Part::Rain => Self::Rain {
                tips: Tips::new(&rain_mm(), play.tip_mm.unwrap_or(scenario.rain.tip_mm)),
            },
            Part::RainTotal => {
                let tip_mm = play.tip_mm.unwrap_or(scenario.rain.tip_mm);
                let wrap_mm = wrap.unwrap_or(f64::INFINITY);
                let anywhere = (chance::unit(&own) * wrap.unwrap_or(1000.0) / tip_mm).floor() * tip_mm;
                let initial_mm = pinned.rain_total_mm.unwrap_or(anywhere);
                Self::RainTotal {
                    tips: Tips::new(&rain_mm(), tip_mm),
                    initial_mm,
                    wrap_mm,
                }
            }
            Part::Ponding => {
                let known = scenario.underpass;
                let area_m2 = known.area_m2 * (1.0 - known.area_spread * spread);
                let pump_m3_s = if pinned.pump_failed { 0.0 } else { known.pump_m3_s };
                Self::Level {
                    minutes: Underpass {
                        area_m2,
                        pump_m3_s,
                        ..known
                    }
                    .depths_m(&rain_mm()),
                }
            }
            Part::River => {
                let mut reach = scenario.river;
                reach.base_m += reach.base_spread_m * spread;
                Self::Level {
                    minutes: reach.levels_m(&rain_mm()),
                }
            }
            Part::Tide => Self::Tide(scenario.tide),
            Part::Latitude => Self::Place {
                degrees: device.lat,
                phase: chance::unit(&own),
            },
            // a quarter of a round apart, so the two make a circle
            Part::Longitude => Self::Place {
                degrees: device.lon,
                phase: chance::unit(&own) + 0.25,
            },
        }
    }

    /// The value at `minute`; `interval_min` is how long the device has been adding up.
    pub(crate) fn at(&self, minute: i64, interval_min: i64) -> f64 {
        match self {
            Self::Rain { tips } => tips.between_mm(minute - interval_min, minute),
            Self::RainTotal {
                tips,
                initial_mm,
                wrap_mm,
            } => (initial_mm + tips.between_mm(0, minute)) % wrap_mm,
            Self::Level { minutes } => {
                let last = minutes.len().saturating_sub(1);
                minutes
                    .get(usize::try_from(minute).unwrap_or(0).min(last))
                    .copied()
                    .unwrap_or(0.0)
            }
            Self::Tide(tide) => tide.height_m(minute as f64),
            Self::Place { degrees, phase } => {
                let turns = minute as f64 / ROUND_MIN + phase;
                degrees + ROUND_DEG * (turns.fract() * std::f64::consts::TAU).sin()
            }
        }
    }
}

/// Rain on the device, mm a minute, before any bucket tips.
pub(crate) fn rain_at(scenario: &Scenario, pinned: &Pinned, device: &Device, minutes: usize) -> Vec<f64> {
    let series: Vec<Vec<f64>> = storms_at(scenario, pinned, device)
        .into_iter()
        .map(|storm| scenario.rain.minutes(storm, minutes))
        .collect();
    rain::mean(&series)
}

/// From when to when it rains on the device, minutes from the start of the scenario.
pub(crate) fn wet_min(scenario: &Scenario, device: &Device) -> Option<(i64, i64)> {
    let none = Pinned::default();
    let storms = storms_at(scenario, scenario.pinned(&device.id).unwrap_or(&none), device);
    let starts = || storms.iter().map(|storm| storm.start_min as i64);
    Some((starts().min()?, starts().max()? + i64::from(scenario.rain.duration_min)))
}

/// The storms whose mean falls on the device: those the scenario names for it, else the one of its place.
fn storms_at(scenario: &Scenario, pinned: &Pinned, device: &Device) -> Vec<PlaceStorm> {
    let shape = &scenario.rain;
    if pinned.rain_of.is_empty() {
        return vec![shape.at(device.lat, device.lon)];
    }
    let named = shape.anchor.iter().filter(|a| pinned.rain_of.contains(&a.id));
    named.map(|a| a.storm).collect()
}
