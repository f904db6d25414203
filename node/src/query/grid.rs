//! The windows of a question about one property: those that are asked for, and the steps that windows which slide are made of.
//! Pure.
//!
//! Never here: what windows hold. Invariant: all properties and devices of a question have the same windows.

use std::convert::Infallible;
use std::ops::RangeInclusive;

use tidemark_proto::v1::QueryAggregateRequest;
use tidemark_series::{Kind, Sliding, Slots};

use super::plan::{asked_windows, counts_slots, steps, windows};
use crate::catalog::types::{PropertyDef, TypeDef};

/// Windows of a property.
#[derive(Debug)]
pub(super) struct Grid(Sliding);

/// The slots of the windows of a property, where their number tells in the answer and the type promises any.
pub(super) fn slots(request: &QueryAggregateRequest, def: &TypeDef, property: &PropertyDef) -> Option<Slots> {
    let interval_ns = def.sample_interval_ns().filter(|_| counts_slots(request))?;
    Some(Slots::new(Grid::new(request, property.kind).0, interval_ns))
}

impl Grid {
    /// For a checked request.
    pub(super) fn new(request: &QueryAggregateRequest, kind: Kind) -> Grid {
        Grid(Sliding {
            asked: asked_windows(request, kind),
            stepped: windows(request, kind),
            steps: request.window.as_ref().map_or(1, steps),
        })
    }

    /// Start and end of a window that was asked for.
    pub(super) fn bounds(&self, window: i64) -> (i64, i64) {
        self.0.bounds(window)
    }

    /// Whether windows are made of several steps.
    pub(super) fn slides(&self) -> bool {
        self.0.steps != 1
    }

    /// Numbers of the windows that were asked for; `None` where the range is empty.
    pub(super) fn numbers(&self) -> Option<RangeInclusive<i64>> {
        self.0.asked.index_range().map(|(first, last)| first..=last)
    }

    /// Windows that slide, from the steps that they are made of.
    pub(super) fn slide<T: Clone>(&self, steps: Vec<(i64, T)>, merge: impl Fn(&mut T, &T)) -> Vec<(i64, T)> {
        let Ok(slid) = self.slide_each::<T, Infallible>(steps, merge, |_| Ok(()));
        slid
    }

    /// The same, and each of them is looked at before there is a next one: a step is in many windows.
    pub(super) fn slide_each<T: Clone, E>(
        &self,
        steps: Vec<(i64, T)>,
        merge: impl Fn(&mut T, &T),
        mut each: impl FnMut(&T) -> Result<(), E>,
    ) -> Result<Vec<(i64, T)>, E> {
        if !self.slides() {
            return Ok(steps);
        }
        let mut slid = Vec::new();
        let mut from = 0;
        for window in self.numbers().into_iter().flatten() {
            let begin = window.saturating_sub(self.0.steps - 1);
            from += steps[from..].iter().take_while(|(step, _)| *step < begin).count();
            let inside = steps[from..].iter().take_while(|(step, _)| *step <= window);
            let whole = inside.fold(None, |whole, (_, step)| match whole {
                None => Some(step.clone()),
                Some(mut whole) => {
                    merge(&mut whole, step);
                    Some(whole)
                }
            });
            if let Some(whole) = whole {
                each(&whole)?;
                slid.push((window, whole));
            }
        }
        Ok(slid)
    }
}
