//! Batches of which the store refuses much: how often they go, what is left out, when a run stops. Never: a server.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use tidemark_client::v1;
use tidemark_client::{Code, Error, ErrorKind, Row, RowError, rows};

use super::flow::Flow;
use super::rejects::Rejects;
use super::state::State;
use super::tests::{cutter, types};
use crate::failure::{Exit, Failure};

/// What a run came to.
#[derive(Default)]
struct Ran {
    /// Batches and rests sent.
    trips: usize,
    /// Largest progress file.
    state_bytes: usize,
    stored: usize,
    rejects: String,
    state: Option<State>,
    failure: Option<Failure>,
}

/// What a store finds wrong with a row: reason and message.
type Judge<'a> = &'a dyn Fn(&Row<'_>) -> Option<(&'static str, String)>;

/// Refuses a batch with its bad rows as a node does, the first hundred by name.
fn refusal(batch: &v1::Batch, judge: Judge<'_>) -> Option<Error> {
    let bad: Vec<_> = rows(batch)
        .enumerate()
        .filter_map(|(row, content)| {
            judge(&content).map(|(reason, message)| RowError {
                row: row as u32,
                reason: reason.into(),
                message,
                field: if reason == "UNKNOWN_DEVICE" {
                    "device"
                } else {
                    "observed_at_ns"
                }
                .into(),
            })
        })
        .take(100)
        .collect();
    let first = bad.first()?;
    Some(Error {
        kind: ErrorKind::Fix,
        code: if first.reason == "UNKNOWN_DEVICE" {
            Code::NotFound
        } else {
            Code::OutOfRange
        },
        reason: first.reason.clone(),
        message: format!("bad rows, the first is row {}: {}", first.row, first.message),
        field: Some("batch.rows[0].device".into()),
        rows: bad,
        hint: None,
        retry_after: None,
    })
}

/// Sends all of a file, a batch at a time, from what an earlier run left.
fn run(text: &str, earlier: Option<State>, keep_going: bool, judge: Judge<'_>) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rejects.csv");
    let (mut cutter, start) = cutter(text, earlier.as_ref().map(State::position), 5_000);
    let state = earlier.unwrap_or_else(|| State::new("f".into(), "p".into(), start));
    let rejects = Rejects::open(path.clone(), 0).unwrap();
    let mut flow = Flow::new(Arc::new(types()), v1::ReportKind::Routine, false, state, rejects);
    if keep_going {
        flow.keep_going();
    }
    let mut ran = Ran::default();
    'all: while let Some(chunk) = cutter.next_chunk().unwrap() {
        flow.offer(chunk).unwrap();
        while let Some((batch, mut request)) = flow.next_batch() {
            let mut sequence = 0;
            loop {
                ran.trips += 1;
                let Some(error) = refusal(&request, judge) else {
                    ran.stored += request.observed_at_ns.len();
                    flow.stored(batch, sequence == 0).unwrap();
                    break;
                };
                match flow.refused(batch, sequence, error) {
                    Ok(Some(rest)) => (sequence, request) = (rest.sequence, rest.request),
                    Ok(None) => break,
                    Err(failure) => {
                        ran.failure = Some(failure);
                        break 'all;
                    }
                }
                let state = flow
                    .take_state()
                    .map_or(0, |state| serde_json::to_vec(state).unwrap().len());
                ran.state_bytes = ran.state_bytes.max(state);
            }
        }
    }
    assert!(flow.take_state().is_some_and(|state| {
        ran.state = Some(state.clone());
        true
    }));
    ran.rejects = std::fs::read_to_string(path).unwrap_or_default();
    ran
}

/// So many devices take turns, so many rows in all, a second apart from 1,000 s on.
fn wide(devices: usize, rows: usize) -> String {
    let mut text = String::from("device,time_s,level\n");
    for row in 0..rows {
        text += &format!("d{},{},1\n", row % devices, 1_000 + row);
    }
    text
}

fn unknown(row: &Row<'_>) -> Option<(&'static str, String)> {
    (row.device != "d0").then(|| ("UNKNOWN_DEVICE", format!("no device {:?}", row.device)))
}

#[test]
fn a_file_of_unknown_devices_takes_few_trips_and_a_small_progress_file() {
    let ran = run(&wide(50, 60_000), None, true, &unknown);
    assert_eq!((ran.stored, ran.rejects.lines().count()), (1_200, 1 + 58_800));
    assert!(ran.failure.is_none());
    // 12 batches and, once, a rest for each device that was named; not 50 a batch.
    assert!(ran.trips < 75, "{} trips", ran.trips);
    assert!(ran.state_bytes < 20_000, "{} bytes", ran.state_bytes);
}

