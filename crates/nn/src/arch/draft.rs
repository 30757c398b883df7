//! The architecture of a draft head: one decoder layer on the features of a base.
//!
//! EAGLE (Li et al. 2024, arXiv 2401.15077) predicts the base's next feature, its final hidden state,
//! from the present one and the embedding of the token after it. FSPAD (arXiv 2408.15562) adds feature
//! sampling, a gated feed-forward part on that input, and partial alignment, two outputs of which one
//! predicts the token and the other the feature.

use super::tensors::{EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, LAYERS, layer_tensors, tensors};
use super::{Blueprint, Factors, LayerParts, LayerPlan, Norms, Scaling, StoredLinear, StoredNorm};

/// The name of the matrix that takes in embedding and feature, `(hidden, 2 * hidden)`, and of its bias,
/// without their ends.
pub const FUSION: &str = "model.fusion";
/// The prefix of the names of the modules of feature sampling.
pub const SAMPLING: &str = "model.sampling";

/// A draft head.
#[derive(Clone, Debug, PartialEq)]
pub struct DraftPlan {
    /// The layer, as a model of one layer with the width, the attention heads, the embedding and the
    /// limits of logits of the base. It has a norm before its feed-forward part and no other.
    pub layer: Blueprint,
    /// The input passes feature sampling.
    pub sampling: bool,
    /// Token and feature are predicted by outputs of their own.
    pub alignment: bool,
}

impl DraftPlan {
    /// The plan of a head for a base, with `ffn` inner units in its feed-forward parts.
    ///
    /// # Examples
    /// ```
    /// # use std::path::Path;
    /// use wsd_nn::{Checkpoint, arch};
    ///
    /// let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    /// let base = arch::blueprint(&Checkpoint::open(&path)?.config)?;
    /// let plan = arch::DraftPlan::new(&base, 96).with_branches(true, true);
    /// let down = plan.tensors().into_iter().find(|(name, _)| name == "model.layers.0.mlp.down_proj.weight");
    /// assert_eq!(down.map(|(_, shape)| shape), Some(vec![2 * base.hidden, 96]));
    /// # Ok::<_, wsd_nn::Error>(())
    /// ```
    #[must_use]
    pub fn new(base: &Blueprint, ffn: usize) -> Self {
        let mut ropes: Vec<_> = base.ropes.iter().take(1).cloned().collect();
        for rope in &mut ropes {
            // The head's own matrices are in the order of halves, in whatever container the base is.
            rope.interleaved = false;
            // Frequencies that depend on the length of the whole sequence would need all keys again.
            if matches!(rope.scaling, Scaling::Long { .. }) {
                rope.scaling = Scaling::None;
            }
        }
        let layer = Blueprint {
            hidden: base.hidden,
            heads: base.heads,
            kv_heads: base.kv_heads,
            head_dim: base.head_dim,
            ffn,
            vocab: base.vocab,
            factors: Factors { head: None, ..base.factors.clone() },
            max_len: base.max_len,
            layers: vec![LayerPlan { window: None, rope: (!ropes.is_empty()).then_some(0) }],
            ropes,
            norms: Norms { eps: base.norms.eps, pre_mlp: Some("post_attention_layernorm"), ..Norms::NONE },
            attention_scale: (base.head_dim as f32).sqrt().recip(),
            embedding_scale: base.embedding_scale,
            final_softcap: base.final_softcap,
            logit_scale: base.logit_scale,
            tied: base.tied,
            ..Blueprint::PLAIN
        };
        Self { layer, sampling: true, alignment: true }
    }

    /// The same plan with or without feature sampling and partial alignment. Without both, it is the
    /// head of EAGLE.
    #[must_use]
    pub fn with_branches(self, sampling: bool, alignment: bool) -> Self {
        Self { sampling, alignment, ..self }
    }

    /// The number of outputs of the layer, of the width of the base each: a second one predicts the
    /// feature.
    #[must_use]
    pub fn branches(&self) -> usize {
        1 + usize::from(self.alignment)
    }

    /// The parts of the layer as a file stores them. Its output has the rows of all branches.
    pub(crate) fn parts(&self) -> LayerParts<StoredNorm, StoredLinear> {
        let mut parts = self.layer.layer();
        for expert in &mut parts.experts {
            expert.down.module_rows *= self.branches();
            expert.down.rows = 0..expert.down.module_rows;
        }
        parts
    }

    /// Lists the tensors of the base that the head reads: its embedding.
    pub(crate) fn embedding(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = tensors(&self.layer);
        list.retain(|(name, _)| [EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT].contains(&&**name));
        list
    }

    /// Lists every tensor of the head: its name and its shape, matrices as `(outputs, inputs)`.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, ffn) = (self.layer.hidden, self.layer.ffn);
        let mut list = vec![(format!("{FUSION}.weight"), vec![hidden, 2 * hidden])];
        if self.sampling {
            let parts = [("norm", vec![hidden]), ("gate_proj", vec![ffn, hidden]), ("up_proj", vec![ffn, hidden])];
            let parts = parts.into_iter().chain([("down_proj", vec![hidden, ffn])]);
            list.extend(parts.map(|(part, shape)| (format!("{SAMPLING}.{part}.weight"), shape)));
        }
        let layer = layer_tensors(&self.layer, &self.parts());
        list.extend(layer.into_iter().map(|(name, shape)| (format!("{LAYERS}0.{name}"), shape)));
        list.push((format!("{FUSION}.bias"), vec![hidden]));
        list
    }
}
