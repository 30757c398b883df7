//! Growth of a tree of proposals by a draft head: the dynamic tree of EAGLE-2 (Li et al. 2024, arXiv
//! 2406.16858, section 4).
//!
//! A node is rated by the product of the head's probabilities on its path. Level by level the best
//! nodes are expanded, and of all nodes the best are kept. A node is never rated above its parent, so
//! what is kept is a tree.

use crate::logits::top_tokens;
use crate::{Token, Tree};

/// The size of a tree of proposals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TreeShape {
    /// The number of children of a node, and of nodes of a level that are expanded.
    pub width: usize,
    /// The number of tokens on the longest path.
    pub depth: usize,
    /// The most nodes.
    pub nodes: usize,
    /// The least product of probabilities on the path to a node; 0 for all nodes.
    pub least: f64,
}

/// A tree of proposals that grows.
///
/// ```
/// use wsd_core::{Beam, TreeShape};
///
/// let shape = TreeShape { width: 2, depth: 2, nodes: 3, least: 0.0 };
/// let row = [0.6f32, 0.3, 0.1].map(f32::ln);
/// let mut beam = Beam::new(shape, &row).unwrap();
/// // Both tokens of the first level are expanded: 0 and 1.
/// assert_eq!(beam.level(), [0, 1]);
/// beam.expand([&row[..], &[0.01f32, 0.01, 0.98].map(f32::ln)]).unwrap();
/// assert!(beam.level().is_empty());
/// // 0 has 0.6, 0 0 has 0.36, 1 has 0.3, and 1 2 has 0.29.
/// let tree = beam.tree();
/// assert_eq!((tree.tokens(), tree.parents()), (&[0, 1, 0][..], &[0, 0, 1][..]));
/// ```
#[derive(Clone, Debug)]
pub struct Beam {
    shape: TreeShape,
    nodes: Vec<Candidate>,
    /// The nodes to expand next, by their index.
    level: Vec<usize>,
    /// The number of tokens on the path to the nodes of the level.
    depth: usize,
}

/// A node that may be proposed.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// The index of its parent; `None` below the root.
    parent: Option<usize>,
    token: Token,
    /// The sum of log-probabilities on its path.
    score: f64,
}

impl Beam {
    /// A tree whose first level follows from the logits after the list. Returns `None` if the row is
    /// not finite.
    #[must_use]
    pub fn new(shape: TreeShape, logits: &[f32]) -> Option<Self> {
        let mut beam = Self { shape, nodes: Vec::new(), level: Vec::new(), depth: 0 };
        beam.grow([(None, logits)])?;
        Some(beam)
    }

    /// The nodes to expand next, by their index, the likeliest first; none once the tree has grown.
    #[must_use]
    pub fn level(&self) -> &[usize] {
        &self.level
    }

    /// The token of a node.
    #[must_use]
    pub fn token(&self, node: usize) -> Token {
        self.nodes[node].token
    }

    /// The nodes before a node on its path, from below the root.
    #[must_use]
    pub fn ancestors(&self, node: usize) -> Vec<usize> {
        let parent = |node: &usize| self.nodes[*node].parent;
        let mut path: Vec<_> = std::iter::successors(parent(&node), parent).collect();
        path.reverse();
        path
    }

