//! Who comes next: applications take turns, what waits for one of them keeps its order.
//!
//! Never here: what is waited for. Invariant: what waits is popped once, and nobody with something waiting is passed over twice.

use std::collections::{HashMap, VecDeque};

/// What waits, by whom it is for: they take turns, each in its own order.
pub(super) struct Turns<T> {
    turns: VecDeque<String>,
    waiting: HashMap<String, VecDeque<T>>,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns {
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            len: 0,
        }
    }
}

impl<T> Turns<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, whose: String, item: T) {
        let of_one = self.waiting.entry(whose.clone()).or_default();
        if of_one.is_empty() {
            self.turns.push_back(whose);
        }
        of_one.push_back(item);
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let whose = self.turns.pop_front()?;
        let of_one = self.waiting.get_mut(&whose)?;
        let item = of_one.pop_front()?;
        self.len -= 1;
        match of_one.is_empty() {
            true => drop(self.waiting.remove(&whose)),
            false => self.turns.push_back(whose),
        }
        Some(item)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.waiting.values_mut().for_each(|of_one| of_one.retain(&keep));
        self.waiting.retain(|_, of_one| !of_one.is_empty());
        self.turns.retain(|whose| self.waiting.contains_key(whose));
        self.len = self.waiting.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_take_turns() {
        let mut turns = Turns::default();
        for (whose, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 11), ("c", 21), ("b", 12)] {
            turns.push(whose.to_owned(), item);
        }
        assert_eq!((turns.pop(), turns.pop()), (Some(1), Some(11)));
        turns.push("a".to_owned(), 4);
        turns.retain(|item| *item != 2 && *item != 21);
        assert_eq!(turns.len(), 3);
        let rest: Vec<i32> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!((rest, turns.len()), (vec![3, 12, 4], 0));
    }
}
