//! Ingest without a server: a store in memory that keeps producers' sequences, refuses rows, and runs that are cut off anywhere.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use tidemark_client::v1::{self, DeviceType, Property, ValueType};
use tidemark_client::{Code, Error, ErrorKind, RowError, rows};

use super::chunk::{Chunk, Cutter};
use super::flow::Flow;
use super::lines::{Lines, Position};
use super::mapping::{Mapping, MappingArgs};
use super::rejects::Rejects;
use super::state::State;
use super::values::Typed;
use crate::csv_text::csv_cells;
use crate::output::Cell;
use crate::time::TsFormat;

pub(super) fn types() -> Vec<Typed> {
    let property = |id: &str, value_type: ValueType| Property {
        id: id.into(),
        value_type: value_type as i32,
        labels: vec!["on".into(), "off".into()],
        ..Property::default()
    };
    let made = DeviceType {
        id: "tank".into(),
        properties: vec![
            property("level", ValueType::F64),
            property("count", ValueType::I64),
            property("mode", ValueType::Enum),
            property("note", ValueType::Text),
        ],
        ..DeviceType::default()
    };
    vec![Typed::new(&made)]
}

pub(super) fn cutter(text: &str, from: Option<Position>, batch_rows: usize) -> (Cutter, Position) {
    let args = MappingArgs {
        device_type: Some("tank".into()),
        ..MappingArgs::default()
    };
    let mut lines = Lines::read_from(Cursor::new(text.to_owned().into_bytes()), Position::default()).unwrap();
    let mut header = Vec::new();
    lines.next_row(&mut header).unwrap();
    let start = lines.position();
    let mapping = Mapping::new(&header, &args, &types()).unwrap();
    if let Some(from) = from {
        lines.skip_to(from).unwrap();
    }
    (Cutter::new(lines, None, mapping, types(), batch_rows), start)
}

fn chunks(text: &str, batch_rows: usize) -> Vec<Chunk> {
    let (mut cutter, _) = cutter(text, None, batch_rows);
    std::iter::from_fn(|| cutter.next_chunk().unwrap()).collect()
}

fn batches(chunk: &Chunk) -> Vec<v1::Batch> {
    let none = Default::default();
    chunk
        .cuts
        .iter()
        .filter_map(|cut| cut.batch(chunk, &types(), v1::ReportKind::Routine, &none))
        .map(|sent| sent.batch)
        .collect()
}

/// `device@time property=value …`, row by row.
fn render(batch: &v1::Batch) -> Vec<String> {
    rows(batch)
        .map(|row| {
            let values: Vec<_> = row
                .values
                .iter()
                .map(|(property, value)| format!("{property}={value}"))
                .collect();
            format!("{}@{} {}", row.device, row.observed_at_ns, values.join(" "))
        })
        .collect()
}

#[test]
fn the_long_form_becomes_records() {
    let text = "device,property,timestamp_ns,value\n\
        a,level,1,0.5\na,level,2,0.25\na,level,2,0.75\na,mode,1,off\nb,count,7,3\nb,note,7,\"x,y\"\na,count,2,9\n";
    let [chunk] = chunks(text, 100).try_into().unwrap_or_else(|_| panic!("one chunk"));
    let [batch] = batches(&chunk).try_into().unwrap_or_else(|_| panic!("one batch"));
    assert_eq!(
        render(&batch),
        [
            "a@1 level=0.5 mode=off",
            "a@2 level=0.75 count=9",
            "b@7 count=3 note=x,y"
        ]
    );
    assert_eq!((chunk.rows(), chunk.replaced), (7, 1));
}

#[test]
fn the_wide_form_keeps_its_rows_and_leaves_gaps() {
    let text = "device,time_ns,level,count\na,1,0.5,\na,2,,4\nb,1,1,2\n";
    let [chunk] = chunks(text, 2).try_into().unwrap_or_else(|_| panic!("one chunk"));
    let made: Vec<_> = batches(&chunk).iter().map(render).collect();
    assert_eq!(
        made,
        [
            vec!["a@1 level=0.5".to_owned(), "a@2 count=4".to_owned()],
            vec!["b@1 level=1 count=2".to_owned()]
        ]
    );
}

