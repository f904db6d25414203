//! The checks: what is judged, by which limits, and what to do about it. Never: a question to the cluster.
//!
//! Invariant: a pure function of one status and the jobs; every warning and every failure says what to do next.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_client::v1::{self, JobState, NodeState, ReplicaState};

use crate::health::{Health, ShardState, voters};
use crate::human;
use crate::words;

/// Timestamps of two nodes differ visibly, and rows come "from the future".
const CLOCK_WARN_MS: u64 = 100;
/// Limits on how far ahead a device may be begin to mean something else on each node.
const CLOCK_FAIL_MS: u64 = 1_000;
/// RocksDB keeps its tables open; 64 shards and a thousand clients fit.
const OPEN_FILES_MIN: u64 = 65_536;
const OPEN_FILES_WARN: f64 = 0.7;
const OPEN_FILES_FAIL: f64 = 0.9;
/// Free space is watched from twice the reserve on.
const RESERVES_WARN: u64 = 2;
const LAG_WARN_MS: i64 = 10_000;

/// What came out of a check, worst last.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Pass,
    Warn,
    Fail,
}

impl Verdict {
    /// For scripts and people.
    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// One check of one thing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Check {
    pub(super) verdict: Verdict,
    pub(super) check: &'static str,
    pub(super) subject: String,
    pub(super) detail: String,
    pub(super) next: String,
}

/// Collects checks.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, verdict: Verdict, check: &'static str, subject: &str, detail: impl Into<String>, next: &str) {
        let next = if verdict == Verdict::Pass { "" } else { next };
        self.0.push(Check {
            verdict,
            check,
            subject: subject.to_owned(),
            detail: detail.into(),
            next: next.to_owned(),
        });
    }
}

/// Judges a cluster.
pub(super) fn judge(status: &v1::StatusResponse, jobs: &[v1::Job]) -> Vec<Check> {
    let mut checks = Checks::default();
    if status.cluster_id.is_empty() {
        let detail = "belongs to no cluster";
        checks.add(Verdict::Fail, "membership", "node", detail, "tidemark cluster init");
        return checks.0;
    }
    versions(&mut checks, status);
    for node in &status.nodes {
        of_node(&mut checks, node);
    }
    tls(&mut checks, status);
    quorums(&mut checks, status);
    zones(&mut checks, status);
    lags(&mut checks, status);
    last_job(&mut checks, jobs);
    problems(&mut checks, status);
    checks.0
}

fn versions(checks: &mut Checks, status: &v1::StatusResponse) {
    let facts = status.nodes.iter().filter_map(|node| node.facts.as_ref());
    let mut found: BTreeSet<&str> = facts.map(|facts| facts.version.as_str()).collect();
    found.insert(&status.version);
    let found: Vec<_> = found.into_iter().filter(|version| !version.is_empty()).collect();
    let (verdict, detail) = match found[..] {
        [one] => (Verdict::Pass, format!("all nodes run {one}")),
        _ => (Verdict::Warn, format!("nodes run {}", found.join(" and "))),
    };
    checks.add(
        verdict,
        "versions",
        "nodes",
        detail,
        "bring all nodes to one version, one after the other",
    );
    let mine = env!("CARGO_PKG_VERSION");
    let (verdict, detail) = match found.contains(&mine) {
        true => (Verdict::Pass, format!("this command is {mine}")),
        false => (Verdict::Warn, format!("this command is {mine}, no node is")),
    };
    checks.add(
        verdict,
        "versions",
        "tidemark",
        detail,
        "use the command that came with the nodes",
    );
}

fn of_node(checks: &mut Checks, node: &v1::NodeStatus) {
    let place = node.node.clone().unwrap_or_default();
    let subject = format!("node {}", place.id);
    if !node.reachable {
        let detail = format!("does not answer at {}", place.peer_address);
        let next = format!(
            "start it again; if it is lost for good: tidemark node replace {} NEW",
            place.id
        );
        return checks.add(Verdict::Fail, "reachable", &subject, detail, &next);
    }
    checks.add(
        Verdict::Pass,
        "reachable",
        &subject,
        format!("answers at {}", place.client_address),
        "",
    );
    if place.state() == NodeState::Cordoned {
        let next = format!("tidemark node uncordon {}", place.id);
        checks.add(
            Verdict::Warn,
            "state",
            &subject,
            words::node_state(place.state()),
            &next,
        );
    }
    let Some(facts) = &node.facts else {
        let next = "bring the node to the version of the others";
        return checks.add(Verdict::Warn, "machine", &subject, "says nothing of its machine", next);
    };
    disk(checks, &subject, facts);
    clock(checks, &subject, facts.clock_offset_ms);
    open_files(checks, &subject, facts);
}

