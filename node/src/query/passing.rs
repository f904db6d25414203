//! A question on its way through its shards, and what they answer on its way to the client.
//!
//! Never here: what is asked and how parts are merged (see `streams`). Invariant: every answer that ends well ends with a summary;
//! one that ends early says why, and where it goes on if it can.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use prost::Message as _;
use tidemark_proto::peer::Position;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, Budget, CutShort, Explain, Selector, ShardWork, Work};
use tokio::sync::mpsc;

use super::asked::{points_max, put};
use super::known::Known;
use super::start::Start;
use super::streams::Answers;
use super::terms::reached;
use super::{near, sealed};
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::route::{ShardAnswer, is_wide, names_few, time_left, too_many_points};

const MESSAGES_AHEAD: usize = 4;
/// Who does not take a message for so long reads slowly: others need not wait for that.
const SLOW_READER: Duration = Duration::from_millis(20);
/// Why an answer ended early is kept so long for who takes nothing.
const NO_READER: Duration = Duration::from_secs(30);
/// Shards of one query that work at the same time: bounds threads and memory.
const SHARDS_AHEAD: usize = 4;
/// So long an answer is worked on by whoever asks.
const BEGIN_HERE: Duration = Duration::from_millis(2);
/// A leader that takes longer to be sure of itself is not one to wait for where a short answer is hoped for.
const READY_WITHIN: Duration = Duration::from_millis(100);
/// What of its time an answer that may be partial keeps for saying so.
const CLOSING_SHARE: u32 = 20;

impl Start {
    /// Asks the shards and passes their parts on, shard by shard; a few shards work at once unless a limit makes
    /// the later ones depend on the earlier ones.
    pub(super) async fn stream<M: Send + 'static>(
        self,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query + Send + Sync + 'static,
        translate: impl FnMut(Vec<Part>) -> Result<(u64, Vec<M>)> + Send + 'static,
        finish: impl FnOnce(&mut AnswerSummary) -> Result<Vec<M>> + Send + 'static,
        last: impl FnOnce(AnswerSummary) -> M + Send + 'static,
    ) -> Answers<M> {
        let deadline = self.asker.deadline;
        let work = move |out: mpsc::Sender<Result<M>>| async move {
            let passing = Passing::new(self, limit, &out);
            passing.run(ask, translate, finish, last).await
        };
        answered(deadline, work).await
    }

    async fn read(&self, shard: u32, query: Query) -> Result<ShardAnswer> {
        // What was known may have to be cut out of blocks. Where this fails, it is tried again below, and said.
        if names_few(&query)
            && Known::of(&query).is_none()
            && let Ok(Some(ready)) = self.router.local(shard, &self.consistency, READY_WITHIN).await
        {
            let Some(parts) = near::answer(&ready, &query, &self.job, &self.asker) else {
                let mut answer = self.router.run(ready, query.clone(), &self.job, &self.asker)?;
                match answer.begun().await {
                    Err(error) if error.reason() == Reason::Corruption => return self.anywhere(shard, query).await,
                    begun => return begun.map(|()| answer),
                }
            };
            if let (Some(Part::Summary(summary)), Some(meter)) = (parts.last(), &self.asker.meter) {
                let spent = meter.spend(summary.points_read);
                // A part that was cut short says itself that it was too much.
                if summary.cut_short.is_none() {
                    spent?;
                }
            }
            return Ok(ShardAnswer::whole(parts));
        }
        self.anywhere(shard, query).await
    }

    async fn anywhere(&self, shard: u32, query: Query) -> Result<ShardAnswer> {
        self.router
            .read(shard, query, &self.consistency, &self.job, &self.asker)
            .await
    }
}

/// A question on its way.
struct Passing<'o, M> {
    start: Start,
    limit: u64,
    out: &'o mpsc::Sender<Result<M>>,
    total: AnswerSummary,
    works: Vec<ShardWork>,
    /// All before this was passed on.
    reached: Position,
    began_at: Position,
    shards_whole: u32,
    began: Instant,
    points_max: u64,
}

