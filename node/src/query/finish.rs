//! A series as it is answered: its windows, how well each is covered, and a column for each question.
//!
//! Never here: where a series comes from. Invariant: a window that nothing is known of is left out, and so is one that is
//! covered too thinly, but for being listed.

use tidemark_proto::v1::{AggregateColumn, AggregateSeries, ArealDevices, InsufficientWindow, QueryAggregateRequest};
use tidemark_series::{
    Bitmap, ByWindow, Filled, Finished, Partial, Sequence, SequenceFunction, Slots, Unfinished, ValueType,
};

use super::areal::{self, Areal};
use super::fill::{Fill, bytes_of_windows, text_bytes, texts_of};
use super::functions::{Asked, ColumnOf, Measure, Unanswerable};
use super::grid::{Grid, slots};
use super::plan::{counts_slots, promised};
use super::seen::{Gathered, Seen, lay, slots_with_points, together};
use super::series::{Series, check_budget};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Reason, Result};
use crate::wire::answer::FinishedColumn;

/// A series of so many bytes is short.
const SHORT_BYTES_MAX: usize = 1 << 20;

/// Finishes series of one property.
pub(super) struct Finishing<'a> {
    request: &'a QueryAggregateRequest,
    def: &'a TypeDef,
    property: &'a PropertyDef,
    columns: Vec<ColumnOf>,
    grid: Grid,
    /// Where these are counted.
    slots: Option<Slots>,
    fill: Option<Fill>,
    /// Share of its slots in which a device needs points to have a part in an areal value, where these are asked for.
    areal: Option<f64>,
    /// Most that texts and states of a series may take, bytes.
    bytes_max: usize,
}

