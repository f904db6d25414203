//! Where an answer goes on: the cursor of a page, as this command prints and reads it. Never: what is in the server's part.
//!
//! A server binds its cursor to the question, its times included. Flags like `--since 3h` mean other times at every call, so
//! that the times of the first question go along:
//!
//! ```text
//! printed: hex of  "TMC1" | from i64 le | to i64 le | at i64 le | known at i64 le | the server's cursor
//! ```
//! Without that head it is the server's cursor alone, of a question without times.
//!
//! Invariant: flags that name other times than the cursor's are refused, never passed over.

use clap::Args;
use tidemark_client::v1;

use crate::cli::now_ns;
use crate::failure::{Failure, Outcome};
use crate::time::{TsFormat, format_instant};

const MAGIC: &[u8; 4] = b"TMC1";

/// Times of a question, nanoseconds since the epoch, as they stand in its request (0: none).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// Begin of its span.
    pub(crate) from_ns: i64,
    /// End of its span.
    pub(crate) to_ns: i64,
    /// The moment that it is about.
    pub(crate) at_ns: i64,
    /// What may be known.
    pub(crate) known_at_ns: i64,
}

/// A cursor as it was printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Printed {
    times: Option<Times>,
    server: Vec<u8>,
}

/// Where an answer goes on, as an answer that was cut short said.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CursorArgs {
    /// Go on behind an answer that was cut short: the same question with the cursor that it gave
    #[arg(long, value_name = "CURSOR", value_parser = parse)]
    cursor: Option<Printed>,
}

impl CursorArgs {
    /// In the form of the contract.
    pub(crate) fn cursor<B: From<Vec<u8>> + Default>(&self) -> B {
        let server = self.cursor.as_ref().map(|printed| printed.server.clone());
        server.map(B::from).unwrap_or_default()
    }

    /// The times that the flags mean (`of`, by what time it is now): those that they meant when the answer began.
    pub(crate) fn times(&self, of: impl Fn(i64) -> Outcome<Times>) -> Outcome<Times> {
        let now_ns = now_ns();
        let now = of(now_ns)?;
        let Some(began) = self.cursor.as_ref().and_then(|printed| printed.times) else {
            return Ok(now);
        };
        let pairs = [
            (began.from_ns, now.from_ns),
            (began.to_ns, now.to_ns),
            (began.at_ns, now.at_ns),
            (began.known_at_ns, now.known_at_ns),
        ];
        // Each flag that counts from now says by itself when the answer began; one such moment must explain all of them.
        for (then, now) in pairs {
            let began_at = now_ns.saturating_sub(now.saturating_sub(then));
            if of(began_at).is_ok_and(|times| times == began) {
                return Ok(began);
            }
        }
        let instant = |ns: i64| format_instant(ns, TsFormat::Rfc3339);
        let why = match (began.from_ns, began.to_ns) {
            (0, 0) => "the cursor is of a question with other times than these flags name".to_owned(),
            (from, to) => format!("the cursor is of a question from {} to {}", instant(from), instant(to)),
        };
        Err(Failure::usage("the cursor belongs to another question", why)
            .or_next("the same command as before with --cursor, or the new one without"))
    }
}

/// What the server says of an answer, with the times of its question in the cursor.
pub(crate) fn with_times(summary: Option<&v1::AnswerSummary>, times: Times) -> Option<v1::AnswerSummary> {
    let mut summary = summary?.clone();
    if !summary.next_cursor.is_empty() {
        let mut printed = MAGIC.to_vec();
        for ns in [times.from_ns, times.to_ns, times.at_ns, times.known_at_ns] {
            printed.extend(ns.to_le_bytes());
        }
        printed.extend(&summary.next_cursor);
        summary.next_cursor = printed.into();
    }
    Some(summary)
}

fn parse(text: &str) -> Result<Printed, String> {
    let wrong = || "it is not as an answer gave it".to_owned();
    let digit = |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
    let bytes = bytes
        .filter(|bytes| !bytes.is_empty() && text.is_ascii())
        .ok_or_else(wrong)?;
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Ok(Printed {
            times: None,
            server: bytes,
        });
    };
    let (head, server) = rest.split_first_chunk::<32>().ok_or_else(wrong)?;
    let time = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&head[at * 8..at * 8 + 8]);
        i64::from_le_bytes(eight)
    };
    let times = Times {
        from_ns: time(0),
        to_ns: time(1),
        at_ns: time(2),
        known_at_ns: time(3),
    };
    Ok(Printed {
        times: Some(times),
        server: server.to_vec(),
    })
}

