//! Newest values, row by row, whichever form they came in. Never here: asking.
//! Invariant: a malformed answer gives fewer values, never a panic and never a value of another device.

use tidemark_proto::v1;

use crate::rows::is_present;
use crate::value::{Value, value_at};

/// A device with one of its newest values.
#[derive(Debug, Clone, PartialEq)]
pub struct LatestRow<'a> {
    /// Id of the device.
    pub device: &'a str,
    /// Its type.
    pub device_type: &'a str,
    /// None: the device never sent anything that was asked for. It has this row alone.
    pub newest: Option<NewestValue<'a>>,
}

/// The newest value of a property of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct NewestValue<'a> {
    /// Id of the property.
    pub property: &'a str,
    /// The value.
    pub value: Value,
    /// When it was observed, nanoseconds since the epoch, UTC.
    pub observed_at_ns: i64,
    /// When the first node took it, nanoseconds since the epoch, UTC.
    pub received_at_ns: i64,
    /// What was said of it.
    pub quality: v1::Quality,
    /// Why it was reported.
    pub report_kind: v1::ReportKind,
    /// It is older than it should be.
    pub stale: bool,
}

/// The newest values in a message, device by device, of each in the order of the properties.
///
/// ```no_run
/// # async fn demo(client: tidemark_client::Client) -> Result<(), tidemark_client::Error> {
/// use tidemark_client::{latest_rows, v1};
///
/// let selector = Some(v1::Selector { everything: true, ..Default::default() });
/// let request = v1::GetLatestRequest { selector, in_columns: true, ..Default::default() };
/// let mut answer = client.get_latest(request).await?;
/// while let Some(message) = answer.next().await {
///     for row in latest_rows(&message?) {
///         println!("{} {:?}", row.device, row.newest);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn latest_rows(message: &v1::GetLatestResponse) -> impl Iterator<Item = LatestRow<'_>> {
    let devices = message.devices.iter().flat_map(of_device);
    devices.chain(message.tables.iter().flat_map(TableRows::new))
}

fn of_device(device: &v1::LatestDevice) -> impl Iterator<Item = LatestRow<'_>> {
    let row = |newest| LatestRow {
        device: &device.device,
        device_type: &device.device_type,
        newest,
    };
    let nothing = device.values.is_empty().then(|| row(None));
    let values = device.values.iter().filter_map(of_value);
    values.map(move |newest| row(Some(newest))).chain(nothing)
}

fn of_value(latest: &v1::LatestValue) -> Option<NewestValue<'_>> {
    Some(NewestValue {
        property: &latest.property,
        value: value_at(latest.value.as_ref()?, 0)?,
        observed_at_ns: latest.observed_at_ns,
        received_at_ns: latest.received_at_ns,
        quality: latest.quality(),
        report_kind: latest.report_kind(),
        stale: latest.stale,
    })
}

/// Walks a table device by device.
struct TableRows<'a> {
    table: &'a v1::LatestTable,
    columns: Vec<Taking<'a>>,
    device: usize,
    /// The column that is next of the device.
    column: usize,
    /// Whether the device has had a row.
    any: bool,
}

/// A column, its times, and how many of its values were taken.
struct Taking<'a> {
    latest: &'a v1::LatestColumn,
    column: &'a v1::Column,
    observed_at_ns: &'a [i64],
    received_at_ns: &'a [i64],
    taken: usize,
}

impl<'a> TableRows<'a> {
    fn new(table: &'a v1::LatestTable) -> TableRows<'a> {
        let (mut observed, mut received): (&[i64], &[i64]) = (&[], &[]);
        let taking = |latest: &'a v1::LatestColumn| {
            if !latest.observed_at_ns.is_empty() {
                observed = &latest.observed_at_ns;
            }
            if !latest.received_at_ns.is_empty() {
                received = &latest.received_at_ns;
            }
            Some(Taking {
                latest,
                column: latest.column.as_ref()?,
                observed_at_ns: observed,
                received_at_ns: received,
                taken: 0,
            })
        };
        TableRows {
            columns: table.columns.iter().filter_map(taking).collect(),
            table,
            device: 0,
            column: 0,
            any: false,
        }
    }
}

