//! A request that the scheduler is processing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use wsd_core::{Error, Token, Tree, TreeShape};

use super::list::List;
use super::prefix_cache::Place;
use super::questions::{NotFinite, Output, Question, Vectors};
use crate::executor::{Answer, Ask, Span};

/// A question about a list.
pub(super) struct Work {
    /// The session's slot, and the scope of its cache.
    pub(super) place: Place,
    list: List,
    question: Box<dyn Question>,
    fault: Option<NotFinite>,
    /// The last step that ran it, counted from 1; 0 before the first.
    pub(super) ran: usize,
    /// Tokens that the session copied from the caches of others.
    pub(super) reused: Arc<AtomicUsize>,
}

/// The part of a work that a step computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Index of the work.
    pub(super) work: usize,
    /// Positions of its list to run; none for a tree of the draft head.
    pub(super) range: Range<usize>,
    /// The number of outputs that are read, those of the draft head included.
    pub(super) rows: usize,
}

impl Work {
    pub(super) fn new(place: Place, list: List, question: impl Question + 'static) -> Self {
        Self { place, list, question: Box::new(question), fault: None, ran: 0, reused: Arc::default() }
    }

    /// The same work, which counts the tokens that its session copies from the caches of others.
    pub(super) fn counting(self, reused: Arc<AtomicUsize>) -> Self {
        Self { reused, ..self }
    }

    /// The vectors it reads.
    pub(super) fn output(&self) -> Output {
        self.question.output()
    }

    /// The list.
    pub(super) fn list(&self) -> &List {
        &self.list
    }

    /// The same work, which needs no vectors before position `next`.
    pub(super) fn starting_at(mut self, next: usize) -> Self {
        self.list.next = next.min(self.end());
        self
    }

    /// True for a question about a tree of the draft head.
    pub(super) fn proposes(&self) -> bool {
        self.question.wanted_tree().is_some()
    }

    /// The shape of the tree of the draft head, if nothing else is left to compute.
    pub(super) fn due_tree(&self) -> Option<TreeShape> {
        let is_due = self.fault.is_none() && self.question.is_done(&self.list);
        self.question.wanted_tree().filter(|_| is_due)
    }

    /// Takes in the tree of the draft head, or the error in its stead.
    pub(super) fn take_tree(&mut self, tree: wsd_core::Result<Tree>) {
        self.question.take_tree(tree);
    }

    /// True for a list continued by a tree, whose vertices are run in one step.
    pub(super) fn has_tree(&self) -> bool {
        !self.list.parents.is_empty()
    }

    /// True if the receiver of the answer was dropped.
    pub(super) fn is_abandoned(&self) -> bool {
        self.question.is_abandoned()
    }

    /// True while the client is too slow to receive the next token.
    pub(super) fn is_blocked(&self) -> bool {
        self.question.is_blocked()
    }

    /// All tokens, those of a tree's nodes included.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.list.tokens
    }

    /// Length of the longest sequence.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The tokens before the first requested vector. Only these may come from the cache, because
    /// output vectors are not cached.
    pub(super) fn before_rows(&self) -> &[Token] {
        &self.list.tokens[..self.list.next]
    }

    /// The tokens to run that other works may share: those before the nodes of a tree.
    pub(super) fn shareable(&self) -> &[Token] {
        &self.list.tokens[..self.end().min(self.list.chain())]
    }

    /// The end of the positions to run.
    pub(super) fn end(&self) -> usize {
        self.question.end(self.list.tokens.len())
    }

    /// The positions to run next, at most `limit` of them, given how many are cached. A tree is run
    /// whole in one step, whatever the limit.
    pub(super) fn next_range(&self, cached: usize, limit: usize) -> Range<usize> {
        let tail = self.tail();
        let end = if cached == tail { self.end() } else { tail.min(cached + limit) };
        cached..end.max(cached)
    }

    /// The first position that must be run together with all after it.
    fn tail(&self) -> usize {
        if self.has_tree() { self.list.chain() - 1 } else { self.end() }
    }

    /// A range of positions as the executor takes it.
    pub(super) fn span(&self, range: &Range<usize>) -> Span<'_> {
        let rows = self.list.next.clamp(range.start, range.end) - range.start..range.len();
        let layer = match self.output() {
            Output::Hidden(layer) => layer,
            Output::Inner(layers) => wsd_core::Layer::Normed(layers),
            Output::Head(_) => wsd_core::Layer::Final,
        };
        let parents = (self.has_tree() && range.start == self.tail()).then_some(&self.list.parents[..]);
        Span { rows, layer, parents, ..Span::chain(self.place.slot, range.start, &self.list.tokens[range.clone()]) }
    }

    /// A range of positions as the cache takes it: the tokens of the list, and the tree behind
    /// them.
    pub(super) fn cacheable(&self, range: &Range<usize>) -> (&[Token], Option<&Tree>) {
        let end = range.end.min(self.list.chain());
        (&self.list.tokens[range.start..end], (end < range.end).then_some(&self.list.tree))
    }

    /// Takes in the next vectors; those after a fault or after the end are ignored.
    pub(super) fn take(&mut self, vectors: Vectors<'_>) {
        if self.fault.is_none() && !self.question.is_done(&self.list) {
            self.fault = self.question.take(&mut self.list, vectors).err();
        }
    }

    /// The questions about its next `rows` vectors, if a device may answer all of them.
    pub(super) fn asks(&self, rows: usize) -> Option<Vec<Ask>> {
        let is_plain = self.output() == Output::Head(crate::arch::Head::VOCABULARY);
        let positions = self.list.next..self.list.next + rows;
        positions.map(|position| self.question.ask(&self.list, position).filter(|_| is_plain)).collect()
    }

    /// Takes in the next answers; those after a fault or after the end are ignored. `vector` returns
    /// that of an answer, by its index, where the answer does not decide.
    ///
    /// # Errors
    /// Those of `vector`.
    pub(super) fn take_answers(
        &mut self,
        answers: &[Answer],
        mut vector: impl FnMut(usize) -> crate::Result<Vec<f32>>,
    ) -> crate::Result<()> {
        for (index, answer) in answers.iter().enumerate() {
            if self.fault.is_some() || self.question.is_done(&self.list) {
                break;
            }
            match self.question.take_answer(&mut self.list, answer) {
                Ok(true) => {}
                Ok(false) => {
                    let mut floats = vector(index)?;
                    let width = floats.len();
                    self.take(Vectors { floats: &mut floats, width });
                }
                Err(fault) => self.fault = Some(fault),
            }
        }
        Ok(())
    }

    /// True if nothing is left to compute, or there is an error.
    pub(super) fn is_done(&self) -> bool {
        self.fault.is_some() || (self.question.is_done(&self.list) && !self.proposes())
    }

    /// Sends the answer, or the error if there is one.
    pub(super) fn finish(self, engine: &str) {
        if self.fault.is_none() {
            return self.question.finish();
        }
        // The vector at fault predicts the position after it.
        let position = self.list.through(self.list.next).len();
        self.fail(Error::NotFinite { engine: engine.to_owned(), position });
    }

    /// Ends with an error.
    pub(super) fn fail(self, error: Error) {
        self.question.fail(error);
    }
}
