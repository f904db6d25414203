//! What each application has of this node: questions at once, bytes held, values decoded a minute; and what it may have.
//!
//! ```text
//!              questions at once   bytes held at once      values a minute
//! counted at   the node asked      where they are held     the node asked, for all nodes that decode
//! past it      the next question is refused, one that is on its way and holds too much ends
//! ```
//! A question goes through once values are left, and pays for what it takes: the next ones wait until that is made up for.
//! Applications name themselves, so this keeps honest ones apart and is no protection from others.
//!
//! Never here: what a question costs (`query/tally`). Invariant: what is counted as present is given back when its guard is dropped;
//! no more applications are known than there may be, the rest share one account.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::appointments::Appointments;
use super::asker::change;
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;
use crate::metrics::{Counter, Gauge, Text};

/// An application that asks nothing for so long gives its account up where another needs one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// The account of those that have none of their own. No name has parentheses.
const OTHERS: &str = "(others)";
const MINUTE_S: f64 = 60.0;
const RETRY_MS: u64 = 200;
const RETRY_S_MAX: f64 = 86_400.0;

/// What one may have.
#[derive(Debug)]
struct Allowed {
    questions: usize,
    bytes: usize,
    points_per_minute: u64,
    /// What all of them may hold together, bytes.
    node_bytes: usize,
}

/// One application, or those without a name.
#[derive(Debug)]
pub struct Application {
    name: String,
    allowed: Arc<Allowed>,
    bucket: Mutex<Bucket>,
    questions: Gauge,
    /// Those of them that name a few devices. They have as many places as all others, which are the ones that take long.
    few: Gauge,
    /// When those may come again whose question was one too many.
    again: Appointments,
    asked: Counter,
    refused: Counter,
    bytes: Gauge,
    /// Values decoded for it.
    pub(super) points: Counter,
}

/// Values that may be decoded; as many as a minute gives, at most.
#[derive(Debug)]
struct Bucket {
    /// Negative: more was taken than there was.
    left: f64,
    at: Instant,
    /// What was taken by then.
    taken: u64,
}

impl Bucket {
    /// `None` where there is something left, else how long until there is.
    fn wait(&mut self, taken: u64, per_minute: u64, now: Instant) -> Option<Duration> {
        let (most, per_second) = (per_minute as f64, per_minute as f64 / MINUTE_S);
        let grown = now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        let used = taken.saturating_sub(self.taken) as f64;
        self.left = (self.left - used + grown).min(most);
        (self.at, self.taken) = (now, taken);
        (self.left <= 0.0).then(|| Duration::from_secs_f64((-self.left / per_second).min(RETRY_S_MAX)))
    }
}

/// A question that is being answered, until dropped.
#[derive(Debug)]
pub struct Admitted {
    of: Arc<Application>,
    few: bool,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.of.questions.sub(1);
        self.of.few.sub(u64::from(self.few));
    }
}

impl Application {
    fn new(name: &str, allowed: Arc<Allowed>) -> Arc<Application> {
        Arc::new(Application {
            name: name.to_owned(),
            bucket: Mutex::new(Bucket {
                left: allowed.points_per_minute as f64,
                at: monotonic(),
                taken: 0,
            }),
            allowed,
            questions: Gauge::default(),
            few: Gauge::default(),
            again: Appointments::default(),
            asked: Counter::default(),
            refused: Counter::default(),
            bytes: Gauge::default(),
            points: Counter::default(),
        })
    }

    /// Its name as it gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Begins a question; `few`: it names a few devices.
    ///
    /// # Errors
    /// `APPLICATION_LIMIT` where it has as much of this node as it may, with a time to retry.
    pub fn admit(self: &Arc<Application>, few: bool) -> Result<Admitted> {
        let mut bucket = lock(&self.bucket);
        let refused = self.refusal(few, &mut bucket, monotonic());
        match refused {
            Some(error) => {
                self.refused.add(1);
                Err(error)
            }
            None => {
                self.questions.add(1);
                self.few.add(u64::from(few));
                self.asked.add(1);
                Ok(Admitted { of: self.clone(), few })
            }
        }
    }