fn disk(checks: &mut Checks, subject: &str, facts: &v1::NodeFacts) {
    if facts.disk_total_bytes == 0 {
        let next = "bring the node to the version of the others";
        return checks.add(
            Verdict::Warn,
            "disk",
            subject,
            "does not say how large its disk is",
            next,
        );
    }
    let detail = format!(
        "{} of {} free, writes stop below {}",
        human::bytes(facts.disk_free_bytes),
        human::bytes(facts.disk_total_bytes),
        human::bytes(facts.disk_reserve_bytes)
    );
    let verdict = if facts.disk_low || facts.disk_free_bytes < facts.disk_reserve_bytes {
        Verdict::Fail
    } else if facts.disk_free_bytes < facts.disk_reserve_bytes.saturating_mul(RESERVES_WARN) {
        Verdict::Warn
    } else {
        Verdict::Pass
    };
    checks.add(
        verdict,
        "disk",
        subject,
        detail,
        "make room, or tidemark node add HOST:PORT and tidemark rebalance",
    );
}

fn clock(checks: &mut Checks, subject: &str, offset_ms: i64) {
    let verdict = match offset_ms.unsigned_abs() {
        off if off > CLOCK_FAIL_MS => Verdict::Fail,
        off if off > CLOCK_WARN_MS => Verdict::Warn,
        _ => Verdict::Pass,
    };
    let detail = format!("{offset_ms:+} ms from the node that answers");
    checks.add(
        verdict,
        "clock",
        subject,
        detail,
        "set the clocks by NTP on every machine",
    );
}

fn open_files(checks: &mut Checks, subject: &str, facts: &v1::NodeFacts) {
    let (open, most) = (facts.open_files, facts.open_files_max);
    if most == 0 {
        return;
    }
    let used = open as f64 / most as f64;
    let verdict = if used > OPEN_FILES_FAIL {
        Verdict::Fail
    } else if used > OPEN_FILES_WARN || most < OPEN_FILES_MIN {
        Verdict::Warn
    } else {
        Verdict::Pass
    };
    let next = format!("raise the limit of the process to {OPEN_FILES_MIN} or more (LimitNOFILE=, ulimit -n)");
    checks.add(verdict, "open files", subject, format!("{open} of {most}"), &next);
}

fn tls(checks: &mut Checks, status: &v1::StatusResponse) {
    let facts: Vec<_> = status.nodes.iter().filter_map(|node| node.facts.as_ref()).collect();
    if facts.is_empty() {
        return;
    }
    let (verdict, detail) = match facts.iter().all(|facts| facts.tls) {
        true => (Verdict::Pass, "clients and nodes speak TLS"),
        false => (Verdict::Warn, "absent: whoever reaches a port can read and write"),
    };
    checks.add(
        verdict,
        "tls",
        "nodes",
        detail,
        "let nobody but clients and nodes reach the ports",
    );
}

fn quorums(checks: &mut Checks, status: &v1::StatusResponse) {
    let health = Health::of(status);
    let mut sound = 0_usize;
    for shard in &status.shards {
        let (all, able) = voters(shard);
        let subject = match shard.shard {
            0 => "shard 0 (catalog)".to_owned(),
            id => format!("shard {id}"),
        };
        let detail = format!("{able} of {all} replicas can vote");
        let next = format!("tidemark shard show {}", shard.shard);
        if able * 2 <= all {
            checks.add(
                Verdict::Fail,
                "quorum",
                &subject,
                format!("{detail}: no majority"),
                &next,
            );
        } else if shard.leader_node == 0 {
            checks.add(
                Verdict::Fail,
                "quorum",
                &subject,
                format!("{detail}, but none leads"),
                &next,
            );
        } else if health.shard(shard) == ShardState::UnderReplicated {
            checks.add(Verdict::Warn, "quorum", &subject, detail, &next);
        } else {
            sound += 1;
        }
        for replica in shard.replicas.iter().filter(|one| one.state() == ReplicaState::Damaged) {
            let detail = format!(
                "the replica on node {} is damaged: {}",
                replica.node_id, replica.problem
            );
            checks.add(Verdict::Fail, "replica", &subject, detail, &next);
        }
    }
    if sound > 0 {
        let detail = "a leader and every replica";
        checks.add(Verdict::Pass, "quorum", &format!("{sound} shards"), detail, "");
    }
}