#[test]
fn bad_rows_are_named_and_leave_nothing_behind() {
    let text = "device,time_ns,level,count\na,1,0.5,1.5\na,x,1,1\na,3,1,1\n,4,1,1\na,5\n";
    let [chunk] = chunks(text, 10).try_into().unwrap_or_else(|_| panic!("one chunk"));
    let why: Vec<_> = chunk
        .rejects
        .iter()
        .map(|(row, why)| format!("{} {why}", chunk.row(*row).0))
        .collect();
    assert_eq!(
        why,
        [
            "2 count: `1.5` is not a whole number of 64 bits",
            "3 time `x` is not a number of ns since the epoch",
            "5 no device id",
            "6 only 2 fields"
        ]
    );
    assert_eq!(
        batches(&chunk).iter().flat_map(render).collect::<Vec<_>>(),
        ["a@3 level=1 count=1"]
    );
}

#[test]
fn a_row_with_more_fields_than_the_header_is_no_row_of_other_values() {
    let text = "device,time_ns,level,count\na,1,1,5,20\na,2,1,5\na,3,1,6,\na,4,2,7,,\n";
    let [chunk] = chunks(text, 10).try_into().unwrap_or_else(|_| panic!("one chunk"));
    assert_eq!(
        chunk.rejects.values().collect::<Vec<_>>(),
        ["5 fields where the header has 4 (a value with a comma in it needs quotes)"]
    );
    assert_eq!(
        batches(&chunk).iter().flat_map(render).collect::<Vec<_>>(),
        ["a@2 level=1 count=5", "a@3 level=1 count=6", "a@4 level=2 count=7"]
    );
}

#[test]
fn a_text_in_quotes_is_what_stands_there() {
    let text = "device,property,timestamp_ns,value\n\
        a,note,1,\" x \"\na,note,2, x \na,note,3,\"\"\na,note,4,\na,note,5,\"l1\n\"\na,level,6,\"\"\na,level,7,\" 7 \"\n";
    let [chunk] = chunks(text, 10).try_into().unwrap_or_else(|_| panic!("one chunk"));
    assert_eq!(chunk.rejects.len(), 0, "{:?}", chunk.rejects);
    assert_eq!(
        batches(&chunk).iter().flat_map(render).collect::<Vec<_>>(),
        [
            "a@1 note= x ",
            "a@2 note=x",
            "a@3 note=",
            "a@5 note=l1\n",
            "a@7 level=7"
        ]
    );
}

#[test]
fn texts_that_the_command_prints_come_back_the_same() {
    let texts = [
        "",
        " x ",
        "\t",
        "a\nb",
        "\\n",
        "\r",
        "6\"",
        "\"",
        "a,b",
        "\u{1b}[2J\u{202e}",
        "x\r\n",
        "\u{3000}",
    ];
    let mut printed = b"device,property,timestamp_ns,value\n".to_vec();
    for (at, text) in texts.iter().enumerate() {
        let cells = [
            Cell::text("a"),
            Cell::text("note"),
            Cell::Int(at as i64),
            Cell::Value((*text).into()),
        ];
        csv_cells(&mut printed, &cells, TsFormat::Ns, false).unwrap();
    }
    let [chunk] = chunks(&String::from_utf8(printed).unwrap(), 100)
        .try_into()
        .unwrap_or_else(|_| panic!("one chunk"));
    let [batch] = batches(&chunk).try_into().unwrap_or_else(|_| panic!("one batch"));
    let values: Vec<_> = rows(&batch).map(|row| row.values[0].1.to_string()).collect();
    assert_eq!(values, texts);
}

/// A long file of several chunks: sorted by device, property, time, with bad rows and texts that the store refuses.
fn long_file() -> String {
    let mut text = String::from("device,property,timestamp_ns,value\n");
    for device in 0..5 {
        for property in ["count", "level", "note"] {
            for at in 1..=3_000_u32 {
                let value = match property {
                    "count" if at % 1000 == 7 => "many".to_owned(),
                    "note" if at % 500 == 11 => "refuse".to_owned(),
                    _ => (at * (device + 1)).to_string(),
                };
                text += &format!("dev{device},{property},{at},{value}\n");
            }
        }
    }
    text
}

