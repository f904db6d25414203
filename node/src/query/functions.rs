//! Functions of an aggregate: what is asked of windows, what is lawful for which property, and which columns answer it. Pure.
//!
//! Never here: windows, points. Invariant: what a function needs of points is decided here alone.

use tidemark_proto::v1::{self, QueryAggregateRequest};
use tidemark_series::sequence::TooManyStates;
use tidemark_series::{
    Between, Finished, Function, Gathered, Kind, Partial, Rise, Sequence, SequenceFunction, SumOverflow, ValueType,
};

use crate::catalog::types::{PropertyDef, TypeDef};
use crate::clock::{NS_PER_DAY, NS_PER_MS};
use crate::error::{Error, Reason, Result};

/// Most columns that one function may ask for.
const COLUMNS_MAX: usize = 256;
/// Longest time that a rise is told over.
const RISE_OVER_MAX_MS: i64 = 7 * NS_PER_DAY / NS_PER_MS;

/// What a window is asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Of its points one by one.
    Points(Function),
    /// Of its points as a sequence.
    Sequence(SequenceFunction),
}

/// Why a window cannot answer what it is asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswerable {
    #[error(transparent)]
    Sum(#[from] SumOverflow),
    #[error(transparent)]
    States(#[from] TooManyStates),
}

impl Measure {
    /// What a window answers; `None` where it has no answer.
    pub(super) fn finish(
        self,
        points: Option<&Partial>,
        sequence: Option<&Sequence>,
        window_ns: u64,
    ) -> std::result::Result<Option<Finished>, Unanswerable> {
        Ok(match self {
            Measure::Points(Function::Count) => Some(Finished::U64(points.map_or(0, Partial::count))),
            Measure::Points(function) => points.map_or(Ok(None), |points| points.finish(function))?,
            Measure::Sequence(function) => {
                sequence.map_or(Ok(None), |sequence| sequence.finish(function, window_ns))?
            }
        })
    }
}

/// Every function there is; those with several columns stand here with any of them.
const ALL: [(v1::Function, Measure); 21] = [
    (v1::Function::Count, Measure::Points(Function::Count)),
    (v1::Function::Sum, Measure::Points(Function::Sum)),
    (v1::Function::Min, Measure::Points(Function::Min)),
    (v1::Function::Max, Measure::Points(Function::Max)),
    (v1::Function::Avg, Measure::Points(Function::Avg)),
    (v1::Function::First, Measure::Points(Function::First)),
    (v1::Function::Last, Measure::Points(Function::Last)),
    (v1::Function::Spread, Measure::Points(Function::Spread)),
    (v1::Function::Stddev, Measure::Sequence(SequenceFunction::Stddev)),
    (
        v1::Function::Percentile,
        Measure::Sequence(SequenceFunction::Quantile(0)),
    ),
    (v1::Function::Mode, Measure::Sequence(SequenceFunction::Mode)),
    (v1::Function::Histogram, Measure::Sequence(SequenceFunction::Bin(0))),
    (v1::Function::Increase, Measure::Sequence(SequenceFunction::Increase)),
    (v1::Function::Rate, Measure::Sequence(SequenceFunction::Rate)),
    (v1::Function::Delta, Measure::Sequence(SequenceFunction::Delta)),
    (v1::Function::Integral, Measure::Sequence(SequenceFunction::Integral)),
    (
        v1::Function::TimeWeightedAvg,
        Measure::Sequence(SequenceFunction::TimeWeightedAvg),
    ),
    (v1::Function::Duration, Measure::Sequence(SequenceFunction::Duration(0))),
    (
        v1::Function::Transitions,
        Measure::Sequence(SequenceFunction::Transitions),
    ),
    (
        v1::Function::RisePerHour,
        Measure::Sequence(SequenceFunction::RisePerHour),
    ),
    (
        v1::Function::RisePerHourMax,
        Measure::Sequence(SequenceFunction::RisePerHourMax),
    ),
];

/// A function that was asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    wire: v1::Function,
    measure: Measure,
}

