//! Which records of a raw range are wanted: values by their quality first, then records by their values.
//!
//! Never here: reading blocks, order, limits. Invariant: what the checks of a type leave out is what aggregates leave out,
//! whatever block it lies in.

use std::ops::Range;

use tidemark_proto::v1::value_filter::Condition;
use tidemark_proto::v1::{Order, Quality, QueryRangeRequest, ValueFilter};
use tidemark_series::{Accepted, Choice, PropertyNumber, Records, ValueRef, ValueType};

use super::functions::state_code;
use super::judging::Verdicts;
use super::plan::one_property;
use super::walk::{choice, is_doubted};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Reason, Result};

/// Conditions of one question.
const VALUES_MAX: usize = 64;

/// Checks what is asked, as far as no type need be known.
pub(super) fn check(request: &QueryRangeRequest) -> Result<()> {
    let refused = |message: String, field: String| Err(Error::new(Reason::InvalidValue, message).field(field));
    if request.values.len() > VALUES_MAX {
        let given = request.values.len();
        return refused(
            format!("{given} conditions, the limit is {VALUES_MAX}"),
            "values".into(),
        );
    }
    for (at, filter) in request.values.iter().enumerate() {
        let field = |name: &str| format!("values[{at}].{name}");
        match &filter.condition {
            _ if filter.property.is_empty() => {
                let error = Error::new(Reason::MissingField, "a condition on no property");
                return Err(error.field(field("property")));
            }
            None => {
                let error = Error::new(Reason::MissingField, "no condition").field(field("condition"));
                return Err(error.hint("give at_least, at_most, equals or is"));
            }
            Some(Condition::AtLeast(number) | Condition::AtMost(number) | Condition::Equals(number))
                if !number.is_finite() =>
            {
                return refused(format!("a comparison with {number}"), field("condition"));
            }
            Some(_) => {}
        }
    }
    let known = |quality: &i32| Quality::try_from(*quality).is_ok();
    let accept = request.quality.iter().flat_map(|filter| &filter.accept);
    match accept.enumerate().find(|(_, quality)| !known(quality)) {
        Some((at, quality)) => refused(format!("quality {quality} is none"), format!("quality.accept[{at}]")),
        None if Order::try_from(request.order).is_err() => {
            refused(format!("order {} is none", request.order), "order".into())
        }
        None => Ok(()),
    }
}

/// The filters of a question in terms of one type.
pub(super) struct Filter<'d> {
    wanted: Option<Vec<PropertyNumber>>,
    /// What has to be decoded; `None`: everything.
    decoded: Option<Vec<PropertyNumber>>,
    holds: Vec<(PropertyNumber, Holds)>,
    accepted: Accepted,
    /// Where the checks of the type count.
    choices: Vec<(&'d PropertyDef, Choice<'d>)>,
    drop_suspect: bool,
}

/// A condition on the values of one property.
#[derive(Clone, Debug, PartialEq)]
enum Holds {
    AtLeast(f64),
    AtMost(f64),
    Equals(f64),
    Code(i64),
    Text(String),
}

impl<'d> Filter<'d> {
    /// For a checked request and the properties that it wants of a type; `None` where the type is passed over.
    pub(super) fn new(
        request: &QueryRangeRequest,
        def: &'d TypeDef,
        properties: &[&'d PropertyDef],
        pass_over: bool,
    ) -> Result<Option<Filter<'d>>> {
        let mut holds = Vec::with_capacity(request.values.len());
        for (at, filter) in request.values.iter().enumerate() {
            match condition(filter, def, pass_over).map_err(|error| named(error, at))? {
                Some(one) => holds.push(one),
                None => return Ok(None),
            }
        }
        let quality = request.quality.clone().unwrap_or_default();
        let wanted: Option<Vec<PropertyNumber>> =
            (!request.properties.is_empty()).then(|| properties.iter().map(|property| property.number).collect());
        let decoded = wanted.clone().map(|mut decoded| {
            decoded.extend(holds.iter().map(|(property, _)| *property));
            decoded.sort_unstable();
            decoded.dedup();
            decoded
        });
        let mut choices = Vec::new();
        if quality.drop_failed || quality.drop_suspect {
            let looked_at = |property: &&PropertyDef| decoded.as_ref().is_none_or(|all| all.contains(&property.number));
            let looked_at = def.properties.iter().filter(looked_at);
            choices.extend(looked_at.map(|property| (property, choice(property, quality.drop_suspect))));
        }
        Ok(Some(Filter {
            wanted,
            decoded,
            holds,
            accepted: accepted(&quality.accept),
            choices,
            drop_suspect: quality.drop_suspect,
        }))
    }

