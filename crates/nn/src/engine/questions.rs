//! Kinds of requests on a token list. A new kind is a file here: a [`Reader`] if the answer has one
//! item per output vector, otherwise its own [`Question`].

mod choices;
mod collect;
mod generate;
mod hidden;
mod inner;
mod outputs;
mod propose;
mod rows;
mod score;

use wsd_core::{Error, Layer, Result, Tree, TreeShape};

pub(super) use choices::Choices;
pub(super) use collect::{Collect, Reader};
pub(super) use generate::Generate;
pub(super) use hidden::Hidden;
pub(super) use inner::Inner;
pub(super) use outputs::Outputs;
pub(super) use propose::Propose;
pub(super) use rows::Rows;
pub(super) use score::Score;

use super::list::List;
use crate::arch::Head;
use crate::executor::{Answer, Ask};

/// The kind of vector that a question reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The hidden state of a layer.
    Hidden(Layer),
    /// The output of a head.
    Head(Head),
    /// The vocabulary logits of the residual stream after this number of layers.
    Inner(usize),
}

/// Consecutive output vectors, `(rows, width)`. Questions may use them as scratch.
pub(super) struct Vectors<'a> {
    pub(super) floats: &'a mut [f32],
    pub(super) width: usize,
}

/// The error for an output vector that contains NaN or infinity.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotFinite;

/// A request on a token list, with the channel for its answer.
pub(super) trait Question: Send {
    /// The kind of vectors it reads.
    fn output(&self) -> Output {
        Output::Head(Head::VOCABULARY)
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

    /// The question about the vector of a position, if a device may answer it in place of the vector.
    fn ask(&self, list: &List, position: usize) -> Option<Ask> {
        let _ = (list, position);
        None
    }

    /// Takes in the answer of [`Question::ask`] for the next position, and advances the list past it.
    /// Returns false, and does nothing, if only the vector decides.
    ///
    /// # Errors
    /// An answer that is not finite.
    fn take_answer(&mut self, list: &mut List, answer: &Answer) -> Result<bool, NotFinite> {
        let _ = (list, answer);
        Ok(false)
    }

    /// The shape of the tree that the draft head shall propose once all vectors were taken; `None` once
    /// it has proposed one.
    fn wanted_tree(&self) -> Option<TreeShape> {
        None
    }

    /// Takes in the tree of [`Question::wanted_tree`], or the error in its stead.
    fn take_tree(&mut self, _: Result<Tree>) {}

    /// True when the question needs no vector of the list any more.
    fn is_done(&self, list: &List) -> bool {
        list.next() >= self.end(list.tokens().len())
    }

    /// Sends the answer.
    fn finish(self: Box<Self>);

    /// Sends an error.
    fn fail(self: Box<Self>, error: Error);

    /// True if the receiver of the answer was dropped.
    fn is_abandoned(&self) -> bool;

    /// True while the answer's channel is full because the client is slow.
    fn is_blocked(&self) -> bool {
        false
    }
}