/// A cursor as it is printed.
pub(crate) fn cursor_text(cursor: &[u8]) -> String {
    cursor.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::time::{parse_instant, parse_span};

    const CURSOR: &[u8] = &[1, 0, 255, 7];

    fn printed(times: Times) -> CursorArgs {
        let summary = v1::AnswerSummary {
            next_cursor: CURSOR.to_vec().into(),
            ..v1::AnswerSummary::default()
        };
        let text = cursor_text(&with_times(Some(&summary), times).unwrap().next_cursor);
        CursorArgs {
            cursor: Some(parse(&text).unwrap()),
        }
    }

    #[test]
    fn cursors_are_read_as_they_are_printed() {
        let cursor: Vec<u8> = (0..=255).collect();
        let args = CursorArgs {
            cursor: Some(parse(&cursor_text(&cursor)).unwrap()),
        };
        assert_eq!(args.cursor::<Vec<u8>>(), cursor);
        assert_eq!(CursorArgs::default().cursor::<Vec<u8>>(), Vec::<u8>::new());
        for text in ["", "0", "0g", "éé", "00 0", "544d4331", "544d433100"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(printed(Times::default()).cursor::<Vec<u8>>(), CURSOR);
        assert_eq!(
            with_times(Some(&v1::AnswerSummary::default()), Times::default())
                .unwrap()
                .next_cursor
                .len(),
            0
        );
    }

    #[test]
    fn the_flags_of_the_first_question_mean_its_times_again_and_others_are_refused() {
        const HOUR: i64 = 3_600_000_000_000;
        let question = |from: Option<&'static str>,
                        to: Option<&'static str>,
                        since: Option<&'static str>,
                        known: Option<&'static str>| {
            move |now_ns: i64| {
                let instant = |text: &str| parse_instant(text, now_ns).unwrap();
                let to_ns = to.map_or(now_ns, instant);
                Outcome::Ok(Times {
                    from_ns: from.map_or_else(|| to_ns - parse_span(since.unwrap()).unwrap(), instant),
                    to_ns,
                    at_ns: 0,
                    known_at_ns: known.map_or(0, instant),
                })
            }
        };
        let first_at = now_ns() - HOUR;
        for (from, to, since, known) in [
            (None, None, Some("3h"), None),
            (None, None, Some("3h"), Some("now-10m")),
            (Some("2024-06-20"), None, None, None),
            (Some("2024-06-20"), Some("2024-06-21"), None, None),
            (Some("now-3h"), Some("now-2h"), None, None),
            (Some("2024-06-20"), Some("2024-06-21"), None, Some("now-1m")),
            (Some("now-3h"), Some("2261-01-01"), None, None),
            (None, Some("2024-06-21"), Some("1d"), Some("2024-07-01")),
        ] {
            let times = question(from, to, since, known)(first_at).unwrap();
            let again = printed(times).times(question(from, to, since, known)).unwrap();
            assert_eq!(again, times, "{from:?} {to:?} {since:?} {known:?}");
        }
        let first = question(None, None, Some("3h"), None)(first_at).unwrap();
        for (from, to, since, known) in [
            (None, None, Some("4h"), None),
            (Some("2024-06-20"), None, None, None),
            (None, None, Some("3h"), Some("now-10m")),
            (None, Some("2024-06-21"), Some("3h"), None),
        ] {
            let failure = printed(first).times(question(from, to, since, known)).unwrap_err();
            assert_eq!(
                failure.exit(),
                crate::failure::Exit::Usage,
                "{from:?} {to:?} {since:?} {known:?}"
            );
            assert!(
                failure.as_lines().contains("another question"),
                "{}",
                failure.as_lines()
            );
        }
        // A cursor without times is the server's business.
        let bare = CursorArgs {
            cursor: Some(parse("01").unwrap()),
        };
        assert!(bare.times(question(None, None, Some("4h"), None)).is_ok());
    }
}
