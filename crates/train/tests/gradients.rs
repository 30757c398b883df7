//! Gradients of the trained model against differences of its own loss, for every architecture.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "other tests use the rest")]
mod models;

use wsd_core::Values;
use wsd_nn::Checkpoint;
use wsd_nn::arch::{self, Blueprint, Experts};
use wsd_nn::kernels::dense::Precision;
use wsd_train::compress::{CompressOptions, FACTORIZATIONS, Size, Usage, compress};
use wsd_train::{
    ADAPTERS, AdapterEntry, Example, Layout, Loss, ModelOptions, Needs, OBJECTIVES, Objective, Pass, REWARD, Sequence,
    Totals, TrainableModel, Trained,
};

/// An example whose targets are all tokens but the first and the middle one; `None` for a short
/// sequence.
fn example(tokens: &[u32]) -> Option<Example> {
    let middle = tokens.len() / 2;
    let target_ranges = vec![1..middle, middle + 1..tokens.len()];
    (tokens.len() > 3).then(|| Example::of(Sequence { tokens: tokens.to_vec(), target_ranges }))
}

fn trainable(blueprint: &Blueprint, recompute: bool) -> TrainableModel {
    let max_len = blueprint.max_len.min(512);
    let trained = &|_: &str| Trained::Whole;
    let options = ModelOptions { threads: 2, max_len, recompute, trained, ..ModelOptions::default() };
    TrainableModel::try_new(blueprint, &options).unwrap()
}

/// The blueprint of a checkpoint, by which each token passes all experts: the choice of some is no
/// continuous function.
fn smooth(checkpoint: &Checkpoint) -> Blueprint {
    let blueprint = arch::blueprint(&checkpoint.config).unwrap();
    let experts = blueprint.experts.map(|experts| Experts { used: experts.count, ..experts });
    Blueprint { experts, ..blueprint }
}

/// A loss over examples, as a function of the weights.
struct Case<'a> {
    loss: Box<dyn Loss>,
    needs: Needs,
    examples: Vec<&'a Example>,
    reference: &'a [f32],
}

impl<'a> Case<'a> {
    fn new(objective: &Objective, examples: &'a [Example], reference: &'a [f32]) -> Self {
        let loss = (objective.make)(&Values::default());
        Self { loss, needs: objective.needs, examples: examples.iter().collect(), reference }
    }

    fn pass(&self, model: &mut TrainableModel, weights: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        self.pass_with(model, weights, &[], gradient)
    }

    fn pass_with(
        &self,
        model: &mut TrainableModel,
        weights: &[f32],
        parameters: &[f32],
        gradient: Option<&mut [f32]>,
    ) -> f64 {
        let (loss, needs, reference) = (&*self.loss, self.needs, self.reference);
        let (examples, totals) = (&self.examples, Totals::of(&self.examples));
        let pass = Pass { weights, parameters, reference, examples, totals, loss, needs, weight: 1.0 };
        let outputs = model.pass(&pass, gradient).unwrap();
        outputs.iter().map(|output| output.measures[0].sum).sum::<f64>() / totals.targets
    }
}

/// The largest relative error of the derivative along the gradient itself, per tensor, of the
/// tensors whose gradient stands out from rounding; the loss changes fastest in this direction.
fn worst_error(name: &str, layout: &Layout, gradient: &[f32], mut loss: impl FnMut(&str, f64) -> f64) -> f64 {
    let mut worst = 0.0f64;
    for place in layout.places() {
        let part = &gradient[place.range.clone()];
        let length = part.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        assert!(length > 0.0, "{name}: {} has no gradient", place.name);
        let nudge = 2e-3 / length;
        let difference = loss(&place.name, nudge) - loss(&place.name, -nudge);
        let ratio = difference / (2.0 * nudge) / (length * length);
        if 3e-6 / (nudge * length * length) < 0.02 {
            worst = worst.max((ratio - 1.0).abs());
            assert!((ratio - 1.0).abs() < 0.02, "{name}: {}: {ratio} of the gradient {length}", place.name);
        }
    }
    worst
}

/// `weights` moved along the gradient of one tensor.
fn moved(weights: &[f32], layout: &Layout, gradient: &[f32], tensor: &str, nudge: f64) -> Vec<f32> {
    let range = layout.get(tensor).unwrap().range.clone();
    let mut moved = weights.to_vec();
    let values = moved[range.clone()].iter_mut().zip(&gradient[range]);
    values.for_each(|(weight, gradient)| *weight += (nudge * f64::from(*gradient)) as f32);
    moved
}

