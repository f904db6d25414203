//! What reports of devices and groups have in common as tables: whose they are, and shares. Never: what is reported.
//!
//! Invariant: a share of nothing is no share, and is shown as none.

use tidemark_client::v1;

use crate::output::Cell;

/// Whose reports these are.
#[derive(Copy, Clone)]
pub(super) struct Whose<'a> {
    /// Tags that groups agree on.
    pub(super) by: &'a [String],
    /// Of groups, not of devices.
    pub(super) grouped: bool,
    /// Groups hold devices of all types.
    pub(super) across_types: bool,
}

impl<'a> Whose<'a> {
    /// Heads of the first columns.
    pub(super) fn header(self) -> Vec<&'a str> {
        let mut header: Vec<&str> = match self.grouped {
            true => self.by.iter().map(String::as_str).collect(),
            false => vec!["device"],
        };
        if !self.across_types {
            header.push("device_type");
        }
        header
    }

    /// The first columns of a report.
    pub(super) fn cells(self, report: &v1::QualityReport) -> Vec<Cell> {
        let tag = |tag: &String| report.tags.get(tag).map_or(Cell::None, Cell::text);
        let mut cells: Vec<Cell> = match self.grouped {
            true => self.by.iter().map(tag).collect(),
            false => vec![Cell::text(&report.device)],
        };
        if !self.across_types {
            cells.push(Cell::text(&report.device_type));
        }
        cells
    }
}

/// A share to a millionth: a second in eleven days.
pub(super) fn rounded(share: f64) -> Cell {
    Cell::Float((share * 1e6).round() / 1e6)
}

/// How much of a whole; none of nothing.
pub(super) fn share(part: u64, whole: u64) -> Cell {
    match whole {
        0 => Cell::None,
        whole => rounded(part as f64 / whole as f64),
    }
}

/// How many devices are under maintenance at the end of the time, or whether the one is.
pub(super) fn under_maintenance(report: &v1::QualityReport, grouped: bool) -> Cell {
    match grouped {
        true => Cell::Uint(report.under_maintenance),
        false => Cell::Bool(report.under_maintenance > 0),
    }
}
