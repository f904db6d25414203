//! One device that is looked at for its quality: what its blocks say of points in time, of records that came again, and of when it was
//! heard last.
//!
//! Never here: what is promised (see `quality`), how slots are filled (see `tidemark_series::assess`). Invariant: a block that is told by
//! its header counts as its rows would.

use tidemark_proto::v1::{Quality, ReportKind};
use tidemark_series::assess::{Assessing, Assessment, Promise};
use tidemark_series::checks::{Judge, Judged, Stated};
use tidemark_series::{Block, Column, Corrupt, Edge, Number, Points, PropertyNumber, bucket};

use super::health::Signals;
use super::latencies::Latencies;
use super::shard_side::corrupt;
use super::tally::Tally;
use super::walk::is_doubted;
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;

const STATED: Stated = Stated {
    discounts: counts_for_nothing,
    suspects: is_doubted,
};

/// What is looked at of devices of one type.
#[derive(Copy, Clone)]
pub(super) struct Look<'a> {
    pub(super) def: &'a TypeDef,
    pub(super) property: &'a PropertyDef,
    /// Signals too.
    pub(super) signals: bool,
    /// Where gaps begin and end.
    pub(super) gaps: bool,
    /// Points before tell only of values, and where gaps begin.
    pub(super) assess_from: i64,
    /// What is read.
    pub(super) range: (i64, i64),
}

/// A device that is looked at.
pub(super) struct Device<'a> {
    promise: &'a Promise,
    latencies: Latencies,
    look: Look<'a>,
    assessing: Assessing<'a>,
    judge: Judge<'a>,
    counts: Counts,
    signals: Signals<'a>,
    /// A point within the time was judged by others of which nobody knows what is wrong with them.
    unsettled: bool,
    /// The same of the last one before the time.
    begin_unsettled: bool,
}

/// What is counted of points and records within the time.
#[derive(Copy, Clone, Default)]
pub(super) struct Counts {
    pub(super) fail: u64,
    pub(super) suspect: u64,
    /// Records that were sent again, each as often.
    pub(super) repeats: u64,
}

impl<'a> Device<'a> {
    /// Nothing was seen yet.
    pub(super) fn new(promise: &'a Promise, look: Look<'a>) -> Device<'a> {
        Device {
            promise,
            latencies: Latencies::of_type(look.def),
            assessing: Assessing::new(promise),
            judge: Judge::new(&look.property.checks, STATED).since(look.range.0),
            counts: Counts::default(),
            signals: Signals::of(look.def, look.signals),
            look,
            unsettled: false,
            begin_unsettled: false,
        }
    }

    /// Whether the next point behind those that were seen decides about the last one of them.
    pub(super) fn is_undecided(&self) -> bool {
        self.judge.is_undecided()
    }

    /// Whether points before those that were seen may tell otherwise what of them is wrong.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled || self.look.gaps && self.begin_unsettled
    }

    /// Whether a point before what was read would tell where a gap begins.
    pub(super) fn lacks_begin(&self) -> bool {
        self.look.gaps && self.assessing.lacks_begin()
    }

    /// The last point before what was read that counts.
    pub(super) fn began_with(&mut self, t_ns: i64) {
        self.assessing.counting(t_ns);
    }

    /// Of a time under maintenance: points before the one that is given back were not.
    pub(super) fn before_maintenance(&self, t_ns: i64) -> Option<i64> {
        let edge = self.promise.edge;
        let (from_ns, _) = self.assessing.left_out().around(edge, t_ns)?;
        Some(match edge {
            Edge::StartClosed => from_ns,
            Edge::EndClosed => from_ns.saturating_add(1),
        })
    }

    /// Points before or behind the time, that count: they tell of those in it.
    pub(super) fn neighbours(&mut self, points: &Points) {
        for (t_ns, number, stated) in points.stated_numbers() {
            self.judge(t_ns, number.value(), stated);
        }
    }

    /// Looks at the blocks of a bucket value, as far as they are in the range.
    pub(super) fn take(&mut self, tally: &Tally<'_>, value: &[u8]) -> Result<()> {
        let range = self.look.range;
        for block in bucket::blocks(value) {
            let block = block.map_err(corrupt)?;
            if block.last_ns() >= range.0 && block.first_ns() < range.1 {
                let decoded = self.block(&block).map_err(corrupt)?;
                let signals = self
                    .signals
                    .take(&block, self.promise, &self.assessing)
                    .map_err(corrupt)?;
                tally.block(decoded + signals)?;
            }
        }
        Ok(())
    }

    /// What is missing for a verdict: a point, and any word of it.
    pub(super) fn silent(&self) -> (bool, bool) {
        (!self.assessing.any(), !self.assessing.any_word())
    }

    /// Whether maintenance was declared for any time up to the end of that which is judged.
    pub(super) fn has_maintenance(&self) -> bool {
        !self.promise.maintenance.is_empty()
    }

    /// There are no more: what was promised, what was found, counted, and the median of the signals.
    pub(super) fn finish(mut self) -> (&'a Promise, Assessment, Counts, Option<f64>) {
        let (counts, assessing, range) = (&mut self.counts, &mut self.assessing, self.look.range);
        self.judge.end(|point| {
            counts.note(point, assessing);
            note_counting(assessing, point, range);
        });
        (
            self.promise,
            self.assessing.finish(),
            self.counts,
            self.signals.median(),
        )
    }

    /// Returns how many values had to be decoded.
    fn block(&mut self, block: &Block<'_>) -> std::result::Result<u64, Corrupt> {
        let Look {
            property,
            assess_from,
            range,
            ..
        } = self.look;
        let number = property.number;
        if let Some(kind) = block.report_kind()
            && block.is_sound(number, &property.checks)?
        {
            if kind == ReportKind::Test as u8 {
                return Ok(0);
            }
            if let Some(last) = block.last_until(self.promise.until_ns)? {
                self.assessing.heard(last);
            }
            if block.repeats_sum() > 0 {
                self.repeats(&block.times()?, &block.repeated_records()?, |_| true);
            }
            if !is_apart(kind) && block.count(number) > 0 {
                self.assessing.rows(block, number, range, self.latencies.of(kind))?;
            }
            return Ok(0);
        }
        let records = block.decode(Some(&[number]))?;
        let kinds = &records.report_kind;
        let is_word = |row: usize| kinds[row] != ReportKind::Test as u8;
        let words = (0..records.len()).filter(|row| is_word(*row));
        words.for_each(|row| self.assessing.heard(records.observed_at[row]));
        self.repeats(&records.observed_at, &block.repeated_records()?, is_word);
        let cells = records.column(number).into_iter().flat_map(Column::cells);
        for (row, value, stated) in cells {
            let (t_ns, kind) = (records.observed_at[row], kinds[row]);
            if is_apart(kind) || stated == Quality::Missing as u8 || !(range.0..range.1).contains(&t_ns) {
                continue;
            }
            let latency_ns = self.latencies.of(kind);
            if t_ns >= assess_from {
                self.assessing.point(t_ns, records.received_at[row], latency_ns);
            }
            match value.number() {
                Some(value) => self.judge(t_ns, value, stated),
                None => self.by_its_source(t_ns, stated),
            }
        }
        Ok(records.points() as u64)
    }

    fn judge(&mut self, t_ns: i64, value: f64, stated: u8) {
        let (counts, promise, assessing) = (&mut self.counts, self.promise, &mut self.assessing);
        let (mut within, mut before, range) = (false, false, self.look.range);
        let mut out = |point: Judged| {
            match counts.note(point, assessing) {
                true => within = true,
                false => {
                    before |= point.t_ns <= promise.from_ns && !assessing.left_out().hold(promise.edge, point.t_ns)
                }
            }
            note_counting(assessing, point, range);
        };
        self.judge.point(t_ns, value, stated, &mut out);
        if !self.look.property.checks.needs_order() {
            // It need not wait for the next one, which may come in a block that is not looked into.
            self.judge.end(&mut out);
        }
        self.unsettled |= within && !self.judge.is_settled();
        if before {
            self.begin_unsettled = !self.judge.is_settled();
        }
    }

    /// What is no number is what its source says of it.
    fn by_its_source(&mut self, t_ns: i64, stated: u8) {
        let point = Judged {
            t_ns,
            number: Number::Double(f64::NAN),
            stated,
            finding: None,
            still: false,
        };
        self.counts.note(point, &self.assessing);
        note_counting(&mut self.assessing, point, self.look.range);
    }

    /// Records that were sent again count for that whatever they say.
    fn repeats(&mut self, times: &[i64], repeats: &[u32], counts: impl Fn(usize) -> bool) {
        let within = |row: &usize| self.assessing.takes(times[*row]) && counts(*row);
        let rows = (0..repeats.len()).filter(within);
        self.counts.repeats += rows.map(|row| u64::from(repeats[row])).sum::<u64>();
    }
}

