//! A learned switch: a logistic model in place of the threshold.
//!
//! Its features are means over the window of drafted tokens: the base's log-probability of the token (whose
//! exponential is the confidence), the entropy of the base's distribution, and the share of tokens that are
//! the base's most likely ones. The entropy is that of the [`ALTERNATIVES`] most likely tokens and of all
//! others as one, so that engines that return alternatives suffice. Co-LLM (arXiv 2403.03870) learns a
//! similar decision on hidden states.

use std::collections::VecDeque;

use crate::{Setting, Token, Values};

/// The setting for the kind of switch.
pub static SWITCH_RULE: Setting = Setting::choice(
    "switch_rule",
    "When the base takes over",
    &[
        ("threshold", "once the confidence reaches the threshold, as in the paper"),
        ("learned", "once a logistic model of confidence, entropy and agreement says so; see `wsd train switch`"),
    ],
);

/// The setting for the constant of the logistic model.
pub static LEARNED_BIAS: Setting =
    Setting::number("learned_bias", "In switch_rule=learned, the constant of the model", -1e3..=1e3)
        .with_default_number(-3.0);

/// The setting for the weight of the mean log-probability.
pub static LEARNED_CONFIDENCE: Setting = Setting::number(
    "learned_confidence",
    "In switch_rule=learned, the weight of the window's mean log-probability",
    -1e3..=1e3,
)
.with_default_number(4.0);

/// The setting for the weight of the mean entropy.
pub static LEARNED_ENTROPY: Setting =
    Setting::number("learned_entropy", "In switch_rule=learned, the weight of the window's mean entropy", -1e3..=1e3)
        .with_default_number(-1.0);

/// The setting for the weight of the agreement.
pub static LEARNED_AGREEMENT: Setting = Setting::number(
    "learned_agreement",
    "In switch_rule=learned, the weight of the share of tokens that are the base's most likely ones",
    -1e3..=1e3,
)
.with_default_number(5.0);

/// The number of most likely tokens that the entropy is computed from.
pub const ALTERNATIVES: usize = 8;

/// The features of a position: means over the window that ends there.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Features {
    /// The natural log-probability.
    pub confidence: f64,
    /// The entropy, in nats.
    pub entropy: f64,
    /// The share of tokens that are the base's most likely ones.
    pub agreement: f64,
}

impl Features {
    /// The features of one token, given the most likely tokens at its position.
    fn of(token: Token, logprob: f64, top: &[(Token, f64)]) -> Self {
        let top = &top[..top.len().min(ALTERNATIVES)];
        let information = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        let others = 1.0 - top.iter().map(|(_, logprob)| logprob.exp()).sum::<f64>();
        let entropy = top.iter().map(|(_, logprob)| information(logprob.exp())).sum::<f64>() + information(others);
        let agreement = f64::from(u8::from(top.first().is_some_and(|(best, _)| *best == token)));
        Self { confidence: logprob, entropy, agreement }
    }
}

/// Features token by token.
///
/// ```
/// use wsd_core::FeatureWindow;
/// let mut window = FeatureWindow::new(2);
/// let half = 0.5f64.ln();
/// assert_eq!(window.push(7, half, &[(7, half), (8, half)]), None); // not full yet
/// let features = window.push(9, -2.0, &[(7, half), (8, half)]).unwrap();
/// assert_eq!(features.agreement, 0.5);
/// assert!((features.entropy - 2f64.ln()).abs() < 1e-12);
/// ```
#[derive(Clone, Debug)]
pub struct FeatureWindow {
    length: usize,
    recent: VecDeque<Features>,
}

impl FeatureWindow {
    /// An empty window of `length` tokens.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self { length, recent: VecDeque::with_capacity(length) }
    }

    /// Takes in a token with its log-probability and the most likely tokens at its position. Returns `None`
    /// while the window is not full.
    pub fn push(&mut self, token: Token, logprob: f64, top: &[(Token, f64)]) -> Option<Features> {
        if self.recent.len() == self.length {
            self.recent.pop_front();
        }
        self.recent.push_back(Features::of(token, logprob, top));
        if self.recent.len() < self.length {
            return None;
        }
        let mean = |feature: fn(&Features) -> f64| self.recent.iter().map(feature).sum::<f64>() / self.length as f64;
        Some(Features {
            confidence: mean(|features| features.confidence),
            entropy: mean(|features| features.entropy),
            agreement: mean(|features| features.agreement),
        })
    }
}

/// The logistic model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearnedSwitch {
    /// The constant.
    pub bias: f64,
    /// The weights of the features.
    pub weights: Features,
}

impl LearnedSwitch {
    /// The model that the settings ask for, if they do.
    #[must_use]
    pub fn from_values(values: &Values) -> Option<Self> {
        (values.get::<&str>(&SWITCH_RULE) == "learned").then(|| Self {
            bias: values.get(&LEARNED_BIAS),
            weights: Features {
                confidence: values.get(&LEARNED_CONFIDENCE),
                entropy: values.get(&LEARNED_ENTROPY),
                agreement: values.get(&LEARNED_AGREEMENT),
            },
        })
    }

    /// The probability that the base continues well from a position. An impossible token, whose
    /// log-probability is minus infinity, has probability 0.
    ///
    /// ```
    /// use wsd_core::{Features, LearnedSwitch};
    /// let weights = Features { confidence: 1.0, entropy: 0.0, agreement: 2.0 };
    /// let switch = LearnedSwitch { bias: -1.0, weights };
    /// let features = Features { confidence: 0.0, entropy: 3.0, agreement: 0.5 };
    /// assert_eq!(switch.probability(&features), 0.5);
    /// ```
    #[must_use]
    pub fn probability(&self, features: &Features) -> f64 {
        if features.confidence == f64::NEG_INFINITY {
            return 0.0;
        }
        let Features { confidence, entropy, agreement } = self.weights;
        let x = confidence * features.confidence + entropy * features.entropy + agreement * features.agreement;
        1.0 / (1.0 + (-self.bias - x).exp())
    }
}