    /// What has to be decoded; `None`: everything.
    pub(super) fn decoded(&self) -> Option<&[PropertyNumber]> {
        self.decoded.as_deref()
    }

    /// The properties of which checks decide what passes.
    pub(super) fn checked(&self) -> impl Iterator<Item = &'d PropertyDef> + '_ {
        self.choices.iter().map(|(property, _)| *property)
    }

    /// Whether suspect values do not pass.
    pub(super) fn drops_suspect(&self) -> bool {
        self.drop_suspect
    }

    /// True where records need not be looked at one by one.
    pub(super) fn takes_all(&self) -> bool {
        self.holds.is_empty() && self.choices.is_empty() && self.accepted == Accepted::ALL
    }

    /// The records with the values that pass, the rows of them, ascending, that are wanted between two times, and how many values of
    /// wanted properties between these did not pass. `verdicts` are those of neighbours.
    pub(super) fn apply(
        &self,
        verdicts: &Verdicts,
        records: Records,
        (from_ns, to_ns): (i64, i64),
    ) -> (Records, Vec<usize>, u64) {
        let rows = records.rows_between(from_ns, to_ns);
        let before = self.wanted_values(&records, &rows);
        let records = self.passing(verdicts, records);
        let dropped = before - self.wanted_values(&records, &rows);
        let mut holds = vec![true; rows.len()];
        for (property, condition) in &self.holds {
            let mut of_one = vec![false; rows.len()];
            let cells = records.column(*property).into_iter().flat_map(|column| column.cells());
            for (row, value, _) in cells.filter(|(row, ..)| rows.contains(row)) {
                of_one[row - rows.start] = condition.of(value);
            }
            holds.iter_mut().zip(of_one).for_each(|(all, one)| *all &= one);
        }
        let mut any = vec![false; rows.len()];
        let is_wanted = |property: PropertyNumber| self.wanted.as_ref().is_none_or(|all| all.contains(&property));
        for column in records.columns.iter().filter(|column| is_wanted(column.property)) {
            let present = column.present_rows().filter(|row| rows.contains(row));
            present.for_each(|row| any[row - rows.start] = true);
        }
        let rows: Vec<usize> = rows
            .clone()
            .filter(|row| holds[row - rows.start] && any[row - rows.start])
            .collect();
        (records, rows, dropped)
    }

    /// Values of wanted properties in some rows; 0 where no value is left out anyway.
    fn wanted_values(&self, records: &Records, rows: &Range<usize>) -> u64 {
        if self.accepted == Accepted::ALL && self.choices.is_empty() {
            return 0;
        }
        let is_wanted = |property: PropertyNumber| self.wanted.as_ref().is_none_or(|all| all.contains(&property));
        let columns = records.columns.iter().filter(|column| is_wanted(column.property));
        let present = columns.map(|column| column.present_rows().filter(|row| rows.contains(row)).count());
        present.sum::<usize>() as u64
    }

    /// The values that pass by their quality.
    fn passing(&self, verdicts: &Verdicts, records: Records) -> Records {
        if self.accepted == Accepted::ALL && self.choices.is_empty() {
            return records;
        }
        let times = records.observed_at.clone();
        records.keep_values(|number, row, value, quality| {
            let choice = self.choices.iter().find(|(property, _)| property.number == number);
            let counts = choice.is_none_or(|(_, choice)| self.counts(choice, value, quality));
            let by_others = || {
                let found = verdicts.of(number, times[row]).and_then(|verdict| verdict.finding);
                found.is_none_or(|finding| !self.drop_suspect && !finding.fails())
            };
            self.accepted.accepts(quality) && counts && (choice.is_none() || by_others())
        })
    }

    /// Whether a value counts by itself.
    fn counts(&self, choice: &Choice<'_>, value: ValueRef<'_>, quality: u8) -> bool {
        let number = value.number();
        let is_suspect = || is_doubted(quality) || number.is_some_and(|number| !choice.checks.finds_nothing(number));
        let takes = choice.accepts(quality) && number.is_none_or(|number| choice.takes(number));
        takes && !(self.drop_suspect && is_suspect())
    }
}

