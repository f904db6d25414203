//! What real processes keep through `kill -9`, SIGTERM and damaged files: everything acknowledged, once. Never here:
//! what one process can test in itself.
//!
//! Figures (the longest silence a writer hears) are printed; `cargo nextest run --test cluster crash --no-capture` shows them.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use crate::process::import::{Import, any, held, linearizable, try_held};
use crate::process::{Daemon, Fleet, PATIENCE, flip, seeded, tidemarkd, until};
use rand::RngExt as _;
use tidemark_client::v1;

/// The aim is 5 s on an idle machine; tests share theirs.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(30);
const BLOWS: usize = 10;

/// Waits until all nodes hold the same rows, and gives their number.
async fn agree(fleet: &Fleet, import: &Import) -> usize {
    let rows = until("all replicas are equal", 2 * PATIENCE, async || {
        let first = held(&fleet.nodes[0], any()).await;
        for node in &fleet.nodes[1..] {
            if held(node, any()).await != first {
                return None;
            }
        }
        Some(first)
    })
    .await;
    import.check(&rows);
    rows.len()
}

/// Waits until a node has logged everything that the leaders have logged by now.
async fn in_step(fleet: &Fleet, position: usize) {
    let leaders = fleet.healthy().await;
    let last = |shard: &v1::ShardStatus| shard.replicas.iter().map(|replica| replica.last_log_index).max();
    until("the node is in step", PATIENCE, async || {
        let now = fleet.healthy().await;
        let here = |replica: &&v1::ReplicaStatus| fleet.position(replica.node_id, &now) == position;
        let mine = |shard: &v1::ShardStatus| shard.replicas.iter().find(here).map(|replica| replica.last_log_index);
        let all = leaders
            .shards
            .iter()
            .zip(&now.shards)
            .all(|(then, now)| mine(now) >= last(then));
        all.then_some(())
    })
    .await;
}

fn damaged(status: &v1::StatusResponse) -> Vec<(u32, u64)> {
    let state = i32::from(v1::ReplicaState::Damaged);
    let replicas = status
        .shards
        .iter()
        .flat_map(|shard| shard.replicas.iter().map(move |replica| (shard.shard, replica)));
    replicas
        .filter(|(_, replica)| replica.state == state)
        .map(|(shard, replica)| (shard, replica.node_id))
        .collect()
}

#[tokio::test]
async fn one_node_killed_again_and_again_keeps_what_it_acknowledged() {
    let mut random = seeded();
    let mut fleet = Fleet::cluster(1).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    for round in 0..6 {
        import.resume(&client);
        import.progress(random.random_range(1..150)).await;
        // Now and then the importer dies too, and another one goes on with what it wrote down.
        let importer_dies = random.random_bool(0.5);
        if importer_dies {
            import.kill().await;
        }
        if round == 3 {
            fleet.nodes[0].terminate();
            assert!(fleet.nodes[0].ended(STOP_MAX).await.success());
        } else {
            fleet.nodes[0].kill();
        }
        let began = Instant::now();
        fleet.start();
        let rows = held(&fleet.nodes[0], linearizable()).await;
        println!(
            "round {round}: {} rows, answers {:.1?} after the start",
            rows.len(),
            began.elapsed()
        );
        if importer_dies {
            import.check(&rows);
            import.resume(&client);
        }
        import.finish().await;
        import.check_whole(&fleet.nodes[0]).await;
    }
    println!(
        "one node: {} batches, {} rows",
        import.acknowledged(),
        import.check_whole(&fleet.nodes[0]).await
    );
}

#[tokio::test]
async fn a_killed_leader_costs_a_moment_and_comes_back() {
    let mut random = seeded();
    let mut fleet = Fleet::cluster(3).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    for round in 0..2 {
        import.progress(random.random_range(20..100)).await;
        let victim = fleet.busiest().await;
        import.longest_silence();
        import.progress(2).await;
        fleet.nodes[victim].kill();
        import.progress(100).await;
        let silence = import.longest_silence();
        println!("leader killed, round {round}: longest silence {silence:.2?}");
        assert!(silence < SILENCE_MAX, "{silence:?}");
        let began = Instant::now();
        fleet.start();
        fleet.healthy().await;
        println!(
            "back after {:.1?}, silence meanwhile {:.2?}",
            began.elapsed(),
            import.longest_silence()
        );
    }
    import.finish().await;
    let rows = agree(&fleet, &import).await;
    for node in &fleet.nodes {
        assert_eq!(import.check_whole(node).await, rows);
    }
    println!("three nodes: {} batches, {rows} rows on each", import.acknowledged());
}

