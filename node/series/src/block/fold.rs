//! Columns of a block straight into aggregates: by the statistics in the header where one window holds the whole block,
//! else stretch by stretch of the values that fall into one window.
//!
//! Never here: windows (see `window`) and sums (see `partial`). Invariant: what comes out and is needed is what folding every
//! value by itself gives, sums of doubles to their last bits aside.

use std::convert::Infallible;
use std::ops::Range;

use super::Block;
use super::read::Ticks;
use super::stats::ColumnStats;
use crate::bitmap::Bitmap;
use crate::by_window::ByWindow;
use crate::checks::Choice;
use crate::corrupt::Corrupt;
use crate::needs::Needs;
use crate::number::Number;
use crate::partial::Partial;
use crate::record::{PropertyNumber, ValueRef, ValueType, Values};
use crate::slots::{Filled, Slots};
use crate::stamps::Stamps;
use crate::window::Windows;

/// Qualities of points that are looked at: bit n for quality n. Points without a quality have 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Accepted(pub u64);

impl Accepted {
    /// Whatever its quality.
    pub const ALL: Accepted = Accepted(u64::MAX);

    /// Whether points of a quality are looked at.
    pub fn accepts(self, quality: u8) -> bool {
        self.0 >> quality.min(63) & 1 == 1
    }
}

/// Points of a column, those that are accepted.
#[derive(Clone, Debug)]
pub struct Points {
    /// When they were observed, ascending.
    pub times: Vec<i64>,
    /// One for each.
    pub values: Values,
    /// When those were observed that are not accepted, ascending.
    pub dropped: Vec<i64>,
    /// What the source says of each, where neighbours decide; empty where it says nothing of any.
    pub stated: Vec<u8>,
}

/// Folds columns of one block; what they share is decoded once.
#[derive(Debug)]
pub struct Folding<'b, 'a> {
    block: &'b Block<'a>,
    ticks: Option<Ticks>,
    dropped: u64,
    decoded: u64,
}

impl<'a> Block<'a> {
    /// Begins to fold columns of this block.
    pub fn folding(&self) -> Folding<'_, 'a> {
        Folding {
            block: self,
            ticks: None,
            dropped: 0,
            decoded: 0,
        }
    }

    /// What the header says of the values of a column of which all are chosen; `None`: they have to be looked at.
    pub fn stats_of_chosen(&self, property: PropertyNumber, choice: &Choice<'_>) -> Option<ColumnStats> {
        let stated = choice.accepted != Accepted::ALL && self.has_qualities(property);
        let stats = self.stats(property).filter(|_| !stated)?;
        choice.takes_all(stats.ends_of_all()).then_some(stats)
    }
}

impl Folding<'_, '_> {
    /// Adds what is needed of the chosen values of a column to the aggregates of the windows they fall into, by number of the
    /// window. Does nothing where the block has no such column. Choices that need the order of values are not made here.
    ///
    /// # Errors
    /// The times or the column are damaged.
    pub fn fold(
        &mut self,
        property: PropertyNumber,
        windows: &Windows,
        needs: Needs,
        choice: &Choice<'_>,
        partials: &mut ByWindow,
    ) -> Result<(), Corrupt> {
        self.fold_column(property, windows, needs, choice, partials).map(drop)
    }

    /// The same, and notes which slots of windows have any of the chosen values. Where the header is enough for the values, only times are
    /// decoded, and no list of them where they are even.
    ///
    /// # Errors
    /// The times or the column are damaged.
    pub fn fold_filling(
        &mut self,
        property: PropertyNumber,
        windows: &Windows,
        needs: Needs,
        choice: &Choice<'_>,
        partials: &mut ByWindow,
        (slots, filled): (&Slots, &mut ByWindow<Filled>),
    ) -> Result<(), Corrupt> {
        match self.fold_column(property, windows, needs, choice, partials)? {
            Some(points) => slots.fill(&points.times, filled),
            None => self.fill(property, slots, filled)?,
        }
        Ok(())
    }

    /// Notes which slots have a value of a column of which all are chosen.
    fn fill(&mut self, property: PropertyNumber, slots: &Slots, filled: &mut ByWindow<Filled>) -> Result<(), Corrupt> {
        if self.block.value_type(property).is_none() {
            return Ok(());
        }
        let times_known = self.ticks.is_some();
        let (ticks, presence) = self.ticks_and_presence(property)?;
        let listed = match (ticks, presence) {
            (Ticks::Even(even), None) => {
                slots.fill_stamped(*even, filled);
                0
            }
            (Ticks::Even(even), Some(map)) => {
                let present: Vec<i64> = map.iter_ones().map(|row| even.at(row)).collect();
                slots.fill(&present, filled);
                0
            }
            (Ticks::List(times, _), None) => {
                slots.fill(times, filled);
                times.len()
            }
            (Ticks::List(times, _), Some(map)) => {
                let present: Vec<i64> = map.iter_ones().map(|row| times.as_slice().at(row)).collect();
                slots.fill(&present, filled);
                times.len()
            }
        };
        if !times_known {
            self.decoded += listed as u64;
        }
        Ok(())
    }

