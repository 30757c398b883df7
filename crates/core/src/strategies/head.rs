//! Self-speculation by a draft head: a layer on the base's own features proposes a tree of tokens, and
//! the base checks it in one step.
//!
//! EAGLE (arXiv 2401.15077) is the scheme, EAGLE-2 (arXiv 2406.16858) the shape of the tree, and FSPAD
//! (arXiv 2408.15562) the head. The base's own choice after each node decides, as in `speculative`: a
//! proposed token is kept with its probability under the base, which is the rule of EAGLE-2 for
//! proposals that count as certain, and the answer is the one that the base gives by itself.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::steps::{begin, generation};
use crate::{
    Answer, Call, CallKind, Caps, Engine, Error, FinishReason, Flow, Guide, Job, Need, Proposed, Recipe, Result, Seat,
    Session, Setting, Source, Step, Strategy, TokenRecord, Tree, TreeShape,
};

/// The setting for the width of the tree.
pub static HEAD_WIDTH: Setting = Setting::integer(
    "head_width",
    "In head, the children of a node in the tree, and the nodes of a level that are expanded; 1 for a chain",
    1..=64,
)
.with_default_integer(10)
.speed_only();
/// The setting for the depth of the tree.
pub static HEAD_DEPTH: Setting = Setting::integer(
    "head_depth",
    "In head, the times that the tree is expanded behind its first tokens; the longest path has one token more",
    0..=31,
)
.with_default_integer(5)
.speed_only();
/// The setting for the size of the tree.
pub static HEAD_NODES: Setting = Setting::integer(
    "head_nodes",
    "In head, the most tokens that the base computes per step: the last one of the answer and those of the tree",
    2..=512,
)
.with_default_integer(60)
.speed_only();
/// The setting for the paths that are worth a check.
pub static HEAD_LEAST: Setting = Setting::number(
    "head_least",
    "In head, the least probability, under the draft head, of a path that is checked; 0 for all. On a CPU, where every \
     token that is checked costs time, try 0.3",
    0.0..=1.0,
)
.with_default_number(0.0)
.with_placeholder("P")
.speed_only();

/// The most nodes of a tree that are expanded: a proposal is one piece of a step, and makes others wait.
const MOST_EXPANDED: usize = 256;

pub(super) static RECIPE: Recipe = Recipe {
    name: "head",
    title: "draft head",
    about: "the base model alone, token for token, with a draft head on its own features writing ahead of it (FSPAD)",
    needs: &[Need::with(Seat::BASE, Caps { choices: true, trees: true, drafts: true, ..Caps::GENERATE })],
    settings: &[&HEAD_WIDTH, &HEAD_DEPTH, &HEAD_NODES, &HEAD_LEAST],
    make: |models, values| {
        let (width, depth): (usize, usize) = (values.get(&HEAD_WIDTH), values.get(&HEAD_DEPTH));
        if width * depth > MOST_EXPANDED {
            let limit = format!("at most {} with a head_width of {width}", MOST_EXPANDED / width);
            return Err(Error::Setting { name: HEAD_DEPTH.name, limit, value: depth.to_string() });
        }
        let nodes = values.get::<usize>(&HEAD_NODES) - 1;
        let shape = TreeShape { width, depth: depth + 1, nodes, least: values.get(&HEAD_LEAST) };
        Ok(Arc::new(Headed { base: models.require("head", Seat::BASE)?, shape }))
    },
};

/// A base with its draft head.
struct Headed {
    base: Arc<dyn Engine>,
    shape: TreeShape,
}

#[async_trait]
impl Strategy for Headed {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    fn follows_grammars(&self) -> bool {
        true
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let (prompt, guide) = begin(self.base.as_ref(), job, answer).await?;
        let mut session = self.base.open(&prompt).await?;
        let reason = self.write(session.as_mut(), job, guide.as_ref(), answer).await?;
        answer.reused(session.reused_tokens()).await;
        Ok(reason)
    }
}

impl Headed {
    /// Writes until the answer ends.
    async fn write(
        &self,
        session: &mut dyn Session,
        job: &Job,
        guide: Option<&Guide>,
        answer: &mut Answer,
    ) -> Result<FinishReason> {
        let limit = self.base.card().max_len;
        loop {
            let space = answer.remaining().min(limit.saturating_sub(session.tokens().len()));
            let Some(most) = space.checked_sub(1) else { return Ok(FinishReason::Length) };
            let started = Instant::now();
            let shape = TreeShape { depth: self.shape.depth.min(most), ..self.shape };
            let tree = if shape.depth == 0 { Tree::default() } else { session.propose(shape).await? };
            let generation = generation(&job.terms, Seat::BASE, guide, answer, 1);
            let choices = session.tree_choices(&tree, &generation).await?;
            let path = tree.path(tree.accepted(&choices));
            answer.call(check(started, &tree, path.len())).await;
            for vertex in std::iter::once(0).chain(path) {
                let Some(Step::Token(sampled)) = choices.get(vertex as usize) else { return Ok(FinishReason::Stop) };
                session.append(&[sampled.token]);
                if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled.clone(), Seat::BASE)).await? {
                    return Ok(reason);
                }
            }
        }
    }
}

/// The record of a check of a tree.
fn check(started: Instant, tree: &Tree, accepted: usize) -> Call {
    let proposed = Proposed { by: Source::Head, tokens: tree.len(), accepted };
    Call {
        accepted: Some(accepted),
        proposals: if tree.is_empty() { Vec::new() } else { vec![proposed] },
        ..Call::since(started, Seat::BASE, CallKind::Check, tree.len() + 1)
    }
}
