//! What is done with points that are there: removing them, on demand and when a type keeps them no longer; rollups.
//!
//! ```text
//! demand      each shard says which devices have how much in the range (off the log) -> commands of bounded work,
//!             whole devices each -> its log -> what was removed
//! rollups     the leader of a shard looks for buckets that miss one -> small commands -> its log
//! retention   the leader of a shard looks at its clock -> one command per type with expired buckets -> its log
//! ```
//!
//! Records of report kind test are counted and removed as those of a type of their own, behind the others.
//!
//! Never here: what a removal does to a shard (see `shard/remove`). Invariant: no command makes applying it take long, and
//! a device is in one command alone (and in one for its tests), so that it loses its range at one moment.

mod clocks;
mod retention;
mod rollups;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::upkeep::What;
use tidemark_proto::peer::{
    RecordCounts, RemoveRecords, Removed, ShardCommand, ShardCount, Upkeep, applied, shard_command,
};
use tidemark_proto::v1::{Consistency, DeletePointsRequest, DeletePointsResponse, Selector};
use tidemark_series::window::Edge;
use tokio::sync::Semaphore;

use crate::clock::{Instant, monotonic, now_ns};
use crate::error::{Error, Reason, Result};
use crate::limits::{DELETES_MAX, Limits};
use crate::query::{edges, targets};
use crate::route::{Retry, Router, ShardJob, time_left};
use crate::shard::{is_test_lane, type_of_lane};
use crate::wire::removal::{Removal, check_removal};

/// Shards of one request that work at the same time.
const SHARDS_AHEAD: usize = 4;
/// Buckets that a command touches; one device may have more, and is not cut.
const COMMAND_BUCKETS_MAX: u64 = 512;
/// Devices that a command names: for each it looks at the newest values.
const COMMAND_DEVICES_MAX: usize = 128;

/// The way of removals on a node.
pub struct Deletes {
    router: Arc<Router>,
    limits: Arc<Limits>,
    job: ShardJob,
    permits: Semaphore,
}

impl Deletes {
    /// Over a router. `job` answers shard questions from a local replica.
    pub fn new(router: Arc<Router>, limits: Arc<Limits>, job: ShardJob) -> Deletes {
        Deletes {
            router,
            limits,
            job,
            permits: Semaphore::new(DELETES_MAX),
        }
    }

    /// Removes points of devices, or counts them.
    pub async fn delete(&self, request: DeletePointsRequest) -> Result<DeletePointsResponse> {
        let removal = check_removal(&request, &self.limits)?;
        let _permit = self
            .permits
            .try_acquire()
            .map_err(|_| Error::new(Reason::Overloaded, "this node deletes as much at once as it may"))?;
        let deadline = monotonic() + self.limits.query_timeout();
        let catalog = self.router.catalog_of(&removal.selector).await?;
        let shards = targets(&catalog, &removal.selector).into_iter();
        let parts = shards.map(|(shard, selector)| self.at_shard(shard, selector, &removal, request.dry_run, deadline));
        let sum = |mut sum: DeletePointsResponse, part: DeletePointsResponse| async move {
            sum.devices_matched += part.devices_matched;
            sum.devices += part.devices;
            sum.records += part.records;
            sum.rollup_windows += part.rollup_windows;
            Ok(sum)
        };
        futures_util::stream::iter(parts)
            .buffer_unordered(SHARDS_AHEAD)
            .try_fold(DeletePointsResponse::default(), sum)
            .await
    }

