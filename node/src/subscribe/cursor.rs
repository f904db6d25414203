//! How far a subscription is, as bytes that a client keeps and gives back: sealed as the cursors of pages are (`wire::cursor`).
//!
//! Never here: whether the log still has it. Invariant: bytes of another cluster, of another request, or of nobody are refused.

use bytes::Bytes;
use prost::Message as _;
use tidemark_proto::peer::{FollowedUpTo, SubscribeCursor};
use tidemark_proto::v1::Selector;

use super::asked::Asked;
use crate::catalog::Catalog;
use crate::clock::{NS_PER_MS, now_ns};
use crate::error::{Error, Reason, Result};
use crate::wire::cursor::{Bound, CursorKey, CursorKind, digest, open, seal};

/// What cursors began with before they were sealed: a version, and the first field of a message.
const UNSEALED: &[u8] = &[1, 10];
const HINT: &str = "give back the cursor of a message as it came, with the same devices, properties and events; or subscribe without one";

/// The cursors of one subscription.
pub(super) struct Cursors {
    key: CursorKey,
    /// What they are bound to. Short, as one is made for every message, and a selector may name many devices.
    question: [u8; 32],
    /// The application that subscribes.
    user: String,
}

impl Cursors {
    pub(super) fn new(catalog: &Catalog, asked: &Asked, selector: &Selector, user: &str) -> Cursors {
        let state = catalog.state();
        Cursors {
            key: CursorKey::of_cluster(&state.secret, &state.cluster_id),
            question: digest(&asked.bound(selector)),
            user: user.to_owned(),
        }
    }

    fn bound<'c>(&'c self, user: &'c str) -> Bound<'c> {
        Bound {
            kind: CursorKind::Subscribe,
            question: &self.question,
            user,
        }
    }

    /// The bytes of a cursor.
    pub(super) fn give(&self, shards: Vec<FollowedUpTo>) -> Bytes {
        let cursor = SubscribeCursor { shards };
        seal(&self.key, &self.bound(&self.user), &cursor.encode_to_vec(), now_ms())
    }

    /// The shards of a cursor of this cluster, request and application, or of one that had no name: so are all of before applications were
    /// looked at, and these do not age. How old it may be, the log says.
    pub(super) fn take(&self, bytes: &[u8]) -> Result<Vec<FollowedUpTo>> {
        if bytes.starts_with(UNSEALED) {
            let message = "the cursor is of an earlier version of the store";
            let error = Error::new(Reason::InvalidCursor, message).field("cursor");
            return Err(error.hint("subscribe without a cursor, with newest_first"));
        }
        let opened = |user| open(&self.key, &self.bound(user), bytes, now_ms(), u64::MAX);
        let opened = opened(&self.user).or_else(|error| opened("").map_err(|_| error.hint(HINT)))?;
        let cursor = SubscribeCursor::decode(opened).map_err(|error| Error::internal(format!("a cursor: {error}")))?;
        Ok(cursor.shards)
    }
}

fn now_ms() -> u64 {
    u64::try_from(now_ns() / NS_PER_MS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn cursors(secret: &[u8], asked: &[u8]) -> Cursors {
        cursors_of("", secret, asked)
    }

    fn cursors_of(user: &str, secret: &[u8], asked: &[u8]) -> Cursors {
        Cursors {
            key: CursorKey::of_cluster(secret, "c"),
            question: digest(asked),
            user: user.to_owned(),
        }
    }

    #[test]
    fn only_a_cursor_of_the_same_cluster_and_request_is_taken() {
        let shard = FollowedUpTo {
            group: 3,
            index: 70_000,
            parts: 2,
            silence_ns: 5,
        };
        let ours = cursors(b"secret", b"asked");
        let bytes = ours.give(vec![shard]);
        assert_eq!(ours.take(&bytes).unwrap(), [shard]);
        let refused = |cursors: &Cursors, bytes: &[u8]| {
            let error = cursors.take(bytes).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidCursor);
            error.message().to_owned()
        };
        let forged = "the cursor is not valid: it was not given to this user by this cluster, or was changed";
        assert_eq!(refused(&cursors(b"another", b"asked"), &bytes), forged);
        let other = "the cursor is not valid: it belongs to another question";
        assert_eq!(refused(&cursors(b"secret", b"else"), &bytes), other);
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            refused(&ours, &changed);
            refused(&ours, &bytes[..at]);
        }
    }

    #[test]
    fn one_of_another_application_is_refused_and_one_of_nobody_taken() {
        let [nobody, flood, roads] = ["", "flood", "roads"].map(|user| cursors_of(user, b"secret", b"asked"));
        let bytes = flood.give(Vec::new());
        assert!(flood.take(&bytes).is_ok());
        for other in [&nobody, &roads] {
            assert_eq!(other.take(&bytes).unwrap_err().reason(), Reason::InvalidCursor);
        }
        assert!(flood.take(&nobody.give(Vec::new())).is_ok());
    }

    #[test]
    fn one_from_before_they_were_sealed_is_told_apart() {
        let before = [1, 10, 1, b'c', 17, 3, 0, 0, 0, 0, 0, 0, 0, 26, 4, 8, 1, 16, 2];
        let error = cursors(b"secret", b"asked").take(&before).unwrap_err();
        assert_eq!(error.message(), "the cursor is of an earlier version of the store");
        let page = seal(
            &CursorKey::of_cluster(b"secret", "c"),
            &Bound {
                kind: CursorKind::Range,
                question: &digest(b"asked"),
                user: "",
            },
            b"position",
            0,
        );
        assert!(cursors(b"secret", b"asked").take(&page).is_err(), "one of a page");
    }
}
