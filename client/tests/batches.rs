//! Rows into columns and back. Never here: a server.
#![allow(clippy::unwrap_used, reason = "tests")]

use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{BatchBuilder, Value, rows, v1, value_at, values_of};

#[test]
fn columns_hold_what_the_rows_gave() {
    let mut builder = BatchBuilder::new("tank");
    builder
        .row("a", 10)
        .set("level", 1.5)
        .set("state", Value::Enum("ok".into()))
        .report_kind(v1::ReportKind::Event);
    builder
        .row("b", 11)
        .set_with_quality("level", 2.5, v1::Quality::Suspect)
        .set("open", true)
        .set("n", 3_i64);
    builder
        .row("a", 12)
        .set("level", 9.9)
        .set("level", -0.0)
        .set("state", Value::Enum("ok".into()))
        .set("note", "x");
    assert_eq!((builder.len(), builder.points(), builder.is_empty()), (3, 8, false));
    let batch = builder.build().unwrap();
    assert_eq!(
        (batch.devices.clone(), batch.device_index.clone()),
        (vec!["a".to_owned(), "b".to_owned()], vec![0, 1, 0])
    );
    let presence = |property: &str| {
        batch
            .columns
            .iter()
            .find(|column| column.property == property)
            .unwrap()
            .presence
            .to_vec()
    };
    assert_eq!(
        (presence("level"), presence("state"), presence("open")),
        (vec![], vec![0b101], vec![0b010])
    );

    let rows: Vec<_> = rows(&batch).collect();
    assert_eq!(
        rows[0].values,
        [("level", Value::F64(1.5)), ("state", Value::Enum("ok".into()))]
    );
    assert_eq!((rows[0].device, rows[0].report_kind), ("a", v1::ReportKind::Event));
    assert_eq!(
        rows[1].values,
        [
            ("level", Value::F64(2.5)),
            ("open", Value::Bool(true)),
            ("n", Value::I64(3))
        ]
    );
    assert_eq!(rows[1].quality["level"], v1::Quality::Suspect);
    assert_eq!(
        (rows[2].device, rows[2].observed_at_ns, rows[2].values.len()),
        ("a", 12, 3)
    );
    assert!(matches!(rows[2].values[0].1, Value::F64(zero) if zero.to_bits() == (-0.0_f64).to_bits()));
}

#[test]
fn one_device_needs_no_index_and_two_types_in_one_column_are_refused() {
    let mut builder = BatchBuilder::new("tank");
    builder.row("a", 1).set("level", 1.0);
    builder.row("a", 2).set("level", 2.0);
    assert!(builder.clone().build().unwrap().device_index.is_empty());
    builder.row("a", 3).set("level", 2_i64);
    let error = builder.build().unwrap_err();
    assert_eq!(
        (error.reason.as_str(), error.field.as_deref()),
        ("WRONG_VALUE_TYPE", Some("rows[2].level"))
    );
}

#[test]
fn random_rows_come_back_as_they_went_in() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for _ in 0..200 {
        let mut builder = BatchBuilder::new("t");
        let mut expected = Vec::new();
        for row in 0..random.random_range(1..40_i64) {
            let device = format!("d{}", random.random_range(0..3));
            let mut values = Vec::new();
            for property in 0..5_u8 {
                if random.random_bool(0.6) {
                    let bits: u64 = random.random();
                    values.push((
                        property,
                        match property {
                            0 => Value::F64(f64::from_bits(bits)),
                            1 => Value::I64(bits.cast_signed()),
                            2 => Value::Bool(bits.is_multiple_of(2)),
                            3 => Value::Enum(format!("l{}", bits % 3)),
                            _ => Value::Text(format!("{bits:x}")),
                        },
                    ));
                }
            }
            let mut begun = builder.row(&device, row);
            for (property, value) in &values {
                begun = begun.set(&format!("p{property}"), value.clone());
            }
            expected.push((device, row, values));
        }
        let batch = builder.build().unwrap();
        for (row, (device, time, values)) in rows(&batch).zip(&expected) {
            let mut got = row.values.clone();
            got.sort_by_key(|(property, _)| *property);
            let got: Vec<_> = got
                .into_iter()
                .map(|(property, value)| format!("{property}={}", bits(&value)))
                .collect();
            let want: Vec<_> = values
                .iter()
                .map(|(property, value)| format!("p{property}={}", bits(value)))
                .collect();
            assert_eq!(
                (row.device, row.observed_at_ns, got),
                (device.as_str(), *time, want),
                "seed {seed}"
            );
        }
        assert_eq!(rows(&batch).len(), expected.len());
    }
}

fn bits(value: &Value) -> String {
    match value {
        Value::F64(value) => format!("{:x}", value.to_bits()),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_malformed_batch_gives_less_and_never_panics() {
    let kind = v1::values::Kind::Enum(v1::EnumValues {
        labels: vec!["a".into()],
        indexes: vec![0, 7],
    });
    let values = v1::Values { kind: Some(kind) };
    assert_eq!(
        (value_at(&values, 0), value_at(&values, 1)),
        (Some(Value::Enum("a".into())), None)
    );
    assert_eq!(values_of(&values).count(), 1);
    let column = v1::Column {
        property: "p".into(),
        values: Some(values),
        presence: vec![0b10].into(),
        quality: vec![99],
        qualifiers: vec![1 << 31],
    };
    let batch = v1::Batch {
        observed_at_ns: vec![1; 20],
        device_index: vec![9],
        columns: vec![column],
        ..Default::default()
    };
    let rows: Vec<_> = rows(&batch).collect();
    assert_eq!(
        (rows.len(), rows[0].device, rows[0].values.len(), rows[1].values.len()),
        (20, "", 0, 1)
    );
}