impl<'a> Finishing<'a> {
    /// For a checked request.
    pub(super) fn new(
        request: &'a QueryAggregateRequest,
        functions: &[Asked],
        (def, property): (&'a TypeDef, &'a PropertyDef),
        bytes_max: usize,
    ) -> Result<Finishing<'a>> {
        let columns = functions.iter().map(|asked| asked.columns(request, property));
        let columns: Vec<Vec<ColumnOf>> = columns.collect::<Result<_>>()?;
        Ok(Finishing {
            request,
            def,
            property,
            columns: columns.into_iter().flatten().collect(),
            grid: Grid::new(request, property.kind),
            slots: slots(request, def, property),
            fill: Fill::of(request)?,
            areal: areal::min_coverage(request)?,
            bytes_max,
        })
    }

    /// What the first window of so many devices answers to the first question; nothing where it is covered too thinly, as in the
    /// whole answer.
    pub(super) fn first(&self, series: &mut Series, devices: u64) -> Result<Option<Finished>> {
        let Some(column) = self.columns.first() else {
            return Ok(None);
        };
        let points = series.points.sorted().first();
        let sequence = series.sequences.sorted().first();
        let window = points
            .map(|(window, _)| *window)
            .or(sequence.map(|(window, _)| *window));
        let (points, sequence) = (points.map(|(_, points)| points), sequence.map(|(_, sequence)| sequence));
        let bounds = self.grid.bounds(window.unwrap_or(0));
        if window.is_some() {
            let slots = series.slots.sorted().iter().find(|(other, _)| Some(*other) == window);
            let filled = slots_with_points(points.map_or(0, Partial::count), slots.map(|(_, known)| known));
            let promised = promised(self.def, bounds.0, bounds.1, devices);
            if self.is_thin(filled.min(promised), promised) {
                return Ok(None);
            }
        }
        self.answer(column, points, sequence, bounds)
    }

    /// Whether so many slots with points are too few, of so many.
    fn is_thin(&self, filled: u64, promised: u64) -> bool {
        (filled as f64) < self.request.min_coverage * promised as f64
    }

    /// What one device has to say to an areal value, where these are asked for; leaves everything else as it is.
    pub(super) fn areal_of(&self, series: Series) -> Result<Series> {
        let Some(share) = self.areal else {
            return Ok(series);
        };
        let (mut areal, gaps) = (ByWindow::default(), series.gaps.clone());
        for (window, one) in self.slid(series)? {
            let one = one.seen();
            let (bounds, seen) = (self.grid.bounds(window), one.points_seen());
            if seen == 0 {
                continue;
            }
            let promised = promised(self.def, bounds.0, bounds.1, 1);
            let filled = one.filled(promised);
            let enough = filled as f64 >= share * promised as f64;
            let number = |column: &ColumnOf| {
                let answer = self.answer(column, one.points, one.sequence, bounds)?;
                Ok(answer.as_ref().and_then(areal::number))
            };
            let answers = self.columns.iter().filter(|_| enough).map(number);
            let answers: Option<Vec<f64>> = answers.collect::<Result<_>>()?;
            areal.add(window, Areal::of_device((seen, filled), answers.filter(|_| enough)));
        }
        Ok(Series {
            gaps,
            areal,
            ..Series::default()
        })
    }

    /// Whether a series finished takes little room, also where it has many columns: else it is worth more unfinished.
    pub(super) fn is_short(&self, series: &Series) -> bool {
        let windows = series.points.len().max(series.sequences.len());
        let answers = bytes_of_windows(windows, self.columns.len());
        let texts = series.points.heap_bytes().saturating_mul(self.columns.len());
        !self.grid.slides() && self.fill.is_none() && answers.saturating_add(texts) <= SHORT_BYTES_MAX
    }

    /// All windows and columns; of which device or group the series is stays open. What is in the series is not needed any more.
    pub(super) fn finish(&self, series: &mut Series, devices: u64) -> Result<AggregateSeries> {
        if self.is_answered_in_place(series) {
            let windows = series.points.sorted().iter();
            let windows = windows.map(|(window, points)| (*window, Seen::of_points(points)));
            return self.answers(windows, devices);
        }
        let gathered = self.on_grid(self.gathered(std::mem::take(series))?);
        let windows = gathered.iter().map(|(window, one)| (*window, one.seen()));
        self.answers(windows, devices)
    }

    /// Whether the windows that were asked for lie in the series as they are, with nothing beside their points.
    fn is_answered_in_place(&self, series: &Series) -> bool {
        let points_alone = series.sequences.is_empty() && series.gaps.is_empty() && series.slots.is_empty();
        points_alone && self.areal.is_none() && self.fill.is_none() && !self.grid.slides()
    }

    /// Answers windows, which ascend.
    fn answers<'s>(
        &self,
        windows: impl ExactSizeIterator<Item = (i64, Seen<'s>)>,
        devices: u64,
    ) -> Result<AggregateSeries> {
        let room = windows.len();
        let mut answer = AggregateSeries {
            device_type: self.def.id().to_string(),
            property: self.property.id.clone(),
            ..AggregateSeries::default()
        };
        for per_window in [&mut answer.start_ns, &mut answer.end_ns] {
            per_window.reserve_exact(room);
        }
        for per_window in [&mut answer.points_seen, &mut answer.points_promised] {
            per_window.reserve_exact(room);
        }
        if counts_slots(self.request) {
            answer.slots_filled.reserve_exact(room);
        }
        let mut columns: Vec<Answers> = self.columns.iter().map(|_| Answers::new(room, self.fill)).collect();
        let mut own = Vec::with_capacity(room);
        let mut texts = 0;
        for (window, one) in windows {
            let bounds = self.grid.bounds(window);
            let Some(measured) = self.window(bounds, one, devices, &mut answer) else {
                continue;
            };
            own.push(measured);
            for (at, (column, answers)) in self.columns.iter().zip(&mut columns).enumerate() {
                let answered = match one.areal {
                    Some(areal) => areal.mean(at).filter(|_| measured),
                    None if measured || (one.is_empty() && self.areal.is_none()) => {
                        self.answer(column, one.points, one.sequence, bounds)?
                    }
                    None => None,
                };
                texts += answered.as_ref().map_or(0, text_bytes);
                check_budget(texts, self.bytes_max)?;
                answers.push(answered);
            }
        }
        let mut texts = 0;
        for (column, answers) in self.columns.iter().zip(columns) {
            let windows = (&answer.start_ns[..], &own[..]);
            let finished = answers.finish(column, self.property, windows, (texts, self.bytes_max))?;
            texts += texts_of(&finished);
            answer.columns.push(finished);
        }
        if self.fill.is_some() && own.contains(&false) {
            answer.filled = bits(own.iter().map(|own| !own)).into();
        }
        Ok(answer)
    }

    /// Tells of a window how well it is covered, and whether it has values of its own; `None` where it is left out.
    fn window(&self, bounds: (i64, i64), one: Seen<'_>, devices: u64, answer: &mut AggregateSeries) -> Option<bool> {
        let (start_ns, end_ns) = bounds;
        let seen = one.points_seen();
        let promised = promised(self.def, start_ns, end_ns, devices);
        let largest_gap_ns = match one.gap {
            Some(widest) if widest.devices >= devices => widest.gap_ns,
            _ => end_ns.saturating_sub(start_ns),
        };
        let filled = one.filled(promised);
        let thin = !one.is_empty() && self.is_thin(filled, promised);
        if thin {
            answer.insufficient.push(InsufficientWindow {
                start_ns,
                end_ns,
                points_seen: seen,
                points_promised: promised,
                largest_gap_ns: if self.request.largest_gap { largest_gap_ns } else { 0 },
                slots_filled: filled,
            });
        }
        if self.fill.is_none() && (thin || one.is_empty()) {
            return None;
        }
        answer.start_ns.push(start_ns);
        answer.end_ns.push(end_ns);
        answer.points_seen.push(seen);
        answer.points_promised.push(promised);
        if counts_slots(self.request) {
            answer.slots_filled.push(filled);
        }
        if self.request.largest_gap {
            answer.largest_gap_ns.push(largest_gap_ns);
        }
        if self.tells_time() {
            let covered = one.sequence.map_or(0, covered_ns);
            answer.covered_ns.push(i64::try_from(covered).unwrap_or(i64::MAX));
        }
        let (used, too_few) = one.areal.map_or((0, 0), |areal| (areal.used, areal.too_few));
        if self.areal.is_some() {
            answer.areal.push(ArealDevices {
                used,
                too_few_points: too_few,
                no_points: devices.saturating_sub(used).saturating_sub(too_few),
            });
        }
        Some(!thin && !one.is_empty() && (self.areal.is_none() || used > 0))
    }

    /// What windows that were asked for gathered.
    fn gathered(&self, mut series: Series) -> Result<Vec<(i64, Gathered)>> {
        let gaps = std::mem::take(&mut series.gaps);
        let areal = |(window, areal)| {
            let gathered = Gathered {
                areal: Some(Box::new(areal)),
                ..Gathered::default()
            };
            (window, gathered)
        };
        let mut gathered = match self.areal {
            Some(_) => series.areal.into_sorted().into_iter().map(areal).collect(),
            None => self.slid(series)?,
        };
        lay(&mut gathered, gaps.into_sorted(), |one, widest| one.gap = Some(widest));
        Ok(gathered)
    }

    /// What the points of windows that were asked for gathered.
    fn slid(&self, mut series: Series) -> Result<Vec<(i64, Gathered)>> {
        let mut slots = std::mem::take(&mut series.slots).into_sorted();
        if self.slots.as_ref().is_some_and(Slots::of_steps) {
            slots = self.grid.slide(slots, Filled::merge);
        }
        let mut held = 0;
        let mut gathered = self.grid.slide_each(together(series), Gathered::merge, |whole| {
            held += whole.heap_bytes();
            check_budget(held, self.bytes_max)
        })?;
        lay(&mut gathered, slots, |one, known| {
            one.filled = Some(slots_with_points(one.seen().points_seen(), Some(&known)));
        });
        Ok(gathered)
    }

    /// Every window that was asked for, where gaps are filled.
    fn on_grid(&self, gathered: Vec<(i64, Gathered)>) -> Vec<(i64, Gathered)> {
        let Some(numbers) = self.grid.numbers().filter(|_| self.fill.is_some()) else {
            return gathered;
        };
        let mut known = gathered.into_iter().peekable();
        let mut next = |window: i64| {
            while known.next_if(|(other, _)| *other < window).is_some() {}
            known.next_if(|(other, _)| *other == window)
        };
        numbers
            .map(|window| next(window).unwrap_or((window, Gathered::default())))
            .collect()
    }

    fn answer(
        &self,
        column: &ColumnOf,
        points: Option<&Partial>,
        sequence: Option<&Sequence>,
        (start_ns, end_ns): (i64, i64),
    ) -> Result<Option<Finished>> {
        let finished = column.measure.finish(points, sequence, end_ns.abs_diff(start_ns));
        let finished = finished.map_err(|why| {
            let message = format!("{} from {start_ns} ns: {why}", self.property.id);
            match why {
                Unanswerable::Sum(_) => Error::new(Reason::SumOverflow, message).hint("ask for shorter windows"),
                Unanswerable::States(_) => {
                    Error::new(Reason::QueryTooLarge, message).hint("ask for shorter windows or fewer devices")
                }
            }
        })?;
        Ok(match (column.measure, finished) {
            // A state is told as values of the property are.
            (Measure::Sequence(SequenceFunction::Mode), Some(Finished::I64(code))) => {
                Some(match self.property.value_type {
                    ValueType::Enum => Finished::Enum(u32::try_from(code).unwrap_or_default()),
                    ValueType::Bool => Finished::Bool(code != 0),
                    _ => Finished::I64(code),
                })
            }
            // Only windows whose every value is NaN have points but no smallest or greatest one.
            (Measure::Points(_), None) if points.is_some() => Some(Finished::F64(f64::NAN)),
            (_, finished) => finished,
        })
    }

    fn tells_time(&self) -> bool {
        let tells = |column: &ColumnOf| match column.measure {
            Measure::Sequence(function) => matches!(
                function,
                SequenceFunction::Integral
                    | SequenceFunction::TimeWeightedAvg
                    | SequenceFunction::Duration(_)
                    | SequenceFunction::Transitions
            ),
            Measure::Points(_) => false,
        };
        self.columns.iter().any(tells)
    }
}

