//! Plots of a run's metrics: `curves.svg`, and TensorBoard's event file, made of `metrics.jsonl`.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};
use wsd_core::files::write_whole;
use wsd_lab::plot::{Lines, Page, Series};
use wsd_train::METRICS_FILE;
use wsd_train::events::{Scalar, event_file};

/// A title, a unit, and the measures to draw with their labels.
type Panel = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const PANELS: &[Panel] = &[
    ("Loss", "nats", &[("loss", "train"), ("eval_loss", "evaluation")]),
    ("Rewards", "beta times log ratio", &[("rewards/chosen", "chosen"), ("rewards/rejected", "rejected")]),
    ("Margin", "chosen less rejected", &[("rewards/margins", "train"), ("eval_rewards/margins", "evaluation")]),
    ("Accuracy", "share", &[("rewards/accuracies", "train"), ("eval_rewards/accuracies", "evaluation")]),
    ("Learning rate", "per step", &[("learning_rate", "")]),
    ("Gradient", "norm before clipping", &[("grad_norm", "")]),
];

/// Writes the plots of the run in a folder.
pub(super) fn draw(folder: &Path, title: &str) -> Result<()> {
    let text = fs_err::read_to_string(folder.join(METRICS_FILE))?;
    let rows: Vec<Map<String, Value>> = text.lines().filter_map(|row| serde_json::from_str(row).ok()).collect();
    write_whole(&folder.join("curves.svg"), page(&rows, title).svg().as_bytes())?;
    Ok(write_whole(&folder.join("events.out.tfevents.0.wsd"), &event_file(&scalars(&rows)))?)
}

fn page(rows: &[Map<String, Value>], title: &str) -> Page {
    let series = |(key, name): &(&str, &str)| {
        let point = |row: &Map<String, Value>| Some((row.get("step")?.as_f64()?, row.get(*key)?.as_f64()?));
        let series = Series::new(*name, rows.iter().filter_map(point));
        (!series.points.is_empty()).then_some(series)
    };
    let panel = |(title, unit, measures): &Panel| Lines {
        title: (*title).into(),
        x_label: "step".into(),
        y_label: (*unit).into(),
        series: measures.iter().filter_map(series).collect(),
        ..Lines::default()
    };
    let panels = PANELS.iter().map(panel).filter(|lines| !lines.series.is_empty());
    Page { title: title.into(), columns: 2, panels: panels.map(Into::into).collect(), ..Page::default() }
}

fn scalars(rows: &[Map<String, Value>]) -> Vec<Scalar> {
    let mut scalars = Vec::new();
    for row in rows {
        let [time, step] = ["time", "step"].map(|key| row.get(key).and_then(Value::as_f64).unwrap_or_default());
        let named = row.iter().filter(|(key, _)| !matches!(key.as_str(), "step" | "time"));
        scalars.extend(named.filter_map(|(key, value)| {
            let name = match key.strip_prefix("eval_") {
                Some(key) => format!("eval/{key}"),
                None => format!("train/{key}"),
            };
            Some(Scalar { time, step: step as u64, name, value: value.as_f64()? })
        }));
    }
    scalars
}
