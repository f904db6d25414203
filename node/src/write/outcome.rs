//! What the shards of a batch answered, as one answer. Pure.
//!
//! Never here: proposing. Invariant: an answer that says of a batch that nothing of it is stored is given only where no shard
//! stored its part; where some did, the rows of all others are named.

use tidemark_proto::peer::applied;
use tidemark_proto::v1::WriteResponse;

use super::encode::Target;
use crate::error::{Error, Reason, Result, RowError};
use crate::route::outcome_unknown;
use crate::wire::batch::Shape;

/// Which rows of a batch went to which shard.
pub(super) struct Spread {
    /// Of the batch: position of the device, by row; empty where there is one device.
    pub(super) device_index: Vec<u32>,
    /// By position of the device.
    pub(super) targets: Vec<Target>,
    /// Of the whole batch.
    pub(super) shape: Shape,
    /// Rows that a failure names at most.
    pub(super) rows_named_max: usize,
}

/// What each shard of a batch answered.
pub(super) type Answers = Vec<(u32, Result<applied::Result>)>;

impl Spread {
    /// All answers as one.
    pub(super) fn outcome(&self, answers: Answers) -> Result<WriteResponse> {
        let mut duplicate = true;
        let (mut stored, mut failed) = (Vec::new(), Vec::new());
        for (shard, answer) in answers {
            match answer {
                Ok(applied::Result::Write(write)) => {
                    stored.push(shard);
                    duplicate &= write.duplicate;
                }
                Ok(other) => failed.push((shard, Error::internal(format!("answer {other:?} to a write")))),
                Err(error) => failed.push((shard, error)),
            }
        }
        if failed.is_empty() {
            return Ok(WriteResponse {
                rows: self.shape.rows as u64,
                points: self.shape.points as u64,
                duplicate,
            });
        }
        let claims = |(_, error): &(u32, Error)| error.reason().stored_nothing();
        let may_change = |(_, error): &(u32, Error)| error.retry_after() > 0;
        if stored.is_empty() || !failed.iter().all(claims) || failed.iter().any(may_change) {
            return Err(self.undecided(&stored, failed));
        }
        Err(self.partly(&stored, &failed))
    }

    /// The failure of a batch of which nothing is stored, or that may come out another way when it is sent again.
    fn undecided(&self, stored: &[u32], mut failed: Vec<(u32, Error)>) -> Error {
        // What claims least goes out.
        failed.sort_by_key(|(_, error)| (error.reason().stored_nothing(), error.retry_after() == 0));
        let Some((shard, error)) = failed.into_iter().next() else {
            return Error::internal("a batch failed without a failure");
        };
        match !stored.is_empty() && error.retry_after() > 0 {
            true => outcome_unknown(format!(
                "{} shards stored their part, shard {shard} did not: {error}",
                stored.len()
            )),
            false => error,
        }
    }

    /// The failure of a batch that is stored in part and stays so.
    fn partly(&self, stored: &[u32], failed: &[(u32, Error)]) -> Error {
        let rows_of = |shards: &[u32]| self.rows().filter(|(_, shard)| shards.contains(shard)).count();
        let refused = failed
            .iter()
            .map(|(shard, error)| format!("shard {shard} refused its {}: {}", rows_of(&[*shard]), error.message()));
        let message = format!(
            "shards {stored:?} stored {} rows of the batch, {}",
            rows_of(stored),
            refused.collect::<Vec<_>>().join("; ")
        );
        let why = |shard: u32| failed.iter().find(|(of, _)| *of == shard).map(|(_, error)| error);
        let named = self.rows().filter_map(|(row, shard)| {
            why(shard).map(|error| RowError {
                row: row as u32,
                reason: error.reason(),
                message: error.message().to_owned(),
                field: error.field_path().to_owned(),
            })
        });
        Error::new(Reason::PartlyStored, message)
            .rows(named.take(self.rows_named_max).collect())
            .hint("the rows that are named are not stored, the others of their batch are: leave those out or correct them")
    }

    /// Each row with its shard.
    fn rows(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        (0..self.shape.rows).map(|row| {
            let device = self.device_index.get(row).map_or(0, |&index| index as usize);
            (row, self.targets.get(device).map_or(0, |target| target.shard))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const STORED: fn() -> Result<applied::Result> = || Ok(applied::Result::Write(WriteResponse::default()));

    fn refused(reason: Reason) -> Result<applied::Result> {
        Err(Error::new(reason, "why"))
    }

    /// Four rows: of shards 1, 2, 1 and 3.
    fn spread() -> Spread {
        let target = |shard| Target { shard, ordinal: 0 };
        Spread {
            device_index: vec![0, 1, 0, 2],
            targets: [1, 2, 3].map(target).to_vec(),
            shape: Shape { rows: 4, points: 4 },
            rows_named_max: 100,
        }
    }

    #[track_caller]
    fn check(answers: [Result<applied::Result>; 3], expected: &str, rows: &[u32]) {
        let answers = [1, 2, 3].into_iter().zip(answers).collect();
        let error = spread().outcome(answers).unwrap_err();
        let named: Vec<u32> = error.bad_rows().iter().map(|row| row.row).collect();
        assert_eq!((error.reason().as_str(), &named[..]), (expected, rows), "{error}");
        let claims = error.reason().stored_nothing();
        assert_eq!(
            claims,
            !["PARTLY_STORED", "OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED"].contains(&expected)
        );
    }

    #[test]
    fn what_is_stored_is_told_by_row() {
        use Reason::{DeadlineExceeded, NoLeader, OutcomeUnknown, TimeTooOld};
        let old = || refused(TimeTooOld);
        assert_eq!(spread().outcome(vec![(1, STORED()), (2, STORED())]).unwrap().rows, 4);
        check([old(), STORED(), STORED()], "PARTLY_STORED", &[0, 2]);
        check([STORED(), old(), old()], "PARTLY_STORED", &[1, 3]);
        // Nothing is.
        check([old(), old(), old()], "TIME_TOO_OLD", &[]);
        // Sent again it may come out another way, whatever else was refused.
        check([STORED(), refused(NoLeader), old()], "OUTCOME_UNKNOWN", &[]);
        check([old(), refused(OutcomeUnknown), old()], "OUTCOME_UNKNOWN", &[]);
        check([STORED(), refused(DeadlineExceeded), old()], "DEADLINE_EXCEEDED", &[]);
    }

    #[test]
    fn the_message_counts_rows_by_shard() {
        let answers = vec![(1, refused(Reason::TimeTooOld)), (2, STORED()), (3, STORED())];
        let error = spread().outcome(answers).unwrap_err();
        let expected = "shards [2, 3] stored 2 rows of the batch, shard 1 refused its 2: why";
        assert_eq!(error.message(), expected);
        assert_eq!(error.bad_rows()[1].reason, Reason::TimeTooOld);
    }
}
