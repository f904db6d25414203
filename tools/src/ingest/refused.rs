//! What a refusal leaves out of a batch: the rows that it names, and those that fare as the named ones do. Never: sending, the books.
//!
//! A node names the first hundred bad rows. All rows of a device that is not there are bad, and a time before one that is too
//! old is too old itself; such rows go with the named ones, or a batch of bad rows would go again fifty times.
//!
//! Invariant: where a node named every bad row, nothing else is left out.

use std::collections::{BTreeMap, HashMap, HashSet};

use tidemark_client::{Error, RowError};

use super::chunk::{Chunk, Cut};
use super::request::Sent;
use super::state::Refused;
use super::values::Typed;

/// Rows that one refusal names at most: a list that is shorter is whole.
const NAMED_MAX: usize = 100;

/// Parts of a batch with the reason why they are left out: a record, or one property of it.
type Parts = BTreeMap<(u32, Option<u16>), String>;

/// What is known of rows that no answer has named: what the answers of a run said of devices and times.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Devices that were refused, by type and id, and why.
    devices: HashMap<(usize, String), String>,
    /// By type, the newest time that was too old, and why.
    too_old: HashMap<usize, (i64, String)>,
}

/// A batch that was refused.
#[derive(Copy, Clone)]
pub(super) struct Batch<'a> {
    pub(super) chunk: &'a Chunk,
    pub(super) cut: &'a Cut,
    pub(super) typed: &'a Typed,
    /// What went to the store of it.
    pub(super) sent: &'a Sent,
    /// Single values can be left out.
    pub(super) by_value: bool,
}

/// What a reason is about.
#[derive(Copy, Clone, PartialEq, Eq)]
enum About {
    Device,
    TooOld,
    TooNew,
    Row,
}

fn about(reason: &str) -> About {
    match reason {
        "UNKNOWN_DEVICE" | "INVALID_ID" | "WRONG_DEVICE_TYPE" => About::Device,
        "TIME_TOO_OLD" => About::TooOld,
        "TIME_TOO_NEW" => About::TooNew,
        _ => About::Row,
    }
}

/// True for reasons that all rows of a device share.
pub(super) fn is_of_device(reason: &str) -> bool {
    about(reason) == About::Device
}

impl Learned {
    /// Devices that were refused so far.
    pub(super) fn devices(&self) -> usize {
        self.devices.len()
    }

    /// The parts of a batch that this error leaves out of it; none: it is of something else than rows.
    pub(super) fn parts(&mut self, batch: Batch<'_>, error: &Error) -> Vec<Refused> {
        let mut parts = Parts::new();
        // The failure as a whole may name its first row again, without a reason of its own: the row's own entry counts.
        let (own, whole): (Vec<&RowError>, Vec<_>) = error.rows.iter().partition(|row| !row.reason.is_empty());
        for row in own.iter().chain(&whole) {
            let Some(record) = batch.sent.records.get(row.row as usize).copied() else {
                continue;
            };
            let property = match about(&row.reason) {
                About::Row => property_of(&row.field, batch.typed, batch.sent),
                _ => None,
            };
            let property = property.filter(|p| batch.by_value && batch.cut.has(record, *p));
            parts
                .entry((record, property))
                .or_insert_with(|| format!("{}: {}", row.reason, row.message));
        }
        if error.rows.is_empty()
            && let Some(device) = error
                .field
                .as_deref()
                .and_then(|field| index_in(field, "devices["))
                .and_then(|at| batch.sent.devices.get(at))
        {
            for record in batch.cut.records_of(*device) {
                parts.insert((record, None), format!("{}: {}", error.reason, error.message));
            }
        }
        // A batch that is stored in part names rows for what others of their shard did.
        if error.reason != "PARTLY_STORED" {
            self.infer(batch, &own, &mut parts);
        }
        runs(parts)
    }

