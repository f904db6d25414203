//! The series that lead by the first function of a question. A shard keeps as many as are asked for, the coordinator the
//! best of what the shards sent.
//!
//! Never here: windows, where series come from. Invariant: who leads, and in which order, depends on values and names alone,
//! so shards may drop what they do not keep.

use std::collections::BTreeMap;

use tidemark_proto::v1::Top;
use tidemark_series::Finished;

/// Series by their standing, never more than asked for.
pub(super) struct Leaders<T> {
    limit: usize,
    lowest: bool,
    /// With what each of them takes, bytes.
    held: BTreeMap<(Standing, Vec<String>), (usize, T)>,
    bytes: usize,
}

/// Where a value stands: the least is the best. Doubles stand as they are, whole numbers by the double nearest to them and
/// what is left; what is no number comes last.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    unknown: bool,
    value: i64,
    rest: i64,
}

impl Standing {
    /// That of what has none.
    pub(super) const LAST: Standing = Standing {
        unknown: true,
        value: 0,
        rest: 0,
    };
}

impl<T> Leaders<T> {
    /// None yet, of those asked for.
    pub(super) fn new(top: &Top) -> Leaders<T> {
        Leaders {
            limit: usize::try_from(top.limit).unwrap_or(usize::MAX),
            lowest: top.lowest,
            held: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// The standing of a series whose one window gives this for the first function.
    pub(super) fn stands(&self, finished: Option<&Finished>) -> Standing {
        let (value, rest) = match finished {
            Some(Finished::F64(value)) if !value.is_nan() => (*value, 0),
            Some(Finished::I64(value)) => split(i128::from(*value)),
            Some(Finished::U64(value)) => split(i128::from(*value)),
            Some(Finished::Bool(value)) => (f64::from(u8::from(*value)), 0),
            Some(Finished::Enum(value)) => (f64::from(*value), 0),
            Some(Finished::F64(_) | Finished::Text(_)) | None => return Standing::LAST,
        };
        let (value, rest) = match self.lowest {
            true => (ordered(value), rest),
            false => (!ordered(value), -rest),
        };
        Standing {
            unknown: false,
            value,
            rest,
        }
    }

    /// Takes a series of so many bytes in, unless enough others are better; names tell equal ones apart.
    pub(super) fn offer(
        &mut self,
        standing: Standing,
        name: impl FnOnce() -> Vec<String>,
        bytes: usize,
        series: impl FnOnce() -> T,
    ) {
        let last = self.held.last_key_value().map(|((last, _), _)| *last);
        if self.held.len() >= self.limit && last.is_none_or(|last| last < standing) {
            return;
        }
        let replaced = self.held.insert((standing, name()), (bytes, series()));
        self.bytes = self.bytes + bytes - replaced.map_or(0, |(bytes, _)| bytes);
        if self.held.len() > self.limit
            && let Some((_, (bytes, _))) = self.held.pop_last()
        {
            self.bytes -= bytes;
        }
    }

    /// Whether the smallest lead, not the largest.
    pub(super) fn lowest(&self) -> bool {
        self.lowest
    }

    /// How many are asked for.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a series of this standing can come in, whatever its name.
    pub(super) fn have_room_for(&self, standing: Standing) -> bool {
        let last = self.held.last_key_value().map(|((last, _), _)| *last);
        self.held.len() < self.limit || last.is_some_and(|last| last >= standing)
    }

    /// What all of them take, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The series, the leader first.
    pub(super) fn into_series(self) -> impl Iterator<Item = T> {
        self.held.into_values().map(|(_, series)| series)
    }
}

/// The bits of a double as a number in the order of the doubles.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The double nearest to a whole number, and what is left.
fn split(value: i128) -> (f64, i64) {
    let nearest = value as f64;
    (nearest, (value - nearest as i128) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limit: u32, lowest: bool, series: &[(&str, Option<Finished>)], expected: &[&str]) {
        let mut leaders = Leaders::new(&Top { limit, lowest });
        for (name, finished) in series {
            let standing = leaders.stands(finished.as_ref());
            leaders.offer(standing, || vec![(*name).to_owned()], name.len(), || *name);
        }
        assert_eq!(leaders.bytes(), expected.iter().map(|name| name.len()).sum::<usize>());
        assert_eq!(leaders.into_series().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_largest_or_the_smallest_lead_and_names_decide_between_equals() {
        let f64 = |value: f64| Some(Finished::F64(value));
        let series = [
            ("d", f64(2.5)),
            ("c", f64(7.0)),
            ("b", f64(-3.0)),
            ("a", f64(2.5)),
            ("nan", f64(f64::NAN)),
            ("none", None),
        ];
        check(3, false, &series, &["c", "a", "d"]);
        check(2, true, &series, &["b", "a"]);
        check(9, false, &series, &["c", "a", "d", "b", "nan", "none"]);
        check(9, true, &series, &["b", "a", "d", "c", "nan", "none"]);
    }

    #[test]
    fn whole_numbers_stand_exactly() {
        let i64 = |value: i64| Some(Finished::I64(value));
        let series = [
            ("a", i64(i64::MAX)),
            ("b", i64(i64::MAX - 1)),
            ("c", i64(i64::MIN)),
            ("d", i64(i64::MIN + 1)),
            ("e", i64(-1)),
            ("f", i64((1 << 53) + 1)),
            ("g", i64(1 << 53)),
        ];
        check(9, false, &series, &["a", "b", "f", "g", "e", "d", "c"]);
        check(4, true, &series, &["c", "d", "e", "g"]);
        check(
            1,
            false,
            &[("x", Some(Finished::U64(u64::MAX))), ("y", i64(i64::MAX))],
            &["x"],
        );
    }

    #[test]
    fn every_kind_of_value_has_a_standing() {
        let series = [
            ("off", Some(Finished::Bool(false))),
            ("on", Some(Finished::Bool(true))),
            ("fast", Some(Finished::Enum(2))),
            ("text", Some(Finished::Text("z".into()))),
        ];
        check(9, false, &series, &["fast", "on", "off", "text"]);
    }
}
