//! Comparison of the engine with numbers of the reference implementation, and with itself: bits do
//! not depend on how a sequence is divided into steps.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cases;

use cases::{Case, cases, is_stretched, log_sum_exp, longest, meet, project, rows, steady_cases};
use wsd_nn::arch::Head;
use wsd_nn::kernels::Simd;
use wsd_nn::{Cpu, CpuOptions, Executor, Format, KvFormat, Span};

/// The log-probability of each token but the first.
fn log_probabilities(model: &mut dyn Executor, tokens: &[u32]) -> Vec<f64> {
    let rows = rows(model, 0, tokens);
    rows.iter().zip(&tokens[1..]).map(|(row, token)| f64::from(row[*token as usize]) - log_sum_exp(row)).collect()
}

/// Options of the exact path, which rounds no activation, on an instruction set.
fn exact(case: &Case, simd: Simd) -> Cpu {
    Cpu::load_with(&case.checkpoint, CpuOptions { simd, exact: true, ..CpuOptions::default() }).unwrap()
}

#[test]
fn every_instruction_set_meets_the_reference() {
    for case in cases() {
        for simd in Simd::all() {
            let worst = meet(&case.name, &mut exact(&case, simd), &case.sequences);
            println!("{} {simd:?}: log-probabilities within {worst:.1e}", case.name);
        }
    }
}

/// Products with integers and bfloat16 round activations; formats without rounding give equal bits
/// on both paths.
#[test]
fn rounded_activations_stay_near_the_exact_path() {
    for case in steady_cases() {
        // The weights are random and larger than a trained model's, and so are the differences.
        let bound = |format| match format {
            Format::F32 | Format::F16 => 1e-5,
            Format::BF16 => 0.05,
            _ => 0.15,
        };
        let bound = case.checkpoint.weights.iter().map(|tensor| bound(tensor.format)).fold(0.0, f64::max);
        let tokens = longest(&case);
        let expected = log_probabilities(&mut exact(&case, Simd::detect()), &tokens);
        // A router may choose another expert where two are nearly equal.
        let routed = if has_experts(&case) { 10.0 } else { 1.0 };
        let caches = [
            (KvFormat::F32, 0.0),
            (KvFormat::F16, 0.003 * routed),
            (KvFormat::BF16, 0.03 * routed),
            (KvFormat::Q8_0, 0.05 * routed),
        ];
        for (simd, (kv, of_cache)) in Simd::all().into_iter().flat_map(|simd| caches.map(|cache| (simd, cache))) {
            let options = CpuOptions { simd, kv: Some(kv), ..CpuOptions::default() };
            let found = log_probabilities(&mut Cpu::load_with(&case.checkpoint, options).unwrap(), &tokens);
            let errors = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
            let mean = errors.sum::<f64>() / found.len() as f64;
            println!("{} {simd:?} {kv}: off by {mean:.1e} on average", case.name);
            assert!(mean <= bound + of_cache, "{} {simd:?} {kv}: {mean}", case.name);
        }
    }
}

fn has_experts(case: &Case) -> bool {
    exact(case, Simd::detect()).blueprint().experts.is_some()
}

#[test]
fn chunks_and_single_tokens_give_equal_bits() {
    for case in steady_cases() {
        let mut cpu = Cpu::load(&case.checkpoint).unwrap();
        let tokens = longest(&case);
        let whole = rows(&mut cpu, 0, &tokens);
        for (slot, size) in [(1, 1), (2, 3), (3, 5), (4, 16)] {
            let pieces: Vec<_> = tokens.chunks(size).flat_map(|piece| rows(&mut cpu, slot, piece)).collect();
            assert!(pieces == whole, "{} in pieces of {size}", case.name);
        }
        assert_eq!(cpu.slots(), 5);
    }
}

