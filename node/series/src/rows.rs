//! Sorting, folding and cutting of rows.
//!
//! Never here: bytes. Invariant: what comes out is normalised (see `record`), and the work is linear in rows and
//! cells, sorting aside.

use std::collections::BTreeMap;

use crate::bitmap::Bitmap;
use crate::record::{Column, PropertyNumber, Records, ValueRef, ValueType, Values};

const NONE: u32 = u32::MAX;

/// Where every row of the parts, one after another, ends up.
struct Placement {
    /// New row per old row; `None`: nothing moves.
    new_row: Option<Vec<u32>>,
    rows: usize,
    /// Values that were written again, per new row; none where nothing moves.
    repeats: Vec<u32>,
}

/// One normalised `Records` of all parts; of rows of equal time the later one (in the order of the parts) wins,
/// property by property.
pub(crate) fn normalise(mut parts: Vec<Records>) -> Records {
    parts.retain(|p| !p.is_empty());
    let mut out = Records::default();
    let mut columns: BTreeMap<PropertyNumber, Vec<(usize, Column)>> = BTreeMap::new();
    for part in parts {
        let offset = out.observed_at.len();
        let rows = part.observed_at.len();
        out.observed_at.extend(part.observed_at);
        out.received_at.extend(part.received_at);
        out.received_at.resize(offset + rows, 0);
        out.report_kind.extend(part.report_kind);
        out.report_kind.resize(offset + rows, 0);
        if !part.repeats.is_empty() {
            out.repeats.resize(offset, 0);
            out.repeats.extend(part.repeats);
        }
        for column in part.columns {
            columns.entry(column.property).or_default().push((offset, column));
        }
    }
    if !out.repeats.is_empty() {
        out.repeats.resize(out.observed_at.len(), 0);
    }
    let mut placement = place(&mut out);
    out.columns = columns
        .into_iter()
        .filter_map(|(property, pieces)| fold(property, pieces, &mut placement))
        .collect();
    if placement.repeats.iter().any(|&n| n > 0) {
        out.repeats = placement.repeats;
    }
    out
}

/// Sorts and folds the row attributes of `out` in place; repeats move to the placement.
fn place(out: &mut Records) -> Placement {
    let times = &out.observed_at;
    if times.windows(2).all(|w| w[0] < w[1]) {
        return Placement {
            new_row: None,
            rows: times.len(),
            repeats: Vec::new(),
        };
    }
    let mut order: Vec<u32> = (0..times.len() as u32).collect();
    order.sort_by_key(|&i| times[i as usize]);
    let mut new_row = vec![0u32; order.len()];
    let mut sorted = Records::default();
    for &old in &order {
        let at = old as usize;
        if sorted.observed_at.last() != Some(&times[at]) {
            sorted.observed_at.push(times[at]);
            sorted.received_at.push(0);
            sorted.report_kind.push(0);
        }
        let row = sorted.observed_at.len() - 1;
        sorted.received_at[row] = out.received_at[at];
        sorted.report_kind[row] = out.report_kind[at];
        new_row[at] = row as u32;
    }
    let rows = sorted.len();
    let mut repeats = vec![0u32; rows];
    for (&row, &had) in new_row.iter().zip(&out.repeats) {
        let slot = &mut repeats[row as usize];
        *slot = slot.saturating_add(had);
    }
    *out = sorted;
    Placement {
        new_row: Some(new_row),
        rows,
        repeats,
    }
}

/// Repeats, unless all are 0.
fn some(repeats: Vec<u32>) -> Vec<u32> {
    match repeats.iter().any(|&n| n > 0) {
        true => repeats,
        false => Vec::new(),
    }
}

