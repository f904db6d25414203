//! An import that remembers what was acknowledged, and holds what a cluster answers against it. Never here: processes.
//!
//! Invariant: every row has one place (device and time) and one value, both functions of its number, so a row that is
//! missing, doubled, moved or changed cannot be mistaken for another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt as _;
use tidemark_client::{Ack, BatchBuilder, Client, Value, WriterOptions, rows, v1};
use tidemark_proto::v1::query_service_client::QueryServiceClient;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Daemon, PATIENCE, until};

const TYPE: &str = "crash_probe";
const DEVICES: i64 = 24;
const ROWS: i64 = 48;
const STEP_NS: i64 = 10_000_000;
const WINDOW_NS: i64 = 1_000_000_000;
const IN_FLIGHT: usize = 8;
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Value of a row: its number, and the bits of a float made of it.
type Record = (i64, u64);
/// What a cluster holds: by device and time, the value and when it was received.
pub(crate) type Held = BTreeMap<(String, i64), (Record, i64)>;

/// What is known of an import.
#[derive(Default)]
struct Book {
    /// Highest sequence given to a writer.
    sent: u64,
    acknowledged: BTreeSet<u64>,
    /// When the last acknowledgement came, and the longest wait for one since it was last asked.
    last: Option<Instant>,
    longest: Duration,
}

/// An import of one producer; survives its writers.
pub(crate) struct Import {
    producer: String,
    begin_ns: i64,
    book: Arc<Mutex<Book>>,
    running: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Import {
    /// Makes the type and the devices, and nothing else yet.
    pub(crate) async fn prepare(client: &Client) -> Import {
        let property = |id: &str, value_type: v1::ValueType| v1::Property {
            id: id.to_owned(),
            value_type: value_type.into(),
            kind: v1::Kind::Gauge.into(),
            ..v1::Property::default()
        };
        let device_type = v1::DeviceType {
            id: TYPE.to_owned(),
            properties: vec![
                property("number", v1::ValueType::I64),
                property("value", v1::ValueType::F64),
            ],
            sample_interval_s: 1,
            retention_days: 3_650,
            ..v1::DeviceType::default()
        };
        client.apply_device_types(vec![device_type]).await.unwrap();
        let device = |id| v1::Device {
            id,
            device_type: TYPE.to_owned(),
            ..v1::Device::default()
        };
        client
            .register_devices((0..DEVICES).map(device_id).map(device).collect())
            .await
            .unwrap();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_nanos() as i64;
        Import {
            producer: format!("crash-{:08x}", rand::rng().random::<u32>()),
            begin_ns: (now - 86_400 * WINDOW_NS) / WINDOW_NS * WINDOW_NS,
            book: Arc::default(),
            running: None,
        }
    }

    /// Goes on where it stopped, as fast as the cluster takes it.
    pub(crate) fn resume(&mut self, client: &Client) {
        assert!(self.running.is_none(), "the import runs already");
        let (stop, stopped) = watch::channel(false);
        let writing = write(
            client.clone(),
            self.producer.clone(),
            self.begin_ns,
            self.book.clone(),
            stopped,
        );
        self.running = Some((stop, tokio::spawn(writing)));
    }

    /// Sends no more, and waits until everything sent is acknowledged.
    pub(crate) async fn finish(&mut self) {
        let (stop, task) = self.running.take().expect("the import runs");
        stop.send_replace(true);
        tokio::time::timeout(2 * PATIENCE, task)
            .await
            .expect("the import ends")
            .expect("every batch is stored");
    }

    /// Forgets the writer with everything in flight, as when the importer itself is killed.
    pub(crate) async fn kill(&mut self) {
        let (_, task) = self.running.take().expect("the import runs");
        task.abort();
        assert!(task.await.is_err_and(|e| e.is_cancelled()), "the import failed before");
    }

    /// Batches acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        lock(&self.book).acknowledged.len()
    }

    /// Waits until this many more batches are acknowledged.
    pub(crate) async fn progress(&self, batches: usize) {
        let enough = self.acknowledged() + batches;
        let what = format!("{batches} more batches are acknowledged");
        until(&what, 2 * PATIENCE, async || {
            (self.acknowledged() >= enough).then_some(())
        })
        .await;
    }

