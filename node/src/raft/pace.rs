//! Which appends repeat the past to a replica that was away, and the pieces they go out in. Never here: whose turn it is
//! (`peers::Turns`), and sending (`network`).
//!
//! Invariant: what is not committed yet is never held up; nor is a replica that falls further behind although it is
//! paced, for then others write faster than it is let replay.

use super::log_cache::entry_bytes;
use super::types::{AppendEntriesRequest, Entry};

/// What a replica applies in about a hundredth of a second, so that whoever else needs the machine comes in between.
const PIECE_BYTES: usize = 64 << 10;
/// Less than this is sent at once.
const REPLAY_BYTES: usize = 4 * PIECE_BYTES;

/// How one replica comes nearer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Committed entries that the last append of this kind left to be sent.
    behind: Option<u64>,
}

impl Pace {
    /// Whether an append only repeats what is committed, and more of it than may come in one piece.
    pub(super) fn holds(&mut self, append: &AppendEntriesRequest) -> bool {
        let before = self.behind.take();
        let (Some(committed), Some(last)) = (&append.leader_commit, append.entries.last()) else {
            return false;
        };
        let bytes: usize = append.entries.iter().map(entry_bytes).sum();
        let Some(behind) = committed.index.checked_sub(last.log_id.index) else {
            return false;
        };
        if bytes < REPLAY_BYTES {
            return false;
        }
        self.behind = Some(behind);
        before.is_none_or(|before| behind < before)
    }
}

/// The same entries in appends of about a piece each, one entry at least, in order.
pub(super) fn pieces(append: AppendEntriesRequest) -> Vec<AppendEntriesRequest> {
    let (vote, leader_commit) = (append.vote, append.leader_commit);
    let mut prev_log_id = append.prev_log_id;
    let mut made = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    let mut left = append.entries.into_iter().peekable();
    while let Some(entry) = left.next() {
        bytes += entry_bytes(&entry);
        let last = entry.log_id;
        entries.push(entry);
        if bytes >= PIECE_BYTES || left.peek().is_none() {
            made.push(AppendEntriesRequest {
                vote,
                prev_log_id: prev_log_id.replace(last),
                entries: std::mem::take(&mut entries),
                leader_commit,
            });
            bytes = 0;
        }
    }
    made
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use bytes::Bytes;
    use openraft::EntryPayload;

    use super::super::types::{Command, LeaderId, LogId, Vote};
    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    fn append(indexes: std::ops::RangeInclusive<u64>, bytes: usize, committed: u64) -> AppendEntriesRequest {
        let entry = |index| Entry {
            log_id: id(index),
            payload: EntryPayload::Normal(Command(Bytes::from(vec![0; bytes]))),
        };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(id(indexes.start() - 1)),
            entries: indexes.map(entry).collect(),
            leader_commit: Some(id(committed)),
        }
    }

    #[test]
    fn only_much_of_what_is_committed_is_held() {
        let holds = |append| Pace::default().holds(&append);
        assert!(holds(append(10..=20, REPLAY_BYTES, 20)));
        assert!(!holds(append(10..=20, REPLAY_BYTES, 19)), "the last is new");
        assert!(!holds(append(10..=20, 10, 1_000)), "little");
        let heartbeat = AppendEntriesRequest {
            entries: Vec::new(),
            ..append(10..=20, 1, 20)
        };
        assert!(!holds(heartbeat));
    }

    #[test]
    fn who_falls_further_behind_is_not_held() {
        let mut pace = Pace::default();
        let found: Vec<bool> = [(10, 100), (11, 100), (12, 102), (13, 104), (14, 104), (15, 104)]
            .map(|(index, committed)| pace.holds(&append(index..=index, REPLAY_BYTES, committed)))
            .to_vec();
        assert_eq!(found, [true, true, false, false, true, true]);
    }

    #[test]
    fn pieces_follow_each_other() {
        let whole = append(10..=20, PIECE_BYTES / 3, 30);
        let made = pieces(whole.clone());
        assert_eq!(
            made.iter().map(|piece| piece.entries.len()).collect::<Vec<_>>(),
            [3, 3, 3, 2]
        );
        let before: Vec<u64> = made.iter().map(|piece| piece.prev_log_id.unwrap().index).collect();
        assert_eq!(before, [9, 12, 15, 18]);
        let again: Vec<Entry> = made.into_iter().flat_map(|piece| piece.entries).collect();
        assert_eq!(again, whole.entries);
    }
}
