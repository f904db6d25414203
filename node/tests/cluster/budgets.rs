//! Questions that ask for more than they may have: an error that says so, or a part of the answer that says so; and questions
//! that nobody waits for any more.
//!
//! Never here: limits of requests (see `query`). Invariant: what a partial answer gives is right as far as it goes.

use std::time::{Duration, Instant};

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, rows, v1};
use tidemark_node::config::Tuning;
use v1::Function::{Avg, Count, Last, Percentile};
use v1::{Budget, FillMode};

const IDS: [&str; 6] = ["m1", "m2", "m3", "m4", "m5", "m6"];
const ROWS: i64 = 3_000;

/// As many rows of every device.
async fn seed_points(client: &Client) {
    seed_rows(client, ROWS, MIN).await;
}

async fn seed_rows(client: &Client, rows: i64, step: i64) {
    furnish(client, &IDS).await;
    for id in IDS {
        let mut batch = BatchBuilder::new(METER);
        for row in 0..rows {
            batch.row(id, T0 + row * step).set("level", (row % 97) as f64);
        }
        client.write(write(batch.build().unwrap())).await.unwrap();
    }
}

fn whole() -> v1::QueryAggregateRequest {
    v1::QueryAggregateRequest {
        selector: of_type(METER),
        properties: vec!["level".into()],
        functions: vec![Percentile as i32, Avg as i32],
        percentiles: vec![50.0],
        from_ns: T0,
        to_ns: T0 + ROWS * MIN,
        ..Default::default()
    }
}

#[tokio::test]
async fn more_values_than_allowed_are_an_error_or_a_part_of_the_answer() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    seed_points(&client).await;
    let points_max = 5 * ROWS as u64 + 100;
    let too_many = "RESOURCE_EXHAUSTED TOO_MANY_POINTS points_max; ask for fewer devices, fewer properties or a shorter range, \
                    or take a part of the answer (partial_ok)";
    let aggregate = v1::QueryAggregateRequest { points_max, ..whole() };
    let refused = match client.query_aggregate(aggregate.clone()).await {
        Err(error) => error,
        Ok(answer) => answer.collect().await.expect_err("too many values"),
    };
    assert_eq!(shown(&refused), too_many);

    let partial = v1::QueryAggregateRequest {
        partial_ok: true,
        ..aggregate
    };
    let (messages, summary) = client.query_aggregate(partial).await.unwrap().collect().await.unwrap();
    let cut = summary.cut_short.expect("it says that it is partial");
    assert_eq!((cut.budget(), cut.limit, cut.shards), (Budget::Points, points_max, 6));
    let series: Vec<_> = messages.into_iter().flat_map(|message| message.series).collect();
    // Devices that are read together with the one that is too much do not come either.
    assert!(
        (1..IDS.len()).contains(&series.len()) && cut.shards_whole > 0,
        "{} series, {cut:?}",
        series.len()
    );
    assert!(
        series.iter().all(|series| series.points_seen == [ROWS as u64]),
        "{series:?}"
    );
    assert!(summary.points_read > points_max && summary.points_read <= points_max + 4_096);

    // Enough is enough.
    let exact = v1::QueryAggregateRequest {
        points_max: IDS.len() as u64 * ROWS as u64,
        ..whole()
    };
    let (_, summary) = client.query_aggregate(exact).await.unwrap().collect().await.unwrap();
    assert_eq!(
        (summary.cut_short, summary.points_read),
        (None, IDS.len() as u64 * ROWS as u64)
    );
}

