//! How a file is cut into batches. Never: I/O to the store, progress, what became of a batch.
//!
//! ```text
//! file    | rows of dev A | dev B | dev C …                    | dev K …      (sorted by device, property, time, or in any order)
//! chunk   |<- at a change of device once CHUNK_ROWS_MIN rows are in; in any case at CHUNK_ROWS_MAX rows or CHUNK_BYTES_MAX ->|
//! records   within a chunk: values of one (type, device, time) become one record; of one property's values the last row's counts
//! batches   per type, in order of (device by first appearance, time), cut at --batch records or BATCH_BYTES_MAX
//! ```
//!
//! Invariant: chunks and batches follow from the text, the mapping and the types alone. So a resume at the first byte of
//! a chunk makes the same batches again, and the n-th batch of a file carries the same rows under the same sequence.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lines::{Field, Fields, Lines, Position};
use super::mapping::{Mapping, Shape, Source};
use super::times::TimeForm;
use super::values::{Scalar, Typed};

/// A chunk may end at a change of device from here on.
const CHUNK_ROWS_MIN: usize = 20_000;
/// Most rows (values, in the wide form) of a chunk.
const CHUNK_ROWS_MAX: usize = 524_288;
/// Most raw bytes of a chunk.
const CHUNK_BYTES_MAX: usize = 64 << 20;
/// Most bytes of a batch, estimated, well under what a node takes.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// One value of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    /// Position in the type.
    pub(crate) property: u16,
    /// Row of the chunk that it stood in.
    pub(crate) row: u32,
    /// The value.
    pub(crate) value: Scalar,
}

/// One device at one time: a row of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Position among the devices of the chunk.
    pub(crate) device: u32,
    /// Nanoseconds since the epoch.
    pub(crate) at_ns: i64,
    /// Its cells.
    pub(crate) cells: Range<u32>,
}

/// Rows sent together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cut {
    /// Position of the type.
    pub(crate) device_type: usize,
    /// Its records, in order.
    pub(crate) records: Vec<Record>,
    /// The cells of all records.
    pub(crate) cells: Vec<Cell>,
}

/// What is left out of a batch: a whole record, or one property of it.
pub(crate) type Excluded = BTreeSet<(u32, Option<u16>)>;

/// Part of a file, cut.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Where it begins.
    pub(crate) start: Position,
    /// Where the next one begins.
    pub(crate) end: Position,
    /// Bytes of the file taken when it was complete.
    pub(crate) taken: u64,
    /// Its batches.
    pub(crate) cuts: Vec<Cut>,
    /// Its devices, by first appearance: type and id.
    pub(crate) devices: Vec<(usize, String)>,
    /// Rows that could not be read, and why.
    pub(crate) rejects: BTreeMap<u32, String>,
    /// Values that a later row of the same property and time replaced.
    pub(crate) replaced: u64,
    raw: Vec<u8>,
    rows: Vec<(Position, Range<usize>)>,
}

impl Chunk {
    /// Rows read.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Line number (from 1) and text of a row.
    pub(crate) fn row(&self, row: u32) -> (u64, String) {
        match self.rows.get(row as usize) {
            Some((at, span)) => (
                at.line + 1,
                String::from_utf8_lossy(&self.raw[span.clone()]).into_owned(),
            ),
            None => (0, String::new()),
        }
    }
}

/// Makes chunks of a file.
pub(crate) struct Cutter {
    lines: Lines,
    mapping: Mapping,
    types: Vec<Typed>,
    type_of: HashMap<String, usize>,
    batch_rows: usize,
    fields: Fields,
    /// The row read last, where it belongs to the next chunk.
    held: Option<Held>,
    taken: Arc<AtomicU64>,
}

/// A row with its place.
pub(crate) type Held = (Vec<u8>, Position);

impl Cutter {
    /// Cuts `held`, where a row was read ahead, and what `lines` gives into batches of at most `batch_rows` records.
    pub(crate) fn new(
        lines: Lines,
        held: Option<Held>,
        mapping: Mapping,
        types: Vec<Typed>,
        batch_rows: usize,
    ) -> Cutter {
        let type_of = types
            .iter()
            .enumerate()
            .map(|(index, typed)| (typed.id.clone(), index))
            .collect();
        Cutter {
            lines,
            mapping,
            types,
            type_of,
            batch_rows: batch_rows.max(1),
            fields: Fields::default(),
            held,
            taken: Arc::default(),
        }
    }