impl<'o, M> Passing<'o, M> {
    fn new(start: Start, limit: u64, out: &'o mpsc::Sender<Result<M>>) -> Passing<'o, M> {
        let first = Position {
            shard: start.targets.first().map_or(0, |(shard, _)| *shard),
            ..Position::default()
        };
        let began_at = start.after.clone().unwrap_or(first);
        Passing {
            limit,
            out,
            total: AnswerSummary {
                known_at_ns: start.terms.known_at_ns,
                test_points: start.terms.test_points,
                explain: None,
                ..start.spent.clone()
            },
            works: start
                .spent
                .explain
                .clone()
                .map(|explain| explain.shards)
                .unwrap_or_default(),
            reached: began_at.clone(),
            began_at,
            shards_whole: 0,
            began: monotonic(),
            points_max: points_max(start.terms.points_max, &start.limits),
            start,
        }
    }

    async fn run(
        mut self,
        ask: impl Fn(Selector, u64) -> Query,
        mut translate: impl FnMut(Vec<Part>) -> Result<(u64, Vec<M>)>,
        finish: impl FnOnce(&mut AnswerSummary) -> Result<Vec<M>>,
        last: impl FnOnce(AnswerSummary) -> M,
    ) -> Result<()> {
        if let Err(error) = self.shards(&ask, &mut translate).await {
            let cut = self.cut_short(&error).ok_or(error)?;
            self.total.cut_short = Some(cut);
        }
        for message in finish(&mut self.total)? {
            self.give(message).await?;
        }
        self.close()?;
        drop(self.start);
        self.out.send(Ok(last(self.total))).await.map_err(|_| gone())
    }

    async fn shards(
        &mut self,
        ask: &impl Fn(Selector, u64) -> Query,
        translate: &mut impl FnMut(Vec<Part>) -> Result<(u64, Vec<M>)>,
    ) -> Result<()> {
        let mut ahead = VecDeque::new();
        for at in 0..self.start.targets.len() {
            let shard = self.start.targets[at].0;
            if at > 0 {
                self.reached = Position {
                    shard,
                    ..Position::default()
                };
            }
            if self.limit > 0 && self.total.rows >= self.limit {
                self.total.limited = true;
                return Ok(());
            }
            if self.points_left() == 0 {
                return Err(too_many_points(self.points_max));
            }
            if ahead.is_empty() {
                // Where shards do not depend on each other, some at once; but not for a slow reader, who goes on without a place.
                let apart = self.limit == 0 && self.start.terms.points_max == 0;
                let together = apart && !self.start.turn.is_past();
                let some = at..self
                    .start
                    .targets
                    .len()
                    .min(at + if together { SHARDS_AHEAD } else { 1 });
                let queries: Vec<_> = some.map(|at| (self.start.targets[at].0, self.query(at, ask))).collect();
                if queries.iter().any(|(_, query)| is_wide(query)) {
                    let Start { turn, asker, .. } = &self.start;
                    turn.come(asker.application.name(), asker.deadline).await?;
                }
                let reads = queries.into_iter().map(|(shard, query)| self.start.read(shard, query));
                ahead.extend(self.in_time(futures_util::future::try_join_all(reads)).await?);
            }
            let Some(mut answer) = ahead.pop_front() else { break };
            self.one(shard, &mut answer, translate).await?;
            if self.total.limited || self.total.cut_short.is_some() {
                return Ok(());
            }
            self.shards_whole += 1;
        }
        Ok(())
    }

    /// Passes a message on.
    async fn give(&self, message: M) -> Result<()> {
        let room = match tokio::time::timeout(SLOW_READER, self.out.reserve()).await {
            Ok(room) => room,
            Err(_) => {
                self.start.turn.leave();
                // Who takes none for so long reads no more.
                let patience = self.start.limits.reader_patience;
                let room = tokio::time::timeout(patience, self.out.reserve()).await;
                room.map_err(|_| not_taken(patience))?
            }
        };
        room.map_err(|_| gone())?.send(Ok(message));
        Ok(())
    }

    /// A shard's part of the question.
    fn query(&self, at: usize, ask: &impl Fn(Selector, u64) -> Query) -> Query {
        let (shard, selector) = &self.start.targets[at];
        let mut query = ask(selector.clone(), self.limit.saturating_sub(self.total.rows));
        let begins_here = self.reached.shard == *shard && !self.reached.device.is_empty();
        put(&mut query, begins_here.then_some(&self.reached), self.points_left());
        query
    }

    /// Passes on what one shard answers.
    async fn one(
        &mut self,
        shard: u32,
        answer: &mut ShardAnswer,
        translate: &mut impl FnMut(Vec<Part>) -> Result<(u64, Vec<M>)>,
    ) -> Result<()> {
        let lost = || {
            let message = format!("shard {shard} broke off its answer");
            Error::new(Reason::Unreachable, message)
        };
        loop {
            let parts = self.in_time(async { answer.recv().await.ok_or_else(lost)? }).await;
            let mut parts = parts.map_err(|error| self.to_ask_again(shard, error))?;
            let last = parts.pop_if(|part| matches!(part, Part::Summary(_)));
            let reached = parts.iter().rev().find_map(|part| reached(shard, part));
            let (rows, messages) = translate(parts)?;
            for message in messages {
                self.give(message).await?;
            }
            self.total.rows += rows;
            if let Some(reached) = reached {
                self.reached = reached;
            }
            if let Some(Part::Summary(summary)) = last {
                return self.add(shard, summary);
            }
        }
    }

    /// What is damaged here may be whole elsewhere, where the question goes when it is asked again.
    fn to_ask_again(&self, shard: u32, error: Error) -> Error {
        match error.reason() == Reason::Corruption && self.start.router.is_replicated(shard) {
            true => {
                let message = format!("a replica of shard {shard} is damaged and broke off its answer: {error}");
                Error::new(Reason::Unreachable, message)
            }
            false => error,
        }
    }

    /// Adds a shard's summary; rows are counted as they pass.
    fn add(&mut self, shard: u32, mut summary: AnswerSummary) -> Result<()> {
        if summary.known_at_ns != self.total.known_at_ns {
            let message = format!("shard {shard} was answered by a node that cannot tell what was known");
            return Err(Error::new(Reason::TooStale, message).hint("run the same version on all nodes"));
        }
        if summary.test_points != self.total.test_points {
            let message = format!("shard {shard} was answered by a node that does not know test points");
            return Err(Error::new(Reason::TooStale, message).hint("run the same version on all nodes"));
        }
        add(&mut self.total, &summary);
        sealed::add(&mut self.total.sealed, &summary.sealed);
        if !summary.next_cursor.is_empty() {
            let position = Position::decode(summary.next_cursor);
            let position = position.map_err(|error| Error::internal(format!("a position: {error}")))?;
            self.reached = Position { shard, ..position };
        }
        let works = summary.explain.take().map(|explain| explain.shards).unwrap_or_default();
        self.works
            .extend(works.into_iter().map(|work| ShardWork { shard, ..work }));
        self.total.cut_short = summary.cut_short.map(|cut| self.of_all(cut));
        Ok(())
    }

    /// How a failure ends the answer early, where it may be partial and a budget is what failed.
    fn cut_short(&self, error: &Error) -> Option<CutShort> {
        let (budget, limit) = match error.reason() {
            Reason::DeadlineExceeded => {
                let whole = self.start.asker.deadline.saturating_duration_since(self.began);
                (Budget::Time, u64::try_from(whole.as_millis()).unwrap_or(u64::MAX))
            }
            Reason::TooManyPoints => (Budget::Points, self.points_max),
            Reason::QueryTooLarge => (Budget::Bytes, self.start.limits.partials_bytes_max as u64),
            _ => return None,
        };
        let cut = CutShort {
            budget: budget as i32,
            limit,
            ..CutShort::default()
        };
        self.start.terms.partial_ok.then(|| self.of_all(cut))
    }

    fn of_all(&self, cut: CutShort) -> CutShort {
        CutShort {
            // A budget that was reached is that of the question, whatever was left of it for a shard.
            limit: match cut.budget() {
                Budget::Points => self.points_max,
                _ => cut.limit,
            },
            shards_whole: self.shards_whole,
            shards: u32::try_from(self.start.targets.len()).unwrap_or(u32::MAX),
            ..cut
        }
    }

    /// Says where the answer goes on, and what it cost.
    fn close(&mut self) -> Result<()> {
        let early = self.total.limited || self.total.cut_short.is_some();
        if let Some(pages) = self.start.terms.pages.as_ref().filter(|_| early) {
            // A page that gives nothing and gets no further would be asked for again and again.
            if self.total.cut_short.is_some() && self.reached == self.began_at {
                return Err(match self.total.cut_short.map(|cut| cut.budget()) {
                    Some(Budget::Points) => too_many_points(self.points_max),
                    _ => too_long(),
                });
            }
            self.total.next_cursor = pages.next(&self.start.key, &self.reached);
        }
        if self.start.terms.explain {
            let took = self.began.elapsed().as_micros();
            self.total.explain = Some(Explain {
                total: Some(sum(&self.works)),
                shards: std::mem::take(&mut self.works),
                took_us: i64::try_from(took).unwrap_or(i64::MAX),
            });
        }
        Ok(())
    }

    fn points_left(&self) -> u64 {
        self.points_max.saturating_sub(self.total.points_read)
    }

    /// Waits no longer than there is time; where the answer may be partial, that leaves some for its end.
    async fn in_time<T>(&self, waiting: impl Future<Output = Result<T>>) -> Result<T> {
        let mut left = time_left(self.start.asker.deadline)?;
        if self.start.terms.partial_ok {
            let whole = self.start.asker.deadline.saturating_duration_since(self.began);
            left = left.saturating_sub(whole / CLOSING_SHARE);
        }
        tokio::time::timeout(left, waiting)
            .await
            .unwrap_or_else(|_| Err(too_long()))
    }
}

/// Has `work` give an answer message by message, as long as there is time and somebody listens.
pub(super) async fn answered<M: Send + 'static, W>(
    deadline: Instant,
    work: impl FnOnce(mpsc::Sender<Result<M>>) -> W + Send + 'static,
) -> Answers<M>
where
    W: Future<Output = Result<()>> + Send + 'static,
{
    let (out, answer) = mpsc::channel(MESSAGES_AHEAD);
    let work = Box::pin(async move {
        let left = time_left(deadline).unwrap_or_default();
        let ended = tokio::select! {
            ended = tokio::time::timeout(left, work(out.clone())) => ended,
            () = out.closed() => return,
        };
        if let Err(error) = ended.unwrap_or_else(|_| Err(too_long())) {
            // Who does not take it either finds an answer that broke off.
            tokio::time::timeout(NO_READER, out.send(Err(error))).await.ok();
        }
    });
    begin(work, &answer).await;
    answer
}