#[tokio::test]
async fn a_range_goes_on_where_a_budget_cut_it() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    seed_points(&client).await;
    for order in [v1::Order::OldestFirst, v1::Order::NewestFirst] {
        // One record in a hundred: most blocks give little or nothing, and every page gets further all the same.
        let mut request = v1::QueryRangeRequest {
            values: vec![v1::ValueFilter {
                property: "level".into(),
                condition: Some(v1::value_filter::Condition::Equals(96.0)),
            }],
            order: order as i32,
            points_max: 1,
            partial_ok: true,
            ..everything(of_type(METER))
        };
        let (mut found, mut pages) = (0, 0);
        loop {
            let (_, summary) = client
                .query_range(request.clone())
                .await
                .unwrap()
                .collect()
                .await
                .unwrap();
            found += summary.rows;
            pages += 1;
            assert_eq!(summary.cut_short.is_some(), !summary.next_cursor.is_empty());
            if summary.next_cursor.is_empty() {
                break;
            }
            request.cursor = summary.next_cursor;
        }
        let each = (0..ROWS).filter(|row| row % 97 == 96).count() as u64;
        assert_eq!(found, each * IDS.len() as u64, "{order:?}");
        assert!(pages > IDS.len(), "{pages} pages");
    }
    let impatient = v1::QueryRangeRequest {
        points_max: 1,
        ..everything(of_type(METER))
    };
    let refused = client.query_range(impatient).await.expect_err("more than one value");
    assert_eq!(refused.reason, "TOO_MANY_POINTS");
}

/// Two devices with four blocks each, and a spike now and then.
async fn seed_spikes(client: &Client) {
    const SPIKY: &str = "test-spiky";
    let level = v1::Property {
        attributes: [("spike".to_owned(), "50".to_owned())].into(),
        ..property("level", v1::ValueType::F64, v1::Kind::Gauge)
    };
    let spiky = v1::DeviceType {
        id: SPIKY.into(),
        properties: vec![level],
        sample_interval_s: 60,
        ..v1::DeviceType::default()
    };
    client.apply_device_types(vec![spiky]).await.unwrap();
    for id in ["s1", "s2"] {
        client.register_devices(vec![device(id, SPIKY, &[])]).await.unwrap();
        for block in 0..4 {
            let rows = (block * ROWS..(block + 1) * ROWS).map(|row| {
                let spike = if row % 500 == 250 { 1_000.0 } else { 0.0 };
                (id, T0 + row * S, (row % 97) as f64 / 10.0 + spike)
            });
            client.write(write(batch(SPIKY, "level", rows))).await.unwrap();
        }
    }
}

/// All records of a range, page by page, with what is said of their levels; and how many pages there were.
async fn paged(client: &Client, mut request: v1::QueryRangeRequest) -> (Vec<(String, i64, usize)>, u64, usize) {
    let (mut found, mut dropped, mut pages) = (Vec::new(), 0, 0);
    loop {
        let answer = client.query_range(request.clone()).await.unwrap();
        let (messages, summary) = answer.collect().await.unwrap();
        let batches = messages.iter().filter_map(|message| message.batch.as_ref());
        for row in batches.flat_map(rows) {
            let said = row.qualifiers.get("level").map_or(0, |said| {
                said.iter().filter(|one| **one == v1::Qualifier::Spike).count()
            });
            found.push((row.device.to_owned(), row.observed_at_ns, said));
        }
        (dropped, pages) = (dropped + summary.points_dropped, pages + 1);
        assert_eq!(summary.cut_short.is_some(), !summary.next_cursor.is_empty());
        if summary.next_cursor.is_empty() {
            return (found, dropped, pages);
        }
        request.cursor = summary.next_cursor;
    }
}

#[tokio::test]
async fn a_range_of_which_neighbours_decide_goes_on_where_a_budget_cut_it() {
    let cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    seed_spikes(&client).await;
    for (drop_failed, qualifiers) in [(true, false), (false, true)] {
        for order in [v1::Order::OldestFirst, v1::Order::NewestFirst] {
            let request = v1::QueryRangeRequest {
                quality: drop_failed.then(|| v1::QualityFilter {
                    drop_failed,
                    ..Default::default()
                }),
                qualifiers,
                order: order as i32,
                partial_ok: true,
                ..everything(of_type("test-spiky"))
            };
            let whole = paged(&client, request.clone()).await;
            let said: usize = whole.0.iter().map(|(.., said)| said).sum();
            let spikes = if drop_failed { (48, 0) } else { (0, 48) };
            assert_eq!(((whole.1, said as u64), whole.2), (spikes, 1));
            for (points_max, at_least) in [(1, 8), (10_000, 3), (30_000, 2)] {
                let request = v1::QueryRangeRequest {
                    points_max,
                    ..request.clone()
                };
                let (found, dropped, pages) = paged(&client, request).await;
                let what = format!("{drop_failed}, {qualifiers}, {order:?}, {points_max}");
                assert!(
                    found == whole.0 && dropped == whole.1,
                    "{what}: {} records",
                    found.len()
                );
                assert!((at_least..=16).contains(&pages), "{what}: {pages} pages");
            }
            let impatient = v1::QueryRangeRequest {
                points_max: 10_000,
                partial_ok: false,
                ..request
            };
            let refused = match client.query_range(impatient).await {
                Err(error) => error,
                Ok(answer) => answer.collect().await.expect_err("more than so many values"),
            };
            assert_eq!(refused.reason, "TOO_MANY_POINTS");
        }
    }
}

