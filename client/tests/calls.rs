//! Retries, deadlines, leaders: single calls against a scripted server. Never here: write streams.
#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "tests")]

mod fake;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use fake::{Fake, Step, dead_address, device_in, map, options, tidemark_error, write};
use tidemark_client::{Client, Code, ErrorKind, v1};
use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

fn no_leader() -> Status {
    tidemark_error(Code::Unavailable, "NO_LEADER", &[], None)
}

#[tokio::test]
async fn a_numbered_write_is_repeated_with_the_same_number() {
    let fake = Fake::start();
    fake.state
        .script([Step::Status(no_leader()), Step::Status(no_leader()), Step::Store]);
    let stored = fake.client().await.write(write("d1", "p", 7)).await.unwrap();
    assert_eq!(stored.rows, 1);
    let writes = fake.state.writes.lock().unwrap();
    assert_eq!(writes.len(), 3);
    assert!(writes.iter().all(|sent| *sent == write("d1", "p", 7)));
    assert_eq!(
        fake.state.deadlines.lock().unwrap().len(),
        3,
        "every try carries a deadline"
    );
}

#[tokio::test]
async fn a_write_without_number_is_not_repeated_unless_nothing_was_stored() {
    let fake = Fake::start();
    let client = fake.client().await;
    let unknown = || Step::Status(tidemark_error(Code::Unavailable, "OUTCOME_UNKNOWN", &[], None));
    fake.state.script([unknown()]);
    let error = client.write(write("d1", "", 0)).await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason.as_str()),
        (ErrorKind::Retry, "OUTCOME_UNKNOWN")
    );
    assert!(error.hint.is_some(), "says that it may have been done");
    assert_eq!(fake.state.writes.lock().unwrap().len(), 1);

    // One shard that has no leader has stored nothing; of two shards, the other may have.
    fake.state.script([Step::Status(no_leader())]);
    client.write(write("d1", "", 0)).await.unwrap();
    assert_eq!(fake.state.writes.lock().unwrap().len(), 3);
    let mut wide = write("d1", "", 0);
    wide.batch.as_mut().unwrap().devices.push("d2".to_owned());
    fake.state.script([Step::Status(no_leader())]);
    assert_eq!(client.write(wide.clone()).await.unwrap_err().reason, "NO_LEADER");
    assert_eq!(fake.state.writes.lock().unwrap().len(), 4);

    let nothing = tidemark_error(Code::Unavailable, "STOPPING", &[("stored", "nothing")], None);
    fake.state.script([Step::Status(nothing)]);
    client.write(wide).await.unwrap();
    assert_eq!(fake.state.writes.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn an_endpoint_outside_the_cluster_does_not_spoil_the_others() {
    let (outside, inside) = (Fake::start(), Fake::start());
    *inside.state.map.lock().unwrap() = map(&[None]);
    let refusal = || Step::Status(tidemark_error(Code::FailedPrecondition, "NOT_INITIALISED", &[], None));
    outside.state.script((0..100).map(|_| refusal()));
    assert_eq!(
        outside
            .client()
            .await
            .write(write("d1", "p", 1))
            .await
            .unwrap_err()
            .reason,
        "NOT_INITIALISED"
    );
    *outside.state.map.lock().unwrap() = map(&[None]);
    let client = Client::connect([outside.address.clone(), inside.address.clone()])
        .await
        .unwrap();
    for sequence in 1..=4 {
        client.write(write("d1", "p", sequence)).await.unwrap();
    }
    assert_eq!(inside.state.sequences(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn the_status_of_a_cluster_comes_from_a_node_of_it() {
    let (outside, inside) = (Fake::start(), Fake::start());
    *outside.state.outside.lock().unwrap() = true;
    *inside.state.map.lock().unwrap() = map(&[None]);
    let alone = outside.client().await;
    assert_eq!(alone.status().await.unwrap().cluster_id, "", "of a node alone");
    let client = Client::connect([outside.address.clone(), inside.address.clone()])
        .await
        .unwrap();
    for _ in 0..8 {
        assert_eq!(client.status().await.unwrap().cluster_id, fake::CLUSTER);
    }
}

#[tokio::test]
async fn what_must_be_fixed_or_given_up_is_not_repeated() {
    let fake = Fake::start();
    let client = fake.client().await;
    for code in [Code::InvalidArgument, Code::DataLoss, Code::ResourceExhausted] {
        fake.state.script([Step::Status(tidemark_error(code, "NO", &[], None))]);
        assert_eq!(client.write(write("d1", "p", 1)).await.unwrap_err().code, code);
    }
    assert_eq!(fake.state.writes.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_refusal_that_names_a_hundred_rows_at_length_arrives() {
    let fake = Fake::start();
    let why = "older than the retention of 365 days: looks like milliseconds sent as nanoseconds".repeat(3);
    let rows = (0..100).map(|row| FieldViolation {
        reason: "TIME_TOO_OLD".to_owned(),
        ..FieldViolation::new(format!("batch.rows[{row}].observed_at_ns"), why.as_str())
    });
    let mut details = ErrorDetails::with_error_info("TIME_TOO_OLD", "tidemark", HashMap::<String, String>::new());
    details.set_bad_request(rows.collect::<Vec<_>>());
    let status = Status::with_error_details(Code::OutOfRange, "100 bad rows", details);
    fake.state.script([Step::Status(status)]);
    let error = fake.client().await.write(write("d1", "p", 1)).await.unwrap_err();
    assert_eq!((error.reason.as_str(), error.rows.len()), ("TIME_TOO_OLD", 100));
    assert_eq!(error.rows[99].message, why);
}

#[tokio::test]
async fn the_time_the_server_asks_for_is_given_to_it() {
    let fake = Fake::start();
    let wait = Duration::from_millis(300);
    fake.state.script([Step::Status(tidemark_error(
        Code::ResourceExhausted,
        "BUSY",
        &[],
        Some(wait),
    ))]);
    let client = fake.client().await;
    let begin = Instant::now();
    client.write(write("d1", "p", 1)).await.unwrap();
    assert!(begin.elapsed() >= wait);
}

#[tokio::test]
async fn all_tries_together_stay_within_the_timeout() {
    let fake = Fake::start();
    fake.state.script((0..100).map(|_| Step::Status(no_leader())));
    let client = Client::connect_with(options(&[&fake.address], 600)).await.unwrap();
    let begin = Instant::now();
    assert_eq!(client.write(write("d1", "p", 1)).await.unwrap_err().reason, "NO_LEADER");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert!(fake.state.writes.lock().unwrap().len() > 2);
}

#[tokio::test]
async fn what_a_node_said_is_not_hidden_by_a_last_try_that_is_cut_short() {
    let fake = Fake::start();
    fake.state.script([Step::Status(no_leader()), Step::Silence]);
    let client = Client::connect_with(options(&[&fake.address], 600)).await.unwrap();
    let error = client.write(write("d1", "p", 1)).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable, "NO_LEADER"));
    // Without a number the last try may have stored it: that must be said.
    fake.state.script([Step::Status(no_leader()), Step::Silence]);
    let error = client.write(write("d1", "", 0)).await.unwrap_err();
    assert_eq!((error.code, error.hint.is_some()), (Code::DeadlineExceeded, true));
}

#[tokio::test]
async fn a_silent_node_is_left_for_another() {
    let (silent, lively) = (Fake::start(), Fake::start());
    silent.state.script([Step::Silence, Step::Silence]);
    let leader_map = map(&[Some(&silent.address)]);
    *silent.state.map.lock().unwrap() = leader_map.clone();
    *lively.state.map.lock().unwrap() = leader_map;
    let mut options = options(&[&silent.address, &lively.address], 20_000);
    options.attempt_timeout = Duration::from_secs(1);
    let client = Client::connect_with(options).await.unwrap();
    client.write(write("d1", "p", 1)).await.unwrap();
    assert_eq!((silent.state.sequences(), lively.state.sequences()), (vec![1], vec![1]));
}

/// A node that was cut off takes itself for the leader a while longer, and then knows none.
#[tokio::test]
async fn a_leader_that_cannot_help_is_left_for_a_node_that_may_know_a_newer_one() {
    let (cut_off, other) = (Fake::start(), Fake::start());
    let unknown = tidemark_error(Code::Unavailable, "OUTCOME_UNKNOWN", &[], None);
    cut_off
        .state
        .script([unknown, no_leader(), no_leader()].map(Step::Status));
    for fake in [&cut_off, &other] {
        *fake.state.map.lock().unwrap() = map(&[Some(&cut_off.address)]);
    }
    let client = Client::connect_with(options(&[&cut_off.address, &other.address], 5000))
        .await
        .unwrap();
    client.write(write(&device_in(0, 1), "p", 1)).await.unwrap();
    assert_eq!((cut_off.state.sequences(), other.state.sequences()), (vec![1], vec![1]));
}

#[tokio::test]
async fn a_leader_without_room_is_asked_again() {
    let (full, other) = (Fake::start(), Fake::start());
    let overloaded = || {
        Step::Status(tidemark_error(
            Code::ResourceExhausted,
            "OVERLOADED",
            &[],
            Some(Duration::ZERO),
        ))
    };
    full.state.script([overloaded(), overloaded()]);
    for fake in [&full, &other] {
        *fake.state.map.lock().unwrap() = map(&[Some(&full.address)]);
    }
    let client = Client::connect_with(options(&[&full.address, &other.address], 5000))
        .await
        .unwrap();
    client.write(write(&device_in(0, 1), "p", 1)).await.unwrap();
    assert_eq!(
        (full.state.sequences(), other.state.sequences()),
        (vec![1, 1, 1], vec![])
    );
}

#[tokio::test]
async fn one_live_endpoint_is_enough_and_none_is_an_error() {
    let fake = Fake::start();
    let dead = dead_address();
    let client = Client::connect([dead.clone(), format!("http://{}", fake.address)])
        .await
        .unwrap();
    for sequence in 1..=4 {
        client.write(write("d1", "p", sequence)).await.unwrap();
        // Never connected: safe without a number too.
        client.write(write("d1", "", 0)).await.unwrap();
    }
    let error = Client::connect([dead.clone()]).await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason.as_str()),
        (ErrorKind::Retry, "CONNECTION_FAILED")
    );
    assert!(
        error.message.contains(&dead) && error.message.contains("refused"),
        "{error}"
    );
    for bad in ["no port here", "host:port", ""] {
        assert_eq!(
            Client::connect([bad]).await.unwrap_err().reason,
            "BAD_ENDPOINT",
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn devices_of_one_shard_go_to_its_leader() {
    let (one, two) = (Fake::start(), Fake::start());
    let both = map(&[Some(&one.address), Some(&two.address)]);
    *one.state.map.lock().unwrap() = both.clone();
    *two.state.map.lock().unwrap() = both;
    // Only the first is given; the second is learnt.
    let client = one.client().await;
    let (in_one, in_two) = (device_in(0, 2), device_in(1, 2));
    for sequence in 1..=5 {
        client.write(write(&in_one, "a", sequence)).await.unwrap();
        client.write(write(&in_two, "b", sequence)).await.unwrap();
        let selector = v1::Selector {
            device_ids: vec![in_two.clone()],
            ..Default::default()
        };
        let query = v1::QueryRangeRequest {
            selector: Some(selector),
            ..Default::default()
        };
        client.query_range(query).await.unwrap();
    }
    let producers = |fake: &Fake| {
        fake.state
            .writes
            .lock()
            .unwrap()
            .iter()
            .map(|w| w.producer.clone())
            .collect::<String>()
    };
    assert_eq!((producers(&one).as_str(), producers(&two).as_str()), ("aaaaa", "bbbbb"));
    assert_eq!(
        (
            *one.state.range_calls.lock().unwrap(),
            *two.state.range_calls.lock().unwrap()
        ),
        (0, 5)
    );
}

#[tokio::test]
async fn a_new_leader_is_found_after_the_old_one_died() {
    let (mut old, new) = (Fake::start(), Fake::start());
    let device = device_in(0, 1);
    for fake in [&old, &new] {
        *fake.state.map.lock().unwrap() = map(&[Some(&old.address)]);
    }
    let client = Client::connect([new.address.clone()]).await.unwrap();
    client.write(write(&device, "p", 1)).await.unwrap();
    assert_eq!(old.state.sequences(), [1]);

    *new.state.map.lock().unwrap() = map(&[Some(&new.address)]);
    old.kill();
    let begin = Instant::now();
    client.write(write(&device, "p", 2)).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(new.state.sequences(), [2]);
}

#[tokio::test]
async fn calls_for_no_shard_go_round() {
    let (one, two) = (Fake::start(), Fake::start());
    let client = Client::connect([one.address.clone(), two.address.clone()])
        .await
        .unwrap();
    for _ in 0..10 {
        assert!(client.status().await.unwrap().healthy);
    }
    assert_eq!(
        (
            *one.state.status_calls.lock().unwrap(),
            *two.state.status_calls.lock().unwrap()
        ),
        (5, 5)
    );
}

#[tokio::test]
async fn many_devices_are_registered_in_pieces() {
    let fake = Fake::start();
    let devices = |n: usize| {
        (0..n)
            .map(|n| v1::Device {
                id: format!("d{n}"),
                ..Default::default()
            })
            .collect::<Vec<_>>()
    };
    let client = fake.client().await;
    assert_eq!(client.register_devices(devices(2500)).await.unwrap().created, 2500);
    let mut sizes = fake.state.registered.lock().unwrap().clone();
    sizes.sort_unstable();
    assert_eq!(sizes, [500, 1000, 1000]);

    let refusal = tidemark_error(Code::InvalidArgument, "BAD_ID", &[("field", "devices[3].id")], None);
    *fake.state.register_failure.lock().unwrap() = Some((500, refusal));
    let error = client.register_devices(devices(2500)).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("devices[2003].id"));
}

#[tokio::test]
async fn a_job_is_started_once_and_a_question_is_asked_again() {
    let fake = Fake::start();
    let client = fake.client().await;
    let unknown = || tidemark_error(Code::Unavailable, "OUTCOME_UNKNOWN", &[], None);
    let fail_next = |statuses: Vec<Status>| {
        fake.state.operations.lock().unwrap().clear();
        fake.state.operation_failures.lock().unwrap().extend(statuses);
    };
    let calls = || fake.state.operations.lock().unwrap().len();

    fail_next(vec![unknown()]);
    let error = client.start_job(v1::StartJobRequest::default()).await.unwrap_err();
    assert_eq!((error.reason.as_str(), calls()), ("OUTCOME_UNKNOWN", 1));
    assert!(error.hint.is_some(), "says that it may have been done");
    fail_next(vec![unknown()]);
    client.add_node(v1::AddNodeRequest::default()).await.unwrap_err();
    assert_eq!(calls(), 1);

    // The catalog is one group: without a leader it has stored nothing.
    fail_next(vec![no_leader()]);
    client.start_job(v1::StartJobRequest::default()).await.unwrap();
    assert_eq!(calls(), 2);
    fail_next(vec![unknown(), no_leader()]);
    client.plan_job(v1::PlanJobRequest::default()).await.unwrap();
    assert_eq!(calls(), 3);
    fail_next(vec![unknown()]);
    client.list_jobs(7).await.unwrap();
    assert_eq!(calls(), 2);
    fail_next(vec![tidemark_error(Code::FailedPrecondition, "JOB_ENDED", &[], None)]);
    assert_eq!(client.cancel_job(7).await.unwrap_err().kind, ErrorKind::Fix);
    assert_eq!(calls(), 1);
}
