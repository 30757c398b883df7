//! The ablation of window and threshold.

use serde::{Deserialize, Serialize};

use super::{DOWNSTREAM, HHH, Run, points};
use crate::eval::{Branch, EvalError, Grid};
use crate::plot::{Heat, Page};
use crate::stats::{mean, median};
use crate::world::{Item, Task};

/// A row of the ablation.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    item: Item,
    #[serde(default)]
    kept: Vec<usize>,
    #[serde(default)]
    branches: Vec<Branch>,
    #[serde(default)]
    drafted: usize,
}

/// What each window and threshold comes to: row by window, column by threshold. Shares are of 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    /// Tokens in the window.
    pub windows: Vec<usize>,
    /// The geometric means to reach.
    pub thresholds: Vec<f64>,
    /// The mean of helpful, harmless and honest.
    pub hhh: Vec<Vec<Option<f64>>>,
    /// The mean of facts and sums.
    pub downstream: Vec<Vec<Option<f64>>>,
    /// The median number of drafted tokens kept on the three HHH tasks.
    pub kept: Vec<Vec<Option<f64>>>,
    /// The share of HHH prompts on which the base took over before the draft's end.
    pub reached: Vec<Vec<Option<f64>>>,
}

impl Ablation {
    /// The ablation over all runs' rows, on the default grid.
    ///
    /// # Errors
    /// Those of the grid.
    pub fn of(runs: &[Run]) -> Result<Self, EvalError> {
        let Grid { windows, thresholds } = Grid::default();
        let columns = thresholds.len();
        let rows: Vec<&Row> = runs.iter().flat_map(|run| &run.ablation).collect();
        // An answer is graded once, however many cells share it.
        let graded: Vec<Vec<(usize, f64)>> = rows
            .iter()
            .map(|row| row.branches.iter().map(|branch| (branch.kept, points(&row.item, &branch.output))).collect())
            .collect();
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

    /// The ablation as heat maps, the paper's values framed.
    #[must_use]
    pub fn figure(&self) -> Page {
        let row = self.windows.iter().position(|&window| window == 6);
        let column = self.thresholds.iter().position(|&threshold| (threshold - 0.8).abs() < 1e-9);
        let heat = |title: &str, cells: &[Vec<Option<f64>>], scale: f64| Heat {
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
