//! Answers on standard output: table, json, jsonl or csv. Never: what the answers mean, or anything on standard error.
//!
//! Invariant: no control or direction character of a stored text reaches the terminal (csv that goes elsewhere has every text
//! as it is), and floats print so that reading them back gives the same bits. JSON carries `kind` and `schema`; fields are only ever added.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Number, Value};

use crate::csv_text::{csv_cells, csv_line};
use crate::failure::Outcome;
use crate::pairs::pairs_text;
use crate::time::{TsFormat, format_instant};

/// The form of an answer.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One document.
    Json,
    /// One object a line.
    Jsonl,
    /// RFC 4180 with a header.
    Csv,
}

impl Format {
    /// True where a program reads standard error too.
    pub(crate) fn is_json(self) -> bool {
        matches!(self, Format::Json | Format::Jsonl)
    }
}

/// How to print.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Style {
    /// The form.
    pub(crate) format: Format,
    /// Instants.
    pub(crate) ts: TsFormat,
}

/// One value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Nothing here.
    None,
    /// Text of the store or of ours.
    Text(String),
    /// A text that is a value of the store: csv shows it so that it reads back the same.
    Value(String),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A float.
    Float(f64),
    /// A truth.
    Bool(bool),
    /// Nanoseconds since the epoch.
    Time(i64),
    /// Several texts.
    List(Vec<String>),
    /// Named texts.
    Pairs(BTreeMap<String, String>),
}

impl Cell {
    /// Text.
    pub(crate) fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    /// Text, or nothing where it is empty.
    pub(crate) fn some_text(text: &str) -> Cell {
        if text.is_empty() {
            Cell::None
        } else {
            Cell::Text(text.to_owned())
        }
    }

    /// An instant, or nothing where it is 0.
    pub(crate) fn some_time(ns: i64) -> Cell {
        if ns == 0 { Cell::None } else { Cell::Time(ns) }
    }

    /// For people.
    pub(crate) fn plain(&self, ts: TsFormat) -> String {
        match self {
            Cell::None => String::new(),
            Cell::Text(text) | Cell::Value(text) => escape(text),
            Cell::Int(value) => value.to_string(),
            Cell::Uint(value) => value.to_string(),
            Cell::Float(value) => float_text(*value),
            Cell::Bool(value) => value.to_string(),
            Cell::Time(ns) => format_instant(*ns, ts),
            Cell::List(texts) => escape(&texts.join(", ")),
            Cell::Pairs(pairs) => escape(&pairs_text(pairs)),
        }
    }

    /// For programs.
    pub(crate) fn json(&self, ts: TsFormat) -> Value {
        match self {
            Cell::None => Value::Null,
            Cell::Text(text) | Cell::Value(text) => Value::from(text.as_str()),
            Cell::Int(value) => Value::from(*value),
            Cell::Uint(value) => Value::from(*value),
            Cell::Float(value) => match Number::from_f64(*value) {
                Some(number) => Value::Number(number),
                None => Value::from(float_text(*value)),
            },
            Cell::Bool(value) => Value::from(*value),
            Cell::Time(ns) => match ts {
                TsFormat::Rfc3339 => Value::from(format_instant(*ns, ts)),
                TsFormat::Ms => Value::from(ns.div_euclid(1_000_000)),
                TsFormat::Ns => Value::from(*ns),
            },
            Cell::List(texts) => Value::from(texts.clone()),
            Cell::Pairs(pairs) => pairs
                .iter()
                .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
                .collect(),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Cell::Int(_) | Cell::Uint(_) | Cell::Float(_))
    }
}

/// Shortest decimal that reads back as the same float.
pub(crate) fn float_text(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() || (1e-5..1e17).contains(&size) {
        format!("{value}")
    } else {
        format!("{value:e}")
    }
}

/// True for characters that could move a cursor, hide text or turn its direction.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// The text with every control or direction character written out.
pub(crate) fn escape(text: &str) -> String {
    if !text.contains(is_unsafe) {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            c if is_unsafe(c) => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    escaped
}

/// JSON on one line in which unsafe characters are `\u` escapes (they can only stand inside strings).
pub(crate) fn json_text(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(is_unsafe) {
        return text;
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            safe.push(c)
        }
    }
    safe
}