#[tokio::test]
async fn three_nodes_killed_at_once_keep_what_they_acknowledged() {
    let mut random = seeded();
    let mut fleet = Fleet::cluster(3).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    for round in 0..3 {
        import.resume(&client);
        import.progress(random.random_range(1..100)).await;
        let importer_dies = random.random_bool(0.5);
        if importer_dies {
            import.kill().await;
        }
        for node in &mut fleet.nodes {
            node.kill();
        }
        let began = Instant::now();
        fleet.start();
        let rows = held(&fleet.nodes[round], linearizable()).await;
        println!(
            "round {round}: {} rows, answers {:.1?} after the start",
            rows.len(),
            began.elapsed()
        );
        if importer_dies {
            import.check(&rows);
            import.resume(&client);
        }
        import.finish().await;
    }
    let rows = agree(&fleet, &import).await;
    assert_eq!(import.check_whole(&fleet.nodes[0]).await, rows);
    println!("all killed: {} batches, {rows} rows", import.acknowledged());
}

#[tokio::test]
async fn sigterm_stops_cleanly_and_hands_over() {
    let mut fleet = Fleet::cluster(3).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    for round in 0..3 {
        import.progress(30).await;
        let leader = fleet.busiest().await;
        import.longest_silence();
        import.progress(2).await;
        let began = Instant::now();
        fleet.nodes[leader].terminate();
        let status = fleet.nodes[leader].ended(STOP_MAX).await;
        println!("round {round}: stopped in {:.2?}, {status}", began.elapsed());
        assert!(status.success());
        import.progress(50).await;
        let silence = import.longest_silence();
        println!("round {round}: leader stopped: longest silence {silence:.2?}");
        assert!(silence < SILENCE_MAX, "{silence:?}");
        fleet.start();
        fleet.healthy().await;
    }
    import.finish().await;
    let rows = agree(&fleet, &import).await;
    assert_eq!(import.check_whole(&fleet.nodes[0]).await, rows);
}

#[tokio::test]
async fn blows_at_any_time_lose_nothing() {
    let mut random = seeded();
    let mut fleet = Fleet::cluster(3).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    for step in 0..BLOWS {
        let victim = random.random_range(0..3);
        match random.random_range(0..10) {
            0 => fleet.nodes.iter_mut().for_each(Daemon::kill),
            1 | 2 => {
                fleet.nodes[victim].terminate();
                let status = fleet.nodes[victim].ended(STOP_MAX).await;
                // In its first milliseconds a process does not listen to signals yet.
                assert!(status.success() || status.signal() == Some(15), "step {step}: {status}");
            }
            3 | 4 => {
                fleet.nodes[victim].kill();
                import.progress(random.random_range(1..100)).await;
            }
            _ => fleet.nodes[victim].kill(),
        }
        fleet.start();
        // The next blow may fall on a node that is still starting, or catching up.
        let pause = Duration::from_millis(random.random_range(0..700));
        let _too_short = tokio::time::timeout(pause, import.progress(usize::MAX >> 1)).await;
    }
    println!("{BLOWS} blows: longest silence {:.2?}", import.longest_silence());
    import.finish().await;
    let status = fleet.healthy().await;
    assert_eq!(damaged(&status), []);
    let rows = agree(&fleet, &import).await;
    for node in &fleet.nodes {
        assert_eq!(import.check_whole(node).await, rows);
    }
    println!("{} batches, {rows} rows on each", import.acknowledged());
}

#[tokio::test]
async fn a_flipped_byte_is_never_a_shorter_history() {
    let mut fleet = Fleet::cluster(1).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    import.progress(100).await;
    import.finish().await;
    fleet.nodes[0].kill();
    let newest = fleet.nodes[0].wal_files().pop().unwrap();
    let bytes = fs::metadata(&newest).unwrap().len();
    for part in [2, 3, 5] {
        flip(&newest, bytes / part);
        let said = fleet.nodes[0].refuses_to_start().await;
        assert!(
            said.contains("raft log") && said.contains("Corruption") && said.contains("node-1"),
            "{said}"
        );
        // Refusing changes nothing: with the byte as it was, everything is there.
        flip(&newest, bytes / part);
    }
    fleet.start();
    import.check_whole(&fleet.nodes[0]).await;
}

#[tokio::test]
async fn a_node_with_a_flipped_byte_stays_out_and_the_others_go_on() {
    let mut random = seeded();
    let mut fleet = Fleet::cluster(3).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    import.progress(60).await;
    fleet.nodes[2].kill();
    let newest = fleet.nodes[2].wal_files().pop().unwrap();
    let bytes = fs::metadata(&newest).unwrap().len();
    flip(&newest, random.random_range(bytes / 4..bytes * 3 / 4));
    let said = fleet.nodes[2].refuses_to_start().await;
    assert!(said.contains("raft log"), "{said}");
    import.progress(60).await;
    import.finish().await;
    for node in &fleet.nodes[..2] {
        import.check_whole(node).await;
    }
}

