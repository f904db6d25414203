//! Generated records: one seed, one series, the same everywhere.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod recorded;

use tidemark_series::{Bitmap, Column, PropertyNumber, Records, Values};

/// A small deterministic generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

fn times(rng: &mut Rng, rows: usize) -> Vec<i64> {
    let unit = [1, 1_000_000, 1_000_000_000, 900_000_000_000][rng.below(4) as usize];
    let jitter = [1, 1, 3, 1000][rng.below(4) as usize];
    let mut at = 1_700_000_000_000_000_000 + rng.below(1 << 40) as i64;
    if rng.chance(10) {
        at = i64::MIN + 5;
    }
    (0..rows)
        .map(|_| {
            at += unit * (1 + rng.below(jitter) as i64);
            at
        })
        .collect()
}

/// Doubles of one of many kinds.
pub fn floats(rng: &mut Rng, count: usize) -> Vec<f64> {
    let kind = rng.below(9);
    let mut level = rng.below(100_000) as i64;
    let odd = [
        f64::NAN,
        -0.0,
        f64::INFINITY,
        f64::from_bits(0x7ff0_0000_0000_0001),
        5e-324,
        f64::MAX,
    ];
    (0..count)
        .map(|_| {
            level += rng.below(9) as i64 - 4;
            match kind {
                0 => level as f64,
                1 => level as f64 / 10.0,
                2 => level as f64 / 1000.0,
                3 if rng.chance(20) => odd[rng.below(6) as usize],
                3 => level as f64 / 100.0,
                4 => f64::from_bits(
                    (level as f64 / 1000.0)
                        .to_bits()
                        .wrapping_add(rng.below(3))
                        .wrapping_sub(1),
                ),
                5 => (level.abs() as f64).sqrt(),
                6 => f64::from_bits(rng.next()),
                7 => rng.next() as i64 as f64 / 10f64.powi(rng.below(22) as i32),
                _ => 21.5,
            }
        })
        .collect()
}

/// Integers of one of many kinds.
pub fn ints(rng: &mut Rng, count: usize) -> Vec<i64> {
    let kind = rng.below(6);
    let mut level = rng.below(1000) as i64;
    (0..count)
        .map(|_| {
            level += rng.below(5) as i64;
            match kind {
                0 => level,
                1 => rng.next() as i64,
                2 => [3, 70_000, -9][rng.below(3) as usize],
                3 => level / 50,
                4 => [i64::MIN, i64::MAX, 0][rng.below(3) as usize],
                _ => level * 156 + 7,
            }
        })
        .collect()
}

pub fn texts(rng: &mut Rng, count: usize) -> Vec<String> {
    let kind = rng.below(3);
    let one = |rng: &mut Rng| match kind {
        0 => ["open", "shut", "", "größer"][rng.below(4) as usize].to_owned(),
        1 => format!("gate {} says {}", rng.below(5), rng.below(10_000)),
        _ => format!("{:x}", rng.next()),
    };
    (0..count).map(|_| one(rng)).collect()
}

/// Values of the type that property `number` always has.
pub fn values(rng: &mut Rng, number: u32, count: usize) -> Values {
    match number % 5 {
        0 => Values::F64(floats(rng, count)),
        1 => Values::I64(ints(rng, count)),
        2 => Values::Bool((0..count).map(|_| rng.chance(3)).collect()),
        3 => Values::Enum(
            (0..count)
                .map(|_| if rng.chance(50) { u32::MAX } else { rng.below(7) as u32 })
                .collect(),
        ),
        _ => Values::Text(texts(rng, count)),
    }
}

pub fn column(rng: &mut Rng, number: u32, rows: usize) -> Column {
    let mut presence = None;
    let mut count = rows;
    if rng.chance(3) {
        let rare = 1 + rng.below(9);
        let mut map = Bitmap::new(rows);
        (0..rows).for_each(|row| map.set(row, rng.chance(rare)));
        count = map.count_ones();
        presence = Some(map);
    }
    let quality = rng
        .chance(4)
        .then(|| (0..count).map(|_| rng.below(8) as u8 / 3).collect());
    Column {
        property: PropertyNumber(number),
        presence,
        values: values(rng, number, count),
        quality,
    }
}

/// Normalised records of up to eight columns.
pub fn records(rng: &mut Rng, rows: usize) -> Records {
    let observed_at = times(rng, rows);
    let delay = rng.below(1 << 30) as i64;
    let received_at = match rng.below(3) {
        0 => observed_at.iter().map(|t| t.wrapping_add(delay)).collect(),
        1 => vec![1_700_000_123_456_789_012; rows],
        _ => observed_at
            .iter()
            .map(|t| t.wrapping_add(rng.below(1 << 28) as i64))
            .collect(),
    };
    let mixed = rng.chance(3);
    let report_kind = (0..rows).map(|_| if mixed { rng.below(3) as u8 } else { 1 }).collect();
    let columns = (0..rng.below(8) as u32)
        .map(|i| i * 3 + rng.below(3) as u32)
        .collect::<Vec<_>>();
    let columns = columns.into_iter().map(|number| column(rng, number, rows)).collect();
    Records {
        observed_at,
        received_at,
        report_kind,
        columns,
        repeats: Vec::new(),
    }
    .normalise()
}

/// Records of a shared small grid of times and properties, so that several overlap.
pub fn overlapping(rng: &mut Rng, rows: usize, grid: u64) -> Records {
    let observed_at: Vec<i64> = (0..rows).map(|_| rng.below(grid) as i64 * 60_000_000_000).collect();
    let received_at = vec![rng.next() as i64 >> 1; rows];
    let report_kind = vec![rng.below(4) as u8; rows];
    let columns = (0..5u32).filter(|_| !rng.chance(3)).collect::<Vec<_>>();
    let columns = columns.into_iter().map(|number| column(rng, number, rows)).collect();
    Records {
        observed_at,
        received_at,
        report_kind,
        columns,
        repeats: Vec::new(),
    }
    .normalise()
}
