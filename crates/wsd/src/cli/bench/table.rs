//! Tables of figures as text.

use std::fmt::Write as _;

/// The median; the mean of the two middle values of an even number; NaN of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count => f64::midpoint(values[(count - 1) / 2], values[count / 2]),
    }
}

/// Aligns lines of cells in columns: the first column to the left, the others to the right.
pub(super) fn aligned<const N: usize>(lines: impl IntoIterator<Item = [String; N]>) -> String {
    let lines: Vec<_> = lines.into_iter().collect();
    let width = |column: usize| lines.iter().map(|line: &[String; N]| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = if column == 0 { write!(text, "{cell:width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
    text
}

/// A number with three significant digits, or two decimals below 1.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_columns() {
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 9.0]), 4.0);
        assert!(median(Vec::new()).is_nan());
        let lines = [["a", "10"], ["bcd", "9"]].map(|line| line.map(str::to_owned));
        assert_eq!(aligned(lines), "a    10\nbcd   9\n");
        assert_eq!([123.4, 12.34, 1.234].map(short), ["123", "12.3", "1.23"]);
    }
}