#[tokio::test]
async fn what_is_damaged_in_a_table_is_answered_by_another_replica() {
    let fleet = Fleet::cluster(3).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    import.progress(60).await;
    import.finish().await;
    let before = fleet.healthy().await;
    for shard in before.shards.iter().filter(|shard| shard.shard != 0) {
        client.compact_shard(shard.shard).await.unwrap();
    }
    let victim = fleet.busiest().await;
    let tables = fleet.nodes[victim].tables();
    assert!(!tables.is_empty());
    tables.iter().for_each(|table| flip(table, 16));
    // Whoever is asked answers as if nothing had happened, the victim too.
    for node in &fleet.nodes {
        let rows = try_held(node, linearizable()).await.unwrap();
        import.check(&rows);
        import.check_whole(node).await;
        import.check(&try_held(node, any()).await.unwrap());
    }
    let status = client.status().await.unwrap();
    let id = before.nodes.iter().find(|node| {
        let id = node.node.as_ref().unwrap().id;
        fleet.position(id, &before) == victim
    });
    let id = id.unwrap().node.as_ref().unwrap().id;
    let found = damaged(&status);
    assert!(
        !found.is_empty() && found.iter().all(|(_, node)| *node == id),
        "{found:?}"
    );
    let leads = |(shard, _): &(u32, u64)| status.shards.iter().any(|s| s.shard == *shard && s.leader_node == id);
    assert!(!found.iter().any(leads), "{status:?}");
    assert!(!status.healthy && status.problems.iter().any(|problem| problem.contains("damaged")));
}

#[tokio::test]
async fn replicas_whose_log_was_cut_off_do_not_vote() {
    let mut fleet = Fleet::cluster(3).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    import.progress(20).await;
    // Started again, the node follows everywhere, and what it logs from now on lies in a new file.
    fleet.nodes[2].kill();
    import.progress(20).await;
    fleet.start();
    in_step(&fleet, 2).await;
    import.progress(40).await;
    in_step(&fleet, 2).await;
    fleet.nodes[2].kill();
    fs::remove_file(fleet.nodes[2].wal_files().pop().unwrap()).unwrap();
    fleet.start();
    // Its catalog logged nothing but votes since, so the node runs, unless there was an election just then.
    let status = until("the damage is reported", PATIENCE, async || {
        let status = client.status().await.ok()?;
        (damaged(&status).len() == 6 || !fleet.nodes[2].is_running()).then_some(status)
    })
    .await;
    println!("damaged: {:?}, runs: {}", damaged(&status), fleet.nodes[2].is_running());
    if fleet.nodes[2].is_running() {
        let on_one_node: Vec<u64> = damaged(&status).into_iter().map(|(_, node)| node).collect();
        assert!(
            on_one_node.iter().all(|node| *node == on_one_node[0]),
            "{on_one_node:?}"
        );
        assert!(
            status.problems.iter().any(|problem| problem.contains("damaged")),
            "{:?}",
            status.problems
        );
    } else {
        let logged = fleet.nodes[2].logged();
        assert!(
            logged
                .lines()
                .last()
                .unwrap()
                .contains("raft log of group 0 is damaged"),
            "no clear last line"
        );
    }
    import.progress(40).await;
    import.finish().await;
    for node in &mut fleet.nodes {
        // Also the damaged one: it asks the others.
        if node.is_running() {
            import.check_whole(node).await;
        }
    }
}

#[tokio::test]
async fn a_node_without_its_log_or_marker_does_not_start() {
    let mut fleet = Fleet::cluster(1).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    import.progress(20).await;
    import.finish().await;
    fleet.nodes[0].kill();
    let aside = fleet.path().join("aside");
    for lost in ["log", "log/log.marker", "log/log"] {
        let path = fleet.nodes[0].data.join(lost);
        fs::rename(&path, &aside).unwrap();
        let said = fleet.nodes[0].refuses_to_start().await;
        assert!(said.contains("log"), "{said}");
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
    }
    fleet.start();
    import.check_whole(&fleet.nodes[0]).await;
    // The vote of this start and everything behind it.
    fleet.nodes[0].kill();
    fs::remove_file(fleet.nodes[0].wal_files().pop().unwrap()).unwrap();
    let said = fleet.nodes[0].refuses_to_start().await;
    assert!(said.contains("raft log of group 0 is damaged"), "{said}");
}

