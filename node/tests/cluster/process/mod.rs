//! Real `tidemarkd` processes on loopback: start, kill, stop, start again. Never here: what is written to them.
//!
//! Invariant: no process outlives its fleet, every wait has a deadline, and a test that fails prints the logs of its
//! nodes. Ports lie below the range that the kernel gives to outgoing connections, or a node that is down could find
//! its port taken when it comes back.

#![allow(clippy::print_stdout, reason = "figures, seeds and logs of a test go to its output")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tidemark_client::{Client, ClientOptions, Error, v1};

pub(crate) mod import;

/// Longest wait for anything that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const PORTS_FROM: u16 = 20_000;
const PORTS_TO: u16 = 32_000;
/// Ports of one fleet: the first is only held, to keep other fleets away.
const PORTS_EACH: u16 = 8;
const LOG_LINES_SHOWN: usize = 200;

/// Asks again and again until there is an answer; fails with what was awaited.
pub(crate) async fn until<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Ok(Some(answer)) = tokio::time::timeout(within, ask()).await {
            return answer;
        }
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A random number generator whose seed is printed, and taken from `TIDEMARK_SEED` where that is set.
pub(crate) fn seeded() -> StdRng {
    let given = std::env::var("TIDEMARK_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().next_u64());
    println!("TIDEMARK_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A `tidemarkd` with nothing of this environment in it.
pub(crate) fn tidemarkd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemarkd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEMARK_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// One node, which logs what `TIDEMARK_TEST_LOG` says: its folder and addresses, and its process while it runs.
pub(crate) struct Daemon {
    pub(crate) clients: String,
    pub(crate) peers: String,
    pub(crate) data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts the process; what it logs is added to what it logged before.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = tidemarkd();
        command.arg("--data-dir").arg(&self.data);
        command.args(["--listen", &self.clients, "--peer-listen", &self.peers]);
        if let Ok(log) = std::env::var("TIDEMARK_TEST_LOG") {
            command.args(["--log", &log]);
        }
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to stop, as an operator or a service manager does.
    pub(crate) fn terminate(&self) {
        let pid = self.child.as_ref().expect("the node runs").id();
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -TERM {pid}"))
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the node runs");
        let status = until("the process ends", within, async || child.try_wait().unwrap()).await;
        self.child = None;
        status
    }

    /// Starts the process, which must refuse to serve, and gives its last words.
    pub(crate) async fn refuses_to_start(&mut self) -> String {
        let before = self.logged().len();
        self.start();
        let status = self.ended(PATIENCE).await;
        assert_eq!(status.code(), Some(1), "exit code");
        let logged = self.logged();
        let last = logged[before..].lines().last().unwrap_or_default().to_owned();
        println!("refused: {last}");
        assert!(last.starts_with("tidemarkd: "), "no clear last line: {last:?}");
        last
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Everything it logged since the fleet was made.
    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The files that hold the newest records of the node's Raft log, oldest first.
    pub(crate) fn wal_files(&self) -> Vec<PathBuf> {
        let items = fs::read_dir(self.data.join("log/log")).unwrap();
        let files = items.map(|item| item.unwrap().path());
        let mut files: Vec<PathBuf> = files
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .collect();
        files.sort();
        files
    }

    /// Table files of its shards.
    pub(crate) fn tables(&self) -> Vec<PathBuf> {
        let shards = fs::read_dir(self.data.join("groups")).unwrap();
        let shards = shards.map(|entry| entry.unwrap().path());
        let shards = shards.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with("0-"));
        shards.flat_map(|shard| files_below(&shard, "sst")).collect()
    }

    /// A client that knows this node only, to begin with.
    pub(crate) async fn client(&self) -> Client {
        connected(vec![self.clients.clone()]).await
    }
}

/// Nodes that may make up a cluster.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Daemon>,
    dir: tempfile::TempDir,
    _claim: TcpListener,
}

impl Fleet {
    /// Nodes that do not run yet.
    pub(crate) fn new(count: u16) -> Fleet {
        let dir = tempfile::tempdir().unwrap();
        let (claim, first) = claim_ports();
        let nodes = (0..count).map(|number| Daemon {
            clients: format!("127.0.0.1:{}", first + 1 + 2 * number),
            peers: format!("127.0.0.1:{}", first + 2 + 2 * number),
            data: dir.path().join(format!("node-{}", number + 1)),
            log: dir.path().join(format!("node-{}.log", number + 1)),
            child: None,
        });
        Fleet {
            nodes: nodes.collect(),
            dir,
            _claim: claim,
        }
    }

    /// A running cluster.
    pub(crate) async fn cluster(count: u16) -> Fleet {
        let mut fleet = Fleet::new(count);
        fleet.start();
        fleet.init().await.unwrap();
        fleet.healthy().await;
        fleet
    }

    /// Starts every node that does not run.
    pub(crate) fn start(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.child.is_none()) {
            node.start();
        }
    }

    /// `cluster init`, asked of the first node, as soon as all of them answer.
    pub(crate) async fn init(&self) -> Result<v1::InitResponse, Error> {
        for node in &self.nodes {
            node.client().await;
        }
        let request = v1::InitRequest {
            peers: self.nodes.iter().map(|node| node.peers.clone()).collect(),
            ..v1::InitRequest::default()
        };
        let options = ClientOptions {
            timeout: PATIENCE,
            ..options(vec![self.nodes[0].clients.clone()])
        };
        Client::connect_with(options).await?.init_cluster(request).await
    }

    /// A client that knows every node.
    pub(crate) async fn client(&self) -> Client {
        connected(self.nodes.iter().map(|node| node.clients.clone()).collect()).await
    }

    /// Waits until no node has anything to complain of.
    pub(crate) async fn healthy(&self) -> v1::StatusResponse {
        let client = self.client().await;
        until("the cluster is healthy", PATIENCE, async || {
            client.status().await.ok().filter(|s| s.healthy)
        })
        .await
    }

    /// Position of the node that leads most shards.
    pub(crate) async fn busiest(&self) -> usize {
        let status = self.healthy().await;
        let most = status.nodes.iter().max_by_key(|node| node.leaders).unwrap();
        self.position(most.node.as_ref().unwrap().id, &status)
    }

    /// Position of the node with this id.
    pub(crate) fn position(&self, id: u64, status: &v1::StatusResponse) -> usize {
        let known = status
            .nodes
            .iter()
            .filter_map(|node| node.node.as_ref())
            .find(|node| node.id == id)
            .unwrap();
        self.nodes
            .iter()
            .position(|node| node.clients == known.client_address)
            .unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut() {
            if let Some(mut child) = node.child.take() {
                child.kill().ok();
                child.wait().ok();
            }
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                let logged = node.logged();
                let lines: Vec<&str> = logged.lines().collect();
                let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
                println!("---- {} at {}\n{}", node.data.display(), node.clients, shown.join("\n"));
            }
        }
    }
}

fn options(endpoints: Vec<String>) -> ClientOptions {
    ClientOptions {
        endpoints,
        ..ClientOptions::default()
    }
}

async fn connected(endpoints: Vec<String>) -> Client {
    let connect = async || Client::connect_with(options(endpoints.clone())).await.ok();
    until("a node answers", PATIENCE, connect).await
}

/// A run of ports that nobody uses now and no other fleet will use.
fn claim_ports() -> (TcpListener, u16) {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
    for _ in 0..1_000 {
        let first = PORTS_FROM + rand::rng().random_range(0..(PORTS_TO - PORTS_FROM) / PORTS_EACH) * PORTS_EACH;
        if let Ok(claim) = bind(first)
            && (first + 1..first + PORTS_EACH).all(|port| bind(port).is_ok())
        {
            return (claim, first);
        }
    }
    panic!("no free ports");
}

/// Inverts the bits of one byte of a file, in its place; done twice, the file is as before.
pub(crate) fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

/// All files with an extension in a folder and those in it.
fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let found = paths.flat_map(|path| match path.is_dir() {
        true => files_below(&path, extension),
        false if path.extension().is_some_and(|of| of == extension) => vec![path],
        false => Vec::new(),
    });
    found.collect()
}
