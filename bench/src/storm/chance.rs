//! Seeded variation: a hash of what is asked for, not a stream, so that the answer does not depend on the order of
//! questions. Invariant: the same seed and keys give the same number on every machine.

/// Mixes keys into one well-spread number.
pub(crate) fn hash(keys: &[u64]) -> u64 {
    keys.iter().fold(0x51ab_7e1d_0c3f_9b27, |state, key| {
        let mut z = (state ^ key).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A key made of a text.
pub(crate) fn key(text: &str) -> u64 {
    let bytes: Vec<u64> = text.bytes().map(u64::from).collect();
    hash(&bytes)
}

/// A number in [0, 1).
pub(crate) fn unit(keys: &[u64]) -> f64 {
    (hash(keys) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_stay() {
        assert_eq!(hash(&[1, 2]), hash(&[1, 2]));
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
        assert_ne!(key("a-1"), key("a-2"));
    }

    #[test]
    fn units_are_spread_evenly() {
        let units: Vec<f64> = (0..10_000).map(|i| unit(&[7, i])).collect();
        assert!(units.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = units.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
