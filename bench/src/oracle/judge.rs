//! Compares what came back with what was acknowledged. Pure; the rows may come in any order. Invariant: an acknowledged
//! number that did not come back once and right is counted exactly once: missing, doubled or wrong.

use std::ops::Range;

use serde::Serialize;
use tidemark_client::{Row, Value};

use super::points::{Plan, Point};

/// The findings over one producer, or the sum over all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Acknowledged points that had to be there.
    pub(crate) acknowledged: u64,
    pub(crate) missing: u64,
    pub(crate) doubled: u64,
    pub(crate) wrong: u64,
    /// Whole and right, but never acknowledged: the answer got lost, which is allowed.
    pub(crate) unacknowledged: u64,
    /// The first few findings in words.
    pub(crate) examples: Vec<String>,
}

/// Examples kept.
const EXAMPLES: usize = 10;

impl Verdict {
    /// True when every acknowledged point is there, once and right, and nothing else is wrong. Where nothing was acknowledged,
    /// nothing is proved.
    pub(crate) fn is_good(&self) -> bool {
        self.acknowledged > 0 && self.missing + self.doubled + self.wrong == 0
    }

    /// Adds the findings of another producer.
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.missing += other.missing;
        self.doubled += other.doubled;
        self.wrong += other.wrong;
        self.unacknowledged += other.unacknowledged;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text());
        }
    }
}

/// Judges the rows of one producer.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    plan: &'a Plan,
    producer: u32,
    /// How often each acknowledged number came back, two meaning more than once, three meaning wrong.
    seen: Vec<(Range<u64>, Vec<u8>)>,
    verdict: Verdict,
}

const TWICE: u8 = 2;
const WRONG: u8 = 3;

impl<'a> Judge<'a> {
    /// Expects these numbers of this producer.
    pub(crate) fn new(plan: &'a Plan, producer: u32, acknowledged: &[Range<u64>]) -> Self {
        let seen = acknowledged
            .iter()
            .map(|r| (r.clone(), vec![0; (r.end - r.start) as usize]))
            .collect();
        Self {
            plan,
            producer,
            seen,
            verdict: Verdict::default(),
        }
    }

    /// Takes one row of an answer.
    pub(crate) fn row(&mut self, row: &Row<'_>) {
        let Some(number) = self.plan.number_at(row.observed_at_ns) else {
            self.verdict.wrong += 1;
            self.verdict.note(|| {
                format!(
                    "{} at {}: no point was written at that time",
                    row.device, row.observed_at_ns
                )
            });
            return;
        };
        let right =
            point_of(row).as_ref() == Some(&self.plan.point(self.producer, number)) && self.is_home(row, number);
        let index = self.seen.partition_point(|(range, _)| range.end <= number);
        match self.seen.get_mut(index).filter(|(range, _)| range.contains(&number)) {
            Some((range, seen)) => {
                let seen = &mut seen[(number - range.start) as usize];
                *seen = if !right || *seen == WRONG {
                    WRONG
                } else {
                    (*seen + 1).min(TWICE)
                };
            }
            None if right => self.verdict.unacknowledged += 1,
            None => self.verdict.wrong += 1,
        }
        if !right {
            self.verdict.note(|| {
                format!(
                    "{} at {}: wrong values {:?}",
                    row.device, row.observed_at_ns, row.values
                )
            });
        }
    }

    fn is_home(&self, row: &Row<'_>, number: u64) -> bool {
        let device = number % u64::from(self.plan.devices_per_producer);
        self.plan.devices(self.producer).nth(device as usize).as_deref() == Some(row.device)
    }

    /// What it comes to.
    pub(crate) fn verdict(mut self) -> Verdict {
        for (range, seen) in std::mem::take(&mut self.seen) {
            self.verdict.acknowledged += range.end - range.start;
            for (number, times) in range.zip(seen) {
                let producer = self.producer;
                match times {
                    0 => {
                        self.verdict.missing += 1;
                        self.verdict
                            .note(|| format!("producer {producer}, number {number}: missing"));
                    }
                    TWICE => {
                        self.verdict.doubled += 1;
                        self.verdict
                            .note(|| format!("producer {producer}, number {number}: more than once"));
                    }
                    WRONG => self.verdict.wrong += 1,
                    _ => {}
                }
            }
        }
        self.verdict
    }
}

