//! What the shard tests share: a shard in a temporary directory, commands written as one line each, a crash.
//!
//! Never here: assertions about a topic. Invariant: nothing random but what a seed gives.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests; each test file uses its own part"
)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tempfile::TempDir;
use tidemark_node::shard::{ApplyEntry, Shard, bucket_start, contents};
use tidemark_node::store::{AppliedState, ReplicaStore, Resources, StoreError};
use tidemark_proto::peer::{
    Applied, Fragment, PutDevice, PutDevices, RestoreRecords, RestoredRecord, ShardCommand, WriteFragments,
    shard_command,
};
use tidemark_proto::v1::Device;
use tidemark_series::{Bitmap, Column, PropertyNumber, Records, Values, bucket};

pub const SPAN: i64 = 1_000;
pub const KIND: u32 = 7;

pub fn resources() -> Resources {
    Resources::new(64 << 20, 256 << 20, 2).unwrap()
}

pub fn open(directory: &Path) -> Shard {
    try_open(directory).unwrap()
}

pub fn try_open(directory: &Path) -> Result<Shard, StoreError> {
    Shard::open(ReplicaStore::open(directory, &resources())?)
}

pub struct Place {
    pub root: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

/// What a power cut leaves: the files as they are now, memtables lost. Waits for a moment in which no background work
/// changes them.
pub fn crash_copy(from: &Path, to: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let before = listing(from);
        let copied = copy(&before, to);
        if copied.is_ok() && listing(from) == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
        assert!(Instant::now() < deadline, "the files never rest: {copied:?}");
    }
}

/// Files with their sizes; the engine's own log is of no interest.
fn listing(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if let Ok(metadata) = path.metadata()
            && path.file_name().is_some_and(|name| name != "LOG")
        {
            files.insert(path, metadata.len());
        }
    }
    files
}

fn copy(files: &BTreeMap<PathBuf, u64>, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for path in files.keys() {
        std::fs::copy(path, to.join(path.file_name().unwrap()))?;
    }
    Ok(())
}

pub fn state(index: u64) -> AppliedState {
    AppliedState {
        log_id: Some(index.to_be_bytes().to_vec()),
        membership: Some(b"members".to_vec()),
    }
}

pub fn index_of(state: &AppliedState) -> Option<u64> {
    state
        .log_id
        .as_ref()
        .map(|bytes| u64::from_be_bytes(bytes.as_slice().try_into().unwrap()))
}

pub fn entry(stamp_ns: i64, command: shard_command::Command) -> ApplyEntry {
    let command = ShardCommand {
        stamp_ns,
        command: Some(command),
    };
    ApplyEntry {
        command: Some(Bytes::from(command.encode_to_vec())),
    }
}

pub fn device(id: &str, tags: &[(&str, &str)]) -> PutDevice {
    let tags = tags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let device = Device {
        id: id.to_owned(),
        device_type: "kind".to_owned(),
        tags,
        ..Device::default()
    };
    PutDevice {
        device: Some(device),
        type_number: KIND,
    }
}

pub fn put(stamp_ns: i64, devices: Vec<PutDevice>) -> ApplyEntry {
    entry(
        stamp_ns,
        shard_command::Command::PutDevices(PutDevices {
            devices,
            ..Default::default()
        }),
    )
}

/// Devices "d0", "d1", … get the ordinals 0, 1, …
pub fn put_count(count: u32) -> ApplyEntry {
    put(1, (0..count).map(|number| device(&format!("d{number}"), &[])).collect())
}

pub fn column(property: u32, cells: &[Option<f64>]) -> Option<Column> {
    let values: Vec<f64> = cells.iter().flatten().copied().collect();
    if values.is_empty() {
        return None;
    }
    let mut presence = Bitmap::new(cells.len());
    for (row, cell) in cells.iter().enumerate() {
        presence.set(row, cell.is_some());
    }
    let presence = (values.len() < cells.len()).then_some(presence);
    Some(Column {
        property: PropertyNumber(property),
        presence,
        values: Values::F64(values),
        quality: None,
    })
}

/// Rows of property 1, received at their own time.
pub fn rows(cells: &[(i64, f64)]) -> Records {
    let observed_at: Vec<i64> = cells.iter().map(|(time, _)| *time).collect();
    let values: Vec<_> = cells.iter().map(|(_, value)| Some(*value)).collect();
    Records {
        received_at: observed_at.clone(),
        report_kind: vec![0; cells.len()],
        repeats: Vec::new(),
        observed_at,
        columns: column(1, &values).into_iter().collect(),
    }
    .normalise()
}

/// Cut at the buckets, one fragment each.
pub fn fragments(ordinal: u32, records: &Records) -> Vec<Fragment> {
    fragments_of(ordinal, records, SPAN)
}

/// The same for other buckets.
pub fn fragments_of(ordinal: u32, records: &Records, span_ns: i64) -> Vec<Fragment> {
    let mut rest = records.clone();
    let mut fragments = Vec::new();
    while let Some(first) = rest.observed_at.first().copied() {
        let bucket_ns = bucket_start(first, span_ns);
        let end = bucket_ns.saturating_add(span_ns);
        let block = Bytes::from(bucket::encode(&rest.slice_time(i64::MIN, end)));
        fragments.push(Fragment {
            ordinal,
            bucket_ns,
            block,
        });
        rest = rest.slice_time(end, i64::MAX);
    }
    fragments
}

