//! Flags that choose devices and how fresh an answer must be. Never: expanding a choice (the server does).
//!
//! Invariant: what a flag means here is what the contract's `Selector` and `Consistency` say.

use clap::Args;
use tidemark_client::v1::{self, area::Shape, consistency::Level};

use crate::cursor::cursor_text;
use crate::output::Cell;
use crate::terms::{cut_short_text, known_text, sealed_text};
use crate::time::{TsFormat, format_instant, parse_span};

/// Flags that choose devices; all that are given must hold.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SelectorArgs {
    /// Devices of this type
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub(crate) device_type: Option<String>,
    /// These devices (repeat, or separate by commas)
    #[arg(
        long = "device",
        short = 'd',
        visible_alias = "id",
        value_name = "ID",
        value_delimiter = ','
    )]
    pub(crate) devices: Vec<String>,
    /// Devices with this tag, with one of these values (repeat: every tag must hold)
    #[arg(long = "tag", value_name = "KEY=VALUE[,VALUE]", value_parser = parse_tag)]
    pub(crate) tags: Vec<v1::TagMatcher>,
    /// Not devices with this tag, with one of these values (repeat: none may hold)
    #[arg(long = "not-tag", value_name = "KEY=VALUE[,VALUE]", value_parser = parse_tag)]
    pub(crate) not_tags: Vec<v1::TagMatcher>,
    /// Devices between two meridians and two parallels, degrees
    #[arg(long = "box", value_name = "W,S,E,N", value_parser = parse_box, allow_hyphen_values = true)]
    pub(crate) bounding_box: Option<v1::Area>,
    /// Devices within a distance of a place, degrees and metres
    #[arg(long, value_name = "LAT,LON,METRES", value_parser = parse_circle, allow_hyphen_values = true, conflicts_with = "bounding_box")]
    pub(crate) near: Option<v1::Area>,
    /// Every device, but for those of --not-tag
    #[arg(long, conflicts_with_all = ["device_type", "devices", "tags", "bounding_box", "near"])]
    pub(crate) all_devices: bool,
}

impl SelectorArgs {
    /// True where no flag is given.
    pub(crate) fn is_empty(&self) -> bool {
        self.selector() == v1::Selector::default()
    }

    /// In the words of the contract.
    pub(crate) fn selector(&self) -> v1::Selector {
        v1::Selector {
            device_ids: self.devices.clone(),
            device_type: self.device_type.clone().unwrap_or_default(),
            tags: self.tags.clone(),
            area: self.bounding_box.or(self.near),
            any_of: Vec::new(),
            none_of: self.not_tags.iter().map(with_tag).collect(),
            everything: self.all_devices,
        }
    }
}

fn with_tag(tag: &v1::TagMatcher) -> v1::Selector {
    v1::Selector {
        tags: vec![tag.clone()],
        ..v1::Selector::default()
    }
}

/// `key=value`, split at the first `=`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form KEY=VALUE")),
    }
}

pub(crate) fn parse_tag(text: &str) -> Result<v1::TagMatcher, String> {
    let (key, values) = parse_pair(text)?;
    let values: Vec<_> = values.split(',').map(str::to_owned).collect();
    if values.iter().any(String::is_empty) {
        return Err(format!("`{text}` has an empty value"));
    }
    Ok(v1::TagMatcher { key, values })
}

fn parse_box(text: &str) -> Result<v1::Area, String> {
    let [west_deg, south_deg, east_deg, north_deg] = parse_numbers(text, "W,S,E,N")?;
    let shape = Shape::Box(v1::BoundingBox {
        west_deg,
        south_deg,
        east_deg,
        north_deg,
    });
    Ok(v1::Area { shape: Some(shape) })
}

fn parse_circle(text: &str) -> Result<v1::Area, String> {
    let [latitude_deg, longitude_deg, radius_m] = parse_numbers(text, "LAT,LON,METRES")?;
    let shape = Shape::Circle(v1::Circle {
        latitude_deg,
        longitude_deg,
        radius_m,
    });
    Ok(v1::Area { shape: Some(shape) })
}

/// So many numbers, separated by commas.
fn parse_numbers<const N: usize>(text: &str, form: &str) -> Result<[f64; N], String> {
    let wrong = || format!("`{text}` is not of the form {form}");
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(wrong)
}

/// How fresh an answer must be: `linearizable`, `bounded:SPAN` or `any`.
pub(crate) fn parse_consistency(text: &str) -> Result<v1::Consistency, String> {
    let level = match text.split_once(':') {
        None if text == "linearizable" => Level::Linearizable(v1::Linearizable {}),
        None if text == "any" => Level::Any(v1::AnyReplica {}),
        Some(("bounded", span)) => {
            let max_lag_ms = parse_span(span)? / 1_000_000;
            if max_lag_ms == 0 {
                return Err("a bound is at least 1ms".to_owned());
            }
            Level::Bounded(v1::Bounded { max_lag_ms })
        }
        _ => {
            return Err(format!(
                "`{text}` is not one of linearizable, bounded:SPAN (bounded:5s), any"
            ));
        }
    };
    Ok(v1::Consistency { level: Some(level) })
}

