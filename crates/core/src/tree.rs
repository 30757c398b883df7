//! Token trees: several continuations of one list that share prefixes, computed in one step.

use crate::{Error, Result, Step, Token};

/// Continuations of a token list.
///
/// Vertices are numbered from 0: vertex 0 is the root, which stands for the end of the list, and
/// vertex `i + 1` is the node of `tokens()[i]`. A parent precedes its children, so a chain has the
/// parents `0, 1, 2, ...`.
///
/// ```
/// use wsd_core::Tree;
///
/// // After the list: 7 8, or 7 9, or 5.
/// let mut tree = Tree::default();
/// let seven = tree.push(0, 7)?;
/// let eight = tree.push(seven, 8)?;
/// tree.push(seven, 9)?;
/// tree.push(0, 5)?;
/// assert_eq!(tree.parents(), [0, 1, 1, 0]);
/// assert_eq!(tree.path(eight), [seven, eight]);
/// assert_eq!(tree.spelled(eight), [7, 8]);
/// assert!(tree.push(9, 1).is_err());
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    tokens: Vec<Token>,
    parents: Vec<u32>,
}

impl Tree {
    /// Builds a tree from the parent and the token of each node.
    ///
    /// # Errors
    /// [`Error::Tree`] for a parent that does not precede its child.
    pub fn try_new(nodes: impl IntoIterator<Item = (u32, Token)>) -> Result<Self> {
        let mut tree = Self::default();
        for (parent, token) in nodes {
            tree.push(parent, token)?;
        }
        Ok(tree)
    }

    /// Builds a tree of nodes whose parents precede them.
    pub(crate) fn of(nodes: impl Iterator<Item = (u32, Token)>) -> Self {
        let (parents, tokens) = nodes.unzip();
        Self { tokens, parents }
    }

    /// Builds a tree with a single branch.
    #[must_use]
    pub fn chain(tokens: &[Token]) -> Self {
        Self { tokens: tokens.to_vec(), parents: (0..tokens.len() as u32).collect() }
    }

    /// Adds a node below the vertex `parent` and returns its vertex.
    ///
    /// # Errors
    /// [`Error::Tree`] for a vertex that does not exist.
    pub fn push(&mut self, parent: u32, token: Token) -> Result<u32> {
        let last = self.tokens.len() as u32;
        if parent > last {
            return Err(Error::Tree { node: last, parent });
        }
        self.tokens.push(token);
        self.parents.push(parent);
        Ok(last + 1)
    }

    /// Tokens of the nodes.
    #[must_use]
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Parents of the nodes, as vertices.
    #[must_use]
    pub fn parents(&self) -> &[u32] {
        &self.parents
    }

    /// The number of nodes. There is one vertex more.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// True for a tree without nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The number of nodes on the longest path.
    #[must_use]
    pub fn depth(&self) -> usize {
        let mut depths = vec![0];
        for parent in &self.parents {
            depths.push(depths[*parent as usize] + 1);
        }
        depths.into_iter().max().unwrap_or(0)
    }

    /// The vertices from below the root through `vertex`; empty for the root.
    #[must_use]
    pub fn path(&self, vertex: u32) -> Vec<u32> {
        let mut path = Vec::new();
        let mut vertex = vertex;
        while let Some(node) = vertex.checked_sub(1) {
            path.push(vertex);
            vertex = self.parents.get(node as usize).copied().unwrap_or(0);
        }
        path.reverse();
        path
    }

    /// The tokens on the path to `vertex`: what to append to the list to accept that path.
    #[must_use]
    pub fn spelled(&self, vertex: u32) -> Vec<Token> {
        self.path(vertex).into_iter().filter_map(|vertex| self.tokens.get(vertex as usize - 1)).copied().collect()
    }

    /// The first child of `parent` that holds `token`.
    #[must_use]
    pub fn child(&self, parent: u32, token: Token) -> Option<u32> {
        let nodes = self.parents.iter().zip(&self.tokens);
        let position = nodes.into_iter().position(|node| node == (&parent, &token))?;
        Some(position as u32 + 1)
    }

    /// The longest path from the root that spells a prefix of `tokens`, as vertices.
    #[must_use]
    pub fn matching(&self, tokens: &[Token]) -> Vec<u32> {
        let mut path = Vec::new();
        for &token in tokens {
            let parent = path.last().copied().unwrap_or(0);
            let Some(child) = self.child(parent, token) else { break };
            path.push(child);
        }
        path
    }

    /// The deepest vertex that is reached by following `choices`, one per vertex as
    /// [`crate::Session::tree_choices`] returns them: each node on its path is what the model
    /// chooses after its parent. The choice at that vertex continues the list beyond the tree.
    #[must_use]
    pub fn accepted(&self, choices: &[Step]) -> u32 {
        let mut vertex = 0;
        while let Some(Step::Token(sampled)) = choices.get(vertex as usize)
            && let Some(child) = self.child(vertex, sampled.token)
        {
            vertex = child;
        }
        vertex
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampled;

    fn tree() -> Tree {
        Tree::try_new([(0, 7), (1, 8), (1, 9), (0, 5), (3, 8)]).unwrap()
    }

    #[test]
    fn parents_precede_their_children() {
        let error = Tree::try_new([(0, 7), (2, 8)]).unwrap_err().to_string();
        assert_eq!(error, "the parent of node 1 must be a vertex from 0 to 1, got 2");
        assert_eq!((tree().len(), tree().depth(), Tree::default().depth()), (5, 3, 0));
    }

    #[test]
    fn paths_lead_from_the_root() {
        assert_eq!((tree().path(5), tree().spelled(5)), (vec![1, 3, 5], vec![7, 9, 8]));
        assert_eq!((tree().path(0), tree().spelled(0)), (vec![], vec![]));
        assert_eq!(tree().matching(&[7, 9, 1]), [1, 3]);
        assert_eq!(tree().matching(&[6]), Vec::<u32>::new());
    }

    #[test]
    fn acceptance_follows_the_choices() {
        let choice = |token| Step::Token(Sampled { token, logprob: None, top: vec![] });
        let choices = |tokens: [Token; 6]| tokens.map(choice);
        assert_eq!(tree().accepted(&choices([7, 9, 1, 8, 1, 1])), 5);
        assert_eq!(tree().accepted(&choices([7, 1, 1, 8, 1, 1])), 1);
        assert_eq!(tree().accepted(&choices([1, 9, 1, 8, 1, 1])), 0);
    }
}