#[tokio::test]
async fn an_answer_that_takes_too_long_gives_what_it_has() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    seed_points(&client).await;
    // Nobody can answer for sure any more, which takes longer to find out than the client waits.
    cluster.drop_node(1).await;
    cluster.drop_node(2).await;
    let node = cluster.at(0);
    let partial = v1::QueryAggregateRequest {
        partial_ok: true,
        ..whole()
    };
    let (messages, summary) = node.aggregate_within(partial, PATIENCE).await.unwrap();
    let cut = summary.cut_short.expect("it says that it is partial");
    assert_eq!((cut.budget(), cut.shards_whole, cut.shards), (Budget::Time, 0, 6));
    assert!(cut.limit <= PATIENCE.as_millis() as u64, "{cut:?}");
    assert!(messages.iter().all(|message| message.series.is_empty()), "{messages:?}");
    // A page that gets nowhere is no page.
    let range = v1::QueryRangeRequest {
        partial_ok: true,
        ..everything(of_type(METER))
    };
    let error = node.range_within(range, PATIENCE).await.expect_err("nothing came");
    assert_eq!(shown(&error), "DEADLINE_EXCEEDED DEADLINE_EXCEEDED");
}

/// Texts of the diary `alone`, which says one thing, and of `talkative`, which says a thousand.
async fn diaries(client: &Client, bytes: usize) {
    furnish_diaries(client, &["alone".into(), "talkative".into()]).await;
    let mut batch = BatchBuilder::new(DIARY);
    batch.row("alone", T0).set("notes", "a".repeat(2 * bytes));
    for row in 0..1_000 {
        batch
            .row("talkative", T0 + row * 10 * S)
            .set("notes", "t".repeat(bytes));
    }
    client.write(write(batch.build().unwrap())).await.unwrap();
}

