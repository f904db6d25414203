//! Windows that nothing was measured in, filled in: what is asked for, and how. Pure.
//!
//! Never here: which windows there are. Invariant: what is filled in comes from windows that have a value of their own, and
//! numbers of points are never filled in.

use tidemark_proto::v1::{AggregateColumn, AggregateSeries, FillMode, Function, QueryAggregateRequest, values};
use tidemark_series::Finished;

use super::series::check_budget;
use crate::clock::NS_PER_MS;
use crate::error::{Error, Reason, Result};

/// Values of windows in one message.
const VALUES_PER_MESSAGE: usize = 1 << 17;
/// What such a value costs, roughly, bytes.
const VALUE_BYTES: usize = 16;
/// What a window has beside its columns: start, end and how well it is covered.
const VALUES_BESIDE: usize = 4;

/// How windows without a value of their own get one.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Fill {
    mode: FillMode,
    constant: f64,
    /// How far a value may be away.
    max_gap_ns: Option<i64>,
}

impl Fill {
    /// What a request asks for; `None`: windows without points are left out.
    pub(super) fn of(request: &QueryAggregateRequest) -> Result<Option<Fill>> {
        let Some(fill) = &request.fill else {
            return Ok(None);
        };
        let refused = |message: &str, field: &str| Err(Error::new(Reason::InvalidValue, message).field(field));
        let Ok(mode) = FillMode::try_from(fill.mode) else {
            return refused("a way to fill that is not known", "fill.mode");
        };
        if fill.max_gap_ms < 0 {
            return refused("fill.max_gap_ms is negative", "fill.max_gap_ms");
        }
        if mode == FillMode::Constant && !fill.constant.is_finite() {
            return refused("the value to fill in is no number", "fill.constant");
        }
        if request.top.is_some() && mode != FillMode::Unspecified {
            return refused("a top list has one window, and nothing to fill it from", "fill");
        }
        let max_gap_ns = (fill.max_gap_ms > 0).then(|| fill.max_gap_ms.saturating_mul(NS_PER_MS));
        Ok((mode != FillMode::Unspecified).then_some(Fill {
            mode,
            constant: fill.constant,
            max_gap_ns,
        }))
    }

    /// Fills in the answers of a function: of windows that begin at `starts`, those that are not their `own` and have none. Texts
    /// are copied as long as they take so many bytes at most, with those that are `held` already.
    pub(super) fn fill(
        &self,
        function: i32,
        (starts, own): (&[i64], &[bool]),
        answers: &mut [Option<Finished>],
        (held, bytes_max): (usize, usize),
    ) -> Result<()> {
        if function == Function::Count as i32 || self.mode == FillMode::Null {
            return Ok(());
        }
        let mut texts = held + answers.iter().flatten().map(text_bytes).sum::<usize>();
        let measured: Vec<bool> = own
            .iter()
            .zip(&*answers)
            .map(|(own, answer)| *own && answer.is_some())
            .collect();
        let next_from = |at: usize| (at..measured.len()).find(|next| measured[*next]);
        let constant = self.constant_like(answers.iter().flatten().next());
        let (mut before, mut behind) = (None, next_from(0));
        for at in 0..answers.len() {
            if measured[at] {
                (before, behind) = (Some(at), next_from(at + 1));
                continue;
            }
            if own[at] || answers[at].is_some() {
                continue;
            }
            let apart = |from: usize, to: usize| starts[to].saturating_sub(starts[from]);
            let near = |apart: i64| self.max_gap_ns.is_none_or(|most| apart <= most);
            answers[at] = match (self.mode, before, behind) {
                (FillMode::Previous, Some(before), _) if near(apart(before, at)) => answers[before].clone(),
                (FillMode::Linear, Some(before), Some(behind)) if near(apart(before, behind)) => {
                    // Windows that slide may begin together where the range begins.
                    let share = apart(before, at) as f64 / apart(before, behind).max(1) as f64;
                    between(answers[before].as_ref(), answers[behind].as_ref(), share)
                }
                (FillMode::Constant, before, behind) => {
                    let nearest = before.map(|before| apart(before, at)).into_iter();
                    let nearest = nearest.chain(behind.map(|behind| apart(at, behind))).min();
                    let is_near = self.max_gap_ns.is_none() || nearest.is_some_and(near);
                    constant.clone().filter(|_| is_near)
                }
                _ => None,
            };
            texts += answers[at].as_ref().map_or(0, text_bytes);
            check_budget(texts, bytes_max)?;
        }
        Ok(())
    }

