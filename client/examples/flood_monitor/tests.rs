//! Order, words and numbers of the flood monitor. Never here: a cluster, or the page (scripts/page-test.sh looks at that).

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const ORDER: [&str; 5] = ["red", "blue", CALM[0], CALM[1], CALM[2]];

fn gauge(id: &str, level: &str, value: Option<f64>, is_summed: bool) -> Gauge {
    Gauge {
        id: id.to_owned(),
        level: level.to_owned(),
        value,
        is_summed,
        stale: level == CALM[1],
        ..Default::default()
    }
}

#[test]
fn the_most_dangerous_come_first_and_nothing_is_left_out() {
    let mut gauges = vec![
        gauge("never", CALM[2], None, false),
        gauge("dry-a", CALM[0], Some(0.0), false),
        gauge("rain", CALM[0], Some(17.0), true),
        gauge("silent", CALM[1], Some(0.3), false),
        gauge("dry-b", CALM[0], Some(0.0), false),
        gauge("wet", CALM[0], Some(0.04), false),
        gauge("blue", "blue", Some(0.06), false),
        gauge("red-stale", "red", Some(0.41), false),
        gauge("red", "red", Some(0.46), false),
    ];
    by_danger(&mut gauges, |level| {
        ORDER.iter().position(|known| *known == level).unwrap_or(0)
    });
    let order: Vec<_> = gauges.iter().map(|gauge| gauge.id.as_str()).collect();
    let expected = [
        "red",
        "red-stale",
        "blue",
        "wet",
        "dry-a",
        "dry-b",
        "rain",
        "silent",
        "never",
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_sum_with_readings_missing_is_a_lower_bound_and_no_sum_is_not_zero() {
    let mut rain = gauge("rg", CALM[1], Some(3.0), true);
    let check = |rain: &Gauge, expected: &str| {
        let line = show::line(rain, 0);
        let sums: Vec<_> = line.split("STALE").nth(1).unwrap_or("").split_whitespace().collect();
        assert_eq!(sums.join(" "), expected, "{line}");
    };
    check(&rain, "- -");
    rain.sums = [None, Some((0, 9.0, 1.0 / 3.0)), Some((0, 69.0, 1.0))];
    check(&rain, ">= 9.0 (33 %) 69.0");
    assert_eq!(show::json(&rain)["sum_1h"][1], 9.0);
    assert!(show::json(&gauge("pd", CALM[0], None, false))["value"].is_null());
}

#[test]
fn windows_are_read_with_their_coverage() {
    let values = v1::Values {
        kind: Some(v1::values::Kind::F64(v1::F64Values { values: vec![2.5, 9.0] })),
    };
    let series = v1::AggregateSeries {
        start_ns: vec![0, 5],
        end_ns: vec![10, 15],
        points_seen: vec![12, 12],
        points_promised: vec![12, 12],
        slots_filled: vec![12, 4],
        columns: vec![v1::AggregateColumn {
            values: Some(values),
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(read(&series, true), [(10, 2.5, 1.0), (15, 9.0, 4.0 / 12.0)]);
    assert_eq!(read(&series, false), [(0, 2.5, 1.0), (5, 9.0, 4.0 / 12.0)]);
}

#[test]
fn a_step_says_from_where_to_where_and_why() {
    let step = show::step(&v1::AlertStep {
        device: "pd".to_owned(),
        level_before: "blue".to_owned(),
        reason: v1::AlertReason::ProfileChanged.into(),
        ..Default::default()
    });
    assert_eq!((&step["before"], &step["level"]), (&json!("blue"), &json!("normal")));
    assert_eq!(step["reason"], "profile changed");
}

#[test]
fn an_alert_says_who_has_seen_it_and_is_named_to_the_nanosecond() {
    let mut red = gauge("pd", "red", Some(0.46), false);
    assert!(show::json(&red)["alert"].is_null());
    red.alert = Some(v1::Alert {
        profile: "depth".to_owned(),
        began_ns: 1_718_868_300_000_000_001,
        acknowledged_by: "ann".to_owned(),
        acknowledged_at_ns: 7,
        ..Default::default()
    });
    let alert = &show::json(&red)["alert"];
    assert_eq!(
        (&alert["began_ns"], &alert["by"]),
        (&json!("1718868300000000001"), &json!("ann"))
    );
}

#[tokio::test]
async fn the_page_is_for_browsers_of_this_machine() {
    async fn ask(request: &str) -> String {
        let post = async |asked: Json| match asked["device"].as_str() {
            Some("pd") => Ok(()),
            _ => Err(format!("{asked}")),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut browser = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let board = watch::Sender::new(json!({ "town": "<b>" }));
        let (stream, _) = listener.accept().await.unwrap();
        browser.write_all(request.as_bytes()).await.unwrap();
        http::answer(stream, "the page", board.subscribe(), post).await.unwrap();
        let mut answer = String::new();
        browser.read_to_string(&mut answer).await.unwrap();
        answer
    }
    let check = |answer: String, status: &str, body: &str| {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        assert!(
            answer.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{answer}"
        );
    };
    let ours = "Host: 127.0.0.1:7700\r\n\r\n";
    check(ask(&format!("GET / HTTP/1.1\r\n{ours}")).await, "200", "the page");
    check(
        ask(&format!("GET /board HTTP/1.1\r\n{ours}")).await,
        "200",
        r#"{"town":"<b>"}"#,
    );
    check(
        ask(&format!("GET /../etc HTTP/1.1\r\n{ours}")).await,
        "404",
        "there are / and /board",
    );
    check(
        ask(&format!("POST / HTTP/1.1\r\n{ours}")).await,
        "404",
        "there are / and /board",
    );
    let said = |origin: &str, said: &str| {
        let length = said.len();
        let head = "POST /acknowledge HTTP/1.1\r\nHost: 127.0.0.1:7700";
        format!("{head}\r\nOrigin: {origin}\r\nContent-Length: {length}\r\n\r\n{said}")
    };
    let page = "http://127.0.0.1:7700";
    check(ask(&said(page, r#"{"device":"pd"}"#)).await, "200", "seen");
    check(
        ask(&said(page, r#"{"device":"PD"}"#)).await,
        "409",
        r#"{"device":"PD"}"#,
    );
    check(ask(&said(page, "no json")).await, "409", "null");
    check(
        ask(&said("http://127.0.0.1:80", r#"{"device":"pd"}"#)).await,
        "403",
        "only this page may",
    );
    check(
        ask(&said("null", r#"{"device":"pd"}"#)).await,
        "403",
        "only this page may",
    );
    check(
        ask(&format!("POST /acknowledge HTTP/1.1\r\n{ours}")).await,
        "403",
        "only this page may",
    );
    let foreign = "GET /board HTTP/1.1\r\nHost: somewhere.example:7700\r\n\r\n";
    check(ask(foreign).await, "421", "ask 127.0.0.1");
}
