//! Questions to a replica of a group that is as fresh as asked, here or on another node; to another one where what it keeps is damaged.
//!
//! Never here: what is asked. Invariant: an answer of which something was passed on is never begun anew.

use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::{ReadShardRequest, ReadShardResponse};
use tidemark_proto::v1::{AnswerSummary, Consistency, ConsistencyLevel, Linearizable, consistency};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::{Request, Streaming};

use super::asker::{Asker, Meter};
use super::parts::{Giving, Hearing, ShardAnswer};
use super::reads::Kind;
use super::{LEADERLESS_MAX, Router, time_left};
use crate::clock::monotonic;
use crate::error::{Error, Reason, Result};
use crate::raft::replica::Replica;
use crate::wire::status::{from_failure, from_status, to_failure};

const PARTS_AHEAD: usize = 4;
const LINEARIZE_MAX: Duration = Duration::from_secs(3);
/// So often a question that meets damage is asked again: by then another replica leads, if one can.
const DAMAGE_TRIES: u32 = 4;

/// Answers a question from a replica's state: blocking, sends parts, ends when the receiver is gone.
pub type ShardJob = Arc<dyn Fn(&Replica, &Query, &dyn Hearing) -> Result<AnswerSummary> + Send + Sync>;

/// A replica of this node that is as fresh as a question asks.
pub struct Ready {
    replica: Arc<Replica>,
    /// What it guarantees, and how long ago it was in step with its leader, milliseconds.
    level: ConsistencyLevel,
    lag_ms: i64,
}

impl Ready {
    /// The replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The summary of its answer, which says how fresh it is.
    pub fn summary(&self, summary: AnswerSummary) -> AnswerSummary {
        AnswerSummary {
            consistency: self.level as i32,
            lag_ms: self.lag_ms,
            ..summary
        }
    }
}

impl Router {
    /// Reads a replica of this node off the async threads, once there is a place for it; a receiver that is gone ends the work
    /// soon.
    ///
    /// # Errors
    /// `OVERLOADED` where this node reads for as many as it may.
    pub fn run(&self, ready: Ready, query: Query, job: &ShardJob, asker: &Asker) -> Result<ShardAnswer> {
        let (kind, job, here) = (Kind::of(&query), job.clone(), Handle::current());
        let work = Box::new(move |giving: &Giving| {
            let answered = job(&ready.replica, &query, giving);
            if let Err(error) = &answered
                && error.reason() == Reason::Corruption
            {
                let (replica, error) = (ready.replica.clone(), error.clone());
                here.spawn(async move { replica.found_damage(&error).await });
            }
            answered.map(|summary| Part::Summary(ready.summary(summary)))
        });
        self.reads.run(kind, asker, work)
    }

