use super::super::Simd;
use super::*;

/// Random queries, keys and values in one head, and how they are attended to.
struct Case {
    head_dim: usize,
    positions: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    softcap: Option<f32>,
    format: KvFormat,
}

impl Case {
    fn new([head_dim, positions, group]: [usize; 3], size: f32) -> Self {
        let (queries, keys) = (noise(group * head_dim, 1, size), noise(positions * head_dim, 2, size));
        let values = noise(positions * head_dim, 3, size);
        Self { head_dim, positions, queries, keys, values, softcap: None, format: KvFormat::F32 }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn rows(&self, numbers: &[f32]) -> Vec<u8> {
        let mut rows = Vec::new();
        numbers.chunks(self.head_dim).for_each(|row| self.format.append(row, &mut rows));
        rows
    }

    /// The attention in blocks of `block` positions.
    fn attend(&self, simd: Simd, block: usize, queries: &[f32], sinks: &[f32]) -> Vec<f32> {
        let (group, width) = (queries.len() / self.head_dim, self.head_dim.next_multiple_of(LANES));
        let pad = |row: &[f32]| row.iter().copied().chain(vec![0.0; width - row.len()]).collect::<Vec<_>>();
        let queries: Vec<f32> = queries.chunks(self.head_dim).flat_map(pad).collect();
        let (keys, values) = (self.rows(&self.keys), self.rows(&self.values));
        let bytes = block * self.format.row_bytes(self.head_dim);
        let mut whole: Option<Vec<f32>> = None;
        for (keys, values) in keys.chunks(bytes).zip(values.chunks(bytes)) {
            let (scale, softcap, format) = (self.scale(), self.softcap, self.format);
            let attention = Attention { queries: &queries, keys, values, format, width, scale, softcap };
            let mut part = vec![f32::NAN; part_len(group, width)];
            attend(simd, attention, &mut vec![5.0; 3], &mut part);
            match &mut whole {
                Some(whole) => merge(whole, &part, group),
                None => whole = Some(part),
            }
        }
        let mut out = vec![f32::NAN; group * self.head_dim];
        finish(&whole.unwrap(), sinks, group, &mut out);
        out
    }

    /// The formula in double precision, with the sinks among the scores.
    fn expected(&self, query: &[f32], sink: Option<f32>) -> Vec<f64> {
        let scores = self.keys.chunks(self.head_dim).map(|key| {
            let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let score = dot * f64::from(self.scale());
            self.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        });
        let scores: Vec<f64> = scores.collect();
        let most = scores.iter().copied().chain(sink.map(f64::from)).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (f64::from(sink) - most).exp());
        let value = |position: usize, dim: usize| f64::from(self.values[position * self.head_dim + dim]);
        let sum = |dim| (0..self.positions).map(|position| weights[position] / total * value(position, dim)).sum();
        (0..self.head_dim).map(sum).collect()
    }
}

/// Returns pseudo-random numbers of magnitude up to `size`.
fn noise(len: usize, seed: usize, size: f32) -> Vec<f32> {
    (0..len).map(|i| (((i + 31 * seed) as f32 * 12.9898).sin() * 43758.547).fract() * size).collect()
}

#[test]
fn matches_the_formula_on_every_instruction_set() {
    for (head_dim, positions) in [(8, 1), (16, 33), (20, 70), (64, 5), (64, 130), (80, 9), (128, 18), (83, 17)] {
        for (group, softcap, size) in [(1, None, 2.0), (2, Some(3.0), 2.0), (3, None, 1e-20), (7, None, 20.0)] {
            let case = Case { softcap, ..Case::new([head_dim, positions, group], size) };
            for (simd, block) in Simd::all().into_iter().flat_map(|simd| [(simd, 16), (simd, 256)]) {
                let out = case.attend(simd, block, &case.queries, &[]);
                for (query, out) in case.queries.chunks(head_dim).zip(out.chunks(head_dim)) {
                    for (value, expected) in out.iter().zip(case.expected(query, None)) {
                        let error = (f64::from(*value) - expected).abs();
                        assert!(error <= 5e-4 * f64::from(size), "{simd:?} {head_dim}: {value} {expected}");
                    }
                }
                let last = &case.queries[(group - 1) * head_dim..];
                let alone = case.attend(simd, block, last, &[]);
                assert_eq!(alone, out[(group - 1) * head_dim..], "a query alone differs from one in a group");
            }
        }
    }
}

#[test]
fn a_sink_takes_its_share() {
    let case = Case::new([64, 300, 2], 2.0);
    let sinks = [1.5, -40.0];
    for simd in Simd::all() {
        let out = case.attend(simd, 256, &case.queries, &sinks);
        for ((query, out), sink) in case.queries.chunks(64).zip(out.chunks(64)).zip(sinks) {
            for (value, expected) in out.iter().zip(case.expected(query, Some(sink))) {
                assert!((f64::from(*value) - expected).abs() <= 1e-3, "{simd:?}: {value} {expected}");
            }
        }
    }
}

#[test]
fn rounded_caches_stay_close() {
    for (format, tolerance) in [(KvFormat::F16, 2e-3), (KvFormat::BF16, 2e-2), (KvFormat::Q8_0, 4e-2)] {
        let case = Case { format, ..Case::new([80, 300, 3], 2.0) };
        for simd in Simd::all() {
            let out = case.attend(simd, 256, &case.queries, &[]);
            for (query, out) in case.queries.chunks(80).zip(out.chunks(80)) {
                for (value, expected) in out.iter().zip(case.expected(query, None)) {
                    let error = (f64::from(*value) - expected).abs();
                    assert!(error <= tolerance, "{simd:?} {format}: {value} {expected}");
                }
            }
        }
    }
}

#[test]
fn nan_in_a_key_reaches_every_output() {
    for (simd, format) in Simd::all().into_iter().flat_map(|simd| KvFormat::ALL.map(|format| (simd, format))) {
        let mut case = Case { format, ..Case::new([64, 40, 1], 1.0) };
        case.keys[37 * 64 + 5] = f32::NAN;
        let out = case.attend(simd, 16, &case.queries, &[]);
        assert!(out.iter().all(|value| value.is_nan()), "{simd:?} {format}");
    }
}
