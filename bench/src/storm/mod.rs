//! A storm over a fleet: who reports when, and what. Pure and seeded; only `play` talks to a cluster. Invariant: the same
//! fleet, scenario and start give the same records, in whatever pieces they are asked for.

mod batches;
mod calm;
mod chance;
#[cfg(test)]
mod fixture;
mod fleet;
mod play;
mod rain;
mod river;
mod scenario;
mod steps;
#[cfg(test)]
mod story_tests;
mod tide;
mod tips;
mod underpass;
mod weather;

use anyhow::Result;
use tidemark_client::v1::{self, Property, ReportKind, ValueType};

use calm::Value;
use fleet::{Device, Fleet};
use scenario::{Part, Scenario};
use weather::Course;

pub(crate) use play::{StormArgs, run};

const SECOND_NS: i64 = 1_000_000_000;
const MINUTE_NS: i64 = 60 * SECOND_NS;
/// Devices that report at least this often do so on the clock; slower ones each at a time of their own.
const ON_THE_CLOCK_S: i64 = 3_600;

/// One record: what one device says at one time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Position in the fleet.
    device: usize,
    observed_at_ns: i64,
    kind: ReportKind,
    /// One per property of the type, in its order.
    values: Vec<Option<Value>>,
}

/// The scenario laid over a fleet, from its start to its end (both included).
#[derive(Debug)]
pub(crate) struct Storm {
    fleet: Fleet,
    scenario: Scenario,
    start_ns: i64,
    end_ns: i64,
    /// Per device: its properties that play a part, and the minutes during which it rains there.
    actors: Vec<Actor>,
}

#[derive(Debug, Default)]
struct Actor {
    courses: Vec<PlayedCourse>,
    wet_min: Option<(i64, i64)>,
}

#[derive(Debug)]
struct PlayedCourse {
    property: usize,
    offset: f64,
    scale: f64,
    course: Course,
}

impl Storm {
    /// Runs every model once.
    pub(crate) fn new(fleet: Fleet, scenario: Scenario, start_ns: i64, end_ns: i64) -> Result<Self> {
        scenario.check(&fleet.types)?;
        let fleet = fleet.in_order();
        let minutes = usize::try_from((end_ns - start_ns) / MINUTE_NS + 1)?;
        let actors = fleet
            .devices
            .iter()
            .map(|device| actor(&fleet.types[device.type_index], &scenario, device, minutes))
            .collect();
        Ok(Self {
            fleet,
            scenario,
            start_ns,
            end_ns,
            actors,
        })
    }

    /// Records of one type with `from_ns` <= time < `to_ns`, device by device.
    fn records(&self, type_index: usize, from_ns: i64, to_ns: i64) -> Vec<Record> {
        let of_type = self
            .fleet
            .devices
            .iter()
            .enumerate()
            .filter(|(_, d)| d.type_index == type_index);
        let times = |device: usize| self.times(device, from_ns, to_ns).map(move |at_ns| (device, at_ns));
        of_type
            .flat_map(|(device, _)| times(device))
            .map(|(device, at_ns)| self.record(device, at_ns))
            .collect()
    }

    /// When a device reports within [from, to), and within the scenario.
    fn times(&self, device: usize, from_ns: i64, to_ns: i64) -> impl Iterator<Item = i64> + use<> {
        let interval_ns = self.interval_ns(device);
        let (first_ns, every_ns) = if interval_ns <= ON_THE_CLOCK_S * SECOND_NS {
            let late = self.start_ns.rem_euclid(interval_ns);
            (
                if late == 0 {
                    self.start_ns
                } else {
                    self.start_ns + interval_ns - late
                },
                interval_ns,
            )
        } else {
            // once at least, however rarely it reports
            let span_s = ((self.end_ns - self.start_ns).min(interval_ns) / SECOND_NS).max(1);
            let own = chance::hash(&[self.scenario.seed, chance::key(&self.fleet.devices[device].id)]);
            (self.start_ns + (own % span_s as u64) as i64 * SECOND_NS, interval_ns)
        };
        let skipped = (from_ns - first_ns).max(0).div_euclid(every_ns);
        let end_ns = to_ns.min(self.end_ns + 1);
        (skipped..)
            .map(move |i| first_ns + i * every_ns)
            .skip_while(move |at_ns| *at_ns < from_ns)
            .take_while(move |at_ns| *at_ns < end_ns)
    }

    fn interval_ns(&self, device: usize) -> i64 {
        let t = &self.fleet.types[self.fleet.devices[device].type_index];
        t.sample_interval_s.max(1) * SECOND_NS
    }

    fn record(&self, device: usize, at_ns: i64) -> Record {
        let d = &self.fleet.devices[device];
        let properties = &self.fleet.types[d.type_index].properties;
        let key = chance::key(&d.id);
        let minute = (at_ns - self.start_ns).div_euclid(MINUTE_NS);
        let interval_min = (self.interval_ns(device) / MINUTE_NS).max(1);
        let actor = &self.actors[device];
        let values = properties
            .iter()
            .enumerate()
            .map(|(i, p)| match actor.courses.iter().find(|c| c.property == i) {
                _ if p.deprecated => None,
                Some(c) => Some(typed(p, c.offset + c.scale * c.course.at(minute, interval_min))),
                None => calm::value(p, self.scenario.seed, key, at_ns),
            });
        let wet = actor.wet_min.is_some_and(|(from, to)| minute > from && minute <= to);
        let kind = if wet { ReportKind::Event } else { ReportKind::Routine };
        Record {
            device,
            observed_at_ns: at_ns,
            kind,
            values: values.collect(),
        }
    }
}

fn actor(t: &v1::DeviceType, scenario: &Scenario, device: &Device, minutes: usize) -> Actor {
    let mut actor = Actor::default();
    for (property, p) in t.properties.iter().enumerate() {
        let Some(play) = scenario.part_of(&t.id, &p.id) else {
            continue;
        };
        let course = Course::new(scenario, play, device, p.wrap, minutes);
        actor.courses.push(PlayedCourse {
            property,
            offset: play.offset,
            scale: play.scale,
            course,
        });
        if matches!(play.part, Part::Rain | Part::RainTotal | Part::Ponding | Part::River) {
            actor.wet_min = weather::wet_min(scenario, device);
        }
    }
    actor
}

/// A number as the property sends it: on its step, within its range, in its type.
fn typed(p: &Property, number: f64) -> Value {
    let number = steps::round(number, p.step).clamp(p.min.unwrap_or(f64::MIN), p.max.unwrap_or(f64::MAX));
    match p.value_type() {
        ValueType::I64 => Value::I64(number as i64),
        ValueType::Bool => Value::Bool(number != 0.0),
        ValueType::Enum => Value::Label(number as u32),
        ValueType::Text => Value::Text(number.to_string()),
        ValueType::F64 | ValueType::Unspecified => Value::F64(number),
    }
}
