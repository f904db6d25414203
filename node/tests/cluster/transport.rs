//! What comes over the ports of a node and is no request: bytes, silence, halves of messages, too many connections.
//! Never here: requests that are whole and wrong (`refusals.rs`). Invariant: after each, another client writes as before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::fleet::*;
use crate::common::{TestCluster, eventually};
use tidemark_client::{BatchBuilder, Client, Error, v1};
use tidemark_node::clock::now_ns;
use tidemark_node::config::Tuning;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const WRITE: &str = "/tidemark.v1.IngestService/Write";
/// Longest wait for a node to close a connection, or to answer.
const SOON: Duration = Duration::from_secs(20);
/// The longest that a frame may be.
const FRAME_BYTES: usize = 16_384;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A cluster of one node that has its types and a device, and a client of it that writes.
async fn furnished(tuning: Tuning) -> (TestCluster, Client) {
    let cluster = TestCluster::start_with(1, tuning).await;
    let client = cluster.client().await;
    furnish(&client, &["m1"]).await;
    (cluster, client)
}

async fn writes_on(client: &Client, after: &str) {
    let stored = client.write(write(one("level", 1.0))).await;
    assert_eq!(stored.expect(after).points, 1, "after {after}");
}

/// Requests of a method that ended so.
async fn ended(cluster: &TestCluster, method: &str, reason: &str) -> u64 {
    let name = format!("tidemark_requests_total{{method=\"{method}\",reason=\"{reason}\"}} ");
    let (_, text) = cluster.get(0, "/metrics").await;
    let count = text.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.parse().unwrap())
}

/// Waits until the other side closes.
async fn closed(mut stream: TcpStream, what: &str) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    // A reset is an end too.
    drop(ended.unwrap_or_else(|_| panic!("{what}: the connection stays open")));
}

/// HTTP/2 by hand, one stream: as much of a request as a case wants to send.
struct Half(TcpStream);

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

/// A header as HPACK spells it without any of its tables.
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

impl Half {
    /// The head of a request, and nothing of what it asks.
    async fn begin(address: String, path: &str, metadata: &[(&str, &str)]) -> Half {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut headers = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "node"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        headers.extend(metadata);
        let headers: Vec<u8> = headers.iter().flat_map(|(name, value)| header(name, value)).collect();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        bytes.extend(frame(HEADERS, END_HEADERS, 1, &headers));
        stream.write_all(&bytes).await.unwrap();
        Half(stream)
    }

    async fn send(&mut self, body: &[u8]) {
        for piece in body.chunks(FRAME_BYTES) {
            self.0.write_all(&frame(DATA, 0, 1, piece)).await.unwrap();
        }
    }

    async fn end(&mut self) {
        self.0.write_all(&frame(DATA, END_STREAM, 1, &[])).await.unwrap();
    }

