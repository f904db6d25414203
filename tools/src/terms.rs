//! Flags about a question as a whole: what it may cost, whether it says so, what may be known. Never: judging any of it.
//!
//! Invariant: what the server says of an answer's cost is printed as it is.

use clap::Args;
use tidemark_client::v1;

use crate::cli::now_ns;
pub(crate) use crate::cursor::CursorArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Cell, Printer};
use crate::time::{TsFormat, format_instant, parse_instant};

/// What a question may cost.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TermsArgs {
    /// Decode at most so many values
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) points_max: u64,
    /// Take a part of the answer, and hear that it is one, where a budget (time, values, memory) is used up
    #[arg(long)]
    pub(crate) partial: bool,
    /// Print below the answer what it cost: shards, blocks, values
    #[arg(long)]
    pub(crate) explain: bool,
}

/// What may be known.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct KnownArgs {
    /// Answer from what had been received by this time only [default: everything]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    known_at: Option<String>,
}

impl KnownArgs {
    /// In the form of the contract, where 0 stands for everything.
    pub(crate) fn at_ns(&self) -> Outcome<i64> {
        self.at_ns_by(now_ns())
    }

    /// The same where it is now that time.
    pub(crate) fn at_ns_by(&self, now_ns: i64) -> Outcome<i64> {
        let Some(text) = &self.known_at else {
            return Ok(0);
        };
        match parse_instant(text, now_ns) {
            Ok(at_ns) if at_ns > 0 => Ok(at_ns),
            Ok(_) => Err(Failure::usage(
                "nothing was known then",
                "give a time after 1970 with --known-at",
            )),
            Err(why) => Err(Failure::usage("the time of --known-at is not clear", why)),
        }
    }

    /// Refuses an answer that does not say that it kept to the time.
    pub(crate) fn check(&self, summary: Option<&v1::AnswerSummary>) -> Outcome {
        match self.known_at.is_some() && summary.is_none_or(|summary| summary.known_at_ns == 0) {
            true => Err(Failure::new(
                Exit::Failed,
                "the answer holds everything, whenever it was received",
                "a node of an older version gave it",
                "tidemark version --server",
            )),
            false => Ok(()),
        }
    }
}

/// Which points.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TestArgs {
    /// Only points of report kind test, which are in no other answer
    #[arg(long)]
    pub(crate) test_points: bool,
}

impl TestArgs {
    /// Refuses an answer that does not say that it is of test points.
    pub(crate) fn check(&self, summary: Option<&v1::AnswerSummary>) -> Outcome {
        match self.test_points && summary.is_none_or(|summary| !summary.test_points) {
            true => Err(Failure::new(
                Exit::Failed,
                "the answer holds other points than test points",
                "a node of an older version gave it",
                "tidemark version --server",
            )),
            false => Ok(()),
        }
    }
}

/// When an answer knew what it says, and what that left out.
pub(crate) fn known_text(summary: &v1::AnswerSummary) -> Option<String> {
    let at = match summary.known_at_ns {
        0 => return None,
        at => format_instant(at, TsFormat::Rfc3339),
    };
    let mut text = format!("as known at {at}");
    if summary.received_later > 0 {
        text += &format!(", {} records came later", summary.received_later);
    }
    if summary.replaced_later > 0 {
        text += &format!(
            " ({} of them in the place of others, whose values are gone)",
            summary.replaced_later
        );
    }
    Some(text)
}

const COLUMNS: [&str; 11] = [
    "shard",
    "devices",
    "buckets",
    "bytes",
    "blocks",
    "header_only",
    "decoded",
    "points_decoded",
    "rollup_windows",
    "from_memory",
    "took_us",
];

