//! One node: everything wired together, given its configuration and its listeners. Never: decisions.
//!
//! Clients and peers have separate ports, so that clients cannot starve heartbeats.

mod connections;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::PUBLIC_DESCRIPTORS;
use tidemark_proto::encoded::query_service_server::QueryServiceServer;
use tidemark_proto::peer::peer_service_server::PeerServiceServer;
use tidemark_proto::v1::alert_service_server::AlertServiceServer;
use tidemark_proto::v1::backup_service_server::BackupServiceServer;
use tidemark_proto::v1::cluster_service_server::ClusterServiceServer;
use tidemark_proto::v1::ingest_service_server::IngestServiceServer;
use tidemark_proto::v1::registry_service_server::RegistryServiceServer;
use tidemark_proto::v1::subscribe_service_server::SubscribeServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::{InterceptorLayer, Routes};
use tonic::transport::Server;

use self::connections::{Most, incoming};
use crate::alert::Alerts;
use crate::api::{
    AlertApi, Around, Arriving, BackupApi, ClusterApi, HttpApi, InOurWords, InTime, IngestApi, Observed, PeerApi,
    QueryApi, RegistryApi, SameCluster, Stopped, SubscribeApi, came, stopped,
};
use crate::backup::Backups;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::delete::Deletes;
use crate::disk::Disk;
use crate::error::{Error, Reason, Result};
use crate::identity::{DataLock, Identity, removed};
use crate::limits::{Limits, PEER_CONNECTIONS_MAX};
use crate::metrics::Metrics;
use crate::peers::{PEER_MESSAGE_BYTES_MAX, Peers};
use crate::query::{Queries, shard_job};
use crate::raft::host::{Host, owner_of};
use crate::raft::log_store::NodeLog;
use crate::raft::machine::blocking;
use crate::route::Router;
use crate::store::Resources;
use crate::subscribe::{Follows, Subscriptions};
use crate::write::Writes;

const MEMTABLE_BYTES: usize = 256 << 20;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const PEER_STREAMS_MAX: u32 = 4_096;
/// Longest wait for the last answers to clients.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const PEERS_STOP_TIMEOUT: Duration = Duration::from_secs(1);

const PEERS_MOST: Most = Most {
    in_all: PEER_CONNECTIONS_MAX,
    per_address: PEER_CONNECTIONS_MAX,
    share_of_files: 4,
};

/// A service and what is done around each of its calls, outermost first.
type Ours<S> = Around<Observed, Around<SameCluster, Around<InTime, Around<Arriving, Around<InOurWords, S>>>>>;

/// A node that is set up and not yet serving.
pub struct Node {
    host: Arc<Host>,
    router: Arc<Router>,
    cluster: Arc<Cluster>,
    writes: Arc<Writes>,
    queries: Arc<Queries>,
    deletes: Arc<Deletes>,
    alerts: Arc<Alerts>,
    follows: Arc<Follows>,
    subscriptions: Arc<Subscriptions>,
    backups: Arc<Backups>,
    limits: Arc<Limits>,
    job: crate::route::ShardJob,
    join: Vec<String>,
    _lock: DataLock,
}