    /// Reads the count of bytes taken from the file here.
    pub(crate) fn counting(mut self, taken: Arc<AtomicU64>) -> Cutter {
        self.taken = taken;
        self
    }

    /// The next chunk; None at the end of the file.
    pub(crate) fn next_chunk(&mut self) -> std::io::Result<Option<Chunk>> {
        let mut build = Build::default();
        build.chunk.start = self.held.as_ref().map_or_else(|| self.lines.position(), |(_, at)| *at);
        build.chunk.end = build.chunk.start;
        let mut last_device: Option<String> = None;
        loop {
            let begin = build.chunk.raw.len();
            let at = match self.held.take() {
                Some((raw, at)) => {
                    build.chunk.raw.extend_from_slice(&raw);
                    Some(at)
                }
                None => self.lines.next_row(&mut build.chunk.raw)?,
            };
            let Some(at) = at else {
                build.chunk.end = self.lines.position();
                break;
            };
            let split = self.fields.split(&build.chunk.raw[begin..]);
            let changed = self.device_text() != last_device.as_deref();
            let full =
                build.cells.len() >= CHUNK_ROWS_MAX || begin >= CHUNK_BYTES_MAX || build.chunk.rows() >= CHUNK_ROWS_MAX;
            if full || (build.chunk.rows() >= CHUNK_ROWS_MIN && changed) {
                build.chunk.end = at;
                self.held = Some((build.chunk.raw.split_off(begin), at));
                break;
            }
            if changed {
                last_device = self.device_text().map(str::to_owned);
            }
            let row = build.chunk.rows.len() as u32;
            let span = begin..build.chunk.raw.len();
            build.chunk.rows.push((at, span));
            if let Err(why) = split.and_then(|()| self.read_row(row, &mut build)) {
                build.cells.truncate(build.complete);
                build.chunk.rejects.insert(row, why);
            }
            build.complete = build.cells.len();
        }
        build.chunk.taken = self.taken.load(Ordering::Relaxed);
        Ok(if build.chunk.rows.is_empty() {
            None
        } else {
            Some(build.finish(self.batch_rows))
        })
    }

    fn device_text(&self) -> Option<&str> {
        match &self.mapping.device {
            Source::Column(index) => self.fields.get(*index),
            Source::Const(_) => None,
        }
    }