    /// The longest time between two acknowledgements since this was last asked.
    pub(crate) fn longest_silence(&self) -> Duration {
        let mut book = lock(&self.book);
        let open = book
            .last
            .filter(|_| self.running.is_some())
            .map_or(Duration::ZERO, |last| last.elapsed());
        book.last = None;
        std::mem::take(&mut book.longest).max(open)
    }

    /// Everything acknowledged is there, nothing is doubled, and nothing is there that was not sent.
    pub(crate) fn check(&self, held: &Held) {
        let book = lock(&self.book);
        for sequence in &book.acknowledged {
            for number in numbers(*sequence) {
                let found = held.get(&place(self.begin_ns, number)).map(|(record, _)| *record);
                assert_eq!(
                    found,
                    Some(record(number)),
                    "row {number} of acknowledged batch {sequence}"
                );
            }
        }
        for ((device, time), (found, _)) in held {
            let number = (time - self.begin_ns) / STEP_NS;
            assert_eq!(
                (device.clone(), *time),
                place(self.begin_ns, number),
                "a row that nobody sent"
            );
            assert_eq!(*found, record(number), "value of row {number}");
            assert!(number < book.sent as i64 * ROWS, "row {number} was never sent");
        }
    }

    /// After [`Self::finish`]: exactly what was sent is there, row by row and counted per window.
    pub(crate) async fn check_whole(&self, node: &Daemon) -> usize {
        let held = held(node, linearizable()).await;
        self.check(&held);
        let sent = lock(&self.book).sent as i64 * ROWS;
        assert_eq!(held.len() as i64, sent, "rows held");
        let mut expected: BTreeMap<(String, i64), u64> = BTreeMap::new();
        for (device, time) in held.keys() {
            *expected
                .entry((device.clone(), time / WINDOW_NS * WINDOW_NS))
                .or_default() += 1;
        }
        assert_eq!(
            counts(node, self.begin_ns, self.begin_ns + sent * STEP_NS).await,
            expected,
            "counts per window"
        );
        held.len()
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap()
}

impl Book {
    fn take(&mut self, ack: Ack) {
        let stored = ack
            .result
            .unwrap_or_else(|error| panic!("batch {} is refused: {error}", ack.sequence));
        let again = !self.acknowledged.insert(ack.sequence);
        assert!(
            stored.duplicate || !again,
            "batch {} was acknowledged before and stored again",
            ack.sequence
        );
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
    }

