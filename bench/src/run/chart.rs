//! Charts as SVG text: lines over x, and bars. Never here: which figures. Invariant: whatever the numbers, the picture is
//! well-formed and nothing lies outside of it.

use std::fmt::Write as _;

use super::figures::number;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 15.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 45.0;
const BAR: f64 = 18.0;
/// One colour a store.
const COLOURS: [&str; 6] = ["#0b6e99", "#d9730d", "#6940a5", "#0f7b6c", "#ad1a72", "#787774"];

/// A named line.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What the axes say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// Tenfold steps on the x axis.
    pub(crate) log_x: bool,
}

/// From figures to places in the picture.
struct Scale {
    low: f64,
    high: f64,
    top: f64,
    log_x: bool,
}

impl Scale {
    /// Wide enough for all curves.
    fn over(curves: &[Curve], log_x: bool) -> Scale {
        let scaled = |x: f64| if log_x { x.max(1.0).log10() } else { x };
        let all = || curves.iter().flat_map(Curve::finite);
        let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), (x, _)| {
            (a.min(scaled(x)), b.max(scaled(x)))
        });
        let top = all().map(|(_, y)| y).fold(0.0, f64::max).max(1e-9) * 1.05;
        let (low, high) = if low.is_finite() {
            (low, high.max(low + 1e-9))
        } else {
            (0.0, 1.0)
        };
        Scale { low, high, top, log_x }
    }

    fn x(&self, x: f64) -> f64 {
        let scaled = if self.log_x { x.max(1.0).log10() } else { x };
        LEFT + (scaled - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        TOP + (1.0 - y / self.top) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Curve {
    fn finite(&self) -> impl Iterator<Item = (f64, f64)> {
        let points = self.points.iter().copied();
        points.filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

/// Lines from 0 up.
pub(crate) fn lines(axes: Axes<'_>, curves: &[Curve]) -> String {
    let scale = Scale::over(curves, axes.log_x);
    let mut svg = open(HEIGHT, axes.title);
    grid(&mut svg, &scale);
    let _ = write!(
        svg,
        "<text x='{:.0}' y='{:.0}' text-anchor='end'>{}</text>",
        WIDTH - RIGHT,
        HEIGHT - 6.0,
        escaped(axes.x)
    );
    let _ = write!(svg, "<text x='4' y='{:.0}'>{}</text>", TOP - 8.0, escaped(axes.y));
    for (i, curve) in curves.iter().enumerate() {
        draw(&mut svg, &scale, i, curve);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Five lines across, and the numbers at both axes.
fn grid(svg: &mut String, scale: &Scale) {
    for i in 0..=4 {
        let part = f64::from(i) / 4.0;
        let (y, x) = (scale.top * part, scale.low + (scale.high - scale.low) * part);
        let shown = if scale.log_x { 10_f64.powf(x) } else { x };
        let (line, across) = (scale.y(y), LEFT + (WIDTH - LEFT - RIGHT) * part);
        let _ = write!(
            svg,
            "<line x1='{LEFT}' x2='{:.0}' y1='{line:.1}' y2='{line:.1}' stroke='#ddd'/>",
            WIDTH - RIGHT
        );
        let _ = write!(
            svg,
            "<text x='{:.0}' y='{:.1}' text-anchor='end'>{}</text>",
            LEFT - 6.0,
            line + 4.0,
            number(y)
        );
        let _ = write!(
            svg,
            "<text x='{across:.0}' y='{:.0}' text-anchor='middle'>{}</text>",
            HEIGHT - BOTTOM + 16.0,
            number(shown)
        );
    }
}

/// One curve with its name, and with its points where they are few.
fn draw(svg: &mut String, scale: &Scale, number: usize, curve: &Curve) {
    let colour = colour(number);
    let points: Vec<String> = curve
        .finite()
        .map(|(x, y)| format!("{:.1},{:.1}", scale.x(x), scale.y(y)))
        .collect();
    let _ = write!(
        svg,
        "<polyline fill='none' stroke='{colour}' stroke-width='1.5' points='{}'/>",
        points.join(" ")
    );
    if points.len() < 40 {
        for point in &points {
            let (x, y) = point.split_once(',').unwrap_or(("0", "0"));
            let _ = write!(svg, "<circle cx='{x}' cy='{y}' r='3' fill='{colour}'/>");
        }
    }
    let x = LEFT + 190.0 * (number % 4) as f64;
    let _ = write!(
        svg,
        "<text x='{x:.0}' y='{:.0}' fill='{colour}'>{}</text>",
        HEIGHT - 6.0,
        escaped(&curve.name)
    );
}

/// Line charts one below the other, as one picture.
pub(crate) fn stacked(charts: &[String]) -> String {
    let height = HEIGHT * charts.len() as f64;
    let mut svg = format!("<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0}'>\n");
    for (i, chart) in charts.iter().enumerate() {
        svg.push_str(&chart.replacen("<svg ", &format!("<svg y='{:.0}' ", HEIGHT * i as f64), 1));
    }
    svg.push_str("</svg>\n");
    svg
}

/// A bar for each name.
pub(crate) fn bars(title: &str, bars: &[(String, f64)], want: Option<f64>) -> String {
    let height = TOP + bars.len() as f64 * (BAR + 4.0) + 8.0;
    let values = bars.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
    let most = values.chain(want).fold(0.0, f64::max).max(1e-9);
    let (left, room) = (150.0, WIDTH - 150.0 - 90.0);
    let mut svg = open(height, title);
    for (i, (name, value)) in bars.iter().enumerate() {
        let (y, long) = (TOP + i as f64 * (BAR + 4.0), (value / most).clamp(0.0, 1.0) * room);
        let _ = write!(
            svg,
            "<text x='{:.0}' y='{:.1}' text-anchor='end'>{}</text>",
            left - 6.0,
            y + 13.0,
            escaped(name)
        );
        let _ = write!(
            svg,
            "<rect x='{left}' y='{y:.1}' width='{long:.1}' height='{BAR}' fill='{}'/>",
            colour(i)
        );
        let _ = write!(
            svg,
            "<text x='{:.1}' y='{:.1}'>{}</text>",
            left + long + 5.0,
            y + 13.0,
            number(*value)
        );
    }
    if let Some(want) = want {
        let x = left + (want / most).clamp(0.0, 1.0) * room;
        let _ = write!(
            svg,
            "<line x1='{x:.1}' x2='{x:.1}' y1='{TOP}' y2='{height:.0}' stroke='#c00' stroke-dasharray='3'/>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0}' viewBox='0 0 {WIDTH} {height:.0}' \
         font-family='sans-serif' font-size='11' fill='#333'><rect width='100%' height='100%' fill='#fff'/>\
         <text x='{:.0}' y='14' text-anchor='middle' font-size='13' font-weight='bold'>{}</text>",
        WIDTH / 2.0,
        escaped(title)
    )
}

fn colour(at: usize) -> &'static str {
    COLOURS.get(at % COLOURS.len()).copied().unwrap_or("#333")
}

/// Text that is text in HTML and SVG.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_well_formed_whatever_the_numbers() {
        let curve = |points: &[(f64, f64)]| Curve {
            name: "a & <b>".to_owned(),
            points: points.to_vec(),
        };
        let axes = Axes {
            title: "t",
            x: "x",
            y: "y",
            log_x: true,
        };
        for points in [
            &[][..],
            &[(1e6, 2.0)],
            &[(1e6, 0.0), (1e9, f64::NAN)],
            &[(0.0, 0.0), (5.0, 1e12)],
        ] {
            let svg = lines(axes, &[curve(points)]);
            assert!(
                svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"),
                "{svg}"
            );
            assert!(svg.contains("a &amp; &lt;b&gt;"));
        }
        let both = stacked(&[lines(axes, &[]), lines(axes, &[])]);
        assert_eq!((both.matches("<svg").count(), both.matches("</svg>").count()), (3, 3));
        assert!(both.contains("<svg y='260' ") && both.contains("height='520'"));
        let svg = bars("t", &[("a".to_owned(), 3.0), ("b".to_owned(), 0.0)], Some(1.0));
        assert_eq!(
            (svg.matches("<rect").count(), svg.matches("stroke-dasharray").count()),
            (3, 1)
        );
        assert!(!bars("t", &[], None).contains("NaN"));
    }
}
