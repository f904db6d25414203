//! What an operator types against a scripted cluster: plans, questions, progress, exit codes, screens. Never: a real node.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod fake;

use std::io::BufRead as _;

use assert_cmd::Command;
use fake::{CLUSTER, Fake, drain, refusal, replica};
use tidemark_proto::v1::{self, JobState, MovePhase, ReplicaState, job_spec::Goal};
use tonic::Code;

/// Standard output, standard error and the exit code.
fn run(fake: &Fake, arguments: &[&str]) -> (String, String, i32) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tidemark"));
    for variable in ["TIDEMARK_OUTPUT", "TIDEMARK_TIMEOUT"] {
        command.env_remove(variable);
    }
    command.env("TIDEMARK_ENDPOINT", &fake.address).env("COLUMNS", "160");
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap(),
    )
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn plan(fake: &Fake, warnings: &[&str]) {
    *fake.state.plan.lock().unwrap() = v1::PlanJobResponse {
        job: Some(v1::Job {
            id: 0,
            started_at_ns: 0,
            ..drain(JobState::Unspecified, [MovePhase::Pending; 2])
        }),
        warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
    };
}

fn looks(fake: &Fake, jobs: impl IntoIterator<Item = v1::Job>) {
    fake.state.looks.lock().unwrap().extend(jobs);
}

fn whole_drain() -> Vec<v1::Job> {
    let mut waits = drain(JobState::Running, [MovePhase::Done, MovePhase::Copying]);
    waits.moves[1].waits_for = "no room on node 4".into();
    vec![
        drain(JobState::Running, [MovePhase::Pending; 2]),
        drain(JobState::Running, [MovePhase::Copying, MovePhase::Pending]),
        waits,
        drain(JobState::Done, [MovePhase::Done; 2]),
    ]
}

#[test]
fn a_job_is_planned_started_and_followed() {
    let fake = Fake::start();
    plan(&fake, &[]);
    looks(&fake, whole_drain());
    let (out, err, code) = run(&fake, &["node", "drain", "3", "--limit-rate", "20MiB"]);
    assert_eq!(code, 0, "{err}");
    insta::assert_snapshot!("drain_plan", out);
    insta::assert_snapshot!("drain_progress", err);
    let started = fake.state.started.lock().unwrap();
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].bytes_per_second_max, 20 << 20);
}

#[test]
fn scripts_get_the_job_as_it_ended() {
    let fake = Fake::start();
    plan(&fake, &[]);
    looks(&fake, whole_drain());
    let (out, _, code) = run(&fake, &["-o", "json", "node", "drain", "3"]);
    let job = json(&out);
    assert_eq!(
        (code, job["kind"].as_str(), job["state"].as_str()),
        (0, Some("job"), Some("done"))
    );
    assert_eq!(
        (job["job"].as_u64(), job["moves"].as_array().unwrap().len()),
        (Some(7), 2)
    );

    let fake = Fake::start();
    plan(&fake, &[]);
    looks(&fake, whole_drain());
    let (out, _, code) = run(&fake, &["-o", "json", "node", "drain", "3", "--wait", "accepted"]);
    assert_eq!((code, json(&out)["state"].as_str()), (0, Some("running")));
}

