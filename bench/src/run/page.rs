//! The report as one HTML page: table, bars, curves over time, curves over size; nothing is loaded from anywhere. Never
//! here: measuring. Invariant: what is text stays text.

use std::collections::BTreeMap;

use super::chart::{Axes, Curve, bars, escaped, lines};
use super::figures::{Line, Outcome, PhaseFigures, Played, number};

/// Figures that deserve a bar chart.
const BARRED: [&str; 8] = [
    "server CPU a point",
    "points a second",
    "disk a point",
    "write amplification",
    "ack p99",
    "peak memory",
    ": server CPU",
    "first right answer after the start",
];
/// Sizes that make a curve.
const SIZES_MIN: usize = 3;

/// Points by chart and curve.
type Charts = BTreeMap<String, BTreeMap<String, Vec<(f64, f64)>>>;

pub(crate) fn page(outcome: &Outcome) -> String {
    let mut html = String::from(
        "<!doctype html><meta charset='utf-8'><meta name='viewport' content='width=device-width'><style>\
         body{font:14px sans-serif;max-width:1000px;margin:2em auto;color:#333}table{border-collapse:collapse}\
         td,th{padding:2px 10px;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}\
         .best{font-weight:bold}.over{color:#c00}svg{margin:8px 0}</style>\n",
    );
    let title = escaped(&outcome.scenario);
    html.push_str(&format!(
        "<title>{title}</title><h1>{title}</h1><p>{}</p>\n",
        escaped(&outcome.about)
    ));
    html.push_str(&format!(
        "<p>{}; write of 4 KiB and fsync: p50 {} ms, p99 {} ms. {}.<br><code>{}</code></p>\n<ul>",
        escaped(&outcome.machine),
        number(outcome.fsync_p50_ms),
        number(outcome.fsync_p99_ms),
        escaped(&outcome.date),
        escaped(&outcome.command)
    ));
    for played in &outcome.played {
        html.push_str(&format!(
            "<li>round {}: {}, {}; {} devices, {} series",
            played.round,
            escaped(&played.label),
            escaped(&played.version),
            played.devices,
            played.series
        ));
        let notes = played.phases.iter().filter(|phase| !phase.note.is_empty());
        notes.for_each(|phase| html.push_str(&format!("; {}: {}", escaped(&phase.phase), escaped(&phase.note))));
        html.push_str("</li>\n");
    }
    html.push_str("</ul>\n");
    let all = outcome.lines();
    html.push_str(&table(outcome, &all));
    html.push_str(&growth(outcome).concat());
    for line in all
        .iter()
        .filter(|line| BARRED.iter().any(|end| line.name.ends_with(end)))
    {
        let named = outcome.columns().into_iter().zip(&line.values);
        let shown: Vec<(String, f64)> = named.filter_map(|(name, value)| Some((name, (*value)?))).collect();
        html.push_str(&bars(&format!("{} [{}]", line.name, line.unit), &shown, line.want));
    }
    html.push_str(&over_time(outcome));
    html
}

fn table(outcome: &Outcome, all: &[Line]) -> String {
    let mut html = String::from("<table><tr><th>figure</th>");
    outcome
        .columns()
        .iter()
        .for_each(|column| html.push_str(&format!("<th>{}</th>", escaped(column))));
    html.push_str("<th>wanted</th></tr>\n");
    for line in all {
        html.push_str(&format!("<tr><td>{} {}</td>", escaped(&line.name), escaped(line.unit)));
        for value in &line.values {
            let class = match (value, line.want) {
                (Some(value), Some(want)) if *value > want => " class='over'",
                (Some(_), Some(_)) => " class='best'",
                _ => "",
            };
            html.push_str(&format!("<td{class}>{}</td>", value.map_or_else(String::new, number)));
        }
        html.push_str(&format!(
            "<td>{}</td></tr>\n",
            line.want.map_or_else(String::new, |want| format!("≤ {}", number(want)))
        ));
    }
    html.push_str("</table>\n");
    html
}

