//! How fast checkpoints leave this node: a bucket of bytes that one transfer has, or many share. Never: what is sent.
//!
//! Invariant: over any second no more than the rate leaves, but for a tenth of it that may have been saved up and the
//! last piece that was let through; a new rate holds at once, also for those who wait.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Instant, monotonic};

/// A slower rate would let a transfer stall its receiver.
const RATE_MIN: u64 = 64 << 10;
/// Share of a second that an idle bucket saves up.
const BURST_S: f64 = 0.1;
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Bytes a second, settable at any time.
#[derive(Debug)]
pub struct Throttle {
    bucket: Mutex<Bucket>,
    changed: Condvar,
}

#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// May be negative: the last piece is let through whole, and the next one waits for it.
    bytes: f64,
    at: Instant,
}

impl Throttle {
    /// Bytes a second.
    pub fn new(bytes_per_second: u64) -> Throttle {
        Throttle {
            bucket: Mutex::new(Bucket {
                rate: bytes_per_second.max(RATE_MIN),
                bytes: 0.0,
                at: monotonic(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Sets another rate.
    pub fn set(&self, bytes_per_second: u64) {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).rate = bytes_per_second.max(RATE_MIN);
        self.changed.notify_all();
    }

    /// The rate that holds now.
    pub fn bytes_per_second(&self) -> u64 {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).rate
    }

    /// Waits until so many bytes may leave; false when `given_up` said so before. Blocks the thread.
    pub fn take(&self, bytes: u64, given_up: impl Fn() -> bool) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        while !given_up() {
            let Some(wait) = bucket.take(bytes, monotonic()) else {
                return true;
            };
            let waited = self.changed.wait_timeout(bucket, wait.min(LONGEST_WAIT));
            bucket = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

impl Bucket {
    /// `None` when the bytes may leave, else how long until they may.
    fn take(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        let rate = self.rate as f64;
        let grown = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        self.at = now;
        self.bytes = (self.bytes + grown).min(rate * BURST_S);
        if self.bytes < 0.0 {
            return Some(Duration::from_secs_f64(-self.bytes / rate).max(Duration::from_millis(1)));
        }
        self.bytes -= bytes as f64;
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Bytes let through in some seconds, by pieces, without waiting for a clock.
    fn through(bucket: &mut Bucket, piece: u64, seconds: u64) -> u64 {
        let mut now = bucket.at;
        let end = now + Duration::from_secs(seconds);
        let mut sum = 0;
        while now < end {
            match bucket.take(piece, now) {
                None => sum += piece,
                Some(wait) => now += wait,
            }
        }
        sum
    }

    #[test]
    fn the_rate_holds_whatever_the_pieces() {
        for piece in [1 << 10, 100 << 10, 512 << 10, 5 << 20] {
            let throttle = Throttle::new(1 << 20);
            let mut bucket = throttle.bucket.lock().unwrap();
            let sum = through(&mut bucket, piece, 20);
            let (low, high) = ((19 << 20) - piece, (21 << 20) + piece);
            assert!((low..=high).contains(&sum), "{piece}: {sum}");
            bucket.rate = 4 << 20;
            let sum = through(&mut bucket, piece, 20);
            let (low, high) = ((75 << 20) - piece, (82 << 20) + piece);
            assert!((low..=high).contains(&sum), "{piece}: {sum} at four times the rate");
        }
    }

    #[test]
    fn whoever_gives_up_does_not_wait() {
        let throttle = Throttle::new(0);
        assert_eq!(throttle.bytes_per_second(), RATE_MIN);
        assert!(
            throttle.take(1 << 40, || false),
            "the first piece finds the bucket level"
        );
        assert!(!throttle.take(1, || true));
        throttle.set(1 << 30);
        assert_eq!(throttle.bytes_per_second(), 1 << 30);
    }
}
