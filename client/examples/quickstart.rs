//! The first five minutes: register a type and a device, write, and ask three questions.
//!
//! `cargo run --example quickstart [TYPE] [DEVICE] [ENDPOINTS]`, endpoints `host:port,host:port`.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::{SystemTime, UNIX_EPOCH};

use tidemark_client::{BatchBuilder, Client, latest_rows, rows, v1, value_at};

const SECOND_NS: i64 = 1_000_000_000;
const MINUTE_NS: i64 = 60 * SECOND_NS;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let device_type = args.next().unwrap_or_else(|| "quickstart-tank".to_owned());
    let device = args.next().unwrap_or_else(|| "quickstart-1".to_owned());
    let endpoints = args.next().or_else(|| std::env::var("TIDEMARK_ENDPOINT").ok());
    let endpoints = endpoints.unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let client = Client::connect(endpoints.split(',')).await?;

    register(&client, &device_type, &device).await?;
    let now_ns = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    let from_ns = now_ns - 10 * MINUTE_NS;
    write(&client, &device_type, &device, from_ns).await?;

    let selector = v1::Selector {
        device_ids: vec![device],
        ..Default::default()
    };
    print_range(&client, selector.clone(), from_ns, now_ns).await?;
    print_aggregate(&client, selector.clone(), from_ns, now_ns).await?;
    print_latest(&client, selector, now_ns).await
}

/// A type says what its properties mean; a device is of one type. Doing this twice changes nothing.
async fn register(client: &Client, device_type: &str, device: &str) -> anyhow::Result<()> {
    client
        .apply_device_types(vec![v1::DeviceType {
            id: device_type.to_owned(),
            properties: vec![v1::Property {
                id: "level".to_owned(),
                unit: "m".to_owned(),
                value_type: v1::ValueType::F64.into(),
                kind: v1::Kind::Gauge.into(),
                ..Default::default()
            }],
            sample_interval_s: 60,
            retention_days: 30,
            ..Default::default()
        }])
        .await?;
    let registered = v1::Device {
        id: device.to_owned(),
        device_type: device_type.to_owned(),
        ..Default::default()
    };
    client.register_devices(vec![registered]).await?;
    Ok(())
}

/// Ten minutes of points, one row a minute.
async fn write(client: &Client, device_type: &str, device: &str, from_ns: i64) -> anyhow::Result<()> {
    let mut batch = BatchBuilder::new(device_type);
    for minute in 0..10_i32 {
        let level = 1.0 + f64::from(minute) / 100.0;
        batch
            .row(device, from_ns + i64::from(minute) * MINUTE_NS)
            .set("level", level);
    }
    let batch = Some(batch.build()?);
    let stored = client
        .write(v1::WriteRequest {
            batch,
            ..Default::default()
        })
        .await?;
    println!(
        "stored {} rows, {} points: on disk on a majority",
        stored.rows, stored.points
    );
    Ok(())
}

/// The raw records.
async fn print_range(client: &Client, selector: v1::Selector, from_ns: i64, to_ns: i64) -> anyhow::Result<()> {
    let range = v1::QueryRangeRequest {
        selector: Some(selector),
        from_ns,
        to_ns,
        ..Default::default()
    };
    let mut answer = client.query_range(range).await?;
    while let Some(message) = answer.next().await {
        for row in rows(&message?.batch.unwrap_or_default()) {
            println!("{} at {} ns: {:?}", row.device, row.observed_at_ns, row.values);
        }
    }
    Ok(())
}

/// Minimum, maximum and average of every five minutes.
async fn print_aggregate(client: &Client, selector: v1::Selector, from_ns: i64, to_ns: i64) -> anyhow::Result<()> {
    let functions = [v1::Function::Min, v1::Function::Max, v1::Function::Avg];
    let aggregate = v1::QueryAggregateRequest {
        selector: Some(selector),
        functions: functions.map(i32::from).to_vec(),
        from_ns,
        to_ns,
        window: Some(v1::Window {
            step_ns: 5 * MINUTE_NS,
            origin_ns: from_ns,
            length_ns: 0,
            ..Default::default()
        }),
        ..Default::default()
    };
    let (messages, _) = client.query_aggregate(aggregate).await?.collect().await?;
    for series in messages.iter().flat_map(|message| &message.series) {
        for (window, start_ns) in series.start_ns.iter().enumerate() {
            let values = series
                .columns
                .iter()
                .filter_map(|column| value_at(column.values.as_ref()?, window));
            let values: Vec<_> = values.map(|value| value.to_string()).collect();
            println!(
                "{} from {start_ns} ns: min, max, avg = {}",
                series.property,
                values.join(", ")
            );
        }
    }
    Ok(())
}

/// The latest value.
async fn print_latest(client: &Client, selector: v1::Selector, now_ns: i64) -> anyhow::Result<()> {
    let (messages, _) = client
        .get_latest(v1::GetLatestRequest {
            selector: Some(selector),
            ..Default::default()
        })
        .await?
        .collect()
        .await?;
    for newest in messages.iter().flat_map(latest_rows).filter_map(|row| row.newest) {
        println!(
            "latest {} = {}, {} s old",
            newest.property,
            newest.value,
            (now_ns - newest.observed_at_ns) / SECOND_NS
        );
    }
    Ok(())
}
