//! `query range|agg|latest|intervals|join|quality|health`: the flags they share. Never: aggregation (the server's answer is printed as it is).
//!
//! Invariant: an answer that ended without its summary is an error, never a shorter table.

mod agg;
mod chart;
mod filters;
mod health;
mod intervals;
mod join;
mod latest;
mod quality;
mod range;
mod reports;
mod windows;

use clap::{Args, Subcommand};
use tidemark_client::{Value, v1};

use crate::cli::{Context, now_ns};
use crate::cursor::Times;
use crate::failure::{Failure, Outcome};
use crate::output::Cell;
use crate::selector::{SelectorArgs, parse_consistency};
use crate::terms::{KnownArgs, TermsArgs};
use crate::time::{parse_instant, parse_span};

/// What to ask.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Records as they were stored
    Range(range::RangeArgs),
    /// Aggregates over windows of time
    Agg(Box<agg::AggArgs>),
    /// The newest value of each property of each device
    Latest(latest::LatestArgs),
    /// When a property was at or beyond a threshold, or in a state
    Intervals(intervals::IntervalsArgs),
    /// Records with the values of other devices as of their times
    Join(Box<join::JoinArgs>),
    /// How well devices kept the promises of their types
    Quality(quality::QualityArgs),
    /// How devices are: whether they are there, their batteries, supplies and signals
    Health(health::HealthArgs),
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Range(args) => range::run(context, args).await,
        Verb::Agg(args) => agg::run(context, *args).await,
        Verb::Latest(args) => latest::run(context, args).await,
        Verb::Intervals(args) => intervals::run(context, args).await,
        Verb::Join(args) => join::run(context, *args).await,
        Verb::Quality(args) => quality::run(context, args).await,
        Verb::Health(args) => health::run(context, args).await,
    }
}

/// Flags of every question.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// Only these properties (repeat, or separate by commas)
    #[arg(long = "property", short = 'p', value_name = "P", value_delimiter = ',')]
    properties: Vec<String>,
    /// How fresh the answer must be: linearizable, bounded:SPAN or any
    #[arg(long, value_name = "LEVEL", default_value = "linearizable", value_parser = parse_consistency)]
    consistency: v1::Consistency,
    #[command(flatten)]
    known: KnownArgs,
    #[command(flatten)]
    terms: TermsArgs,
}

impl AskArgs {
    /// The devices, where any flag chooses some.
    fn selector(&self) -> Outcome<v1::Selector> {
        if self.selector.is_empty() {
            return Err(Failure::usage(
                "no devices are chosen",
                "give --type, --device or --tag; every device: --all-devices",
            )
            .or_next("tidemark type list"));
        }
        Ok(self.selector.selector())
    }

    /// What the flags of a question over `span` mean where it is now that time.
    fn times(&self, span: &SpanArgs, now_ns: i64) -> Outcome<Times> {
        let (from_ns, to_ns) = span.resolve_at(now_ns)?;
        Ok(Times {
            from_ns,
            to_ns,
            at_ns: 0,
            known_at_ns: self.known.at_ns_by(now_ns)?,
        })
    }
}

/// Flags of a span of time.
#[derive(Debug, Args)]
pub(crate) struct SpanArgs {
    /// Begin, part of the answer: 2024-06-20, 2024-06-20T08:00:00Z, 1718841600000ms, now-2h
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        conflicts_with = "since",
        required_unless_present = "since"
    )]
    from: Option<String>,
    /// End, not part of the answer [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Begin this long before the end
    #[arg(long, value_name = "SPAN")]
    since: Option<String>,
}

impl SpanArgs {
    /// Half-open, nanoseconds since the epoch.
    fn resolve(&self) -> Outcome<(i64, i64)> {
        self.resolve_at(now_ns())
    }

    fn resolve_at(&self, now_ns: i64) -> Outcome<(i64, i64)> {
        let wrong = |why: String| Failure::usage("the span of time is not clear", why);
        let to = self
            .to
            .as_deref()
            .map_or(Ok(now_ns), |text| parse_instant(text, now_ns))
            .map_err(wrong)?;
        let from = match (&self.from, &self.since) {
            (Some(text), _) => parse_instant(text, now_ns).map_err(wrong)?,
            (None, Some(span)) => to.saturating_sub(parse_span(span).map_err(wrong)?),
            (None, None) => return Err(wrong("give --from or --since".to_owned())),
        };
        if from > to {
            return Err(wrong("the begin lies after the end".to_owned()));
        }
        Ok((from, to))
    }
}

/// A value of the store as a cell.
pub(crate) fn value_cell(value: Value) -> Cell {
    match value {
        Value::F64(value) => Cell::Float(value),
        Value::I64(value) => Cell::Int(value),
        Value::Bool(value) => Cell::Bool(value),
        Value::Enum(text) | Value::Text(text) => Cell::Value(text),
    }
}

fn quality_name(quality: v1::Quality) -> &'static str {
    match quality {
        v1::Quality::Unspecified => "",
        v1::Quality::Good => "good",
        v1::Quality::Unchecked => "unchecked",
        v1::Quality::Estimated => "estimated",
        v1::Quality::Manual => "manual",
        v1::Quality::Suspect => "suspect",
        v1::Quality::Fail => "fail",
        v1::Quality::Missing => "missing",
    }
}

fn qualifier_name(qualifier: v1::Qualifier) -> &'static str {
    match qualifier {
        v1::Qualifier::Unspecified => "",
        v1::Qualifier::Range => "range",
        v1::Qualifier::Untypical => "untypical",
        v1::Qualifier::Spike => "spike",
        v1::Qualifier::Rate => "rate",
        v1::Qualifier::Flat => "flat",
        v1::Qualifier::Manual => "manual",
        v1::Qualifier::Maintenance => "maintenance",
        v1::Qualifier::Clock => "clock",
        v1::Qualifier::Late => "late",
    }
}

fn report_kind_name(kind: v1::ReportKind) -> &'static str {
    match kind {
        v1::ReportKind::Unspecified | v1::ReportKind::Routine => "routine",
        v1::ReportKind::Event => "event",
        v1::ReportKind::Backfill => "backfill",
        v1::ReportKind::Manual => "manual",
        v1::ReportKind::Test => "test",
        v1::ReportKind::Keepalive => "keepalive",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn spans_of_time() {
        let resolve = |from: Option<&str>, to: Option<&str>, since: Option<&str>| {
            let args = SpanArgs {
                from: from.map(Into::into),
                to: to.map(Into::into),
                since: since.map(Into::into),
            };
            args.resolve_at(10_000_000_000)
        };
        assert_eq!(
            resolve(Some("1s"), None, None).unwrap(),
            (1_000_000_000, 10_000_000_000)
        );
        assert_eq!(
            resolve(None, None, Some("3s")).unwrap(),
            (7_000_000_000, 10_000_000_000)
        );
        assert_eq!(
            resolve(None, Some("5s"), Some("3s")).unwrap(),
            (2_000_000_000, 5_000_000_000)
        );
        assert_eq!(resolve(Some("6s"), Some("5s"), None).unwrap_err().exit(), Exit::Usage);
        assert_eq!(resolve(Some("noon"), None, None).unwrap_err().exit(), Exit::Usage);
    }
}
