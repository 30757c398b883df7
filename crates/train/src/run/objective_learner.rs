//! A model that learns by objectives.

use serde_json::{Map, Value, json};

use super::training_loop::{Learner, Step, broken, diverged};
use crate::error::Result;
use crate::metrics::Means;
use crate::order::Order;
use crate::state::State;
use crate::task::Task;
use crate::trainer::{Gradient, Term, Trainer};

/// A model with the examples of its objectives.
pub(super) struct ObjectiveLearner<'a> {
    task: &'a Task<'a>,
    trainer: &'a mut Trainer,
    total_steps: usize,
    /// The shuffled order of examples, one per objective.
    orders: Vec<Order>,
    /// The running averages of each objective since the last logged row.
    means: Vec<Means>,
    gradient: Gradient,
}

impl<'a> ObjectiveLearner<'a> {
    pub(super) fn new(task: &'a Task<'a>, trainer: &'a mut Trainer) -> Self {
        let order = |(index, term): (usize, &Term)| Order::new(task.seed ^ (index as u64) << 32, term.examples.len());
        Self {
            total_steps: task.schedule().total_steps,
            orders: task.terms.iter().enumerate().map(order).collect(),
            means: vec![Means::default(); task.terms.len()],
            gradient: Gradient::default(),
            task,
            trainer,
        }
    }

    /// The share of the steps that is done after `more` steps.
    fn progress(&self, more: usize) -> f64 {
        (self.trainer.state.step + more) as f64 / self.total_steps.max(1) as f64
    }
}

impl Learner for ObjectiveLearner<'_> {
    fn state(&mut self) -> &mut State {
        &mut self.trainer.state
    }

    fn examples(&self) -> usize {
        self.task.terms.first().map_or(0, |term| term.examples.len())
    }

    fn has_evaluation(&self) -> bool {
        self.task.terms.iter().any(|term| !term.evaluation.is_empty())
    }

    /// Accumulates the gradients of the next step's examples over all objectives, then updates the
    /// parameters.
    fn step(&mut self, learning_rate: f64) -> Result<Step> {
        let Task { steps, folder, .. } = self.task;
        let (step, progress) = (self.trainer.state.step, self.progress(1));
        let (per_step, mut tokens) = (steps.examples_per_step(), 0);
        for (index, term) in self.task.terms.iter().enumerate() {
            let places = self.orders[index].take(step * per_step..(step + 1) * per_step);
            let examples: Vec<_> = places.iter().map(|&place| &term.examples[place]).collect();
            let (weighted, gradient) = (term.at(progress), Some(&mut self.gradient));
            let outputs = self.trainer.compute_losses(weighted, &examples, steps.batch_size, gradient)?;
            if let Some((value, place)) = broken(&outputs, &places) {
                let what = format!("the loss of {} on its example {}", term.objective.name, place + 1);
                return Err(diverged(folder, step + 1, what, value));
            }
            self.means[index].add(&outputs);
            tokens += examples.iter().map(|example| example.tokens()).sum::<usize>();
        }
        let updated = self.trainer.update(&mut self.gradient, steps, learning_rate);
        let grad_norm = updated.map_err(|what| diverged(folder, step + 1, what, f64::NAN))?;
        Ok(Step { grad_norm, tokens })
    }

    fn means(&mut self) -> Map<String, Value> {
        let row = summary((&self.task.terms, self.progress(0)), &self.means, "");
        self.means.fill(Means::default());
        row
    }

    fn evaluate(&mut self) -> Result<(Map<String, Value>, f64)> {
        let Task { terms, steps, .. } = self.task;
        let (progress, mut means) = (self.progress(0), vec![Means::default(); terms.len()]);
        for (term, means) in terms.iter().zip(&mut means) {
            let examples: Vec<_> = term.evaluation.iter().collect();
            means.add(&self.trainer.compute_losses(term.at(progress), &examples, steps.batch_size, None)?);
        }
        let loss = total_loss(terms, progress, &means).unwrap_or(f64::INFINITY);
        Ok((summary((terms, progress), &means, "eval_"), loss))
    }
}

/// Merges the metrics of all objectives. With more than one, `loss` is the weighted sum of their
/// losses, and each objective's own metrics are named `objective/metric`; repeated objectives are
/// numbered from 2.
fn summary((terms, progress): (&[Term], f64), means: &[Means], prefix: &str) -> Map<String, Value> {
    if let [means] = means {
        return means.values(prefix);
    }
    let mut row = Map::new();
    row.insert(format!("{prefix}loss"), json!(total_loss(terms, progress, means)));
    for (index, (term, means)) in terms.iter().zip(means).enumerate() {
        let name = term.objective.name;
        let same = terms[..index].iter().filter(|other| other.objective.name == name).count();
        let number = if same > 0 { (same + 1).to_string() } else { String::new() };
        row.append(&mut means.values(&format!("{prefix}{name}{number}/")));
    }
    row
}

/// The weighted sum of the losses of all terms that have one.
fn total_loss(terms: &[Term], progress: f64, means: &[Means]) -> Option<f64> {
    let losses = terms.iter().zip(means);
    let losses = losses.filter_map(|(term, means)| Some(means.get("loss")? * term.weight.at(progress)));
    losses.reduce(|sum, loss| sum + loss)
}
