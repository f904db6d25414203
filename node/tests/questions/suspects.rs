//! Suspect values where neighbours decide: they are neighbours of others whether they count themselves or not, so that to leave them out
//! leaves out more and lets nothing in. All ways to ask agree, wherever a question begins.
//! Never here: random points (see `random/recorded_answers`, `qualifiers`). Invariant: what is expected is counted by hand.

use std::collections::BTreeMap;

use crate::common::TestCluster;
use crate::common::fleet::*;
use tidemark_client::{BatchBuilder, Client, Value, answers_of, joined_rows, rows, v1};
use v1::Qualifier::{Flat, Rate, Spike, Untypical};
use v1::query_intervals_request::Condition;
use v1::{Kind, Qualifier, Quality, ValueType};

const PROBE: &str = "test-doubtful";
/// What is asked about; `beat` is there whenever it is, and always sound.
const LEVEL: &str = "level";

/// One device with a level that is checked by these attributes, a point a minute, five of them in a bucket.
async fn furnish_probe(client: &Client, typical_max: Option<f64>, attributes: &[(&str, &str)]) {
    let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
    let level = v1::Property {
        max: Some(100.0),
        typical_max,
        attributes: attributes.iter().map(owned).collect(),
        ..property(LEVEL, ValueType::F64, Kind::Gauge)
    };
    furnish_checked(client, PROBE, level).await;
}

/// A type of one property, with a beat, and a device of it.
pub(crate) async fn furnish_checked(client: &Client, id: &str, checked: v1::Property) {
    let checked = v1::DeviceType {
        id: id.into(),
        properties: vec![checked, property("beat", ValueType::I64, Kind::Increment)],
        sample_interval_s: 60,
        bucket_span_s: 300,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![checked]).await.unwrap();
    client.register_devices(vec![device(id, id, &[])]).await.unwrap();
}

