//! Rows of a CSV file with their raw text, line numbers and byte offsets; plain or zstd. Never: what a field means.
//!
//! Invariant: offsets count bytes of the decompressed text, so that a reader opened at an offset it reported earlier
//! gives the same rows again. Memory is bounded by the longest row, which is itself bounded. Where a row ends and where its
//! fields end is told by the same reading of quotes (`Quotes`), or rows would be lost between the two.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest row: a stray quote must not swallow the file.
pub(crate) const ROW_BYTES_MAX: usize = 1 << 20;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Counts bytes taken from the file itself, compressed or not, for the progress bar.
struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Where a row begins.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Bytes of text before it.
    pub(crate) offset: u64,
    /// Lines of text before it.
    pub(crate) line: u64,
}

/// Rows of text, one at a time.
pub(crate) struct Lines {
    input: Box<dyn BufRead + Send>,
    at: Position,
}

impl Lines {
    /// Opens a file (`-` is standard input) and counts its bytes in `taken`. Starts at `from`.
    pub(crate) fn open(path: &str, taken: Arc<AtomicU64>, from: Position) -> io::Result<Lines> {
        if path == "-" {
            return Lines::read_from(
                Counted {
                    inner: io::stdin(),
                    taken,
                },
                from,
            );
        }
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        let is_zstd = file.read_exact(&mut magic).is_ok() && magic == ZSTD_MAGIC;
        if is_zstd || from.offset == 0 {
            file.rewind()?;
            return Lines::read_from(Counted { inner: file, taken }, from);
        }
        file.seek(SeekFrom::Start(from.offset))?;
        taken.store(from.offset, Ordering::Relaxed);
        let input = BufReader::with_capacity(1 << 17, Counted { inner: file, taken });
        Ok(Lines {
            input: Box::new(input),
            at: from,
        })
    }

    /// Reads any stream, decompressing it where it is zstd, and skips to `from`.
    pub(crate) fn read_from(input: impl Read + Send + 'static, from: Position) -> io::Result<Lines> {
        let mut plain = BufReader::with_capacity(1 << 17, input);
        let is_zstd = plain.fill_buf()?.starts_with(&ZSTD_MAGIC);
        let input: Box<dyn BufRead + Send> = if is_zstd {
            let text = zstd::stream::read::Decoder::with_buffer(plain)?;
            Box::new(BufReader::with_capacity(1 << 17, text))
        } else {
            Box::new(plain)
        };
        let mut lines = Lines {
            input,
            at: Position::default(),
        };
        lines.skip_to(from)?;
        Ok(lines)
    }

    /// Passes over text up to a place further on.
    pub(crate) fn skip_to(&mut self, to: Position) -> io::Result<()> {
        let bytes = to.offset.saturating_sub(self.at.offset);
        let skipped = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink())?;
        if skipped < bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is shorter than it was",
            ));
        }
        self.at = to;
        Ok(())
    }

    /// Where the next row begins.
    pub(crate) fn position(&self) -> Position {
        self.at
    }

    /// Appends the next row without its line end and gives its place; None at the end. Empty lines are passed over.
    pub(crate) fn next_row(&mut self, raw: &mut Vec<u8>) -> io::Result<Option<Position>> {
        loop {
            let (start, begin) = (self.at, raw.len());
            let mut seen = begin;
            let mut quotes = Quotes::default();
            while self.next_line(raw)? {
                quotes.pass(&raw[seen.max(begin)..]);
                seen = raw.len();
                if !quotes.open || raw.len() - begin >= ROW_BYTES_MAX {
                    break;
                }
            }
            if self.at == start {
                return Ok(None);
            }
            while raw.len() > begin && matches!(raw[raw.len() - 1], b'\n' | b'\r') {
                raw.pop();
            }
            if raw.len() > begin {
                return Ok(Some(start));
            }
        }
    }

    fn next_line(&mut self, raw: &mut Vec<u8>) -> io::Result<bool> {
        let limit = ROW_BYTES_MAX as u64;
        let read = self.input.by_ref().take(limit).read_until(b'\n', raw)?;
        self.at.offset += read as u64;
        self.at.line += u64::from(read > 0);
        if self.at.offset == read as u64 && raw.starts_with(&[0xef, 0xbb, 0xbf]) {
            raw.drain(..3);
        }
        Ok(read > 0)
    }
}

