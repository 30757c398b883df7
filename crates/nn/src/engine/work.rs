//! What a session waits for, and how far it has come.

use std::ops::Range;

use tokio::sync::{mpsc, oneshot};
use wsd_core::{Error, Generation, Result, Row, Sampled, Step, Stop, Token, log_softmax, logprob, pick, top_tokens};

/// A question about a token list, on its way through the batch.
pub(super) struct Work {
    /// The session's slot.
    pub(super) slot: u64,
    /// The list, growing at its end while it is being generated.
    pub(super) tokens: Vec<Token>,
    /// The position whose row is needed next; the row at position `i` predicts the token at `i + 1`.
    next_row: usize,
    ask: Ask,
}

enum Ask {
    Score { top: usize, scores: Vec<Sampled>, reply: oneshot::Sender<Result<Vec<Sampled>>> },
    Logits { rows: Vec<Row>, reply: oneshot::Sender<Result<Vec<Row>>> },
    Choices { plan: Generation, choices: Vec<Step>, reply: oneshot::Sender<Result<Vec<Step>>> },
    Generate { plan: Generation, left: usize, reply: mpsc::Sender<Result<Step>> },
}

/// What a row of logits leads to; computed for many rows at once, then applied in order.
pub(super) enum Outcome {
    Score(Sampled),
    Row(Row),
    Token(Sampled),
    NotFinite,
}

impl Work {
    pub(super) fn score(
        slot: u64,
        tokens: Vec<Token>,
        from: usize,
        top: usize,
        reply: oneshot::Sender<Result<Vec<Sampled>>>,
    ) -> Self {
        Self { slot, tokens, next_row: from - 1, ask: Ask::Score { top, scores: Vec::new(), reply } }
    }

    pub(super) fn logits(slot: u64, tokens: Vec<Token>, from: usize, reply: oneshot::Sender<Result<Vec<Row>>>) -> Self {
        Self { slot, tokens, next_row: from - 1, ask: Ask::Logits { rows: Vec::new(), reply } }
    }

    pub(super) fn choices(
        slot: u64,
        tokens: Vec<Token>,
        from: usize,
        plan: Generation,
        reply: oneshot::Sender<Result<Vec<Step>>>,
    ) -> Self {
        Self { slot, tokens, next_row: from - 1, ask: Ask::Choices { plan, choices: Vec::new(), reply } }
    }

    pub(super) fn generate(
        slot: u64,
        tokens: Vec<Token>,
        plan: Generation,
        max_len: usize,
        reply: mpsc::Sender<Result<Step>>,
    ) -> Self {
        let left = plan.max_tokens.min(max_len.saturating_sub(tokens.len()));
        Self { slot, next_row: tokens.len() - 1, tokens, ask: Ask::Generate { plan, left, reply } }
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match &self.ask {
            Ask::Score { reply, .. } => reply.is_closed(),
            Ask::Logits { reply, .. } => reply.is_closed(),
            Ask::Choices { reply, .. } => reply.is_closed(),
            Ask::Generate { reply, .. } => reply.is_closed(),
        }
    }

    /// Whether the reader has fallen so far behind that the next token would have nowhere to go.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(&self.ask, Ask::Generate { reply, .. } if reply.capacity() == 0)
    }

    /// The tokens that need not be run where they are cached. A row is not kept, so those of the rows to come are run anew.
    pub(super) fn before_rows(&self) -> &[Token] {
        &self.tokens[..self.next_row]
    }

    /// The end of the positions to run for the rows still needed.
    pub(super) fn end(&self) -> usize {
        match &self.ask {
            // The last token need not be run to be scored.
            Ask::Score { .. } => self.tokens.len() - 1,
            Ask::Logits { .. } | Ask::Choices { .. } | Ask::Generate { .. } => self.tokens.len(),
        }
    }

    /// The rows to return of a span of positions.
    pub(super) fn rows(&self, span: Range<usize>) -> Range<usize> {
        self.next_row.clamp(span.start, span.end)..span.end
    }

    /// What the row at `next_row + ahead` leads to. The row is used as scratch.
    pub(super) fn outcome(&self, ahead: usize, logits: &mut [f32]) -> Outcome {
        let outcome = match &self.ask {
            Ask::Score { top, .. } => {
                let token = self.tokens[self.next_row + ahead + 1];
                let scored = logprob(logits, token).zip(top_tokens(logits, *top));
                scored.map(|(logprob, top)| Outcome::Score(Sampled { token, logprob: Some(logprob), top }))
            }
            Ask::Logits { .. } => log_softmax(logits).map(|()| Outcome::Row(logits.to_vec())),
            Ask::Choices { plan, .. } | Ask::Generate { plan, .. } => {
                let top = top_tokens(logits, plan.top_logprobs);
                let sampled = pick(logits, &self.tokens[..=self.next_row + ahead], &plan.sampling);
                sampled.zip(top).map(|(sampled, top)| Outcome::Token(Sampled { top, ..sampled }))
            }
        };
        outcome.unwrap_or(Outcome::NotFinite)
    }

    /// Take in the outcome of the next row; gives the work back while it is not done.
    pub(super) fn apply(mut self, outcome: Outcome, engine: &str, end_tokens: &[Token]) -> Option<Self> {
        self.next_row += 1;
        match (&mut self.ask, outcome) {
            (Ask::Score { scores, .. }, Outcome::Score(score)) => scores.push(score),
            (Ask::Logits { rows, .. }, Outcome::Row(row)) => rows.push(row),
            (Ask::Choices { choices, .. }, Outcome::Token(sampled)) => {
                let is_end = end_tokens.contains(&sampled.token);
                choices.push(if is_end { Step::End(Stop::End) } else { Step::Token(sampled) });
            }
            (Ask::Generate { left, reply, .. }, Outcome::Token(sampled)) => {
                if end_tokens.contains(&sampled.token) {
                    let _ = reply.try_send(Ok(Step::End(Stop::End)));
                    return None;
                }
                self.tokens.push(sampled.token);
                *left -= 1;
                let _ = reply.try_send(Ok(Step::Token(sampled)));
            }
            _ => {
                let position = self.next_row;
                self.fail(Error::NotFinite { engine: engine.to_owned(), position });
                return None;
            }
        }
        self.finish_if_done()
    }

    /// Send the answer if nothing is left to compute; gives the work back otherwise.
    pub(super) fn finish_if_done(self) -> Option<Self> {
        let done = match &self.ask {
            Ask::Generate { left, .. } => *left == 0,
            _ => self.next_row >= self.end(),
        };
        if !done {
            return Some(self);
        }
        match self.ask {
            Ask::Score { scores, reply, .. } => drop(reply.send(Ok(scores))),
            Ask::Logits { rows, reply } => drop(reply.send(Ok(rows))),
            Ask::Choices { choices, reply, .. } => drop(reply.send(Ok(choices))),
            // The reader may be far behind and the channel full: then this last item is left out, and the channel's end
            // says the same.
            Ask::Generate { reply, .. } => drop(reply.try_send(Ok(Step::End(Stop::Length)))),
        }
        None
    }

    /// End with an error.
    pub(super) fn fail(self, error: Error) {
        match self.ask {
            Ask::Score { reply, .. } => drop(reply.send(Err(error))),
            Ask::Logits { reply, .. } => drop(reply.send(Err(error))),
            Ask::Choices { reply, .. } => drop(reply.send(Err(error))),
            Ask::Generate { reply, .. } => drop(reply.try_send(Err(error))),
        }
    }
}
