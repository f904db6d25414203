//! What windows have seen, while they are finished: points, their sequence, gaps, slots, side by side.
//!
//! Never here: what is answered of it (see `finish`). Invariant: windows ascend, and what is laid beside them makes none.

use tidemark_series::gaps::Widest;
use tidemark_series::{Filled, Partial, Sequence};

use super::areal::Areal;
use super::series::Series;

/// What a window gathered.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    pub(super) points: Option<Partial>,
    pub(super) sequence: Option<Box<Sequence>>,
    pub(super) gap: Option<Widest>,
    /// Slots that have a point, where they are counted.
    pub(super) filled: Option<u64>,
    pub(super) areal: Option<Box<Areal>>,
}

/// What a window gathered, where it lies.
#[derive(Copy, Clone, Default)]
pub(super) struct Seen<'a> {
    pub(super) points: Option<&'a Partial>,
    pub(super) sequence: Option<&'a Sequence>,
    pub(super) gap: Option<Widest>,
    pub(super) filled: Option<u64>,
    pub(super) areal: Option<&'a Areal>,
}

impl<'a> Seen<'a> {
    /// Nothing but points.
    pub(super) fn of_points(points: &'a Partial) -> Seen<'a> {
        Seen {
            points: Some(points),
            ..Seen::default()
        }
    }

    /// True where nothing was gathered.
    pub(super) fn is_empty(self) -> bool {
        self.points.is_none() && self.sequence.is_none() && self.areal.is_none()
    }

    /// Number of points.
    pub(super) fn points_seen(self) -> u64 {
        match self.areal {
            Some(areal) => areal.seen,
            None => self.points.map_or(0, Partial::count),
        }
    }

    /// Number of slots with points, of so many.
    pub(super) fn filled(self, promised: u64) -> u64 {
        let filled = match self.areal {
            Some(areal) => areal.filled,
            None => self.filled.unwrap_or(self.points_seen()),
        };
        filled.min(promised)
    }
}

impl Gathered {
    /// It, where it lies.
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            points: self.points.as_ref(),
            sequence: self.sequence.as_deref(),
            gap: self.gap,
            filled: self.filled,
            areal: self.areal.as_deref(),
        }
    }

    /// What it holds beyond itself, and grows with what is gathered.
    pub(super) fn heap_bytes(&self) -> usize {
        let points = self.points.as_ref().map_or(0, Partial::heap_bytes);
        points + self.sequence.as_deref().map_or(0, Sequence::heap_bytes)
    }

    /// Adds what another one gathered.
    pub(super) fn merge(&mut self, other: &Gathered) {
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

/// Number of slots with points, of what is known of them: points of which it is not known in which slots they are have one each.
pub(super) fn slots_with_points(seen: u64, known: Option<&Filled>) -> u64 {
    known.map_or(seen, |known| {
        known.slots.saturating_add(seen.saturating_sub(known.points))
    })
}

/// Lays what else is known of windows beside what they gathered.
pub(super) fn lay<P>(gathered: &mut [(i64, Gathered)], more: Vec<(i64, P)>, put: impl Fn(&mut Gathered, P)) {
    let mut known = gathered.iter_mut().peekable();
    for (window, one) in more {
        while known.next_if(|(other, _)| *other < window).is_some() {}
        if let Some((_, gathered)) = known.next_if(|(other, _)| *other == window) {
            put(gathered, one);
        }
    }
}

/// Points and sequences of the same windows, side by side.
pub(super) fn together(series: Series) -> Vec<(i64, Gathered)> {
    let mut sequences = series.sequences.into_sorted().into_iter().peekable();
    let alone = |(window, sequence)| {
        let gathered = Gathered {
            points: None,
            sequence: Some(Box::new(sequence)),
            ..Gathered::default()
        };
        (window, gathered)
    };
    let points = series.points.into_sorted();
    let mut gathered = Vec::with_capacity(points.len());
    for (window, points) in points {
        while let Some(before) = sequences.next_if(|(other, _)| *other < window) {
            gathered.push(alone(before));
        }
        let same = sequences.next_if(|(other, _)| *other == window);
        let both = Gathered {
            points: Some(points),
            sequence: same.map(|(_, sequence)| Box::new(sequence)),
            ..Gathered::default()
        };
        gathered.push((window, both));
    }
    gathered.extend(sequences.map(alone));
    gathered
}
