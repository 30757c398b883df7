//! Layers that few architectures have, with tensors made up for the test.

use super::*;
use crate::arch::{Experts, Norms};

/// The tensors of a blueprint with small pseudorandom values; norms are near one.
fn make_up(blueprint: &Blueprint) -> crate::Weights {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let tensors = arch::tensors(blueprint).into_iter().map(|(name, shape)| {
        let count = shape.iter().product::<usize>();
        let scale = if shape.len() > 1 { (3.0 / shape[1] as f32).sqrt() } else { 0.2 };
        // Sinks are as large as the sum of several hundred scores.
        let centers = [("norm.weight", 1.0), (arch::SINKS, 8.0)];
        let center = centers.into_iter().find(|(part, _)| name.ends_with(part)).map_or(0.0, |(_, center)| center);
        let values: Vec<f32> = (0..count).map(|_| center + scale * next()).collect();
        let bytes = Format::F32.quantize(&values).unwrap();
        Tensor::new(name, Format::F32, shape, bytes).unwrap()
    });
    crate::Weights::new("made up", tensors)
}

/// A fixture's model with another blueprint, on the GPU and on the CPU.
fn load_changed(name: &str, dtype: Format, change: impl FnOnce(&mut Blueprint)) -> Option<(Cuda, Cpu)> {
    let mut case =
        cases().into_iter().find(|case| case.name.ends_with(&format!("fixtures/{name}/config.json"))).unwrap();
    let mut blueprint = arch::blueprint(&case.checkpoint.config).unwrap();
    change(&mut blueprint);
    case.checkpoint.weights = make_up(&blueprint);
    let gpu = gpu()?;
    let options = CudaOptions { dtype: Some(dtype), ..CudaOptions::default() };
    let cuda = Cuda::load_blueprint(all(vec![gpu]), &case.checkpoint, blueprint.clone(), options).unwrap();
    let exact = CpuOptions { exact: true, dtype: Some(dtype), ..CpuOptions::default() };
    Some((cuda, Cpu::load_blueprint(&case.checkpoint, blueprint, exact).unwrap()))
}

/// The usual error of logits of `count` tokens, `size` of them at once.
fn error((cuda, cpu): &mut (Cuda, Cpu), count: usize, size: usize) -> f64 {
    let tokens: Vec<u32> = (0..count as u32).map(|index| index * 37 % 290).collect();
    let found: Vec<_> = tokens.chunks(size).flat_map(|piece| rows(cuda, 0, piece)).collect();
    let error = usual_distance(&found, &rows(cpu, 0, &tokens));
    cuda.release(0);
    cpu.release(0);
    error
}

#[test]
fn layer_norms_of_heads_and_before_sums_are_as_on_the_cpu() {
    // Norms of each head, and of all heads at once; both norm the outputs of both parts.
    for name in ["gemma3_text", "olmo2"] {
        let change = |blueprint: &mut Blueprint| {
            let norms = Norms { centered: true, bias: true, ..blueprint.norms };
            blueprint.norms = norms;
        };
        let Some(mut models) = load_changed(name, Format::F32, change) else { return };
        for size in [1, 20] {
            let error = error(&mut models, 20, size);
            assert!(error < 1e-4, "{name}: {size} rows at once are off by {error}");
        }
    }
}

/// Block formats of all layouts: 8, 4, 5 and 6 bits, with minima, and tables.
const LAYOUTS: [Format; 6] = [Format::Q8_0, Format::Q4_K, Format::Q5_0, Format::Q5_K, Format::Q6_K, Format::MXFP4];

#[test]
fn experts_in_block_formats_run_steps_of_any_size() {
    for format in LAYOUTS {
        let change = |blueprint: &mut Blueprint| {
            (blueprint.hidden, blueprint.ffn, blueprint.mlp_bias) = (256, 256, true);
            blueprint.experts = blueprint.experts.map(|experts| Experts { bias: true, ..experts });
            blueprint.layers.truncate(1);
        };
        let Some(mut models) = load_changed("qwen3_moe", format, change) else { return };
        // Groups of one row, of several of each size of kernel, and several groups of an expert.
        for (count, size) in [(2, 1), (9, 9), (80, 80)] {
            let error = error(&mut models, count, size);
            println!("{format}: {size} rows at once: {error:.1e}");
            assert!(error < 0.02, "{format}: {size} rows at once are off by {error}");
        }
    }
}

#[test]
fn experts_of_formats_of_their_own_are_brought_to_one() {
    let case = cases().into_iter().find(|case| case.name.ends_with("fixtures/gpt_oss/config.json"));
    let mut case = case.unwrap();
    let in_blocks = |tensor: &Tensor| {
        let is_expert = tensor.shape.len() > 1 && tensor.name.contains("experts.1.down_proj");
        tensor.clone().in_format(if is_expert { Format::Q8_0 } else { tensor.format }).unwrap()
    };
    case.checkpoint.weights = crate::Weights::new("mixed", case.checkpoint.weights.iter().map(in_blocks));
    let Some(mut model) = load(&case, None) else { return };
    let mut cpu = Cpu::load_with(&case.checkpoint, CpuOptions { exact: true, ..CpuOptions::default() }).unwrap();
    let tokens = longest(&case);
    let error = usual_distance(&rows(&mut model, 0, &tokens), &rows(&mut cpu, 0, &tokens));
    assert!(error < 0.03, "off by {error}");
}

/// Chains from the beginning and in parts far behind it, and few rows in parts.
#[test]
fn sinks_take_their_share_of_every_kind_of_attention() {
    let change = |blueprint: &mut Blueprint| {
        (blueprint.sinks, blueprint.max_len) = (true, 1024);
        blueprint.attention_scale = 2.0 / (blueprint.head_dim as f32).sqrt();
        blueprint.layers.truncate(1);
    };
    let Some((mut cuda, mut cpu)) = load_changed("kquant", Format::BF16, change) else { return };
    let tokens: Vec<u32> = (0..710).map(|index| index * 37 % 290).collect();
    let mut rest = tokens.as_slice();
    for count in [256, 256, 128, 64, 3, 3] {
        let piece;
        (piece, rest) = rest.split_at(count);
        let error = distance(&rows(&mut cuda, 0, piece), &rows(&mut cpu, 0, piece));
        println!("{count} rows before position {}: {error:.1e}", tokens.len() - rest.len());
        assert!(error < 0.03, "{count} rows before position {} are off by {error}", tokens.len() - rest.len());
    }
}
