//! From when to when devices are held to their promises: from when they were installed until they were retired, but for maintenance.
//!
//! Never here: what is promised (see `quality`). Invariant: what is not known of a device's life makes it no shorter.

use std::ops::ControlFlow;

use tidemark_proto::v1::Device;
use tidemark_series::{Spans, bucket};

use super::quality_device::last_word;
use super::shard_side::{Answering, Chosen, corrupt};
use crate::catalog::types::TypeDef;
use crate::error::Result;
use crate::raft::state::store_error;

/// The time in which a device is held to its promise.
pub(super) struct Life {
    pub(super) begin_ns: i64,
    pub(super) end_ns: i64,
    /// As far as it begins no later than the time that is asked about ends.
    pub(super) maintenance: Spans,
}

/// Lives of devices of one type, as far as a time is concerned; what they said is looked at from `seen_from` on.
///
/// Of a device of which nobody says when it was installed, life begins when it was registered, if that was within the time and it had
/// said nothing by then. One that had was there before: its history was brought in. So was that of a time which had passed by then.
pub(super) fn lives(
    answering: &Answering<'_>,
    def: &TypeDef,
    devices: &[Chosen],
    (from_ns, to_ns): (i64, i64),
    seen_from: i64,
) -> Result<Vec<Life>> {
    let ordinals: Vec<u32> = devices.iter().map(Chosen::ordinal).collect();
    let stored = answering.shard.devices_by_ordinal(&ordinals).map_err(store_error)?;
    let mut lives = Vec::with_capacity(devices.len());
    let mut registered = Vec::new();
    for (stored, chosen) in stored.into_iter().zip(devices) {
        let device = stored.and_then(|stored| stored.device).unwrap_or_default();
        let known = |t_ns: i64| Some(t_ns).filter(|t_ns| *t_ns != 0);
        let installed = known(device.installed_at_ns);
        let registered_ns = device.registered_at_ns;
        if installed.is_none() && registered_ns > from_ns && registered_ns < to_ns {
            registered.push((lives.len(), chosen.clone(), registered_ns));
        }
        lives.push(Life {
            begin_ns: installed.unwrap_or(i64::MIN),
            end_ns: known(device.retired_at_ns).unwrap_or(i64::MAX),
            maintenance: maintenance(&device, to_ns),
        });
    }
    let spoke = spoke_before(answering, def, &registered, seen_from)?;
    for ((at, _, registered_ns), spoke) in registered.into_iter().zip(spoke) {
        if !spoke {
            lives[at].begin_ns = registered_ns;
        }
    }
    Ok(lives)
}

/// Declared maintenance of a device that begins no later than a time.
fn maintenance(device: &Device, to_ns: i64) -> Spans {
    let begun = device.maintenance.iter().filter(|declared| declared.from_ns <= to_ns);
    Spans::new(begun.map(|declared| (declared.from_ns, declared.to_ns)))
}

/// Which devices had said anything by some time of theirs.
fn spoke_before(
    answering: &Answering<'_>,
    def: &TypeDef,
    devices: &[(usize, Chosen, i64)],
    seen_from: i64,
) -> Result<Vec<bool>> {
    let mut spoke = vec![false; devices.len()];
    let Some(until_ns) = devices.iter().map(|(.., t_ns)| *t_ns).max() else {
        return Ok(spoke);
    };
    let chosen: Vec<Chosen> = devices.iter().map(|(_, chosen, _)| chosen.clone()).collect();
    let visit = |at: usize, value: &[u8]| {
        let before_ns = devices[at].2.saturating_sub(1);
        for block in bucket::blocks(value) {
            let block = block.map_err(corrupt)?;
            if !spoke[at] && block.first_ns() <= before_ns {
                spoke[at] = last_word(&block, before_ns).map_err(corrupt)?.is_some();
            }
        }
        Ok(ControlFlow::Continue(()))
    };
    let _ = answering.aside(|| answering.scan(def, &chosen, seen_from, until_ns, visit))?;
    Ok(spoke)
}
