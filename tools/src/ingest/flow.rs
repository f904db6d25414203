//! What was sent, what came back, what is next: the bookkeeping of a run. Never: the network, the clock, the terminal.
//!
//! Invariant: after any ack the state describes a point from which a new run sends exactly what is not known to be stored,
//! with the producer and sequences it had. A batch is done when it was stored, or its rest was, or nothing of it was left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidemark_client::{Error, v1};

use super::chunk::{Chunk, Cut, Excluded};
use super::refused::{Batch, Learned, advice, is_of_device, reason_of};
use super::rejects::{Reject, Rejects};
use super::request::Sent;
use super::state::{ChunkState, Refused, Rest, State, Totals};
use super::values::Typed;
use crate::failure::{Failure, Outcome, Refusal};

/// A batch of fewer records says nothing of the file when all of them are refused.
const ALL_REFUSED_MIN: usize = 100;

/// A chunk whose batches are not all done.
struct Open {
    chunk: Chunk,
    first: u64,
    done: Vec<bool>,
    sent: usize,
}

impl Open {
    /// Position of a batch among those of the chunk.
    fn place(&self, batch: u64) -> Option<usize> {
        let index = usize::try_from(batch.checked_sub(self.first)?).ok()?;
        (index < self.done.len()).then_some(index)
    }
}

/// A rest to send: its batch, its sequence with the producer of rests, and the request.
pub(crate) struct RestBatch {
    /// Sequence of the refused batch.
    pub(crate) batch: u64,
    /// Sequence of the rest.
    pub(crate) sequence: u64,
    /// The request.
    pub(crate) request: v1::Batch,
}

/// A run's bookkeeping.
pub(crate) struct Flow {
    types: Arc<Vec<Typed>>,
    kind: v1::ReportKind,
    /// The long form rejects single values, the wide form whole rows.
    by_value: bool,
    state: State,
    rejects: Rejects,
    open: VecDeque<Open>,
    next_sequence: u64,
    /// Bytes of the file taken before the oldest open chunk.
    taken_before: u64,
    changed: bool,
    learned: Learned,
    /// Rows rejected in this run, by the store's reason; without one, those that could not be read.
    reasons: BTreeMap<String, u64>,
    /// Something of the file was stored, or its first chunk is through, or the caller goes on whatever comes.
    proven: bool,
}

impl Flow {
    /// Goes on from `state`.
    pub(crate) fn new(
        types: Arc<Vec<Typed>>,
        kind: v1::ReportKind,
        by_value: bool,
        state: State,
        rejects: Rejects,
    ) -> Flow {
        let next_sequence = state.chunk.sequence;
        let proven = state.totals.rows > 0 || state.chunk.done > 0;
        Flow {
            types,
            kind,
            by_value,
            state,
            rejects,
            open: VecDeque::new(),
            next_sequence,
            taken_before: 0,
            changed: true,
            learned: Learned::default(),
            reasons: BTreeMap::new(),
            proven,
        }
    }

    /// Goes on although the store refuses all of the first batch.
    pub(crate) fn keep_going(&mut self) {
        self.proven = true;
    }

    /// False as long as nothing of the file was stored: then one batch goes at a time.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Where the bytes of the file stand that an earlier run took.
    pub(crate) fn begin_at(&mut self, taken: u64) {
        self.taken_before = taken;
    }

    /// Who sends.
    pub(crate) fn producer(&self) -> &str {
        &self.state.producer
    }

