//! Reads everything back in the end, from every node itself. Invariant: an acknowledged value counts as there only where
//! it came back once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::direct::Direct;
use super::play::Stage;

/// The first few findings are kept in words.
const EXAMPLES: usize = 8;

/// What all nodes gave back.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ReadBack {
    /// Nodes asked.
    pub(crate) nodes: u64,
    /// Acknowledged values of one device that did not come back, by node.
    pub(crate) missing: u64,
    /// Values that came back more than once.
    pub(crate) doubled: u64,
    /// Devices of which two nodes said something different.
    pub(crate) differing: u64,
    #[serde(skip)]
    pub(crate) examples: Vec<String>,
}

impl ReadBack {
    /// True when all nodes have everything once and alike.
    pub(crate) fn is_good(&self) -> bool {
        self.missing + self.doubled + self.differing == 0
    }

    fn note(&mut self, text: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text);
        }
    }

    fn device(&mut self, node: &str, device: &str, acknowledged: &[i64], counts: &BTreeMap<i64, u32>) {
        for value in acknowledged.iter().filter(|value| !counts.contains_key(value)) {
            self.missing += 1;
            self.note(format!("{node}: {device}: value {value} is missing"));
        }
        for (value, count) in counts.iter().filter(|(_, count)| **count > 1) {
            self.doubled += 1;
            self.note(format!("{node}: {device}: value {value} came back {count} times"));
        }
    }
}

/// Asks every node for every device. `probed` are the values acknowledged to probes, by node and device.
pub(crate) async fn run(
    endpoints: &[String],
    deadline: Duration,
    stage: &Stage,
    probed: &[Vec<Vec<i64>>],
) -> Result<ReadBack> {
    let mut expected: Vec<(String, Vec<i64>)> = stage
        .tracks()
        .iter()
        .enumerate()
        .map(|(index, track)| (stage.device(index), (1..=track.acknowledged()).collect()))
        .collect();
    for (node, devices) in probed.iter().enumerate() {
        for (index, values) in devices.iter().enumerate() {
            expected.push((stage.probed(node, index), values.clone()));
        }
    }
    let mut back = ReadBack::default();
    let mut first: BTreeMap<&str, BTreeMap<i64, u32>> = BTreeMap::new();
    for endpoint in endpoints {
        back.nodes += 1;
        let node = Direct::new(endpoint, deadline)?;
        for (device, acknowledged) in &expected {
            // Far enough for every value that was ever given out.
            let (from_ns, to_ns) = (stage.start_ns, stage.observed_at_ns(1_000_000));
            let counts = node
                .values(device, from_ns, to_ns)
                .await
                .with_context(|| format!("{}: read {device} back", node.address))?;
            back.device(endpoint, device, acknowledged, &counts);
            let same = first.entry(device).or_insert_with(|| counts.clone()) == &counts;
            if !same {
                back.differing += 1;
                back.note(format!("{endpoint}: {device} differs from {}", endpoints[0]));
            }
        }
    }
    Ok(back)
}