/// The same figure at several sizes, where a run has such: by points that were stored, or by devices.
pub(crate) fn growth(outcome: &Outcome) -> Vec<String> {
    let (mut by_points, mut by_devices) = (Charts::new(), Charts::new());
    for played in &outcome.played {
        for phase in &played.phases {
            // "load 3" is the third of its like.
            let (like, number) = phase.phase.rsplit_once(' ').unwrap_or((&phase.phase, ""));
            let one_of_many = number.parse::<u32>().is_ok();
            for figure in &phase.figures {
                let cost = figure.what.ends_with("server CPU a point")
                    || figure.what.ends_with(": server CPU")
                    || figure.what == "disk a point";
                if !cost {
                    continue;
                }
                let name = format!("{like}: {}, {}", figure.what, figure.unit);
                let into = |all: &mut Charts, x: f64| {
                    all.entry(name.clone())
                        .or_default()
                        .entry(played.label.clone())
                        .or_default()
                        .push((x, figure.value));
                };
                if one_of_many {
                    into(&mut by_points, phase.points as f64);
                } else {
                    into(&mut by_devices, played.devices as f64);
                }
            }
        }
    }
    by_devices.retain(|_, curves| curves.values().any(|points| distinct(points) >= SIZES_MIN));
    let mut charts = Vec::new();
    for (x, all) in [("points stored", by_points), ("devices", by_devices)] {
        for (title, curves) in all {
            let curve = |(name, points)| Curve {
                name,
                points: sorted(points),
            };
            let curves: Vec<Curve> = curves.into_iter().map(curve).collect();
            let axes = Axes {
                title: &title,
                x,
                y: "",
                log_x: true,
            };
            charts.push(lines(axes, &curves));
        }
    }
    charts
}

fn sorted(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn distinct(points: &[(f64, f64)]) -> usize {
    let mut all: Vec<u64> = points.iter().map(|(x, _)| x.to_bits()).collect();
    all.sort_unstable();
    all.dedup();
    all.len()
}

/// Memory and processor of the first round, and acknowledgements of phases that have them.
fn over_time(outcome: &Outcome) -> String {
    let first: Vec<&Played> = outcome.played.iter().filter(|played| played.round == 1).collect();
    let curves = |of: &dyn Fn(&Played) -> Vec<(f64, f64)>| -> Vec<Curve> {
        first
            .iter()
            .map(|played| Curve {
                name: outcome.column(played),
                points: of(played),
            })
            .collect()
    };
    let memory = curves(&|played| {
        played
            .samples
            .iter()
            .map(|s| (s.second, s.memory_bytes as f64 / f64::from(1 << 20)))
            .collect()
    });
    let cores = curves(&|played| {
        // Over four looks, so that the grain of the kernel's clock does not show.
        let pairs = played.samples.iter().zip(played.samples.iter().skip(4));
        pairs
            .map(|(a, b)| (b.second, (b.cpu_s - a.cpu_s) / (b.second - a.second).max(0.001)))
            .collect()
    });
    let time = |title, y| Axes {
        title,
        x: "seconds since the start",
        y,
        log_x: false,
    };
    let mut html = lines(time("memory", "MiB"), &memory) + &lines(time("processor", "cores"), &cores);
    let mut names: Vec<&str> = Vec::new();
    for phase in first.iter().flat_map(|played| &played.phases) {
        if !phase.acknowledgements.is_empty() && !names.contains(&phase.phase.as_str()) {
            names.push(&phase.phase);
        }
    }
    for name in names {
        let of = |played: &&Played| -> Option<Curve> {
            let phase: &PhaseFigures = played.phases.iter().find(|phase| phase.phase == name)?;
            Some(Curve {
                name: outcome.column(played),
                points: phase.acknowledgements.clone(),
            })
        };
        let curves: Vec<Curve> = first.iter().filter_map(of).collect();
        let axes = Axes {
            title: &format!("{name}: acknowledgement"),
            x: "seconds of the phase",
            y: "ms",
            log_x: false,
        };
        html.push_str(&lines(axes, &curves));
    }
    html
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::outcome;
    use super::*;

    #[test]
    fn a_page_shows_every_figure_and_loads_nothing() {
        let html = page(&outcome());
        assert!(
            html.contains("<td>load: CPU a point µs</td><td class='over'>1.50</td>"),
            "{html}"
        );
        assert!(html.contains("1 &lt;2&gt;") && !html.contains("<2>"));
        assert!(!html.contains(" src=") && !html.contains(" href="));
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    }

    #[test]
    fn sizes_make_curves() {
        let mut outcome = outcome();
        let phase = outcome.played[0].phases[0].clone();
        let step = |n: u64| {
            let mut step = PhaseFigures {
                phase: format!("load {n}"),
                points: 1_000_000 * n,
                ..phase.clone()
            };
            step.add("server CPU a point", "µs", 0.3);
            step
        };
        outcome.played[0].phases = (1..=3).map(step).collect();
        assert!(growth(&outcome).concat().contains("load: server CPU a point, µs"));
    }
}
