//! Cursors: where an answer or a subscription goes on, carried by a client to whom they mean nothing and who cannot change them.
//!
//! ```text
//! version u8 = 1 | kind u8 | made u64 ms since the Unix epoch | question 8 | position … | seal 16
//! question  begin of the SHA-256 of the question as it was asked
//! seal      begin of the HMAC-SHA-256 of: all before it | SHA-256 of the question | SHA-256 of the user's name
//! numbers   little-endian
//! ```
//!
//! The key comes from a secret that the nodes of a cluster share and no client ever sees, so a cursor cannot be made up, changed,
//! used for another question, by another user, or in another cluster. A cluster that was made before there was such a secret has
//! its id in the place of it, which clients know: there a cursor is safe from mistakes, not from malice (who makes one up can
//! still see no more than the question lets them).
//!
//! Never here: what a position says. Invariant: what [`open`] gives was sealed for the same kind, question and user.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Reason, Result};

const VERSION: u8 = 1;
const HEAD: usize = 18;
const SEAL: usize = 16;
/// SHA-256 works on so many bytes at a time.
const CHUNK: usize = 64;
const PURPOSE: &[u8] = b"tidemark cursor 1|";

/// What goes on; never the same for two kinds of answers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CursorKind {
    /// Raw records.
    Range = 1,
    /// Newest values.
    Latest = 2,
    /// Devices.
    Devices = 3,
    /// How far a subscription is; the position is that of each of its shards.
    Subscribe = 4,
    /// Records with what belongs to them.
    Join = 5,
}

/// What a cursor belongs to.
#[derive(Copy, Clone, Debug)]
pub struct Bound<'a> {
    /// The kind of answer.
    pub kind: CursorKind,
    /// The question, but for what may differ from page to page.
    pub question: &'a [u8],
    /// Who asks: the application, as it names itself; empty where it does not.
    pub user: &'a str,
}

/// The key of a cluster.
#[derive(Clone)]
pub struct CursorKey([u8; 32]);

impl CursorKey {
    /// From the secret of a cluster, or its id where it has none.
    pub fn of_cluster(secret: &[u8], cluster_id: &str) -> CursorKey {
        let from = if secret.is_empty() {
            cluster_id.as_bytes()
        } else {
            secret
        };
        CursorKey(sha256(&[PURPOSE, from]))
    }
}

/// A long question in short: as good as the question itself to bind cursors to.
pub fn digest(question: &[u8]) -> [u8; 32] {
    sha256(&[question])
}

/// A cursor that holds a position.
pub fn seal(key: &CursorKey, bound: &Bound<'_>, position: &[u8], now_ms: u64) -> Bytes {
    let question = sha256(&[bound.question]);
    let mut cursor = Vec::with_capacity(HEAD + position.len() + SEAL);
    cursor.extend([VERSION, bound.kind as u8]);
    cursor.extend(now_ms.to_le_bytes());
    cursor.extend(&question[..8]);
    cursor.extend(position);
    let seal = sealed(key, &cursor, &question, bound.user);
    cursor.extend(seal);
    cursor.into()
}

/// The position in a cursor that is at most `age_ms_max` old.
///
/// # Errors
/// `INVALID_CURSOR`, which says what is wrong as far as that can be told.
pub fn open(key: &CursorKey, bound: &Bound<'_>, cursor: &[u8], now_ms: u64, age_ms_max: u64) -> Result<Bytes> {
    let question = sha256(&[bound.question]);
    let (body, seal) = cursor.split_last_chunk::<SEAL>().ok_or_else(|| invalid(FORGED))?;
    if body.len() < HEAD || body[0] != VERSION {
        return Err(invalid(FORGED));
    }
    if body[1] != bound.kind as u8 || body[10..HEAD] != question[..8] {
        return Err(invalid("it belongs to another question"));
    }
    if !same(seal, &sealed(key, body, &question, bound.user)) {
        return Err(invalid(FORGED));
    }
    let made = body[2..10].try_into().map_or(0, u64::from_le_bytes);
    if now_ms.saturating_sub(made) > age_ms_max {
        return Err(invalid("it is too old"));
    }
    Ok(Bytes::copy_from_slice(&body[HEAD..]))
}

