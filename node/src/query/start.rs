//! A question that was admitted and planned: where it goes, on what terms, and others that are asked beside it.
//!
//! Never here: how questions pass their shards (see `passing`). Invariant: what is asked beside a question is on its admission, in its
//! time and from its budgets.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemark_proto::peer::Position;
use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, Consistency, Selector};
use tokio::sync::OwnedSemaphorePermit;

use super::asked::points_max;
use super::held::Held;
use super::known;
use super::streams::each;
use super::terms::Terms;
use crate::catalog::Catalog;
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::metrics::Present;
use crate::route::{Admitted, Asker, Meter, Router, ShardJob, Turn};
use crate::wire::cursor::CursorKey;

/// Where a question goes: shards in order, each with its part of the selector.
type Targets = Vec<(u32, Selector)>;

/// Shards that a selector concerns.
pub fn targets(catalog: &Catalog, selector: &Selector) -> Vec<(u32, Selector)> {
    if selector.device_ids.is_empty() {
        return catalog
            .data_shards()
            .map(|shard| (shard.id, selector.clone()))
            .collect();
    }
    let mut by_shard: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for id in &selector.device_ids {
        by_shard.entry(catalog.shard_of(id)).or_default().push(id.clone());
    }
    let part = |(shard, device_ids)| {
        (
            shard,
            Selector {
                device_ids,
                ..selector.clone()
            },
        )
    };
    by_shard.into_iter().map(part).collect()
}

/// A message of a question that is asked beside another one.
enum Beside {
    Part(Part),
    Last(AnswerSummary),
}

/// A query that was admitted and planned.
pub(super) struct Start {
    pub(super) router: Arc<Router>,
    pub(super) job: ShardJob,
    pub(super) limits: Arc<Limits>,
    pub(super) asker: Asker,
    pub(super) targets: Targets,
    pub(super) key: CursorKey,
    pub(super) selector: Selector,
    pub(super) consistency: Consistency,
    pub(super) catalog: Arc<Catalog>,
    pub(super) terms: Terms,
    /// Where the page begins; `None`: at the beginning.
    pub(super) after: Option<Position>,
    /// What questions beside this one have cost so far, how fresh their answers were.
    pub(super) spent: AnswerSummary,
    pub(super) turn: Arc<Turn>,
    pub(super) _running: Arc<Present>,
    pub(super) _permit: Arc<OwnedSemaphorePermit>,
    pub(super) _admitted: Arc<Admitted>,
}

impl Start {
    /// What the coordinator holds of the answer: nothing yet.
    pub(super) fn held(&self) -> Held {
        Held::new(self.router.host().metrics().clone(), self.asker.clone())
    }

    /// The catalog that the question was planned with.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The checked selector.
    pub(super) fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Asks other devices beside this question, on its admission, in its time and from its budgets, and gives `take` every part of what
    /// they answer: all of it, or of devices `limit` at most.
    pub(super) async fn beside(
        &mut self,
        selector: &Selector,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query + Send + Sync + 'static,
        take: impl FnMut(Part) -> Result<()>,
    ) -> Result<()> {
        let other = Start {
            targets: targets(&self.catalog, selector),
            selector: selector.clone(),
            terms: Terms {
                points_max: self.terms.points_max,
                explain: self.terms.explain,
                ..Terms::default()
            },
            after: None,
            ..self.again()
        };
        let rows = |part: &Part| match part {
            Part::Devices(list) => list.devices.len(),
            _ => 0,
        };
        self.spend(&other.gather(limit, ask, rows, take).await?);
        Ok(())
    }

    /// Asks for the records of this question's page, before it is answered: gives `take` every part of them, and says how the page ends.
    pub(super) async fn page(
        &mut self,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query + Send + Sync + 'static,
        take: impl FnMut(Part) -> Result<()>,
    ) -> Result<AnswerSummary> {
        let rows = |part: &Part| match part {
            Part::Batch(batch) => batch.observed_at_ns.len(),
            _ => 0,
        };
        let summary = self.again().gather(limit, ask, rows, take).await?;
        self.spend(&summary);
        Ok(summary)
    }

    /// The same question once more, on the same admission.
    fn again(&self) -> Start {
        Start {
            router: self.router.clone(),
            job: self.job.clone(),
            limits: self.limits.clone(),
            asker: self.asker.clone(),
            targets: self.targets.clone(),
            key: self.key.clone(),
            selector: self.selector.clone(),
            consistency: self.consistency,
            catalog: self.catalog.clone(),
            terms: self.terms.clone(),
            after: self.after.clone(),
            spent: self.spent.clone(),
            turn: self.turn.clone(),
            _running: self._running.clone(),
            _permit: self._permit.clone(),
            _admitted: self._admitted.clone(),
        }
    }

    /// Remembers what was asked beside, and what it cost.
    fn spend(&mut self, summary: &AnswerSummary) {
        self.spent = AnswerSummary {
            devices: 0,
            rows: 0,
            limited: false,
            cut_short: None,
            next_cursor: Default::default(),
            ..summary.clone()
        };
    }

    /// Gives `take` every part of an answer; says how it ended.
    async fn gather(
        self,
        limit: u64,
        ask: impl Fn(Selector, u64) -> Query + Send + Sync + 'static,
        rows: impl Fn(&Part) -> usize + Send + 'static,
        mut take: impl FnMut(Part) -> Result<()>,
    ) -> Result<AnswerSummary> {
        let translate = each(move |part| Ok((rows(&part) as u64, Beside::Part(part))));
        let mut answer = self
            .stream(limit, ask, translate, |_| Ok(Vec::new()), Beside::Last)
            .await;
        while let Some(message) = answer.recv().await {
            match message? {
                Beside::Part(part) => take(part)?,
                Beside::Last(summary) => return Ok(summary),
            }
        }
        Err(Error::new(Reason::Unreachable, "an answer broke off"))
    }

    /// On other terms than those of a node: what the client allows, and from where its cursor points to.
    pub(super) fn on(mut self, terms: Terms) -> Result<Start> {
        known::check(terms.known_at_ns)?;
        if let Some(deadline) = terms.deadline {
            self.asker.deadline = self.asker.deadline.min(deadline);
        }
        let most = points_max(terms.points_max, &self.limits);
        self.asker.meter = Some(Arc::new(Meter::new(most, self.asker.application.clone())));
        let pages = terms.pages.as_ref();
        let after = pages
            .map(|pages| pages.begin(&self.key, self.limits.cursor_age_ms_max))
            .transpose()?;
        self.after = after.flatten();
        if let Some(after) = &self.after {
            self.targets.retain(|(shard, _)| *shard >= after.shard);
        }
        self.terms = terms;
        Ok(self)
    }

    /// Refuses unknown properties before any shard is asked, where the selector names the type.
    pub(super) fn check_properties(&self, properties: &[String]) -> Result<()> {
        match self.selector.device_type.as_str() {
            "" => Ok(()),
            device_type => self.catalog.device_type(device_type)?.choose(properties).map(drop),
        }
    }
}
