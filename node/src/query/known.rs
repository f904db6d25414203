//! Questions about what was known: answered from points that had been received by a time.
//!
//! Never here: which rows of a block these are (see `tidemark_series::known`). Invariant: every bucket value and every newest value that
//! an answer is made of passes here, so that all kinds of questions leave out the same.

use std::cell::Cell;
use std::ops::ControlFlow;

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::v1::AnswerSummary;
use tidemark_series::{LeftOut, NewestValue, PropertyNumber, ValueRef, bucket, known};

use super::shard_side::{Answering, Chosen, corrupt};
use crate::catalog::types::TypeDef;
use crate::clock::now_ns;
use crate::error::{Error, Reason, Result};
use crate::raft::state::store_error;
use crate::shard::Newest;

/// What was known at a time, and what that left out.
pub(super) struct Known {
    at_ns: i64,
    left_out: Cell<LeftOut>,
    /// Whether what is read was, or will be, counted elsewhere.
    aside: Cell<bool>,
}

impl Known {
    /// As a question says; `None`: everything is.
    pub(super) fn of(query: &Query) -> Option<Known> {
        let at_ns = match query {
            Query::Range(request) => request.known_at_ns,
            Query::Aggregate(request) => request.known_at_ns,
            Query::Latest(request) => request.known_at_ns,
            Query::Intervals(request) => request.known_at_ns,
            Query::Quality(request) => request.known_at_ns,
            Query::Health(request) => request.known_at_ns,
            Query::Join(request) => request.known_at_ns,
            Query::Resolve(_) | Query::Devices(_) | Query::Count(_) | Query::Alerts(_) => 0,
        };
        (at_ns != 0).then(|| Known {
            at_ns,
            left_out: Cell::default(),
            aside: Cell::new(false),
        })
    }

    /// Says so in the summary of a shard's part.
    pub(super) fn label(&self, summary: &mut AnswerSummary) {
        let left_out = self.left_out.get();
        summary.known_at_ns = self.at_ns;
        summary.received_later = left_out.records;
        summary.replaced_later = left_out.replaced;
    }
}

/// Checks the time of a question.
pub(super) fn check(known_at_ns: i64) -> Result<()> {
    match known_at_ns < 0 {
        true => Err(Error::new(
            Reason::InvalidValue,
            format!("nothing had been received {known_at_ns} ns before 1970"),
        )
        .field("known_at_ns")
        .hint("leave it out (0) for everything")),
        false => Ok(()),
    }
}

/// The present of a question: what lasts until now lasts until then.
pub(super) fn present_ns(known_at_ns: i64) -> i64 {
    match known_at_ns {
        0 => now_ns(),
        at => at.min(now_ns()),
    }
}

impl Answering<'_> {
    /// The present of this question.
    pub(super) fn present_ns(&self) -> i64 {
        present_ns(self.known.as_ref().map_or(0, |known| known.at_ns))
    }

    /// Reads what is read by others too: what is left out is counted once.
    pub(super) fn aside<T>(&self, read: impl FnOnce() -> T) -> T {
        let Some(known) = &self.known else {
            return read();
        };
        let before = known.aside.replace(true);
        let read = read();
        known.aside.set(before);
        read
    }

    /// Gives `visit` what was known of a bucket value, if anything was; counts what is left out within a range.
    pub(super) fn known_of(
        &self,
        value: &[u8],
        range: (i64, i64),
        visit: impl FnOnce(&[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let Some(known) = &self.known else {
            return visit(value);
        };
        let before = known.left_out.get();
        let mut left_out = before;
        let value = known::received_by(value, known.at_ns, range, &mut left_out).map_err(corrupt)?;
        self.tally.cut(left_out.decoded - before.decoded)?;
        if !known.aside.get() {
            known.left_out.set(left_out);
        }
        match value.is_empty() {
            true => Ok(ControlFlow::Continue(())),
            false => visit(&value),
        }
    }

    /// Whether a record that was received then takes part.
    pub(super) fn had_come(&self, received_at_ns: i64) -> bool {
        self.known.as_ref().is_none_or(|known| received_at_ns <= known.at_ns)
    }

    /// Newest values of devices of one type, whatever their quality, in the order of the devices: as they are kept, and where those
    /// came too late, the newest ones before them that had come.
    pub(super) fn newest(&self, def: &TypeDef, devices: &[&Chosen]) -> Result<Vec<Newest>> {
        let ordinals: Vec<u32> = devices.iter().map(|chosen| chosen.ordinal()).collect();
        let mut newest = self.shard.newest(self.number(def), &ordinals).map_err(store_error)?;
        for (chosen, newest) in devices.iter().zip(&mut newest) {
            if newest.iter().all(|value| self.had_come(value.received_at)) {
                continue;
            }
            let (mut known, later): (Vec<_>, Vec<_>) = newest
                .iter()
                .cloned()
                .partition(|value| self.had_come(value.received_at));
            // All that had come was observed before those, or with them.
            let until_ns = later.iter().map(|value| value.observed_at.saturating_add(1)).max();
            let missing = later.iter().map(|value| value.property).collect();
            known.extend(self.last_known(def, chosen, missing, until_ns.unwrap_or(i64::MAX), |_, _, _| true)?);
            known.sort_by_key(|value| value.property);
            *newest = known.into();
        }
        Ok(newest)
    }

    /// The last value of each of some properties that was observed before `until_ns`, had come, and is one to take by property, value,
    /// quality and report kind. Blocks that came too late are passed over without being decoded, so it goes back bucket by bucket.
    pub(super) fn last_known(
        &self,
        def: &TypeDef,
        chosen: &Chosen,
        mut missing: Vec<PropertyNumber>,
        until_ns: i64,
        takes: impl Fn(PropertyNumber, ValueRef<'_>, (u8, u8)) -> bool,
    ) -> Result<Vec<NewestValue>> {
        let mut found = Vec::new();
        let _ = self.scan_back(def, chosen, (i64::MIN, until_ns), |value| {
            let blocks = bucket::blocks(value).collect::<std::result::Result<Vec<_>, _>>();
            for block in blocks.map_err(corrupt)?.iter().rev() {
                if missing.is_empty() || block.first_ns() >= until_ns {
                    continue;
                }
                let records = block.decode(Some(&missing)).map_err(corrupt)?;
                self.tally.block(records.points() as u64)?;
                for column in &records.columns {
                    let taken = |(row, value, quality): &(usize, ValueRef<'_>, u8)| {
                        let stated = (*quality, records.report_kind[*row]);
                        records.observed_at[*row] < until_ns && takes(column.property, *value, stated)
                    };
                    let Some((row, value, quality)) = column.cells().filter(taken).last() else {
                        continue;
                    };
                    let times = (records.observed_at[row], records.received_at[row]);
                    let kind = records.report_kind[row];
                    found.push(NewestValue::of_point(column.property, times, kind, quality, value));
                    missing.retain(|property| *property != column.property);
                }
            }
            Ok(match missing.is_empty() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        Ok(found)
    }
}
