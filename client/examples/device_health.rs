//! What a device office asks in the morning: how well did the fleet keep its promises, by type, town, vendor and department, which
//! devices are worst, which report more slowly than they promise, and what is out of warranty.
//!
//! `cargo run --example device_health [table|json|html] [HOURS] [ENDPOINTS]`: the last HOURS (24) until now.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::Context as _;
use serde_json::{Value as Json, json};
use tidemark_client::{Client, v1};

const HOUR_NS: i64 = 3_600_000_000_000;
/// What devices are grouped by, each by itself.
const TAGS: [&str; 5] = ["town", "vendor", "vendor_support", "department", "warranty"];

/// Lines of cells for people, the first of which says what the columns are; the same for programs.
type Section = (Vec<Vec<String>>, Vec<Json>);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let form = args.next().unwrap_or_else(|| "table".to_owned());
    let hours = args.next().map_or(Ok(24), |hours| hours.parse::<i64>());
    let hours = hours.context("how many hours?")?;
    let endpoints = args.next().or_else(|| std::env::var("TIDEMARK_ENDPOINT").ok());
    let endpoints = endpoints.as_deref().unwrap_or("127.0.0.1:7777");
    let client = Client::connect(endpoints.split(',')).await?;
    let (tables, lines): (Vec<_>, Vec<_>) = report(&client, hours).await?.into_iter().unzip();
    match form.as_str() {
        "json" => println!("{:#}", Json::Array(lines.concat())),
        "html" => println!("{}", html(&tables, hours)),
        "table" => tables.iter().for_each(|table| print(table)),
        other => anyhow::bail!("{other:?} is none of table, json, html"),
    }
    Ok(())
}

async fn report(client: &Client, hours: i64) -> anyhow::Result<Vec<Section>> {
    let now_ns = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as i64;
    let fleet = |grouping| v1::GetHealthRequest {
        selector: Some(v1::Selector {
            everything: true,
            ..Default::default()
        }),
        from_ns: now_ns - hours * HOUR_NS,
        to_ns: now_ns,
        grouping,
        ..Default::default()
    };
    // Asked once, in the smallest groups; all others are sums of these.
    let tags = TAGS.map(str::to_owned).to_vec();
    let groups = reports(client, fleet(Some(v1::Grouping { tags }))).await?;
    let by = |title: &str, key: &dyn Fn(&v1::QualityReport) -> String| {
        let mut sums: BTreeMap<String, v1::QualityReport> = BTreeMap::new();
        for group in &groups {
            add(sums.entry(key(group)).or_default(), group);
        }
        promises(title, sums)
    };
    let mut sections = vec![by("the fleet", &|_| "all".to_owned())];
    sections.push(by("type", &|group| group.device_type.clone()));
    for tag in TAGS {
        sections.push(by(tag, &|group| group.tags.get(tag).cloned().unwrap_or_default()));
    }
    let named = |one: v1::QualityReport| (format!("{} {}", one.device, one.device_type), one);
    let mut devices: Vec<_> = reports(client, fleet(None)).await?.into_iter().map(named).collect();
    let complete = |report: &v1::QualityReport| shares(report)[0].unwrap_or(1.0);
    devices.sort_by(|(a, one), (b, other)| complete(one).total_cmp(&complete(other)).then(a.cmp(b)));
    let types = client.list_device_types(Vec::new()).await?;
    sections.push(slower("slower than promised", &devices, &types));
    sections.push(promises("the worst devices", devices.into_iter().take(20)));
    Ok(sections)
}

fn add(sum: &mut v1::QualityReport, other: &v1::QualityReport) {
    sum.devices += other.devices;
    sum.offline += other.offline;
    sum.slots_expected += other.slots_expected;
    sum.slots_filled += other.slots_filled;
    sum.points += other.points;
    sum.points_timed += other.points_timed;
    sum.points_in_time += other.points_in_time;
    sum.points_fail += other.points_fail;
    sum.points_suspect += other.points_suspect;
    sum.duplicates += other.duplicates;
    sum.slower += other.slower;
    sum.stalled += other.stalled;
    sum.never += other.never;
    sum.health.get_or_insert_default().battery_low += low_batteries(other);
}

async fn reports(client: &Client, request: v1::GetHealthRequest) -> anyhow::Result<Vec<v1::QualityReport>> {
    let (messages, _) = client.get_health(request).await?.collect().await?;
    Ok(messages.into_iter().flat_map(|message| message.reports).collect())
}

fn low_batteries(report: &v1::QualityReport) -> u64 {
    report.health.as_ref().map_or(0, |health| health.battery_low)
}

