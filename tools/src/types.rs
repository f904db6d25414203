//! `type apply|list|show`. Never: whether a change of a type is lawful (the server says).
//!
//! Invariant: a file is applied as a whole or not at all, and not before it was confirmed where points would go for it.

use std::io::Read;

use clap::Subcommand;
use tidemark_client::v1::{DeviceType, Property};

use crate::cli::Context;
use crate::confirm::confirm;
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::output::Cell;
use crate::thing_model::{kind_name, parse, value_type_name};

/// What to do with device types.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create the types of a file, or replace known ones by what it says; asks where points would be kept for a shorter time
    Apply {
        /// TOML with [[device_type]] tables, or - for standard input
        file: String,
        /// Confirm that points go: the first 8 characters of the cluster id, instead of being asked for them
        #[arg(long, value_name = "CLUSTER")]
        confirm: Option<String>,
    },
    /// List all types
    List,
    /// Show one type with its properties
    Show {
        /// Type id
        id: String,
    },
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Apply { file, confirm } => apply(context, &file, confirm.as_deref()).await,
        Verb::List => list(context).await,
        Verb::Show { id } => show(context, id).await,
    }
}

/// The text of a file, or of standard input.
pub(crate) fn read_text(file: &str) -> Outcome<String> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().lock().read_to_string(&mut text).map(|_| ()),
        _ => std::fs::read_to_string(file).map(|read| text = read),
    };
    read.map_err(|error| Failure::file("read", file, &error))?;
    Ok(text)
}

async fn apply(context: &Context, file: &str, confirmed: Option<&str>) -> Outcome {
    let text = read_text(file)?;
    let name = if file == "-" { "standard input" } else { file };
    let types = parse(name, &text).map_err(|why| Failure::usage("cannot take the types of this file", why))?;
    let client = context.connect().await?;
    // All of them: a type that is new is none that can be asked for.
    let known = client
        .list_device_types(Vec::new())
        .await
        .or_fail("cannot apply the types")?;
    let shorter = shortened(&known, &types);
    if !shorter.is_empty() {
        let why = format!("what is older would be gone for good: {}", shorter.join("; "));
        context.say(&format!("warning: {why}"));
        confirm(context, &client, "nothing was applied", why, confirmed).await?;
    }
    let applied = client
        .apply_device_types(types)
        .await
        .or_fail("cannot apply the types")?;
    let mut printer = context.printer("type_apply");
    printer.head("created", Cell::Uint(applied.created.into()))?;
    printer.head("changed", Cell::Uint(applied.changed.into()))?;
    printer.head("unchanged", Cell::Uint(applied.unchanged.into()))?;
    printer.section("device_types", &["id", "number", "version", "properties"])?;
    for made in &applied.device_types {
        printer.row(vec![
            Cell::text(&made.id),
            Cell::Uint(made.number.into()),
            Cell::Uint(made.version.into()),
            Cell::Uint(made.properties.len() as u64),
        ])?;
    }
    printer.finish(&[])
}

/// Which types would keep points or rollups for a shorter time than before.
fn shortened(known: &[DeviceType], new: &[DeviceType]) -> Vec<String> {
    let days = |days: i64| match days {
        0 => "for ever".to_owned(),
        days => format!("{days} days"),
    };
    let pairs = new
        .iter()
        .filter_map(|new| Some((known.iter().find(|was| was.id == new.id)?, new)));
    pairs
        .flat_map(|(was, new)| {
            [
                ("points", was.retention_days, new.retention_days),
                ("rollups", was.rollup_retention_days, new.rollup_retention_days),
            ]
            .map(|(what, before, after)| (what, &new.id, before, after))
        })
        .filter(|(_, _, before, after)| *after > 0 && (*before == 0 || after < before))
        .map(|(what, id, before, after)| format!("{what} of {id} are kept {}, now {}", days(before), days(after)))
        .collect()
}

