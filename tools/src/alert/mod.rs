//! `alert list|ack|close` and `alert profile`. Never: when a level begins or ends (the server says).
//!
//! Invariant: the order of a list is that of the server.

mod profile;

use clap::{Args, Subcommand};
use tidemark_client::v1::{self, AlertReason};

use crate::cli::{Context, now_ns};
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::output::{Cell, Printer};
use crate::selector::{SelectorArgs, parse_consistency, summary_cells, summary_line};
use crate::terms::{TermsArgs, print_explain};
use crate::time::parse_instant;

/// What to do with alerts.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Profiles: which levels a property has
    #[command(subcommand)]
    Profile(profile::Verb),
    /// List alerts, the most serious first
    List(ListArgs),
    /// Say that somebody has seen an alert
    Ack(AnswerArgs),
    /// Say that somebody is done with an alert that is over
    Close(AnswerArgs),
}

/// Which alerts.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// Only under these profiles (repeat, or separate by commas)
    #[arg(long, short = 'p', value_name = "PROFILE", value_delimiter = ',')]
    profile: Vec<String>,
    /// Also devices at normal, and those of which nothing is known
    #[arg(long, short = 'a')]
    all: bool,
    /// Of each device only its most serious alert
    #[arg(long)]
    by_device: bool,
    /// Also alerts that are over
    #[arg(long)]
    history: bool,
    /// Lists the steps of the alerts instead
    #[arg(long)]
    steps: bool,
    /// As it was at this time, by what is known now
    #[arg(long, value_name = "TIME", conflicts_with = "history")]
    at: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// How fresh the answer must be: linearizable, bounded:SPAN or any
    #[arg(long, value_name = "LEVEL", default_value = "linearizable", value_parser = parse_consistency)]
    consistency: v1::Consistency,
    #[command(flatten)]
    terms: TermsArgs,
}

/// Which alert, and who says so.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// The device
    device: String,
    /// The profile
    profile: String,
    /// When the alert left normal [default: the one in force; to close: the last one that is over]
    #[arg(long, value_name = "TIME")]
    began: Option<String>,
    /// Who says so
    #[arg(long, value_name = "NAME")]
    by: String,
    /// What there is to say about it
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

const WHAT: &str = "cannot list alerts";

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Profile(verb) => profile::run(context, verb).await,
        Verb::List(args) => list(context, args).await,
        Verb::Ack(args) => answer(context, args, false).await,
        Verb::Close(args) => answer(context, args, true).await,
    }
}

async fn list(context: &Context, args: ListArgs) -> Outcome {
    let at_ns = match &args.at {
        Some(text) => parse_instant(text, now_ns()).map_err(|why| Failure::usage(WHAT, why))?,
        None => 0,
    };
    let request = v1::ListAlertsRequest {
        selector: Some(args.selector.selector()),
        profiles: args.profile.clone(),
        history: args.history,
        normal: args.all,
        steps: args.steps,
        consistency: Some(args.consistency),
        limit: args.limit.unwrap_or(0),
        at_ns,
        by_device: args.by_device,
        points_max: args.terms.points_max,
        partial_ok: args.terms.partial,
        explain: args.terms.explain,
        ..v1::ListAlertsRequest::default()
    };
    let client = context.connect().await?;
    let mut answer = client.list_alerts(request).await.or_fail(WHAT)?;
    let mut printer = context.printer("alert_list");
    match args.steps {
        true => steps_section(&mut printer)?,
        false => alerts_section(&mut printer)?,
    }
    while let Some(message) = answer.next().await {
        for alert in message.or_fail(WHAT)?.alerts {
            match args.steps {
                true => alert.steps.iter().try_for_each(|step| printer.row(step_cells(step)))?,
                false => printer.row(alert_cells(&alert))?,
            }
        }
    }
    print_explain(&mut printer, answer.summary())?;
    printer.finish(&summary_cells(answer.summary()))?;
    if context.is_table() {
        context.say(&summary_line(answer.summary(), "alerts"));
    }
    Ok(())
}

