//! Reads of shards of this node, for its own clients and for other nodes: how many work at once, and who has to wait.
//!
//! ```text
//! what a write needs ──────────────────────────────> at once: it belongs to the write, whose bytes are counted
//! a few devices named ─> [ waiting ] ─> working  ┐
//! anything wider ──────> [ waiting ] ─> working  ┴─> as many as there are cores, of each kind
//!                         by turns of   │     ^
//!                         applications  v     │
//!                                  waits for whoever takes its answer: its place goes to another meanwhile
//! ```
//! What works or waits for its reader has a thread: those of wide questions are their own, which the scheduler prefers less than
//! what writes, applies and answers small questions; the others are of the runtime's pool for blocking work, most of which is left
//! to what applies and flushes, since no more reads than a limit are taken on. One past the limit is refused rather than kept
//! waiting: parts of questions wait for each other across nodes.
//!
//! Never here: what is read. Invariant: a place is given back however its read ends, and one that had a place comes before those
//! that never had one, so that what is held in memory gets done.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemark_proto::peer::read_shard_request::Query;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::peer::shard_alerts::Question;
use tidemark_proto::v1::Selector;
use tokio::runtime::{Builder, Handle, Runtime};

use super::asker::Asker;
use super::parts::{Giving, Hearing as _, ShardAnswer, parts};
use super::turns::Turns;
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Devices that a small question names at most.
const FEW_DEVICES: usize = 4;
/// Fewer work at once on no machine: while one waits for the disk, another has something to do.
const PLACES_MIN: usize = 2;
/// How much less urgent wide reads are, on the system's scale: beside a busy thread of the rest they get a tenth of a core.
const WIDE_NICENESS: i32 = 10;
/// A wide read that works lets others have its core at least so often: the system by itself lets a thread, however little urgent,
/// use up a slice of over a millisecond before one that wakes up takes over, and a write wakes up ten times.
const STEP_ASIDE_EVERY: Duration = Duration::from_micros(100);
/// Of its time, the part after which it does so no more: where writes take all there is, it would hardly get on.
const STEP_ASIDE_SHARE: u32 = 10;
/// Longest wait for wide reads when a node stops.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What answers: off the async threads, sends parts, gives the last one.
pub(super) type Work = Box<dyn FnOnce(&Giving) -> Result<Part> + Send>;

/// All reads of a node.
#[derive(Debug)]
pub(super) struct Reads {
    few: Arc<Lane>,
    wide: Arc<Lane>,
    threads: WideThreads,
}

/// Threads of wide reads.
#[derive(Debug)]
struct WideThreads {
    /// There until reading ends; runs nothing but its pool for blocking work.
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
}

impl WideThreads {
    /// At most as many as there may be reads on hand.
    fn new(most: usize) -> io::Result<WideThreads> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(most.max(1))
            .thread_name("wide-read")
            .on_thread_start(|| {
                // Where the system does not let it, wide reads are as urgent as anything.
                let _ = rustix::process::setpriority_process(None, WIDE_NICENESS);
            })
            .build()?;
        Ok(WideThreads {
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    fn take(&self) -> Option<Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for WideThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.take() {
            runtime.shutdown_background();
        }
    }
}

impl Reads {
    /// # Errors
    /// The system gives no threads.
    pub(super) fn new(limits: &Limits, metrics: &Arc<Metrics>) -> Result<Reads> {
        let cores = std::thread::available_parallelism().map_or(PLACES_MIN, |n| n.get());
        let places = match limits.read_threads {
            0 => cores.max(PLACES_MIN),
            threads => threads,
        };
        let lane = |steps_aside: bool| {
            Arc::new(Lane {
                places,
                most: limits.reads_max,
                steps_aside,
                state: Mutex::default(),
                granted: Condvar::new(),
                metrics: metrics.clone(),
            })
        };
        Ok(Reads {
            few: lane(false),
            wide: lane(true),
            threads: WideThreads::new(limits.reads_max).map_err(Error::internal)?,
        })
    }

