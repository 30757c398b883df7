//! Counters and histograms in Prometheus' text format, named as vLLM names the same quantities.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// A quantity that is counted or measured.
pub(super) struct Metric {
    name: &'static str,
    help: &'static str,
    /// Upper bounds of the histogram's buckets; a counter has none.
    bounds: &'static [f64],
}

const SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
const TOKENS: &[f64] = &[0.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
const SHARES: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];

// The bounds that OpenTelemetry's conventions for generative AI prescribe.
const MANY_TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const DOUBLING_SECONDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const TOKEN_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $id:ident = $name:literal $bounds:expr;)*) => {
        $(pub(super) static $id: Metric =
            Metric { name: $name, help: concat!($($help),+).trim_ascii_start(), bounds: $bounds };)*
        static ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    /// HTTP requests by route and status.
    HTTP = "wsd_http_requests_total" &[];
    /// Answers that were completed.
    FINISHED = "vllm:request_success_total" &[];
    /// Answers that failed, or whose client left.
    BROKEN = "wsd_requests_broken_total" &[];
    /// Requests refused because the queue was full.
    REJECTED = "wsd_requests_rejected_total" &[];
    /// Tokens in prompts.
    PROMPT_TOKENS = "vllm:prompt_tokens_total" &[];
    /// Tokens in answers.
    GENERATION_TOKENS = "vllm:generation_tokens_total" &[];
    /// Tokens in answers by author.
    AUTHOR_TOKENS = "wsd_tokens_total" &[];
    /// Answers of two models by the end of the draft: the window passed, or not.
    SWITCHES = "wsd_switches_total" &[];
    /// Token at which the base took over.
    SWITCH_POSITION = "wsd_switch_position" TOKENS;
    /// The window's geometric mean at the switch.
    SWITCH_CONFIDENCE = "wsd_switch_confidence" SHARES;
    /// The window's geometric mean at each drafted token.
    WINDOW_CONFIDENCE = "wsd_window_confidence" SHARES;
    /// Time from the request to its slot.
    QUEUE_TIME = "vllm:request_queue_time_seconds" SECONDS;
    /// Time from the request to the first token.
    FIRST_TOKEN = "vllm:time_to_first_token_seconds" SECONDS;
    /// Time between two tokens.
    TOKEN_TIME = "vllm:inter_token_latency_seconds" SECONDS;
    /// Time from the request to its end.
    REQUEST_TIME = "vllm:e2e_request_latency_seconds" SECONDS;
    /// Tokens in prompts that were read from the prefix cache.
    CACHED_TOKENS = "wsd_cached_tokens_total" &[];
    /// Tokens of a prompt or an answer (gen_ai.client.token.usage).
    GEN_AI_TOKENS = "gen_ai_client_token_usage" MANY_TOKENS;
    /// Time from the request to its end (gen_ai.server.request.duration).
    GEN_AI_DURATION = "gen_ai_server_request_duration_seconds" DOUBLING_SECONDS;
    /// Time from the request to the first token (gen_ai.server.time_to_first_token).
    GEN_AI_FIRST = "gen_ai_server_time_to_first_token_seconds" FIRST_SECONDS;
    /// Mean time between two tokens of an answer (gen_ai.server.time_per_output_token).
    GEN_AI_TOKEN_TIME = "gen_ai_server_time_per_output_token_seconds" TOKEN_SECONDS;
}

/// The values of one metric with one set of labels.
#[derive(Default)]
struct Series {
    /// Values in each bucket; the last counts those above all bounds.
    buckets: Vec<u64>,
    /// The sum of all values; the count, for a counter.
    sum: f64,
}

/// A quantity that is read at the time of the request.
pub(super) struct Gauge {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: String,
    pub(super) value: usize,
}

/// All series so far, by metric and labels.
#[derive(Default)]
pub(super) struct Metrics(Mutex<BTreeMap<(&'static str, Labels), Series>>);

/// Labels in Prometheus' notation: `by="draft"`.
pub(super) type Labels = Cow<'static, str>;

impl Metrics {
    fn change(&self, metric: &Metric, labels: Labels, change: impl FnOnce(&mut Series)) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(series.entry((metric.name, labels)).or_default());
    }

    /// Adds to a counter.
    pub(super) fn add(&self, metric: &Metric, labels: impl Into<Labels>, count: usize) {
        self.change(metric, labels.into(), |series| series.sum += count as f64);
    }

    /// Records a measured value.
    pub(super) fn observe(&self, metric: &Metric, value: f64) {
        self.observe_with(metric, Labels::default(), value);
    }

    /// Records a measured value in the series with these labels.
    pub(super) fn observe_with(&self, metric: &Metric, labels: impl Into<Labels>, value: f64) {
        self.change(metric, labels.into(), |series| {
            series.buckets.resize(metric.bounds.len() + 1, 0);
            series.buckets[metric.bounds.partition_point(|&bound| bound < value)] += 1;
            series.sum += value;
        });
    }

    /// Writes every series, and `gauges` after them. Gauges of one name must be adjacent.
    pub(super) fn render(&self, gauges: &[Gauge]) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a string cannot fail.
        for metric in ALL {
            let kind = if metric.bounds.is_empty() { "counter" } else { "histogram" };
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {0} {kind}", metric.name, metric.help);
            for ((_, labels), series) in all.iter().filter(|((name, _), _)| *name == metric.name) {
                series.render(metric, labels, &mut text);
            }
        }
        let mut last = "";
        for Gauge { name, help, labels, value } in gauges {
            if *name != last {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            }
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
            last = name;
        }
        text
    }
}

impl Series {
    fn render(&self, metric: &Metric, labels: &str, text: &mut String) {
        let name = metric.name;
        if metric.bounds.is_empty() {
            let _ = writeln!(text, "{name}{{{labels}}} {}", self.sum);
            return;
        }
        let (before, around) = match labels {
            "" => (String::new(), String::new()),
            _ => (format!("{labels},"), format!("{{{labels}}}")),
        };
        let mut count = 0;
        for (bound, more) in metric.bounds.iter().map(f64::to_string).chain(["+Inf".into()]).zip(&self.buckets) {
            count += more;
            let _ = writeln!(text, "{name}_bucket{{{before}le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_sum{around} {}\n{name}_count{around} {count}", self.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let metrics = Metrics::default();
        metrics.add(&AUTHOR_TOKENS, "by=\"draft\"", 2);
        metrics.add(&AUTHOR_TOKENS, "by=\"draft\"", 3);
        for value in [0.8, 0.81, 1.0] {
            metrics.observe(&SWITCH_CONFIDENCE, value);
        }
        metrics.observe_with(&GEN_AI_TOKENS, "gen_ai_token_type=\"input\"", 12.0);
        let gauge = Gauge { name: "wsd_slots", help: "Slots.", labels: "role=\"base\"".into(), value: 4 };
        let text = metrics.render(&[gauge]);
        for line in [
            "# TYPE wsd_tokens_total counter",
            "wsd_tokens_total{by=\"draft\"} 5",
            "wsd_switch_confidence_bucket{le=\"0.8\"} 1",
            "wsd_switch_confidence_bucket{le=\"0.9\"} 2",
            "wsd_switch_confidence_bucket{le=\"+Inf\"} 3",
            "wsd_switch_confidence_count 3",
            "gen_ai_client_token_usage_bucket{gen_ai_token_type=\"input\",le=\"4\"} 0",
            "gen_ai_client_token_usage_bucket{gen_ai_token_type=\"input\",le=\"16\"} 1",
            "gen_ai_client_token_usage_sum{gen_ai_token_type=\"input\"} 12",
            "wsd_slots{role=\"base\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