    /// Sequence of the first batch that will be sent.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.state.chunk.sequence + self.state.chunk.done
    }

    /// What to write to the progress file, if anything changed since it was asked for.
    pub(crate) fn take_state(&mut self) -> Option<&State> {
        std::mem::take(&mut self.changed).then_some(&self.state)
    }

    /// Chunks that are not done.
    pub(crate) fn open_chunks(&self) -> usize {
        self.open.len()
    }

    /// Takes the next chunk of the file.
    pub(crate) fn offer(&mut self, chunk: Chunk) -> Outcome {
        let done_before = if self.open.is_empty() {
            self.state.chunk.done as usize
        } else {
            0
        };
        let count = chunk.cuts.len();
        let done = (0..count).map(|index| index < done_before).collect();
        self.open.push_back(Open {
            chunk,
            first: self.next_sequence,
            done,
            sent: done_before.min(count),
        });
        self.next_sequence += count as u64;
        self.advance()
    }

    /// The next batch of the file, with the sequence it must get.
    pub(crate) fn next_batch(&mut self) -> Option<(u64, v1::Batch)> {
        for open in &mut self.open {
            while let Some(cut) = open.chunk.cuts.get(open.sent) {
                let sequence = open.first + open.sent as u64;
                open.sent += 1;
                if let Some(sent) = cut.batch(&open.chunk, &self.types, self.kind, &Excluded::new()) {
                    return Some((sequence, sent.batch));
                }
            }
        }
        None
    }

    /// A batch, or the rest of one, is stored.
    pub(crate) fn stored(&mut self, batch: u64, whole: bool) -> Outcome {
        if whole && self.state.rests.iter().any(|rest| rest.batch == batch) {
            // Refused in an earlier run, taken now: nothing of it is rejected after all.
            self.state.rests.retain(|rest| rest.batch != batch);
        }
        self.proven = true;
        self.done(batch)
    }

    /// A batch was refused as a whole (`rest` is 0), or its rest with that sequence was. Gives what is left of it to send.
    /// The state must be saved first.
    pub(crate) fn refused(&mut self, batch: u64, rest: u64, error: Error) -> Outcome<Option<RestBatch>> {
        let decided = self.state.rests.iter().find(|one| one.batch == batch);
        let next = match decided {
            // Of an earlier run, which sent the rest as well: the same rest may be stored.
            Some(decided) if rest == 0 && decided.sequence != 0 => decided.clone(),
            decided => {
                let before = decided.filter(|_| rest != 0);
                let mut refused = before.map_or_else(Vec::new, |before| before.refused.clone());
                let named = self.refused_parts(batch, &refused, &error);
                if named.is_empty() {
                    return Err(Refusal::from(error).failure("the store refused a batch"));
                }
                refused.extend(named);
                self.stop_if_all(batch, &refused, &error)?;
                self.decide(batch, refused)
            }
        };
        if next.sequence == 0 {
            self.done(batch)?;
            return Ok(None);
        }
        let sent = self.build(batch, &next.refused).ok_or_else(lost)?;
        Ok(Some(RestBatch {
            batch,
            sequence: next.sequence,
            request: sent.batch,
        }))
    }

    fn decide(&mut self, batch: u64, refused: Vec<Refused>) -> Rest {
        let left = self.build(batch, &refused).is_some();
        let sequence = if left { self.state.rest_sequence } else { 0 };
        self.state.rest_sequence += u64::from(left);
        let rest = Rest {
            batch,
            sequence,
            refused,
        };
        self.state.put_rest(rest.clone());
        self.changed = true;
        rest
    }

    /// Before anything was stored, a batch that is refused in all its rows for one reason ends the run: the command is
    /// wrong, more likely than the file. Nothing is decided then, so that a better command begins with the first batch.
    fn stop_if_all(&mut self, batch: u64, refused: &[Refused], error: &Error) -> Outcome {
        if self.proven || self.build(batch, refused).is_some() {
            return Ok(());
        }
        let Some((open, index)) = self.find(batch) else {
            return Ok(());
        };
        let cut = &open.chunk.cuts[index];
        let first = refused.iter().min_by_key(|part| part.record);
        let reason = first.and_then(|part| reason_of(&part.why)).unwrap_or_default();
        let one = refused.iter().all(|part| reason_of(&part.why) == Some(reason));
        if cut.records.len() < ALL_REFUSED_MIN || !one {
            return Ok(());
        }
        // One device that is not there says nothing of the others, where there are any.
        if is_of_device(reason) && self.learned.devices() == 1 && open.chunk.devices.len() > 1 {
            return Ok(());
        }
        let line = cut.rows_of(0, None).first().map_or(0, |row| open.chunk.row(*row).0);
        let message = format!(
            "line {line}: {}; the other {} records of this batch are refused for the same reason, and none is stored yet",
            first.map_or("", |part| part.why.as_str()),
            cut.records.len() - 1
        );
        let error = Error {
            message,
            field: None,
            rows: Vec::new(),
            hint: Some(advice(reason).to_owned()),
            ..error.clone()
        };
        self.state.rests.clear();
        self.state.chunk.done = 0;
        self.changed = true;
        Err(Refusal::from(error).failure("the store takes nothing of this file"))
    }

    fn find(&self, batch: u64) -> Option<(&Open, usize)> {
        let mut open = self.open.iter();
        open.find_map(|open| open.place(batch).map(|index| (open, index)))
    }

    fn build(&self, batch: u64, refused: &[Refused]) -> Option<Sent> {
        let (open, index) = self.find(batch)?;
        open.chunk.cuts[index].batch(&open.chunk, &self.types, self.kind, &excluded(refused))
    }

    /// What an error leaves out of a batch, as positions in the cut.
    fn refused_parts(&mut self, batch: u64, before: &[Refused], error: &Error) -> Vec<Refused> {
        let Some(sent) = self.build(batch, before) else {
            return Vec::new();
        };
        let mut open = self.open.iter();
        let Some((open, index)) = open.find_map(|open| open.place(batch).map(|index| (open, index))) else {
            return Vec::new();
        };
        let cut = &open.chunk.cuts[index];
        let refused = Batch {
            chunk: &open.chunk,
            cut,
            typed: &self.types[cut.device_type],
            sent: &sent,
            by_value: self.by_value,
        };
        self.learned.parts(refused, error)
    }

    fn done(&mut self, batch: u64) -> Outcome {
        for open in &mut self.open {
            if let Some(done) = batch
                .checked_sub(open.first)
                .and_then(|index| open.done.get_mut(index as usize))
            {
                *done = true;
            }
        }
        self.advance()
    }

    fn advance(&mut self) -> Outcome {
        self.changed = true;
        while let Some(open) = self.open.front() {
            let done = open.done.iter().take_while(|done| **done).count();
            self.state.chunk = ChunkState {
                offset: open.chunk.start.offset,
                line: open.chunk.start.line,
                sequence: open.first,
                done: done as u64,
            };
            if done < open.done.len() {
                break;
            }
            let Some(open) = self.open.pop_front() else { break };
            self.close(&open)?;
        }
        Ok(())
    }

    /// Books a chunk whose batches are all done.
    fn close(&mut self, open: &Open) -> Outcome {
        let mut rejected: BTreeMap<u32, String> = open.chunk.rejects.clone();
        let last = open.first + open.done.len() as u64;
        let mut totals = self.state.totals;
        for (index, cut) in open.chunk.cuts.iter().enumerate() {
            let batch = open.first + index as u64;
            let refused = self
                .state
                .rests
                .iter()
                .rfind(|rest| rest.batch == batch)
                .map_or(&[][..], |rest| &rest.refused);
            let (records, points) = count(cut, &excluded(refused));
            totals.records += records;
            totals.points += points;
            for part in refused {
                for row in part.records().flat_map(|record| cut.rows_of(record, part.property)) {
                    rejected.entry(row).or_insert_with(|| part.why.clone());
                }
            }
        }
        for (row, why) in &rejected {
            let reason = reason_of(why).filter(|_| !open.chunk.rejects.contains_key(row));
            *self.reasons.entry(reason.unwrap_or_default().to_owned()).or_default() += 1;
        }
        // A chunk that is through is booked: what it lost can no longer be taken in by a better command.
        self.proven = true;
        let rejects: Vec<_> = rejected
            .into_iter()
            .map(|(row, why)| {
                let (line, raw) = open.chunk.row(row);
                Reject { line, why, raw }
            })
            .collect();
        let path = self.rejects.path();
        self.rejects
            .add(&rejects)
            .map_err(|error| Failure::file("write rejected rows to", &path, &error))?;
        totals.rows += open.chunk.rows() as u64;
        totals.rejected += rejects.len() as u64;
        totals.replaced += open.chunk.replaced;
        self.state.totals = totals;
        self.state.rejects_bytes = self.rejects.bytes();
        self.state.rests.retain(|rest| rest.batch >= last);
        self.state.chunk = ChunkState {
            offset: open.chunk.end.offset,
            line: open.chunk.end.line,
            sequence: last,
            done: 0,
        };
        self.taken_before = open.chunk.taken;
        Ok(())
    }

    /// Totals of the chunks that are done.
    pub(crate) fn totals(&self) -> Totals {
        self.state.totals
    }

    /// Why rows were rejected in this run: `7 TIME_TOO_OLD, 2 cannot be read`.
    pub(crate) fn reject_reasons(&self) -> String {
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let texts = reasons.into_iter().map(|(reason, count)| match reason.as_str() {
            "" => format!("{count} cannot be read"),
            reason => format!("{count} {reason}"),
        });
        texts.collect::<Vec<_>>().join(", ")
    }

    /// Where rejected rows are.
    pub(crate) fn rejects_path(&self) -> String {
        self.rejects.path()
    }

    /// About how far the run is: rows, and bytes of the file, both with the share of the oldest open chunk that is done.
    pub(crate) fn reached(&self) -> (u64, u64) {
        let Some(open) = self.open.front() else {
            return (self.state.totals.rows, self.taken_before);
        };
        let share = self.state.chunk.done as f64 / open.done.len().max(1) as f64;
        let bytes = open.chunk.taken.saturating_sub(self.taken_before) as f64 * share;
        (
            self.state.totals.rows + (open.chunk.rows() as f64 * share) as u64,
            self.taken_before + bytes as u64,
        )
    }
}

fn lost() -> Failure {
    Failure::new(
        crate::failure::Exit::Failed,
        "the rest of a batch was lost",
        "a defect of this program",
        "",
    )
}

fn excluded(refused: &[Refused]) -> Excluded {
    let records = |part: &Refused| part.records().map(|record| (record, part.property)).collect::<Vec<_>>();
    refused.iter().flat_map(records).collect()
}

/// Records and points of a cut without what is excluded.
fn count(cut: &Cut, excluded: &Excluded) -> (u64, u64) {
    let (mut records, mut points) = (0, 0);
    for (index, record) in cut.records.iter().enumerate() {
        let index = index as u32;
        if excluded.contains(&(index, None)) {
            continue;
        }
        let cells = &cut.cells[record.cells.start as usize..record.cells.end as usize];
        let left = cells
            .iter()
            .filter(|cell| !excluded.contains(&(index, Some(cell.property))))
            .count() as u64;
        records += u64::from(left > 0);
        points += left;
    }
    (records, points)
}