/// Sends points by minute, what the source says of each beside it.
pub(crate) async fn send<V: Clone + Into<Value>>(client: &Client, id: &str, property: &str, points: &[(V, Quality)]) {
    let mut batch = BatchBuilder::new(id);
    for (minute, (value, stated)) in (0..).zip(points) {
        let row = batch.row(id, T0 + minute * MIN).set("beat", 1_i64);
        row.set_with_quality(property, value.clone(), *stated);
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

/// The device of a type, one property of it, and a time.
#[derive(Copy, Clone)]
pub(crate) struct About<'a> {
    pub(crate) id: &'a str,
    pub(crate) property: &'a str,
    pub(crate) span: (i64, i64),
}

impl About<'_> {
    fn aggregate(&self, function: v1::Function, drop_suspect: bool) -> v1::QueryAggregateRequest {
        v1::QueryAggregateRequest {
            selector: of_devices(&[self.id]),
            properties: vec![self.property.into()],
            functions: vec![function as i32],
            from_ns: self.span.0,
            to_ns: self.span.1,
            drop_suspect,
            ..Default::default()
        }
    }

    /// The answers to a function over all of the time, as numbers.
    pub(crate) async fn answers(&self, client: &Client, request: v1::QueryAggregateRequest) -> Vec<f64> {
        let messages = ask(client, request).await;
        let series = messages.iter().flat_map(|message| &message.series);
        let columns = series.flat_map(|series| &series.columns);
        let values = columns.filter_map(|column| answers_of(column).next().flatten());
        let number = |value| match value {
            Value::F64(value) => value,
            Value::I64(value) => value as f64,
            other => panic!("{other:?}"),
        };
        values.map(number).collect()
    }

    pub(crate) async fn of(&self, client: &Client, function: v1::Function, drop_suspect: bool) -> Vec<f64> {
        self.answers(client, self.aggregate(function, drop_suspect)).await
    }

    /// How many points count for an aggregate, for a range, and as values that are joined to others.
    pub(crate) async fn counts(&self, client: &Client, drop_suspect: bool) -> [usize; 3] {
        let aggregated = self.of(client, v1::Function::Count, drop_suspect).await;
        let range = v1::QueryRangeRequest {
            selector: of_devices(&[self.id]),
            properties: vec![self.property.into()],
            from_ns: self.span.0,
            to_ns: self.span.1,
            quality: Some(v1::QualityFilter {
                drop_failed: true,
                drop_suspect,
                ..Default::default()
            }),
            ..Default::default()
        };
        let join = v1::QueryJoinRequest {
            selector: of_devices(&[self.id]),
            properties: vec!["beat".into()],
            from_ns: self.span.0,
            to_ns: self.span.1,
            right: vec![v1::JoinSide {
                selector: of_devices(&[self.id]),
                properties: vec![self.property.into()],
                // Of the same time.
                tolerance_ms: 1,
                ..Default::default()
            }],
            drop_suspect,
            ..Default::default()
        };
        let (messages, _) = client.query_join(join).await.unwrap().collect().await.unwrap();
        let joined = messages
            .iter()
            .flat_map(|message| &message.joined)
            .flat_map(joined_rows);
        [
            aggregated.first().map_or(0, |count| *count as usize),
            read(client, range).await.len(),
            joined.flat_map(|row| row.values).flatten().count(),
        ]
    }

    /// How many points a report tells of, how many of them fail, and how many are suspect.
    pub(crate) async fn quality(&self, client: &Client) -> [usize; 3] {
        let request = v1::GetQualityRequest {
            selector: of_devices(&[self.id]),
            property: self.property.into(),
            from_ns: self.span.0,
            to_ns: self.span.1,
            ..Default::default()
        };
        let (messages, _) = client.get_quality(request).await.unwrap().collect().await.unwrap();
        let report = &messages[0].reports[0];
        [report.points, report.points_fail, report.points_suspect].map(|count| count as usize)
    }

    /// What is said of values, by minute, where anything is.
    pub(crate) async fn qualifiers(&self, client: &Client) -> BTreeMap<i64, Vec<Qualifier>> {
        let request = v1::QueryRangeRequest {
            selector: of_devices(&[self.id]),
            properties: vec![self.property.into()],
            from_ns: self.span.0,
            to_ns: self.span.1,
            qualifiers: true,
            ..Default::default()
        };
        let (messages, _) = client.query_range(request).await.unwrap().collect().await.unwrap();
        let rows = messages
            .iter()
            .filter_map(|message| message.batch.as_ref())
            .flat_map(rows);
        let said = rows.filter_map(|row| {
            let said = row.qualifiers.get(self.property)?.clone();
            Some(((row.observed_at_ns - T0) / MIN, said))
        });
        // When they were received is not asked here.
        let known = said.map(|(minute, mut said)| {
            said.retain(|one| [Spike, Rate, Flat, Untypical, Qualifier::Range].contains(one));
            (minute, said)
        });
        known.filter(|(_, said)| !said.is_empty()).collect()
    }

    /// All ways to ask agree about these points: how many there are, fail, and are suspect.
    pub(crate) async fn check(&self, client: &Client, [points, fail, suspect]: [usize; 3]) {
        assert_eq!(self.quality(client).await, [points, fail, suspect]);
        assert_eq!(self.counts(client, false).await, [points - fail; 3], "by default");
        assert_eq!(
            self.counts(client, true).await,
            [points - fail - suspect; 3],
            "without suspect ones"
        );
    }
}

fn minutes(from: i64, to: i64) -> About<'static> {
    About {
        id: PROBE,
        property: LEVEL,
        span: (T0 + from * MIN, T0 + to * MIN),
    }
}

fn plain(values: impl IntoIterator<Item = f64>) -> Vec<(f64, Quality)> {
    values.into_iter().map(|value| (value, Quality::Unspecified)).collect()
}

#[tokio::test]
async fn untypical_values_are_the_neighbours_of_a_spike() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probe(&client, Some(1.2), &[("spike", "0.2")]).await;
    send(&client, PROBE, LEVEL, &plain([1.3, 1.3, 0.5, 1.3, 1.3])).await;
    let all = minutes(0, 5);
    all.check(&client, [5, 1, 4]).await;
    assert_eq!(all.of(&client, v1::Function::Min, false).await, [1.3]);
    assert_eq!(all.of(&client, v1::Function::Min, true).await, [0.0; 0]);
    let said = all.qualifiers(&client).await;
    let expected = [Untypical, Untypical, Spike, Untypical, Untypical].map(|one| vec![one]);
    assert_eq!(said, (0..).zip(expected).collect());
    for minute in 0..5 {
        let alone = usize::from(minute == 2);
        minutes(minute, minute + 1).check(&client, [1, alone, 1 - alone]).await;
    }
}

