//! Questions to a store, timed, each answer held against the oracle. Never here: a store's language. Invariant: an answer
//! that is wrong is counted and told, and its time counts all the same; only a store that promises less than Tidemark may be
//! waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::batches::Span;
use super::expect::{check, check_order, expect};
use super::fleet::Fleet;
use super::question::{Ask, Kind, Questioner, Row};
use super::stores::Session;
use crate::report::{self, Latencies};

/// Right answers that are kept.
const KEPT: usize = 2_000;
/// Most questions of a kind in a row.
const ASKED_MAX: usize = 50_000;
/// So many of them differ: each was asked and looked at before, so that between questions in a row the bench does next to nothing.
const DIFFERENT: usize = 64;
/// A store that acknowledges before others can read may take so long.
const READABLE_WITHIN: Duration = Duration::from_secs(10);
const READABLE_LOOK: Duration = Duration::from_millis(100);
/// Wrong answers that are told.
const TOLD: u64 = 3;

/// Makes questions and knows the answers.
#[derive(Debug)]
pub(crate) struct Examiner {
    fleet: Arc<Fleet>,
    written: Span,
    questions: Questioner,
    known: HashMap<Ask, Known>,
    quiet: bool,
    promised: bool,
    /// Right answers are kept, too.
    keeps: bool,
}

/// What is known of a question.
#[derive(Debug, Clone)]
struct Known {
    right: Arc<Vec<Row>>,
    /// An answer that was found right, row by row: the same again is right, too.
    found: Option<Arc<Vec<Row>>>,
}

/// What came of the questions of one kind.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) latencies: Latencies,
    pub(crate) rows: u64,
    pub(crate) wrong: u64,
}

impl Answers {
    pub(crate) fn new() -> Result<Answers> {
        Ok(Answers {
            latencies: Latencies::new()?,
            rows: 0,
            wrong: 0,
        })
    }

    pub(crate) fn merge(&mut self, other: &Answers) -> Result<()> {
        self.latencies.merge(&other.latencies)?;
        self.rows = self.rows.max(other.rows);
        self.wrong += other.wrong;
        Ok(())
    }
}

impl Examiner {
    pub(crate) fn new(fleet: &Arc<Fleet>, written: Span, questions: Questioner) -> Examiner {
        Examiner {
            fleet: Arc::clone(fleet),
            written,
            questions,
            known: HashMap::new(),
            quiet: false,
            promised: false,
            keeps: false,
        }
    }

    /// The same, of a store that promises what Tidemark does: what was acknowledged is in the next answer, in order.
    pub(crate) fn promised(self) -> Examiner {
        Examiner { promised: true, ..self }
    }

    /// The same, which tells nobody of wrong answers.
    pub(crate) fn quietly(self) -> Examiner {
        Examiner { quiet: true, ..self }
    }

    /// The `turn`th question of a kind, and what is known of it.
    fn question(&mut self, kind: Kind, turn: usize) -> (Ask, Known) {
        let ask = self.questions.ask(kind, turn, &self.written);
        if self.known.len() > KEPT {
            self.known.clear();
        }
        let (fleet, written) = (&self.fleet, &self.written);
        let known = self.known.entry(ask.clone()).or_insert_with(|| Known {
            right: Arc::new(expect(fleet, written, &ask)),
            found: None,
        });
        let known = known.clone();
        (ask, known)
    }

    /// Asks once; the time counts from `due`.
    async fn once(
        &mut self,
        session: &mut Session,
        kind: Kind,
        turn: usize,
        due: Option<Instant>,
        answers: &mut Answers,
    ) -> Result<()> {
        let (ask, known) = self.question(kind, turn);
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        let began = due.unwrap_or_else(Instant::now);
        let answer = session.ask(&ask).await?;
        answers.latencies.record(began.elapsed());
        answers.rows = answer.len() as u64;
        if known.found.is_some_and(|found| *found == answer) {
            return Ok(());
        }
        match self.look_at(&ask, &known.right, &answer) {
            Ok(()) if self.keeps => {
                let found = Some(Arc::new(answer));
                self.known.entry(ask).and_modify(|known| known.found = found);
            }
            Ok(()) => {}
            Err(fault) => {
                answers.wrong += 1;
                if answers.wrong <= TOLD && !self.quiet {
                    report::note(&format!("WRONG: {}: {fault:#}", kind.title()));
                }
            }
        }
        Ok(())
    }

    /// Holds an answer against the right one.
    fn look_at(&self, ask: &Ask, right: &[Row], answer: &[Row]) -> Result<()> {
        if self.promised {
            check_order(ask, right, answer)?;
        }
        check(&self.fleet, &self.written, ask, right, answer.to_vec())
    }

    /// Asks one kind again and again: at least so long and so often.
    pub(crate) async fn again(
        &mut self,
        session: &mut Session,
        kind: Kind,
        seconds: f64,
        times: usize,
    ) -> Result<Answers> {
        let mut answers = Answers::new()?;
        let began = Instant::now();
        for turn in 0..ASKED_MAX {
            if turn >= times && began.elapsed().as_secs_f64() >= seconds {
                break;
            }
            self.once(session, kind, turn, None, &mut answers).await?;
        }
        Ok(answers)
    }