#[test]
fn a_later_chunk_is_cut_the_same_when_it_is_the_first() {
    let text = long_file();
    let whole = chunks(&text, 700);
    assert!(whole.len() > 1);
    for (index, expected) in whole.iter().enumerate() {
        let (mut cutter, _) = cutter(&text, Some(expected.start), 700);
        let chunk = cutter.next_chunk().unwrap().unwrap();
        assert_eq!(chunk.cuts, expected.cuts, "chunk {index}");
        assert_eq!((chunk.start, chunk.end), (expected.start, expected.end));
    }
}

/// Keeps batches by producer and sequence, refuses rows with the text `refuse` (at most 2 named at a time).
#[derive(Default)]
struct Store {
    batches: BTreeMap<(String, u64), Vec<String>>,
    values: BTreeMap<String, String>,
}

impl Store {
    fn write(&mut self, producer: &str, sequence: u64, batch: &v1::Batch) -> Result<(), Box<Error>> {
        let mut bad: Vec<_> = rows(batch)
            .enumerate()
            .filter(|(_, row)| row.values.iter().any(|(_, value)| value.to_string() == "refuse"))
            .take(2)
            .map(|(row, _)| RowError {
                row: row as u32,
                reason: "TEXT_TOO_LONG".into(),
                message: "no".into(),
                field: "note".into(),
            })
            .collect();
        if !bad.is_empty() {
            // As a unary answer does: the failure as a whole comes first and names the first row again.
            let whole = RowError {
                reason: String::new(),
                message: "bad rows".into(),
                ..bad[0].clone()
            };
            bad.insert(0, whole);
            return Err(Box::new(Error {
                kind: ErrorKind::Fix,
                code: Code::InvalidArgument,
                reason: "TEXT_TOO_LONG".into(),
                message: "rows are refused".into(),
                field: None,
                rows: bad,
                hint: None,
                retry_after: None,
            }));
        }
        let content = render(batch);
        let known = self
            .batches
            .entry((producer.to_owned(), sequence))
            .or_insert_with(|| content.clone());
        assert_eq!(
            *known, content,
            "sequence {sequence} of {producer} came again with other content"
        );
        for row in rows(batch) {
            for (property, value) in row.values {
                self.values.insert(
                    format!("{},{property},{}", row.device, row.observed_at_ns),
                    value.to_string(),
                );
            }
        }
        Ok(())
    }
}

fn save(flow: &mut Flow, path: &Path) {
    if let Some(state) = flow.take_state() {
        state.save(path).unwrap();
    }
}

/// One run, cut off after `acks` answers; the state on disk may lag behind by up to three of them. True when it was complete.
fn run(text: &str, folder: &Path, store: &mut Store, acks: usize) -> bool {
    let path = folder.join("progress");
    let state = State::load(&path).unwrap();
    let (mut cutter, start) = cutter(text, state.as_ref().map(State::position), 700);
    let state = state.unwrap_or_else(|| State::new("f".into(), "p".into(), start));
    let rejects = Rejects::open(folder.join("rejects.csv"), state.rejects_bytes).unwrap();
    let mut flow = Flow::new(Arc::new(types()), v1::ReportKind::Routine, true, state, rejects);
    let mut queue: VecDeque<(u64, u64, v1::Batch)> = VecDeque::new();
    let mut answered = 0;
    loop {
        while flow.open_chunks() < 2 {
            match cutter.next_chunk().unwrap() {
                Some(chunk) => flow.offer(chunk).unwrap(),
                None => break,
            }
        }
        while queue.len() < 4 {
            match flow.next_batch() {
                Some((sequence, batch)) => queue.push_back((sequence, 0, batch)),
                None => break,
            }
        }
        // The newest is answered first now and then: acknowledgements come in any order.
        let next = if answered % 3 == 0 {
            queue.pop_back()
        } else {
            queue.pop_front()
        };
        let Some((batch, rest, request)) = next else {
            save(&mut flow, &path);
            return true;
        };
        let producer = if rest == 0 { "p" } else { "p.rest" };
        match store.write(producer, if rest == 0 { batch } else { rest }, &request) {
            Ok(()) => flow.stored(batch, rest == 0).unwrap(),
            Err(error) => {
                if let Some(again) = flow.refused(batch, rest, *error).unwrap() {
                    save(&mut flow, &path);
                    queue.push_back((again.batch, again.sequence, again.request));
                }
            }
        }
        answered += 1;
        if answered % 4 == 0 {
            save(&mut flow, &path);
        }
        if answered == acks {
            return false;
        }
    }
}