/// Works on an answer where it is asked for, as most are done at once; what takes longer, or has to wait until somebody takes
/// its messages, goes on by itself.
async fn begin<M>(mut work: Pin<Box<impl Future<Output = ()> + Send + 'static>>, answer: &Answers<M>) {
    let here = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if answer.len() == answer.max_capacity() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    });
    let done = tokio::time::timeout(BEGIN_HERE, here).await.unwrap_or(false);
    if !done {
        tokio::spawn(work);
    }
}

pub(super) fn gone() -> Error {
    Error::new(Reason::Unreachable, "the client is gone")
}

fn not_taken(patience: Duration) -> Error {
    let message = format!("nobody took the answer for {} s", patience.as_secs());
    Error::new(Reason::AnswerNotTaken, message)
}

fn too_long() -> Error {
    Error::new(Reason::DeadlineExceeded, "the query took too long")
}

/// Adds a shard's summary, as far as it is numbers.
fn add(total: &mut AnswerSummary, summary: &AnswerSummary) {
    total.devices += summary.devices;
    total.points_dropped += summary.points_dropped;
    total.points_read = total.points_read.saturating_add(summary.points_read);
    total.limited |= summary.limited;
    total.received_later += summary.received_later;
    total.replaced_later += summary.replaced_later;
    // One shard that cannot say, and nobody can.
    total.lag_ms = match total.lag_ms.min(summary.lag_ms) {
        ..0 => -1,
        _ => total.lag_ms.max(summary.lag_ms),
    };
    total.consistency = total.consistency.max(summary.consistency);
}

/// What all shards did together.
fn sum(works: &[ShardWork]) -> Work {
    works
        .iter()
        .filter_map(|of| of.work)
        .fold(Work::default(), |sum, work| Work {
            devices: sum.devices + work.devices,
            buckets: sum.buckets + work.buckets,
            bytes: sum.bytes + work.bytes,
            blocks: sum.blocks + work.blocks,
            blocks_header_only: sum.blocks_header_only + work.blocks_header_only,
            blocks_decoded: sum.blocks_decoded + work.blocks_decoded,
            points_decoded: sum.points_decoded + work.points_decoded,
            rollup_windows: sum.rollup_windows + work.rollup_windows,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lags_like_its_worst_shard() {
        let total = |lags: &[i64]| {
            let mut total = AnswerSummary::default();
            for lag_ms in lags {
                let shard = AnswerSummary {
                    lag_ms: *lag_ms,
                    ..AnswerSummary::default()
                };
                add(&mut total, &shard);
            }
            total.lag_ms
        };
        assert_eq!((total(&[]), total(&[0, 7, 3])), (0, 7));
        assert_eq!((total(&[-1]), total(&[5, -1]), total(&[-1, 5, 0])), (-1, -1, -1));
    }
}
