//! Series that sensors recorded, with their own times and values, sent as an unreliable network would: with gaps, late, twice, and some
//! with a bad word about them. Where there are no recordings, series that were made up stand for them.
//! Never here: questions, and what their answers should be. Invariant: the same seed gives the same points.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tidemark_client::{BatchBuilder, Client, Value, v1};
use v1::{Kind, Quality, ValueType};

use super::fleet::*;
use super::placed::{east_deg, tags};

/// Points of a series that are played at most.
const POINTS_MAX: usize = 700;
/// Lines of a recording that are read at most: the series lie near its begin.
const LINES_MAX: usize = 420_000;
/// What is promised from observation to receipt, seconds.
pub(crate) const LATENCY_S: i64 = 60;
/// The one property of every type.
pub(crate) const VALUE: &str = "value";

/// A kind of recording, and the type that stands for it.
pub(crate) struct Recording {
    pub(crate) file: &'static str,
    /// Device and property, as the recording calls them; each becomes a device of its own.
    pub(super) series: &'static [(&'static str, &'static str)],
    pub(crate) kind: Kind,
    pub(crate) interval_s: i64,
    pub(crate) limits: Limits,
    /// Labels, where values are some.
    pub(crate) labels: &'static [&'static str],
    /// Where a counter begins anew.
    pub(crate) wrap: Option<f64>,
    /// Values by which a device says that it has none.
    pub(crate) missing: &'static [f64],
    /// What becomes of the recorded values of a device before they are played.
    pub(super) made: fn(&mut StdRng, &mut [(i64, f64)]),
}

/// As it was recorded, with nothing promised but what is added.
pub(super) const PLAIN: Recording = Recording {
    file: "",
    series: &[],
    kind: Kind::Gauge,
    interval_s: 0,
    limits: NO_LIMITS,
    labels: &[],
    wrap: None,
    missing: &[],
    made: |_, _| {},
};

/// What is checked of values.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) typical_min: Option<f64>,
    pub(crate) typical_max: Option<f64>,
    pub(crate) spike: Option<f64>,
    pub(crate) rate_per_min: Option<f64>,
    /// So long, seconds, within so much.
    pub(crate) flat: Option<(i64, f64)>,
    /// Standing still here, as near as that is still standing, is normal.
    pub(crate) flat_ignore: Option<f64>,
}

pub(super) const NO_LIMITS: Limits = Limits {
    min: None,
    max: None,
    typical_min: None,
    typical_max: None,
    spike: None,
    rate_per_min: None,
    flat: None,
    flat_ignore: None,
};

