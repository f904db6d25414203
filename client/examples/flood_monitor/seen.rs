//! Which alerts are looked at, and that somebody has seen one: the store keeps who said so. Never here: HTTP, or the order of gauges.

use serde_json::Value as Json;
use tidemark_client::{Client, v1};

/// Who has seen an alert that nobody named.
const SOMEBODY: &str = "control-room";

/// The most serious alert of each device.
pub(crate) fn most_serious() -> v1::ListAlertsRequest {
    v1::ListAlertsRequest {
        by_device: true,
        ..Default::default()
    }
}

/// Acknowledges the alert that the page names as it was given it, in the name of `by`; says what the store refuses.
pub(crate) async fn acknowledge(client: Client, asked: Json) -> Result<(), String> {
    let word = |name: &str| asked[name].as_str().unwrap_or_default().trim().to_owned();
    // Text, as a number of a page has 53 bits.
    let began_ns = word("began_ns").parse().map_err(|_| "no alert is named".to_owned())?;
    let by = Some(word("by")).filter(|by| !by.is_empty());
    let request = v1::AnswerAlertsRequest {
        alerts: vec![v1::AlertName {
            device: word("device"),
            profile: word("profile"),
            began_ns,
        }],
        by: by.unwrap_or_else(|| SOMEBODY.to_owned()),
        ..Default::default()
    };
    let answered = client.answer_alerts(request).await;
    answered
        .map(drop)
        .map_err(|error| format!("{}: {}", error.reason, error.message))
}
