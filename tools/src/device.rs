//! `device import|list|show|maintenance|delete-points`. Never: which devices a selector means (the server says).
//!
//! Invariant: an import that fails halfway can be run again; a device already there counts as unchanged.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::{Args, Subcommand};
use tidemark_client::v1::{self, Device, Place};

use crate::cli::{Context, now_ns};
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::fleet;
use crate::maintenance::{self, MaintenanceArgs};
use crate::output::{Cell, Format, Printer};
use crate::pairs::parse_pairs;
use crate::removal::{self, DeleteArgs};
use crate::selector::{SelectorArgs, summary_cells, summary_line};
use crate::terms::{CursorArgs, print_explain};
use crate::time::parse_instant;
use crate::types::read_text;

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Register devices from a CSV file (id,device_type,lat,lon,TAG...) or the whole fleet of a catalogue
    ///
    /// Tags, place and dates of known devices become those of the file; declared maintenance stays.
    Import(ImportArgs),
    /// List the devices that the flags choose, or all
    List(ListArgs),
    /// Delete points of devices over a range of observation times, for good
    DeletePoints(DeleteArgs),
    /// Show one device
    Show {
        /// Device id
        id: String,
    },
    /// Declare when devices are under maintenance, end it, take it back; without flags, list it
    ///
    /// Reports of quality and health leave the time out: neither expected nor missing, late, slow or offline.
    Maintenance(MaintenanceArgs),
}

/// Where devices come from.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// CSV with the columns id, device_type and, if known, lat, lon, installed_at, retired_at and tags (NAME=VALUE ..., as
    /// `device list -o csv` prints them); every other column is a tag. - for standard input
    #[arg(required_unless_present = "catalogue", conflicts_with = "catalogue")]
    file: Option<String>,
    /// Expand this catalogue to its fleet
    #[arg(long, value_name = "FILE.toml")]
    catalogue: Option<String>,
}

/// Which devices.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// Most devices to list
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: u64,
    /// Count devices by `type` or by the values of a tag
    #[arg(long, value_name = "type|TAG")]
    count_by: Option<String>,
    #[command(flatten)]
    cursor: CursorArgs,
    /// Print below the answer what it cost
    #[arg(long)]
    explain: bool,
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Import(args) => import(context, &args).await,
        Verb::List(args) => list(context, args).await,
        Verb::DeletePoints(args) => removal::run(context, &args).await,
        Verb::Show { id } => show(context, id).await,
        Verb::Maintenance(args) => maintenance::run(context, args).await,
    }
}

async fn import(context: &Context, args: &ImportArgs) -> Outcome {
    let wrong = |why: String| Failure::usage("cannot take the devices of this file", why);
    let devices = match (&args.catalogue, &args.file) {
        (Some(file), _) => fleet::parse(file, &read_text(file)?)
            .and_then(|fleet| fleet.devices())
            .map_err(wrong)?,
        (None, Some(file)) => parse_csv(file, &read_text(file)?).map_err(wrong)?,
        (None, None) => return Err(wrong("no file is named".to_owned())),
    };
    let count = devices.len() as u64;
    let client = context.connect().await?;
    let started = Instant::now();
    let sum = client
        .register(v1::RegisterDevicesRequest {
            devices,
            keep_maintenance: true,
        })
        .await
        .or_fail("cannot register the devices")
        .map_err(|failure| failure.or_next("put right what is named and run the same command again"))?;
    let mut printer = context.printer("device_import");
    printer.section("imports", &["devices", "created", "changed", "unchanged", "seconds"])?;
    let seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    printer.row(vec![
        Cell::Uint(count),
        Cell::Uint(sum.created.into()),
        Cell::Uint(sum.changed.into()),
        Cell::Uint(sum.unchanged.into()),
        Cell::Float(seconds),
    ])?;
    printer.finish(&[])
}

