//! How well a device kept its promise over a time: slots filled, points in time, gaps, how long it was there to be asked, and
//! whether it reports as often as it says. Pure.
//!
//! Never here: what values say (see `checks`), groups of devices. Invariant: late points count as if they had come in time,
//! no slot counts twice, and nothing that happens or fails to happen in slots under maintenance counts at all, but that a device is there.

mod rows;

use crate::spans::Spans;
use crate::window::Edge;

/// What is promised, and over which time that is judged.
#[derive(Clone, Debug)]
pub struct Promise {
    /// From here …
    pub from_ns: i64,
    /// … to here.
    pub to_ns: i64,
    /// Whether the device is there is judged here: at `to_ns`, or behind it where the time was cut to whole intervals.
    pub until_ns: i64,
    /// Nothing was promised before: no gap begins with an earlier point.
    pub since_ns: i64,
    /// Whether the device is in service at any time that is judged; one that is not can be told nothing of.
    pub serves: bool,
    /// Which end of a slot belongs to it.
    pub edge: Edge,
    /// One point each so long, nanoseconds.
    pub interval_ns: i64,
    /// A device whose last point is older cannot be relied on, nanoseconds.
    pub alive_ns: i64,
    /// So many intervals without a point are a gap.
    pub gap_factor: f64,
    /// Nothing is promised of the slots that share time with these.
    pub maintenance: Spans,
}

impl Promise {
    /// Slots of which nothing is promised, before and behind the time too.
    fn left_out(&self) -> Spans {
        match self.maintenance.is_empty() {
            true => Spans::NONE,
            false => self.maintenance.on_grid(self.from_ns, self.interval_ns),
        }
    }

    /// Whether it takes maintenance to say why a device whose last point this is said nothing for ten intervals at the end of the time.
    pub fn excuses(&self, last_ns: i64) -> bool {
        let silent_ns = self.left_out().length_outside(last_ns, self.to_ns);
        !self.maintenance.is_empty() && last_ns <= self.to_ns && !self.is_stalled(silent_ns)
    }

    fn is_stalled(&self, silent_ns: i64) -> bool {
        silent_ns > self.interval_ns.max(1).saturating_mul(10)
    }
}

/// A time without points that count.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last one before it, however far back; where there is none, the begin of the time that is judged.
    pub from_ns: i64,
    /// The first one behind it, or the end of that time.
    pub to_ns: i64,
    /// Points that should have been there.
    pub missing: u64,
    /// No point has ended it.
    pub open: bool,
}

/// How often a device reports, against what it promises.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Freshness {
    /// Mostly in step: so many times slower, at most 1.5.
    AsPromised(f64),
    /// So many times slower.
    Slower(f64),
    /// Nothing for ten intervals and more.
    Stalled,
    /// Nothing yet.
    Never,
    /// The time is too short to tell.
    NotAssessable,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// Slots of the time that are not under maintenance.
    pub slots: u64,
    /// Those with a point.
    pub filled: u64,
    /// Points within them.
    pub points: u64,
    /// Those of them for which a latency is promised.
    pub timed: u64,
    /// Those of these that came within it.
    pub in_time: u64,
    /// For how much of these slots there was a point that was young enough, nanoseconds.
    pub alive_ns: i64,
    /// The newest point that was looked at, not after the time.
    pub last_ns: Option<i64>,
    /// When the device was heard last, not after the time, by whatever it said.
    pub heard_ns: Option<i64>,
    /// Times without points that count.
    pub gaps: Vec<Gap>,
    /// The verdict; a device without any point here is taken for one that never had any.
    pub freshness: Freshness,
}

/// Looks at the points of one device in the order of their times.
#[derive(Debug)]
pub struct Assessing<'a> {
    promise: &'a Promise,
    found: Assessment,
    /// Slots under maintenance.
    left_out: Spans,
    /// Slots of the time, those too.
    slots: i64,
    slot: Option<i64>,
    spacings: Vec<i64>,
    /// Spacings that came so often one after the other.
    evenly: Vec<(i64, u64)>,
    /// The last point before the time that counts.
    before_ns: Option<i64>,
    /// The first one in it, and the last.
    counting_ns: Option<(i64, i64)>,
}

