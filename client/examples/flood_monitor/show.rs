//! How a gauge is told: a line for people, JSON for programs. Pure. Never here: what is dangerous.

use serde_json::{Value as Json, json};
use tidemark_client::v1;

use super::{Gauge, Window};

/// For programs, the page among them.
pub(crate) fn json(gauge: &Gauge) -> Json {
    json!({
        "device": gauge.id, "level": gauge.level, "value": gauge.value, "unit": gauge.unit, "stale": gauge.stale,
        "observed_at_ns": gauge.observed_at_ns, "is_summed": gauge.is_summed, "interval_s": gauge.interval_s,
        "place": gauge.place.map(|place| [place.longitude_deg, place.latitude_deg]),
        "alert": gauge.alert.as_ref().map(alert),
        "sum_1h": gauge.sums[1], "sum_3h": gauge.sums[2], "windows": gauge.windows[..2],
    })
}

/// What names an alert, and who has seen it: nobody, where nobody said so.
fn alert(alert: &v1::Alert) -> Json {
    json!({
        "profile": alert.profile, "began_ns": alert.began_ns.to_string(), "by": alert.acknowledged_by,
        "seen_ns": alert.acknowledged_at_ns, "note": alert.acknowledged_note,
    })
}

/// For people. A sum of which readings are missing is a lower bound; no sum is not zero.
pub(crate) fn line(gauge: &Gauge, now_ns: i64) -> String {
    let sum = |sum: Option<Window>| match sum {
        Some((_, sum, coverage)) if coverage < 1.0 => format!(">= {sum:.1} ({:.0} %)", coverage * 100.0),
        Some((_, sum, _)) => format!("{sum:.1}"),
        None => "-".to_owned(),
    };
    let [_, hour, three] = gauge.sums.map(sum);
    let value = gauge.value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let age_s = gauge
        .value
        .map_or(0, |_| (now_ns - gauge.observed_at_ns) / 1_000_000_000);
    let stale = if gauge.stale { "STALE" } else { "" };
    let Gauge { id, unit, level, .. } = gauge;
    format!("{level:<12}{id:<24}{value:>8} {unit:<4}{age_s:>8} s {stale:<6}{hour:>16}{three:>16}")
}

/// A change of an alert.
pub(crate) fn step(step: &v1::AlertStep) -> Json {
    let level = |level: &str| {
        if level.is_empty() {
            "normal".to_owned()
        } else {
            level.to_owned()
        }
    };
    let reason = step
        .reason()
        .as_str_name()
        .trim_start_matches("ALERT_REASON_")
        .to_lowercase();
    json!({
        "device": step.device, "profile": step.profile, "before": level(&step.level_before), "level": level(&step.level),
        "value": step.value, "stale": step.stale, "reason": reason.replace('_', " "),
        "since_ns": step.since_ns, "raised_at_ns": step.raised_at_ns, "by": step.by, "note": step.note,
    })
}
