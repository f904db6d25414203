//! Joined records, row by row: each left record with what belongs to it. Never here: asking.
//! Invariant: a malformed answer gives fewer values, never a panic and never a value of another row.

use tidemark_proto::v1;

use crate::rows::{Row, Rows, rows};
use crate::value::{Value, value_at};

/// A left record and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinedRow<'a> {
    /// The record.
    pub row: Row<'a>,
    /// By the columns of its [`v1::JoinedRecords`]: the value and when it was observed, nanoseconds since the epoch; none where no
    /// value belongs to the record.
    pub values: Vec<Option<(Value, i64)>>,
}

/// Joined records, in order.
#[derive(Debug)]
pub struct JoinedRows<'a> {
    columns: &'a [v1::JoinedColumn],
    rows: Option<Rows<'a>>,
    row: usize,
    /// Per column: values before `row`.
    taken: Vec<usize>,
}

/// The records of a part of an answer, each with what belongs to it.
///
/// ```no_run
/// # async fn demo(client: tidemark_client::Client) -> Result<(), tidemark_client::Error> {
/// use tidemark_client::{joined_rows, v1};
///
/// let of_type = |id: &str| Some(v1::Selector { device_type: id.into(), ..Default::default() });
/// let rain = v1::JoinSide { selector: of_type("rain_gauge"), properties: vec!["rain_5min".into()], ..Default::default() };
/// let request = v1::QueryJoinRequest { selector: of_type("ponding_gauge"), to_ns: i64::MAX, right: vec![rain], ..Default::default() };
/// let mut answer = client.query_join(request).await?;
/// while let Some(message) = answer.next().await {
///     for records in message?.joined {
///         for joined in joined_rows(&records) {
///             for (column, value) in records.columns.iter().zip(joined.values) {
///                 println!("{} {} {} {value:?}", joined.row.device, joined.row.observed_at_ns, column.device);
///             }
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn joined_rows(records: &v1::JoinedRecords) -> JoinedRows<'_> {
    JoinedRows {
        columns: &records.columns,
        rows: records.batch.as_ref().map(rows),
        row: 0,
        taken: vec![0; records.columns.len()],
    }
}

impl<'a> Iterator for JoinedRows<'a> {
    type Item = JoinedRow<'a>;

    fn next(&mut self) -> Option<JoinedRow<'a>> {
        let row = self.rows.as_mut()?.next()?;
        let (at, mut values) = (self.row, Vec::with_capacity(self.columns.len()));
        self.row += 1;
        for (column, taken) in self.columns.iter().zip(&mut self.taken) {
            let bits = column.presence.get(at / 8).copied().unwrap_or(0);
            if !column.presence.is_empty() && bits & (1 << (at % 8)) == 0 {
                values.push(None);
                continue;
            }
            let value = column.values.as_ref().and_then(|values| value_at(values, *taken));
            values.push(value.zip(column.observed_at_ns.get(*taken).copied()));
            *taken += 1;
        }
        Some(JoinedRow { row, values })
    }
}