#[test]
fn other_sequences_in_a_batch_change_no_bit() {
    for case in steady_cases() {
        let mut cpu = Cpu::load(&case.checkpoint).unwrap();
        let tokens = longest(&case);
        let alone = rows(&mut cpu, 0, &tokens);
        let (half, other) = (tokens.len() / 2, &tokens[3..]);
        let first = cpu
            .forward(&[
                Span { rows: 0..half, ..Span::chain(1, 0, &tokens[..half]) },
                Span::chain(2, 0, other),
                Span::chain(3, 0, &[]),
            ])
            .unwrap();
        let second = cpu
            .forward(&[
                Span { rows: 0..1, ..Span::chain(2, other.len(), &other[..1]) },
                Span { rows: 6..7, ..Span::chain(4, 0, &other[..7]) },
                Span { rows: 1..tokens.len() - half, ..Span::chain(1, half, &tokens[half..]) },
            ])
            .unwrap();
        let width = cpu.blueprint().hidden;
        let (first, second) = (project(&mut cpu, &first), project(&mut cpu, &second[2 * width..]));
        assert!(first == alone[..half] && second == alone[half + 1..], "{}", case.name);
        assert_eq!(cpu.cached(2), other.len() + 1);
    }
}

#[test]
fn a_truncated_cache_equals_a_fresh_one() {
    for case in steady_cases() {
        let mut cpu = Cpu::load(&case.checkpoint).unwrap();
        let tokens = longest(&case);
        let kept = tokens.len() / 3;
        let other: Vec<u32> = tokens[..kept].iter().chain(tokens.iter().rev()).copied().take(tokens.len()).collect();
        rows(&mut cpu, 0, &tokens);
        cpu.truncate(0, kept);
        assert_eq!(cpu.cached(0), kept);
        let edited = rows(&mut cpu, 0, &other[kept..]);
        assert!(edited == rows(&mut cpu, 1, &other)[kept..], "{}", case.name);
        cpu.truncate(0, usize::MAX);
        cpu.truncate(0, 0);
        assert_eq!((cpu.cached(0), cpu.slots()), (0, 2));
        cpu.release(0);
        assert_eq!(cpu.slots(), 1);
    }
}

#[test]
fn invalid_spans_are_errors_and_change_nothing() {
    let Some(case) = cases().into_iter().next() else { return };
    let mut cpu = Cpu::load(&case.checkpoint).unwrap();
    rows(&mut cpu, 0, &[5, 6, 7]);
    let (vocab, limit) = (cpu.blueprint().vocab as u32, cpu.blueprint().max_len);
    let good = Span { rows: 0..1, ..Span::chain(0, 3, &[1]) };
    let long = vec![1; limit];
    #[allow(clippy::reversed_empty_ranges)]
    for (bad, word) in [
        (Span::chain(1, 1, &[1]), "0 are cached"),
        (Span::chain(1, 0, &[vocab]), "token"),
        (Span { rows: 0..2, ..Span::chain(1, 0, &[1]) }, "rows"),
        (Span { rows: 1..0, ..Span::chain(1, 0, &[1]) }, "rows"),
        (Span::chain(0, 3, &long), "limit"),
        (good.clone(), "it occurs twice in the step"),
    ] {
        let error = cpu.forward(&[bad, good.clone()]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!((cpu.cached(0), cpu.slots()), (3, 1));
    }
    assert!(cpu.project(Head::VOCABULARY, &[0.0; 3], &mut Vec::new()).is_err());
}

/// With LongRoPE, a sequence that grows over the border in pieces ends like one that was run whole.
#[test]
fn crossing_the_border_of_long_rope_leaves_no_trace() {
    for mut case in cases().into_iter().filter(is_stretched) {
        let tokens = longest(&case);
        case.checkpoint.config.insert("original_max_position_embeddings".into(), (tokens.len() / 2).into());
        let mut cpu = Cpu::load(&case.checkpoint).unwrap();
        let whole = rows(&mut cpu, 0, &tokens);
        let grown: Vec<_> = tokens.chunks(3).flat_map(|piece| rows(&mut cpu, 1, piece)).collect();
        assert!(whole[tokens.len() / 2 + 2..] == grown[tokens.len() / 2 + 2..], "{}", case.name);
        cpu.truncate(0, 10);
        let again = rows(&mut cpu, 0, &tokens[10..13]);
        assert!(again == grown[10..13], "{}", case.name);
    }
}
