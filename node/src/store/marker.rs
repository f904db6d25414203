//! The marker: a small file beside the log database that says how far the log of each group must reach at least.
//! Never here: the log itself, or when to write (the group commit decides).
//!
//! Invariant: a marker is written only after the log records it speaks of are on disk, and lowered before records are
//! taken away. So marker <= log holds after any crash, and a log that is behind its marker has lost something: its
//! replica may not vote.
//!
//! ```text
//! file    slot 0 at 0 | slot 1 at 65536                  131072 bytes, written in full when created
//! slot    "TMRK" | version u16 = 1 | 0 u16 | generation u64 | groups u32 | crc32c u32 | 0 x 40 | group...
//!         the checksum covers the header without itself, and the groups; integers are big endian
//! group   group u32 | flags u32 | vote term u64 | vote replica u64
//!         | last index u64 | last term u64 | last replica u64 | purged index u64 | 0 u64         64 bytes
//! flags   1 vote   2 vote is committed   4 last   8 purged   absent values are 0
//! ```
//!
//! The valid slot with the higher generation counts. Only the one that is not the last synced one is ever written, so a torn
//! write leaves the other.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MAGIC: &[u8; 4] = b"TMRK";
const VERSION: u16 = 1;
const SLOT_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 64;
const GROUP_BYTES: usize = 64;
const CRC_AT: usize = 20;
const FLAG_VOTE: u32 = 1;
const FLAG_COMMITTED: u32 = 2;
const FLAG_LAST: u32 = 4;
const FLAG_PURGED: u32 = 8;

/// Groups that fit into a marker.
pub const GROUPS_MAX: usize = (SLOT_BYTES - HEADER_BYTES) / GROUP_BYTES;

/// A vote, ordered as Raft orders votes: by term, replica, and whether a quorum granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VoteMark {
    /// Term of the candidate.
    pub term: u64,
    /// Replica id of the candidate.
    pub replica: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// Identity of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMark {
    /// Index of the entry.
    pub index: u64,
    /// Term of the leader that made it.
    pub term: u64,
    /// Replica id of that leader.
    pub replica: u64,
}

/// What is known to be on disk for one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupMark {
    /// Last vote saved.
    pub vote: Option<VoteMark>,
    /// Last entry, or the last purged one if there is none behind it.
    pub last: Option<EntryMark>,
    /// Index of the last purged entry.
    pub purged: Option<u64>,
}

/// What opening found in the log of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FoundLog {
    /// The vote in the log.
    pub vote: Option<VoteMark>,
    /// The entry that the log has at the marked last index.
    pub at_mark: Option<EntryMark>,
    /// Index of the last purged entry.
    pub purged: Option<u64>,
    /// Index of the first entry.
    pub first: Option<u64>,
}

/// A group whose log lost something that was acknowledged. Its replica may not vote; it is to be removed and made
/// anew under another id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("raft log of group {group} is damaged: {reason}; remove this replica and let it be made anew")]
pub struct Damaged {
    /// The group.
    pub group: u32,
    /// What does not fit.
    pub reason: String,
}

/// Compares the log of a group with its marker.
///
/// # Errors
/// The log is behind its marker, or has a hole.
pub fn check(group: u32, mark: &GroupMark, log: &FoundLog) -> Result<(), Damaged> {
    let damaged = |reason: String| Err(Damaged { group, reason });
    if log.vote < mark.vote {
        return damaged(format!("vote {:?} is older than the marked {:?}", log.vote, mark.vote));
    }
    if log.purged < mark.purged {
        return damaged(format!("purged to {:?}, marked {:?}", log.purged, mark.purged));
    }
    if let (Some(purged), Some(first)) = (log.purged, log.first)
        && first != purged.saturating_add(1)
    {
        return damaged(format!("entries begin at {first}, purged to {purged}"));
    }
    match mark.last {
        Some(last) if log.purged < Some(last.index) && log.at_mark != Some(last) => {
            damaged(format!("entry {last:?} was on disk, found {:?}", log.at_mark))
        }
        _ => Ok(()),
    }
}

/// The open marker file.
pub struct Marker {
    file: File,
    generation: u64,
    /// The slot that is on disk.
    slot: usize,
    /// Whether the other one was written and not synced.
    noted: bool,
    buffer: Vec<u8>,
}

/// What a marker file says.
pub enum Found {
    /// There is no file.
    Missing,
    /// No slot is valid.
    Unreadable,
    /// The file and what the newest valid slot holds.
    Marks(Marker, BTreeMap<u32, GroupMark>),
}

