//! Horizontal bar charts with intervals.

use super::canvas::{COLORS, Canvas, TITLE, width_of};

const ROW: f64 = 22.0;
const LENGTH: f64 = 128.0;
/// Width reserved for the printed value, in pixels.
const VALUE: f64 = 40.0;

/// One bar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// Label of the bar.
    pub name: String,
    /// Value; a dash is drawn if absent.
    pub value: Option<f64>,
    /// Lower and upper end of the interval.
    pub interval: Option<(f64, f64)>,
    /// Color, as an index into the palette.
    pub color: usize,
}

/// Bar chart of values from 0 to `most`, from top to bottom.
///
/// ```
/// use wsd_lab::plot::{Bar, Bars, Page};
/// let bar = Bar { name: "WSD".into(), value: Some(68.6), ..Bar::default() };
/// let bars = Bars { title: "HHH, %".into(), bars: vec![bar], named: true, most: 100.0, decimals: 1 };
/// assert!(Page { panels: vec![bars.into()], ..Page::default() }.svg().contains("68.6"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// Title of the chart.
    pub title: String,
    /// Bars from top to bottom.
    pub bars: Vec<Bar>,
    /// Draw the labels; the first chart of a row of charts is enough.
    pub named: bool,
    /// Value of a full bar.
    pub most: f64,
    /// Number of digits after the decimal point.
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
        canvas.text((left, y + 14.0), "title", "start", &self.title);
        for share in [0.0, 0.5, 1.0] {
            canvas.line((left + share * LENGTH, y + TITLE), (left + share * LENGTH, bottom), "grid");
        }
        let place = |value: f64| left + (value / self.most).clamp(0.0, 1.0) * LENGTH;
        for (row, bar) in self.bars.iter().enumerate() {
            let middle = y + TITLE + (row as f64 + 0.5) * ROW;
            if self.named {
                canvas.text((left - 10.0, middle + 4.0), "", "end", &bar.name);
            }
            let Some(value) = bar.value else {
                canvas.text((left + LENGTH + 6.0, middle + 4.0), "faint", "start", "–");
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
            canvas.text((left + LENGTH + 6.0, middle + 4.0), "", "start", &format!("{value:.*}", self.decimals));
        }
        canvas.line((left, y + TITLE), (left, bottom), "frame");
    }
}
