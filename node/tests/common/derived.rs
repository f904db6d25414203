//! Series that are made of recorded ones, for what none of these has as it is: counters that turn over, means, states of several
//! machines, values that say that there is none, and many devices of one type.
//! Never here: sending. Invariant: times stay those of the recording.

use rand::RngExt as _;
use rand::rngs::StdRng;
use tidemark_client::v1::Kind;

use super::recordings::{Limits, NO_LIMITS, PLAIN, Recording};

/// Values by which the light sensors say that they have none.
const DARK: [f64; 2] = [-9_999.0, 65_535.0];

/// Machines of one time.
const MACHINES: &[(&str, &str)] = &[
    ("ec2_cpu_utilization_24ae8d", "value"),
    ("ec2_cpu_utilization_53ea38", "value"),
    ("ec2_cpu_utilization_5f5533", "value"),
    ("ec2_cpu_utilization_fe7f93", "value"),
    ("rds_cpu_utilization_cc0c53", "value"),
];

/// Energy and rain summed up until a counter turns over, wind likewise, means of machines, light with sensors that fail, machines that
/// are idle, busy or full, rain in twenty gauges side by side, and rooms that may stay as warm as they should be.
pub(crate) static DERIVED: [Recording; 8] = [
    Recording {
        file: "steel_energy.csv.zst",
        series: &[("plant", "usage_kwh")],
        kind: Kind::Counter,
        interval_s: 900,
        wrap: Some(1_000.0),
        made: |random, points| sum_up(random, points, 1_000.0),
        ..PLAIN
    },
    Recording {
        file: "tharandt_rain.csv.zst",
        series: &[
            ("davis1", "rain_mm"),
            ("davis10", "rain_mm"),
            ("davis11", "rain_mm"),
            ("davis12", "rain_mm"),
        ],
        kind: Kind::Counter,
        interval_s: 60,
        wrap: Some(8.0),
        made: |random, points| sum_up(random, points, 8.0),
        ..PLAIN
    },
    Recording {
        file: "beijing_air.csv.zst",
        series: &[("us_embassy", "wind_cum")],
        kind: Kind::Counter,
        interval_s: 3_600,
        wrap: Some(100.0),
        made: |_, points| points.iter_mut().for_each(|(_, value)| *value %= 100.0),
        ..PLAIN
    },
    Recording {
        file: "nab_machines.csv.zst",
        series: MACHINES,
        kind: Kind::Mean,
        interval_s: 300,
        limits: Limits {
            min: Some(0.1),
            typical_min: Some(0.12),
            typical_max: Some(60.0),
            spike: Some(20.0),
            ..NO_LIMITS
        },
        ..PLAIN
    },
    Recording {
        file: "smart_home.csv.zst",
        series: &[
            ("Bathroom", "Brightness"),
            ("Kitchen", "Brightness"),
            ("Room1", "Brightness"),
            ("Room2", "Brightness"),
        ],
        interval_s: 600,
        limits: Limits {
            min: Some(0.0),
            typical_max: Some(800.0),
            flat: Some((3 * 3_600, 2.0)),
            flat_ignore: Some(0.0),
            ..NO_LIMITS
        },
        missing: &DARK,
        made: fail_now_and_then,
        ..PLAIN
    },
    Recording {
        file: "nab_machines.csv.zst",
        series: MACHINES,
        kind: Kind::State,
        interval_s: 300,
        labels: &["idle", "busy", "full"],
        made: |_, points| tell_load(points),
        ..PLAIN
    },
    Recording {
        file: "tharandt_rain.csv.zst",
        series: &[
            ("davis1", "rain_mm"),
            ("davis10", "rain_mm"),
            ("davis11", "rain_mm"),
            ("davis12", "rain_mm"),
            ("davis13", "rain_mm"),
            ("davis14", "rain_mm"),
            ("davis15", "rain_mm"),
            ("davis16", "rain_mm"),
            ("davis17", "rain_mm"),
            ("davis18", "rain_mm"),
            ("davis19", "rain_mm"),
            ("davis2", "rain_mm"),
            ("davis20", "rain_mm"),
            ("davis3", "rain_mm"),
            ("davis4", "rain_mm"),
            ("davis5", "rain_mm"),
            ("davis6", "rain_mm"),
            ("davis7", "rain_mm"),
            ("davis8", "rain_mm"),
            ("davis9", "rain_mm"),
        ],
        kind: Kind::Increment,
        interval_s: 60,
        limits: Limits {
            max: Some(3.0),
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
            ("Room2", "Temperature"),
            ("Room3", "Temperature"),
            ("Toilet", "Temperature"),
        ],
        interval_s: 600,
        limits: Limits {
            min: Some(17.0),
            typical_min: Some(19.0),
            flat: Some((3 * 3_600, 0.2)),
            flat_ignore: Some(21.5),
            ..NO_LIMITS
        },
        ..PLAIN
    },
];

/// What a counter shows that turns over, and that is set to something else now and then.
fn sum_up(random: &mut StdRng, points: &mut [(i64, f64)], wrap: f64) {
    let anything = |random: &mut StdRng| wrap * f64::from(random.random_range(0..100)) / 100.0;
    let mut shown = anything(random);
    for (_, value) in points {
        shown = match random.random_range(0..60) {
            0 => anything(random),
            _ => (shown + *value) % wrap,
        };
        *value = (shown * 1e3).round() / 1e3;
    }
}

/// Some values become others by which the device says that it has none, or that it cannot tell.
fn fail_now_and_then(random: &mut StdRng, points: &mut [(i64, f64)]) {
    for (_, value) in points {
        *value = match random.random_range(0..30) {
            0 => DARK[0],
            1 => DARK[1],
            2 => -1.5,
            _ => *value,
        };
    }
}

/// Idle below the larger half, full above nine tenths of all values.
fn tell_load(points: &mut [(i64, f64)]) {
    let mut sorted: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    sorted.sort_by(f64::total_cmp);
    let tenth = |tenth: usize| sorted[(sorted.len() - 1) * tenth / 10];
    let (busy, full) = (tenth(5), tenth(9));
    for (_, value) in points {
        *value = f64::from(u8::from(*value > busy) + u8::from(*value > full));
    }
}