    async fn at_shard(
        &self,
        shard: u32,
        selector: Selector,
        removal: &Removal,
        dry_run: bool,
        deadline: Instant,
    ) -> Result<DeletePointsResponse> {
        let mut sum = DeletePointsResponse::default();
        let counted = self.count(shard, selector, removal, &mut sum, deadline).await?;
        let counted = in_order(counted);
        if dry_run {
            let devices = counted.iter().filter(|(_, again)| !again);
            sum.devices = devices.map(|(counts, _)| counts.ordinals.len() as u64).sum();
            sum.records = counted.iter().flat_map(|(counts, _)| &counts.records).sum();
            sum.rollup_windows = counted.iter().flat_map(|(counts, _)| &counts.windows).sum();
            return Ok(sum);
        }
        for (counts, again) in &counted {
            for (type_number, ordinals) in portions(counts) {
                let and_windows = counts.rolled || counts.windows.iter().any(|some| *some > 0);
                let what = self.removal(type_number, ordinals, removal, and_windows)?;
                let removed = self.propose(shard, type_number, what, deadline).await?;
                sum.devices += if *again { 0 } else { removed.devices };
                sum.records += removed.records;
                sum.rollup_windows += removed.windows;
            }
        }
        self.router.host().metrics().records_deleted.add(sum.records);
        Ok(sum)
    }

    /// Devices of a shard that have something in the range.
    async fn count(
        &self,
        shard: u32,
        selector: Selector,
        removal: &Removal,
        sum: &mut DeletePointsResponse,
        deadline: Instant,
    ) -> Result<Vec<RecordCounts>> {
        let query = Query::Count(ShardCount {
            selector: Some(selector),
            from_ns: removal.from_ns,
            to_ns: removal.to_ns,
        });
        let consistency = Consistency::default();
        let mut answer = self
            .router
            .read(shard, query, &consistency, &self.job, &self.router.own_asker(deadline))
            .await?;
        let mut counted = Vec::new();
        loop {
            let lost = || Error::new(Reason::Unreachable, format!("shard {shard} broke off its answer"));
            let received = tokio::time::timeout(time_left(deadline)?, answer.recv()).await;
            let late = |_| {
                Error::new(
                    Reason::DeadlineExceeded,
                    "counting took too long; nothing more was removed",
                )
            };
            for part in received.map_err(late)?.ok_or_else(lost)?? {
                match part {
                    Part::Counts(counts) => counted.push(counts),
                    Part::Summary(summary) => {
                        sum.devices_matched = summary.devices;
                        return Ok(counted);
                    }
                    other => return Err(Error::internal(format!("part {other:?} of a count"))),
                }
            }
        }
    }

    /// The command for some devices; with windows of rollups only where there are rollups, since nodes of older versions do not know it.
    /// (Without them it takes every window beside the range.)
    fn removal(&self, type_number: u32, ordinals: Vec<u32>, removal: &Removal, and_windows: bool) -> Result<What> {
        let catalog = self.router.host().catalog()?;
        let unknown = || {
            Error::new(
                Reason::TooStale,
                format!("type number {type_number} is not known here yet"),
            )
        };
        let def = catalog.type_by_number(type_of_lane(type_number)).ok_or_else(unknown)?;
        let records = RemoveRecords {
            ordinals,
            from_ns: removal.from_ns,
            to_ns: removal.to_ns,
            bucket_span_ns: def.bucket_span_ns,
            ..RemoveRecords::default()
        };
        if !and_windows {
            return Ok(What::RemoveRecords(records));
        }
        let of = |edge: Edge| edges(def).filter(move |(_, of)| *of == edge).map(|(number, _)| number);
        Ok(What::RemoveRecordsAndWindows(RemoveRecords {
            start_closed: of(Edge::StartClosed).collect(),
            end_closed: of(Edge::EndClosed).collect(),
            ..records
        }))
    }

    async fn propose(&self, shard: u32, type_number: u32, what: What, deadline: Instant) -> Result<Removed> {
        let command = upkeep(type_number, what);
        let proposed = self.router.propose(shard, command, Retry::Safe, deadline).await;
        let again = "send it again: what is gone stays gone";
        match proposed.map_err(|error| match error.reason() {
            Reason::OutcomeUnknown => error.hint(again),
            _ => error,
        })? {
            applied::Result::Removed(removed) => Ok(removed),
            other => Err(Error::internal(format!("answer {other:?} to a removal"))),
        }
    }
}

