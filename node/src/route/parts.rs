//! Parts of a shard's answer on their way from its thread: small ones go together, since every handing over wakes somebody.
//!
//! Never here: what a part says. Invariant: parts keep their order, and no more wait together than a few large ones.

use std::cell::RefCell;

use tidemark_proto::peer::read_shard_response::Part;
use tokio::sync::mpsc;

use crate::error::Result;

/// Handings over that wait for whoever takes the answer.
const AHEAD: usize = 4;
/// Parts of so many bytes go at once.
const TOGETHER_BYTES: usize = 64 << 10;
/// About what a device takes in a part that lists devices.
const DEVICE_BYTES: usize = 512;
/// What a part takes beside its columns.
const PART_BYTES: usize = 128;

/// Parts of a shard's answer, some at a time; the last one is a summary, or an error ends it.
pub type ShardAnswer = mpsc::Receiver<Result<Vec<Part>>>;

/// Where a shard's answer goes.
pub trait Hearing {
    /// Takes a part; false when nobody listens any more.
    fn take(&self, part: Part) -> bool;
    /// False when nobody listens any more.
    fn is_there(&self) -> bool;
}

/// The end that gives parts.
pub(super) struct Giving {
    out: mpsc::Sender<Result<Vec<Part>>>,
    waiting: RefCell<(Vec<Part>, usize)>,
}

/// Both ends.
pub(super) fn parts() -> (Giving, ShardAnswer) {
    let (out, answer) = mpsc::channel(AHEAD);
    let waiting = RefCell::default();
    (Giving { out, waiting }, answer)
}

impl Hearing for Giving {
    /// Blocks while too much waits.
    fn take(&self, part: Part) -> bool {
        let together = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.1 += bytes_of(&part);
            waiting.0.push(part);
            if waiting.1 < TOGETHER_BYTES {
                return !self.out.is_closed();
            }
            std::mem::take(&mut *waiting).0
        };
        self.out.blocking_send(Ok(together)).is_ok()
    }

    fn is_there(&self) -> bool {
        !self.out.is_closed()
    }
}

impl Giving {
    /// Gives what waits and the last part, or how it failed.
    pub(super) fn end(self, last: Result<Part>) {
        let (mut together, _) = self.waiting.into_inner();
        match last {
            Ok(last) => {
                together.push(last);
                self.out.blocking_send(Ok(together)).ok();
            }
            Err(error) => {
                self.out.blocking_send(Err(error)).ok();
            }
        }
    }
}

/// About the bytes of a part; one that is large in any case counts as such.
fn bytes_of(part: &Part) -> usize {
    match part {
        Part::Partials(partials) => {
            let encoded = partials.partial.iter().chain(&partials.sequence);
            let encoded: usize = encoded.map(bytes::Bytes::len).sum();
            PART_BYTES + encoded + size_of_val::<[i64]>(&partials.window)
        }
        Part::Latest(latest) => latest.devices.len() * DEVICE_BYTES,
        Part::Devices(list) => list.devices.len() * DEVICE_BYTES,
        Part::Quality(list) => list.reports.len() * DEVICE_BYTES,
        Part::Intervals(list) => list.devices.len() * DEVICE_BYTES,
        Part::Alerts(list) => (list.alerts.len() + list.states.len()) * DEVICE_BYTES,
        Part::Batch(_) | Part::Resolved(_) | Part::Counts(_) | Part::Join(_) => TOGETHER_BYTES,
        Part::Summary(_) | Part::NotLeader(_) | Part::Failure(_) => PART_BYTES,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::error::Error;
    use tidemark_proto::peer::Partials;
    use tidemark_proto::v1::{AnswerSummary, Batch};

    fn small(number: u32) -> Part {
        Part::Partials(Partials {
            type_number: number,
            ..Partials::default()
        })
    }

    fn numbers(parts: &[Part]) -> Vec<u32> {
        let number = |part: &Part| match part {
            Part::Partials(partials) => partials.type_number,
            Part::Batch(_) => 1_000,
            Part::Summary(_) => 2_000,
            other => panic!("{other:?}"),
        };
        parts.iter().map(number).collect()
    }

    #[test]
    fn parts_come_in_order_and_small_ones_together() {
        let (giving, mut answer) = parts();
        for number in 0..3 {
            assert!(giving.take(small(number)));
        }
        assert!(giving.take(Part::Batch(Batch::default())));
        assert!(giving.take(small(3)));
        giving.end(Ok(Part::Summary(AnswerSummary::default())));
        let first = answer.blocking_recv().unwrap().unwrap();
        assert_eq!(numbers(&first), [0, 1, 2, 1_000]);
        let last = answer.blocking_recv().unwrap().unwrap();
        assert_eq!(numbers(&last), [3, 2_000]);
        assert!(answer.blocking_recv().is_none());
    }

    #[test]
    fn whoever_gives_learns_that_nobody_listens() {
        let (giving, answer) = parts();
        assert!(giving.take(small(0)));
        drop(answer);
        assert!(!giving.take(small(1)));
        giving.end(Err(Error::internal("late")));
    }
}
