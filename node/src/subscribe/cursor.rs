//! How far a subscription is, as bytes that a client keeps and gives back.
//!
//! ```text
//! u8 version = 1 | SubscribeCursor (protobuf) | XXH3-64 of all before, LE
//! ```
//!
//! Never here: whether the log still has it. Invariant: bytes of another cluster, of another request, or of nobody are refused.

use prost::Message as _;
use tidemark_proto::peer::{FollowedUpTo, SubscribeCursor};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Reason, Result};

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;

/// The bytes of a cursor.
pub(super) fn encode(cluster_id: &str, asked: u64, shards: Vec<FollowedUpTo>) -> Vec<u8> {
    let cursor = SubscribeCursor {
        cluster_id: cluster_id.to_owned(),
        asked,
        shards,
    };
    let mut bytes = Vec::with_capacity(1 + cursor.encoded_len() + CHECK_BYTES);
    bytes.push(VERSION);
    bytes.extend(cursor.encode_to_vec());
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// The shards of a cursor of this cluster and request.
pub(super) fn decode(bytes: &[u8], cluster_id: &str, asked: u64) -> Result<Vec<FollowedUpTo>> {
    let refused =
        |message: &str, hint: &str| Err(Error::new(Reason::InvalidCursor, message).field("cursor").hint(hint));
    let whole = |bytes: &[u8]| {
        let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        let body = (xxh3_64(body).to_le_bytes() == *check).then_some(body)?;
        let cursor = body.strip_prefix(&[VERSION])?;
        SubscribeCursor::decode(cursor).ok()
    };
    let Some(cursor) = whole(bytes) else {
        return refused(
            "these bytes are no cursor",
            "give back the cursor of a message as it came",
        );
    };
    if cursor.cluster_id != cluster_id {
        return refused(
            "the cursor belongs to another cluster",
            "subscribe without a cursor here",
        );
    }
    if cursor.asked != asked {
        return refused(
            "the cursor belongs to another request",
            "ask for the same devices, properties and events as the request that it came from",
        );
    }
    Ok(cursor.shards)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_a_cursor_of_the_same_cluster_and_request_is_taken() {
        let shard = FollowedUpTo {
            group: 3,
            index: 70_000,
            parts: 2,
            silence_ns: 5,
        };
        let bytes = encode("here", 7, vec![shard]);
        assert_eq!(decode(&bytes, "here", 7).unwrap(), [shard]);
        let refused = |bytes: &[u8], cluster: &str, asked| decode(bytes, cluster, asked).unwrap_err();
        assert_eq!(
            refused(&bytes, "there", 7).message(),
            "the cursor belongs to another cluster"
        );
        assert_eq!(
            refused(&bytes, "here", 8).message(),
            "the cursor belongs to another request"
        );
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            let error = refused(&forged, "here", 7);
            assert_eq!(
                (error.reason(), error.message()),
                (Reason::InvalidCursor, "these bytes are no cursor")
            );
            assert_eq!(refused(&bytes[..at], "here", 7).reason(), Reason::InvalidCursor);
        }
    }

    #[test]
    fn the_bytes_of_a_cursor() {
        let shard = FollowedUpTo {
            group: 1,
            index: 2,
            parts: 0,
            silence_ns: 0,
        };
        let bytes = encode("c", 3, vec![shard]);
        let body = [1, 10, 1, b'c', 17, 3, 0, 0, 0, 0, 0, 0, 0, 26, 4, 8, 1, 16, 2];
        assert_eq!(bytes[..body.len()], body);
        assert_eq!(bytes.len(), body.len() + CHECK_BYTES);
    }
}
