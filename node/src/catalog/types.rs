//! Device types: what a valid one is, how it may change, and the compiled form that the write and query paths use.
//! Never: devices, storage. Invariant: a property number, once given, always means the same property.

use std::collections::HashMap;

use tidemark_proto::v1::{self, DeviceType, Property};
use tidemark_series::checks::Checks;
use tidemark_series::flat::Flat;
use tidemark_series::{Kind, PropertyNumber, ValueType};

use super::missing::Missing;
use crate::clock::{NS_PER_DAY, NS_PER_S};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;

/// Records that a device at its promised interval may put into one bucket.
const BUCKET_RECORDS: i64 = 4096;
/// Longest bucket: retention drops whole buckets.
const BUCKET_SPAN_MAX_S: i64 = 364 * 86_400;
/// Lengths of windows that may be rolled up, seconds.
pub const ROLLUPS_S: [u32; 3] = [300, 3_600, 86_400];
/// Gaps of so many promised intervals are bridged; a day where nothing is promised.
const GAP_INTERVALS: i64 = 3;
const TEXT_DEFAULT_BYTES: u32 = 256;
/// Longest time that is looked at for values that stand still: 31 days.
const FLAT_S_MAX: f64 = 31.0 * 86_400.0;

/// What a reading says of the device itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Diagnostic {
    /// Charge of its battery, percent.
    Battery,
    /// Voltage of its supply.
    Supply,
    /// Strength of its signal, dBm.
    Signal,
}

/// A property, ready for use.
#[derive(Clone, Debug)]
pub struct PropertyDef {
    /// Its number in stored blocks.
    pub number: PropertyNumber,
    /// Its id in requests and answers.
    pub id: String,
    /// Type of its values.
    pub value_type: ValueType,
    /// What a value means in time.
    pub kind: Kind,
    /// Enum labels; the position is the stored code.
    pub labels: Vec<String>,
    /// Longest text, bytes.
    pub text_bytes_max: usize,
    /// Takes NaN and infinities.
    pub allow_non_finite: bool,
    /// Where a counter wraps to zero.
    pub wrap: Option<f64>,
    /// What its values are checked against when they are read.
    pub checks: Checks,
    /// What it says of the device itself, if anything.
    pub diagnostic: Option<Diagnostic>,
    /// Values that say that there is none.
    pub missing: Missing,
}

impl PropertyDef {
    /// Code of an enum label.
    pub fn label_code(&self, label: &str) -> Option<u32> {
        self.labels.iter().position(|known| known == label).map(|at| at as u32)
    }
}

/// A device type, ready for use.
#[derive(Clone, Debug)]
pub struct TypeDef {
    /// As stored in the catalog.
    pub stored: DeviceType,
    /// Span of a bucket, nanoseconds.
    pub bucket_span_ns: i64,
    /// In the order of the type.
    pub properties: Vec<PropertyDef>,
    by_id: HashMap<String, usize>,
    by_number: HashMap<u32, usize>,
}

impl TypeDef {
    /// Compiles a stored type.
    pub fn new(stored: DeviceType) -> Result<TypeDef> {
        let compile = |p| property_def(p, stored.sample_interval_s);
        let properties = stored.properties.iter().map(compile).collect::<Result<Vec<_>>>()?;
        let by_id = properties
            .iter()
            .enumerate()
            .map(|(at, p)| (p.id.clone(), at))
            .collect();
        let by_number = properties.iter().enumerate().map(|(at, p)| (p.number.0, at)).collect();
        Ok(TypeDef {
            bucket_span_ns: stored.bucket_span_s * NS_PER_S,
            properties,
            by_id,
            by_number,
            stored,
        })
    }

    /// Number of the type in keys.
    pub fn number(&self) -> u32 {
        self.stored.number
    }

    /// Id of the type.
    pub fn id(&self) -> &str {
        &self.stored.id
    }

    /// The property with this id.
    pub fn property(&self, id: &str) -> Option<&PropertyDef> {
        self.by_id.get(id).map(|&at| &self.properties[at])
    }

    /// The property with this number.
    pub fn property_by_number(&self, number: PropertyNumber) -> Option<&PropertyDef> {
        self.by_number.get(&number.0).map(|&at| &self.properties[at])
    }

