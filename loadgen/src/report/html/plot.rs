//! One plot as inline SVG: an axis each way, lines, dashes, dots and bars, a legend above, a tooltip on every point.
//!
//! It knows positions and labels only; what the figures mean is the caller's affair. Without a script: tooltips are
//! the browser's own (`<title>`).

use super::escape::escape;
use std::fmt::Write;

/// Size of the drawing, in its own units; the page scales it to its column.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
/// Room for labels around the plane.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// Lines of the grid aimed at.
const TICKS: f64 = 5.0;

/// The vertical axis.
pub struct Axis {
    from: f64,
    to: f64,
    is_log: bool,
    ticks: Vec<f64>,
    /// How a value is written beside its line.
    label: fn(f64) -> String,
}

impl Axis {
    /// From 0 to a round number at or above `highest`.
    pub fn linear(highest: f64, label: fn(f64) -> String) -> Self {
        Self::between(0.0, highest, label)
    }

    /// From `from` to a round number at or above `highest`.
    pub fn between(from: f64, highest: f64, label: fn(f64) -> String) -> Self {
        let span = if highest > from { highest - from } else { 1.0 };
        let step = round_step(span / TICKS);
        let lines = (span / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=lines as u32).map(|line| from + f64::from(line) * step).collect();
        Self { from, to: from + lines * step, is_log: false, ticks, label }
    }

    /// Whole powers of ten around `values`; those that are not above 0 are left out.
    pub fn log(values: impl Iterator<Item = f64>, label: fn(f64) -> String) -> Self {
        let (mut lowest, mut highest) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            (lowest, highest) = (lowest.min(value), highest.max(value));
        }
        if highest == 0.0 {
            (lowest, highest) = (1.0, 10.0);
        }
        let first = lowest.log10().floor();
        let last = highest.log10().ceil().max(first + 1.0);
        let ticks = (0..=(last - first) as i32).map(|power| 10_f64.powf(first + f64::from(power))).collect();
        Self { from: 10_f64.powf(first), to: 10_f64.powf(last), is_log: true, ticks, label }
    }

    /// Where `value` lies, 0 at the foot and 1 at the top.
    fn place(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        part.clamp(0.0, 1.0)
    }
}

/// 1, 2, 2.5 or 5 times a power of ten, at or above `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let rounds = [1.0, 2.0, 2.5, 5.0, 10.0];
    rounds.into_iter().map(|round| round * power).find(|round| *round >= step * (1.0 - 1e-9)).unwrap_or(step)
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line with a dot at each point.
    Dots,
    /// A broad one, for what another line may cover.
    Under,
    /// A line without dots.
    Line,
    /// A dashed line.
    Dashes,
    /// A bar from the foot at each point.
    Bars,
}

/// A value at its place.
pub struct Point {
    /// 0 at the left, 1 at the right.
    pub at: f64,
    /// In the axis's unit.
    pub value: f64,
    /// What the pointer shows there.
    pub told: String,
}

/// One series.
pub struct Series {
    /// In the legend.
    pub name: String,
    /// A CSS colour.
    pub colour: String,
    /// How it is drawn.
    pub mark: Mark,
    /// From left to right.
    pub points: Vec<Point>,
}

/// One plot.
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub subtitle: String,
    /// Labels below, with their places.
    pub below: Vec<(f64, String)>,
    /// What they are.
    pub below_name: &'static str,
    /// The vertical axis.
    pub axis: Axis,
    /// What is said where there is no point.
    pub empty: &'static str,
    /// What is drawn, the first behind.
    pub series: Vec<Series>,
}