    /// Adds the rows that fare as the named ones do, where more may be bad than are named.
    fn infer(&mut self, batch: Batch<'_>, named: &[&RowError], parts: &mut Parts) {
        let Batch { chunk, cut, sent, .. } = batch;
        let mut too_new: Option<(i64, String)> = None;
        for row in named {
            let Some(record) = sent.records.get(row.row as usize).map(|at| &cut.records[*at as usize]) else {
                continue;
            };
            let why = || format!("{}: {}", row.reason, row.message);
            match about(&row.reason) {
                About::Device => {
                    let device = chunk.devices[record.device as usize].clone();
                    self.devices.entry(device).or_insert_with(why);
                }
                About::TooOld => {
                    let newest = self.too_old.entry(cut.device_type).or_insert((i64::MIN, String::new()));
                    if record.at_ns > newest.0 {
                        *newest = (record.at_ns, why());
                    }
                }
                About::TooNew => {
                    if too_new.as_ref().is_none_or(|(oldest, _)| record.at_ns < *oldest) {
                        too_new = Some((record.at_ns, why()));
                    }
                }
                About::Row => {}
            }
        }
        if named.len() < NAMED_MAX {
            return;
        }
        let gone: HashSet<u32> = sent
            .devices
            .iter()
            .copied()
            .filter(|device| self.devices.contains_key(&chunk.devices[*device as usize]))
            .collect();
        let too_old = self.too_old.get(&cut.device_type);
        for position in &sent.records {
            let record = &cut.records[*position as usize];
            if gone.contains(&record.device) {
                let why = self.devices.get(&chunk.devices[record.device as usize]);
                parts.insert((*position, None), why.cloned().unwrap_or_default());
            } else if let Some((_, why)) = too_old.filter(|(newest, _)| record.at_ns <= *newest) {
                parts.insert((*position, None), format!("{why}; this row is no newer"));
            } else if let Some((_, why)) = too_new.as_ref().filter(|(oldest, _)| record.at_ns >= *oldest) {
                parts.insert((*position, None), format!("{why}; this row is no older"));
            }
        }
    }
}

/// Records that follow each other and are left out for the same reason, as one.
fn runs(parts: Parts) -> Vec<Refused> {
    let mut sorted: Vec<_> = parts.into_iter().collect();
    sorted.sort_by_key(|((record, property), _)| (*property, *record));
    let mut runs: Vec<Refused> = Vec::new();
    for ((record, property), why) in sorted {
        match runs.last_mut() {
            Some(last) if last.property == property && last.why == why && *last.records().end() + 1 == record => {
                last.more += 1;
            }
            _ => runs.push(Refused {
                record,
                more: 0,
                property,
                why,
            }),
        }
    }
    runs
}

/// The property that a field path names: by id, or by the position of its column.
fn property_of(field: &str, typed: &Typed, sent: &Sent) -> Option<u16> {
    typed
        .find(field)
        .or_else(|| index_in(field, "columns[").and_then(|at| sent.properties.get(at).copied()))
}

/// `batch.devices[3].id` with `devices[` → 3.
pub(super) fn index_in(field: &str, before: &str) -> Option<usize> {
    let (_, rest) = field.split_once(before)?;
    rest.split_once(']')?.0.parse().ok()
}

/// The reason in front of why a row is left out; none where this program itself could not read the row.
pub(super) fn reason_of(why: &str) -> Option<&str> {
    let (reason, _) = why.split_once(':')?;
    let is_reason = |c: char| c.is_ascii_uppercase() || c == '_';
    (reason.len() > 3 && reason.chars().all(is_reason)).then_some(reason)
}

/// What to do when nothing but this reason came back.
pub(super) fn advice(reason: &str) -> &'static str {
    match reason {
        "UNKNOWN_DEVICE" => {
            "the same command with --register (it registers the devices of the file); or, to list such rows as rejects: --keep-going"
        }
        "WRONG_DEVICE_TYPE" => {
            "tidemark device list --device ID: the devices of the file are of another --type; to list such rows as rejects: --keep-going"
        }
        "TIME_TOO_OLD" | "TIME_TOO_NEW" | "TIME_INVALID" => {
            "if the times are read wrongly: --time-format s|ms|us|ns; if they are right (tidemark type show TYPE has the retention): the same command with --keep-going lists such rows as rejects"
        }
        _ => "mend the file or the mapping; to list such rows as rejects: the same command with --keep-going",
    }
}
