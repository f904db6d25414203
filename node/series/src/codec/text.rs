//! Texts: a dictionary where few are distinct, else their bytes one after another, squeezed where that helps.
//!
//! ```text
//! form 1 plain            = lengths, an int stream with its length | the bytes
//! form 2 zstd             = lengths likewise | the bytes as one zstd frame without magic number and checksum
//! form 3 dictionary       = entries (varint) | their number of bytes in form 1 or 2 (form u8, part) | indices, int stream
//! ```
//!
//! Never here: other types. Invariants: what comes out is at most `expansion_max` bytes, so that damaged bytes
//! cannot ask for memory; every text is checked to be UTF-8.

use std::collections::HashMap;

use super::ints;
use super::wire::{Reader, put_part, put_varint};
use crate::corrupt::Corrupt;

const PLAIN: u8 = 1;
const ZSTD: u8 = 2;
const DICTIONARY: u8 = 3;

const LEVEL: i32 = 3;
/// Every frame starts with it, so it is implied, not stored.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Texts that come from fewer bytes than their total over this (beyond `FREE_BYTES` a text) are neither written so nor
/// read.
const RATIO_MAX: usize = 1024;
const FREE_BYTES: usize = 256;

/// Most bytes of `count` texts that `len` bytes may give.
fn expansion_max(len: usize, count: usize) -> usize {
    len.saturating_mul(RATIO_MAX)
        .saturating_add(count.saturating_mul(FREE_BYTES))
}

/// The smallest form and its bytes.
pub(crate) fn encode<T: AsRef<str>>(texts: &[T]) -> (u8, Vec<u8>) {
    let flat = encode_flat(texts);
    let total = texts.iter().map(|t| t.as_ref().len()).sum::<usize>();
    let fits = |bytes: &Vec<u8>| bytes.len() < flat.1.len() && total <= expansion_max(bytes.len(), texts.len());
    match encode_dictionary(texts).filter(fits) {
        Some(bytes) => (DICTIONARY, bytes),
        _ => flat,
    }
}

fn encode_dictionary<T: AsRef<str>>(texts: &[T]) -> Option<Vec<u8>> {
    let mut entries: Vec<&str> = Vec::new();
    let mut known: HashMap<&str, i64> = HashMap::new();
    let mut indices = Vec::with_capacity(texts.len());
    for text in texts {
        let text = text.as_ref();
        let index = *known.entry(text).or_insert_with(|| {
            entries.push(text);
            entries.len() as i64 - 1
        });
        if entries.len() > 1 + texts.len() / 2 {
            return None;
        }
        indices.push(index);
    }
    let (form, bytes) = encode_flat(&entries);
    let mut out = Vec::new();
    put_varint(&mut out, entries.len() as u64);
    out.push(form);
    put_part(&mut out, &bytes);
    out.extend(ints::encode(&indices));
    Some(out)
}

fn encode_flat<T: AsRef<str>>(texts: &[T]) -> (u8, Vec<u8>) {
    let lengths: Vec<i64> = texts.iter().map(|t| t.as_ref().len() as i64).collect();
    let joined: Vec<u8> = texts.iter().flat_map(|t| t.as_ref().as_bytes()).copied().collect();
    let mut out = Vec::new();
    put_part(&mut out, &ints::encode(&lengths));
    let most = |squeezed: &Vec<u8>| expansion_max(squeezed.len(), texts.len());
    match squeeze(&joined).filter(|s| s.len() < joined.len() && joined.len() <= most(s)) {
        Some(squeezed) => {
            out.extend(squeezed);
            (ZSTD, out)
        }
        None => {
            out.extend(joined);
            (PLAIN, out)
        }
    }
}

fn squeeze(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < 32 {
        return None;
    }
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).ok()?;
    compressor.include_checksum(false).ok()?;
    compressor.include_contentsize(false).ok()?;
    compressor
        .compress(bytes)
        .ok()?
        .strip_prefix(&MAGIC)
        .map(<[u8]>::to_vec)
}

