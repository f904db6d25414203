//! Until when a client waits for its answer, as it says in `grpc-timeout`. Never: what happens then.

use std::time::Duration;

use tonic::Request;

use crate::clock::{Instant, monotonic};

/// When the client stops waiting; `None` where it does not say.
pub(super) fn deadline<T>(request: &Request<T>) -> Option<Instant> {
    let timeout = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    monotonic().checked_add(parse(timeout)?)
}

/// At most eight digits and a unit.
fn parse(timeout: &str) -> Option<Duration> {
    let (digits, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse(text).map(|d| d.as_millis() as u64), expected);
        check("2H", Some(7_200_000));
        check("3M", Some(180_000));
        check("99999999S", Some(99_999_999_000));
        check("100m", Some(100));
        check("5000u", Some(5));
        check("7000000n", Some(7));
        for text in ["", "S", "100", "999999999S", "-1S", "1x", "1\u{e9}"] {
            check(text, None);
        }
    }
}
