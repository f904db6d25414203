//! One frame of `top`: headline, nodes, shards, job, problems. Never: where the numbers come from.
//!
//! Invariant: text of the store reaches the terminal escaped; what does not fit is cut at the bottom, never at the top.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Sparkline, Table};
use tidemark_client::v1;

use super::rates::{NodeRates, Rates};
use crate::health::{Health, ShardState, node_lag_ms};
use crate::human;
use crate::job::progress_line;
use crate::output::escape;
use crate::status::{headline, shard_counts};
use crate::words;

const NODE_COLUMNS: [(&str, u16); 13] = [
    ("NODE", 4),
    ("ZONE", 8),
    ("STATE", 9),
    ("POINTS/S", 9),
    ("QUERIES/S", 9),
    ("FAILED/S", 8),
    ("CPU", 6),
    ("MEMORY", 9),
    ("FLUSHED", 9),
    ("FREE", 9),
    ("SHARDS", 6),
    ("LEADS", 5),
    ("LAG", 9),
];

/// Draws the newest look.
pub(super) fn draw(frame: &mut Frame<'_>, rates: &Rates, trouble: Option<&str>) {
    let Some(status) = rates.status() else { return };
    let lower = lower_lines(status);
    let shards = listed_shards(status);
    let height = |lines: usize| Constraint::Length(u16::try_from(lines).unwrap_or(u16::MAX));
    let areas = Layout::vertical([
        height(3),
        Constraint::Length(2),
        height(status.nodes.len() + 2),
        height(if shards.is_empty() { 0 } else { shards.len() + 2 }),
        height(lower.len()),
        Constraint::Fill(1),
    ])
    .split(frame.area());
    frame.render_widget(Paragraph::new(upper_lines(status, rates, trouble)), areas[0]);
    draw_history(frame, areas[1], rates);
    draw_nodes(frame, areas[2], status, rates);
    draw_shards(frame, areas[3], &shards);
    frame.render_widget(Paragraph::new(lower), areas[4]);
}

fn upper_lines(status: &v1::StatusResponse, rates: &Rates, trouble: Option<&str>) -> Vec<Line<'static>> {
    let colour = if status.healthy { Color::Green } else { Color::Red };
    let first = match trouble {
        Some(trouble) => Line::from(format!("no answer just now: {}", escape(trouble))).fg(Color::Red),
        None => Line::from(vec![
            Span::from("tidemark  ").bold(),
            Span::from(escape(&headline(status))).fg(colour),
            Span::from("  (q quits)").dim(),
        ]),
    };
    let total = rates.total();
    vec![
        first,
        Line::from(format!("shards    {}", shard_counts(status))),
        Line::from(format!(
            "all nodes {} points/s, {} writes/s, {} queries/s, {} failed/s, {:.2} cores",
            count(total.points),
            count(total.writes),
            count(total.queries),
            count(total.failures),
            total.cores
        )),
    ]
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, rates: &Rates) {
    let most = usize::from(area.width);
    let skip = rates.history().len().saturating_sub(most);
    let data: Vec<u64> = rates.history().skip(skip).collect();
    if data.len() > 1 {
        frame.render_widget(
            Sparkline::default().data(&data).style(Style::new().fg(Color::Cyan)),
            area,
        );
    }
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, status: &v1::StatusResponse, rates: &Rates) {
    let rows = status.nodes.iter().enumerate().map(|(place, node)| {
        let row = Row::new(node_texts(status, node, rates.node(place)));
        if node.reachable { row } else { row.fg(Color::Red) }
    });
    let widths = NODE_COLUMNS.map(|(_, width)| Constraint::Length(width));
    let header = Row::new(NODE_COLUMNS.map(|(name, _)| name)).bold();
    frame.render_widget(Table::new(rows, widths).header(header.top_margin(1)), area);
}

