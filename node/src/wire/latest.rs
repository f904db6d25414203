//! Newest values on their way out, encoded at once: as many messages as a fleet has values would cost more than reading them.
//!
//! Never here: which values count. Invariant: the bytes are those of `v1::LatestDevice`, field by field in ascending order.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tidemark_series::{NewestValue, PropertyNumber, ValueRef};

use crate::catalog::types::{PropertyDef, TypeDef};

// Fields of v1::LatestDevice.
const DEVICE: u32 = 1;
const DEVICE_TYPE: u32 = 2;
const VALUES: u32 = 3;
// Fields of v1::LatestValue.
const PROPERTY: u32 = 1;
const VALUE: u32 = 2;
const OBSERVED_AT_NS: u32 = 3;
const RECEIVED_AT_NS: u32 = 4;
const QUALITY: u32 = 5;
const REPORT_KIND: u32 = 6;
const STALE: u32 = 7;
// Cases of v1::Values.
const F64: u32 = 1;
const I64: u32 = 2;
const BOOL: u32 = 3;
const ENUM: u32 = 4;
const TEXT: u32 = 5;
/// Field of the values in each of them, but for labels.
const LIST: u32 = 1;
const LABELS: u32 = 1;
const INDEXES: u32 = 2;

/// Encodes newest values of devices of one type.
pub struct LatestWriter<'a> {
    device_type: &'a str,
    properties: Vec<Prepared>,
    out: BytesMut,
    // Kept for their room, from the inside out.
    list: Vec<u8>,
    kind: Vec<u8>,
    value: Vec<u8>,
}

/// Finds the values of properties one after the other.
pub(super) struct Finding<'a> {
    newest: &'a [NewestValue],
    next: usize,
}

impl<'a> Finding<'a> {
    /// Values that ascend by property.
    pub(super) fn among(newest: &'a [NewestValue]) -> Finding<'a> {
        Finding { newest, next: 0 }
    }

    /// That of a property. Most types list their properties by number: the next one asked for is the next one there is.
    pub(super) fn of(&mut self, number: PropertyNumber) -> Option<&'a NewestValue> {
        let is_next = self.newest.get(self.next).is_some_and(|value| value.property == number);
        let at = match is_next {
            true => self.next,
            false => self.newest.binary_search_by_key(&number, |value| value.property).ok()?,
        };
        self.next = at + 1;
        self.newest.get(at)
    }
}

/// What all values of a property begin with.
struct Prepared {
    number: PropertyNumber,
    id: Vec<u8>,
    labels: Vec<u8>,
}

