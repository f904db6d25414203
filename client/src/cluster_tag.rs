//! Which cluster a client talks to: learnt with the first shard map, then said with every call, so that an address that
//! leads to another cluster is refused there instead of taking what was not meant for it.

use std::sync::{Arc, OnceLock};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// Name of the metadata that carries the cluster id.
const KEY: &str = "tidemark-cluster";

/// The cluster id once it is known; shared by all nodes of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterTag(Arc<OnceLock<MetadataValue<Ascii>>>);

/// A connection that says which cluster is meant.
pub(crate) type Lane = InterceptedService<Channel, ClusterTag>;

impl ClusterTag {
    /// Remembers the cluster; the first one stays.
    pub(crate) fn learn(&self, cluster_id: &str) {
        if let Ok(value) = cluster_id.parse()
            && !cluster_id.is_empty()
        {
            self.0.get_or_init(|| value);
        }
    }

    /// The connection with the cluster said on each call.
    pub(crate) fn on(&self, channel: Channel) -> Lane {
        InterceptedService::new(channel, self.clone())
    }
}

impl Interceptor for ClusterTag {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(cluster_id) = self.0.get() {
            request.metadata_mut().insert(KEY, cluster_id.clone());
        }
        Ok(request)
    }
}
