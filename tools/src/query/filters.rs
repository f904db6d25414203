//! Flags that choose records by their values and quality, and their order. Never: looking at a value (the server does).
//!
//! Invariant: what a flag means here is what the contract's `ValueFilter` and `QualityFilter` say.

use clap::Args;
use tidemark_client::v1::{self, value_filter::Condition};

/// Which records, and in which order.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FilterArgs {
    /// Only records whose value is so: 'P>=1.5', 'P<=2', P=3, P=label, P=true (repeat: all must hold; quotes keep the shell from
    /// reading a redirection)
    #[arg(long = "where", value_name = "CONDITION", value_parser = parse_condition)]
    pub(super) values: Vec<v1::ValueFilter>,
    /// Only values that the source states to be of this quality (repeat, or separate by commas)
    #[arg(long = "quality", value_name = "QUALITY", value_delimiter = ',', value_parser = parse_quality)]
    qualities: Vec<v1::Quality>,
    /// Leave out what aggregates leave out: failed and missing values, and those that fail a check of the type
    #[arg(long)]
    drop_failed: bool,
    /// Leave suspect values out too
    #[arg(long)]
    drop_suspect: bool,
    /// The newest records of each device first
    #[arg(long)]
    newest_first: bool,
}

impl FilterArgs {
    /// In the words of the contract; none where no flag is given.
    pub(super) fn quality(&self) -> Option<v1::QualityFilter> {
        let filter = v1::QualityFilter {
            accept: self.qualities.iter().map(|quality| *quality as i32).collect(),
            drop_failed: self.drop_failed,
            drop_suspect: self.drop_suspect,
        };
        (filter != v1::QualityFilter::default()).then_some(filter)
    }

    pub(super) fn order(&self) -> v1::Order {
        match self.newest_first {
            true => v1::Order::NewestFirst,
            false => v1::Order::Unspecified,
        }
    }
}

fn parse_condition(text: &str) -> Result<v1::ValueFilter, String> {
    let form = || format!("`{text}` is not of the form P>=NUMBER, P<=NUMBER or P=VALUE");
    let at = text.find(['<', '>', '=']).filter(|at| *at > 0).ok_or_else(form)?;
    let (property, rest) = text.split_at(at);
    let number = |value: &str| value.parse::<f64>().map_err(|_| form());
    let condition = match (rest.strip_prefix(">="), rest.strip_prefix("<="), rest.strip_prefix('=')) {
        (Some(value), ..) => Condition::AtLeast(number(value)?),
        (_, Some(value), _) => Condition::AtMost(number(value)?),
        (.., Some("")) => return Err(form()),
        (.., Some(value)) => value
            .parse()
            .map_or_else(|_| Condition::Is(value.to_owned()), Condition::Equals),
        _ => return Err(form()),
    };
    Ok(v1::ValueFilter {
        property: property.to_owned(),
        condition: Some(condition),
    })
}

fn parse_quality(text: &str) -> Result<v1::Quality, String> {
    let name = format!("QUALITY_{}", text.to_ascii_uppercase());
    v1::Quality::from_str_name(&name)
        .filter(|quality| *quality != v1::Quality::Unspecified)
        .ok_or_else(|| format!("`{text}` is not one of good, unchecked, estimated, manual, suspect, fail, missing"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn conditions() {
        let parsed = |text: &str| {
            let filter = parse_condition(text).unwrap();
            (filter.property, filter.condition.unwrap())
        };
        assert_eq!(parsed("level>=1.5"), ("level".to_owned(), Condition::AtLeast(1.5)));
        assert_eq!(parsed("level<=-2"), ("level".to_owned(), Condition::AtMost(-2.0)));
        assert_eq!(parsed("n=3"), ("n".to_owned(), Condition::Equals(3.0)));
        assert_eq!(
            parsed("mode=fast"),
            ("mode".to_owned(), Condition::Is("fast".to_owned()))
        );
        for text in ["level", "=1", ">=1", "level>1", "level>=x", "level="] {
            assert!(parse_condition(text).is_err(), "{text}");
        }
        assert_eq!(parse_quality("good"), Ok(v1::Quality::Good));
        assert!(parse_quality("unspecified").is_err() && parse_quality("bad").is_err());
    }
}
