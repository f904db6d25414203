//! `watch`: what happens, as it happens, one line each. Never: remembering what was printed (the server's cursor does).
//!
//! Invariant: the cursor file is never ahead of what was written to standard output.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value as Json};
use tidemark_client::{Row, rows, v1};

use crate::cli::Context;
use crate::failure::{Failure, OrFail, Outcome};
use crate::output::{Cell, Format, escape, json_text};
use crate::query::value_cell;
use crate::selector::SelectorArgs;
use crate::time::{TsFormat, parse_span};

/// What to watch.
#[derive(Debug, Args)]
#[command(after_help = "\
A connection that breaks is made again, at any node, without loss. With --cursor-file a later run goes on where this one stopped,
as long as the log still holds what it missed: records can always be read with `tidemark query range`.")]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// Only these properties (repeat, or separate by commas)
    #[arg(long = "property", short = 'p', value_name = "P", value_delimiter = ',')]
    properties: Vec<String>,
    /// What to show (repeat, or separate by commas)
    #[arg(
        long = "event",
        value_enum,
        value_name = "KIND",
        value_delimiter = ',',
        default_value = "records"
    )]
    events: Vec<Kind>,
    /// First the newest record of each device
    #[arg(long)]
    newest: bool,
    /// Silence after which a device is shown [default: three times the promised report interval]
    #[arg(long, value_name = "SPAN", value_parser = parse_silence)]
    silent_after: Option<i64>,
    /// Go on where the run before stopped, and note here how far this one is
    #[arg(long, value_name = "FILE")]
    cursor_file: Option<PathBuf>,
    /// Stop after so many lines; with --cursor-file at the next place that a later run can go on from
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// A kind of event.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Records as they are stored
    Records,
    /// Steps of alerts
    Alerts,
    /// Devices that fall silent
    Silence,
}

fn parse_silence(text: &str) -> Result<i64, String> {
    match parse_span(text)? / 1_000_000 {
        0 => Err("at least 1ms".to_owned()),
        ms => Ok(ms),
    }
}

const WHAT: &str = "cannot watch";
/// Somebody who reads later than this is told.
const BEHIND_MS: i64 = 5_000;

/// Watches until it is interrupted.
pub(crate) async fn run(context: &Context, args: WatchArgs) -> Outcome {
    if args.selector.is_empty() {
        return Err(
            Failure::usage("no devices are chosen", "give --type, --device or --tag").or_next("tidemark type list"),
        );
    }
    if matches!(context.style.format, Format::Json | Format::Csv) {
        return Err(Failure::usage(
            "what happens has no end, and so no single document",
            "use -o table or -o jsonl",
        ));
    }
    let cursor = args.cursor_file.as_deref().map_or(Ok(Vec::new()), read_cursor)?;
    let has = |kind| args.events.contains(&kind);
    let request = v1::SubscribeRequest {
        selector: Some(args.selector.selector()),
        properties: args.properties.clone(),
        records: has(Kind::Records),
        alerts: has(Kind::Alerts),
        silence: has(Kind::Silence),
        cursor: cursor.into(),
        newest_first: args.newest,
        silent_after_ms: args.silent_after.unwrap_or(0),
    };
    let client = context.connect().await?;
    let mut subscription = client.subscribe(request).await.or_fail(WHAT)?;
    let mut lines = Lines {
        out: BufWriter::new(io::stdout()),
        jsonl: context.style.format == Format::Jsonl,
        ts: context.style.ts,
        left: args.limit,
        whole: args.cursor_file.is_some(),
    };
    let mut was_behind = false;
    loop {
        let message = subscription.next().await.or_fail(WHAT)?;
        let is_behind = message.behind_ms > BEHIND_MS;
        if is_behind && !was_behind && context.is_table() {
            context.say(&format!("{} s behind", message.behind_ms / 1_000));
        }
        was_behind = is_behind;
        let goes_on = lines.message(&message)?;
        lines.out.flush()?;
        if !goes_on {
            return Ok(());
        }
        let mut can_stop = true;
        if let Some(file) = args.cursor_file.as_deref() {
            can_stop = !message.cursor.is_empty();
            if can_stop {
                write_cursor(file, &message.cursor)?;
            }
        }
        if can_stop && lines.left == Some(0) {
            return Ok(());
        }
    }
}

