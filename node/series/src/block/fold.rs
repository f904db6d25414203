//! Columns of a block straight into aggregates: by the statistics in the header where one window holds the whole block,
//! else stretch by stretch of the values that fall into one window.
//!
//! Never here: windows (see `window`) and sums (see `partial`). Invariant: what comes out and is needed is what folding every
//! value by itself gives, sums of doubles to their last bits aside.

use super::Block;
use super::read::Ticks;
use crate::bitmap::Bitmap;
use crate::by_window::ByWindow;
use crate::corrupt::Corrupt;
use crate::needs::Needs;
use crate::record::{PropertyNumber, Values};
use crate::stamps::Stamps;
use crate::window::Windows;

/// Folds columns of one block; what they share is decoded once.
#[derive(Debug)]
pub struct Folding<'b, 'a> {
    block: &'b Block<'a>,
    ticks: Option<Ticks>,
}

impl<'a> Block<'a> {
    /// Begins to fold columns of this block.
    pub fn folding(&self) -> Folding<'_, 'a> {
        Folding {
            block: self,
            ticks: None,
        }
    }
}

impl Folding<'_, '_> {
    /// Adds what is needed of the values of a column to the aggregates of the windows they fall into, by number of the
    /// window. Does nothing where the block has no such column.
    ///
    /// # Errors
    /// The times or the column are damaged.
    pub fn fold(
        &mut self,
        property: PropertyNumber,
        windows: &Windows,
        needs: Needs,
        partials: &mut ByWindow,
    ) -> Result<(), Corrupt> {
        let Some(value_type) = self.block.value_type(property) else {
            return Ok(());
        };
        let ends = (self.block.first_ns(), self.block.last_ns());
        if let (Some(first), Some(last)) = (windows.index_of(ends.0), windows.index_of(ends.1))
            && first == last
            && let Some(stats) = self.block.stats(property)
        {
            partials.at(first, value_type).fold_stats(&stats);
            return Ok(());
        }
        let ticks = match self.ticks.take() {
            Some(ticks) => self.ticks.insert(ticks),
            None => self.ticks.insert(self.block.read_ticks()?),
        };
        let clocks = match ticks {
            Ticks::List(_, clocks) => clocks.as_ref(),
            Ticks::Even(_) => None,
        };
        let presence = self.block.presence_of(property, clocks)?;
        let column = ColumnOf {
            block: self.block,
            property,
            presence,
        };
        match &*ticks {
            Ticks::Even(even) => column.fold(*even, windows, needs, partials),
            Ticks::List(times, _) => column.fold(times.as_slice(), windows, needs, partials),
        }
    }
}

/// A column, and which rows have a value of it.
struct ColumnOf<'b, 'a> {
    block: &'b Block<'a>,
    property: PropertyNumber,
    presence: Option<Bitmap>,
}

impl ColumnOf<'_, '_> {
    /// Reads the values within the range of the windows and adds them; `times` are those of all rows.
    fn fold<S: Stamps>(
        &self,
        times: S,
        windows: &Windows,
        needs: Needs,
        partials: &mut ByWindow,
    ) -> Result<(), Corrupt> {
        let from = times.partition(|t| windows.is_before(t));
        let to = times.partition(|t| !windows.is_behind(t));
        if from >= to {
            return Ok(());
        }
        let Some(map) = &self.presence else {
            let values = self.block.values_between(self.property, from..to)?;
            fold_all(times.part(from, to), &values, windows, needs, partials);
            return Ok(());
        };
        let present: Vec<i64> = map.ones_between(from, to).map(|row| times.at(row)).collect();
        let values = self.block.values_between(self.property, map.rank(from)..map.rank(to))?;
        fold_all(present.as_slice(), &values, windows, needs, partials);
        Ok(())
    }
}

/// Adds values to the windows that their times fall into, stretch by stretch.
fn fold_all<S: Stamps>(times: S, values: &Values, windows: &Windows, needs: Needs, partials: &mut ByWindow) {
    let value_type = values.value_type();
    let (mut at, mut stretch) = (0, 1);
    let mut window = windows.containing(times.at(at));
    while let Some((index, end)) = window.filter(|_| at < times.len()) {
        let inside = |t: i64| windows.holds(i64::MIN, t, end);
        stretch = stretch_of(times.part(at, times.len()), stretch, inside);
        let partial = partials.at(index, value_type);
        partial.fold_stamped(times.part(at, at + stretch), values, at, needs);
        at += stretch;
        window = windows.following((index, end), times.at(at));
    }
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
