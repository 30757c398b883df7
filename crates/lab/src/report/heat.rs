//! Results of the ablation of window and threshold.

use serde::{Deserialize, Serialize};

use super::{DOWNSTREAM, HHH, Run, points};
use crate::eval::{EvalError, Grid};
use crate::plot::{HeatMap, Page};
use crate::stats::{mean, median};
use crate::three_pass::Continuation;
use crate::world::{Item, Task};

/// A row of the ablation file.
#[derive(Clone, Debug, Deserialize)]
pub struct AblationRow {
    #[serde(flatten)]
    item: Item,
    #[serde(default)]
    kept: Vec<usize>,
    #[serde(default, rename = "branches")]
    continuations: Vec<Continuation>,
    #[serde(default)]
    drafted: usize,
}

impl AblationRow {
    /// Score of each continuation, by the number of drafted tokens kept.
    fn graded(&self) -> Vec<(usize, f64)> {
        let graded = |answer: &Continuation| (answer.kept, points(&self.item, &answer.output));
        self.continuations.iter().map(graded).collect()
    }
}

/// Results of every window (row) and threshold (column). Shares are in `[0, 1]`; `None` marks a
/// cell without items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    /// Window lengths, in tokens.
    pub windows: Vec<usize>,
    /// Thresholds of the geometric mean.
    pub thresholds: Vec<f64>,
    /// Mean score of the helpful, harmless and honest tasks.
    pub hhh: Vec<Vec<Option<f64>>>,
    /// Mean score of the facts and sums tasks.
    pub downstream: Vec<Vec<Option<f64>>>,
    /// Median number of drafted tokens kept on the HHH tasks.
    pub kept: Vec<Vec<Option<f64>>>,
    /// Share of HHH prompts on which the base took over before the draft ended.
    pub reached: Vec<Vec<Option<f64>>>,
}

impl Ablation {
    /// Computes the ablation over the rows of all runs, on the default grid.
    ///
    /// # Errors
    /// [`EvalError::Engine`] if a rule of the grid is invalid.
    pub fn of(runs: &[Run]) -> Result<Self, EvalError> {
        let Grid { windows, thresholds } = Grid::default();
        let columns = thresholds.len();
        let rows: Vec<&AblationRow> = runs.iter().flat_map(|run| &run.ablation).collect();
        // Each continuation is graded once, although several cells share it.
        let graded: Vec<Vec<(usize, f64)>> = rows.iter().map(|row| row.graded()).collect();
        let passes = |task: Task, cell: usize| {
            let of_task = rows.iter().zip(&graded).filter(|(row, _)| row.item.task == task);
            let values = of_task.map(|(row, graded)| {
                let kept = row.kept.get(cell);
                graded.iter().find(|(at, _)| Some(at) == kept).map_or(0.0, |(_, points)| *points)
            });
            mean(&values.collect::<Vec<_>>())
        };
        let share =
            |tasks: &[Task], cell| mean(&tasks.iter().filter_map(|&task| passes(task, cell)).collect::<Vec<_>>());
        let hhh_rows = || rows.iter().filter(|row| HHH.contains(&row.item.task));
        let kept = |cell: usize| {
            median(&hhh_rows().filter_map(|row| row.kept.get(cell).map(|&kept| kept as f64)).collect::<Vec<_>>())
        };
        let reached = |cell: usize| {
            let before = hhh_rows().map(|row| row.kept.get(cell).is_some_and(|&kept| kept < row.drafted));
            mean(&before.map(|before| f64::from(u8::from(before))).collect::<Vec<_>>())
        };
        let grid = |of: &dyn Fn(usize) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
            (0..windows.len()).map(|row| (0..columns).map(|column| of(row * columns + column)).collect()).collect()
        };
        Ok(Self {
            hhh: grid(&|cell| share(&HHH, cell)),
            downstream: grid(&|cell| share(&DOWNSTREAM, cell)),
            kept: grid(&kept),
            reached: grid(&reached),
            windows,
            thresholds,
        })
    }

    /// Renders the ablation as heat maps, with the paper's setting framed.
    #[must_use]
    pub fn figure(&self) -> Page {
        let row = self.windows.iter().position(|&window| window == 6);
        let column = self.thresholds.iter().position(|&threshold| (threshold - 0.8).abs() < 1e-9);
        let heat = |title: &str, cells: &[Vec<Option<f64>>], scale: f64| HeatMap {
            title: title.into(),
            x_label: "threshold".into(),
            y_label: "window, tokens".into(),
            columns: self.thresholds.iter().map(|threshold| format!("{threshold:.2}")).collect(),
            rows: self.windows.iter().map(ToString::to_string).collect(),
            cells: cells.iter().map(|row| row.iter().map(|value| value.map(|value| scale * value)).collect()).collect(),
            range: None,
            decimals: 0,
            mark: row.zip(column),
        };
        let panels = vec![
            heat("HHH, %", &self.hhh, 100.0).into(),
            heat("downstream, %", &self.downstream, 100.0).into(),
            heat("drafted tokens kept, median", &self.kept, 1.0).into(),
            heat("base took over, % of prompts", &self.reached, 100.0).into(),
        ];
        let note = "framed: the paper's window of 6 and threshold of 0.8".into();
        Page { title: "Window and threshold".into(), note, columns: 2, panels }
    }
}