#[test]
fn gradients_are_differences_of_the_loss() {
    for model in models::all() {
        let blueprint = smooth(&model.checkpoint);
        let layout = Layout::new(&blueprint);
        let weights = layout.read(&model.checkpoint).unwrap();
        let examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).collect();
        let case = Case::new(Objective::find("sft").unwrap(), &examples, &[]);
        let mut trainable = trainable(&blueprint, false);
        let mut gradient = vec![0.0; layout.len()];
        case.pass(&mut trainable, &weights, Some(&mut gradient));
        let mut again = vec![0.0; layout.len()];
        case.pass(&mut self::trainable(&blueprint, true), &weights, Some(&mut again));
        assert!(gradient == again, "{}: recomputing layers changes the gradient", model.name);
        let worst = worst_error(&model.name, &layout, &gradient, |tensor, nudge| {
            case.pass(&mut trainable, &moved(&weights, &layout, &gradient, tensor, nudge), None)
        });
        println!("{}: within {worst:.1e}", model.name);
    }
}

/// Factors that are rounded to bfloat16 change a gradient by about a hundredth of its length, and by
/// a few hundredths where random layers amplify it.
#[test]
fn gradients_in_bfloat16_are_near() {
    for model in models::all() {
        let blueprint = smooth(&model.checkpoint);
        let layout = Layout::new(&blueprint);
        let weights = layout.read(&model.checkpoint).unwrap();
        let examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).collect();
        let case = Case::new(Objective::find("sft").unwrap(), &examples, &[]);
        let gradient = |precision| {
            let max_len = blueprint.max_len.min(512);
            let options = ModelOptions { max_len, precision, trained: &|_| Trained::Whole, ..ModelOptions::default() };
            let mut gradient = vec![0.0; layout.len()];
            let mut model = TrainableModel::try_new(&blueprint, &options).unwrap();
            (case.pass(&mut model, &weights, Some(&mut gradient)), gradient)
        };
        let [(loss, exact), (near_loss, near)] = [Precision::F32, Precision::Bf16].map(gradient);
        let length = |of: &mut dyn Iterator<Item = f32>| of.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let error = length(&mut exact.iter().zip(&near).map(|(a, b)| a - b)) / length(&mut exact.iter().copied());
        println!("{}: loss {loss:.4} and {near_loss:.4}, gradients within {error:.1e}", model.name);
        assert!(error > 0.0 && error < 0.1 && (loss - near_loss).abs() < 2e-3 * loss, "{}", model.name);
    }
}

/// Gradients through whole rows, also through the cap on logits that some architectures have.
#[test]
fn gradients_through_rows_are_differences_of_the_loss() {
    let with_rows = || OBJECTIVES.iter().filter(|objective| objective.needs == Needs::RowsAndReference);
    for (model, objective) in
        models::all().iter().flat_map(|model| with_rows().map(move |objective| (model, objective)))
    {
        let blueprint = smooth(&model.checkpoint);
        let layout = Layout::new(&blueprint);
        let reference = layout.read(&model.checkpoint).unwrap();
        let drift = |(index, weight): (usize, &f32)| weight + (index as f32 * 0.37).sin() * 0.03;
        let weights: Vec<_> = reference.iter().enumerate().map(drift).collect();
        let examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).collect();
        let case = Case::new(objective, &examples, &reference);
        let mut trainable = trainable(&blueprint, false);
        let at_start = case.pass(&mut trainable, &reference, None);
        let mut gradient = vec![0.0; layout.len()];
        let name = format!("{}, {}", model.name, objective.name);
        assert!((case.pass(&mut trainable, &weights, Some(&mut gradient)) - at_start).abs() > 1e-4, "{name}");
        let worst = worst_error(&name, &layout, &gradient, |tensor, nudge| {
            case.pass(&mut trainable, &moved(&weights, &layout, &gradient, tensor, nudge), None)
        });
        println!("{name}: within {worst:.1e}");
    }
}

