//! The right sides of a join as the coordinator holds them, and left records joined to them.
//!
//! Never here: which points count (see `join_shard`), who belongs to whom (see `join_match`). Invariant: what is held is counted, and
//! given back when the question ends, however it ends.

use std::collections::{BTreeSet, HashMap};

use prost::Message as _;
use tidemark_proto::peer::JoinSeries;
use tidemark_proto::v1::{Batch, Device, JoinSide, JoinedColumn, JoinedRecords, QueryJoinResponse, Values};
use tidemark_series::{AsOf, PropertyNumber};

use super::held::Held;
use super::join_match::{Facts, Matching, tags_of};
use super::join_shard::asof;
use super::join_values::{Cutter, append, bits, bytes_of, pick, widest};
use super::plan::passes_over_types;
use super::series::check_budget;
use crate::catalog::Catalog;
use crate::error::{Error, Reason, Result};
use crate::limits::JOIN_COLUMNS_MAX;

/// A message is sent once it takes so much.
const MESSAGE_BYTES: usize = 1 << 20;
/// What a row takes in a joined column beside its value.
const CELL_BYTES: usize = 9;
/// What a row takes beside its columns, roughly.
const ROW_BYTES: usize = 64;

/// The right sides.
pub(super) struct Table {
    sides: Vec<Side>,
    /// Of left devices, where they decide.
    left: HashMap<String, Facts>,
    /// Left records that were read before the right sides, if they were.
    page: Option<Page>,
    held: Budget,
}

/// The left records of a page.
#[derive(Default)]
struct Page {
    batches: Vec<Batch>,
    devices: BTreeSet<String>,
    /// From the first record on, until all are in.
    time: (i64, i64),
}

/// One right side.
struct Side {
    at: u32,
    matching: Matching,
    /// In the order of the matching.
    devices: Vec<Right>,
}

/// A right device.
struct Right {
    id: String,
    device_type: String,
    series: Vec<Series>,
}

/// A property of a right device.
struct Series {
    number: PropertyNumber,
    property: String,
    asof: AsOf,
    times: Vec<i64>,
    values: Values,
    widest: usize,
}

/// A series with its side and device.
type Belonging<'t> = (u32, &'t Right, &'t Series);

impl Table {
    /// Empty; holds `bytes_max` at most, counted in `held`.
    pub(super) fn new(bytes_max: usize, held: Held) -> Table {
        Table {
            sides: Vec::new(),
            left: HashMap::new(),
            page: None,
            held: Budget { held, bytes_max },
        }
    }

