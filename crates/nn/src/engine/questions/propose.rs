//! Proposals of the draft head.

use tokio::sync::oneshot;
use wsd_core::{Error, Layer, Result, Tree, TreeShape};

use super::{NotFinite, Output, Question, Vectors};
use crate::engine::list::List;

/// Asks for a tree of proposals. The head needs the features of all tokens but the last; those that it
/// lacks are computed as the vectors of this question.
pub(in crate::engine) struct Propose {
    shape: TreeShape,
    tree: Option<Result<Tree>>,
    reply: oneshot::Sender<Result<Tree>>,
}

impl Propose {
    /// A question that answers over `reply`.
    pub(in crate::engine) fn new(shape: TreeShape, reply: oneshot::Sender<Result<Tree>>) -> Self {
        Self { shape, tree: None, reply }
    }
}

impl Question for Propose {
    fn output(&self) -> Output {
        Output::Hidden(Layer::Final)
    }

    /// The last token need not be run.
    fn end(&self, len: usize) -> usize {
        len - 1
    }

    fn take(&mut self, list: &mut List, vectors: Vectors<'_>) -> Result<(), NotFinite> {
        for vector in vectors.floats.chunks_exact(vectors.width) {
            if vector.iter().any(|value| !value.is_finite()) {
                return Err(NotFinite);
            }
            list.advance();
        }
        Ok(())
    }

    fn wanted_tree(&self) -> Option<TreeShape> {
        self.tree.is_none().then_some(self.shape)
    }

    fn take_tree(&mut self, tree: Result<Tree>) {
        self.tree = Some(tree);
    }

    fn finish(self: Box<Self>) {
        let _ = self.reply.send(self.tree.unwrap_or_else(|| Ok(Tree::default())));
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}
