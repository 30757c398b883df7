use std::path::Path;

use wsd_nn::{Cpu, CpuOptions, Executor as _, Span, Spelling};

use super::*;
use crate::{save_checkpoint, save_tensors};

fn base() -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/llama");
    in_format(&Checkpoint::open(&folder).unwrap().in_standard_form().unwrap(), Format::F32).unwrap()
}

/// A fine-tune that differs in its linear layers by matrices of rank `rank`, or anywhere for rank 0.
fn tuned(seed: usize, rank: usize) -> Checkpoint {
    let noise = |row: usize, column: usize, salt: usize| {
        ((row * 131 + column * 71 + seed * 17 + salt * 29) as f32 * 12.9898).sin() * 0.2
    };
    rebuilt(&base(), Format::F32, |index, tensor| {
        let mut values = tensor.to_f32();
        if rank == 0 {
            values.iter_mut().enumerate().for_each(|(place, value)| *value += 0.1 * noise(place, index, 0));
        } else if tensor.shape.len() == 2 && tensor.name.contains("layers") {
            let columns = tensor.columns();
            for (place, value) in values.iter_mut().enumerate() {
                let (row, column) = (place / columns, place % columns);
                *value += (0..rank).map(|k| 4.0 * noise(row, k, index) * noise(k, column, index + 7)).sum::<f32>();
            }
        }
        Ok(values)
    })
    .unwrap()
}

fn expert(model: Checkpoint) -> Expert {
    Expert { name: "tuned".into(), weight: 1.0, source: ExpertSource::Model(Box::new(model)) }
}

/// The hidden states after a few tokens, with an adapter or without.
fn hidden(model: &Checkpoint, adapter: Option<&Adapter>) -> Vec<f32> {
    let mut cpu = Cpu::load_with(model, CpuOptions { exact: true, ..CpuOptions::default() }).unwrap();
    adapter.into_iter().for_each(|adapter| cpu.adapt(adapter).unwrap());
    let rows = cpu.forward(&[Span { rows: 0..5, ..Span::chain(0, 0, &[5, 9, 3, 77, 20]) }]).unwrap();
    assert!(!rows.is_empty());
    rows
}