    /// Ends wide reads, and waits until they hold nothing any more.
    pub(super) async fn stop(&self) {
        let Some(runtime) = self.threads.take() else { return };
        let ending = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(STOP_MAX));
        if ending.await.is_err() {
            tracing::error!("threads of wide reads did not end well");
        }
    }

    /// Has a read done once there is a place for it.
    ///
    /// # Errors
    /// `OVERLOADED` where as many are on hand as there may be.
    pub(super) fn run(&self, kind: Kind, asker: &Asker, work: Work) -> Result<ShardAnswer> {
        let (giving, answer) = parts(asker.clone());
        let on = match kind {
            Kind::Write | Kind::Few => Handle::current(),
            Kind::Wide => self.threads.handle.clone(),
        };
        let read = Read { giving, work, on };
        match kind {
            Kind::Write => read.begin(None),
            Kind::Few => self.few.take(read)?,
            Kind::Wide => self.wide.take(read)?,
        }
        Ok(answer)
    }
}

/// Whether a selector names a few devices.
pub fn selects_few(selector: &Selector) -> bool {
    (1..=FEW_DEVICES).contains(&selector.device_ids.len())
}

/// Whether a question names a few devices, and reads their blocks.
pub fn names_few(query: &Query) -> bool {
    let few = |selector: &Option<Selector>| selector.as_ref().is_some_and(selects_few);
    match query {
        Query::Range(request) => few(&request.selector),
        Query::Aggregate(request) => few(&request.selector),
        Query::Latest(request) => few(&request.selector),
        Query::Intervals(request) => few(&request.selector),
        Query::Resolve(_) | Query::Devices(_) | Query::Quality(_) | Query::Health(_) => false,
        Query::Count(_) | Query::Alerts(_) | Query::Join(_) => false,
    }
}

/// Whether a question waits for its turn among those that read much.
pub fn is_wide(query: &Query) -> bool {
    Kind::of(query) == Kind::Wide
}

/// What a read is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A write that has to know its devices.
    Write,
    /// A few devices that are named.
    Few,
    /// Anything wider.
    Wide,
}

impl Kind {
    /// Of a question.
    pub(super) fn of(query: &Query) -> Kind {
        match query {
            Query::Resolve(_) => Kind::Write,
            // Of as many as a request to answer alerts names, each looked up.
            Query::Alerts(asked) if matches!(asked.question, Some(Question::States(_))) => Kind::Few,
            query if names_few(query) => Kind::Few,
            _ => Kind::Wide,
        }
    }
}

/// A read that was taken on.
struct Read {
    giving: Giving,
    work: Work,
    on: Handle,
}

impl Read {
    fn begin(self, place: Option<Place>) {
        let Read { mut giving, work, on } = self;
        giving.place = place;
        on.spawn_blocking(move || {
            let in_time = monotonic() < giving.asker().deadline;
            let late = || Error::new(Reason::DeadlineExceeded, "time ran out while others were read for");
            let last = if in_time { work(&giving) } else { Err(late()) };
            giving.end(last);
        });
    }

    /// Whether anybody wants it still.
    fn is_wanted(&self) -> bool {
        self.giving.is_there() && monotonic() < self.giving.asker().deadline
    }
}

/// Reads of one kind.
#[derive(Debug)]
struct Lane {
    places: usize,
    /// Reads on hand: at work, waiting for their readers, waiting to begin.
    most: usize,
    /// Whether they let others have their cores now and then.
    steps_aside: bool,
    state: Mutex<State>,
    granted: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    working: usize,
    on_hand: usize,
    waiting: Turns<Read>,
    /// Reads that had a place, and want it again.
    returning: usize,
    /// Places given to them that they have not taken yet.
    grants: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let State { working, on_hand, .. } = self;
        write!(f, "{working} of {on_hand} at work")
    }
}

