//! Line charts with bands.

use super::axis::Axis;
use super::canvas::{COLORS, Canvas, TITLE, width_of};

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 280.0;
/// Space reserved for the labels of the vertical axis, in pixels.
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 40.0;
/// Highest number of points drawn in a curve; beyond it adjacent points are averaged.
const MAX_POINTS: usize = 400;

/// One curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Name in the legend; a series with an empty name is not listed.
    pub name: String,
    /// Points from left to right. A value that is not finite interrupts the curve.
    pub points: Vec<(f64, f64)>,
    /// Band around the curve: x, lower end, upper end.
    pub band: Vec<(f64, f64, f64)>,
    /// Color, as an index into the palette; the index of the series if absent.
    pub color: Option<usize>,
}

impl Series {
    /// Creates a curve through `points`.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect(), ..Self::default() }
    }
}

/// Line chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// Title of the chart.
    pub title: String,
    /// Label of the horizontal axis, with unit.
    pub x_label: String,
    /// Label of the vertical axis, with unit.
    pub y_label: String,
    /// Curves of the chart.
    pub series: Vec<Series>,
    /// Horizontal rules: value and label.
    pub rules: Vec<(f64, String)>,
}

impl Lines {
    pub(super) fn size(&self) -> (f64, f64) {
        (WIDTH, HEIGHT + TITLE)
    }

    pub(super) fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        canvas.text((x, y + 14.0), "title", "start", &self.title);
        self.legend(canvas, x, y + TITLE + 12.0);
        let (left, right) = (x + LEFT, x + WIDTH - 8.0);
        let (top, bottom) = (y + TITLE + 26.0, y + TITLE + HEIGHT - BOTTOM);
        let bands = self.series.iter().flat_map(|series| &series.band);
        let xs = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
        let ys = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
        let ys = ys.chain(bands.flat_map(|band| [band.1, band.2])).chain(self.rules.iter().map(|rule| rule.0));
        let (across, up) = (Axis::within(xs, left, right), Axis::over(ys, bottom, top));

        for (value, label) in up.ticks() {
            canvas.line((left, up.place(value)), (right, up.place(value)), "grid");
            canvas.text((left - 6.0, up.place(value) + 4.0), "faint", "end", &label);
        }
        for (value, label) in across.ticks() {
            canvas.line((across.place(value), bottom), (across.place(value), bottom + 4.0), "frame");
            canvas.text((across.place(value), bottom + 16.0), "faint", "middle", &label);
        }
        canvas.line((left, bottom), (right, bottom), "frame");
        canvas.text((f64::midpoint(left, right), bottom + 33.0), "faint", "middle", &self.x_label);
        canvas.upright_text((x + 11.0, f64::midpoint(top, bottom)), "faint", &self.y_label);
        for (value, name) in &self.rules {
            canvas.line((left, up.place(*value)), (right, up.place(*value)), "rule");
            canvas.text((right, up.place(*value) - 4.0), "faint", "end", name);
        }
        for (index, series) in self.series.iter().enumerate() {
            series.draw(canvas, color(series, index), &across, &up);
        }
    }

    fn legend(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let mut x = x + LEFT;
        for (index, series) in self.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty()) {
            canvas.line((x, y - 4.0), (x + 16.0, y - 4.0), &format!("line c{}", color(series, index)));
            canvas.text((x + 21.0, y), "faint", "start", &series.name);
            x += 21.0 + width_of(&series.name) + 14.0;
        }
    }
}

fn color(series: &Series, index: usize) -> usize {
    series.color.unwrap_or(index) % COLORS
}

impl Series {
    fn draw(&self, canvas: &mut Canvas, color: usize, across: &Axis, up: &Axis) {
        let band: Vec<_> = self.band.iter().filter(|(x, low, high)| (x + low + high).is_finite()).collect();
        if !band.is_empty() {
            let upper = band.iter().map(|(x, _, high)| (across.place(*x), up.place(*high)));
            let lower = band.iter().rev().map(|(x, low, _)| (across.place(*x), up.place(*low)));
            canvas.path(&upper.chain(lower).collect::<Vec<_>>(), &format!("band c{color}"));
        }
        let points = thinned(&self.points);
        for piece in points.split(|(x, y)| !(x + y).is_finite()).filter(|piece| !piece.is_empty()) {
            let places: Vec<_> = piece.iter().map(|(x, y)| (across.place(*x), up.place(*y))).collect();
            match places[..] {
                [point] => canvas.line(point, point, &format!("dot c{color}")),
                _ => canvas.path(&places, &format!("line c{color}")),
            }
        }
    }
}

/// Reduces a curve to about [`MAX_POINTS`] points by averaging adjacent ones; the first and the
/// last point are kept.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let (first, last) = (points[0], points[points.len() - 1]);
    let inner = points[1..points.len() - 1].chunks(points.len().div_ceil(MAX_POINTS));
    let means = inner.map(|chunk| {
        let (x, y) = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (x / chunk.len() as f64, y / chunk.len() as f64)
    });
    std::iter::once(first).chain(means).chain(std::iter::once(last)).collect()
}