/// One or more of each kind of file: levels, a noisy optical sensor, rain by tips, rooms that report on change, machines, energy, its
/// states, air, and wind that is summed up until it turns.
pub(crate) static RECORDINGS: [Recording; 9] = [
    Recording {
        file: "lro_river.csv.zst",
        series: &[("BlackSmithFork", "stage")],
        kind: Kind::Gauge,
        interval_s: 900,
        limits: Limits {
            rate_per_min: Some(0.06),
            flat: Some((7_200, 0.25)),
            ..NO_LIMITS
        },
        ..PLAIN
    },
    Recording {
        file: "lro_river.csv.zst",
        series: &[("BlackSmithFork", "turb")],
        kind: Kind::Gauge,
        interval_s: 900,
        limits: Limits {
            max: Some(60.0),
            typical_max: Some(20.0),
            spike: Some(1.0),
            ..NO_LIMITS
        },
        ..PLAIN
    },
    Recording {
        file: "tharandt_rain.csv.zst",
        series: &[("davis1", "rain_mm"), ("davis10", "rain_mm"), ("davis11", "rain_mm")],
        kind: Kind::Increment,
        interval_s: 60,
        limits: Limits {
            max: Some(1.0),
            typical_max: Some(0.4),
            ..NO_LIMITS
        },
        ..PLAIN
    },
    Recording {
        file: "smart_home.csv.zst",
        series: &[
            ("Bathroom", "Temperature"),
            ("Kitchen", "Temperature"),
            ("Room1", "Temperature"),
        ],
        kind: Kind::Gauge,
        interval_s: 600,
        limits: Limits {
            flat: Some((3 * 3_600, 0.2)),
            ..NO_LIMITS
        },
        ..PLAIN
    },
    Recording {
        file: "nab_machines.csv.zst",
        series: &[
            ("ec2_cpu_utilization_24ae8d", "value"),
            ("ec2_cpu_utilization_53ea38", "value"),
            ("ec2_cpu_utilization_5f5533", "value"),
        ],
        kind: Kind::Gauge,
        interval_s: 300,
        limits: Limits {
            max: Some(100.0),
            rate_per_min: Some(2.0),
            ..NO_LIMITS
        },
        ..PLAIN
    },
    Recording {
        file: "steel_energy.csv.zst",
        series: &[("plant", "usage_kwh")],
        kind: Kind::Increment,
        interval_s: 900,
        limits: Limits {
            typical_max: Some(100.0),
            ..NO_LIMITS
        },
        ..PLAIN
    },
    Recording {
        file: "steel_energy.csv.zst",
        series: &[("plant", "load_type")],
        kind: Kind::State,
        interval_s: 900,
        labels: &["Light_Load", "Medium_Load", "Maximum_Load"],
        ..PLAIN
    },
    Recording {
        file: "beijing_air.csv.zst",
        series: &[("us_embassy", "pm25")],
        kind: Kind::Gauge,
        interval_s: 3_600,
        limits: Limits {
            typical_max: Some(250.0),
            spike: Some(15.0),
            ..NO_LIMITS
        },
        ..PLAIN
    },
    Recording {
        file: "beijing_air.csv.zst",
        series: &[("us_embassy", "wind_cum")],
        kind: Kind::Counter,
        interval_s: 3_600,
        ..PLAIN
    },
];

/// What a device said of one time, in the end.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Said {
    /// The place of a label among those of its type, where values are labels.
    pub(crate) value: f64,
    pub(crate) stated: Quality,
    /// When the first message of it was received.
    pub(crate) received_ns: i64,
    /// Messages of it beyond the first.
    pub(crate) again: u64,
}

/// A recording as it was played.
pub(crate) struct Played {
    pub(crate) recording: &'static Recording,
    pub(crate) device_type: String,
    /// By device.
    pub(crate) said: BTreeMap<String, BTreeMap<i64, Said>>,
    /// From the first point of any device to the last one.
    pub(crate) span: (i64, i64),
}

impl Played {
    pub(crate) fn interval_ns(&self) -> i64 {
        self.recording.interval_s * S
    }

    pub(crate) fn devices(&self) -> Vec<&str> {
        self.said.keys().map(String::as_str).collect()
    }

    /// One of the devices.
    pub(crate) fn any(&self, random: &mut StdRng) -> &str {
        let devices = self.devices();
        devices[random.random_range(0..devices.len())]
    }

    /// A stretch of the time that was played, perhaps a little beyond, on whole seconds.
    pub(crate) fn some_time(&self, random: &mut StdRng) -> (i64, i64) {
        let (begin, end) = (self.span.0 / S, self.span.1 / S);
        let margin = 5 * self.recording.interval_s;
        let a = random.random_range(begin - margin..end + margin);
        let most = (end + margin - a).max(2);
        let most = if random.random_bool(0.5) {
            most
        } else {
            (most / 20).max(2)
        };
        let length = random.random_range(1..most);
        (a * S, (a + length) * S)
    }
}