    /// Folds a column; returns the chosen points where not all of its values may be.
    fn fold_column(
        &mut self,
        property: PropertyNumber,
        windows: &Windows,
        needs: Needs,
        choice: &Choice<'_>,
        partials: &mut ByWindow,
    ) -> Result<Option<Points>, Corrupt> {
        let Some(value_type) = self.block.value_type(property) else {
            return Ok(None);
        };
        let stated = choice.accepted != Accepted::ALL && self.block.has_qualities(property);
        let ends = || self.block.stats(property).and_then(|stats| stats.ends_of_all());
        let unsure = !stated && !choice.limits_nothing() && !choice.takes_all(ends());
        if stated || unsure && self.block.stats(property).is_some() {
            return self.fold_chosen(property, windows, needs, choice, partials);
        }
        let ends = (self.block.first_ns(), self.block.last_ns());
        if let (Some(first), Some(last)) = (windows.index_of(ends.0), windows.index_of(ends.1))
            && first == last
            && let Some(stats) = self.block.stats(property)
        {
            partials.at(first, value_type).fold_stats(&stats);
            return Ok(None);
        }
        let block = self.block;
        let (ticks, presence) = self.ticks_and_presence(property)?;
        let column = ColumnOf {
            block,
            property,
            presence,
            all: match needs {
                Needs::Highest | Needs::Lowest => block.stats(property).map(|stats| stats.partial),
                Needs::Extremes | Needs::All => None,
            },
        };
        let choice_of_all = unsure.then_some(choice);
        let folded = match ticks {
            Ticks::Even(even) => column.fold(*even, windows, needs, choice_of_all, partials),
            Ticks::List(times, _) => column.fold(times.as_slice(), windows, needs, choice_of_all, partials),
        }?;
        match folded {
            Some(values) => {
                self.decoded += values as u64;
                Ok(None)
            }
            None => self.fold_chosen(property, windows, needs, choice, partials),
        }
    }

    /// The same, value by value.
    fn fold_chosen(
        &mut self,
        property: PropertyNumber,
        windows: &Windows,
        needs: Needs,
        choice: &Choice<'_>,
        partials: &mut ByWindow,
    ) -> Result<Option<Points>, Corrupt> {
        let points = self.points(property, choice)?;
        if let Some(points) = &points {
            self.dropped += points.dropped_within(windows);
            points.fold(windows, needs, partials);
        }
        Ok(points)
    }

    /// The chosen points of a column; `None` where the block has no such column.
    ///
    /// # Errors
    /// The times or the column are damaged.
    pub fn points(&mut self, property: PropertyNumber, choice: &Choice<'_>) -> Result<Option<Points>, Corrupt> {
        let block = self.block;
        let Some(column) = block.column(property)? else {
            return Ok(None);
        };
        self.decoded += column.values.len() as u64;
        let (ticks, presence) = self.ticks_and_presence(property)?;
        let time = |row: usize| match ticks {
            Ticks::Even(even) => even.at(row),
            Ticks::List(times, _) => times.as_slice().at(row),
        };
        let mut times: Vec<i64> = match &presence {
            None => (0..column.values.len()).map(time).collect(),
            Some(map) => map.iter_ones().map(time).collect(),
        };
        let mut values = column.values;
        let mut dropped = Vec::new();
        let mut quality = column.quality.unwrap_or_default();
        if !quality.is_empty() || !choice.limits_nothing() {
            let stated = |at: usize| quality.get(at).copied().unwrap_or(0);
            let number = |at: usize| values.get(at).and_then(ValueRef::number);
            let takes = |at: usize| number(at).is_none_or(|number| choice.takes(number));
            let chosen = |at: &usize| choice.accepts(stated(*at)) && takes(*at);
            let (kept, left): (Vec<usize>, Vec<usize>) = (0..times.len()).partition(chosen);
            dropped = left.into_iter().map(|at| times[at]).collect();
            times = kept.iter().map(|at| times[*at]).collect();
            if !quality.is_empty() {
                quality = kept.iter().map(|at| quality[*at]).collect();
            }
            values = values.gather(kept.into_iter());
        }
        let stated = match choice.needs_order() {
            true => quality,
            false => Vec::new(),
        };
        Ok(Some(Points {
            times,
            values,
            dropped,
            stated,
        }))
    }