#[test]
fn a_file_that_begins_before_the_retention_takes_few_trips() {
    let too_old = |row: &Row<'_>| {
        let at_s = row.observed_at_ns / 1_000_000_000;
        (at_s < 30_000).then(|| ("TIME_TOO_OLD", format!("{at_s} s is too old")))
    };
    // By device: each of them climbs from the oldest time.
    let mut rows: Vec<_> = wide(10, 60_000).lines().skip(1).map(str::to_owned).collect();
    rows.sort_by_key(|row| row.split(',').next().unwrap().to_owned());
    let text = format!("device,time_s,level\n{}\n", rows.join("\n"));
    let ran = run(&text, None, true, &too_old);
    assert_eq!((ran.stored, ran.rejects.lines().count()), (31_000, 1 + 29_000));
    assert!(ran.trips < 80, "{} trips", ran.trips);
    assert!(
        ran.rejects
            .contains("TIME_TOO_OLD: 1990 s is too old; this row is no newer"),
        "{}",
        &ran.rejects[..500]
    );
}

#[test]
fn a_store_that_takes_nothing_ends_the_run_with_the_cause_and_what_to_do() {
    let ran = run(&wide(40, 60_000), None, false, &|row| {
        unknown(row).or(Some(("UNKNOWN_DEVICE", "no device \"d0\"".into())))
    });
    let failure = ran.failure.unwrap();
    assert_eq!((failure.exit(), failure.reason()), (Exit::NotFound, "UNKNOWN_DEVICE"));
    let text = failure.as_lines();
    assert!(
        text.contains("line 2: UNKNOWN_DEVICE: no device \"d0\"; the other 4999 records of this batch"),
        "{text}"
    );
    assert!(text.contains("--register") && text.contains("--keep-going"), "{text}");
    // The same command with --register begins with the batch that was refused, and every row is stored.
    let state = ran.state.unwrap();
    assert_eq!((state.chunk.done, state.rests.len()), (0, 0));
    let again = run(&wide(40, 60_000), Some(state), false, &|_| None);
    assert_eq!((again.stored, again.rejects.as_str()), (60_000, ""));
}

#[test]
fn a_bad_device_in_front_a_short_file_or_mixed_reasons_do_not_end_the_run() {
    let first = |row: &Row<'_>| (row.device == "d0").then(|| ("UNKNOWN_DEVICE", "no device".to_owned()));
    assert_eq!(run(&wide(2, 30_000), None, false, &first).stored, 15_000);
    let all = |_: &Row<'_>| Some(("UNKNOWN_DEVICE", "no device".to_owned()));
    let short = run(&wide(2, 99), None, false, &all);
    assert!(short.failure.is_none());
    assert_eq!(short.rejects.lines().count(), 100);
    let mixed = |row: &Row<'_>| {
        let odd = row.observed_at_ns / 2_000_000_000 % 2 == 1;
        Some((if odd { "TEXT_TOO_LONG" } else { "NON_FINITE" }, "no".to_owned()))
    };
    let mixed = run(&wide(2, 6_000), None, false, &mixed);
    assert!(mixed.failure.is_none());
    assert_eq!(mixed.rejects.lines().count(), 6_001);
}

#[test]
fn two_bad_devices_one_after_the_other_end_the_run_and_the_first_is_taken_in_later() {
    let all = |_: &Row<'_>| Some(("UNKNOWN_DEVICE", "no device".to_owned()));
    let ran = run(&wide(2, 30_000), None, false, &all);
    assert!(ran.failure.is_some());
    let state = ran.state.unwrap();
    assert_eq!((state.chunk.done, state.rests.len(), ran.rejects.as_str()), (0, 0, ""));
    assert_eq!(run(&wide(2, 30_000), Some(state), false, &|_| None).stored, 30_000);
}

#[test]
fn devices_registered_since_are_taken_in_though_an_earlier_run_left_them_out() {
    let ran = run(&wide(2, 1_000), None, true, &|_| {
        Some(("UNKNOWN_DEVICE", "no device".to_owned()))
    });
    let mut state = ran.state.unwrap();
    assert_eq!(state.totals.rejected, 1_000);
    // As if the run had ended before its chunk was booked: all of batch 1 was decided away.
    let start = run("device,time_s,level\n", None, true, &|_| None).state.unwrap();
    (state.chunk, state.totals, state.rejects_bytes) = (start.chunk, start.totals, 0);
    state.rests = vec![super::state::Rest {
        batch: 1,
        sequence: 0,
        refused: vec![super::state::Refused {
            record: 0,
            more: 999,
            property: None,
            why: "UNKNOWN_DEVICE: no".into(),
        }],
    }];
    let again = run(&wide(2, 1_000), Some(state), true, &unknown);
    assert_eq!((again.stored, again.rejects.lines().count()), (500, 501));
}
