//! A server that answers at once, to measure what stands before it: `cargo run --release -p wsd --example stand_in -- 9000 0`.
//!
//! It talks like vLLM, has the tokenizer of `models/base`, and writes the same answer each time; the second argument is
//! the pause before each token in milliseconds. See `scripts/gateway.sh`.

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

/// A model that computes nothing: it writes one text over and over, and is sure of it from the thirteenth token on.
struct Instant {
    card: Card,
    text: TextCodec,
    answer: Arc<[Token]>,
}

struct Open {
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
        &self.text
    }

    async fn open(&self, tokens: &[Token]) -> Result<Box<dyn Session>> {
        Ok(Box::new(Open { tokens: tokens.to_vec(), prompt: tokens.len(), answer: self.answer.clone() }))
    }
}

impl Open {
    fn at(&self, position: usize) -> Sampled {
        let logprob = if position % 64 < 12 { -1.0 } else { -0.01 };
        Sampled { token: self.answer[position % self.answer.len()], logprob, top: Vec::new() }
    }
}

#[async_trait]
impl Session for Open {
    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn tokens_mut(&mut self) -> &mut Vec<Token> {
        &mut self.tokens
    }

    fn generate<'a>(&'a mut self, plan: &'a Generation) -> BoxStream<'a, Result<Step>> {
        let tokens = (0..plan.max_tokens).map(|i| Ok(Step::Token(self.at(self.prompt + i))));
        stream::iter(tokens.chain([Ok(Step::End(Stop::Length))]).collect::<Vec<_>>()).boxed()
    }

    async fn score(&mut self, from: usize) -> Result<Vec<f64>> {
        Ok((from..self.tokens.len()).map(|position| self.at(position).logprob).collect())
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
    let text = Checkpoint::open_text(&folder).unwrap().into_text("instant", &TemplateChoice::Plain).unwrap();
    let answer = text.tokenizer().encode("A fox is red. It lives in the wood. I am happy to help.").unwrap();
    let card = Card {
        name: "instant".into(),
        max_len: 4096,
        vocab: text.tokenizer().vocabulary().pieces.len(),
        caps: Caps { score: true, logits: false },
        cost: Cost::default(),
        end_tokens: Vec::new(),
    };
    let engine = Arc::new(Instant { card, text, answer: answer.into() });
    let server = StandIn::start_at(([127, 0, 0, 1], port).into(), Kind::Vllm, engine, pause).await.without_records();
    println!("listening on {}", server.url());
    let _ = tokio::signal::ctrl_c().await;
}
