//! A series as it is answered: its windows, how well each is covered, and a column for each question.
//!
//! Never here: where a series comes from. Invariant: a window that nothing is known of is left out, and so is one that is
//! covered too thinly, but for being listed.

use tidemark_proto::v1::{AggregateSeries, InsufficientWindow, QueryAggregateRequest};
use tidemark_series::{Bitmap, Finished, Partial, Sequence, SequenceFunction, ValueType, Windows};

use super::functions::{Asked, ColumnOf, Measure, Unanswerable};
use super::plan::{asked_windows, promised, steps, windows};
use super::series::Series;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Reason, Result};
use crate::wire::answer::FinishedColumn;

/// What a window gathered.
#[derive(Clone, Debug)]
struct Gathered {
    window: i64,
    points: Option<Partial>,
    sequence: Option<Box<Sequence>>,
}

/// Finishes series of one property.
pub(super) struct Finishing<'a> {
    request: &'a QueryAggregateRequest,
    def: &'a TypeDef,
    property: &'a PropertyDef,
    columns: Vec<ColumnOf>,
    asked: Windows,
    steps: i64,
}

impl<'a> Finishing<'a> {
    /// For a checked request.
    pub(super) fn new(
        request: &'a QueryAggregateRequest,
        functions: &[Asked],
        def: &'a TypeDef,
        property: &'a PropertyDef,
    ) -> Result<Finishing<'a>> {
        let columns = functions.iter().map(|asked| asked.columns(request, property));
        let columns: Vec<Vec<ColumnOf>> = columns.collect::<Result<_>>()?;
        Ok(Finishing {
            request,
            def,
            property,
            columns: columns.into_iter().flatten().collect(),
            asked: asked_windows(request, property.kind),
            steps: request.window.as_ref().map_or(1, steps),
        })
    }

    /// What the first window answers to the first question.
    pub(super) fn first(&self, series: &mut Series) -> Result<Option<Finished>> {
        let Some(column) = self.columns.first() else {
            return Ok(None);
        };
        let points = series.points.sorted().first();
        let sequence = series.sequences.sorted().first();
        let window = points
            .map(|(window, _)| *window)
            .or(sequence.map(|(window, _)| *window));
        let (points, sequence) = (points.map(|(_, points)| points), sequence.map(|(_, sequence)| sequence));
        self.answer(column, points, sequence, self.bounds(window.unwrap_or(0)))
    }

    /// All windows and columns; who the series is of stays open.
    pub(super) fn finish(&self, series: Series, devices: u64) -> Result<AggregateSeries> {
        let gathered = self.slide(together(series));
        let mut answer = AggregateSeries::default();
        let room = gathered.len();
        for per_window in [&mut answer.start_ns, &mut answer.end_ns] {
            per_window.reserve_exact(room);
        }
        for per_window in [&mut answer.points_seen, &mut answer.points_promised] {
            per_window.reserve_exact(room);
        }
        let mut columns: Vec<Answers> = self.columns.iter().map(|_| Answers::new(room)).collect();
        for one in &gathered {
            let (start_ns, end_ns) = self.bounds(one.window);
            let seen = one.points.as_ref().map_or(0, Partial::count);
            let promised = promised(self.def, start_ns, end_ns, devices);
            if (seen as f64) < self.request.min_coverage * promised as f64 {
                answer.insufficient.push(InsufficientWindow {
                    start_ns,
                    end_ns,
                    points_seen: seen,
                    points_promised: promised,
                });
                continue;
            }
            answer.start_ns.push(start_ns);
            answer.end_ns.push(end_ns);
            answer.points_seen.push(seen);
            answer.points_promised.push(promised);
            if self.tells_time() {
                let covered = one.sequence.as_deref().map_or(0, covered_ns);
                answer.covered_ns.push(i64::try_from(covered).unwrap_or(i64::MAX));
            }
            for (column, answers) in self.columns.iter().zip(&mut columns) {
                let finished = self.answer(column, one.points.as_ref(), one.sequence.as_deref(), (start_ns, end_ns))?;
                answers.push(finished);
            }
        }
        let columns = self.columns.iter().zip(columns);
        answer.columns = columns
            .map(|(column, answers)| answers.finish(column, self.property))
            .collect();
        Ok(answer)
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

    /// Start and end of a window that was asked for.
    fn bounds(&self, window: i64) -> (i64, i64) {
        let (start_ns, end_ns) = self.asked.bounds(window);
        if self.steps == 1 {
            return (start_ns, end_ns);
        }
        let whole = windows(self.request, self.property.kind);
        (whole.bounds(window.saturating_sub(self.steps - 1)).0, end_ns)
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

    /// Windows that slide, from the steps that they are made of.
    fn slide(&self, steps: Vec<Gathered>) -> Vec<Gathered> {
        if self.steps == 1 {
            return steps;
        }
        let Some((first, last)) = self.asked.index_range() else {
            return Vec::new();
        };
        let mut slid = Vec::new();
        let mut from = 0;
        for window in first..=last {
            let begin = window.saturating_sub(self.steps - 1);
            from += steps[from..].iter().take_while(|step| step.window < begin).count();
            let inside = steps[from..].iter().take_while(|step| step.window <= window);
            let mut whole: Option<Gathered> = None;
            for step in inside {
                match &mut whole {
                    Some(whole) => whole.merge(step),
                    None => whole = Some(Gathered { window, ..step.clone() }),
                }
            }
            slid.extend(whole);
        }
        slid
    }
}

impl Gathered {
    fn merge(&mut self, other: &Gathered) {
        match (&mut self.points, &other.points) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => mine.clone_from(theirs),
            (_, None) => {}
        }
        match (&mut self.sequence, &other.sequence) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => mine.clone_from(theirs),
            (_, None) => {}
        }
    }
}

/// Points and sequences of the same windows, side by side.
fn together(series: Series) -> Vec<Gathered> {
    let mut sequences = series.sequences.into_sorted().into_iter().peekable();
    let alone = |(window, sequence)| Gathered {
        window,
        points: None,
        sequence: Some(Box::new(sequence)),
    };
    let points = series.points.into_sorted();
    let mut gathered = Vec::with_capacity(points.len());
    for (window, points) in points {
        while let Some(before) = sequences.next_if(|(other, _)| *other < window) {
            gathered.push(alone(before));
        }
        let same = sequences.next_if(|(other, _)| *other == window);
        gathered.push(Gathered {
            window,
            points: Some(points),
            sequence: same.map(|(_, sequence)| Box::new(sequence)),
        });
    }
    gathered.extend(sequences.map(alone));
    gathered
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
}

impl Answers {
    fn new(room: usize) -> Answers {
        Answers {
            values: FinishedColumn::new(room),
            present: Vec::with_capacity(room),
        }
    }

    fn push(&mut self, finished: Option<Finished>) {
        self.present.push(finished.is_some());
        if let Some(finished) = finished {
            self.values.push(finished);
        }
    }

    fn finish(self, column: &ColumnOf, property: &PropertyDef) -> tidemark_proto::v1::AggregateColumn {
        let mut answered = self.values.finish(column.function, property);
        answered.parameter = column.parameter;
        answered.state.clone_from(&column.state);
        if self.present.contains(&false) {
            let mut present = Bitmap::new(self.present.len());
            let windows = self.present.iter().enumerate().filter(|(_, present)| **present);
            windows.for_each(|(window, _)| present.set(window, true));
            answered.presence = present.to_bytes_lsb().into();
        }
        answered
    }
}
