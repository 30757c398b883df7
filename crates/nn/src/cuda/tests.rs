//! The executor on a stand-in for a GPU, against the reference's numbers and against the executor
//! on the CPU; and the kernels in NVIDIA's compiler, where that is installed.

mod answers;
mod cache;
mod cards;
mod layers;
mod streams;

use std::collections::BTreeSet;

use super::cases::{Case, cases, log_sum_exp, longest, meet, project, rows, steady_cases};
use super::driver::Gpu;
use super::emulator::Emulator;
use super::load::Cards;
use super::pages::PAGE;
use super::program::{Epilogue, Request, Uses};
use super::*;
use crate::activation::Activation;
use crate::arch::{self, Experts};
use crate::checkpoint::Checkpoint;
use crate::cpu::{Cpu, CpuOptions};
use crate::kernels::KvFormat;

/// A GPU or, without one, the stand-in; `None`, with the reason told, where there is neither.
fn gpu() -> Option<Gpu> {
    if let Ok(gpu) = Gpu::open(0) {
        return Some(gpu);
    }
    Emulator::try_new("emulator", 1 << 30).map(Gpu::new).map_err(|reason| println!("skipped: {reason}")).ok()
}

/// Loads a case onto a GPU or the stand-in.
fn load(case: &Case, dtype: Option<Format>) -> Option<Cuda> {
    load_with(case, CudaOptions { dtype, ..CudaOptions::default() })
}

fn load_with(case: &Case, options: CudaOptions) -> Option<Cuda> {
    Some(Cuda::load_onto(all(vec![gpu()?]), &case.checkpoint, options).unwrap())
}

/// These cards, and no others.
fn all(open: Vec<Gpu>) -> Cards<std::iter::Empty<Gpu>> {
    Cards { open, others: std::iter::empty() }
}

/// The fixture of this name.
fn fixture(name: &str) -> Case {
    cases().into_iter().find(|case| is_one_of(case, &[name])).unwrap()
}

/// True for the fixtures that the executor can run, but for one that differs in its files alone.
fn is_fixture(case: &Case) -> bool {
    let can_run =
        || arch::blueprint(&case.checkpoint.config).is_ok_and(|blueprint| model::missing(&blueprint).is_none());
    let is_own = case.name.contains("fixtures/") && case.name.ends_with("/config.json");
    is_own && !case.name.contains("llama_sharded") && can_run()
}

/// True for these fixtures.
fn is_one_of(case: &Case, names: &[&str]) -> bool {
    names.iter().any(|name| case.name.ends_with(&format!("fixtures/{name}/config.json")))
}

#[test]
fn logits_match_the_reference_in_float32() {
    for case in cases().into_iter().filter(is_fixture) {
        let Some(mut model) = load(&case, Some(Format::F32)) else { return };
        let worst = meet(&case.name, &mut model, &case.sequences);
        println!("{}: log-probabilities within {worst:.1e}", case.name);
    }
}