#[tokio::test]
async fn what_the_source_calls_suspect_is_the_neighbour_of_a_spike() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probe(&client, None, &[("spike", "0.2")]).await;
    let point = |value: f64| {
        let stated = if value == 1.0 {
            Quality::Suspect
        } else {
            Quality::Unspecified
        };
        (value, stated)
    };
    send(&client, PROBE, LEVEL, &[1.0, 1.0, 0.5, 1.0, 1.0].map(point)).await;
    minutes(0, 5).check(&client, [5, 1, 4]).await;
}

#[tokio::test]
async fn what_the_source_calls_suspect_is_no_reference_for_others() {
    use Quality::{Suspect, Unspecified};
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probe(&client, None, &[("spike", "3"), ("rate_per_min", "1")]).await;
    let points = [
        (10.0, Unspecified),
        (20.0, Suspect),
        (20.0, Unspecified),
        (10.9, Suspect),
        (12.0, Unspecified),
        (20.0, Suspect),
        (20.0, Unspecified),
        (20.0, Unspecified),
        (20.0, Unspecified),
    ];
    send(&client, PROBE, LEVEL, &points).await;
    let said = minutes(0, 9).qualifiers(&client).await;
    let fast = [1, 2, 5, 6, 7].map(|minute| (minute, vec![Rate]));
    assert_eq!(
        said,
        fast.into(),
        "told from 10.0 and 12.0, which are too old at last, never from 10.9"
    );
    for from in 0..9 {
        let suspect = [1, 2, 3, 5, 6, 7].iter().filter(|minute| **minute >= from).count();
        minutes(from, 9).check(&client, [9 - from as usize, 0, suspect]).await;
    }
}

#[tokio::test]
async fn the_last_point_before_a_time_is_the_last_that_counts() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probe(&client, Some(1.2), &[("spike", "0.2")]).await;
    // What counts last, and a quarter of an hour of what does not.
    let levels = [1.1, 1.2].into_iter().chain([1.3; 15]).chain([1.1]);
    send(&client, PROBE, LEVEL, &plain(levels)).await;
    let request = v1::QueryIntervalsRequest {
        selector: of_devices(&[PROBE]),
        property: LEVEL.into(),
        from_ns: T0 + 16 * MIN,
        to_ns: T0 + 18 * MIN,
        condition: Some(Condition::AtMost(1.2)),
        max_gap_ms: HOUR / 1_000_000,
        drop_suspect: true,
        ..Default::default()
    };
    let (messages, _) = client.query_intervals(request).await.unwrap().collect().await.unwrap();
    let low = &messages[0].devices[0].intervals[0];
    assert_eq!(low.from_ns, T0 + 16 * MIN, "on the way from 1.2 to 1.1");
}

#[tokio::test]
async fn an_untypical_value_moves_what_stands_still() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probe(&client, Some(50.0), &[("flat_s", "600"), ("flat_eps", "0.01")]).await;
    let level = |minute: i64| if minute == 10 { 60.0 } else { 10.0 };
    send(&client, PROBE, LEVEL, &plain((0..21).map(level))).await;
    let said = minutes(0, 21).qualifiers(&client).await;
    let still = [(7, Flat), (8, Flat), (9, Flat), (10, Untypical), (20, Flat)].map(|(minute, one)| (minute, vec![one]));
    assert_eq!(said, still.clone().into());
    minutes(0, 21).check(&client, [21, 0, 5]).await;
    for from in 0..21 {
        let suspect = still.iter().filter(|(minute, _)| *minute >= from).count();
        minutes(from, 21).check(&client, [21 - from as usize, 0, suspect]).await;
    }
}

#[tokio::test]
async fn what_changes_too_fast_does_not_depend_on_where_a_report_begins() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    furnish_probe(&client, None, &[("rate_per_min", "1")]).await;
    // Now and then it is what it was at first, before anybody can get used to what it is else.
    let is_first = |minute: i64| minute % 3 == 0;
    let level = |minute: i64| if is_first(minute) { 10.0 } else { 20.0 };
    send(&client, PROBE, LEVEL, &plain((0..90).map(level))).await;
    let fast = minutes(0, 90).qualifiers(&client).await;
    assert!(
        fast.values().all(|said| *said == [Rate]) && fast.len() == 60,
        "{fast:?}"
    );
    for (from, to) in [(41, 71), (0, 90), (40, 41), (42, 43), (43, 44), (88, 90)] {
        let suspect = (from..to).filter(|minute| !is_first(*minute)).count();
        minutes(from, to)
            .check(&client, [(to - from) as usize, 0, suspect])
            .await;
    }
}