impl Lane {
    fn take(self: &Arc<Lane>, read: Read) -> Result<()> {
        let mut state = self.lock();
        if state.on_hand >= self.most {
            let before = state.waiting.len();
            state.waiting.retain(Read::is_wanted);
            let gone = before - state.waiting.len();
            state.on_hand -= gone;
            self.metrics.shard_reads_queued.sub(gone as u64);
        }
        if state.on_hand >= self.most {
            self.metrics.shard_reads_refused.add(1);
            let message = "this node reads for as many questions as it may";
            return Err(Error::new(Reason::Overloaded, message));
        }
        state.on_hand += 1;
        self.metrics.shard_reads_queued.add(1);
        let application = read.giving.asker().application.name().to_owned();
        state.waiting.push(application, read);
        self.serve(state);
        Ok(())
    }

    /// Gives free places away.
    fn serve(self: &Arc<Lane>, mut state: MutexGuard<'_, State>) {
        let mut begun = Vec::new();
        while state.working < self.places {
            if state.returning > 0 {
                state.returning -= 1;
                state.grants += 1;
                self.granted.notify_one();
            } else if let Some(read) = state.waiting.pop() {
                self.metrics.shard_reads_queued.sub(1);
                if !read.giving.is_there() {
                    state.on_hand -= 1;
                    continue;
                }
                begun.push(read);
            } else {
                break;
            }
            state.working += 1;
        }
        drop(state);
        for read in begun {
            let place = Place::new(self, read.giving.asker().deadline);
            read.begin(Some(place));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that work, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    lane: Arc<Lane>,
    /// When it did so last, and until when it does: `None` where it never does.
    steps_aside: Option<(Cell<Instant>, Instant)>,
}

impl Place {
    fn new(lane: &Arc<Lane>, deadline: Instant) -> Place {
        let now = monotonic();
        let until = now + deadline.saturating_duration_since(now) / STEP_ASIDE_SHARE;
        Place {
            lane: lane.clone(),
            steps_aside: lane.steps_aside.then_some((Cell::new(now), until)),
        }
    }

    /// Lets others have the core, where it is time to: whoever works calls this as often as it likes.
    pub(super) fn step_aside(&self) {
        let Some((last, until)) = &self.steps_aside else { return };
        let now = monotonic();
        if now < *until && now.duration_since(last.get()) >= STEP_ASIDE_EVERY {
            std::thread::yield_now();
            last.set(monotonic());
        }
    }

    /// Waits for something without it: others work meanwhile. Blocks the thread.
    pub(super) fn lend<T>(&self, waiting: impl FnOnce() -> T) -> T {
        let mut state = self.lane.lock();
        state.working -= 1;
        self.lane.serve(state);
        let came = waiting();
        let mut state = self.lane.lock();
        state.returning += 1;
        self.lane.serve(state);
        let mut state = self.lane.lock();
        while state.grants == 0 {
            state = self.lane.granted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.grants -= 1;
        came
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        state.working -= 1;
        state.on_hand -= 1;
        self.lane.serve(state);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tidemark_proto::v1::{AnswerSummary, Batch};

    use super::*;
    use crate::config::DiskReserve;
    use crate::disk::Disk;
    use crate::route::Applications;

    fn reads(read_threads: usize, reads_max: usize) -> (Reads, Arc<Metrics>) {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new(Disk::new(dir.path(), DiskReserve::Auto, None).unwrap()));
        let limits = Limits {
            read_threads,
            reads_max,
            ..Limits::default()
        };
        (Reads::new(&limits, &metrics).unwrap(), metrics)
    }

    fn asker(deadline: Instant) -> Asker {
        Asker::uncounted(Applications::new(&Limits::default()).named(""), deadline)
    }

    fn later() -> Instant {
        monotonic() + Duration::from_secs(60)
    }

    fn done() -> Result<Part> {
        Ok(Part::Summary(AnswerSummary::default()))
    }

    /// Parts of an answer, and how it ended.
    async fn all(mut answer: ShardAnswer) -> (usize, Option<Reason>) {
        let mut parts = 0;
        while let Some(together) = answer.recv().await {
            match together {
                Ok(together) => parts += together.len(),
                Err(error) => return (parts, Some(error.reason())),
            }
        }
        (parts, None)
    }

    #[tokio::test]
    async fn no_more_work_at_once_than_there_are_places() {
        let (reads, metrics) = reads(2, 64);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut answers = Vec::new();
        for _ in 0..40 {
            let (now, most) = (now.clone(), most.clone());
            let work = Box::new(move |_: &Giving| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..1_000 {
                    std::thread::yield_now();
                }
                now.fetch_sub(1, Ordering::SeqCst);
                done()
            });
            answers.push(reads.run(Kind::Wide, &asker(later()), work).unwrap());
        }
        for answer in answers {
            assert_eq!(all(answer).await, (1, None));
        }
        assert_eq!((most.load(Ordering::SeqCst), metrics.shard_reads_queued.get()), (2, 0));
    }

    #[tokio::test]
    async fn who_waits_for_its_reader_lends_its_place() {
        let (reads, _) = reads(1, 64);
        let many = |parts: usize| {
            let work = move |giving: &Giving| {
                (0..parts).all(|_| giving.take(Part::Batch(Batch::default())));
                done()
            };
            reads.run(Kind::Wide, &asker(later()), Box::new(work)).unwrap()
        };
        // All but the last have more to give than may wait; the last taken first, everybody has to have been let in.
        let answers: Vec<ShardAnswer> = (0..8).map(|_| many(40)).collect();
        assert_eq!(all(many(1)).await, (2, None));
        for answer in answers.into_iter().rev() {
            assert_eq!(all(answer).await, (41, None));
        }
    }

    #[tokio::test]
    async fn one_past_the_limit_is_refused_until_somebody_leaves() {
        let (reads, metrics) = reads(1, 2);
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let waits = Box::new(move |_: &Giving| {
            gate.recv().ok();
            done()
        });
        let first = reads.run(Kind::Wide, &asker(later()), waits).unwrap();
        let plain = || reads.run(Kind::Wide, &asker(later()), Box::new(|_: &Giving| done()));
        let second = plain().unwrap();
        let refused = plain().map(drop).unwrap_err();
        assert_eq!(
            (refused.reason(), refused.retry_after() > 0),
            (Reason::Overloaded, true)
        );
        assert_eq!(metrics.shard_reads_refused.get(), 1);
        // Questions about a few devices, and writes, do not wait for wide ones.
        for kind in [Kind::Few, Kind::Write] {
            let answer = reads.run(kind, &asker(later()), Box::new(|_: &Giving| done()));
            assert_eq!(all(answer.unwrap()).await, (1, None));
        }
        drop(second);
        let third = plain().unwrap();
        open.send(()).unwrap();
        assert_eq!((all(first).await, all(third).await), ((1, None), (1, None)));
    }

    #[tokio::test]
    async fn whose_time_is_over_is_told_so_and_not_worked_for() {
        let (reads, _) = reads(1, 2);
        let worked = Arc::new(AtomicUsize::new(0));
        let count = worked.clone();
        let work = Box::new(move |_: &Giving| {
            count.fetch_add(1, Ordering::SeqCst);
            done()
        });
        let answer = reads.run(Kind::Wide, &asker(monotonic()), work).unwrap();
        assert_eq!(all(answer).await, (0, Some(Reason::DeadlineExceeded)));
        assert_eq!(worked.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_read_that_ends_in_a_panic_gives_its_place_back() {
        let (reads, _) = reads(1, 2);
        #[allow(clippy::panic, reason = "what is tested")]
        let work = Box::new(|_: &Giving| -> Result<Part> { panic!("a defect") });
        let answer = reads.run(Kind::Wide, &asker(later()), work).unwrap();
        assert_eq!(all(answer).await, (0, None));
        let next = reads.run(Kind::Wide, &asker(later()), Box::new(|_: &Giving| done()));
        assert_eq!(all(next.unwrap()).await, (1, None));
    }
}
