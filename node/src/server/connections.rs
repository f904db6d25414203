//! Connections as they come in: accepted, counted, limited, and closed where nothing comes over them.
//!
//! ```text
//! accept ──> a place ──> HELLO_BYTES within HELLO_TIMEOUT ──> HTTP, which watches over it by itself (pings, heads)
//!   │           └ none free: closed at once      └ else closed
//!   └ fails (no file descriptor left): a pause, then again
//! ```
//!
//! Never here: what is said over a connection. Invariant: whatever goes wrong, the next connection is waited for, and
//! never in a loop that does not sleep.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

use crate::clock::{Instant, monotonic};
use crate::metrics::{Metrics, Present, Process};

/// Silent for so long, a connection is asked whether its other end lives; with the probes it is gone within 20 s.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(3);
const PROBES: u32 = 3;
/// Between a failure to accept and the next try: the process may be out of file descriptors for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A new connection has so long to say its first bytes.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// As many bytes as HTTP/2 begins with. What comes after them has deadlines of its own.
const HELLO_BYTES: usize = 24;
/// Complaints of one kind are this far apart.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// How many connections there may be at once.
#[derive(Copy, Clone, Debug)]
pub(super) struct Most {
    /// In all.
    pub(super) in_all: usize,
    /// From one address.
    pub(super) per_address: usize,
    /// Of the files that the process may open, connections take at most one in so many.
    pub(super) share_of_files: usize,
}

/// Where connections come in.
struct Door {
    port: &'static str,
    in_all: usize,
    per_address: usize,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
    full: Complaint,
    failed: Complaint,
}

#[derive(Default)]
struct Open {
    in_all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The connections of a port, as they come.
pub(super) fn incoming(
    listener: TcpListener,
    port: &'static str,
    most: Most,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<Connection>> {
    let files = usize::try_from(Process::read().open_files_max).unwrap_or(usize::MAX);
    let door = Arc::new(Door {
        port,
        in_all: most.in_all.min(files / most.share_of_files),
        per_address: most.per_address,
        open: Mutex::default(),
        metrics,
        full: Complaint::default(),
        failed: Complaint::default(),
    });
    let accepting = TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .with_keepalive(Some(PROBE_AFTER))
        .with_keepalive_interval(Some(PROBE_EVERY))
        .with_keepalive_retries(Some(PROBES));
    stream::unfold((accepting, door), |(mut accepting, door)| async move {
        let connection = door.next(&mut accepting).await?;
        Some((Ok(connection), (accepting, door)))
    })
}

impl Door {
    /// The next connection that has a place.
    async fn next(
        self: &Arc<Self>,
        accepting: &mut (impl Stream<Item = io::Result<TcpStream>> + Unpin),
    ) -> Option<Connection> {
        loop {
            match accepting.next().await? {
                Ok(stream) => {
                    // Who has no address any more has gone already.
                    let Ok(address) = stream.peer_addr() else { continue };
                    if let Some(place) = self.enter(address.ip().to_canonical()) {
                        return Some(Connection::new(stream, place));
                    }
                    self.metrics.connections.refused.add(1);
                    if let Some(others) = self.full.due() {
                        tracing::warn!(port = self.port, %address, others, "connection refused, there are as many as may be");
                    }
                }
                Err(error) if caller_left(&error) => {}
                Err(error) => {
                    self.metrics.connections.accepts_failed.add(1);
                    if let Some(others) = self.failed.due() {
                        tracing::error!(port = self.port, %error, others, "connection not accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_address.get(&address).copied().unwrap_or(0);
        if open.in_all >= self.in_all || here >= self.per_address {
            return None;
        }
        open.in_all += 1;
        open.by_address.insert(address, here + 1);
        Some(Place {
            door: self.clone(),
            address,
            _present: Present::new(self.metrics.clone(), |metrics| &metrics.connections.open),
        })
    }
}

/// True where the connection failed and not the listener.
fn caller_left(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// One connection's place, for as long as it is open.
struct Place {
    door: Arc<Door>,
    address: IpAddr,
    _present: Present,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.door.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.in_all -= 1;
        if let Some(here) = open.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// Something that may go wrong very often: said at once, then rarely.
#[derive(Default)]
struct Complaint(Mutex<(Option<Instant>, u64)>);

impl Complaint {
    /// Whether to say it now, and how often it was passed over in silence since it was said last.
    fn due(&self) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, passed_over) = *said;
        if last.is_some_and(|last| last.elapsed() < COMPLAIN_EVERY) {
            said.1 += 1;
            return None;
        }
        *said = (Some(monotonic()), 0);
        Some(passed_over)
    }
}

/// A connection that must say something soon.
pub(super) struct Connection {
    stream: TcpStream,
    /// Until it has said enough.
    hello: Option<Hello>,
    place: Place,
}

struct Hello {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Connection {
    fn new(stream: TcpStream, place: Place) -> Connection {
        let hello = Hello {
            until: Box::pin(tokio::time::sleep(HELLO_TIMEOUT)),
            bytes: 0,
        };
        Connection {
            stream,
            hello: Some(hello),
            place,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(hello) = &mut this.hello else { return read };
        if read.is_ready() {
            hello.bytes += buffer.filled().len() - before;
            if hello.bytes >= HELLO_BYTES {
                this.hello = None;
            }
            return read;
        }
        if hello.until.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.place.door.metrics.connections.silent.add(1);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said")))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::DiskReserve;
    use crate::disk::Disk;

    fn door(in_all: usize, per_address: usize) -> (Arc<Door>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let door = Door {
            port: "clients",
            in_all,
            per_address,
            open: Mutex::default(),
            metrics: Arc::new(Metrics::new(Disk::new(dir.path(), DiskReserve::Auto, None).unwrap())),
            full: Complaint::default(),
            failed: Complaint::default(),
        };
        (Arc::new(door), dir)
    }

    #[test]
    fn places_are_limited_in_all_and_by_address_and_come_back() {
        let (door, _dir) = door(3, 2);
        let [a, b, c] = [1, 2, 3].map(|n| IpAddr::from([10, 0, 0, n]));
        let first = door.enter(a).unwrap();
        let _second = door.enter(a).unwrap();
        assert!(door.enter(a).is_none(), "two of an address");
        let _third = door.enter(b).unwrap();
        assert!(door.enter(c).is_none(), "three in all");
        drop(first);
        assert_eq!(door.metrics.connections.open.get(), 2);
        assert!(door.enter(c).is_some(), "a place that was left");
        assert_eq!(
            door.open.lock().unwrap().by_address.len(),
            2,
            "addresses without connections are forgotten"
        );
    }

    #[tokio::test]
    async fn accepting_goes_on_after_failures_and_rests_after_each() {
        let (door, _dir) = door(1, 1);
        let failures = std::iter::repeat_with(|| Err(io::Error::from_raw_os_error(24))).take(3);
        let mut accepting = stream::iter(failures.collect::<Vec<io::Result<TcpStream>>>());
        let began = monotonic();
        assert!(door.next(&mut accepting).await.is_none(), "the listener has ended");
        assert!(began.elapsed() >= 3 * ACCEPT_PAUSE);
        assert_eq!(door.metrics.connections.accepts_failed.get(), 3);
        assert_eq!(door.failed.due(), None, "said once");
    }
}
