//! Results as markdown tables.

use std::fmt::Write as _;

use wsd_lab::stats::Estimate;

use super::{Answers, Results, SystemResults, TaskResults};
use crate::Task;

pub(super) fn tables(results: &Results) -> String {
    let mut text = results.tasks.iter().map(table).collect::<Vec<_>>().join("\n");
    text.push_str(
        "\nMetrics in percent with 95 % intervals (bootstrap over items, 2000 draws); a row with an error counts as \
         wrong. *By the draft*: share of the answers' tokens. *Switch*: median 0-based index of the token at which \
         the base took over, and the share of answers in which it did. *Cut*: share of answers that reached the \
         token limit. *Distinct-2*: distinct pairs of words by all. \
         *Self-BLEU*: of the answers to an item with several samples. *Time*: seconds for the same rows, relative to \
         the base alone, under the concurrency of the run.\n",
    );
    text
}

fn table(results: &TaskResults) -> String {
    let metrics: Vec<&str> =
        Task::find(&results.task).map_or(&[][..], |task| task.metrics).iter().map(|m| m.name).collect();
    let shown: Vec<&str> = metrics
        .into_iter()
        .filter(|metric| results.systems.iter().any(|system| system.metrics.contains_key(*metric)))
        .collect();
    let has_answers = results.systems.iter().any(|system| system.answers.is_some());
    let mut head = vec![results.task.as_str()];
    head.extend(&shown);
    head.extend(["n", "failed"]);
    if has_answers {
        head.extend(["tokens", "by the draft", "switch", "cut", "distinct-2", "self-BLEU", "time"]);
    }
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for system in &results.systems {
        let mut cells = vec![system.system.clone()];
        cells.extend(shown.iter().map(|metric| system.metrics.get(*metric).map_or("–".into(), percent)));
        cells.extend([system.n.to_string(), system.failed.to_string()]);
        if has_answers {
            cells.extend(answers(system));
        }
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn answers(system: &SystemResults) -> [String; 7] {
    let Some(answers) = &system.answers else { return std::array::from_fn(|_| "–".into()) };
    let by_draft = answers.by_author.get("draft").copied().unwrap_or(0.0);
    [
        format!("{:.0}", answers.tokens),
        format!("{:.0} %", 100.0 * by_draft),
        switch(answers),
        format!("{:.0} %", 100.0 * answers.cut),
        format!("{:.2}", answers.distinct[1]),
        answers.self_bleu.map_or("–".into(), |bleu| format!("{bleu:.2}")),
        answers.time_to_base.map_or("–".into(), |time| format!("{time:.2}")),
    ]
}

fn switch(answers: &Answers) -> String {
    if answers.no_switch.contains_key("no_rule") {
        return "–".into();
    }
    let at = answers.median_switch.map_or("never".into(), |at| format!("token {at:.0}"));
    format!("{at}, {:.0} %", 100.0 * answers.switched)
}

fn percent(share: &Estimate) -> String {
    format!("{:.1} [{:.1}, {:.1}]", 100.0 * share.value, 100.0 * share.low, 100.0 * share.high)
}
