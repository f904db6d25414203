//! Values by which a device says that it has none, such as 65535: told apart when they come in.
//!
//! Never here: what becomes of values outside of their range (that is told when they are read). Invariant: such a value is stored as
//! it came, with the quality that says that it is none.

use tidemark_proto::v1::{Property, Quality};
use tidemark_series::{ValueType, Values};

/// Values of one property that say that there is none.
pub const MISSING_MAX: usize = 16;

/// The values of one property that say that there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Missing(Option<Listed>);

#[derive(Clone, Debug, PartialEq)]
enum Listed {
    F64(Vec<f64>),
    I64(Vec<i64>),
    Codes(Vec<u32>),
    Texts(Vec<String>),
}

impl Missing {
    /// Reads the list of a property, or says what is wrong with it.
    pub fn of(property: &Property, value_type: ValueType) -> Result<Missing, String> {
        let listed = &property.missing;
        if listed.is_empty() {
            return Ok(Missing(None));
        }
        if listed.len() > MISSING_MAX {
            let (given, id) = (listed.len(), &property.id);
            return Err(format!(
                "property {id:?} lists {given} missing values, the limit is {MISSING_MAX}"
            ));
        }
        let none = |text: &String, what: &str| format!("property {:?}: missing value {text:?} {what}", property.id);
        Ok(Missing(Some(match value_type {
            ValueType::F64 => {
                let number = |text: &String| number(text).ok_or_else(|| none(text, "is no finite number"));
                Listed::F64(listed.iter().map(number).collect::<Result<_, _>>()?)
            }
            ValueType::I64 => {
                let number = |text: &String| integer(text).ok_or_else(|| none(text, "is no whole number of 64 bits"));
                Listed::I64(listed.iter().map(number).collect::<Result<_, _>>()?)
            }
            ValueType::Enum => {
                let code = |text: &String| {
                    let place = property.labels.iter().position(|label| label == text);
                    place.map(|at| at as u32).ok_or_else(|| none(text, "is no label"))
                };
                Listed::Codes(listed.iter().map(code).collect::<Result<_, _>>()?)
            }
            ValueType::Text => Listed::Texts(listed.clone()),
            ValueType::Bool => return Err(none(&listed[0], "of a truth value, which has none to spare")),
        })))
    }

    /// Gives those of some values that say that there is none the quality that says so, whatever else was stated of them.
    pub fn mark(&self, values: &Values, quality: &mut Option<Vec<u8>>) {
        fn places<'v, T: PartialEq>(values: &'v [T], listed: &'v [T]) -> impl Iterator<Item = usize> + 'v {
            let among = |(_, value): &(usize, &T)| listed.contains(value);
            values.iter().enumerate().filter(among).map(|(at, _)| at)
        }
        let mut mark = |at: usize| {
            let quality = quality.get_or_insert_with(|| vec![0; values.len()]);
            quality[at] = Quality::Missing as u8;
        };
        match (&self.0, values) {
            (Some(Listed::F64(listed)), Values::F64(values)) => places(values, listed).for_each(&mut mark),
            (Some(Listed::I64(listed)), Values::I64(values)) => places(values, listed).for_each(&mut mark),
            (Some(Listed::Codes(listed)), Values::Enum(values)) => places(values, listed).for_each(&mut mark),
            (Some(Listed::Texts(listed)), Values::Text(values)) => places(values, listed).for_each(&mut mark),
            _ => {}
        }
    }
}

/// A finite number, decimal or hexadecimal (`0xFF`).
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(number) => Some(number).filter(|number| number.is_finite()),
        Err(_) => integer(text).map(|number| number as f64),
    }
}

/// A whole number, decimal or hexadecimal (`0xFF`).
fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn missing(value_type: ValueType, listed: &[&str]) -> Result<Missing, String> {
        let property = Property {
            id: "p".into(),
            labels: vec!["on".into(), "unknown".into()],
            missing: listed.iter().map(ToString::to_string).collect(),
            ..Property::default()
        };
        Missing::of(&property, value_type)
    }

    #[test]
    fn what_a_list_names_is_missing_whatever_the_source_says_of_it() {
        let check = |value_type, listed: &[&str], values: Values, expected: Option<&[u8]>| {
            let mut quality = None;
            missing(value_type, listed).unwrap().mark(&values, &mut quality);
            assert_eq!(quality.as_deref(), expected, "{listed:?} {values:?}");
        };
        let f64s = || Values::F64(vec![65_535.0, 1.0, -999_999.0, 255.0]);
        check(
            ValueType::F64,
            &["65535", "-999999.0", "0xFF"],
            f64s(),
            Some(&[7, 0, 7, 7]),
        );
        check(ValueType::F64, &["9"], f64s(), None);
        check(ValueType::F64, &[], f64s(), None);
        check(ValueType::I64, &["0x7fff"], Values::I64(vec![32_767, 2]), Some(&[7, 0]));
        check(ValueType::Enum, &["unknown"], Values::Enum(vec![0, 1]), Some(&[0, 7]));
        let texts = Values::Text(vec!["FF".into(), "ff".into()]);
        check(ValueType::Text, &["FF"], texts, Some(&[7, 0]));

        let mut quality = Some(vec![1, 6]);
        let listed = missing(ValueType::I64, &["-1"]).unwrap();
        listed.mark(&Values::I64(vec![-1, -2]), &mut quality);
        assert_eq!(quality, Some(vec![7, 6]));
    }

    #[test]
    fn a_list_that_a_property_cannot_have_is_refused() {
        for (value_type, listed) in [
            (ValueType::F64, "nan"),
            (ValueType::F64, "FF"),
            (ValueType::I64, "1.5"),
            (ValueType::Enum, "off"),
            (ValueType::Bool, "false"),
        ] {
            let refused = missing(value_type, &[listed]).unwrap_err();
            assert!(refused.contains(listed), "{refused}");
        }
        assert!(missing(ValueType::I64, &["1"; MISSING_MAX + 1]).is_err());
    }
}
