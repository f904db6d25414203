//! Real nodes in one process, on free ports, with RocksDB in temporary folders; and what all tests say in the same words.
//!
//! Never here: cases. Invariant: a node has a runtime of its own, so that stopping it ends every task it started; its
//! ports stay reserved while it is down.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub(crate) mod afternoon;
pub(crate) mod alarm;
pub(crate) mod alerted;
pub(crate) mod columns;
pub(crate) mod derived;
pub(crate) mod direct;
pub(crate) mod fleet;
pub(crate) mod gate;
pub(crate) mod judged;
pub(crate) mod operator;
pub(crate) mod placed;
pub(crate) mod program;
pub(crate) mod random;
pub(crate) mod recomputed;
pub(crate) mod recordings;
pub(crate) mod story;
pub(crate) mod watch;
pub(crate) mod zones;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidemark_client::{Client, ClientOptions, v1};
use tidemark_node::config::{Config, Tuning};
use tidemark_node::server::Node;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use direct::Direct;
use gate::Gate;

/// Longest wait for anything.
const EVENTUALLY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const CACHE_MIB: usize = 8;

/// Many tests share few cores: that the disk is slow for a while is no failure.
fn patient() -> ClientOptions {
    ClientOptions {
        attempt_timeout: Duration::from_secs(8),
        timeout: Duration::from_secs(30),
        ..ClientOptions::default()
    }
}