/// Devices of a CSV file. Errors name the line.
fn parse_csv(file: &str, text: &str) -> Result<Vec<Device>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let header = reader.headers().map_err(|error| format!("{file}: {error}"))?.clone();
    let find = |names: &[&str]| header.iter().position(|column| names.contains(&column));
    let need = |names: &[&str]| {
        find(names).ok_or_else(|| {
            format!(
                "{file}: no column {}; the header must be id,device_type,lat,lon,TAG...",
                names[0]
            )
        })
    };
    let (id, device_type) = (need(&["id", "device", "device_id"])?, need(&["device_type", "type"])?);
    let (lat, lon) = (find(&["lat", "latitude"]), find(&["lon", "longitude"]));
    let dates = [find(&["installed_at"]), find(&["retired_at"])];
    let pairs = find(&["tags"]);
    // What `device list` says beside is no tag.
    let told = find(&["under_maintenance_until"]);
    let special = [Some(id), Some(device_type), lat, lon, dates[0], dates[1], pairs, told];
    let mut devices = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| format!("{file}: {error}"))?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |index: usize| record.get(index).unwrap_or("");
        let degrees = |index: Option<usize>| match index.map(field) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse::<f64>()
                .map(Some)
                .map_err(|_| format!("{file}: line {line}: `{text}` is no number of degrees")),
        };
        let place = match (degrees(lat)?, degrees(lon)?) {
            (Some(latitude_deg), Some(longitude_deg)) => Some(Place {
                latitude_deg,
                longitude_deg,
            }),
            (None, None) => None,
            _ => return Err(format!("{file}: line {line}: a place needs both lat and lon")),
        };
        let date = |index: Option<usize>| match index.map(field) {
            None | Some("") => Ok(0),
            Some(text) => parse_instant(text, now_ns()).map_err(|why| format!("{file}: line {line}: {why}")),
        };
        let mut tags =
            parse_pairs(pairs.map_or("", field)).map_err(|why| format!("{file}: line {line}: tags: {why}"))?;
        let columns = header.iter().enumerate();
        let columns = columns.filter(|(index, _)| !special.contains(&Some(*index)) && !field(*index).is_empty());
        tags.extend(columns.map(|(index, tag)| (tag.to_owned(), field(index).to_owned())));
        devices.push(Device {
            installed_at_ns: date(dates[0])?,
            retired_at_ns: date(dates[1])?,
            id: field(id).to_owned(),
            device_type: field(device_type).to_owned(),
            tags,
            place,
            ..Device::default()
        });
    }
    if devices.is_empty() {
        Err(format!("{file}: no devices in this file"))
    } else {
        Ok(devices)
    }
}

const COLUMNS: [&str; 8] = [
    "id",
    "device_type",
    "lat",
    "lon",
    "installed_at",
    "retired_at",
    "tags",
    "under_maintenance_until",
];

fn cells(device: &Device, now_ns: i64) -> Vec<Cell> {
    vec![
        Cell::text(&device.id),
        Cell::text(&device.device_type),
        device.place.map_or(Cell::None, |place| Cell::Float(place.latitude_deg)),
        device
            .place
            .map_or(Cell::None, |place| Cell::Float(place.longitude_deg)),
        Cell::some_time(device.installed_at_ns),
        Cell::some_time(device.retired_at_ns),
        Cell::Pairs(device.tags.clone()),
        maintenance::under_until(device, now_ns),
    ]
}

async fn list(context: &Context, args: ListArgs) -> Outcome {
    let client = context.connect().await?;
    let what = "cannot list the devices";
    let request = v1::ListDevicesRequest {
        selector: (!args.selector.is_empty()).then(|| args.selector.selector()),
        limit: args.limit,
        cursor: args.cursor.cursor(),
        explain: args.explain,
        ..v1::ListDevicesRequest::default()
    };
    let mut answer = client.list_devices(request).await.or_fail(what)?;
    let mut printer = context.printer(if args.count_by.is_some() {
        "device_count"
    } else {
        "device_list"
    });
    let now_ns = now_ns();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    if args.count_by.is_none() {
        printer.section("devices", &COLUMNS)?;
    }
    while let Some(message) = answer.next().await {
        for device in message.or_fail(what)?.devices {
            match args.count_by.as_deref() {
                None => printer.row(cells(&device, now_ns))?,
                Some("type") => *counts.entry(device.device_type).or_default() += 1,
                Some(tag) => {
                    *counts
                        .entry(device.tags.get(tag).cloned().unwrap_or_default())
                        .or_default() += 1
                }
            }
        }
    }
    if let Some(by) = &args.count_by {
        print_counts(&mut printer, by, &counts)?;
    }
    print_explain(&mut printer, answer.summary())?;
    printer.finish(&summary_cells(answer.summary()))?;
    if context.is_table() {
        context.say(&summary_line(answer.summary(), "rows"));
    }
    Ok(())
}

fn print_counts(printer: &mut Printer, by: &str, counts: &BTreeMap<String, u64>) -> Outcome {
    printer.section("counts", &[by, "devices"])?;
    for (value, count) in counts {
        printer.row(vec![Cell::some_text(value), Cell::Uint(*count)])?;
    }
    Ok(())
}

