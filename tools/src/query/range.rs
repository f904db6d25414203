//! `query range`: records, one row each, a column per property. Never: holding the whole answer (it streams).
//!
//! Invariant: the columns are known before the first row, so that csv and json lines are alike from first to last; tables, which people
//! read, have those that their rows fill, a table for each type.

use std::collections::{BTreeSet, HashMap};

use clap::Args;
use tidemark_client::{Client, Row, rows, v1};

use super::filters::FilterArgs;
use super::{AskArgs, SpanArgs, qualifier_name, quality_name, report_kind_name, value_cell};
use crate::cli::Context;
use crate::cursor::{CursorArgs, with_times};
use crate::failure::{OrFail, Outcome};
use crate::output::{Cell, Printer};
use crate::selector::{summary_cells, summary_line};
use crate::terms::{TestArgs, print_explain};

/// Which records.
#[derive(Debug, Args)]
pub(crate) struct RangeArgs {
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// Most records
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: u64,
    #[command(flatten)]
    cursor: CursorArgs,
    #[command(flatten)]
    filters: FilterArgs,
    #[command(flatten)]
    tests: TestArgs,
    /// Add when each record was received, why it was reported and the stated quality
    #[arg(long)]
    meta: bool,
    /// Add what else there is to say of values: range, untypical, spike, rate, flat, manual, maintenance, clock, late
    #[arg(long)]
    qualifiers: bool,
    /// One row per value (device, property, timestamp, value) instead of one per record; the form that ingest takes back
    #[arg(long, conflicts_with_all = ["meta", "qualifiers"])]
    long: bool,
}

const WHAT: &str = "cannot read the records";

/// Asks and prints.
pub(crate) async fn run(context: &Context, args: RangeArgs) -> Outcome {
    let selector = args.ask.selector()?;
    let times = args.cursor.times(|now_ns| args.ask.times(&args.span, now_ns))?;
    let client = context.connect().await?;
    let properties = if args.long {
        Vec::new()
    } else {
        columns(&client, &args.ask, &selector).await?
    };
    let request = v1::QueryRangeRequest {
        selector: Some(selector),
        properties: args.ask.properties.clone(),
        from_ns: times.from_ns,
        to_ns: times.to_ns,
        limit: args.limit,
        consistency: Some(args.ask.consistency),
        values: args.filters.values.clone(),
        quality: args.filters.quality(),
        order: args.filters.order() as i32,
        cursor: args.cursor.cursor(),
        points_max: args.ask.terms.points_max,
        partial_ok: args.ask.terms.partial,
        explain: args.ask.terms.explain,
        known_at_ns: times.known_at_ns,
        test_points: args.tests.test_points,
        qualifiers: args.qualifiers,
        without_received_at: !args.meta,
    };
    let mut answer = client.query_range(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("query_range");
    let mut header: Vec<&str> = if args.long {
        vec!["device", "property", "timestamp", "value"]
    } else {
        vec!["device", "timestamp"]
    };
    header.extend(properties.iter().map(String::as_str));
    if args.meta {
        header.extend(["_received_at", "_report_kind", "_quality"]);
    }
    if args.qualifiers {
        header.push("_qualifiers");
    }
    if args.ask.properties.is_empty() && !args.long {
        printer.only_filled(2);
    }
    printer.section("records", &header)?;
    let layout = Layout::new(&args, &properties);
    while let Some(message) = answer.next().await {
        let Some(batch) = message.or_fail(WHAT)?.batch else {
            continue;
        };
        for row in rows(&batch) {
            layout.print(&mut printer, &batch.device_type, row)?;
        }
    }
    args.ask.known.check(answer.summary())?;
    args.tests.check(answer.summary())?;
    print_explain(&mut printer, answer.summary())?;
    let summary = with_times(answer.summary(), times);
    printer.finish(&summary_cells(summary.as_ref()))?;
    if context.is_table() {
        context.say(&summary_line(summary.as_ref(), "records"));
    }
    Ok(())
}

/// Where the values of a row go.
struct Layout<'a> {
    long: bool,
    meta: bool,
    qualifiers: bool,
    place: HashMap<&'a str, usize>,
}

impl Layout<'_> {
    fn new<'a>(args: &RangeArgs, properties: &'a [String]) -> Layout<'a> {
        let place = properties
            .iter()
            .enumerate()
            .map(|(index, id)| (id.as_str(), index))
            .collect();
        Layout {
            long: args.long,
            meta: args.meta,
            qualifiers: args.qualifiers,
            place,
        }
    }

    fn print(&self, printer: &mut Printer, device_type: &str, row: Row<'_>) -> Outcome {
        let (device, time) = (Cell::text(row.device), Cell::Time(row.observed_at_ns));
        if self.long {
            for (property, value) in row.values {
                printer.row(vec![
                    device.clone(),
                    Cell::text(property),
                    time.clone(),
                    value_cell(value),
                ])?;
            }
            return Ok(());
        }
        let mut cells = vec![device, time];
        cells.resize(2 + self.place.len(), Cell::None);
        for (property, value) in row.values {
            if let Some(index) = self.place.get(property) {
                cells[2 + index] = value_cell(value);
            }
        }
        if self.meta {
            let quality = row
                .quality
                .iter()
                .map(|(property, stated)| format!("{property}:{}", quality_name(*stated)));
            cells.push(row.received_at_ns.map_or(Cell::None, Cell::Time));
            cells.push(Cell::text(report_kind_name(row.report_kind)));
            cells.push(Cell::List(quality.collect()));
        }
        if self.qualifiers {
            let said = row.qualifiers.iter().map(|(property, all)| {
                let names: Vec<&str> = all.iter().copied().map(qualifier_name).collect();
                format!("{property}:{}", names.join("+"))
            });
            cells.push(Cell::List(said.collect()));
        }
        printer.row_of(device_type, cells)
    }
}

/// The properties that may come: those asked for, else those of the types that the selector reaches.
pub(super) async fn columns(client: &Client, ask: &AskArgs, selector: &v1::Selector) -> Outcome<Vec<String>> {
    if !ask.properties.is_empty() {
        return Ok(ask.properties.clone());
    }
    let mut ids = BTreeSet::new();
    if selector.device_type.is_empty() {
        let request = v1::ListDevicesRequest {
            selector: Some(selector.clone()),
            consistency: Some(ask.consistency),
            ..v1::ListDevicesRequest::default()
        };
        let mut devices = client.list_devices(request).await.or_fail(WHAT)?;
        while let Some(message) = devices.next().await {
            ids.extend(
                message
                    .or_fail(WHAT)?
                    .devices
                    .into_iter()
                    .map(|device| device.device_type),
            );
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
    } else {
        ids.insert(selector.device_type.clone());
    }
    let mut seen = BTreeSet::new();
    let types = client
        .list_device_types(ids.into_iter().collect())
        .await
        .or_fail(WHAT)?;
    let all = types
        .into_iter()
        .flat_map(|made| made.properties)
        .map(|property| property.id);
    Ok(all.filter(|id| seen.insert(id.clone())).collect())
}