    /// The first property that says this of the device itself.
    pub fn diagnostic(&self, role: Diagnostic) -> Option<&PropertyDef> {
        self.properties.iter().find(|p| p.diagnostic == Some(role))
    }

    /// The properties with these ids, or all where none is named.
    pub fn choose(&self, ids: &[String]) -> Result<Vec<&PropertyDef>> {
        if ids.is_empty() {
            return Ok(self.properties.iter().collect());
        }
        let find = |(at, id): (usize, &String)| {
            self.property(id)
                .ok_or_else(|| unknown_property(self.id(), id).field(format!("properties[{at}]")))
        };
        ids.iter().enumerate().map(find).collect()
    }

    /// How long points are kept, nanoseconds; `None` means for ever.
    pub fn retention_ns(&self) -> Option<i64> {
        match self.stored.retention_days {
            0 => None,
            days => Some(days.saturating_mul(NS_PER_DAY)),
        }
    }

    /// How long rollups are kept, nanoseconds; `None` means for ever.
    pub fn rollup_retention_ns(&self) -> Option<i64> {
        match self.stored.rollup_retention_days {
            0 => None,
            days => Some(days.saturating_mul(NS_PER_DAY)),
        }
    }

    /// Promised spacing of records, nanoseconds; `None` where nothing is promised.
    pub fn sample_interval_ns(&self) -> Option<i64> {
        match self.stored.sample_interval_s {
            0 => None,
            s => Some(s.saturating_mul(NS_PER_S)),
        }
    }

    /// Points further apart have nothing between them, nanoseconds, where a question says nothing else.
    pub fn max_gap_ns(&self) -> i64 {
        max_gap_ns(self.stored.sample_interval_s)
    }

    /// Promised time from observation to receipt, nanoseconds; `None` where nothing is promised.
    pub fn latency_ns(&self) -> Option<i64> {
        match self.stored.latency_s {
            0 => None,
            s => Some(s.saturating_mul(NS_PER_S)),
        }
    }

    /// The same for points that are sent because something happened: an attribute of the type.
    pub fn event_latency_ns(&self) -> Option<i64> {
        let seconds: i64 = self.stored.attributes.get("event_latency_s")?.parse().ok()?;
        (seconds > 0).then(|| seconds.saturating_mul(NS_PER_S))
    }

    /// Silence after which a latest value counts as stale, nanoseconds.
    pub fn stale_after_ns(&self) -> Option<i64> {
        let report = match self.stored.report_interval_s {
            0 => self.stored.sample_interval_s,
            s => s,
        };
        if report == 0 {
            None
        } else {
            Some(report.saturating_mul(3 * NS_PER_S))
        }
    }
}

/// The refusal of a property id that a type does not have.
pub fn unknown_property(type_id: &str, property: &str) -> Error {
    Error::new(
        Reason::UnknownProperty,
        format!("device type {type_id} has no property {property:?}"),
    )
    .hint(format!("tidemark type show {type_id}"))
}

fn property_def(p: &Property, sample_interval_s: i64) -> Result<PropertyDef> {
    let value_type = value_type(p.value_type)
        .ok_or_else(|| Error::new(Reason::InvalidType, format!("property {:?} has no value type", p.id)))?;
    Ok(PropertyDef {
        number: PropertyNumber(p.number),
        id: p.id.clone(),
        value_type,
        kind: kind(p.kind)
            .ok_or_else(|| Error::new(Reason::InvalidType, format!("property {:?} has no kind", p.id)))?,
        labels: p.labels.clone(),
        text_bytes_max: if p.max_len == 0 { TEXT_DEFAULT_BYTES } else { p.max_len } as usize,
        allow_non_finite: p.allow_non_finite,
        wrap: p.wrap,
        // What is no number has no limits and no neighbours.
        checks: match value_type {
            ValueType::F64 | ValueType::I64 => checks(p, sample_interval_s),
            ValueType::Bool | ValueType::Enum | ValueType::Text => Checks::default(),
        },
        diagnostic: p.attributes.get("diag").and_then(|role| diagnostic(role)),
        missing: Missing::of(p, value_type).map_err(|message| Error::new(Reason::InvalidType, message))?,
    })
}

