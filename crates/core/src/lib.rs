//! Weak-to-Strong Decoding (arXiv 2506.07434): a small aligned *draft* model writes the beginning
//! of the answer, a large *base* model scores each drafted token and takes over as soon as it is
//! confident.
//!
//! This crate holds the method: [`Engine`] and [`Session`] (a token list that can be edited and
//! then asked about), the switch rule ([`Rule`]), the [`Bridge`] between vocabularies, and the
//! table of strategies ([`RECIPES`]). It has no tensors and no network; [`scripted`] is a tiny
//! engine for tests.

mod acceptance;
mod answer;
mod beam;
mod bridge;
mod card;
mod chunks;
mod distribution;
mod engine;
mod error;
mod exp;
pub mod files;
mod finish;
mod fused;
mod guard;
mod guide;
mod handover;
mod head;
mod inputs;
mod job;
mod layer;
mod logits;
mod look;
mod models;
mod profile;
mod relay;
mod sampling;
mod scope;
mod scoped;
mod scorers;
pub mod scripted;
mod seat;
mod settings;
mod source;
mod speculation;
mod spelling;
mod splitmix;
mod steps;
mod stops;
mod strategies;
mod strategy;
mod switch;
mod text;
mod tokens;
mod trace;
mod tree;
mod values;

pub use answer::{Answer, Flow};
pub use beam::{Beam, TreeShape};
pub use bridge::{Bridge, Edit};
pub use card::{Caps, Card, Cost};
pub use engine::{Activity, Engine, Generation, ModelFiles, Row, Session, Written};
pub use error::{Error, Result};
pub use exp::exp;
pub use guard::{guard, is_guarded};
pub use guide::{Grammar, Guide, Mask, Matcher, Next};
pub use handover::{Rule, SKIP_REPETITIONS, THRESHOLD, WINDOW, Window, WindowState, repeats};
pub use head::{Head, Heads};
pub use inputs::Input;
pub use job::{Job, MAX_TOKENS, STOP, TERMS, Terms};
pub use layer::Layer;
pub use logits::{log_softmax, logprob, logprob_top, top_tokens};
pub use look::{LOOK_CONFIDENCE, LOOK_EVERY, LOOK_PHRASES, LOOK_TOKENS, LOOK_WITHIN, SECOND_LOOK};
pub use models::Models;
pub use profile::{Profile, StepTime};
pub use sampling::{
    Breakers, Candidates, DRY_ALLOWED_LENGTH, DRY_BASE, DRY_MULTIPLIER, DRY_PENALTY_LAST_N, DRY_SEQUENCE_BREAKERS, Dry,
    FREQUENCY_PENALTY, MIN_P, PRESENCE_PENALTY, REPETITION_PENALTY, SAMPLING, SEED, Sampling, TEMPERATURE, TOP_K,
    TOP_N_SIGMA, TOP_P, TYPICAL_P, XTC_PROBABILITY, XTC_THRESHOLD, pick, pick_allowed, pick_candidates,
};
pub use scope::Scope;
pub use scorers::{Rating, Ratings, SCORERS, STEP_COMMAND, StepScorer, find_scorer};
pub use seat::{Author, Seat};
pub use settings::{Kind, Setting, Value};
pub use source::Source;
pub use speculation::SPECULATE;
pub use spelling::{known_names, nearest};
pub use splitmix::splitmix64;
pub use stops::{StopMatch, Stops};
pub use strategies::{
    ALIGNER_TEMPERATURE, BASE_TEMPERATURE, BASE_TOP_K, BASE_TOP_P, BLEND_THRESHOLD, CANDIDATES, CHUNK_TOKENS,
    HAND_OVER, HEAD_DEPTH, HEAD_LEAST, HEAD_NODES, HEAD_WIDTH, KL_GATE, MAX_DRAFT_TOKENS, MAX_STEP_TOKENS, MIX_RULE,
    MIX_WEIGHT, NUDGE_THRESHOLD, ON_DRAFT_END, PLAUSIBILITY, RECIPES, REJECTION_LEVEL, REJECTION_RULE, RESIDUAL_MODE,
    REWARD_CRITERION, REWARD_SHARE, REWARD_SLOPE, REWARD_THRESHOLD, STEP_END, STEP_SCORER, STRATEGY, strategy_settings,
};
pub use strategy::{Need, Recipe, Strategy, run};
pub use switch::{
    ALTERNATIVES, FeatureWindow, Features, LEARNED_AGREEMENT, LEARNED_BIAS, LEARNED_CONFIDENCE, LEARNED_ENTROPY,
    LearnedSwitch, SWITCH_RULE,
};
pub use text::{
    BosTokens, CallFormat, ChatInputs, ChatRole, ChatTemplate, Detokenizer, HfTokenizer, Message, PLAIN_STOPS, Part,
    Prompt, Rendered, Reply, Specials, Template, TemplateVariables, TextCodec, Tokenizer, ToolCall, Tools, Vocabulary,
    check_tokenizer, token_bytes,
};
pub use tokens::{MAX_TOKENS_LIMIT, Sampled, Step, Stop, Token, common_prefix};
pub use trace::{
    Call, CallKind, Completion, DraftEnd, Event, FinishReason, Handover, Look, Proposed, SecondsBySeat, Timings,
    TokenRecord, TokensByAuthor, Trace, Usage, Work,
};
pub use tree::Tree;
pub use values::{FromValue, Values};