/// One column of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ColumnOf {
    pub(super) function: i32,
    pub(super) measure: Measure,
    /// Percent, or upper border of a bin.
    pub(super) parameter: f64,
    pub(super) state: String,
}

impl Asked {
    /// A function of points one by one.
    pub(super) fn of_points(self) -> Option<Function> {
        match self.measure {
            Measure::Points(function) => Some(function),
            Measure::Sequence(_) => None,
        }
    }

    /// A function of points as a sequence.
    pub(super) fn of_sequence(self) -> Option<SequenceFunction> {
        match self.measure {
            Measure::Points(_) => None,
            Measure::Sequence(function) => Some(function),
        }
    }

    /// As it is called in answers and on the command line.
    pub(super) fn name(self) -> String {
        let name = self.wire.as_str_name();
        name.strip_prefix("FUNCTION_").unwrap_or(name).to_lowercase()
    }

    /// Whether it has a meaning for a property; `any`: whether it can be computed at all.
    pub(super) fn is_lawful(self, property: &PropertyDef, any: bool) -> bool {
        let kind = property.kind;
        match self.measure {
            Measure::Points(function) => {
                fits(function, property.value_type) && (any || Function::lawful(kind).contains(&function))
            }
            Measure::Sequence(function) => {
                fits_sequence(function, property.value_type) && (any || function.is_lawful(kind))
            }
        }
    }

    /// The columns that answer it for a property.
    pub(super) fn columns(self, request: &QueryAggregateRequest, property: &PropertyDef) -> Result<Vec<ColumnOf>> {
        let column = |measure, parameter, state: String| ColumnOf {
            function: self.wire as i32,
            measure,
            parameter,
            state,
        };
        let sequence = Measure::Sequence;
        Ok(match self.wire {
            v1::Function::Percentile => {
                let of = |percent: &f64| sequence(SequenceFunction::Quantile((percent * 1e4).round() as u32));
                let each = |percent: &f64| column(of(percent), *percent, String::new());
                request.percentiles.iter().map(each).collect()
            }
            v1::Function::Histogram => {
                let borders = request.bins.iter().copied().chain([f64::INFINITY]);
                let each = |(bin, border)| column(sequence(SequenceFunction::Bin(bin)), border, String::new());
                (0..).zip(borders).map(each).collect()
            }
            v1::Function::Duration => {
                let each = |(code, state)| column(sequence(SequenceFunction::Duration(code)), 0.0, state);
                states(request, property)?.into_iter().map(each).collect()
            }
            _ => vec![column(self.measure, 0.0, String::new())],
        })
    }
}

/// The functions of a request, checked as far as no property need be known.
pub(super) fn functions(request: &QueryAggregateRequest) -> Result<Vec<Asked>> {
    if request.functions.is_empty() {
        return Err(Error::new(Reason::NoFunction, "the query asks for no function").field("functions"));
    }
    let known = |(at, number): (usize, &i32)| {
        let found = ALL.iter().find(|(wire, _)| *wire as i32 == *number);
        let unknown = || {
            Error::new(Reason::InvalidValue, format!("function {number} is not known"))
                .field(format!("functions[{at}]"))
        };
        let (wire, measure) = *found.ok_or_else(unknown)?;
        Ok(Asked { wire, measure })
    };
    let asked = request
        .functions
        .iter()
        .enumerate()
        .map(known)
        .collect::<Result<Vec<_>>>()?;
    let asks = |function| asked.iter().any(|asked| asked.wire == function);
    check_percentiles(&request.percentiles, asks(v1::Function::Percentile))?;
    check_bins(&request.bins, asks(v1::Function::Histogram))?;
    check_count(request.states.len(), "states")?;
    let rises = asks(v1::Function::RisePerHour) || asks(v1::Function::RisePerHourMax);
    check_rise(request.rise_over_ms, rises)?;
    if request.max_gap_ms < 0 {
        return Err(Error::new(Reason::InvalidValue, "max_gap_ms is negative").field("max_gap_ms"));
    }
    if !(0.0..=1.0).contains(&request.min_coverage) {
        let message = format!("min_coverage is {}, and a share is from 0 to 1", request.min_coverage);
        return Err(Error::new(Reason::InvalidValue, message).field("min_coverage"));
    }
    Ok(asked)
}

