//! `tidemarkd`: reads the configuration, binds the ports, serves until SIGTERM or Ctrl-C.

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::net;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tidemark_node::clock::monotonic;
use tidemark_node::config::{self, Action, Config, Invocation, Refused};
use tidemark_node::error::Error;
use tidemark_node::server::Node;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
const PORT_WAIT: Duration = Duration::from_secs(3);
const PORT_PAUSE: Duration = Duration::from_millis(100);

/// Exit code of settings or arguments that are not good: trying again does not help.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let Invocation { action, settings } = match config::from_process() {
        Ok(invocation) => invocation,
        Err(Refused::Usage(error)) => {
            // Help and version are answers, the rest are complaints: clap knows where each goes.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
        Err(Refused::Settings(faults)) => {
            for fault in faults {
                complain(&fault);
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match action {
        Action::Serve => ended(run(serve(settings.config))),
        Action::Health { endpoint } => ended(run(health(endpoint))),
        Action::PrintConfig => say(&settings.to_toml()),
        Action::CheckConfig => say("the settings are good\n"),
    }
}

/// Does the work of a process on a runtime of its own.
fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "logs may not be set up yet")]
fn complain(fault: &str) {
    eprintln!("tidemarkd: {fault}");
}

/// What was asked for. A reader that has gone away has read enough.
fn say(text: &str) -> ExitCode {
    std::io::stdout().write_all(text.as_bytes()).ok();
    ExitCode::SUCCESS
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // From here on a signal stops the node cleanly, also one that comes while it opens its data.
    let stop = stop_signal()?;
    let who = start_logs(&config)?;
    let clients = bind(&config.listen, config.insecure).await?;
    let peers = bind(&config.peer_listen, config.insecure).await?;
    let node = Node::open(config.clone()).await.map_err(for_people)?;
    who.set(Box::new(node.who())).ok();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        clients = %clients.local_addr()?,
        peers = %peers.local_addr()?,
        data_dir = %config.data_dir.display(),
        "serving"
    );
    notify("READY=1");
    let stop = async {
        stop.await;
        notify("STOPPING=1");
    };
    node.serve(clients, peers, stop).await?;
    tracing::info!("stopped");
    Ok(())
}

/// A failure to start, without the reason code that clients get.
fn for_people(error: Error) -> anyhow::Error {
    match error.hint_text() {
        "" => anyhow!("{}", error.message()),
        hint => anyhow!("{}; {hint}", error.message()),
    }
}

fn start_logs(config: &Config) -> anyhow::Result<Arc<OnceLock<Who>>> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).context("--log")?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let who = Arc::new(OnceLock::new());
    match config.log_json {
        true => logs
            .json()
            .map_event_format(|json| Signed { json, who: who.clone() })
            .init(),
        false => logs.with_ansi(false).init(),
    }
    Ok(who)
}

/// Says who this node is, once it is somebody.
type Who = Box<dyn Fn() -> Option<(u64, String)> + Send + Sync>;

/// Events as JSON objects, one a line, with the node and its cluster in front: many nodes log to one place.
struct Signed<J> {
    json: J,
    who: Arc<OnceLock<Who>>,
}

impl<S, N, J> FormatEvent<S, N> for Signed<J>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    J: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.json.format_event(context, Writer::new(&mut line), event)?;
        match (self.who.get().and_then(|who| who()), line.strip_prefix('{')) {
            // A cluster id is hexadecimal: nothing in it to escape.
            (Some((node, cluster)), Some(rest)) => write!(out, "{{\"node\":{node},\"cluster\":\"{cluster}\",{rest}"),
            _ => out.write_str(&line),
        }
    }
}

/// Tells the service manager, where there is one that listens. It is told for its own sake: a failure changes nothing.
fn notify(state: &str) {
    let Some(name) = config::notify_socket() else { return };
    let address = match name.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = told {
        tracing::warn!(%error, state, "service manager not told");
    }
}

/// Binds an address. Beyond loopback only when told that this is meant: there is no TLS yet. (The settings were judged by
/// what they say; what a name stands for shows here.)
async fn bind(address: &str, insecure: bool) -> anyhow::Result<TcpListener> {
    let resolved: Vec<net::SocketAddr> = tokio::net::lookup_host(address)
        .await
        .context(address.to_string())?
        .collect();
    if !insecure && resolved.iter().any(|address| !address.ip().is_loopback()) {
        bail!(
            "{address} is not loopback and there is no TLS: use a loopback address, or --insecure on a closed network"
        );
    }
    let began = monotonic();
    loop {
        match TcpListener::bind(resolved.as_slice()).await {
            // The process before this one may not have let go of its port yet.
            Err(e) if e.kind() == ErrorKind::AddrInUse && began.elapsed() < PORT_WAIT => {
                tokio::time::sleep(PORT_PAUSE).await;
            }
            bound => return bound.with_context(|| format!("cannot listen on {address}")),
        }
    }
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn health(endpoint: String) -> anyhow::Result<()> {
    let asking = async {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{endpoint}"))?
            .connect()
            .await?;
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
        anyhow::Ok(answer.into_inner())
    };
    let answer = tokio::time::timeout(HEALTH_TIMEOUT, asking)
        .await
        .context("no answer in time")??;
    match answer.status() {
        tonic_health::pb::health_check_response::ServingStatus::Serving => Ok(()),
        other => bail!("{other:?}"),
    }
}
