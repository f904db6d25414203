//! The windows of a question about one property: those that are asked for, and the steps that windows which slide are made of.
//! Pure.
//!
//! Never here: what windows hold. Invariant: all properties and devices of a question have the same windows.

use std::ops::RangeInclusive;

use tidemark_proto::v1::QueryAggregateRequest;
use tidemark_series::{Kind, Windows};

use super::plan::{asked_windows, steps, windows};

/// Windows of a property.
#[derive(Debug)]
pub(super) struct Grid {
    asked: Windows,
    /// Begins earlier where windows slide.
    stepped: Windows,
    steps: i64,
}

impl Grid {
    /// For a checked request.
    pub(super) fn new(request: &QueryAggregateRequest, kind: Kind) -> Grid {
        Grid {
            asked: asked_windows(request, kind),
            stepped: windows(request, kind),
            steps: request.window.as_ref().map_or(1, steps),
        }
    }

    /// Start and end of a window that was asked for.
    pub(super) fn bounds(&self, window: i64) -> (i64, i64) {
        let (start_ns, end_ns) = self.asked.bounds(window);
        match self.steps {
            1 => (start_ns, end_ns),
            steps => (self.stepped.bounds(window.saturating_sub(steps - 1)).0, end_ns),
        }
    }

    /// Numbers of the windows that were asked for; `None` where the range is empty.
    pub(super) fn numbers(&self) -> Option<RangeInclusive<i64>> {
        self.asked.index_range().map(|(first, last)| first..=last)
    }

    /// Windows that slide, from the steps that they are made of.
    pub(super) fn slide<T: Clone>(&self, steps: Vec<(i64, T)>, merge: impl Fn(&mut T, &T)) -> Vec<(i64, T)> {
        if self.steps == 1 {
            return steps;
        }
        let mut slid = Vec::new();
        let mut from = 0;
        for window in self.numbers().into_iter().flatten() {
            let begin = window.saturating_sub(self.steps - 1);
            from += steps[from..].iter().take_while(|(step, _)| *step < begin).count();
            let inside = steps[from..].iter().take_while(|(step, _)| *step <= window);
            let whole = inside.fold(None, |whole, (_, step)| match whole {
                None => Some(step.clone()),
                Some(mut whole) => {
                    merge(&mut whole, step);
                    Some(whole)
                }
            });
            slid.extend(whole.map(|whole| (window, whole)));
        }
        slid
    }
}
