//! Pipelined writes: what is sent again, in which order, and what is not. Never here: single calls.
#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "tests")]

mod fake;

use std::time::{Duration, Instant};

use fake::{Fake, Step, batch, map, options, until};
use tidemark_client::{Ack, Client, Code, ErrorKind, Writer, WriterOptions, v1};
use tonic::Status;

fn producer(max_in_flight: usize) -> WriterOptions {
    WriterOptions {
        producer: "p".to_owned(),
        max_in_flight,
        ..WriterOptions::default()
    }
}

async fn send(writer: &mut Writer, batches: usize) {
    for _ in 0..batches {
        writer.send(batch("d1")).await.unwrap();
    }
}

fn stored(acks: &[Ack]) -> Vec<u64> {
    acks.iter()
        .filter(|ack| ack.result.is_ok())
        .map(|ack| ack.sequence)
        .collect()
}

fn failure(code: Code, retry_after_ms: i64) -> Step {
    let (reason, message) = ("NO".to_owned(), "no".to_owned());
    Step::Failure(v1::Failure {
        code: code as i32,
        reason,
        message,
        retry_after_ms,
        ..Default::default()
    })
}

#[tokio::test]
async fn batches_are_numbered_and_acknowledged() {
    let fake = Fake::start();
    let mut writer = fake.client().await.writer(WriterOptions {
        first_sequence: 41,
        ..producer(4)
    });
    assert!(writer.next_ack().await.is_none());
    assert_eq!(writer.send(batch("d1")).await.unwrap(), 41);
    assert_eq!(writer.next_ack().await.unwrap().sequence, 41);
    assert!(writer.next_ack().await.is_none());
    send(&mut writer, 20).await;
    assert_eq!(writer.next_sequence(), 62);
    let acks = writer.finish().await.unwrap();
    assert_eq!(stored(&acks), (42..62).collect::<Vec<_>>());
    assert_eq!(fake.state.sequences(), (41..62).collect::<Vec<_>>());
    assert!(
        fake.state
            .writes
            .lock()
            .unwrap()
            .iter()
            .all(|write| write.producer == "p")
    );
    assert_eq!(*fake.state.streams.lock().unwrap(), 1);
}

#[tokio::test]
async fn after_a_broken_stream_only_the_unacknowledged_are_sent_again_in_order() {
    for broken in [Step::End, Step::Status(Status::unavailable("going away"))] {
        let fake = Fake::start();
        fake.state
            .script([Step::Store, Step::Silence, Step::Silence, Step::Silence, broken]);
        let mut writer = fake.client().await.writer(producer(8));
        send(&mut writer, 1).await;
        assert_eq!(writer.next_ack().await.unwrap().sequence, 1);
        send(&mut writer, 4).await;
        let acks = writer.finish().await.unwrap();
        assert_eq!(stored(&acks), [2, 3, 4, 5]);
        assert_eq!(fake.state.sequences(), [1, 2, 3, 4, 5, 2, 3, 4, 5]);
        let writes = fake.state.writes.lock().unwrap();
        assert_eq!(writes[1..5], writes[5..9], "the same batches again");
    }
}

