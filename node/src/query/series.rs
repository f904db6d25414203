//! What is gathered of one property of a device or a group, window by window: in memory, and on its way from a shard to the
//! coordinator.
//!
//! Never here: who asks. Invariant: windows travel in ascending order; what belongs to a series shares one buffer.

use bytes::Bytes;
use tidemark_proto::peer::Partials;
use tidemark_series::gaps::Widest;
use tidemark_series::{ByWindow, Corrupt, Filled, Partial, Sequence, Unfinished};

use super::areal::{self, Areal};
use super::shard_side::corrupt;
use crate::error::{Error, Reason, Result};

/// What the points of a window cost in memory, roughly, bytes.
const PARTIAL_BYTES: usize = 160;
/// The same for what is gathered of their sequence.
const SEQUENCE_BYTES: usize = 1_024;
/// The same for its longest gap.
const GAP_BYTES: usize = 48;
/// The same for its slots.
pub(super) const SLOTS_BYTES: usize = 64;

/// Refuses a query that holds more of windows than it may.
pub(super) fn check_budget(bytes: usize, most: usize) -> Result<()> {
    match bytes > most {
        true => Err(Error::new(
            Reason::QueryTooLarge,
            format!("the query holds over {most} bytes of windows"),
        )
        .hint("ask for fewer devices, a longer step or a shorter range")),
        false => Ok(()),
    }
}

/// What a window may cost, bytes.
pub(super) fn window_bytes(with_sequences: bool) -> usize {
    PARTIAL_BYTES + if with_sequences { SEQUENCE_BYTES } else { 0 }
}

/// One series.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// Of the points one by one.
    pub(super) points: ByWindow,
    /// Of the points as a sequence, where that is asked for.
    pub(super) sequences: ByWindow<Sequence>,
    /// The longest gaps, where they are asked for; of windows that slide, of these and not of their steps.
    pub(super) gaps: ByWindow<Widest>,
    /// Which slots have a point, where that is counted; see [`tidemark_series::Slots::of_steps`].
    pub(super) slots: ByWindow<Filled>,
    /// Where areal values are asked for, what devices answer; of windows that slide, of these and not of their steps.
    pub(super) areal: ByWindow<Areal>,
}

impl Series {
    /// True where nothing was gathered.
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.sequences.is_empty() && self.areal.is_empty()
    }

    /// Forgets everything and keeps its room.
    pub(super) fn clear(&mut self) {
        self.points.clear();
        self.sequences.clear();
        self.gaps.clear();
        self.slots.clear();
        self.areal.clear();
    }

    /// What it costs in memory, roughly, bytes: its windows, and the texts and states that they hold.
    pub(super) fn bytes(&self) -> usize {
        self.points.len() * PARTIAL_BYTES
            + self.points.heap_bytes()
            + self.sequences.len() * SEQUENCE_BYTES
            + self.sequences.heap_bytes()
            + self.gaps.len() * GAP_BYTES
            + self.slots.len() * SLOTS_BYTES
            + areal::bytes_of(&self.areal)
    }

    /// Adds all that another series gathered, and leaves it empty.
    pub(super) fn merge(&mut self, other: &mut Series) {
        self.points.merge(&mut other.points);
        self.sequences.merge(&mut other.sequences);
        self.gaps.merge(&mut other.gaps);
        self.slots.merge(&mut other.slots);
        self.areal.merge(&mut other.areal);
    }

    /// Puts it into a message.
    pub(super) fn put_into(&mut self, part: &mut Partials) {
        (part.window, part.partial) = encoded(&mut self.points, PARTIAL_BYTES / 2, Partial::encode_to);
        (part.sequence_window, part.sequence) = encoded(&mut self.sequences, PARTIAL_BYTES, Sequence::encode_to);
        for (window, widest) in self.gaps.sorted() {
            part.gap_window.push(*window);
            part.gap_devices.push(widest.devices);
            part.gap_ns.push(widest.gap_ns);
        }
        for (window, filled) in self.slots.sorted() {
            part.slot_window.push(*window);
            part.slot_points.push(filled.points);
            part.slots_filled.push(filled.slots);
        }
        areal::put_into(&mut self.areal, part);
    }

    /// Reads what [`Series::put_into`] wrote.
    pub(super) fn from_wire(part: &Partials) -> Result<Series> {
        Ok(Series {
            points: decoded(&part.window, &part.partial, Partial::decode)?,
            sequences: decoded(&part.sequence_window, &part.sequence, Sequence::decode)?,
            gaps: gaps(part),
            slots: slots(part),
            areal: areal::from_wire(part)?,
        })
    }
}

