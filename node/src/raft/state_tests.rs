//! A checkpoint takes the place of a state, and a process may end at every step of that: the old or the new state is
//! there, whole. Never here: how files travel (see `receiver_tests`).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use openraft::RaftSnapshotBuilder as _;
use openraft::storage::RaftStateMachine as _;
use tempfile::TempDir;
use tidemark_proto::peer::install_snapshot_request::Part;
use tokio::sync::mpsc;

use super::super::machine::Machine;
use super::super::snapshot::send_files;
use super::*;
use crate::peers::Throttle;

fn log_id(index: u64) -> LogId {
    LogId {
        leader_id: openraft::impls::leader_id_adv::LeaderId { term: 1, node_id: 1 },
        index,
    }
}

fn open(dir: &Path) -> Arc<ReplicaState> {
    let resources = Arc::new(Resources::new(8 << 20, 8 << 20, 2).unwrap());
    ReplicaState::open(1, dir, resources, watch::Sender::new(Arc::default())).unwrap()
}

#[tokio::test]
async fn a_snapshot_for_which_there_is_no_room_is_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let has_room = Arc::new(AtomicBool::new(true));
    let room = has_room.clone();
    let resources = Resources::new(8 << 20, 8 << 20, 2).unwrap();
    let resources = resources.with_room(Arc::new(move |_| room.load(Ordering::Relaxed)));
    let changed = watch::Sender::new(Arc::default());
    let state = ReplicaState::open(1, dir.path(), Arc::new(resources), changed).unwrap();
    let built = async || {
        let mut builder = Machine::new(state.clone()).get_snapshot_builder().await;
        let built = builder.build_snapshot().await.unwrap();
        built.meta.last_log_id.map(|id| id.index)
    };
    apply(&state, OLD);
    assert_eq!(built().await, Some(OLD));
    has_room.store(false, Ordering::Relaxed);
    apply(&state, NEW);
    assert_eq!(state.flush().unwrap_err().reason(), Reason::DiskLow);
    assert_eq!(built().await, Some(OLD), "an error would end the replica");
    has_room.store(true, Ordering::Relaxed);
    assert_eq!(built().await, Some(NEW));
}

fn apply(state: &ReplicaState, upto: u64) {
    let from = state.applied().unwrap().0.map_or(1, |id| id.index + 1);
    for index in from..=upto {
        let blank = ApplyEntry { command: None };
        let answers = state.apply(&[blank], &log_id(index), Some(&StoredMembership::default()));
        assert_eq!(answers.unwrap(), [Bytes::new()]);
    }
}

