//! One shard's part of a question, answered from one replica's state. Blocking; runs off the async threads.
//!
//! Invariant: parts are bounded in size, and work stops at the next part when nobody listens.

use std::ops::ControlFlow;
use std::sync::Arc;

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{DeviceList, Resolved, ShardDevices, ShardResolve, StoredDevice};
use tidemark_proto::v1::{AnswerSummary, Selector};

use super::{aggregate, latest, range};
use crate::catalog::Catalog;
use crate::catalog::types::TypeDef;
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::raft::host::Host;
use crate::raft::replica::Replica;
use crate::raft::state::store_error;
use crate::route::ShardJob;
use crate::shard::{DeviceFilter, Shard};

const DEVICES_PER_PART: usize = 500;
const DEVICES_PER_RUN: usize = 256;

/// A shard, the catalog it is read with, and where its answer goes.
pub(super) struct Answering<'a> {
    pub(super) shard: &'a Shard,
    pub(super) catalog: &'a Catalog,
    pub(super) limits: &'a Limits,
    send: &'a dyn Fn(Part) -> bool,
}

/// A device that a selector matched, with its type.
pub(super) struct Chosen {
    pub(super) id: String,
    pub(super) ordinal: u32,
    pub(super) def: Arc<TypeDef>,
    pub(super) stored: StoredDevice,
}

/// The job that answers every kind of question.
pub fn shard_job(host: Arc<Host>, limits: Arc<Limits>) -> ShardJob {
    Arc::new(move |replica: &Replica, query: &Query, send: &dyn Fn(Part) -> bool| {
        let catalog = host.catalog()?;
        replica.state().with_shard(|shard| {
            let answering = Answering { shard, catalog: &catalog, limits: &limits, send };
            match query {
                Query::Resolve(resolve) => answering.resolve(resolve),
                Query::Devices(devices) => answering.devices(devices),
                Query::Range(request) => range::answer(&answering, request),
                Query::Aggregate(request) => aggregate::answer(&answering, request),
                Query::Latest(request) => latest::answer(&answering, request),
            }
        })
    })
}

impl Answering<'_> {
    /// Hands a part on; breaks when nobody listens any more.
    pub(super) fn send(&self, part: Part) -> ControlFlow<()> {
        match (self.send)(part) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    /// Visits the bucket values of one device that can hold points of a range.
    pub(super) fn scan(
        &self,
        chosen: &Chosen,
        from_ns: i64,
        to_ns: i64,
        mut visit: impl FnMut(&[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let (number, span_ns) = (chosen.def.number(), chosen.def.bucket_span_ns);
        let scanned = self.shard.scan_device(number, chosen.ordinal, span_ns, from_ns, to_ns, |value| match visit(value) {
            Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
            Ok(ControlFlow::Break(())) => ControlFlow::Break(None),
            Err(error) => ControlFlow::Break(Some(error)),
        });
        match scanned.map_err(store_error)? {
            ControlFlow::Continue(()) => Ok(ControlFlow::Continue(())),
            ControlFlow::Break(None) => Ok(ControlFlow::Break(())),
            ControlFlow::Break(Some(error)) => Err(error),
        }
    }

    /// Visits matching devices in runs of one type, so that a run shares properties and batches.
    pub(super) fn each_run(
        &self,
        selector: &Selector,
        mut visit: impl FnMut(&[Chosen]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let mut run: Vec<Chosen> = Vec::new();
        let flow = self.each_device(selector, |chosen| {
            let other_type = run.first().is_some_and(|first| !Arc::ptr_eq(&first.def, &chosen.def));
            if other_type || run.len() == DEVICES_PER_RUN {
                match visit(&std::mem::take(&mut run)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return ControlFlow::Break(None),
                    Err(error) => return ControlFlow::Break(Some(error)),
                }
            }
            run.push(chosen);
            ControlFlow::Continue(())
        })?;
        match flow {
            ControlFlow::Continue(()) if run.is_empty() => Ok(ControlFlow::Continue(())),
            ControlFlow::Continue(()) => visit(&run),
            ControlFlow::Break(None) => Ok(ControlFlow::Break(())),
            ControlFlow::Break(Some(error)) => Err(error),
        }
    }

    fn resolve(&self, resolve: &ShardResolve) -> Result<AnswerSummary> {
        let known = self.shard.resolve(&resolve.ids).map_err(store_error)?;
        let mut resolved = Resolved::default();
        for known in known {
            let (type_number, ordinal) = known.unwrap_or((0, 0));
            resolved.type_numbers.push(type_number);
            resolved.ordinals.push(ordinal);
        }
        let _ = self.send(Part::Resolved(resolved));
        Ok(AnswerSummary::default())
    }

    fn devices(&self, request: &ShardDevices) -> Result<AnswerSummary> {
        let selector = request.selector.clone().unwrap_or_default();
        let limit = if request.limit == 0 { u64::MAX } else { request.limit };
        let mut summary = AnswerSummary::default();
        let mut part = DeviceList::default();
        let flow = self.each_device(&selector, |chosen| {
            if summary.devices == limit {
                summary.limited = true;
                return ControlFlow::Break(());
            }
            summary.devices += 1;
            part.devices.extend(chosen.stored.device);
            if part.devices.len() < DEVICES_PER_PART {
                return ControlFlow::Continue(());
            }
            self.send(Part::Devices(std::mem::take(&mut part)))
        })?;
        if !part.devices.is_empty() && (flow.is_continue() || summary.limited) {
            let _ = self.send(Part::Devices(part));
        }
        Ok(AnswerSummary { rows: summary.devices, ..summary })
    }

    /// Visits every device of this shard that a selector matches. An id that is not registered here is an error.
    pub(super) fn each_device<B>(
        &self,
        selector: &Selector,
        mut visit: impl FnMut(Chosen) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let type_number = match selector.device_type.as_str() {
            "" => None,
            id => Some(self.catalog.device_type(id).map_err(|e| e.field("selector.device_type"))?.number()),
        };
        if !selector.device_ids.is_empty() {
            let known = self.shard.resolve(&selector.device_ids).map_err(store_error)?;
            if let Some((id, _)) = selector.device_ids.iter().zip(known).find(|(_, known)| known.is_none()) {
                return Err(Error::new(Reason::UnknownDevice, format!("no device {id:?}")).field("selector.device_ids"));
            }
        }
        let filter = DeviceFilter {
            ids: selector.device_ids.clone(),
            type_number,
            tags: selector.tags.iter().map(|tag| (tag.key.clone(), tag.values.clone())).collect(),
        };
        let mut unknown_type = None;
        let flow = self.shard.devices(&filter, |stored| {
            let Some(def) = self.catalog.type_by_number(stored.type_number) else {
                unknown_type = Some(stored.type_number);
                return ControlFlow::Continue(());
            };
            let id = stored.device.as_ref().map(|device| device.id.clone()).unwrap_or_default();
            visit(Chosen { id, ordinal: stored.ordinal, def: def.clone(), stored: stored.clone() })
        });
        match unknown_type {
            Some(number) => Err(Error::new(Reason::TooStale, format!("type number {number} is not known here yet"))),
            None => flow.map_err(store_error),
        }
    }
}

/// Passes a decoding failure out of a visitor.
pub(super) fn corrupt(e: tidemark_series::Corrupt) -> Error {
    Error::new(Reason::Corruption, e.to_string())
}