fn gaps(part: &Partials) -> ByWindow<Widest> {
    let mut gaps = ByWindow::default();
    let each = part.gap_window.iter().zip(&part.gap_devices).zip(&part.gap_ns);
    for ((window, devices), gap_ns) in each {
        let (devices, gap_ns) = (*devices, *gap_ns);
        gaps.add(*window, Widest { devices, gap_ns });
    }
    gaps
}

fn slots(part: &Partials) -> ByWindow<Filled> {
    let mut slots = ByWindow::default();
    let each = part.slot_window.iter().zip(&part.slot_points).zip(&part.slots_filled);
    for ((window, points), filled) in each {
        slots.add(*window, Filled::new(*points, *filled));
    }
    slots
}

/// Numbers of the windows and the bytes of each.
fn encoded<P: Unfinished>(
    series: &mut ByWindow<P>,
    room: usize,
    encode: impl Fn(&P, &mut Vec<u8>),
) -> (Vec<i64>, Vec<Bytes>) {
    let sorted = series.sorted();
    let mut bytes = Vec::with_capacity(sorted.len() * room);
    let mut ends = Vec::with_capacity(sorted.len());
    for (_, gathered) in sorted {
        encode(gathered, &mut bytes);
        ends.push(bytes.len());
    }
    let bytes = Bytes::from(bytes);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let each = starts.zip(&ends).map(|(start, end)| bytes.slice(start..*end)).collect();
    (sorted.iter().map(|(window, _)| *window).collect(), each)
}

fn decoded<P: Unfinished>(
    windows: &[i64],
    bytes: &[Bytes],
    decode: impl Fn(&[u8]) -> std::result::Result<P, Corrupt>,
) -> Result<ByWindow<P>> {
    let mut series = ByWindow::default();
    series.reserve(windows.len().min(bytes.len()));
    for (window, bytes) in windows.iter().zip(bytes) {
        series.add(*window, decode(bytes).map_err(corrupt)?);
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tidemark_series::{ValueRef, ValueType};

    #[test]
    fn a_window_costs_what_its_texts_do() {
        let of = |text: &str| {
            let mut series = Series::default();
            for window in 0..10 {
                series
                    .points
                    .at(window, ValueType::Text)
                    .fold(window, ValueRef::Text(text));
            }
            series.bytes()
        };
        // Each is the first and the last one of its window.
        assert_eq!(of(&"x".repeat(1_000)), of("") + 10 * 2 * 1_000);
    }

    #[test]
    fn a_series_comes_back_as_it_went() {
        let mut series = Series::default();
        for (window, value) in [(3, "a"), (-7, "bc"), (3, "d"), (9, "")] {
            series
                .points
                .at(window, ValueType::Text)
                .fold(window, ValueRef::Text(value));
            series.sequences.entry(window * 2).steps += 1;
            series.gaps.add(
                window,
                Widest {
                    devices: 1,
                    gap_ns: 7 * window,
                },
            );
            series.slots.add(window, Filled::new(3, 2));
            let answers = (window > 0).then(|| vec![window as f64, 0.5]);
            series.areal.add(window, Areal::of_device((3, 2), answers));
        }
        let mut part = Partials::default();
        series.put_into(&mut part);
        assert_eq!(
            (&part.window[..], &part.sequence_window[..]),
            (&[-7, 3, 9][..], &[-14, 6, 18][..])
        );
        let mut back = Series::from_wire(&part).unwrap();
        assert_eq!(back.points.sorted(), series.points.sorted());
        let steps: Vec<u64> = back.sequences.sorted().iter().map(|(_, s)| s.steps).collect();
        assert_eq!(steps, [1, 2, 1]);
        assert_eq!(back.gaps.sorted(), series.gaps.sorted());
        assert_eq!(back.slots.sorted(), series.slots.sorted());
        assert_eq!(back.areal.sorted(), series.areal.sorted());
        assert_eq!(back.bytes(), series.bytes(), "texts count on both sides");
        let mut nothing = Partials::default();
        Series::default().put_into(&mut nothing);
        assert_eq!(nothing, Partials::default());
    }
}
