//! What a question means, decided before any work: properties and windows (functions: see `functions`). Pure.

use tidemark_proto::v1::{self, QueryAggregateRequest, Selector};
use tidemark_series::{Kind, ValueType, Windows};

use super::areal;
use super::fill::Fill;
use super::functions::{Asked, functions, unlawful};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;

/// Steps that are merged into a window that slides, of which so many count as one window.
const STEPS_A_WINDOW: u64 = 16;

/// Checks the time range of a query.
pub(super) fn check_range(from_ns: i64, to_ns: i64) -> Result<()> {
    match from_ns > to_ns {
        true => Err(Error::new(
            Reason::RangeReversed,
            format!("from_ns {from_ns} is after to_ns {to_ns}"),
        )
        .field("from_ns")
        .hint("swap from and to")),
        false => Ok(()),
    }
}

/// Windows of an aggregate for a property of this kind. Of windows that slide, these are the steps that they are made of: they
/// begin before the range.
pub(super) fn windows(request: &QueryAggregateRequest, kind: Kind) -> Windows {
    let asked = asked_windows(request, kind);
    let Some((window, (first, _))) = request.window.as_ref().zip(asked.index_range()) else {
        return asked;
    };
    let steps = steps(window);
    if steps == 1 {
        return asked;
    }
    let start = Windows {
        from_ns: i64::MIN,
        ..asked.clone()
    };
    Windows {
        from_ns: start.bounds(first.saturating_sub(steps - 1)).0,
        ..asked
    }
}

/// What any of some windows may hold: half-open, observation times.
pub(super) fn scan_range<'a>(windows: impl Iterator<Item = &'a Windows>) -> (i64, i64) {
    let ranges = windows.map(Windows::scan_range);
    ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0, 0))
}

/// How many steps a window is long.
pub(super) fn steps(window: &v1::Window) -> i64 {
    if !window.borders_ns.is_empty() {
        return i64::from(window.length.max(1));
    }
    (window.length_ns / window.step_ns.max(1)).max(1)
}

/// Windows of an aggregate, one for each that ends in its range.
pub(super) fn asked_windows(request: &QueryAggregateRequest, kind: Kind) -> Windows {
    let borders = request.window.as_ref().map(|window| window.borders_ns.as_slice());
    let borders = borders.filter(|borders| !borders.is_empty());
    let ends = borders.and_then(|borders| borders.first().zip(borders.last()));
    Windows {
        from_ns: ends.map_or(request.from_ns, |(first, _)| request.from_ns.max(*first)),
        to_ns: ends.map_or(request.to_ns, |(_, last)| request.to_ns.min(*last)),
        step_ns: request.window.as_ref().map(|window| window.step_ns),
        origin_ns: request.window.as_ref().map_or(0, |window| window.origin_ns),
        borders: borders.map(Into::into),
        edge: kind.edge(),
    }
}

/// Checks what an aggregate asks, as far as no type need be known.
pub(super) fn check_aggregate(request: &QueryAggregateRequest, limits: &Limits) -> Result<()> {
    check_range(request.from_ns, request.to_ns)?;
    functions(request)?;
    check_top(request)?;
    let filled = Fill::of(request)?.is_some();
    areal::min_coverage(request)?;
    if let Some(window) = &request.window {
        match window.borders_ns.is_empty() {
            true => check_even(window)?,
            false => check_borders(window, limits)?,
        }
        let asked = asked_windows(request, Kind::Gauge).count();
        let count = windows(request, Kind::Gauge)
            .count()
            .max(asked.saturating_mul(steps(window) as u64) / STEPS_A_WINDOW);
        if count > limits.windows_max {
            let most = limits.windows_max;
            return Err(
                Error::new(Reason::TooManyWindows, format!("{count} windows, the limit is {most}"))
                    .field("window.step_ns")
                    .hint("ask for a longer step or a shorter range"),
            );
        }
        let most = limits.windows_listed_max;
        if filled && asked > most as u64 {
            let message = format!("{asked} windows to fill, the limit is {most}");
            return Err(Error::new(Reason::TooManyWindows, message).field("fill"));
        }
    }
    Ok(())
}

/// Checks windows of equal length.
fn check_even(window: &v1::Window) -> Result<()> {
    if window.step_ns <= 0 {
        return Err(Error::new(
            Reason::StepNotPositive,
            format!("a window step of {} ns", window.step_ns),
        )
        .field("window.step_ns")
        .hint("leave window out for one window over the whole range"));
    }
    if window.length_ns < 0 || window.length_ns % window.step_ns != 0 {
        let message = format!("windows of {} ns, by steps of {} ns", window.length_ns, window.step_ns);
        return Err(Error::new(Reason::InvalidValue, message)
            .field("window.length_ns")
            .hint("ask for a length that is a multiple of the step"));
    }
    match window.length {
        0 => Ok(()),
        _ => {
            let refused = Error::new(Reason::InvalidValue, "a length in units, of windows of equal length");
            Err(refused.field("window.length").hint("set window.length_ns"))
        }
    }
}

