//! The shapes of output heads.

use wsd_core::Head;

/// The shape of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPlan {
    /// Its purpose.
    pub head: Head,
    /// Outputs per hidden state.
    pub outputs: usize,
    /// It has a bias.
    pub bias: bool,
}

impl HeadPlan {
    /// The head of a vocabulary of this size.
    #[must_use]
    pub(super) fn vocabulary(vocab: usize) -> Self {
        Self { head: Head::VOCABULARY, outputs: vocab, bias: false }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::arch;

    #[test]
    fn heads_are_those_a_checkpoint_has() {
        let heads = |tied: bool, tensors: &[(&str, &[usize])]| {
            let config = json!({
                "architectures": ["Qwen2ForSequenceClassification"], "model_type": "qwen2", "hidden_size": 64,
                "intermediate_size": 160, "vocab_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4,
                "max_position_embeddings": 256, "tie_word_embeddings": tied,
            });
            let blueprint = arch::blueprint(config.as_object().unwrap()).unwrap();
            let shape = |name: &str| tensors.iter().find(|(other, _)| *other == name).map(|(_, shape)| *shape);
            blueprint.with_heads(shape).output_heads
        };
        let vocabulary = HeadPlan::vocabulary(512);
        let biased = HeadPlan { bias: true, ..vocabulary };
        assert_eq!(heads(false, &[("lm_head.weight", &[512, 64]), ("lm_head.bias", &[512])]), [biased]);
        assert_eq!(heads(true, &[("lm_head.bias", &[512])]), [biased]);
        let reward = |outputs, bias| HeadPlan { head: Head::REWARD, outputs, bias };
        assert_eq!(heads(false, &[]), [vocabulary]);
        assert_eq!(heads(false, &[("score.weight", &[1, 64])]), [reward(1, false)]);
        assert_eq!(heads(true, &[("score.weight", &[1, 64])]), [vocabulary, reward(1, false)]);
        let both: &[(&str, &[usize])] =
            &[("lm_head.weight", &[512, 64]), ("score.weight", &[2, 64]), ("score.bias", &[2])];
        assert_eq!(heads(false, both), [vocabulary, reward(2, true)]);
    }
}