    /// The constant as a value like another one; labels, truth values and texts are no numbers.
    fn constant_like(&self, other: Option<&Finished>) -> Option<Finished> {
        match other {
            None | Some(Finished::F64(_)) => Some(Finished::F64(self.constant)),
            Some(Finished::I64(_) | Finished::U64(_)) => Some(Finished::I64(self.constant.round() as i64)),
            Some(Finished::Bool(_) | Finished::Enum(_) | Finished::Text(_)) => None,
        }
    }
}

/// A value on the line between two others; whole numbers are rounded.
fn between(from: Option<&Finished>, to: Option<&Finished>, share: f64) -> Option<Finished> {
    let whole = |from: i128, to: i128| from + ((to - from) as f64 * share).round() as i128;
    match (from?, to?) {
        (Finished::F64(from), Finished::F64(to)) => Some(Finished::F64(from + (to - from) * share)),
        (Finished::I64(from), Finished::I64(to)) => i64::try_from(whole(i128::from(*from), i128::from(*to)))
            .ok()
            .map(Finished::I64),
        (Finished::U64(from), Finished::U64(to)) => u64::try_from(whole(i128::from(*from), i128::from(*to)))
            .ok()
            .map(Finished::U64),
        _ => None,
    }
}

/// What a text takes, bytes; other answers take nothing beyond themselves.
pub(super) fn text_bytes(answer: &Finished) -> usize {
    match answer {
        Finished::Text(text) => text.len(),
        _ => 0,
    }
}

/// What the texts of a column take, bytes.
pub(super) fn texts_of(column: &AggregateColumn) -> usize {
    match column.values.as_ref().and_then(|values| values.kind.as_ref()) {
        Some(values::Kind::Text(texts)) => texts.values.iter().map(String::len).sum(),
        _ => 0,
    }
}

/// What the values of a series cost, roughly, bytes.
pub(super) fn bytes_of(series: &AggregateSeries) -> usize {
    let texts: usize = series.columns.iter().map(texts_of).sum();
    texts + bytes_of_windows(series.start_ns.len(), series.columns.len())
}

/// What so many windows with so many columns cost without their texts, roughly, bytes.
pub(super) fn bytes_of_windows(windows: usize, columns: usize) -> usize {
    windows * (columns + VALUES_BESIDE) * VALUE_BYTES
}