/// A write without producer.
pub fn write_of(parts: &[(u32, Records)]) -> WriteFragments {
    WriteFragments {
        type_number: KIND,
        fragments: parts
            .iter()
            .flat_map(|(ordinal, records)| fragments(*ordinal, records))
            .collect(),
        rows: parts.iter().map(|(_, records)| records.len() as u64).sum(),
        points: parts.iter().map(|(_, records)| records.points() as u64).sum(),
        ..WriteFragments::default()
    }
}

pub fn write(stamp_ns: i64, write: WriteFragments) -> ApplyEntry {
    entry(stamp_ns, shard_command::Command::Write(write))
}

/// Applies as one chunk; the last entry has the given index.
pub fn apply(shard: &Shard, last_index: u64, entries: &[ApplyEntry]) -> Vec<Applied> {
    shard.apply(entries, state(last_index)).unwrap()
}

/// All records of a device in a range, decoded.
pub fn read(shard: &Shard, ordinal: u32, from_ns: i64, to_ns: i64) -> Result<Records, StoreError> {
    let mut all = Records::default();
    let end = shard.scan_device(KIND, ordinal, SPAN, from_ns, to_ns, |value| {
        match bucket::decode(value, None) {
            Ok(records) => {
                all = Records::merge(&all, &records.slice_time(from_ns, to_ns));
                ControlFlow::Continue(())
            }
            Err(corrupt) => ControlFlow::Break(corrupt),
        }
    })?;
    match end {
        ControlFlow::Continue(()) => Ok(all),
        ControlFlow::Break(corrupt) => Err(corrupt.into()),
    }
}

/// (time, value) of property 1.
pub fn cells(shard: &Shard, ordinal: u32, from_ns: i64, to_ns: i64) -> Vec<(i64, f64)> {
    let records = read(shard, ordinal, from_ns, to_ns).unwrap();
    let Some(column) = records
        .columns
        .iter()
        .find(|column| column.property == PropertyNumber(1))
    else {
        return Vec::new();
    };
    let Values::F64(values) = &column.values else {
        return Vec::new();
    };
    let present = records.observed_at.iter().enumerate();
    let present = present.filter(|(row, _)| column.presence.as_ref().is_none_or(|bits| bits.get(*row)));
    present.map(|(_, time)| *time).zip(values.iter().copied()).collect()
}

/// A small generator: the same numbers for the same seed, everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Mostly close together, at times anywhere.
pub fn random_time(random: &mut Random) -> i64 {
    match random.below(20) {
        0 => random.next() as i64,
        1 => -(random.below(3_000) as i64),
        2 => random.below(5_000_000) as i64,
        _ => random.below(6_000) as i64,
    }
}

/// A few rows of up to three properties, with receipt times of no order.
pub fn random_records(random: &mut Random) -> Records {
    let mut times: Vec<i64> = (0..1 + random.below(12)).map(|_| random_time(random)).collect();
    times.retain(|time| *time != i64::MAX);
    times.sort_unstable();
    times.dedup();
    let mut columns = Vec::new();
    for property in 1..=3 {
        let cells: Vec<_> = times
            .iter()
            // The first property is always there, so that every row has a value.
            .map(|_| (property == 1 || random.below(2) == 0).then(|| random.below(1_000) as f64 / 8.0))
            .collect();
        columns.extend(column(property, &cells));
    }
    let received_at = times.iter().map(|_| random.below(1_000) as i64).collect();
    let report_kind = times.iter().map(|_| random.below(3) as u8).collect();
    Records {
        report_kind,
        received_at,
        observed_at: times,
        columns,
        repeats: Vec::new(),
    }
    .normalise()
}

/// Seeds to run: TIDEMARK_SEED alone, or `count` new ones in a row. Printed by each test, so that a failure can be run again.
pub fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("TIDEMARK_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let first: u64 = rand::random();
            (0..count).map(|n| first.wrapping_add(n)).collect()
        }
    }
}

/// The entries that bring the records of a shard back elsewhere, in two pieces: one without any, and the one of this number with all
/// of them.
pub fn restore_of(shard: &Shard, full: u64) -> [ApplyEntry; 2] {
    let mut records = Vec::new();
    let all = contents::each_record(shard.store(), |family, key, value| {
        records.push(RestoredRecord {
            family,
            key: key.to_vec().into(),
            value: value.to_vec().into(),
        });
        ControlFlow::<()>::Continue(())
    });
    assert!(all.unwrap().is_continue());
    let piece = |piece: u64, records: Vec<RestoredRecord>| {
        let restore = RestoreRecords {
            backup_id: "b".into(),
            piece,
            last: piece == 1,
            records,
            check_only: false,
        };
        entry(1, shard_command::Command::Restore(restore))
    };
    [0, 1].map(|number| match number == full {
        true => piece(number, records.clone()),
        false => piece(number, Vec::new()),
    })
}
