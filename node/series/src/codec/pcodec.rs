//! The pco library: binned entropy coding, worth its tables from 512 values on.
//!
//! ```text
//! stream = pco chunk meta | pco page          (wrapped format 4.1; its two version bytes are implied, not stored)
//! ```
//!
//! Never here: the choice among encodings. Invariants: only the pco modes and deltas named here are written and
//! read, so that a damaged stream cannot ask for memory, and a panic inside the library ends as `Corrupt`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pco::data_types::Number;
use pco::metadata::{ChunkMeta, DeltaEncoding, Mode};
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

use super::part::Part;
use crate::corrupt::Corrupt;

/// Fewest values worth a try.
pub(crate) const VALUES_MIN: usize = 512;
/// Highest order of consecutive deltas.
pub(crate) const ORDER_MAX: usize = 2;

const LEVEL: usize = 8;
/// A page is read in steps of so many values.
const STEP: usize = 256;
const FORMAT_VERSION: [u8; 2] = [4, 1];

/// Encodes integers after `order` rounds of differences; `None` where pco declines.
pub(crate) fn encode_ints(values: &[i64], order: usize) -> Option<Vec<u8>> {
    encode(values, ModeSpec::Classic, order)
}

/// Encodes doubles, letting pco find a common factor.
pub(crate) fn encode_floats(values: &[f64], order: usize) -> Option<Vec<u8>> {
    encode(values, ModeSpec::Auto, order)
}

fn encode<T: Number>(values: &[T], mode: ModeSpec, order: usize) -> Option<Vec<u8>> {
    // `DeltaSpec::TryConv1` is not an option: pco 1.1.0 panics on it for some lengths.
    let delta = if order == 0 {
        DeltaSpec::NoOp
    } else {
        DeltaSpec::TryConsecutive(order)
    };
    let config = ChunkConfig::default()
        .with_compression_level(LEVEL)
        .with_mode_spec(mode)
        .with_delta_spec(delta)
        .with_paging_spec(PagingSpec::Exact(vec![values.len()]));
    let mut chunk = FileCompressor::default().chunk_compressor(values, &config).ok()?;
    if !known(chunk.meta()) {
        return None;
    }
    let out = chunk.write_meta(Vec::new()).ok()?;
    chunk.write_page(0, out).ok()
}

fn known(meta: &ChunkMeta) -> bool {
    let mode = matches!(meta.mode, Mode::Classic | Mode::FloatMult(_) | Mode::FloatQuant(_));
    let delta = match meta.delta_encoding {
        DeltaEncoding::NoOp => true,
        DeltaEncoding::Consecutive { order, .. } => order <= ORDER_MAX,
        _ => false,
    };
    mode && delta
}

/// Decodes a part of the numbers; those behind it are not read.
pub(crate) fn decode<T: Number + Default>(bytes: &[u8], part: Part) -> Result<Vec<T>, Corrupt> {
    let corrupt = || Corrupt::new("pco stream", 0);
    catch_unwind(AssertUnwindSafe(|| decode_inner(bytes, part)))
        .ok()
        .flatten()
        .ok_or_else(corrupt)
}

fn decode_inner<T: Number + Default>(bytes: &[u8], part: Part) -> Option<Vec<T>> {
    let (file, _) = FileDecompressor::new(FORMAT_VERSION.as_slice()).ok()?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(bytes).ok()?;
    if !known(chunk.meta()) {
        return None;
    }
    let upto = part.to.next_multiple_of(STEP).min(part.count);
    let mut values = vec![T::default(); upto];
    let mut page = chunk.page_decompressor(rest, part.count).ok()?;
    let progress = page.read(&mut values).ok()?;
    let complete = upto < part.count || progress.finished && page.into_src().is_empty();
    complete.then(|| part.cut(values, 0))
}
