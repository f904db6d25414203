//! A log holds the votes of one node, and says of which.

use tidemark_node::raft::log_store::{LogOwner, NodeLog};

use crate::support::{append_durably, entry, vote};

fn node(cluster: &str, node_id: u64) -> LogOwner {
    LogOwner {
        cluster_id: cluster.into(),
        node_id,
    }
}

#[tokio::test]
async fn a_log_of_an_older_version_is_taken_and_one_of_another_node_is_not() {
    let dir = tempfile::tempdir().unwrap();
    {
        let old = NodeLog::open(dir.path()).unwrap();
        let mut group = old.group(1).unwrap();
        vote(&mut group, 3).await;
        append_durably(&mut group, vec![entry(1, 0, 40)]).await;
    }
    for _ in 0..2 {
        let log = NodeLog::open(dir.path()).unwrap();
        log.claim(&node("a", 1)).unwrap();
        assert_eq!(log.owner().unwrap(), Some(node("a", 1)));
        for (other, says) in [
            (
                node("a", 2),
                "the raft log is of node 1 of cluster a, not of node 2 of cluster a",
            ),
            (
                node("b", 1),
                "the raft log is of node 1 of cluster a, not of node 1 of cluster b",
            ),
        ] {
            assert_eq!(log.claim(&other).unwrap_err().to_string(), says);
        }
        // The owner is no group, and what was there still is.
        assert_eq!((log.groups(), log.damaged()), (vec![1], vec![]));
    }
}
