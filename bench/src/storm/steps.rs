//! Rounding to the resolution of a sensor. Invariant: where the step is a decimal fraction, the result is the double
//! nearest to that decimal, as if a text with these digits had been parsed.

/// The nearest multiple of `step` (halves away from zero); the value itself without a step.
pub(crate) fn round(value: f64, step: Option<f64>) -> f64 {
    snap(value, step, |x| x.round())
}

/// The greatest multiple of `step` at or below the value, but for a rounding error.
pub(crate) fn floor(value: f64, step: Option<f64>) -> f64 {
    snap(value, step, |x| (x + 1e-6).floor())
}

fn snap(value: f64, step: Option<f64>, whole: impl Fn(f64) -> f64) -> f64 {
    let Some(step) = step.filter(|s| *s > 0.0) else {
        return value;
    };
    let per_unit = (1.0 / step).round();
    let snapped = if per_unit >= 1.0 && (per_unit * step - 1.0).abs() < 1e-9 {
        whole(value * per_unit) / per_unit
    } else {
        whole(value / step) * step
    };
    // -0.0 would read "-0"
    snapped + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_the_nearest_decimal() {
        let check = |value: f64, step: f64, expected: f64| {
            let got = round(value, Some(step));
            assert_eq!(got.to_bits(), expected.to_bits(), "{value} by {step}: {got}");
        };
        check(0.30000000000000004, 0.1, 0.3);
        check(1.2345, 0.01, 1.23);
        check(-0.001, 0.01, 0.0);
        check(30.694_800_4, 0.000_001, 30.6948);
        check(21.3, 0.5, 21.5);
        check(7.0, 2.0, 8.0);
        assert_eq!(round(1.2345, None), 1.2345);
    }

    #[test]
    fn down_to_the_step() {
        assert_eq!(floor(0.3, Some(0.1)), 0.3);
        assert_eq!(floor(9.99, Some(0.5)), 9.5);
    }
}
