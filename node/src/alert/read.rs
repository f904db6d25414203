//! Points of a device through the rule of a profile. Blocking.
//!
//! Never here: what becomes of the outcome. Invariant: only what the marks ask for is read, and a replay of all points of the last days
//! at most.

use std::ops::ControlFlow;

use tidemark_proto::v1::{Quality, ReportKind};
use tidemark_series::alert::{Mark, Outcome, Replay, Stated, start};
use tidemark_series::{ValueRef, bucket};

use crate::catalog::alerts::ProfileDef;
use crate::error::{Error, Reason, Result};
use crate::raft::state::store_error;
use crate::shard::Shard;

const STATED: Stated = Stated {
    discounts: |stated| stated == Quality::Fail as u8 || stated == Quality::Missing as u8,
    suspects: |stated| stated == Quality::Suspect as u8,
};

/// The mark of a device that was never evaluated: some days before a time.
pub fn before(profile: &ProfileDef, t_ns: i64) -> Vec<Mark> {
    vec![start(&profile.rule, t_ns.saturating_sub(profile.lookback_ns))]
}

/// What is read, told as it is.
#[derive(Copy, Clone, Debug)]
pub enum Looked<'a> {
    /// A bucket value.
    Bucket(&'a [u8]),
    /// A block of one, of which so many values were decoded.
    Block(u64),
}

/// Goes through the points of a device up to `until_ns`, itself excluded, from the last of `marks` that points from `changed_ns` on do not
/// touch. Gives also the time up to which everything was known. `looked` hears what it costs, and may end it.
pub fn replay(
    shard: &Shard,
    profile: &ProfileDef,
    ordinal: u32,
    marks: Vec<Mark>,
    (changed_ns, until_ns): (i64, i64),
    looked: impl Fn(Looked<'_>) -> Result<()>,
) -> Result<(Outcome, i64)> {
    let def = &profile.def;
    let Some(property) = def.property_by_number(profile.property) else {
        return Err(Error::internal("the property of an alert profile is gone"));
    };
    let checks = (&property.checks, STATED);
    let mut replay = Replay::new(&profile.rule, checks, marks, changed_ns, profile.lookback_ns);
    let (begun_ns, from_ns) = (replay.begun_ns(), replay.read_from_ns());
    let mut take = |value: &[u8]| -> Result<()> {
        looked(Looked::Bucket(value))?;
        for block in bucket::blocks(value) {
            let block = block.map_err(corrupt)?;
            if block.last_ns() < from_ns || block.first_ns() >= until_ns {
                continue;
            }
            let records = block.decode(Some(&[profile.property])).map_err(corrupt)?;
            looked(Looked::Block(records.points() as u64))?;
            let Some(column) = records.column(profile.property) else {
                continue;
            };
            for (row, value, stated) in column.cells() {
                let (t_ns, kind) = (records.observed_at[row], i32::from(records.report_kind[row]));
                let apart = kind == ReportKind::Test as i32 || kind == ReportKind::Keepalive as i32;
                let number = match value {
                    ValueRef::F64(value) => value,
                    ValueRef::I64(value) => value as f64,
                    _ => continue,
                };
                if !apart && stated != Quality::Missing as u8 && (from_ns..until_ns).contains(&t_ns) {
                    replay.point(t_ns, number, stated);
                }
            }
        }
        Ok(())
    };
    let flow = shard.scan_device(
        def.number(),
        ordinal,
        def.bucket_span_ns,
        from_ns,
        until_ns,
        |value| match take(value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        },
    );
    match flow.map_err(store_error)? {
        ControlFlow::Continue(()) => Ok((replay.finish(), begun_ns)),
        ControlFlow::Break(error) => Err(error),
    }
}

fn corrupt(corrupt: tidemark_series::Corrupt) -> Error {
    Error::new(Reason::Corruption, corrupt.to_string())
}