fn expand(bytes: &[u8], count: usize, total: usize) -> Result<Vec<u8>, Corrupt> {
    let corrupt = || Corrupt::new("zstd frame", 0);
    if total > expansion_max(bytes.len(), count) {
        return Err(corrupt());
    }
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(|_| corrupt())?;
    let frame = [MAGIC.as_slice(), bytes].concat();
    let plain = decompressor.decompress(&frame, total).map_err(|_| corrupt())?;
    if plain.len() == total {
        Ok(plain)
    } else {
        Err(corrupt())
    }
}

/// Decodes `count` texts.
pub(crate) fn decode(form: u8, bytes: &[u8], count: usize) -> Result<Vec<String>, Corrupt> {
    if form != DICTIONARY {
        return decode_flat(form, bytes, count);
    }
    let mut reader = Reader::new(bytes, "text dictionary");
    let entries = reader.count(count)?;
    let form = reader.byte()?;
    let entries = decode_flat(form, reader.part()?, entries)?;
    let indices = ints::decode(reader.rest(), count)?;
    let mut left = expansion_max(bytes.len(), count);
    let mut texts = Vec::with_capacity(count);
    for index in indices {
        let entry = usize::try_from(index)
            .ok()
            .and_then(|i| entries.get(i))
            .ok_or_else(|| reader.corrupt())?;
        left = left.checked_sub(entry.len()).ok_or_else(|| reader.corrupt())?;
        texts.push(entry.clone());
    }
    Ok(texts)
}

fn decode_flat(form: u8, bytes: &[u8], count: usize) -> Result<Vec<String>, Corrupt> {
    let mut reader = Reader::new(bytes, "texts");
    let lengths = ints::decode(reader.part()?, count)?;
    let total = lengths
        .iter()
        .try_fold(0usize, |sum, &l| sum.checked_add(usize::try_from(l).ok()?));
    let total = total.ok_or_else(|| reader.corrupt())?;
    let expanded;
    let mut plain = match form {
        PLAIN => reader.rest(),
        ZSTD => {
            expanded = expand(reader.rest(), count, total)?;
            &expanded
        }
        _ => return Err(Corrupt::new("text form", 0)),
    };
    if plain.len() != total {
        return Err(reader.corrupt());
    }
    let mut texts = Vec::with_capacity(count);
    for length in lengths {
        let (text, rest) = plain
            .split_at_checked(length as usize)
            .ok_or_else(|| reader.corrupt())?;
        texts.push(std::str::from_utf8(text).map_err(|_| reader.corrupt())?.to_owned());
        plain = rest;
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[track_caller]
    fn check(texts: &[String], form: u8, most: usize) {
        let (got, bytes) = encode(texts);
        assert_eq!(decode(got, &bytes, texts.len()).unwrap(), texts);
        assert_eq!(got, form, "{} bytes", bytes.len());
        assert!(bytes.len() <= most, "{} bytes", bytes.len());
    }

    #[test]
    fn texts_pick_the_smallest_form() {
        check(&["open".to_owned()], PLAIN, 8);
        check(&vec![String::new(); 100], PLAIN, 3);
        let states: Vec<String> = (0..500)
            .map(|i| ["open", "shut", "jammed"][i / 7 % 3].to_owned())
            .collect();
        check(&states, DICTIONARY, 60);
        let lines: Vec<String> = (0..64)
            .map(|i| format!("gate {i} reported level {} cm", i * 37 % 91))
            .collect();
        check(&lines, ZSTD, 600);
    }

    #[test]
    fn a_frame_cannot_ask_for_memory() {
        let mut bytes = Vec::new();
        put_part(&mut bytes, &ints::encode(&[1 << 40]));
        bytes.extend([0; 16]);
        assert!(decode(ZSTD, &bytes, 1).is_err());
        assert!(decode(PLAIN, &bytes, 1).is_err());
    }
}
