//! Questions about a token list. A new kind of question is a file here: a [`Reader`] if each vector
//! gives one item of the answer, else a [`Question`] of its own.

mod choices;
mod collect;
mod generate;
mod hidden;
mod rewards;
mod rows;
mod score;

use wsd_core::{Error, Layer, Result};

pub(super) use choices::Choices;
pub(super) use collect::{Collect, Reader};
pub(super) use generate::Generate;
pub(super) use hidden::Hidden;
pub(super) use rewards::Rewards;
pub(super) use rows::Rows;
pub(super) use score::Score;

use super::list::List;
use crate::arch::Head;

/// The kind of vector that a question reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The hidden state of a layer.
    Hidden(Layer),
    /// The output of a head.
    Head(Head),
}

/// Consecutive output vectors, `(rows, width)`. Questions may use them as scratch.
pub(super) struct Vectors<'a> {
    pub(super) floats: &'a mut [f32],
    pub(super) width: usize,
}

/// The next vector holds NaN or infinity.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotFinite;

/// Something asked about a list, and the way back to who asked.
pub(super) trait Question: Send {
    /// The kind of vectors it reads.
    fn output(&self) -> Output {
        Output::Head(Head::Vocabulary)
    }

    /// The end of the positions it needs vectors of, in a list of `len` tokens.
    fn end(&self, len: usize) -> usize {
        len
    }

    /// Takes in the vectors of the next positions of the list, which are consecutive from
    /// [`List::next`] on, and advances the list past them.
    ///
    /// # Errors
    /// A vector that is not finite; the list is advanced up to it.
    fn take(&mut self, list: &mut List, vectors: Vectors<'_>) -> Result<(), NotFinite>;

    /// True when the question needs no vector of the list any more.
    fn is_done(&self, list: &List) -> bool {
        list.next() >= self.end(list.tokens().len())
    }

    /// Sends the answer.
    fn finish(self: Box<Self>);

    /// Sends an error.
    fn fail(self: Box<Self>, error: Error);

    /// True when nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;

    /// True while the next part of the answer could not be sent because the reader is too slow.
    fn is_blocked(&self) -> bool {
        false
    }
}