fn upkeep(type_number: u32, what: What) -> Bytes {
    let upkeep = Upkeep {
        type_number,
        what: Some(what),
    };
    let command = ShardCommand {
        stamp_ns: now_ns(),
        command: Some(shard_command::Command::Upkeep(upkeep)),
    };
    command.encode_to_vec().into()
}

/// Counts, each with whether its devices are in one before it: those of test records come last, first of devices that have no others.
fn in_order(counted: Vec<RecordCounts>) -> Vec<(RecordCounts, bool)> {
    let (tests, others): (Vec<_>, Vec<_>) = counted.into_iter().partition(|counts| is_test_lane(counts.type_number));
    let known: BTreeSet<u32> = others.iter().flat_map(|counts| &counts.ordinals).copied().collect();
    let mut all: Vec<_> = others.into_iter().map(|counts| (counts, false)).collect();
    for (counts, again) in tests.iter().flat_map(|counts| [(counts, false), (counts, true)]) {
        let mut part = RecordCounts {
            type_number: counts.type_number,
            ..RecordCounts::default()
        };
        let columns = counts.ordinals.iter().zip(&counts.records).zip(&counts.buckets);
        for ((ordinal, records), buckets) in columns.filter(|((ordinal, _), _)| known.contains(ordinal) == again) {
            part.ordinals.push(*ordinal);
            part.records.push(*records);
            part.buckets.push(*buckets);
        }
        if !part.ordinals.is_empty() {
            all.push((part, again));
        }
    }
    all
}

/// Devices of a type, as many as one command takes at a time.
fn portions(counts: &RecordCounts) -> Vec<(u32, Vec<u32>)> {
    let mut portions: Vec<(u32, Vec<u32>)> = Vec::new();
    let mut buckets_of_last = 0;
    for (ordinal, buckets) in counts.ordinals.iter().zip(&counts.buckets) {
        buckets_of_last += buckets;
        match portions.last_mut() {
            Some((_, last)) if buckets_of_last <= COMMAND_BUCKETS_MAX && last.len() < COMMAND_DEVICES_MAX => {
                last.push(*ordinal);
            }
            _ => {
                buckets_of_last = *buckets;
                portions.push((counts.type_number, vec![*ordinal]));
            }
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::test_lane;

    #[test]
    fn a_command_is_bounded_and_has_whole_devices() {
        let check = |buckets: &[u64], expected: &[&[u32]]| {
            let counts = RecordCounts {
                type_number: 7,
                ordinals: (0..buckets.len() as u32).collect(),
                records: buckets.to_vec(),
                buckets: buckets.to_vec(),
                ..RecordCounts::default()
            };
            let expected: Vec<_> = expected.iter().map(|ordinals| (7, ordinals.to_vec())).collect();
            assert_eq!(portions(&counts), expected, "{buckets:?}");
        };
        check(&[], &[]);
        check(&[0, 0], &[&[0, 1]]);
        check(&[500, 12, 1, 9_000, 3], &[&[0, 1], &[2], &[3], &[4]]);
        let many = vec![0; COMMAND_DEVICES_MAX + 1];
        let all: Vec<u32> = (0..many.len() as u32).collect();
        let (full, rest) = all.split_at(COMMAND_DEVICES_MAX);
        check(&many, &[full, rest]);
    }

    #[test]
    fn a_device_counts_once_whatever_it_has() {
        let counts = |type_number: u32, ordinals: &[u32]| RecordCounts {
            type_number,
            ordinals: ordinals.to_vec(),
            records: ordinals.iter().map(|ordinal| u64::from(*ordinal) + 10).collect(),
            buckets: ordinals.iter().map(|ordinal| u64::from(*ordinal) + 20).collect(),
            ..RecordCounts::default()
        };
        let tests = test_lane(7);
        let ordered = in_order(vec![counts(tests, &[1, 2, 3]), counts(7, &[2, 4]), counts(tests, &[4])]);
        let expected = [
            (counts(7, &[2, 4]), false),
            (counts(tests, &[1, 3]), false),
            (counts(tests, &[2]), true),
            (counts(tests, &[4]), true),
        ];
        assert_eq!(ordered, expected);
    }
}
