//! A scenario against one store, phase by phase. Never here: a store's language, or how figures are shown. Invariant: each
//! phase begins where the one before ended, and what it used is measured from outside the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::answers::{Answers, Examiner};
use super::batches::{Order, Span, batches, points};
use super::figures::{PhaseFigures, WRONG_ANSWERS};
use super::fleet::Fleet;
use super::pour::{How, Poured, latencies, pour};
use super::question::{Kind, Questioner, Subjects};
use super::scenario::{Pace, Phase, Work};
use super::stores::{Session, Store};
use super::usage::{Meter, Usage};
use crate::report;

const HOUR_S: f64 = 3_600.0;
/// A store counts as quiet when it used less than this share of a core for a while.
const QUIET_SHARE: f64 = 0.05;
const QUIET_FOR: Duration = Duration::from_secs(2);
const QUIET_LOOKS: usize = 2;
const QUIET_WAIT: Duration = Duration::from_secs(180);
/// Acknowledgements that a page shows, at most.
const SHOWN: usize = 2_000;
const MICROS: f64 = 1e6;

/// A store that is played against.
pub(crate) struct Stage {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) store: Store,
    pub(crate) meter: Meter,
    /// What is written, in every order, without a gap.
    pub(crate) written: Span,
    questions: Questioner,
    began: Instant,
}

impl Stage {
    /// Nothing is written yet; the first record will lie at `begin_s`.
    pub(crate) fn new(fleet: Arc<Fleet>, store: Store, subjects: &Subjects, begin_s: i64) -> Result<Stage> {
        let meter = Meter::new(store.pids());
        Ok(Stage {
            questions: Questioner::new(&fleet, subjects)?,
            fleet,
            store,
            meter,
            written: begin_s..begin_s,
            began: Instant::now(),
        })
    }

    /// Plays a phase.
    pub(crate) async fn play(&mut self, phase: &Phase) -> Result<PhaseFigures> {
        report::note(&format!("  {}", phase.name));
        let (before, at) = (self.meter.now(), Instant::now());
        self.meter.take_peak();
        let mut figures = PhaseFigures {
            phase: phase.name.clone(),
            began_s: self.began.elapsed().as_secs_f64(),
            seconds: 0.0,
            points: 0,
            figures: Vec::new(),
            acknowledgements: Vec::new(),
            note: String::new(),
        };
        Box::pin(self.work(&phase.work, &mut figures))
            .await
            .with_context(|| format!("phase {}", phase.name))?;
        self.store.runs()?;
        let used = self.meter.now().minus(before);
        figures.seconds = at.elapsed().as_secs_f64();
        figures.points = points(&self.fleet, &self.written);
        figures.add("server CPU", "s", used.cpu_s);
        figures.add("peak memory", "MiB", self.meter.take_peak() as f64 / f64::from(1 << 20));
        Ok(figures)
    }

    async fn work(&mut self, work: &Work, figures: &mut PhaseFigures) -> Result<()> {
        match work {
            Work::Ingest { hours, pace } => {
                let span = self.written.end..self.written.end + seconds(*hours);
                self.ingest(span.clone(), Order::ByTime, pace, figures).await?;
                self.written.end = span.end;
            }
            Work::Backfill { hours, pace } => {
                let span = self.written.start - seconds(*hours)..self.written.start;
                self.ingest(span.clone(), Order::ByDevice, pace, figures).await?;
                self.written.start = span.start;
            }
            Work::Trickle {
                hours,
                rows,
                pause_ms,
                count,
            } => {
                self.trickle(
                    seconds(*hours),
                    *rows,
                    Duration::from_millis(*pause_ms),
                    *count,
                    figures,
                )
                .await?;
            }
            Work::Settle {} => self.settle(figures).await?,
            Work::Ask {
                kinds,
                seconds,
                times,
                about,
            } => {
                let questions = match about {
                    Some(subjects) => Questioner::new(&self.fleet, subjects)?,
                    None => self.questions.clone(),
                };
                self.ask(&questions, kinds, (*seconds, *times), figures).await?;
            }
            Work::Mixed {
                kinds,
                readers,
                questions_per_second,
                hours,
                pace,
            } => {
                let span = self.written.end..self.written.end + seconds(*hours);
                let every = Duration::from_secs_f64(*readers as f64 / questions_per_second.max(0.001));
                self.mixed(kinds, *readers, every, span, pace, figures).await?;
            }
            Work::Storm { .. } => super::storm::storm(self, work, figures).await?,
            Work::Kill { after_s, hours, pace } => {
                let span = self.written.end..self.written.end + seconds(*hours);
                super::kill::kill(self, *after_s, span, pace, figures).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn sessions(&self, count: usize) -> Result<Vec<Session>> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.store.session(&self.fleet).await?);
        }
        Ok(all)
    }

