//! `query quality`: one row per device or group. Never: judging (the server does).
//!
//! Invariant: a share of nothing is no share, and is shown as none.

use clap::Args;
use tidemark_client::v1;

use super::SpanArgs;
use super::reports::{Whose, rounded, share, under_maintenance};
use crate::cli::Context;
use crate::failure::{OrFail, Outcome};
use crate::output::Cell;
use crate::selector::{SelectorArgs, parse_consistency, summary_cells, summary_line};
use crate::terms::{KnownArgs, TermsArgs, print_explain};

/// Which devices, over which time.
#[derive(Debug, Args)]
pub(crate) struct QualityArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// The property whose points are looked at [default: the first one of each type]
    #[arg(long, short = 'p', value_name = "PROPERTY")]
    property: Option<String>,
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
    /// Lists the times without points instead
    #[arg(long, conflicts_with_all = ["by", "merge"])]
    gaps: bool,
    /// A gap is longer than so many sample intervals
    #[arg(long, value_name = "FACTOR", default_value_t = 1.5)]
    gap_factor: f64,
    /// How fresh the answer must be: linearizable, bounded:SPAN or any
    #[arg(long, value_name = "LEVEL", default_value = "linearizable", value_parser = parse_consistency)]
    consistency: v1::Consistency,
    #[command(flatten)]
    known: KnownArgs,
    #[command(flatten)]
    terms: TermsArgs,
}

const WHAT: &str = "cannot judge quality";

/// Asks and prints.
pub(crate) async fn run(context: &Context, args: QualityArgs) -> Outcome {
    let (from_ns, to_ns) = args.span.resolve()?;
    let grouped = args.merge || !args.by.is_empty();
    let request = v1::GetQualityRequest {
        selector: Some(args.selector.selector()),
        property: args.property.clone().unwrap_or_default(),
        from_ns,
        to_ns,
        grouping: grouped.then(|| v1::Grouping { tags: args.by.clone() }),
        across_types: args.across_types,
        consistency: Some(args.consistency),
        gaps: args.gaps,
        gap_factor: args.gap_factor,
        worst: args.worst.unwrap_or(0),
        points_max: args.terms.points_max,
        partial_ok: args.terms.partial,
        explain: args.terms.explain,
        known_at_ns: args.known.at_ns()?,
    };
    let client = context.connect().await?;
    let mut answer = client.get_quality(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("query_quality");
    match args.gaps {
        true => printer.section("gaps", &["device", "device_type", "from", "to", "missing", "open"])?,
        false => printer.section("reports", &header(&args, grouped))?,
    }
    while let Some(message) = answer.next().await {
        for report in message.or_fail(WHAT)?.reports {
            if !args.gaps {
                printer.row(row(&report, &args, grouped))?;
                continue;
            }
            for gap in &report.gaps {
                printer.row(vec![
                    Cell::text(&report.device),
                    Cell::text(&report.device_type),
                    Cell::Time(gap.from_ns),
                    Cell::Time(gap.to_ns),
                    Cell::Uint(gap.missing),
                    Cell::Bool(gap.open),
                ])?;
            }
        }
    }
    args.known.check(answer.summary())?;
    print_explain(&mut printer, answer.summary())?;
    printer.finish(&summary_cells(answer.summary()))?;
    if context.is_table() {
        context.say(&summary_line(answer.summary(), "reports"));
    }
    Ok(())
}

fn whose(args: &QualityArgs, grouped: bool) -> Whose<'_> {
    Whose {
        by: &args.by,
        grouped,
        across_types: args.across_types,
    }
}

fn header(args: &QualityArgs, grouped: bool) -> Vec<&str> {
    let mut header = whose(args, grouped).header();
    header.extend(["slots", "filled", "completeness"]);
    if grouped {
        header.extend(["devices", "completeness_mean"]);
    }
    header.extend(["timeliness", "accuracy", "availability", "duplicates"]);
    match grouped {
        true => header.extend(["offline", "slower", "stalled", "never"]),
        false => header.extend(["online", "freshness", "spacing_ratio", "last_observed_at"]),
    }
    header.push("under_maintenance");
    header
}

fn row(report: &v1::QualityReport, args: &QualityArgs, grouped: bool) -> Vec<Cell> {
    let mean = |mean: f64| match report.devices_assessed {
        0 => Cell::None,
        _ => rounded(mean),
    };
    let mut cells = whose(args, grouped).cells(report);
    cells.extend([
        Cell::Uint(report.slots_expected),
        Cell::Uint(report.slots_filled),
        share(report.slots_filled, report.slots_expected),
    ]);
    if grouped {
        cells.extend([Cell::Uint(report.devices), mean(report.completeness_mean)]);
    }
    let sound = report.points.saturating_sub(report.points_fail + report.points_suspect);
    cells.extend([
        share(report.points_in_time, report.points_timed),
        share(sound, report.points),
        mean(report.availability_mean),
        Cell::Uint(report.duplicates),
    ]);
    match grouped {
        true => cells.extend([report.offline, report.slower, report.stalled, report.never].map(Cell::Uint)),
        false => cells.extend([
            match report.under_maintenance > 0 {
                // It may be silent, and is not missed.
                true => Cell::None,
                false => Cell::Bool(report.offline == 0),
            },
            Cell::text(freshness_name(report.freshness())),
            match report.spacing_ratio > 0.0 {
                true => Cell::Float(report.spacing_ratio),
                false => Cell::None,
            },
            Cell::some_time(report.last_observed_at_ns),
        ]),
    }
    cells.push(under_maintenance(report, grouped));
    cells
}

/// The name of a verdict.
pub(super) fn freshness_name(freshness: v1::Freshness) -> &'static str {
    match freshness {
        v1::Freshness::Unspecified => "",
        v1::Freshness::AsPromised => "as_promised",
        v1::Freshness::Slower => "slower",
        v1::Freshness::Stalled => "stalled",
        v1::Freshness::Never => "never",
        v1::Freshness::NotAssessable => "not_assessable",
        v1::Freshness::NothingPromised => "nothing_promised",
    }
}