/// Whether any of them looks at points as a sequence.
pub(super) fn has_sequences(asked: &[Asked]) -> bool {
    asked.iter().any(|asked| asked.of_points().is_none())
}

/// What has to be gathered of the sequence of points of a property; `None` where no function asks for any of it.
pub(super) fn gathered(
    asked: &[Asked],
    request: &QueryAggregateRequest,
    def: &TypeDef,
    property: &PropertyDef,
    now_ns: i64,
) -> Option<Gathered> {
    let mut gathered = Gathered {
        max_gap_ns: max_gap_ns(request.max_gap_ms, def),
        now_ns,
        wrap: property.wrap,
        ..Gathered::default()
    };
    let mut any = false;
    for asked in asked {
        let Measure::Sequence(function) = asked.measure else {
            continue;
        };
        any = true;
        match function {
            SequenceFunction::Increase | SequenceFunction::Rate | SequenceFunction::Delta => gathered.steps = true,
            SequenceFunction::Integral | SequenceFunction::TimeWeightedAvg => {
                let held = property.kind == Kind::State;
                gathered.area = Some(if held { Between::Held } else { Between::Linear });
            }
            SequenceFunction::Stddev => gathered.moments = true,
            SequenceFunction::Quantile(_) => gathered.quantiles = true,
            SequenceFunction::Bin(_) => gathered.bins.clone_from(&request.bins),
            SequenceFunction::Mode | SequenceFunction::Duration(_) | SequenceFunction::Transitions => {
                gathered.states = true;
            }
            SequenceFunction::RisePerHour | SequenceFunction::RisePerHourMax => {
                let over_ns = request.rise_over_ms.saturating_mul(NS_PER_MS);
                let slack_ns = def.sample_interval_ns().unwrap_or(over_ns);
                gathered.rise = Some(Rise { over_ns, slack_ns });
            }
        }
    }
    any.then_some(gathered)
}

/// Points further apart have nothing between them, for a request that says so many milliseconds.
pub(super) fn max_gap_ns(max_gap_ms: i64, def: &TypeDef) -> i64 {
    match max_gap_ms {
        0 => def.max_gap_ns(),
        ms => ms.saturating_mul(NS_PER_MS),
    }
}

/// Number of a state of a property, by the name that people give it.
pub(super) fn state_code(property: &PropertyDef, name: &str) -> Option<i64> {
    match property.value_type {
        ValueType::Enum => property.label_code(name).map(i64::from),
        ValueType::Bool => ["false", "true"]
            .iter()
            .position(|known| *known == name)
            .map(|at| at as i64),
        ValueType::I64 => name.parse().ok(),
        ValueType::F64 | ValueType::Text => None,
    }
}

/// The refusal of a function that means nothing for a property; names those that do.
pub(super) fn unlawful(refused: Asked, property: &PropertyDef) -> Error {
    let all = ALL.iter().map(|(wire, measure)| Asked {
        wire: *wire,
        measure: *measure,
    });
    let may: Vec<String> = all
        .filter(|asked| asked.is_lawful(property, false))
        .map(Asked::name)
        .collect();
    let kind = format!("{:?}", property.kind).to_lowercase();
    let message = format!(
        "{} of {} means nothing: its kind is {kind}, which takes {}",
        refused.name(),
        property.id,
        may.join(", ")
    );
    Error::new(Reason::UnlawfulFunction, message)
        .field("functions")
        .hint("ask for one of these, or set allow_unlawful (tidemark query agg --allow-unlawful)")
}

