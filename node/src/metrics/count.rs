//! What is counted, comes and goes, or takes time. Never: what of (see `metrics`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Metrics, Text};

/// Upper bounds of the latencies that are told apart, microseconds.
const BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 60_000_000,
];

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts some more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// There is more of it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// There is less of it, of what was added before.
    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// How much there is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts in a gauge for as long as it lives.
pub struct Present {
    metrics: Arc<Metrics>,
    of: fn(&Metrics) -> &Gauge,
}

impl Present {
    /// One more from now on.
    pub fn new(metrics: Arc<Metrics>, of: fn(&Metrics) -> &Gauge) -> Present {
        of(&metrics).add(1);
        Present { metrics, of }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        (self.of)(&self.metrics).sub(1);
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Latency {
    below: [Counter; BOUNDS_US.len()],
    count: Counter,
    sum_us: Counter,
}

impl Latency {
    /// Notes one.
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(at) = BOUNDS_US.iter().position(|bound| us <= *bound) {
            self.below[at].add(1);
        }
        self.count.add(1);
        self.sum_us.add(us);
    }

    /// For Prometheus, as a histogram of seconds.
    pub(super) fn write_text(&self, text: &mut Text, name: &str, labels: &[(&str, &str)]) {
        let mut below = 0;
        // The count first: what is noted meanwhile must not make a bucket larger than the whole.
        let count = self.count.get();
        let with = |bound: &str, text: &mut Text, value: u64| {
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
            text.sample(&format!("{name}_bucket"), &labels, value);
        };
        for (bound, counter) in BOUNDS_US.iter().zip(&self.below) {
            below += counter.get();
            let bound = *bound as f64 / 1e6;
            with(&bound.to_string(), text, below.min(count));
        }
        with("+Inf", text, count);
        text.sample(&format!("{name}_sum"), labels, self.sum_us.get() as f64 / 1e6);
        text.sample(&format!("{name}_count"), labels, count);
    }
}