/// Looks until there is an answer, or fails with what was seen last.
pub(crate) async fn eventually<T, Fut>(what: &str, mut look: impl FnMut() -> Fut) -> T
where
    Fut: Future<Output = Result<T, String>>,
{
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(
                began.elapsed() < EVENTUALLY,
                "{what}: not within {EVENTUALLY:?}; seen last: {seen}"
            ),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How a node is told to end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Ending {
    /// As by SIGTERM.
    Clean,
    /// Every task dropped where it stands: no hand-over, no flush.
    Abrupt,
}

struct Running {
    end: oneshot::Sender<Ending>,
    /// Ends with what made the node stop by itself, if it did.
    thread: JoinHandle<Option<String>>,
}

struct TestNode {
    config: Config,
    /// Bound and never listening: nobody else is given these ports.
    _ports: [TcpSocket; 2],
    running: Option<Running>,
}

/// Some nodes, most of them in one cluster. Nodes are counted from 0; node `i` has id `i + 1` in the cluster.
pub(crate) struct TestCluster {
    nodes: Vec<TestNode>,
    tuning: Tuning,
    dir: TempDir,
}

impl TestCluster {
    /// `n` nodes in one cluster with the default numbers of shards and replicas.
    pub(crate) async fn start(n: usize) -> TestCluster {
        TestCluster::start_with(n, Tuning::default()).await
    }

    /// The same, with other times to flush.
    pub(crate) async fn start_with(n: usize, tuning: Tuning) -> TestCluster {
        let mut cluster = TestCluster::uninitialised(n, tuning).await;
        cluster.init().await;
        cluster
    }

    /// A cluster of a certain shape: shards and replication factor.
    pub(crate) async fn start_shaped(n: usize, shards: u32, factor: u32) -> TestCluster {
        let cluster = TestCluster::uninitialised(n, Tuning::default()).await;
        let request = v1::InitRequest {
            peers: (0..n).map(|i| cluster.peer_address(i)).collect(),
            shards,
            replication_factor: factor,
        };
        cluster.at(0).init(request).await.unwrap();
        cluster
    }

    /// `n` nodes that belong to no cluster yet.
    pub(crate) async fn uninitialised(n: usize, tuning: Tuning) -> TestCluster {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = TestCluster {
            nodes: Vec::new(),
            tuning,
            dir,
        };
        for _ in 0..n {
            cluster.add().await;
        }
        cluster
    }

    /// Makes one cluster of all nodes.
    pub(crate) async fn init(&mut self) -> v1::InitResponse {
        let peers = (0..self.nodes.len()).map(|i| self.peer_address(i)).collect();
        let request = v1::InitRequest {
            peers,
            ..v1::InitRequest::default()
        };
        self.at(0).init(request).await.unwrap()
    }

    /// Starts one more node, in no cluster; gives its number.
    pub(crate) async fn add(&mut self) -> usize {
        self.add_in("", Vec::new()).await
    }

    /// Starts one more node, which others reach through a gate.
    pub(crate) async fn add_behind_gate(&mut self) -> Gate {
        let ports = [reserve(), reserve()];
        let gate = Gate::before(ports[1].local_addr().unwrap().to_string()).await;
        self.add_at(ports, "", Vec::new(), Some(gate.address())).await;
        gate
    }

    /// Starts one more node in a zone, which joins the cluster of one of these peers.
    pub(crate) async fn add_in(&mut self, zone: &str, join: Vec<String>) -> usize {
        self.add_at([reserve(), reserve()], zone, join, None).await
    }

    async fn add_at(
        &mut self,
        ports: [TcpSocket; 2],
        zone: &str,
        join: Vec<String>,
        advertise_peer: Option<String>,
    ) -> usize {
        let i = self.nodes.len();
        let address = |at: usize| ports[at].local_addr().unwrap().to_string();
        let config = Config {
            data_dir: self.dir.path().join(format!("node-{i}")),
            listen: address(0),
            peer_listen: address(1),
            advertise_peer,
            cache_mib: CACHE_MIB,
            log: String::new(),
            zone: zone.into(),
            join,
            tuning: Tuning {
                disk_free: Some(Arc::new(AtomicU64::new(u64::MAX))),
                ..self.tuning.clone()
            },
            ..Config::default()
        };
        self.nodes.push(TestNode {
            config,
            _ports: ports,
            running: None,
        });
        self.restart(i).await;
        i
    }

    /// Starts a node that is down, on the data and ports it had.
    pub(crate) async fn restart(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        assert!(node.running.is_none(), "node {i} runs");
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let config = node.config.clone();
        let thread = std::thread::Builder::new().name(format!("node-{i}"));
        let thread = thread.spawn(move || run(config, ready, ended)).unwrap();
        node.running = Some(Running { end, thread });
        is_ready.await.unwrap_or_else(|_| panic!("node {i} did not start"));
    }

    /// Stops a node as SIGTERM does.
    pub(crate) async fn stop(&mut self, i: usize) {
        self.end(i, Ending::Clean).await;
    }

    /// Drops a node where it stands.
    pub(crate) async fn drop_node(&mut self, i: usize) {
        self.end(i, Ending::Abrupt).await;
    }

    async fn end(&mut self, i: usize, ending: Ending) {
        let running = self.nodes[i]
            .running
            .take()
            .unwrap_or_else(|| panic!("node {i} is down"));
        running.end.send(ending).unwrap();
        let joined = tokio::task::spawn_blocking(move || running.thread.join())
            .await
            .unwrap();
        match joined {
            Ok(None) => {}
            Ok(Some(why)) => panic!("node {i} had ended by itself: {why}"),
            Err(_) => panic!("node {i} panicked"),
        }
    }

    /// Waits until a node stops by itself, and says why it did.
    pub(crate) async fn ended(&mut self, i: usize) -> String {
        let running = self.nodes[i].running.take().unwrap();
        let joined = tokio::task::spawn_blocking(move || running.thread.join());
        let ended = tokio::time::timeout(EVENTUALLY, joined).await;
        ended.expect("the node stops").unwrap().unwrap().unwrap_or_default()
    }

    /// Why a node does not start on the data that it has.
    pub(crate) async fn refuses_to_start(&self, i: usize) -> String {
        let refused = Node::open(self.nodes[i].config.clone()).await;
        refused.err().expect("the node does not start").to_string()
    }

    /// Empties the data folder of a node that is down.
    pub(crate) fn wipe(&self, i: usize) {
        assert!(self.nodes[i].running.is_none(), "node {i} runs");
        std::fs::remove_dir_all(&self.nodes[i].config.data_dir).unwrap();
    }

    pub(crate) fn client_address(&self, i: usize) -> String {
        self.nodes[i].config.listen.clone()
    }

    pub(crate) fn peer_address(&self, i: usize) -> String {
        self.nodes[i].config.peer_address().to_string()
    }

    /// Sets the free bytes that a node sees on its disk.
    pub(crate) fn set_disk_free(&self, i: usize, bytes: u64) {
        let free = self.nodes[i].config.tuning.disk_free.as_ref().unwrap();
        free.store(bytes, Ordering::Relaxed);
    }

    /// Folder of a node's data.
    pub(crate) fn data_dir(&self, i: usize) -> PathBuf {
        self.nodes[i].config.data_dir.clone()
    }

    /// A client that knows every node.
    pub(crate) async fn client(&self) -> Client {
        self.client_of((0..self.nodes.len()).map(|i| self.client_address(i)).collect())
            .await
    }

    /// A client that starts at one node; it learns the others from it.
    pub(crate) async fn client_at(&self, i: usize) -> Client {
        self.client_of(vec![self.client_address(i)]).await
    }

    /// A client that gives up early.
    pub(crate) async fn client_in_a_hurry(&self, i: usize, timeout: Duration) -> Client {
        let options = ClientOptions {
            endpoints: vec![self.client_address(i)],
            timeout,
            ..ClientOptions::default()
        };
        Client::connect_with(options).await.unwrap()
    }

    /// A client of an application, that starts at one node.
    pub(crate) async fn client_for(&self, i: usize, application: &str) -> Client {
        let options = ClientOptions {
            endpoints: vec![self.client_address(i)],
            application: Some(application.into()),
            ..patient()
        };
        Client::connect_with(options).await.unwrap()
    }

    async fn client_of(&self, endpoints: Vec<String>) -> Client {
        let options = ClientOptions { endpoints, ..patient() };
        Client::connect_with(options).await.unwrap()
    }

    /// A counter that node `i` shows to Prometheus.
    pub(crate) async fn metric(&self, i: usize, name: &str) -> u64 {
        let (_, text) = self.get(i, "/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    /// Code and body of an HTTP request to node `i`.
    pub(crate) async fn get(&self, i: usize, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.client_address(i)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_string())
    }

    /// Calls at this node and no other, without retries.
    pub(crate) fn at(&self, i: usize) -> Direct {
        Direct::new(&self.client_address(i))
    }

    /// Waits until the cluster says that nothing is wrong, as one node sees it.
    pub(crate) async fn healthy(&self, i: usize) -> v1::StatusResponse {
        let node = self.at(i);
        eventually("the cluster is healthy", || {
            let node = node.clone();
            async move {
                let status = node.status().await.map_err(|e| e.to_string())?;
                if status.healthy {
                    Ok(status)
                } else {
                    Err(format!("{:?}", status.problems))
                }
            }
        })
        .await
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(running) = node.running.take() {
                running.end.send(Ending::Abrupt).ok();
                running.thread.join().ok();
            }
        }
    }
}

/// A port of our own, kept by a socket that never listens.
fn reserve() -> TcpSocket {
    let socket = reusable();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket
}

fn reusable() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
}

fn listen(address: &str) -> TcpListener {
    let socket = reusable();
    socket.bind(address.parse().unwrap()).unwrap();
    socket.listen(1024).unwrap()
}

/// A whole node on a runtime of its own.
fn run(config: Config, ready: oneshot::Sender<()>, mut ended: oneshot::Receiver<Ending>) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let why = runtime.block_on(async {
        let (clients, peers) = (listen(&config.listen), listen(&config.peer_listen));
        let node = Node::open(config).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = std::pin::pin!(node.serve(clients, peers, async move {
            stopped.await.ok();
        }));
        ready.send(()).ok();
        let ending = tokio::select! {
            served = &mut serving => return Some(served.expect_err("an end by itself has a reason").to_string()),
            ending = &mut ended => ending.unwrap_or(Ending::Abrupt),
        };
        if ending == Ending::Clean {
            stop.send(()).unwrap();
            serving.await.unwrap();
        }
        None
    });
    runtime.shutdown_timeout(EVENTUALLY);
    why
}