/// Rows of a table that are laid out together; longer tables repeat the header.
const TABLE_PAGE_ROWS: usize = 4096;

/// Writes one answer: head fields, then sections of rows, then a summary.
pub(crate) struct Printer<W: Write = BufWriter<StdoutLock<'static>>> {
    out: W,
    style: Style,
    kind: &'static str,
    section: &'static str,
    sections: usize,
    columns: Vec<String>,
    rows: usize,
    /// Rows of a table with the group that each is of.
    page: Vec<(String, Vec<Cell>)>,
    /// So many columns of a table are always there, the others where a row has something in them.
    always: usize,
    fields: usize,
    /// The reader of csv is a terminal.
    escaped: bool,
}

impl Printer {
    /// On standard output.
    pub(crate) fn stdout(style: Style, kind: &'static str) -> Printer {
        let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        let escaped = io::stdout().is_terminal();
        Printer {
            escaped,
            ..Printer::new(out, style, kind)
        }
    }
}

impl<W: Write> Printer<W> {
    /// On any writer.
    pub(crate) fn new(out: W, style: Style, kind: &'static str) -> Printer<W> {
        Printer {
            out,
            style,
            kind,
            section: "",
            sections: 0,
            columns: Vec::new(),
            rows: 0,
            page: Vec::new(),
            always: usize::MAX,
            fields: 0,
            escaped: false,
        }
    }

    /// A field of the answer as a whole. Before the first section; csv and jsonl leave it out.
    pub(crate) fn head(&mut self, name: &str, cell: Cell) -> Outcome {
        match self.style.format {
            Format::Table => {
                let name = format!("{}:", name.replace('_', " "));
                writeln!(
                    self.out,
                    "{}",
                    format!("{name:<20}{}", cell.plain(self.style.ts)).trim_end()
                )?;
                self.fields += 1;
            }
            Format::Json => {
                let value = cell.json(self.style.ts);
                self.field(name, &value)?;
            }
            Format::Jsonl | Format::Csv => {}
        }
        Ok(())
    }

    /// Begins a list of rows under `name`.
    pub(crate) fn section(&mut self, name: &'static str, columns: &[impl AsRef<str>]) -> Outcome {
        self.end_section()?;
        self.columns = columns.iter().map(|column| column.as_ref().to_owned()).collect();
        self.section = name;
        match self.style.format {
            Format::Json => {
                self.begin_field(name)?;
                self.out.write_all(b"[")?;
            }
            Format::Csv => {
                if self.sections > 0 {
                    writeln!(self.out)?;
                }
                let header: Vec<_> = self.columns.iter().map(|column| escape(column)).collect();
                csv_line(&mut self.out, &header)?;
            }
            Format::Table => {
                if self.sections > 0 || self.fields > 0 {
                    writeln!(self.out)?;
                }
            }
            Format::Jsonl => {}
        }
        self.sections += 1;
        Ok(())
    }

    /// Leaves columns behind the first ones out of a table in which no row has anything in them. Programs get all of them.
    pub(crate) fn only_filled(&mut self, always: usize) {
        self.always = always;
    }