async fn show(context: &Context, id: String) -> Outcome {
    let client = context.connect().await?;
    let what = "cannot show the device";
    let selector = v1::Selector {
        device_ids: vec![id.clone()],
        ..v1::Selector::default()
    };
    let request = v1::ListDevicesRequest {
        selector: Some(selector),
        ..v1::ListDevicesRequest::default()
    };
    let answer = client.list_devices(request).await.or_fail(what)?;
    let (messages, _) = answer.collect().await.or_fail(what)?;
    let Some(device) = messages.into_iter().flat_map(|message| message.devices).next() else {
        return Err(Failure::new(
            Exit::NotFound,
            what,
            format!("no device {id}"),
            "tidemark device list",
        ));
    };
    let mut printer = context.printer("device_show");
    let now_ns = now_ns();
    for (name, cell) in COLUMNS
        .iter()
        .zip(cells(&device, now_ns))
        .filter(|(name, _)| **name != "tags")
    {
        printer.head(name, cell)?;
    }
    printer.head("registered_at", Cell::some_time(device.registered_at_ns))?;
    printer.section("tags", &["tag", "value"])?;
    for (tag, value) in &device.tags {
        printer.row(vec![Cell::text(tag), Cell::text(value)])?;
    }
    if context.style.format == Format::Json || !device.maintenance.is_empty() {
        printer.section("maintenance", &maintenance::COLUMNS)?;
        maintenance::rows(&mut printer, &device, None, now_ns)?;
    }
    printer.finish(&[])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn columns_become_devices_with_tags() {
        let text = "id, device_type,lat,lon,town,note\nd-1,tank,30.5,121,danghu,\nd-2,tank,,,zhapu,\"a,b\"\n";
        let devices = parse_csv("d.csv", text).unwrap();
        assert_eq!(
            devices[0].place,
            Some(Place {
                latitude_deg: 30.5,
                longitude_deg: 121.0
            })
        );
        assert_eq!(devices[0].tags.len(), 1);
        assert_eq!((devices[1].place, devices[1].tags["note"].as_str()), (None, "a,b"));
    }

    #[test]
    fn what_the_list_prints_is_taken_back() {
        let device = Device {
            id: "d-1".into(),
            device_type: "tank".into(),
            place: Some(Place {
                latitude_deg: 30.5,
                longitude_deg: 121.0,
            }),
            installed_at_ns: 1_700_000_000_123_456_789,
            retired_at_ns: 1_800_000_000_000_000_000,
            tags: [("town", "Dang Hu"), ("vendor", "acme"), ("note", "a vendor=b, \"6\"")]
                .map(|(tag, value)| (tag.to_owned(), value.to_owned()))
                .into(),
            ..Device::default()
        };
        let bare = Device {
            id: "d-2".into(),
            device_type: "tank".into(),
            ..Device::default()
        };
        let mut out = Vec::new();
        let style = crate::output::Style {
            format: crate::output::Format::Csv,
            ..crate::output::Style::default()
        };
        let mut printer = Printer::new(&mut out, style, "device_list");
        printer.section("devices", &COLUMNS).unwrap();
        for device in [&device, &bare] {
            printer.row(cells(device, 0)).unwrap();
        }
        printer.finish(&[]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(parse_csv("d.csv", &text), Ok(vec![device, bare]), "{text}");
    }

    #[test]
    fn errors_name_the_line() {
        for (text, expected) in [
            (
                "id,lat\nx,1\n",
                "d.csv: no column device_type; the header must be id,device_type,lat,lon,TAG...",
            ),
            (
                "id,type,lat,lon\na,t,1,2\nb,t,x,2\n",
                "d.csv: line 3: `x` is no number of degrees",
            ),
            (
                "id,type,lat,lon\na,t,1,\n",
                "d.csv: line 2: a place needs both lat and lon",
            ),
            ("id,type\n", "d.csv: no devices in this file"),
            (
                "id,type,installed_at\na,t,soon\n",
                "d.csv: line 2: `soon` is not a time: write RFC 3339 (2024-06-20T08:00:00Z), a date, or a number with ns or ms",
            ),
            (
                "id,type,tags\na,t,some town\n",
                "d.csv: line 2: tags: `some town` does not begin with NAME=VALUE (a value with spaces stands in quotes)",
            ),
        ] {
            assert_eq!(parse_csv("d.csv", text).unwrap_err(), expected);
        }
    }
}
