//! How texts use the tables of a vocabulary.

use std::sync::atomic::{AtomicBool, Ordering};

use wsd_nn::kernels::dense::{Matrix, Output, multiply};
use wsd_nn::{Executor, Span};

use crate::error::Result;
use crate::example::Example;

/// Tokens whose hidden states are summed up; counts are those of all texts.
const MOMENT_TOKENS: usize = 1 << 16;

/// The use of a vocabulary by texts: the occurrences of tokens, and the inputs of a head.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// The occurrences of each token, `(vocab)`.
    pub counts: Vec<u64>,
    /// The second moment of the final hidden states, `(hidden, hidden)`, with a mean of 1 on its
    /// diagonal.
    pub moment: Vec<f32>,
}

impl Usage {
    /// Reads texts with the model whose tables are compressed; calls `on_text` after each. Returns `None`
    /// if `stop` is set meanwhile.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn of(
        executor: &mut dyn Executor,
        texts: &[Example],
        stop: &AtomicBool,
        mut on_text: impl FnMut(),
    ) -> Result<Option<Self>> {
        let width = executor.blueprint().hidden;
        let mut counts = vec![0; executor.blueprint().vocab];
        let (mut sums, mut seen) = (vec![0.0; width * width], 0);
        for text in texts {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            for tokens in text.sequences.iter().map(|sequence| &sequence.tokens[..]) {
                tokens.iter().for_each(|token| counts[*token as usize] += 1);
                if seen >= MOMENT_TOKENS {
                    continue;
                }
                let hidden = executor.forward(&[Span { rows: 0..tokens.len(), ..Span::chain(0, 0, tokens) }])?;
                executor.release(0);
                let hidden = Matrix::dense(&hidden, width);
                multiply(1.0, hidden.transposed(), hidden, Output::add(&mut sums, width));
                seen += tokens.len();
            }
            on_text();
        }
        let trace: f32 = sums.iter().step_by(width + 1).sum();
        sums.iter_mut().for_each(|sum| *sum *= width as f32 / trace.max(f32::MIN_POSITIVE));
        Ok(Some(Self { counts, moment: sums }))
    }
}
