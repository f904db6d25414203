//! What an ideal code of magnitudes would take: how much the parameters of Rice leave to a costlier encoding.
//!
//! Never here: bytes. Invariant: integer arithmetic only, so that every machine chooses alike.

/// Magnitudes below it are symbols of their own; above, half a power of two is one.
const DIRECT: u64 = 16;
const SYMBOLS: usize = 16 + 2 * 60;

/// About the bytes of `magnitudes`, tables left out.
pub(crate) fn size(magnitudes: &[u64]) -> usize {
    let mut counts = [0u32; SYMBOLS];
    let mut plain_bits = 0u64;
    for &magnitude in magnitudes {
        if magnitude < DIRECT {
            counts[magnitude as usize] += 1;
        } else {
            let low = 62 - magnitude.leading_zeros();
            let symbol = 16 + 2 * (low as usize - 3) + (magnitude >> low & 1) as usize;
            counts[symbol] += 1;
            plain_bits += u64::from(low);
        }
    }
    let total = log2(magnitudes.len() as u64);
    let used = counts.iter().filter(|&&count| count > 0);
    let bits: u64 = used.map(|&count| u64::from(count) * (total - log2(count.into()))).sum();
    (bits / 1024 + plain_bits).div_ceil(8) as usize
}

/// The logarithm of something positive, in 1024ths.
fn log2(value: u64) -> u64 {
    let whole = 63 - value.max(1).leading_zeros();
    let part = (value << (63 - whole) >> 53) & 1023;
    u64::from(whole) * 1024 + part * (1376 - 352 * part / 1024) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_about_right() {
        assert_eq!(size(&[5; 1000]), 0);
        let even: Vec<u64> = (0..4096).map(|i| i % 8).collect();
        assert!(size(&even).abs_diff(4096 * 3 / 8) < 8, "{}", size(&even));
        let wide: Vec<u64> = (0..4096).map(|i| 1024 + i % 1024).collect();
        assert!(size(&wide).abs_diff(4096 * 10 / 8) < 16, "{}", size(&wide));
        assert!(size(&[u64::MAX, 0, 1 << 40]) < 24);
    }
}