    /// Puts a question to a group and returns the parts of the answer as they come, once it has begun.
    pub async fn read(
        &self,
        group: u32,
        query: Query,
        consistency: &Consistency,
        job: &ShardJob,
        asker: &Asker,
    ) -> Result<ShardAnswer> {
        let deadline = asker.deadline;
        let answer_by = deadline.min(monotonic() + LEADERLESS_MAX);
        let mut damaged = 0;
        for tries in 0.. {
            // A node that is cut off must say so in time, so no try may wait longer than all of them together.
            let begin_within = time_left(answer_by).map_err(|_| no_replica(group))?;
            let left = time_left(deadline).map_err(|_| no_replica(group))?;
            let within = (left, begin_within);
            let begun = match self.local(group, consistency, begin_within).await? {
                Some(ready) => {
                    let mut answer = self.run(ready, query.clone(), job, asker)?;
                    answer.begun().await.map(|()| Some(answer))
                }
                None => self.elsewhere(group, query.clone(), consistency, asker, within).await,
            };
            match begun {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error)
                    if error.reason() == Reason::Corruption && damaged < DAMAGE_TRIES && self.is_replicated(group) =>
                {
                    damaged += 1;
                }
                Err(error) => return Err(error),
            }
            self.pause(group, tries).await;
        }
        Err(no_replica(group))
    }

    /// Puts a question to another node that may answer it; `None` where none did.
    async fn elsewhere(
        &self,
        group: u32,
        query: Query,
        consistency: &Consistency,
        asker: &Asker,
        within: (Duration, Duration),
    ) -> Result<Option<ShardAnswer>> {
        let any = matches!(consistency.level, Some(consistency::Level::Any(_)));
        let node = match any {
            true => self.any_node(group, None),
            false => self.leader_elsewhere(group),
        };
        let Some(node) = node else { return Ok(None) };
        match self.read_at(node, group, query, consistency, asker, within).await {
            Ok(Some(mut answer)) => answer.begun().await.map(|()| Some(answer)),
            Err(error) if error.reason() == Reason::Unreachable => {
                self.learn_leader(group, node, None);
                Ok(None)
            }
            other => other,
        }
    }

    /// Whether another replica may have what one has lost.
    pub fn is_replicated(&self, group: u32) -> bool {
        let catalog = self.host.catalog();
        catalog.is_ok_and(|catalog| catalog.shard(group).is_some_and(|shard| shard.replicas.len() > 1))
    }

    /// This node's replica, where it is fresh enough; `None` where the leader has to be asked.
    pub async fn local(&self, group: u32, consistency: &Consistency, left: Duration) -> Result<Option<Ready>> {
        // One that is on its way in or out may have anything or nothing.
        let Some(replica) = self.host.replica(group).filter(|replica| replica.votes()) else {
            return Ok(None);
        };
        // Who leads answers what it can.
        if replica.damage().is_some() && !replica.is_leader() {
            return Ok(None);
        }
        let (level, lag_ms) = match &consistency.level {
            Some(consistency::Level::Any(_)) => (ConsistencyLevel::Any, replica.lag_ms()),
            Some(consistency::Level::Bounded(bounded)) if !replica.is_leader() => {
                let lag_ms = replica.lag_ms();
                if !(0..=bounded.max_lag_ms).contains(&lag_ms) {
                    return Ok(None);
                }
                (ConsistencyLevel::Bounded, lag_ms)
            }
            _ if !replica.is_leader() => return Ok(None),
            _ => match replica.linearize(left.min(LINEARIZE_MAX)).await? {
                Ok(()) => (ConsistencyLevel::Linearizable, 0),
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(Ready { replica, level, lag_ms }))
    }

    /// Asks another node, which has to begin an answer within `begin_within`; `None` when it does not lead either.
    async fn read_at(
        &self,
        node: u64,
        group: u32,
        query: Query,
        consistency: &Consistency,
        asker: &Asker,
        (timeout, begin_within): (Duration, Duration),
    ) -> Result<Option<ShardAnswer>> {
        let any = matches!(consistency.level, Some(consistency::Level::Any(_)));
        let asked = if any { *consistency } else { linearizable() };
        let kind = Kind::of(&query);
        let message = ReadShardRequest {
            envelope: Some(self.host.envelope(node)?),
            group,
            consistency: Some(asked),
            timeout_ms: timeout.as_millis() as i64,
            query: Some(query),
            progress_every: asker.meter.as_ref().map_or(0, |meter| meter.progress_every()),
            application: asker.application.name().to_owned(),
            finished_from_catalog: self.catalog_index(),
        };
        let peer = self.peer(node)?;
        let mut client = match kind {
            Kind::Write => peer.client(),
            Kind::Few | Kind::Wide => peer.answers(),
        };
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        let opening = tokio::time::timeout(begin_within.min(LINEARIZE_MAX), client.read_shard(request));
        let opened = match any {
            true => opening.await,
            false => match self.while_it_leads(group, node, opening).await {
                Some(opened) => opened,
                None => return Ok(None),
            },
        };
        let opened = opened.map_err(|_| Error::new(Reason::Unreachable, format!("node {node} did not answer")))?;
        let mut parts = opened.map_err(|status| self.heed(&status))?.into_inner();
        let first = parts
            .message()
            .await
            .map_err(|status| from_status(&status))?
            .and_then(|message| message.part);
        let first = match first {
            Some(Part::NotLeader(leader)) => {
                self.learn_leader(group, node, Some(leader));
                return Ok(None);
            }
            Some(part) => part,
            None => {
                return Err(Error::new(
                    Reason::Unreachable,
                    format!("node {node} gave an empty answer"),
                ));
            }
        };
        Ok(Some(pass_on(first, parts, asker.meter.clone())))
    }

    /// Serves another node's question from this node's replica alone.
    pub async fn serve_read(
        &self,
        request: ReadShardRequest,
        job: &ShardJob,
    ) -> Result<mpsc::Receiver<ReadShardResponse>> {
        self.host.check_envelope(request.envelope.as_ref())?;
        let query = request
            .query
            .ok_or_else(|| Error::new(Reason::MissingField, "no query").field("query"))?;
        let consistency = request.consistency.unwrap_or_else(linearizable);
        let timeout = Duration::from_millis(request.timeout_ms.clamp(1, 600_000) as u64);
        let asker = Asker {
            progress_every: request.progress_every,
            takes_finished: (1..=self.catalog_index()).contains(&request.finished_from_catalog),
            ..Asker::uncounted(self.applications.named(&request.application), monotonic() + timeout)
        };
        let (out, responses) = mpsc::channel(PARTS_AHEAD);
        let message = |part| ReadShardResponse { part: Some(part) };
        match self.local(request.group, &consistency, timeout).await? {
            None => {
                let leader = self
                    .host
                    .replica(request.group)
                    .and_then(|replica| replica.leader_node())
                    .unwrap_or(0);
                out.send(message(Part::NotLeader(leader))).await.ok();
            }
            Some(ready) => {
                let mut answer = self.run(ready, query, job, &asker)?;
                tokio::spawn(async move {
                    // Whoever asked may go while nothing comes yet.
                    while let Some(together) = unless_gone(&out, answer.recv()).await {
                        let together = together.unwrap_or_else(|error| vec![Part::Failure(to_failure(&error))]);
                        for part in together {
                            if out.send(message(part)).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        }
        Ok(responses)
    }
}

/// The parts of an answer as they come, `first` before them. What the other node decodes is counted when it tells of it, not when
/// it is somebody's turn to take its parts.
fn pass_on(first: Part, mut parts: Streaming<ReadShardResponse>, meter: Option<Arc<Meter>>) -> ShardAnswer {
    let (out, answer) = mpsc::channel(PARTS_AHEAD);
    tokio::spawn(async move {
        let mut part = Some(Ok(first));
        let mut told = 0;
        while let Some(next) = part {
            let counted = next.and_then(|part| count(part, &mut told, meter.as_deref()));
            let (last, next) = match counted {
                Ok(None) => (false, None),
                Ok(Some(Part::Failure(failure))) => (true, Some(Err(from_failure(failure)))),
                Ok(Some(summary @ Part::Summary(_))) => (true, Some(Ok(summary))),
                Ok(Some(part)) => (false, Some(Ok(part))),
                Err(error) => (true, Some(Err(error))),
            };
            if let Some(next) = next
                && out.send(next.map(|part| vec![part])).await.is_err()
            {
                return;
            }
            if last {
                return;
            }
            let lost = || Error::new(Reason::Unreachable, "the answer broke off");
            part = unless_gone(&out, async {
                Some(match parts.message().await {
                    Ok(Some(message)) => message.part.ok_or_else(lost),
                    Ok(None) => Err(lost()),
                    Err(status) => Err(from_status(&status)),
                })
            })
            .await;
        }
    });
    ShardAnswer::from(answer)
}

/// Counts what a part says of values that were decoded; `None` where it says nothing else.
fn count(part: Part, told: &mut u64, meter: Option<&Meter>) -> Result<Option<Part>> {
    let more = match &part {
        Part::Progress(points) => *points,
        Part::Summary(summary) => summary.points_read.saturating_sub(*told),
        _ => return Ok(Some(part)),
    };
    *told += more;
    let spent = meter.map_or(Ok(()), |meter| meter.spend(more));
    match part {
        Part::Progress(_) => spent.map(|()| None),
        // It is over, and says itself whether that was too much.
        part => Ok(Some(part)),
    }
}

/// What is waited for; `None` as soon as nobody takes what `out` gives.
async fn unless_gone<T, W>(out: &mpsc::Sender<T>, waiting: impl Future<Output = Option<W>>) -> Option<W> {
    tokio::select! {
        came = waiting => came,
        () = out.closed() => None,
    }
}

/// The consistency of a request that names none.
pub(super) fn linearizable() -> Consistency {
    Consistency {
        level: Some(consistency::Level::Linearizable(Linearizable {})),
    }
}

fn no_replica(group: u32) -> Error {
    Error::new(
        Reason::NoLeader,
        format!("no replica of shard {group} could answer in time"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::limits::Limits;
    use crate::route::Applications;

    #[test]
    fn what_another_node_decodes_is_counted_once() {
        let application = Applications::new(&Limits::default()).named("a");
        let meter = Meter::new(100, application);
        let mut told = 0;
        let mut count = |part| count(part, &mut told, Some(&meter));
        let summary = |points_read| {
            Part::Summary(AnswerSummary {
                points_read,
                ..AnswerSummary::default()
            })
        };
        assert_eq!(count(Part::Progress(60)).unwrap(), None);
        assert_eq!(count(Part::NotLeader(1)).unwrap(), Some(Part::NotLeader(1)));
        assert_eq!(count(summary(70)).unwrap(), Some(summary(70)));
        assert!(meter.spend(30).is_ok(), "70 were counted");
        let over = count(Part::Progress(1)).map_err(|error| error.reason());
        assert_eq!(over, Err(Reason::TooManyPoints));
    }
}
