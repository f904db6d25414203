//! A series as one line of block characters. Never: numbers a script would read.
//!
//! Invariant: the line is at most `WIDTH` characters; time runs to scale, a gap stays a gap.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const WIDTH: usize = 96;

/// Draws values at times (nanoseconds, rising); windows are `every` long.
pub(crate) fn sparkline(points: &[(i64, f64)], every: Option<i64>) -> String {
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
        return String::new();
    };
    let every = i128::from(every.unwrap_or(1).max(1));
    let windows = usize::try_from((i128::from(*last) - i128::from(*first)) / every + 1).unwrap_or(usize::MAX);
    let width = windows.clamp(1, WIDTH);
    let low = points.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    let mut columns: Vec<Option<f64>> = vec![None; width];
    for (at, value) in points {
        let window = (i128::from(*at) - i128::from(*first)) / every;
        let column = (window * width as i128 / windows as i128) as usize;
        if let Some(slot) = columns.get_mut(column) {
            *slot = Some(slot.map_or(*value, |before: f64| before.max(*value)));
        }
    }
    let block = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        BLOCKS[((share * 7.0).round() as usize).min(7)]
    };
    columns.into_iter().map(|column| column.map_or(' ', block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let points = |values: &[(i64, f64)]| values.to_vec();
        assert_eq!(sparkline(&[], Some(1)), "");
        assert_eq!(sparkline(&points(&[(0, 1.0)]), None), "▁");
        assert_eq!(sparkline(&points(&[(0, 0.0), (10, 7.0), (30, 3.5)]), Some(10)), "▁█ ▅");
        let many: Vec<_> = (0..1000).map(|i| (i * 5, i as f64)).collect();
        let line = sparkline(&many, Some(5));
        assert_eq!(line.chars().count(), WIDTH);
        assert!(line.starts_with('▁') && line.ends_with('█'));
    }
}