/// What a byte of a row is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Of the field's text.
    Text,
    /// Ends the field.
    Comma,
    /// A quote that opens or closes the field, or the first of two that stand for one.
    Quote,
}

/// Reads quotes as RFC 4180 has them. A quote opens a field only at its beginning; elsewhere it is text.
#[derive(Copy, Clone, Debug)]
struct Quotes {
    /// Inside of quotes: commas and line ends are text.
    open: bool,
    /// A quote would open a field here, or open it again.
    at_start: bool,
    /// Straight behind a quote that closed: a second one stands for a quote in the text.
    closed: bool,
}

impl Default for Quotes {
    fn default() -> Quotes {
        Quotes {
            open: false,
            at_start: true,
            closed: false,
        }
    }
}

impl Quotes {
    fn next(&mut self, byte: u8) -> Part {
        let before = *self;
        *self = Quotes {
            open: before.open,
            at_start: false,
            closed: false,
        };
        match (before.open, byte) {
            (true, b'"') => {
                self.open = false;
                self.closed = true;
                Part::Quote
            }
            (true, _) => Part::Text,
            (false, b'"') if before.closed => {
                self.open = true;
                Part::Text
            }
            (false, b'"') if before.at_start => {
                self.open = true;
                Part::Quote
            }
            (false, b',') => {
                self.at_start = true;
                Part::Comma
            }
            (false, _) => Part::Text,
        }
    }

    /// Passes over a line, which is quick where it has no quote.
    fn pass(&mut self, line: &[u8]) {
        if self.open || line.contains(&b'"') {
            for byte in line {
                self.next(*byte);
            }
        }
    }
}

/// Fields of one row.
#[derive(Default)]
pub(crate) struct Fields {
    text: String,
    ends: Vec<usize>,
    /// Fields that stand in quotes, in order.
    quoted: Vec<usize>,
}

/// One field of a row.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// Without the spaces around it.
    pub(crate) trimmed: &'a str,
    /// What its text is: as it stands in quotes, or without the spaces around it.
    pub(crate) exact: &'a str,
    /// It stands in quotes: empty, it is an empty text and not nothing.
    pub(crate) quoted: bool,
}

impl Fields {
    /// Splits a row at its commas.
    pub(crate) fn split(&mut self, row: &[u8]) -> Result<(), String> {
        self.text.clear();
        self.ends.clear();
        self.quoted.clear();
        if row.len() >= ROW_BYTES_MAX {
            return Err(format!(
                "row longer than {ROW_BYTES_MAX} bytes (a quote that is never closed?)"
            ));
        }
        let row = std::str::from_utf8(row).map_err(|_| "not UTF-8 text".to_owned())?;
        if row.contains('"') {
            return self.split_quoted(row);
        }
        for field in row.split(',') {
            self.text.push_str(field);
            self.ends.push(self.text.len());
        }
        Ok(())
    }

    fn split_quoted(&mut self, row: &str) -> Result<(), String> {
        let mut quotes = Quotes::default();
        for c in row.chars() {
            // What is no ASCII is text wherever it stands.
            match quotes.next(u8::try_from(c).unwrap_or(b'x')) {
                Part::Text => self.text.push(c),
                Part::Comma => self.ends.push(self.text.len()),
                Part::Quote if self.quoted.last() == Some(&self.ends.len()) => {}
                Part::Quote => self.quoted.push(self.ends.len()),
            }
        }
        self.ends.push(self.text.len());
        if quotes.open {
            return Err("a quote is never closed".to_owned());
        }
        Ok(())
    }

