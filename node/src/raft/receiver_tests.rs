//! Transfers that are whole, cut off, spoiled, or on top of what is there. Never here: databases (see `state_tests`).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tidemark_proto::peer::install_snapshot_request::Part;
use tidemark_proto::peer::{SnapshotFile, SnapshotPiece};
use tokio::sync::mpsc;

use super::super::snapshot::{Digests, PIECE_BYTES, list_files, send_files};
use super::super::transfers::Transfers;
use super::Receiver;
use crate::error::{Reason, Result};
use crate::peers::Throttle;

fn noise(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|i| ((i + seed) * 31 % 251) as u8).collect()
}

/// A folder to send, and places to receive in.
struct Pair {
    from: TempDir,
    to: TempDir,
    contents: BTreeMap<String, Vec<u8>>,
}

impl Pair {
    fn new() -> Pair {
        let contents = [
            ("000007.sst", noise(PIECE_BYTES * 2 + 17, 1)),
            ("000009.sst", noise(PIECE_BYTES + 1, 2)),
            ("CURRENT", b"MANIFEST-000005\n".to_vec()),
            ("MANIFEST-000005", noise(900, 3)),
            ("OPTIONS-000008", noise(900, 3)),
            ("empty", Vec::new()),
        ];
        let pair = Pair {
            from: tempfile::tempdir().unwrap(),
            to: tempfile::tempdir().unwrap(),
            contents: contents.map(|(name, bytes)| (name.to_string(), bytes)).into(),
        };
        for (name, bytes) in &pair.contents {
            fs::write(pair.from.path().join(name), bytes).unwrap();
        }
        pair
    }

    fn files(&self) -> Vec<SnapshotFile> {
        list_files(self.from.path(), &mut Digests::new()).unwrap()
    }

