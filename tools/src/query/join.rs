//! `query join`: one row per record and value of another device that belongs to it. Never: looking for values (the server does).
//!
//! Invariant: a record to which nothing belongs is a row all the same, with nothing in the place of a value, never a zero.

use std::collections::HashMap;

use clap::{Args, ValueEnum};
use tidemark_client::{JoinedRow, joined_rows, v1};

use super::range::columns;
use super::{AskArgs, SpanArgs, value_cell};
use crate::cli::Context;
use crate::cursor::{CursorArgs, with_times};
use crate::failure::{OrFail, Outcome};
use crate::output::{Cell, Printer};
use crate::selector::{parse_tag, summary_cells, summary_line};
use crate::terms::print_explain;
use crate::time::parse_span;

/// Which records, and what is joined to them.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    span: SpanArgs,
    #[command(flatten)]
    with: WithArgs,
    /// Which value around the time of a record is meant
    #[arg(long, value_enum, default_value_t = Direction::Backward)]
    direction: Direction,
    /// A value further away does not belong to a record; `any`: however far [default: three times the promised interval]
    #[arg(long, value_name = "SPAN|any", value_parser = parse_tolerance)]
    tolerance: Option<Tolerance>,
    /// A value of the very time of the record does not belong to it
    #[arg(long)]
    strictly: bool,
    /// Take values of any quality, failed ones too
    #[arg(long, conflicts_with = "drop_suspect")]
    any_quality: bool,
    /// Leave suspect values out too, not only those that failed a check
    #[arg(long)]
    drop_suspect: bool,
    /// Most records
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: u64,
    #[command(flatten)]
    cursor: CursorArgs,
}

/// The other devices, and to which records they belong.
#[derive(Debug, Args)]
struct WithArgs {
    /// Join to devices of this type
    #[arg(long, value_name = "TYPE", required_unless_present_any = ["with_devices", "with_tags"])]
    with_type: Option<String>,
    /// Join to these devices (repeat, or separate by commas)
    #[arg(long = "with-device", value_name = "ID", value_delimiter = ',')]
    with_devices: Vec<String>,
    /// Join to devices with this tag, with one of these values (repeat: every tag must hold)
    #[arg(long = "with-tag", value_name = "KEY=VALUE[,VALUE]", value_parser = parse_tag)]
    with_tags: Vec<v1::TagMatcher>,
    /// Only these properties of them (repeat, or separate by commas)
    #[arg(long = "with-property", value_name = "P", value_delimiter = ',')]
    with_properties: Vec<String>,
    /// Only devices whose tag is that of the record's device (repeat: every tag must agree)
    #[arg(long = "on", value_name = "TAG")]
    on: Vec<String>,
    /// Only so many that stand nearest to the record's device
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    nearest: u32,
    /// Only devices at most so far from the record's device, metres
    #[arg(long, value_name = "METRES", default_value_t = 0.0, hide_default_value = true)]
    within: f64,
    /// Only the record's own device: other properties of it
    #[arg(long)]
    same_device: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// The newest at or before it
    Backward,
    /// The oldest at or behind it
    Forward,
    /// The nearer one of both
    Nearest,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Tolerance {
    Ms(i64),
    Any,
}

fn parse_tolerance(text: &str) -> Result<Tolerance, String> {
    match text {
        "any" => Ok(Tolerance::Any),
        span => Ok(Tolerance::Ms((parse_span(span)? / 1_000_000).max(1))),
    }
}

impl JoinArgs {
    fn right(&self) -> v1::JoinSide {
        let with = &self.with;
        v1::JoinSide {
            selector: Some(v1::Selector {
                device_type: with.with_type.clone().unwrap_or_default(),
                device_ids: with.with_devices.clone(),
                tags: with.with_tags.clone(),
                ..v1::Selector::default()
            }),
            properties: with.with_properties.clone(),
            direction: match self.direction {
                Direction::Backward => v1::JoinDirection::Backward,
                Direction::Forward => v1::JoinDirection::Forward,
                Direction::Nearest => v1::JoinDirection::Nearest,
            } as i32,
            tolerance_ms: match self.tolerance {
                Some(Tolerance::Ms(ms)) => ms,
                Some(Tolerance::Any) | None => 0,
            },
            however_far: self.tolerance == Some(Tolerance::Any),
            strictly: self.strictly,
            r#match: Some(v1::JoinMatch {
                tags: with.on.clone(),
                nearest: with.nearest,
                within_m: with.within,
                same_device: with.same_device,
            }),
        }
    }
}

