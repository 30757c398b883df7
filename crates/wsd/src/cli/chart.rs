//! A scored response as a chart and as a table of characters.

use std::fmt::Write as _;

use wsd_core::Rule;

use super::output::harmless;
use super::report::Report;

/// Columns of one block of the chart.
const WIDTH: usize = 72;
/// Rows of the chart.
const HEIGHT: usize = 8;
/// Cells filled by 0 to 8 eighths.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Colors of confidences from 0 to 1: red to green in the 256-color palette.
const SCALE: [u8; 6] = [196, 208, 220, 190, 118, 46];

/// Draws the response colored by confidence, a chart with the threshold, and a line on the switch.
pub(super) fn draw(report: &Report, rule: Rule, color: bool) -> String {
    let mut out = String::new();
    for token in &report.tokens {
        out.push_str(&colored(&harmless(&token.text), token.confidence, color));
    }
    out.push_str("\n\n");
    let confidences: Vec<_> = report.tokens.iter().map(|token| token.confidence).collect();
    let switch = report.handover.as_ref().map(|handover| handover.at);
    let chart = Chart { threshold: rule.threshold(), switch, color };
    for (block, columns) in confidences.chunks(WIDTH).enumerate() {
        chart.block(&mut out, columns, block * WIDTH);
    }
    let (window, threshold) = (rule.window(), rule.threshold());
    let _ = match &report.handover {
        Some(switch) => writeln!(
            out,
            "switch at token {}: confidence {:.3} over {window} tokens reaches {threshold}",
            switch.at, switch.confidence
        ),
        None => writeln!(out, "no switch: no {window} tokens in a row reach a confidence of {threshold}"),
    };
    out
}

/// A chart of confidences, in blocks of columns.
struct Chart {
    threshold: f64,
    switch: Option<usize>,
    color: bool,
}

impl Chart {
    /// Draws a block of columns, the first of them for token `first`.
    fn block(&self, out: &mut String, columns: &[Option<f64>], first: usize) {
        let threshold_row = ((self.threshold * HEIGHT as f64) as usize).min(HEIGHT - 1);
        for row in (0..HEIGHT).rev() {
            let label = match row {
                _ if row == threshold_row => format!("{:>4.2}", self.threshold),
                0 => "0.00".into(),
                _ if row == HEIGHT - 1 => "1.00".into(),
                _ => "    ".into(),
            };
            let _ = write!(out, "{label} │");
            for &confidence in columns {
                let filled = (confidence.unwrap_or(0.0) * HEIGHT as f64 - row as f64).clamp(0.0, 1.0);
                let cell = match EIGHTHS[(filled * 8.0).round() as usize] {
                    ' ' if row == threshold_row => '┄',
                    ' ' if row == 0 && confidence.is_none() => '·',
                    cell => cell,
                };
                match cell {
                    ' ' | '┄' | '·' => out.push(cell),
                    _ => out.push_str(&colored(&cell.to_string(), confidence, self.color)),
                }
            }
            out.push('\n');
        }
        let _ = write!(out, "{first:>4} └");
        out.extend((first..first + columns.len()).map(|at| if self.switch == Some(at) { '▲' } else { '─' }));
        out.push_str("\n\n");
    }
}

/// Returns text in the color of a confidence.
fn colored(text: &str, confidence: Option<f64>, color: bool) -> String {
    match confidence {
        _ if !color => text.to_owned(),
        None => format!("\x1b[2m{text}\x1b[0m"),
        Some(confidence) => {
            let step = (confidence * (SCALE.len() - 1) as f64).round() as usize;
            format!("\x1b[38;5;{}m{text}\x1b[0m", SCALE[step.min(SCALE.len() - 1)])
        }
    }
}

/// Draws the response as a table, for files and pipes.
pub(super) fn table(report: &Report) -> String {
    let mut out = format!("{:>5}  {:>7}  {:>9}  {:>10}  token\n", "at", "id", "logprob", "confidence");
    let switch = report.handover.as_ref().map(|handover| handover.at);
    for (at, token) in report.tokens.iter().enumerate() {
        let confidence = token.confidence.map_or("-".into(), |confidence| format!("{confidence:.4}"));
        let mark = if switch == Some(at) { "  <- switch" } else { "" };
        let (id, logprob) = (token.id, token.logprob);
        let _ = writeln!(out, "{at:>5}  {id:>7}  {logprob:>9.4}  {confidence:>10}  {:?}{mark}", token.text);
    }
    if switch.is_none() {
        out.push_str("no switch\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::report::{ScoredToken, Switch};
    use super::*;

    fn report() -> Report {
        let confidences = [None, Some(0.0), Some(0.3), Some(0.55), Some(0.8), Some(1.0)];
        let tokens = confidences.into_iter().enumerate().map(|(i, confidence)| ScoredToken {
            id: i as u32,
            text: if i == 2 { "\x1b[2J".into() } else { format!(" t{i}") },
            logprob: -0.25 * i as f64,
            confidence,
        });
        Report { tokens: tokens.collect(), handover: Some(Switch { at: 4, confidence: 0.8 }) }
    }

    #[test]
    fn the_chart_shows_bars_threshold_and_switch() {
        insta::assert_snapshot!(draw(&report(), Rule::parse(2, 0.8).unwrap(), false));
    }

    #[test]
    fn the_table_is_plain() {
        insta::assert_snapshot!(table(&report()));
    }

    #[test]
    fn every_color_is_reset() {
        let text = draw(&report(), Rule::default(), true);
        assert_eq!(text.matches("\x1b[0m").count() * 2, text.matches('\x1b').count());
    }
}