impl Played {
    /// Sends points of a device that come long after others of their time: some between those, some in their place with another value
    /// or another word about them, and some behind the last one.
    pub(crate) async fn amend(&mut self, client: &Client, random: &mut StdRng, device: &str, from_ns: i64) {
        let interval = self.interval_ns();
        let device_type = self.device_type.clone();
        let said = self.said.get_mut(device).unwrap();
        let times: Vec<i64> = said.range(from_ns..).map(|(t, _)| *t).collect();
        let mut messages = Vec::new();
        for _ in 0..random.random_range(2..8) {
            let t = times[random.random_range(0..times.len())];
            let other = said[&times[random.random_range(0..times.len())]].value;
            let (t_ns, value) = match random.random_range(0..8) {
                0..3 => (t, other),
                3 => (t, said[&t].value),
                4..7 => (t + random.random_range(1..interval / S) * S, other),
                _ => (times[times.len() - 1] + random.random_range(1..4) * interval, other),
            };
            let stated = match random.random_range(0..8) {
                0 => Quality::Fail,
                1 => Quality::Suspect,
                _ => Quality::Unspecified,
            };
            messages.push(Message {
                t_ns,
                value,
                stated,
                received_ns: t_ns + 2 * LATENCY_S * S,
            });
        }
        deliver(client, (self.recording, &device_type, device), &messages, said).await;
    }

    /// Sends one more point.
    pub(crate) async fn say(&mut self, client: &Client, device: &str, t_ns: i64, value: f64) {
        let message = Message {
            t_ns,
            value,
            stated: Quality::Unspecified,
            received_ns: t_ns + S,
        };
        let said = self.said.get_mut(device).unwrap();
        deliver(client, (self.recording, &self.device_type, device), &[message], said).await;
    }
}

/// What is played, and how.
pub(crate) struct Stage {
    pub(crate) recordings: &'static [Recording],
    /// Begin of the names of their types, which are numbered.
    pub(crate) stem: &'static str,
    /// Lengths of rollups, by type in turn.
    pub(crate) rollups_s: Vec<Vec<u32>>,
    /// Each is shifted so that its last point is of this time, if one is given.
    pub(crate) end_ns: Option<i64>,
}

/// Plays every recording to a store: registers a type and devices for each, and sends their points.
pub(crate) async fn play(client: &Client, random: &mut StdRng, rollups_s: &[u32]) -> Vec<Played> {
    play_until(client, random, rollups_s, None).await
}

/// The same, each shifted so that its last point is of some time, if one is given.
pub(crate) async fn play_until(
    client: &Client,
    random: &mut StdRng,
    rollups_s: &[u32],
    end_ns: Option<i64>,
) -> Vec<Played> {
    let stage = Stage {
        recordings: &RECORDINGS,
        stem: "recorded",
        rollups_s: vec![rollups_s.to_vec()],
        end_ns,
    };
    play_on(client, random, &stage).await
}

/// Plays what is on a stage.
#[allow(clippy::print_stdout, reason = "whether recordings are there is seen nowhere else")]
pub(crate) async fn play_on(client: &Client, random: &mut StdRng, stage: &Stage) -> Vec<Played> {
    let mut all = Vec::new();
    for (number, recording) in stage.recordings.iter().enumerate() {
        let device_type = format!("{}-{number}", stage.stem);
        let rollups_s = &stage.rollups_s[number % stage.rollups_s.len()];
        client
            .apply_device_types(vec![made_type(recording, &device_type, rollups_s)])
            .await
            .unwrap();
        let recorded = recorded(recording.file, recording.series, recording.labels);
        let how = if recorded.is_some() { "recorded" } else { "made up" };
        let series = recorded.unwrap_or_else(|| made_up(recording, random));
        let ids: Vec<String> = (0..series.len()).map(|at| format!("{device_type}.{at}")).collect();
        let devices = ids.iter().enumerate().map(|(at, id)| v1::Device {
            place: Some(v1::Place {
                latitude_deg: 0.0,
                longitude_deg: east_deg(at),
            }),
            ..device(id, &device_type, &tags(at))
        });
        client.register_devices(devices.collect()).await.unwrap();
        let mut stretch = stretch(series, random);
        let last = stretch.iter().flatten().map(|(t, _)| *t).max().unwrap();
        let shift = stage.end_ns.map_or(0, |end| end - last);
        stretch.iter_mut().flatten().for_each(|(t, _)| *t += shift);
        let points = stretch.iter().map(Vec::len).sum::<usize>();
        println!(
            "{device_type}: {} {:?}: {points} points, {how}, rollups {rollups_s:?}",
            recording.file, recording.series[0].1
        );
        let mut said = BTreeMap::new();
        for (id, mut points) in ids.into_iter().zip(stretch) {
            (recording.made)(random, &mut points);
            let of_one = send(client, random, recording, &device_type, &id, points).await;
            said.insert(id, of_one);
        }
        let times = || said.values().flat_map(BTreeMap::keys).copied();
        let span = (times().min().unwrap(), times().max().unwrap());
        all.push(Played {
            recording,
            device_type,
            said,
            span,
        });
    }
    all
}

