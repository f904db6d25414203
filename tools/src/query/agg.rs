//! `query agg`: one row per series and window. Never: deciding which function is lawful (the server does).
//!
//! Invariant: a window without points has no row unless gaps are to be filled, and every row says how many points it saw and how many were promised.

use clap::{Args, ValueEnum};
use tidemark_client::{answers_of, v1};

use super::chart::sparkline;
use super::windows::{CoverArgs, WindowArgs};
use super::{AskArgs, SpanArgs, value_cell};
use crate::cli::Context;
use crate::failure::{Failure, OrFail, Outcome};
use crate::output::{Cell, float_text};
use crate::selector::{summary_cells, summary_line};
use crate::terms::print_explain;
use crate::time::parse_span;

/// Which aggregates.
#[derive(Debug, Args)]
pub(crate) struct AggArgs {
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// Functions, in the order of the columns (repeat, or separate by commas)
    #[arg(
        long = "fn",
        short = 'f',
        value_enum,
        value_name = "FN",
        value_delimiter = ',',
        required = true
    )]
    functions: Vec<FunctionArg>,
    #[command(flatten)]
    windows: WindowArgs,
    /// Merge devices that agree on these tags into one series (separate by commas)
    #[arg(long, value_name = "TAG", value_delimiter = ',', conflicts_with = "merge")]
    by: Vec<String>,
    /// Merge all devices into one series
    #[arg(long)]
    merge: bool,
    /// Only the series with the largest values of the first function, the largest first
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["every", "calendar", "chart"])]
    top: Option<u32>,
    /// With --top: those with the smallest values, the smallest first
    #[arg(long, requires = "top")]
    lowest: bool,
    /// For percentile: percent, separate by commas [default: 50,90,99]
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    percentiles: Vec<f64>,
    /// For histogram: upper borders of the bins, ascending, separate by commas
    #[arg(long, value_name = "VALUE", value_delimiter = ',', allow_hyphen_values = true)]
    bins: Vec<f64>,
    /// For duration: states, separate by commas [default: all labels, or false and true]
    #[arg(long, value_name = "STATE", value_delimiter = ',', allow_hyphen_values = true)]
    states: Vec<String>,
    /// Points further apart have nothing between them [default: three times the promised interval]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    max_gap: Option<i64>,
    /// Leave the values of windows out that have points in a smaller share of their slots, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    min_coverage: f64,
    #[command(flatten)]
    cover: CoverArgs,
    /// Leave suspect values out too, not only those that failed a check
    #[arg(long)]
    drop_suspect: bool,
    /// Read points even where rollups give the same answer
    #[arg(long)]
    no_rollups: bool,
    /// Compute what was asked even where the kind of a property gives it no meaning
    #[arg(long)]
    allow_unlawful: bool,
    /// Draw the first function of each series instead of a table
    #[arg(long)]
    chart: bool,
}

/// Functions by name.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names of the contract")]
enum FunctionArg {
    Count,
    Sum,
    Min,
    Max,
    Avg,
    First,
    Last,
    Spread,
    Stddev,
    Percentile,
    Mode,
    Histogram,
    Increase,
    Rate,
    Delta,
    Integral,
    TimeWeightedAvg,
    Duration,
    Transitions,
    RisePerHour,
    RisePerHourMax,
}

impl FunctionArg {
    fn wire(self) -> v1::Function {
        match self {
            FunctionArg::Count => v1::Function::Count,
            FunctionArg::Sum => v1::Function::Sum,
            FunctionArg::Min => v1::Function::Min,
            FunctionArg::Max => v1::Function::Max,
            FunctionArg::Avg => v1::Function::Avg,
            FunctionArg::First => v1::Function::First,
            FunctionArg::Last => v1::Function::Last,
            FunctionArg::Spread => v1::Function::Spread,
            FunctionArg::Stddev => v1::Function::Stddev,
            FunctionArg::Percentile => v1::Function::Percentile,
            FunctionArg::Mode => v1::Function::Mode,
            FunctionArg::Histogram => v1::Function::Histogram,
            FunctionArg::Increase => v1::Function::Increase,
            FunctionArg::Rate => v1::Function::Rate,
            FunctionArg::Delta => v1::Function::Delta,
            FunctionArg::Integral => v1::Function::Integral,
            FunctionArg::TimeWeightedAvg => v1::Function::TimeWeightedAvg,
            FunctionArg::Duration => v1::Function::Duration,
            FunctionArg::Transitions => v1::Function::Transitions,
            FunctionArg::RisePerHour => v1::Function::RisePerHour,
            FunctionArg::RisePerHourMax => v1::Function::RisePerHourMax,
        }
    }
}

