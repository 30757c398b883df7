//! The trainee on the CPU against differences of its own loss, for every architecture.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod models;

use wsd_nn::arch;
use wsd_train::{
    Example, Graded, Layout, Lora, Native, NativeOptions, Objective, Preference, Sequence, Totals, Trainee, Tuning,
};

fn example(tokens: &[u32]) -> Example {
    let middle = tokens.len() / 2;
    let learned = vec![1..middle, middle + 1..tokens.len()];
    Example::of(Sequence { tokens: tokens.to_vec(), learned })
}

fn native(plan: &arch::Blueprint, threads: usize, recompute: bool) -> Native {
    Native::new(plan, &NativeOptions { threads, max_len: 512, recompute, trained: &|_| true }).unwrap()
}

fn pass(model: &mut Native, weights: &[f32], examples: &[Example], gradient: Option<&mut [f32]>) -> f64 {
    let examples: Vec<_> = examples.iter().collect();
    let totals = Totals::of(&examples);
    let objective = Objective::find("sft").unwrap();
    let grade =
        |example: &Example, logprobs: &[&[f32]]| objective.grade(&Preference::default(), totals, example, logprobs);
    let graded: Vec<Graded> = model.pass(weights, &examples, &grade, gradient).unwrap();
    graded.iter().map(|graded| graded.measures[0].sum).sum::<f64>() / totals.targets
}

#[test]
fn gradients_are_differences_of_the_loss() {
    for case in models::all() {
        let plan = arch::blueprint(&case.checkpoint.config).unwrap();
        let layout = Layout::new(&plan);
        let weights = layout.read(&case.checkpoint).unwrap();
        let examples: Vec<_> = case.sequences.iter().map(|tokens| example(tokens)).collect();
        let examples: Vec<_> = examples.into_iter().filter(|example| example.tokens() > 3).collect();
        let mut model = native(&plan, 2, false);
        let mut gradient = vec![0.0; layout.len()];
        pass(&mut model, &weights, &examples, Some(&mut gradient));
        let mut again = vec![0.0; layout.len()];
        pass(&mut native(&plan, 2, true), &weights, &examples, Some(&mut again));
        assert!(gradient == again, "{}: computing layers anew changes the gradient", case.name);
        let mut worst = 0.0f64;
        for place in layout.places() {
            let part = &gradient[place.range.clone()];
            let length = part.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            assert!(length > 0.0, "{}: {} has no gradient", case.name, place.name);
            // Along the gradient itself the loss changes fastest.
            let nudge = 2e-3 / length;
            let moved = |sign: f64| {
                let mut moved = weights.clone();
                let values = moved[place.range.clone()].iter_mut().zip(part);
                values.for_each(|(weight, slope)| *weight += (sign * nudge * f64::from(*slope)) as f32);
                moved
            };
            let loss = |model: &mut Native, weights: &[f32]| pass(model, weights, &examples, None);
            let difference = loss(&mut model, &moved(1.0)) - loss(&mut model, &moved(-1.0));
            let slope = difference / (2.0 * nudge) / (length * length);
            let noise = 3e-6 / (nudge * length * length);
            let error = (slope - 1.0).abs();
            if noise < 0.02 {
                worst = worst.max(error);
                assert!(error < 0.02, "{}: {}: {slope} of the gradient {length}", case.name, place.name);
            }
        }
        println!("{}: within {worst:.1e}", case.name);
    }
}

/// After a first step: before it one half of each adapter is zero, and with it the gradient of the other.
#[test]
fn every_adapter_has_a_gradient() {
    for case in models::all() {
        let plan = arch::blueprint(&case.checkpoint.config).unwrap();
        let layout = Layout::new(&plan);
        let weights = layout.read(&case.checkpoint).unwrap();
        let names =
            ["q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"];
        let lora = Lora { r: 2, lora_alpha: 4.0, target_modules: names.map(str::to_owned).to_vec() };
        let (mut tuning, mut learnt, learning) = Tuning::new(&layout, weights.clone(), Some(&lora), 1).unwrap();
        assert!(tuning.weights(&learnt) == weights, "{}: adapters change the model before training", case.name);
        learnt.iter_mut().enumerate().for_each(|(index, value)| *value += (index as f32 * 0.7).sin() * 0.05);

        let examples: Vec<_> = case.sequences.iter().map(|tokens| example(tokens)).collect();
        let examples: Vec<_> = examples.into_iter().filter(|example| example.tokens() > 3).collect();
        let changes = |name: &str| tuning.changes(name);
        let options = NativeOptions { threads: 2, max_len: 512, recompute: false, trained: &changes };
        let mut model = Native::new(&plan, &options).unwrap();
        let mut whole = vec![0.0; layout.len()];
        pass(&mut model, tuning.weights(&learnt), &examples, Some(&mut whole));
        let gradient = tuning.gradient(&learnt, &whole).into_owned();
        for place in learning.places() {
            let part = &gradient[place.range.clone()];
            let square = part.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            assert!(square > 0.0, "{}: {} has no gradient", case.name, place.name);
            let nudge = 2e-3 / square.sqrt();
            let mut loss = |sign: f64| {
                let mut moved = learnt.clone();
                let values = moved[place.range.clone()].iter_mut().zip(part);
                values.for_each(|(value, slope)| *value += (sign * nudge * f64::from(*slope)) as f32);
                pass(&mut model, tuning.weights(&moved), &examples, None)
            };
            let slope = (loss(1.0) - loss(-1.0)) / (2.0 * nudge) / square;
            let noise = 3e-6 / (nudge * square);
            assert!((slope - 1.0).abs() < 0.02 + noise, "{}: {}: {slope}", case.name, place.name);
        }
    }
}
