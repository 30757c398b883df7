//! Questions whose answer has one item for each vector.

use rayon::prelude::*;
use tokio::sync::oneshot;
use wsd_core::{Error, Result};

use super::{NotFinite, Output, Question, Vectors};
use crate::arch::Head;
use crate::engine::list::List;
use crate::executor::{Answer, Ask};

/// A conversion of one output vector into an item of the answer.
pub(in crate::engine) trait Reader: Send + Sync + 'static {
    /// An item of the answer.
    type Item: Send;

    /// The vectors it reads.
    fn output(&self) -> Output {
        Output::Head(Head::VOCABULARY)
    }

    /// The end of the positions it needs vectors of, in a list of `len` tokens.
    fn end(&self, len: usize) -> usize {
        len
    }

    /// The question about the vector of a position, if a device may answer it in place of the vector.
    fn ask(&self, list: &List, position: usize) -> Option<Ask> {
        let _ = (list, position);
        None
    }

    /// Makes an item of the answer to [`Reader::ask`] at a position; `None` if only the vector
    /// decides.
    fn read_answer(&self, list: &List, position: usize, answer: &Answer) -> Option<Self::Item> {
        let _ = (list, position, answer);
        None
    }

    /// Reads the vector of a position; `None` where it is not finite. Vectors are read in parallel.
    fn read(&self, list: &List, position: usize, vector: &mut [f32]) -> Option<Self::Item>;
}

/// Collects what a reader makes of each vector.
pub(in crate::engine) struct Collect<R: Reader> {
    reader: R,
    items: Vec<R::Item>,
    reply: oneshot::Sender<Result<Vec<R::Item>>>,
}

impl<R: Reader> Collect<R> {
    /// A question that answers over `reply`.
    pub(in crate::engine) fn new(reader: R, reply: oneshot::Sender<Result<Vec<R::Item>>>) -> Self {
        Self { reader, items: Vec::new(), reply }
    }
}

impl<R: Reader> Question for Collect<R> {
    fn output(&self) -> Output {
        self.reader.output()
    }

    fn end(&self, len: usize) -> usize {
        self.reader.end(len)
    }

    fn take(&mut self, list: &mut List, vectors: Vectors<'_>) -> Result<(), NotFinite> {
        let (reader, first, shared) = (&self.reader, list.next(), &*list);
        let vectors = vectors.floats.par_chunks_mut(vectors.width).enumerate();
        let items: Vec<_> = vectors.map(|(ahead, vector)| reader.read(shared, first + ahead, vector)).collect();
        for item in items {
            self.items.push(item.ok_or(NotFinite)?);
            list.advance();
        }
        Ok(())
    }

    fn ask(&self, list: &List, position: usize) -> Option<Ask> {
        self.reader.ask(list, position)
    }

    fn take_answer(&mut self, list: &mut List, answer: &Answer) -> Result<bool, NotFinite> {
        if !answer.logprob.is_finite() {
            return Err(NotFinite);
        }
        let Some(item) = self.reader.read_answer(list, list.next(), answer) else { return Ok(false) };
        self.items.push(item);
        list.advance();
        Ok(true)
    }

    fn finish(self: Box<Self>) {
        let _ = self.reply.send(Ok(self.items));
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}