fn read_cursor(file: &Path) -> Outcome<Vec<u8>> {
    match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::file("read", &file.display().to_string(), &error)),
        Ok(cursor) => Ok(cursor),
    }
}

/// Whole or not at all.
fn write_cursor(file: &Path, cursor: &[u8]) -> Outcome {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let written = std::fs::write(&beside, cursor).and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| Failure::file("write", &file.display().to_string(), &error))
}

/// One line an event, on standard output.
struct Lines<W: Write> {
    out: W,
    jsonl: bool,
    ts: TsFormat,
    /// Lines that may still come.
    left: Option<u64>,
    /// A message is printed to its end, whatever that makes of the limit: a cursor stands behind it, none inside.
    whole: bool,
}

impl<W: Write> Lines<W> {
    /// Prints a message; false where only a part of it was printed.
    fn message(&mut self, message: &v1::SubscribeResponse) -> Outcome<bool> {
        // What came and went while nobody listened was before the records that ended it.
        let (over, silent): (Vec<_>, Vec<_>) = message.silent.iter().partition(|silence| silence.ended);
        if !self.silences(&over)? {
            return Ok(false);
        }
        if let Some(batch) = &message.batch {
            for (at, row) in rows(batch).enumerate() {
                let late = message.late.get(at).copied().unwrap_or(false);
                let mark = match (message.newest, late) {
                    (true, _) => "newest",
                    (false, true) => "late",
                    (false, false) => "",
                };
                if !self.record(&batch.device_type, row, mark)? {
                    return Ok(false);
                }
            }
        }
        for step in &message.alerts {
            if !self.alert(step)? {
                return Ok(false);
            }
        }
        if !self.silences(&silent)? {
            return Ok(false);
        }
        for deleted in &message.deleted {
            for device in &deleted.devices {
                let cells = [
                    ("device_type", Cell::text(&deleted.device_type)),
                    ("until", Cell::Time(deleted.to_ns)),
                ];
                if !self.line("deleted", device, deleted.from_ns, &cells, "")? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn silences(&mut self, silences: &[&v1::Silence]) -> Outcome<bool> {
        for silence in silences {
            let cells = [
                ("device_type", Cell::text(&silence.device_type)),
                ("last_observed_at", Cell::some_time(silence.last_observed_at_ns)),
            ];
            let mark = if silence.ended { "ended" } else { "" };
            if !self.line("silent", &silence.device, silence.since_ns, &cells, mark)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn record(&mut self, device_type: &str, row: Row<'_>, mark: &str) -> Outcome<bool> {
        let mut cells = Vec::with_capacity(row.values.len() + 1);
        if self.jsonl {
            cells.push(("device_type", Cell::text(device_type)));
        }
        let (device, at) = (row.device, row.observed_at_ns);
        cells.extend(
            row.values
                .into_iter()
                .map(|(property, value)| (property, value_cell(value))),
        );
        self.line("record", device, at, &cells, mark)
    }

    fn alert(&mut self, step: &v1::AlertStep) -> Outcome<bool> {
        let reason = step
            .reason()
            .as_str_name()
            .trim_start_matches("ALERT_REASON_")
            .to_lowercase();
        let cells = [
            ("device_type", Cell::text(&step.device_type)),
            ("profile", Cell::text(&step.profile)),
            ("level", Cell::text(&step.level)),
            ("level_before", Cell::text(&step.level_before)),
            ("reason", Cell::Text(reason)),
            ("value", Cell::Float(step.value)),
        ];
        self.line(
            "alert",
            &step.device,
            step.since_ns,
            &cells,
            if step.stale { "stale" } else { "" },
        )
    }

    /// False where no line may come any more.
    fn line(&mut self, event: &str, device: &str, at_ns: i64, cells: &[(&str, Cell)], mark: &str) -> Outcome<bool> {
        match &mut self.left {
            Some(0) if !self.whole => return Ok(false),
            Some(left) => *left = left.saturating_sub(1),
            None => {}
        }
        let time = Cell::Time(at_ns);
        if !self.jsonl {
            let values: Vec<_> = cells
                .iter()
                .map(|(name, cell)| format!("{}={}", escape(name), cell.plain(self.ts)))
                .collect();
            let event = if event == "record" { "" } else { event };
            let words = [
                time.plain(self.ts),
                escape(device),
                event.to_owned(),
                values.join(" "),
                mark.to_owned(),
            ];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            writeln!(self.out, "{}", words.join("  "))?;
            return Ok(true);
        }
        let mut object = Map::new();
        object.insert("kind".into(), "watch".into());
        object.insert("schema".into(), 1.into());
        object.insert("event".into(), event.into());
        object.insert("device".into(), device.into());
        object.insert("timestamp".into(), time.json(self.ts));
        let (mut values, of_record) = (Map::new(), event == "record");
        for (name, cell) in cells {
            let to = if of_record && *name != "device_type" {
                &mut values
            } else {
                &mut object
            };
            to.insert((*name).into(), cell.json(self.ts));
        }
        if of_record {
            object.insert("values".into(), Json::Object(values));
        }
        if !mark.is_empty() {
            object.insert(mark.into(), true.into());
        }
        writeln!(self.out, "{}", json_text(&Json::Object(object)))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tidemark_client::BatchBuilder;

    fn message() -> v1::SubscribeResponse {
        let mut batch = BatchBuilder::new("tank");
        batch
            .row("a\nb", 1_000_000_000)
            .set("level", 1.5)
            .set("device_type", 2.0);
        batch.row("c", 2_000_000_000).set("level", f64::NAN);
        let silence = v1::Silence {
            device: "d".into(),
            device_type: "tank".into(),
            last_observed_at_ns: 0,
            since_ns: 3_000_000_000,
            ended: false,
        };
        v1::SubscribeResponse {
            batch: Some(batch.build().unwrap()),
            late: vec![false, true],
            silent: vec![silence],
            ..v1::SubscribeResponse::default()
        }
    }

    fn printed(jsonl: bool, left: Option<u64>) -> (String, bool) {
        let mut lines = Lines {
            out: Vec::new(),
            jsonl,
            ts: TsFormat::Ms,
            left,
            whole: false,
        };
        let whole = lines.message(&message()).unwrap();
        (String::from_utf8(lines.out).unwrap(), whole)
    }

    #[test]
    fn a_line_an_event() {
        let expected = "1000  a\\nb  level=1.5 device_type=2\n2000  c  level=NaN  late\n3000  d  silent  device_type=tank last_observed_at=\n";
        assert_eq!(printed(false, None), (expected.to_owned(), true));
        let first = "1000  a\\nb  level=1.5 device_type=2\n";
        assert_eq!(
            printed(false, Some(1)),
            (first.to_owned(), false),
            "cut short, and says so"
        );
        assert_eq!(printed(false, Some(3)), (expected.to_owned(), true));
    }

    #[test]
    fn with_a_cursor_to_write_a_message_is_printed_to_its_end() {
        let mut lines = Lines {
            out: Vec::new(),
            jsonl: false,
            ts: TsFormat::Ms,
            left: Some(1),
            whole: true,
        };
        assert!(lines.message(&message()).unwrap());
        assert_eq!(lines.left, Some(0));
        assert_eq!(String::from_utf8(lines.out).unwrap().lines().count(), 3);
    }

    #[test]
    fn an_object_an_event() {
        let (text, _) = printed(true, None);
        let objects: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let record = serde_json::json!({
            "kind": "watch", "schema": 1, "event": "record", "device": "c", "timestamp": 2000, "device_type": "tank",
            "values": {"level": "NaN"}, "late": true,
        });
        assert_eq!(objects[1], record);
        assert_eq!(objects[0]["values"]["level"], 1.5);
        assert_eq!(
            (&objects[2]["event"], &objects[2]["last_observed_at"]),
            (&"silent".into(), &Json::Null)
        );
    }

    #[test]
    fn a_silence_that_is_over_comes_before_what_ended_it() {
        let mut message = message();
        message.silent[0].ended = true;
        let mut lines = Lines {
            out: Vec::new(),
            jsonl: false,
            ts: TsFormat::Ms,
            left: Some(1),
            whole: false,
        };
        assert!(!lines.message(&message).unwrap());
        let expected = "3000  d  silent  device_type=tank last_observed_at=  ended\n";
        assert_eq!(String::from_utf8(lines.out).unwrap(), expected);
    }
}
