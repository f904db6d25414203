//! What the catalog says where something may have been put into it through another node a moment ago.
//!
//! Never here: what is in the catalog. Invariant: that something is not there is said only by a node that knows all that was
//! acknowledged before it was asked.

use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::v1::Selector;

use super::{LEADERLESS_MAX, RETRY_PAUSE, Router};
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::monotonic;
use crate::error::{Error, Reason, Result};

impl Router {
    /// A catalog that knows all types that a selector names.
    ///
    /// # Errors
    /// `UNKNOWN_TYPE` where there is none, `TOO_STALE` where this node cannot be sure of that.
    pub async fn catalog_of(&self, selector: &Selector) -> Result<Arc<Catalog>> {
        let find = |catalog: &Catalog| knows_types(catalog, selector);
        self.in_catalog(find).await.map(|(catalog, ())| catalog)
    }

    /// How much of its log this node's catalog has applied, at least.
    pub(super) fn catalog_index(&self) -> u64 {
        let replica = self.host.replica(CATALOG_GROUP);
        let applied = replica.and_then(|replica| replica.state().last_applied());
        applied.map_or(0, |id| id.index)
    }

    /// What the catalog says of something that may have been put into it elsewhere a moment ago: where it is not there, it is looked for
    /// again once this node knows everything that was acknowledged before.
    ///
    /// # Errors
    /// That of `find`, where it is not in the catalog; `TOO_STALE` where this node cannot be sure of that.
    pub async fn in_catalog<T>(&self, find: impl Fn(&Catalog) -> Result<T>) -> Result<(Arc<Catalog>, T)> {
        let catalog = self.host.catalog()?;
        if let Ok(found) = find(&catalog) {
            return Ok((catalog, found));
        }
        let caught_up = self.catch_up_catalog(LEADERLESS_MAX).await;
        let catalog = self.host.catalog()?;
        match find(&catalog) {
            Ok(found) => Ok((catalog, found)),
            Err(missing) if caught_up => Err(missing),
            Err(missing) => {
                let message = format!("{}, as far as this node knows, which may be behind", missing.message());
                Err(Error::new(Reason::TooStale, message).field(missing.field_path()))
            }
        }
    }

    /// The catalog with everything that was acknowledged before the call.
    ///
    /// # Errors
    /// `TOO_STALE` where that could not be made sure of in time.
    pub async fn newest_catalog(&self, timeout: Duration) -> Result<Arc<Catalog>> {
        self.host.identity()?;
        match self.catch_up_catalog(timeout).await {
            true => self.host.catalog(),
            false => Err(Error::new(Reason::TooStale, "this node's catalog may be behind")),
        }
    }

    /// Waits until this node's catalog has everything that was acknowledged before the call; false where that could not be made sure of in
    /// time.
    pub async fn catch_up_catalog(&self, timeout: Duration) -> bool {
        let Some(replica) = self.host.replica(CATALOG_GROUP) else {
            return false;
        };
        let began = monotonic();
        while began.elapsed() < timeout {
            let left = timeout.saturating_sub(began.elapsed());
            if replica.is_leader() && matches!(replica.linearize(left).await, Ok(Ok(()))) {
                return true;
            }
            if replica.lag().is_some_and(|lag| lag < began.elapsed()) {
                return true;
            }
            tokio::time::sleep(RETRY_PAUSE / 2).await;
        }
        false
    }
}

/// Whether a catalog knows all types that a selector names, wherever in it.
fn knows_types(catalog: &Catalog, selector: &Selector) -> Result<()> {
    if !selector.device_type.is_empty() {
        let found = catalog.device_type(&selector.device_type);
        found.map_err(|e| e.field("selector.device_type"))?;
    }
    let mut nested = selector.any_of.iter().chain(&selector.none_of);
    nested.try_for_each(|nested| knows_types(catalog, nested))
}
