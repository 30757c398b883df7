//! A server that answers without computing, to measure the overhead of a gateway in front of it:
//! `cargo run --release -p wsd --example stand_in -- 9000 0`.
//!
//! It speaks vLLM's dialect, has the tokenizer of `models/base` and always writes the same answer.
//! The arguments are its port and the pause before each token in milliseconds. See
//! `scripts/gateway.sh`.

#![allow(clippy::unwrap_used, reason = "a tool for measuring fails by panicking")]

#[path = "../tests/support/stand_in.rs"]
mod stand_in;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use stand_in::{Kind, StandIn};
use wsd_core::{Caps, Card, Cost, Engine, Generation, Result, Row, Sampled, Session, Step, Stop, TextCodec, Token};
use wsd_nn::{Checkpoint, TemplateChoice};

/// A model that computes nothing: it repeats one text, with a high probability from its 13th token
/// on.
struct Instant {
    card: Card,
    codec: TextCodec,
    answer: Arc<[Token]>,
}

struct InstantSession {
    card: Card,
    tokens: Vec<Token>,
    prompt: usize,
    answer: Arc<[Token]>,
}

#[async_trait]
impl Engine for Instant {
    fn card(&self) -> &Card {
        &self.card
    }

    fn codec(&self) -> &TextCodec {
        &self.codec
    }

    async fn open(&self, tokens: &[Token]) -> Result<Box<dyn Session>> {
        let (card, answer) = (self.card.clone(), self.answer.clone());
        Ok(Box::new(InstantSession { card, tokens: tokens.to_vec(), prompt: tokens.len(), answer }))
    }
}

/// The log-probability of the token at a position: low for the first 12 of every 64.
fn logprob(position: usize) -> f64 {
    if position % 64 < 12 { -1.0 } else { -0.01 }
}

impl InstantSession {
    fn sampled(&self, position: usize) -> Sampled {
        let token = self.answer[position % self.answer.len()];
        Sampled { token, logprob: Some(logprob(position)), top: Vec::new() }
    }
}

#[async_trait]
impl Session for InstantSession {
    fn card(&self) -> &Card {
        &self.card
    }

    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn tokens_mut(&mut self) -> &mut Vec<Token> {
        &mut self.tokens
    }

    fn generate<'a>(&'a mut self, generation: &'a Generation) -> BoxStream<'a, Result<Step>> {
        let tokens = (0..generation.max_tokens).map(|i| Ok(Step::Token(self.sampled(self.prompt + i))));
        stream::iter(tokens.chain([Ok(Step::End(Stop::Length))]).collect::<Vec<_>>()).boxed()
    }

    async fn score(&mut self, from: usize) -> Result<Vec<f64>> {
        Ok((from..self.tokens.len()).map(logprob).collect())
    }

    async fn logits(&mut self, _from: usize) -> Result<Vec<Row>> {
        Ok(Vec::new())
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().unwrap_or_else(|| "9000".into()).parse().unwrap();
    let pause = Duration::from_millis(arguments.next().unwrap_or_else(|| "0".into()).parse().unwrap());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base");
    let codec = Checkpoint::open_text(&folder).unwrap().into_codec("instant", &TemplateChoice::Plain).unwrap();
    let answer = codec.tokenizer().encode("A fox is red. It lives in the wood. I am happy to help.").unwrap();
    let card = Card {
        name: "instant".into(),
        max_len: 4096,
        vocab: codec.tokenizer().vocabulary().pieces.len(),
        caps: Caps { score: true, ..Caps::GENERATE },
        cost: Cost::default(),
        end_tokens: Vec::new(),
    };
    let engine = Arc::new(Instant { card, codec, answer: answer.into() });
    let server = StandIn::start_at(([127, 0, 0, 1], port).into(), Kind::Vllm, engine, pause).await.without_records();
    println!("listening on {}", server.url());
    let _ = tokio::signal::ctrl_c().await;
}
