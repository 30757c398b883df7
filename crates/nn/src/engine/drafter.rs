//! The draft head of an engine, and what it knows of each session.
//!
//! The head reads pairs: the feature of a token, which is the base's final hidden state there, and the
//! token after it. Features come with the steps of the base: those of a list as it is computed, and
//! those of a tree whose accepted path the next list shows.

use std::collections::HashMap;

use wsd_core::{Beam, Token, Tree, TreeShape, common_prefix};

use super::list::List;
use crate::arch::Head;
use crate::cpu::DraftLayer;
use crate::error::Result;
use crate::executor::Executor;

/// A draft head with its sessions.
pub(super) struct Drafter {
    layer: DraftLayer,
    sessions: HashMap<u64, Drafting>,
}

/// The state of a session that the head proposes for.
#[derive(Default)]
struct Drafting {
    /// The tokens whose features were computed, from the first of the list on.
    tokens: Vec<Token>,
    /// The features of the last of them, which the head has not read yet.
    features: Vec<f32>,
    /// A tree behind the tokens and the features of its nodes, until the next list shows its path.
    tree: Option<(Tree, Vec<f32>)>,
}

impl Drafter {
    pub(super) fn new(layer: DraftLayer) -> Self {
        Self { layer, sessions: HashMap::new() }
    }

    /// Tells whether the head proposes for a session, which then needs the features of its steps.
    pub(super) fn follows(&self, slot: u64) -> bool {
        self.sessions.contains_key(&slot)
    }

    /// Begins to follow a session.
    pub(super) fn begin(&mut self, slot: u64) {
        self.sessions.entry(slot).or_default();
    }

    /// Reduces what is known of a session to its common prefix with `tokens`, including the path of a
    /// tree that they follow. Returns the number of tokens whose features need not be computed. Before a
    /// proposal the last pair is read in any case.
    pub(super) fn edit(&mut self, slot: u64, tokens: &[Token], proposes: bool) -> usize {
        let Self { layer, sessions } = self;
        let (width, Some(state)) = (layer.width(), sessions.get_mut(&slot)) else { return 0 };
        let shared = common_prefix(&state.tokens, tokens);
        if let Some((tree, features)) = state.tree.take().filter(|_| shared == state.tokens.len()) {
            for vertex in tree.matching(&tokens[shared..]) {
                let node = vertex as usize - 1;
                state.tokens.push(tree.tokens()[node]);
                state.features.extend_from_slice(&features[node * width..][..width]);
            }
        }
        let shared = common_prefix(&state.tokens, tokens);
        // A pair has the feature of one token and is cached by the token after it.
        let (pairs, read) =
            (layer.cached(slot), common_prefix(layer.tokens(slot), tokens.get(1..).unwrap_or_default()));
        let last = if proposes { 2 } else { 1 };
        let kept = read.min(shared).min(tokens.len().saturating_sub(last));
        layer.truncate(slot, kept);
        // Features of pairs that were read are gone.
        let known = if kept < pairs { kept } else { shared };
        state.tokens.truncate(known);
        state.features.truncate((known - kept) * width);
        known
    }

    /// Takes in the features of the next positions of a list, as a step computed them, and reads all pairs
    /// of the list but the last, which a proposal reads again: so a long prompt takes the head as many
    /// steps as it takes the base.
    pub(super) fn observe(&mut self, slot: u64, list: &List, features: &[f32]) -> Result<()> {
        let width = self.layer.width();
        let Some(state) = self.sessions.get_mut(&slot).filter(|_| !features.is_empty()) else { return Ok(()) };
        let (first, chain) = (list.next(), list.chain());
        let of_list = (chain - first.min(chain)).min(features.len() / width);
        if state.tokens.len() != first.min(chain) {
            return Ok(());
        }
        state.tokens.extend_from_slice(&list.tokens()[first..first + of_list]);
        let (of_list, of_tree) = features.split_at(of_list * width);
        state.features.extend_from_slice(of_list);
        state.tree = (of_tree.len() == list.tree.len() * width && !of_tree.is_empty())
            .then(|| (list.tree.clone(), of_tree.to_vec()));
        let (read, known) = (self.layer.cached(slot), state.tokens.len().min(chain.saturating_sub(2)));
        let unread = known.saturating_sub(read) * width;
        if let Some(features) = state.features.get(..unread).filter(|_| unread > 0) {
            self.layer.extend(slot, &list.tokens()[read + 1..=known], features)?;
            state.features.drain(..unread);
        }
        Ok(())
    }

    /// The most rows of the output head that the growth of a tree takes: one of the root, and those of
    /// the nodes that are expanded.
    pub(super) fn rows(shape: TreeShape) -> usize {
        shape.width.saturating_mul(shape.depth.saturating_sub(1)).saturating_add(1)
    }