impl Counts {
    /// Counts a point, if it is within the time and not under maintenance; says whether it is.
    fn note(&mut self, point: Judged, assessing: &Assessing<'_>) -> bool {
        if !assessing.takes(point.t_ns) {
            return false;
        }
        if fails(point) {
            self.fail += 1;
        } else if is_doubted(point.stated) || point.finding.is_some() {
            self.suspect += 1;
        }
        true
    }
}

fn fails(point: Judged) -> bool {
    counts_for_nothing(point.stated) || point.finding.is_some_and(|finding| finding.fails())
}

/// Takes a point that was read and counts.
fn note_counting(assessing: &mut Assessing<'_>, point: Judged, range: (i64, i64)) {
    if point.t_ns >= range.0 && !fails(point) {
        assessing.counting(point.t_ns);
    }
}

/// When the device of a block that begins before a time was heard last in it, not after that time.
pub(super) fn last_word(block: &Block<'_>, to_ns: i64) -> std::result::Result<Option<i64>, Corrupt> {
    match block.report_kind() {
        Some(kind) if kind == ReportKind::Test as u8 => Ok(None),
        Some(_) => block.last_until(to_ns),
        None => {
            let records = block.decode(Some(&[]))?;
            let words = records.observed_at.iter().zip(&records.report_kind);
            let mut words = words.filter(|(t, kind)| **t <= to_ns && **kind != ReportKind::Test as u8);
            Ok(words.next_back().map(|(t, _)| *t))
        }
    }
}

/// The last point of a property in a block, not after a time.
pub(super) fn last_point(
    block: &Block<'_>,
    property: PropertyNumber,
    to_ns: i64,
) -> std::result::Result<Option<i64>, Corrupt> {
    if block.count(property) == 0 {
        return Ok(None);
    }
    let records = block.decode(Some(&[property]))?;
    let cells = records.column(property).into_iter().flat_map(Column::cells);
    let points = cells.filter(|(row, _, stated)| {
        let is_point = !is_apart(records.report_kind[*row]) && *stated != Quality::Missing as u8;
        is_point && records.observed_at[*row] <= to_ns
    });
    Ok(points.last().map(|(row, ..)| records.observed_at[row]))
}

/// Tests are stored apart, and who only says that it is there has nothing else to say.
pub(super) fn is_apart(kind: u8) -> bool {
    kind == ReportKind::Test as u8 || kind == ReportKind::Keepalive as u8
}

/// What a source calls failed or missing.
pub(super) fn counts_for_nothing(stated: u8) -> bool {
    stated == Quality::Fail as u8 || stated == Quality::Missing as u8
}