/// Gradients of factored tables with kept rows, tied and not, with the whole model as the reference.
#[test]
fn gradients_of_factored_tables_are_differences_of_the_loss() {
    let mut tied = [false; 2];
    for model in models::all() {
        let counts = (0..arch::blueprint(&model.checkpoint.config).unwrap().vocab as u64).rev().collect();
        let usage = Some(Usage { counts, moment: Vec::new() });
        let (method, size) = (FACTORIZATIONS[1], Size::Share(0.5));
        let options = CompressOptions { method, size, epochs: 1, seed: 1, usage, kept: 30 };
        let (factored, _) = compress(&model.checkpoint, &options, |_, _, _| {}).unwrap();
        let [whole, blueprint] = [&model.checkpoint, &factored].map(smooth);
        tied[usize::from(whole.tied)] = true;
        let layout = Layout::new(&blueprint);
        let weights = layout.read(&factored).unwrap();
        let reference = Layout::new(&whole).read(&model.checkpoint).unwrap();
        let examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).collect();
        let case = Case::new(Objective::find("distill").unwrap(), &examples, &reference);
        let mut trainable = trainable(&blueprint, false).with_teacher(&whole).unwrap();
        let mut gradient = vec![0.0; layout.len()];
        assert!(case.pass(&mut trainable, &weights, Some(&mut gradient)) > 1e-6, "{}", model.name);
        worst_error(&model.name, &layout, &gradient, |tensor, nudge| {
            case.pass(&mut trainable, &moved(&weights, &layout, &gradient, tensor, nudge), None)
        });
    }
    assert_eq!(tied, [true; 2], "both kinds of heads");
}

/// The trained model reads other tokens at masked places, and the reference the true ones.
#[test]
fn masks_change_what_the_trained_model_reads() {
    let model = &models::all()[0];
    let blueprint = smooth(&model.checkpoint);
    let weights = Layout::new(&blueprint).read(&model.checkpoint).unwrap();
    let mut examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).collect();
    let distance = |examples: &[Example]| {
        let case = Case::new(Objective::find("distill").unwrap(), examples, &weights);
        case.pass(&mut trainable(&blueprint, false), &weights, None)
    };
    let own: Vec<_> = examples.iter().map(|example| example.sequences[0].tokens[1]).collect();
    examples.iter_mut().zip(&own).for_each(|(example, own)| example.masked = vec![(1, *own)]);
    assert!(distance(&examples).abs() < 1e-9);
    examples.iter_mut().zip(&own).for_each(|(example, own)| example.masked = vec![(1, own ^ 1)]);
    assert!(distance(&examples) > 1e-4);
}

#[test]
fn a_model_is_at_no_distance_from_itself() {
    for model in models::all() {
        let blueprint = smooth(&model.checkpoint);
        let weights = Layout::new(&blueprint).read(&model.checkpoint).unwrap();
        let examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).collect();
        let case = Case::new(Objective::find("distill").unwrap(), &examples, &weights);
        let distance = case.pass(&mut trainable(&blueprint, false), &weights, None);
        assert!(distance.abs() < 1e-9, "{}: {distance}", model.name);
    }
}

/// Values for a small adapter of every matrix.
fn small(entry: &AdapterEntry) -> Values {
    let names =
        ["q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"];
    let mut values = Values::default();
    for setting in entry.settings {
        let value = match setting.name {
            "r" => 2usize.into(),
            "oft_block_size" => 4usize.into(),
            "lora_alpha" => 4.0.into(),
            "target_modules" => names.map(str::to_owned).to_vec().into(),
            _ => continue,
        };
        values.set(setting, value).unwrap();
    }
    values
}

/// The start parameters are moved first: at the start one factor of each LoRA pair is zero, and
/// with it the gradient of the other.
#[test]
fn every_adapter_has_a_gradient() {
    let adapters = || ADAPTERS.iter().copied().filter(|entry| entry.name != "full");
    for (model, entry) in models::all().iter().flat_map(|model| adapters().map(move |entry| (model, entry))) {
        let name = format!("{}, {}", model.name, entry.name);
        let blueprint = smooth(&model.checkpoint);
        let layout = Layout::new(&blueprint);
        let weights = layout.read(&model.checkpoint).unwrap();
        let mut adapter = (entry.make)(&layout, weights.clone(), &small(entry)).unwrap();
        let mut parameters = adapter.start(1);
        assert!(adapter.merge(&parameters) == weights, "{name}: the start changes the model");
        parameters.iter_mut().enumerate().for_each(|(index, value)| *value += (index as f32 * 0.7).sin() * 0.05);

        let examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).collect();
        let case = Case::new(Objective::find("sft").unwrap(), &examples, &[]);
        let trained = |name: &str| adapter.trained(name);
        let max_len = blueprint.max_len.min(512);
        let options = ModelOptions { threads: 2, max_len, trained: &trained, ..ModelOptions::default() };
        let mut trainable = TrainableModel::try_new(&blueprint, &options).unwrap();
        let len = if adapter.is_low_rank() { parameters.len() } else { layout.len() };
        let mut computed = vec![0.0; len];
        case.pass_with(&mut trainable, adapter.merge(&parameters), &parameters, Some(&mut computed));
        let gradient = adapter.pull_back(&parameters, &computed).unwrap_or(computed);
        let own = adapter.layout().clone();
        worst_error(&name, &own, &gradient, |tensor, nudge| {
            let moved = moved(&parameters, &own, &gradient, tensor, nudge);
            case.pass(&mut trainable, adapter.merge(&moved), None)
        });
    }
}

