//! Caches of keys and values in number formats of their own.

use super::*;

/// Fixtures with heads of different widths, with and without norms of queries and keys.
const NAMES: [&str; 3] = ["llama", "gemma3_text", "kquant"];

/// Logits of tokens in a new slot, so many at once.
fn logits(model: &mut dyn Executor, tokens: &[u32], size: usize) -> Vec<Vec<f32>> {
    let found = tokens.chunks(size).flat_map(|piece| rows(model, 9, piece)).collect();
    model.release(9);
    found
}

#[test]
fn rounded_caches_are_as_close_as_those_of_the_cpu() {
    for case in NAMES.map(fixture) {
        let tokens = longest(&case)[..24].to_vec();
        let on_cpu = |kv| {
            let options = CpuOptions { exact: true, kv: Some(kv), ..CpuOptions::default() };
            logits(&mut Cpu::load_with(&case.checkpoint, options).unwrap(), &tokens, tokens.len())
        };
        let expected = on_cpu(KvFormat::F32);
        for kv in KvFormat::ALL {
            let options = CudaOptions { dtype: Some(Format::F32), kv: Some(kv) };
            let Some(mut model) = load_with(&case, options) else { return };
            let bound = 1.5 * distance(&on_cpu(kv), &expected) + 1e-4;
            for size in [tokens.len(), 3] {
                let error = distance(&logits(&mut model, &tokens, size), &expected);
                println!("{} {kv}, {size} rows at once: {error:.1e}, at most {bound:.1e}", case.name);
                assert!(error <= bound, "{} {kv}: {size} rows at once are off by {error}, not {bound}", case.name);
            }
        }
    }
}

/// The types of activations and of the cache are independent, also where many rows share a read.
#[test]
fn every_type_of_activations_reads_every_cache() {
    let case = fixture("kquant");
    let tokens: Vec<u32> = (0..70).map(|index| index * 37 % 290).collect();
    for dtype in [Format::BF16, Format::F16] {
        let exact = CpuOptions { exact: true, dtype: Some(dtype), ..CpuOptions::default() };
        let expected = logits(&mut Cpu::load_with(&case.checkpoint, exact).unwrap(), &tokens, tokens.len());
        for kv in KvFormat::ALL {
            let Some(mut model) = load_with(&case, CudaOptions { dtype: Some(dtype), kv: Some(kv) }) else { return };
            for size in [70, 8] {
                let error = distance(&logits(&mut model, &tokens, size), &expected);
                println!("{dtype} with {kv}, {size} rows at once: {error:.1e}");
                assert!(error < 0.03, "{dtype} with {kv}: {size} rows at once are off by {error}");
            }
        }
    }
}

/// The rest of a truncated slot is what a new one has of the same tokens.
#[test]
fn bytes_are_shared_copied_moved_and_dropped_by_positions() {
    let case = fixture("kquant");
    let options = CudaOptions { dtype: Some(Format::F32), kv: Some(KvFormat::Q8_0) };
    let Some(mut model) = load_with(&case, options) else { return };
    let list = longest(&case)[..21].to_vec();
    let check = |model: &mut Cuda, what: &str, slot: u64, known: &[u32], tokens: &[u32]| {
        let found = rows(model, slot, tokens);
        let whole = logits(model, &[known, tokens].concat(), 64);
        let error = distance(&found, &whole[known.len()..]);
        assert!(error < 1e-3, "{what} is off by {error}");
    };
    check(&mut model, "a chain", 0, &[], &list);
    model.forward(&[Span { parents: Some(&[0, 0, 1, 2, 3]), ..Span::chain(0, 21, &[7, 8, 8, 7, 9]) }]).unwrap();
    model.keep(0, 21, &[22, 24]).unwrap();
    check(&mut model, "the accepted path", 0, &[&list[..], &[8, 7]].concat(), &[11, 12]);
    // The second page is copied when one of its holders writes to it.
    model.copy(0, 1, 18).unwrap();
    check(&mut model, "a copied prefix", 1, &list[..18], &[3, 4, 5]);
    check(&mut model, "the slot that it came from", 0, &[&list[..], &[8, 7, 11, 12]].concat(), &[5]);
    model.truncate(0, 5);
    check(&mut model, "a truncated cache", 0, &list[..5], &[9; 3]);
}

/// A page of bytes takes a quarter of one of floats, and its scales.
#[test]
fn pages_are_counted_in_true_bytes() {
    let blueprint = arch::blueprint(&fixture("kquant").checkpoint.config).unwrap();
    let page = |kv| Types { compute: Format::BF16, kv }.page_bytes(&blueprint);
    let numbers = 2 * blueprint.kv_heads * PAGE * blueprint.head_dim;
    let expected = [4 * numbers, 2 * numbers, 2 * numbers, numbers + numbers / 16];
    assert_eq!(KvFormat::ALL.map(page), expected);
}
