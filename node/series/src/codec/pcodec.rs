//! The pco library: binned entropy coding, worth its tables from 512 values on.
//!
//! ```text
//! stream = pco chunk meta | pco page          (wrapped format 4.1; its two version bytes are implied, not stored)
//! ```
//!
//! Never here: the choice among encodings. Invariants: only the pco modes and deltas named here are written and
//! read, so that a damaged stream cannot ask for memory, and a panic inside the library ends as `Corrupt`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pco::data_types::Number;
use pco::metadata::{ChunkMeta, DeltaEncoding, Mode};
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DecompressorScratch, DeltaSpec, ModeSpec, PagingSpec};

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

/// Appends integers after `order` rounds of differences; false where pco declines.
pub(crate) fn encode_ints(values: &[i64], order: usize, out: &mut Vec<u8>) -> bool {
    encode(values, ModeSpec::Classic, order, out).is_some()
}

/// Appends doubles, letting pco find a common factor; false where it declines.
pub(crate) fn encode_floats(values: &[f64], order: usize, out: &mut Vec<u8>) -> bool {
    encode(values, ModeSpec::Auto, order, out).is_some()
}

fn encode<T: Number>(values: &[T], mode: ModeSpec, order: usize, out: &mut Vec<u8>) -> Option<()> {
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
    chunk.write_meta(&mut *out).ok()?;
    chunk.write_page(0, out).ok()?;
    Some(())
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
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        SCRATCH.with_borrow_mut(|scratch| decode_inner(bytes, part, scratch))
    }));
    if decoded.is_err() {
        SCRATCH.take();
    }
    decoded.ok().flatten().ok_or(Corrupt::new("pco stream", 0))
}

thread_local! {
    /// What pco works in. Streams leave nothing there that matters to the next.
    static SCRATCH: RefCell<DecompressorScratch> = RefCell::default();
}

fn decode_inner<T: Number + Default>(bytes: &[u8], part: Part, scratch: &mut DecompressorScratch) -> Option<Vec<T>> {
    let (file, _) = FileDecompressor::new(FORMAT_VERSION.as_slice()).ok()?;
    let (chunk, rest) = file.chunk_decompressor::<T, _>(bytes).ok()?;
    if !known(chunk.meta()) {
        return None;
    }
    let upto = part.to.next_multiple_of(STEP).min(part.count);
    let mut values = vec![T::default(); upto];
    let mut page = chunk.page_decompressor_with_scratch(rest, part.count, scratch).ok()?;
    let progress = page.read(&mut values).ok()?;
    let complete = upto < part.count || progress.finished && page.into_src().is_empty();
    complete.then(|| part.cut(values, 0))
}