/// Time that a sequence tells about.
fn covered_ns(sequence: &Sequence) -> u128 {
    let held = sequence.states.values().map(|state| state.held_ns);
    sequence.covered_ns.max(held.fold(0, u128::saturating_add))
}

/// Answers of one column, window by window.
struct Answers {
    values: FinishedColumn,
    present: Vec<bool>,
    /// Where gaps are filled: all that was answered, until all is known.
    held: Option<(Fill, Vec<Option<Finished>>)>,
}

impl Answers {
    fn new(room: usize, fill: Option<Fill>) -> Answers {
        Answers {
            values: FinishedColumn::new(room),
            present: Vec::with_capacity(room),
            held: fill.map(|fill| (fill, Vec::with_capacity(room))),
        }
    }

    fn push(&mut self, finished: Option<Finished>) {
        match &mut self.held {
            Some((_, held)) => held.push(finished),
            None => self.place(finished),
        }
    }

    fn place(&mut self, finished: Option<Finished>) {
        self.present.push(finished.is_some());
        if let Some(finished) = finished {
            self.values.push(finished);
        }
    }

    /// The column; of `windows` it is told when they begin, and whether they have values of their own. Texts that are filled in take
    /// no more than there is `room` for: what others take, and all may.
    fn finish(
        mut self,
        column: &ColumnOf,
        property: &PropertyDef,
        windows: (&[i64], &[bool]),
        room: (usize, usize),
    ) -> Result<AggregateColumn> {
        if let Some((fill, mut held)) = self.held.take() {
            fill.fill(column.function, windows, &mut held, room)?;
            held.into_iter().for_each(|finished| self.place(finished));
        }
        let mut answered = self.values.finish(column.function, property);
        answered.parameter = column.parameter;
        answered.state.clone_from(&column.state);
        if self.present.contains(&false) {
            answered.presence = bits(self.present.into_iter()).into();
        }
        Ok(answered)
    }
}

