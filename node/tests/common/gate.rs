//! A way to a node on which bytes can be held back and let through later, in order. What the node answers passes.
//! Never here: what the bytes are. Invariant: nothing is lost, doubled or overtaken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{mpsc, watch};

/// Bytes that come belong to the section that has begun last; those of sections that are open pass.
pub(crate) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    section: AtomicU64,
    open_upto: watch::Sender<u64>,
    /// Times that bytes came and were held.
    held: AtomicU64,
}

impl Gate {
    /// Before a node that listens or will listen there; open.
    pub(crate) async fn before(node: String) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            section: AtomicU64::new(0),
            open_upto: watch::Sender::new(0),
            held: AtomicU64::new(0),
        });
        let of_all = shared.clone();
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                if let Ok(node) = TcpStream::connect(&node).await {
                    caller.set_nodelay(true).unwrap();
                    node.set_nodelay(true).unwrap();
                    let ((from, mut back), (mut answers, to)) = (caller.into_split(), node.into_split());
                    tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
                    pass(of_all.clone(), from, to);
                }
            }
        });
        Gate { address, shared }
    }

    /// Where others reach the node.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on bytes are of a new section; its number.
    pub(crate) fn begin_section(&self) -> u64 {
        self.shared.section.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Lets sections up to this one pass, and the bytes of them that wait.
    pub(crate) fn open_upto(&self, section: u64) {
        self.shared.open_upto.send_replace(section);
    }

    /// How often bytes came that had to wait.
    pub(crate) fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }
}

/// Pieces of one connection that may wait: far more than a test has on their way.
const PIECES_MAX: usize = 4_096;

/// Carries one connection's bytes to the node.
fn pass(shared: Arc<Shared>, mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) {
    let (queue, mut waiting) = mpsc::channel::<(u64, Vec<u8>)>(PIECES_MAX);
    let mut open_upto = shared.open_upto.subscribe();
    tokio::spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            let section = shared.section.load(Ordering::SeqCst);
            if section > *shared.open_upto.borrow() {
                shared.held.fetch_add(1, Ordering::SeqCst);
            }
            if queue.send((section, bytes[..read].to_vec())).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((section, bytes)) = waiting.recv().await {
            let opened = open_upto.wait_for(|open| *open >= section).await.is_ok();
            if !opened || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}