    /// Waits for the head of an answer; what it says is read from the node's metrics.
    async fn answered(&mut self, what: &str) {
        let answered = async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                self.0.read_exact(&mut vec![0; length]).await.unwrap();
                if head[3] == HEADERS {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(SOON, answered).await;
        waited.unwrap_or_else(|_| panic!("{what}: no answer"));
    }
}

/// A message of the library's form that announces so many bytes and has these.
fn message(announced: u32, bytes: &[u8]) -> Vec<u8> {
    [&[0], &announced.to_be_bytes()[..], bytes].concat()
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_connection() {
    let (cluster, client) = furnished(Tuning::default()).await;
    let mut hello = vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    hello.resize(205, 0x5a);
    for (what, bytes) in [("garbage", vec![0xff; 100]), ("a TLS hello", hello)] {
        for address in [cluster.client_address(0), cluster.peer_address(0)] {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            closed(stream, what).await;
            writes_on(&client, what).await;
        }
    }
}

/// What it is, metadata, body, whether the body ends, and the reason that it is refused for.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>, bool, &'a str);

#[tokio::test]
async fn halves_of_messages_are_refused_at_once() {
    let (cluster, client) = furnished(Tuning::default()).await;
    let whole = message(0, &[]);
    let cases: Vec<Case<'_>> = vec![
        (
            "1 GiB announced",
            &[],
            message(1 << 30, &[]),
            false,
            "MESSAGE_TOO_LARGE",
        ),
        (
            "a message cut short",
            &[],
            message(100, &[7; 10]),
            true,
            "MALFORMED_MESSAGE",
        ),
        ("half of a head", &[], vec![0, 0], true, "MALFORMED_MESSAGE"),
        ("no message", &[], vec![], true, "MALFORMED_MESSAGE"),
        (
            "a flag that is none",
            &[],
            vec![9, 0, 0, 0, 0],
            true,
            "MALFORMED_MESSAGE",
        ),
        (
            "compressed by nothing",
            &[],
            vec![1, 0, 0, 0, 0],
            true,
            "MALFORMED_MESSAGE",
        ),
        (
            "two messages",
            &[],
            [whole.clone(), whole.clone()].concat(),
            true,
            "MALFORMED_MESSAGE",
        ),
        (
            "a timeout in words",
            &[("grpc-timeout", "soon")],
            whole.clone(),
            true,
            "INVALID_VALUE",
        ),
        (
            "a timeout of 1 ns",
            &[("grpc-timeout", "1n")],
            whole.clone(),
            true,
            "DEADLINE_EXCEEDED",
        ),
        (
            "a timeout of 50 ms",
            &[("grpc-timeout", "50m")],
            vec![],
            false,
            "DEADLINE_EXCEEDED",
        ),
        ("all of it, and no batch in it", &[], whole, true, "MISSING_FIELD"),
    ];
    for (what, metadata, body, whole, reason) in cases {
        let before = ended(&cluster, "Write", reason).await;
        let mut half = Half::begin(cluster.client_address(0), WRITE, metadata).await;
        half.send(&body).await;
        if whole {
            half.end().await;
        }
        half.answered(what).await;
        assert_eq!(ended(&cluster, "Write", reason).await, before + 1, "{what}: {reason}");
        writes_on(&client, what).await;
    }
}

#[tokio::test]
async fn what_no_method_takes_is_refused() {
    let (cluster, client) = furnished(Tuning::default()).await;
    for path in ["/tidemark.v1.IngestService/Destroy", "/tidemark.v9.Nothing/Write", "/"] {
        let error = cluster.at(0).raw(path, Vec::new()).await.unwrap_err();
        assert_eq!(error.code, tidemark_client::Code::Unimplemented, "{path}: {error:?}");
        writes_on(&client, path).await;
    }
    let with = |name: &'static str, value: String| {
        let mut request = tonic::Request::new(write(one("level", 1.0)));
        request.metadata_mut().insert(name, value.parse().unwrap());
        let mut ingest = cluster.at(0).ingest();
        async move { Error::from(ingest.write(request).await.unwrap_err()) }
    };
    let error = with("grpc-encoding", "gzip".into()).await;
    assert_eq!(error.code, tidemark_client::Code::Unimplemented, "{error:?}");
    for timeout in ["soon", "5", "-1S", "999999999S"] {
        let error = with("grpc-timeout", timeout.into()).await;
        let expected =
            "INVALID_ARGUMENT INVALID_VALUE grpc-timeout; give at most eight digits and a unit of H, M, S, m, u or n";
        assert_eq!(shown(&error), expected, "{timeout}");
    }
    // HTTP/2 refuses it, and says so with a status of its own.
    let error = with("filler", "x".repeat(20_000)).await;
    assert!(error.message.contains("431"), "{error:?}");
    writes_on(&client, "20 kB of metadata").await;
}

#[tokio::test]
async fn silence_ends_after_ten_seconds() {
    let (cluster, client) = furnished(Tuning::default()).await;
    let began = Instant::now();
    let [clients, peers] = [cluster.client_address(0), cluster.peer_address(0)];
    let says = async |address: &str, bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    };
    let silent = [
        says(&clients, b"").await,
        says(&clients, b"PRI * HTTP").await,
        says(&peers, b"").await,
    ];
    let mut only_head = Half::begin(clients.clone(), WRITE, &[]).await;
    let mut only_announced = Half::begin(clients.clone(), WRITE, &[]).await;
    only_announced.send(&message(4 << 20, &[])).await;
    let mut question = Half::begin(clients, "/tidemark.v1.QueryService/QueryRange", &[]).await;
    question.send(&message(10, &[7; 5])).await;
    // Whoever says something stays.
    let stays = cluster.at(0);
    stays.status().await.unwrap();

    let silent = futures_util::future::join_all(silent.map(|stream| closed(stream, "silence")));
    tokio::join!(
        silent,
        only_head.answered("the head of a write"),
        only_announced.answered("4 MiB announced"),
        question.answered("half a question"),
    );
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(cluster.metric(0, "tidemark_connections_silent_total").await, 3);
    assert_eq!(ended(&cluster, "Write", "DEADLINE_EXCEEDED").await, 2);
    assert_eq!(ended(&cluster, "QueryRange", "DEADLINE_EXCEEDED").await, 1);
    stays.status().await.unwrap();
    writes_on(&client, "silence").await;
}

