//! The unfinished aggregates of one series, window by window.
//!
//! Never here: which window a time falls into (see `window`). Invariant: windows ascend and each is there once, whatever
//! the order they came in; what comes at or behind the last one, as it does from ascending blocks, is appended. How much all of
//! them hold is known at any time without looking at them.

use std::collections::BTreeMap;

use crate::partial::Partial;
use crate::record::ValueType;
use crate::sequence::Sequence;

/// What is gathered of a window bit by bit.
pub trait Unfinished {
    /// Adds what other bits gave.
    fn merge(&mut self, other: &Self);

    /// What it holds beyond itself that grows with what is gathered: texts, states. Roughly, bytes.
    #[inline]
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Unfinished for Partial {
    fn merge(&mut self, other: &Partial) {
        Partial::merge(self, other);
    }

    #[inline]
    fn heap_bytes(&self) -> usize {
        Partial::heap_bytes(self)
    }
}

impl Unfinished for Sequence {
    fn merge(&mut self, other: &Sequence) {
        Sequence::merge(self, other);
    }

    fn heap_bytes(&self) -> usize {
        Sequence::heap_bytes(self)
    }
}

/// Partials by number of their window.
#[derive(Clone, Debug)]
pub struct ByWindow<P = Partial> {
    run: Vec<(i64, P)>,
    /// Where in the run a window was asked for last: the next one is asked for next, mostly.
    found: usize,
    /// Windows that came after a later one and are not in the run.
    late: BTreeMap<i64, P>,
    /// What all windows hold, but for the one that is lent.
    heap_bytes: usize,
    /// The window that was handed out last, to be added to: what it holds is known when the next one is.
    lent: Option<Spot>,
}

/// Where a window is kept.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Spot {
    Run(usize),
    Late(i64),
}

impl<P> Default for ByWindow<P> {
    fn default() -> ByWindow<P> {
        ByWindow {
            run: Vec::new(),
            found: 0,
            late: BTreeMap::new(),
            heap_bytes: 0,
            lent: None,
        }
    }
}

impl ByWindow {
    /// The partial of a window, an empty one where there is none yet.
    #[inline]
    pub fn at(&mut self, window: i64, of: ValueType) -> &mut Partial {
        // Partials of other types hold nothing beyond themselves.
        self.slot(window, of == ValueType::Text, || Partial::empty(of))
    }
}

impl<P: Unfinished + Default> ByWindow<P> {
    /// What was gathered of a window, nothing yet where it is new.
    pub fn entry(&mut self, window: i64) -> &mut P {
        self.slot(window, true, P::default)
    }
}

impl<P: Unfinished> ByWindow<P> {
    /// Number of windows.
    pub fn len(&self) -> usize {
        self.run.len() + self.late.len()
    }

    /// True where there is no window.
    pub fn is_empty(&self) -> bool {
        self.run.is_empty()
    }

    /// Makes room for so many windows at once, where there are none yet: a run that grows by and by is copied each time.
    pub fn reserve(&mut self, windows: usize) {
        if self.run.is_empty() {
            self.run.reserve_exact(windows);
        }
    }

    /// What was gathered, of all windows in any order.
    pub fn values(&self) -> impl Iterator<Item = &P> {
        self.run.iter().map(|(_, gathered)| gathered).chain(self.late.values())
    }

    /// Forgets all windows and keeps their room.
    pub fn clear(&mut self) {
        self.run.clear();
        self.late.clear();
        (self.heap_bytes, self.lent) = (0, None);
    }

