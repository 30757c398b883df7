//! Small SVG figures: line charts, bar charts and heat maps on one page. They support light and
//! dark themes, and the same input gives the same bytes.
//!
//! ```
//! use wsd_lab::plot::{Lines, Page, Series};
//! let loss = Series::new("train", [(0.0, 4.2), (100.0, 2.5), (200.0, 2.1)]);
//! let (title, x_label, y_label) = ("Loss".into(), "step".into(), "nats".into());
//! let lines = Lines { title, x_label, y_label, series: vec![loss], ..Lines::default() };
//! let svg = Page { columns: 1, panels: vec![lines.into()], ..Page::default() }.svg();
//! assert!(svg.starts_with("<svg "));
//! ```

mod axis;
mod bars;
mod canvas;
mod heat;
mod lines;

pub use bars::{Bar, Bars};
pub use canvas::escape;
pub use heat::HeatMap;
pub use lines::{Lines, Series};

use canvas::{Canvas, GAP, TITLE};

/// One chart of a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Panel {
    /// Line chart.
    Lines(Lines),
    /// Bar chart.
    Bars(Bars),
    /// Heat map.
    HeatMap(HeatMap),
}

impl From<Lines> for Panel {
    fn from(lines: Lines) -> Self {
        Self::Lines(lines)
    }
}

impl From<Bars> for Panel {
    fn from(bars: Bars) -> Self {
        Self::Bars(bars)
    }
}

impl From<HeatMap> for Panel {
    fn from(heat: HeatMap) -> Self {
        Self::HeatMap(heat)
    }
}

impl Panel {
    /// Width and height, in pixels.
    fn size(&self) -> (f64, f64) {
        match self {
            Self::Lines(lines) => lines.size(),
            Self::Bars(bars) => bars.size(),
            Self::HeatMap(heat) => heat.size(),
        }
    }

    fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        match self {
            Self::Lines(lines) => lines.draw(canvas, x, y),
            Self::Bars(bars) => bars.draw(canvas, x, y),
            Self::HeatMap(heat) => heat.draw(canvas, x, y),
        }
    }
}

/// Charts arranged in rows of `columns`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Title of the page; may be empty.
    pub title: String,
    /// Line below the title, such as the method; may be empty.
    pub note: String,
    /// Number of panels in a row.
    pub columns: usize,
    /// Panels in row-major order.
    pub panels: Vec<Panel>,
}

impl Page {
    /// Renders the page as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut canvas = Canvas::default();
        let mut y = GAP;
        for (text, class) in [(&self.title, "title"), (&self.note, "faint")] {
            if !text.is_empty() {
                y += TITLE;
                canvas.text((GAP, y - 8.0), class, "start", text);
            }
        }
        let mut width = GAP;
        for row in self.panels.chunks(self.columns.max(1)) {
            let (mut x, mut height) = (GAP, 0_f64);
            for panel in row {
                panel.draw(&mut canvas, x, y);
                let (w, h) = panel.size();
                x += w + GAP;
                height = height.max(h);
            }
            y += height + GAP;
            width = width.max(x);
        }
        canvas.document(width, y)
    }
}

#[cfg(test)]
mod tests;
