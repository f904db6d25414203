//! `query health`: one row per device or group. Never: judging (the server does).
//!
//! Invariant: what nobody said is shown as nothing, never as zero.

use clap::Args;
use tidemark_client::v1;

use super::SpanArgs;
use super::quality::freshness_name;
use super::reports::{Whose, share, under_maintenance};
use crate::cli::Context;
use crate::failure::{OrFail, Outcome};
use crate::output::Cell;
use crate::selector::{SelectorArgs, parse_consistency, summary_cells, summary_line};
use crate::terms::{KnownArgs, TermsArgs, print_explain};

/// Which devices, when, and over which time before it.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// One report for all devices that agree on these tags (separate by commas)
    #[arg(long, value_name = "TAG", value_delimiter = ',', conflicts_with = "merge")]
    by: Vec<String>,
    /// One report for all devices of a type
    #[arg(long)]
    merge: bool,
    /// With --by or --merge: all types together
    #[arg(long)]
    across_types: bool,
    /// Only so many, those with the least completeness
    #[arg(long, value_name = "COUNT")]
    worst: Option<u64>,
    /// A battery below so many percent is low
    #[arg(long, value_name = "PERCENT", default_value_t = 20.0)]
    battery_low: f64,
    /// How fresh the answer must be: linearizable, bounded:SPAN or any
    #[arg(long, value_name = "LEVEL", default_value = "linearizable", value_parser = parse_consistency)]
    consistency: v1::Consistency,
    #[command(flatten)]
    terms: TermsArgs,
    #[command(flatten)]
    known: KnownArgs,
}

const WHAT: &str = "cannot tell how devices are";

/// Asks and prints.
pub(crate) async fn run(context: &Context, args: HealthArgs) -> Outcome {
    let (from_ns, to_ns) = args.span.resolve()?;
    let grouped = args.merge || !args.by.is_empty();
    let request = v1::GetHealthRequest {
        selector: Some(args.selector.selector()),
        from_ns,
        to_ns,
        grouping: grouped.then(|| v1::Grouping { tags: args.by.clone() }),
        across_types: args.across_types,
        consistency: Some(args.consistency),
        battery_low: args.battery_low,
        worst: args.worst.unwrap_or(0),
        points_max: args.terms.points_max,
        partial_ok: args.terms.partial,
        explain: args.terms.explain,
        known_at_ns: args.known.at_ns()?,
    };
    let client = context.connect().await?;
    let mut answer = client.get_health(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("query_health");
    printer.section("reports", &header(&args, grouped))?;
    while let Some(message) = answer.next().await {
        for report in message.or_fail(WHAT)?.reports {
            printer.row(row(&report, &args, grouped))?;
        }
    }
    print_explain(&mut printer, answer.summary())?;
    args.known.check(answer.summary())?;
    printer.finish(&summary_cells(answer.summary()))?;
    if context.is_table() {
        context.say(&summary_line(answer.summary(), "reports"));
    }
    Ok(())
}

fn whose(args: &HealthArgs, grouped: bool) -> Whose<'_> {
    Whose {
        by: &args.by,
        grouped,
        across_types: args.across_types,
    }
}

fn header(args: &HealthArgs, grouped: bool) -> Vec<&str> {
    let mut header = whose(args, grouped).header();
    match grouped {
        true => header.extend([
            "devices",
            "online",
            "never",
            "battery_known",
            "battery_low",
            "supply_min",
        ]),
        false => header.extend([
            "online",
            "last_heard_at",
            "age_s",
            "battery",
            "battery_low",
            "supply",
            "signal",
        ]),
    }
    header.extend(["signal_median", "completeness", "timeliness", "duplicates"]);
    if !grouped {
        header.push("freshness");
    }
    header.push("under_maintenance");
    header
}

fn row(report: &v1::QualityReport, args: &HealthArgs, grouped: bool) -> Vec<Cell> {
    let health = report.health.clone().unwrap_or_default();
    let number = |number: Option<f64>| number.map_or(Cell::None, Cell::Float);
    let mut cells = whose(args, grouped).cells(report);
    match grouped {
        true => {
            let counts = [
                report.devices,
                health.online,
                report.never,
                health.battery_known,
                health.battery_low,
            ];
            cells.extend(counts.map(Cell::Uint));
            cells.push(number(health.supply_min));
        }
        false => cells.extend([
            Cell::Bool(health.online > 0),
            Cell::some_time(health.last_heard_at_ns),
            match health.last_heard_at_ns {
                0 => Cell::None,
                _ => Cell::Float(health.age_ms as f64 / 1e3),
            },
            number(health.battery),
            match health.battery_known {
                0 => Cell::None,
                _ => Cell::Bool(health.battery_low > 0),
            },
            number(health.supply),
            number(health.signal),
        ]),
    }
    cells.extend([
        number(health.signal_median),
        share(report.slots_filled, report.slots_expected),
        share(report.points_in_time, report.points_timed),
        Cell::Uint(report.duplicates),
    ]);
    if !grouped {
        cells.push(Cell::text(freshness_name(report.freshness())));
    }
    cells.push(under_maintenance(report, grouped));
    cells
}