impl<'a> LatestWriter<'a> {
    /// Of the given properties of a type.
    pub fn new(def: &'a TypeDef, properties: &[&PropertyDef]) -> LatestWriter<'a> {
        let prepared = |property: &&PropertyDef| {
            let (mut id, mut labels) = (Vec::new(), Vec::new());
            put(PROPERTY, property.id.as_bytes(), &mut id);
            for label in &property.labels {
                put(LABELS, label.as_bytes(), &mut labels);
            }
            let number = property.number;
            Prepared { number, id, labels }
        };
        LatestWriter {
            device_type: def.id(),
            properties: properties.iter().map(prepared).collect(),
            out: BytesMut::new(),
            list: Vec::new(),
            kind: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The newest values of one device, one per property that ever had one; `newest` ascends by property. `is_stale` judges an
    /// observation time.
    pub fn device(&mut self, device: &str, newest: &[NewestValue], is_stale: impl Fn(i64) -> bool) -> Bytes {
        put(DEVICE, device.as_bytes(), &mut self.out);
        put(DEVICE_TYPE, self.device_type.as_bytes(), &mut self.out);
        let mut finding = Finding::among(newest);
        for at in 0..self.properties.len() {
            let Some(value) = finding.of(self.properties[at].number) else {
                continue;
            };
            self.value(at, value, is_stale(value.observed_at));
            put(VALUES, &self.value, &mut self.out);
        }
        self.out.split().freeze()
    }

    /// Encodes a value of one of the properties into `self.value`.
    fn value(&mut self, at: usize, newest: &NewestValue, is_stale: bool) {
        let LatestWriter { list, kind, value, .. } = self;
        let property = &self.properties[at];
        list.clear();
        kind.clear();
        value.clear();
        let case = match newest.value() {
            ValueRef::F64(v) => {
                put(LIST, &v.to_le_bytes(), list);
                F64
            }
            ValueRef::I64(v) => {
                put_varint(LIST, ((v << 1) ^ (v >> 63)) as u64, list);
                I64
            }
            ValueRef::Bool(v) => {
                put_varint(LIST, v.into(), list);
                BOOL
            }
            ValueRef::Enum(v) => {
                list.extend_from_slice(&property.labels);
                put_varint(INDEXES, v.into(), list);
                ENUM
            }
            ValueRef::Text(v) => {
                put(LIST, v.as_bytes(), list);
                TEXT
            }
        };
        put(case, list, kind);
        value.extend_from_slice(&property.id);
        put(VALUE, kind, value);
        put_time(OBSERVED_AT_NS, newest.observed_at, value);
        put_time(RECEIVED_AT_NS, newest.received_at, value);
        for (field, code) in [
            (QUALITY, newest.quality),
            (REPORT_KIND, newest.report_kind),
            (STALE, u8::from(is_stale)),
        ] {
            if code != 0 {
                encode_key(field, WireType::Varint, value);
                encode_varint(code.into(), value);
            }
        }
    }
}

/// A field of bytes, a text, or a message.
fn put(field: u32, bytes: &[u8], out: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// A packed list of one number.
fn put_varint(field: u32, number: u64, out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(encoded_len_varint(number) as u64, out);
    encode_varint(number, out);
}

/// A time, which is left out where it is that of the epoch.
fn put_time(field: u32, ns: i64, out: &mut Vec<u8>) {
    if ns != 0 {
        encode_key(field, WireType::SixtyFourBit, out);
        out.put_i64_le(ns);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use prost::Message as _;
    use tidemark_proto::v1::{
        BoolValues, EnumValues, F64Values, I64Values, LatestDevice, LatestValue, TextValues, Values, values,
    };

    use super::*;

    /// A property, its value as it is kept and as it is sent.
    fn cases() -> Vec<(&'static str, ValueRef<'static>, values::Kind)> {
        let f64s = |v: f64| values::Kind::F64(F64Values { values: vec![v] });
        let i64s = |v: i64| values::Kind::I64(I64Values { values: vec![v] });
        let texts = |v: &str| {
            values::Kind::Text(TextValues {
                values: vec![v.to_owned()],
            })
        };
        let labels = vec!["off".to_owned(), String::new(), "on".to_owned()];
        let mut cases = vec![
            ("level", ValueRef::F64(-0.0), f64s(-0.0)),
            ("depth", ValueRef::F64(1.25), f64s(1.25)),
            (
                "open",
                ValueRef::Bool(false),
                values::Kind::Bool(BoolValues { values: vec![false] }),
            ),
            (
                "wet",
                ValueRef::Bool(true),
                values::Kind::Bool(BoolValues { values: vec![true] }),
            ),
            (
                "state",
                ValueRef::Enum(2),
                values::Kind::Enum(EnumValues {
                    labels,
                    indexes: vec![2],
                }),
            ),
            ("note", ValueRef::Text(""), texts("")),
            ("remark", ValueRef::Text("Grüße"), texts("Grüße")),
        ];
        for number in [0, 1, -1, 63, -65, i64::MIN, i64::MAX] {
            cases.push(("count", ValueRef::I64(number), i64s(number)));
        }
        cases
    }

    #[test]
    fn the_bytes_are_those_of_the_message() {
        let cases = cases();
        let prepared = |(at, (id, _, kind)): (usize, &(&str, ValueRef<'_>, values::Kind))| {
            let (mut prefix, mut labels) = (Vec::new(), Vec::new());
            put(PROPERTY, id.as_bytes(), &mut prefix);
            if let values::Kind::Enum(values) = kind {
                values
                    .labels
                    .iter()
                    .for_each(|label| put(LABELS, label.as_bytes(), &mut labels));
            }
            let number = PropertyNumber(at as u32 * 2);
            Prepared {
                number,
                id: prefix,
                labels,
            }
        };
        let mut writer = LatestWriter {
            device_type: "of a type",
            properties: cases.iter().enumerate().map(prepared).collect(),
            out: BytesMut::new(),
            list: Vec::new(),
            kind: Vec::new(),
            value: Vec::new(),
        };
        let times = |at: usize| (at as i64 - 1, 1_735_689_600_000_000_000 * (at as i64 % 3));
        let codes = |at: usize| ((at % 3) as u8, (at % 7) as u8);
        // Of every third property there is none.
        let there = || cases.iter().enumerate().filter(|(at, _)| at % 3 != 2);
        let newest: Vec<NewestValue> = there()
            .map(|(at, (_, value, _))| {
                let number = PropertyNumber(at as u32 * 2);
                NewestValue::of_point(number, times(at), codes(at).0, codes(at).1, *value)
            })
            .collect();
        let is_stale = |observed: i64| observed % 2 == 0;
        let expected = LatestDevice {
            device: "one".to_owned(),
            device_type: "of a type".to_owned(),
            values: there()
                .map(|(at, (id, _, kind))| LatestValue {
                    property: (*id).to_owned(),
                    value: Some(Values {
                        kind: Some(kind.clone()),
                    }),
                    observed_at_ns: times(at).0,
                    received_at_ns: times(at).1,
                    report_kind: codes(at).0.into(),
                    quality: codes(at).1.into(),
                    stale: is_stale(times(at).0),
                })
                .collect(),
        };
        for _ in 0..2 {
            let encoded = writer.device("one", &newest, is_stale);
            assert_eq!(LatestDevice::decode(encoded.clone()).unwrap(), expected);
            assert_eq!(encoded, expected.encode_to_vec());
        }
        let nothing = LatestDevice {
            values: Vec::new(),
            ..expected
        };
        assert_eq!(writer.device("one", &[], is_stale), nothing.encode_to_vec());
    }
}