/// One column of the pieces of a property, each with the number of its first row.
fn fold(property: PropertyNumber, mut pieces: Vec<(usize, Column)>, placement: &mut Placement) -> Option<Column> {
    let value_type = pieces.last()?.1.values.value_type();
    pieces.retain(|(_, c)| c.values.value_type() == value_type);
    if placement.new_row.is_none() {
        return Some(append(property, pieces, placement.rows, value_type)).filter(|c| !c.values.is_empty());
    }
    let any_quality = pieces.iter().any(|(_, c)| c.quality.is_some());
    let mut winner = vec![NONE; placement.rows];
    let mut values = Values::empty(value_type);
    let mut quality = Vec::new();
    let mut seen = 0usize;
    let mut ascending = true;
    let mut highest = None;
    for (offset, column) in pieces {
        let count = column.values.len();
        for (i, row) in column.present_rows().take(count).enumerate() {
            let old = offset + row;
            let new = placement
                .new_row
                .as_ref()
                .map_or(old, |map| map.get(old).map_or(usize::MAX, |&r| r as usize));
            if let Some(slot) = winner.get_mut(new) {
                if *slot != NONE
                    && let Some(repeats) = placement.repeats.get_mut(new)
                {
                    *repeats = repeats.saturating_add(1);
                }
                *slot = (seen + i) as u32;
                ascending &= highest < Some(new);
                highest = Some(new);
            } else {
                ascending = false;
            }
        }
        if any_quality {
            quality.extend(column.quality.unwrap_or_default());
            quality.resize(seen + count, 0);
        }
        values.append(column.values);
        seen += count;
    }
    let count = winner.iter().filter(|&&w| w != NONE).count();
    if count == 0 {
        return None;
    }
    if !ascending || count != seen {
        let indices = || winner.iter().filter(|&&w| w != NONE).map(|&w| w as usize);
        values = values.gather(indices());
        quality = if any_quality {
            indices().map(|i| quality[i]).collect()
        } else {
            quality
        };
    }
    let presence = (count != placement.rows).then(|| {
        let mut map = Bitmap::new(placement.rows);
        winner
            .iter()
            .enumerate()
            .filter(|&(_, &w)| w != NONE)
            .for_each(|(row, _)| map.set(row, true));
        map
    });
    Some(Column {
        property,
        presence,
        values,
        quality: Some(quality).filter(|q| q.iter().any(|&x| x != 0)),
    })
}

/// One column of pieces that follow each other and whose rows stay where they are.
fn append(property: PropertyNumber, pieces: Vec<(usize, Column)>, rows: usize, value_type: ValueType) -> Column {
    let any_quality = pieces.iter().any(|(_, c)| c.quality.is_some());
    let mut values = Values::empty(value_type);
    values.reserve(pieces.iter().map(|(_, c)| c.values.len()).sum());
    let mut quality = Vec::new();
    let mut map = Bitmap::new(rows);
    for (offset, column) in pieces {
        match &column.presence {
            None => map.set_range(offset, offset + column.values.len()),
            Some(present) => map.add_from(offset, present),
        }
        values.append(column.values);
        if any_quality {
            quality.extend(column.quality.unwrap_or_default());
            quality.resize(values.len(), 0);
        }
    }
    Column {
        property,
        presence: (values.len() != rows).then_some(map),
        values,
        quality: Some(quality).filter(|q| q.iter().any(|&x| x != 0)),
    }
}

/// Rows `start..end`, cut to the rows there are.
pub(crate) fn slice(records: &Records, start: usize, end: usize) -> Records {
    let end = end.min(records.len());
    let start = start.min(end);
    let columns = records
        .columns
        .iter()
        .filter_map(|c| slice_column(c, start, end))
        .collect();
    Records {
        observed_at: records.observed_at[start..end].to_vec(),
        received_at: records.received_at.get(start..end).unwrap_or_default().to_vec(),
        report_kind: records.report_kind[start..end].to_vec(),
        columns,
        repeats: some(records.repeats.get(start..end).unwrap_or_default().to_vec()),
    }
}

fn slice_column(column: &Column, start: usize, end: usize) -> Option<Column> {
    let (first, last) = match &column.presence {
        None => (start, end),
        Some(map) => (map.rank(start), map.rank(end)),
    };
    if first == last {
        return None;
    }
    let presence = column
        .presence
        .as_ref()
        .filter(|_| last - first < end - start)
        .map(|map| map.part(start, end));
    let quality = column
        .quality
        .as_ref()
        .map(|q| q.get(first..last).unwrap_or_default().to_vec());
    Some(Column {
        property: column.property,
        presence,
        values: column.values.slice(first..last),
        quality: quality.filter(|q| q.iter().any(|&x| x != 0)),
    })
}

/// Rows with the newest value of each property, other cells dropped.
pub(crate) fn newest(records: &Records) -> Records {
    let last_rows: Vec<Option<usize>> = records.columns.iter().map(|c| c.present_rows().last()).collect();
    let mut rows: Vec<usize> = last_rows.iter().flatten().copied().collect();
    rows.sort_unstable();
    rows.dedup();
    let columns = records.columns.iter().zip(&last_rows).filter_map(|(column, row)| {
        let last = column.values.len().checked_sub(1)?;
        let at = rows.binary_search(row.as_ref()?).ok()?;
        let mut map = Bitmap::new(rows.len());
        map.set(at, true);
        let quality = column
            .quality
            .as_ref()
            .and_then(|q| q.last().copied())
            .filter(|&q| q != 0);
        Some(Column {
            property: column.property,
            presence: (rows.len() > 1).then_some(map),
            values: column.values.gather(last..last + 1),
            quality: quality.map(|q| vec![q]),
        })
    });
    let columns = columns.collect();
    Records {
        repeats: Vec::new(),
        ..with_rows(records, &rows, columns)
    }
}

