//! Columns of a block straight into aggregates: by the statistics in the header where one window holds the whole block,
//! else stretch by stretch of the values that fall into one window.
//!
//! Never here: windows (see `window`) and sums (see `partial`). Invariant: what comes out and is needed is what folding every
//! value by itself gives, sums of doubles to their last bits aside.

use super::Block;
use super::read::Ticks;
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
        let Some(column) = self.block.column_with(property, clocks)? else {
            return Ok(());
        };
        let values = &column.values;
        match (&*ticks, &column.presence) {
            (Ticks::Even(even), None) => fold_all(*even, values, windows, needs, partials),
            (Ticks::List(times, _), None) => fold_all(times.as_slice(), values, windows, needs, partials),
            (Ticks::Even(even), Some(map)) => {
                let present: Vec<i64> = map.iter_ones().map(|row| even.at(row)).collect();
                fold_all(present.as_slice(), values, windows, needs, partials);
            }
            (Ticks::List(times, _), Some(map)) => {
                let present: Vec<i64> = map.iter_ones().map(|row| times[row]).collect();
                fold_all(present.as_slice(), values, windows, needs, partials);
            }
        }
        Ok(())
    }
}

/// Adds values to the windows that their times fall into, stretch by stretch.
fn fold_all<S: Stamps>(times: S, values: &Values, windows: &Windows, needs: Needs, partials: &mut ByWindow) {
    let value_type = values.value_type();
    let (mut at, mut stretch) = (times.partition(|t| windows.is_before(t)), 1);
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