    /// Grows the next level from the logits after each node of [`Beam::level`], in that order. Returns
    /// `None` if a row is not finite.
    #[must_use]
    pub fn expand<'a>(&mut self, rows: impl IntoIterator<Item = &'a [f32]>) -> Option<()> {
        let level = std::mem::take(&mut self.level);
        self.grow(level.into_iter().map(Some).zip(rows))
    }

    /// Adds children to the given nodes and chooses the next level among these.
    fn grow<'a>(&mut self, rows: impl IntoIterator<Item = (Option<usize>, &'a [f32])>) -> Option<()> {
        if self.depth == self.shape.depth {
            return Some(());
        }
        let first = self.nodes.len();
        for (parent, logits) in rows {
            let above = parent.map_or(0.0, |node| self.nodes[node].score);
            let children = top_tokens(logits, self.shape.width)?.into_iter();
            let least = self.shape.least.ln();
            let children = children.filter(|(_, logprob)| logprob.is_finite() && above + logprob >= least);
            self.nodes.extend(children.map(|(token, logprob)| Candidate { parent, token, score: above + logprob }));
        }
        self.depth += 1;
        if self.depth < self.shape.depth {
            self.level = self.best(first, self.shape.width);
        }
        Some(())
    }

    /// The `count` best nodes from index `first` on, the best first; of equals the earlier one.
    fn best(&self, first: usize, count: usize) -> Vec<usize> {
        let mut best: Vec<usize> = (first..self.nodes.len()).collect();
        best.sort_by(|&one, &other| self.nodes[other].score.total_cmp(&self.nodes[one].score));
        best.truncate(count);
        best
    }

    /// The tree of the best nodes.
    #[must_use]
    pub fn tree(&self) -> Tree {
        let mut kept = self.best(0, self.shape.nodes);
        kept.sort_unstable();
        // A node's parent is kept too, and precedes it.
        let vertex = |node: usize| kept.binary_search(&node).map_or(0, |place| place as u32 + 1);
        Tree::of(kept.iter().map(|&node| {
            let Candidate { parent, token, .. } = self.nodes[node];
            (parent.map_or(0, vertex), token)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(p: &[f64]) -> Vec<f32> {
        p.iter().map(|p| p.ln() as f32).collect()
    }

    #[test]
    fn the_likeliest_paths_are_expanded_and_kept() {
        let shape = TreeShape { width: 2, depth: 3, nodes: 5, least: 0.0 };
        let rows: &dyn Fn(&[Token]) -> Vec<f32> = &|path| match path {
            [] => row(&[0.5, 0.4, 0.1]),
            [0] => row(&[0.1, 0.1, 0.8]),
            [1] => row(&[0.05, 0.9, 0.05]),
            _ => row(&[0.34, 0.33, 0.33]),
        };
        let mut beam = Beam::new(shape, &rows(&[])).unwrap();
        while !beam.level().is_empty() {
            let path = |&node: &usize| {
                let path = beam.ancestors(node).into_iter().chain([node]);
                rows(&path.map(|node| beam.token(node)).collect::<Vec<_>>())
            };
            let level: Vec<_> = beam.level().iter().map(path).collect();
            beam.expand(level.iter().map(Vec::as_slice)).unwrap();
        }
        let tree = beam.tree();
        // 0 .5, 1 .4, 0 2 .4, 1 1 .36, and 0 2 0 .136.
        let mut spelled: Vec<_> = (1..=5).map(|vertex| tree.spelled(vertex)).collect();
        spelled.sort();
        assert_eq!(spelled, [vec![0], vec![0, 2], vec![0, 2, 0], vec![1], vec![1, 1]]);
    }

    #[test]
    fn unlikely_paths_are_left_out() {
        let shape = TreeShape { width: 3, depth: 4, nodes: 60, least: 0.3 };
        let certain = row(&[0.6, 0.39, 0.01]);
        let mut beam = Beam::new(shape, &certain).unwrap();
        while !beam.level().is_empty() {
            let rows: Vec<_> = beam.level().iter().map(|_| &certain[..]).collect();
            beam.expand(rows).unwrap();
        }
        let tree = beam.tree();
        assert_eq!((tree.tokens(), tree.parents()), (&[0, 1, 0][..], &[0, 0, 1][..]));
    }

    #[test]
    fn a_width_of_one_is_a_chain_a_depth_of_none_is_empty_and_nan_is_none() {
        let shape = TreeShape { width: 1, depth: 4, nodes: 3, least: 0.0 };
        let mut beam = Beam::new(shape, &row(&[0.3, 0.7])).unwrap();
        while !beam.level().is_empty() {
            beam.expand([&row(&[0.3, 0.7])[..]]).unwrap();
        }
        assert_eq!(beam.tree(), Tree::chain(&[1, 1, 1]));
        assert!(Beam::new(shape, &[f32::NAN]).is_none());
        let mut flat = Beam::new(TreeShape { depth: 0, ..shape }, &row(&[0.3, 0.7])).unwrap();
        flat.expand([]).unwrap();
        assert!(flat.level().is_empty() && flat.tree().is_empty());
    }
}