    /// Points that were not accepted, of all columns folded so far, within their windows.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Values that were decoded so far; 0 where the header was enough.
    pub fn decoded(&self) -> u64 {
        self.decoded
    }

    fn ticks_and_presence(&mut self, property: PropertyNumber) -> Result<(&Ticks, Option<Bitmap>), Corrupt> {
        let ticks = match self.ticks.take() {
            Some(ticks) => self.ticks.insert(ticks),
            None => self.ticks.insert(self.block.read_ticks()?),
        };
        let clocks = match ticks {
            Ticks::List(_, clocks) => clocks.as_ref(),
            Ticks::Even(_) => None,
        };
        let presence = self.block.presence_of(property, clocks)?;
        Ok((ticks, presence))
    }
}

impl Points {
    /// No points.
    pub fn empty(of: ValueType) -> Points {
        Points {
            times: Vec::new(),
            values: Values::empty(of),
            dropped: Vec::new(),
            stated: Vec::new(),
        }
    }

    /// One point.
    pub fn one(t_ns: i64, value: ValueRef<'_>) -> Points {
        let values = match value {
            ValueRef::F64(value) => Values::F64(vec![value]),
            ValueRef::I64(value) => Values::I64(vec![value]),
            ValueRef::Bool(value) => Values::Bool(vec![value]),
            ValueRef::Enum(value) => Values::Enum(vec![value]),
            ValueRef::Text(value) => Values::Text(vec![value.to_owned()]),
        };
        Points {
            times: vec![t_ns],
            values,
            dropped: Vec::new(),
            stated: Vec::new(),
        }
    }

    /// What the source says of one, where that is known.
    pub fn stated_of(&self, place: usize) -> u8 {
        self.stated.get(place).copied().unwrap_or(0)
    }

    /// Adds a point of a number.
    pub fn push(&mut self, t_ns: i64, number: Number) {
        match (&mut self.values, number) {
            (Values::F64(values), number) => values.push(number.value()),
            (Values::I64(values), Number::Whole(whole)) => values.push(whole),
            (Values::I64(values), Number::Double(value)) => values.push(value as i64),
            (Values::Bool(_) | Values::Enum(_) | Values::Text(_), _) => {
                return debug_assert!(false, "numbers among what are none");
            }
        }
        self.times.push(t_ns);
    }

    /// Times of those that are numbers, and these, with what the source says of each.
    pub fn stated_numbers(&self) -> impl Iterator<Item = (i64, Number, u8)> + '_ {
        let number = |(at, t_ns): (usize, &i64)| Some((*t_ns, Number::of(self.values.get(at)?)?, self.stated_of(at)));
        self.times.iter().enumerate().filter_map(number)
    }

    /// Some of them, by their places; of those that are not accepted, none.
    pub fn part(&self, places: std::ops::Range<usize>) -> Points {
        Points {
            times: self.times[places.clone()].to_vec(),
            stated: self.stated.get(places.clone()).unwrap_or_default().to_vec(),
            values: self.values.gather(places),
            dropped: Vec::new(),
        }
    }

    /// How many of those that are not accepted fall into windows.
    pub fn dropped_within(&self, windows: &Windows) -> u64 {
        let inside = |t: &&i64| !windows.is_before(**t) && !windows.is_behind(**t);
        self.dropped.iter().filter(inside).count() as u64
    }

    /// Adds what is needed of the points to the windows that they fall into.
    pub fn fold(&self, windows: &Windows, needs: Needs, partials: &mut ByWindow) {
        let from = self.times.partition_point(|t| windows.is_before(*t));
        let to = self.times.partition_point(|t| !windows.is_behind(*t));
        if from < to {
            let values = self.values.gather(from..to);
            fold_all(&self.times[from..to], &values, windows, needs, partials);
        }
    }
}

/// A column, and which rows have a value of it.
struct ColumnOf<'b, 'a> {
    block: &'b Block<'a>,
    property: PropertyNumber,
    presence: Option<Bitmap>,
    /// How far its values reach, where that may be all that has to be known of them, and they are all chosen.
    all: Option<Partial>,
}