fn index(state: &ReplicaState) -> u64 {
    state.applied().unwrap().0.unwrap().index
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const OLD: u64 = 3;
const NEW: u64 = 9;

/// A sender at `NEW` and a receiver at `OLD`.
struct Pair {
    sender: Arc<ReplicaState>,
    receiver: Arc<ReplicaState>,
    dirs: [TempDir; 2],
}

impl Pair {
    fn new() -> Pair {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (sender, receiver) = (open(dirs[0].path()), open(dirs[1].path()));
        apply(&sender, NEW);
        apply(&receiver, OLD);
        receiver.flush().unwrap();
        Pair { sender, receiver, dirs }
    }

    /// The receiver's process ends here and starts again.
    fn again(self) -> Pair {
        drop(self.receiver);
        let receiver = open(self.dirs[1].path());
        Pair { receiver, ..self }
    }

    /// Sends at most some pieces; the receiver, what the checkpoint covers, and how many bytes were sent.
    fn send(&self, pieces_max: usize) -> (Receiver, SnapshotMeta, u64) {
        let outgoing = self.sender.outgoing().unwrap();
        let mut receiver = self.receiver.incoming(outgoing.files.clone()).unwrap();
        let (out, mut inbox) = mpsc::channel(1_024);
        let (throttle, progress) = (Arc::new(Throttle::new(u64::MAX)), self.sender.transfers().begin(2, 0));
        let (dir, have) = (outgoing.folder.path(), receiver.have());
        send_files(dir, &outgoing.files, &have, &|| throttle.clone(), &progress, &out).unwrap();
        drop(out);
        let (mut sent, mut pieces) = (0, 0);
        while let Some(message) = inbox.blocking_recv().filter(|_| pieces < pieces_max) {
            let Some(Part::Piece(piece)) = message.part else {
                panic!("{message:?}")
            };
            sent += piece.data.len() as u64;
            pieces += 1;
            receiver.take(piece).unwrap();
        }
        (receiver, outgoing.meta, sent)
    }

    fn install(&self) -> u64 {
        let (receiver, meta, sent) = self.send(usize::MAX);
        let received = self.receiver.received(receiver, &meta).unwrap();
        self.receiver.install(&meta, received.path()).unwrap();
        self.receiver.forget_incoming().unwrap();
        sent
    }

    fn is_at(&self, index_expected: u64, state: &str) {
        assert_eq!(index(&self.receiver), index_expected);
        let mut names = names(self.dirs[1].path());
        names.retain(|name| name != INCOMING);
        assert_eq!(names, ["CURRENT", state]);
    }
}

#[test]
fn wherever_it_ends_the_old_or_the_new_state_is_there() {
    let whole = Pair::new().install();
    // Within the transfer, at every file.
    for pieces in 0..4 {
        let pair = Pair::new();
        let (receiver, _, sent) = pair.send(pieces);
        drop(receiver);
        let pair = pair.again();
        pair.is_at(OLD, "state-1");
        // A new checkpoint of an unchanged state has the same files, but for options that may carry a time.
        assert!(pair.install() <= whole - sent, "{pieces} pieces");
        pair.is_at(NEW, "state-2");
    }
    // All files came; nothing installed.
    let pair = Pair::new();
    let (receiver, meta, _) = pair.send(usize::MAX);
    drop(pair.receiver.received(receiver, &meta).unwrap());
    let left = pair.dirs[1].path().join(RECEIVED);
    fs::create_dir(&left).unwrap();
    fs::write(left.join("CURRENT"), "half").unwrap();
    let pair = pair.again();
    pair.is_at(OLD, "state-1");
    // Moved to its place; CURRENT not yet written.
    let (receiver, meta, sent) = pair.send(usize::MAX);
    assert_eq!(sent, 0, "all of it was there");
    let received = pair.receiver.received(receiver, &meta).unwrap();
    fs::rename(received.path(), pair.dirs[1].path().join("state-2")).unwrap();
    drop(received);
    let pair = pair.again();
    pair.is_at(OLD, "state-1");
    // Installed; what came not yet forgotten.
    let (receiver, meta, _) = pair.send(usize::MAX);
    let received = pair.receiver.received(receiver, &meta).unwrap();
    pair.receiver.install(&meta, received.path()).unwrap();
    drop(received);
    let pair = pair.again();
    pair.is_at(NEW, "state-2");
    // And it goes on from there.
    apply(&pair.receiver, NEW + 1);
    pair.receiver.flush().unwrap();
    assert_eq!(index(&pair.again().receiver), NEW + 1);
}

#[test]
fn another_state_than_announced_is_refused() {
    let pair = Pair::new();
    let (receiver, meta, _) = pair.send(usize::MAX);
    let other = SnapshotMeta {
        last_log_id: Some(log_id(NEW + 1)),
        ..meta
    };
    let refused = pair.receiver.received(receiver, &other);
    assert_eq!(refused.err().unwrap().reason(), Reason::Corruption);
    pair.is_at(OLD, "state-1");
    pair.install();
    pair.is_at(NEW, "state-2");
}

#[test]
fn a_replaced_state_goes_when_its_last_reader_has_gone() {
    let pair = Pair::new();
    let reader = pair.receiver.kept();
    pair.install();
    assert_eq!(names(pair.dirs[1].path()), ["CURRENT", "state-1", "state-2"]);
    assert!(reader.store().applied().is_ok());
    drop(reader);
    pair.receiver.sweep();
    pair.is_at(NEW, "state-2");
}
