//! What a device office asks in the morning: how well did the fleet keep its promises, by type, town, vendor and department, which
//! devices are worst, which report more slowly than they promise, and what is out of warranty.
//!
//! `cargo run --example device_health [table|json|html] [HOURS] [ENDPOINTS]`: the last HOURS (24) until now.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::SystemTime;

use anyhow::Context as _;
use tidemark_client::{Client, v1};

const HOUR_NS: i64 = 3_600_000_000_000;
const WORST: u64 = 20;

/// One line of a report: a name, and the figures that people look at.
struct Line {
    name: String,
    devices: u64,
    offline: u64,
    completeness: Option<f64>,
    timeliness: Option<f64>,
    accuracy: Option<f64>,
    remark: String,
}

/// A heading, and the lines below it.
type Section = (&'static str, Vec<Line>);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let form = args.next().unwrap_or_else(|| "table".to_owned());
    let hours: i64 = args
        .next()
        .map_or(Ok(24), |hours| hours.parse())
        .context("how many hours?")?;
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
    let ask = |tags: &[&str], across_types, worst| {
        let request = v1::GetQualityRequest {
            selector: Some(everything()),
            from_ns: now_ns - hours * HOUR_NS,
            to_ns: now_ns,
            grouping: (worst == 0).then(|| v1::Grouping {
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            }),
            across_types,
            worst,
            ..Default::default()
        };
        reports(client, request)
    };
    Ok(vec![
        ("The fleet", lines(ask(&[], true, 0).await?)),
        ("By type", lines(ask(&[], false, 0).await?)),
        ("By town", lines(ask(&["town"], true, 0).await?)),
        ("By vendor", lines(ask(&["vendor", "vendor_support"], true, 0).await?)),
        ("By department", lines(ask(&["department"], true, 0).await?)),
        ("In and out of warranty", lines(ask(&["warranty"], true, 0).await?)),
        ("The worst devices", lines(ask(&[], false, WORST).await?)),
    ])
}

/// Every device: those that are not nowhere.
fn everything() -> v1::Selector {
    let mut nowhere = v1::Selector::default();
    nowhere.tags.push(v1::TagMatcher {
        key: "nowhere".to_owned(),
        values: vec!["yes".to_owned()],
    });
    v1::Selector {
        none_of: vec![nowhere],
        ..Default::default()
    }
}

async fn reports(client: &Client, request: v1::GetQualityRequest) -> anyhow::Result<Vec<v1::QualityReport>> {
    let (messages, _) = client.get_quality(request).await?.collect().await?;
    Ok(messages.into_iter().flat_map(|message| message.reports).collect())
}

fn lines(reports: Vec<v1::QualityReport>) -> Vec<Line> {
    // A share of nothing is no share.
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let line = |report: v1::QualityReport| {
        let mut tags: Vec<_> = report
            .tags
            .iter()
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
        tags.sort();
        let names = [report.device.clone(), report.device_type.clone(), tags.join(", ")];
        let name: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let doubtful = report.points_fail + report.points_suspect;
        Line {
            name: if name.is_empty() {
                "all".to_owned()
            } else {
                name.join(" ")
            },
            devices: report.devices,
            offline: report.offline,
            completeness: share(report.slots_filled, report.slots_expected),
            timeliness: share(report.points_in_time, report.points_timed),
            accuracy: share(report.points.saturating_sub(doubtful), report.points),
            remark: remark(&report),
        }
    };
    reports.into_iter().map(line).collect()
}

/// What the figures do not say: how often a device reports, or how many devices do so badly.
fn remark(report: &v1::QualityReport) -> String {
    match report.freshness() {
        v1::Freshness::Slower => return format!("{:.1} times slower than promised", report.spacing_ratio),
        v1::Freshness::Stalled => return "silent".to_owned(),
        v1::Freshness::Never => return "never heard".to_owned(),
        _ => {}
    }
    if !report.device.is_empty() {
        return String::new();
    }
    format!(
        "{} slower, {} silent, {} never heard",
        report.slower, report.stalled, report.never
    )
}

const HEADS: [&str; 5] = ["devices", "offline", "complete", "in time", "accurate"];

impl Line {
    fn cells(&self) -> [String; 5] {
        let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.2} %", share * 100.0));
        let [complete, timely, accurate] = [self.completeness, self.timeliness, self.accuracy].map(percent);
        [
            self.devices.to_string(),
            self.offline.to_string(),
            complete,
            timely,
            accurate,
        ]
    }
}

fn print((title, lines): &Section) {
    let row = |name: &str, cells: [String; 5], remark: &str| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>10}")).collect();
        println!("{name:<44}{cells}  {remark}");
    };
    println!();
    row(title, HEADS.map(str::to_owned), "");
    for line in lines {
        row(&line.name, line.cells(), &line.remark);
    }
}

fn json(sections: &[Section]) -> String {
    let line = |title: &str, line: &Line| {
        serde_json::json!({
            "section": title, "name": line.name, "devices": line.devices, "offline": line.offline, "remark": line.remark,
            "completeness": line.completeness, "timeliness": line.timeliness, "accuracy": line.accuracy,
        })
    };
    let each = sections
        .iter()
        .flat_map(|(title, lines)| lines.iter().map(move |one| line(title, one)));
    format!("{:#}", each.collect::<serde_json::Value>())
}

/// A page without scripts.
fn html(sections: &[Section], hours: i64) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>Device health</title><style>body{{font:14px sans-serif;margin:2em}}\
         td,th{{padding:3px 9px;border-bottom:1px solid #ddd;text-align:right}}td:first-child{{text-align:left}}</style>\
         <h1>Device health, the last {hours} hours</h1>"
    );
    for (title, lines) in sections {
        page += &format!("<h2>{title}</h2><table><tr><th><th>{}<th></tr>", HEADS.join("<th>"));
        for line in lines {
            let (name, remark) = (escape(&line.name), escape(&line.remark));
            page += &format!("<tr><td>{name}<td>{}<td>{remark}</tr>", line.cells().join("<td>"));
        }
        page += "</table>";
    }
    page
}