fn made_type(recording: &Recording, id: &str, rollups_s: &[u32]) -> v1::DeviceType {
    let limits = recording.limits;
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: Option<f64>| {
        if let Some(value) = value {
            attributes.insert(key.to_owned(), value.to_string());
        }
    };
    set("spike", limits.spike);
    set("rate_per_min", limits.rate_per_min);
    set("flat_s", limits.flat.map(|(over_s, _)| over_s as f64));
    set("flat_eps", limits.flat.map(|(_, within)| within));
    set("flat_ignore", limits.flat_ignore);
    let value_type = if recording.labels.is_empty() {
        ValueType::F64
    } else {
        ValueType::Enum
    };
    v1::DeviceType {
        id: id.into(),
        properties: vec![v1::Property {
            min: limits.min,
            max: limits.max,
            typical_min: limits.typical_min,
            typical_max: limits.typical_max,
            wrap: recording.wrap,
            missing: recording.missing.iter().map(ToString::to_string).collect(),
            attributes,
            labels: recording.labels.iter().map(ToString::to_string).collect(),
            ..property(VALUE, value_type, recording.kind)
        }],
        sample_interval_s: recording.interval_s,
        latency_s: LATENCY_S,
        bucket_span_s: recording.interval_s * 50 / 60 * 60,
        rollups_s: rollups_s.to_vec(),
        ..v1::DeviceType::default()
    }
}

/// Series of a file of recordings, by device and property; `None` where it is not there. `TIDEMARK_DATASETS` names the folder of
/// recordings, else it is looked for beside the checkout.
pub(crate) fn recorded(file: &str, wanted: &[(&str, &str)], labels: &[&str]) -> Option<Vec<Vec<(i64, f64)>>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("TIDEMARK_DATASETS").map_or(beside, PathBuf::from);
    let opened = std::fs::File::open(folder.join(file)).ok()?;
    let mut series: Vec<Vec<(i64, f64)>> = wanted.iter().map(|_| Vec::new()).collect();
    let lines = BufReader::new(zstd::Decoder::new(opened).unwrap()).lines();
    for line in lines.take(LINES_MAX) {
        let line = line.unwrap();
        let mut fields = line.split(',');
        let mut field = || fields.next().unwrap_or_default();
        let name = (field(), field());
        let Some(at) = wanted.iter().position(|other| *other == name) else {
            // A file is in the order of its series.
            match series.iter().all(|points| !points.is_empty()) {
                true => break,
                false => continue,
            }
        };
        let (ms, text) = (field().parse::<i64>().unwrap(), field());
        let label = labels.iter().position(|label| *label == text);
        let value = label.map_or_else(|| text.parse().unwrap(), |at| at as f64);
        series[at].push((ms * 1_000_000, value));
    }
    assert!(series.iter().all(|points| !points.is_empty()), "{file}");
    Some(series)
}