/// One bit per window, lowest bit of the first byte first.
fn bits(windows: impl ExactSizeIterator<Item = bool>) -> Vec<u8> {
    let mut bits = Bitmap::new(windows.len());
    let set = windows.enumerate().filter(|(_, set)| *set);
    set.for_each(|(window, _)| bits.set(window, true));
    bits.to_bytes_lsb()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::functions::functions;
    use super::*;
    use tidemark_proto::v1::{self, DeviceType, Property, Window};
    use tidemark_series::gaps::Widest;
    use tidemark_series::{ValueRef, ValueType};

    #[test]
    fn windows_are_answered_alike_where_they_lie_and_laid_together() {
        let property = Property {
            id: "level".into(),
            kind: v1::Kind::Gauge as i32,
            value_type: v1::ValueType::F64 as i32,
            number: 1,
            ..Property::default()
        };
        let def = TypeDef::new(DeviceType {
            id: "t".into(),
            properties: vec![property],
            sample_interval_s: 1,
            ..DeviceType::default()
        })
        .unwrap();
        let request = QueryAggregateRequest {
            functions: [v1::Function::Avg, v1::Function::Count, v1::Function::Last]
                .map(|f| f as i32)
                .into(),
            to_ns: 100_000_000_000,
            window: Some(Window {
                step_ns: 10_000_000_000,
                ..Window::default()
            }),
            ..QueryAggregateRequest::default()
        };
        let property = def.choose(&["level".to_string()]).unwrap()[0];
        let finishing = Finishing::new(&request, &functions(&request).unwrap(), (&def, property), 1 << 20).unwrap();
        let series = || {
            let mut series = Series::default();
            for (window, value) in [(0, 1.5), (7, -0.0), (0, 2.5), (3, f64::NAN)] {
                series
                    .points
                    .at(window, ValueType::F64)
                    .fold(window, ValueRef::F64(value));
            }
            series
        };
        let mut beside = series();
        beside.gaps.add(3, Widest { devices: 1, gap_ns: 5 });
        assert!(finishing.is_answered_in_place(&series()) && !finishing.is_answered_in_place(&beside));
        assert!(finishing.is_short(&series()) && finishing.is_short(&beside));
        let mut long = Series::default();
        for window in 0..10_000 {
            long.points.at(window, ValueType::F64).fold(window, ValueRef::F64(0.0));
        }
        assert!(!finishing.is_short(&long), "seven columns of 10,000 windows");
        let in_place = finishing.finish(&mut series(), 1).unwrap();
        let laid = finishing.finish(&mut beside, 1).unwrap();
        // NaN is equal to nothing, and itself as text.
        assert_eq!(format!("{in_place:?}"), format!("{laid:?}"));
        assert_eq!(in_place.start_ns, [0, 30_000_000_000, 70_000_000_000]);
        assert_eq!(
            (&in_place.points_seen[..], &in_place.points_promised[..]),
            (&[2, 1, 1][..], &[10, 10, 10][..])
        );
    }
}
