//! Streamed answers: whole, cut short, broken. Never here: routing.
#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "tests")]

mod fake;

use fake::{Fake, batch};
use tidemark_client::{Answer, Code, Error, v1};
use tonic::Status;

type Message = Result<v1::QueryRangeResponse, Status>;

fn part() -> Message {
    Ok(v1::QueryRangeResponse {
        batch: Some(batch("d1")),
        summary: None,
    })
}

fn end(rows: u64) -> Message {
    Ok(v1::QueryRangeResponse {
        batch: None,
        summary: Some(v1::AnswerSummary {
            rows,
            ..Default::default()
        }),
    })
}

async fn ask(fake: &Fake, answers: Vec<Vec<Message>>) -> Result<Answer<v1::QueryRangeResponse>, Error> {
    fake.state.ranges.lock().unwrap().extend(answers);
    fake.client().await.query_range(v1::QueryRangeRequest::default()).await
}

#[tokio::test]
async fn a_whole_answer_ends_with_its_summary() {
    let fake = Fake::start();
    let mut answer = ask(&fake, vec![vec![part(), part(), end(2)]]).await.unwrap();
    assert!(answer.summary().is_none());
    assert!(answer.next().await.unwrap().is_ok());
    assert!(answer.next().await.unwrap().is_ok());
    assert!(answer.next().await.is_none());
    assert!(answer.next().await.is_none());
    assert_eq!(answer.summary().unwrap().rows, 2);

    let last_with_rows = Ok(v1::QueryRangeResponse {
        summary: end(1).unwrap().summary,
        ..part().unwrap()
    });
    let (messages, summary) = ask(&fake, vec![vec![last_with_rows]])
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!((messages.len(), summary.rows), (1, 1));
    let (messages, _) = ask(&fake, vec![vec![end(0)]]).await.unwrap().collect().await.unwrap();
    assert!(messages.is_empty());
}

#[tokio::test]
async fn an_answer_without_summary_is_an_error() {
    let fake = Fake::start();
    let mut answer = ask(&fake, vec![vec![part()]]).await.unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    assert_eq!(answer.next().await.unwrap().unwrap_err().reason, "INCOMPLETE");
    assert!(answer.next().await.is_none());
    assert_eq!(
        ask(&fake, vec![vec![]])
            .await
            .unwrap()
            .collect()
            .await
            .unwrap_err()
            .reason,
        "INCOMPLETE"
    );
}

#[tokio::test]
async fn a_failure_is_repeated_before_the_first_message_and_told_after_it() {
    let fake = Fake::start();
    let broken = || Err(Status::unavailable("moving"));
    let (messages, _) = ask(&fake, vec![vec![broken()], vec![part(), end(1)]])
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!((messages.len(), *fake.state.range_calls.lock().unwrap()), (1, 2));

    let mut answer = ask(&fake, vec![vec![part(), broken()], vec![part(), end(1)]])
        .await
        .unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    assert_eq!(answer.next().await.unwrap().unwrap_err().code, Code::Unavailable);
    assert_eq!(*fake.state.range_calls.lock().unwrap(), 3);
}

#[tokio::test]
async fn a_node_killed_in_the_middle_of_an_answer_is_an_error() {
    let mut fake = Fake::start();
    // More than the flow-control windows hold, so that most of it is still to be sent.
    let text = "x".repeat(1 << 20);
    let big = move || {
        let mut rows = tidemark_client::BatchBuilder::new("tank");
        rows.row("d1", 1).set("note", text.as_str());
        Ok(v1::QueryRangeResponse {
            batch: Some(rows.build().unwrap()),
            summary: None,
        })
    };
    let messages: Vec<Message> = (0..100).map(|_| big()).chain([end(100)]).collect();
    let mut answer = ask(&fake, vec![messages]).await.unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    fake.kill();
    let error = answer.collect().await.unwrap_err();
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::Unavailable, "CONNECTION_FAILED")
    );
}
