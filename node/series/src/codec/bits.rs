//! A stream of bits, lowest bit of the first byte first.
//!
//! Never here: codes. Invariant: beyond the end a reader sees zeros and remembers it; `finish` then says `Corrupt`.

use crate::corrupt::Corrupt;

/// Appends bits to bytes.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> BitWriter<'a> {
        BitWriter {
            out,
            pending: 0,
            count: 0,
        }
    }

    /// Appends the `width` (0 to 64) low bits of `value`; the others must be zero.
    #[inline]
    pub(crate) fn put(&mut self, value: u64, width: u32) {
        debug_assert!(width == 64 || value >> width == 0);
        self.pending |= value << self.count;
        let room = 64 - self.count;
        if width < room {
            self.count += width;
            return;
        }
        self.out.extend_from_slice(&self.pending.to_le_bytes());
        self.pending = if room == 64 { 0 } else { value >> room };
        self.count = width - room;
    }

    /// Writes the last bits, padded with zeros to a byte.
    pub(crate) fn finish(self) {
        let bytes = self.pending.to_le_bytes();
        self.out.extend_from_slice(&bytes[..(self.count as usize).div_ceil(8)]);
    }
}

/// Reads bits from bytes through a window of the next ones, which stays in a register.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// First byte that is not wholly in the window.
    at: usize,
    window: u64,
    /// Bits of the window that are counted as read into it; those above are right too, or zero.
    valid: u32,
}

/// Bits that a refilled window has at least.
pub(crate) const WINDOW_BITS: u32 = 56;

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader {
            bytes,
            at: 0,
            window: 0,
            valid: 0,
        }
    }

    /// Makes the next [`WINDOW_BITS`] bits ready, zeros beyond the end.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        let word = match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => self.tail(),
        };
        self.window |= word << self.valid;
        self.at += (63 - self.valid as usize) >> 3;
        self.valid |= WINDOW_BITS;
    }

    /// The next bits: as many as a refill made ready, less those skipped since.
    #[inline(always)]
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Skips bits that are ready.
    #[inline(always)]
    pub(crate) fn skip(&mut self, bits: u32) {
        debug_assert!(bits <= self.valid);
        self.window >>= bits;
        self.valid -= bits;
    }

    /// The next `width` bits of those that are ready.
    #[inline(always)]
    pub(crate) fn ready(&mut self, width: u32) -> u64 {
        let value = self.window & mask(width);
        self.skip(width);
        value
    }

    /// The next `width` (0 to 64) bits.
    #[inline]
    pub(crate) fn get(&mut self, width: u32) -> u64 {
        self.refill();
        if width <= WINDOW_BITS {
            return self.ready(width);
        }
        let low = self.ready(32);
        self.refill();
        low | self.ready(width - 32) << 32
    }

    /// The stream must end within the last byte read, padded with zeros.
    pub(crate) fn finish(self, what: &'static str) -> Result<(), Corrupt> {
        let bits = self.at * 8 - self.valid as usize;
        if bits.div_ceil(8) == self.bytes.len() && self.window & mask(self.valid % 8) == 0 {
            Ok(())
        } else {
            Err(Corrupt::new(what, bits / 8))
        }
    }

    #[cold]
    fn tail(&self) -> u64 {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut word = [0; 8];
        word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(word)
    }
}

/// The `width` low bits set.
#[inline(always)]
pub(crate) fn mask(width: u32) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_width_round_trips() {
        let mut out = Vec::new();
        let mut writer = BitWriter::new(&mut out);
        for width in (0..=64).chain((0..=64).rev()) {
            writer.put(0x9e37_79b9_7f4a_7c15 & mask(width), width);
        }
        writer.finish();
        let mut reader = BitReader::new(&out);
        for width in (0..=64).chain((0..=64).rev()) {
            assert_eq!(reader.get(width), 0x9e37_79b9_7f4a_7c15 & mask(width), "width {width}");
        }
        reader.finish("test").unwrap();
    }

    #[test]
    fn bits_left_over_or_missing_are_corrupt() {
        assert!(BitReader::new(&[0]).finish("test").is_err());
        let mut reader = BitReader::new(&[1]);
        reader.get(9);
        assert!(reader.finish("test").is_err());
        let mut reader = BitReader::new(&[0x10]);
        reader.get(4);
        assert!(reader.finish("test").is_err());
    }
}
