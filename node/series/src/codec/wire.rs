//! Bytes in and out: fixed integers, LEB128 varints, zigzag.
//!
//! Never here: what the numbers mean. Invariant: a read beyond the end is `Corrupt`, never a panic, and a reader
//! allocates nothing.

use crate::corrupt::Corrupt;

/// Maps small magnitudes of either sign to small numbers.
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends `value`, seven bits a byte, low ones first.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    put_varint_wide(out, value.into());
}

/// The same for 128 bits.
pub(crate) fn put_varint_wide(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, zigzagged.
#[inline]
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Bytes that [`put_varint`] needs.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends `part` with its length in front.
pub(crate) fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    put_varint(out, part.len() as u64);
    out.extend_from_slice(part);
}

/// Appends what `put` appends, with its length in front; false where it gave up.
pub(crate) fn put_part_with(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let start = out.len();
    if !put(out) {
        return false;
    }
    let len = (out.len() - start) as u64;
    put_varint(out, len);
    out[start..].rotate_right(varint_len(len));
    true
}

/// Reads from the front of some bytes; `what` names them in errors.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { bytes, at: 0, what }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn corrupt(&self) -> Corrupt {
        Corrupt::new(self.what, self.at)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at = self.bytes.len();
        rest
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Corrupt> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.corrupt())
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Corrupt> {
        let end = self.at.checked_add(len).ok_or_else(|| self.corrupt())?;
        let part = self.bytes.get(self.at..end).ok_or_else(|| self.corrupt())?;
        self.at = end;
        Ok(part)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| Corrupt::new(self.what, at))
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Corrupt> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.corrupt())?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn varint_wide(&mut self) -> Result<u128, Corrupt> {
        let mut value = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if bits.checked_shl(shift).is_none_or(|b| b >> shift != bits) {
                return Err(self.corrupt());
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.corrupt())
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.corrupt());
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.corrupt())
    }

    /// A varint that must not exceed `most`.
    pub(crate) fn count(&mut self, most: usize) -> Result<usize, Corrupt> {
        let value = self.varint()?;
        usize::try_from(value)
            .ok()
            .filter(|&v| v <= most)
            .ok_or_else(|| self.corrupt())
    }

    #[inline]
    pub(crate) fn signed(&mut self) -> Result<i64, Corrupt> {
        self.varint().map(unzigzag)
    }

    /// What [`put_part`] wrote.
    pub(crate) fn part(&mut self) -> Result<&'a [u8], Corrupt> {
        let len = self.count(usize::MAX)?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for value in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN, 1 << 40] {
            let mut out = Vec::new();
            put_signed(&mut out, value);
            assert_eq!(out.len(), varint_len(zigzag(value)));
            let mut reader = Reader::new(&out, "test");
            assert_eq!(reader.signed().unwrap(), value);
            reader.end().unwrap();
        }
        for value in [0, u128::MAX, 1 << 100] {
            let mut out = Vec::new();
            put_varint_wide(&mut out, value);
            assert_eq!(Reader::new(&out, "test").varint_wide().unwrap(), value);
        }
    }

    #[test]
    fn too_long_and_cut_numbers_are_corrupt() {
        assert!(Reader::new(&[0xff; 10], "test").varint().is_err());
        assert!(Reader::new(&[0xff; 19], "test").varint_wide().is_err());
        assert!(Reader::new(&[0x80], "test").varint().is_err());
        assert!(Reader::new(&[5, 1], "test").part().is_err());
        assert!(Reader::new(&[1, 1, 1], "test").end().is_err());
    }
}