fn node_texts(status: &v1::StatusResponse, node: &v1::NodeStatus, rates: Option<NodeRates>) -> Vec<String> {
    let none = || "-".to_owned();
    let place = node.node.clone().unwrap_or_default();
    let facts = |of: fn(&v1::NodeFacts) -> String| node.facts.as_ref().map_or_else(none, of);
    let rate = |of: fn(&NodeRates) -> String| rates.as_ref().map_or_else(none, of);
    let state = if node.reachable {
        words::node_state(place.state())
    } else {
        "DOWN"
    };
    vec![
        place.id.to_string(),
        if place.zone.is_empty() {
            none()
        } else {
            escape(&place.zone)
        },
        state.to_owned(),
        rate(|rates| count(rates.points)),
        rate(|rates| count(rates.queries)),
        rate(|rates| count(rates.failures)),
        rate(|rates| format!("{:.0}%", rates.cores * 100.0)),
        facts(|facts| human::bytes(facts.memory_bytes)),
        if node.reachable {
            human::bytes(node.disk_bytes)
        } else {
            none()
        },
        facts(|facts| human::bytes(facts.disk_free_bytes)),
        node.replicas.to_string(),
        node.leaders.to_string(),
        node_lag_ms(status, place.id).map_or_else(none, |ms| format!("{ms} ms")),
    ]
}

/// Shards that need a look, as rows.
fn listed_shards(status: &v1::StatusResponse) -> Vec<(ShardState, [String; 4])> {
    let health = Health::of(status);
    let row = |shard: &v1::ShardStatus, state: ShardState| {
        let replica = |one: &v1::ReplicaStatus| format!("{} {}", one.node_id, words::replica_state(one.state()));
        let replicas: Vec<_> = shard.replicas.iter().map(replica).collect();
        let leader = match shard.leader_node {
            0 => "none".to_owned(),
            node => node.to_string(),
        };
        [
            shard.shard.to_string(),
            state.word().to_owned(),
            leader,
            replicas.join(", "),
        ]
    };
    status
        .shards
        .iter()
        .map(|shard| (shard, health.shard(shard)))
        .filter(|(_, state)| *state != ShardState::Ok)
        .map(|(shard, state)| (state, row(shard, state)))
        .collect()
}

fn draw_shards(frame: &mut Frame<'_>, area: Rect, shards: &[(ShardState, [String; 4])]) {
    if shards.is_empty() {
        return;
    }
    let rows = shards.iter().map(|(state, texts)| {
        let row = Row::new(texts.clone());
        match state {
            ShardState::NoLeader => row.fg(Color::Red),
            ShardState::UnderReplicated => row.fg(Color::Yellow),
            ShardState::Moving | ShardState::Ok => row,
        }
    });
    let widths = [
        Constraint::Length(6),
        Constraint::Length(16),
        Constraint::Length(6),
        Constraint::Fill(1),
    ];
    let header = Row::new(["SHARD", "STATE", "LEADER", "REPLICAS (node, state)"]).bold();
    frame.render_widget(Table::new(rows, widths).header(header.top_margin(1)), area);
}

fn lower_lines(status: &v1::StatusResponse) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let title = |text: &'static str| Line::from(text).bold();
    if let Some(job) = &status.job {
        lines.extend([Line::default(), title("JOB"), Line::from(escape(&progress_line(job)))]);
    }
    if !status.problems.is_empty() {
        lines.extend([Line::default(), title("PROBLEMS")]);
        lines.extend(
            status
                .problems
                .iter()
                .map(|problem| Line::from(escape(problem)).fg(Color::Red)),
        );
    }
    if !status.next_steps.is_empty() {
        lines.extend([Line::default(), title("WHAT TO DO NEXT")]);
        let step = |step: &v1::NextStep| Line::from(format!("{}   {}", escape(&step.command), escape(&step.reason)));
        lines.extend(status.next_steps.iter().map(step));
    }
    lines
}

/// `950`, `12.4k`, `3.1M`.
fn count(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 9_999.5 => format!("{rate:.0}"),
        rate if rate < 999_950.0 => format!("{:.1}k", rate / 1e3),
        rate => format!("{:.1}M", rate / 1e6),
    }
}
