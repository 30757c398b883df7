//! The cells of a sweep.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use wsd_core::{Rule, repeats};
use wsd_lab::eval::Grid;
use wsd_lab::plot::{HeatMap, Page};
use wsd_lab::stats::{mean, median};

use super::Draft;
use crate::EvalError;

/// One rule over all drafts. Shares are in `[0, 1]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Tokens in the window.
    pub window: usize,
    /// Threshold of the geometric mean.
    pub threshold: f64,
    /// Share of the drafts in which the base takes over.
    pub switched: f64,
    /// Median 0-based index of the token at which it does.
    pub median_switch: Option<f64>,
    /// Mean number of drafted tokens that are kept.
    pub kept: f64,
    /// Mean share of the draft's tokens that are kept.
    pub kept_share: f64,
    /// Share of the switches whose window repeats what stands just before.
    pub repeated: f64,
    /// Mean score of the answers on the task's first metric, where there is one.
    pub score: Option<f64>,
}

/// A grid of rules over all drafts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Number of drafts.
    pub drafts: usize,
    /// Number of prompts that failed; they are left out.
    pub failed: usize,
    /// Window lengths, in tokens.
    pub windows: Vec<usize>,
    /// Thresholds.
    pub thresholds: Vec<f64>,
    /// Cells in row-major order: window by window.
    pub cells: Vec<Cell>,
}

impl Sweep {
    /// Computes every cell. `points` grades the answer to a prompt by its index, where answers were
    /// written.
    ///
    /// # Errors
    /// [`EvalError::Engine`] for a window or threshold out of range.
    pub fn of(drafts: &[Option<Draft>], grid: &Grid, points: impl Fn(usize, &str) -> f64) -> Result<Self, EvalError> {
        let cells = grid.rules()?.into_iter().map(|rule| Cell::of(drafts, rule, &points)).collect();
        let failed = drafts.iter().filter(|draft| draft.is_none()).count();
        let (windows, thresholds) = (grid.windows.clone(), grid.thresholds.clone());
        Ok(Self { drafts: drafts.len() - failed, failed, windows, thresholds, cells })
    }

    /// Formats the share of switches and the median switch as a markdown table, window by window.
    #[must_use]
    pub fn markdown(&self) -> String {
        let has_score = self.cells.iter().any(|cell| cell.score.is_some());
        let heads = self.thresholds.iter().map(|threshold| format!(" {threshold} |"));
        let mut text =
            format!("| window |{}\n|---|{}\n", heads.collect::<String>(), "---|".repeat(self.thresholds.len()));
        for (row, window) in self.cells.chunks(self.thresholds.len()).zip(&self.windows) {
            let _ = write!(text, "| {window} |");
            for cell in row {
                let at = cell.median_switch.map_or("–".into(), |at| format!("{at:.0}"));
                let score = cell.score.map_or(String::new(), |score| format!(", {:.1}", 100.0 * score));
                let _ = write!(text, " {:.0} %, {at}{score} |", 100.0 * cell.switched);
            }
            text.push('\n');
        }
        let _ = write!(
            text,
            "\n{} prompts. Columns are thresholds. A cell has the share of drafts in which the base takes over, and \
             the median 0-based index of the token at which it does{}.\n",
            self.drafts,
            if has_score { ", and the score of the answers in percent" } else { "" }
        );
        text
    }

