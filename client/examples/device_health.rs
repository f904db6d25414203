//! What a device office asks in the morning: how well did the fleet keep its promises, by type, town, vendor and department, which
//! devices are worst, which report more slowly than they promise, and what is out of warranty.
//!
//! `cargo run --example device_health [table|json|html] [HOURS] [ENDPOINTS]`: the last HOURS (24) until now.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::Context as _;
use tidemark_client::{Client, v1};

const HOUR_NS: i64 = 3_600_000_000_000;
const WORST: u64 = 20;
/// What devices are grouped by, each by itself.
const TAGS: [&str; 5] = ["town", "vendor", "vendor_support", "department", "warranty"];

/// A heading, and the reports below it by name.
type Section = (&'static str, Vec<(String, v1::QualityReport)>);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let form = args.next().unwrap_or_else(|| "table".to_owned());
    let hours = args.next().unwrap_or_else(|| "24".to_owned());
    let hours: i64 = hours.parse().context("how many hours?")?;
    let endpoints = args.next().or_else(|| std::env::var("TIDEMARK_ENDPOINT").ok());
    let endpoints = endpoints.unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let client = Client::connect(endpoints.split(',')).await?;
    let sections = report(&client, hours).await?;
    match form.as_str() {
        "json" => println!("{}", json(&sections)),
        "html" => println!("{}", html(&sections, hours)),
        "table" => sections.iter().for_each(print),
        other => anyhow::bail!("{other:?} is none of table, json, html"),
    }
    Ok(())
}

async fn report(client: &Client, hours: i64) -> anyhow::Result<Vec<Section>> {
    let now_ns = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as i64;
    let mut request = v1::GetHealthRequest {
        selector: Some(v1::Selector {
            everything: true,
            ..Default::default()
        }),
        from_ns: now_ns - hours * HOUR_NS,
        to_ns: now_ns,
        ..Default::default()
    };
    let grouped = v1::GetHealthRequest {
        grouping: Some(v1::Grouping {
            tags: TAGS.map(str::to_owned).to_vec(),
        }),
        ..request.clone()
    };
    // Asked once, in the smallest groups; all others are sums of these.
    let groups = reports(client, grouped).await?;
    let by = |key: &dyn Fn(&v1::QualityReport) -> String| {
        let mut sums: BTreeMap<String, v1::QualityReport> = BTreeMap::new();
        for group in &groups {
            add(sums.entry(key(group)).or_default(), group);
        }
        sums.into_iter().collect::<Vec<_>>()
    };
    let mut sections = vec![
        ("the fleet", by(&|_| "all".to_owned())),
        ("type", by(&|group| group.device_type.clone())),
    ];
    for tag in TAGS {
        sections.push((tag, by(&|group| group.tags.get(tag).cloned().unwrap_or_default())));
    }
    request.worst = WORST;
    let worst = reports(client, request).await?;
    let named = |report: v1::QualityReport| (format!("{} {}", report.device, report.device_type), report);
    sections.push(("the worst devices", worst.into_iter().map(named).collect()));
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
    sum.under_maintenance += other.under_maintenance;
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

const HEADS: [&str; 6] = ["devices", "offline", "complete", "in time", "accurate", "repeated"];

fn cells(report: &v1::QualityReport) -> [String; 6] {
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let [complete, timely, accurate] = shares(report).map(percent);
    [
        report.devices.to_string(),
        report.offline.to_string(),
        complete,
        timely,
        accurate,
        report.duplicates.to_string(),
    ]
}

fn print((title, lines): &Section) {
    let row = |name: &str, cells: [String; 6], remark: &str| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>10}")).collect();
        println!("{name:<44}{cells}  {remark}");
    };
    println!();
    row(title, HEADS.map(str::to_owned), "");
    for (name, report) in lines {
        row(name, cells(report), &remark(report));
    }
}

fn json(sections: &[Section]) -> String {
    let line = |title: &str, (name, report): &(String, v1::QualityReport)| {
        let [completeness, timeliness, accuracy] = shares(report);
        serde_json::json!({
            "section": title, "name": name, "devices": report.devices, "offline": report.offline,
            "completeness": completeness, "timeliness": timeliness, "accuracy": accuracy,
            "repeated": report.duplicates, "low_battery": low_batteries(report), "remark": remark(report),
        })
    };
    let each = sections
        .iter()
        .flat_map(|(title, lines)| lines.iter().map(move |one| line(title, one)));
    format!("{:#}", each.collect::<serde_json::Value>())
}

fn html(sections: &[Section], hours: i64) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>Device health</title><style>body{{font:14px sans-serif;margin:2em}}\
         td,th{{padding:3px 9px;border-bottom:1px solid #ddd;text-align:right}}td:first-child{{text-align:left}}</style>\
         <h1>Device health, the last {hours} hours</h1>"
    );
    for (title, lines) in sections {
        page += &format!("<h2>{title}</h2><table><tr><th><th>{}<th></tr>", HEADS.join("<th>"));
        for (name, report) in lines {
            let (name, remark) = (escape(name), escape(&remark(report)));
            page += &format!("<tr><td>{name}<td>{}<td>{remark}</tr>", cells(report).join("<td>"));
        }
        page += "</table>";
    }
    page
}
