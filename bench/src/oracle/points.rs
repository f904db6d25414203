//! What the oracle writes: numbered points that can be checked without remembering them. Nothing here talks to a cluster.
//! Invariant: the number of a point decides its device, its time and its values; no two numbers of a producer share a
//! device and a time.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tidemark_client::{BatchBuilder, Value, v1};

/// Two times of neighbouring numbers lie this far apart.
const STEP_NS: i64 = 125_000_000;

/// Everything that numbers are made into points with; the first line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) device_type: String,
    /// Tells runs apart; part of the device ids.
    pub(crate) run: String,
    /// Time of number 0.
    pub(crate) start_ns: i64,
    pub(crate) producers: u32,
    pub(crate) devices_per_producer: u32,
    pub(crate) rows_per_batch: u64,
}

/// A point of the oracle, in whole numbers and bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) number: i64,
    pub(crate) producer: i64,
    pub(crate) check_bits: u64,
    pub(crate) label: String,
}

impl Plan {
    /// The type with one property for each kind of proof.
    pub(crate) fn device_type(&self) -> v1::DeviceType {
        let property = |id: &str, value_type: v1::ValueType| v1::Property {
            id: id.to_owned(),
            unit: "1".to_owned(),
            value_type: value_type.into(),
            kind: v1::Kind::Gauge.into(),
            max_len: if value_type == v1::ValueType::Text { 64 } else { 0 },
            ..Default::default()
        };
        v1::DeviceType {
            id: self.device_type.clone(),
            name: "Points of the oracle".to_owned(),
            properties: vec![
                property("number", v1::ValueType::I64),
                property("producer", v1::ValueType::I64),
                property("check", v1::ValueType::F64),
                v1::Property {
                    kind: v1::Kind::Event.into(),
                    ..property("label", v1::ValueType::Text)
                },
            ],
            sample_interval_s: 1,
            report_interval_s: 3_600,
            latency_s: 60,
            retention_days: 36_500,
            ..Default::default()
        }
    }

    /// Ids of all devices of a producer.
    pub(crate) fn devices(&self, producer: u32) -> impl Iterator<Item = String> + '_ {
        (0..self.devices_per_producer).map(move |device| format!("oracle-{}-{producer}-{device}", self.run))
    }

    /// The batch of a producer that begins with number `first`.
    pub(crate) fn batch(&self, producer: u32, first: u64) -> Result<v1::Batch> {
        let devices: Vec<String> = self.devices(producer).collect();
        let mut batch = BatchBuilder::new(&self.device_type);
        for number in first..first + self.rows_per_batch {
            let point = self.point(producer, number);
            batch
                .row(
                    &devices[(number % u64::from(self.devices_per_producer)) as usize],
                    self.observed_at_ns(number),
                )
                .set("number", point.number)
                .set("producer", point.producer)
                .set("check", Value::F64(f64::from_bits(point.check_bits)))
                .set("label", Value::Text(point.label));
        }
        Ok(batch.build()?)
    }

    /// Values of a number.
    pub(crate) fn point(&self, producer: u32, number: u64) -> Point {
        // any odd factor keeps the bits of neighbours far apart; the exponent stays finite
        let bits = (number ^ u64::from(producer) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let check = f64::from_bits(bits & 0x800f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
        Point {
            number: number as i64,
            producer: i64::from(producer),
            check_bits: check.to_bits(),
            label: format!("{producer}/{number}"),
        }
    }

    /// Time of a number.
    pub(crate) fn observed_at_ns(&self, number: u64) -> i64 {
        self.start_ns + number as i64 * STEP_NS
    }

    /// The number a time stands for, where it does.
    pub(crate) fn number_at(&self, observed_at_ns: i64) -> Option<u64> {
        let past = observed_at_ns - self.start_ns;
        (past >= 0 && past % STEP_NS == 0).then_some((past / STEP_NS) as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn plan() -> Plan {
        Plan {
            device_type: "oracle".to_owned(),
            run: "r1".to_owned(),
            start_ns: 1_700_000_000_000_000_000,
            producers: 2,
            devices_per_producer: 3,
            rows_per_batch: 10,
        }
    }

    #[test]
    fn time_and_number_are_two_names_of_one_thing() {
        let p = plan();
        assert_eq!(p.number_at(p.observed_at_ns(12_345)), Some(12_345));
        assert_eq!(
            (p.number_at(p.start_ns - STEP_NS), p.number_at(p.start_ns + 1)),
            (None, None)
        );
    }

    #[test]
    fn points_differ_and_are_finite() {
        let p = plan();
        let checks: std::collections::HashSet<u64> = (0..10_000).map(|n| p.point(1, n).check_bits).collect();
        assert_eq!(checks.len(), 10_000);
        assert!(checks.iter().all(|bits| f64::from_bits(*bits).is_finite()));
        assert_ne!(p.point(0, 5), p.point(1, 5));
    }

    #[test]
    fn a_batch_spreads_its_numbers_over_the_devices() {
        let batch = plan().batch(1, 20).unwrap();
        assert_eq!(batch.devices, ["oracle-r1-1-2", "oracle-r1-1-0", "oracle-r1-1-1"]);
        assert_eq!((batch.observed_at_ns.len(), batch.columns.len()), (10, 4));
    }
}