#[tokio::test]
async fn texts_are_charged_to_the_budget_of_a_question() {
    // A text of 4 kB fits five hundred times, or as first and last one of 250 windows.
    let tuning = Tuning {
        partials_bytes_max: 2 << 20,
        ..Tuning::default()
    };
    let cluster = TestCluster::start_with(3, tuning).await;
    let client = cluster.client().await;
    diaries(&client, 4_000).await;
    let over = |device: &str, function: v1::Function, range_s: i64, window: v1::Window| v1::QueryAggregateRequest {
        selector: of_devices(&[device]),
        properties: vec!["notes".into()],
        functions: vec![function as i32],
        from_ns: T0,
        to_ns: T0 + range_s * S,
        window: Some(window),
        ..Default::default()
    };
    let step = |step_s: i64, length_s: i64| v1::Window {
        step_ns: step_s * S,
        length_ns: length_s * S,
        ..Default::default()
    };
    let filled = |request| v1::QueryAggregateRequest {
        fill: Some(v1::Fill {
            mode: FillMode::Previous as i32,
            ..Default::default()
        }),
        ..request
    };
    let grouped = |request| v1::QueryAggregateRequest {
        grouping: Some(v1::Grouping::default()),
        ..request
    };
    let cases = [
        (
            "copies that are filled in",
            filled(over("alone", Last, 3_000, step(1, 0))),
        ),
        (
            "the same of a group",
            grouped(filled(over("alone", Last, 3_000, step(1, 0)))),
        ),
        (
            "a text in many windows that slide",
            over("alone", Last, 1_000, step(1, 3_000)),
        ),
        (
            "texts that nobody asks for",
            over("talkative", Count, 10_000, step(10, 0)),
        ),
        ("the last texts", over("talkative", Last, 10_000, step(10, 0))),
        (
            "those of a group",
            grouped(over("talkative", Last, 10_000, step(10, 0))),
        ),
    ];
    for (what, request) in cases {
        let refused = match client.query_aggregate(request.clone()).await {
            Err(error) => error,
            Ok(answer) => answer.collect().await.expect_err(what),
        };
        assert_eq!(
            shown(&refused),
            "RESOURCE_EXHAUSTED QUERY_TOO_LARGE; ask for fewer devices, a longer step or a shorter range",
            "{what}"
        );
    }

    let partial = v1::QueryAggregateRequest {
        partial_ok: true,
        ..filled(over("alone", Last, 3_000, step(1, 0)))
    };
    let (_, summary) = client.query_aggregate(partial).await.unwrap().collect().await.unwrap();
    let cut = summary.cut_short.expect("it says that it is partial");
    assert_eq!((cut.budget(), cut.limit), (Budget::Bytes, 2 << 20));

    // What has room is answered.
    for (request, windows) in [
        (filled(over("alone", Last, 200, step(1, 0))), 200),
        (over("alone", Last, 10, step(1, 100)), 10),
        (over("talkative", Last, 2_000, step(10, 0)), 200),
        (over("talkative", Last, 10_000, step(100, 0)), 100),
    ] {
        let messages = ask(&client, request).await;
        assert_eq!(messages[0].series[0].start_ns.len(), windows);
    }
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_ends_and_gives_its_memory_back() {
    let cluster = TestCluster::start(3).await;
    let client = cluster.client().await;
    seed_rows(&client, 40_000, 4 * S).await;
    let quiet = async |since: Instant| {
        for node in 0..3 {
            eventually("the question ends", || async {
                let mut seen = Vec::new();
                for name in [
                    "tidemark_queries_running",
                    "tidemark_shard_reads_running",
                    "tidemark_query_bytes_held",
                ] {
                    seen.push(cluster.metric(node, name).await);
                }
                if seen == [0, 0, 0] {
                    Ok(())
                } else {
                    Err(format!("{seen:?}"))
                }
            })
            .await;
        }
        since.elapsed()
    };
    // A window for every second, for percentiles of which much is kept, in one group: nothing is sent before all of it is there.
    let heavy = v1::QueryAggregateRequest {
        window: Some(v1::Window {
            step_ns: S,
            ..Default::default()
        }),
        grouping: Some(v1::Grouping::default()),
        functions: vec![Percentile as i32],
        ..whole()
    };
    let begun = Instant::now();
    client
        .query_aggregate(heavy.clone())
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    // So many that all of them would take much longer than one, on two cores.
    let one = begun.elapsed();
    let times = (12.0 / one.as_secs_f64()).clamp(8.0, 24.0) as usize;
    let looking = quiet(Instant::now()).await;
    let mut asking = Vec::new();
    for _ in 0..times {
        let (client, heavy) = (client.clone(), heavy.clone());
        asking.push(tokio::spawn(async move {
            client.query_aggregate(heavy).await?.collect().await.map(drop)
        }));
    }
    eventually("a question runs", || async {
        let mut running = 0;
        for node in 0..3 {
            running += cluster.metric(node, "tidemark_shard_reads_running").await;
        }
        let done = asking.iter().all(tokio::task::JoinHandle::is_finished);
        if running > 0 || done {
            Ok(())
        } else {
            Err("none".to_owned())
        }
    })
    .await;
    let left = asking.iter().filter(|asking| !asking.is_finished()).count();
    assert!(left > times / 4, "{left} of {times} questions were left to give up");
    asking.iter().for_each(tokio::task::JoinHandle::abort);
    let took = quiet(Instant::now()).await;
    let most = Duration::from_secs(1) + 2 * (looking + one);
    assert!(
        took < most,
        "{took:?} until all was quiet, {looking:?} to look, {one:?} for one"
    );
}
