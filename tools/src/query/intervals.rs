//! `query intervals`: one row per interval. Never: looking for thresholds (the server does).
//!
//! Invariant: what is not known of an interval is shown as such.

use clap::Args;
use tidemark_client::v1;
use v1::query_intervals_request::Condition;

use super::SpanArgs;
use crate::cli::Context;
use crate::failure::{OrFail, Outcome};
use crate::output::Cell;
use crate::selector::{SelectorArgs, parse_consistency, summary_cells, summary_line};
use crate::terms::{KnownArgs, TermsArgs, print_explain};
use crate::time::parse_span;

/// Which intervals.
#[derive(Debug, Args)]
pub(crate) struct IntervalsArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// The property that is looked at
    #[arg(long, short = 'p', value_name = "PROPERTY")]
    property: String,
    #[command(flatten)]
    condition: ConditionArgs,
    /// Points further apart have nothing between them [default: three times the promised interval]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    max_gap: Option<i64>,
    /// Leave suspect values out too, not only those that failed a check
    #[arg(long)]
    drop_suspect: bool,
    /// How fresh the answer must be: linearizable, bounded:SPAN or any
    #[arg(long, value_name = "LEVEL", default_value = "linearizable", value_parser = parse_consistency)]
    consistency: v1::Consistency,
    #[command(flatten)]
    known: KnownArgs,
    #[command(flatten)]
    terms: TermsArgs,
}

/// What has to hold, one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ConditionArgs {
    /// At or above this value
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    at_least: Option<f64>,
    /// At or below this value
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    at_most: Option<f64>,
    /// In this state: a label, true or false, a whole number
    #[arg(long, value_name = "STATE", allow_hyphen_values = true)]
    state: Option<String>,
}

impl ConditionArgs {
    fn condition(&self) -> Option<Condition> {
        let at_least = self.at_least.map(Condition::AtLeast);
        let at_most = self.at_most.map(Condition::AtMost);
        at_least.or(at_most).or(self.state.clone().map(Condition::State))
    }
}

const WHAT: &str = "cannot look for intervals";
const COLUMNS: [&str; 9] = [
    "device",
    "device_type",
    "from",
    "to",
    "seconds",
    "peak",
    "peak_at",
    "unknown_after",
    "open",
];

/// Asks and prints.
pub(crate) async fn run(context: &Context, args: IntervalsArgs) -> Outcome {
    let (from_ns, to_ns) = args.span.resolve()?;
    let request = v1::QueryIntervalsRequest {
        selector: Some(args.selector.selector()),
        property: args.property.clone(),
        from_ns,
        to_ns,
        condition: args.condition.condition(),
        max_gap_ms: args.max_gap.map_or(0, |ns| (ns / 1_000_000).max(1)),
        drop_suspect: args.drop_suspect,
        consistency: Some(args.consistency),
        points_max: args.terms.points_max,
        partial_ok: args.terms.partial,
        explain: args.terms.explain,
        known_at_ns: args.known.at_ns()?,
    };
    let states = args.condition.state.is_some();
    let client = context.connect().await?;
    let mut answer = client.query_intervals(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("query_intervals");
    printer.section("intervals", &COLUMNS)?;
    while let Some(message) = answer.next().await {
        for device in message.or_fail(WHAT)?.devices {
            for interval in &device.intervals {
                let length_ns = interval.to_ns.saturating_sub(interval.from_ns);
                let peak = [Cell::Float(interval.peak), Cell::Time(interval.peak_at_ns)];
                let mut row = vec![
                    Cell::text(&device.device),
                    Cell::text(&device.device_type),
                    Cell::Time(interval.from_ns),
                    Cell::Time(interval.to_ns),
                    Cell::Float((length_ns / 1_000_000) as f64 / 1e3),
                ];
                // A state has no height.
                row.extend(if states { [Cell::None, Cell::None] } else { peak });
                row.extend([Cell::Bool(interval.unknown_after), Cell::Bool(interval.open)]);
                printer.row(row)?;
            }
        }
    }
    args.known.check(answer.summary())?;
    print_explain(&mut printer, answer.summary())?;
    printer.finish(&summary_cells(answer.summary()))?;
    if context.is_table() {
        context.say(&summary_line(answer.summary(), "devices with intervals"));
    }
    Ok(())
}
