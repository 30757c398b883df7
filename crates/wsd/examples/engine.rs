//! An engine of one's own: a bigram model over letters that serves as draft and as base.
//!
//! ```sh
//! cargo run --release -p wsd --example engine
//! ```
//!
//! An `Engine` opens sessions; a `Session` is a list of tokens that can be edited, continued and
//! scored. This one computes everything from counts of letter pairs, so it needs no KV cache.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use wsd_core::scripted::{BEGIN, Pieces};
use wsd_core::{
    BosTokens, Caps, Card, Cost, Engine, Generation, Job, Models, Prompt, Recipe, Row, Sampling, Seat, Session, Step,
    Stop, THRESHOLD, Template, Terms, TextCodec, Token, Tokenizer as _, Trace, Values, WINDOW, log_softmax, logprob,
    pick, run,
};

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz .";

struct Bigram {
    card: Card,
    codec: TextCodec,
    rows: Arc<Rows>,
}

/// A row of logits for each token that may come before.
struct Rows(Vec<Row>);

impl Bigram {
    /// Learns the pairs of letters of a text. Pairs that do not occur get a small count.
    fn learn(name: &str, text: &str) -> Result<Self> {
        let pieces = Arc::new(Pieces::letters(LETTERS));
        let vocab = pieces.vocabulary().pieces.len();
        let mut counts = vec![vec![0.01_f32; vocab]; vocab];
        for pair in pieces.encode(text)?.windows(2) {
            counts[pair[0] as usize][pair[1] as usize] += 1.0;
        }
        let rows = counts.into_iter().map(|row| row.into_iter().map(f32::ln).collect()).collect();
        let caps = Caps { score: true, logits: true, ..Caps::GENERATE };
        let card = Card { name: name.into(), max_len: 512, vocab, caps, cost: Cost::default(), end_tokens: Vec::new() };
        let codec = TextCodec::new(name, pieces, Some(Template::Plain), BosTokens { chat: None, raw: Some(BEGIN) });
        Ok(Self { card, codec, rows: Arc::new(Rows(rows)) })
    }
}

#[async_trait]
impl Engine for Bigram {
    fn card(&self) -> &Card {
        &self.card
    }

    fn codec(&self) -> &TextCodec {
        &self.codec
    }

    async fn open(&self, tokens: &[Token]) -> wsd_core::Result<Box<dyn Session>> {
        self.card.check(tokens)?;
        let (card, codec, rows) = (self.card.clone(), self.codec.clone(), self.rows.clone());
        Ok(Box::new(BigramSession { tokens: tokens.to_vec(), card, codec, rows }))
    }
}

struct BigramSession {
    tokens: Vec<Token>,
    card: Card,
    codec: TextCodec,
    rows: Arc<Rows>,
}

impl BigramSession {
    /// The row that predicts the token at a position, which is at least 1.
    fn row(&self, position: usize) -> &Row {
        &self.rows.0[self.tokens[position - 1] as usize]
    }

    /// Generates one token; `None` if the context is full.
    fn step(&mut self, sampling: &Sampling) -> Option<Step> {
        if self.tokens.len() == self.card.max_len {
            return None;
        }
        let mut row = self.row(self.tokens.len()).clone();
        let sampled = pick(&mut row, &self.tokens, sampling)?;
        self.tokens.push(sampled.token);
        Some(Step::Token(sampled))
    }
}

#[async_trait]
impl Session for BigramSession {
    fn card(&self) -> &Card {
        &self.card
    }

    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn tokens_mut(&mut self) -> &mut Vec<Token> {
        &mut self.tokens
    }

    fn generate<'a>(&'a mut self, generation: &'a Generation) -> BoxStream<'a, wsd_core::Result<Step>> {
        let sampling = generation.sampling.spelled_by(&self.codec);
        let tokens = (0..generation.max_tokens).map_while(move |_| self.step(&sampling));
        stream::iter(tokens.chain([Step::End(Stop::Length)]).map(Ok)).boxed()
    }

    async fn score(&mut self, from: usize) -> wsd_core::Result<Vec<f64>> {
        let score = |i: usize| logprob(self.row(i), self.tokens[i]).unwrap_or(f64::NEG_INFINITY);
        Ok((from..self.tokens.len()).map(score).collect())
    }

    async fn logits(&mut self, from: usize) -> wsd_core::Result<Vec<Row>> {
        let mut rows: Vec<_> = (from..=self.tokens.len()).map(|i| self.row(i).clone()).collect();
        for row in &mut rows {
            // Never `None`: all logits are finite.
            let _ = log_softmax(row);
        }
        Ok(rows)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let draft = Bigram::learn("draft", "the cat sat on the mat. the hen ran. ")?;
    let base = Bigram::learn("base", "the moth then went there. the other one went on. ")?;
    let models = Models::default().with(Seat::DRAFT, Arc::new(draft)).with(Seat::BASE, Arc::new(base));
    let sampling = Sampling { temperature: 0.5, ..Sampling::default() };
    let job = Job { prompt: Prompt::Raw("the ".into()), terms: Terms { max_tokens: 50, sampling, ..Terms::default() } };

    // Such a base is never sure of several letters in a row, so it takes over at a low confidence.
    let values = Values::default().with(&WINDOW, 4_usize)?.with(&THRESHOLD, 0.25)?;
    for name in ["draft", "base", "wsd"] {
        let strategy = Recipe::find(name)?.build(&models, &values)?;
        let answer = Trace::collect(run(strategy, job.clone())).await?;
        let by_draft = answer.usage.by_author.get(Seat::DRAFT);
        println!("{name:>5}: the {} ({by_draft} letters by the draft)", answer.text);
    }
    Ok(())
}