/// Gradients through a reward head, which reads the target's own state.
#[test]
fn gradients_of_rewards_are_differences_of_the_loss() {
    for model in models::all() {
        let plain = smooth(&model.checkpoint);
        let (vocabulary, reward) = ([plain.vocab, plain.hidden], [1, plain.hidden]);
        let blueprint = plain.with_heads(|name| match name {
            "lm_head.weight" => Some(&vocabulary),
            REWARD => Some(&reward),
            _ => None,
        });
        let layout = Layout::new(&blueprint);
        let mut weights = layout.read(&model.checkpoint).unwrap();
        let head = &mut weights[layout.get(REWARD).unwrap().range.clone()];
        assert!(head.iter().all(|value| *value == 0.0));
        head.iter_mut().enumerate().for_each(|(index, value)| *value = (index as f32 * 1.3).cos() * 0.2);
        let labelled = |example: Example| Example { labels: [0.0, 1.0].repeat(example.targets()), ..example };
        let examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).map(labelled).collect();
        let case = Case::new(Objective::find("step_reward").unwrap(), &examples, &[]);
        let mut trainable = trainable(&blueprint, false);
        let mut gradient = vec![0.0; layout.len()];
        case.pass(&mut trainable, &weights, Some(&mut gradient));
        let trained = layout.places().iter().filter(|place| place.name != "lm_head.weight");
        let trained = Layout::of(trained.map(|place| (place.name.clone(), place.shape.clone())).collect());
        let own = |all: &[f32]| -> Vec<f32> {
            let places = trained.places().iter();
            places.flat_map(|place| all[layout.get(&place.name).unwrap().range.clone()].to_vec()).collect()
        };
        worst_error(&model.name, &trained, &own(&gradient), |tensor, nudge| {
            case.pass(&mut trainable, &moved(&weights, &layout, &gradient, tensor, nudge), None)
        });
    }
}

/// Most quotients are the gradient where each token passes some experts: the others cross a change of
/// the choice.
#[test]
fn gradients_through_chosen_experts_are_mostly_differences_of_the_loss() {
    let is_mixture = |model: &models::Model| model.checkpoint.config.contains_key("num_experts_per_tok");
    for model in models::all().into_iter().filter(is_mixture) {
        let blueprint = arch::blueprint(&model.checkpoint.config).unwrap();
        let layout = Layout::new(&blueprint);
        let weights = layout.read(&model.checkpoint).unwrap();
        let examples: Vec<_> = model.sequences.iter().filter_map(|tokens| example(tokens)).collect();
        let case = Case::new(Objective::find("sft").unwrap(), &examples, &[]);
        let mut trainable = trainable(&blueprint, false);
        let mut gradient = vec![0.0; layout.len()];
        case.pass(&mut trainable, &weights, Some(&mut gradient));
        let mut ratio = |tensor: &str| {
            let part = &gradient[layout.get(tensor).unwrap().range.clone()];
            let square = part.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            let nudge = 5e-4 / square.sqrt();
            let mut loss = |nudge| case.pass(&mut trainable, &moved(&weights, &layout, &gradient, tensor, nudge), None);
            (loss(nudge) - loss(-nudge)) / (2.0 * nudge) / square
        };
        let ratios: Vec<f64> = layout.places().iter().map(|place| ratio(&place.name)).collect();
        let right = ratios.iter().filter(|ratio| (*ratio - 1.0).abs() < 0.05).count();
        let moving = ratios.iter().filter(|ratio| ratio.is_finite()).count();
        println!("{}: {right} of {moving}", model.name);
        assert!(moving > layout.places().len() / 2 && right * 4 > moving * 3, "{}: {ratios:?}", model.name);
    }
}

/// A model without a position for each token of the longest sequence is refused.
#[test]
fn sequences_beyond_learned_positions_are_refused() {
    let model = models::all().into_iter().find(|model| model.name == "gpt2").unwrap();
    let blueprint = smooth(&model.checkpoint);
    let max_len = blueprint.max_len + 1;
    let options = ModelOptions { threads: 1, max_len, trained: &|_| Trained::Whole, ..ModelOptions::default() };
    let error = TrainableModel::try_new(&blueprint, &options).err().unwrap().to_string();
    let limit = max_len - 1;
    let expected =
        format!("`max_length` must be at most {limit}, the positions that the model has learned, got {max_len}");
    assert_eq!(error, expected);
}
