use std::path::Path;
use std::sync::atomic::AtomicBool;

use wsd_nn::{Cpu, CpuOptions, Executor as _, Span};

use super::*;
use crate::example::{Example, Sequence};
use crate::fidelity::fidelity;
use crate::merge::in_format;
use crate::model::{ModelOptions, TrainableModel};
use crate::{Layout, Trained, save_checkpoint};

fn open(name: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures").join(name);
    in_format(&Checkpoint::open(&folder).unwrap().in_standard_form().unwrap(), Format::F32).unwrap()
}

fn options(method: &'static str, size: Size) -> CompressOptions {
    CompressOptions { method: Factorization::find(method).unwrap(), size, epochs: 12, seed: 1, usage: None, kept: 0 }
}

/// Texts of a model's vocabulary in which the first ids are frequent, and their usage.
fn usage(model: &Checkpoint) -> (Vec<Example>, Usage) {
    let text = |seed: u32| {
        let token = |place: u32| (seed * 31 + place * place * 7) % if place.is_multiple_of(4) { 200 } else { 12 };
        Example::of(Sequence::targets_from(0, (0..40).map(token).collect()))
    };
    let texts: Vec<_> = (0..30).map(text).collect();
    let mut cpu = Cpu::load_with(model, CpuOptions { exact: true, ..CpuOptions::default() }).unwrap();
    let mut read = 0;
    let usage = Usage::of(&mut cpu, &texts, &AtomicBool::new(false), || read += 1).unwrap().unwrap();
    assert_eq!(read, 30);
    assert!(Usage::of(&mut cpu, &texts, &AtomicBool::new(true), || ()).unwrap().is_none());
    (texts, usage)
}

fn logits(model: &Checkpoint) -> Vec<f32> {
    let mut cpu = Cpu::load_with(model, CpuOptions { exact: true, ..CpuOptions::default() }).unwrap();
    let rows = cpu.forward(&[Span { rows: 0..5, ..Span::chain(0, 0, &[5, 9, 3, 77, 20]) }]).unwrap();
    let mut out = Vec::new();
    cpu.project(Head::VOCABULARY, &rows, &mut out).unwrap();
    out
}

