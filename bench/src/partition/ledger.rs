//! What is known of the devices that are written to: which values were given out, which were acknowledged and when.
//! Pure; times are measured from the begin of the run. Invariant: the values of a device are 1, 2, 3 … in the order in which
//! they were acknowledged, so that a count of acknowledgements is a value.

use std::time::Duration;

/// One device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Track {
    /// When value 1, 2, 3 … was acknowledged.
    acknowledged_at: Vec<Duration>,
    /// The newest value given out, acknowledged or not.
    issued: i64,
}

impl Track {
    /// The value to write next; the same one until it is acknowledged.
    pub(crate) fn issue(&mut self) -> i64 {
        self.issued = self.acknowledged() + 1;
        self.issued
    }

    /// The value given out last was acknowledged.
    pub(crate) fn acknowledge(&mut self, at: Duration) {
        self.acknowledged_at.push(at);
    }

    /// The newest acknowledged value; 0 for none.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.acknowledged_at.len() as i64
    }

    /// The newest value that was acknowledged by then: what a linearizable read that begins then must at least see.
    pub(crate) fn known_at(&self, at: Duration) -> i64 {
        self.acknowledged_at.partition_point(|acknowledged| *acknowledged <= at) as i64
    }

    /// When a value was acknowledged.
    pub(crate) fn acknowledged_at(&self, value: i64) -> Option<Duration> {
        let index = usize::try_from(value - 1).ok()?;
        self.acknowledged_at.get(index).copied()
    }

    /// The newest value that anybody can have seen.
    pub(crate) fn issued(&self) -> i64 {
        self.issued
    }

    /// The longest time without an acknowledgement, of those that ended within a span. Where it began does not matter, and
    /// what had not ended when the span did counts from its begin to there.
    pub(crate) fn longest_silence(&self, from: Duration, to: Duration) -> Duration {
        let mut longest = Duration::ZERO;
        let mut last = Duration::ZERO;
        for at in self.acknowledged_at.iter().copied().chain([to]) {
            let at = at.min(to);
            if at > from {
                longest = longest.max(at.saturating_sub(last));
            }
            last = at;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(at_ms: &[u64]) -> Track {
        let mut track = Track::default();
        for at in at_ms {
            track.issue();
            track.acknowledge(Duration::from_millis(*at));
        }
        track
    }

    #[test]
    fn values_and_when_they_were_known() {
        let mut t = track(&[100, 200]);
        let known = |at: u64| t.known_at(Duration::from_millis(at));
        assert_eq!([known(0), known(99), known(100), known(250)], [0, 0, 1, 2]);
        assert_eq!(
            (t.acknowledged_at(2), t.acknowledged_at(3)),
            (Some(Duration::from_millis(200)), None)
        );
        assert_eq!((t.issue(), t.issue(), t.acknowledged(), t.issued()), (3, 3, 2, 3));
    }

    #[test]
    fn silences() {
        for (acknowledged, from, to, expected) in [
            (&[100, 200, 900, 1000][..], 500, 1000, 700), // it began before the span
            (&[100, 200, 900, 1000], 0, 500, 300),        // it had not ended
            (&[100, 200], 300, 1000, 800),                // nor ever did
            (&[100, 200], 0, 200, 100),
            (&[], 0, 50, 50),
        ] {
            let ms = Duration::from_millis;
            let silence = track(acknowledged).longest_silence(ms(from), ms(to));
            assert_eq!(silence, ms(expected), "{acknowledged:?} in {from}..{to}");
        }
    }
}