/// What the answer cost, by shard, below it; nothing where it was not asked for.
pub(crate) fn print_explain(printer: &mut Printer, summary: Option<&v1::AnswerSummary>) -> Outcome {
    let Some(explain) = summary.and_then(|summary| summary.explain.as_ref()) else {
        return Ok(());
    };
    printer.section("explain", &COLUMNS)?;
    let row = |name: Cell, work: Option<v1::Work>, from_memory: Cell, took_us: i64| {
        let work = work.unwrap_or_default();
        let counts = [
            work.devices,
            work.buckets,
            work.bytes,
            work.blocks,
            work.blocks_header_only,
            work.blocks_decoded,
            work.points_decoded,
            work.rollup_windows,
        ];
        let mut cells = vec![name];
        cells.extend(counts.map(Cell::Uint));
        cells.extend([from_memory, Cell::Int(took_us)]);
        cells
    };
    for shard in &explain.shards {
        let (name, from_memory) = (Cell::text(shard.shard.to_string()), Cell::Bool(shard.from_memory));
        printer.row(row(name, shard.work, from_memory, shard.took_us))?;
    }
    printer.row(row(Cell::text("all"), explain.total, Cell::None, explain.took_us))
}

/// How a budget cut an answer short.
pub(crate) fn cut_short_text(cut: &v1::CutShort) -> String {
    let (limit, whole, shards) = (cut.limit, cut.shards_whole, cut.shards);
    let budget = match cut.budget() {
        v1::Budget::Time => format!("{limit} ms were over"),
        v1::Budget::Points => format!("{limit} values were decoded"),
        v1::Budget::Bytes => format!("{limit} bytes were held"),
        v1::Budget::Unspecified => "a budget was used up".to_owned(),
    };
    format!("PARTIAL, {budget}: {whole} of {shards} shards are whole")
}

/// Time whose raw points are gone for their age.
pub(crate) fn sealed_text(sealed: &v1::SealedTime) -> String {
    let before = format_instant(sealed.before_ns, TsFormat::Rfc3339);
    let rest = match sealed.rollup_s {
        0 => "nothing of that time is in the answer".to_owned(),
        length_s => format!("that time is answered by rollups of {length_s} s"),
    };
    format!("RAW POINTS GONE of {} before {before}, {rest}", sealed.device_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_what_they_knew() {
        let summary = |known_at_ns, received_later, replaced_later| v1::AnswerSummary {
            known_at_ns,
            received_later,
            replaced_later,
            ..v1::AnswerSummary::default()
        };
        let asked = |known_at: Option<&str>| KnownArgs {
            known_at: known_at.map(Into::into),
        };
        assert_eq!(known_text(&summary(0, 0, 0)), None);
        let text = |later, replaced| known_text(&summary(1_000_000_000, later, replaced)).unwrap_or_default();
        assert_eq!(text(0, 0), "as known at 1970-01-01T00:00:01Z");
        assert_eq!(text(7, 0), "as known at 1970-01-01T00:00:01Z, 7 records came later");
        assert!(text(7, 2).ends_with("7 records came later (2 of them in the place of others, whose values are gone)"));
        assert_eq!(asked(Some("1s")).at_ns().ok(), Some(1_000_000_000));
        assert_eq!(asked(None).at_ns().ok(), Some(0));
        for wrong in ["0s", "-5s", "then"] {
            assert_eq!(
                asked(Some(wrong)).at_ns().map_err(|failure| failure.exit()),
                Err(Exit::Usage)
            );
        }
        assert!(asked(Some("1s")).check(Some(&summary(1, 0, 0))).is_ok());
        assert!(asked(Some("1s")).check(Some(&summary(0, 0, 0))).is_err());
        assert!(asked(None).check(Some(&summary(0, 0, 0))).is_ok());
    }

    #[test]
    fn answers_say_that_they_are_of_test_points() {
        let check = |asked: bool, told: bool| {
            let summary = v1::AnswerSummary {
                test_points: told,
                ..v1::AnswerSummary::default()
            };
            TestArgs { test_points: asked }.check(Some(&summary)).is_ok()
        };
        assert!(check(true, true) && check(false, false) && !check(true, false));
        assert!(TestArgs { test_points: true }.check(None).is_err());
    }
}
