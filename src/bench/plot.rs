//! Plots as SVG, with nothing from outside.

use std::fmt::Write;

/// Pixels of a plot, and of its margins: left, right, top, bottom.
const SIZE: (f64, f64) = (640.0, 300.0);
const MARGIN: (f64, f64, f64, f64) = (72.0, 16.0, 16.0, 44.0);

/// A line of a plot.
pub(super) struct Line {
    /// What it is.
    pub(super) name: String,
    /// Its points, in places of the axes: 0 to 1, from left to right and from below.
    pub(super) points: Vec<(f64, f64)>,
}

/// An axis: its title, and ticks with their places.
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) ticks: Vec<(f64, String)>,
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn place(x: f64, y: f64) -> (f64, f64) {
    let (left, right, top, bottom) = MARGIN;
    (left + x.clamp(0.0, 1.0) * (SIZE.0 - left - right), SIZE.1 - bottom - y.clamp(0.0, 1.0) * (SIZE.1 - top - bottom))
}

/// A plot of lines; `class` is for tests and styles.
pub(super) fn lines(class: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let mut out = frame(class, x, y);
    for (at, line) in lines.iter().enumerate() {
        let points: Vec<String> = line.points.iter().map(|(x, y)| place(*x, *y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let name = escape(&line.name);
        let _ = writeln!(out, "<polyline class=\"line c{}\" points=\"{}\"><title>{name}</title></polyline>", at % 6, points.join(" "));
    }
    out.push_str("</svg>\n");
    out
}

fn frame(class: &str, x: &Axis, y: &Axis) -> String {
    let (width, height) = SIZE;
    let mut out = format!("<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n");
    let ((left, low), (right, high)) = (place(0.0, 0.0), place(1.0, 1.0));
    for (at, label) in &x.ticks {
        let (x, _) = place(*at, 0.0);
        let _ = write!(out, "<path class=\"grid\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>");
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", low + 16.0, escape(label));
    }
    for (at, label) in &y.ticks {
        let (_, y) = place(0.0, *at);
        let _ = write!(out, "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>");
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 6.0, y + 4.0, escape(label));
    }
    let middle = f64::midpoint(left, right);
    let _ =
        writeln!(out, "<text class=\"axis\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", height - 6.0, escape(x.title));
    let _ = writeln!(out, "<text class=\"axis\" x=\"4\" y=\"12\">{}</text>", escape(y.title));
    out
}

/// Bars from left to right, each with its name and value.
pub(super) fn bars(class: &str, rows: &[(String, f64, String)]) -> String {
    const PITCH: f64 = 24.0;
    const NAMES: f64 = 200.0;
    let most = rows.iter().map(|(_, value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let (width, height) = (SIZE.0, rows.len() as f64 * PITCH + 8.0);
    let mut out = format!("<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n");
    for (at, (name, value, label)) in rows.iter().enumerate() {
        let (y, long) = (at as f64 * PITCH + 4.0, value / most * (width - NAMES - 100.0));
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"bar\" x=\"{NAMES}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"16\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            NAMES - 6.0,
            y + 12.0,
            escape(name),
            NAMES + long + 6.0,
            y + 12.0,
            escape(label)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// A linear axis from 0 to at least `most`: where values are, and ticks at round numbers.
pub(super) fn linear(title: &'static str, most: f64) -> (Axis, impl Fn(f64) -> f64) {
    let power = 10_f64.powf((most.max(1e-9) / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|unit| unit * power).find(|step| step * 5.0 >= most).unwrap_or(power * 10.0);
    let top = (most / step).ceil().max(1.0) * step;
    let ticks = (0..=(top / step).round() as u32).map(|at| (f64::from(at) * step / top, short(f64::from(at) * step))).collect();
    (Axis { title, ticks }, move |value| value / top)
}

/// A logarithmic axis from one power of ten to another.
pub(super) fn logarithmic(title: &'static str, least: f64, most: f64, label: impl Fn(f64) -> String) -> (Axis, impl Fn(f64) -> f64) {
    let low = least.max(1e-9).log10().floor();
    let high = most.max(1e-9).log10().ceil().max(low + 1.0);
    let ticks = (0..=(high - low) as i32).map(|at| (f64::from(at) / (high - low), label(10_f64.powf(low + f64::from(at))))).collect();
    (Axis { title, ticks }, move |value: f64| (value.max(1e-9).log10() - low) / (high - low))
}

/// A number in few letters.
pub(super) fn short(value: f64) -> String {
    for (unit, factor) in [("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if value >= factor {
            return format!("{}{unit}", (value / factor * 100.0).round() / 100.0);
        }
    }
    format!("{}", (value * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, top, ticks) in [(0.0, "0", 2), (7.0, "8", 5), (1_234_567.0, "1.5M", 4), (100.0, "100", 6)] {
            let (axis, at) = linear("x", most);
            let (place, label) = axis.ticks.last().unwrap();
            assert!((place - 1.0).abs() < 1e-9 && at(most) <= 1.0 + 1e-9, "{most}");
            assert!(axis.ticks.len() <= 11 && (most == 0.0 || label == top), "{most}: {label} {top} {ticks} {}", axis.ticks.len());
        }
        let (axis, at) = logarithmic("us", 30.0, 90_000.0, short);
        assert_eq!(axis.ticks.iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>(), ["10", "100", "1k", "10k", "100k"]);
        assert!((at(10.0)).abs() < 1e-9 && (at(1_000.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn nothing_gets_out_of_its_text() {
        let axis = || Axis { title: "<x>", ticks: vec![(0.5, "a\"b".into())] };
        let svg = lines("p", &axis(), &axis(), &[Line { name: "a&<b>".into(), points: vec![(0.0, 0.0), (2.0, -1.0)] }]);
        assert!(svg.contains("a&amp;&lt;b&gt;") && svg.contains("&lt;x&gt;") && svg.contains("a&quot;b"));
        assert!(svg.contains("points=\"72.0,256.0 624.0,256.0\""), "{svg}");
        assert!(bars("b", &[("<n>".into(), 1.0, "1".into())]).contains("&lt;n&gt;"));
    }
}
