//! Who calls: until when a client waits for its answer (`grpc-timeout`), for which application it asks (`tidemark-application`).
//! Never: what follows from it.

use std::time::Duration;

use tonic::{Request, Status};

use super::refused;
use crate::catalog::types::is_id;
use crate::clock::{Instant, monotonic};
use crate::error::{Error, Reason, Result};
use crate::limits::APPLICATION_NAME_BYTES_MAX;
use crate::query::Caller;

/// Metadata that names an application.
const APPLICATION: &str = "tidemark-application";

/// Whoever calls.
pub(super) fn caller<T>(request: &Request<T>) -> std::result::Result<Caller, Status> {
    let named = request.metadata().get(APPLICATION);
    let application = named.map_or(Ok(String::new()), |name| application(name.as_bytes()));
    Ok(Caller {
        deadline: deadline(request),
        application: application.map_err(|error| refused(&error))?,
    })
}

/// The name of an application.
fn application(name: &[u8]) -> Result<String> {
    match std::str::from_utf8(name) {
        Ok(text) if is_id(text, APPLICATION_NAME_BYTES_MAX) => Ok(text.to_owned()),
        _ => Err(Error::new(
            Reason::InvalidId,
            format!("{:?} is no name of an application", String::from_utf8_lossy(name)),
        )
        .field(APPLICATION)
        .hint("give [A-Za-z0-9._:-]{1,64}, or leave it out")),
    }
}

/// When the client stops waiting; `None` where it does not say.
fn deadline<T>(request: &Request<T>) -> Option<Instant> {
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
    fn names_of_applications() {
        for name in ["flood", "Flood-Monitor:2", "a", &"x".repeat(64)] {
            assert_eq!(application(name.as_bytes()).ok().as_deref(), Some(name));
        }
        for name in ["", " ", "(others)", "a b", "\u{e9}", "a\nb", &"x".repeat(65)] {
            let refused = application(name.as_bytes()).map_err(|error| error.reason());
            assert_eq!(refused, Err(Reason::InvalidId), "{name:?}");
        }
    }

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