    pub(crate) fn examiner(&self) -> Examiner {
        self.examiner_of(&self.questions)
    }

    fn examiner_of(&self, questions: &Questioner) -> Examiner {
        let examiner = Examiner::new(&self.fleet, self.written.clone(), questions.clone());
        match self.store.is_tidemark() {
            true => examiner.promised(),
            false => examiner,
        }
    }

    async fn ingest(&mut self, span: Span, order: Order, pace: &Pace, figures: &mut PhaseFigures) -> Result<()> {
        let before = self.meter.now();
        let copies = if pace.of_each_copy {
            self.fleet.copies as usize
        } else {
            1
        };
        let all = batches(&self.fleet, &span, order, pace.batch * copies);
        let sessions = self.sessions(pace.in_flight).await?;
        let poured = pour(&self.fleet, sessions, all, How::rate(pace.rows_per_second)).await?;
        add_poured("", &poured, figures)?;
        add_cost(&poured, self.meter.now().minus(before), figures);
        Ok(())
    }

    /// What is left of the hours after the small batches is written, too, so that what follows has no gap.
    async fn trickle(
        &mut self,
        for_s: i64,
        rows: usize,
        pause: Duration,
        count: usize,
        figures: &mut PhaseFigures,
    ) -> Result<()> {
        let span = self.written.end..self.written.end + for_s;
        let mut all = batches(&self.fleet, &span, Order::ByTime, rows);
        let rest = all.split_off(count.min(all.len()));
        let how = How {
            pause,
            ..How::rate(0.0)
        };
        let poured = pour(&self.fleet, self.sessions(1).await?, all, how).await?;
        figures.add(
            "points a batch",
            "",
            poured.points as f64 / (poured.events.len() as f64).max(1.0),
        );
        figures.add_latencies("ack", &latencies(&poured.events, Duration::ZERO, Duration::MAX)?);
        show(&poured, figures);
        pour(&self.fleet, self.sessions(4).await?, rest, How::rate(0.0)).await?;
        self.written.end = span.end;
        Ok(())
    }

    async fn settle(&mut self, figures: &mut PhaseFigures) -> Result<()> {
        self.quiet().await?;
        figures.note = self.store.tidy().await?.to_owned();
        self.meter.follow(self.store.pids());
        let quiet = self.quiet().await?;
        if !quiet {
            figures.note.push_str("; not quiet in time");
        }
        let (stored, used) = (points(&self.fleet, &self.written).max(1) as f64, self.meter.now());
        let disk = self.store.disk_bytes() as f64;
        figures.add("disk a point", "bytes", disk / stored);
        figures.add("all CPU so far a point", "µs", used.cpu_s * MICROS / stored);
        figures.add("all writes so far a point", "bytes", used.written_bytes as f64 / stored);
        figures.add("write amplification", "", used.written_bytes as f64 / disk.max(1.0));
        Ok(())
    }