impl ColumnOf<'_, '_> {
    /// Reads the values within the range of the windows and adds them; `times` are those of all rows. Returns how many; `None`,
    /// and nothing added, where not all of them are chosen.
    fn fold<S: Stamps>(
        &self,
        times: S,
        windows: &Windows,
        needs: Needs,
        choice: Option<&Choice<'_>>,
        partials: &mut ByWindow,
    ) -> Result<Option<usize>, Corrupt> {
        let from = times.partition(|t| windows.is_before(t));
        let to = times.partition(|t| !windows.is_behind(t));
        if from >= to {
            return Ok(Some(0));
        }
        let places = match &self.presence {
            None => from..to,
            Some(map) => map.rank(from)..map.rank(to),
        };
        let read = || self.block.values_between(self.property, places.clone());
        let folding = Stretches { windows, needs, read };
        match (&self.presence, &self.all) {
            (None, Some(all)) => folding.unless_outdone(times.part(from, to), all, partials).map(Some),
            (None, None) => folding.fold(times.part(from, to), choice, partials),
            (Some(map), all) => {
                let present: Vec<i64> = map.ones_between(from, to).map(|row| times.at(row)).collect();
                match all {
                    Some(all) => folding.unless_outdone(present.as_slice(), all, partials).map(Some),
                    None => folding.fold(present.as_slice(), choice, partials),
                }
            }
        }
    }
}

/// Values that are read only where they have to be looked at.
struct Stretches<'w, R> {
    windows: &'w Windows,
    needs: Needs,
    read: R,
}

impl<R: Fn() -> Result<Values, Corrupt>> Stretches<'_, R> {
    /// Adds values that are chosen each and seen at `times`; returns how many. `None`, and nothing added: not all of them are.
    fn fold<S: Stamps>(
        &self,
        times: S,
        choice: Option<&Choice<'_>>,
        partials: &mut ByWindow,
    ) -> Result<Option<usize>, Corrupt> {
        let values = (self.read)()?;
        if choice.is_some_and(|choice| !takes_each(choice, &values)) {
            return Ok(None);
        }
        fold_all(times, &values, self.windows, self.needs, partials);
        Ok(Some(values.len()))
    }

    /// Adds values that reach no further than `all`: counts them where a window has seen others that reach as far. Returns how many had to
    /// be read.
    fn unless_outdone<S: Stamps>(&self, times: S, all: &Partial, partials: &mut ByWindow) -> Result<usize, Corrupt> {
        let mut values: Option<Values> = None;
        each_stretch(times, self.windows, |index, stretch| {
            let partial = partials.at(index, all.value_type());
            if values.is_none() && partial.outdoes(all, self.needs) {
                partial.count_more(stretch.len() as u64);
                return Ok(());
            }
            let read = match values.take() {
                Some(read) => read,
                None => (self.read)()?,
            };
            partial.fold_stamped(times.part(stretch.start, stretch.end), &read, stretch.start, self.needs);
            values = Some(read);
            Ok(())
        })?;
        Ok(values.map_or(0, |values| values.len()))
    }
}

fn takes_each(choice: &Choice<'_>, values: &Values) -> bool {
    match values {
        Values::F64(values) => values.iter().all(|value| choice.takes(*value)),
        Values::I64(values) => values.iter().all(|value| choice.takes(*value as f64)),
        Values::Bool(_) | Values::Enum(_) | Values::Text(_) => true,
    }
}

/// Adds values to the windows that their times fall into, stretch by stretch.
fn fold_all<S: Stamps>(times: S, values: &Values, windows: &Windows, needs: Needs, partials: &mut ByWindow) {
    let value_type = values.value_type();
    let Ok(()) = each_stretch::<S, Infallible>(times, windows, |index, stretch| {
        let partial = partials.at(index, value_type);
        partial.fold_stamped(times.part(stretch.start, stretch.end), values, stretch.start, needs);
        Ok(())
    });
}

/// Gives `each` the windows that times fall into, with the places of those times.
#[inline]
fn each_stretch<S: Stamps, E>(
    times: S,
    windows: &Windows,
    mut each: impl FnMut(i64, Range<usize>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut at, mut stretch) = (0, 1);
    let mut window = windows.containing(times.at(at));
    while let Some((index, end)) = window.filter(|_| at < times.len()) {
        let inside = |t: i64| windows.holds(i64::MIN, t, end);
        stretch = stretch_of(times.part(at, times.len()), stretch, inside);
        each(index, at..at + stretch)?;
        at += stretch;
        window = windows.following((index, end), times.at(at));
    }
    Ok(())
}

/// How many of the first `times` are inside, at least one; `guess` is how many there were last time.
fn stretch_of<S: Stamps>(times: S, guess: usize, inside: impl Fn(i64) -> bool) -> usize {
    let is_inside = |at: usize| at < times.len() && inside(times.at(at));
    if is_inside(guess - 1) && !is_inside(guess) {
        return guess;
    }
    let (mut low, mut step) = (0, 1);
    while is_inside(low + step - 1) {
        low += step;
        step *= 2;
    }
    let high = (low + step - 1).min(times.len());
    (low + times.part(low, high).partition(inside)).max(1)
}
