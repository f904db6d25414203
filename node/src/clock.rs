//! The only place that reads the time. Never: decisions; whoever needs the time is given it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds in a millisecond.
pub const NS_PER_MS: i64 = 1_000_000;
/// Nanoseconds in a second.
pub const NS_PER_S: i64 = 1_000_000_000;
/// Nanoseconds in a day.
pub const NS_PER_DAY: i64 = 86_400 * NS_PER_S;

/// Now, in nanoseconds since the Unix epoch, cut to whole milliseconds: a stamp that many records share costs the
/// store almost nothing, and no sensor's delay is known better than that.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX / NS_PER_MS).saturating_mul(NS_PER_MS)
}

/// A point on the monotonic clock.
pub use std::time::Instant;

/// Now on the monotonic clock.
pub fn monotonic() -> Instant {
    Instant::now()
}