    fn read_row(&mut self, row: u32, build: &mut Build) -> Result<(), String> {
        let Cutter {
            mapping,
            fields,
            types,
            type_of,
            ..
        } = self;
        let value_of = |index: usize| fields.at(index).ok_or_else(|| format!("only {} fields", fields.len()));
        let field = |index: usize| value_of(index).map(|field| field.trimmed);
        no_more_fields(fields, mapping.fields)?;
        let device_type = match &mapping.device_type {
            Source::Column(index) => field(*index)?,
            Source::Const(name) => name,
        };
        let type_index = *type_of
            .get(device_type)
            .ok_or_else(|| format!("no device type `{device_type}`"))?;
        let typed = &types[type_index];
        let device = match &mapping.device {
            Source::Column(index) => field(*index)?,
            Source::Const(id) => id,
        };
        if device.is_empty() {
            return Err("no device id".to_owned());
        }
        let time = field(mapping.time)?;
        let form = match mapping.time_form {
            Some(form) => form,
            None => TimeForm::detect(time)?,
        };
        let at_ns = form.parse(time)?;
        let is_null = |text: &str| mapping.nulls.iter().any(|null| null == text);
        let device = build.device(type_index, &mapping.prefix, device);
        let mut put = |property: &str, field: Field<'_>| {
            if is_null(field.trimmed) || (field.trimmed.is_empty() && !field.quoted) {
                return Ok(());
            }
            let index = typed
                .find(property)
                .ok_or_else(|| format!("type {} has no property `{property}`", typed.id))?;
            let Some(value) = typed.properties[usize::from(index)].take(field)? else {
                return Ok(());
            };
            build.cells.push((
                device,
                at_ns,
                Cell {
                    property: index,
                    row,
                    value,
                },
            ));
            Ok::<_, String>(())
        };
        match &mapping.shape {
            Shape::Long { property, value, names } => {
                let name = field(*property)?;
                put(names.get(name).map_or(name, String::as_str), value_of(*value)?)?;
            }
            Shape::Wide(columns) => {
                for (index, property) in columns {
                    put(property, value_of(*index)?)?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses a row with more in it than the header names: what follows would stand under another column.
fn no_more_fields(fields: &Fields, named: usize) -> Result<(), String> {
    let count = fields.len();
    match (named..count).any(|index| fields.get(index) != Some("")) {
        true => Err(format!(
            "{count} fields where the header has {named} (a value with a comma in it needs quotes)"
        )),
        false => Ok(()),
    }
}

/// A chunk in the making.
#[derive(Default)]
struct Build {
    chunk: Chunk,
    devices: HashMap<(usize, String), u32>,
    cells: Vec<(u32, i64, Cell)>,
    /// Cells of complete rows.
    complete: usize,
    last: Option<(String, usize, u32)>,
}

impl Build {
    /// Position of a device of the chunk.
    fn device(&mut self, device_type: usize, prefix: &str, id: &str) -> u32 {
        if let Some((last, of_type, index)) = &self.last
            && last == id
            && *of_type == device_type
        {
            return *index;
        }
        let key = (device_type, format!("{prefix}{id}"));
        let index = match self.devices.get(&key) {
            Some(index) => *index,
            None => {
                let index = self.chunk.devices.len() as u32;
                self.chunk.devices.push(key.clone());
                self.devices.insert(key, index);
                index
            }
        };
        self.last = Some((id.to_owned(), device_type, index));
        index
    }

    fn finish(mut self, batch_rows: usize) -> Chunk {
        let devices = &self.chunk.devices;
        let type_of = |device: u32| devices[device as usize].0;
        // Stable: values of one property at one time stay in file order, so that the last one counts.
        self.cells
            .sort_by_key(|(device, at_ns, cell)| (type_of(*device), *device, *at_ns, cell.property));
        let before = self.cells.len();
        let mut kept: Vec<(u32, i64, Cell)> = Vec::with_capacity(before);
        for (device, at_ns, cell) in self.cells {
            match kept.last_mut() {
                Some((of, at, last)) if *of == device && *at == at_ns && last.property == cell.property => *last = cell,
                _ => kept.push((device, at_ns, cell)),
            }
        }
        self.chunk.replaced = (before - kept.len()) as u64;
        let mut cuts: Vec<Cut> = Vec::new();
        let mut bytes = 0;
        for (device, at_ns, cell) in kept {
            let device_type = type_of(device);
            let size = cell_bytes(&cell.value);
            let same = cuts.last().is_some_and(|cut| {
                cut.device_type == device_type
                    && cut
                        .records
                        .last()
                        .is_some_and(|last| last.device == device && last.at_ns == at_ns)
            });
            let room = cuts.last().is_some_and(|cut| {
                cut.device_type == device_type && cut.records.len() < batch_rows && bytes + size <= BATCH_BYTES_MAX
            });
            if !same && !room {
                cuts.push(Cut {
                    device_type,
                    records: Vec::new(),
                    cells: Vec::new(),
                });
                bytes = 0;
            }
            let Some(cut) = cuts.last_mut() else { continue };
            bytes += size;
            let end = cut.cells.len() as u32 + 1;
            match cut.records.last_mut() {
                Some(last) if same => last.cells.end = end,
                _ => cut.records.push(Record {
                    device,
                    at_ns,
                    cells: end - 1..end,
                }),
            }
            cut.cells.push(cell);
        }
        self.chunk.cuts = cuts;
        self.chunk
    }
}

/// About what a value costs in a request, its time and device included.
fn cell_bytes(value: &Scalar) -> usize {
    match value {
        Scalar::Text(text) => 16 + text.len(),
        _ => 16,
    }
}

impl Cut {
    /// Rows of the chunk behind a record, or behind one of its properties.
    pub(crate) fn rows_of(&self, record: u32, property: Option<u16>) -> Vec<u32> {
        let Some(record) = self.records.get(record as usize) else {
            return Vec::new();
        };
        let cells = &self.cells[record.cells.start as usize..record.cells.end as usize];
        let mut rows: Vec<_> = cells
            .iter()
            .filter(|cell| property.is_none_or(|p| p == cell.property))
            .map(|cell| cell.row)
            .collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Records of a device of the chunk.
    pub(crate) fn records_of(&self, device: u32) -> Vec<u32> {
        (0..self.records.len() as u32)
            .filter(|record| self.records[*record as usize].device == device)
            .collect()
    }

    /// Records that have a value of this property.
    pub(crate) fn has(&self, record: u32, property: u16) -> bool {
        self.records.get(record as usize).is_some_and(|record| {
            self.cells[record.cells.start as usize..record.cells.end as usize]
                .iter()
                .any(|cell| cell.property == property)
        })
    }
}
