//! Growing, emptying, replacing and losing nodes while the points stay where they are asked for.
//! Never here: planning alone (see `placement`), kill -9 of processes. Invariant: every answer is as before, and the
//! replicas of every shard agree.

use crate::common::fleet::*;
use crate::common::operator::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, v1};
use tidemark_proto::peer::manage_group_request::Step;
use tidemark_proto::peer::peer_service_client::PeerServiceClient;
use tidemark_proto::peer::{Envelope, ManageGroupRequest, VoterSet};
use v1::job_spec::Goal;

const DEVICES: usize = 40;

fn names() -> Vec<String> {
    (0..DEVICES).map(|i| format!("m{i}")).collect()
}

/// Devices of every shard, with one point each at three times.
async fn fill(client: &Client) -> Vec<Point> {
    furnish(client, &names().iter().map(String::as_str).collect::<Vec<_>>()).await;
    for step in 0..3 {
        let mut batch = BatchBuilder::new(METER);
        for (i, device) in names().iter().enumerate() {
            batch.row(device, T0 + step * S).set("count", i as i64 + step);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
    stored(client).await
}

async fn everything_is_there(cluster: &TestCluster, at: usize, expected: &[Point]) {
    let client = cluster.client_at(at).await;
    assert_eq!(stored(&client).await, expected);
    cluster.replicas_agree(at).await;
}

#[tokio::test]
async fn a_cluster_grows_to_five_and_shrinks_to_three() {
    let mut cluster = TestCluster::start(3).await;
    let expected = fill(&cluster.client().await).await;
    for _ in 0..2 {
        let i = cluster.add().await;
        assert_eq!(cluster.take_in(i).await, i as u64 + 1);
    }
    cluster.done(0, rebalance()).await;
    let spread = cluster.spread(0).await;
    assert_eq!(spread.len(), 5);
    assert!(spread.values().all(|replicas| (3..=4).contains(replicas)), "{spread:?}");
    everything_is_there(&cluster, 4, &expected).await;

    cluster.done(3, drain(1)).await;
    assert_eq!(cluster.spread(1).await[&1], 0);
    let status = cluster.healthy(1).await;
    assert_eq!(status.nodes[0].leaders, 0, "a drained node leads nothing");
    everything_is_there(&cluster, 0, &expected).await;

    cluster.done(1, remove(1)).await;
    assert!(cluster.ended(0).await.contains("removed"));
    assert!(cluster.refuses_to_start(0).await.contains("NODE_REMOVED"));
    cluster.done(1, remove(4)).await;
    assert_eq!(
        cluster.spread(1).await.into_iter().collect::<Vec<_>>(),
        [(2, 6), (3, 6), (5, 6)]
    );
    cluster.healthy(1).await;
    everything_is_there(&cluster, 1, &expected).await;
}

#[tokio::test]
async fn a_node_that_is_lost_for_good_is_replaced_by_an_empty_one() {
    let mut cluster = TestCluster::start(3).await;
    let expected = fill(&cluster.client().await).await;
    cluster.drop_node(2).await;
    cluster.wipe(2);
    let i = cluster.add().await;
    let new = cluster.take_in(i).await;
    cluster.done(0, replace(3, new)).await;
    let spread = cluster.spread(0).await;
    assert_eq!(spread.into_iter().collect::<Vec<_>>(), [(1, 6), (2, 6), (new, 6)]);
    cluster.healthy(0).await;
    everything_is_there(&cluster, i, &expected).await;

    // What was lost comes back with its old data? No: it has none, and its place is taken.
    cluster.restart(2).await;
    let refused = cluster.at(2).status().await.unwrap();
    assert_eq!(refused.cluster_id, "", "a wiped node belongs to nothing");
}

#[tokio::test]
async fn a_wiped_folder_comes_back_as_a_new_node_and_not_as_a_voter() {
    let mut cluster = TestCluster::start(3).await;
    let expected = fill(&cluster.client().await).await;
    cluster.drop_node(1).await;
    cluster.wipe(1);
    cluster.restart(1).await;
    let new = cluster.take_in(1).await;
    assert_eq!(new, 4, "the id of the lost folder is not given again");
    assert_eq!(cluster.take_in(1).await, 4, "the same folder keeps its id");
    cluster.done(0, replace(2, new)).await;
    cluster.healthy(0).await;
    everything_is_there(&cluster, 1, &expected).await;
}

#[tokio::test]
async fn a_node_started_with_join_becomes_a_member_by_itself() {
    let mut cluster = TestCluster::start(1).await;
    let peers = vec!["127.0.0.1:1".to_string(), cluster.peer_address(0)];
    let i = cluster.add_in("cellar", peers).await;
    let node = cluster.at(0);
    eventually("the node is a member", || async {
        let status = node.status().await.map_err(|e| e.to_string())?;
        let zones: Vec<String> = status.nodes.into_iter().map(|node| node.node.unwrap().zone).collect();
        if zones == ["", "cellar"] {
            Ok(())
        } else {
            Err(format!("{zones:?}"))
        }
    })
    .await;
    cluster.stop(i).await;
    cluster.restart(i).await;
    cluster.healthy(i).await;
}

#[tokio::test]
async fn the_only_replica_of_a_shard_moves_to_another_node() {
    let mut cluster = TestCluster::start_shaped(1, 4, 1).await;
    let expected = fill(&cluster.client().await).await;
    let i = cluster.add().await;
    cluster.take_in(i).await;
    let spec = v1::MoveShard {
        shard: 2,
        from_node: 1,
        to_node: 2,
    };
    cluster.done(0, Goal::MoveShard(spec)).await;
    assert_eq!(
        cluster.spread(0).await.into_iter().collect::<Vec<_>>(),
        [(1, 3), (2, 1)]
    );
    everything_is_there(&cluster, 0, &expected).await;
    cluster.done(0, drain(1)).await;
    everything_is_there(&cluster, 1, &expected).await;
}

#[tokio::test]
async fn a_shard_moves_away_and_comes_back_under_a_new_replica_id() {
    let mut cluster = TestCluster::start(3).await;
    let expected = fill(&cluster.client().await).await;
    let i = cluster.add().await;
    cluster.take_in(i).await;
    let between = |from_node, to_node| {
        Goal::MoveShard(v1::MoveShard {
            shard: 1,
            from_node,
            to_node,
        })
    };
    let mut ids = std::collections::BTreeSet::new();
    for (from, to) in [(1, 4), (4, 1), (1, 4), (4, 1)] {
        let job = cluster.done(0, between(from, to)).await;
        assert!(ids.insert(job.moves[0].to_replica), "a replica id was given twice");
    }
    let left: Vec<_> = std::fs::read_dir(cluster.data_dir(i).join("groups")).unwrap().collect();
    let names: Vec<String> = left
        .into_iter()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names.iter().any(|name| name.starts_with("1-")),
        "files stayed: {names:?}"
    );
    everything_is_there(&cluster, i, &expected).await;
}

#[tokio::test]
async fn what_would_lose_data_is_refused_with_the_command_to_run() {
    let mut cluster = TestCluster::start(3).await;
    fill(&cluster.client().await).await;
    let cases: Vec<(&str, Goal, &str)> = vec![
        ("remove below the factor", remove(2), "FAILED_PRECONDITION FACTOR_UNMET"),
        ("drain below the factor", drain(2), "FAILED_PRECONDITION FACTOR_UNMET"),
        ("no such node", drain(9), "NOT_FOUND UNKNOWN_NODE"),
        ("replace by itself", replace(1, 1), "FAILED_PRECONDITION INVALID_MOVE"),
    ];
    for (what, goal, expected) in cases {
        let refused = cluster.start_job(0, goal).await.expect_err(what);
        let shown = shown(&refused);
        assert!(shown.starts_with(expected), "{what}: {shown}");
        assert!(shown.contains("tidemark "), "{what} names the next command: {shown}");
    }
    let plan = v1::PlanJobRequest {
        spec: goal(rebalance()),
    };
    let planned = cluster.at(0).cluster().plan_job(plan).await.unwrap().into_inner();
    assert_eq!(planned.job.unwrap().moves, [], "three nodes are even");
    let i = cluster.add().await;
    cluster.take_in(i).await;
    let one = cluster.start_job(1, rebalance()).await.unwrap();
    let second = cluster.start_job(2, drain(1)).await;
    match second {
        Err(refused) => assert!(shown(&refused).contains("JOB_RUNNING"), "{}", shown(&refused)),
        Ok(_) => assert_ne!(
            cluster.job(0, one.id).await.unwrap().ended_at_ns,
            0,
            "the first had ended"
        ),
    }
}

#[tokio::test]
async fn a_rebalance_without_moves_evens_out_who_leads_and_says_so() {
    let cluster = TestCluster::start(3).await;
    let planned = || async {
        let plan = v1::PlanJobRequest {
            spec: goal(rebalance()),
        };
        let planned = cluster.at(0).cluster().plan_job(plan).await;
        let job = planned.map_err(|e| e.message().to_string())?.into_inner().job.unwrap();
        assert_eq!(job.moves, [], "three nodes are even");
        Ok::<_, String>(job.message)
    };
    let led = || async {
        let status = cluster.at(0).status().await.unwrap();
        let data = status.shards.into_iter().filter(|shard| shard.shard > 0);
        data.map(|shard| (shard.shard, shard.leader_node)).collect::<Vec<_>>()
    };
    eventually("leaders are even", || async {
        match planned().await? {
            even if even.is_empty() => Ok(()),
            uneven => Err(uneven),
        }
    })
    .await;
    let (shard, _) = led().await.into_iter().find(|(_, node)| *node == 2).unwrap();
    let transfer = v1::TransferLeaderRequest { shard, to_node: 1 };
    cluster.at(0).cluster().transfer_leader(transfer).await.unwrap();
    let says = eventually("the plan sees who leads", || async {
        Some(planned().await?)
            .filter(|says| !says.is_empty())
            .ok_or_else(String::new)
    })
    .await;
    assert_eq!(says, "1 leadership goes to a node that leads fewer shards");
    assert_eq!(cluster.done(0, rebalance()).await.message, "leaderships handed over: 1");
    eventually("two shards are led by each node", || async {
        let led = led().await;
        let count = |node: u64| led.iter().filter(|(_, leader)| *leader == node).count();
        match [1, 2, 3].map(count) {
            [2, 2, 2] => Ok(()),
            uneven => Err(format!("{uneven:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_names_the_node_that_is_to_vote_in_the_catalog_and_does_not_answer() {
    let mut cluster = TestCluster::start_shaped(3, 2, 1).await;
    let i = cluster.add().await;
    cluster.take_in(i).await;
    cluster.healthy(0).await;
    cluster.drop_node(i).await;
    // So that it lags: one that is in step would hold nothing up.
    let client = cluster.client().await;
    for n in 0..20 {
        let some = device_type(&format!("type-{n}"), 0);
        client.apply_device_types(vec![some]).await.unwrap();
    }
    let job = cluster.start_job(0, remove(3)).await.unwrap();
    eventually("the job says what it waits for", || async {
        let job = cluster.job(0, job.id).await?;
        let says = "node 3 hands its vote in the catalog over: node 4 is to have it and does not answer";
        match job.message {
            message if message == says => Ok(()),
            message => Err(message),
        }
    })
    .await;
    cluster.restart(i).await;
    assert_eq!(cluster.job_ended(0, job.id).await.state(), v1::JobState::Done);
    assert!(cluster.ended(2).await.contains("removed"));
    cluster.healthy(i).await;
}

#[tokio::test]
async fn voters_that_do_not_belong_to_the_group_are_refused_by_name() {
    let cluster = TestCluster::start(1).await;
    let status = cluster.healthy(0).await;
    let channel = crate::common::direct::Direct::new(&cluster.peer_address(0)).channel;
    let voters = VoterSet {
        replicas: vec![status.shards[1].replicas[0].replica_id, 99],
    };
    let request = ManageGroupRequest {
        envelope: Some(Envelope {
            cluster_id: status.cluster_id,
            protocol: PEER_PROTOCOL,
            from_node: 1,
            to_node: 1,
        }),
        group: 1,
        timeout_ms: 5_000,
        step: Some(Step::SetMembers(voters)),
    };
    let refused = PeerServiceClient::new(channel).manage_group(request).await.unwrap_err();
    let refused = tidemark_client::Error::from(refused);
    assert_eq!(
        (refused.reason.as_str(), refused.message.as_str()),
        ("INVALID_MOVE", "replica 99 is no member of group 1 that could vote")
    );
}

#[tokio::test]
async fn a_cancelled_job_leaves_every_shard_whole() {
    let mut cluster = TestCluster::start(3).await;
    let expected = fill(&cluster.client().await).await;
    let i = cluster.add().await;
    cluster.take_in(i).await;
    let job = cluster.start_job(0, replace(1, 4)).await.unwrap();
    let cancelled = cluster
        .at(1)
        .cluster()
        .cancel_job(v1::CancelJobRequest { id: job.id })
        .await;
    cancelled.unwrap();
    let ended = cluster.job_ended(0, job.id).await;
    assert_eq!(ended.state(), v1::JobState::Cancelled);
    for planned in &ended.moves {
        let phase = planned.phase();
        assert!(
            matches!(phase, v1::MovePhase::Done | v1::MovePhase::Cancelled),
            "{phase:?}"
        );
    }
    let status = cluster.healthy(0).await;
    assert!(status.shards.iter().skip(1).all(|shard| shard.replicas.len() == 3));
    assert_eq!(status.nodes.len(), 4, "nobody left");
    everything_is_there(&cluster, 0, &expected).await;
}

/// A replica that was not there when its group went on without it believes what it knew: the node asks the others.
#[tokio::test]
async fn a_replica_that_missed_its_removal_does_not_stand_in_the_way() {
    let mut cluster = TestCluster::start(3).await;
    let expected = fill(&cluster.client().await).await;
    let status = cluster.healthy(0).await;
    let stay = |shard: usize| {
        let replicas = status.shards[shard]
            .replicas
            .iter()
            .filter(|replica| replica.node_id != 1);
        replicas.map(|replica| replica.replica_id).collect::<Vec<u64>>()
    };
    let without_first = |shard: usize| Step::SetMembers(VoterSet { replicas: stay(shard) });
    // It hears of one removal, perhaps, and nothing of who leads afterwards.
    cluster.behind_the_catalog(1, 1, without_first(1)).await;
    for replica in stay(1) {
        cluster.behind_the_catalog(1, 1, Step::TransferTo(replica)).await;
    }
    // Of the other it hears nothing.
    cluster.drop_node(0).await;
    cluster.behind_the_catalog(1, 2, without_first(2)).await;
    cluster.restart(0).await;

    let node = cluster.at(0);
    let mut batch = BatchBuilder::new(METER);
    for device in names() {
        batch.row(&device, T0 + 3 * S).set("count", 7i64);
    }
    let request = write(batch.build().unwrap());
    eventually("a write through it is stored", || async {
        let written = node.write(request.clone()).await;
        written.map_err(|e| e.to_string())
    })
    .await;
    let (answer, _) = node.range(everything(of_type(METER))).await.unwrap();
    assert_eq!(points(&answer).len(), expected.len() + DEVICES);
}

/// Whoever dies at whichever step: the job ends, and the replicas agree.
#[tokio::test]
async fn a_job_survives_the_loss_of_any_node_at_any_step() {
    let mut cluster = TestCluster::start(4).await;
    let expected = fill(&cluster.client().await).await;
    let mut at_node = (1u64, 4u64);
    let phases = [
        v1::MovePhase::Copying,
        v1::MovePhase::Switching,
        v1::MovePhase::Cleaning,
    ];
    for phase in phases {
        for victim in 0..4 {
            let watcher = (victim + 1) % 4;
            let status = cluster.healthy(watcher).await;
            let has = |shard: &v1::ShardStatus, node: u64| shard.replicas.iter().any(|r| r.node_id == node);
            let between = |from, to| status.shards.iter().skip(1).find(|s| has(s, from) && !has(s, to));
            let found = between(at_node.0, at_node.1).or_else(|| between(at_node.1, at_node.0));
            let shard = found.expect("a shard that can move").shard;
            let (from_node, to_node) = match has(found.unwrap(), at_node.1) {
                false => at_node,
                true => (at_node.1, at_node.0),
            };
            let spec = v1::MoveShard {
                shard,
                from_node,
                to_node,
            };
            let job = cluster.start_job(watcher, Goal::MoveShard(spec)).await.unwrap();
            eventually("the move gets that far", || async {
                let job = cluster.job(watcher, job.id).await?;
                let now = job.moves[0].phase();
                if now as i32 >= phase as i32 {
                    Ok(())
                } else {
                    Err(format!("{now:?}"))
                }
            })
            .await;
            cluster.drop_node(victim).await;
            cluster.restart(victim).await;
            let ended = cluster.job_ended(watcher, job.id).await;
            assert_eq!(
                ended.state(),
                v1::JobState::Done,
                "{phase:?}, node {victim}: {}",
                ended.message
            );
            cluster.healthy(watcher).await;
            at_node = (at_node.1, at_node.0);
        }
    }
    everything_is_there(&cluster, 0, &expected).await;
}