    /// What all windows hold beyond themselves; see [`Unfinished::heap_bytes`].
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes + self.lent.map_or(0, |spot| self.heap_at(spot))
    }

    /// What was gathered of a window, a new one where there is none yet; `grows`: it may come to hold something beyond itself.
    #[inline]
    fn slot(&mut self, window: i64, grows: bool, new: impl FnOnce() -> P) -> &mut P {
        let place = self.place(window);
        if grows {
            self.lend(match place {
                Place::End => Spot::Run(self.run.len()),
                Place::Run(index) => Spot::Run(index),
                Place::Late => Spot::Late(window),
            });
        }
        match place {
            Place::End => {
                self.run.push((window, new()));
                let last = self.run.len() - 1;
                &mut self.run[last].1
            }
            Place::Run(index) => &mut self.run[index].1,
            Place::Late => self.late.entry(window).or_insert_with(new),
        }
    }

    fn heap_at(&self, spot: Spot) -> usize {
        match spot {
            Spot::Run(index) => self.run.get(index).map_or(0, |(_, gathered)| gathered.heap_bytes()),
            Spot::Late(window) => self.late.get(&window).map_or(0, P::heap_bytes),
        }
    }

    /// Stops counting what a window holds until it is taken back.
    #[inline]
    fn lend(&mut self, spot: Spot) {
        if self.lent != Some(spot) {
            self.take_back();
            self.heap_bytes -= self.heap_at(spot);
            self.lent = Some(spot);
        }
    }

    fn take_back(&mut self) {
        if let Some(spot) = self.lent.take() {
            self.heap_bytes += self.heap_at(spot);
        }
    }

    /// Adds what another series has seen in a window.
    pub fn add(&mut self, window: i64, partial: P) {
        self.take_back();
        match self.place(window) {
            Place::End => {
                self.heap_bytes += partial.heap_bytes();
                self.run.push((window, partial));
            }
            Place::Run(index) => merged(&mut self.run[index].1, &partial, &mut self.heap_bytes),
            Place::Late => self.add_late(window, partial),
        }
    }

    /// Adds all that `other` has seen and leaves it empty. Returns how many windows are new.
    pub fn merge(&mut self, other: &mut ByWindow<P>) -> usize {
        other.take_back();
        other.settle();
        self.take_back();
        let before = self.len();
        if self.run.is_empty() {
            std::mem::swap(self, other);
            return self.len();
        }
        other.heap_bytes = 0;
        let mut at = 0;
        for (window, partial) in other.run.drain(..) {
            at = seek(&self.run, at, window);
            match self.run.get_mut(at) {
                None => {
                    self.heap_bytes += partial.heap_bytes();
                    self.run.push((window, partial));
                }
                Some((found, mine)) if *found == window => merged(mine, &partial, &mut self.heap_bytes),
                Some(_) => self.add_late(window, partial),
            }
        }
        // A series is rebuilt only when it has grown by half, so that what comes late costs no more than what comes in turn.
        if self.late.len() > self.run.len() / 2 {
            self.settle();
        }
        self.len() - before
    }

    /// Windows and their partials, ascending.
    pub fn sorted(&mut self) -> &[(i64, P)] {
        self.settle();
        &self.run
    }

    /// The same, taken out.
    pub fn into_sorted(mut self) -> Vec<(i64, P)> {
        self.settle();
        self.run
    }

    fn add_late(&mut self, window: i64, partial: P) {
        match self.late.entry(window) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                self.heap_bytes += partial.heap_bytes();
                slot.insert(partial);
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => {
                merged(slot.get_mut(), &partial, &mut self.heap_bytes);
            }
        }
    }

    #[inline]
    fn place(&mut self, window: i64) -> Place {
        let next = self.found + 1;
        if self.run.get(next).is_some_and(|(found, _)| *found == window) {
            self.found = next;
            return Place::Run(next);
        }
        match self.run.last() {
            Some((last, _)) if *last == window => Place::Run(self.run.len() - 1),
            Some((last, _)) if *last > window => match self.run.binary_search_by_key(&window, |(window, _)| *window) {
                Ok(index) => {
                    self.found = index;
                    Place::Run(index)
                }
                Err(_) => Place::Late,
            },
            _ => Place::End,
        }
    }

    /// Brings the late windows to their places.
    fn settle(&mut self) {
        if self.late.is_empty() {
            return;
        }
        self.take_back();
        let mut merged = Vec::with_capacity(self.len());
        let mut run = std::mem::take(&mut self.run).into_iter().peekable();
        for (window, partial) in std::mem::take(&mut self.late) {
            while let Some(earlier) = run.next_if(|(other, _)| *other < window) {
                merged.push(earlier);
            }
            merged.push((window, partial));
        }
        merged.extend(run);
        self.run = merged;
    }
}

/// Merges a window, and keeps count of what all hold.
fn merged<P: Unfinished>(mine: &mut P, theirs: &P, heap_bytes: &mut usize) {
    *heap_bytes -= mine.heap_bytes();
    mine.merge(theirs);
    *heap_bytes += mine.heap_bytes();
}

enum Place {
    End,
    Run(usize),
    Late,
}

