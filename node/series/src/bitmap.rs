//! One bit per row.
//!
//! Never here: how bits are stored in a block (`codec::presence`). Invariant: bits at and beyond `len` are zero.

/// A fixed number of bits, the presence of a property over the rows of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

/// Positions of the set bits of a word whose lowest bit is at `first`, ascending.
fn ones(mut word: u64, first: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(first + bit)
    })
}

impl Bitmap {
    /// `len` bits, none set.
    pub fn new(len: usize) -> Bitmap {
        Bitmap {
            words: vec![0; len.div_ceil(64)],
            len,
        }
    }

    /// `len` bits, all set.
    pub fn all(len: usize) -> Bitmap {
        let mut map = Bitmap {
            words: vec![u64::MAX; len.div_ceil(64)],
            len,
        };
        map.clear_tail();
        map
    }

    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True where there are no bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bit at `index`; false beyond the end.
    #[inline]
    pub fn get(&self, index: usize) -> bool {
        index < self.len && self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Sets the bit at `index`; does nothing beyond the end.
    #[inline]
    pub fn set(&mut self, index: usize, value: bool) {
        if index >= self.len {
            return;
        }
        let mask = 1u64 << (index % 64);
        if value {
            self.words[index / 64] |= mask;
        } else {
            self.words[index / 64] &= !mask;
        }
    }

    /// Sets the bits from `start` to before `end`, cut to those there are.
    pub(crate) fn set_range(&mut self, start: usize, end: usize) {
        let end = end.min(self.len);
        let mut at = start;
        while at < end {
            let upto = (at / 64 * 64 + 64).min(end);
            let bits = if upto - at == 64 {
                u64::MAX
            } else {
                (1u64 << (upto - at)) - 1
            };
            self.words[at / 64] |= bits << (at % 64);
            at = upto;
        }
    }

    /// End of the run of equal bits that `start` is in.
    pub(crate) fn run_end(&self, start: usize) -> usize {
        let flip = if self.get(start) { u64::MAX } else { 0 };
        let mut at = start;
        while at < self.len {
            let others = (self.words[at / 64] ^ flip) >> (at % 64);
            if others != 0 {
                return (at + others.trailing_zeros() as usize).min(self.len);
            }
            at = at / 64 * 64 + 64;
        }
        self.len
    }

    /// Number of set bits.
    pub fn count_ones(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Number of bits set here and in `other`.
    pub(crate) fn count_common(&self, other: &Bitmap) -> usize {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// Sets the bits of `other`, which has no more of them.
    pub(crate) fn add(&mut self, other: &Bitmap) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Sets the bits of `other` from `start` on, cut to those there are.
    pub(crate) fn add_from(&mut self, start: usize, other: &Bitmap) {
        let (first, shift) = (start / 64, start % 64);
        for (at, &word) in other.words.iter().enumerate() {
            if let Some(to) = self.words.get_mut(first + at) {
                *to |= word << shift;
            }
            if let Some(to) = self.words.get_mut(first + at + 1).filter(|_| shift > 0) {
                *to |= word >> (64 - shift);
            }
        }
        self.clear_tail();
    }

    /// Those of the set bits whose number among them is set in `among`.
    pub(crate) fn select(&self, among: &Bitmap) -> Bitmap {
        let mut number = 0;
        let select = |&word: &u64| {
            let mut left = word;
            let mut chosen = among.bits_from(number);
            number += word.count_ones() as usize;
            let mut selected = 0;
            while left != 0 {
                let rest = left & (left - 1);
                selected |= (left ^ rest) & (chosen & 1).wrapping_neg();
                (left, chosen) = (rest, chosen >> 1);
            }
            selected
        };
        Bitmap {
            words: self.words.iter().map(select).collect(),
            len: self.len,
        }
    }

    /// Undoes [`Bitmap::select`]: which of the set bits here are set in `selected` too, by their numbers.
    pub(crate) fn among(&self, selected: &Bitmap) -> Bitmap {
        let mut words = Vec::with_capacity(self.words.len());
        let (mut word, mut filled) = (0u64, 0);
        for (&all, &some) in self.words.iter().zip(&selected.words) {
            let mut left = all;
            while left != 0 {
                word |= (some >> left.trailing_zeros() & 1) << filled;
                left &= left - 1;
                filled += 1;
                if filled == 64 {
                    words.push(word);
                    (word, filled) = (0, 0);
                }
            }
        }
        words.push(word);
        Bitmap::from_words(words, self.count_ones())
    }

    /// The 64 bits from `start` on, zeros beyond the end.
    fn bits_from(&self, start: usize) -> u64 {
        let word = |at: usize| self.words.get(at).copied().unwrap_or_default();
        match start % 64 {
            0 => word(start / 64),
            shift => word(start / 64) >> shift | word(start / 64 + 1) << (64 - shift),
        }
    }

    /// Number of set bits before `index`: the position of row `index` among the present values.
    pub fn rank(&self, index: usize) -> usize {
        let index = index.min(self.len);
        let whole: usize = self.words[..index / 64].iter().map(|w| w.count_ones() as usize).sum();
        match index % 64 {
            0 => whole,
            rest => whole + (self.words[index / 64] & ((1u64 << rest) - 1)).count_ones() as usize,
        }
    }

    /// Positions of the set bits, ascending.
    pub fn iter_ones(&self) -> impl Iterator<Item = usize> + '_ {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(at, &word)| ones(word, at * 64))
    }

    /// Positions of the set bits from `start` to before `end`, ascending.
    pub fn ones_between(&self, start: usize, end: usize) -> impl Iterator<Item = usize> + '_ {
        let words = start / 64..end.min(self.len).div_ceil(64);
        words.flat_map(move |at| {
            let mut rest = self.words[at];
            if at == start / 64 {
                rest &= u64::MAX << (start % 64);
            }
            ones(rest, at * 64).take_while(move |&bit| bit < end)
        })
    }

    /// The bits from `start` to before `end`, cut to those there are.
    pub(crate) fn part(&self, start: usize, end: usize) -> Bitmap {
        let end = end.min(self.len);
        let len = end.saturating_sub(start);
        let (first, shift) = (start / 64, start % 64);
        let word = |at: usize| self.words.get(at).copied().unwrap_or_default();
        let words = (first..first + len.div_ceil(64)).map(|at| match shift {
            0 => word(at),
            _ => word(at) >> shift | word(at + 1) << (64 - shift),
        });
        Bitmap::from_words(words.collect(), len)
    }

    /// `len` bits from words, lowest bit of the first word first. Missing words read as zero, spare bits are ignored.
    pub(crate) fn from_words(mut words: Vec<u64>, len: usize) -> Bitmap {
        words.resize(len.div_ceil(64), 0);
        let mut map = Bitmap { words, len };
        map.clear_tail();
        map
    }

    /// Reads `len` bits, lowest bit of the first byte first. Missing bytes read as zero, spare ones are ignored.
    pub fn from_bytes_lsb(bytes: &[u8], len: usize) -> Bitmap {
        let mut map = Bitmap::new(len);
        for (at, &byte) in bytes.iter().take(len.div_ceil(8)).enumerate() {
            map.words[at / 8] |= u64::from(byte) << (at % 8 * 8);
        }
        map.clear_tail();
        map
    }

    /// `ceil(len / 8)` bytes, lowest bit of the first byte first, spare bits zero.
    pub fn to_bytes_lsb(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    fn clear_tail(&mut self) {
        let rest = self.len % 64;
        if rest != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1u64 << rest) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_round_trip_and_count() {
        for len in [0, 1, 7, 8, 63, 64, 65, 200] {
            let mut map = Bitmap::new(len);
            for i in (0..len).step_by(3) {
                map.set(i, true);
            }
            assert_eq!(map.count_ones(), len.div_ceil(3));
            assert_eq!(
                map.iter_ones().collect::<Vec<_>>(),
                (0..len).step_by(3).collect::<Vec<_>>()
            );
            assert_eq!(Bitmap::from_bytes_lsb(&map.to_bytes_lsb(), len), map);
            let mut ends = Vec::new();
            while ends.last() < Some(&len) {
                ends.push(map.run_end(ends.last().copied().unwrap_or(0)));
            }
            let changes = (1..len).filter(|&i| map.get(i) != map.get(i - 1));
            assert_eq!(ends, changes.chain([len]).collect::<Vec<_>>());
            let mut ranges = Bitmap::new(len);
            (0..len).step_by(70).for_each(|i| ranges.set_range(i, i + 67));
            assert!((0..len).all(|i| ranges.get(i) == (i % 70 < 67)));
            for (start, end) in [(0, len), (1, 64), (63, 130), (64, 128), (65, 200), (70, 3), (300, 400)] {
                let cut = map.part(start, end);
                let expected = map.ones_between(start, end).map(|i| i - start);
                assert_eq!(cut.iter_ones().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
                let mut back = Bitmap::new(len);
                back.add_from(start, &cut);
                assert!(back.iter_ones().eq(map.ones_between(start, end)));
            }
            let mut among = Bitmap::new(map.count_ones());
            (0..among.len()).step_by(2).for_each(|i| among.set(i, true));
            let selected = map.select(&among);
            assert!(selected.iter_ones().eq(map.iter_ones().step_by(2)));
            assert_eq!(map.among(&selected), among);
            assert_eq!(map.rank(len), map.count_ones());
            assert_eq!(Bitmap::all(len).count_ones(), len);
            for (start, end) in [(0, len), (1, 64), (5, 5), (63, 130), (65, 200), (70, 3), (300, 400)] {
                let expected: Vec<_> = map.iter_ones().filter(|i| (start..end).contains(i)).collect();
                let part = map.part(start, end);
                let moved: Vec<_> = part.iter_ones().map(|bit| bit + start).collect();
                assert_eq!(
                    (moved, part.len()),
                    (expected.clone(), end.min(len).saturating_sub(start))
                );
                assert_eq!(
                    map.ones_between(start, end).collect::<Vec<_>>(),
                    expected,
                    "{start} to {end} of {len}"
                );
            }
            for i in 0..len {
                assert_eq!(map.rank(i), (0..i).filter(|&j| map.get(j)).count());
            }
        }
        assert!(!Bitmap::all(3).get(3));
        assert_eq!(Bitmap::from_bytes_lsb(&[0xff], 3).to_bytes_lsb(), [7]);
    }
}
