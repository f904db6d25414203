//! The nodes as processes: start, kill, stop, start again. Never here: what is asked of them.
//! Invariant: no process outlives its fleet.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};

/// Longest wait for a process to end by itself.
const LAST_WAIT: Duration = Duration::from_secs(30);

/// Where and how nodes run.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The server to run; none: the one beside this program.
    pub(crate) program: Option<PathBuf>,
    /// Folder for data and logs; empty, or made.
    pub(crate) dir: PathBuf,
    /// Node n listens on this port + 10 n.
    pub(crate) port_base: u16,
    /// As `tidemarkd --log` takes it.
    pub(crate) log: String,
    /// Leaves the folder when all went well, too.
    pub(crate) keep: bool,
}

/// A node: its addresses, its folder, and its process while it runs.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) clients: String,
    pub(crate) peers: String,
    pub(crate) data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// All nodes of a run, by number from 1.
#[derive(Debug)]
pub(crate) struct Fleet {
    program: PathBuf,
    dir: PathBuf,
    log: String,
    port_base: u16,
    keep: bool,
    nodes: Vec<Node>,
}

impl Fleet {
    pub(crate) fn new(setup: Setup) -> Result<Fleet> {
        let program = match setup.program {
            Some(path) => path,
            None => std::env::current_exe()?.with_file_name("tidemarkd"),
        };
        ensure!(
            program.is_file(),
            "{} is not there; build it or name it with --tidemarkd",
            program.display()
        );
        fs::create_dir_all(&setup.dir).with_context(|| format!("make {}", setup.dir.display()))?;
        let empty = fs::read_dir(&setup.dir)?.next().is_none();
        ensure!(empty, "{} is not empty; name a folder that is", setup.dir.display());
        Ok(Fleet {
            program,
            dir: setup.dir,
            log: setup.log,
            port_base: setup.port_base,
            keep: setup.keep,
            nodes: Vec::new(),
        })
    }

    /// The server that runs.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Process ids of the nodes that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.child.as_ref()?.id()).collect()
    }

    /// Starts the next node with an empty folder and gives its number. `join`: peer address of a cluster to join.
    pub(crate) fn add(&mut self, join: Option<&str>) -> Result<usize> {
        let number = self.nodes.len() + 1;
        let port = u16::try_from(number)
            .ok()
            .and_then(|number| self.port_base.checked_add(number.checked_mul(10)?))
            .context("no port left; choose a lower --port-base")?;
        self.nodes.push(Node {
            clients: format!("127.0.0.1:{port}"),
            peers: format!("127.0.0.1:{}", port + 1),
            data: self.dir.join(format!("node{number}")),
            log: self.dir.join(format!("node{number}.log")),
            child: None,
        });
        self.start_with(number, join)?;
        Ok(number)
    }

    /// Starts a node that was killed or stopped.
    pub(crate) fn start(&mut self, number: usize) -> Result<()> {
        self.start_with(number, None)
    }

    fn start_with(&mut self, number: usize, join: Option<&str>) -> Result<()> {
        let (program, words) = (self.program.clone(), self.log.clone());
        let node = self.node_mut(number)?;
        let log = File::options().create(true).append(true).open(&node.log)?;
        let mut command = Command::new(&program);
        // What this environment says to a node is meant for another.
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("TIDEMARK_")) {
            command.env_remove(name);
        }
        command.arg("--data-dir").arg(&node.data);
        command.args(["--listen", &node.clients, "--peer-listen", &node.peers, "--log", &words]);
        if let Some(peer) = join {
            command.args(["--join", peer]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        node.child = Some(
            command
                .spawn()
                .with_context(|| format!("start {}", program.display()))?,
        );
        Ok(())
    }

    pub(crate) fn node(&self, number: usize) -> Result<&Node> {
        number
            .checked_sub(1)
            .and_then(|index| self.nodes.get(index))
            .with_context(|| format!("there is no node {number}"))
    }

    fn node_mut(&mut self, number: usize) -> Result<&mut Node> {
        number
            .checked_sub(1)
            .and_then(|index| self.nodes.get_mut(index))
            .with_context(|| format!("there is no node {number}"))
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self, number: usize) -> Result<()> {
        let mut child = self.node_mut(number)?.child.take().context("it does not run")?;
        Ok(child.kill().await?)
    }

    /// Asks it to stop, as an operator or a service manager does, and waits until it has.
    pub(crate) async fn stop(&mut self, number: usize) -> Result<()> {
        let child = self.node_mut(number)?.child.as_ref();
        let pid = child.and_then(Child::id).context("it does not run")?;
        let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        ensure!(sent.success(), "kill -TERM {pid}");
        self.ended(number).await
    }

    /// Waits until a node has ended by itself.
    pub(crate) async fn ended(&mut self, number: usize) -> Result<()> {
        let node = self.node_mut(number)?;
        let child = node.child.as_mut().context("it does not run")?;
        if tokio::time::timeout(LAST_WAIT, child.wait()).await.is_err() {
            bail!("node {number} still runs after {} s", LAST_WAIT.as_secs());
        }
        node.child = None;
        Ok(())
    }

    /// Fails, with the end of its log, when a node that should run does not.
    pub(crate) fn all_run(&mut self) -> Result<()> {
        for (number, node) in (1..).zip(&mut self.nodes) {
            let ended = node.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                let log = fs::read_to_string(&node.log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                bail!(
                    "node {number} ended ({status}): {}",
                    last.into_iter().rev().collect::<Vec<_>>().join(" | ")
                );
            }
        }
        Ok(())
    }

    /// Ends all processes; the folder goes when all went well.
    pub(crate) async fn end(mut self, well: bool) -> Result<()> {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                child.kill().await?;
            }
        }
        if well && !self.keep {
            fs::remove_dir_all(&self.dir)?;
        }
        Ok(())
    }
}

/// Bytes of all files under a folder.
pub(crate) fn folder_bytes(path: &Path) -> u64 {
    let Ok(items) = fs::read_dir(path) else { return 0 };
    let sizes = items.flatten().map(|item| match item.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&item.path()),
        // A file that has just gone takes nothing.
        meta => meta.map_or(0, |meta| meta.len()),
    });
    sizes.sum()
}