/// Routed experts, written to a folder and read again.
fn routed(experts: &[Expert], options: SmileOptions) -> Adapter {
    let (tensors, config) = smile(&base(), experts, options, |_, _| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    save_tensors(&folder.path().join(wsd_nn::adapter::WEIGHTS_FILE), &tensors).unwrap();
    fs_err::write(folder.path().join(wsd_nn::adapter::CONFIG_FILE), config.to_string()).unwrap();
    Adapter::open(folder.path(), &Spelling::default()).unwrap()
}

fn far(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

fn values(method: &str, base: &[f32], experts: &[&[f32]], options: MergeOptions) -> Vec<f32> {
    let experts: Vec<Vec<f32>> = experts.iter().map(|expert| expert.to_vec()).collect();
    let method = MERGES.iter().find(|entry| entry.name == method).unwrap();
    let weights = vec![1.0; experts.len()];
    (method.merge)(&MergeInput { base, experts: &experts, weights: &weights, options, index: 3 })
}

const PLAIN: MergeOptions = MergeOptions { scale: 1.0, density: 1.0, t: 0.5, seed: 1 };

#[test]
fn methods_follow_their_formulas() {
    let (base, one, other) = ([1.0, 1.0, 1.0, 1.0], [3.0, 1.0, 0.0, 1.5], [2.0, -3.0, 2.0, 1.0]);
    let merged = |method, options| values(method, &base, &[&one, &other], options);
    assert_eq!(merged("linear", PLAIN), [2.5, -1.0, 1.0, 1.25]);
    assert_eq!(merged("task_arithmetic", PLAIN), [4.0, -3.0, 1.0, 1.5]);
    assert_eq!(merged("task_arithmetic", MergeOptions { scale: 0.5, ..PLAIN }), [2.5, -1.0, 1.0, 1.25]);
    // Changes (2, 0, -1, 0.5) and (1, -4, 1, 0): means of those with the elected sign; a tie elects none.
    assert_eq!(merged("ties", PLAIN), [2.5, -3.0, 1.0, 1.5]);
    // Half of each is kept: (2, 0, -1, 0) and (1, -4, 1, 0), as 1 and 1 tie at the threshold.
    assert_eq!(merged("ties", MergeOptions { density: 0.5, ..PLAIN }), [2.5, -3.0, 1.0, 1.0]);
    assert_eq!(merged("dare", PLAIN), merged("task_arithmetic", PLAIN));
    assert_eq!(merged("dare_ties", PLAIN), merged("ties", PLAIN));
}

#[test]
fn slerp_keeps_to_the_arc() {
    let merged = |t| values("slerp", &[1.0, 0.0], &[&[0.0, 1.0]], MergeOptions { t, ..PLAIN });
    assert!(far(&merged(0.5), &[0.5_f32.sqrt(), 0.5_f32.sqrt()]) < 1e-6);
    assert!(far(&merged(0.0), &[1.0, 0.0]) < 1e-6 && far(&merged(1.0), &[0.0, 1.0]) < 1e-6);
    let parallel = values("slerp", &[1.0, 2.0], &[&[2.0, 4.0]], PLAIN);
    assert!(far(&parallel, &[1.5, 3.0]) < 1e-6, "parallel weights lie on a line: {parallel:?}");
}

#[test]
fn dare_keeps_the_mean_of_changes() {
    let (base, expert) = (vec![0.0; 20_000], vec![1.0; 20_000]);
    let options = MergeOptions { density: 0.25, ..PLAIN };
    let merged = values("dare", &base, &[&expert], options);
    assert!(merged.iter().all(|value| [0.0, 4.0].contains(value)));
    let mean = merged.iter().sum::<f32>() / 20_000.0;
    assert!((mean - 1.0).abs() < 0.05, "{mean}");
    assert_eq!(merged, values("dare", &base, &[&expert], options), "the seed fixes the choice");
}

#[test]
fn a_merge_of_one_expert_is_the_expert() {
    let model = tuned(1, 0);
    let folder = tempfile::tempdir().unwrap();
    for method in MERGES {
        let options = MergeOptions { t: 1.0, ..PLAIN };
        let merged = merge(&base(), &[expert(model.clone())], method, options, Format::F32).unwrap();
        let to = folder.path().join(method.name);
        save_checkpoint(&to, &merged, None).unwrap();
        let again = hidden(&Checkpoint::open(&to).unwrap(), None);
        assert!(far(&again, &hidden(&model, None)) < 1e-3, "{}", method.name);
    }
}

#[test]
fn one_routed_expert_of_full_rank_is_the_fine_tune() {
    let whole = SmileOptions { rank: 4096, router_rank: 8, experts_per_token: 1, format: Format::F32 };
    let model = tuned(2, 3);
    let expected = hidden(&model, None);
    let change = far(&expected, &hidden(&base(), None));
    assert!(change > 0.1, "the fine-tune differs from the base, by {change}");
    for options in
        [whole, SmileOptions { format: Format::BF16, ..whole }, SmileOptions { rank: 3, router_rank: 1, ..whole }]
    {
        let adapter = routed(&[expert(model.clone())], options);
        let off = far(&hidden(&base(), Some(&adapter)), &expected);
        let most = if options.format == Format::F32 { 5e-3 } else { 0.05 * change };
        assert!(off < most, "{options:?}: {off}");
    }
}

#[test]
fn equal_experts_are_indifferent_to_routing() {
    let model = tuned(3, 2);
    let expected = hidden(&model, None);
    for experts_per_token in [1, 2] {
        let options = SmileOptions { rank: 2, router_rank: 2, experts_per_token, format: Format::F32 };
        let adapter = routed(&[expert(model.clone()), expert(model.clone())], options);
        assert!(far(&hidden(&base(), Some(&adapter)), &expected) < 2e-3, "{experts_per_token}");
    }
}

#[test]
fn strangers_are_refused_by_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/gemma2");
    let stranger = expert(Checkpoint::open(&folder).unwrap());
    let error = merge(&base(), &[stranger], MERGES[0], PLAIN, Format::F32).unwrap_err().to_string();
    assert!(error.contains("`tuned` is not a fine-tune of the base"), "{error}");
    let two = [expert(tuned(1, 0)), expert(tuned(2, 0))];
    let slerp = MERGES.iter().find(|method| method.name == "slerp").unwrap();
    let error = merge(&base(), &two, slerp, PLAIN, Format::F32).unwrap_err().to_string();
    assert_eq!(error, "`model` must be 1 expert for this method, got 2");
    let options = SmileOptions { rank: 4, router_rank: 5, experts_per_token: 1, format: Format::F32 };
    let error = smile(&base(), &two, options, |_, _| {}).unwrap_err().to_string();
    assert_eq!(error, "`router_rank` must be from 1 to the rank, 4, got 5");
}
