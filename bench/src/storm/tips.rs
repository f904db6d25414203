//! A tipping bucket: rain becomes whole tips, the rest stays in the bucket. Invariant: what has tipped and what is left
//! add up to what fell.

/// Guards against a bucket that misses its last tip by rounding, in tips.
const ROUNDING: f64 = 1e-9;

/// Whole tips since the start, at the end of each minute.
#[derive(Debug, Clone)]
pub(crate) struct Tips {
    tip_mm: f64,
    after_minute: Vec<u64>,
}

impl Tips {
    /// Fills the bucket minute by minute.
    pub(crate) fn new(minutes_mm: &[f64], tip_mm: f64) -> Self {
        let mut fallen = 0.0;
        let after_minute = minutes_mm
            .iter()
            .map(|mm| {
                fallen += mm;
                (fallen / tip_mm + ROUNDING).floor() as u64
            })
            .collect();
        Self { tip_mm, after_minute }
    }

    /// Depth tipped between two minutes from the start, (from, to], mm.
    pub(crate) fn between_mm(&self, from_min: i64, to_min: i64) -> f64 {
        (self.until(to_min) - self.until(from_min)) as f64 * self.tip_mm
    }

    fn until(&self, minute: i64) -> u64 {
        let last = usize::try_from(minute).unwrap_or(0).min(self.after_minute.len());
        last.checked_sub(1).map_or(0, |i| self.after_minute[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_carried() {
        let tips = Tips::new(&[0.3, 0.3, 0.3, 0.3, 0.3], 0.5);
        let each: Vec<f64> = (0..5).map(|m| tips.between_mm(m, m + 1)).collect();
        assert_eq!(each, [0.0, 0.5, 0.0, 0.5, 0.5]);
        assert_eq!(tips.between_mm(0, 5), 1.5);
        assert_eq!((tips.between_mm(-60, 0), tips.between_mm(5, 900)), (0.0, 0.0));
    }

    #[test]
    fn tenths_do_not_lose_their_last_tip() {
        assert_eq!(Tips::new(&[0.1; 10], 0.1).between_mm(0, 10), 1.0);
    }
}
