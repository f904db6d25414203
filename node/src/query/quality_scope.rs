//! From when to when devices are held to their promises: from when they were installed until they were retired.
//!
//! Never here: what is promised (see `quality`). Invariant: what is not known of a device's life makes it no shorter.

use tidemark_proto::peer::StoredDevice;

use super::shard_side::{Answering, Chosen};
use crate::error::Result;
use crate::raft::state::store_error;

/// The time in which a device is held to its promise.
#[derive(Copy, Clone)]
pub(super) struct Life {
    pub(super) begin_ns: i64,
    pub(super) end_ns: i64,
}

/// Lives of devices.
pub(super) fn lives(answering: &Answering<'_>, devices: &[Chosen]) -> Result<Vec<Life>> {
    let ordinals: Vec<u32> = devices.iter().map(Chosen::ordinal).collect();
    let stored = answering.shard.devices_by_ordinal(&ordinals).map_err(store_error)?;
    let life = |stored: Option<StoredDevice>| {
        let device = stored.and_then(|stored| stored.device);
        let device = device.unwrap_or_default();
        let known = |t_ns: i64| Some(t_ns).filter(|t_ns| *t_ns != 0);
        Life {
            begin_ns: known(device.installed_at_ns).unwrap_or(i64::MIN),
            end_ns: known(device.retired_at_ns).unwrap_or(i64::MAX),
        }
    };
    Ok(stored.into_iter().map(life).collect())
}
