//! Records of a batch to the commands of its shards: every point is encoded here, once. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use tidemark_proto::peer::{Fragment, ShardCommand, WriteFragments, WriteWithTests, shard_command};
use tidemark_series::{Records, bucket};

use crate::shard::bucket_start;
use crate::wire::batch::DeviceRecords;

/// Where a device's points go.
#[derive(Copy, Clone, Debug)]
pub(super) struct Target {
    /// Shard of the device.
    pub(super) shard: u32,
    /// Number of the device within its shard.
    pub(super) ordinal: u32,
}

/// What travels with a batch besides its points.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Who sends; empty for nobody in particular.
    pub(super) producer: String,
    /// Number of the batch among the producer's.
    pub(super) sequence: u64,
    /// Tells a retry from a reused sequence.
    pub(super) digest: u64,
    /// Time of receipt, nanoseconds since the Unix epoch.
    pub(super) stamp_ns: i64,
}

/// One encoded command per shard. `targets` are by position in the batch's list of devices.
pub(super) fn commands(
    devices: Vec<DeviceRecords>,
    targets: &[Target],
    type_number: u32,
    bucket_span_ns: i64,
    origin: &Origin,
) -> BTreeMap<u32, Bytes> {
    let mut shards: BTreeMap<u32, (WriteFragments, WriteWithTests)> = BTreeMap::new();
    for DeviceRecords { device, tests, records } in devices {
        let target = targets[device];
        let (write, with_tests) = shards.entry(target.shard).or_insert_with(|| {
            let write = WriteFragments {
                producer: origin.producer.clone(),
                sequence: origin.sequence,
                digest: origin.digest,
                type_number,
                ..WriteFragments::default()
            };
            (write, WriteWithTests::default())
        });
        write.rows += records.len() as u64;
        write.points += records.points() as u64;
        let (fragments, latest) = match tests {
            true => (&mut with_tests.tests, &mut with_tests.latest_tests),
            false => (&mut write.fragments, &mut write.latest),
        };
        if records.len() > 1 {
            let block = bucket::encode(&records.newest()).into();
            latest.push(Fragment {
                ordinal: target.ordinal,
                bucket_ns: 0,
                block,
            });
        }
        push_fragments(fragments, target.ordinal, &records, bucket_span_ns);
    }
    let command = |(write, with_tests): (WriteFragments, WriteWithTests)| ShardCommand {
        stamp_ns: origin.stamp_ns,
        command: Some(match with_tests.tests.is_empty() {
            true => shard_command::Command::Write(write),
            false => shard_command::Command::WriteWithTests(WriteWithTests {
                write: Some(write),
                ..with_tests
            }),
        }),
    };
    shards
        .into_iter()
        .map(|(shard, both)| (shard, command(both).encode_to_vec().into()))
        .collect()
}

fn push_fragments(fragments: &mut Vec<Fragment>, ordinal: u32, records: &Records, bucket_span_ns: i64) {
    let (Some(&first), Some(&last)) = (records.observed_at.first(), records.observed_at.last()) else {
        return;
    };
    let mut push = |bucket_ns, records: &Records| {
        fragments.push(Fragment {
            ordinal,
            bucket_ns,
            block: bucket::encode(records).into(),
        });
    };
    if bucket_start(first, bucket_span_ns) == bucket_start(last, bucket_span_ns) {
        return push(bucket_start(first, bucket_span_ns), records);
    }
    let mut at = 0;
    while at < records.len() {
        let start = bucket_start(records.observed_at[at], bucket_span_ns);
        let end = start.saturating_add(bucket_span_ns);
        push(start, &records.slice_time(start, end));
        at += records.observed_at[at..].partition_point(|t| *t < end).max(1);
    }
}
