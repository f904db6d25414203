//! Parts of a shard's answer on their way from its thread: small ones go together, since every handing over wakes somebody.
//!
//! Never here: what a part says. Invariant: parts keep their order, and no more wait together than a few large ones.

use std::cell::{Cell, RefCell};

use prost::Message as _;
use tidemark_proto::peer::read_shard_response::Part;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::asker::Asker;
use super::reads::Place;
use crate::error::Result;

/// Handings over that wait for whoever takes the answer.
const AHEAD: usize = 4;
/// Parts of so many bytes go at once.
const TOGETHER_BYTES: usize = 64 << 10;
/// About what a device takes in a part that lists devices.
const DEVICE_BYTES: usize = 512;
/// What a part takes beside its columns.
const PART_BYTES: usize = 128;

/// Parts of a shard's answer, some at a time; the last one is a summary, or an error ends it. Whoever drops it is gone.
#[derive(Debug)]
pub struct ShardAnswer {
    /// What came already.
    first: Option<Vec<Part>>,
    rest: mpsc::Receiver<Result<Vec<Part>>>,
}

impl From<mpsc::Receiver<Result<Vec<Part>>>> for ShardAnswer {
    fn from(rest: mpsc::Receiver<Result<Vec<Part>>>) -> ShardAnswer {
        ShardAnswer { first: None, rest }
    }
}

impl ShardAnswer {
    /// One that is there as a whole.
    pub fn whole(parts: Vec<Part>) -> ShardAnswer {
        ShardAnswer {
            first: Some(parts),
            rest: mpsc::channel(1).1,
        }
    }

    /// The next parts, or how it failed; `None` behind the last ones.
    pub async fn recv(&mut self) -> Option<Result<Vec<Part>>> {
        match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => self.rest.recv().await,
        }
    }

    /// Waits until it has begun.
    ///
    /// # Errors
    /// How it failed, where nothing came of it.
    pub async fn begun(&mut self) -> Result<()> {
        if self.first.is_none() {
            self.first = self.rest.recv().await.transpose()?;
        }
        Ok(())
    }
}

/// Where a shard's answer goes.
pub trait Hearing {
    /// Takes a part; false when nobody listens any more.
    fn take(&self, part: Part) -> bool;
    /// False when nobody listens any more. Asked between two pieces of work, where whoever works may let others have its core.
    fn is_there(&self) -> bool;
    /// On whose behalf it is.
    fn asker(&self) -> &Asker;
    /// Hears that so many values were decoded.
    ///
    /// # Errors
    /// `TOO_MANY_POINTS` where all parts of the question together decoded more than they may.
    fn spend(&self, points: u64) -> Result<()>;
}

/// The end that gives parts.
pub(super) struct Giving {
    out: mpsc::Sender<Result<Vec<Part>>>,
    waiting: RefCell<(Vec<Part>, usize)>,
    asker: Asker,
    /// Where the read works; it does not while it waits for whoever takes its parts.
    pub(super) place: Option<Place>,
    /// Values decoded that another node has not heard of.
    untold: Cell<u64>,
}

/// Both ends.
pub(super) fn parts(asker: Asker) -> (Giving, ShardAnswer) {
    let (out, rest) = mpsc::channel(AHEAD);
    let giving = Giving {
        out,
        waiting: RefCell::default(),
        asker,
        place: None,
        untold: Cell::default(),
    };
    (giving, ShardAnswer::from(rest))
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
        self.send(Ok(together))
    }

    fn is_there(&self) -> bool {
        if let Some(place) = &self.place {
            place.step_aside();
        }
        !self.out.is_closed()
    }

    fn asker(&self) -> &Asker {
        &self.asker
    }

    fn spend(&self, points: u64) -> Result<()> {
        if let Some(meter) = &self.asker.meter {
            return meter.spend(points);
        }
        let untold = self.untold.get() + points;
        self.untold.set(untold);
        if self.asker.progress_every > 0 && untold >= self.asker.progress_every {
            self.untold.set(0);
            let mut together = std::mem::take(&mut *self.waiting.borrow_mut()).0;
            together.push(Part::Progress(untold));
            self.send(Ok(together));
        }
        Ok(())
    }
}

impl Giving {
    /// Gives what waits and the last part, or how it failed; then what was decoded in vain is told first.
    pub(super) fn end(self, last: Result<Part>) {
        let mut together = std::mem::take(&mut *self.waiting.borrow_mut()).0;
        let untold = self.untold.get();
        if last.is_err() && untold > 0 && self.asker.progress_every > 0 {
            self.send(Ok(vec![Part::Progress(untold)]));
        }
        let together = last.map(|last| {
            together.push(last);
            together
        });
        self.send(together);
    }

