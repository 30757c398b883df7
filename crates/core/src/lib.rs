//! Weak-to-Strong Decoding (arXiv 2506.07434): a small aligned *draft* model opens the answer, a large *base* model scores
//! each drafted token and takes over as soon as it is confident.
//!
//! This crate holds the method and nothing heavy: [`Engine`] and [`Session`] (a token list that you may edit, then ask
//! about), the switch rule ([`Rule`]), the [`Bridge`] between vocabularies, and the table of strategies ([`RECIPES`]).
//! It has no tensors and no network; [`scripted`] is a tiny engine to try everything on.

mod answer;
mod bridge;
mod engine;
mod error;
mod exp;
mod guard;
mod handover;
mod sampling;
pub mod scripted;
mod splitmix;
mod stops;
mod strategies;
mod strategy;
mod text;
mod trace;

pub use answer::{Answer, Flow};
pub use bridge::{Bridge, Edit};
pub use engine::{Activity, Caps, Card, Cost, Engine, Generation, Role, Row, Sampled, Session, Step, Stop, Token};
pub use error::{Error, Result};
pub use exp::exp;
pub use guard::{guard, is_guarded};
pub use handover::{Rule, Window, WindowState};
pub use sampling::{Sampling, likeliest, log_softmax, logprob, pick};
pub use splitmix::splitmix64;
pub use stops::{StopMatch, Stops};
pub use strategy::{Job, Models, OnDraftEnd, Options, RECIPES, Recipe, Strategy, run};
pub use text::{
    ChatRole, ChatTemplate, Detokenizer, HfTokenizer, Message, PLAIN_STOPS, Prompt, Rendered, Specials, Template,
    TextCodec, Tokenizer, Vocabulary,
};
pub use trace::{Call, CallKind, Completion, Event, FinishReason, Handover, Timings, TokenRecord, Trace, Usage};