    /// Adds a side with its devices, without points yet.
    pub(super) fn add_side(&mut self, side: &JoinSide, devices: Vec<Device>, catalog: &Catalog) -> Result<()> {
        let keys = tags_of([side]);
        let pass_over = passes_over_types(&side.selector.clone().unwrap_or_default());
        let mut kept: Vec<(Facts, Right)> = Vec::with_capacity(devices.len());
        for device in devices {
            let def = catalog.type_known_elsewhere(&device.device_type)?;
            let properties = match def.choose(&side.properties) {
                Ok(properties) => properties,
                Err(_) if pass_over => continue,
                Err(e) => return Err(e),
            };
            let series = properties.into_iter().map(|property| Series {
                number: property.number,
                property: property.id.clone(),
                asof: asof(side, def),
                times: Vec::new(),
                values: Values::default(),
                widest: 0,
            });
            let (facts, series) = (Facts::of(&device, &keys), series.collect::<Vec<_>>());
            self.held
                .more(facts.bytes() + size_of_val(series.as_slice()) + size_of::<Right>())?;
            let right = Right {
                id: device.id,
                device_type: device.device_type,
                series,
            };
            kept.push((facts, right));
        }
        kept.sort_by(|a, b| a.1.id.cmp(&b.1.id));
        let facts = kept.iter().map(|(facts, right)| (right.id.clone(), facts.clone()));
        self.sides.push(Side {
            at: u32::try_from(self.sides.len()).unwrap_or(u32::MAX),
            matching: Matching::new(side.r#match.clone(), facts.collect()),
            devices: kept.into_iter().map(|(_, right)| right).collect(),
        });
        Ok(())
    }

    /// Adds points to the side that was added last.
    pub(super) fn add_points(&mut self, points: JoinSeries) -> Result<()> {
        let Some(side) = self.sides.last_mut() else {
            return Ok(());
        };
        // A device that was registered a moment ago was not chosen.
        let place = side.matching.place(&points.device);
        let right = place.and_then(|place| side.devices.get_mut(place));
        let series = right.and_then(|right| {
            let is = |series: &&mut Series| series.number.0 == points.property;
            right.series.iter_mut().find(is)
        });
        let (Some(series), Some(values)) = (series, points.values) else {
            return Ok(());
        };
        self.held
            .more(bytes_of(&values) + size_of_val::<[i64]>(&points.observed_at_ns))?;
        series.widest = series.widest.max(widest(&values));
        series.times.extend(points.observed_at_ns);
        append(&mut series.values, values);
        Ok(())
    }

    /// Only right points around records that are kept are needed from now on: none so far.
    pub(super) fn begin_page(&mut self, from_ns: i64) {
        self.page = Some(Page {
            time: (from_ns, from_ns),
            ..Page::default()
        });
    }

    /// Keeps left records of the page.
    pub(super) fn keep(&mut self, batch: Batch) -> Result<()> {
        self.held.more(batch.encoded_len())?;
        let Some(page) = &mut self.page else {
            return Ok(());
        };
        let (first, last) = (batch.observed_at_ns.iter().min(), batch.observed_at_ns.iter().max());
        if let Some((first, last)) = first.zip(last) {
            let end = last.saturating_add(1);
            page.time = match page.batches.is_empty() {
                true => (*first, end),
                false => (page.time.0.min(*first), page.time.1.max(end)),
            };
            page.devices.extend(batch.devices.iter().cloned());
            page.batches.push(batch);
        }
        Ok(())
    }

    /// Ids of the devices of records that are kept.
    pub(super) fn devices_kept(&self) -> Vec<String> {
        self.page.iter().flat_map(|page| &page.devices).cloned().collect()
    }

    /// The time of records that are kept; `None`: there is no page.
    pub(super) fn time_kept(&self) -> Option<(i64, i64)> {
        self.page.as_ref().map(|page| page.time)
    }

    /// The records that were kept.
    pub(super) fn end_page(&mut self) -> Vec<Batch> {
        self.page.take().map_or_else(Vec::new, |page| page.batches)
    }

    /// Ids of the devices of the side that was added last that belong to records of the page; `None`: all that there are.
    pub(super) fn needed(&self) -> Option<Vec<String>> {
        let (page, side) = (self.page.as_ref()?, self.sides.last()?);
        let unknown = Facts::default();
        let mut places = BTreeSet::new();
        for device in &page.devices {
            let facts = self.left.get(device).unwrap_or(&unknown);
            places.extend(side.matching.belonging(device, facts));
            if places.len() == side.devices.len() {
                return None;
            }
        }
        Some(places.into_iter().map(|place| side.devices[place].id.clone()).collect())
    }

    /// Adds what decides about a left device.
    pub(super) fn add_left(&mut self, id: String, facts: Facts) -> Result<()> {
        self.held.more(id.len() + size_of::<String>() + facts.bytes())?;
        self.left.insert(id, facts);
        Ok(())
    }

    /// The records of a batch with what belongs to them.
    pub(super) fn join(&self, batch: &Batch) -> Result<Vec<QueryJoinResponse>> {
        let mut messages = Messages::default();
        let mut cutter = Cutter::new(batch);
        let mut of: Option<(&str, Vec<Belonging<'_>>, usize)> = None;
        while let Some((device, rows)) = cutter.run() {
            let (_, columns, row_bytes) = match of.take().filter(|(id, ..)| *id == device) {
                Some(known) => known,
                None => {
                    let columns = self.belonging(device)?;
                    let cells = columns.iter().map(|(_, _, series)| series.widest + CELL_BYTES);
                    let row_bytes = ROW_BYTES + cells.sum::<usize>();
                    (device, columns, row_bytes)
                }
            };
            let rows = rows.len().min((MESSAGE_BYTES / row_bytes).max(1));
            let batch = cutter.next(device, rows);
            let joined = columns
                .iter()
                .map(|(side, right, series)| series.joined(*side, right, &batch.observed_at_ns));
            messages.push(
                JoinedRecords {
                    columns: joined.collect(),
                    batch: Some(batch),
                },
                rows * row_bytes,
            );
            of = Some((device, columns, row_bytes));
        }
        Ok(messages.finish())
    }

    /// The series that belong to a left device: by side, id, and order of properties.
    fn belonging(&self, device: &str) -> Result<Vec<Belonging<'_>>> {
        let unknown = Facts::default();
        let facts = self.left.get(device).unwrap_or(&unknown);
        let mut columns = Vec::new();
        for side in &self.sides {
            for place in side.matching.belonging(device, facts) {
                let right = &side.devices[place];
                columns.extend(right.series.iter().map(|series| (side.at, right, series)));
            }
        }
        match columns.len() > JOIN_COLUMNS_MAX {
            true => Err(Error::new(
                Reason::TooManySeries,
                format!(
                    "{} series belong to device {device:?}, the limit is {JOIN_COLUMNS_MAX}",
                    columns.len()
                ),
            )
            .field("right")
            .hint("match devices by tags or by place, choose fewer of them, or fewer properties")),
            false => Ok(columns),
        }
    }
}

impl Series {
    /// What of it belongs to records of these times.
    fn joined(&self, side: u32, right: &Right, times: &[i64]) -> JoinedColumn {
        let places: Vec<Option<usize>> = times.iter().map(|t| self.asof.place(&self.times, *t)).collect();
        let present: Vec<bool> = places.iter().map(Option::is_some).collect();
        let found: Vec<usize> = places.into_iter().flatten().collect();
        JoinedColumn {
            side,
            device: right.id.clone(),
            device_type: right.device_type.clone(),
            property: self.property.clone(),
            presence: bits(&present).into(),
            observed_at_ns: found.iter().map(|place| self.times[*place]).collect(),
            values: (!found.is_empty()).then(|| pick(&self.values, found.into_iter())),
        }
    }
}

/// Messages of a bounded size.
#[derive(Default)]
struct Messages {
    whole: Vec<QueryJoinResponse>,
    joined: Vec<JoinedRecords>,
    bytes: usize,
}

impl Messages {
    fn push(&mut self, records: JoinedRecords, bytes: usize) {
        if self.bytes > 0 && self.bytes + bytes > MESSAGE_BYTES {
            self.end();
        }
        self.joined.push(records);
        self.bytes += bytes;
    }

    fn end(&mut self) {
        self.bytes = 0;
        if !self.joined.is_empty() {
            self.whole.push(QueryJoinResponse {
                joined: std::mem::take(&mut self.joined),
                summary: None,
            });
        }
    }

    fn finish(mut self) -> Vec<QueryJoinResponse> {
        self.end();
        self.whole
    }
}

/// What a question holds, and how much it may.
struct Budget {
    held: Held,
    bytes_max: usize,
}

impl Budget {
    fn more(&mut self, bytes: usize) -> Result<()> {
        let counted = self.held.is_now(self.held.bytes() + bytes);
        check_budget(self.held.bytes(), self.bytes_max).map_err(|error| {
            error
                .field("right")
                .hint("choose fewer devices or properties on the right, or a shorter range")
        })?;
        counted
    }
}