/// The first of `run` from `at` on that is not before `window`; near where it began, mostly.
fn seek<P>(run: &[(i64, P)], at: usize, window: i64) -> usize {
    let mut step = 1;
    let mut low = at;
    while run.get(low + step - 1).is_some_and(|(found, _)| *found < window) {
        low += step;
        step *= 2;
    }
    let high = (low + step - 1).min(run.len());
    low + run[low..high].partition_point(|(found, _)| *found < window)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(windows: &[i64]) -> ByWindow {
        let mut all = ByWindow::default();
        for &window in windows {
            all.at(window, ValueType::I64)
                .fold(window, crate::ValueRef::I64(window));
        }
        all
    }

    fn counts(mut all: ByWindow) -> Vec<(i64, u64)> {
        all.sorted()
            .iter()
            .map(|(window, partial)| (*window, partial.count()))
            .collect()
    }

    #[test]
    fn windows_ascend_whatever_came_first() {
        let check = |windows: &[i64], expected: &[(i64, u64)]| assert_eq!(counts(of(windows)), expected, "{windows:?}");
        check(&[], &[]);
        check(&[1, 2, 2, 7], &[(1, 1), (2, 2), (7, 1)]);
        check(&[1, 2, 3, 1, 2, 3, 4, 2], &[(1, 2), (2, 3), (3, 2), (4, 1)]);
        check(&[7, 2, 1, 2, 7, i64::MIN], &[(i64::MIN, 1), (1, 1), (2, 2), (7, 2)]);
    }

    #[test]
    fn series_are_merged_like_maps() {
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let (mut all, mut expected) = (ByWindow::default(), BTreeMap::<i64, u64>::new());
            for _ in 0..next(12) {
                let spread = 1 + next(60);
                let windows: Vec<i64> = (0..next(40)).map(|_| next(spread) as i64 * 3 - 30).collect();
                let before = expected.len();
                for window in &windows {
                    *expected.entry(*window).or_default() += 1;
                }
                let mut other = of(&windows);
                assert_eq!(all.merge(&mut other), expected.len() - before);
                assert!(other.is_empty(), "{} left", other.len());
                assert_eq!(all.len(), expected.len());
            }
            assert_eq!(counts(all), expected.into_iter().collect::<Vec<_>>());
        }
    }

    /// What windows hold, counted one by one.
    fn heaps(all: &ByWindow) -> usize {
        all.values().map(Partial::heap_bytes).sum()
    }

    #[test]
    fn texts_are_counted_whatever_came_first() {
        let mut state = 11_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut all = ByWindow::default();
        for round in 0..400 {
            let mut some = ByWindow::default();
            for _ in 0..next(30) {
                let (window, t_ns) = (next(40) as i64, next(100) as i64);
                let text = "x".repeat(next(50) as usize);
                match next(3) {
                    0 => some
                        .at(window, ValueType::Text)
                        .fold(t_ns, crate::ValueRef::Text(&text)),
                    1 => {
                        let mut partial = Partial::empty(ValueType::Text);
                        partial.fold(t_ns, crate::ValueRef::Text(&text));
                        some.add(window, partial);
                    }
                    _ => {
                        some.sorted();
                    }
                }
                assert_eq!(some.heap_bytes(), heaps(&some), "round {round}");
            }
            if next(2) == 0 {
                all.at(next(40) as i64, ValueType::Text)
                    .fold(7, crate::ValueRef::Text("a text of its own"));
            }
            all.merge(&mut some);
            assert_eq!((all.heap_bytes(), some.heap_bytes()), (heaps(&all), 0), "round {round}");
            if next(20) == 0 {
                all.clear();
                assert_eq!(all.heap_bytes(), 0);
            }
        }
    }

    #[test]
    fn states_are_counted_as_they_come() {
        let mut all = ByWindow::<Sequence>::default();
        for (window, code) in [(3, 1), (3, 2), (5, 1), (3, 2), (1, 9), (1, 8), (5, 1)] {
            all.entry(window).states.entry(code).or_default().points += 1;
            let expected: usize = all.values().map(Sequence::heap_bytes).sum();
            assert_eq!(all.heap_bytes(), expected, "state {code} of window {window}");
        }
        assert!(all.heap_bytes() > 0);
        assert_eq!(all.sorted().len(), 3);
    }

    #[test]
    fn a_seek_finds_the_first_that_is_not_before() {
        let run: Vec<(i64, Partial)> = (0..40).map(|w| (w * 2, Partial::empty(ValueType::I64))).collect();
        for at in 0..=run.len() {
            for window in -1..90 {
                let expected = at + run[at..].partition_point(|(w, _)| *w < window);
                assert_eq!(seek(&run, at, window), expected, "{window} from {at}");
            }
        }
    }
}