    /// Proposes a tree after `list`, and returns the number of rows of the output head that it took. The
    /// features of all tokens but the last are known. The tree is empty where the head computes NaN or
    /// infinity. `executor` has the output head of the base.
    pub(super) fn propose(
        &mut self,
        executor: &mut dyn Executor,
        slot: u64,
        list: &[Token],
        shape: TreeShape,
    ) -> Result<(Tree, usize)> {
        let (width, read) = (self.layer.width(), self.layer.cached(slot));
        let root = list.len().saturating_sub(1);
        let Some(state) = self.sessions.get_mut(&slot).filter(|_| root > read) else { return Ok((Tree::default(), 0)) };
        let unread = (root - read) * width;
        let Some(features) = state.features.get(..unread) else { return Ok((Tree::default(), 0)) };
        let [predicted, aligned] = self.layer.extend(slot, &list[read + 1..], features)?;
        state.features.drain(..unread);
        let mut logits = Vec::new();
        executor.project(Head::VOCABULARY, &predicted[predicted.len() - width..], &mut logits)?;
        let Some(beam) = Beam::new(shape, &logits) else { return Ok((Tree::default(), 1)) };
        let last = &aligned[aligned.len() - width..];
        let mut growth = Growth { layer: &mut self.layer, executor, slot, root, rows: 1 };
        let tree = growth.run(beam, last);
        let rows = growth.rows;
        self.layer.truncate(slot, root);
        Ok((tree?, rows))
    }

    /// Forgets a session.
    pub(super) fn close(&mut self, slot: u64) {
        self.sessions.remove(&slot);
        self.layer.release(slot);
    }
}

/// The growth of a tree behind `root` pairs of a slot.
struct Growth<'a> {
    layer: &'a mut DraftLayer,
    executor: &'a mut dyn Executor,
    slot: u64,
    root: usize,
    /// Rows of the output head so far.
    rows: usize,
}

impl Growth<'_> {
    /// Expands the levels of a tree. `last` is the feature that the head expects of its first level.
    fn run(&mut self, mut beam: Beam, last: &[f32]) -> Result<Tree> {
        let width = last.len();
        // The cached position of each expanded node, and the feature expected of its children.
        let mut expanded: HashMap<usize, (usize, Vec<f32>)> = HashMap::new();
        let mut logits = Vec::new();
        while !beam.level().is_empty() {
            let level = beam.level().to_vec();
            let (mut nodes, mut features) = (Vec::new(), Vec::new());
            for &node in &level {
                let above: Vec<_> = beam.ancestors(node).iter().filter_map(|above| expanded.get(above)).collect();
                features.extend_from_slice(above.last().map_or(last, |(_, feature)| feature));
                nodes.push((beam.token(node), above.iter().map(|(position, _)| *position).collect()));
            }
            let first = self.layer.cached(self.slot);
            let [predicted, aligned] = self.layer.branch((self.slot, self.root), &nodes, &features)?;
            let children = level.iter().zip(aligned.chunks_exact(width)).enumerate();
            expanded.extend(children.map(|(index, (&node, feature))| (node, (first + index, feature.to_vec()))));
            self.executor.project(Head::VOCABULARY, &predicted, &mut logits)?;
            self.rows += level.len();
            if beam.expand(logits.chunks_exact(logits.len() / level.len())).is_none() {
                return Ok(Tree::default());
            }
        }
        Ok(beam.tree())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::arch;
    use crate::checkpoint::{Checkpoint, Tensor, Weights};
    use crate::cpu::CpuOptions;
    use crate::draft::{BaseMark, DraftConfig, DraftHead};
    use crate::format::Format;

    #[test]
    fn the_pairs_of_a_prompt_are_read_as_its_features_come() {
        let base = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama")).unwrap();
        let config = DraftConfig::new(BaseMark::of(&base).unwrap(), 8);
        let zeros = |(name, shape): (String, Vec<usize>)| {
            let bytes = vec![0; shape.iter().product::<usize>() * 4];
            Tensor::new(name, Format::F32, shape, bytes).unwrap()
        };
        let tensors = config.plan(&arch::blueprint(&base.config).unwrap()).tensors();
        let tensors: Vec<_> = tensors.into_iter().map(zeros).collect();
        let head = DraftHead { weights: Weights::new("memory", tensors), config, file: "memory".into() };
        let mut drafter = Drafter::new(DraftLayer::load(&head, &base, CpuOptions::default()).unwrap());
        let width = drafter.layer.width();
        drafter.begin(1);
        let mut list = List::new((0..20).collect(), 0);
        for (new, read) in [(8, 8), (11, 18), (1, 18)] {
            drafter.observe(1, &list, &vec![0.5; new * width]).unwrap();
            assert_eq!(drafter.layer.cached(1), read, "the last of 19 pairs is the proposal's");
            (0..new).for_each(|_| list.advance());
        }
        assert_eq!(drafter.sessions[&1].features.len(), 2 * width);
    }
}
