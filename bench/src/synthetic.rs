//! The type, devices and values that the measurements write: five properties a record, looking like decimal sensors.
//! Nothing here talks to a cluster. Invariant: a value is a function of device number and time alone.

use tidemark_client::v1;
use tidemark_client::v1::values::Kind;

/// Points in one record.
pub(crate) const POINTS_PER_ROW: u64 = 5;

/// A device type with five numeric properties.
pub(crate) fn device_type(id: &str, sample_interval_s: i64) -> v1::DeviceType {
    let property = |id: &str, unit: &str, value_type: v1::ValueType, kind: v1::Kind, step: f64| v1::Property {
        id: id.to_owned(),
        unit: unit.to_owned(),
        value_type: value_type.into(),
        kind: kind.into(),
        step: Some(step),
        ..Default::default()
    };
    v1::DeviceType {
        id: id.to_owned(),
        name: "Synthetic sensor of the measurements".to_owned(),
        properties: vec![
            property("temperature", "Cel", v1::ValueType::F64, v1::Kind::Gauge, 0.01),
            property("humidity", "%", v1::ValueType::F64, v1::Kind::Gauge, 0.1),
            property("pressure", "hPa", v1::ValueType::F64, v1::Kind::Gauge, 0.1),
            property("pulses", "{count}", v1::ValueType::I64, v1::Kind::Counter, 1.0),
            property("rssi", "{dBm}", v1::ValueType::I64, v1::Kind::Gauge, 1.0),
        ],
        sample_interval_s,
        report_interval_s: sample_interval_s,
        latency_s: 60,
        retention_days: 36_500,
        ..Default::default()
    }
}

/// Id of a device of a run.
pub(crate) fn device_id(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number:06}")
}

/// `times` records of each device from `first_ns` on, device by device.
pub(crate) fn batch(
    device_type: &str,
    prefix: &str,
    devices: std::ops::Range<usize>,
    first_ns: i64,
    step_ns: i64,
    times: usize,
) -> v1::Batch {
    let rows = devices.len() * times;
    let (mut device_index, mut observed_at_ns) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut floats = [(); 3].map(|()| Vec::with_capacity(rows));
    let mut integers = [(); 2].map(|()| Vec::with_capacity(rows));
    for (index, device) in devices.clone().enumerate() {
        for i in 0..times {
            let at_ns = first_ns + i as i64 * step_ns;
            device_index.push(index as u32);
            observed_at_ns.push(at_ns);
            let (f, n) = values(device as u64, (at_ns / 1_000_000_000) as u64);
            floats.iter_mut().zip(f).for_each(|(column, x)| column.push(x));
            integers.iter_mut().zip(n).for_each(|(column, x)| column.push(x));
        }
    }
    let column = |property: &str, kind: Kind| v1::Column {
        property: property.to_owned(),
        values: Some(v1::Values { kind: Some(kind) }),
        ..Default::default()
    };
    let [temperature, humidity, pressure] = floats.map(|values| Kind::F64(v1::F64Values { values }));
    let [pulses, rssi] = integers.map(|values| Kind::I64(v1::I64Values { values }));
    v1::Batch {
        device_type: device_type.to_owned(),
        devices: devices.map(|number| device_id(prefix, number)).collect(),
        device_index,
        observed_at_ns,
        columns: vec![
            column("temperature", temperature),
            column("humidity", humidity),
            column("pressure", pressure),
            column("pulses", pulses),
            column("rssi", rssi),
        ],
        ..Default::default()
    }
}

/// Slow triangles with a little noise: neighbours differ by a few steps, as those of real sensors do.
fn values(device: u64, second: u64) -> ([f64; 3], [i64; 2]) {
    let noise = mix(device ^ second.rotate_left(20));
    let wave = |period: u64| {
        let phase = (second + device * 977) % (2 * period);
        phase.min(2 * period - phase) as f64 / period as f64
    };
    let temperature = (1_500.0 + 1_000.0 * wave(43_200)).round() + (noise & 7) as f64;
    let humidity = (400.0 + 300.0 * wave(30_000)).round() + (noise >> 3 & 3) as f64;
    let pressure = (10_000.0 + 150.0 * wave(200_000)).round() + (noise >> 5 & 1) as f64;
    let pulses = (second / 10 + device * 1_000) as i64;
    let rssi = -95 + (noise >> 6 & 15) as i64;
    ([temperature / 100.0, humidity / 10.0, pressure / 10.0], [pulses, rssi])
}

fn mix(key: u64) -> u64 {
    let z = (key ^ (key >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z ^ (z >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_a_row_for_every_device_and_time() {
        let b = batch("t", "t", 3..6, 1_000_000_000_000, 1_000_000_000, 4);
        assert_eq!(
            (b.devices.len(), b.observed_at_ns.len(), b.columns.len()),
            (3, 12, POINTS_PER_ROW as usize)
        );
        assert_eq!(
            (b.devices[0].as_str(), b.device_index[11], b.observed_at_ns[11]),
            ("t-000003", 2, 1_003_000_000_000)
        );
        assert_eq!(b, batch("t", "t", 3..6, 1_000_000_000_000, 1_000_000_000, 4));
    }

    #[test]
    fn values_are_decimals_in_range() {
        for second in 0..20_000 {
            let ([t, h, p], [pulses, rssi]) = values(second % 13, second * 31);
            assert!((15.0..25.1).contains(&t) && (40.0..70.4).contains(&h) && (1000.0..1015.2).contains(&p));
            assert_eq!(((t * 100.0).round() / 100.0).to_bits(), t.to_bits());
            assert!(pulses >= 0 && (-95..=-80).contains(&rssi));
        }
    }
}