async fn answer(context: &Context, args: AnswerArgs, close: bool) -> Outcome {
    let what = if close {
        "cannot close the alert"
    } else {
        "cannot acknowledge the alert"
    };
    let client = context.connect().await?;
    let began_ns = match &args.began {
        Some(text) => parse_instant(text, now_ns()).map_err(|why| Failure::usage(what, why))?,
        None => {
            let request = v1::ListAlertsRequest {
                selector: Some(v1::Selector {
                    device_ids: vec![args.device.clone()],
                    ..v1::Selector::default()
                }),
                profiles: vec![args.profile.clone()],
                history: true,
                ..v1::ListAlertsRequest::default()
            };
            let answer = client.list_alerts(request).await.or_fail(what)?;
            let (messages, _) = answer.collect().await.or_fail(what)?;
            let alerts = messages.into_iter().flat_map(|message| message.alerts);
            let meant = alerts.filter(|alert| (alert.rank == 0) == close && !alert.withdrawn && !alert.closed);
            let begun = meant.map(|alert| alert.began_ns).max();
            let none = || {
                let which = if close { "is over and not closed" } else { "is in force" };
                let why = format!("no alert of {} under {} {which}", args.device, args.profile);
                Failure::new(Exit::NotFound, what, why, "tidemark alert list --history")
            };
            begun.ok_or_else(none)?
        }
    };
    let request = v1::AnswerAlertsRequest {
        alerts: vec![v1::AlertName {
            device: args.device,
            profile: args.profile,
            began_ns,
        }],
        close,
        by: args.by,
        note: args.note,
    };
    let answered = client.answer_alerts(request).await.or_fail(what)?;
    let mut printer = context.printer(if close { "alert_close" } else { "alert_ack" });
    alerts_section(&mut printer)?;
    for alert in &answered.alerts {
        printer.row(alert_cells(alert))?;
    }
    printer.finish(&[])
}

fn alerts_section(printer: &mut Printer) -> Outcome {
    printer.section(
        "alerts",
        &[
            "device",
            "profile",
            "level",
            "value",
            "observed_at",
            "age_s",
            "stale",
            "since",
            "began",
            "ended",
            "worst",
            "answered",
            "acknowledged_by",
            "acknowledged_at",
        ],
    )
}

fn alert_cells(alert: &v1::Alert) -> Vec<Cell> {
    let known = alert.observed_at_ns != 0;
    let level = match alert.rank {
        0 if alert.unknown => "unknown",
        0 if alert.withdrawn => "withdrawn",
        0 => "normal",
        _ => &alert.level,
    };
    let answered = match (alert.closed, alert.acknowledged) {
        (true, _) => Cell::text("closed"),
        (false, true) => Cell::text("acknowledged"),
        (false, false) => Cell::None,
    };
    vec![
        Cell::text(&alert.device),
        Cell::text(&alert.profile),
        Cell::text(level),
        if known { Cell::Float(alert.value) } else { Cell::None },
        Cell::some_time(alert.observed_at_ns),
        if known {
            Cell::Int(alert.age_ms / 1_000)
        } else {
            Cell::None
        },
        Cell::Bool(alert.stale),
        Cell::some_time(alert.since_ns),
        Cell::some_time(alert.began_ns),
        Cell::some_time(alert.ended_ns),
        Cell::some_text(&alert.worst_level),
        answered,
        Cell::some_text(&alert.acknowledged_by),
        Cell::some_time(alert.acknowledged_at_ns),
    ]
}

fn steps_section(printer: &mut Printer) -> Outcome {
    printer.section(
        "steps",
        &[
            "device",
            "profile",
            "step",
            "level",
            "before",
            "since",
            "raised_at",
            "value",
            "stale",
            "by",
            "note",
        ],
    )
}

fn step_cells(step: &v1::AlertStep) -> Vec<Cell> {
    let level = |level: &str| Cell::text(if level.is_empty() { "normal" } else { level });
    vec![
        Cell::text(&step.device),
        Cell::text(&step.profile),
        Cell::text(reason_name(step.reason())),
        level(&step.level),
        level(&step.level_before),
        Cell::some_time(step.since_ns),
        Cell::some_time(step.raised_at_ns),
        Cell::Float(step.value),
        Cell::Bool(step.stale),
        Cell::some_text(&step.by),
        Cell::some_text(&step.note),
    ]
}

fn reason_name(reason: AlertReason) -> &'static str {
    match reason {
        AlertReason::Unspecified => "",
        AlertReason::Raised => "raised",
        AlertReason::Lowered => "lowered",
        AlertReason::Cleared => "cleared",
        AlertReason::Stale => "stale",
        AlertReason::Fresh => "fresh",
        AlertReason::Acknowledged => "acknowledged",
        AlertReason::Closed => "closed",
        AlertReason::Withdrawn => "withdrawn",
        AlertReason::ProfileChanged => "profile_changed",
    }
}