#[tokio::test]
async fn a_killed_node_is_left_for_another() {
    let (mut one, two) = (Fake::start(), Fake::start());
    one.state
        .script([Step::Store, Step::Store, Step::Silence, Step::Silence]);
    for fake in [&one, &two] {
        *fake.state.map.lock().unwrap() = map(&[Some(&one.address)]);
    }
    let client = Client::connect([one.address.clone(), two.address.clone()])
        .await
        .unwrap();
    let mut writer = client.writer(producer(8));
    send(&mut writer, 4).await;
    let before = [writer.next_ack().await.unwrap(), writer.next_ack().await.unwrap()];
    assert_eq!(stored(&before), [1, 2]);
    until("all four arrived at the leader", || {
        one.state.sequences() == [1, 2, 3, 4]
    })
    .await;

    *two.state.map.lock().unwrap() = map(&[Some(&two.address)]);
    one.kill();
    let begin = Instant::now();
    send(&mut writer, 2).await;
    assert_eq!(stored(&writer.finish().await.unwrap()), [3, 4, 5, 6]);
    assert_eq!(two.state.sequences(), [3, 4, 5, 6]);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_retryable_failure_sends_that_batch_again_and_a_final_one_does_not() {
    let fake = Fake::start();
    fake.state.script([
        Step::Store,
        failure(Code::Unavailable, 0),
        failure(Code::InvalidArgument, 0),
        failure(Code::ResourceExhausted, 20),
        Step::Store,
    ]);
    let mut writer = fake.client().await.writer(producer(8));
    send(&mut writer, 5).await;
    let mut acks = writer.finish().await.unwrap();
    acks.sort_by_key(|ack| ack.sequence);
    assert_eq!(stored(&acks), [1, 2, 4, 5]);
    assert_eq!(acks[2].result.as_ref().unwrap_err().kind, ErrorKind::Fix);
    let mut count = [0; 6];
    fake.state
        .sequences()
        .iter()
        .for_each(|sequence| count[*sequence as usize] += 1);
    assert_eq!(count[3], 1, "what must be fixed is not sent again");
    assert!(count[2] >= 2 && count[4] >= 2, "{count:?}");
    assert_eq!(count[1], 1, "what is stored is not sent again");
}

#[tokio::test]
async fn a_stream_refused_for_one_batch_costs_that_batch_alone() {
    let fake = Fake::start();
    *fake.state.poison.lock().unwrap() = Some(2);
    fake.state.script([Step::Silence]);
    let mut writer = fake.client().await.writer(producer(3));
    send(&mut writer, 3).await;
    let mut acks = writer.finish().await.unwrap();
    acks.sort_by_key(|ack| ack.sequence);
    assert_eq!(stored(&acks), [1, 3]);
    assert_eq!(acks[1].result.as_ref().unwrap_err().code, Code::OutOfRange);
}

#[tokio::test]
async fn a_stream_that_stalls_is_left() {
    let fake = Fake::start();
    fake.state.script([Step::Silence, Step::Silence]);
    let mut options = options(&[&fake.address], 20_000);
    options.attempt_timeout = Duration::from_secs(1);
    let mut writer = Client::connect_with(options).await.unwrap().writer(producer(2));
    send(&mut writer, 2).await;
    assert_eq!(stored(&writer.finish().await.unwrap()), [1, 2]);
    assert_eq!(fake.state.sequences(), [1, 2, 1, 2]);
}

#[tokio::test]
async fn no_more_than_the_limit_is_in_flight() {
    let fake = Fake::start();
    fake.state.script((0..3).map(|_| Step::Silence));
    let mut writer = fake.client().await.writer(producer(3));
    send(&mut writer, 3).await;
    assert_eq!(writer.in_flight(), 3);
    let fourth = tokio::time::timeout(Duration::from_millis(100), writer.send(batch("d1"))).await;
    assert!(fourth.is_err(), "waits for room");
    assert_eq!(writer.next_sequence(), 4, "what was not sent has no number");
    drop(writer);

    let one_byte = WriterOptions {
        max_in_flight_bytes: 1,
        ..producer(8)
    };
    let mut writer = fake.client().await.writer(one_byte);
    send(&mut writer, 3).await;
    assert_eq!(
        writer.finish().await.unwrap().len(),
        3,
        "a batch over the limit goes alone"
    );
}

#[tokio::test]
async fn a_writer_gives_up_after_its_time_and_says_so() {
    let mut fake = Fake::start();
    let client = fake.client().await;
    fake.kill();
    let mut writer = client.writer(WriterOptions {
        give_up_after: Duration::from_millis(400),
        ..producer(4)
    });
    send(&mut writer, 2).await;
    for sequence in [1, 2] {
        let ack = writer.next_ack().await.unwrap();
        assert_eq!(
            (ack.sequence, ack.result.unwrap_err().kind),
            (sequence, ErrorKind::Retry)
        );
    }
    assert_eq!(writer.send(batch("d1")).await.unwrap_err().reason, "CONNECTION_FAILED");
    assert!(writer.finish().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_endpoint_outside_the_cluster_refuses_no_batch_for_good() {
    let astray = |as_status: bool| {
        let reason = "NOT_INITIALISED".to_owned();
        match as_status {
            true => Step::Status(fake::tidemark_error(Code::FailedPrecondition, &reason, &[], None)),
            false => Step::Failure(v1::Failure {
                code: Code::FailedPrecondition as i32,
                reason,
                message: "the node belongs to no cluster yet".to_owned(),
                ..Default::default()
            }),
        }
    };
    for as_status in [true, false] {
        let (outside, inside) = (Fake::start(), Fake::start());
        for fake in [&outside, &inside] {
            *fake.state.map.lock().unwrap() = map(&[None]);
        }
        outside.state.script((0..100).map(|_| astray(as_status)));
        // Devices of a shard without a leader: any endpoint may be asked first, so writers come until the one outside was.
        for round in 0.. {
            let client = Client::connect([outside.address.clone(), inside.address.clone()])
                .await
                .unwrap();
            let mut writer = client.writer(producer(4));
            send(&mut writer, 6).await;
            let acks = writer.finish().await.unwrap();
            let failed: Vec<_> = acks.iter().filter_map(|ack| ack.result.as_ref().err()).collect();
            assert!(failed.is_empty(), "as status: {as_status}: {failed:?}");
            assert_eq!(acks.len(), 6);
            if !outside.state.sequences().is_empty() {
                break;
            }
            assert!(round < 100, "never asked");
        }
    }
}
