//! A scenario as written in TOML: constants, places with a history, and which property plays which part. Invariant: a
//! field that is not understood is refused, so that a misspelt constant is not a silent default.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tidemark_client::v1::DeviceType;

use super::rain::RainShape;
use super::river::River;
use super::tide::Tide;
use super::underpass::Underpass;

/// The scenario that comes with the program.
const BUILT_IN: &str = include_str!("../../scenarios/storm.toml");

/// Everything a storm needs beside the fleet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) rain: RainShape,
    pub(crate) underpass: Underpass,
    pub(crate) river: River,
    pub(crate) tide: Tide,
    #[serde(default)]
    pub(crate) device: Vec<Pinned>,
    #[serde(default)]
    pub(crate) play: Vec<Play>,
}

/// A device with a history of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pinned {
    pub(crate) id: String,
    /// Mean of these anchors instead of the rain of the place, and the constants without spread.
    #[serde(default)]
    pub(crate) rain_of: Vec<String>,
    /// What its rain counter shows at the start.
    pub(crate) rain_total_mm: Option<f64>,
    #[serde(default)]
    pub(crate) pump_failed: bool,
}

/// A property that plays a part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Play {
    pub(crate) device_type: String,
    pub(crate) property: String,
    pub(crate) part: Part,
    #[serde(default)]
    pub(crate) offset: f64,
    #[serde(default = "one")]
    pub(crate) scale: f64,
    /// Overrides the bucket of the scenario.
    pub(crate) tip_mm: Option<f64>,
}

fn one() -> f64 {
    1.0
}

/// What a property follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Rain,
    RainTotal,
    Ponding,
    River,
    Tide,
    Latitude,
    Longitude,
}

impl Scenario {
    /// Reads a scenario file, or the one that comes with the program.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        match path {
            None => toml::from_str(BUILT_IN).context("the built-in scenario"),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                toml::from_str(&text).with_context(|| format!("in {}", path.display()))
            }
        }
    }

    /// Refuses parts of properties that no type has, and anchors that are not listed.
    pub(crate) fn check(&self, types: &[DeviceType]) -> Result<()> {
        for play in &self.play {
            let t = types.iter().find(|t| t.id == play.device_type);
            if !t.is_some_and(|t| t.properties.iter().any(|p| p.id == play.property)) {
                bail!(
                    "scenario: the cluster has no property {} of type {}; `tidemark type apply` makes it",
                    play.property,
                    play.device_type
                );
            }
        }
        for name in self.device.iter().flat_map(|d| &d.rain_of) {
            if !self.rain.anchor.iter().any(|a| a.id == *name) {
                bail!("scenario: unknown anchor {name}");
            }
        }
        Ok(())
    }

    /// The history of a device, if it has one of its own.
    pub(crate) fn pinned(&self, device: &str) -> Option<&Pinned> {
        self.device.iter().find(|d| d.id == device)
    }

    /// The part a property plays, if any.
    pub(crate) fn part_of(&self, device_type: &str, property: &str) -> Option<&Play> {
        self.play
            .iter()
            .find(|p| p.device_type == device_type && p.property == property)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fixture;
    use super::*;

    #[test]
    fn the_built_in_scenario_fits_the_catalogue() {
        Scenario::load(None).unwrap().check(&fixture::types()).unwrap();
    }

    #[test]
    fn a_part_without_a_property_is_refused() {
        let mut scenario = Scenario::load(None).unwrap();
        scenario.play[0].property = "nosuch".to_owned();
        let error = scenario.check(&fixture::types()).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "scenario: the cluster has no property nosuch of type {}; `tidemark type apply` makes it",
                scenario.play[0].device_type
            )
        );
    }

    #[test]
    fn a_misspelt_constant_is_refused() {
        let text = BUILT_IN.replace("peak_share", "peek_share");
        assert!(toml::from_str::<Scenario>(&text).is_err());
    }
}