/// Where nodes name zones, no shard should lie in one of them only.
fn zones(checks: &mut Checks, status: &v1::StatusResponse) {
    let places = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let zone_of: BTreeMap<u64, &str> = places.map(|place| (place.id, place.zone.as_str())).collect();
    let named: BTreeSet<_> = zone_of.values().filter(|zone| !zone.is_empty()).collect();
    if named.len() < 2 {
        return;
    }
    let mut in_one = Vec::new();
    for shard in status.shards.iter().filter(|shard| shard.replicas.len() > 1) {
        let zones: BTreeSet<_> = shard.replicas.iter().map(|one| zone_of.get(&one.node_id)).collect();
        if zones.len() < 2 {
            in_one.push(shard.shard.to_string());
        }
    }
    let (verdict, detail) = match in_one.is_empty() {
        true => (
            Verdict::Pass,
            format!("every shard lies in several of {} zones", named.len()),
        ),
        false => (
            Verdict::Warn,
            format!("all replicas in one zone: shard {}", in_one.join(", ")),
        ),
    };
    checks.add(verdict, "zones", "shards", detail, "tidemark rebalance --dry-run");
}

fn lags(checks: &mut Checks, status: &v1::StatusResponse) {
    let replicas = || {
        status
            .shards
            .iter()
            .flat_map(|shard| shard.replicas.iter().map(move |one| (shard.shard, one)))
    };
    let heard = || replicas().filter(|(_, one)| one.state() != ReplicaState::Unreachable);
    let late: Vec<_> = heard().filter(|(_, one)| one.lag_ms > LAG_WARN_MS).collect();
    for (shard, one) in &late {
        let subject = format!("shard {shard}");
        let detail = format!(
            "the replica on node {} is {} ms behind its leader",
            one.node_id, one.lag_ms
        );
        let next = format!("tidemark shard show {shard}: it catches up by itself, unless the node is overloaded");
        checks.add(Verdict::Warn, "lag", &subject, detail, &next);
    }
    if late.is_empty() {
        let most = heard().map(|(_, one)| one.lag_ms).max().unwrap_or(0).max(0);
        checks.add(Verdict::Pass, "lag", "replicas", format!("at most {most} ms"), "");
    }
}

fn last_job(checks: &mut Checks, jobs: &[v1::Job]) {
    let Some(job) = jobs.iter().max_by_key(|job| job.id) else {
        return;
    };
    let (verdict, said) = match job.state() {
        JobState::Failed => (Verdict::Warn, format!("failed: {}", job.message)),
        state => (Verdict::Pass, words::job_state(state).to_owned()),
    };
    let next = format!("tidemark job show {}", job.id);
    checks.add(verdict, "job", &format!("job {}", job.id), said, &next);
}

