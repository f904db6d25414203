//! Figures as a table: for a terminal, and in Markdown. Never here: measuring. Invariant: both hold the same lines.

use anyhow::Result;

use super::figures::{Line, Outcome, number};
use crate::report;

/// Prints the table, or all figures as JSON.
pub(crate) fn print(json: bool, outcome: &Outcome) -> Result<()> {
    let columns = header(outcome);
    let header: Vec<&str> = columns.iter().map(String::as_str).collect();
    report::print(json, outcome, &header, outcome.lines().iter().map(cells).collect())
}

/// The table with what it comes from above it.
pub(crate) fn markdown(outcome: &Outcome) -> String {
    let mut text = format!(
        "# {}\n\n{}\n\nMachine: {}; write of 4 KiB and fsync: p50 {} ms, p99 {} ms. {}. `{}`\n\n",
        outcome.scenario,
        outcome.about,
        outcome.machine,
        number(outcome.fsync_p50_ms),
        number(outcome.fsync_p99_ms),
        outcome.date,
        outcome.command
    );
    let mut versions: Vec<String> = outcome
        .played
        .iter()
        .map(|p| format!("{}: {}, {} devices, {} series", p.label, p.version, p.devices, p.series))
        .collect();
    versions.dedup();
    versions.sort();
    versions.dedup();
    text.push_str(&versions.join("; "));
    text.push_str("\n\n");
    let header = header(outcome);
    text.push_str(&format!(
        "| {} |\n|{}\n",
        header.join(" | "),
        " --- |".repeat(header.len())
    ));
    for line in outcome.lines() {
        text.push_str(&format!("| {} |\n", cells(&line).join(" | ")));
    }
    text
}

fn header(outcome: &Outcome) -> Vec<String> {
    let mut header = vec!["figure".to_owned()];
    header.extend(outcome.columns());
    header.push("wanted".to_owned());
    header
}

fn cells(line: &Line) -> Vec<String> {
    let name = if line.unit.is_empty() {
        line.name.clone()
    } else {
        format!("{}, {}", line.name, line.unit)
    };
    let mut cells = vec![name];
    cells.extend(line.values.iter().map(|value| value.map_or_else(String::new, number)));
    cells.push(line.want.map_or_else(String::new, |want| format!("≤ {}", number(want))));
    cells
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::outcome;
    use super::*;

    #[test]
    fn markdown_has_a_line_a_figure() {
        let text = markdown(&outcome());
        assert!(text.contains("| figure | a | b | wanted |"), "{text}");
        assert!(
            text.contains("| load: CPU a point, µs | 1.50 | 5.50 | ≤ 0.35 |"),
            "{text}"
        );
    }
}