    fn bytes(&self) -> u64 {
        self.contents.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn pool(&self) -> std::path::PathBuf {
        self.to.path().join("incoming")
    }

    fn receiver(&self) -> Receiver {
        Receiver::resume(self.pool(), &self.to.path().join("state"), self.files()).unwrap()
    }

    /// What is sent to somebody who has so much.
    fn pieces(&self, have: &[u64]) -> Vec<SnapshotPiece> {
        let (out, mut inbox) = mpsc::channel(64);
        let progress = Arc::new(Transfers::default()).begin(1, 0);
        let throttle = Arc::new(Throttle::new(u64::MAX));
        send_files(
            self.from.path(),
            &self.files(),
            have,
            &|| throttle.clone(),
            &progress,
            &out,
        )
        .unwrap();
        drop(out);
        let mut pieces = Vec::new();
        while let Some(message) = inbox.blocking_recv() {
            let Some(Part::Piece(piece)) = message.part else {
                panic!("{message:?}")
            };
            pieces.push(piece);
        }
        assert_eq!(
            progress.done(),
            pieces.iter().map(|piece| piece.data.len() as u64).sum::<u64>()
        );
        pieces
    }

    /// Everything that is lacking, then the finished folder; bytes that were sent for it.
    fn complete(&self) -> Result<u64> {
        let mut receiver = self.receiver();
        let pieces = self.pieces(&receiver.have());
        let sent = pieces.iter().map(|piece| piece.data.len() as u64).sum();
        pieces.into_iter().try_for_each(|piece| receiver.take(piece))?;
        let done = self.to.path().join("received");
        receiver.finish(&done)?;
        assert_eq!(contents(&done), self.contents);
        Ok(sent)
    }
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn files_arrive_whole() {
    let pair = Pair::new();
    assert_eq!(pair.complete().unwrap(), pair.bytes());
}

#[test]
fn a_transfer_cut_off_anywhere_goes_on_where_it_stopped() {
    let all = Pair::new().pieces(&[0; 6]);
    for cut in 0..=all.len() {
        let pair = Pair::new();
        let mut receiver = pair.receiver();
        let mut before = 0;
        for piece in &all[..cut] {
            before += piece.data.len() as u64;
            receiver.take(piece.clone()).unwrap();
        }
        drop(receiver);
        // Two files of the same content are one in the pool, however many there are of it.
        let again = pair.bytes() - before;
        let sent = pair.complete().unwrap();
        assert!(sent == again || sent + 900 == again, "cut {cut}: {sent} of {again}");
    }
}

#[test]
fn a_cut_within_a_piece_goes_on_behind_what_was_written() {
    let pair = Pair::new();
    let mut receiver = pair.receiver();
    receiver.take(pair.pieces(&[0; 6]).remove(0)).unwrap();
    drop(receiver);
    let part = fs::read_dir(pair.pool()).unwrap().next().unwrap().unwrap().path();
    fs::write(&part, &pair.contents["000007.sst"][..1_000]).unwrap();
    assert_eq!(pair.complete().unwrap(), pair.bytes() - 1_000);
}

#[test]
fn a_beginning_that_rotted_is_refused_once_and_then_sent_anew() {
    let pair = Pair::new();
    let mut receiver = pair.receiver();
    receiver.take(pair.pieces(&[0; 6]).remove(0)).unwrap();
    drop(receiver);
    let part = fs::read_dir(pair.pool()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&part).unwrap();
    bytes[77] ^= 1;
    fs::write(&part, bytes).unwrap();
    assert_eq!(pair.complete().unwrap_err().reason(), Reason::Corruption);
    assert_eq!(pair.complete().unwrap(), pair.bytes());
}

#[test]
fn a_spoiled_piece_is_refused() {
    type Spoil = fn(&mut SnapshotPiece);
    let spoils: [(&str, Spoil); 5] = [
        ("a flipped bit", |piece| {
            let mut data = piece.data.to_vec();
            data[0] ^= 1;
            piece.data = data.into();
        }),
        ("another offset", |piece| piece.offset += 1),
        ("another file", |piece| piece.file += 1),
        ("a file that is not listed", |piece| piece.file = 6),
        ("nothing", |piece| piece.data.clear()),
    ];
    for (what, spoil) in spoils {
        let pair = Pair::new();
        let mut receiver = pair.receiver();
        let pieces = pair.pieces(&receiver.have());
        receiver.take(pieces[0].clone()).unwrap();
        let mut spoiled = pieces[1].clone();
        spoil(&mut spoiled);
        let refused = receiver.take(spoiled);
        assert_eq!(refused.unwrap_err().reason(), Reason::Corruption, "{what}");
        let unfinished = receiver.finish(&pair.to.path().join("received"));
        assert_eq!(unfinished.unwrap_err().reason(), Reason::Corruption, "{what}");
        drop(pieces);
        assert_eq!(
            pair.complete().unwrap(),
            pair.bytes() - PIECE_BYTES as u64,
            "{what}: what was good stays"
        );
    }
}

#[test]
fn names_do_not_lead_elsewhere() {
    let pair = Pair::new();
    for name in ["", ".", "..", "../x", "/x", "a\\b", "a\0b"] {
        let mut files = pair.files();
        files[0].name = name.into();
        let refused = Receiver::resume(pair.pool(), pair.to.path(), files);
        assert_eq!(refused.err().unwrap().reason(), Reason::Corruption, "{name:?}");
    }
}

#[test]
fn a_newer_checkpoint_takes_over_what_it_shares() {
    let mut pair = Pair::new();
    let mut receiver = pair.receiver();
    for piece in pair.pieces(&receiver.have()) {
        receiver.take(piece).unwrap();
    }
    // Another manifest under the same name, one table gone, one new.
    for (name, bytes) in [("MANIFEST-000005", noise(950, 8)), ("000011.sst", noise(2_000, 9))] {
        fs::write(pair.from.path().join(name), &bytes).unwrap();
        pair.contents.insert(name.into(), bytes);
    }
    fs::remove_file(pair.from.path().join("000009.sst")).unwrap();
    pair.contents.remove("000009.sst");
    assert_eq!(pair.complete().unwrap(), 950 + 2_000);
    let pooled = fs::read_dir(pair.pool()).unwrap().count();
    assert_eq!(
        pooled,
        pair.contents.len() - 1,
        "files of the older one are gone, an empty one needs no place"
    );
}

#[test]
fn tables_of_the_current_state_are_not_sent() {
    let pair = Pair::new();
    let state = pair.to.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("000007.sst"), &pair.contents["000007.sst"]).unwrap();
    // Only alike in name and size; and not a table.
    fs::write(state.join("000009.sst"), noise(PIECE_BYTES + 1, 5)).unwrap();
    fs::write(state.join("CURRENT"), &pair.contents["CURRENT"]).unwrap();
    let table = pair.contents["000007.sst"].len() as u64;
    assert_eq!(pair.complete().unwrap(), pair.bytes() - table);
    assert_eq!(contents(&state).len(), 3, "the state keeps its own");
}

#[test]
fn table_files_are_read_once_for_their_digest() {
    let pair = Pair::new();
    let mut known = Digests::new();
    let first = list_files(pair.from.path(), &mut known).unwrap();
    assert_eq!(known.len(), 2);
    for digest in known.values_mut() {
        *digest ^= 1;
    }
    let second = list_files(pair.from.path(), &mut known).unwrap();
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(
            first.digest != second.digest,
            first.name.ends_with(".sst"),
            "{}",
            first.name
        );
    }
    fs::remove_file(pair.from.path().join("000007.sst")).unwrap();
    list_files(pair.from.path(), &mut known).unwrap();
    assert_eq!(known.len(), 1, "what is gone is forgotten");
}