/// Whether a type of value has an answer to a function at all.
fn fits(function: Function, value_type: ValueType) -> bool {
    match value_type {
        ValueType::F64 | ValueType::I64 => true,
        ValueType::Bool => function != Function::Spread,
        ValueType::Enum => !matches!(function, Function::Sum | Function::Avg | Function::Spread),
        ValueType::Text => matches!(function, Function::Count | Function::First | Function::Last),
    }
}

fn fits_sequence(function: SequenceFunction, value_type: ValueType) -> bool {
    match function {
        SequenceFunction::Mode | SequenceFunction::Duration(_) | SequenceFunction::Transitions => {
            matches!(value_type, ValueType::I64 | ValueType::Bool | ValueType::Enum)
        }
        SequenceFunction::Integral | SequenceFunction::TimeWeightedAvg => {
            matches!(value_type, ValueType::F64 | ValueType::I64 | ValueType::Bool)
        }
        _ => matches!(value_type, ValueType::F64 | ValueType::I64),
    }
}

/// Codes and names of the states that durations are asked for.
fn states(request: &QueryAggregateRequest, property: &PropertyDef) -> Result<Vec<(i64, String)>> {
    let refused =
        |at: usize, message: String| Err(Error::new(Reason::InvalidValue, message).field(format!("states[{at}]")));
    if request.states.is_empty() {
        let all: Vec<String> = match property.value_type {
            ValueType::Enum => property.labels.clone(),
            ValueType::Bool => vec!["false".into(), "true".into()],
            _ => return refused(0, format!("{} may have any number: name the states", property.id)),
        };
        check_count(all.len(), "states")?;
        return Ok((0..).zip(all).collect());
    }
    let mut found = Vec::with_capacity(request.states.len());
    for (at, name) in request.states.iter().enumerate() {
        match state_code(property, name) {
            Some(code) => found.push((code, name.clone())),
            None => return refused(at, format!("{} has no state {name:?}", property.id)),
        }
    }
    Ok(found)
}

fn check_count(count: usize, field: &str) -> Result<()> {
    match count > COLUMNS_MAX {
        true => {
            let message = format!("{count} {field}, the limit is {COLUMNS_MAX}");
            Err(Error::new(Reason::InvalidValue, message).field(field))
        }
        false => Ok(()),
    }
}

fn check_rise(over_ms: i64, asked: bool) -> Result<()> {
    match over_ms {
        0 if asked => {
            let missing = Error::new(Reason::MissingField, "a rise over no time");
            Err(missing
                .field("rise_over_ms")
                .hint("say over how long, for example 3600000 for an hour"))
        }
        0..=RISE_OVER_MAX_MS => Ok(()),
        _ => {
            let message = format!("a rise over {over_ms} ms, which is not within 7 days");
            Err(Error::new(Reason::InvalidValue, message).field("rise_over_ms"))
        }
    }
}

fn check_percentiles(percentiles: &[f64], asked: bool) -> Result<()> {
    check_count(percentiles.len(), "percentiles")?;
    if asked && percentiles.is_empty() {
        let missing = Error::new(Reason::MissingField, "percentiles of no percent");
        return Err(missing.field("percentiles").hint("name them, for example 50 and 95"));
    }
    match percentiles.iter().position(|percent| !(0.0..=100.0).contains(percent)) {
        Some(at) => {
            let message = format!("a percentile of {} percent", percentiles[at]);
            Err(Error::new(Reason::InvalidValue, message).field(format!("percentiles[{at}]")))
        }
        None => Ok(()),
    }
}

fn check_bins(bins: &[f64], asked: bool) -> Result<()> {
    check_count(bins.len(), "bins")?;
    if asked && bins.is_empty() {
        let missing = Error::new(Reason::MissingField, "a histogram without bins");
        return Err(missing.field("bins").hint("name their upper borders, ascending"));
    }
    let ascend = bins.iter().all(|border| border.is_finite()) && bins.is_sorted_by(|a, b| a < b);
    match ascend {
        true => Ok(()),
        false => Err(Error::new(Reason::InvalidValue, "the borders of the bins do not ascend").field("bins")),
    }
}
