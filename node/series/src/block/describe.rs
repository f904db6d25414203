//! What a block is made of, in words: for tests and for whoever looks into one.
//!
//! Never here: contents. Invariant: reads the header only, and the first byte of sections.

use std::fmt::Write;

use super::Block;
use super::clocks::CLOCKS;

impl Block<'_> {
    /// One line: rows, how times are told, repeats, and of each column number, encoding, first byte (of integers the method), and
    /// the form of its presence and the number of the column that it is like, where it has these.
    pub fn describe(&self) -> String {
        let header = self.header();
        let first = |at: usize, len: usize| self.bytes().get(at).copied().filter(|_| len > 0).unwrap_or_default();
        let mut out = format!("{} rows", header.rows);
        if let Some(times) = &header.times {
            let method = first(times.at, times.len);
            let told = if method == CLOCKS { "clocks" } else { "times" };
            let _ = write!(out, ", {told} {method:#04x}");
        }
        if let Some(repeats) = &header.repeats {
            let _ = write!(out, ", {} repeats of {} rows", repeats.sum, repeats.rows);
        }
        for column in &header.columns {
            let method = first(column.section.at, column.section.len);
            let _ = write!(out, "; {}: {:#04x} {method:#04x}", column.property.0, column.encoding);
            if let Some(presence) = column.presence.map(|index| &header.presences[index]) {
                let _ = write!(out, " presence {}", presence.form);
            }
            if let Some(other) = column.like {
                let _ = write!(out, " like {}", header.columns[other].property.0);
            }
        }
        out
    }
}