/// Checks windows between borders.
fn check_borders(window: &v1::Window, limits: &Limits) -> Result<()> {
    if window.step_ns != 0 || window.length_ns != 0 || window.origin_ns != 0 {
        let message = "windows have either a step or borders";
        return Err(Error::new(Reason::InvalidValue, message).field("window.step_ns"));
    }
    if window.borders_ns.len() < 2 || !window.borders_ns.is_sorted_by(|a, b| a < b) {
        let message = "borders of windows ascend, and there are two at least";
        return Err(Error::new(Reason::InvalidValue, message).field("window.borders_ns"));
    }
    match window.borders_ns.len() > limits.windows_listed_max {
        true => Err(too_many_borders(limits).field("window.borders_ns")),
        false => Ok(()),
    }
}

/// The refusal of more windows between borders than a question may have.
pub(super) fn too_many_borders(limits: &Limits) -> Error {
    let message = format!(
        "over {} windows between borders or by the calendar",
        limits.windows_listed_max
    );
    Error::new(Reason::TooManyWindows, message).hint("ask for a longer unit or a shorter range")
}

/// Checks what a list of leaders asks.
fn check_top(request: &QueryAggregateRequest) -> Result<()> {
    let Some(top) = &request.top else {
        return Ok(());
    };
    let refused = |message: &str, field: &str| Err(Error::new(Reason::InvalidValue, message).field(field));
    if top.limit == 0 {
        return refused("a top list of no series", "top.limit");
    }
    if request.properties.len() != 1 {
        return refused("a top list is of exactly one property", "properties");
    }
    match request.window.is_some() {
        true => refused("a top list takes one window, from `from` to `to`", "window"),
        false => Ok(()),
    }
}

/// Properties of a type that an aggregate is over. Named ones must all fit; where none is named, every numeric
/// property that all functions are lawful for.
pub(super) fn aggregate_properties<'a>(
    def: &'a TypeDef,
    request: &QueryAggregateRequest,
    functions: &[Asked],
) -> Result<Vec<&'a PropertyDef>> {
    let lawful = |p: &PropertyDef| functions.iter().all(|f| f.is_lawful(p, request.allow_unlawful));
    if request.properties.is_empty() {
        let numeric = |p: &&PropertyDef| matches!(p.value_type, ValueType::F64 | ValueType::I64);
        let found: Vec<_> = def.properties.iter().filter(numeric).filter(|p| lawful(p)).collect();
        return match found.is_empty() {
            true => Err(Error::new(
                Reason::UnlawfulFunction,
                format!("no numeric property of {} takes these", def.id()),
            )
            .field("functions")),
            false => Ok(found),
        };
    }
    let chosen = def.choose(&request.properties)?;
    for property in &chosen {
        if let Some(refused) = functions
            .iter()
            .find(|f| !f.is_lawful(property, request.allow_unlawful))
        {
            return Err(unlawful(*refused, property));
        }
    }
    Ok(chosen)
}

/// Whether an answer tells how many slots have a point, or depends on it.
pub(super) fn counts_slots(request: &QueryAggregateRequest) -> bool {
    request.slots_filled || request.min_coverage > 0.0 || request.areal.is_some()
}

/// Points that a type promises within a window, over `devices` devices; 0 where it promises nothing.
pub(super) fn promised(def: &TypeDef, start_ns: i64, end_ns: i64, devices: u64) -> u64 {
    let Some(interval) = def.sample_interval_ns() else {
        return 0;
    };
    let points = match end_ns.checked_sub(start_ns) {
        // Long division takes its time, and this is asked of each window.
        Some(length) => u64::try_from(length / interval),
        None => u64::try_from((i128::from(end_ns) - i128::from(start_ns)) / i128::from(interval)),
    };
    points.unwrap_or(u64::MAX).saturating_mul(devices)
}

/// The property with this id; `None` where the type lacks it and is passed over.
pub(super) fn one_property<'a>(def: &'a TypeDef, id: &String, pass_over: bool) -> Result<Option<&'a PropertyDef>> {
    match def.choose(std::slice::from_ref(id)) {
        Ok(chosen) => Ok(chosen.first().copied()),
        Err(_) if pass_over => Ok(None),
        Err(e) => Err(e.field("property")),
    }
}