#[test]
fn runs_cut_off_anywhere_store_every_value_under_one_number_and_list_every_reject_once() {
    let text = long_file();
    let mut expected = BTreeMap::new();
    let mut bad = Vec::new();
    for (index, line) in text.lines().enumerate().skip(1) {
        let (key, value) = line.rsplit_once(',').unwrap();
        if matches!(value, "many" | "refuse") {
            bad.push((index as u64 + 1, line.to_owned()));
        } else {
            expected.insert(key.to_owned(), value.to_owned());
        }
    }
    for acks in [1_000, 1, 2, 3, 5, 7, 11, 13] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::default();
        let mut runs = 1;
        // A run cut off before it could save anything makes no way; each one is given one answer more than the last.
        while !run(&text, folder.path(), &mut store, acks + runs) {
            runs += 1;
            assert!(runs < 1_000, "no way made with {acks} acks a run");
        }
        assert_eq!(store.values.len(), expected.len(), "{acks} acks a run");
        assert!(store.values == expected, "{acks} acks a run: values differ");
        let mut reader = csv::Reader::from_path(folder.path().join("rejects.csv")).unwrap();
        let listed: Vec<(u64, String)> = reader
            .records()
            .map(Result::unwrap)
            .map(|row| (row[0].parse().unwrap(), row[2].to_owned()))
            .collect();
        assert_eq!(listed, bad, "{acks} acks a run, {runs} runs");
        let text = std::fs::read_to_string(folder.path().join("rejects.csv")).unwrap();
        assert!(!text.contains("bad rows"), "a row's own reason counts");
        let state = State::load(&folder.path().join("progress")).unwrap().unwrap();
        assert_eq!(state.totals.rows, 45_000);
        assert_eq!(
            (state.totals.points, state.totals.rejected),
            (expected.len() as u64, bad.len() as u64)
        );
    }
}

#[test]
fn an_error_that_names_a_device_leaves_out_its_rows_and_one_that_names_nothing_ends_the_run() {
    let text = "device,time_ns,level\na,1,1\nb,1,2\nb,2,3\n";
    let folder = tempfile::tempdir().unwrap();
    let (mut cutter, start) = cutter(text, None, 10);
    let rejects = Rejects::open(folder.path().join("r.csv"), 0).unwrap();
    let state = State::new("f".into(), "p".into(), start);
    let mut flow = Flow::new(Arc::new(types()), v1::ReportKind::Routine, false, state, rejects);
    flow.offer(cutter.next_chunk().unwrap().unwrap()).unwrap();
    let (sequence, _) = flow.next_batch().unwrap();
    let mut error = Error {
        kind: ErrorKind::Fix,
        code: Code::NotFound,
        reason: "UNKNOWN_DEVICE".into(),
        message: "no device b".into(),
        field: Some("batch.devices[1]".into()),
        rows: Vec::new(),
        hint: None,
        retry_after: None,
    };
    let rest = flow.refused(sequence, 0, error.clone()).unwrap().unwrap();
    assert_eq!(render(&rest.request), ["a@1 level=1"]);
    error.field = None;
    assert!(flow.refused(sequence, rest.sequence, error).is_err());
    flow.stored(sequence, false).unwrap();
    let text = std::fs::read_to_string(folder.path().join("r.csv")).unwrap();
    assert_eq!(
        text,
        "line,reason,row\n3,UNKNOWN_DEVICE: no device b,\"b,1,2\"\n4,UNKNOWN_DEVICE: no device b,\"b,2,3\"\n"
    );
}