impl Node {
    /// Opens the data folder and starts the replicas that belong here.
    pub async fn open(config: Config) -> Result<Node> {
        let data_dir = config.data_dir.clone();
        let cache_bytes = config.cache_mib << 20;
        let (reserve, pretended) = (config.disk_reserve, config.tuning.disk_free.clone());
        let (lock, identity, log, resources, metrics) = blocking(move || {
            let lock = DataLock::take(&data_dir).map_err(Error::internal)?;
            if let Some(why) = removed(&data_dir).map_err(Error::internal)? {
                let hint = "to come back it joins anew, with an empty data folder";
                return Err(Error::new(Reason::NodeRemoved, why).hint(hint));
            }
            let identity = Identity::load(&data_dir).map_err(Error::internal)?;
            let log = open_log(&data_dir.join("log"), identity.as_ref())?;
            let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
            let disk = Disk::new(&data_dir, reserve, pretended).map_err(Error::internal)?;
            let metrics = Arc::new(Metrics::new(disk));
            let seen = Arc::clone(&metrics);
            let resources = Resources::new(cache_bytes, MEMTABLE_BYTES, cores).map_err(Error::internal)?;
            let resources = resources.with_room(Arc::new(move |bytes| seen.disk().has_room_to_flush(bytes)));
            Ok((lock, identity, log, Arc::new(resources), metrics))
        })
        .await?;
        let tuning = config.tuning.clone();
        let limits = Arc::new(Limits::set(&tuning));
        let host = Host::new(
            config.data_dir.clone(),
            log,
            resources.clone(),
            Arc::new(Peers::sending(config.tuning.move_bytes_per_second)),
            config.tuning.clone(),
            metrics,
        )?;
        let router = Arc::new(Router::new(host.clone(), &limits)?);
        let backups = Backups::open(router.clone(), &config.data_dir, resources)?;
        let job = shard_job(host.clone(), limits.clone());
        let follows = Arc::new(Follows::new(host.clone(), &limits));
        let join = config.join.clone();
        let node = Node {
            join,
            cluster: Arc::new(Cluster::new(router.clone(), config)),
            writes: Arc::new(Writes::new(router.clone(), limits.clone(), job.clone())),
            queries: Arc::new(Queries::new(router.clone(), limits.clone(), job.clone())),
            deletes: Arc::new(Deletes::new(router.clone(), limits.clone(), job.clone())),
            alerts: Arc::new(Alerts::new(router.clone(), job.clone())),
            subscriptions: Arc::new(Subscriptions::new(router.clone(), follows.clone(), limits.clone())),
            follows,
            backups,
            host,
            router,
            limits,
            job,
            _lock: lock,
        };
        tokio::spawn(node.host.clone().watch_disk(tuning.disk_every));
        let deletes = node.deletes.clone();
        tokio::spawn(
            deletes
                .clone()
                .keep_retention(tuning.retention_every, tuning.retention_ahead),
        );
        tokio::spawn(deletes.keep_rollups(tuning.rollups_every, tuning.rollups_after));
        if let Some(identity) = identity {
            node.host.start(identity).await?;
        }
        Ok(node)
    }

