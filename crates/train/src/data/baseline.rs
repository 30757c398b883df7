//! Answers to other prompts, from which the divergence from the start model is estimated.

use crate::example::{Example, Sequence};

/// Adds to each example a baseline: its prompt with the answer of the nearest example before it,
/// counted in a circle, that has another prompt. They are joined as tokens and cut to `max_len`.
pub(super) fn add(examples: &mut [Example], max_len: Option<usize>) {
    let parts: Vec<_> = examples.iter().map(parts).collect();
    let baselines: Vec<_> = (0..parts.len()).map(|at| baseline(&parts, at, max_len)).collect();
    for (example, baseline) in examples.iter_mut().zip(baselines) {
        example.baseline = baseline.map(Box::new);
    }
}

/// The tokens before the last answer of an example, and those of the answer.
fn parts(example: &Example) -> (Vec<u32>, Vec<u32>) {
    let Some(sequence) = example.sequences.first() else { return Default::default() };
    let answer = sequence.target_ranges.last().cloned().unwrap_or_default();
    (sequence.tokens[..answer.start].to_vec(), sequence.tokens[answer].to_vec())
}

fn baseline(parts: &[(Vec<u32>, Vec<u32>)], at: usize, max_len: Option<usize>) -> Option<Example> {
    let prompt = &parts[at].0;
    let before = |back: &usize| (at + parts.len() - back) % parts.len();
    let back = (1..parts.len()).find(|back| parts[before(back)].0 != *prompt).unwrap_or(1);
    let tokens = [prompt.as_slice(), &parts[before(&back)].1].concat();
    let mut sequence = Sequence::targets_from(prompt.len(), tokens);
    sequence.truncate(max_len.unwrap_or(usize::MAX));
    (sequence.targets() > 0).then(|| Example::of(sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_answer_another_prompt() {
        let example = |prompt: u32, answer: u32| Example::of(Sequence::targets_from(1, vec![prompt, answer, 9]));
        let mut examples = vec![example(1, 10), example(1, 11), example(2, 12)];
        add(&mut examples, Some(3));
        let tokens = |at: usize| examples[at].baseline.as_ref().unwrap().sequences[0].tokens.clone();
        assert_eq!([tokens(0), tokens(1), tokens(2)], [[1, 12, 9], [1, 12, 9], [2, 11, 9]]);
        let mut alone = vec![example(1, 10)];
        add(&mut alone, Some(1));
        assert_eq!(alone[0].baseline, None);
    }
}