#[tokio::test]
async fn a_log_that_was_swapped_with_another_nodes_does_not_vote() {
    let mut fleet = Fleet::cluster(3).await;
    let client = fleet.client().await;
    let mut import = Import::prepare(&client).await;
    import.resume(&client);
    import.progress(20).await;
    import.finish().await;
    for node in &mut fleet.nodes[..2] {
        node.kill();
    }
    let swap = |fleet: &Fleet| {
        let [one, two] = [0, 1].map(|position| fleet.nodes[position].data.join("log"));
        let aside = fleet.path().join("aside");
        for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
            fs::rename(from, to).unwrap();
        }
    };
    swap(&fleet);
    for (position, holds, is) in [(0, 2, 1), (1, 1, 2)] {
        let said = fleet.nodes[position].refuses_to_start().await;
        let holds = format!("holds the votes of node {holds} of cluster");
        assert!(
            said.contains(&holds) && said.contains(&format!("this is node {is}")),
            "{said}"
        );
    }
    // A folder that lost its identity does not become a new node over old votes.
    swap(&fleet);
    let identity = fleet.nodes[0].data.join("identity.toml");
    let text = fs::read_to_string(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    let said = fleet.nodes[0].refuses_to_start().await;
    assert!(said.contains("a folder without an identity"), "{said}");
    fs::write(&identity, text).unwrap();
    fleet.start();
    fleet.healthy().await;
    import.check_whole(&fleet.nodes[0]).await;
}

#[tokio::test]
async fn init_cut_off_goes_on_with_the_same_cluster() {
    let mut random = seeded();
    for count in [1, 1, 1, 3, 3, 3] {
        let mut fleet = Fleet::new(count);
        fleet.start();
        for node in &fleet.nodes {
            node.client().await;
        }
        let wait = Duration::from_millis(random.random_range(0..if count == 1 { 150 } else { 500 }));
        let cut_off = tokio::time::timeout(wait, fleet.init()).await;
        fleet.nodes[0].kill();
        let identity = fs::read_to_string(fleet.nodes[0].data.join("identity.toml")).unwrap_or_default();
        println!(
            "{count} nodes, killed {wait:.0?} after init, answered {}: {identity:?}",
            cut_off.is_ok()
        );
        fleet.start();
        match fleet.init().await {
            Ok(made) => assert!(
                identity.is_empty() || identity.contains(&made.cluster_id),
                "{}",
                made.cluster_id
            ),
            // It was all done but for the answer.
            Err(error) => assert_eq!(error.reason, "ALREADY_INITIALISED", "{error}"),
        }
        let status = fleet.healthy().await;
        assert!(
            identity.is_empty() || identity.contains(&status.cluster_id),
            "{}",
            status.cluster_id
        );
        let client = fleet.client().await;
        let mut import = Import::prepare(&client).await;
        import.resume(&client);
        import.progress(3).await;
        import.finish().await;
        import.check_whole(&fleet.nodes[0]).await;
    }
}

#[tokio::test]
async fn a_folder_belongs_to_one_process() {
    let mut fleet = Fleet::new(2);
    fleet.nodes[1].data = fleet.nodes[0].data.clone();
    fleet.nodes[0].start();
    fleet.nodes[0].client().await;
    let said = fleet.nodes[1].refuses_to_start().await;
    assert!(
        said.contains("another process uses") && said.contains("node-1"),
        "{said}"
    );
    assert!(fleet.nodes[0].is_running());
}

#[tokio::test]
async fn an_identity_of_a_newer_format_is_refused() {
    let mut fleet = Fleet::cluster(1).await;
    fleet.nodes[0].kill();
    let file = fleet.nodes[0].data.join("identity.toml");
    let text = fs::read_to_string(&file).unwrap();
    let newer = text.replace("format = 1", "format = 2");
    for text in [newer.clone(), format!("added = true\n{newer}")] {
        fs::write(&file, text).unwrap();
        let said = fleet.nodes[0].refuses_to_start().await;
        assert!(
            said.contains("identity.toml has format 2, this version knows 1"),
            "{said}"
        );
    }
    fs::write(&file, "format = 1\ncluster").unwrap();
    let said = fleet.nodes[0].refuses_to_start().await;
    assert!(said.contains("identity.toml"), "{said}");
}

#[tokio::test]
async fn addresses_and_flags_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    for (flags, code, says) in [
        (&["--listen", "0.0.0.0:0"][..], 2, "--insecure"),
        (
            &["--listen", "127.0.0.1:0", "--peer-listen", "0.0.0.0:0"],
            2,
            "--insecure",
        ),
        (&["--insecure", "--listen", "0.0.0.0:0"], 2, "--advertise"),
        (&["--listen", "127.0.0.1:no"], 2, "127.0.0.1:no"),
        (&["--log", "a=b=c"], 2, "--log"),
        (&["--listn", "127.0.0.1:0"], 2, "'--listen'"),
        (&["--cache-mib", "many"], 2, "many"),
        (&["no-such-command"], 2, "no-such-command"),
    ] {
        let output = tidemarkd().arg("--data-dir").arg(&data).args(flags).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(says), "{flags:?}: {said}");
    }
    assert!(!data.exists(), "a refused start left something behind");
}
