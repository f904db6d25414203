//! Partials on their way from a shard to the coordinator, and what they may cost in memory.
//!
//! Never here: who asks. Invariant: windows travel in ascending order; the partials of a series share one buffer.

use bytes::Bytes;
use tidemark_proto::peer::Partials;
use tidemark_series::{ByWindow, Partial};

use super::shard_side::corrupt;
use crate::error::{Error, Reason, Result};

/// What a partial costs in memory, roughly, bytes.
pub(super) const PARTIAL_BYTES: usize = 160;

/// Refuses a query that holds more partials than it may.
pub(super) fn check_budget(bytes: usize, most: usize) -> Result<()> {
    match bytes > most {
        true => Err(Error::new(
            Reason::QueryTooLarge,
            format!("the query holds over {most} bytes of windows"),
        )
        .hint("ask for fewer devices, a longer step or a shorter range")),
        false => Ok(()),
    }
}

/// Numbers of the windows and their encoded partials.
pub(super) fn to_wire(series: &mut ByWindow) -> (Vec<i64>, Vec<Bytes>) {
    let sorted = series.sorted();
    let mut bytes = Vec::with_capacity(sorted.len() * PARTIAL_BYTES / 2);
    let mut ends = Vec::with_capacity(sorted.len());
    for (_, partial) in sorted {
        partial.encode_to(&mut bytes);
        ends.push(bytes.len());
    }
    let bytes = Bytes::from(bytes);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let partials = starts.zip(&ends).map(|(start, end)| bytes.slice(start..*end)).collect();
    (sorted.iter().map(|(window, _)| *window).collect(), partials)
}

/// Reads what [`to_wire`] wrote.
pub(super) fn from_wire(part: &Partials) -> Result<ByWindow> {
    let mut series = ByWindow::default();
    for (window, bytes) in part.window.iter().zip(&part.partial) {
        series.add(*window, Partial::decode(bytes).map_err(corrupt)?);
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tidemark_series::{ValueRef, ValueType};

    #[test]
    fn a_series_comes_back_as_it_went() {
        let mut series = ByWindow::default();
        for (window, value) in [(3, "a"), (-7, "bc"), (3, "d"), (9, "")] {
            series.at(window, ValueType::Text).fold(window, ValueRef::Text(value));
        }
        let (window, partial) = to_wire(&mut series);
        assert_eq!(window, [-7, 3, 9]);
        let part = Partials {
            window,
            partial,
            ..Partials::default()
        };
        assert_eq!(from_wire(&part).unwrap().sorted(), series.sorted());
        assert!(to_wire(&mut ByWindow::default()).0.is_empty());
    }
}
