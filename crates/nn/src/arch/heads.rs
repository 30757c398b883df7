//! Output heads: linear layers on the final hidden state.

/// An output head by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Head {
    /// Logits of the next token.
    Vocabulary,
    /// One number per label, as `*ForSequenceClassification` checkpoints have it: reward models and
    /// process reward models.
    Reward,
}

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

impl Head {
    /// All known heads.
    pub const ALL: [Self; 2] = [Self::Vocabulary, Self::Reward];

    /// The module's Hugging Face name.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Vocabulary => "lm_head",
            Self::Reward => "score",
        }
    }

    /// The Hugging Face name of its matrix.
    #[must_use]
    pub const fn weight(self) -> &'static str {
        match self {
            Self::Vocabulary => "lm_head.weight",
            Self::Reward => "score.weight",
        }
    }

    /// The Hugging Face name of its bias.
    #[must_use]
    pub const fn bias(self) -> &'static str {
        match self {
            Self::Vocabulary => "lm_head.bias",
            Self::Reward => "score.bias",
        }
    }
}

impl HeadPlan {
    /// The head of a vocabulary of this size.
    #[must_use]
    pub(super) fn vocabulary(vocab: usize) -> Self {
        Self { head: Head::Vocabulary, outputs: vocab, bias: false }
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
        let reward = |outputs, bias| HeadPlan { head: Head::Reward, outputs, bias };
        assert_eq!(heads(false, &[]), [vocabulary]);
        assert_eq!(heads(false, &[("score.weight", &[1, 64])]), [reward(1, false)]);
        assert_eq!(heads(true, &[("score.weight", &[1, 64])]), [vocabulary, reward(1, false)]);
        let both: &[(&str, &[usize])] =
            &[("lm_head.weight", &[512, 64]), ("score.weight", &[2, 64]), ("score.bias", &[2])];
        assert_eq!(heads(false, both), [vocabulary, reward(2, true)]);
    }
}