/// Completeness, timeliness and accuracy; a share of nothing is no share.
fn shares(report: &v1::QualityReport) -> [Option<f64>; 3] {
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let sound = report.points.saturating_sub(report.points_fail + report.points_suspect);
    [
        share(report.slots_filled, report.slots_expected),
        share(report.points_in_time, report.points_timed),
        share(sound, report.points),
    ]
}

/// What the figures do not say: how often a device reports, or how many devices do so badly.
fn remark(report: &v1::QualityReport) -> String {
    match report.freshness() {
        _ if !report.device.is_empty() && report.under_maintenance > 0 => "under maintenance".to_owned(),
        v1::Freshness::Slower => format!("{:.1} times slower than promised", report.spacing_ratio),
        v1::Freshness::Stalled => "silent".to_owned(),
        v1::Freshness::Never => "never heard".to_owned(),
        _ if report.device.is_empty() => {
            let (silent, low) = (report.stalled + report.never, low_batteries(report));
            format!("{} slower, {silent} silent, {low} with a low battery", report.slower)
        }
        _ if low_batteries(report) > 0 => "low battery".to_owned(),
        _ => String::new(),
    }
}

fn promises(title: &str, reports: impl IntoIterator<Item = (String, v1::QualityReport)>) -> Section {
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let line = |(name, report): (String, v1::QualityReport)| {
        let (shares, remark) = (shares(&report), remark(&report));
        let json = json!({
            "section": title, "name": name, "devices": report.devices, "offline": report.offline,
            "completeness": shares[0], "timeliness": shares[1], "accuracy": shares[2],
            "repeated": report.duplicates, "low_battery": low_batteries(&report), "remark": remark,
        });
        let [devices, offline, repeated] = [report.devices, report.offline, report.duplicates].map(|n| n.to_string());
        let [complete, timely, accurate] = shares.map(percent);
        let cells = [name, devices, offline, complete, timely, accurate, repeated, remark];
        (cells.to_vec(), json)
    };
    let heads = format!("{title},devices,offline,complete,in time,accurate,repeated,");
    section(&heads, reports.into_iter().map(line))
}

/// Who reports more slowly than promised, the slowest first.
fn slower(title: &str, devices: &[(String, v1::QualityReport)], types: &[v1::DeviceType]) -> Section {
    let mut slow: Vec<_> = devices.iter().filter(|(_, report)| report.slower > 0).collect();
    slow.sort_by(|(_, a), (_, b)| b.spacing_ratio.total_cmp(&a.spacing_ratio));
    let span = |seconds: f64| {
        let (unit_s, unit) = [(60.0, "min"), (3_600.0, "h")][usize::from(seconds >= 7_200.0)];
        format!("{:.1} {unit}", seconds / unit_s)
    };
    let line = |(name, report): &(String, v1::QualityReport)| {
        let promising = types.iter().find(|one| one.id == report.device_type);
        let promised_s = promising.map_or(0, |one| one.sample_interval_s) as f64;
        let (ratio, actual_s) = (report.spacing_ratio, promised_s * report.spacing_ratio);
        let json = json!({
            "section": title, "name": name, "device": report.device,
            "promised_s": promised_s, "actual_s": actual_s, "ratio": ratio,
        });
        let cells = [name.clone(), span(promised_s), span(actual_s), format!("{ratio:.1}")];
        (cells.to_vec(), json)
    };
    section(&format!("{title},promised,actual,ratio"), slow.into_iter().map(line))
}

fn section(heads: &str, lines: impl Iterator<Item = (Vec<String>, Json)>) -> Section {
    let (mut table, lines): Section = lines.unzip();
    table.insert(0, heads.split(',').map(str::to_owned).collect());
    (table, lines)
}

fn print(table: &[Vec<String>]) {
    println!();
    for line in table {
        let cells: String = line[1..].iter().map(|cell| format!(" {cell:>10}")).collect();
        println!("{:<44}{cells}", line[0]);
    }
}

fn html(tables: &[Vec<Vec<String>>], hours: i64) -> String {
    let escape = |text: &String| text.replace('&', "&amp;").replace('<', "&lt;");
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>Device health</title><style>body{{font:14px sans-serif;margin:2em}}\
         td{{padding:3px 9px;border-bottom:1px solid #ddd;text-align:right}}td:first-child{{text-align:left}}\
         table{{margin-top:2em}}tr:first-child{{font-weight:bold}}</style><h1>Device health, the last {hours} hours</h1>"
    );
    for table in tables {
        page += "<table>";
        for line in table {
            let cells: Vec<_> = line.iter().map(escape).collect();
            page += &format!("<tr><td>{}</tr>", cells.join("<td>"));
        }
        page += "</table>";
    }
    page
}