impl Plot {
    /// Writes it as a figure.
    pub fn write(&self, out: &mut String) {
        // Writing to a string does not fail, here and below.
        let _ = write!(
            out,
            "<figure class=\"card\"><figcaption>{}<span>{}</span></figcaption>",
            escape(&self.title),
            escape(&self.subtitle)
        );
        self.write_legend(out);
        let _ =
            write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(&self.title));
        self.write_axes(out);
        let bars = self.series.iter().filter(|series| series.mark == Mark::Bars).count();
        let mut bar = 0;
        for series in &self.series {
            let _ = write!(out, "<g style=\"--c:{}\">", escape(&series.colour));
            if series.mark == Mark::Bars {
                self.write_bars(series, bar, bars, out);
                bar += 1;
            } else {
                self.write_line(series, out);
            }
            out.push_str("</g>");
        }
        if self.is_empty() {
            let (x, y) = (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT / 2.0);
            let _ =
                write!(out, "<text class=\"none\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", self.empty);
        }
        out.push_str("</svg></figure>\n");
    }

    fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    fn write_legend(&self, out: &mut String) {
        out.push_str("<ul class=\"legend\">");
        for series in &self.series {
            let kind = match series.mark {
                Mark::Bars => "bar",
                Mark::Dashes => "dash",
                Mark::Dots | Mark::Under | Mark::Line => "",
            };
            let (name, colour) = (escape(&series.name), escape(&series.colour));
            let _ = write!(out, "<li><i class=\"{kind}\" style=\"--c:{colour}\"></i>{name}</li>");
        }
        out.push_str("</ul>");
    }

    fn write_axes(&self, out: &mut String) {
        let (right, foot) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for &tick in &self.axis.ticks {
            let y = self.y(tick);
            let label = if self.is_empty() { String::new() } else { (self.axis.label)(tick) };
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escape(&label)
            );
        }
        for (at, label) in &self.below {
            let x = x(*at);
            let _ = write!(
                out,
                "<path class=\"axis\" d=\"M{x:.1} {foot}v4\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                foot + 17.0,
                escape(label)
            );
        }
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {foot}H{right}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            LEFT + (right - LEFT) / 2.0,
            HEIGHT - 6.0,
            escape(self.below_name)
        );
    }

    fn write_line(&self, series: &Series, out: &mut String) {
        let kind = match series.mark {
            Mark::Dashes => " dash",
            Mark::Under => " wide",
            Mark::Dots | Mark::Line | Mark::Bars => "",
        };
        let places: Vec<String> =
            series.points.iter().map(|point| format!("{:.1} {:.1}", x(point.at), self.y(point.value))).collect();
        if places.len() > 1 {
            let _ = write!(out, "<path class=\"line{kind}\" d=\"M{}\"/>", places.join("L"));
        }
        // A line of one point is nothing to see.
        let (class, radius, hidden) = match series.mark {
            Mark::Under => ("dot under", 6.5, ""),
            Mark::Dots => ("dot", 4.0, ""),
            _ if places.len() == 1 => ("dot", 4.0, ""),
            _ => ("", 6.0, " fill=\"transparent\""),
        };
        for point in series.points.iter().filter(|point| !point.told.is_empty()) {
            let (x, y) = (x(point.at), self.y(point.value));
            let _ = write!(
                out,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"{hidden}><title>{}</title></circle>",
                escape(&point.told)
            );
        }
    }

    /// Bars of the series that is number `index` of `of` such; they stand beside each other.
    fn write_bars(&self, series: &Series, index: usize, of: usize, out: &mut String) {
        let room = (WIDTH - LEFT - RIGHT) / self.below.len().max(1) as f64;
        let width = (room * 0.7 / of.max(1) as f64).min(36.0);
        let foot = HEIGHT - BOTTOM;
        for point in &series.points {
            let left = x(point.at) + width * (index as f64 - of as f64 / 2.0);
            let y = self.y(point.value);
            let _ = write!(
                out,
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\"><title>{}</title></rect>",
                left + 0.5,
                width - 1.0,
                (foot - y).max(0.5),
                escape(&point.told)
            );
        }
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - self.axis.place(value))
    }
}

fn x(at: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: f64) -> String {
        value.to_string()
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (highest, to, lines) in [(0.0, 1.0, 6), (7.0, 8.0, 5), (500_000.0, 500_000.0, 6), (13.0, 15.0, 4)] {
            let axis = Axis::linear(highest, plain);
            assert_eq!((axis.to, axis.ticks.len()), (to, lines), "{highest}: {:?}", axis.ticks);
        }
        let axis = Axis::between(99.0, 100.0, plain);
        assert_eq!((axis.ticks.first(), axis.to), (Some(&99.0), 100.0));
    }

    #[test]
    fn a_log_axis_covers_its_values_with_whole_powers() {
        for (values, from, to) in [
            (vec![20.0, 3_000.0], 10.0, 10_000.0),
            (vec![0.0, 5.0], 1.0, 10.0),
            (vec![], 1.0, 10.0),
            (vec![100.0], 100.0, 1_000.0),
        ] {
            let axis = Axis::log(values.iter().copied(), plain);
            assert!(
                (axis.from - from).abs() < 1e-9 && (axis.to - to).abs() < 1e-6,
                "{values:?}: {} {}",
                axis.from,
                axis.to
            );
            for value in values {
                assert!((0.0..=1.0).contains(&axis.place(value)));
            }
        }
    }

    #[test]
    fn a_plot_without_a_point_says_so() {
        let axis = Axis::log(std::iter::empty(), plain);
        let series = Series { name: "p50".to_owned(), colour: "red".to_owned(), mark: Mark::Dots, points: Vec::new() };
        let (title, subtitle) = ("<T>".to_owned(), String::new());
        let (below, below_name, empty) = (Vec::new(), "level", "nothing was answered");
        let plot = Plot { title, subtitle, below, below_name, axis, empty, series: vec![series] };
        let mut out = String::new();
        plot.write(&mut out);
        assert!(out.contains("nothing was answered") && out.contains("&lt;T&gt;") && !out.contains("<T>"), "{out}");
        assert!(!out.contains("NaN") && !out.contains("inf"), "{out}");
    }
}