    /// The first sequence without an acknowledgement.
    fn first_open(&self) -> u64 {
        (1..).find(|sequence| !self.acknowledged.contains(sequence)).unwrap()
    }
}

async fn write(
    client: Client,
    producer: String,
    begin_ns: i64,
    book: Arc<Mutex<Book>>,
    stopped: watch::Receiver<bool>,
) {
    let first_sequence = lock(&book).first_open();
    lock(&book).last = None;
    let options = WriterOptions {
        producer,
        first_sequence,
        max_in_flight: IN_FLIGHT,
        ..WriterOptions::default()
    };
    let mut writer = client.writer(options);
    // What an earlier writer had in flight is sent again in any case.
    while !*stopped.borrow() || writer.next_sequence() <= lock(&book).sent {
        let sequence = writer.next_sequence();
        {
            let mut book = lock(&book);
            book.sent = book.sent.max(sequence);
        }
        writer.send(batch(begin_ns, sequence)).await.unwrap();
        while let Some(ack) = writer.try_next_ack() {
            lock(&book).take(ack);
        }
    }
    for ack in writer.finish().await.unwrap() {
        lock(&book).take(ack);
    }
}

fn device_id(number: i64) -> String {
    format!("probe-{:02}", number % DEVICES)
}

fn numbers(sequence: u64) -> std::ops::Range<i64> {
    (sequence as i64 - 1) * ROWS..sequence as i64 * ROWS
}

fn place(begin_ns: i64, number: i64) -> (String, i64) {
    (device_id(number), begin_ns + number * STEP_NS)
}

/// A finite float with all bits in use.
fn record(number: i64) -> Record {
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (
        number,
        (1.0 + f64::from_bits(0x3ff0_0000_0000_0000 | mixed >> 12)).to_bits(),
    )
}

fn batch(begin_ns: i64, sequence: u64) -> v1::Batch {
    let mut batch = BatchBuilder::new(TYPE);
    for number in numbers(sequence) {
        let ((device, time), (integer, bits)) = (place(begin_ns, number), record(number));
        batch
            .row(&device, time)
            .set("number", integer)
            .set("value", f64::from_bits(bits));
    }
    batch.build().unwrap()
}

fn all_devices() -> Option<v1::Selector> {
    Some(v1::Selector {
        device_type: TYPE.to_owned(),
        ..v1::Selector::default()
    })
}

pub(crate) fn linearizable() -> v1::Consistency {
    v1::Consistency {
        level: Some(v1::consistency::Level::Linearizable(v1::Linearizable {})),
    }
}

/// What this node's own replicas hold.
pub(crate) fn any() -> v1::Consistency {
    v1::Consistency {
        level: Some(v1::consistency::Level::Any(v1::AnyReplica {})),
    }
}

/// Every row, asked of this node and no other; waits until it can answer.
pub(crate) async fn held(node: &Daemon, consistency: v1::Consistency) -> Held {
    until("a node answers a range", PATIENCE, async || {
        try_held(node, consistency).await.ok()
    })
    .await
}

/// The same, asked once.
pub(crate) async fn try_held(node: &Daemon, consistency: v1::Consistency) -> Result<Held, Box<dyn std::error::Error>> {
    let client = QueryServiceClient::connect(format!("http://{}", node.clients)).await?;
    let request = v1::QueryRangeRequest {
        selector: all_devices(),
        from_ns: 0,
        to_ns: i64::MAX - 1,
        consistency: Some(consistency),
        ..v1::QueryRangeRequest::default()
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(PATIENCE / 3);
    let mut answer = client
        .max_decoding_message_size(ANSWER_BYTES_MAX)
        .query_range(request)
        .await?
        .into_inner();
    let (mut held, mut whole) = (Held::new(), false);
    while let Some(message) = answer.message().await? {
        whole |= message.summary.is_some();
        for row in message.batch.iter().flat_map(rows) {
            let value = |property| {
                row.values
                    .iter()
                    .find(|(id, _)| *id == property)
                    .map(|(_, value)| value)
            };
            let (Some(Value::I64(number)), Some(Value::F64(float))) = (value("number"), value("value")) else {
                panic!("a row without its values: {row:?}");
            };
            let received_at_ns = row.received_at_ns.expect("answers say when a row was received");
            let before = held.insert(
                (row.device.to_owned(), row.observed_at_ns),
                ((*number, float.to_bits()), received_at_ns),
            );
            assert!(before.is_none(), "a row twice: {row:?}");
        }
    }
    if whole { Ok(held) } else { Err("no summary".into()) }
}

/// Rows per device and window, as the cluster counts them.
async fn counts(node: &Daemon, from_ns: i64, to_ns: i64) -> BTreeMap<(String, i64), u64> {
    let request = v1::QueryAggregateRequest {
        selector: all_devices(),
        properties: vec!["number".to_owned()],
        functions: vec![v1::Function::Count.into()],
        from_ns,
        to_ns,
        window: Some(v1::Window {
            step_ns: WINDOW_NS,
            origin_ns: 0,
            length_ns: 0,
            ..Default::default()
        }),
        ..v1::QueryAggregateRequest::default()
    };
    let (messages, _) = node
        .client()
        .await
        .query_aggregate(request)
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let mut counts = BTreeMap::new();
    for series in messages.into_iter().flat_map(|message| message.series) {
        let values = series.columns[0].values.as_ref().unwrap();
        for (at, start_ns) in series.start_ns.iter().enumerate() {
            let Some(Value::I64(count)) = tidemark_client::value_at(values, at) else {
                panic!("a count is an integer")
            };
            counts.insert((series.device.clone(), *start_ns), count as u64);
        }
    }
    counts
}
