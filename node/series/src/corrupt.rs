//! The one error of this crate: bytes that are not what they should be.
//!
//! Never here: errors of files or requests. Invariant: no allocation, so that it is cheap on every path.

/// Bytes that no version of the encoder wrote, or that were damaged since. The replica that holds them must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {what} at byte {offset}")]
pub struct Corrupt {
    /// Which part is damaged.
    pub what: &'static str,
    /// Where it was noticed: bytes from the start of the part that was being read.
    pub offset: usize,
}

impl Corrupt {
    pub(crate) fn new(what: &'static str, offset: usize) -> Corrupt {
        Corrupt { what, offset }
    }

    /// The same, noticed in a part that starts `by` bytes later.
    pub(crate) fn shift(self, by: usize) -> Corrupt {
        Corrupt {
            what: self.what,
            offset: self.offset.saturating_add(by),
        }
    }
}