/// Where a point lies.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Place {
    Before,
    Within,
    Behind,
}

impl<'a> Assessing<'a> {
    /// Nothing was seen yet.
    pub fn new(promise: &'a Promise) -> Assessing<'a> {
        let left_out = promise.left_out();
        let slots_in = |length_ns: i64| length_ns / promise.interval_ns.max(1);
        let length = promise.to_ns.saturating_sub(promise.from_ns).max(0);
        Assessing {
            found: Assessment {
                slots: slots_in(left_out.length_outside(promise.from_ns, promise.to_ns)) as u64,
                filled: 0,
                points: 0,
                timed: 0,
                in_time: 0,
                alive_ns: 0,
                last_ns: None,
                heard_ns: None,
                gaps: Vec::new(),
                freshness: Freshness::Never,
            },
            promise,
            left_out,
            slots: slots_in(length),
            slot: None,
            spacings: Vec::new(),
            evenly: Vec::new(),
            before_ns: None,
            counting_ns: None,
        }
    }

    /// The device said something, perhaps only that it is there.
    pub fn heard(&mut self, t_ns: i64) {
        if t_ns <= self.promise.until_ns {
            self.found.heard_ns = self.found.heard_ns.max(Some(t_ns));
        }
    }

    /// The next point, whether it counts or not, and from observation to receipt the latency that is promised for it, if any. Points
    /// before the time tell how it began, those behind it nothing.
    pub fn point(&mut self, t_ns: i64, received_ns: i64, latency_ns: Option<i64>) {
        let place = self.place(t_ns);
        if place == Place::Behind {
            return;
        }
        let in_scope = !self.is_left_out(t_ns);
        if let Some(last) = self.found.last_ns {
            self.alive(last, t_ns);
            if place == Place::Within && in_scope && self.none_between(last, t_ns) {
                self.spacings.push(t_ns.saturating_sub(last));
            }
        }
        self.found.last_ns = Some(t_ns);
        if place == Place::Before || !in_scope {
            return;
        }
        self.found.points += 1;
        let late_by = received_ns.saturating_sub(t_ns);
        self.found.timed += u64::from(latency_ns.is_some());
        self.found.in_time += u64::from(latency_ns.is_some_and(|latency| late_by <= latency));
        let slot = self.slot_of(t_ns);
        if self.slot.replace(slot) != Some(slot) && slot < self.slots {
            self.found.filled += 1;
        }
    }

    /// The next point that counts: gaps lie between these. One that failed a check shows that the device is there, and ends no gap.
    pub fn counting(&mut self, t_ns: i64) {
        if self.is_left_out(t_ns) {
            return;
        }
        match self.place(t_ns) {
            Place::Before if t_ns >= self.promise.since_ns => self.before_ns = Some(t_ns),
            Place::Before | Place::Behind => {}
            Place::Within => {
                let first = match self.counting_ns {
                    Some((first, last)) => {
                        self.gap(last, t_ns, false);
                        first
                    }
                    None => t_ns,
                };
                self.counting_ns = Some((first, t_ns));
            }
        }
    }

    /// Whether no point that counts was seen before the time, and one would tell where a gap begins.
    pub fn lacks_begin(&self) -> bool {
        self.before_ns.is_none() && self.promise.to_ns > self.promise.from_ns
    }

    /// Whether a point of this time counts: it lies within the time that is judged, in a slot that is not under maintenance.
    pub fn takes(&self, t_ns: i64) -> bool {
        let promise = self.promise;
        promise.edge.holds(promise.from_ns, t_ns, promise.to_ns) && !self.is_left_out(t_ns)
    }

    /// Slots under maintenance, before and behind the time too.
    pub fn left_out(&self) -> &Spans {
        &self.left_out
    }

    fn is_left_out(&self, t_ns: i64) -> bool {
        self.left_out.hold(self.promise.edge, t_ns)
    }

    /// Whether no maintenance lies between the last point and one that is not under maintenance, and it was not either.
    fn none_between(&self, last_ns: i64, t_ns: i64) -> bool {
        self.left_out.is_empty() || !self.is_left_out(last_ns) && self.left_out.length_within(last_ns, t_ns) == 0
    }

    fn place(&self, t_ns: i64) -> Place {
        let promise = self.promise;
        let (before, behind) = match promise.edge {
            Edge::StartClosed => (t_ns < promise.from_ns, t_ns >= promise.to_ns),
            Edge::EndClosed => (t_ns <= promise.from_ns, t_ns > promise.to_ns),
        };
        match (before, behind) {
            (_, true) => Place::Behind,
            (true, false) => Place::Before,
            (false, false) => Place::Within,
        }
    }

    fn slot_of(&self, t_ns: i64) -> i64 {
        let since = t_ns.saturating_sub(self.promise.from_ns);
        let since = match self.promise.edge {
            Edge::StartClosed => since,
            Edge::EndClosed => since - 1,
        };
        since.div_euclid(self.promise.interval_ns.max(1))
    }

    /// Whether a point was seen, before the time or in it.
    pub fn any(&self) -> bool {
        self.found.last_ns.is_some()
    }

    /// Whether it was heard, not after the time.
    pub fn any_word(&self) -> bool {
        self.found.heard_ns.is_some()
    }

    /// There are no more points.
    pub fn finish(mut self) -> Assessment {
        if let Some(last) = self.found.last_ns {
            self.alive(last, self.promise.to_ns);
        }
        self.gaps_at_ends();
        self.found.freshness = self.freshness();
        self.found
    }

    /// The gaps that lead into the time and out of it; where no point in it counts, these are one.
    fn gaps_at_ends(&mut self) {
        let (from_ns, to_ns) = (self.promise.from_ns, self.promise.to_ns);
        let between = std::mem::take(&mut self.found.gaps);
        let begin = self.before_ns.unwrap_or(from_ns);
        let leading = match self.counting_ns {
            Some((first, _)) => (first, false),
            None => (to_ns, true),
        };
        // What ends where the time begins is no gap of it.
        if self.left_out.length_outside(from_ns, leading.0) > 0 {
            self.gap(begin, leading.0, leading.1);
        }
        self.found.gaps.extend(between);
        if let Some((_, last)) = self.counting_ns {
            self.gap(last, to_ns, true);
        }
    }

    /// A point is relied on until the next one, or until it is too old.
    fn alive(&mut self, from_ns: i64, to_ns: i64) {
        let promise = self.promise;
        let until = from_ns.saturating_add(promise.alive_ns).min(to_ns).min(promise.to_ns);
        self.found.alive_ns += self.left_out.length_outside(from_ns.max(promise.from_ns), until);
    }

    fn gap(&mut self, from_ns: i64, to_ns: i64, open: bool) {
        let interval = self.promise.interval_ns.max(1);
        let intervals = self.left_out.length_outside(from_ns, to_ns) as f64 / interval as f64;
        if intervals <= self.promise.gap_factor {
            return;
        }
        // A point that ends a gap is there; at the open end, one is due.
        let missing = if open {
            intervals.floor()
        } else {
            intervals.round() - 1.0
        };
        self.found.gaps.push(Gap {
            from_ns,
            to_ns,
            missing: missing.max(0.0) as u64,
            open,
        });
    }

    fn freshness(&mut self) -> Freshness {
        let promise = self.promise;
        let interval = promise.interval_ns.max(1);
        if !promise.serves || self.found.slots == 0 && self.slots > 0 {
            return Freshness::NotAssessable;
        }
        let Some(last) = self.found.last_ns else {
            return Freshness::Never;
        };
        if promise.is_stalled(self.left_out.length_outside(last, promise.to_ns)) {
            return Freshness::Stalled;
        }
        let Some(median) = self.median_spacing().filter(|_| self.found.slots >= 3) else {
            return Freshness::NotAssessable;
        };
        let ratio = median as f64 / interval as f64;
        match ratio <= 1.5 {
            true => Freshness::AsPromised(ratio),
            false => Freshness::Slower(ratio),
        }
    }

    /// The spacing in the middle of all of them by length; of two the longer one.
    fn median_spacing(&mut self) -> Option<i64> {
        let evenly: u64 = self.evenly.iter().map(|(_, count)| count).sum();
        let middle = (self.spacings.len() as u64 + evenly) / 2;
        if evenly == 0 {
            let places = 0..self.spacings.len();
            let middle = usize::try_from(middle).ok().filter(|middle| places.contains(middle))?;
            return Some(*self.spacings.select_nth_unstable(middle).1);
        }
        self.evenly.extend(self.spacings.drain(..).map(|spacing| (spacing, 1)));
        self.evenly.sort_unstable();
        let mut seen = 0;
        let reaches = |(_, count): &&(i64, u64)| {
            seen += count;
            seen > middle
        };
        self.evenly.iter().find(reaches).map(|(spacing, _)| *spacing)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const S: i64 = 1_000_000_000;

    /// An hour of five minutes each, promised within a minute.
    fn hour(edge: Edge) -> Promise {
        Promise {
            from_ns: 0,
            to_ns: 3_600 * S,
            until_ns: 3_600 * S,
            since_ns: i64::MIN,
            serves: true,
            edge,
            interval_ns: 300 * S,
            alive_ns: 900 * S,
            gap_factor: 1.5,
            maintenance: Spans::NONE,
        }
    }

    /// Points at these seconds, received so many seconds later; all count.
    fn assessed(promise: &Promise, points: &[(i64, i64)]) -> Assessment {
        let mut assessing = Assessing::new(promise);
        for (t, late) in points {
            assessing.point(t * S, (t + late) * S, Some(60 * S));
            assessing.counting(t * S);
        }
        assessing.finish()
    }

    /// The last point before a gap and the first one behind it, seconds.
    fn gap(from: i64, to: i64, missing: u64, open: bool) -> Gap {
        Gap {
            from_ns: from * S,
            to_ns: to * S,
            missing,
            open,
        }
    }

    #[test]
    fn slots_are_filled_once_and_late_points_fill_them_too() {
        let all: Vec<_> = (0..12)
            .filter(|n| ![3, 8].contains(n))
            .map(|n| (n * 300 + 10, 5))
            .collect();
        let mut twice = all.clone();
        twice.extend([(20, 4_000), (620, 5), (3_310 + 5, 5)]);
        twice.sort_unstable();
        let found = assessed(&hour(Edge::StartClosed), &twice);
        assert_eq!((found.slots, found.filled, found.points), (12, 10, 13));
    }

    #[test]
    fn timeliness_is_the_share_that_came_within_the_promise() {
        let found = assessed(&hour(Edge::StartClosed), &[(10, 5), (310, 59), (610, 61), (910, 4_000)]);
        assert_eq!((found.in_time, found.points), (2, 4));
        let found = assessed(&hour(Edge::StartClosed), &[(10, 60), (310, 61)]);
        assert_eq!((found.in_time, found.points), (1, 2), "just as promised is in time");
    }

    #[test]
    fn stamps_at_the_end_of_their_slot_belong_to_it() {
        let stamps: Vec<_> = (1..=12).map(|n| (n * 300, 5)).collect();
        let ends = assessed(&hour(Edge::EndClosed), &stamps);
        assert_eq!((ends.slots, ends.filled), (12, 12));
        let starts = assessed(&hour(Edge::StartClosed), &stamps);
        assert_eq!(starts.filled, 11);
    }

    #[test]
    fn gaps_lead_stand_between_and_stay_open() {
        let gaps = |points: &[(i64, i64)]| assessed(&hour(Edge::EndClosed), points).gaps;
        let every = |from: i64, to: i64| (from..=to).map(|n| (n * 300, 5)).collect::<Vec<_>>();
        assert_eq!(gaps(&every(0, 12)), []);
        assert_eq!(gaps(&every(-2, 2)), [gap(600, 3_600, 10, true)]);
        assert_eq!(gaps(&[every(0, 3), every(7, 12)].concat()), [gap(900, 2_100, 3, false)]);
        assert_eq!(
            gaps(&[vec![(-300, 5)], every(3, 12)].concat()),
            [gap(-300, 900, 3, false)]
        );
        assert_eq!(gaps(&[]), [gap(0, 3_600, 12, true)]);
        assert_eq!(
            gaps(&[(-6_000, 5)]),
            [gap(-6_000, 3_600, 32, true)],
            "it began long before"
        );
        assert_eq!(
            gaps(&[vec![(-6_000, 5)], every(0, 12)].concat()),
            [],
            "it ended where the time begins"
        );
        let just = [vec![(0, 5), (450, 5)], every(2, 12)].concat();
        assert_eq!(gaps(&just), [], "one and a half intervals are none");
        let longer = [vec![(0, 5), (451, 5)], every(2, 12)].concat();
        assert_eq!(gaps(&longer), [gap(0, 451, 1, false)]);
    }

    #[test]
    fn what_does_not_count_ends_no_gap_and_begins_none() {
        let promise = hour(Edge::StartClosed);
        let found = |promise: &Promise, points: &[i64], counting: &[i64]| {
            let mut assessing = Assessing::new(promise);
            points.iter().for_each(|t| assessing.point(t * S, t * S, None));
            counting.iter().for_each(|t| assessing.counting(t * S));
            assessing.finish()
        };
        let all: Vec<i64> = (-1..12).map(|n| n * 300).collect();
        let some: Vec<i64> = all
            .iter()
            .copied()
            .filter(|t| ![-300, 0, 900, 1_200].contains(t))
            .collect();
        let told = found(&promise, &all, &some);
        assert_eq!(told.gaps, [gap(600, 1_500, 2, false)]);
        assert_eq!(
            (told.filled, told.alive_ns),
            (12, 3_600 * S),
            "it was there all the time"
        );
        let before = [vec![-3_000], some].concat();
        assert_eq!(found(&promise, &all, &before).gaps[0], gap(-3_000, 300, 10, false));
        let younger = Promise {
            since_ns: -2_000 * S,
            ..promise
        };
        assert_eq!(
            found(&younger, &all, &before).gaps,
            [gap(600, 1_500, 2, false)],
            "nothing was promised then"
        );
    }

    #[test]
    fn a_device_is_there_while_its_last_point_is_young() {
        let found = assessed(&hour(Edge::StartClosed), &[(-600, 5), (1_200, 5), (1_500, 5)]);
        assert_eq!(found.alive_ns, (300 + 300 + 900) * S);
        assert_eq!(assessed(&hour(Edge::StartClosed), &[(-10_000, 5)]).alive_ns, 0);
    }

    #[test]
    fn verdicts() {
        let verdict = |points: &[(i64, i64)]| assessed(&hour(Edge::StartClosed), points).freshness;
        let each = |step: usize| (0..3_600).step_by(step).map(|t| (t, 5)).collect::<Vec<_>>();
        assert_eq!(verdict(&each(300)), Freshness::AsPromised(1.0));
        assert_eq!(
            verdict(&each(450)),
            Freshness::AsPromised(1.5),
            "one and a half intervals"
        );
        assert_eq!(verdict(&each(453)), Freshness::Slower(1.51));
        assert_eq!(verdict(&each(1_200)), Freshness::Slower(4.0));
        assert_eq!(
            verdict(&[(0, 5), (300, 5), (600, 5)]),
            Freshness::AsPromised(1.0),
            "ten of silence"
        );
        assert_eq!(verdict(&[(0, 5), (300, 5), (599, 5)]), Freshness::Stalled);
        assert_eq!(verdict(&[(0, 5), (300, 5)]), Freshness::Stalled);
        assert_eq!(verdict(&[]), Freshness::Never);
        let gone = Promise {
            serves: false,
            to_ns: 0,
            ..hour(Edge::StartClosed)
        };
        assert_eq!(assessed(&gone, &[(-60, 5)]).freshness, Freshness::NotAssessable);
        assert_eq!(assessed(&gone, &[]).freshness, Freshness::NotAssessable);
        let day = Promise {
            interval_ns: 86_400 * S,
            ..hour(Edge::StartClosed)
        };
        assert_eq!(assessed(&day, &[(10, 5)]).freshness, Freshness::NotAssessable);
        let months = Promise {
            to_ns: 92 * 86_400 * S,
            ..day
        };
        let firsts = [0, 31, 59, 90].map(|d| (d * 86_400, 5));
        assert_eq!(assessed(&months, &firsts).freshness, Freshness::Slower(31.0));
    }
}