const FORGED: &str = "it was not given to this user by this cluster, or was changed";

fn invalid(why: &str) -> Error {
    Error::new(Reason::InvalidCursor, format!("the cursor is not valid: {why}"))
        .field("cursor")
        .hint("ask from the beginning, without a cursor")
}

fn sealed(key: &CursorKey, body: &[u8], question: &[u8; 32], user: &str) -> [u8; SEAL] {
    let user = sha256(&[user.as_bytes()]);
    let whole = hmac(&key.0, &[body, question, &user]);
    let mut seal = [0; SEAL];
    seal.copy_from_slice(&whole[..SEAL]);
    seal
}

/// HMAC-SHA-256 (RFC 2104) of some parts together.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let padded = |with: u8| {
        let mut pad = [with; CHUNK];
        pad.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        pad
    };
    let mut inner = Sha256::new_with_prefix(padded(0x36));
    parts.iter().for_each(|part| inner.update(part));
    sha256(&[&padded(0x5c), &inner.finalize()])
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// Compares in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const MADE: u64 = 1_750_000_000_000;

    fn bound<'a>(kind: CursorKind, question: &'a str, user: &'a str) -> Bound<'a> {
        Bound {
            kind,
            question: question.as_bytes(),
            user,
        }
    }

    #[test]
    fn only_what_was_sealed_is_opened() {
        let key = CursorKey::of_cluster(b"secret", "c");
        let asked = bound(CursorKind::Range, "question", "ann");
        let cursor = seal(&key, &asked, b"position", MADE);
        let opens = |key: &CursorKey, bound: &Bound<'_>, cursor: &[u8], now: u64| {
            let opened = open(key, bound, cursor, now, DAY_MS);
            opened.map_err(|error| {
                (
                    error.reason().as_str(),
                    error.message().rsplit(": ").next().unwrap().to_owned(),
                )
            })
        };
        assert_eq!(&opens(&key, &asked, &cursor, MADE + DAY_MS).unwrap()[..], b"position");
        let refused = |result: std::result::Result<Bytes, (&'static str, String)>, why: &str| {
            assert_eq!(result, Err(("INVALID_CURSOR", why.to_owned())));
        };
        refused(opens(&key, &asked, &cursor, MADE + DAY_MS + 1), "it is too old");
        let other = "it belongs to another question";
        refused(
            opens(&key, &bound(CursorKind::Latest, "question", "ann"), &cursor, MADE),
            other,
        );
        refused(
            opens(&key, &bound(CursorKind::Range, "Question", "ann"), &cursor, MADE),
            other,
        );
        refused(
            opens(&key, &bound(CursorKind::Range, "question", "bob"), &cursor, MADE),
            FORGED,
        );
        refused(
            opens(&CursorKey::of_cluster(b"Secret", "c"), &asked, &cursor, MADE),
            FORGED,
        );
        refused(opens(&CursorKey::of_cluster(b"", "c"), &asked, &cursor, MADE), FORGED);
        for length in 0..cursor.len() {
            assert!(
                opens(&key, &asked, &cursor[..length], MADE).is_err(),
                "{length} bytes of it"
            );
        }
        for bit in 0..cursor.len() * 8 {
            let mut changed = cursor.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(opens(&key, &asked, &changed, MADE).is_err(), "bit {bit} is another one");
        }
    }

    #[test]
    fn the_seal_is_hmac_sha256() {
        // RFC 4231, test case 1, whose key of 20 bytes is filled up with zeros.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let hex: String = hmac(&key, &[b"Hi ", b"There"])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }
}
