//! What a shard's part of a question costs: counted as it goes, and held to its budgets.
//!
//! Never here: what is read. Invariant: counting costs an addition, whether anybody asks for it or not; bytes that are held are
//! given back when the part ends, however it ends.

use std::cell::Cell;

use tidemark_proto::v1::Work;

use super::series::check_budget;
use crate::error::{Reason, Result};
use crate::metrics::Gauge;
use crate::route::{Hearing, too_many_points};

/// What bytes are held for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum HeldFor {
    /// Devices that are being read.
    Reading = 0,
    /// What is kept until the end: groups, leaders.
    Later = 1,
}

/// Counters and budgets of one part.
pub(super) struct Tally<'a> {
    points_max: u64,
    bytes_max: usize,
    buckets: Cell<u64>,
    bytes: Cell<u64>,
    header_only: Cell<u64>,
    decoded: Cell<u64>,
    points: Cell<u64>,
    rollups: Cell<u64>,
    held: [Cell<usize>; 2],
    /// What is read now is read whatever it costs.
    forgiving: Cell<bool>,
    gauge: &'a Gauge,
    hearing: &'a dyn Hearing,
}

impl<'a> Tally<'a> {
    /// Nothing yet, of at most so many values decoded and bytes held; `gauge` has the bytes of all questions.
    pub(super) fn new(points_max: u64, bytes_max: usize, gauge: &'a Gauge, hearing: &'a dyn Hearing) -> Tally<'a> {
        Tally {
            points_max,
            bytes_max,
            buckets: Cell::default(),
            bytes: Cell::default(),
            header_only: Cell::default(),
            decoded: Cell::default(),
            points: Cell::default(),
            rollups: Cell::default(),
            held: Default::default(),
            forgiving: Cell::default(),
            gauge,
            hearing,
        }
    }

    /// Counts a bucket value of so many bytes.
    pub(super) fn bucket(&self, bytes: usize) {
        self.buckets.set(self.buckets.get() + 1);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Counts a rollup that was read instead of blocks.
    pub(super) fn rollup(&self) {
        self.rollups.set(self.rollups.get() + 1);
    }

    /// Counts a block of which so many values were decoded.
    ///
    /// # Errors
    /// `TOO_MANY_POINTS` once there were more than there may be, here or in all parts of the question.
    pub(super) fn block(&self, points: u64) -> Result<()> {
        let blocks = if points == 0 { &self.header_only } else { &self.decoded };
        blocks.set(blocks.get() + 1);
        self.spend(points)
    }

    /// Counts blocks of which the headers were enough.
    pub(super) fn header_only(&self, blocks: u64) {
        self.header_only.set(self.header_only.get() + blocks);
    }

    /// Counts values that were decoded to tell those that had been received from others.
    ///
    /// # Errors
    /// As of [`Tally::block`].
    pub(super) fn cut(&self, points: u64) -> Result<()> {
        self.spend(points)
    }

    /// Reads what has to be read for an answer to get further at all: it is counted, and may be more than there may be.
    pub(super) fn whatever_it_costs<T>(&self, read: impl FnOnce() -> T) -> T {
        self.forgiving.set(true);
        let read = read();
        self.forgiving.set(false);
        read
    }

    fn spend(&self, points: u64) -> Result<()> {
        match self.count(points) {
            Err(error) if self.forgiving.get() && error.reason() == Reason::TooManyPoints => Ok(()),
            counted => counted,
        }
    }

    fn count(&self, points: u64) -> Result<()> {
        self.points.set(self.points.get().saturating_add(points));
        if points > 0 {
            self.hearing.spend(points)?;
        }
        match self.points.get() > self.points_max {
            true => Err(too_many_points(self.points_max)),
            false => Ok(()),
        }
    }

    /// Notes how many bytes are held now.
    ///
    /// # Errors
    /// `QUERY_TOO_LARGE` where that is more than there may be, `APPLICATION_LIMIT` or `OVERLOADED` where all questions of the
    /// application, or of the node, hold too much.
    pub(super) fn hold(&self, held_for: HeldFor, bytes: usize) -> Result<()> {
        let before = self.held[held_for as usize].replace(bytes);
        let counted = self.hearing.asker().hold(self.gauge, before, bytes);
        // What is too large by itself is not to be tried again, whoever else holds what.
        check_budget(self.held.iter().map(Cell::get).sum(), self.bytes_max)?;
        counted
    }

    /// Refuses what is more by itself than may be held, while it is being added to.
    ///
    /// # Errors
    /// `QUERY_TOO_LARGE`.
    pub(super) fn fits(&self, bytes: usize) -> Result<()> {
        check_budget(bytes, self.bytes_max)
    }

    /// Values decoded.
    pub(super) fn points(&self) -> u64 {
        self.points.get()
    }

    /// All of it.
    pub(super) fn work(&self, devices: u64) -> Work {
        Work {
            devices,
            buckets: self.buckets.get(),
            bytes: self.bytes.get(),
            blocks: self.header_only.get() + self.decoded.get(),
            blocks_header_only: self.header_only.get(),
            blocks_decoded: self.decoded.get(),
            points_decoded: self.points.get(),
            rollup_windows: self.rollups.get(),
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let held = self.held.iter().map(Cell::get).sum();
        // To hold less is never refused.
        self.hearing.asker().hold(self.gauge, held, 0).ok();
    }
}

#[cfg(test)]
mod tests {
    use tidemark_proto::peer::read_shard_response::Part;

    use super::*;
    use crate::clock::monotonic;
    use crate::limits::Limits;
    use crate::route::{Applications, Asker};

    struct Nobody(Asker);

    impl Hearing for Nobody {
        fn take(&self, _: Part) -> bool {
            false
        }
        fn is_there(&self) -> bool {
            false
        }
        fn asker(&self) -> &Asker {
            &self.0
        }
        fn spend(&self, _: u64) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn budgets_are_kept_and_bytes_given_back() {
        let gauge = Gauge::default();
        let applications = Applications::new(&Limits::default());
        let nobody = Nobody(Asker::uncounted(applications.named(""), monotonic()));
        let tally = Tally::new(10, 100, &gauge, &nobody);
        assert!(tally.block(0).is_ok() && tally.block(10).is_ok());
        assert!(tally.block(0).is_ok(), "exactly as many as there may be");
        assert_eq!(
            tally.block(1).map_err(|error| error.reason()),
            Err(Reason::TooManyPoints)
        );
        tally.bucket(7);
        let work = tally.work(3);
        assert_eq!((work.blocks, work.blocks_header_only, work.blocks_decoded), (4, 2, 2));
        assert_eq!(
            (work.devices, work.buckets, work.bytes, work.points_decoded),
            (3, 1, 7, 11)
        );

        assert!(tally.hold(HeldFor::Reading, 60).is_ok() && tally.hold(HeldFor::Reading, 40).is_ok());
        assert!(tally.hold(HeldFor::Later, 60).is_ok());
        assert_eq!(gauge.get(), 100);
        assert!(tally.hold(HeldFor::Later, 61).is_err());
        assert!(tally.fits(100).is_ok() && tally.fits(101).is_err());
        drop(tally);
        assert_eq!(gauge.get(), 0);
    }
}
