//! A batch as the bytes of its message: what is numbers of a fixed width in memory goes out as a whole, not one by one.
//!
//! Never here: what is in a batch (see `answer`). Invariant: the bytes are those that any encoder of the contract writes.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tidemark_proto::v1::{Batch, Column, F64Values, Values, values};

/// Numbers of fields, as in `data.proto`.
mod field {
    pub(super) const OBSERVED_AT: u32 = 4;
    pub(super) const COLUMNS: u32 = 5;
    pub(super) const RECEIVED_AT: u32 = 7;
    pub(super) const VALUES: u32 = 2;
    pub(super) const F64: u32 = 1;
    pub(super) const NUMBERS: u32 = 1;
}

/// The bytes of a batch.
pub fn batch_bytes(batch: Batch) -> Bytes {
    let mut out = Vec::with_capacity(batch.encoded_len());
    let (observed_at, columns, received_at) = (batch.observed_at_ns, batch.columns, batch.received_at_ns);
    put_fixed(field::OBSERVED_AT, &observed_at, i64::to_le_bytes, &mut out);
    for column in columns {
        put_column(column, &mut out);
    }
    put_fixed(field::RECEIVED_AT, &received_at, i64::to_le_bytes, &mut out);
    let rest = Batch {
        device_type: batch.device_type,
        devices: batch.devices,
        device_index: batch.device_index,
        report_kind: batch.report_kind,
        ..Batch::default()
    };
    put(&rest, &mut out);
    out.into()
}

fn put_column(column: Column, out: &mut Vec<u8>) {
    encode_key(field::COLUMNS, WireType::LengthDelimited, out);
    encode_varint(column.encoded_len() as u64, out);
    let doubles = match column.values {
        Some(Values {
            kind: Some(values::Kind::F64(F64Values { values })),
        }) => values,
        values => return put(&Column { values, ..column }, out),
    };
    let numbers = fixed_len(field::NUMBERS, doubles.len());
    encode_key(field::VALUES, WireType::LengthDelimited, out);
    encode_varint(
        (key_len(field::F64) + encoded_len_varint(numbers as u64) + numbers) as u64,
        out,
    );
    encode_key(field::F64, WireType::LengthDelimited, out);
    encode_varint(numbers as u64, out);
    put_fixed(field::NUMBERS, &doubles, f64::to_le_bytes, out);
    put(&Column { values: None, ..column }, out);
}

/// The fields of a message; a vector takes any number of bytes.
fn put(message: &impl prost::Message, out: &mut Vec<u8>) {
    message.encode(out).ok();
}

/// Bytes of a field of so many numbers.
fn fixed_len(field: u32, count: usize) -> usize {
    match count * 8 {
        0 => 0,
        bytes => key_len(field) + encoded_len_varint(bytes as u64) + bytes,
    }
}

fn put_fixed<T: Copy>(field: u32, numbers: &[T], bytes: impl Fn(T) -> [u8; 8], out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint((numbers.len() * 8) as u64, out);
    let at = out.len();
    out.resize(at + numbers.len() * 8, 0);
    let (slots, _) = out[at..].as_chunks_mut::<8>();
    slots
        .iter_mut()
        .zip(numbers)
        .for_each(|(slot, number)| *slot = bytes(*number));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tidemark_proto::v1::{BoolValues, EnumValues, I64Values, TextValues};

    use super::*;

    fn column(kind: Option<values::Kind>, rows: usize) -> Column {
        Column {
            property: "level".into(),
            values: Some(Values { kind }),
            presence: vec![0x5a; rows.div_ceil(8)].into(),
            quality: vec![3; rows % 7],
            qualifiers: vec![256; rows % 5],
        }
    }

    #[test]
    fn any_decoder_reads_what_was_written() {
        for rows in [0, 1, 7, 300] {
            let times: Vec<i64> = (0..rows as i64).map(|row| row * row - 5).collect();
            let doubles: Vec<f64> = times.iter().map(|time| *time as f64 / 3.0).collect();
            let batch = Batch {
                device_type: "meter".into(),
                devices: (0..rows % 3).map(|device| format!("m{device}")).collect(),
                device_index: (0..rows as u32).map(|row| row % 3).collect(),
                observed_at_ns: times.clone(),
                columns: vec![
                    column(Some(values::Kind::F64(F64Values { values: doubles })), rows),
                    column(Some(values::Kind::I64(I64Values { values: times.clone() })), 0),
                    column(
                        Some(values::Kind::Bool(BoolValues {
                            values: vec![true; rows],
                        })),
                        rows,
                    ),
                    column(
                        Some(values::Kind::Enum(EnumValues {
                            labels: vec!["off".into(), "on".into()],
                            indexes: vec![1; rows],
                        })),
                        rows,
                    ),
                    column(
                        Some(values::Kind::Text(TextValues {
                            values: vec!["a".into(); rows],
                        })),
                        rows,
                    ),
                    column(None, rows),
                    Column::default(),
                ],
                report_kind: vec![2; rows],
                received_at_ns: times,
            };
            let bytes = batch_bytes(batch.clone());
            assert_eq!(bytes.len(), batch.encoded_len());
            assert_eq!(Batch::decode(bytes).unwrap(), batch);
        }
        assert_eq!(batch_bytes(Batch::default()), Bytes::new());
    }
}
