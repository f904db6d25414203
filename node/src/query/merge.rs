//! The coordinator's side of an aggregate: merges what shards send and finishes it.
//!
//! Never here: blocks. Invariant: a series of one device is finished as it comes, groups and leaders after the last shard.

use std::collections::BTreeMap;

use tidemark_proto::peer::Partials;
use tidemark_proto::v1::{AggregateSeries, QueryAggregateRequest};
use tidemark_series::PropertyNumber;

use super::fill::bytes_of;
use super::finish::Finishing;
use super::functions::{Asked, functions};
use super::groups::GroupKey;
use super::series::{Series, check_budget};
use super::top::Leaders;
use crate::catalog::Catalog;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Reason, Result};

/// Series on their way together.
pub(super) struct Merge {
    functions: Vec<Asked>,
    request: QueryAggregateRequest,
    groups: BTreeMap<GroupKey, (u64, Series)>,
    leaders: Option<Leaders<Unfinished>>,
    bytes: usize,
    /// Most bytes that are held, and answered at once.
    bytes_max: usize,
}

/// A series of a device or a group.
struct Unfinished {
    type_number: u32,
    property: u32,
    devices: u64,
    device: String,
    tags: BTreeMap<String, String>,
    series: Series,
}

impl Merge {
    /// For a checked request, to hold so many bytes at most.
    pub(super) fn new(request: QueryAggregateRequest, bytes_max: usize) -> Result<Merge> {
        let functions = functions(&request)?;
        Ok(Merge {
            leaders: request.top.as_ref().map(Leaders::new),
            functions,
            request,
            groups: BTreeMap::new(),
            bytes: 0,
            bytes_max,
        })
    }

    /// Takes one shard's series; returns it finished at once where it is of one device and need not lead others.
    pub(super) fn take(&mut self, part: Partials, catalog: &Catalog) -> Result<Option<AggregateSeries>> {
        let mut series = Series::from_wire(&part)?;
        if self.request.grouping.is_some() {
            let key = (part.type_number, part.property, part.tags);
            let (devices, merged) = self.groups.entry(key).or_default();
            *devices += part.devices;
            self.bytes -= merged.bytes();
            merged.merge(&mut series);
            self.bytes += merged.bytes();
            check_budget(self.bytes, self.bytes_max)?;
            return Ok(None);
        }
        let series = Unfinished {
            type_number: part.type_number,
            property: part.property,
            devices: part.devices,
            device: part.device,
            tags: BTreeMap::new(),
            series,
        };
        if self.leaders.is_none() {
            return self.finish(series, catalog).map(Some);
        }
        self.offer(series, catalog)?;
        check_budget(self.leaders.as_ref().map_or(0, Leaders::bytes), self.bytes_max)?;
        Ok(None)
    }

    /// Bytes of what is held back.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.leaders.as_ref().map_or(0, Leaders::bytes)
    }

    /// What was held back, finished: groups, or those that lead.
    pub(super) fn finish_rest(mut self, catalog: &Catalog) -> Result<Vec<AggregateSeries>> {
        let groups = std::mem::take(&mut self.groups);
        let group = |((type_number, property, tags), (devices, series)): (GroupKey, (u64, Series))| Unfinished {
            type_number,
            property,
            devices,
            device: String::new(),
            tags,
            series,
        };
        let all = self.request.fill.is_some();
        let groups = groups
            .into_iter()
            .filter(|(_, (_, series))| all || !series.is_empty())
            .map(group);
        if self.leaders.is_none() {
            return self.finish_all(groups, catalog);
        }
        for series in groups {
            self.offer(series, catalog)?;
        }
        let leaders = self.leaders.take().into_iter().flat_map(Leaders::into_series);
        self.finish_all(leaders, catalog)
    }

    fn finish_all(&self, all: impl Iterator<Item = Unfinished>, catalog: &Catalog) -> Result<Vec<AggregateSeries>> {
        let (mut bytes, mut finished) = (0, Vec::new());
        for series in all {
            let series = self.finish(series, catalog)?;
            bytes += bytes_of(&series);
            check_budget(bytes, self.bytes_max)?;
            finished.push(series);
        }
        Ok(finished)
    }

    /// Offers a series a place among the leaders.
    fn offer(&mut self, mut series: Unfinished, catalog: &Catalog) -> Result<()> {
        let (def, property) = known(&series, catalog)?;
        let finishing = Finishing::new(&self.request, &self.functions, (def, property), self.bytes_max)?;
        let first = finishing.first(&mut series.series, series.devices)?;
        let mut name: Vec<String> = series.tags.values().cloned().collect();
        name.extend([series.device.clone(), series.type_number.to_string()]);
        if let Some(leaders) = &mut self.leaders {
            let standing = leaders.stands(first.as_ref());
            leaders.offer(standing, || name, series.series.bytes(), || series);
        }
        Ok(())
    }

    fn finish(&self, mut unfinished: Unfinished, catalog: &Catalog) -> Result<AggregateSeries> {
        let (def, property) = known(&unfinished, catalog)?;
        let finishing = Finishing::new(&self.request, &self.functions, (def, property), self.bytes_max)?;
        let finished = finishing.finish(&mut unfinished.series, unfinished.devices)?;
        Ok(AggregateSeries {
            device: unfinished.device,
            tags: unfinished.tags,
            ..finished
        })
    }
}

fn known<'a>(unfinished: &Unfinished, catalog: &'a Catalog) -> Result<(&'a TypeDef, &'a PropertyDef)> {
    let type_number = unfinished.type_number;
    let unknown = || {
        Error::new(
            Reason::TooStale,
            format!("type number {type_number} is not known here yet"),
        )
    };
    let def = catalog.type_by_number(type_number).ok_or_else(unknown)?;
    let property = def.property_by_number(PropertyNumber(unfinished.property));
    Ok((def, property.ok_or_else(unknown)?))
}