#[tokio::test]
async fn connections_past_the_limit_are_closed_and_the_others_live() {
    let tuning = Tuning {
        connections_max: 6,
        ..Tuning::default()
    };
    let (cluster, client) = furnished(tuning).await;
    writes_on(&client, "nothing").await;
    let refused = Arc::new(AtomicUsize::new(0));
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (address, refused) = (cluster.client_address(0), refused.clone());
        crowd.spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            closed(stream, "one too many").await;
            refused.fetch_add(1, Ordering::SeqCst);
        });
    }
    eventually("those past the limit are closed", || async {
        match refused.load(Ordering::SeqCst) {
            n @ ..14 => Err(format!("{n} closed")),
            _ => Ok(()),
        }
    })
    .await;
    writes_on(&client, "a crowd").await;
    crowd.shutdown().await;
    let counted = eventually("there are places again", || async {
        let mut stream = TcpStream::connect(cluster.client_address(0)).await.unwrap();
        let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        asked.await.map_err(|e| e.to_string())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(|e| e.to_string())?;
        let name = "tidemark_connections_refused_total ";
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.map(|n| n.parse::<usize>().unwrap()).ok_or("refused".to_string())
    })
    .await;
    assert!(counted >= 14, "{counted}");
}

#[tokio::test]
async fn bytes_of_writes_are_counted_as_they_come_and_limited() {
    let tuning = Tuning {
        write_bytes_in_flight_max: 64 << 10,
        ..Tuning::default()
    };
    let (cluster, client) = furnished(tuning).await;
    let in_flight = |bytes: u64| {
        let cluster = &cluster;
        eventually("bytes in flight", move || async move {
            match cluster.metric(0, "tidemark_write_in_flight_bytes").await {
                seen if seen == bytes => Ok(()),
                seen => Err(format!("{seen} instead of {bytes}")),
            }
        })
    };
    let now = now_ns();
    let large = || write(batch(METER, "level", (0..2_500).map(|i| ("m1", now - i * S, i as f64))));
    assert!(
        (40_000..60_000).contains(&prost::Message::encoded_len(&large())),
        "two do not fit"
    );
    cluster.at(0).write(large()).await.unwrap();

    let mut resting = Half::begin(cluster.client_address(0), WRITE, &[]).await;
    resting.send(&message(60 << 10, &[0; (40 << 10) - 5])).await;
    in_flight(40 << 10).await;
    let error = cluster.at(0).write(large()).await.unwrap_err();
    assert_eq!(shown(&error), "RESOURCE_EXHAUSTED OVERLOADED");
    let after = error.retry_after.unwrap().as_millis();
    assert!((50..=250).contains(&after), "{after} ms");
    assert_eq!(ended(&cluster, "Write", "OVERLOADED").await, 1);
    assert_eq!(
        cluster
            .metric(0, "tidemark_write_failures_total{reason=\"OVERLOADED\"}")
            .await,
        1
    );
    writes_on(&client, "a batch too many").await;
    drop(resting);
    in_flight(0).await;
    cluster.at(0).write(large()).await.unwrap();
    in_flight(0).await;
}

#[tokio::test]
async fn a_batch_that_its_client_gave_up_is_stored_whole() {
    let mut cluster = TestCluster::start(3).await;
    let client = cluster.client_at(0).await;
    let ids: Vec<String> = (0..32).map(|i| format!("m{i}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    furnish(&client, &names).await;
    let sweep = |t: i64| {
        let mut batch = BatchBuilder::new(METER);
        for id in &ids {
            batch.row(id, t).set("level", 1.0);
        }
        write(batch.build().unwrap())
    };
    // From now on the node knows where each device is.
    cluster.at(0).write(sweep(now_ns() - MIN)).await.unwrap();
    let led_elsewhere = || async {
        let status = cluster.at(0).status().await.map_err(|e| e.to_string())?;
        let leaders: Vec<u64> = status.shards[1..].iter().map(|shard| shard.leader_node).collect();
        let elsewhere = leaders
            .iter()
            .find(|node| **node > 1 && leaders.iter().any(|other| other != *node));
        elsewhere.copied().ok_or(format!("{leaders:?}"))
    };
    let victim = eventually("another node leads some shards", led_elsewhere).await;
    cluster.drop_node(usize::try_from(victim).unwrap() - 1).await;

    let late = now_ns();
    let mut request = tonic::Request::new(sweep(late));
    // Longer than a busy machine takes to begin with it, shorter than an election takes.
    request.set_timeout(Duration::from_secs(1));
    let gave_up = cluster.at(0).ingest().write(request).await;
    assert!(gave_up.is_err(), "a shard has no leader: {gave_up:?}");
    drop(gave_up);
    eventually("every row is stored", || async {
        let read = v1::QueryRangeRequest {
            from_ns: late,
            to_ns: late + 1,
            ..everything(of_type(METER))
        };
        let (messages, _) = cluster.at(0).range(read).await.map_err(|e| e.to_string())?;
        match points(&messages).len() {
            32 => Ok(()),
            stored => Err(format!("{stored} of 32 rows")),
        }
    })
    .await;
}
