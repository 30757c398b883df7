//! Every objective against PyTorch: the numbers were written by scripts/train_goldens.py, which
//! explains them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use wsd_core::Values;
use wsd_train::{Example, LossInput, Needs, OBJECTIVES, Objective, Sequence, Totals};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().map(|number| number.as_f64().unwrap()).collect()
}

fn example(golden: &Value) -> Example {
    let sequence = |ids: &Value| {
        let tokens = std::iter::once(0).chain(numbers(ids).into_iter().map(|id| id as u32)).collect();
        Sequence::targets_from(1, tokens)
    };
    Example {
        sequences: golden["targets"].as_array().unwrap().iter().map(sequence).collect(),
        reference: numbers(&golden["reference"]),
        labels: numbers(&golden["labels"]).into_iter().map(|label| label as f32).collect(),
        baseline: None,
        masked: Vec::new(),
    }
}

fn values(objective: &Objective, golden: &Value) -> Values {
    let mut values = Values::default();
    for (name, value) in golden.as_object().unwrap() {
        let setting = objective.settings.iter().find(|setting| setting.name == name).unwrap();
        values.set(setting, setting.from_json(value).unwrap()).unwrap();
    }
    values
}

/// Log-probabilities of rows of logits, in the precision of the trainer.
fn log_softmax(row: &[f64]) -> Vec<f32> {
    let sum = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    row.iter().map(|logit| (logit - sum) as f32).collect()
}

/// From the gradient with respect to what the loss was given to that with respect to the logits.
fn to_logits(row: &[f64], given: &[f32], target: usize) -> Vec<f64> {
    let total: f64 = given.iter().copied().map(f64::from).sum();
    let own = |at: usize| match given {
        [single] => {
            if at == target {
                f64::from(*single)
            } else {
                0.0
            }
        }
        rows => f64::from(rows[at]),
    };
    log_softmax(row).iter().enumerate().map(|(at, logprob)| own(at) - f64::from(logprob.exp()) * total).collect()
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/objective_goldens.json");
    let golden: Value = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    let mut seen = BTreeSet::from(["pretrain"]);
    for case in golden["cases"].as_array().unwrap() {
        let objective = Objective::find(case["objective"].as_str().unwrap()).unwrap();
        seen.insert(objective.name);
        let loss = (objective.make)(&values(objective, &case["settings"]));
        let goldens = case["examples"].as_array().unwrap();
        let examples: Vec<_> = goldens.iter().map(example).collect();
        let all: Vec<_> = examples.iter().collect();
        let totals = Totals { divergence: case["divergence"].as_f64().unwrap(), ..Totals::of(&all) };
        let (mut sum, mut weight) = (0.0, 0.0);
        for (example, golden) in examples.iter().zip(goldens) {
            let (logits, expected) = (numbers(&golden["logits"]), numbers(&golden["gradients"]));
            let targets: Vec<_> = example.sequences.iter().flat_map(|sequence| &sequence.tokens[1..]).collect();
            let vocab = logits.len() / targets.len();
            let rows = logits.chunks_exact(vocab);
            let width = if objective.needs.rows() { vocab } else { 1 };
            let logprobs: Vec<f32> = match objective.needs {
                Needs::Rewards => logits.iter().map(|reward| *reward as f32).collect(),
                needs if needs.rows() => rows.clone().flat_map(log_softmax).collect(),
                _ => rows.clone().zip(&targets).map(|(row, target)| log_softmax(row)[**target as usize]).collect(),
            };
            let reference: Vec<f32> = numbers(&golden["references"]).into_iter().map(|value| value as f32).collect();
            let input = LossInput { example, totals, width, logprobs: &logprobs, reference: &reference };
            let output = loss.compute(&input);
            sum += output.measures[0].sum;
            weight += output.measures[0].weight;
            let given = output.logprob_gradients.chunks_exact(width);
            let found: Vec<f64> = match objective.needs {
                Needs::Rewards => output.logprob_gradients.iter().copied().map(f64::from).collect(),
                _ => {
                    let each = rows.zip(given).zip(&targets);
                    each.flat_map(|((row, given), target)| to_logits(row, given, **target as usize)).collect()
                }
            };
            assert_eq!(found.len(), expected.len());
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let what = format!("{} {}: gradient {at}", objective.name, case["settings"]);
                assert!(
                    (found - expected).abs() < 1e-4 * expected.abs() + 1e-6,
                    "{what}: {found}, expected {expected}"
                );
            }
        }
        let (found, expected) = (sum / weight, case["loss"].as_f64().unwrap());
        let what = format!("{} {}", objective.name, case["settings"]);
        assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{what}: {found}, expected {expected}");
    }
    assert_eq!(seen, OBJECTIVES.iter().map(|objective| objective.name).collect(), "an objective has no golden");
}