async fn list(context: &Context) -> Outcome {
    let client = context.connect().await?;
    let types = client
        .list_device_types(Vec::new())
        .await
        .or_fail("cannot list the types")?;
    let mut printer = context.printer("type_list");
    printer.section(
        "device_types",
        &[
            "id",
            "name",
            "properties",
            "sample_interval_s",
            "report_interval_s",
            "retention_days",
            "department",
            "grade",
            "version",
        ],
    )?;
    for made in &types {
        printer.row(vec![
            Cell::text(&made.id),
            Cell::some_text(&made.name),
            Cell::Uint(made.properties.len() as u64),
            Cell::Int(made.sample_interval_s),
            Cell::Int(made.report_interval_s),
            Cell::Int(made.retention_days),
            Cell::some_text(&made.department),
            Cell::some_text(&made.grade),
            Cell::Uint(made.version.into()),
        ])?;
    }
    printer.finish(&[])
}

async fn show(context: &Context, id: String) -> Outcome {
    let client = context.connect().await?;
    let types = client
        .list_device_types(vec![id.clone()])
        .await
        .or_fail("cannot show the type")?;
    if types.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            "cannot show the type",
            format!("no type {id}"),
            "tidemark type list",
        ));
    }
    let mut printer = context.printer("type_show");
    for made in &types {
        print_head(&mut printer, made)?;
        printer.section("properties", &PROPERTY_COLUMNS)?;
        for property in &made.properties {
            printer.row(property_cells(property))?;
        }
    }
    printer.finish(&[])
}

fn print_head(printer: &mut crate::output::Printer, made: &DeviceType) -> Outcome {
    for (name, cell) in [
        ("id", Cell::text(&made.id)),
        ("name", Cell::some_text(&made.name)),
        ("number", Cell::Uint(made.number.into())),
        ("version", Cell::Uint(made.version.into())),
        ("sample_interval_s", Cell::Int(made.sample_interval_s)),
        ("report_interval_s", Cell::Int(made.report_interval_s)),
        ("latency_s", Cell::Int(made.latency_s)),
        ("retention_days", Cell::Int(made.retention_days)),
        (
            "rollups_s",
            Cell::List(made.rollups_s.iter().map(u32::to_string).collect()),
        ),
        ("rollup_retention_days", Cell::Int(made.rollup_retention_days)),
        ("bucket_span_s", Cell::Int(made.bucket_span_s)),
        ("department", Cell::some_text(&made.department)),
        ("grade", Cell::some_text(&made.grade)),
        ("share", Cell::some_text(&made.share)),
        ("apps", Cell::List(made.apps.clone())),
        ("attributes", Cell::Pairs(made.attributes.clone())),
    ] {
        printer.head(name, cell)?;
    }
    Ok(())
}

const PROPERTY_COLUMNS: [&str; 16] = [
    "id",
    "number",
    "name",
    "unit",
    "value_type",
    "kind",
    "min",
    "max",
    "step",
    "typical_min",
    "typical_max",
    "wrap",
    "labels",
    "missing",
    "deprecated",
    "attributes",
];

fn property_cells(property: &Property) -> Vec<Cell> {
    let float = |value: Option<f64>| value.map_or(Cell::None, Cell::Float);
    vec![
        Cell::text(&property.id),
        Cell::Uint(property.number.into()),
        Cell::some_text(&property.name),
        Cell::some_text(&property.unit),
        Cell::text(value_type_name(property.value_type)),
        Cell::text(kind_name(property.kind)),
        float(property.min),
        float(property.max),
        float(property.step),
        float(property.typical_min),
        float(property.typical_max),
        float(property.wrap),
        Cell::List(property.labels.clone()),
        Cell::List(property.missing.clone()),
        Cell::Bool(property.deprecated),
        Cell::Pairs(property.attributes.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_kept_for_a_shorter_time() {
        let kept = |retention_days, rollup_retention_days| DeviceType {
            id: "tank".into(),
            retention_days,
            rollup_retention_days,
            ..DeviceType::default()
        };
        let check = |was: DeviceType, new: DeviceType, expected: &[&str]| {
            assert_eq!(shortened(&[was], &[new]), expected);
        };
        check(kept(365, 0), kept(365, 0), &[]);
        check(kept(365, 0), kept(400, 0), &[]);
        check(kept(365, 730), kept(0, 0), &[]);
        check(
            kept(365, 0),
            kept(30, 0),
            &["points of tank are kept 365 days, now 30 days"],
        );
        check(
            kept(0, 0),
            kept(30, 60),
            &[
                "points of tank are kept for ever, now 30 days",
                "rollups of tank are kept for ever, now 60 days",
            ],
        );
        assert!(shortened(&[], &[kept(30, 0)]).is_empty(), "a new type has no points");
    }
}
