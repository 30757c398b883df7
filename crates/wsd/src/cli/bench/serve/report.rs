//! Figures of a run, and their medians over runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::sample::Sample;
use crate::cli::bench::table::{aligned, median};

/// Percentiles reported, as shares of the requests.
const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];

/// Figures by name. One that could not be measured is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Computes the figures of one run.
    pub(super) fn new(samples: &[Sample], seconds: f64, processor_seconds: Option<f64>) -> Self {
        let mut figures = Self::default();
        for sample in samples {
            *figures.0.entry(format!("status_{}", sample.status)).or_default() += 1.0;
        }
        let good: Vec<_> = samples.iter().filter(|sample| sample.status == 200).collect();
        let tokens = good.iter().map(|sample| sample.tokens).sum::<usize>() as f64;
        figures.set("seconds", seconds);
        figures.set("answers_per_second", good.len() as f64 / seconds);
        figures.set("tokens_per_second", tokens / seconds);
        if let Some(used) = processor_seconds.filter(|_| tokens > 0.0) {
            figures.set("processor_us_per_token", 1e6 * used / tokens);
        }
        // Time per token after the first one.
        let time_per_token = |sample: &&Sample| {
            let rest = sample.whole.checked_sub(sample.first_token?)?;
            (sample.tokens > 1).then(|| rest / (sample.tokens as u32 - 1))
        };
        figures.percentiles("first_token", good.iter().filter_map(|sample| sample.first_token).collect());
        figures.percentiles("token", good.iter().filter_map(time_per_token).collect());
        figures.percentiles("pause", good.iter().filter_map(|sample| sample.pause).collect());
        figures.percentiles("answer", good.iter().map(|sample| sample.whole).collect());
        let refused = samples.iter().filter(|sample| sample.status == 429);
        figures.percentiles("refusal", refused.map(|sample| sample.whole).collect());
        figures
    }

    /// The median of each figure, over the runs that have it.
    pub(super) fn median(runs: &[Self]) -> Self {
        let mut values = BTreeMap::<_, Vec<f64>>::new();
        for (name, value) in runs.iter().flat_map(|run| &run.0) {
            values.entry(name.clone()).or_default().push(*value);
        }
        Self(values.into_iter().map(|(name, values)| (name, median(values))).collect())
    }

    fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// Sets the percentiles of some times, by the nearest-rank method.
    fn percentiles(&mut self, name: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let Some(last) = times.len().checked_sub(1) else { return };
        for (percentile, share) in PERCENTILES {
            let index = ((times.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last);
            self.set(&format!("{name}_{percentile}_ms"), times[index].as_secs_f64() * 1e3);
        }
    }

    pub(super) fn json(&self, run: &str) -> Value {
        let mut object = json!({"run": run});
        for (name, value) in &self.0 {
            object[name] = json!((value * 1e4).round() / 1e4);
        }
        object
    }

    fn cell(&self, name: &str) -> String {
        self.0.get(name).map_or_else(
            || "-".into(),
            |value| if *value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") },
        )
    }

    /// A cell with the median and the 99th percentile.
    fn pair(&self, name: &str) -> String {
        format!("{} / {}", self.cell(&format!("{name}_p50_ms")), self.cell(&format!("{name}_p99_ms")))
    }
}

/// A table with a line for each run. Times are medians and 99th percentiles, in milliseconds.
pub(super) fn table(rows: &[(String, Figures)]) -> String {
    let head = [
        "run",
        "tokens/s",
        "cpu us/token",
        "first token",
        "token",
        "answer",
        "refusal",
        "answered",
        "refused",
        "other",
    ];
    let lines = rows.iter().map(|(name, figures)| {
        let count = |status: u16| figures.0.get(&format!("status_{status}")).copied().unwrap_or(0.0);
        let all: f64 = figures.0.iter().filter(|(name, _)| name.starts_with("status_")).map(|(_, count)| count).sum();
        let (good, refused) = (count(200), count(429));
        [
            name.clone(),
            figures.cell("tokens_per_second"),
            figures.cell("processor_us_per_token"),
            figures.pair("first_token"),
            figures.pair("token"),
            figures.pair("answer"),
            figures.pair("refusal"),
            good.to_string(),
            refused.to_string(),
            (all - good - refused).to_string(),
        ]
    });
    let mut text = aligned(std::iter::once(head.map(str::to_owned)).chain(lines));
    text.push_str("times: median / 99th percentile, ms\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(status: u16, millis: u64, tokens: usize) -> Sample {
        let time = Duration::from_millis;
        Sample { status, first_token: Some(time(10)), pause: None, whole: time(millis), tokens }
    }

    #[test]
    fn percentiles_and_rates_count_only_answers() {
        let samples: Vec<_> = (1..=100).map(|i| sample(200, 10 + i, 11)).chain([sample(429, 3, 0)]).collect();
        let figures = Figures::new(&samples, 2.0, Some(0.11));
        for (name, value) in [
            ("status_200", 100.0),
            ("status_429", 1.0),
            ("tokens_per_second", 550.0),
            ("processor_us_per_token", 100.0),
            ("answer_p50_ms", 60.0),
            ("answer_p99_ms", 109.0),
            ("answer_max_ms", 110.0),
            ("token_max_ms", 10.0),
            ("refusal_p99_ms", 3.0),
        ] {
            assert!((figures.0[name] - value).abs() < 1e-9, "{name}: {}", figures.0[name]);
        }
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let run = |value: f64| Figures::new(&[sample(200, value as u64, 2)], value, None);
        let median = Figures::median(&[run(4.0), run(1.0), run(9.0), run(2.0)]);
        assert_eq!((median.0["seconds"], median.0["status_200"]), (3.0, 1.0));
    }
}
