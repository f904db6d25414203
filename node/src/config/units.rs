//! Sizes as people write them: `512MiB`, `10GiB`, `4096`. Never: what a size is for.

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Bytes of a size; `None` where the text is none. A bare number is bytes.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" => 1,
        unit => {
            let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
            known?.1
        }
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size in the largest unit that keeps it exact.
pub(super) fn show_size(bytes: u64) -> String {
    let exact = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    match UNITS.iter().find(exact) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => "0B".to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("0", 0, "0B"),
            ("4096", 4096, "4KiB"),
            ("512MiB", 512 << 20, "512MiB"),
            ("10 gib", 10 << 30, "10GiB"),
            ("1537KiB", 1537 << 10, "1537KiB"),
            ("7B", 7, "7B"),
        ];
        for (text, bytes, shown) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), shown);
            assert_eq!(parse_size(shown), Some(bytes));
        }
        for text in ["", "MiB", "-1", "1.5GiB", "10GB", "99999999999TiB", "1 0"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