/// The relative error of all logits.
fn distance(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    let (found, expected) = (found.concat(), expected.concat());
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let error = square(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
    (error / square(&mut expected.iter().copied())).sqrt()
}

/// The same without the worst sixteenth of the rows: a row may pass another expert than on the CPU,
/// where two ratings are equal but for rounding.
fn usual_distance(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    let of_row = |row: &usize| distance(&found[*row..=*row], &expected[*row..=*row]);
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by(|one, other| of_row(one).total_cmp(&of_row(other)));
    order.truncate(found.len() - found.len() / 16);
    let pick = |rows: &[Vec<f32>]| order.iter().map(|row| rows[*row].clone()).collect::<Vec<_>>();
    distance(&pick(found), &pick(expected))
}

#[test]
fn half_precision_loses_nothing_but_digits() {
    // The kernels of both are the same templates.
    let in_both = ["llama", "gpt2", "gemma3_text", "qwen3_moe", "kquant"];
    for case in &steady_cases().filter(is_fixture).collect::<Vec<_>>() {
        let dtypes = if is_one_of(case, &in_both) { &[Format::BF16, Format::F16][..] } else { &[Format::BF16] };
        for &dtype in dtypes {
            let Some(mut model) = load(case, Some(dtype)) else { return };
            let exact = CpuOptions { exact: true, dtype: Some(dtype), ..CpuOptions::default() };
            let mut reference = Cpu::load_with(&case.checkpoint, exact).unwrap();
            let tokens = longest(case);
            let expected = rows(&mut reference, 0, &tokens);
            let has_experts = model.blueprint().experts.is_some();
            let distance = if has_experts { usual_distance } else { distance };
            let error = distance(&rows(&mut model, 0, &tokens), &expected);
            // The same by the kernels for few rows.
            let pieces: Vec<_> = tokens.chunks(3).flat_map(|piece| rows(&mut model, 1, piece)).collect();
            let few = distance(&pieces, &expected);
            println!("{}: {dtype}: {error:.1e}, in pieces {few:.1e}", case.name);
            assert!(error < 0.03 && few < 0.03, "{}: {dtype} is off by {error} and {few}", case.name);
        }
    }
}

#[test]
fn every_block_format_is_multiplied_as_it_is_stored() {
    let fixture = cases().into_iter().find(|case| is_fixture(case) && case.name.contains("kquant"));
    let case = fixture.expect("the fixture whose widths are multiples of every block");
    for format in Format::writable().filter(|format| format.block_values() > 1) {
        let Some(mut model) = load(&case, Some(format)) else { return };
        let exact = CpuOptions { exact: true, dtype: Some(format), ..CpuOptions::default() };
        let mut reference = Cpu::load_with(&case.checkpoint, exact).unwrap();
        let tokens: Vec<u32> = (0..70).map(|index| index * 37 % 290).collect();
        let expected = rows(&mut reference, 0, &tokens);
        // Kernels of 8, 16 and 32 rows, two passes, and the product of a widened matrix.
        for (slot, size, count) in [(0, 1, 3), (1, 9, 9), (2, 20, 20), (3, 40, 40), (4, 70, 70)] {
            let (tokens, expected) = (&tokens[..count], &expected[..count]);
            let found: Vec<_> = tokens.chunks(size).flat_map(|piece| rows(&mut model, slot, piece)).collect();
            let error = distance(&found, expected);
            println!("{format}: {size} rows at once: {error:.1e}");
            assert!(error < 0.02, "{format}: {size} rows at once are off by {error}");
        }
    }
}

/// Files mix formats: the head's is often another than that of the layers.
#[test]
fn layers_of_a_format_of_their_own_run_steps_of_any_size() {
    let fixture = cases().into_iter().find(|case| is_fixture(case) && case.name.contains("kquant"));
    let mut case = fixture.expect("the fixture whose widths are multiples of every block");
    let in_blocks = |tensor: &Tensor| {
        let is_matrix = tensor.shape.len() > 1 && tensor.name.starts_with("model.layers.");
        tensor.clone().in_format(if is_matrix { Format::Q4_K } else { tensor.format }).unwrap()
    };
    case.checkpoint.weights = crate::Weights::new("mixed", case.checkpoint.weights.iter().map(in_blocks));
    let Some(mut model) = load(&case, None) else { return };
    let exact = CpuOptions { exact: true, ..CpuOptions::default() };
    let mut reference = Cpu::load_with(&case.checkpoint, exact).unwrap();
    let tokens: Vec<u32> = (0..40).map(|index| index * 37 % 290).collect();
    let expected = rows(&mut reference, 0, &tokens);
    for (slot, size) in [(0, 20), (1, 40)] {
        let found: Vec<_> = tokens.chunks(size).flat_map(|piece| rows(&mut model, slot, piece)).collect();
        let error = distance(&found, &expected);
        assert!(error < 0.02, "{size} rows at once are off by {error}");
    }
}

/// Few rows far behind the beginning leave processors idle, unless the positions are divided among them.
#[test]
fn chains_far_behind_the_beginning_are_attended_to_in_parts() {
    let fixture = cases().into_iter().find(|case| is_fixture(case) && case.name.contains("kquant"));
    let mut case = fixture.expect("the fixture with heads as wide as the kernel's tiles");
    case.checkpoint.config.insert("max_position_embeddings".into(), 1024.into());
    let Some(mut model) = load(&case, Some(Format::BF16)) else { return };
    let exact = CpuOptions { exact: true, dtype: Some(Format::BF16), ..CpuOptions::default() };
    let mut reference = Cpu::load_with(&case.checkpoint, exact).unwrap();
    let tokens: Vec<u32> = (0..840).map(|index| index * 37 % 290).collect();
    let mut rest = tokens.as_slice();
    for count in [256, 256, 70, 128, 130] {
        let piece;
        (piece, rest) = rest.split_at(count);
        let error = distance(&rows(&mut model, 0, piece), &rows(&mut reference, 0, piece));
        println!("{} positions: {error:.1e}", tokens.len() - rest.len());
        assert!(error < 0.03, "{count} rows before position {} are off by {error}", tokens.len() - rest.len());
    }
}

#[test]
fn trees_prefixes_and_truncation_are_as_on_the_cpu() {
    // All kinds of attention, of layers and of experts.
    let names =
        ["llama", "gpt2", "gemma3_text", "cohere2", "stablelm_parallel", "olmo2", "qwen3_moe", "gpt_oss", "kquant"];
    for case in &steady_cases().filter(|case| is_one_of(case, &names)).collect::<Vec<_>>() {
        let Some(mut model) = load(case, Some(Format::F32)) else { return };
        let mut cpu = Cpu::load_with(&case.checkpoint, CpuOptions { exact: true, ..CpuOptions::default() }).unwrap();
        let tokens = longest(case);
        let list = &tokens[..tokens.len().min(21)];
        let mut check = |what: &str, act: &dyn Fn(&mut dyn Executor) -> Vec<Vec<f32>>| {
            let error = distance(&act(&mut model), &act(&mut cpu));
            assert!(error < 1e-4, "{}: {what} is off by {error}", case.name);
        };
        check("a chain", &|model| rows(model, 0, list));
        check("a tree", &|model| {
            let tree = Span {
                rows: 0..6,
                parents: Some(&[0, 0, 1, 2, 3, 4]),
                ..Span::chain(0, list.len(), &[7, 8, 8, 7, 9, 10])
            };
            let hidden = model.forward(&[tree]).unwrap();
            project(model, &hidden)
        });
        check("the accepted path", &|model| {
            model.keep(0, list.len(), &[1, 3].map(|node| list.len() + node)).unwrap();
            rows(model, 0, &[11])
        });
        check("a copied prefix", &|model| {
            model.copy(0, 1, 18).unwrap();
            [rows(model, 1, &[3, 4]), rows(model, 0, &[5])].concat()
        });
        check("a truncated cache", &|model| {
            model.truncate(0, 5);
            rows(model, 0, &[9; 3])
        });
        check("hidden states of a layer", &|model| {
            let start = model.cached(1);
            let span = |layer| Span { rows: 0..2, layer, ..Span::chain(1, start, &[5, 6]) };
            vec![model.forward(&[span(Layer::After(1))]).unwrap()]
        });
    }
}

#[test]
fn questions_are_answered_as_by_the_logits() {
    // A head alone, with a soft cap, and with a factor.
    for case in &steady_cases().filter(|case| is_one_of(case, &["llama", "gemma2", "cohere"])).collect::<Vec<_>>() {
        let Some(mut model) = load(case, None) else { return };
        let tokens = &longest(case)[..7];
        let logits = rows(&mut model, 0, tokens);
        // More than once, so that a recorded step answers too.
        for slot in [1, 2, 3] {
            let asks: Vec<Ask> =
                (0..7).map(|row| if row % 2 == 0 { Ask::Argmax } else { Ask::Logprob(row + 3) }).collect();
            let span = Span { rows: 0..7, ..Span::chain(slot, 0, tokens) };
            let answers = model.answer(&[span], &asks).unwrap().unwrap();
            for ((answer, ask), row) in answers.iter().zip(&asks).zip(&logits) {
                let best = (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32;
                let token = if let Ask::Logprob(token) = ask { *token } else { best };
                let expected = f64::from(row[token as usize]) - log_sum_exp(row);
                assert_eq!(answer.token, token, "{}", case.name);
                assert!((answer.logprob - expected).abs() < 1e-4, "{}: {answer:?}, expected {expected}", case.name);
            }
        }
    }
}

/// Another activation for each architecture.
fn activation_of(arch: u32) -> Activation {
    match arch {
        80 => Activation::Silu,
        89 => Activation::ClampedSilu,
        90 => Activation::GeluTanh,
        _ => Activation::Gelu,
    }
}

#[test]
fn kernels_compile_for_every_architecture() {
    if let Err(reason) = libraries::load_compiler() {
        return println!("skipped: {reason}");
    }
    let fixture = &cases()[0];
    let base = arch::blueprint(&fixture.checkpoint.config).unwrap();
    let epilogues = [Epilogue::Out, Epilogue::Heads, Epilogue::Residual, Epilogue::Gate];
    for compute in [Format::F32, Format::BF16, Format::F16] {
        let is_used = |format: &Format| *format == compute || (format.block_values() > 1 && compute == Format::BF16);
        let formats: Vec<_> = Format::writable().filter(is_used).map(|format| format.name()).collect();
        let linear: BTreeSet<_> =
            formats.iter().flat_map(|format| epilogues.map(|epilogue| (*format, epilogue))).collect();
        let of_experts = |(_, epilogue): &(&str, Epilogue)| matches!(epilogue, Epilogue::Out | Epilogue::Gate);
        let experts: BTreeSet<_> = linear.iter().copied().filter(of_experts).collect();
        for (arch, head_dim, gated) in [(80, 64, true), (89, 128, true), (90, 256, true), (100, 80, false)] {
            let plan = Experts { count: 128, used: 8, normalized: arch == 80, bias: false };
            let activation = activation_of(arch);
            let blueprint = Blueprint { head_dim, gated, activation, experts: gated.then_some(plan), ..base.clone() };
            let experts = if gated { experts.clone() } else { BTreeSet::new() };
            let uses = Uses { linear: linear.clone(), experts };
            // Another cache for each of the four.
            let kv = KvFormat::ALL[[80, 89, 90, 100].iter().position(|other| *other == arch).unwrap()];
            let types = Types { compute, kv };
            let request = Request { blueprint: &blueprint, types, uses: &uses, embedding: compute };
            let code = compiler::compile(&request.source(arch), arch).unwrap();
            println!("{compute} for sm_{arch}, heads of {head_dim}, cached in {kv}: {} KiB", code.len() >> 10);
        }
    }
}
