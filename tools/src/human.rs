//! Sizes and spans as people read and write them. Never: json or csv, which carry plain numbers.
//!
//! Invariant: a size that a person writes is an exact number of bytes; one that is printed has at most three digits and a unit.

use std::time::Duration;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// `1.2 GiB`, `340 MiB`, `17 B`.
pub(crate) fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, 0);
    // What would round to 1024 belongs to the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `850 ms`, `12 s`, `3m20s`, `2h05m`, `4d03h`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `20MiB`, `50M`, `1.5GB`, `800k`, plain bytes, all with `/s` if one likes. K, M and G are powers of 1000, KiB, MiB and GiB
/// of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write a number with k, M, G, KiB, MiB or GiB, for example 20MiB");
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let (number, unit) = match bare.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => bare.split_at(at),
        None => (bare, ""),
    };
    let unit = unit.to_ascii_lowercase();
    let factor = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "ki" => 1024.0,
        "mi" => 1_048_576.0,
        "gi" => 1_073_741_824.0,
        _ => return Err(wrong()),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok((number * factor) as u64),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10 * 1024, "10 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_288_490_189, "1.2 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("800", 800),
            ("7B", 7),
            ("2k", 2_000),
            ("500KB", 500_000),
            ("50M", 50_000_000),
            ("1.5GB", 1_500_000_000),
            ("20MiB", 20 << 20),
            ("20 mib/s", 20 << 20),
            ("1GiB/s", 1 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "MiB", "-1", "-1MiB", "5X", "nan", "inf", "20MiB/m"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans() {
        for (ms, expected) in [
            (0, "0 ms"),
            (850, "850 ms"),
            (12_000, "12 s"),
            (200_000, "3m20s"),
            (7_500_000, "2h05m"),
            (356_400_000, "4d03h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), expected);
        }
    }
}