impl Marker {
    /// Creates the file with two valid, empty slots. Another process never sees half of it.
    ///
    /// # Errors
    /// The disk fails or is full.
    pub fn create(path: &Path) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)?;
        // Written, not only reserved: a write into it then never has to change the file's metadata.
        file.write_all_at(&vec![0; 2 * SLOT_BYTES], 0)?;
        let mut marker = Self {
            file,
            generation: 0,
            slot: 1,
            noted: false,
            buffer: Vec::new(),
        };
        marker.write(&BTreeMap::new())?;
        marker.write(&BTreeMap::new())?;
        marker.file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(marker)
    }

    /// Opens the file and reads its newest valid slot.
    ///
    /// # Errors
    /// The disk fails.
    pub fn open(path: &Path) -> io::Result<Found> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(error) => return Err(error),
        };
        let slots = [0, 1].map(|slot| read_slot(&file, slot));
        let mut newest: Option<(usize, u64, BTreeMap<u32, GroupMark>)> = None;
        for (slot, read) in slots.into_iter().enumerate() {
            if let Some((generation, marks)) = read?
                && newest.as_ref().is_none_or(|(_, best, _)| generation > *best)
            {
                newest = Some((slot, generation, marks));
            }
        }
        Ok(match newest {
            None => Found::Unreadable,
            Some((slot, generation, marks)) => Found::Marks(
                Self {
                    file,
                    generation,
                    slot,
                    noted: false,
                    buffer: Vec::new(),
                },
                marks,
            ),
        })
    }

    /// Writes the marks; they are on disk when this returns.
    ///
    /// # Errors
    /// There are more than [`GROUPS_MAX`] groups, or the disk fails.
    pub fn write(&mut self, marks: &BTreeMap<u32, GroupMark>) -> io::Result<()> {
        self.note(marks)?;
        self.sync()
    }

    /// Whether something was noted and is not on disk.
    pub fn is_noted(&self) -> bool {
        self.noted
    }

    /// Brings what was noted to disk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.noted {
            self.file.sync_data()?;
            (self.slot, self.noted) = (1 - self.slot, false);
        }
        Ok(())
    }

    /// Writes the marks where a crash of this process leaves them and one of the machine may not, until [`Self::sync`].
    ///
    /// # Errors
    /// There are more than [`GROUPS_MAX`] groups, or the disk fails.
    pub fn note(&mut self, marks: &BTreeMap<u32, GroupMark>) -> io::Result<()> {
        if marks.len() > GROUPS_MAX {
            return Err(io::Error::other(format!(
                "{} raft groups, at most {GROUPS_MAX} fit",
                marks.len()
            )));
        }
        let (slot, generation) = (1 - self.slot, self.generation + 1);
        encode(generation, marks, &mut self.buffer);
        self.file.write_all_at(&self.buffer, (slot * SLOT_BYTES) as u64)?;
        (self.generation, self.noted) = (generation, true);
        Ok(())
    }
}

fn encode(generation: u64, marks: &BTreeMap<u32, GroupMark>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&generation.to_be_bytes());
    // At most GROUPS_MAX, checked by the caller.
    out.extend_from_slice(&(marks.len() as u32).to_be_bytes());
    out.resize(HEADER_BYTES, 0);
    for (group, mark) in marks {
        let vote = mark.vote.unwrap_or(VoteMark {
            term: 0,
            replica: 0,
            committed: false,
        });
        let last = mark.last.unwrap_or(EntryMark {
            index: 0,
            term: 0,
            replica: 0,
        });
        let mut flags = 0;
        for (set, flag) in [
            (mark.vote.is_some(), FLAG_VOTE),
            (vote.committed, FLAG_COMMITTED),
            (mark.last.is_some(), FLAG_LAST),
            (mark.purged.is_some(), FLAG_PURGED),
        ] {
            flags |= if set { flag } else { 0 };
        }
        out.extend_from_slice(&group.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        let purged = mark.purged.unwrap_or(0);
        for value in [vote.term, vote.replica, last.index, last.term, last.replica, purged, 0] {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
    let crc = checksum(out);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Checksum of a slot, without the place of the checksum itself.
fn checksum(slot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..CRC_AT]), &slot[CRC_AT + 4..])
}

fn read_slot(file: &File, slot: usize) -> io::Result<Option<(u64, BTreeMap<u32, GroupMark>)>> {
    let mut bytes = vec![0; SLOT_BYTES];
    match file.read_exact_at(&mut bytes, (slot * SLOT_BYTES) as u64) {
        Ok(()) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode(slot: &[u8]) -> Option<(u64, BTreeMap<u32, GroupMark>)> {
    let u32_at = |at: usize| Some(u32::from_be_bytes(slot.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_be_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let count = u32_at(16)? as usize;
    if slot.get(..4)? != MAGIC || slot.get(4..6)? != VERSION.to_be_bytes() || count > GROUPS_MAX {
        return None;
    }
    if u32_at(CRC_AT)? != checksum(slot.get(..HEADER_BYTES + count * GROUP_BYTES)?) {
        return None;
    }
    let mut marks = BTreeMap::new();
    for at in (0..count).map(|number| HEADER_BYTES + number * GROUP_BYTES) {
        let flags = u32_at(at + 4)?;
        let vote = VoteMark {
            term: u64_at(at + 8)?,
            replica: u64_at(at + 16)?,
            committed: flags & FLAG_COMMITTED != 0,
        };
        let last = EntryMark {
            index: u64_at(at + 24)?,
            term: u64_at(at + 32)?,
            replica: u64_at(at + 40)?,
        };
        let purged = u64_at(at + 48)?;
        let mark = GroupMark {
            vote: (flags & FLAG_VOTE != 0).then_some(vote),
            last: (flags & FLAG_LAST != 0).then_some(last),
            purged: (flags & FLAG_PURGED != 0).then_some(purged),
        };
        marks.insert(u32_at(at)?, mark);
    }
    Some((u64_at(8)?, marks))
}
