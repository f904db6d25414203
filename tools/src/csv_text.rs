//! Lines of CSV. Never: what is in them.
//!
//! Invariant: RFC 4180, and a value of the store reads back the same, with the spaces around it and where it is empty.

use std::io::{self, Write};

use crate::output::Cell;
use crate::pairs::pairs_text;
use crate::time::TsFormat;

/// One line of RFC 4180, ended by a line feed.
pub(crate) fn csv_line(out: &mut impl Write, fields: &[String]) -> io::Result<()> {
    for (index, text) in fields.iter().enumerate() {
        // A line of one empty field would be an empty line.
        field(out, index, text, text.is_empty() && fields.len() == 1)?;
    }
    out.write_all(b"\n")
}

/// A line of cells; `escaped` for a terminal, where no text may do anything but stand there.
pub(crate) fn csv_cells(out: &mut impl Write, cells: &[Cell], ts: TsFormat, escaped: bool) -> io::Result<()> {
    for (index, cell) in cells.iter().enumerate() {
        let text = match cell {
            Cell::Text(text) | Cell::Value(text) if !escaped => text.clone(),
            Cell::List(texts) if !escaped => texts.join(", "),
            Cell::Pairs(pairs) if !escaped => pairs_text(pairs),
            cell => cell.plain(ts),
        };
        let value = matches!(cell, Cell::Value(_)) && (text.is_empty() || text.trim() != text);
        field(out, index, &text, value || (text.is_empty() && cells.len() == 1))?;
    }
    out.write_all(b"\n")
}

fn field(out: &mut impl Write, index: usize, text: &str, quoted: bool) -> io::Result<()> {
    if index > 0 {
        out.write_all(b",")?;
    }
    if quoted || text.contains(['"', ',', '\n', '\r']) {
        write!(out, "\"{}\"", text.replace('"', "\"\""))
    } else {
        out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn csv_lines_read_back() {
        for fields in [vec!["a", "b,c", "d\"e", ""], vec![""], vec!["line\nbreak", " space "]] {
            let mut line = Vec::new();
            csv_line(
                &mut line,
                &fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>(),
            )
            .unwrap();
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .from_reader(line.as_slice());
            let record = reader.records().next().unwrap().unwrap();
            assert_eq!(record.iter().collect::<Vec<_>>(), fields);
        }
    }

    #[test]
    fn values_of_the_store_stand_as_they_are_and_empty_is_not_nothing() {
        let mut line = Vec::new();
        let cells = [
            Cell::Value(" a\\n\u{1b}b\n".into()),
            Cell::Value(String::new()),
            Cell::None,
            Cell::text(""),
            Cell::Value("plain".into()),
        ];
        csv_cells(&mut line, &cells, TsFormat::Rfc3339, false).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), "\" a\\n\u{1b}b\n\",\"\",,,plain\n");
        let mut line = Vec::new();
        csv_cells(&mut line, &cells[..1], TsFormat::Rfc3339, true).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), "\" a\\n\\u{1b}b\\n\"\n");
    }
}
