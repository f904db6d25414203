//! The bytes of an unfinished aggregate.
use super::Partial;
use crate::corrupt::Corrupt;
pub(super) fn encode(_partial: &Partial) -> Vec<u8> {
    Vec::new()
}
pub(super) fn decode(_bytes: &[u8]) -> Result<Partial, Corrupt> {
    Err(Corrupt::new("partial", 0))
}
