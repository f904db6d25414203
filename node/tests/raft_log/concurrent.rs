//! Readers beside a writer that appends, rewrites and purges: every read is of a log that was there at one moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::TryStreamExt as _;
use openraft::EntryPayload;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_node::raft::log_store::{GroupReader, NodeLog};
use tidemark_node::raft::types::Entry;

use crate::support::{append, entry, log_id, small};

const BASE_BYTES: usize = 60;

/// Every entry tells the term of the one before it by its size, so a mixture of two histories shows.
fn check_chain(entries: &[Entry]) {
    for pair in entries.windows(2) {
        let (before, after) = (&pair[0].log_id, &pair[1].log_id);
        assert_eq!(after.index, before.index + 1);
        let EntryPayload::Normal(command) = &pair[1].payload else {
            panic!("no command")
        };
        assert_eq!(
            command.0.len(),
            BASE_BYTES + before.leader_id.term as usize,
            "{before} then {after}"
        );
    }
}

async fn read(mut reader: GroupReader, over: Arc<AtomicBool>, reads: Arc<AtomicU64>) {
    while !over.load(Ordering::Relaxed) {
        check_chain(&reader.try_get_log_entries(..).await.unwrap());
        let start = reader
            .try_get_log_entries(..)
            .await
            .unwrap()
            .first()
            .map_or(0, |first| first.log_id.index + 3);
        check_chain(&reader.limited_get_log_entries(start, start + 50).await.unwrap());
        let streamed: Vec<Entry> = reader
            .entries_stream(start..start + 5)
            .await
            .try_collect()
            .await
            .unwrap();
        assert!(streamed.len() <= 5);
        reads.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn reads_never_mix_two_histories() {
    let seed = std::env::var("TIDEMARK_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("TIDEMARK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let node = NodeLog::open_with(dir.path(), small()).unwrap();
    let mut log = node.group(1).unwrap();
    let (over, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(read(log.reader(), Arc::clone(&over), Arc::clone(&reads))))
        .collect();

    // Terms by index, of what was not purged.
    let (mut terms, mut first, mut term) = (Vec::<u64>::new(), 0_u64, 1_u64);
    for _ in 0..400 {
        let next = first + terms.len() as u64;
        match random.random_range(0..10) {
            0 if terms.len() > 4 => {
                let keep = random.random_range(1..terms.len());
                terms.truncate(keep);
                log.truncate_after(Some(log_id(terms[keep - 1], first + keep as u64 - 1)))
                    .await
                    .unwrap();
                term += 1;
            }
            1 if terms.len() > 100 => {
                let gone = random.random_range(1..50);
                log.purge(log_id(terms[gone - 1], first + gone as u64 - 1))
                    .await
                    .unwrap();
                terms.drain(..gone);
                first += gone as u64;
            }
            _ => {
                let mut new = Vec::new();
                for index in next..next + random.random_range(1..8) {
                    let before = terms.last().copied().unwrap_or(0);
                    new.push(entry(term, index, BASE_BYTES + before as usize));
                    terms.push(term);
                }
                let told = append(&mut log, new).await;
                if random.random_bool(0.2) {
                    told.await.unwrap().unwrap();
                }
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    println!("{} rounds of reads", reads.load(Ordering::Relaxed));
    assert!(reads.load(Ordering::Relaxed) > 0);
}