/// Waves with noise, a value an interval.
fn made_up(recording: &Recording, random: &mut StdRng) -> Vec<Vec<(i64, f64)>> {
    let mut one = || {
        let share = recording.limits.max.map_or(1.0, |max| max / 30.0);
        let value = |n: i64| match recording.labels.len() {
            0 => share * (20.0 + (n as f64 / 9.0).sin() * 8.0 + f64::from(random.random_range(0..40)) / 10.0),
            labels => (n / 7 % labels as i64) as f64,
        };
        let mut value = value;
        (0..1_500)
            .map(|n| (T0 + n * recording.interval_s * S, value(n)))
            .collect()
    };
    recording.series.iter().map(|_| one()).collect()
}

/// A part of all series, of about the same time.
fn stretch(series: Vec<Vec<(i64, f64)>>, random: &mut StdRng) -> Vec<Vec<(i64, f64)>> {
    let first = &series[0];
    let at = random.random_range(0..first.len().saturating_sub(POINTS_MAX).max(1));
    let (begin, end) = (first[at].0, first[(at + POINTS_MAX).min(first.len()) - 1].0);
    let within = |points: Vec<(i64, f64)>| {
        let mut some: Vec<_> = points
            .iter()
            .copied()
            .filter(|(t, _)| (begin..=end).contains(t))
            .collect();
        // A series may begin later.
        if some.is_empty() {
            some = points[..points.len().min(POINTS_MAX)].to_vec();
        }
        some
    };
    series.into_iter().map(within).collect()
}

/// A message of one point.
struct Message {
    t_ns: i64,
    value: f64,
    stated: Quality,
    received_ns: i64,
}

/// Sends points of a device: some are lost, some late, some come again with the same value or another one.
async fn send(
    client: &Client,
    random: &mut StdRng,
    recording: &Recording,
    device_type: &str,
    id: &str,
    points: Vec<(i64, f64)>,
) -> BTreeMap<i64, Said> {
    let mut lost = 0;
    let mut messages = Vec::new();
    for (t_ns, value) in points {
        if lost == 0 && random.random_range(0..120) == 0 {
            lost = random.random_range(1..30);
        }
        if lost > 0 {
            lost -= 1;
            continue;
        }
        let delay_s = match random.random_range(0..10) {
            0 => random.random_range(0..3 * LATENCY_S),
            _ => 5,
        };
        let stated = match random.random_range(0..60) {
            0 => Quality::Fail,
            1 => Quality::Missing,
            2 => Quality::Suspect,
            3 => Quality::Estimated,
            _ => Quality::Unspecified,
        };
        messages.push(Message {
            t_ns,
            value,
            stated,
            received_ns: t_ns + delay_s * S,
        });
    }
    let mut again = Vec::new();
    for message in &messages {
        if !random.random_bool(0.08) {
            continue;
        }
        let other = random.random_bool(0.5) && recording.labels.is_empty();
        again.push(Message {
            value: if other { message.value + 0.5 } else { message.value },
            ..*message
        });
    }
    let mut parts: Vec<&[Message]> = messages.chunks(random.random_range(20..120)).collect();
    parts.shuffle(random);
    parts.extend(again.chunks(60));
    let mut said: BTreeMap<i64, Said> = BTreeMap::new();
    for part in parts {
        deliver(client, (recording, device_type, id), part, &mut said).await;
    }
    said
}

/// Sends messages of a device in one batch.
async fn deliver(
    client: &Client,
    (recording, device_type, id): (&Recording, &str, &str),
    messages: &[Message],
    said: &mut BTreeMap<i64, Said>,
) {
    let mut batch = BatchBuilder::new(device_type);
    for message in messages {
        let value = match recording.labels.get(message.value as usize) {
            Some(label) => Value::Enum((*label).to_owned()),
            None => Value::F64(message.value),
        };
        batch
            .row(id, message.t_ns)
            .received_at(message.received_ns)
            .set_with_quality(VALUE, value, message.stated);
        let before = said.get(&message.t_ns).map_or(0, |said| said.again + 1);
        let stated = match recording.missing.contains(&message.value) {
            true => Quality::Missing,
            false => message.stated,
        };
        let now = Said {
            value: message.value,
            stated,
            received_ns: message.received_ns,
            again: before,
        };
        said.insert(message.t_ns, now);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}
