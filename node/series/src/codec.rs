//! Encodings of one column of plain values, one idea a file.
//!
//! Never here: records, headers, checksums. Invariant: every decoder is given the number of values (at most a block's
//! rows) and answers any bytes with exactly so many values or `Corrupt`; every encoder is deterministic.
//!
//! Numbers of encodings are on disk for ever: a retired one stays reserved.

pub(crate) mod best;
pub(crate) mod bits;
pub(crate) mod decimal;
pub(crate) mod divide;
pub(crate) mod emit;
pub(crate) mod entropy;
pub(crate) mod floats;
pub(crate) mod ints;
pub(crate) mod pack;
pub(crate) mod part;
pub(crate) mod pcodec;
pub(crate) mod plain;
pub(crate) mod presence;
pub(crate) mod rice;
pub(crate) mod runs;
pub(crate) mod survey;
pub(crate) mod text;
pub(crate) mod wire;
