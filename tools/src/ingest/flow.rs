//! What was sent, what came back, what is next: the bookkeeping of a run. Never: the network, the clock, the terminal.
//!
//! Invariant: after any ack the state describes a point from which a new run sends exactly what is not known to be stored,
//! with the producer and sequences it had. A batch is done when it was stored, or its rest was, or nothing of it was left.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidemark_client::{Error, v1};

use super::chunk::{Chunk, Cut, Excluded};
use super::rejects::{Reject, Rejects};
use super::request::Sent;
use super::state::{ChunkState, Refused, Rest, State, Totals};
use super::values::Typed;
use crate::failure::{Failure, Outcome, Refusal};

/// A chunk whose batches are not all done.
struct Open {
    chunk: Chunk,
    first: u64,
    done: Vec<bool>,
    sent: usize,
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
        }
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
        self.done(batch)
    }

    /// A batch was refused as a whole (`rest` is 0), or its rest with that sequence was. Gives what is left of it to send.
    /// The state must be saved first.
    pub(crate) fn refused(&mut self, batch: u64, rest: u64, error: Error) -> Outcome<Option<RestBatch>> {
        let earlier: Vec<Rest> = self
            .state
            .rests
            .iter()
            .filter(|rest| rest.batch == batch)
            .cloned()
            .collect();
        let attempt = if rest == 0 {
            0
        } else {
            earlier
                .iter()
                .position(|one| one.sequence == rest)
                .map_or(0, |at| at + 1)
        };
        let before: &[Refused] = if attempt == 0 {
            &[]
        } else {
            &earlier[attempt - 1].refused
        };
        let next = match earlier.get(attempt) {
            Some(decided) => decided.clone(),
            None => {
                let mut refused = before.to_vec();
                let named = self.refused_parts(batch, before, &error);
                if named.is_empty() {
                    return Err(Refusal::from(error).failure("the store refused a batch"));
                }
                refused.extend(named);
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
        self.state.rests.push(rest.clone());
        self.changed = true;
        rest
    }

    fn find(&self, batch: u64) -> Option<(&Open, usize)> {
        self.open.iter().find_map(|open| {
            let index = usize::try_from(batch.checked_sub(open.first)?).ok()?;
            (index < open.done.len()).then_some((open, index))
        })
    }

    fn build(&self, batch: u64, refused: &[Refused]) -> Option<Sent> {
        let (open, index) = self.find(batch)?;
        open.chunk.cuts[index].batch(&open.chunk, &self.types, self.kind, &excluded(refused))
    }

    /// The parts that an error names, as positions in the cut.
    fn refused_parts(&self, batch: u64, before: &[Refused], error: &Error) -> Vec<Refused> {
        let (Some((open, index)), Some(sent)) = (self.find(batch), self.build(batch, before)) else {
            return Vec::new();
        };
        let cut = &open.chunk.cuts[index];
        let typed = &self.types[cut.device_type];
        let mut parts: BTreeMap<(u32, Option<u16>), String> = BTreeMap::new();
        for row in &error.rows {
            let Some(record) = sent.records.get(row.row as usize).copied() else {
                continue;
            };
            let property = property_of(&row.field, typed, &sent).filter(|p| self.by_value && cut.has(record, *p));
            parts
                .entry((record, property))
                .or_insert_with(|| format!("{}: {}", row.reason, row.message));
        }
        if error.rows.is_empty()
            && let Some(device) = error
                .field
                .as_deref()
                .and_then(|field| index_in(field, "devices["))
                .and_then(|at| sent.devices.get(at))
        {
            for record in cut.records_of(*device) {
                parts.insert((record, None), format!("{}: {}", error.reason, error.message));
            }
        }
        parts
            .into_iter()
            .map(|((record, property), why)| Refused { record, property, why })
            .collect()
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
                for row in cut.rows_of(part.record, part.property) {
                    rejected.entry(row).or_insert_with(|| part.why.clone());
                }
            }
        }
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
    refused.iter().map(|part| (part.record, part.property)).collect()
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

/// The property that a field path names: by id, or by the position of its column.
fn property_of(field: &str, typed: &Typed, sent: &Sent) -> Option<u16> {
    typed
        .find(field)
        .or_else(|| index_in(field, "columns[").and_then(|at| sent.properties.get(at).copied()))
}

/// `batch.devices[3].id` with `devices[` → 3.
fn index_in(field: &str, before: &str) -> Option<usize> {
    let (_, rest) = field.split_once(before)?;
    rest.split_once(']')?.0.parse().ok()
}
