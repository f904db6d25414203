//! `query agg`: one row per series and window. Never: deciding which function is lawful (the server does).
//!
//! Invariant: a window without points has no row, and every row says how many points it saw and how many were promised.

use clap::{Args, ValueEnum};
use tidemark_client::{v1, value_at};

use super::chart::sparkline;
use super::{AskArgs, SpanArgs, value_cell};
use crate::cli::{Context, now_ns};
use crate::failure::{Failure, OrFail, Outcome};
use crate::output::{Cell, float_text};
use crate::selector::{summary_cells, summary_line};
use crate::time::{parse_instant, parse_span};

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
    /// Length of a window [default: one window over the whole span]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    every: Option<i64>,
    /// A window starts here, the others lie around it [default: 1970-01-01]
    #[arg(long, value_name = "TIME", requires = "every", allow_hyphen_values = true)]
    origin: Option<String>,
    /// Merge devices that agree on these tags into one series (separate by commas)
    #[arg(long, value_name = "TAG", value_delimiter = ',', conflicts_with = "merge")]
    by: Vec<String>,
    /// Merge all devices into one series
    #[arg(long)]
    merge: bool,
    /// Only the series with the largest values of the first function, the largest first
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["every", "chart"])]
    top: Option<u32>,
    /// With --top: those with the smallest values, the smallest first
    #[arg(long, requires = "top")]
    lowest: bool,
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
        }
    }

    fn name(self) -> &'static str {
        match self {
            FunctionArg::Count => "count",
            FunctionArg::Sum => "sum",
            FunctionArg::Min => "min",
            FunctionArg::Max => "max",
            FunctionArg::Avg => "avg",
            FunctionArg::First => "first",
            FunctionArg::Last => "last",
        }
    }
}

const WHAT: &str = "cannot aggregate";

fn request(args: &AggArgs) -> Outcome<v1::QueryAggregateRequest> {
    let (from_ns, to_ns) = args.span.resolve()?;
    let origin_ns = match &args.origin {
        Some(text) => parse_instant(text, now_ns()).map_err(|why| Failure::usage("the origin is not clear", why))?,
        None => 0,
    };
    let grouped = args.merge || !args.by.is_empty();
    Ok(v1::QueryAggregateRequest {
        selector: Some(args.ask.selector()?),
        properties: args.ask.properties.clone(),
        functions: args.functions.iter().map(|function| function.wire() as i32).collect(),
        from_ns,
        to_ns,
        window: args.every.map(|step_ns| v1::Window { step_ns, origin_ns }),
        grouping: grouped.then(|| v1::Grouping { tags: args.by.clone() }),
        consistency: Some(args.ask.consistency),
        allow_unlawful: args.allow_unlawful,
        top: args.top.map(|limit| v1::Top {
            limit,
            lowest: args.lowest,
        }),
    })
}

/// Asks and prints.
pub(crate) async fn run(context: &Context, args: AggArgs) -> Outcome {
    let request = request(&args)?;
    let client = context.connect().await?;
    let mut answer = client.query_aggregate(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("query_agg");
    let mut header: Vec<&str> = if args.merge {
        Vec::new()
    } else {
        args.by.iter().map(String::as_str).collect()
    };
    if header.is_empty() && !args.merge {
        header.push("device");
    }
    let keys = header.len();
    header.extend(["device_type", "property"]);
    if args.chart {
        header.extend(["windows", "low", "high", "chart"]);
    } else {
        header.extend(["start", "end", "points_seen", "points_promised"]);
        header.extend(args.functions.iter().map(|function| function.name()));
    }
    printer.section("windows", &header)?;
    while let Some(message) = answer.next().await {
        for series in message.or_fail(WHAT)?.series {
            let mut key: Vec<Cell> = match (args.by.is_empty(), keys) {
                (_, 0) => Vec::new(),
                (true, _) => vec![Cell::text(&series.device)],
                (false, _) => args
                    .by
                    .iter()
                    .map(|tag| series.tags.get(tag).map_or(Cell::None, Cell::text))
                    .collect(),
            };
            key.push(Cell::text(&series.device_type));
            key.push(Cell::text(&series.property));
            if args.chart {
                key.extend(chart_cells(&series, args.every));
                printer.row(key)?;
                continue;
            }
            for window in 0..series.start_ns.len() {
                let mut cells = key.clone();
                cells.extend(window_cells(&series, window));
                printer.row(cells)?;
            }
        }
    }
    printer.finish(&summary_cells(answer.summary()))?;
    if context.is_table() {
        context.say(&summary_line(answer.summary(), "series"));
    }
    Ok(())
}

fn window_cells(series: &v1::AggregateSeries, window: usize) -> Vec<Cell> {
    let time = |times: &[i64]| times.get(window).map_or(Cell::None, |ns| Cell::Time(*ns));
    let count = |counts: &[u64]| counts.get(window).map_or(Cell::None, |count| Cell::Uint(*count));
    let mut cells = vec![
        time(&series.start_ns),
        time(&series.end_ns),
        count(&series.points_seen),
        count(&series.points_promised),
    ];
    cells.extend(series.columns.iter().map(|column| {
        column
            .values
            .as_ref()
            .and_then(|values| value_at(values, window))
            .map_or(Cell::None, value_cell)
    }));
    cells
}

/// Windows, lowest and highest value, and the line; a window without points leaves a gap.
fn chart_cells(series: &v1::AggregateSeries, every: Option<i64>) -> Vec<Cell> {
    let values = series.columns.first().and_then(|column| column.values.as_ref());
    let value = |window: usize| match values.and_then(|values| value_at(values, window)) {
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
