//! `alert profile apply|list|remove`. Never: whether a profile makes sense (the server says).
//!
//! Invariant: a file is applied as a whole or not at all, and nothing that it says is passed over.

use std::io::Write;

use clap::Subcommand;
use serde::Deserialize;
use tidemark_client::v1::{AlertFunction, AlertLevel, AlertProfile};

use crate::cli::Context;
use crate::failure::{Failure, OrFail, Outcome};
use crate::output::{Cell, Printer};
use crate::types::read_text;

/// What to do with profiles.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create the profiles of a file, or replace known ones
    Apply {
        /// TOML with [[alert_profile]] tables, or - for standard input
        file: String,
    },
    /// List all profiles
    List,
    /// Remove profiles: their alerts end
    Remove {
        /// Profile ids
        #[arg(required = true, value_name = "PROFILE")]
        ids: Vec<String>,
    },
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Apply { file } => apply(context, &file).await,
        Verb::List => list(context).await,
        Verb::Remove { ids } => remove(context, ids).await,
    }
}

/// A file of profiles; other tables are for others.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    alert_profile: Vec<Profile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    id: String,
    device_type: String,
    property: String,
    function: String,
    #[serde(default)]
    window_s: i64,
    #[serde(default)]
    hold_s: i64,
    #[serde(default)]
    accept_suspect: bool,
    #[serde(default)]
    stale_after_s: i64,
    #[serde(default)]
    below: bool,
    levels: Vec<Level>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    level: String,
    on: f64,
    off: f64,
    #[serde(default)]
    severity: u32,
}

const FUNCTIONS: [(&str, AlertFunction); 6] = [
    ("last", AlertFunction::Last),
    ("sum", AlertFunction::Sum),
    ("rise_per_hour", AlertFunction::RisePerHour),
    ("avg", AlertFunction::Avg),
    ("min", AlertFunction::Min),
    ("max", AlertFunction::Max),
];

/// The profiles of a file, in file order. `file` is named in errors.
fn parse(file: &str, text: &str) -> Result<Vec<AlertProfile>, String> {
    let read: File = toml::from_str(text).map_err(|error| format!("{file}: {error}"))?;
    match read.alert_profile.is_empty() {
        true => Err(format!("{file}: no [[alert_profile]] in this file")),
        false => read.alert_profile.into_iter().map(|one| profile(file, one)).collect(),
    }
}

fn profile(file: &str, read: Profile) -> Result<AlertProfile, String> {
    let known = FUNCTIONS.iter().find(|(name, _)| *name == read.function);
    let (_, function) = known.ok_or_else(|| {
        let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        let (id, function) = (&read.id, &read.function);
        format!(
            "{file}: profile {id}: function `{function}` is not one of {}",
            names.join(", ")
        )
    })?;
    let level = |read: Level| AlertLevel {
        level: read.level,
        on: read.on,
        off: read.off,
        severity: read.severity,
    };
    Ok(AlertProfile {
        id: read.id,
        device_type: read.device_type,
        property: read.property,
        function: *function as i32,
        window_s: read.window_s,
        hold_s: read.hold_s,
        accept_suspect: read.accept_suspect,
        levels: read.levels.into_iter().map(level).collect(),
        stale_after_s: read.stale_after_s,
        below: read.below,
        version: 0,
    })
}

async fn apply(context: &Context, file: &str) -> Outcome {
    let text = read_text(file)?;
    let name = if file == "-" { "standard input" } else { file };
    let profiles = parse(name, &text).map_err(|why| Failure::usage("cannot take the profiles of this file", why))?;
    let client = context.connect().await?;
    let applied = client
        .apply_alert_profiles(profiles)
        .await
        .or_fail("cannot apply the profiles")?;
    let mut printer = context.printer("alert_profile_apply");
    printer.head("created", Cell::Uint(applied.created.into()))?;
    printer.head("changed", Cell::Uint(applied.changed.into()))?;
    printer.head("unchanged", Cell::Uint(applied.unchanged.into()))?;
    print(printer, &applied.profiles)
}