/// True when types that lack a named property are passed over instead of refused: the selector names no type.
pub(super) fn passes_over_types(selector: &Selector) -> bool {
    selector.device_type.is_empty() && selector.device_ids.is_empty()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tidemark_proto::v1::{DeviceType, Property, QueryAggregateRequest, Window};

    fn def() -> TypeDef {
        let property = |id: &str, kind: v1::Kind, value_type: v1::ValueType| Property {
            id: id.into(),
            kind: kind as i32,
            value_type: value_type as i32,
            number: 1,
            ..Property::default()
        };
        let properties = vec![
            property("level", v1::Kind::Gauge, v1::ValueType::F64),
            property("rain", v1::Kind::Increment, v1::ValueType::F64),
            property("note", v1::Kind::Event, v1::ValueType::Text),
        ];
        TypeDef::new(DeviceType {
            id: "t".into(),
            properties,
            sample_interval_s: 300,
            ..DeviceType::default()
        })
        .unwrap()
    }

    fn ask(properties: &[&str], functions: &[v1::Function]) -> QueryAggregateRequest {
        QueryAggregateRequest {
            properties: properties.iter().map(|p| p.to_string()).collect(),
            functions: functions.iter().map(|f| *f as i32).collect(),
            to_ns: 1_000,
            ..QueryAggregateRequest::default()
        }
    }

    #[test]
    fn unlawful_functions_are_refused_and_name_the_lawful_ones() {
        let request = ask(&["level"], &[v1::Function::Sum]);
        let error = aggregate_properties(&def(), &request, &functions(&request).unwrap()).unwrap_err();
        assert_eq!(error.reason(), Reason::UnlawfulFunction);
        assert!(error.message().contains("avg"), "{error}");
        let request = QueryAggregateRequest {
            allow_unlawful: true,
            ..request
        };
        assert_eq!(
            aggregate_properties(&def(), &request, &functions(&request).unwrap())
                .unwrap()
                .len(),
            1
        );
        let request = QueryAggregateRequest {
            allow_unlawful: true,
            ..ask(&["note"], &[v1::Function::Sum])
        };
        assert!(aggregate_properties(&def(), &request, &functions(&request).unwrap()).is_err());
    }

    #[test]
    fn without_names_the_numeric_properties_that_fit_are_meant() {
        let request = ask(&[], &[v1::Function::Sum]);
        let chosen = def();
        let chosen = aggregate_properties(&chosen, &request, &functions(&request).unwrap()).unwrap();
        assert_eq!(chosen.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["rain"]);
    }

    #[test]
    fn questions_without_meaning_are_refused_before_work() {
        let check = |request: QueryAggregateRequest, expected: Reason| {
            assert_eq!(
                check_aggregate(&request, &Limits::default()).unwrap_err().reason(),
                expected
            );
        };
        let count = ask(&[], &[v1::Function::Count]);
        check(
            QueryAggregateRequest {
                from_ns: 5,
                to_ns: 4,
                ..count.clone()
            },
            Reason::RangeReversed,
        );
        check(ask(&[], &[]), Reason::NoFunction);
        let step = |step_ns| {
            Some(Window {
                step_ns,
                ..Window::default()
            })
        };
        check(
            QueryAggregateRequest {
                window: step(0),
                ..count.clone()
            },
            Reason::StepNotPositive,
        );
        check(
            QueryAggregateRequest {
                window: step(-1),
                ..count.clone()
            },
            Reason::StepNotPositive,
        );
        check(
            QueryAggregateRequest {
                window: step(1),
                to_ns: i64::MAX,
                ..count
            },
            Reason::TooManyWindows,
        );
    }

    #[test]
    fn a_top_list_is_of_one_property_and_one_window() {
        let top = |limit| QueryAggregateRequest {
            top: Some(v1::Top { limit, lowest: false }),
            ..ask(&["level"], &[v1::Function::Max])
        };
        let check = |request: QueryAggregateRequest, field: &str| {
            let error = check_aggregate(&request, &Limits::default()).unwrap_err();
            assert_eq!((error.reason(), error.field_path()), (Reason::InvalidValue, field));
        };
        assert!(check_aggregate(&top(3), &Limits::default()).is_ok());
        check(top(0), "top.limit");
        let properties = vec![];
        check(QueryAggregateRequest { properties, ..top(3) }, "properties");
        let window = Some(Window {
            step_ns: 100,
            ..Window::default()
        });
        check(QueryAggregateRequest { window, ..top(3) }, "window");
    }

    #[test]
    fn a_full_hour_promises_twelve_five_minute_points() {
        assert_eq!(promised(&def(), 0, 3_600_000_000_000, 1), 12);
        assert_eq!(promised(&def(), 0, 3_600_000_000_000, 3), 36);
        assert!(
            promised(&def(), i64::MIN, i64::MAX, 1) > 61_000_000,
            "no overflow at the ends of time"
        );
    }
}
