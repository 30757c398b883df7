//! Values with their intervals, one row each.

use super::canvas::{COLORS, Canvas, TITLE, width_of};

const ROW: f64 = 22.0;
const LENGTH: f64 = 128.0;
/// Room for the written value.
const VALUE: f64 = 40.0;

/// A row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// What it is.
    pub name: String,
    /// The value; nothing is drawn where there is none.
    pub value: Option<f64>,
    /// The ends of its interval.
    pub interval: Option<(f64, f64)>,
    /// The colour, by its number.
    pub color: usize,
}

/// Values from 0 to `most`, one below the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// What is shown.
    pub title: String,
    /// The rows.
    pub bars: Vec<Bar>,
    /// Whether the rows' names stand beside them: they need to stand beside the first panel of a row only.
    pub named: bool,
    /// The value of a full bar.
    pub most: f64,
    /// Digits after the point.
    pub decimals: usize,
}

impl Bars {
    fn names(&self) -> f64 {
        let longest = self.bars.iter().map(|bar| width_of(&bar.name)).fold(0.0, f64::max);
        if self.named { longest + 10.0 } else { 0.0 }
    }

    pub(super) fn size(&self) -> (f64, f64) {
        (self.names() + LENGTH + VALUE, TITLE + self.bars.len() as f64 * ROW + 4.0)
    }

    pub(super) fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let left = x + self.names();
        let bottom = y + TITLE + self.bars.len() as f64 * ROW;
        canvas.text(left, y + 14.0, "title", "start", &self.title);
        for share in [0.0, 0.5, 1.0] {
            canvas.line((left + share * LENGTH, y + TITLE), (left + share * LENGTH, bottom), "grid");
        }
        let place = |value: f64| left + (value / self.most).clamp(0.0, 1.0) * LENGTH;
        for (row, bar) in self.bars.iter().enumerate() {
            let middle = y + TITLE + (row as f64 + 0.5) * ROW;
            if self.named {
                canvas.text(left - 10.0, middle + 4.0, "", "end", &bar.name);
            }
            let Some(value) = bar.value else {
                canvas.text(left + LENGTH + 6.0, middle + 4.0, "faint", "start", "–");
                continue;
            };
            let color = format!("class=\"c{}\" fill-opacity=\".75\" stroke=\"none\"", bar.color % COLORS);
            canvas.rect((left, middle - 6.5), (place(value) - left, 13.0), &color);
            if let Some((low, high)) = bar.interval {
                canvas.line((place(low), middle), (place(high), middle), "whisker");
                for end in [low, high] {
                    canvas.line((place(end), middle - 3.0), (place(end), middle + 3.0), "whisker");
                }
            }
            canvas.text(left + LENGTH + 6.0, middle + 4.0, "", "start", &format!("{value:.*}", self.decimals));
        }
        canvas.line((left, y + TITLE), (left, bottom), "frame");
    }
}