const WHAT: &str = "cannot aggregate";

fn request(args: &AggArgs) -> Outcome<v1::QueryAggregateRequest> {
    let (from_ns, to_ns) = args.span.resolve()?;
    let grouped = args.merge || !args.by.is_empty();
    let rises = [FunctionArg::RisePerHour, FunctionArg::RisePerHourMax];
    let rises = args.functions.iter().any(|function| rises.contains(function));
    let request = v1::QueryAggregateRequest {
        selector: Some(args.ask.selector()?),
        properties: args.ask.properties.clone(),
        functions: args.functions.iter().map(|function| function.wire() as i32).collect(),
        from_ns,
        to_ns,
        window: args.windows.window()?,
        grouping: grouped.then(|| v1::Grouping { tags: args.by.clone() }),
        consistency: Some(args.ask.consistency),
        allow_unlawful: args.allow_unlawful,
        top: args.top.map(|limit| v1::Top {
            limit,
            lowest: args.lowest,
        }),
        percentiles: percentiles(args),
        bins: args.bins.clone(),
        states: args.states.clone(),
        max_gap_ms: args.max_gap.map_or(0, |ns| (ns / 1_000_000).max(1)),
        min_coverage: args.min_coverage,
        drop_suspect: args.drop_suspect,
        no_rollups: args.no_rollups,
        points_max: args.ask.terms.points_max,
        partial_ok: args.ask.terms.partial,
        explain: args.ask.terms.explain,
        known_at_ns: args.ask.known.at_ns()?,
        ..v1::QueryAggregateRequest::default()
    };
    Ok(args.cover.ask(rises, request))
}

fn percentiles(args: &AggArgs) -> Vec<f64> {
    match args.percentiles.is_empty() && args.functions.contains(&FunctionArg::Percentile) {
        true => vec![50.0, 90.0, 99.0],
        false => args.percentiles.clone(),
    }
}

/// Heads of the columns of a series.
fn heads(series: &v1::AggregateSeries) -> Vec<String> {
    let head = |column: &v1::AggregateColumn| {
        let name = column.function().as_str_name();
        let name = name.strip_prefix("FUNCTION_").unwrap_or(name).to_lowercase();
        match column.function() {
            v1::Function::Percentile => format!("p{}", float_text(column.parameter)),
            v1::Function::Histogram if column.parameter.is_infinite() => "above".to_owned(),
            v1::Function::Histogram => format!("to_{}", float_text(column.parameter)),
            v1::Function::Duration => format!("seconds_{}", column.state),
            _ => name,
        }
    };
    series.columns.iter().map(head).collect()
}