    /// Looks up who this node is: node and cluster id, once it belongs to a cluster.
    pub fn who(&self) -> impl Fn() -> Option<(u64, String)> + Send + Sync + 'static {
        let host = self.host.clone();
        move || {
            let identity = host.identity().ok()?;
            Some((identity.node_id, identity.cluster_id.clone()))
        }
    }

    /// Serves clients and peers until told to stop. Then others are made to lead, clients get their last answers and
    /// are sent away, the replicas stop and flush, and the peers are let go: in this order nobody waits for a timeout.
    pub async fn serve(self, clients: TcpListener, peers: TcpListener, stop: impl Future<Output = ()>) -> Result<()> {
        let (stopping, stopping_seen) = watch::channel(false);
        let (stop_clients, clients_stop) = watch::channel(false);
        let (stop_peers, peers_stop) = watch::channel(false);
        let client_connections = incoming(clients, "clients", self.clients_most(), self.host.metrics().clone());
        // HTTP/1.1 is for probes and scrapes: they share the port with gRPC.
        let client_server = server(self.limits.streams_max)
            .accept_http1(true)
            .layer(InterceptorLayer::new(came))
            .add_routes(self.client_routes(clients_stop.clone(), stopping_seen)?)
            .serve_with_incoming_shutdown(client_connections, stopped(clients_stop));
        let peer_connections = incoming(peers, "peers", PEERS_MOST, self.host.metrics().clone());
        let peer_server = self
            .peer_server(peers_stop.clone())
            .serve_with_incoming_shutdown(peer_connections, stopped(peers_stop));
        let cluster = self.cluster.clone();
        tokio::spawn(cluster.clone().steward());
        tokio::spawn(cluster.clone().watch_belonging());
        tokio::spawn(self.alerts.clone().run());
        let joining = self.join();
        let (clients_left, all_clients_left) = tokio::sync::oneshot::channel::<()>();
        let client_server = Box::pin(async move {
            let ended = client_server.await;
            drop(clients_left);
            ended
        });
        let (mut removed, mut ends) = (self.host.watch_removed(), self.host.watch_ends());
        let ending = async {
            let ended = tokio::select! {
                () = stop => Ok(()),
                told = removed.wait_for(Option::is_some) => Err(told.map_or_else(|_| no_reason(), |why| left(&why))),
                told = ends.wait_for(Option::is_some) => Err(told.map_or_else(|_| no_reason(), |why| anew(&why))),
                refused = joining => Err(refused),
            };
            tracing::info!("stopping");
            stopping.send_replace(true);
            self.follows.stop();
            self.host.hand_over().await;
            stop_clients.send_replace(true);
            tokio::time::timeout(STOP_TIMEOUT, all_clients_left).await.ok();
            self.router.stop_reading().await;
            self.host.shutdown().await;
            stop_peers.send_replace(true);
            tokio::time::sleep(PEERS_STOP_TIMEOUT).await;
            ended
        };
        tokio::select! {
            ended = async { tokio::try_join!(client_server, Box::pin(peer_server)) } => {
                ended.map_err(Error::internal)?;
                let why = self.host.watch_removed().borrow().clone();
                let ends = self.host.watch_ends().borrow().clone();
                match *stop_peers.borrow() {
                    true if why.is_some() => Err(left(&why)),
                    true if ends.is_some() => Err(anew(&ends)),
                    true => Ok(()),
                    false => Err(Error::internal("the servers ended by themselves")),
                }
            }
            ended = ending => ended,
        }
    }

    /// Joins a cluster where it was told to; ends only when it was refused for good.
    async fn join(&self) -> Error {
        let refused = match self.join.is_empty() {
            true => None,
            false => self.cluster.join_one_of(&self.join).await.err(),
        };
        match refused {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    fn clients_most(&self) -> Most {
        Most {
            in_all: self.limits.connections_max,
            per_address: self.limits.connections_per_address_max,
            share_of_files: 2,
        }
    }

    fn client_routes(&self, ending: Stopped, stopping: Stopped) -> Result<Routes> {
        let most = self.limits.message_bytes_max;
        let registry = RegistryApi {
            writes: self.writes.clone(),
            queries: self.queries.clone(),
        };
        let ingest = IngestApi {
            writes: self.writes.clone(),
            deletes: self.deletes.clone(),
            stopped: ending,
        };
        let query = QueryApi {
            queries: self.queries.clone(),
        };
        let alert = AlertApi {
            alerts: self.alerts.clone(),
            queries: self.queries.clone(),
        };
        let subscribe = SubscribeApi {
            subscriptions: self.subscriptions.clone(),
        };
        let cluster = ClusterApi {
            cluster: self.cluster.clone(),
        };
        let backup = BackupApi {
            backups: self.backups.clone(),
        };
        let reflection =
            || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(PUBLIC_DESCRIPTORS);
        let (health, health_service) = tonic_health::server::health_reporter();
        let stop = stopping.clone();
        tokio::spawn(async move {
            use tonic_health::ServingStatus::{NotServing, Serving};
            health.set_service_status("", Serving).await;
            stopped(stop).await;
            health.set_service_status("", NotServing).await;
        });
        let http = HttpApi {
            host: self.host.clone(),
            router: self.router.clone(),
            writes: self.writes.clone(),
            stopping,
        };
        let mut routes = Routes::new(health_service)
            .add_service(reflection().build_v1().map_err(Error::internal)?)
            .add_service(reflection().build_v1alpha().map_err(Error::internal)?)
            .add_service(self.ours(RegistryServiceServer::new(registry).max_decoding_message_size(most)))
            .add_service(self.ours(IngestServiceServer::new(ingest).max_decoding_message_size(most)))
            .add_service(self.ours(QueryServiceServer::new(query).max_decoding_message_size(most)))
            .add_service(self.ours(AlertServiceServer::new(alert).max_decoding_message_size(most)))
            .add_service(self.ours(SubscribeServiceServer::new(subscribe).max_decoding_message_size(most)))
            .add_service(self.ours(ClusterServiceServer::new(cluster)))
            .add_service(self.ours(BackupServiceServer::new(backup).max_decoding_message_size(most)));
        let grpc = std::mem::take(routes.axum_router_mut());
        *routes.axum_router_mut() = http.add_to(grpc);
        Ok(routes.prepare())
    }

    /// A service for clients of this cluster, whose every refusal is in our words.
    fn ours<S>(&self, inner: S) -> Ours<S> {
        let layer = InOurWords;
        let inner = Around { layer, inner };
        let layer = Arriving {
            writes: self.writes.clone(),
            metrics: self.host.metrics().clone(),
            timeout: self.limits.request_timeout(),
        };
        let inner = Around { layer, inner };
        let layer = InTime;
        let inner = Around { layer, inner };
        let host = self.host.clone();
        let layer = SameCluster { host };
        let inner = Around { layer, inner };
        let metrics = self.host.metrics().clone();
        let layer = Observed { metrics };
        Around { layer, inner }
    }

    fn peer_server(&self, stopped: Stopped) -> tonic::transport::server::Router {
        let peer = PeerApi {
            router: self.router.clone(),
            cluster: self.cluster.clone(),
            job: self.job.clone(),
            follows: self.follows.clone(),
            stopped,
        };
        let service = PeerServiceServer::new(peer)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
        server(PEER_STREAMS_MAX).add_service(service)
    }
}

/// Why a node ends that was removed from its cluster.
fn left(why: &Option<String>) -> Error {
    Error::new(Reason::NodeRemoved, why.clone().unwrap_or_default())
        .hint("to come back it joins anew, with an empty data folder")
}

/// Why a node ends that has to be started anew.
fn anew(why: &Option<String>) -> Error {
    Error::internal(why.as_deref().unwrap_or_default())
}

fn no_reason() -> Error {
    Error::internal("the node's replicas ended by themselves")
}

/// Opens the Raft log; makes one only for a node that never voted, and takes none that holds the votes of another.
fn open_log(dir: &Path, identity: Option<&Identity>) -> Result<NodeLog> {
    if let Some(identity) = identity.filter(|_| !NodeLog::exists(dir)) {
        let (cluster, dir) = (&identity.cluster_id, dir.display());
        let message =
            format!("the raft log in {dir} is missing, and with it the votes that this node gave in cluster {cluster}");
        return Err(Error::new(Reason::Corruption, message)
            .hint("bring the log back, or let the node join anew with an empty data folder"));
    }
    let failed = |e: std::io::Error| Error::new(Reason::Corruption, format!("{}: {e}", dir.display()));
    let log = NodeLog::open(dir).map_err(failed)?;
    let (found, here) = (log.owner().map_err(failed)?, identity.map(owner_of));
    match found {
        Some(found) if here.as_ref() != Some(&found) => {
            let here = here.map_or_else(|| "a folder without an identity".to_string(), |here| here.to_string());
            let message = format!(
                "the raft log in {} holds the votes of {found}, and this is {here}",
                dir.display()
            );
            Err(Error::new(Reason::Corruption, message)
                .hint("bring the log of this node back, or let the node join anew with an empty data folder"))
        }
        _ => Ok(log),
    }
}

fn server(streams_max: u32) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(streams_max))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}