impl<'a> Taking<'a> {
    /// The value of a device, where it has one; each device is asked for once, in order.
    fn take(&mut self, device: usize) -> Option<NewestValue<'a>> {
        if !is_present(&self.column.presence, device) {
            return None;
        }
        let at = self.taken;
        self.taken += 1;
        let code = |codes: &[i32]| codes.get(at).copied().unwrap_or_default();
        Some(NewestValue {
            property: &self.column.property,
            value: value_at(self.column.values.as_ref()?, at)?,
            observed_at_ns: *self.observed_at_ns.get(at)?,
            received_at_ns: self.received_at_ns.get(at).copied().unwrap_or_default(),
            quality: v1::Quality::try_from(code(&self.column.quality)).unwrap_or_default(),
            report_kind: v1::ReportKind::try_from(code(&self.latest.report_kind)).unwrap_or_default(),
            stale: !self.latest.stale.is_empty() && is_present(&self.latest.stale, at),
        })
    }
}

impl<'a> Iterator for TableRows<'a> {
    type Item = LatestRow<'a>;

    fn next(&mut self) -> Option<LatestRow<'a>> {
        loop {
            let device = self.table.devices.get(self.device)?;
            let row = |newest| LatestRow {
                device: device.as_str(),
                device_type: &self.table.device_type,
                newest,
            };
            while let Some(column) = self.columns.get_mut(self.column) {
                self.column += 1;
                if let Some(newest) = column.take(self.device) {
                    self.any = true;
                    return Some(row(Some(newest)));
                }
            }
            let nothing = (!self.any).then(|| row(None));
            (self.device, self.column, self.any) = (self.device + 1, 0, false);
            if nothing.is_some() {
                return nothing;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(property: &str, values: Vec<f64>, presence: u8, times: Vec<i64>) -> v1::LatestColumn {
        let kind = v1::values::Kind::F64(v1::F64Values { values });
        v1::LatestColumn {
            column: Some(v1::Column {
                property: property.to_owned(),
                values: Some(v1::Values { kind: Some(kind) }),
                presence: if presence == 0 { Vec::new() } else { vec![presence] }.into(),
                ..Default::default()
            }),
            observed_at_ns: times.clone(),
            received_at_ns: times,
            ..Default::default()
        }
    }

    fn told(table: v1::LatestTable) -> Vec<String> {
        let message = v1::GetLatestResponse {
            tables: vec![table],
            ..Default::default()
        };
        let row = |row: LatestRow<'_>| match row.newest {
            None => format!("{} nothing", row.device),
            Some(newest) => {
                let mark = if newest.stale { " stale" } else { "" };
                format!(
                    "{} {} {:?} at {}{mark}",
                    row.device, newest.property, newest.value, newest.observed_at_ns
                )
            }
        };
        latest_rows(&message).map(row).collect()
    }

    #[test]
    fn a_table_reads_device_by_device() {
        let mut columns = vec![
            column("a", vec![1.0, 2.0], 0b101, vec![10, 20]),
            column("b", vec![3.0, 4.0], 0b101, Vec::new()),
            column("c", vec![5.0], 0b100, vec![30]),
        ];
        columns[1].stale = vec![0b10].into();
        let table = v1::LatestTable {
            device_type: "of a type".to_owned(),
            devices: ["x", "y", "z"].map(str::to_owned).to_vec(),
            columns,
        };
        let expected = [
            "x a F64(1.0) at 10",
            "x b F64(3.0) at 10",
            "y nothing",
            "z a F64(2.0) at 20",
            "z b F64(4.0) at 20 stale",
            "z c F64(5.0) at 30",
        ];
        assert_eq!(told(table), expected);
    }

    #[test]
    fn values_without_times_or_devices_are_left_out() {
        let table = v1::LatestTable {
            devices: vec!["x".to_owned(), "y".to_owned()],
            columns: vec![
                column("a", vec![1.0, 2.0], 0, vec![10]),
                column("b", vec![3.0], 0, Vec::new()),
                v1::LatestColumn::default(),
            ],
            ..Default::default()
        };
        assert_eq!(told(table), ["x a F64(1.0) at 10", "x b F64(3.0) at 10", "y nothing"]);
    }
}
