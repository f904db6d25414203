//! How many devices a shard may have. Never: what becomes of those that it has, which go on whatever the limit is.
//!
//! Invariant: looked at before a registration is proposed, by the node that takes it, so that nothing in the log depends on it.
//! Registrations at once may therefore pass the limit by what each of them holds, and no further.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemark_proto::peer::{NodeViewRequest, PutDevices};
use tonic::Request;

use super::ingest::Writes;
use crate::clock::Instant;
use crate::error::{Error, Reason, Result};

/// A leader that does not say in this time how many devices it has, is told of the new ones all the same: whether it can take
/// them, it will say then.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);

impl Writes {
    /// Refuses new devices of a shard that has as many as it may. Those that it knows always pass.
    pub(super) async fn check_quota(&self, shard: u32, put: &PutDevices, deadline: Instant) -> Result<()> {
        let most = self.limits.shard_devices_max;
        let Some(has) = self.devices_of(shard).await else {
            return Ok(());
        };
        if has.saturating_add(put.devices.len() as u64) <= most {
            return Ok(());
        }
        let ids = put
            .devices
            .iter()
            .filter_map(|put| Some(put.device.as_ref()?.id.clone()));
        let ids: Vec<String> = ids.collect::<BTreeSet<_>>().into_iter().collect();
        let known = self.resolve(&ids, deadline).await?;
        let new = known.iter().filter(|known| known.is_none()).count() as u64;
        if new == 0 || has.saturating_add(new) <= most {
            return Ok(());
        }
        let first = known.iter().position(Option::is_none).and_then(|at| ids.get(at));
        let message = format!(
            "shard {shard} has {has} devices, and the limit is {most}: no room for {new} new ones, {} among them",
            first.map_or("", String::as_str)
        );
        Err(Error::new(Reason::TooManyDevices, message)
            .field("devices")
            .hint("raise shard_devices_max on every node, if these devices are meant"))
    }

    /// Devices of a shard, by a replica here that votes, else by the leader; `None` where that cannot be found out.
    async fn devices_of(&self, shard: u32) -> Option<u64> {
        let host = self.router.host();
        if let Some(replica) = host.replica(shard).filter(|replica| replica.votes()) {
            return replica.state().with_shard(|shard| Ok(shard.device_count())).ok();
        }
        let leader = self.router.known_leader(shard)?;
        let address = host.catalog().ok()?.node(leader)?.peer_address.clone();
        let mut client = host.peers().at(&address).ok()?.client();
        let mut request = Request::new(NodeViewRequest {
            envelope: Some(host.envelope(leader).ok()?),
            ..NodeViewRequest::default()
        });
        request.set_timeout(COUNT_TIMEOUT);
        let asked = tokio::time::timeout(COUNT_TIMEOUT, client.node_view(request)).await;
        let view = asked.ok()?.ok()?.into_inner();
        let of_shard = view.replicas.iter().find(|replica| replica.group == shard);
        of_shard.map(|replica| replica.devices)
    }
}
