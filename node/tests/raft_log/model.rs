//! Random histories of several groups, with reopening in between, against a plain model.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_node::raft::log_store::{GroupLog, NodeLog};
use tidemark_node::raft::types::{Entry, LogId, Vote};

use crate::support::{append, entry, log_id, small};

#[derive(Default)]
struct Model {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    term: u64,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries
            .last_key_value()
            .map(|(_, entry)| entry.log_id)
            .or(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    fn range(&self, from: u64, to: u64) -> Vec<Entry> {
        self.entries.range(from..to).map(|(_, entry)| entry.clone()).collect()
    }
}

async fn step(random: &mut StdRng, log: &mut GroupLog, model: &mut Model) {
    match random.random_range(0..100) {
        0..55 => {
            let next = model.next_index();
            let count = random.random_range(1..6);
            let new: Vec<Entry> = (next..next + count)
                .map(|index| {
                    let bytes = if random.random_bool(0.03) {
                        5_000
                    } else {
                        random.random_range(0..400)
                    };
                    entry(model.term, index, bytes)
                })
                .collect();
            model
                .entries
                .extend(new.iter().map(|entry| (entry.log_id.index, entry.clone())));
            let told = append(log, new).await;
            if random.random_bool(0.3) {
                told.await.unwrap().unwrap();
            }
        }
        55..70 => {
            model.term += 1;
            let vote = Vote {
                leader_id: log_id(model.term, 0).leader_id,
                committed: random.random_bool(0.5),
            };
            log.save_vote(&vote).await.unwrap();
            model.vote = Some(vote);
        }
        70..80 => {
            let floor = model.committed.max(model.purged).map_or(0, |floor| floor.index + 1);
            let cut = random.random_range(floor..=model.next_index().max(floor));
            let after = match cut.checked_sub(1) {
                Some(index) if model.purged.is_some_and(|purged| purged.index == index) => model.purged,
                Some(index) => model.entries.get(&index).map(|entry| entry.log_id),
                None => None,
            };
            if cut == 0 || after.is_some() {
                log.truncate_after(after).await.unwrap();
                model.entries.split_off(&cut);
            }
        }
        80..90 => {
            let Some((first, last)) = model.entries.keys().next().copied().zip(model.last()) else {
                return;
            };
            let upto = if random.random_bool(0.1) {
                // A snapshot came: beyond the end.
                log_id(model.term, last.index + random.random_range(1..5))
            } else {
                model.entries[&random.random_range(first..=last.index)].log_id
            };
            log.purge(upto).await.unwrap();
            model.entries = model.entries.split_off(&(upto.index + 1));
            model.purged = Some(upto);
        }
        _ => {
            model.committed = model.last().max(model.committed);
            log.save_committed(model.committed).await.unwrap();
        }
    }
}

async fn check(random: &mut StdRng, log: &mut GroupLog, model: &Model) {
    let state = log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (model.purged, model.last())
    );
    let mut reader = log.reader();
    assert_eq!(reader.read_vote().await.unwrap(), model.vote);
    assert_eq!(log.read_committed().await.unwrap(), model.committed);
    let from = random.random_range(0..=model.next_index());
    let to = random.random_range(from..=model.next_index() + 2);
    let expected = model.range(from, to);
    assert_eq!(
        reader.try_get_log_entries(from..to).await.unwrap(),
        expected,
        "{from}..{to}"
    );
    let streamed: Vec<Entry> = reader.entries_stream(from..to).await.try_collect().await.unwrap();
    assert_eq!(streamed, expected, "stream {from}..{to}");
    let limited = reader.limited_get_log_entries(from, to).await.unwrap();
    let whole = expected.first().is_some_and(|first| first.log_id.index == from);
    assert_eq!(limited.is_empty(), !whole);
    assert_eq!(limited[..], expected[..limited.len()]);
}

#[tokio::test]
async fn random_histories_survive_reopening() {
    const GROUPS: u32 = 3;
    let seed = std::env::var("TIDEMARK_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("TIDEMARK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut models: Vec<Model> = (0..GROUPS).map(|_| Model::default()).collect();
    for _ in 0..25 {
        let node = NodeLog::open_with(dir.path(), small()).unwrap();
        assert_eq!(node.damaged(), []);
        let mut logs: Vec<GroupLog> = (0..GROUPS).map(|group| node.group(group).unwrap()).collect();
        for (log, model) in logs.iter_mut().zip(&models) {
            check(&mut random, log, model).await;
            assert_eq!(
                log.reader().try_get_log_entries(..).await.unwrap(),
                model.range(0, u64::MAX)
            );
        }
        for _ in 0..random.random_range(1..60) {
            let group = random.random_range(0..GROUPS as usize);
            step(&mut random, &mut logs[group], &mut models[group]).await;
            check(&mut random, &mut logs[group], &models[group]).await;
        }
    }
}