const WHAT: &str = "cannot join the records";

/// Asks and prints.
pub(crate) async fn run(context: &Context, args: JoinArgs) -> Outcome {
    let selector = args.ask.selector()?;
    let times = args.cursor.times(|now_ns| args.ask.times(&args.span, now_ns))?;
    let client = context.connect().await?;
    let properties = columns(&client, &args.ask, &selector).await?;
    let request = v1::QueryJoinRequest {
        selector: Some(selector),
        properties: args.ask.properties.clone(),
        from_ns: times.from_ns,
        to_ns: times.to_ns,
        limit: args.limit,
        consistency: Some(args.ask.consistency),
        right: vec![args.right()],
        any_quality: args.any_quality,
        drop_suspect: args.drop_suspect,
        cursor: args.cursor.cursor(),
        points_max: args.ask.terms.points_max,
        partial_ok: args.ask.terms.partial,
        explain: args.ask.terms.explain,
        known_at_ns: times.known_at_ns,
    };
    let mut answer = client.query_join(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("query_join");
    let mut header: Vec<&str> = vec!["device", "timestamp"];
    header.extend(properties.iter().map(String::as_str));
    header.extend(WITH);
    printer.section("joined", &header)?;
    let place: HashMap<&str, usize> = properties
        .iter()
        .enumerate()
        .map(|(at, id)| (id.as_str(), at))
        .collect();
    while let Some(message) = answer.next().await {
        for records in message.or_fail(WHAT)?.joined {
            for joined in joined_rows(&records) {
                print(&mut printer, &place, &records.columns, joined)?;
            }
        }
    }
    args.ask.known.check(answer.summary())?;
    print_explain(&mut printer, answer.summary())?;
    let summary = with_times(answer.summary(), times);
    printer.finish(&summary_cells(summary.as_ref()))?;
    if context.is_table() {
        context.say(&summary_line(summary.as_ref(), "records"));
    }
    Ok(())
}

const WITH: [&str; 5] = [
    "with_device",
    "with_property",
    "with_value",
    "with_timestamp",
    "with_age_s",
];

/// A record, once for each value that may belong to it.
fn print(
    printer: &mut Printer,
    place: &HashMap<&str, usize>,
    columns: &[v1::JoinedColumn],
    joined: JoinedRow<'_>,
) -> Outcome {
    let t_ns = joined.row.observed_at_ns;
    let mut record = vec![Cell::text(joined.row.device), Cell::Time(t_ns)];
    record.resize(2 + place.len(), Cell::None);
    for (property, value) in joined.row.values {
        if let Some(at) = place.get(property) {
            record[2 + at] = value_cell(value);
        }
    }
    if columns.is_empty() {
        record.resize(record.len() + WITH.len(), Cell::None);
        return printer.row(record);
    }
    for (column, value) in columns.iter().zip(joined.values) {
        let mut cells = record.clone();
        cells.extend([Cell::text(&column.device), Cell::text(&column.property)]);
        match value {
            None => cells.resize(cells.len() + 3, Cell::None),
            Some((value, at_ns)) => {
                let age_ms = t_ns.saturating_sub(at_ns) / 1_000_000;
                cells.extend([value_cell(value), Cell::Time(at_ns), Cell::Float(age_ms as f64 / 1e3)]);
            }
        }
        printer.row(cells)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn tolerances() {
        assert_eq!(parse_tolerance("any"), Ok(Tolerance::Any));
        assert_eq!(parse_tolerance("15m"), Ok(Tolerance::Ms(900_000)));
        assert_eq!(parse_tolerance("1ns"), Ok(Tolerance::Ms(1)));
        assert!(parse_tolerance("soon").is_err());
    }
}