async fn list(context: &Context) -> Outcome {
    let client = context.connect().await?;
    let profiles = client
        .list_alert_profiles(Vec::new())
        .await
        .or_fail("cannot list the profiles")?;
    print(context.printer("alert_profile_list"), &profiles)
}

async fn remove(context: &Context, ids: Vec<String>) -> Outcome {
    let client = context.connect().await?;
    let removed = client
        .remove_alert_profiles(ids)
        .await
        .or_fail("cannot remove the profiles")?;
    let mut printer = context.printer("alert_profile_remove");
    printer.head("removed", Cell::Uint(removed.into()))?;
    printer.finish(&[])
}

fn print<W: Write>(mut printer: Printer<W>, profiles: &[AlertProfile]) -> Outcome {
    let columns = [
        "id",
        "device_type",
        "property",
        "function",
        "window_s",
        "hold_s",
        "levels",
        "version",
        "below",
        "stale_after_s",
        "accept_suspect",
    ];
    printer.section("profiles", &columns)?;
    for profile in profiles {
        let name = FUNCTIONS
            .iter()
            .find(|(_, function)| *function as i32 == profile.function);
        let level = |level: &AlertLevel| format!("{} {}/{}", level.level, level.on, level.off);
        printer.row(vec![
            Cell::text(&profile.id),
            Cell::text(&profile.device_type),
            Cell::text(&profile.property),
            Cell::text(name.map_or("", |(name, _)| *name)),
            Cell::Int(profile.window_s),
            Cell::Int(profile.hold_s),
            Cell::List(profile.levels.iter().map(level).collect()),
            Cell::Uint(profile.version.into()),
            Cell::Bool(profile.below),
            match profile.stale_after_s {
                0 => Cell::None,
                seconds => Cell::Int(seconds),
            },
            Cell::Bool(profile.accept_suspect),
        ])?;
    }
    printer.finish(&[])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn profiles_of_the_catalogue() {
        let text = include_str!("../../../bench/catalogue/device-types.toml");
        let profiles = parse("file", text).unwrap();
        assert_eq!(profiles.len(), 6);
        let three_hours = profiles.iter().find(|profile| profile.id == "rain_3h").unwrap();
        assert_eq!(
            (three_hours.window_s, three_hours.function()),
            (10_800, AlertFunction::Sum)
        );
        assert_eq!((three_hours.levels[1].on, three_hours.levels[1].severity), (100.0, 4));
    }

    #[test]
    fn a_list_shows_everything_that_a_profile_says() {
        let profile = AlertProfile {
            id: "low".into(),
            device_type: "tank".into(),
            property: "level".into(),
            function: AlertFunction::Last as i32,
            hold_s: 60,
            accept_suspect: true,
            levels: vec![AlertLevel {
                level: "empty".into(),
                on: 0.5,
                off: 0.75,
                ..AlertLevel::default()
            }],
            stale_after_s: 600,
            below: true,
            version: 3,
            ..AlertProfile::default()
        };
        let plain = AlertProfile {
            id: "plain".into(),
            ..AlertProfile::default()
        };
        let mut out = Vec::new();
        let style = crate::output::Style {
            format: crate::output::Format::Csv,
            ..crate::output::Style::default()
        };
        print(Printer::new(&mut out, style, "alert_profile_list"), &[profile, plain]).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        id,device_type,property,function,window_s,hold_s,levels,version,below,stale_after_s,accept_suspect
        low,tank,level,last,0,60,empty 0.5/0.75,3,true,600,true
        plain,,,,0,0,,0,false,,false
        ");
    }

    #[test]
    fn what_a_file_says_wrongly_is_named() {
        let refused = |text: &str| parse("f", text).unwrap_err();
        assert!(refused("").contains("no [[alert_profile]]"));
        let one = |more: &str| {
            format!("[[alert_profile]]\nid='a'\ndevice_type='t'\nproperty='p'\nfunction='last'\nlevels=[]\n{more}")
        };
        assert!(parse("f", &one("")).is_ok());
        assert!(refused(&one("hold=3")).contains("hold"));
        assert!(refused(&one("").replace("last", "worst")).contains("is not one of last, sum"));
    }
}