/// Asks and prints.
pub(crate) async fn run(context: &Context, args: AggArgs) -> Outcome {
    let request = request(&args)?;
    let client = context.connect().await?;
    let mut answer = client.query_aggregate(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("query_agg");
    let mut columns: Option<Vec<String>> = None;
    while let Some(message) = answer.next().await {
        for series in message.or_fail(WHAT)?.series {
            let heads = heads(&series);
            match &columns {
                None => printer.section("windows", &header(&args, &heads))?,
                Some(known) if *known != heads && !args.chart => {
                    let why = "series of several properties have different columns: name one property";
                    return Err(Failure::usage(WHAT, why));
                }
                Some(_) => {}
            }
            columns = Some(heads);
            for row in rows(&series, &args) {
                printer.row(row)?;
            }
        }
    }
    if columns.is_none() {
        printer.section("windows", &header(&args, &[]))?;
    }
    args.ask.known.check(answer.summary())?;
    print_explain(&mut printer, answer.summary())?;
    printer.finish(&summary_cells(answer.summary()))?;
    if context.is_table() {
        context.say(&summary_line(answer.summary(), "series"));
    }
    Ok(())
}

fn header<'a>(args: &'a AggArgs, columns: &'a [String]) -> Vec<&'a str> {
    let mut header: Vec<&str> = match (args.merge, args.by.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => vec!["device"],
        (false, false) => args.by.iter().map(String::as_str).collect(),
    };
    header.extend(["device_type", "property"]);
    if args.chart {
        header.extend(["windows", "low", "high", "chart"]);
    } else {
        header.extend(["start", "end", "points_seen", "points_promised"]);
        header.extend(args.cover.heads());
        header.extend(columns.iter().map(String::as_str));
    }
    header
}

/// A series as rows of the table.
fn rows(series: &v1::AggregateSeries, args: &AggArgs) -> Vec<Vec<Cell>> {
    let mut key: Vec<Cell> = match (args.merge, args.by.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => vec![Cell::text(&series.device)],
        (false, false) => args
            .by
            .iter()
            .map(|tag| series.tags.get(tag).map_or(Cell::None, Cell::text))
            .collect(),
    };
    key.push(Cell::text(&series.device_type));
    key.push(Cell::text(&series.property));
    if args.chart {
        key.extend(chart_cells(series, args.windows.every));
        return vec![key];
    }
    let mut columns: Vec<_> = series.columns.iter().map(answers_of).collect();
    let mut rows = Vec::with_capacity(series.start_ns.len());
    for window in 0..series.start_ns.len() {
        let time = |times: &[i64]| times.get(window).map_or(Cell::None, |ns| Cell::Time(*ns));
        let count = |counts: &[u64]| counts.get(window).map_or(Cell::None, |count| Cell::Uint(*count));
        let mut row = key.clone();
        row.extend([
            time(&series.start_ns),
            time(&series.end_ns),
            count(&series.points_seen),
            count(&series.points_promised),
        ]);
        row.extend(args.cover.cells(series, window));
        let answers = columns.iter_mut().map(|column| column.next().flatten());
        row.extend(answers.map(|answer| answer.map_or(Cell::None, value_cell)));
        rows.push(row);
    }
    // What is covered too thinly is shown, and has no values.
    for window in series.insufficient.iter().filter(|_| !args.cover.shows_all()) {
        let mut row = key.clone();
        row.extend([
            Cell::Time(window.start_ns),
            Cell::Time(window.end_ns),
            Cell::Uint(window.points_seen),
            Cell::Uint(window.points_promised),
        ]);
        row.extend(args.cover.thin_cells(window));
        row.resize(row.len() + series.columns.len(), Cell::None);
        rows.push(row);
    }
    rows
}

/// Windows, lowest and highest value, and the line; a window without points leaves a gap.
fn chart_cells(series: &v1::AggregateSeries, every: Option<i64>) -> Vec<Cell> {
    let answers: Vec<_> = series.columns.first().into_iter().flat_map(answers_of).collect();
    let value = |window: usize| match answers.get(window).cloned().flatten() {
        Some(tidemark_client::Value::F64(value)) if value.is_finite() => Some(value),
        Some(tidemark_client::Value::I64(value)) => Some(value as f64),
        Some(tidemark_client::Value::Bool(value)) => Some(f64::from(u8::from(value))),
        _ => None,
    };
    let points: Vec<(i64, f64)> = series
        .start_ns
        .iter()
        .enumerate()
        .filter_map(|(window, start)| Some((*start, value(window)?)))
        .collect();
    let low = points.iter().map(|(_, value)| *value).reduce(f64::min);
    let high = points.iter().map(|(_, value)| *value).reduce(f64::max);
    let text = |value: Option<f64>| value.map_or(Cell::None, |value| Cell::Text(float_text(value)));
    vec![
        Cell::Uint(series.start_ns.len() as u64),
        text(low),
        text(high),
        Cell::Text(sparkline(&points, every)),
    ]
}
