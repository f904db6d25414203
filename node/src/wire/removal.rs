//! Requests to delete points on their way in: what a valid one is. Never: storage.
//!
//! Invariant: what would remove more than its caller may have meant is refused unless he says that he means it.

use tidemark_proto::v1::{DeletePointsRequest, Selector};

use super::registry::check_selector;
use crate::error::{Error, Reason, Result};
use crate::limits::Limits;

/// A checked request: which devices, and the range of observation times, half-open.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// Which devices; empty for all.
    pub selector: Selector,
    /// First time that goes.
    pub from_ns: i64,
    /// First time behind it that stays.
    pub to_ns: i64,
}

/// Checks a request.
pub fn check_removal(request: &DeletePointsRequest, limits: &Limits) -> Result<Removal> {
    let selector = check_selector(request.selector.as_ref(), !request.everything, limits)?;
    let meant = |bound: Option<i64>, open: i64, field: &str| match bound {
        Some(bound) => Ok(bound),
        None if request.everything => Ok(open),
        None => Err(
            Error::new(Reason::MissingField, format!("no {field}: that would be all of time"))
                .field(field)
                .hint("name both ends of the range, or set `everything`"),
        ),
    };
    let from_ns = meant(request.from_ns, i64::MIN, "from_ns")?;
    let to_ns = meant(request.to_ns, i64::MAX, "to_ns")?;
    if from_ns > to_ns {
        let message = format!("from_ns {from_ns} is after to_ns {to_ns}");
        let hint = "swap from and to";
        return Err(Error::new(Reason::RangeReversed, message).field("from_ns").hint(hint));
    }
    Ok(Removal {
        selector,
        from_ns,
        to_ns,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn request(device: &str, from_ns: Option<i64>, to_ns: Option<i64>, everything: bool) -> DeletePointsRequest {
        DeletePointsRequest {
            selector: Some(Selector {
                device_ids: Some(device.to_owned())
                    .into_iter()
                    .filter(|id| !id.is_empty())
                    .collect(),
                ..Selector::default()
            }),
            from_ns,
            to_ns,
            everything,
            dry_run: false,
        }
    }

    #[test]
    fn more_than_was_said_is_not_meant() {
        let check = |request: DeletePointsRequest, expected: Reason, field: &str| {
            let error = check_removal(&request, &Limits::default()).unwrap_err();
            assert_eq!((error.reason(), error.field_path()), (expected, field), "{request:?}");
        };
        check(request("", Some(1), Some(2), false), Reason::NoSelector, "selector");
        check(request("d", None, Some(2), false), Reason::MissingField, "from_ns");
        check(request("d", Some(1), None, false), Reason::MissingField, "to_ns");
        check(request("d", Some(2), Some(1), false), Reason::RangeReversed, "from_ns");
        check(request("d", Some(2), Some(1), true), Reason::RangeReversed, "from_ns");
        check(
            request("a b", Some(1), Some(2), true),
            Reason::InvalidId,
            "selector.device_ids[0]",
        );
    }

    #[test]
    fn everything_has_to_be_said() {
        let all = check_removal(&request("", None, None, true), &Limits::default()).unwrap();
        assert_eq!(
            (all.selector, all.from_ns, all.to_ns),
            (Selector::default(), i64::MIN, i64::MAX)
        );
        let part = check_removal(&request("d", Some(-5), Some(5), false), &Limits::default()).unwrap();
        assert_eq!((part.from_ns, part.to_ns), (-5, 5));
    }
}
