//! `device delete-points`: count, ask, delete. Never: which points a selector means (the server says).
//!
//! Invariant: nothing is deleted before what would go was counted and confirmed.

use std::time::Duration;

use clap::Args;
use tidemark_client::v1;

use crate::cli::{Context, now_ns};
use crate::confirm::confirm;
use crate::failure::{Failure, OrFail, Outcome};
use crate::output::Cell;
use crate::selector::SelectorArgs;
use crate::time::parse_instant;

/// What the server takes at most for one request.
const DELETE_TIMEOUT: Duration = Duration::from_secs(60);

/// Which points.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// First observation time that goes: RFC 3339, a date, a number with unit, or now-SPAN
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// First observation time behind it that stays
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Take a missing flag for no bound: all devices, all of time
    #[arg(long)]
    everything: bool,
    /// Count what would go and stop
    #[arg(long)]
    dry_run: bool,
    /// Confirm: the first 8 characters of the cluster id, instead of being asked for them
    #[arg(long, value_name = "CLUSTER")]
    confirm: Option<String>,
}

/// Counts, asks and deletes.
pub(crate) async fn run(context: &Context, args: &DeleteArgs) -> Outcome {
    let what = "cannot delete the points";
    let now_ns = now_ns();
    let instant = |text: &Option<String>| {
        let parsed = text.as_deref().map(|text| parse_instant(text, now_ns)).transpose();
        parsed.map_err(|why| Failure::usage("cannot tell which times are meant", why))
    };
    let count = v1::DeletePointsRequest {
        selector: (!args.selector.is_empty()).then(|| args.selector.selector()),
        from_ns: instant(&args.from)?,
        to_ns: instant(&args.to)?,
        everything: args.everything,
        dry_run: true,
    };
    let client = context.connect_for(DELETE_TIMEOUT).await?;
    let there_is = client.delete_points(count.clone()).await.or_fail(what)?;
    if args.dry_run {
        return print(context, "would_delete", &there_is);
    }
    if there_is.devices == 0 {
        return print(context, "deleted", &there_is);
    }
    let why = what_goes(&there_is);
    context.say(&format!("warning: {why}"));
    confirm(context, &client, "nothing was deleted", why, args.confirm.as_deref()).await?;
    let delete = v1::DeletePointsRequest {
        dry_run: false,
        ..count
    };
    let gone = client
        .delete_points(delete)
        .await
        .or_fail(what)
        .map_err(|failure| failure.or_next("run the same command again: what is gone stays gone"))?;
    print(context, "deleted", &gone)
}

/// A window of a rollup takes with it what it has of the time beside the range.
fn what_goes(counts: &v1::DeletePointsResponse) -> String {
    let (records, devices) = (counts.records, counts.devices);
    match counts.rollup_windows {
        0 => format!("{records} records of {devices} devices would be gone for good"),
        windows => format!(
            "{records} records and {windows} whole windows of rollups (their points are gone already) of {devices} devices would be gone \
             for good"
        ),
    }
}

fn print(context: &Context, section: &'static str, counts: &v1::DeletePointsResponse) -> Outcome {
    let mut printer = context.printer("delete_points");
    printer.section(section, &["records", "devices", "devices_matched", "rollup_windows"])?;
    printer.row(vec![
        Cell::Uint(counts.records),
        Cell::Uint(counts.devices),
        Cell::Uint(counts.devices_matched),
        Cell::Uint(counts.rollup_windows),
    ])?;
    printer.finish(&[])
}