fn max_gap_ns(sample_interval_s: i64) -> i64 {
    match sample_interval_s {
        0 => NS_PER_DAY,
        s => s.saturating_mul(GAP_INTERVALS * NS_PER_S),
    }
}

fn diagnostic(role: &str) -> Option<Diagnostic> {
    match role {
        "battery" => Some(Diagnostic::Battery),
        "supply" => Some(Diagnostic::Supply),
        "signal" => Some(Diagnostic::Signal),
        _ => None,
    }
}

/// Limits of a property; some are attributes: `spike` in its unit, `rate_per_min` per minute, `flat_s` seconds that a value may
/// stand still within `flat_eps`, unless at `flat_ignore`.
fn checks(p: &Property, sample_interval_s: i64) -> Checks {
    let attribute = |key: &str| p.attributes.get(key).and_then(|text| text.parse::<f64>().ok());
    Checks {
        min: p.min,
        max: p.max,
        typical_min: p.typical_min,
        typical_max: p.typical_max,
        spike: attribute("spike"),
        rate_per_s: attribute("rate_per_min").map(|rate| rate / 60.0),
        neighbours_ns: max_gap_ns(sample_interval_s),
        reach_ns: sample_interval_s.saturating_mul(3 * NS_PER_S),
        flat: attribute("flat_s")
            .filter(|s| (1.0..=FLAT_S_MAX).contains(s))
            .map(|s| Flat {
                over_ns: (s * NS_PER_S as f64) as i64,
                within: attribute("flat_eps").unwrap_or(0.0),
                ignore: attribute("flat_ignore"),
                interval_ns: sample_interval_s.saturating_mul(NS_PER_S),
            }),
    }
}

fn value_type(number: i32) -> Option<ValueType> {
    match v1::ValueType::try_from(number).ok()? {
        v1::ValueType::Unspecified => None,
        v1::ValueType::F64 => Some(ValueType::F64),
        v1::ValueType::I64 => Some(ValueType::I64),
        v1::ValueType::Bool => Some(ValueType::Bool),
        v1::ValueType::Enum => Some(ValueType::Enum),
        v1::ValueType::Text => Some(ValueType::Text),
    }
}

fn kind(number: i32) -> Option<Kind> {
    match v1::Kind::try_from(number).ok()? {
        v1::Kind::Unspecified => None,
        v1::Kind::Gauge => Some(Kind::Gauge),
        v1::Kind::Mean => Some(Kind::Mean),
        v1::Kind::Increment => Some(Kind::Increment),
        v1::Kind::Counter => Some(Kind::Counter),
        v1::Kind::State => Some(Kind::State),
        v1::Kind::Event => Some(Kind::Event),
    }
}

/// Checks what can be checked without knowing the stored type. `at` is the type's position in the request.
pub fn check(new: &DeviceType, at: usize, limits: &Limits) -> Result<()> {
    let fail = |field: &str, message: String| {
        Err(Error::new(Reason::InvalidType, message).field(format!("device_types[{at}].{field}")))
    };
    if !is_id(&new.id, limits.id_bytes_max) {
        return fail(
            "id",
            format!("device type id {:?} is not of the form [A-Za-z0-9._:-]{{1,64}}", new.id),
        );
    }
    if new.properties.is_empty() || new.properties.len() > limits.properties_max {
        return fail(
            "properties",
            format!("a device type has 1 to {} properties", limits.properties_max),
        );
    }
    for (name, value) in [
        ("sample_interval_s", new.sample_interval_s),
        ("report_interval_s", new.report_interval_s),
        ("latency_s", new.latency_s),
        ("retention_days", new.retention_days),
        ("bucket_span_s", new.bucket_span_s),
    ] {
        if !(0..=1_000_000_000).contains(&value) {
            return fail(name, format!("{name} is {value}, outside 0 to 1,000,000,000"));
        }
    }
    if new.bucket_span_s > BUCKET_SPAN_MAX_S {
        return fail(
            "bucket_span_s",
            format!("bucket_span_s is more than {BUCKET_SPAN_MAX_S}"),
        );
    }
    check_rollups(new).or_else(|message| fail("rollups_s", message))?;
    let mut seen = HashMap::new();
    for (n, property) in new.properties.iter().enumerate() {
        check_property(property, limits).map_err(|message| {
            Error::new(Reason::InvalidType, message).field(format!("device_types[{at}].properties[{n}]"))
        })?;
        if seen.insert(&property.id, n).is_some() {
            return fail(
                &format!("properties[{n}].id"),
                format!("property {:?} is listed twice", property.id),
            );
        }
    }
    Ok(())
}