/// The values of a row, where it has all four and no more.
fn point_of(row: &Row<'_>) -> Option<Point> {
    let value = |property: &str| {
        row.values
            .iter()
            .find(|(id, _)| *id == property)
            .map(|(_, value)| value)
    };
    match (value("number")?, value("producer")?, value("check")?, value("label")?) {
        (Value::I64(number), Value::I64(producer), Value::F64(check), Value::Text(label)) if row.values.len() == 4 => {
            Some(Point {
                number: *number,
                producer: *producer,
                check_bits: check.to_bits(),
                label: label.clone(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::single_range_in_vec_init,
        reason = "tests; one range is meant"
    )]
    use super::*;
    use tidemark_client::{rows, v1};

    fn plan() -> Plan {
        Plan {
            device_type: "oracle".to_owned(),
            run: "r1".to_owned(),
            start_ns: 0,
            producers: 1,
            devices_per_producer: 3,
            rows_per_batch: 10,
        }
    }

    fn judge(acknowledged: &[Range<u64>], batches: &[v1::Batch]) -> Verdict {
        let plan = plan();
        let mut judge = Judge::new(&plan, 0, acknowledged);
        batches.iter().flat_map(rows).for_each(|row| judge.row(&row));
        judge.verdict()
    }

    fn counts(v: &Verdict) -> [u64; 5] {
        [v.acknowledged, v.missing, v.doubled, v.wrong, v.unacknowledged]
    }

    #[test]
    fn all_there_and_one_batch_more() {
        let (a, b) = (plan().batch(0, 0).unwrap(), plan().batch(0, 10).unwrap());
        let v = judge(&[0..10], &[b, a]);
        assert_eq!(counts(&v), [10, 0, 0, 0, 10]);
        assert!(v.is_good());
    }

    #[test]
    fn nothing_acknowledged_is_nothing_proved() {
        let v = judge(&[], &[plan().batch(0, 0).unwrap()]);
        assert_eq!(counts(&v), [0, 0, 0, 0, 10]);
        assert!(!v.is_good());
    }

    #[test]
    fn a_lost_batch() {
        let v = judge(&[0..10, 30..40], &[plan().batch(0, 30).unwrap()]);
        assert_eq!(counts(&v), [20, 10, 0, 0, 0]);
        assert_eq!(v.examples[0], "producer 0, number 0: missing");
    }

    #[test]
    fn a_doubled_batch() {
        let a = plan().batch(0, 0).unwrap();
        assert_eq!(counts(&judge(&[0..10], &[a.clone(), a])), [10, 0, 10, 0, 0]);
    }

    #[test]
    fn a_value_that_differs_by_a_bit_and_a_value_that_went_missing() {
        let mut a = plan().batch(0, 0).unwrap();
        if let Some(v1::values::Kind::F64(check)) = a.columns[2].values.as_mut().and_then(|v| v.kind.as_mut()) {
            check.values[4] = f64::from_bits(check.values[4].to_bits() ^ 1);
        }
        assert_eq!(counts(&judge(&[0..10], &[a.clone()])), [10, 0, 0, 1, 0]);
        a.columns.pop();
        assert_eq!(counts(&judge(&[0..10], &[a])), [10, 0, 0, 10, 0]);
    }

    #[test]
    fn a_point_on_a_foreign_device_or_at_a_foreign_time() {
        let mut a = plan().batch(0, 0).unwrap();
        a.devices.swap(0, 1);
        a.observed_at_ns[9] += 1;
        // numbers 2, 5 and 8 stand where they belong; the time of 9 belongs to nothing
        assert_eq!(counts(&judge(&[0..10], &[a])), [10, 1, 0, 7, 0]);
    }
}
