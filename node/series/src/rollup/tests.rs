//! Rollups against the buckets that they were made of.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests; sizes are printed")]
use super::*;
use crate::bitmap::Bitmap;
use crate::block::Accepted;
use crate::checks::Checks;
use crate::checks::{Choice, Stated, Suspects};
use crate::needs::Needs;
use crate::partial::Function;
use crate::record::{Column, Values};
use crate::sequence::{Between, Feed, Gathered, Sequence, SequenceFunction};

const LENGTH: i64 = 100;
const TYPES: [ValueType; 4] = [ValueType::F64, ValueType::I64, ValueType::Bool, ValueType::Enum];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Records with a property of each type, some of bad quality, some out of range, some with gaps.
fn records(random: &mut Random) -> Records {
    let mut times: Vec<i64> = (0..1 + random.below(300))
        .map(|_| random.below(6_000) as i64 - 3_000)
        .collect();
    times.sort_unstable();
    times.dedup();
    let mut columns = Vec::new();
    for (number, of) in (1..).zip(TYPES) {
        let mut presence = Bitmap::new(times.len());
        let mut values = Values::empty(of);
        let mut quality = Vec::new();
        for row in 0..times.len() {
            if random.below(5) == 0 {
                continue;
            }
            presence.set(row, true);
            quality.push(if random.below(9) == 0 { 3 } else { 0 });
            let number = random.below(1_100);
            match &mut values {
                Values::F64(values) if number == 7 => values.push(f64::NAN),
                Values::F64(values) => values.push(number as f64 / 10.0),
                Values::I64(values) if number < 20 => values.push(i64::MAX),
                Values::I64(values) => values.push(number as i64 - 50),
                Values::Bool(values) => values.push(number.is_multiple_of(2)),
                Values::Enum(values) => values.push(number as u32 % 5),
                Values::Text(_) => {}
            }
        }
        if !values.is_empty() {
            columns.push(Column {
                property: PropertyNumber(number),
                presence: (values.len() < times.len()).then_some(presence),
                values,
                quality: Some(quality).filter(|quality| quality.iter().any(|one| *one > 0)),
            });
        }
    }
    Records {
        received_at: times.clone(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
        observed_at: times,
        columns,
    }
    .without_empty_rows()
}

fn answers(partials: ByWindow) -> Vec<(i64, String)> {
    let functions = [
        Function::Count,
        Function::Sum,
        Function::Min,
        Function::Max,
        Function::Avg,
        Function::First,
        Function::Last,
        Function::Spread,
    ];
    let answer = |(window, partial): (i64, Partial)| {
        let finished = functions.map(|function| partial.finish(function));
        (window, format!("{finished:?}"))
    };
    partials.into_sorted().into_iter().map(answer).collect()
}

#[test]
fn a_rollup_answers_as_its_bucket_does() {
    let checks = Checks {
        min: Some(0.0),
        max: Some(100.0),
        ..Checks::default()
    };
    let nothing = Checks::default();
    for seed in 1..60 {
        let mut random = Random(seed);
        let value = bucket::encode(&records(&mut random));
        let choice = |number: u32| Choice {
            accepted: Accepted(!(1 << 3)),
            doubted: Stated::NOTHING.suspects,
            checks: if number == 1 { &checks } else { &nothing },
            suspect: Suspects::Count,
        };
        let edge = |number: u32| {
            if number.is_multiple_of(2) {
                Edge::EndClosed
            } else {
                Edge::StartClosed
            }
        };
        let rolled: Vec<_> = (1..=4)
            .map(|number| Rolled {
                property: PropertyNumber(number),
                edge: edge(number),
                choice: choice(number),
                follows: None,
            })
            .collect();
        let formats = [Format::PointsOnly, Format::WithSequences, Format::WithSlots(7)];
        let format = formats[(seed % 3) as usize];
        let rollup = roll_up(&value, format, (seed, LENGTH), &rolled).unwrap().unwrap();
        let kept = Rollup::open(&rollup, LENGTH).unwrap();
        assert_eq!(kept.rule, seed);
        for (number, of) in (1..).zip(TYPES) {
            let from_ns = (random.below(40) as i64 - 30) * LENGTH;
            let windows = Windows {
                from_ns,
                to_ns: from_ns + random.below(50) as i64 * LENGTH,
                step_ns: (random.below(4) > 0).then(|| (1 + random.below(7)) as i64 * LENGTH),
                origin_ns: random.below(5) as i64 * LENGTH,
                borders: None,
                edge: edge(number),
            };
            let (mut expected, mut dropped) = (ByWindow::default(), 0);
            for block in bucket::blocks(&value) {
                let block = block.unwrap();
                let mut folding = block.folding();
                let property = PropertyNumber(number);
                folding
                    .fold(property, &windows, Needs::All, &choice(number), &mut expected)
                    .unwrap();
                dropped += folding.dropped();
            }
            let mut found = ByWindow::default();
            let left_out = fold(&kept, (PropertyNumber(number), of), &windows, &mut found).unwrap();
            assert_eq!(left_out, dropped, "seed {seed}, property {number}, {windows:?}");
            assert_eq!(
                answers(found),
                answers(expected),
                "seed {seed}, property {number}, {windows:?}"
            );
        }
    }
}

#[test]
fn windows_that_were_deleted_from_are_gone() {
    let times = [0, 50, 100, 250, 300];
    let records = Records {
        observed_at: times.to_vec(),
        received_at: times.to_vec(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
        columns: vec![Column {
            property: PropertyNumber(1),
            presence: None,
            values: Values::F64(vec![1.0; times.len()]),
            quality: None,
        }],
    };
    let rolled = [Rolled {
        property: PropertyNumber(1),
        edge: Edge::StartClosed,
        choice: Choice::ALL,
        follows: None,
    }];
    let made = |format| {
        roll_up(&bucket::encode(&records), format, (7, LENGTH), &rolled)
            .unwrap()
            .unwrap()
    };
    let rollup = made(Format::PointsOnly);
    let starts = |rollup: &[u8]| {
        bucket::decode(Rollup::open(rollup, LENGTH).unwrap().windows, None)
            .unwrap()
            .observed_at
    };
    assert_eq!(starts(&rollup), [0, 100, 200, 300]);
    let check = |from_ns, to_ns, expected: &[i64]| {
        let left = without(&rollup, LENGTH, from_ns, to_ns).unwrap();
        assert_eq!(
            left.map_or(Vec::new(), |left| starts(&left)),
            expected,
            "{from_ns} to {to_ns}"
        );
    };
    check(-50, 0, &[0, 100, 200, 300]);
    check(110, 120, &[0, 200, 300]);
    check(150, 201, &[0, 300]);
    check(i64::MIN, i64::MAX, &[]);
    check(500, 600, &[0, 100, 200, 300]);
    assert!(Rollup::open(&rollup[..5], LENGTH).is_err() && Rollup::open(&[4; 40], LENGTH).is_err());
    assert!(without(&rollup[..20], LENGTH, 0, 1).is_err());
}

/// A property of which each bucket has some points.
struct Told {
    value_type: ValueType,
    follows: Follows,
    points: Vec<(i64, f64)>,
}

const BUCKET: i64 = 6 * LENGTH;
const MAX_GAP: i64 = 30;

fn column_of(told: &Told, numbers: &[f64]) -> Values {
    match told.value_type {
        ValueType::F64 => Values::F64(numbers.to_vec()),
        ValueType::I64 => Values::I64(numbers.iter().map(|number| *number as i64).collect()),
        ValueType::Bool => Values::Bool(numbers.iter().map(|number| *number > 0.0).collect()),
        _ => Values::Enum(numbers.iter().map(|number| *number as u32).collect()),
    }
}

fn records_of(told: &Told, points: &[(i64, f64)]) -> Records {
    let times: Vec<i64> = points.iter().map(|(t_ns, _)| *t_ns).collect();
    let numbers: Vec<f64> = points.iter().map(|(_, number)| *number).collect();
    Records {
        received_at: times.clone(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
        observed_at: times,
        columns: vec![Column {
            property: PropertyNumber(1),
            presence: None,
            values: column_of(told, &numbers),
            quality: None,
        }],
    }
}

fn told(random: &mut Random) -> Told {
    let (value_type, follows) = [
        (ValueType::F64, Follows::Linear(MAX_GAP)),
        (ValueType::I64, Follows::Linear(MAX_GAP)),
        (ValueType::F64, Follows::Held(MAX_GAP)),
        (ValueType::F64, Follows::Counter(None)),
        (ValueType::I64, Follows::Counter(Some(100.0))),
        (ValueType::Bool, Follows::State(MAX_GAP)),
        (ValueType::Enum, Follows::State(MAX_GAP)),
    ][random.below(7) as usize];
    let (mut at, mut counter) = (-1_500, 0.0);
    let mut points = Vec::new();
    let even = random.below(3) == 0;
    while at < 1_500 {
        at += match random.below(if even { 40 } else { 9 }) {
            0 => 1 + random.below(150) as i64,
            1..8 if !even => 1 + random.below(40) as i64,
            _ => 10,
        };
        let number = match (follows, value_type) {
            (Follows::Counter(_), _) => {
                counter += random.below(40) as f64 / 4.0;
                counter = if counter > 100.0 { counter - 100.0 } else { counter };
                counter
            }
            (_, ValueType::F64) if random.below(30) == 0 => f64::NAN,
            (Follows::Linear(_), _) => random.below(1_000) as f64 / 10.0 - 30.0,
            (Follows::Held(_), _) => random.below(3) as f64 / 10.0,
            _ => f64::from(random.below(8) == 0),
        };
        points.push((at, number));
    }
    Told {
        value_type,
        follows,
        points,
    }
}

fn asked(follows: Follows) -> (Gathered, Vec<SequenceFunction>) {
    use SequenceFunction::{Delta, Duration, Increase, Integral, Mode, Rate, TimeWeightedAvg, Transitions};
    let nothing = Gathered {
        max_gap_ns: MAX_GAP,
        now_ns: i64::MAX,
        ..Gathered::default()
    };
    let area = |between| Gathered {
        area: Some(between),
        ..nothing.clone()
    };
    match follows {
        Follows::Linear(_) => {
            let gathered = Gathered {
                steps: true,
                ..area(Between::Linear)
            };
            (gathered, vec![Delta, Integral, TimeWeightedAvg])
        }
        Follows::Held(_) => (area(Between::Held), vec![TimeWeightedAvg, Integral]),
        Follows::Counter(wrap) => {
            let gathered = Gathered {
                steps: true,
                wrap,
                ..nothing
            };
            (gathered, vec![Increase, Rate])
        }
        Follows::State(_) => {
            let gathered = Gathered {
                states: true,
                ..area(Between::Held)
            };
            (
                gathered,
                vec![TimeWeightedAvg, Duration(0), Duration(1), Transitions, Mode],
            )
        }
    }
}

/// What windows answer, followed from points, or from the rollups of some buckets.
fn followed(told: &Told, windows: &Windows, mut as_rollup: impl FnMut() -> bool) -> Vec<(i64, String)> {
    let (gathered, functions) = asked(told.follows);
    let mut feed = Feed::new(&gathered, windows);
    let mut out = ByWindow::<Sequence>::default();
    let rolled = [Rolled {
        property: PropertyNumber(1),
        edge: Edge::StartClosed,
        choice: Choice::ALL,
        follows: Some(told.follows),
    }];
    let wanted = Wanted {
        property: PropertyNumber(1),
        value_type: told.value_type,
        follows: Some(told.follows),
    };
    for points in told
        .points
        .chunk_by(|a, b| a.0.div_euclid(BUCKET) == b.0.div_euclid(BUCKET))
    {
        let records = records_of(told, points);
        if as_rollup() {
            let value = bucket::encode(&records);
            let made = roll_up(&value, Format::WithSlots(7), (1, LENGTH), &rolled)
                .unwrap()
                .unwrap();
            let rows = Rollup::open(&made, LENGTH).unwrap().rows(&wanted).unwrap();
            rows.iter()
                .filter_map(|row| row.run.as_ref())
                .for_each(|run| feed.run(run, &mut out));
        } else {
            for (at, (t_ns, _)) in points.iter().enumerate() {
                feed.point(*t_ns, records.columns[0].values.get(at).unwrap(), &mut out);
            }
        }
    }
    feed.end(&mut out);
    let answers = |(window, sequence): (i64, Sequence)| {
        let answers = functions.iter().map(|function| sequence.finish(*function, 7).unwrap());
        (window, format!("{:?}", answers.collect::<Vec<_>>()))
    };
    let nothing = format!("{:?}", functions.iter().map(|_| None::<u8>).collect::<Vec<_>>());
    let all = out.into_sorted().into_iter().map(answers);
    all.filter(|(_, answers)| *answers != nothing).collect()
}

#[test]
fn windows_that_are_followed_answer_as_their_points_do() {
    let mut compared = 0;
    for seed in 1..400 {
        let mut random = Random(seed);
        let told = told(&mut random);
        let from_ns = (random.below(20) as i64 - 10) * LENGTH;
        let windows = Windows {
            from_ns,
            to_ns: from_ns + random.below(20) as i64 * LENGTH,
            step_ns: (random.below(4) > 0).then(|| (1 + random.below(7)) as i64 * LENGTH),
            origin_ns: random.below(5) as i64 * LENGTH,
            borders: None,
            edge: Edge::StartClosed,
        };
        let expected = followed(&told, &windows, || false);
        let found = followed(&told, &windows, || random.below(4) > 0);
        assert_eq!(found, expected, "seed {seed}, {windows:?}");
        compared += expected.len();
    }
    assert!(compared > 500, "{compared} windows");
}

/// Points every 10 for one bucket.
fn even(value_type: ValueType, follows: Follows, number: impl Fn(i64) -> f64) -> Told {
    let points = (0..BUCKET / 10).map(|at| (at * 10, number(at)));
    Told {
        value_type,
        follows,
        points: points.collect(),
    }
}

#[test]
fn sequences_of_what_is_regular_cost_nothing() {
    let check = |told: &Told, length_ns: i64| {
        let value = bucket::encode(&records_of(told, &told.points));
        let rolled = [Rolled {
            property: PropertyNumber(1),
            edge: Edge::StartClosed,
            choice: Choice::ALL,
            follows: Some(told.follows),
        }];
        let bytes = |format| roll_up(&value, format, (1, length_ns), &rolled).unwrap().unwrap().len();
        let (first, second) = (bytes(Format::PointsOnly), bytes(Format::WithSequences));
        println!(
            "{:?}, windows of {}: {first} bytes, with sequences {second}",
            told.follows,
            length_ns / 10
        );
        assert!(second <= first + 8, "{:?}: {first}, {second}", told.follows);
    };
    let gap = 30;
    let level = even(ValueType::F64, Follows::Linear(gap), |at| {
        (at * 7_919 % 500) as f64 / 100.0
    });
    check(&level, 10);
    check(&level, LENGTH);
    check(
        &even(ValueType::I64, Follows::Counter(None), |at| (at * at) as f64),
        LENGTH,
    );
    check(
        &even(ValueType::F64, Follows::Counter(None), |at| at as f64 * 0.5),
        LENGTH,
    );
    check(&even(ValueType::Bool, Follows::State(gap), |_| 1.0), LENGTH);
    check(
        &even(ValueType::Enum, Follows::State(gap), |at| (at / 10 % 3) as f64),
        LENGTH,
    );
}

/// Records of four types, of which one value is out of range.
fn known_records() -> Records {
    let times = [5, 10, 15, 20, 130, 255];
    let column = |number: u32, values: Values| Column {
        property: PropertyNumber(number),
        presence: None,
        values,
        quality: None,
    };
    Records {
        observed_at: times.to_vec(),
        received_at: times.to_vec(),
        report_kind: vec![0; times.len()],
        repeats: Vec::new(),
        columns: vec![
            column(1, Values::F64(vec![0.1, 0.2, 700.0, 0.3, 5.5, 0.25])),
            column(2, Values::I64(vec![7, i64::MAX, i64::MAX, 8, 9, -1])),
            column(3, Values::Bool(vec![true, true, false, true, false, true])),
            column(4, Values::Enum(vec![2, 2, 2, 2, 1, 0])),
        ],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) const FIRST_VERSION: &str = "010201000000000000010d030000000000000000c8010001200302010101100200040001000206000100600f000100020600\
        0100020600010002060001000206000200030002000400020102060200040002000401020004000200040002000400020004\
        0002000300020004000201020602000400020004030300040003000400020003000200040702000402040003000400030004\
        0003000400030002000300020004c35b35ef01c8010100010802020211780aeacb00060080808080808080c03c0800010113\
        14b808d110113c0b08ca201314b808d110113c0b08ca20020a321328141e010208020101131e0b07130e041713100215130e\
        041713100215020a321328141e010408020203080002130800010508000105020a321328141e080202030204010204010204\
        01020401020a321328141e";
pub(super) const SECOND_VERSION: &str = "02020100000000000041010000010d030000000000000000c801000228030201020101010180200201030001020102000102\
        600a00010201020001020102000101010300010201020002010300020202000202020001020203000102600af41f02000400\
        02020201020202000202020002000400020202000200030002020200020202f61f0200040002020203030004000302020002\
        000300020202170202020002020200020202000202020002020200020202da1f020004020402020004020200040003000402\
        0200020003000202029c18003201c80101000301020603010c018080808080808080790102010602026c0106020a32012801\
        02018a050180808080808080887908020101011e010e0110130e04170110020a320128010408020203010608000105010202\
        0a320128010a0102010201140102010608020203010401040204010104020a320128010d01ff000000000000000000010201\
        01020337219be2010001ba0e";

pub(super) const THIRD_VERSION: &str = "030201000000000000020000000000000059010000010d030000000000000000c80100022c03020102010101018020020103\
        0001020102000102600a00010201020001020102000101010300010201020002010300020202000202020001020203000102\
        600a08020202eb1f02000400020202010202020002020200020004000202020002000300020202000202020a020202eb1f02\
        000400020202030300040003020200020003000202020b0202020b0202020002020200020202000202020002020200020202\
        da1f0200040204020200040202000400030004020200020003000202020b02020205573fd701c80101000301020603010c01\
        8080808080808080790102010602026c0106020a3201280102018a0501808080808080808879010c08020101011e010e0110\
        130e04170110020a3201280104010c080202030106080001050102020a320128010a010a0102010201140102010608020203\
        010401040204010104020a320128010a010d01ff00000000000000000001020101020337219be2010001ba0e";

/// What each version made of known records.
#[test]
fn bytes_stay_as_they_are() {
    let checks = Checks {
        max: Some(100.0),
        ..Checks::default()
    };
    let jumps = Checks {
        spike: Some(1.0),
        ..checks.clone()
    };
    let made = |format, checks_of_the_first: &Checks, last: f64| {
        let follows = [
            Follows::Linear(60),
            Follows::Counter(None),
            Follows::State(60),
            Follows::State(60),
        ];
        let rolled = |(number, follows): (u32, Follows)| Rolled {
            property: PropertyNumber(number),
            edge: if number == 2 {
                Edge::EndClosed
            } else {
                Edge::StartClosed
            },
            choice: Choice {
                accepted: Accepted::ALL,
                doubted: Stated::NOTHING.suspects,
                checks: if number == 1 { checks_of_the_first } else { &checks },
                suspect: Suspects::Count,
            },
            follows: Some(follows),
        };
        let rolled: Vec<_> = (1..=4).zip(follows).map(rolled).collect();
        let mut records = known_records();
        if let Values::F64(values) = &mut records.columns[0].values {
            values[5] = last;
        }
        let value = bucket::encode(&records);
        hex(&roll_up(&value, format, (0x0102, LENGTH), &rolled).unwrap().unwrap())
    };
    assert_eq!(made(Format::PointsOnly, &checks, 0.25), FIRST_VERSION);
    assert_eq!(made(Format::WithSequences, &jumps, 9.25), SECOND_VERSION);
    assert_eq!(made(Format::WithSlots(2), &jumps, 9.25), THIRD_VERSION);
}