fn check_property(p: &Property, limits: &Limits) -> std::result::Result<(), String> {
    if !is_id(&p.id, limits.id_bytes_max) {
        return Err(format!(
            "property id {:?} is not of the form [A-Za-z0-9._:-]{{1,64}}",
            p.id
        ));
    }
    let value_type = value_type(p.value_type).ok_or_else(|| format!("property {:?} has no known value type", p.id))?;
    kind(p.kind).ok_or_else(|| format!("property {:?} has no known kind", p.id))?;
    let labels: std::collections::BTreeSet<_> = p.labels.iter().collect();
    match value_type {
        ValueType::Enum if p.labels.is_empty() => return Err(format!("enum property {:?} has no labels", p.id)),
        ValueType::Enum if labels.len() != p.labels.len() => {
            return Err(format!("enum property {:?} has a label twice", p.id));
        }
        ValueType::Enum => {}
        _ if !p.labels.is_empty() => return Err(format!("property {:?} has labels but is no enum", p.id)),
        _ => {}
    }
    if p.max_len as usize > limits.text_bytes_max {
        return Err(format!(
            "property {:?} allows texts over {} bytes",
            p.id, limits.text_bytes_max
        ));
    }
    Missing::of(p, value_type).map(|_| ())
}

/// What can be wrong with the rollups of a type.
fn check_rollups(new: &DeviceType) -> std::result::Result<(), String> {
    let (raw, kept) = (new.retention_days, new.rollup_retention_days);
    if !new.rollups_s.is_sorted_by(|a, b| a < b) || new.rollups_s.iter().any(|length_s| !ROLLUPS_S.contains(length_s)) {
        return Err(format!(
            "rollups_s is {:?}, not some of {ROLLUPS_S:?}, ascending",
            new.rollups_s
        ));
    }
    match kept {
        0 => Ok(()),
        1..=1_000_000_000 if kept >= raw && raw > 0 => Ok(()),
        _ => Err(format!(
            "rollups are kept for {kept} days, points for {raw}: that is no longer"
        )),
    }
}

/// `[A-Za-z0-9._:-]`, 1 to `max` bytes.
pub fn is_id(id: &str, max: usize) -> bool {
    !id.is_empty()
        && id.len() <= max
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// What applying a type did.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Change {
    Created,
    Changed,
    Unchanged,
}

/// The stored form of a new type, numbered.
pub fn create(mut new: DeviceType, number: u32) -> DeviceType {
    new.number = number;
    new.version = 1;
    if new.bucket_span_s == 0 {
        new.bucket_span_s = choose_bucket_span_s(new.sample_interval_s, new.retention_days);
    }
    for (at, property) in new.properties.iter_mut().enumerate() {
        property.number = at as u32 + 1;
    }
    new
}

/// The stored form of a type that exists, or why it may not become so.
pub fn evolve(old: &DeviceType, mut new: DeviceType) -> Result<(DeviceType, Change)> {
    let refuse = |message: String| Err(Error::new(Reason::TypeChangeRefused, message));
    if new.bucket_span_s != 0 && new.bucket_span_s != old.bucket_span_s {
        return refuse(format!(
            "the bucket span of {} is fixed at {} s",
            old.id, old.bucket_span_s
        ));
    }
    let mut next = old.properties.iter().map(|p| p.number).max().unwrap_or(0) + 1;
    for was in &old.properties {
        let Some(becomes) = new.properties.iter_mut().find(|p| p.id == was.id) else {
            return Err(Error::new(
                Reason::TypeChangeRefused,
                format!("property {:?} would be removed", was.id),
            )
            .hint("keep the property and set deprecated"));
        };
        if becomes.value_type != was.value_type || becomes.kind != was.kind {
            return refuse(format!("value type and kind of property {:?} are fixed", was.id));
        }
        if !becomes.labels.starts_with(&was.labels) {
            return refuse(format!("labels of property {:?} may only be added at the end", was.id));
        }
        becomes.number = was.number;
    }
    for property in new
        .properties
        .iter_mut()
        .filter(|p| !old.properties.iter().any(|was| was.id == p.id))
    {
        property.number = next;
        next += 1;
    }
    new.properties.sort_by_key(|p| p.number);
    new.number = old.number;
    new.bucket_span_s = old.bucket_span_s;
    new.version = old.version;
    if new == *old {
        return Ok((new, Change::Unchanged));
    }
    new.version += 1;
    Ok((new, Change::Changed))
}

