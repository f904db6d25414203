//! What opening the node's log finds: reads every group and holds it against the marker. Never here: writes of the
//! log.
//!
//! Invariant: a group that comes out of here has everything its marker promised; all others are reported as damaged,
//! and their marks stay as they are, so that they are reported again next time.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::codec;
use super::log_cache::State;
use super::types::{LogId, Vote};
use crate::store::log_db::{Kind, LogDb};
use crate::store::marker::{self, Damaged, EntryMark, FoundLog, GroupMark, Marker, VoteMark};

const DATABASE: &str = "log";
const MARKER: &str = "log.marker";

/// Whether a log was ever made in `dir`.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join(MARKER).exists()
}

/// The mark of an entry.
pub(crate) fn entry_mark(id: &LogId) -> EntryMark {
    EntryMark {
        index: id.index,
        term: id.leader_id.term,
        replica: id.leader_id.node_id,
    }
}

/// The mark of a vote.
pub(crate) fn vote_mark(vote: &Vote) -> VoteMark {
    VoteMark {
        term: vote.leader_id.term,
        replica: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

/// An open log.
pub(crate) struct Opened {
    pub(crate) db: LogDb,
    /// `None` if it can't be read: every group is damaged then.
    pub(crate) marker: Option<Marker>,
    pub(crate) marks: BTreeMap<u32, GroupMark>,
    pub(crate) groups: BTreeMap<u32, State>,
    pub(crate) damaged: BTreeMap<u32, Damaged>,
}

/// Opens database and marker in `dir`, and checks all groups.
///
/// # Errors
/// The disk fails, or the database is corrupt as a whole.
pub(crate) fn open(dir: &Path, tail_bytes_max: usize) -> io::Result<Opened> {
    std::fs::create_dir_all(dir)?;
    let db = LogDb::open(&dir.join(DATABASE))?;
    let path = dir.join(MARKER);
    let in_log = db.groups()?;
    let (mut marker, mut marks) = match Marker::open(&path)? {
        marker::Found::Marks(marker, marks) => (marker, marks),
        // Nothing was ever written here: a new node.
        marker::Found::Missing if in_log.is_empty() => (Marker::create(&path)?, BTreeMap::new()),
        marker::Found::Missing => return Ok(all_damaged(db, in_log, "the marker is missing")),
        marker::Found::Unreadable => return Ok(all_damaged(db, in_log, "no slot of the marker is valid")),
    };
    let (mut groups, mut damaged) = (BTreeMap::new(), BTreeMap::new());
    let marked = marks.clone();
    let mut all: Vec<u32> = marked.keys().copied().chain(in_log).collect();
    all.sort_unstable();
    all.dedup();
    for group in all {
        let mark = marked.get(&group).copied().unwrap_or_default();
        match read_group(&db, group, &mark, tail_bytes_max) {
            Ok(state) => {
                // What was found beyond the mark is on disk since the database was opened, and will be relied on.
                marks.insert(group, mark_of(&state));
                groups.insert(group, state);
            }
            Err(found) => {
                tracing::error!(group, reason = found.reason, "raft log is damaged");
                damaged.insert(group, found);
            }
        }
    }
    if marks != marked {
        marker.write(&marks)?;
    }
    Ok(Opened {
        db,
        marker: Some(marker),
        marks,
        groups,
        damaged,
    })
}

fn mark_of(state: &State) -> GroupMark {
    GroupMark {
        vote: state.vote.as_ref().map(vote_mark),
        last: state.last.as_ref().map(entry_mark),
        purged: state.purged.map(|purged| purged.index),
    }
}

fn all_damaged(db: LogDb, groups: Vec<u32>, reason: &str) -> Opened {
    tracing::error!(reason, "raft log of every group is damaged");
    let damaged = groups
        .into_iter()
        .map(|group| {
            (
                group,
                Damaged {
                    group,
                    reason: reason.to_owned(),
                },
            )
        })
        .collect();
    Opened {
        db,
        marker: None,
        marks: BTreeMap::new(),
        groups: BTreeMap::new(),
        damaged,
    }
}

/// Reads one group; whatever can't be read of it is damage of this group alone.
fn read_group(db: &LogDb, group: u32, mark: &GroupMark, tail_bytes_max: usize) -> Result<State, Damaged> {
    let unreadable = |error: io::Error| Damaged {
        group,
        reason: error.to_string(),
    };
    let mut state = State::new(tail_bytes_max);
    let found = fill(db, group, mark, &mut state).map_err(unreadable)?;
    marker::check(group, mark, &found)?;
    Ok(state)
}

fn fill(db: &LogDb, group: u32, mark: &GroupMark, state: &mut State) -> io::Result<FoundLog> {
    let log_id = |kind| -> io::Result<Option<LogId>> {
        Ok(db
            .meta(group, kind)?
            .map(|bytes| codec::decode_log_id(&bytes))
            .transpose()?)
    };
    state.vote = db
        .meta(group, Kind::Vote)?
        .map(|bytes| codec::decode_vote(&bytes))
        .transpose()?;
    state.committed = log_id(Kind::Committed)?;
    state.purged = log_id(Kind::Purged)?;
    let id_of = |index: u64, bytes| -> io::Result<LogId> {
        let id = codec::decode_entry(bytes)?.log_id;
        if id.index == index {
            return Ok(id);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("entry {id} lies at index {index}"),
        ))
    };
    state.last = match db.last(group)? {
        Some((index, bytes)) => Some(id_of(index, bytes)?),
        None => state.purged,
    };
    let first = db.first_index(group)?;
    state.first = first
        .or(state.purged.map(|purged| purged.index.saturating_add(1)))
        .unwrap_or(0);
    let at_mark = match mark.last {
        Some(last) => db
            .entry(group, last.index)?
            .map(|bytes| id_of(last.index, bytes))
            .transpose()?,
        None => None,
    };
    Ok(FoundLog {
        vote: state.vote.as_ref().map(vote_mark),
        at_mark: at_mark.as_ref().map(entry_mark),
        purged: state.purged.map(|purged| purged.index),
        first,
    })
}