/// What the server says about a whole answer.
pub(crate) fn summary_cells(summary: Option<&v1::AnswerSummary>) -> Vec<(&'static str, Cell)> {
    let Some(summary) = summary else { return Vec::new() };
    let level = match summary.consistency() {
        v1::ConsistencyLevel::Linearizable => "linearizable",
        v1::ConsistencyLevel::Bounded => "bounded",
        v1::ConsistencyLevel::Any => "any",
        v1::ConsistencyLevel::Unspecified => "unstated",
    };
    let mut cells = vec![
        ("consistency", Cell::text(level)),
        ("lag_ms", Cell::Int(summary.lag_ms)),
        ("devices", Cell::Uint(summary.devices)),
        ("rows", Cell::Uint(summary.rows)),
        ("limited", Cell::Bool(summary.limited)),
        ("points_read", Cell::Uint(summary.points_read)),
        ("next_cursor", Cell::some_text(&cursor_text(&summary.next_cursor))),
        (
            "cut_short",
            summary
                .cut_short
                .as_ref()
                .map_or(Cell::None, |cut| Cell::Text(cut_short_text(cut))),
        ),
        (
            "sealed",
            by_type(&summary.sealed, |sealed| {
                format_instant(sealed.before_ns, TsFormat::Rfc3339)
            }),
        ),
        (
            "sealed_rollup_s",
            by_type(&summary.sealed, |sealed| sealed.rollup_s.to_string()),
        ),
    ];
    if summary.known_at_ns != 0 {
        cells.extend([
            ("known_at", Cell::Time(summary.known_at_ns)),
            ("received_later", Cell::Uint(summary.received_later)),
            ("replaced_later", Cell::Uint(summary.replaced_later)),
        ]);
    }
    cells
}

/// Something of each type with a time whose raw points are gone.
fn by_type(sealed: &[v1::SealedTime], text: impl Fn(&v1::SealedTime) -> String) -> Cell {
    let pairs = sealed.iter().map(|sealed| (sealed.device_type.clone(), text(sealed)));
    match sealed.is_empty() {
        true => Cell::None,
        false => Cell::Pairs(pairs.collect()),
    }
}

/// The same in one line for people.
pub(crate) fn summary_line(summary: Option<&v1::AnswerSummary>, noun: &str) -> String {
    let Some(summary) = summary else { return String::new() };
    let mut line = format!("{} {noun} of {} devices", summary.rows, summary.devices);
    match summary.consistency() {
        v1::ConsistencyLevel::Bounded | v1::ConsistencyLevel::Any => {
            line += &match summary.lag_ms {
                ..0 => ", nobody knows how far behind".to_owned(),
                lag_ms => format!(", up to {lag_ms} ms behind"),
            };
        }
        v1::ConsistencyLevel::Linearizable | v1::ConsistencyLevel::Unspecified => {}
    }
    if let Some(known) = known_text(summary) {
        line += "; ";
        line += &known;
    }
    if summary.limited {
        line += ", cut short by --limit";
    }
    if let Some(cut) = &summary.cut_short {
        line += "; ";
        line += &cut_short_text(cut);
    }
    for sealed in &summary.sealed {
        line += "; ";
        line += &sealed_text(sealed);
    }
    if !summary.next_cursor.is_empty() {
        line += "; goes on with the same command and --cursor ";
        line += &cursor_text(&summary.next_cursor);
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn tags_and_consistency() {
        let tag = parse_tag("app:flood=1,2").unwrap();
        assert_eq!(
            (tag.key.as_str(), tag.values.as_slice()),
            ("app:flood", &["1".to_owned(), "2".to_owned()][..])
        );
        for text in ["town", "=x", "town=", "town=a,,b"] {
            assert!(parse_tag(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_consistency("bounded:5s").unwrap().level,
            Some(Level::Bounded(v1::Bounded { max_lag_ms: 5000 }))
        );
        assert_eq!(
            parse_consistency("any").unwrap().level,
            Some(Level::Any(v1::AnyReplica {}))
        );
        for text in ["bounded", "bounded:", "bounded:1ns", "strong", "any:5s", ""] {
            assert!(parse_consistency(text).is_err(), "{text}");
        }
    }

    #[test]
    fn time_without_raw_points_is_told() {
        let sealed = |rollup_s: u32| v1::AnswerSummary {
            sealed: vec![v1::SealedTime {
                device_type: "tank".into(),
                before_ns: 86_400_000_000_000,
                rollup_s,
            }],
            ..v1::AnswerSummary::default()
        };
        for (rollup_s, expected) in [
            (0, "nothing of that time is in the answer"),
            (3_600, "that time is answered by rollups of 3600 s"),
        ] {
            let expected = format!("; RAW POINTS GONE of tank before 1970-01-02T00:00:00Z, {expected}");
            let line = summary_line(Some(&sealed(rollup_s)), "rows");
            assert_eq!(line, format!("0 rows of 0 devices{expected}"));
        }
        let cells = summary_cells(Some(&sealed(3_600)));
        let cell = |name: &str| cells.iter().find(|(of, _)| *of == name).map(|(_, cell)| cell.clone());
        let pairs = |text: &str| Some(Cell::Pairs([("tank".to_owned(), text.to_owned())].into()));
        assert_eq!(cell("sealed"), pairs("1970-01-02T00:00:00Z"));
        assert_eq!(cell("sealed_rollup_s"), pairs("3600"));
    }

    #[test]
    fn how_far_behind() {
        let line = |level, lag_ms| {
            let summary = v1::AnswerSummary {
                consistency: level as i32,
                lag_ms,
                ..v1::AnswerSummary::default()
            };
            summary_line(Some(&summary), "rows")
        };
        for (level, lag_ms, expected) in [
            (v1::ConsistencyLevel::Linearizable, 0, "0 rows of 0 devices"),
            (
                v1::ConsistencyLevel::Bounded,
                7,
                "0 rows of 0 devices, up to 7 ms behind",
            ),
            (
                v1::ConsistencyLevel::Any,
                -1,
                "0 rows of 0 devices, nobody knows how far behind",
            ),
        ] {
            assert_eq!(line(level, lag_ms), expected);
        }
    }
}