#[test]
fn a_dry_run_starts_nothing() {
    let fake = Fake::start();
    plan(&fake, &["shard 2 has two replicas only while it runs"]);
    let (out, err, code) = run(&fake, &["-o", "json", "node", "remove", "3", "--dry-run"]);
    let answer = json(&out);
    assert_eq!((code, answer["kind"].as_str(), err.as_str()), (0, Some("job_plan"), ""));
    assert_eq!(answer["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(answer["moves"][0]["to_node"], 4);

    let message = "shard 2 would keep 2 of 3 replicas";
    let refused = refusal(Code::FailedPrecondition, "FACTOR_UNMET", message, "");
    *fake.state.refuse.lock().unwrap() = Some(("plan_job", refused));
    let (out, err, code) = run(&fake, &["node", "remove", "3", "--dry-run"]);
    assert_eq!((out.as_str(), code), ("", 6));
    assert_eq!(
        err,
        "error: cannot remove node 3\n  why: shard 2 would keep 2 of 3 replicas\n  next: tidemark node add HOST:PORT\n"
    );
    assert!(fake.state.started.lock().unwrap().is_empty());
}

#[test]
fn what_is_dangerous_has_to_be_confirmed() {
    let fake = Fake::start();
    let warning = "node 3 does not answer: what only it has is lost";
    plan(&fake, &[warning]);
    looks(&fake, whole_drain());
    let (_, err, code) = run(&fake, &["node", "replace", "3", "4"]);
    assert_eq!(code, 6);
    assert!(
        err.contains(&format!("warning: {warning}")) && err.contains("--confirm 9f86d081"),
        "{err}"
    );
    for wrong in ["9f86", "00000000", "", "9f86d081884c7d659a2feaa0c55ad0150"] {
        let (_, err, code) = run(&fake, &["node", "replace", "3", "4", "--confirm", wrong]);
        assert_eq!(code, 6, "{wrong}: {err}");
    }
    assert!(fake.state.started.lock().unwrap().is_empty());
    let (_, err, code) = run(&fake, &["node", "replace", "3", "4", "--confirm", "9f86d081"]);
    assert_eq!(code, 0, "{err}");
    let goal = fake.state.started.lock().unwrap()[0].spec.unwrap().goal;
    let replace = v1::ReplaceNode {
        old_node: 3,
        new_node: 4,
    };
    assert_eq!(goal, Some(Goal::ReplaceNode(replace)));
}

#[test]
fn points_are_counted_and_confirmed_before_they_go() {
    let fake = Fake::start();
    *fake.state.removal.lock().unwrap() = v1::DeletePointsResponse {
        devices_matched: 40,
        devices: 3,
        records: 1_200,
        rollup_windows: 0,
    };
    let command = [
        "device",
        "delete-points",
        "--type",
        "tank",
        "--from",
        "2025-01-01",
        "--to",
        "2025-02-01",
    ];
    let with = |more: &[&str]| run(&fake, &[&command[..], more].concat());
    let dry_runs = || {
        let asked = std::mem::take(&mut *fake.state.deletes.lock().unwrap());
        asked.iter().map(|request| request.dry_run).collect::<Vec<_>>()
    };

    let (out, err, code) = with(&["--dry-run"]);
    assert_eq!((code, err.as_str(), dry_runs()), (0, "", vec![true]));
    insta::assert_snapshot!("delete_points_dry_run", out);

    let (_, err, code) = with(&[]);
    assert_eq!((code, dry_runs()), (6, vec![true]), "{err}");
    let warning = "warning: 1200 records of 3 devices would be gone for good";
    assert!(err.contains(warning) && err.contains("--confirm 9f86d081"), "{err}");
    let (_, err, code) = with(&["--confirm", "00000000"]);
    assert_eq!((code, dry_runs()), (6, vec![true]), "{err}");

    let (out, err, code) = with(&["-o", "json", "--confirm", "9f86d081"]);
    assert_eq!((code, dry_runs()), (0, vec![true, false]), "{err}");
    let deleted = &json(&out)["deleted"][0];
    assert_eq!(
        (deleted["records"].as_u64(), deleted["devices"].as_u64()),
        (Some(1_200), Some(3))
    );

    // Of points that are gone already, windows go whole.
    fake.state.removal.lock().unwrap().rollup_windows = 7;
    let (_, err, code) = with(&[]);
    assert_eq!((code, dry_runs()), (6, vec![true]), "{err}");
    assert!(
        err.contains("1200 records and 7 whole windows of rollups (their points are gone already) of 3 devices"),
        "{err}"
    );

    *fake.state.removal.lock().unwrap() = v1::DeletePointsResponse::default();
    let (out, err, code) = with(&["-o", "json"]);
    assert_eq!(
        (code, err.as_str(), dry_runs()),
        (0, "", vec![true]),
        "nothing to ask about"
    );
    assert_eq!(json(&out)["deleted"][0]["records"].as_u64(), Some(0), "{out}");
}

#[test]
fn a_type_that_keeps_points_for_a_shorter_time_has_to_be_confirmed() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("types.toml");
    let apply = |days: i64, more: &[&str]| {
        let text = format!(
            "[[device_type]]\nid = \"tank\"\nretention_days = {days}\n\
             properties = [{{ id = \"level\", value_type = \"f64\", kind = \"gauge\" }}]\n"
        );
        std::fs::write(&file, text).unwrap();
        run(&fake, &[&["type", "apply", file.to_str().unwrap()], more].concat())
    };
    let kept = || fake.state.types.lock().unwrap()[0].retention_days;

    for days in [365, 400] {
        let (_, err, code) = apply(days, &[]);
        assert_eq!((code, err.as_str(), kept()), (0, "", days));
    }
    let (_, err, code) = apply(30, &[]);
    assert_eq!((code, kept()), (6, 400), "{err}");
    let warning = "warning: what is older would be gone for good: points of tank are kept 400 days, now 30 days";
    assert!(err.contains(warning) && err.contains("--confirm 9f86d081"), "{err}");
    let (_, err, code) = apply(30, &["--confirm", "00000000"]);
    assert_eq!((code, kept()), (6, 400), "{err}");
    let (_, err, code) = apply(30, &["--confirm", "9f86d081"]);
    assert_eq!((code, kept()), (0, 30), "{err}");
}

#[test]
fn each_verb_asks_for_its_own_goal() {
    let fake = Fake::start();
    plan(&fake, &[]);
    for (arguments, goal) in [
        (&["node", "drain", "3"][..], "DrainNode(DrainNode { node_id: 3 })"),
        (&["node", "remove", "3"], "RemoveNode(RemoveNode { node_id: 3 })"),
        (&["rebalance"], "Rebalance(Rebalance { max_moves: 0 })"),
        (
            &["rebalance", "--max-moves", "4"],
            "Rebalance(Rebalance { max_moves: 4 })",
        ),
        (
            &["shard", "move", "2", "--from", "3", "--to", "4"],
            "MoveShard(MoveShard { shard: 2, from_node: 3, to_node: 4 })",
        ),
    ] {
        let (_, err, code) = run(&fake, &[arguments, &["--dry-run"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {err}");
        assert_eq!(fake.calls().last().unwrap(), &format!("plan_job {goal}"));
    }
}

#[test]
fn an_even_cluster_is_not_rebalanced() {
    let fake = Fake::start();
    let (out, err, code) = run(&fake, &["rebalance"]);
    assert_eq!((code, err.as_str()), (0, "nothing to do\n"), "{out}");
    assert!(fake.state.started.lock().unwrap().is_empty());
}

#[test]
fn a_job_that_does_not_reach_its_goal_fails_the_command() {
    for (state, exit, word) in [
        (JobState::Failed, 1, "failed"),
        (JobState::Cancelled, 1, "was cancelled"),
    ] {
        let fake = Fake::start();
        plan(&fake, &[]);
        let mut ended = drain(state, [MovePhase::Done, MovePhase::Cancelled]);
        ended.message = "node 4 is full".into();
        looks(&fake, [drain(JobState::Running, [MovePhase::Copying; 2]), ended]);
        let (_, err, code) = run(&fake, &["node", "drain", "3"]);
        assert_eq!(code, exit);
        assert!(
            err.ends_with(&format!(
                "error: job 7 (drain node 3) {word}\n  why: node 4 is full\n  next: tidemark job show 7\n"
            )),
            "{err}"
        );
    }
}

#[test]
fn waiting_ends_and_the_job_goes_on() {
    let fake = Fake::start();
    looks(&fake, [drain(JobState::Running, [MovePhase::Copying; 2])]);
    let (_, err, code) = run(&fake, &["job", "watch", "7", "--wait-timeout", "300ms"]);
    assert_eq!(code, 124, "{err}");
    assert!(
        err.contains("it goes on") && err.contains("next: tidemark job watch 7"),
        "{err}"
    );
}

#[test]
fn ctrl_c_detaches_and_says_how_to_come_back() {
    let fake = Fake::start();
    looks(&fake, [drain(JobState::Running, [MovePhase::Copying; 2])]);
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("tidemark"))
        .args(["-e", &fake.address, "job", "watch", "7"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "job 7: running");
    assert!(lines.next().unwrap().unwrap().ends_with("copying"), "it follows by now");
    let pid = child.id().to_string();
    std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .unwrap();
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(rest.contains(&"error: detached: job 7 goes on".to_owned()), "{rest:?}");
    assert!(rest.contains(&"  next: tidemark job watch 7".to_owned()), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(fake.calls().is_empty(), "the job was left alone");
}

#[test]
fn jobs_are_found_and_cancelled() {
    let fake = Fake::start();
    looks(
        &fake,
        [
            drain(JobState::Running, [MovePhase::Copying; 2]),
            drain(JobState::Running, [MovePhase::Copying; 2]),
            drain(JobState::Cancelling, [MovePhase::Copying; 2]),
            drain(JobState::Cancelled, [MovePhase::Cancelled; 2]),
        ],
    );
    let (out, _, code) = run(&fake, &["-o", "csv", "job", "list"]);
    assert_eq!(
        (code, out.lines().nth(1)),
        (0, Some("7,drain node 3,running,2,0,2025-10-09T08:53:20Z,,,"))
    );
    let (out, _, code) = run(&fake, &["job", "show", "7"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!("job_show", out);
    let (_, err, code) = run(&fake, &["job", "cancel", "7"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.ends_with("job 7 cancelled: drain node 3, 2 moves\n"), "{err}");
    let (_, err, code) = run(&fake, &["job", "show", "8"]);
    assert_eq!(code, 4, "{err}");
}

fn trouble(status: &mut v1::StatusResponse) {
    status.healthy = false;
    status.problems = vec!["node 3 at 10.0.0.3:7778 does not answer".into()];
    status.nodes[2].reachable = false;
    status.nodes[2].facts = None;
    for shard in &mut status.shards {
        shard.replicas[2] = v1::ReplicaStatus {
            lag_ms: -1,
            ..replica(3, ReplicaState::Unreachable)
        };
    }
    status.shards[2].leader_node = 0;
    status.job = Some(drain(JobState::Running, [MovePhase::Done, MovePhase::Copying]));
    status.next_steps = vec![v1::NextStep {
        command: "tidemark node replace 3 NEW".into(),
        reason: "node 3 has not answered for 10 minutes".into(),
    }];
}

#[test]
fn the_status_fits_on_one_screen() {
    let fake = Fake::start();
    // How long a node is up depends on today.
    let up = |status: &mut v1::StatusResponse| {
        let facts = status.nodes.iter_mut().filter_map(|node| node.facts.as_mut());
        facts.for_each(|facts| facts.started_at_ns = i64::MAX);
    };
    fake.change(up);
    let (out, err, code) = run(&fake, &["cluster", "status", "--check"]);
    assert_eq!((err.as_str(), code), ("", 0));
    insta::assert_snapshot!("status_healthy", out);
    fake.change(trouble);
    let (out, err, code) = run(&fake, &["cluster", "status", "--check"]);
    assert_eq!(code, 8);
    insta::assert_snapshot!("status_trouble", out);
    assert!(err.contains("next: tidemark node replace 3 NEW"), "{err}");
    let (out, _, code) = run(&fake, &["cluster", "status", "--all"]);
    assert_eq!(code, 0);
    assert!(out.contains("node 1 leader, node 2 follower"), "{out}");
}

#[test]
fn scripts_read_the_whole_status() {
    let fake = Fake::start();
    fake.change(trouble);
    let (out, _, code) = run(&fake, &["-o", "json", "cluster", "status", "--check"]);
    assert_eq!(code, 8);
    let status = json(&out);
    assert_eq!(status["cluster_id"], CLUSTER);
    assert_eq!(status["healthy"], false);
    assert_eq!(status["nodes"][0]["client_address"], "10.0.0.1:7777");
    assert_eq!(status["nodes"][2]["disk_free_bytes"], serde_json::Value::Null);
    let states: Vec<_> = status["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["state"].clone())
        .collect();
    assert_eq!(states, ["under_replicated", "under_replicated", "no_leader"]);
    assert_eq!(status["replicas"].as_array().unwrap().len(), 9);
    assert_eq!(status["jobs"][0]["goal"], "drain node 3");
    assert_eq!(status["moves"][1]["phase"], "copying");
    assert_eq!(status["next_steps"][0]["command"], "tidemark node replace 3 NEW");
}

#[test]
fn nodes_are_added_listed_and_cordoned() {
    let fake = Fake::start();
    let (out, err, code) = run(&fake, &["node", "add", "10.0.0.4:7778"]);
    assert_eq!(
        (code, fake.calls().last().unwrap().as_str()),
        (0, "add_node 10.0.0.4:7778"),
        "{err}"
    );
    assert!(
        out.contains("10.0.0.4:7777") && err.contains("tidemark rebalance"),
        "{out}{err}"
    );
    let (out, _, _) = run(&fake, &["-o", "json", "node", "cordon", "2"]);
    assert_eq!(json(&out)["nodes"][0]["state"], "cordoned");
    run(&fake, &["node", "uncordon", "2"]);
    assert_eq!(
        fake.calls()[1..],
        ["set_node_state 2 Cordoned", "set_node_state 2 Active"]
    );
    let (out, _, code) = run(&fake, &["-o", "json", "node", "list"]);
    assert_eq!((code, json(&out)["nodes"][1]["zone"].as_str()), (0, Some("z2")));
    let (out, _, code) = run(&fake, &["-o", "json", "node", "show", "2"]);
    let node = json(&out);
    assert_eq!(
        (code, node["id"].as_u64(), node["replicas"].as_array().unwrap().len()),
        (0, Some(2), 3)
    );
    let (out, err, code) = run(&fake, &["node", "show", "9"]);
    assert_eq!((out.as_str(), code), ("", 4));
    assert!(err.contains("next: tidemark node list"), "{err}");
}

#[test]
fn shards_are_listed_led_and_compared() {
    let fake = Fake::start();
    let (out, _, _) = run(&fake, &["-o", "json", "shard", "list", "--unhealthy"]);
    assert_eq!(json(&out)["shards"], serde_json::json!([]));
    fake.change(trouble);
    let (out, _, _) = run(&fake, &["-o", "json", "shard", "list", "--unhealthy", "--node", "3"]);
    assert_eq!(json(&out)["shards"].as_array().unwrap().len(), 3);
    let (out, _, code) = run(&fake, &["-o", "json", "shard", "show", "2"]);
    assert_eq!(
        (code, json(&out)["replicas"][2]["state"].as_str()),
        (0, Some("unreachable"))
    );
    let (out, _, code) = run(&fake, &["-o", "json", "shard", "leader", "2", "--to", "1"]);
    assert_eq!((code, json(&out)["pause_ms"].as_i64()), (0, Some(12)));

    let check = |shard: u32, digests: [u64; 3]| v1::CheckShardResponse {
        shard,
        index: 118,
        replicas: (1..)
            .zip(digests)
            .map(|(node_id, digest)| v1::ReplicaDigest {
                replica_id: node_id + 10,
                node_id,
                digest,
                problem: String::new(),
            })
            .collect(),
        equal: digests.iter().all(|digest| *digest == digests[0]),
    };
    let set = |answer: v1::CheckShardResponse| fake.state.checks.lock().unwrap().insert(answer.shard, answer);
    set(check(1, [7, 7, 8]));
    set(check(3, [5; 3]));
    assert_eq!(run(&fake, &["shard", "check", "3"]).2, 0);
    let (out, err, code) = run(&fake, &["shard", "check", "--all"]);
    assert_eq!(code, 8);
    insta::assert_snapshot!("shard_check", out);
    assert!(err.contains("shard 1; not checked: shard 2"), "{err}");
    assert_eq!(run(&fake, &["shard", "check", "2"]).2, 4);
    assert_eq!(run(&fake, &["shard", "check"]).2, 2);
    assert_eq!(run(&fake, &["shard", "check", "1", "--all"]).2, 2);
}

#[test]
fn what_compaction_gained_is_shown_by_replica() {
    let fake = Fake::start();
    let replica = |node_id, problem: &str| v1::ReplicaCompaction {
        replica_id: node_id + 10,
        node_id,
        bytes_before: 4_000,
        bytes_after: 3_000,
        problem: problem.into(),
    };
    let set = |shard, replicas| {
        let answer = v1::CompactShardResponse { shard, replicas };
        fake.state.compactions.lock().unwrap().insert(shard, answer)
    };
    set(1, vec![replica(1, ""), replica(2, "")]);
    set(2, vec![replica(1, ""), replica(3, "node 3 did not answer")]);
    let (out, _, code) = run(&fake, &["shard", "compact", "1"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!("shard_compact", out);
    let (out, err, code) = run(&fake, &["-o", "json", "shard", "compact", "2"]);
    assert_eq!(json(&out)["replicas"][0]["bytes_after"].as_u64(), Some(3_000));
    assert_eq!(code, 8);
    assert!(err.contains("shard 2 on node 3"), "{err}");
    assert_eq!(run(&fake, &["shard", "compact", "9"]).2, 4);
}

#[test]
fn one_frame_of_top_is_text() {
    let fake = Fake::start();
    let mut later = fake::status();
    for node in &mut later.nodes {
        node.facts.as_mut().unwrap().points_written = 1_000_000;
    }
    fake.state.status.lock().unwrap().push_back(later);
    let (out, err, code) = run(&fake, &["top", "--once", "--every", "200ms"]);
    assert_eq!((err.as_str(), code), ("", 0));
    assert!(
        out.starts_with("tidemark  healthy") && out.contains("3 ok, 0 moving"),
        "{out}"
    );
    let node = out.lines().find(|line| line.starts_with("1    z1")).unwrap();
    assert!(node.contains("M ") || node.contains('k'), "{node}");
    // A live view needs a terminal.
    assert_eq!(run(&fake, &["top"]).2, 2);
    for form in ["json", "jsonl", "csv"] {
        let (out, err, code) = run(&fake, &["-o", form, "top", "--once", "--every", "200ms"]);
        assert_eq!((out.as_str(), code), ("", 2), "{form}: {err}");
    }
}

#[test]
fn the_doctor_judges_and_bundles() {
    let fake = Fake::start();
    looks(&fake, [drain(JobState::Done, [MovePhase::Done; 2])]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.tar.zst");
    let path = path.to_str().unwrap();
    let (out, err, code) = run(&fake, &["doctor", "--bundle", path]);
    assert_eq!(code, 0, "{err}");
    insta::assert_snapshot!("doctor", out);
    assert!(
        err.contains("README.txt, status.json, jobs.json, doctor.json, versions.json"),
        "{err}"
    );
    let file = std::fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        if name.ends_with(".json") {
            json(&text);
        }
        names.push(name);
    }
    let expected = ["README.txt", "status.json", "jobs.json", "doctor.json", "versions.json"];
    assert_eq!(names, expected.map(|name| format!("tidemark-doctor/{name}")));
    // A report that is there is not overwritten.
    assert_eq!(run(&fake, &["doctor", "--bundle", path]).2, 1);

    fake.change(trouble);
    let (out, err, code) = run(&fake, &["-o", "json", "doctor"]);
    assert_eq!(code, 8);
    let failed = json(&out)["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["verdict"] == "fail")
        .count();
    assert_eq!(failed, 3, "{out}");
    assert!(err.contains("\"exit\":8"), "{err}");
}