fn far(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

/// A table whose rows lie near a few directions, with lengths that differ.
fn table() -> Vec<f32> {
    let noise = |seed: usize| ((seed as f32 * 12.9898).sin() * 43758.547).fract();
    let row = |row: usize| {
        let size = 1.0 + 8.0 * noise(row * 7 + 3).abs();
        (0..24).map(move |column| {
            let planes = (0..6).map(|k| noise(row * 31 + k) * noise(k * 57 + column * 13 + 5)).sum::<f32>();
            size * (planes + 0.35 * noise(row * 101 + column * 29))
        })
    };
    (0..400).flat_map(row).collect()
}

#[test]
fn directions_beat_svd_by_cosine_and_lose_by_error() {
    let values = table();
    let table = Table { values: &values, width: 24, rank: 5, epochs: 30, seed: 1, counts: &[], moment: &[] };
    let [direction, svd] = ["direction", "svd"].map(|name| {
        let factored = (Factorization::find(name).unwrap().factor)(&table, &mut |_, _| {});
        assert_eq!([factored.rows.len(), factored.factor.len()], [400 * 5, 24 * 5]);
        if name == "direction" {
            let image = direction::product(&factored.rows, &factored.factor, 24);
            for (row, image) in values.chunks(24).zip(image.chunks(24)) {
                let [row, image] = [row, image].map(|row| row.iter().map(|x| x * x).sum::<f32>().sqrt());
                assert!((row - image).abs() < 1e-3 * row, "a row of length {row} has length {image}");
            }
        }
        likeness(&values, 24, &factored)
    });
    assert!(direction.cosine > svd.cosine + 5e-4, "{direction:?} {svd:?}");
    assert!(direction.rmse > svd.rmse, "{direction:?} {svd:?}");
}

#[test]
fn full_rank_is_the_model() {
    for (model, method) in
        ["llama", "gemma2", "qwen2"].iter().flat_map(|model| ["direction", "svd", "weighted"].map(|it| (model, it)))
    {
        let model = open(model);
        let width = arch::blueprint(&model.config).unwrap().hidden;
        let options = CompressOptions { usage: Some(usage(&model).1), ..options(method, Size::Rank(width)) };
        let (compressed, tables) = compress(&model, &options, |_, _, _| {}).unwrap();
        assert!(tables.iter().all(|table| table.likeness.rmse < 1e-5), "{tables:?}");
        let (before, after) = (logits(&model), logits(&compressed));
        let size = before.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(far(&before, &after) < 1e-4 * size.max(1.0), "{}", far(&before, &after));
    }
}

/// On texts whose usage it read, the metric of texts costs less than the least squared error.
#[test]
fn the_metric_of_texts_keeps_more_of_the_model() {
    for name in ["llama", "qwen2"] {
        let model = open(name);
        let (texts, usage) = usage(&model);
        assert_eq!(usage.counts.iter().sum::<u64>(), 30 * 40);
        let width = arch::blueprint(&model.config).unwrap().hidden;
        let diagonal: f32 = usage.moment.iter().step_by(width + 1).sum();
        assert!((diagonal - width as f32).abs() < 1e-3 * width as f32, "{diagonal}");
        let original = arch::blueprint(&model.config).unwrap();
        let reference = Layout::new(&original).read(&model).unwrap();
        let [svd, weighted] = ["svd", "weighted"].map(|method| {
            let options = CompressOptions { usage: Some(usage.clone()), ..options(method, Size::Share(0.5)) };
            let (compressed, _) = compress(&model, &options, |_, _, _| {}).unwrap();
            let blueprint = arch::blueprint(&compressed.config).unwrap();
            let weights = Layout::new(&blueprint).read(&compressed).unwrap();
            let options =
                ModelOptions { threads: 1, max_len: 40, trained: &|_| Trained::Frozen, ..ModelOptions::default() };
            let mut trainable = TrainableModel::try_new(&blueprint, &options).unwrap().with_teacher(&original).unwrap();
            fidelity(&mut trainable, [&weights, &reference], &texts, |_| ()).unwrap().divergence
        });
        assert!(weighted < 0.7 * svd, "{name}: {weighted} {svd}");
    }
    let error = compress(&open("llama"), &options("weighted", Size::Share(0.5)), |_, _, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "`method` must be one that needs no texts where there are none, got weighted");
}

/// A written folder runs in factors, and multiplied out, with the same logits.
#[test]
fn a_factored_folder_is_its_whole_model() {
    for name in ["llama", "gemma2", "qwen2", "phi3"] {
        let (compressed, tables) =
            compress(&open(name), &options("direction", Size::Share(0.5)), |_, _, _| {}).unwrap();
        assert!(tables.iter().all(|table| 2 * table.values[1] <= table.values[0]), "{tables:?}");
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("model");
        save_checkpoint(&to, &compressed, None).unwrap();
        let read = Checkpoint::open(&to).unwrap();
        let whole = read.without_factors().unwrap();
        assert!(arch::blueprint(&whole.config).unwrap().factors == Factors::default());
        let (factored, whole) = (logits(&read), logits(&whole));
        let size = whole.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(far(&factored, &whole) < 1e-4 * size.max(1.0), "{name}");
        assert!(far(&factored, &logits(&open(name))) > 1e-3, "{name}: it differs from the original");
        read.save_gguf(&folder.path().join("model.gguf"), Format::F32).unwrap();
        let again = logits(&Checkpoint::open(&folder.path().join("model.gguf")).unwrap());
        assert!(far(&again, &whole) < 1e-3 * size.max(1.0), "{name}");
    }
}

/// Kept rows are those of the original, in the engine and multiplied out, and the size counts them.
#[test]
fn kept_rows_stay_as_they_are() {
    for name in ["llama", "gemma2", "qwen2"] {
        let model = open(name);
        let usage = Some(usage(&model).1);
        let own = |kept| {
            let options = CompressOptions { usage: usage.clone(), kept, ..options("weighted", Size::Share(0.5)) };
            compress(&model, &options, |_, _, _| {}).unwrap()
        };
        let [(without, _), (compressed, tables)] = [0, 40].map(own);
        assert!(tables.iter().all(|table| 2 * table.values[1] <= table.values[0] && table.kept == 40), "{tables:?}");
        let kept = arch::blueprint(&compressed.config).unwrap().factors.kept;
        assert!((0..12).all(|token| kept.contains(&token)), "frequent tokens are kept: {kept:?}");
        let folder = tempfile::tempdir().unwrap();
        save_checkpoint(&folder.path().join("model"), &compressed, None).unwrap();
        let read = Checkpoint::open(&folder.path().join("model")).unwrap();
        let whole = read.without_factors().unwrap();
        let original = model.weights.get(EMBEDDING).unwrap().to_f32();
        let multiplied = whole.weights.get(EMBEDDING).unwrap().to_f32();
        let width = arch::blueprint(&model.config).unwrap().hidden;
        for token in kept.iter().map(|token| *token as usize * width) {
            assert!(far(&original[token..token + width], &multiplied[token..token + width]) < 1e-5, "{name}");
        }
        let size = logits(&whole).iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(far(&logits(&read), &logits(&whole)) < 1e-4 * size.max(1.0), "{name}");
        // The tokens that are read, and the logits of all.
        let [near, other] = [&compressed, &without].map(|model| far(&logits(model), &logits(&open(name))));
        println!("{name}: logits within {near}, without kept rows {other}");
    }
    let kept = |kept| CompressOptions { kept, ..options("svd", Size::Rank(4)) };
    let error = |options: &CompressOptions| compress(&open("llama"), options, |_, _, _| {}).unwrap_err().to_string();
    assert_eq!(error(&kept(3)), "`keep` must be 0 where there are no texts, got 3");
    let vocab = arch::blueprint(&open("llama").config).unwrap().vocab;
    assert_eq!(error(&kept(vocab)), format!("`keep` must be below the vocabulary's {vocab}, got {vocab}"));
}

/// Lists of kept tokens that are not ascending, or not of the vocabulary, are refused by their key.
#[test]
fn wrong_lists_of_kept_tokens_are_refused() {
    let (compressed, _) = compress(&open("llama"), &options("svd", Size::Rank(8)), |_, _, _| {}).unwrap();
    let vocab = arch::blueprint(&compressed.config).unwrap().vocab;
    for wrong in [json!([]), json!([3, 3]), json!([5, 4]), json!([vocab]), json!([-1]), json!(["a"]), json!(7)] {
        let mut broken = compressed.clone();
        broken.config.insert(KEPT_TOKENS.into(), wrong);
        let error = arch::blueprint(&broken.config).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{KEPT_TOKENS}` must be a list of ascending numbers below {vocab}")),
            "{error}"
        );
    }
}

/// Factors that do not fit the configuration are named, whoever reads them.
#[test]
fn misshapen_factors_are_errors() {
    let (compressed, _) = compress(&open("qwen2"), &options("svd", Size::Rank(8)), |_, _, _| {}).unwrap();
    let width = arch::blueprint(&compressed.config).unwrap().hidden;
    for name in [EMBEDDING_FACTOR, HEAD_FACTOR].iter().filter(|name| compressed.weights.get(name).is_some()) {
        for shape in [vec![width, 7], vec![8], vec![8 * width], vec![2, 4, width]] {
            let values = vec![0.5; shape.iter().product()];
            let wrong = Tensor::new(*name, Format::F32, shape, Format::F32.quantize(&values).unwrap()).unwrap();
            let others = compressed.weights.iter().filter(|tensor| tensor.name != *name).cloned();
            let mut broken = compressed.clone();
            broken.weights = Weights::new("broken", others.chain([wrong]));
            let read = Cpu::load_with(&broken, CpuOptions::default()).err().unwrap().to_string();
            let layout = crate::Layout::new(&arch::blueprint(&broken.config).unwrap());
            for error in
                [broken.without_factors().unwrap_err().to_string(), read, layout.read(&broken).unwrap_err().to_string()]
            {
                assert!(error.contains(name) && error.contains("shape"), "{error}");
            }
        }
    }
}

#[test]
fn wrong_sizes_are_refused() {
    let error = |size| {
        let options = options("svd", size);
        let error = compress(&open("llama"), &options, |_, _, _| {}).unwrap_err().to_string();
        assert_eq!(options.check(&open("llama")).unwrap_err().to_string(), error);
        error
    };
    let width = arch::blueprint(&open("llama").config).unwrap().hidden;
    assert_eq!(
        error(Size::Rank(width + 1)),
        format!("`rank` must be from 1 to the model's width, {width}, got {}", width + 1)
    );
    assert_eq!(error(Size::Share(0.0)), "`share` must be above 0 and at most 1, got 0");
    let least = error(Size::Share(0.01));
    assert!(
        least.starts_with("`share` must be at least 0.03") && least.ends_with(", that of rank 1, got 0.01"),
        "{least}"
    );
    let (once, _) = compress(&open("llama"), &options("svd", Size::Rank(8)), |_, _, _| {}).unwrap();
    let error = options("svd", Size::Rank(4)).check(&once).unwrap_err().to_string();
    assert_eq!(error, "`model` must be a model of whole tables, got one that is compressed already");
}