    fn refusal(&self, few: bool, bucket: &mut Bucket, now: Instant) -> Option<Error> {
        let allowed = &self.allowed;
        let alike = match few {
            true => self.few.get(),
            false => self.questions.get().saturating_sub(self.few.get()),
        };
        if alike >= allowed.questions as u64 {
            let most = allowed.questions;
            let which = if few { "of few devices " } else { "" };
            return Some(self.limited(
                format!("{most} questions {which}at once"),
                "application_questions_max",
                self.again.next_ms(),
            ));
        }
        if self.bytes.get() >= allowed.bytes as u64 {
            return Some(self.too_many_bytes());
        }
        let wait = bucket.wait(self.points.get(), allowed.points_per_minute, now)?;
        let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let most = format!("{} values decoded a minute", allowed.points_per_minute);
        Some(self.limited(most, "application_points_per_minute", retry_ms))
    }

    /// Notes that a question holds so many bytes of a part where it was so many before; `all` has those of all applications, `alone` those
    /// of the question.
    ///
    /// # Errors
    /// `QUERY_TOO_LARGE` where the question alone holds more than its application may, `APPLICATION_LIMIT` where all of the application do,
    /// `OVERLOADED` where all applications hold too much; they count as held all the same.
    pub(super) fn hold(&self, all: &Gauge, before: usize, now: usize, alone: u64) -> Result<()> {
        change(all, before, now);
        change(&self.bytes, before, now);
        if now <= before {
            return Ok(());
        }
        if alone > self.allowed.bytes as u64 {
            let message = format!(
                "the query holds more than the {} bytes of its application",
                self.allowed.bytes
            );
            let error = Error::new(Reason::QueryTooLarge, message).field("application_bytes_max");
            return Err(error.hint("ask for fewer devices, fewer windows or a shorter range"));
        }
        if self.bytes.get() > self.allowed.bytes as u64 {
            self.refused.add(1);
            return Err(self.too_many_bytes());
        }
        match all.get() > self.allowed.node_bytes as u64 {
            true => Err(Error::new(
                Reason::Overloaded,
                "questions hold as much memory of this node as they may",
            )),
            false => Ok(()),
        }
    }

    fn too_many_bytes(&self) -> Error {
        let most = format!("{} bytes held at once", self.allowed.bytes);
        self.limited(most, "application_bytes_max", RETRY_MS)
    }

    fn limited(&self, most: String, limit: &str, retry_ms: u64) -> Error {
        let who = match self.name.as_str() {
            "" => "applications without a name have".to_owned(),
            name => format!("application {name} has"),
        };
        Error::new(
            Reason::ApplicationLimit,
            format!("{who} as much of this node as it may: {most}"),
        )
        .field(limit)
        .hint("ask less at once, or raise the limit in the settings of the nodes")
        .retry_after_ms(retry_ms)
    }
}

/// All applications that this node knows.
#[derive(Debug)]
pub struct Applications {
    allowed: Arc<Allowed>,
    most: usize,
    nameless: Arc<Application>,
    others: Arc<Application>,
    /// With the time when each was last named.
    known: Mutex<BTreeMap<String, (Arc<Application>, Instant)>>,
}

impl Applications {
    /// None yet.
    pub fn new(limits: &Limits) -> Applications {
        let allowed = Arc::new(Allowed {
            questions: limits.application_questions_max,
            bytes: limits.application_bytes_max,
            points_per_minute: limits.application_points_per_minute.max(1),
            node_bytes: limits.query_bytes_max,
        });
        Applications {
            most: limits.applications_max,
            nameless: Application::new("", allowed.clone()),
            others: Application::new(OTHERS, allowed.clone()),
            known: Mutex::default(),
            allowed,
        }
    }

