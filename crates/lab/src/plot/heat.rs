//! Heat maps.

use super::canvas::{Canvas, TITLE};

const CELL: (f64, f64) = (34.0, 22.0);
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 40.0;
/// Color scale from the lowest to the highest value, RGB. Lightness changes evenly, so it is
/// legible to the color-blind.
const SCALE: [[f64; 3]; 5] =
    [[247.0, 244.0, 232.0], [196.0, 222.0, 208.0], [118.0, 182.0, 174.0], [44.0, 127.0, 130.0], [12.0, 71.0, 83.0]];

/// Heat map of a grid, with the first row at the top.
///
/// ```
/// use wsd_lab::plot::{HeatMap, Page};
/// let (columns, rows) = (vec!["0.7".into(), "0.8".into()], vec!["6".into()]);
/// let map = HeatMap { columns, rows, cells: vec![vec![Some(61.0), Some(69.0)]], ..HeatMap::default() };
/// assert!(Page { panels: vec![map.into()], ..Page::default() }.svg().contains(">69<"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMap {
    /// Title of the map.
    pub title: String,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// Label of the vertical axis.
    pub y_label: String,
    /// Labels of the columns.
    pub columns: Vec<String>,
    /// Labels of the rows.
    pub rows: Vec<String>,
    /// Values, row by row; a dash is drawn for `None`.
    pub cells: Vec<Vec<Option<f64>>>,
    /// Lowest and highest value of the color scale; the extreme values if absent.
    pub range: Option<(f64, f64)>,
    /// Number of digits after the decimal point.
    pub decimals: usize,
    /// Row and column of a framed cell.
    pub mark: Option<(usize, usize)>,
}

impl HeatMap {
    pub(super) fn size(&self) -> (f64, f64) {
        let width = LEFT + self.columns.len() as f64 * CELL.0 + 8.0;
        (width, TITLE + self.rows.len() as f64 * CELL.1 + BOTTOM)
    }

    pub(super) fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let (left, top) = (x + LEFT, y + TITLE);
        let (width, height) = (self.columns.len() as f64 * CELL.0, self.rows.len() as f64 * CELL.1);
        canvas.text((left, y + 14.0), "title", "start", &self.title);
        let values = || self.cells.iter().flatten().flatten().copied().filter(|value| value.is_finite());
        let (low, high) =
            self.range.unwrap_or((values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max)));
        for (row, cells) in self.cells.iter().enumerate() {
            for (column, value) in cells.iter().enumerate() {
                let corner = (left + column as f64 * CELL.0, top + row as f64 * CELL.1);
                let Some(value) = value.filter(|value| value.is_finite()) else {
                    canvas.text((corner.0 + CELL.0 / 2.0, corner.1 + 15.0), "faint", "middle", "–");
                    continue;
                };
                let share = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
                canvas.rect(corner, CELL, &format!("fill=\"{}\"", color(share)));
                let look = if share > 0.55 { "cell pale" } else { "cell ink" };
                let place = (corner.0 + CELL.0 / 2.0, corner.1 + 15.0);
                canvas.text(place, look, "middle", &format!("{value:.*}", self.decimals));
            }
        }
        for (row, name) in self.rows.iter().enumerate() {
            canvas.text((left - 6.0, top + (row as f64 + 0.5) * CELL.1 + 4.0), "faint", "end", name);
        }
        for (column, name) in self.columns.iter().enumerate() {
            canvas.text((left + (column as f64 + 0.5) * CELL.0, top + height + 14.0), "faint", "middle", name);
        }
        if let Some((row, column)) = self.mark {
            let corner = (left + column as f64 * CELL.0, top + row as f64 * CELL.1);
            canvas.rect(corner, CELL, "class=\"mark\"");
        }
        canvas.text((left + width / 2.0, top + height + 31.0), "faint", "middle", &self.x_label);
        canvas.upright_text((x + 12.0, top + height / 2.0), "faint", &self.y_label);
    }
}

/// Color at a position in `[0, 1]` of the scale.
fn color(share: f64) -> String {
    let place = share * (SCALE.len() - 1) as f64;
    let index = (place as usize).min(SCALE.len() - 2);
    let part = place - index as f64;
    let mixed = [0, 1, 2].map(|i| (SCALE[index][i] + part * (SCALE[index + 1][i] - SCALE[index][i])).round() as u8);
    format!("#{:02x}{:02x}{:02x}", mixed[0], mixed[1], mixed[2])
}