/// Only `properties`, and only rows that have a value of one of them.
pub(crate) fn project(records: &Records, properties: &[PropertyNumber]) -> Records {
    let columns = records.columns.iter().filter(|c| properties.contains(&c.property));
    without_empty(Records {
        observed_at: records.observed_at.clone(),
        received_at: records.received_at.clone(),
        report_kind: records.report_kind.clone(),
        columns: columns.cloned().collect(),
        repeats: records.repeats.clone(),
    })
}

/// Only rows that have a value.
pub(crate) fn without_empty(mut records: Records) -> Records {
    if records.columns.iter().any(|c| c.presence.is_none()) {
        return records;
    }
    let mut any = Bitmap::new(records.len());
    records
        .columns
        .iter()
        .filter_map(|c| c.presence.as_ref())
        .for_each(|map| any.add(map));
    if any.count_ones() == records.len() {
        return records;
    }
    let rows: Vec<usize> = any.iter_ones().collect();
    for column in &mut records.columns {
        let mut map = Bitmap::new(rows.len());
        column.present_rows().for_each(|row| map.set(any.rank(row), true));
        column.presence = (map.count_ones() < rows.len()).then_some(map);
    }
    let columns = std::mem::take(&mut records.columns);
    with_rows(&records, &rows, columns)
}

/// Rows by their numbers, in this order.
pub(crate) fn pick(records: &Records, rows: &[usize]) -> Records {
    let columns = records.columns.iter().filter_map(|column| pick_column(column, rows));
    with_rows(records, rows, columns.collect())
}

fn pick_column(column: &Column, rows: &[usize]) -> Option<Column> {
    // Place of each row's value among the values of the column.
    let places: Vec<Option<usize>> = match &column.presence {
        None => rows.iter().map(|row| Some(*row)).collect(),
        Some(map) => rows.iter().map(|row| map.get(*row).then(|| map.rank(*row))).collect(),
    };
    let present = || places.iter().flatten().copied();
    let values = column.values.gather(present());
    if values.is_empty() {
        return None;
    }
    let presence = (values.len() < rows.len()).then(|| {
        let mut picked = Bitmap::new(rows.len());
        let rows = places.iter().enumerate().filter(|(_, place)| place.is_some());
        rows.for_each(|(row, _)| picked.set(row, true));
        picked
    });
    let quality = column
        .quality
        .as_ref()
        .map(|q| present().map(|place| q[place]).collect::<Vec<_>>());
    Some(Column {
        property: column.property,
        presence,
        values,
        quality: quality.filter(|q| q.iter().any(|&x| x != 0)),
    })
}

/// Only values that are to be kept; rows stay.
pub(crate) fn keep_values(
    mut records: Records,
    mut keep: impl FnMut(PropertyNumber, usize, ValueRef<'_>, u8) -> bool,
) -> Records {
    let rows = records.len();
    let columns = std::mem::take(&mut records.columns).into_iter().filter_map(|column| {
        let property = column.property;
        let cells = column.cells().enumerate();
        let kept = cells.filter(|(_, (row, value, quality))| keep(property, *row, *value, *quality));
        let kept: Vec<(usize, usize)> = kept.map(|(place, (row, ..))| (place, row)).collect();
        if kept.len() == column.values.len() {
            return Some(column);
        }
        if kept.is_empty() {
            return None;
        }
        let mut presence = Bitmap::new(rows);
        kept.iter().for_each(|(_, row)| presence.set(*row, true));
        let quality = column.quality.as_ref();
        let quality = quality.map(|q| kept.iter().map(|(place, _)| q[*place]).collect::<Vec<_>>());
        Some(Column {
            property,
            presence: Some(presence),
            values: column.values.gather(kept.iter().map(|(place, _)| *place)),
            quality: quality.filter(|q| q.iter().any(|&x| x != 0)),
        })
    });
    records.columns = columns.collect();
    records
}

fn with_rows(records: &Records, rows: &[usize], columns: Vec<Column>) -> Records {
    Records {
        observed_at: rows.iter().map(|&r| records.observed_at[r]).collect(),
        received_at: rows
            .iter()
            .filter_map(|&r| records.received_at.get(r).copied())
            .collect(),
        report_kind: rows.iter().map(|&r| records.report_kind[r]).collect(),
        columns,
        repeats: some(rows.iter().filter_map(|&r| records.repeats.get(r).copied()).collect()),
    }
}
