//! What a selector costs a shard that has the whole reference fleet by its numbers: 22,042 devices, 30 types, 9 towns, 10 vendors.
//! `cargo bench -p tidemark-node --bench selectors`: rosters in memory, as they are after the first question.
//!
//! Never here: correctness. Invariant: the work of a case is the same in every run.
#![allow(clippy::unwrap_used, missing_docs, reason = "benchmarks")]

#[path = "../tests/shard/support.rs"]
mod shard_support;

use std::ops::ControlFlow;
use std::sync::LazyLock;

use divan::{Bencher, black_box};
use shard_support::{Place, apply, entry, open};
use tidemark_node::shard::{DeviceFilter, Shard};
use tidemark_proto::peer::{PutDevice, PutDevices, shard_command};
use tidemark_proto::v1::Device;

const DEVICES: u32 = 22_042;
const AT_ONCE: u32 = 1_000;

fn main() {
    divan::main();
}

static SHARD: LazyLock<(Place, Shard)> = LazyLock::new(|| {
    let place = Place::new();
    let shard = open(&place.path("db"));
    for (index, first) in (0..DEVICES).step_by(AT_ONCE as usize).enumerate() {
        let devices = (first..DEVICES.min(first + AT_ONCE)).map(put).collect();
        let command = shard_command::Command::PutDevices(PutDevices {
            devices,
            ..Default::default()
        });
        apply(&shard, index as u64 + 1, &[entry(1, command)]);
    }
    (place, shard)
});

fn put(seq: u32) -> PutDevice {
    let tags = [
        ("town", format!("town{}", seq % 9)),
        ("vendor", format!("vendor{}", seq / 7 % 10)),
        ("department", format!("department{}", seq % 17)),
        ("grade", format!("L{}", seq % 4)),
        ("warranty", if seq.is_multiple_of(5) { "out" } else { "in" }.to_owned()),
        ("serial", format!("{seq:08}")),
    ];
    let device = Device {
        id: format!("330482-{:02}-{:05}", seq % 30, seq),
        tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        ..Device::default()
    };
    PutDevice {
        device: Some(device),
        type_number: 1 + seq % 30,
    }
}

fn tag(key: &str, value: &str) -> DeviceFilter {
    DeviceFilter {
        tags: vec![(key.to_owned(), vec![value.to_owned()])],
        ..DeviceFilter::default()
    }
}

fn cases() -> Vec<(&'static str, DeviceFilter)> {
    let town_and_vendor = DeviceFilter {
        tags: vec![
            ("town".to_owned(), vec!["town3".to_owned(), "town4".to_owned()]),
            ("vendor".to_owned(), vec!["vendor2".to_owned()]),
        ],
        ..DeviceFilter::default()
    };
    vec![
        ("everything", DeviceFilter::default()),
        ("a town", tag("town", "town3")),
        ("towns and a vendor", town_and_vendor.clone()),
        (
            "neither, nor",
            DeviceFilter {
                none_of: vec![town_and_vendor, tag("warranty", "out")],
                ..tag("grade", "L1")
            },
        ),
        ("one serial number", tag("serial", "00012345")),
        ("no such value", tag("town", "nowhere")),
    ]
}

#[divan::bench(args = cases().into_iter().map(|(name, _)| name))]
fn select(bencher: Bencher<'_, '_>, name: &str) {
    let shard = &SHARD.1;
    let (_, filter) = cases().into_iter().find(|(case, _)| *case == name).unwrap();
    bencher.bench(|| {
        let mut found = 0_u64;
        let flow = shard.select(black_box(&filter), |roster, at| {
            found += u64::from(roster.ordinal(at));
            ControlFlow::<()>::Continue(())
        });
        assert!(flow.unwrap().is_continue());
        found
    });
}