    /// The one of this name; without one, what all of those share.
    pub fn named(&self, name: &str) -> Arc<Application> {
        self.named_at(name, monotonic())
    }

    fn named_at(&self, name: &str, now: Instant) -> Arc<Application> {
        if name.is_empty() {
            return self.nameless.clone();
        }
        // As another node says of one that has no account there.
        if name == OTHERS {
            return self.others.clone();
        }
        let mut known = lock(&self.known);
        if let Some((application, named_at)) = known.get_mut(name) {
            *named_at = now;
            return application.clone();
        }
        if known.len() >= self.most {
            known.retain(|_, (application, named_at)| {
                let unused = Arc::strong_count(application) == 1;
                !unused || now.saturating_duration_since(*named_at) < FORGOTTEN_AFTER
            });
        }
        if known.len() >= self.most {
            return self.others.clone();
        }
        let application = Application::new(name, self.allowed.clone());
        known.insert(name.to_owned(), (application.clone(), now));
        application
    }

    /// What they have and had, for Prometheus.
    pub fn write_text(&self, text: &mut Text) {
        type Value = fn(&Application) -> u64;
        let mut all = vec![self.nameless.clone()];
        all.extend(lock(&self.known).values().map(|(application, _)| application.clone()));
        all.push(self.others.clone());
        all.retain(|one| one.name.is_empty() || one.asked.get() + one.refused.get() + one.bytes.get() > 0);
        let families: [(&str, &str, &str, Value); 5] = [
            (
                "tidemark_application_questions",
                "gauge",
                "Questions of an application that are being answered; no name: of all that give none.",
                |one| one.questions.get(),
            ),
            (
                "tidemark_application_questions_total",
                "counter",
                "Questions of an application that were taken.",
                |one| one.asked.get(),
            ),
            (
                "tidemark_application_refused_total",
                "counter",
                "Questions of an application that were refused, or ended, for what it may have of a node.",
                |one| one.refused.get(),
            ),
            (
                "tidemark_application_points_total",
                "counter",
                "Values decoded, on all nodes, for questions that this one was asked.",
                |one| one.points.get(),
            ),
            (
                "tidemark_application_bytes_held",
                "gauge",
                "Bytes of unfinished answers that this node holds.",
                |one| one.bytes.get(),
            ),
        ];
        for (name, kind, help, value) in families {
            text.family(name, kind, help);
            for one in &all {
                text.sample(name, &[("application", &one.name)], value(one));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn applications(limits: Limits) -> Applications {
        Applications::new(&limits)
    }

    fn refused(outcome: Result<Admitted>) -> (Reason, String, u64) {
        let error = outcome.map(drop).unwrap_err();
        (error.reason(), error.field_path().to_owned(), error.retry_after())
    }

    #[test]
    fn questions_at_once_are_those_of_one_application() {
        let all = applications(Limits {
            application_questions_max: 2,
            ..Limits::default()
        });
        let (busy, calm) = (all.named("busy"), all.named("calm"));
        let first = busy.admit(false).unwrap();
        let _second = all.named("busy").admit(false).unwrap();
        let (reason, limit, soon) = refused(busy.admit(false));
        assert_eq!(
            (reason, limit.as_str()),
            (Reason::ApplicationLimit, "application_questions_max")
        );
        let (_, _, later) = refused(busy.admit(false));
        assert!(soon > 0 && later > soon, "{soon}, {later} ms");
        let _small = [(); 2].map(|()| busy.admit(true).unwrap());
        assert!(busy.admit(true).is_err(), "as many of few devices as of more");
        let _other = (calm.admit(false).unwrap(), all.named("").admit(false).unwrap());
        drop(first);
        assert!(busy.admit(false).is_ok());
    }

    #[test]
    fn what_was_taken_is_made_up_for_before_the_next_question() {
        let (start, second) = (monotonic(), Duration::from_secs(1));
        let mut bucket = Bucket {
            left: 600.0,
            at: start,
            taken: 0,
        };
        assert_eq!(bucket.wait(599, 600, start), None);
        assert_eq!(bucket.wait(609, 600, start), Some(second * 9 / 10));
        assert_eq!(bucket.wait(609, 600, start + second), None);
        // However long nothing is asked, no more than a minute's is there.
        assert_eq!(bucket.wait(609, 600, start + second * 3_600), None);
        assert_eq!(
            bucket.wait(609 + 600, 600, start + second * 3_600),
            Some(Duration::ZERO)
        );
        assert_eq!(bucket.wait(609 + 1_200, 600, start + second * 3_600), Some(second * 60));
    }

    #[test]
    fn a_question_pays_for_what_it_decodes() {
        let all = applications(Limits {
            application_points_per_minute: 600,
            ..Limits::default()
        });
        let application = all.named("a");
        let meter = super::super::Meter::new(1_000, application.clone());
        drop(application.admit(false).unwrap());
        assert!(meter.spend(1_000).is_ok(), "as many as a question may");
        assert_eq!(
            meter.spend(1).map_err(|error| error.reason()),
            Err(Reason::TooManyPoints)
        );
        let (reason, limit, retry_ms) = refused(application.admit(false));
        assert_eq!(
            (reason, limit.as_str()),
            (Reason::ApplicationLimit, "application_points_per_minute")
        );
        assert!((30_000..=40_100).contains(&retry_ms), "{retry_ms}");
        assert!(all.named("b").admit(false).is_ok());
    }

    #[test]
    fn bytes_are_kept_by_application_and_by_all() {
        let all = applications(Limits {
            application_bytes_max: 100,
            query_bytes_max: 150,
            ..Limits::default()
        });
        let (a, b, gauge) = (all.named("a"), all.named("b"), Gauge::default());
        let reason = |outcome: Result<()>| outcome.map_err(|error| error.reason());
        let hold = |whose: &Application, before, now| reason(whose.hold(&gauge, before, now, 50));
        assert_eq!(hold(&a, 0, 100), Ok(()));
        assert_eq!(hold(&b, 0, 60), Err(Reason::Overloaded));
        assert_eq!(hold(&b, 60, 50), Ok(()), "less is always right");
        assert_eq!(hold(&a, 100, 101), Err(Reason::ApplicationLimit));
        assert_eq!(refused(a.admit(false)).1, "application_bytes_max");
        assert_eq!((hold(&a, 101, 0), gauge.get()), (Ok(()), 50));
        let alone = reason(a.hold(&gauge, 0, 101, 101));
        assert_eq!(alone, Err(Reason::QueryTooLarge), "to come again would not help");
        assert_eq!(hold(&a, 101, 0), Ok(()));
        assert!(a.admit(false).is_ok());
    }

    #[test]
    fn no_more_are_known_than_there_may_be() {
        let all = applications(Limits {
            applications_max: 2,
            ..Limits::default()
        });
        let now = monotonic();
        let running = all.named_at("a", now);
        all.named_at("b", now);
        let others = all.named_at("c", now);
        assert_eq!(others.name(), OTHERS);
        assert!(
            Arc::ptr_eq(&others, &all.named_at(OTHERS, now)),
            "as another node calls them"
        );
        let later = now + FORGOTTEN_AFTER;
        assert_eq!(all.named_at("c", later).name(), "c", "b has not asked for long");
        assert_eq!(all.named_at("b", later + FORGOTTEN_AFTER).name(), "b");
        assert_eq!(
            all.named_at("c", later + FORGOTTEN_AFTER).name(),
            OTHERS,
            "a is at work"
        );
        assert!(Arc::ptr_eq(&running, &all.named_at("a", later)));
        let _asked = running.admit(false).unwrap();
        let mut text = Text::default();
        all.write_text(&mut text);
        let text = text.into_string();
        assert!(
            text.contains("tidemark_application_questions{application=\"a\"} 1\n"),
            "{text}"
        );
    }
}
