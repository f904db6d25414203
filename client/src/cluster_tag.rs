//! What is said with every call. Which cluster a client talks to, learnt with the first shard map, so that an address that
//! leads to another cluster is refused there instead of taking what was not meant for it; and for which application it asks.

use std::sync::{Arc, OnceLock};

use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::error::Error;

/// Name of the metadata that carries the cluster id.
const KEY: &str = "tidemark-cluster";

/// Name of the metadata that carries the application.
const APPLICATION_KEY: &str = "tidemark-application";
const APPLICATION_BYTES_MAX: usize = 64;

/// The cluster id once it is known, and the application; shared by all nodes of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterTag {
    cluster: Arc<OnceLock<MetadataValue<Ascii>>>,
    application: Option<MetadataValue<Ascii>>,
}

/// A connection that says which cluster is meant.
pub(crate) type Lane = InterceptedService<Channel, ClusterTag>;

impl ClusterTag {
    /// Of an application, of no known cluster yet.
    ///
    /// # Errors
    /// `INVALID_ID` for a name that no application may have.
    pub(crate) fn of(application: Option<&str>) -> Result<Self, Error> {
        let named = application.map(|name| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
            let good = (1..=APPLICATION_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
            let value = name.parse().ok().filter(|_| good);
            value.ok_or_else(|| {
                let message = format!("{name:?} is no name of an application: it takes [A-Za-z0-9._:-]{{1,64}}");
                Error::local(Code::InvalidArgument, "INVALID_ID", message)
            })
        });
        Ok(Self {
            application: named.transpose()?,
            ..Self::default()
        })
    }

    /// Remembers the cluster; the first one stays.
    pub(crate) fn learn(&self, cluster_id: &str) {
        if let Ok(value) = cluster_id.parse()
            && !cluster_id.is_empty()
        {
            self.cluster.get_or_init(|| value);
        }
    }

    /// The connection with the cluster said on each call.
    pub(crate) fn on(&self, channel: Channel) -> Lane {
        InterceptedService::new(channel, self.clone())
    }
}

impl Interceptor for ClusterTag {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(cluster_id) = self.cluster.get() {
            request.metadata_mut().insert(KEY, cluster_id.clone());
        }
        if let Some(application) = &self.application {
            request.metadata_mut().insert(APPLICATION_KEY, application.clone());
        }
        Ok(request)
    }
}
