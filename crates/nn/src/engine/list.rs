//! The token list of a request.

use std::borrow::Cow;

use wsd_core::{Token, Tree};

/// The tokens of a request and its progress.
///
/// The vector at position `i` predicts the token at `i + 1`. The nodes of a tree stand after the
/// tokens of the list, in positions of their own.
pub(super) struct List {
    pub(super) tokens: Vec<Token>,
    pub(super) tree: Tree,
    /// The parents of the list's last token and of the nodes as in
    /// [`crate::executor::Span::parents`]. Empty without a tree.
    pub(super) parents: Vec<u32>,
    pub(super) next: usize,
}

impl List {
    /// A list whose output vectors are requested from position `next` on.
    pub(super) fn new(tokens: Vec<Token>, next: usize) -> Self {
        Self { tokens, tree: Tree::default(), parents: Vec::new(), next }
    }

    /// A list continued by a tree, with vectors wanted of each vertex.
    pub(super) fn with_tree(mut tokens: Vec<Token>, tree: Tree) -> Self {
        let next = tokens.len() - 1;
        tokens.extend(tree.tokens());
        // Vertex 0 is the list's last token, which follows the cached ones.
        let parents = if tree.is_empty() {
            Vec::new()
        } else {
            std::iter::once(0).chain(tree.parents().iter().map(|vertex| vertex + 1)).collect()
        };
        Self { tokens, tree, parents, next }
    }

    /// The tokens, those of a tree's nodes included.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The position of the next vector.
    pub(super) fn next(&self) -> usize {
        self.next
    }

    /// Proceeds to the next vector.
    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// Adds a token to the end.
    pub(super) fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// The tokens on the way to a position, its own included.
    pub(super) fn through(&self, position: usize) -> Cow<'_, [Token]> {
        let root = self.chain() - 1;
        if position <= root {
            return Cow::Borrowed(&self.tokens[..=position]);
        }
        Cow::Owned([&self.tokens[..=root], &self.tree.spelled((position - root) as u32)].concat())
    }

    /// The number of tokens before the nodes of a tree.
    pub(super) fn chain(&self) -> usize {
        self.tokens.len() - self.tree.len()
    }

    /// Length of the longest sequence.
    pub(super) fn len(&self) -> usize {
        self.chain() + self.tree.depth()
    }
}
