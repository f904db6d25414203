//! `query latest`: one row per device and property. Never: judging what is stale (the server does, and says when).
//!
//! Invariant: a device that never sent anything has a row too.

use clap::Args;
use tidemark_client::{LatestRow, latest_rows, v1};

use super::{AskArgs, quality_name, report_kind_name, value_cell};
use crate::cli::Context;
use crate::cursor::{CursorArgs, Times, with_times};
use crate::failure::{Failure, OrFail, Outcome};
use crate::output::Cell;
use crate::selector::{summary_cells, summary_line};
use crate::terms::{TestArgs, print_explain};
use crate::time::{parse_instant, parse_span};

/// Which values.
#[derive(Debug, Args)]
pub(crate) struct LatestArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Mark values older than this as stale [default: three times the promised report interval]
    #[arg(long, value_name = "SPAN", value_parser = parse_stale)]
    stale_after: Option<i64>,
    /// What was newest at this time, by observation [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<String>,
    /// Newest values whatever their quality, not the newest ones that count
    #[arg(long)]
    any_quality: bool,
    #[command(flatten)]
    tests: TestArgs,
    /// Most devices
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: u64,
    #[command(flatten)]
    cursor: CursorArgs,
}

impl LatestArgs {
    /// What the flags mean where it is now that time.
    fn times(&self, now_ns: i64) -> Outcome<Times> {
        let wrong = |why| Failure::usage("the time is not clear", why);
        Ok(Times {
            at_ns: self
                .at
                .as_deref()
                .map_or(Ok(0), |text| parse_instant(text, now_ns))
                .map_err(wrong)?,
            known_at_ns: self.ask.known.at_ns_by(now_ns)?,
            ..Times::default()
        })
    }
}

fn parse_stale(text: &str) -> Result<i64, String> {
    match parse_span(text)? / 1_000_000 {
        0 => Err("at least 1ms".to_owned()),
        ms => Ok(ms),
    }
}

const WHAT: &str = "cannot read the latest values";
const COLUMNS: [&str; 10] = [
    "device",
    "device_type",
    "property",
    "value",
    "timestamp",
    "age_s",
    "stale",
    "quality",
    "report_kind",
    "received_at",
];

/// Asks and prints.
pub(crate) async fn run(context: &Context, args: LatestArgs) -> Outcome {
    let times = args.cursor.times(|now_ns| args.times(now_ns))?;
    let request = v1::GetLatestRequest {
        selector: Some(args.ask.selector()?),
        properties: args.ask.properties.clone(),
        stale_after_ms: args.stale_after.unwrap_or(0),
        consistency: Some(args.ask.consistency),
        limit: args.limit,
        at_ns: times.at_ns,
        any_quality: args.any_quality,
        cursor: args.cursor.cursor(),
        points_max: args.ask.terms.points_max,
        partial_ok: args.ask.terms.partial,
        explain: args.ask.terms.explain,
        known_at_ns: times.known_at_ns,
        test_points: args.tests.test_points,
        in_columns: true,
    };
    let client = context.connect().await?;
    let mut answer = client.get_latest(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("query_latest");
    printer.section("values", &COLUMNS)?;
    let mut evaluated_at_ns = 0;
    while let Some(message) = answer.next().await {
        let message = message.or_fail(WHAT)?;
        if message.evaluated_at_ns != 0 {
            evaluated_at_ns = message.evaluated_at_ns;
        }
        for row in latest_rows(&message) {
            printer.row(cells(row, evaluated_at_ns))?;
        }
    }
    args.ask.known.check(answer.summary())?;
    args.tests.check(answer.summary())?;
    print_explain(&mut printer, answer.summary())?;
    let mut summary = vec![("evaluated_at", Cell::some_time(evaluated_at_ns))];
    let told = with_times(answer.summary(), times);
    summary.extend(summary_cells(told.as_ref()));
    printer.finish(&summary)?;
    if context.is_table() {
        context.say(&summary_line(told.as_ref(), "devices"));
    }
    Ok(())
}

fn cells(row: LatestRow<'_>, evaluated_at_ns: i64) -> Vec<Cell> {
    let mut cells = vec![Cell::text(row.device), Cell::text(row.device_type)];
    let Some(newest) = row.newest else {
        cells.resize(COLUMNS.len(), Cell::None);
        return cells;
    };
    let age_ms = evaluated_at_ns.saturating_sub(newest.observed_at_ns) / 1_000_000;
    cells.extend([
        Cell::text(newest.property),
        value_cell(newest.value),
        Cell::Time(newest.observed_at_ns),
        if evaluated_at_ns == 0 {
            Cell::None
        } else {
            Cell::Float(age_ms as f64 / 1000.0)
        },
        Cell::Bool(newest.stale),
        Cell::some_text(quality_name(newest.quality)),
        Cell::text(report_kind_name(newest.report_kind)),
        Cell::some_time(newest.received_at_ns),
    ]);
    cells
}