    /// Waits until it does nothing; false when it never rests.
    async fn quiet(&mut self) -> Result<bool> {
        let (began, mut looks) = (Instant::now(), 0);
        while began.elapsed() < QUIET_WAIT {
            let before = self.meter.now();
            tokio::time::sleep(QUIET_FOR).await;
            self.store.runs()?;
            let share = self.meter.now().minus(before).cpu_s / QUIET_FOR.as_secs_f64();
            looks = if share < QUIET_SHARE { looks + 1 } else { 0 };
            if looks == QUIET_LOOKS {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn ask(
        &mut self,
        questions: &Questioner,
        kinds: &[Kind],
        (seconds, times): (f64, usize),
        figures: &mut PhaseFigures,
    ) -> Result<()> {
        let mut session = self.store.session(&self.fleet).await?;
        let mut examiner = self.examiner_of(questions);
        examiner.prepare(kinds);
        let (waited, early) = self.examiner_of(questions).readable(&mut session, kinds).await?;
        figures.add("all of it readable after", "s", waited.as_secs_f64());
        for kind in kinds {
            let mut before = self.meter.now();
            let begin = || before = self.meter.now();
            let mut answers = examiner.in_a_row(&mut session, *kind, (seconds, times), begin).await?;
            let used = self.meter.now().minus(before);
            let asked = answers.latencies.count().max(1) as f64;
            figures.add(
                format!("{}: server CPU", kind.title()),
                "ms",
                used.cpu_s * 1_000.0 / asked,
            );
            answers.wrong += early.get(kind).unwrap_or(&0);
            add_answers(*kind, &answers, figures);
        }
        Ok(())
    }

    async fn mixed(
        &mut self,
        kinds: &[Kind],
        readers: usize,
        every: Duration,
        span: Span,
        pace: &Pace,
        figures: &mut PhaseFigures,
    ) -> Result<()> {
        let before = self.meter.now();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        for (reader, session) in self.sessions(readers).await?.into_iter().enumerate() {
            let asking = self
                .examiner()
                .by_clock(session, kinds.to_vec(), reader, every, stopped.clone());
            tasks.spawn(asking);
        }
        let all = batches(&self.fleet, &span, Order::ByTime, pace.batch);
        let poured = pour(
            &self.fleet,
            self.sessions(pace.in_flight).await?,
            all,
            How::rate(pace.rows_per_second),
        )
        .await?;
        stop.send_replace(true);
        add_poured("", &poured, figures)?;
        add_cost(&poured, self.meter.now().minus(before), figures);
        let mut sums = std::collections::BTreeMap::new();
        while let Some(done) = tasks.join_next().await {
            for (kind, answers) in done?? {
                match sums.entry(kind) {
                    std::collections::btree_map::Entry::Vacant(new) => drop(new.insert(answers)),
                    std::collections::btree_map::Entry::Occupied(mut sum) => sum.get_mut().merge(&answers)?,
                }
            }
        }
        sums.iter()
            .for_each(|(kind, answers)| add_answers(*kind, answers, figures));
        self.written.end = span.end;
        Ok(())
    }
}

pub(crate) fn seconds(hours: f64) -> i64 {
    (hours * HOUR_S) as i64
}

fn add_answers(kind: Kind, answers: &Answers, figures: &mut PhaseFigures) {
    figures.add_latencies(kind.title(), &answers.latencies);
    figures.add(format!("{}: asked", kind.title()), "", answers.latencies.count() as f64);
    figures.add(format!("{}: rows", kind.title()), "", answers.rows as f64);
    figures.add(format!("{}: {WRONG_ANSWERS}", kind.title()), "", answers.wrong as f64);
}

/// Rates and acknowledgements; `prefix` where a phase has more than one stream of batches.
pub(crate) fn add_poured(prefix: &str, poured: &Poured, figures: &mut PhaseFigures) -> Result<()> {
    figures.add(format!("{prefix}points"), "", poured.points as f64);
    figures.add(
        format!("{prefix}points a second"),
        "",
        poured.points as f64 / poured.seconds.max(1e-9),
    );
    figures.add_latencies(
        &format!("{prefix}ack"),
        &latencies(&poured.events, Duration::ZERO, Duration::MAX)?,
    );
    show(poured, figures);
    Ok(())
}

pub(crate) fn add_cost(poured: &Poured, used: Usage, figures: &mut PhaseFigures) {
    figures.add(
        "server CPU a point",
        "µs",
        used.cpu_s * MICROS / poured.points.max(1) as f64,
    );
    figures.add(
        "written a point",
        "bytes",
        used.written_bytes as f64 / poured.points.max(1) as f64,
    );
}

/// Keeps some acknowledgements for the page, the longest of each stretch.
fn show(poured: &Poured, figures: &mut PhaseFigures) {
    let stretch = poured.events.len().div_ceil(SHOWN).max(1);
    for events in poured.events.chunks(stretch) {
        if let Some(longest) = events.iter().max_by_key(|event| event.took) {
            let ms = longest.took.as_secs_f64() * 1_000.0;
            figures.acknowledgements.push((longest.due.as_secs_f64(), ms));
        }
    }
}