    /// One row of the section, a cell per column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) -> Outcome {
        self.row_of("", cells)
    }

    /// The same of a group: where rows of several are shown together, each has a table of its own.
    pub(crate) fn row_of(&mut self, group: &str, cells: Vec<Cell>) -> Outcome {
        let ts = self.style.ts;
        match self.style.format {
            Format::Table => {
                self.page.push((group.to_owned(), cells));
                if self.page.len() == TABLE_PAGE_ROWS {
                    self.flush_page()?;
                }
            }
            Format::Json => {
                let object = Value::Object(self.object(&cells));
                self.out.write_all(if self.rows == 0 { b"\n  " } else { b",\n  " })?;
                self.out.write_all(json_text(&object).as_bytes())?;
            }
            Format::Jsonl => {
                let mut object = Map::new();
                object.insert("kind".into(), self.kind.into());
                object.insert("schema".into(), 1.into());
                object.insert("section".into(), self.section.into());
                object.extend(self.object(&cells));
                writeln!(self.out, "{}", json_text(&Value::Object(object)))?;
            }
            Format::Csv => csv_cells(&mut self.out, &cells, ts, self.escaped)?,
        }
        self.rows += 1;
        Ok(())
    }

    /// Closes the answer. The summary is part of json; elsewhere it goes to standard error, so that data stays data.
    pub(crate) fn finish(mut self, summary: &[(&str, Cell)]) -> Outcome {
        self.end_section()?;
        if self.style.format == Format::Json {
            let object: Map<_, _> = summary
                .iter()
                .map(|(name, cell)| ((*name).to_owned(), cell.json(self.style.ts)))
                .collect();
            if !object.is_empty() {
                self.field("summary", &Value::Object(object))?;
            }
            if self.fields == 0 {
                self.begin_field("rows")?;
                self.out.write_all(b"[]")?;
            }
            self.out.write_all(b"\n}\n")?;
        }
        self.out.flush()?;
        Ok(())
    }

    fn object(&self, cells: &[Cell]) -> Map<String, Value> {
        self.columns
            .iter()
            .zip(cells)
            .map(|(column, cell)| (column.clone(), cell.json(self.style.ts)))
            .collect()
    }

    fn begin_field(&mut self, name: &str) -> io::Result<()> {
        if self.fields == 0 {
            write!(self.out, "{{\"kind\":\"{}\",\"schema\":1", self.kind)?;
        }
        self.fields += 1;
        write!(self.out, ",\n{}:", json_text(&Value::from(name)))
    }

    fn field(&mut self, name: &str, value: &Value) -> io::Result<()> {
        self.begin_field(name)?;
        self.out.write_all(json_text(value).as_bytes())
    }

    fn end_section(&mut self) -> io::Result<()> {
        if self.sections > 0 {
            match self.style.format {
                Format::Json => self.out.write_all(if self.rows == 0 { b"]" } else { b"\n]" })?,
                Format::Table => {
                    if !self.page.is_empty() || self.rows == 0 {
                        self.flush_page()?;
                    }
                }
                Format::Jsonl | Format::Csv => {}
            }
        }
        self.rows = 0;
        Ok(())
    }

    fn flush_page(&mut self) -> io::Result<()> {
        let mut page = std::mem::take(&mut self.page);
        page.sort_by(|a, b| a.0.cmp(&b.0));
        if page.is_empty() {
            return self.table(&[]);
        }
        let groups: Vec<_> = page.chunk_by(|a, b| a.0 == b.0).collect();
        for (at, rows) in groups.iter().enumerate() {
            if groups.len() > 1 {
                writeln!(self.out, "{}{}:", if at > 0 { "\n" } else { "" }, escape(&rows[0].0))?;
            }
            self.table(rows)?;
        }
        Ok(())
    }

    fn table(&mut self, rows: &[(String, Vec<Cell>)]) -> io::Result<()> {
        let ts = self.style.ts;
        let is_filled = |at: usize| {
            rows.iter()
                .any(|(_, cells)| !matches!(cells.get(at), None | Some(Cell::None)))
        };
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|at| *at < self.always || is_filled(*at))
            .collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(shown.iter().map(|at| escape(&self.columns[*at]).to_uppercase()));
        for (_, cells) in rows {
            table.add_row(shown.iter().filter_map(|at| cells.get(*at)).map(|cell| {
                let align = if cell.is_number() {
                    CellAlignment::Right
                } else {
                    CellAlignment::Left
                };
                comfy_table::Cell::new(cell.plain(ts)).set_alignment(align)
            }));
        }
        for line in table.lines() {
            // Cells are padded by one space on either side.
            writeln!(self.out, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    fn render(format: Format) -> String {
        render_to(format, true)
    }

    fn render_to(format: Format, terminal: bool) -> String {
        let mut out = Vec::new();
        let style = Style {
            format,
            ts: TsFormat::Rfc3339,
        };
        let mut printer = Printer {
            escaped: terminal,
            ..Printer::new(&mut out, style, "device_list")
        };
        printer.section("devices", &["id", "level", "at"]).unwrap();
        printer
            .row(vec![Cell::text("a"), Cell::Float(0.1), Cell::Time(0)])
            .unwrap();
        printer
            .row(vec![Cell::text("b\u{1b}[2J"), Cell::Float(f64::NAN), Cell::None])
            .unwrap();
        printer.finish(&[("devices", Cell::Uint(2))]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_form() {
        insta::assert_snapshot!(render(Format::Csv), @r"
        id,level,at
        a,0.1,1970-01-01T00:00:00Z
        b\u{1b}[2J,NaN,
        ");
        assert!(render_to(Format::Csv, false).contains("\nb\u{1b}[2J,NaN,\n"));
        insta::assert_snapshot!(render(Format::Jsonl), @r#"
        {"kind":"device_list","schema":1,"section":"devices","id":"a","level":0.1,"at":"1970-01-01T00:00:00Z"}
        {"kind":"device_list","schema":1,"section":"devices","id":"b\u001b[2J","level":"NaN","at":null}
        "#);
        let json: Value = serde_json::from_str(&render(Format::Json)).unwrap();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["devices"][1]["id"], "b\u{1b}[2J");
        assert_eq!(json["summary"]["devices"], 2);
        let table = render(Format::Table);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.starts_with("ID") && !table.contains('\u{1b}'), "{table}");
    }

    #[test]
    fn rows_of_several_groups_have_tables_with_what_they_have() {
        let render = |format, groups: [&str; 3]| {
            let mut out = Vec::new();
            let style = Style {
                format,
                ts: TsFormat::Ms,
            };
            let mut printer = Printer::new(&mut out, style, "query_range");
            printer.only_filled(2);
            printer
                .section("records", &["device", "at", "rain", "depth", "wind"])
                .unwrap();
            let row =
                |device: &str, rain: Cell, depth: Cell| vec![Cell::text(device), Cell::None, rain, depth, Cell::None];
            let rows = [
                row("rg", Cell::Float(2.5), Cell::None),
                row("pd", Cell::None, Cell::Float(0.1)),
                row("rg", Cell::Float(0.5), Cell::None),
            ];
            for (group, cells) in groups.iter().zip(rows) {
                printer.row_of(group, cells).unwrap();
            }
            printer.finish(&[]).unwrap();
            String::from_utf8(out).unwrap()
        };
        insta::assert_snapshot!(render(Format::Table, ["rain", "pond", "rain"]), @r"
        pond:
        DEVICE  AT  DEPTH
        pd            0.1

        rain:
        DEVICE  AT  RAIN
        rg           2.5
        rg           0.5
        ");
        insta::assert_snapshot!(render(Format::Table, ["one"; 3]), @r"
        DEVICE  AT  RAIN  DEPTH
        rg           2.5
        pd                  0.1
        rg           0.5
        ");
        insta::assert_snapshot!(render(Format::Csv, ["rain", "pond", "rain"]), @r"
        device,at,rain,depth,wind
        rg,,2.5,,
        pd,,,0.1,
        rg,,0.5,,
        ");
    }

    #[test]
    fn an_empty_answer_is_still_an_answer() {
        let style = Style {
            format: Format::Json,
            ts: TsFormat::Ns,
        };
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, style, "x");
        printer.section("rows", &["a"]).unwrap();
        printer.finish(&[]).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&out).unwrap(),
            serde_json::json!({"kind": "x", "schema": 1, "rows": []})
        );
    }

    #[test]
    fn floats_come_back() {
        for value in [
            0.1,
            1.0,
            -0.0,
            1e300,
            5e-324,
            f64::MAX,
            94.79799999999999,
            123456789012345680.0,
            f64::INFINITY,
        ] {
            let text = float_text(value);
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
            assert!(text.len() < 25, "{text}");
        }
    }

    #[test]
    fn json_stays_json_with_odd_characters() {
        let text = json_text(&Value::from("a\u{7f}\u{9b}\u{202e}b"));
        assert_eq!(text, "\"a\\u007f\\u009b\\u202eb\"");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "a\u{7f}\u{9b}\u{202e}b");
    }
}