    /// The same, back to back: few enough that differ, each asked once before. `begin` is called when that is done.
    pub(crate) async fn in_a_row(
        &mut self,
        session: &mut Session,
        kind: Kind,
        (seconds, times): (f64, usize),
        begin: impl FnOnce(),
    ) -> Result<Answers> {
        let mut first = Answers::new()?;
        self.keeps = true;
        for turn in 0..DIFFERENT {
            if self.question(kind, turn).1.found.is_none() {
                self.once(session, kind, turn, None, &mut first).await?;
            }
        }
        begin();
        let mut answers = Answers::new()?;
        let began = Instant::now();
        for turn in 0..ASKED_MAX {
            if turn >= times && began.elapsed().as_secs_f64() >= seconds {
                break;
            }
            self.once(session, kind, turn % DIFFERENT, None, &mut answers).await?;
        }
        answers.wrong += first.wrong;
        Ok(answers)
    }

    /// Waits until every question is answered rightly, and says how long that took and what was wrong until then. What stays wrong
    /// is asked, and counted, all the same. Where it is promised, nothing is waited for and what is wrong counts at once.
    pub(crate) async fn readable(
        mut self,
        session: &mut Session,
        kinds: &[Kind],
    ) -> Result<(Duration, BTreeMap<Kind, u64>)> {
        self.quiet = !self.promised;
        let (began, mut wrong) = (Instant::now(), BTreeMap::new());
        for kind in kinds {
            loop {
                let found = self.again(session, *kind, 0.0, 1).await?.wrong;
                if self.promised {
                    wrong.insert(*kind, found);
                }
                if found == 0 || self.promised || began.elapsed() >= READABLE_WITHIN {
                    break;
                }
                tokio::time::sleep(READABLE_LOOK).await;
            }
        }
        Ok((began.elapsed(), wrong))
    }

    /// Makes what is asked first, so that no time of the bench counts as the store's.
    pub(crate) fn prepare(&mut self, kinds: &[Kind]) {
        kinds.iter().for_each(|kind| drop(self.question(*kind, 0)));
    }

    /// Asks all kinds by turns, a question every `every` by the clock, until told to stop.
    pub(crate) async fn by_clock(
        mut self,
        mut session: Session,
        kinds: Vec<Kind>,
        first: usize,
        every: Duration,
        stop: tokio::sync::watch::Receiver<bool>,
    ) -> Result<BTreeMap<Kind, Answers>> {
        let mut all = BTreeMap::new();
        self.prepare(&kinds);
        let began = Instant::now();
        for kind in &kinds {
            all.insert(*kind, Answers::new()?);
        }
        for turn in 0.. {
            let due = began + every * turn;
            let at = first + turn as usize;
            let kind = at.checked_rem(kinds.len()).and_then(|at| kinds.get(at));
            let Some((kind, answers)) = kind.and_then(|kind| Some((*kind, all.get_mut(kind)?))) else {
                break;
            };
            if !*stop.borrow() {
                self.once(&mut session, kind, at, Some(due), answers).await?;
            } else if let Some(waited) = Instant::now().checked_duration_since(due) {
                // Due, and never asked for want of an answer to the one before: it waited at least so long.
                answers.latencies.record(waited);
            } else {
                break;
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::batches::{Order, batches};
    use super::super::fleet::few;
    use super::super::question::Subjects;
    use super::super::stores::Made;
    use super::*;

    const KINDS: [Kind; 2] = [Kind::RawDay, Kind::Total];

    fn examiner() -> (Examiner, Session) {
        let fleet = Arc::new(few());
        // By the property that the store in memory keeps.
        let subjects = Subjects {
            series: "electrical_fire_monitor.residual_current".to_owned(),
            fleet: "electrical_fire_monitor.residual_current".to_owned(),
            ..Subjects::default()
        };
        let questions = Questioner::new(&fleet, &subjects).unwrap();
        let mut store = Made::default();
        for batch in batches(&fleet, &(0..7_200), Order::ByTime, 1_000) {
            store.put(&fleet, &batch);
        }
        (Examiner::new(&fleet, 0..7_200, questions), Session::Made(store))
    }

    fn late(session: Session, late: usize) -> Session {
        match session {
            Session::Made(store) => Session::Made(Made { late, ..store }),
            other => other,
        }
    }

    #[tokio::test]
    async fn a_store_that_shows_late_what_it_acknowledged_is_waited_for() {
        let (examiner, session) = examiner();
        let mut session = late(session, 1);
        let (_, wrong) = examiner.readable(&mut session, &KINDS).await.unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[tokio::test]
    async fn what_tidemark_shows_late_is_a_wrong_answer() {
        let (examiner, session) = examiner();
        let mut session = late(session, 1);
        let (_, wrong) = examiner.promised().readable(&mut session, &KINDS).await.unwrap();
        assert_eq!(wrong, BTreeMap::from([(Kind::RawDay, 1), (Kind::Total, 0)]));
    }

    #[tokio::test]
    async fn rows_out_of_order_are_wrong_where_an_order_is_promised() {
        for (promised, expected) in [(false, 0), (true, 1)] {
            let (mut examiner, mut session) = examiner();
            if promised {
                examiner = examiner.promised();
            }
            if let Session::Made(store) = &mut session {
                store.points.reverse();
            }
            let answers = examiner.again(&mut session, Kind::RawDay, 0.0, 1).await.unwrap();
            assert_eq!(answers.wrong, expected, "promised: {promised}");
        }
    }

    #[tokio::test]
    async fn what_was_right_once_is_looked_at_again() {
        let (mut examiner, mut session) = examiner();
        let all = examiner
            .in_a_row(&mut session, Kind::RawDay, (0.0, 100), || ())
            .await
            .unwrap();
        assert_eq!((all.latencies.count(), all.wrong), (100, 0));
        let mut session = late(session, 3);
        let all = examiner
            .in_a_row(&mut session, Kind::RawDay, (0.0, 100), || ())
            .await
            .unwrap();
        assert_eq!(all.wrong, 3);
    }
}
