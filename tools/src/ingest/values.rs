//! Text of a field into a typed value, by the property's type. Never: rules that need other rows or the clock.
//!
//! Invariant: what is accepted here is exactly what was written: no rounding of integers, no guessing of labels.

use std::collections::HashMap;

use tidemark_client::v1::{DeviceType, ValueType};

use super::lines::Field;

/// A typed value; an enum is the position of its label in the type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    /// A float.
    F64(f64),
    /// An integer.
    I64(i64),
    /// A truth.
    Bool(bool),
    /// Position of the label.
    Enum(u32),
    /// Text.
    Text(Box<str>),
}

/// Text bytes where the type names no limit.
const TEXT_BYTES_DEFAULT: u32 = 256;

/// A device type as ingest needs it.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    /// Id of the type.
    pub(crate) id: String,
    /// Its properties, in the order of the type.
    pub(crate) properties: Vec<TypedProperty>,
    by_id: HashMap<String, u16>,
}

/// A property as ingest needs it.
#[derive(Clone, Debug)]
pub(crate) struct TypedProperty {
    /// Id of the property.
    pub(crate) id: String,
    /// Type of its values.
    pub(crate) value_type: ValueType,
    /// Labels of an enum, in code order.
    pub(crate) labels: Vec<String>,
    text_bytes_max: usize,
    allow_non_finite: bool,
}

impl Typed {
    /// From the type as the server holds it.
    pub(crate) fn new(made: &DeviceType) -> Typed {
        let properties: Vec<_> = made
            .properties
            .iter()
            .map(|property| TypedProperty {
                id: property.id.clone(),
                value_type: property.value_type(),
                labels: property.labels.clone(),
                text_bytes_max: match property.max_len {
                    0 => TEXT_BYTES_DEFAULT as usize,
                    max => max as usize,
                },
                allow_non_finite: property.allow_non_finite,
            })
            .collect();
        let by_id = properties
            .iter()
            .enumerate()
            .map(|(index, property)| (property.id.clone(), index as u16))
            .collect();
        Typed {
            id: made.id.clone(),
            properties,
            by_id,
        }
    }

    /// Position of a property.
    pub(crate) fn find(&self, property: &str) -> Option<u16> {
        self.by_id.get(property).copied()
    }
}

impl TypedProperty {
    /// The value of a field; None where it has none. In quotes a text is what stands there, spaces and emptiness included.
    pub(crate) fn take(&self, field: Field<'_>) -> Result<Option<Scalar>, String> {
        match self.value_type {
            ValueType::Text => self.parse(field.exact).map(Some),
            _ if field.trimmed.is_empty() => Ok(None),
            _ => self.parse(field.trimmed).map(Some),
        }
    }

    /// The value a text stands for, or why it does not.
    pub(crate) fn parse(&self, text: &str) -> Result<Scalar, String> {
        let wrong = |wanted: &str| Err(format!("{}: `{text}` is not {wanted}", self.id));
        match self.value_type {
            ValueType::F64 => match text.parse::<f64>() {
                Ok(value) if value.is_finite() || self.allow_non_finite => {
                    if value.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) {
                        return wrong("a number that a float can hold");
                    }
                    Ok(Scalar::F64(value))
                }
                _ => wrong("a finite number"),
            },
            ValueType::I64 => text
                .parse()
                .map_or_else(|_| wrong("a whole number of 64 bits"), |value| Ok(Scalar::I64(value))),
            ValueType::Bool => match text {
                "1" => Ok(Scalar::Bool(true)),
                "0" => Ok(Scalar::Bool(false)),
                _ if text.eq_ignore_ascii_case("true") => Ok(Scalar::Bool(true)),
                _ if text.eq_ignore_ascii_case("false") => Ok(Scalar::Bool(false)),
                _ => wrong("true, false, 1 or 0"),
            },
            ValueType::Enum => match self.labels.iter().position(|label| label == text) {
                Some(index) => Ok(Scalar::Enum(index as u32)),
                None => wrong(&format!("one of {}", self.labels.join(", "))),
            },
            ValueType::Text if text.len() > self.text_bytes_max => Err(format!(
                "{}: text of {} bytes, at most {} are taken",
                self.id,
                text.len(),
                self.text_bytes_max
            )),
            ValueType::Text => Ok(Scalar::Text(text.into())),
            ValueType::Unspecified => Err(format!("{}: a value type that this program does not know", self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemark_client::v1::Property;

    use super::*;

    fn typed(value_type: ValueType) -> TypedProperty {
        let property = Property {
            id: "p".into(),
            value_type: value_type as i32,
            labels: vec!["on".into(), "off".into()],
            max_len: 4,
            ..Property::default()
        };
        Typed::new(&DeviceType {
            properties: vec![property],
            ..DeviceType::default()
        })
        .properties
        .remove(0)
    }

    #[test]
    fn each_type_takes_what_it_can_hold() {
        for (value_type, text, expected) in [
            (
                ValueType::F64,
                "94.79799999999999",
                Some(Scalar::F64(94.79799999999999)),
            ),
            (ValueType::F64, "1e-3", Some(Scalar::F64(0.001))),
            (ValueType::F64, "-21", Some(Scalar::F64(-21.0))),
            (ValueType::F64, "NaN", None),
            (ValueType::F64, "1e999", None),
            (ValueType::F64, "1,5", None),
            (ValueType::I64, "-9223372036854775808", Some(Scalar::I64(i64::MIN))),
            (ValueType::I64, "9223372036854775808", None),
            (ValueType::I64, "1.5", None),
            (ValueType::I64, "1.0", None),
            (ValueType::Bool, "1", Some(Scalar::Bool(true))),
            (ValueType::Bool, "FALSE", Some(Scalar::Bool(false))),
            (ValueType::Bool, "yes", None),
            (ValueType::Enum, "off", Some(Scalar::Enum(1))),
            (ValueType::Enum, "Off", None),
            (ValueType::Enum, "1", None),
            (ValueType::Text, "四", Some(Scalar::Text("四".into()))),
            (ValueType::Text, "四五", None),
        ] {
            assert_eq!(typed(value_type).parse(text).ok(), expected, "{value_type:?} {text}");
        }
    }

    #[test]
    fn minus_zero_keeps_its_sign() {
        assert!(
            matches!(typed(ValueType::F64).parse("-0"), Ok(Scalar::F64(value)) if value.to_bits() == (-0.0_f64).to_bits())
        );
    }
}