    /// False when nobody listens any more.
    fn send(&self, together: Result<Vec<Part>>) -> bool {
        match self.out.try_send(together) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(together)) => {
                let waiting = || self.out.blocking_send(together).is_ok();
                match &self.place {
                    Some(place) => place.lend(waiting),
                    None => waiting(),
                }
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
        Part::Finished(series) => series.encoded_len(),
        Part::Latest(latest) => latest.devices.iter().chain(&latest.tables).map(bytes::Bytes::len).sum(),
        Part::Devices(list) => list.devices.len() * DEVICE_BYTES,
        Part::Quality(list) => list.reports.len() * DEVICE_BYTES,
        Part::Intervals(list) => list.devices.len() * DEVICE_BYTES,
        Part::Alerts(list) => (list.alerts.len() + list.states.len()) * DEVICE_BYTES,
        Part::Batch(_) | Part::Resolved(_) | Part::Counts(_) | Part::Join(_) => TOGETHER_BYTES,
        Part::Summary(_) | Part::NotLeader(_) | Part::Failure(_) | Part::Progress(_) => PART_BYTES,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::clock::monotonic;
    use crate::error::{Error, Reason};
    use crate::limits::Limits;
    use crate::route::{Applications, Meter};
    use tidemark_proto::peer::{LatestDevices, Partials};
    use tidemark_proto::v1::{AnswerSummary, Batch};

    fn nobody() -> Asker {
        Asker::uncounted(Applications::new(&Limits::default()).named(""), monotonic())
    }

    #[test]
    fn what_is_decoded_is_counted_here_or_told_to_another_node() {
        let here = nobody();
        let meter = std::sync::Arc::new(Meter::new(10, here.application.clone()));
        let counted = |meter: &std::sync::Arc<Meter>| Asker {
            meter: Some(meter.clone()),
            ..nobody()
        };
        let (one, _answer) = parts(counted(&meter));
        let (other, _other_answer) = parts(counted(&meter));
        assert!(one.spend(6).is_ok() && other.spend(4).is_ok());
        let reason = |spent: Result<()>| spent.map_err(|error| error.reason());
        assert_eq!(reason(one.spend(1)), Err(Reason::TooManyPoints), "both together");

        let (giving, mut answer) = parts(Asker {
            progress_every: 10,
            ..here
        });
        assert!(giving.take(small(7)));
        for points in [4, 5, 6, 3] {
            assert!(giving.spend(points).is_ok());
        }
        giving.end(Ok(Part::Summary(AnswerSummary::default())));
        let first = answer.rest.blocking_recv().unwrap().unwrap();
        assert_eq!(
            (numbers(&first[..1]), &first[1..]),
            (vec![7], &[Part::Progress(15)][..])
        );
        assert_eq!(numbers(&answer.rest.blocking_recv().unwrap().unwrap()), [2_000]);
    }

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
        let (giving, mut answer) = parts(nobody());
        for number in 0..3 {
            assert!(giving.take(small(number)));
        }
        assert!(giving.take(Part::Batch(Batch::default())));
        assert!(giving.take(small(3)));
        giving.end(Ok(Part::Summary(AnswerSummary::default())));
        let first = answer.rest.blocking_recv().unwrap().unwrap();
        assert_eq!(numbers(&first), [0, 1, 2, 1_000]);
        let last = answer.rest.blocking_recv().unwrap().unwrap();
        assert_eq!(numbers(&last), [3, 2_000]);
        assert!(answer.rest.blocking_recv().is_none());
    }

    #[test]
    fn tables_of_newest_values_weigh_what_they_hold() {
        let (giving, mut answer) = parts(nobody());
        let table = |bytes: usize| {
            Part::Latest(LatestDevices {
                tables: vec![vec![0; bytes].into()],
                ..LatestDevices::default()
            })
        };
        assert!(giving.take(table(TOGETHER_BYTES / 2)));
        assert!(answer.rest.try_recv().is_err());
        assert!(giving.take(table(TOGETHER_BYTES / 2)));
        assert_eq!(answer.rest.try_recv().unwrap().unwrap().len(), 2);
    }

    #[test]
    fn whoever_gives_learns_that_nobody_listens() {
        let (giving, answer) = parts(nobody());
        assert!(giving.take(small(0)));
        drop(answer);
        assert!(!giving.take(small(1)));
        giving.end(Err(Error::internal("late")));
    }
}
