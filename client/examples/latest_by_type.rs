//! What every device of a type says now, in one town or everywhere, and which of them are silent.
//!
//! `cargo run --example latest_by_type TYPE [TOWN] [ENDPOINTS]`; the town `-` means every town.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use anyhow::Context as _;
use tidemark_client::{Client, latest_rows, v1};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let device_type = args.next().context("which device type?")?;
    let town = args.next().filter(|town| town != "-");
    let endpoints = args.next().or_else(|| std::env::var("TIDEMARK_ENDPOINT").ok());
    let endpoints = endpoints.unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let client = Client::connect(endpoints.split(',')).await?;

    let tags = town.into_iter().map(|town| v1::TagMatcher {
        key: "town".to_owned(),
        values: vec![town],
    });
    let request = v1::GetLatestRequest {
        selector: Some(v1::Selector {
            device_type,
            tags: tags.collect(),
            ..Default::default()
        }),
        // As a table: less to send and to read than device by device.
        in_columns: true,
        // A dashboard can live with a replica that is two seconds behind.
        consistency: Some(v1::Consistency {
            level: Some(v1::consistency::Level::Bounded(v1::Bounded { max_lag_ms: 2000 })),
        }),
        ..Default::default()
    };
    let (mut fresh, mut stale, mut silent) = (0, 0, 0);
    let mut answer = client.get_latest(request).await?;
    while let Some(message) = answer.next().await {
        let message = message?;
        for row in latest_rows(&message) {
            let Some(newest) = row.newest else {
                silent += 1;
                println!("{:<32} never reported", row.device);
                continue;
            };
            let age_ns = u64::try_from(message.evaluated_at_ns - newest.observed_at_ns).unwrap_or(0);
            let age_s = Duration::from_nanos(age_ns).as_secs();
            *(if newest.stale { &mut stale } else { &mut fresh }) += 1;
            let (value, mark) = (newest.value.to_string(), if newest.stale { "STALE" } else { "" });
            println!(
                "{:<32} {:<20} {value:>12} {age_s:>8} s {mark}",
                row.device, newest.property
            );
        }
    }
    let summary = answer.summary().context("an answer always has a summary")?;
    println!(
        "{} devices: {fresh} fresh values, {stale} stale, {silent} devices never reported",
        summary.devices
    );
    Ok(())
}