/// Series in messages that are not too large: those that are filled in may be long, whatever their devices sent.
pub(super) fn in_messages(series: Vec<AggregateSeries>) -> Vec<Vec<AggregateSeries>> {
    let mut messages: Vec<Vec<AggregateSeries>> = Vec::new();
    let mut room = 0;
    for one in series {
        let bytes = bytes_of(&one);
        if bytes > room || messages.is_empty() {
            messages.push(Vec::new());
            room = VALUES_PER_MESSAGE * VALUE_BYTES;
        }
        room = room.saturating_sub(bytes);
        if let Some(last) = messages.last_mut() {
            last.push(one);
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tidemark_proto::v1::{TextValues, Values};

    /// Fills windows of a second each, by letters: a number is measured, `.` is nothing, `x` is its own and has no answer.
    fn filled(fill: Fill, windows: &str) -> String {
        let starts: Vec<i64> = (0..windows.len() as i64).collect();
        let own: Vec<bool> = windows.chars().map(|letter| letter != '.').collect();
        let answer = |letter: char| letter.to_digit(10).map(|digit| Finished::F64(digit.into()));
        let mut answers: Vec<_> = windows.chars().map(answer).collect();
        fill.fill(Function::Avg as i32, (&starts, &own), &mut answers, (0, usize::MAX))
            .unwrap();
        let letter = |answer: &Option<Finished>| match answer {
            Some(Finished::F64(value)) => value.to_string(),
            _ => "-".into(),
        };
        answers.iter().map(letter).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn gaps_are_filled_as_far_as_values_reach() {
        let check = |mode, max_gap_ns, windows, expected: &str| {
            let fill = Fill {
                mode,
                constant: 7.0,
                max_gap_ns,
            };
            assert_eq!(filled(fill, windows), expected, "{mode:?} {max_gap_ns:?} {windows}");
        };
        check(FillMode::Null, None, ".1..4.", "- 1 - - 4 -");
        check(FillMode::Previous, None, ".1..4.", "- 1 1 1 4 4");
        check(FillMode::Previous, Some(1), ".1..4.", "- 1 1 - 4 4");
        check(FillMode::Previous, None, "1x.", "1 - 1");
        check(FillMode::Linear, None, ".1..4.", "- 1 2 3 4 -");
        check(FillMode::Linear, Some(2), ".1..4.6", "- 1 - - 4 5 6");
        check(FillMode::Linear, None, "1x.4", "1 - 3 4");
        check(FillMode::Constant, None, ".1..4.", "7 1 7 7 4 7");
        check(FillMode::Constant, Some(1), "..1...", "- 7 1 7 - -");
        check(FillMode::Constant, None, "...", "7 7 7");
        check(FillMode::Constant, Some(1), "...", "- - -");
    }

    #[test]
    fn a_text_is_filled_in_as_long_as_there_is_room() {
        let filled = |windows: usize, bytes_max: usize| {
            let fill = Fill {
                mode: FillMode::Previous,
                constant: 0.0,
                max_gap_ns: None,
            };
            let starts: Vec<i64> = (0..windows as i64).collect();
            let own: Vec<bool> = (0..windows).map(|window| window == 0).collect();
            let mut answers = vec![None; windows];
            answers[0] = Some(Finished::Text("x".repeat(1_000)));
            let told = fill.fill(Function::Last as i32, (&starts, &own), &mut answers, (0, bytes_max));
            (told.map_err(|error| error.reason()), answers.iter().flatten().count())
        };
        assert_eq!(filled(50, 50_000), (Ok(()), 50));
        assert_eq!(filled(50, 49_999), (Err(Reason::QueryTooLarge), 50));
        assert_eq!(
            filled(100_000, 20_000),
            (Err(Reason::QueryTooLarge), 21),
            "and no further"
        );
    }

    #[test]
    fn texts_are_among_what_a_series_costs() {
        let of = |text: &str| {
            let texts = TextValues {
                values: vec![text.to_owned(); 3],
            };
            bytes_of(&AggregateSeries {
                start_ns: vec![0; 3],
                columns: vec![AggregateColumn {
                    values: Some(Values {
                        kind: Some(values::Kind::Text(texts)),
                    }),
                    ..AggregateColumn::default()
                }],
                ..AggregateSeries::default()
            })
        };
        assert_eq!(of("seventeen letters"), of("") + 3 * 17);
    }

    #[test]
    fn whole_numbers_stay_whole_and_labels_have_nothing_between() {
        let i64 = |value| Some(Finished::I64(value));
        assert_eq!(between(i64(i64::MIN).as_ref(), i64(i64::MAX).as_ref(), 0.5), i64(0));
        assert_eq!(between(i64(1).as_ref(), i64(4).as_ref(), 0.5), i64(3));
        let (a, b) = (Finished::Enum(1), Finished::Enum(3));
        assert_eq!(between(Some(&a), Some(&b), 0.5), None);
    }

    #[test]
    fn long_series_travel_alone() {
        let of = |windows: usize| AggregateSeries {
            start_ns: vec![0; windows],
            ..AggregateSeries::default()
        };
        let lengths = |series| -> Vec<usize> { in_messages(series).iter().map(Vec::len).collect() };
        assert_eq!(lengths(vec![of(1), of(2), of(100_000), of(3), of(4)]), [2, 1, 2]);
        assert_eq!(lengths(vec![]), [0; 0]);
    }
}