/// Qualities that a list accepts; what is not stated is read as unchecked.
fn accepted(accept: &[i32]) -> Accepted {
    if accept.is_empty() {
        return Accepted::ALL;
    }
    let bit = |quality: Quality| 1_u64 << quality as u64;
    let unchecked = bit(Quality::Unspecified) | bit(Quality::Unchecked);
    let accept = accept.iter().filter_map(|quality| Quality::try_from(*quality).ok());
    Accepted(accept.fold(0, |all, quality| {
        all | match quality {
            Quality::Unspecified | Quality::Unchecked => unchecked,
            other => bit(other),
        }
    }))
}

fn condition(filter: &ValueFilter, def: &TypeDef, pass_over: bool) -> Result<Option<(PropertyNumber, Holds)>> {
    let Some(property) = one_property(def, &filter.property, pass_over)? else {
        return Ok(None);
    };
    let numeric = matches!(property.value_type, ValueType::F64 | ValueType::I64);
    let refused = |message: String| match pass_over {
        true => Ok(None),
        false => Err(Error::new(Reason::InvalidValue, message).field("condition")),
    };
    let holds = match &filter.condition {
        Some(Condition::AtLeast(number)) if numeric => Holds::AtLeast(*number),
        Some(Condition::AtMost(number)) if numeric => Holds::AtMost(*number),
        Some(Condition::Equals(number)) if numeric => Holds::Equals(*number),
        Some(Condition::Is(text)) if property.value_type == ValueType::Text => Holds::Text(text.clone()),
        Some(Condition::Is(name)) => match state_code(property, name) {
            Some(code) => Holds::Code(code),
            None => return refused(format!("{} is never {name:?}", property.id)),
        },
        _ => return refused(format!("{} has no numbers to compare", property.id)),
    };
    Ok(Some((property.number, holds)))
}

/// Names the condition that an error is about.
fn named(error: Error, at: usize) -> Error {
    let field = format!("values[{at}].{}", error.field_path());
    error.field(field)
}

impl Holds {
    fn of(&self, value: ValueRef<'_>) -> bool {
        match (self, value) {
            (Holds::AtLeast(least), value) => value.number().is_some_and(|number| number >= *least),
            (Holds::AtMost(most), value) => value.number().is_some_and(|number| number <= *most),
            (Holds::Equals(other), value) => value.number().is_some_and(|number| number == *other),
            (Holds::Code(code), ValueRef::I64(value)) => value == *code,
            (Holds::Code(code), ValueRef::Bool(value)) => i64::from(value) == *code,
            (Holds::Code(code), ValueRef::Enum(value)) => i64::from(value) == *code,
            (Holds::Text(text), ValueRef::Text(value)) => value == text,
            (Holds::Code(_) | Holds::Text(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_stated_is_unchecked() {
        let accepts = |accept: &[Quality]| {
            let accept: Vec<i32> = accept.iter().map(|quality| *quality as i32).collect();
            let accepted = accepted(&accept);
            (0..8).filter(|quality| accepted.accepts(*quality)).collect::<Vec<u8>>()
        };
        assert_eq!(accepts(&[]), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(accepts(&[Quality::Good]), [1]);
        assert_eq!(accepts(&[Quality::Unchecked]), [0, 2]);
        assert_eq!(accepts(&[Quality::Unspecified, Quality::Fail]), [0, 2, 6]);
    }

    #[test]
    fn conditions_compare_what_can_be_compared() {
        let check = |holds: Holds, value: ValueRef<'_>, expected: bool| {
            assert_eq!(holds.of(value), expected, "{holds:?} {value:?}");
        };
        check(Holds::AtLeast(1.0), ValueRef::F64(1.0), true);
        check(Holds::AtLeast(1.0), ValueRef::F64(f64::NAN), false);
        check(Holds::AtMost(1.0), ValueRef::I64(2), false);
        check(Holds::Equals(2.0), ValueRef::I64(2), true);
        check(Holds::Code(1), ValueRef::Bool(true), true);
        check(Holds::Code(1), ValueRef::Enum(2), false);
        check(Holds::Text("a".into()), ValueRef::Text("a"), true);
        check(Holds::Text("a".into()), ValueRef::Bool(true), false);
    }
}