fn problems(checks: &mut Checks, status: &v1::StatusResponse) {
    let verdict = if status.healthy { Verdict::Warn } else { Verdict::Fail };
    for problem in &status.problems {
        checks.add(verdict, "problem", "cluster", problem, "tidemark cluster status");
    }
    if status.healthy {
        checks.add(
            Verdict::Pass,
            "healthy",
            "cluster",
            "the cluster calls itself healthy",
            "",
        );
    } else if status.problems.is_empty() {
        let detail = "the cluster calls itself unhealthy and names no problem";
        checks.add(
            Verdict::Fail,
            "healthy",
            "cluster",
            detail,
            "tidemark cluster status --all",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node_id: u64, state: ReplicaState) -> v1::ReplicaStatus {
        v1::ReplicaStatus {
            node_id,
            state: state as i32,
            lag_ms: 3,
            ..v1::ReplicaStatus::default()
        }
    }

    fn sound() -> v1::StatusResponse {
        let node = |id: u64| v1::NodeStatus {
            node: Some(v1::Node {
                id,
                client_address: format!("10.0.0.{id}:7777"),
                peer_address: format!("10.0.0.{id}:7778"),
                zone: format!("z{id}"),
                ..v1::Node::default()
            }),
            reachable: true,
            facts: Some(v1::NodeFacts {
                version: env!("CARGO_PKG_VERSION").into(),
                disk_total_bytes: 100 << 30,
                disk_free_bytes: 60 << 30,
                disk_reserve_bytes: 5 << 30,
                open_files: 300,
                open_files_max: 1 << 20,
                tls: true,
                ..v1::NodeFacts::default()
            }),
            ..v1::NodeStatus::default()
        };
        let shard = |id: u32| v1::ShardStatus {
            shard: id,
            leader_node: 1,
            replicas: vec![
                replica(1, ReplicaState::Leader),
                replica(2, ReplicaState::Follower),
                replica(3, ReplicaState::Follower),
            ],
            ..v1::ShardStatus::default()
        };
        v1::StatusResponse {
            cluster_id: "9f86d081884c7d65".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            replication_factor: 3,
            healthy: true,
            nodes: (1..=3).map(node).collect(),
            shards: (0..=2).map(shard).collect(),
            ..v1::StatusResponse::default()
        }
    }

    /// What did not pass after a change to a sound cluster: verdict, check and subject.
    fn after(change: impl FnOnce(&mut v1::StatusResponse)) -> Vec<String> {
        let mut status = sound();
        change(&mut status);
        let checks = judge(&status, &[]);
        let bad = checks.iter().filter(|check| check.verdict != Verdict::Pass);
        bad.map(|check| {
            assert!(!check.next.is_empty(), "{check:?} says what to do");
            format!("{} {} {}", check.verdict.word(), check.check, check.subject)
        })
        .collect()
    }

    fn facts(status: &mut v1::StatusResponse, change: impl FnOnce(&mut v1::NodeFacts)) {
        change(status.nodes[1].facts.get_or_insert_default());
    }

    #[test]
    fn a_sound_cluster_passes() {
        assert_eq!(after(|_| {}), [""; 0]);
    }

    #[test]
    fn machines() {
        let of = |change: fn(&mut v1::NodeFacts)| after(|status| facts(status, change));
        assert_eq!(of(|f| f.clock_offset_ms = 101), ["warn clock node 2"]);
        assert_eq!(of(|f| f.clock_offset_ms = -1_001), ["fail clock node 2"]);
        assert_eq!(of(|f| f.clock_offset_ms = -100), [""; 0]);
        assert_eq!(of(|f| f.disk_free_bytes = 9 << 30), ["warn disk node 2"]);
        assert_eq!(of(|f| f.disk_low = true), ["fail disk node 2"]);
        assert_eq!(of(|f| f.open_files_max = 1_024), ["warn open files node 2"]);
        assert_eq!(of(|f| f.open_files = 1_000_000), ["fail open files node 2"]);
        assert_eq!(of(|f| f.tls = false), ["warn tls nodes"]);
        assert_eq!(of(|f| f.version = "0.0.9".into()), ["warn versions nodes"]);
        assert_eq!(after(|status| status.nodes[1].facts = None), ["warn machine node 2"]);
        assert_eq!(
            after(|status| status.nodes[1].reachable = false),
            ["fail reachable node 2"]
        );
        let cordon = |status: &mut v1::StatusResponse| {
            status.nodes[1].node.get_or_insert_default().state = NodeState::Cordoned as i32;
        };
        assert_eq!(after(cordon), ["warn state node 2"]);
    }

    #[test]
    fn shards() {
        let of = |states: [ReplicaState; 3], leader_node| {
            after(|status| {
                let shard = &mut status.shards[1];
                shard.leader_node = leader_node;
                for (replica, state) in shard.replicas.iter_mut().zip(states) {
                    replica.state = state as i32;
                }
            })
        };
        use ReplicaState::{Damaged, Follower, Leader, Unreachable};
        assert_eq!(of([Leader, Follower, Unreachable], 1), ["warn quorum shard 1"]);
        assert_eq!(of([Leader, Unreachable, Unreachable], 1), ["fail quorum shard 1"]);
        assert_eq!(of([Follower, Follower, Follower], 0), ["fail quorum shard 1"]);
        assert_eq!(
            of([Leader, Follower, Damaged], 1),
            ["warn quorum shard 1", "fail replica shard 1"]
        );
        assert_eq!(
            after(|status| status.shards[1].replicas[1].lag_ms = 60_000),
            ["warn lag shard 1"]
        );
        assert_eq!(
            after(|status| status.nodes[2].node.get_or_insert_default().zone = "z1".into()),
            [""; 0]
        );
        let in_one =
            |status: &mut v1::StatusResponse| status.shards[2].replicas.iter_mut().for_each(|one| one.node_id = 1);
        assert_eq!(after(in_one), ["warn zones shards"]);
    }

    #[test]
    fn the_cluster() {
        assert_eq!(after(|status| status.healthy = false), ["fail healthy cluster"]);
        assert_eq!(
            after(|status| status.problems = vec!["x".into()]),
            ["warn problem cluster"]
        );
        assert_eq!(after(|status| status.cluster_id.clear()), ["fail membership node"]);
        let failed = v1::Job {
            id: 4,
            state: JobState::Failed as i32,
            ..v1::Job::default()
        };
        let checks = judge(&sound(), &[failed]);
        assert!(
            checks
                .iter()
                .any(|check| check.verdict == Verdict::Warn && check.subject == "job 4")
        );
    }
}