    /// Draws heat maps of the switches, of the kept share and, where there is one, of the score.
    #[must_use]
    pub fn figure(&self) -> Page {
        let map = |title: &str, decimals, of: &dyn Fn(&Cell) -> Option<f64>| HeatMap {
            title: title.into(),
            x_label: "threshold".into(),
            y_label: "window".into(),
            columns: self.thresholds.iter().map(ToString::to_string).collect(),
            rows: self.windows.iter().map(ToString::to_string).collect(),
            cells: self.cells.chunks(self.thresholds.len()).map(|row| row.iter().map(of).collect()).collect(),
            decimals,
            ..HeatMap::default()
        };
        let mut panels = vec![
            map("base takes over, %", 0, &|cell| Some(100.0 * cell.switched)).into(),
            map("median switch, token", 0, &|cell| cell.median_switch).into(),
            map("draft kept, %", 0, &|cell| Some(100.0 * cell.kept_share)).into(),
        ];
        if self.cells.iter().any(|cell| cell.score.is_some()) {
            panels.push(map("score, %", 0, &|cell| cell.score.map(|score| 100.0 * score)).into());
        }
        let note = format!("{} prompts, each drafted and scored once", self.drafts);
        Page { title: "Window and threshold".into(), note, columns: 2, panels }
    }
}

impl Cell {
    fn of(drafts: &[Option<Draft>], rule: Rule, points: &impl Fn(usize, &str) -> f64) -> Self {
        let drafts: Vec<_> =
            drafts.iter().enumerate().filter_map(|(row, draft)| Some((row, draft.as_ref()?))).collect();
        let switches: Vec<_> = drafts.iter().filter_map(|(_, draft)| Some((draft, draft.switch(rule)?))).collect();
        let at: Vec<f64> = switches.iter().map(|(_, at)| *at as f64).collect();
        let repeated = switches.iter().filter(|(draft, at)| repeats(&draft.tokens[..=*at], rule.window())).count();
        let kept: Vec<f64> = drafts.iter().map(|(_, draft)| draft.kept(rule) as f64).collect();
        let written = drafts.iter().map(|(_, draft)| draft.tokens.len().max(1) as f64);
        let shares: Vec<f64> = kept.iter().zip(written).map(|(kept, written)| kept / written).collect();
        let answers = drafts.iter().filter_map(|(row, draft)| {
            let kept = draft.kept(rule);
            let answer = draft.continuations.iter().find(|answer| answer.kept == kept)?;
            Some(points(*row, &answer.output))
        });
        Self {
            window: rule.window(),
            threshold: rule.threshold(),
            switched: switches.len() as f64 / drafts.len().max(1) as f64,
            median_switch: median(&at),
            kept: mean(&kept).unwrap_or(0.0),
            kept_share: mean(&shares).unwrap_or(0.0),
            repeated: repeated as f64 / switches.len().max(1) as f64,
            score: mean(&answers.collect::<Vec<_>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_lab::three_pass::Continuation;

    #[test]
    fn cells_follow_from_the_log_probabilities() {
        let draft = |p: &[f64], tokens: &[u32]| Draft {
            tokens: tokens.to_vec(),
            logprobs: p.iter().map(|p| p.ln()).collect(),
            continuations: vec![
                Continuation { kept: 3, output: "good".into() },
                Continuation { kept: 4, output: "bad".into() },
            ],
            ..Draft::default()
        };
        let drafts =
            [Some(draft(&[0.1, 0.9, 0.9, 0.9], &[5, 6, 7, 8])), None, Some(draft(&[0.1, 0.9, 0.9], &[4, 1, 1, 1]))];
        let grid = Grid { windows: vec![2], thresholds: vec![0.8, 0.95] };
        let sweep = Sweep::of(&drafts, &grid, |_, text| f64::from(u8::from(text == "good"))).unwrap();
        let [first, second] = &sweep.cells[..] else { panic!("two cells") };
        assert_eq!((sweep.drafts, sweep.failed), (2, 1));
        assert_eq!((first.switched, first.median_switch, first.kept), (1.0, Some(2.5), 3.5));
        assert_eq!((first.repeated, first.score), (0.5, Some(0.5)));
        assert_eq!((second.switched, second.kept_share, second.score), (0.0, 1.0, Some(0.0)));
        assert!(sweep.markdown().contains("| 2 | 100 %, 2, 50.0 | 0 %, –, 0.0 |"), "{}", sweep.markdown());
        assert!(sweep.figure().svg().contains("base takes over"));
    }
}