    /// Number of fields.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// One field without the spaces around it; None beyond the end of the row.
    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        self.at(index).map(|field| field.trimmed)
    }

    /// One field; None beyond the end of the row.
    pub(crate) fn at(&self, index: usize) -> Option<Field<'_>> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let text = &self.text[start..end];
        let quoted = self.quoted.binary_search(&index).is_ok();
        let trimmed = text.trim();
        Some(Field {
            trimmed,
            exact: if quoted { text } else { trimmed },
            quoted,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn all(text: &[u8], from: Position) -> Vec<(String, Position)> {
        let mut lines = Lines::read_from(io::Cursor::new(text.to_vec()), from).unwrap();
        let mut rows = Vec::new();
        let mut raw = Vec::new();
        while let Some(at) = lines.next_row(&mut raw).unwrap() {
            rows.push((String::from_utf8(std::mem::take(&mut raw)).unwrap(), at));
        }
        rows
    }

    const TEXT: &[u8] = b"\xef\xbb\xbfa,b\r\n1,\"x\ny\"\n\n2,\"q\"\"q\"\n3,z";

    #[test]
    fn rows_with_quotes_blank_lines_and_no_last_line_end() {
        let rows = all(TEXT, Position::default());
        let texts: Vec<_> = rows.iter().map(|(text, at)| (text.as_str(), at.line)).collect();
        assert_eq!(texts, [("a,b", 0), ("1,\"x\ny\"", 1), ("2,\"q\"\"q\"", 4), ("3,z", 5)]);
        let mut fields = Fields::default();
        fields.split(rows[1].0.as_bytes()).unwrap();
        assert_eq!((fields.len(), fields.get(1)), (2, Some("x\ny")));
        fields.split(rows[2].0.as_bytes()).unwrap();
        assert_eq!(fields.get(1), Some("q\"q"));
        fields.split(b"a, b ,").unwrap();
        assert_eq!(
            (fields.get(1), fields.get(2), fields.get(3)),
            (Some("b"), Some(""), None)
        );
        assert!(fields.split(b"\xff,1").is_err());
        assert!(fields.split(b"1,\"open").is_err());
    }

    /// Rows as the csv crate reads them, which is the word on what a CSV file says; empty lines are none.
    fn reference(text: &str) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        let row = |row: csv::StringRecord| row.iter().map(|field| field.trim().to_owned()).collect();
        reader.records().map(Result::unwrap).map(row).collect()
    }

    #[test]
    fn quotes_anywhere_are_read_as_csv_has_them() {
        const ALPHABET: [&str; 5] = ["a", ",", "\"", "\n", "\"\""];
        for code in 0..ALPHABET.len().pow(6) {
            let text: String = (0..6)
                .map(|at| ALPHABET[code / ALPHABET.len().pow(at) % ALPHABET.len()])
                .collect();
            let mut rows: Vec<Vec<String>> = Vec::new();
            let mut fields = Fields::default();
            let mut unclosed = false;
            for (row, _) in all(text.as_bytes(), Position::default()) {
                assert!(
                    !unclosed,
                    "{text:?}: only the last row can have a quote that is never closed"
                );
                unclosed = fields.split(row.as_bytes()).is_err();
                rows.push(
                    (0..fields.len())
                        .filter_map(|at| fields.get(at))
                        .map(str::to_owned)
                        .collect(),
                );
            }
            let mut expected = reference(&text);
            if unclosed {
                rows.pop();
                expected.pop();
            }
            assert_eq!(rows, expected, "{text:?}");
        }
    }

    #[test]
    fn a_quote_inside_of_a_field_swallows_no_rows() {
        let text = "d1,1,pipe 6\"\" valve\nd1,2,fine\nd1,3,fine\nd1,4,\"open, full\"\nd1,5,6\" pipe\nd1,6,x\n";
        let rows = all(text.as_bytes(), Position::default());
        let lines: Vec<_> = rows.iter().map(|(_, at)| at.line).collect();
        assert_eq!(lines, [0, 1, 2, 3, 4, 5]);
        let mut fields = Fields::default();
        fields.split(rows[0].0.as_bytes()).unwrap();
        assert_eq!((fields.len(), fields.get(2)), (3, Some("pipe 6\"\" valve")));
    }

    #[test]
    fn any_row_can_be_the_first_again_plain_and_compressed() {
        let rows = all(TEXT, Position::default());
        let packed = zstd::encode_all(TEXT, 3).unwrap();
        assert_eq!(all(&packed, Position::default()), rows);
        for (index, (_, at)) in rows.iter().enumerate() {
            assert_eq!(all(TEXT, *at), rows[index..]);
            assert_eq!(all(&packed, *at), rows[index..]);
        }
        let beyond = Position { offset: 1000, line: 0 };
        assert!(Lines::read_from(io::Cursor::new(TEXT.to_vec()), beyond).is_err());
    }
}