/// Longest span of whole days (hours, minutes for fast types) that holds at most `BUCKET_RECORDS` at the promised
/// interval, and at most an eighth of the retention so that dropping whole buckets wastes little.
fn choose_bucket_span_s(sample_interval_s: i64, retention_days: i64) -> i64 {
    let interval = if sample_interval_s == 0 { 60 } else { sample_interval_s };
    let mut longest = interval.saturating_mul(BUCKET_RECORDS).min(BUCKET_SPAN_MAX_S);
    if retention_days > 0 {
        longest = longest.min((retention_days.saturating_mul(86_400) / 8).max(3_600));
    }
    let unit = [86_400, 3_600, 60, 1]
        .into_iter()
        .find(|unit| longest >= *unit)
        .unwrap_or(1);
    longest / unit * unit
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn gauge(id: &str) -> Property {
        Property {
            id: id.into(),
            value_type: v1::ValueType::F64 as i32,
            kind: v1::Kind::Gauge as i32,
            ..Property::default()
        }
    }

    fn device_type(properties: Vec<Property>) -> DeviceType {
        DeviceType {
            id: "t".into(),
            properties,
            sample_interval_s: 300,
            retention_days: 365,
            ..DeviceType::default()
        }
    }

    #[test]
    fn a_bucket_holds_at_most_4096_promised_records() {
        let check = |interval: i64, retention: i64, expected: i64| {
            assert_eq!(
                choose_bucket_span_s(interval, retention),
                expected,
                "interval {interval}"
            );
        };
        check(300, 3650, 14 * 86_400);
        check(900, 3650, 42 * 86_400);
        check(10, 3650, 11 * 3_600);
        check(1, 3650, 3_600);
        check(86_400, 3650, 364 * 86_400);
        check(86_400, 80, 10 * 86_400);
        check(0, 0, 2 * 86_400);
    }

    #[test]
    fn rollups_are_of_known_lengths_and_outlive_points() {
        let check = |rollups_s: &[u32], days: i64, expected: bool| {
            let new = DeviceType {
                rollups_s: rollups_s.to_vec(),
                rollup_retention_days: days,
                ..device_type(vec![gauge("a")])
            };
            assert_eq!(
                super::check(&new, 0, &Limits::default()).is_ok(),
                expected,
                "{rollups_s:?} for {days}"
            );
        };
        check(&[], 0, true);
        check(&[300, 86_400], 365, true);
        check(&[3_600], 364, false);
        check(&[3_600], -1, false);
        check(&[60], 0, false);
        check(&[3_600, 300], 0, false);
    }

    #[test]
    fn numbers_stay_with_their_properties() {
        let stored = create(device_type(vec![gauge("a"), gauge("b")]), 7);
        let (grown, change) = evolve(&stored, device_type(vec![gauge("c"), gauge("b"), gauge("a")])).unwrap();
        assert_eq!(change, Change::Changed);
        let numbers: Vec<_> = grown.properties.iter().map(|p| (p.id.as_str(), p.number)).collect();
        assert_eq!(numbers, [("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(
            evolve(&grown, device_type(vec![gauge("a"), gauge("b"), gauge("c")]))
                .unwrap()
                .1,
            Change::Unchanged
        );
    }

    #[test]
    fn what_stored_points_forbid_is_refused() {
        let stored = create(device_type(vec![gauge("a"), gauge("b")]), 7);
        let removed = evolve(&stored, device_type(vec![gauge("a")])).unwrap_err();
        assert_eq!(removed.reason(), Reason::TypeChangeRefused);
        let retyped = Property {
            value_type: v1::ValueType::I64 as i32,
            ..gauge("a")
        };
        let retyped = evolve(&stored, device_type(vec![retyped, gauge("b")])).unwrap_err();
        assert_eq!(retyped.reason(), Reason::TypeChangeRefused);
    }
}
